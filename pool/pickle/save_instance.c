/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * save_instance.c - instances of ordinary classes, without asking them.
 *
 * What object.__reduce_ex__ answers for an instance that overrides nothing of the protocol is always the same:
 * (copyreg.__newobj__, (class,), __dict__, None, None). The first instance of a class is asked and its answer checked
 * to have that form; for the others the same bytes are written straight from the __dict__, as long as the class and its
 * bases have not changed (type_version.h). Anything out of the ordinary goes the long way.
 */
#include "encoder.h"
#include "type_version.h"

static struct shoal_plain_type *entry_of(struct shoal_pickle_state *state, PyTypeObject *type)
{
    return &state->plain_types[((uintptr_t)type >> 5) % SHOAL_PLAIN_TYPES];
}

static bool inherits(PyTypeObject *type, PyObject *name, PyObject *from_object)
{
    return _PyType_Lookup(type, name) == from_object;
}

/* Does it leave everything about pickling to object? */
static bool overrides_nothing(struct shoal_pickle_state *state, PyTypeObject *type)
{
    const struct shoal_state_names *names = &state->names;
    if (type->tp_getattro != PyObject_GenericGetAttr || type->tp_itemsize || !type->tp_dictoffset ||
        PyType_HasFeature(type, Py_TPFLAGS_LIST_SUBCLASS | Py_TPFLAGS_DICT_SUBCLASS))
        return false;
    PyObject *class_attribute = _PyType_Lookup(&PyBaseObject_Type, names->class_);
    return inherits(type, names->reduce_ex, state->writer.object_reduce_ex) &&
           inherits(type, names->reduce, state->writer.object_reduce) &&
           inherits(type, names->getstate, state->writer.object_getstate) &&
           inherits(type, names->getnewargs, NULL) && inherits(type, names->getnewargs_ex, NULL) &&
           inherits(type, names->class_, class_attribute);
}

/* New reference to its non-empty __dict__, in which nothing stands in for a method; NULL without an exception. */
static PyObject *ordinary_dict(const struct shoal_state_names *names, PyObject *obj)
{
    PyObject *dict = PyObject_GenericGetDict(obj, NULL);
    if (dict && PyDict_CheckExact(dict) && PyDict_GET_SIZE(dict) > 0 &&
        !PyDict_GetItemWithError(dict, names->reduce_ex) && !PyDict_GetItemWithError(dict, names->reduce) &&
        !PyDict_GetItemWithError(dict, names->getstate))
        return dict;
    PyErr_Clear();
    Py_XDECREF(dict);
    return NULL;
}

/* The bytes of (copyreg.__newobj__, (class,), dict): as shoal__save_reduced writes them. */
static int save_plain(struct shoal_encoder *e, PyObject *obj, PyObject *dict)
{
    const uint8_t made[] = {OP_EMPTY_TUPLE, OP_NEWOBJ};
    if (shoal__save(e, (PyObject *)Py_TYPE(obj)) < 0 || shoal__raw(e, made, sizeof made) < 0)
        return -1;
    int64_t index = shoal__find(e, obj);
    if (index >= 0) /* its own class has led to it */
        return shoal__op(e, OP_POP) < 0 ? -1 : shoal__get_index(e, index);
    if (shoal__put(e, obj) < 0)
        return -1;
    if (shoal__save(e, dict) < 0) {
        shoal__path_step(e, "state", obj, NULL);
        return -1;
    }
    return shoal__op(e, OP_BUILD);
}

/* No slots: their values would be part of the answer. copyreg has just left their names in the class's own dict. */
static bool has_no_slots(const struct shoal_state_names *names, PyTypeObject *type)
{
#if PY_VERSION_HEX >= 0x030C0000
    PyObject *dict = PyType_GetDict(type);
#else
    PyObject *dict = Py_XNewRef(type->tp_dict);
#endif
    PyObject *slots = dict ? PyDict_GetItemWithError(dict, names->slotnames) : NULL; /* borrowed */
    bool none = slots && PyList_CheckExact(slots) && PyList_GET_SIZE(slots) == 0;
    PyErr_Clear();
    Py_XDECREF(dict);
    return none;
}

static bool is_usual_answer(struct shoal_pickle_state *state, PyObject *value, PyObject *obj, PyObject *dict)
{
    if (!PyTuple_CheckExact(value) || PyTuple_GET_SIZE(value) != 5 ||
        PyTuple_GET_ITEM(value, 0) != state->writer.newobj_function || PyTuple_GET_ITEM(value, 2) != dict ||
        PyTuple_GET_ITEM(value, 3) != Py_None || PyTuple_GET_ITEM(value, 4) != Py_None)
        return false;
    PyObject *arguments = PyTuple_GET_ITEM(value, 1);
    return PyTuple_CheckExact(arguments) && PyTuple_GET_SIZE(arguments) == 1 &&
           PyTuple_GET_ITEM(arguments, 0) == (PyObject *)Py_TYPE(obj);
}

void shoal__learn_instance(struct shoal_encoder *e, PyObject *obj, PyObject *value)
{
    PyTypeObject *type = Py_TYPE(obj);
    if (e->protocol < 2 || !overrides_nothing(e->state, type))
        return;
    PyObject *dict = ordinary_dict(&e->state->names, obj);
    if (!dict)
        return;
    if (is_usual_answer(e->state, value, obj, dict) && has_no_slots(&e->state->names, type))
        *entry_of(e->state, type) = (struct shoal_plain_type){type, shoal__type_version(e->state, type)};
    Py_DECREF(dict);
}

int shoal__save_instance(struct shoal_encoder *e, PyObject *obj)
{
    PyTypeObject *type = Py_TYPE(obj);
    const struct shoal_plain_type *entry = entry_of(e->state, type);
    if (entry->type != type || entry->version == 0 || entry->version != shoal__type_version(e->state, type) ||
        e->protocol < 2 || e->hooks.persistent_id)
        return 0;
    PyObject *dict = ordinary_dict(&e->state->names, obj);
    if (!dict)
        return 0;
    int result = save_plain(e, obj, dict);
    Py_DECREF(dict);
    return result < 0 ? -1 : 1;
}

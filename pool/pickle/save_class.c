/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * save_class.c - classes that cannot be imported, by value.
 *
 * As with functions, in two steps, because methods refer to their class:
 *
 *   shoal._rebuild._class(metaclass, name, bases, namespace, identity)       and from here on it is in the memo
 *   shoal._rebuild._fill_class(class, attributes, stamp, abc registrations)
 *
 * The first namespace has what a class must be born with: __module__, __qualname__, __slots__, __orig_bases__, and what
 * could not be set afterwards. The
 * attributes follow in the order in which the class has them. What the new class makes by itself is left out: slot
 * descriptors, __dict__, __weakref__, _abc_impl.
 *
 * A class keeps the identity that it gets when it is first sent. Where a class of that identity lives already, _class
 * gives that one, and _fill_class changes it only if the stamp says that it was changed at the source since.
 */
#include "encoder.h"

struct class_parts {
    PyObject *born_with;  /* dict */
    PyObject *attributes; /* dict */
    PyObject *identity;   /* bytes */
    PyObject *stamp;      /* int */
    PyObject *registered; /* list: classes registered with an ABC, or NULL */
};

static void parts_clear(struct class_parts *parts)
{
    Py_CLEAR(parts->born_with);
    Py_CLEAR(parts->attributes);
    Py_CLEAR(parts->identity);
    Py_CLEAR(parts->stamp);
    Py_CLEAR(parts->registered);
}

PyObject *shoal__rebuild_helper(PyObject **slot, const char *name)
{
    if (!*slot)
        *slot = shoal_pickle__import("shoal._rebuild", name);
    return *slot;
}

/* ---- what a class consists of ---- */

/* Not every key is interned. */
static bool is_name(PyObject *key, PyObject *name)
{
    return key == name || (PyUnicode_Check(key) && PyUnicode_Compare(key, name) == 0);
}

/*
 * Must it be in the namespace that the class is made from? Besides what says so above, any name that the metaclass
 * keeps to itself: a property `__class__` or `__name__` in a class body is one for the instances, while setting it on
 * the finished class would mean the class's own.
 */
static bool is_born_with(const struct shoal_state_names *names, PyObject *class, PyObject *key)
{
    if (is_name(key, names->module) || is_name(key, names->slots) || is_name(key, names->orig_bases) ||
        is_name(key, names->qualname))
        return true;
    if (!PyUnicode_CheckExact(key))
        return false;
    PyObject *described = _PyType_Lookup(Py_TYPE(class), key); /* borrowed */
    if (!described || !Py_TYPE(described)->tp_descr_set)
        return false;
    return !is_name(key, names->doc) && !is_name(key, names->annotations) && !is_name(key, names->type_params) &&
           PyUnicode_CompareWithASCIIString(key, "__abstractmethods__") != 0;
}

static bool makes_itself(const struct shoal_state_names *names, PyObject *class, PyObject *key, PyObject *value)
{
    if (is_name(key, names->abc_impl) || is_name(key, names->slotnames))
        return true;
    PyTypeObject *kind = Py_TYPE(value);
    /* A dataclass with slots still has the descriptors of the class that it was made from. */
    if (kind == &PyGetSetDescr_Type && (is_name(key, names->weakref) || is_name(key, names->dict)))
        return true;
    return (kind == &PyMemberDescr_Type || kind == &PyGetSetDescr_Type) && PyDescr_TYPE(value) == (PyTypeObject *)class;
}

static int sort_attributes(struct shoal_encoder *e, PyObject *class, struct class_parts *parts)
{
    const struct shoal_state_names *names = &e->state->names;
#if PY_VERSION_HEX >= 0x030C0000
    PyObject *dict = PyType_GetDict((PyTypeObject *)class);
#else
    PyObject *dict = Py_XNewRef(((PyTypeObject *)class)->tp_dict);
#endif
    PyObject *key, *value;
    Py_ssize_t position = 0;
    int result = dict ? 0 : -1;
    while (result == 0 && PyDict_Next(dict, &position, &key, &value)) {
        if (makes_itself(names, class, key, value))
            continue;
        result = PyDict_SetItem(is_born_with(names, class, key) ? parts->born_with : parts->attributes, key, value);
    }
    Py_XDECREF(dict);
    return result;
}

/* The classes that were registered with an ABC and live. */
static int list_registered(PyObject *class, struct class_parts *parts)
{
    PyObject *get_dump = shoal_pickle__import("_abc", "_get_dump");
    PyObject *dump = get_dump ? PyObject_CallOneArg(get_dump, class) : NULL;
    Py_XDECREF(get_dump);
    PyObject *iterator = dump ? PyObject_GetIter(PyTuple_GET_ITEM(dump, 0)) : NULL;
    Py_XDECREF(dump);
    parts->registered = PyList_New(0);
    PyObject *reference;
    int result = iterator && parts->registered ? 0 : -1;
    while (result == 0 && (reference = PyIter_Next(iterator))) {
        PyObject *registered = PyObject_CallNoArgs(reference);
        Py_DECREF(reference);
        if (!registered)
            result = -1;
        else if (registered != Py_None)
            result = PyList_Append(parts->registered, registered);
        Py_XDECREF(registered);
    }
    Py_XDECREF(iterator);
    return PyErr_Occurred() ? -1 : result;
}

static int take_apart(struct shoal_encoder *e, PyObject *class, struct class_parts *parts)
{
    const struct shoal_state_names *names = &e->state->names;
    parts->born_with = PyDict_New();
    parts->attributes = PyDict_New();
    if (!parts->born_with || !parts->attributes || sort_attributes(e, class, parts) < 0)
        return -1;
    PyObject *qualname = ((PyHeapTypeObject *)class)->ht_qualname;
    if (PyDict_SetItem(parts->born_with, names->qualname, qualname) < 0)
        return -1;
    if (_PyType_Lookup((PyTypeObject *)class, names->abc_impl) && list_registered(class, parts) < 0)
        return -1;
    PyObject *get_record = shoal__rebuild_helper(&e->state->writer.class_record, "_class_record");
    PyObject *record = get_record ? PyObject_CallOneArg(get_record, class) : NULL;
    if (!record)
        return -1;
    int result = -1;
    if (PyTuple_Check(record) && PyTuple_GET_SIZE(record) == 2) {
        parts->identity = Py_NewRef(PyTuple_GET_ITEM(record, 0));
        parts->stamp = Py_NewRef(PyTuple_GET_ITEM(record, 1));
        result = 0;
    } else {
        PyErr_SetString(PyExc_TypeError, "_class_record must return (identity, stamp)");
    }
    Py_DECREF(record);
    return result;
}

/* ---- writing it ---- */

/* The second step, for the class that is on top of the stack and in the memo. Takes the attributes one by one so that
 * an error can say which. */
static int save_attributes(struct shoal_encoder *e, PyObject *class, PyObject *attributes)
{
    if (shoal__empty_dict(e) < 0)
        return -1;
    if (e->binary && shoal__op(e, OP_MARK) < 0)
        return -1;
    PyObject *key, *value;
    Py_ssize_t position = 0;
    while (PyDict_Next(attributes, &position, &key, &value)) { /* our own dict: nobody changes it */
        if (shoal__save(e, key) < 0 || shoal__save(e, value) < 0) {
            shoal__path_add(e, "attribute %R of class '%U'", key, ((PyHeapTypeObject *)class)->ht_qualname);
            return -1;
        }
        if (!e->binary && shoal__op(e, OP_SETITEM) < 0)
            return -1;
    }
    return e->binary ? shoal__op(e, OP_SETITEMS) : 0;
}

static int save_second_step(struct shoal_encoder *e, PyObject *class, const struct class_parts *parts)
{
    int n = parts->registered && PyList_GET_SIZE(parts->registered) > 0 ? 4 : 3;
    if (shoal__save_rebuilder(e, REBUILD_FILL_CLASS) < 0 || shoal__begin_tuple(e, n) < 0 ||
        shoal__save(e, class) < 0 || save_attributes(e, class, parts->attributes) < 0 ||
        shoal__save(e, parts->stamp) < 0)
        return -1;
    if (n == 4 && shoal__save(e, parts->registered) < 0)
        return -1;
    if (shoal__end_tuple(e, n) < 0 || shoal__op(e, OP_REDUCE) < 0)
        return -1;
    return shoal__op(e, OP_POP);
}

static int save_ordinary(struct shoal_encoder *e, PyObject *class, const struct class_parts *parts)
{
    PyObject *name = ((PyHeapTypeObject *)class)->ht_name;
    PyObject *arguments = PyTuple_Pack(5, (PyObject *)Py_TYPE(class), name, ((PyTypeObject *)class)->tp_bases,
                                       parts->born_with, parts->identity);
    if (shoal__save_rebuilt(e, REBUILD_CLASS, arguments, class) < 0)
        return -1;
    return save_second_step(e, class, parts);
}

/* An enum is born with its members; shoal._rebuild says what else is left of its attributes then. */
static int save_enum(struct shoal_encoder *e, PyObject *class, struct class_parts *parts)
{
    PyObject *describe = shoal__rebuild_helper(&e->state->writer.describe_enum, "_describe_enum");
    PyObject *both = describe ? PyObject_CallFunctionObjArgs(describe, class, parts->born_with, parts->attributes,
                                                             parts->identity, NULL)
                              : NULL;
    if (!both)
        return -1;
    int result = -1;
    if (PyTuple_Check(both) && PyTuple_GET_SIZE(both) == 2 && PyDict_CheckExact(PyTuple_GET_ITEM(both, 1))) {
        Py_SETREF(parts->attributes, Py_NewRef(PyTuple_GET_ITEM(both, 1)));
        result = shoal__save_rebuilt(e, REBUILD_ENUM, Py_NewRef(PyTuple_GET_ITEM(both, 0)), class);
    } else {
        PyErr_SetString(PyExc_TypeError, "_describe_enum must return (arguments, attributes)");
    }
    Py_DECREF(both);
    return result < 0 ? -1 : save_second_step(e, class, parts);
}

static int is_enum(PyObject *class)
{
    PyObject *enum_module = PyDict_GetItemString(PyImport_GetModuleDict(), "enum"); /* borrowed */
    if (!enum_module)
        return 0; /* nobody has made an enum yet */
    PyObject *meta = PyObject_GetAttrString(enum_module, "EnumMeta");
    int result = meta ? PyObject_IsInstance(class, meta) : -1;
    Py_XDECREF(meta);
    return result;
}

/* Types of the interpreter that do not say where they can be found. 1: written; 0: not one of them; -1. */
static int save_builtin_type(struct shoal_encoder *e, PyObject *class)
{
    PyObject *place = PyDict_GetItemWithError(e->state->writer.builtin_types, class); /* borrowed */
    if (!place)
        return PyErr_Occurred() ? -1 : 0;
    return shoal__save_named(e, class, PyTuple_GET_ITEM(place, 0), PyTuple_GET_ITEM(place, 1)) < 0 ? -1 : 1;
}

int shoal__save_class(struct shoal_encoder *e, PyObject *class)
{
    int builtin = save_builtin_type(e, class);
    if (builtin != 0)
        return builtin < 0 ? -1 : 0;
    PyTypeObject *type = (PyTypeObject *)class;
    if (!PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE) || PyType_HasFeature(type, Py_TPFLAGS_IMMUTABLETYPE))
        return shoal__save_global(e, class, NULL); /* made in C: pickle's own complaint is the right one */
    struct class_parts parts = {0};
    int result = take_apart(e, class, &parts);
    if (result == 0) {
        int enumeration = is_enum(class);
        if (enumeration < 0)
            result = -1;
        else
            result = enumeration ? save_enum(e, class, &parts) : save_ordinary(e, class, &parts);
    }
    parts_clear(&parts);
    return result;
}

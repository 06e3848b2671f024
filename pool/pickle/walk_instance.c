/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * walk_instance.c - what an object is that is none of the built-in kinds, as a number: a part of class_digest.c.
 *
 * The digest of a class runs no code: of an instance it looks at the attributes, of what C keeps inside only at the
 * type. The order of a set may ask: an object that has a __reduce__ of its own, or is made in C, counts by what that
 * says (dates, decimals, patterns, partial objects, paths).
 */
#include "class_walk.h"

#include <structmember.h>

/* Where a class keeps the hash of its instances, as paths do: of another seed, another number. */
static bool is_hash(PyObject *name)
{
    return PyUnicode_CompareWithASCIIString(name, "_hash") == 0;
}

static uint64_t walk_slots(struct walk *w, PyObject *obj)
{
    uint64_t sum = 0;
    PyObject *mro = Py_XNewRef(Py_TYPE(obj)->tp_mro);
    for (Py_ssize_t i = 0; mro && i < PyTuple_GET_SIZE(mro); i++) {
        PyTypeObject *base = (PyTypeObject *)PyTuple_GET_ITEM(mro, i);
        PyObject *names = PyType_HasFeature(base, Py_TPFLAGS_HEAPTYPE) ? ((PyHeapTypeObject *)base)->ht_slots : NULL;
        for (Py_ssize_t j = 0; names && j < PyTuple_GET_SIZE(names); j++) {
            PyObject *described = _PyType_Lookup(base, PyTuple_GET_ITEM(names, j));
            if (!described || !Py_IS_TYPE(described, &PyMemberDescr_Type) || is_hash(PyTuple_GET_ITEM(names, j)))
                continue;
            PyObject *value = PyMember_GetOne((const char *)obj, ((PyMemberDescrObject *)described)->d_member);
            if (value)
                sum += finished(mixed((uint64_t)j + TAG_SLOT, shoal__walk(w, value)));
            else
                PyErr_Clear();
            Py_XDECREF(value);
        }
    }
    Py_XDECREF(mro);
    return sum;
}

static uint64_t digest_of_buffer(PyObject *obj)
{
    Py_buffer view;
    if (PyObject_GetBuffer(obj, &view, PyBUF_SIMPLE) < 0) {
        PyErr_Clear();
        return TAG_BUFFER;
    }
    uint64_t h = digest_of_bytes(TAG_BUFFER, view.buf, (size_t)view.len);
    PyBuffer_Release(&view);
    return h;
}

/* Does it say itself what it is made of, or is it of C and keeps that inside? */
static bool has_own_ways(const struct shoal_pickle_state *state, PyTypeObject *type)
{
    return _PyType_Lookup(type, state->names.reduce_ex) != state->writer.object_reduce_ex ||
           _PyType_Lookup(type, state->names.reduce) != state->writer.object_reduce ||
           _PyType_Lookup(type, state->names.getstate) != state->writer.object_getstate ||
           !PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE);
}

/* What a reducer of its type, or its __reduce__, says: kept, borrowed. NULL: nothing, or nothing but its attributes. */
static PyObject *ask(struct walk *w, PyObject *obj)
{
    PyTypeObject *type = Py_TYPE(obj);
    PyObject *answer = NULL, *reducer = shoal__find_reducer(w->asking, (PyObject *)type);
    if (reducer)
        answer = PyObject_CallOneArg(reducer, obj);
    else if (!PyErr_Occurred() && has_own_ways(w->state, type))
        answer = shoal__reduce_itself(w->asking, obj);
    Py_XDECREF(reducer);
    if (answer)
        return shoal__walk_keep(w, answer);
    if (!PyErr_Occurred() || PyErr_ExceptionMatches(PyExc_Exception))
        PyErr_Clear();
    else
        PyErr_Fetch(&w->error[0], &w->error[1], &w->error[2]);
    return NULL;
}

uint64_t shoal__walk_instance(struct walk *w, PyObject *obj)
{
    PyTypeObject *type = Py_TYPE(obj);
    uint64_t h = mixed(TAG_INSTANCE, w->asking ? shoal__walk(w, (PyObject *)type) : shoal__place_digest(type));
    PyObject *answer = w->asking && !w->error[0] ? ask(w, obj) : NULL;
    if (answer)
        return finished(mixed(h, shoal__walk(w, answer)));
    if (PyType_HasFeature(type, Py_TPFLAGS_LIST_SUBCLASS))
        h = shoal__walk_list(w, h, obj);
    else if (PyType_HasFeature(type, Py_TPFLAGS_TUPLE_SUBCLASS))
        h = shoal__walk_tuple(w, h, obj);
    else if (PyType_HasFeature(type, Py_TPFLAGS_DICT_SUBCLASS))
        h = shoal__walk_dict(w, h, obj);
    else if (PyAnySet_Check(obj))
        h = mixed(h, shoal__walk_set(w, obj));
    else if (PyType_HasFeature(type, Py_TPFLAGS_LONG_SUBCLASS))
        h = mixed(h, shoal__int_digest(obj));
    else if (PyType_HasFeature(type, Py_TPFLAGS_UNICODE_SUBCLASS))
        h = mixed(h, shoal__text_digest(obj));
    else if (type->tp_as_buffer && type->tp_as_buffer->bf_getbuffer && !PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE))
        h = mixed(h, digest_of_buffer(obj));
    if (!PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE))
        return finished(h);
    PyObject *dict = type->tp_dictoffset ? PyObject_GenericGetDict(obj, NULL) : NULL;
    if (!dict)
        PyErr_Clear();
    else if (PyDict_Check(dict) && PyDict_GET_SIZE(dict) > 0)
        h = mixed(h, shoal__walk_dict(w, TAG_DICT, dict));
    Py_XDECREF(dict);
    /* What a dataclass keeps of its fields says nothing that its attributes and methods do not say. */
    if (strcmp(type->tp_name, "Field") != 0 && strcmp(type->tp_name, "_DataclassParams") != 0)
        h = mixed(h, walk_slots(w, obj));
    return finished(h);
}


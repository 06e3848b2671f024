/* SPDX-License-Identifier: BSD-3-Clause */
/* load_build.c - giving an object its state. */
#include "decoder.h"

/* New reference, or NULL: without an exception if there is no such attribute. */
static PyObject *optional_attribute(PyObject *obj, PyObject *name)
{
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *value;
    return PyObject_GetOptionalAttr(obj, name, &value) < 0 ? NULL : value;
#else
    PyObject *value;
    return _PyObject_LookupAttr(obj, name, &value) < 0 ? NULL : value;
#endif
}

static int bad_state(const struct shoal_decoder *decoder, const char *message)
{
    PyErr_SetString(decoder->state->shared.unpickling_error, message);
    return -1;
}

/* Attribute names are interned, as the compiler's are: looking them up is then a comparison of pointers. */
static int set_in_dict(PyObject *dict, PyObject *key, PyObject *value)
{
    Py_INCREF(key);
    Py_INCREF(value);
    if (PyUnicode_CheckExact(key))
        PyUnicode_InternInPlace(&key);
    int result = PyObject_SetItem(dict, key, value);
    Py_DECREF(key);
    Py_DECREF(value);
    return result;
}

static int build_dict(const struct shoal_decoder *decoder, PyObject *obj, PyObject *state)
{
    if (!PyDict_Check(state))
        return bad_state(decoder, "state is not a dictionary");
    PyObject *dict = PyObject_GetAttr(obj, decoder->state->names.dict);
    if (dict == NULL)
        return -1;
    PyObject *key;
    PyObject *value;
    Py_ssize_t position = 0;
    int result = 0;
    while (result == 0 && PyDict_Next(state, &position, &key, &value))
        result = set_in_dict(dict, key, value);
    Py_DECREF(dict);
    return result;
}

static int build_slots(const struct shoal_decoder *decoder, PyObject *obj, PyObject *state)
{
    if (!PyDict_Check(state))
        return bad_state(decoder, "slot state is not a dictionary");
    PyObject *key;
    PyObject *value;
    Py_ssize_t position = 0;
    int result = 0;
    while (result == 0 && PyDict_Next(state, &position, &key, &value)) {
        Py_INCREF(key);
        Py_INCREF(value);
        result = PyObject_SetAttr(obj, key, value);
        Py_DECREF(key);
        Py_DECREF(value);
    }
    return result;
}

/* state is what __getstate__ gave: the object's __dict__, or (that or None, the slots). */
static int build_default(const struct shoal_decoder *decoder, PyObject *obj, PyObject *state)
{
    PyObject *slots = NULL;
    if (PyTuple_Check(state) && PyTuple_GET_SIZE(state) == 2) {
        slots = PyTuple_GET_ITEM(state, 1);
        state = PyTuple_GET_ITEM(state, 0);
    }
    if (state != Py_None && build_dict(decoder, obj, state) < 0)
        return -1;
    return slots != NULL && slots != Py_None ? build_slots(decoder, obj, slots) : 0;
}

/*
 * The usual object: attributes in its __dict__, nothing overridden that has to do with setting them. Attributes can
 * then be set one by one, without user code, and (from 3.11 on) without the dict ever being made.
 */
bool shoal__is_usual(const struct shoal_decoder *decoder, PyTypeObject *type)
{
    if (type->tp_getattro != PyObject_GenericGetAttr || type->tp_setattro != PyObject_GenericSetAttr ||
        type->tp_dictoffset == 0 || _PyType_Lookup(type, decoder->state->names.setstate) != NULL)
        return false;
    PyObject *dict = _PyType_Lookup(type, decoder->state->names.dict);
    return dict != NULL && Py_IS_TYPE(dict, &PyGetSetDescr_Type);
}

/* 1: set; 0: the class has something to say about this attribute; -1. */
static int set_usual(PyObject *obj, PyObject *key, PyObject *value)
{
    if (!PyUnicode_CheckExact(key))
        return 0;
    PyObject *described = _PyType_Lookup(Py_TYPE(obj), key);
    if (described != NULL && Py_TYPE(described)->tp_descr_set != NULL)
        return 0;
    Py_INCREF(key);
    PyUnicode_InternInPlace(&key);
    int result = PyObject_GenericSetAttr(obj, key, value);
    Py_DECREF(key);
    return result < 0 ? -1 : 1;
}

/* 1: done; 0: start again, in the general way; -1. */
static int build_usual(PyObject *obj, PyObject *state)
{
    PyObject *key;
    PyObject *value;
    Py_ssize_t position = 0;
    int result = 1;
    while (result == 1 && PyDict_Next(state, &position, &key, &value))
        result = set_usual(obj, key, value);
    return result;
}

static int build(const struct shoal_decoder *decoder, PyObject *obj, PyObject *state)
{
    PyObject *setstate = optional_attribute(obj, decoder->state->names.setstate);
    if (setstate == NULL)
        return PyErr_Occurred() ? -1 : build_default(decoder, obj, state);
    PyObject *none = PyObject_CallOneArg(setstate, state);
    Py_DECREF(setstate);
    Py_XDECREF(none);
    return none == NULL ? -1 : 0;
}

int shoal__load_build(struct shoal_decoder *decoder)
{
    if (shoal__stack_has(decoder, 2) < 0)
        return -1;
    shoal__own(decoder);
    PyObject *state = *--decoder->top;
    PyObject *obj = decoder->top[-1];
    int result = 0;
    if (PyDict_CheckExact(state) && shoal__is_usual(decoder, Py_TYPE(obj)))
        result = build_usual(obj, state);
    if (result == 0) {
        shoal__release(decoder);
        result = build(decoder, obj, state);
    }
    if (result < 0)
        shoal__not_made(decoder, (PyObject *)Py_TYPE(obj));
    Py_DECREF(state);
    return result < 0 ? -1 : 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * save_array.c - numpy arrays, without asking them.
 *
 * What ndarray.__reduce_ex__(5) answers for an array that lies in one piece is always the same:
 * (numpy._core.numeric._frombuffer, (PickleBuffer, dtype, shape, order)). Making that answer costs three microseconds,
 * and asking the dtype another two; here the same call is written from the array's buffer. A dtype that numpy knows by
 * one character travels as dtype("<f8"), which gives the one object that there is of it.
 *
 * An array that does not lie in one piece (a column, every second row) goes as a copy that does. Within a pool a large
 * one goes out of band as it is, and is put together in the arena: one copy, where numpy makes bytes of it first.
 *
 * Times have no buffer, and numpy writes them as bytes, copied thrice on their way. Within a pool they go as the
 * integers that they are.
 *
 * Arrays of objects: save_object_array.c. Left to numpy: subclasses, other arrays with objects, times elsewhere, those
 * whose axes lie in another order, protocols below 5, picklers that ask for persistent ids (they would miss the parts),
 * and what is in pieces for those with a buffer_callback (they expect it in band).
 */
#include "encoder.h"

static bool is_array(PyTypeObject *type)
{
    return type->tp_as_buffer && type->tp_as_buffer->bf_getbuffer && !PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE) &&
           strcmp(type->tp_name, "numpy.ndarray") == 0;
}

bool shoal_is_array(PyObject *object)
{
    for (PyTypeObject *type = object ? Py_TYPE(object) : NULL; type; type = type->tp_base) {
        if (is_array(type))
            return true;
    }
    return false;
}

/* What streams name. 1: found; 0: this numpy has no such thing; -1. */
static int find_names(struct shoal_state_writer *writer)
{
    const char *const places[] = {"numpy._core.numeric", "numpy.core.numeric"};
    if (writer->array_maker)
        return writer->array_maker != Py_None;
    PyObject *maker = NULL, *dtype = shoal_pickle__import("numpy", "dtype");
    for (size_t i = 0; dtype && !maker && i < sizeof places / sizeof places[0]; i++) {
        PyErr_Clear();
        maker = shoal_pickle__import(places[i], "_frombuffer");
    }
    if (!maker && !PyErr_ExceptionMatches(PyExc_ImportError) && !PyErr_ExceptionMatches(PyExc_AttributeError)) {
        Py_XDECREF(dtype);
        return -1;
    }
    PyErr_Clear();
    PyObject *objects = dtype ? PyObject_CallFunction(dtype, "s", "O") : NULL;
    if (dtype && !objects) {
        Py_DECREF(dtype);
        Py_XDECREF(maker);
        return -1;
    }
    Py_XSETREF(writer->array_objects, objects);
    Py_XSETREF(writer->array_dtype, dtype);
    Py_XSETREF(writer->array_maker, maker ? maker : Py_NewRef(Py_None));
    return writer->array_maker != Py_None;
}

enum how_sent { ASK_NUMPY, IN_ORDER, FORTRAN_ORDER, COPIED, IN_PIECES };

/* In one piece all the same, which numpy keeps. */
static bool has_axes_in_another_order(const Py_buffer *view)
{
    Py_ssize_t size = view->itemsize;
    while (size < view->len) {
        int axis = view->ndim - 1;
        while (axis >= 0 && (view->strides[axis] != size || view->shape[axis] == 1))
            axis--;
        if (axis < 0)
            return false;
        size *= view->shape[axis];
    }
    return true;
}

static enum how_sent how_sent(const struct shoal_encoder *e, const Py_buffer *view)
{
    if (view->itemsize == 0 || view->len == 0 || view->suboffsets || !view->format || strchr(view->format, 'O'))
        return ASK_NUMPY;
    if (PyBuffer_IsContiguous(view, 'C'))
        return IN_ORDER;
    if (PyBuffer_IsContiguous(view, 'F'))
        return FORTRAN_ORDER;
    if (e->hooks.take && (size_t)view->len >= e->hooks.out_of_band_min)
        return IN_PIECES;
    return e->hooks.buffer_callback || has_axes_in_another_order(view) ? ASK_NUMPY : COPIED;
}

/* numpy has one object of each of these types, which dtype(name) gives: the name (borrowed), NULL: it is none of them,
 * or there is an exception. Most arrays have the type of the one before. */
static PyObject *name_of_known(struct shoal_state_writer *writer, PyObject *dtype)
{
    if (dtype == writer->known_dtype)
        return writer->known_name;
    PyObject *known = PyObject_GetAttrString(dtype, "isbuiltin");
    PyObject *name = known ? PyObject_GetAttrString(dtype, "str") : NULL;
    bool is_known = name && PyLong_CheckExact(known) && PyLong_AsLong(known) == 1 && PyUnicode_CheckExact(name);
    Py_XDECREF(known);
    if (!is_known) {
        Py_XDECREF(name);
        return NULL;
    }
    Py_XSETREF(writer->known_dtype, Py_NewRef(dtype));
    Py_XSETREF(writer->known_name, name);
    return name;
}

/* 1: written; 0: it is not known; -1. */
static int save_known_dtype(struct shoal_encoder *e, PyObject *dtype)
{
    PyObject *name = Py_XNewRef(name_of_known(&e->state->writer, dtype));
    if (!name)
        return PyErr_Occurred() ? -1 : 0;
    int result = -1;
    if (shoal__save(e, e->state->writer.array_dtype) == 0 && shoal__begin_tuple(e, 1) == 0 &&
        shoal__save_constant(e, name) == 0 && shoal__end_tuple(e, 1) == 0 &&
        shoal__op(e, OP_REDUCE) == 0 && shoal__put(e, dtype) == 0)
        result = 1;
    Py_DECREF(name);
    return result;
}

int shoal__save_dtype(struct shoal_encoder *e, PyObject *dtype)
{
    int64_t index = shoal__find(e, dtype);
    int result = index >= 0 ? shoal__get_index(e, index) : save_known_dtype(e, dtype);
    if (index < 0 && result == 0)
        result = shoal__save(e, dtype);
    return result < 0 ? -1 : 0;
}

int shoal__save_shape(struct shoal_encoder *e, const Py_buffer *view, bool reversed)
{
    if (shoal__begin_tuple(e, view->ndim) < 0)
        return -1;
    for (int i = 0; i < view->ndim; i++) {
        PyObject *length = PyLong_FromSsize_t(view->shape[reversed ? view->ndim - 1 - i : i]);
        int result = length ? shoal__save_long(e, length) : -1;
        Py_XDECREF(length);
        if (result < 0)
            return -1;
    }
    return shoal__end_tuple(e, view->ndim);
}

static int save_call(struct shoal_encoder *e, PyObject *dtype, PyObject *buffer, enum how_sent how)
{
    const uint8_t order[] = {OP_SHORT_BINUNICODE, 1, how == FORTRAN_ORDER ? 'F' : 'C'};
    if (shoal__save(e, e->state->writer.array_maker) < 0 || shoal__begin_tuple(e, 4) < 0)
        return -1;
    if ((how == IN_PIECES ? shoal__op(e, OP_NEXT_BUFFER) : shoal__save_picklebuffer(e, buffer)) < 0)
        return -1;
    if (shoal__save_dtype(e, dtype) < 0)
        return -1;
    const Py_buffer *view = PyPickleBuffer_GetBuffer(buffer); /* the callback may have released it */
    if (!view || shoal__save_shape(e, view, how == FORTRAN_ORDER) < 0 || shoal__raw(e, order, sizeof order) < 0 ||
        shoal__end_tuple(e, 4) < 0)
        return -1;
    return shoal__op(e, OP_REDUCE);
}

/* Of something made from the array, which lies in order. New reference. */
static PyObject *buffer_of_other(PyObject *other)
{
    PyObject *buffer = other ? PyPickleBuffer_FromObject(other) : NULL;
    Py_XDECREF(other);
    return buffer;
}

/* source: the array, or what has the same memory; own: its buffer. */
static int save_buffer(struct shoal_encoder *e, PyObject *array, PyObject *source, PyObject *dtype, PyObject *own)
{
    enum how_sent how = how_sent(e, PyPickleBuffer_GetBuffer(own));
    if (how == ASK_NUMPY)
        return 0;
    if (how == IN_PIECES) { /* before anything is written */
        int taken = e->hooks.take(e->hooks.take_context, own);
        if (taken < 0)
            return -1;
        how = taken ? IN_PIECES : COPIED;
    }
    PyObject *buffer = how == FORTRAN_ORDER ? buffer_of_other(PyObject_GetAttrString(source, "T"))
                       : how == COPIED      ? buffer_of_other(PyObject_CallMethod(source, "copy", NULL))
                                            : Py_NewRef(own);
    int result = buffer && save_call(e, dtype, buffer, how) == 0 && shoal__put(e, array) == 0 ? 1 : -1;
    Py_XDECREF(buffer);
    return result;
}

/* An array of times as integers; NULL, perhaps with an exception: it has no times, or is to be asked. */
static PyObject *integers_of_times(const struct shoal_encoder *e, PyObject *array, PyObject *dtype)
{
    PyObject *kind = e->hooks.take ? PyObject_GetAttrString(dtype, "kind") : NULL;
    PyObject *integers = NULL;
    if (kind && PyUnicode_Check(kind) &&
        (PyUnicode_CompareWithASCIIString(kind, "M") == 0 || PyUnicode_CompareWithASCIIString(kind, "m") == 0))
        integers = PyObject_CallMethod(array, "view", "s", "i8");
    Py_XDECREF(kind);
    return integers;
}

int shoal__save_array(struct shoal_encoder *e, PyObject *obj)
{
    if (!is_array(Py_TYPE(obj)) || e->protocol < 5 || e->hooks.persistent_id || e->hooks.reducer_override)
        return 0;
    int found = find_names(&e->state->writer);
    if (found <= 0)
        return found;
    PyObject *dtype = PyObject_GetAttrString(obj, "dtype");
    if (!dtype)
        return -1;
    if (dtype == e->state->writer.array_objects) {
        Py_DECREF(dtype); /* borrowed from the state from here on */
        return shoal__save_object_array(e, obj);
    }
    PyObject *source = Py_NewRef(obj);
    PyObject *buffer = PyPickleBuffer_FromObject(obj);
    if (!buffer) { /* a type without a format */
        PyErr_Clear();
        Py_SETREF(source, integers_of_times(e, obj, dtype));
        buffer = source ? PyPickleBuffer_FromObject(source) : NULL;
        PyErr_Clear();
    }
    int result = buffer ? save_buffer(e, obj, source, dtype, buffer) : 0;
    Py_XDECREF(buffer);
    Py_XDECREF(source);
    Py_DECREF(dtype);
    return result;
}

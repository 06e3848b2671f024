/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * save_array.c - numpy arrays, without asking them.
 *
 * What ndarray.__reduce_ex__(5) answers for an array that lies in one piece is always the same:
 * (numpy._core.numeric._frombuffer, (PickleBuffer, dtype, shape, "C")). Making that answer costs three microseconds,
 * and asking the dtype another two; here the same call is written from the array's buffer. A dtype that numpy knows by
 * one character travels as dtype("<f8"), which gives the one object that there is of it.
 *
 * Within a pool an array that does not lie in one piece (a column, every second row) goes out of band as it is, and
 * is put together in the arena: one copy, where numpy makes bytes of it first.
 *
 * Times have no buffer, and numpy writes them as bytes, copied thrice on their way. Within a pool they go as the
 * integers that they are, in either order.
 *
 * Left to numpy: subclasses, arrays of objects and of records, those in Fortran order, times, protocols below 5,
 * picklers that ask for persistent ids (they would miss the parts).
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
    Py_XSETREF(writer->array_dtype, dtype);
    Py_XSETREF(writer->array_maker, maker ? maker : Py_NewRef(Py_None));
    return writer->array_maker != Py_None;
}

enum { ASK_NUMPY, IN_ONE_PIECE, IN_PIECES };

static int kind_of(const struct shoal_encoder *e, const Py_buffer *view)
{
    if (view->itemsize == 0 || view->len == 0 || view->suboffsets || !view->format || strpbrk(view->format, "OT"))
        return ASK_NUMPY;
    if (PyBuffer_IsContiguous(view, 'C'))
        return IN_ONE_PIECE;
    bool large = e->hooks.take && (size_t)view->len >= e->hooks.out_of_band_min;
    return large && !PyBuffer_IsContiguous(view, 'F') ? IN_PIECES : ASK_NUMPY;
}

/* numpy has one object of each of these types, which dtype(name) gives. 1: written; 0: it is none of them; -1. */
static int save_known_dtype(struct shoal_encoder *e, PyObject *dtype)
{
    PyObject *known = PyObject_GetAttrString(dtype, "isbuiltin");
    PyObject *name = known ? PyObject_GetAttrString(dtype, "str") : NULL;
    bool is_known = name && PyLong_CheckExact(known) && PyLong_AsLong(known) == 1 && PyUnicode_CheckExact(name);
    Py_XDECREF(known);
    int result = name ? 0 : -1;
    if (is_known) {
        result = -1;
        if (shoal__save(e, e->state->writer.array_dtype) == 0 && shoal__begin_tuple(e, 1) == 0 &&
            shoal__save_constant(e, name) == 0 && shoal__end_tuple(e, 1) == 0 &&
            shoal__op(e, OP_REDUCE) == 0 && shoal__put(e, dtype) == 0)
            result = 1;
    }
    Py_XDECREF(name);
    return result;
}

static int save_dtype(struct shoal_encoder *e, PyObject *array)
{
    PyObject *dtype = PyObject_GetAttrString(array, "dtype");
    if (!dtype)
        return -1;
    int64_t index = shoal__find(e, dtype);
    int result = index >= 0 ? shoal__get_index(e, index) : save_known_dtype(e, dtype);
    if (index < 0 && result == 0)
        result = shoal__save(e, dtype);
    Py_DECREF(dtype);
    return result < 0 ? -1 : 0;
}

static int save_shape(struct shoal_encoder *e, const Py_buffer *view)
{
    if (shoal__begin_tuple(e, view->ndim) < 0)
        return -1;
    for (int i = 0; i < view->ndim; i++) {
        PyObject *length = PyLong_FromSsize_t(view->shape[i]);
        int result = length ? shoal__save_long(e, length) : -1;
        Py_XDECREF(length);
        if (result < 0)
            return -1;
    }
    return shoal__end_tuple(e, view->ndim);
}

static int save_call(struct shoal_encoder *e, PyObject *array, PyObject *buffer, int kind)
{
    uint8_t order[] = {OP_SHORT_BINUNICODE, 1, 'C'};
    if (shoal__save(e, e->state->writer.array_maker) < 0 || shoal__begin_tuple(e, 4) < 0)
        return -1;
    if ((kind == IN_PIECES ? shoal__op(e, OP_NEXT_BUFFER) : shoal__save_picklebuffer(e, buffer)) < 0)
        return -1;
    if (save_dtype(e, array) < 0)
        return -1;
    const Py_buffer *view = PyPickleBuffer_GetBuffer(buffer); /* the callback may have released it */
    if (kind == IN_ONE_PIECE && view && !PyBuffer_IsContiguous(view, 'C'))
        order[2] = 'F';
    if (!view || save_shape(e, view) < 0 || shoal__raw(e, order, sizeof order) < 0 || shoal__end_tuple(e, 4) < 0 ||
        shoal__op(e, OP_REDUCE) < 0)
        return -1;
    return shoal__put(e, array);
}

/* The buffer of an array of times, as integers; NULL without an exception if it has no times. */
static PyObject *buffer_of_times(const struct shoal_encoder *e, PyObject *array)
{
    if (!e->hooks.take)
        return NULL;
    PyObject *buffer = NULL, *dtype = PyObject_GetAttrString(array, "dtype");
    PyObject *kind = dtype ? PyObject_GetAttrString(dtype, "kind") : NULL;
    if (kind && PyUnicode_Check(kind) &&
        (PyUnicode_CompareWithASCIIString(kind, "M") == 0 || PyUnicode_CompareWithASCIIString(kind, "m") == 0)) {
        PyObject *integers = PyObject_CallMethod(array, "view", "s", "i8");
        buffer = integers ? PyPickleBuffer_FromObject(integers) : NULL;
        Py_XDECREF(integers);
    }
    Py_XDECREF(kind);
    Py_XDECREF(dtype);
    PyErr_Clear();
    return buffer;
}

int shoal__save_array(struct shoal_encoder *e, PyObject *obj)
{
    if (!is_array(Py_TYPE(obj)) || e->protocol < 5 || e->hooks.persistent_id || e->hooks.reducer_override)
        return 0;
    int found = find_names(&e->state->writer);
    if (found <= 0)
        return found;
    PyObject *buffer = PyPickleBuffer_FromObject(obj);
    bool times = false;
    if (!buffer) { /* a type without a format */
        PyErr_Clear();
        buffer = buffer_of_times(e, obj);
        if (!buffer)
            return 0;
        times = true;
    }
    const Py_buffer *view = PyPickleBuffer_GetBuffer(buffer);
    int kind = kind_of(e, view);
    if (times && kind == ASK_NUMPY && view->len > 0 && PyBuffer_IsContiguous(view, 'F'))
        kind = IN_ONE_PIECE;
    int result = kind != ASK_NUMPY;
    if (kind == IN_PIECES) /* before anything is written: if it is not taken, numpy is asked */
        result = e->hooks.take(e->hooks.take_context, buffer);
    if (result > 0 && save_call(e, obj, buffer, kind) < 0)
        result = -1;
    Py_DECREF(buffer);
    return result;
}

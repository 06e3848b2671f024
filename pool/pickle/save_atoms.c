/* SPDX-License-Identifier: BSD-3-Clause */
/* save_atoms.c - objects without parts: None, bool, int, float, bytes, bytearray, PickleBuffer. */
#include "encoder.h"

int shoal__save_none(struct shoal_encoder *e)
{
    return shoal__op(e, OP_NONE);
}

int shoal__save_bool(struct shoal_encoder *e, PyObject *obj)
{
    if (e->protocol >= 2)
        return shoal__op(e, obj == Py_True ? OP_NEWTRUE : OP_NEWFALSE);
    return shoal__raw(e, obj == Py_True ? "I01\n" : "I00\n", 4);
}

static int save_long_as_text(struct shoal_encoder *e, PyObject *obj)
{
    PyObject *digits = PyObject_Repr(obj);
    if (!digits)
        return -1;
    Py_ssize_t size;
    const char *text = PyUnicode_AsUTF8AndSize(digits, &size);
    int result = -1;
    if (text && shoal__op(e, OP_LONG) == 0 && shoal__raw(e, text, (size_t)size) == 0)
        result = shoal__raw(e, "L\n", 2);
    Py_DECREF(digits);
    return result;
}

static int long_to_bytes(PyObject *obj, uint8_t *bytes, size_t size)
{
#if PY_VERSION_HEX >= 0x030D0000
    return _PyLong_AsByteArray((PyLongObject *)obj, bytes, size, 1, 1, 1);
#else
    return _PyLong_AsByteArray((PyLongObject *)obj, bytes, size, 1, 1);
#endif
}

static int save_large(struct shoal_encoder *e, PyObject *obj, bool negative)
{
    if (e->protocol < 2)
        return save_long_as_text(e, obj);
    size_t bits = _PyLong_NumBits(obj);
    if (bits == (size_t)-1 && PyErr_Occurred())
        return -1;
    size_t size = (bits >> 3) + 1;
    if (size > 0x7fffffff) {
        PyErr_SetString(PyExc_OverflowError, "int too large to pickle");
        return -1;
    }
    size_t header = size < 256 ? 2 : 5;
    uint8_t *at = shoal__room(e, 5 + size);
    if (!at || long_to_bytes(obj, at + header, size) < 0)
        return -1;
    /* -128 needs 8 bits and fits a byte: its second byte says only the sign again. */
    if (negative && size > 1 && at[header + size - 1] == 0xff && (at[header + size - 2] & 0x80)) {
        size--;
        if (size == 255 && header == 5) {
            memmove(at + 2, at + 5, size);
            header = 2;
        }
    }
    at[0] = header == 2 ? OP_LONG1 : OP_LONG4;
    shoal__store_le(at + 1, size, (int)header - 1);
    e->sink->cursor += header + size;
    return 0;
}

int shoal__save_long(struct shoal_encoder *e, PyObject *obj)
{
    long small;
    if (shoal__long_is_small(obj, &small))
        return shoal__save_small(e, small);
    int overflow;
    long value = PyLong_AsLongAndOverflow(obj, &overflow);
    if (!overflow && value >= INT32_MIN && value <= INT32_MAX)
        return shoal__save_small(e, value);
    return save_large(e, obj, overflow < 0 || (!overflow && value < 0));
}

int shoal__save_float(struct shoal_encoder *e, PyObject *obj)
{
    double value = PyFloat_AS_DOUBLE(obj);
    if (e->binary) {
        uint8_t *at = shoal__room(e, 9);
        if (!at)
            return -1;
        e->sink->cursor = shoal__store_float(at, value);
        return 0;
    }
    char *text = PyOS_double_to_string(value, 'r', 0, Py_DTSF_ADD_DOT_0, NULL);
    if (!text) {
        PyErr_NoMemory();
        return -1;
    }
    int result = shoal__text(e, "%c%s\n", OP_FLOAT, text);
    PyMem_Free(text);
    return result;
}

/* ---- bytes and buffers ---- */

/* callable(*arguments); steals `arguments`, which may be NULL with an exception set. */
static int save_call(struct shoal_encoder *e, PyObject *callable, PyObject *arguments, PyObject *obj)
{
    PyObject *value = arguments ? PyTuple_Pack(2, callable, arguments) : NULL;
    int result = value ? shoal__save_reduced(e, value, obj) : -1;
    Py_XDECREF(value);
    Py_XDECREF(arguments);
    return result;
}

int shoal__save_bytes_data(struct shoal_encoder *e, PyObject *obj, const void *data, Py_ssize_t size)
{
    uint8_t header[9];
    size_t header_size;
    if (size <= 0xff) {
        header[0] = OP_SHORT_BINBYTES;
        header_size = 2;
    } else if ((size_t)size <= UINT32_MAX) {
        header[0] = OP_BINBYTES;
        header_size = 5;
    } else if (e->protocol >= 4) {
        header[0] = OP_BINBYTES8;
        header_size = 9;
    } else {
        PyErr_SetString(PyExc_OverflowError,
                        "serializing a bytes object larger than 4 GiB requires pickle protocol 4 or higher");
        return -1;
    }
    shoal__store_le(header + 1, (uint64_t)size, (int)header_size - 1);
    return shoal__blob(e, header, header_size, data, (size_t)size, obj);
}

/* In pool mode, large data go out of band, as type(<buffer>). 1: so written; 0: not; -1. */
static int save_taken(struct shoal_encoder *e, PyObject *obj, Py_ssize_t size)
{
    if (e->hooks.out_of_band_min == 0 || (size_t)size < e->hooks.out_of_band_min || e->protocol < 5)
        return 0;
    int taken = e->hooks.take(e->hooks.take_context, obj);
    if (taken <= 0)
        return taken;
    e->buffers_taken++;
    const uint8_t call[] = {OP_NEXT_BUFFER, OP_TUPLE1, OP_REDUCE};
    if (shoal__save(e, (PyObject *)Py_TYPE(obj)) < 0 || shoal__raw(e, call, sizeof call) < 0)
        return -1;
    return shoal__put(e, obj) < 0 ? -1 : 1;
}

int shoal__save_bytes(struct shoal_encoder *e, PyObject *obj)
{
    Py_ssize_t size = PyBytes_GET_SIZE(obj);
    if (e->protocol < 3) {
        if (size == 0)
            return save_call(e, (PyObject *)&PyBytes_Type, PyTuple_New(0), obj);
        PyObject *text = PyUnicode_DecodeLatin1(PyBytes_AS_STRING(obj), size, "strict");
        PyObject *arguments = text ? PyTuple_Pack(2, text, e->state->names.latin1) : NULL;
        Py_XDECREF(text);
        return save_call(e, e->state->shared.codecs_encode, arguments, obj);
    }
    int taken = save_taken(e, obj, size);
    if (taken != 0)
        return taken < 0 ? -1 : 0;
    if (shoal__save_bytes_data(e, obj, PyBytes_AS_STRING(obj), size) < 0)
        return -1;
    return shoal__put(e, obj);
}

static int save_bytearray_data(struct shoal_encoder *e, PyObject *obj, const void *data, Py_ssize_t size)
{
    uint8_t header[9] = {OP_BYTEARRAY8};
    shoal__store_le(header + 1, (uint64_t)size, 8);
    return shoal__blob(e, header, sizeof header, data, (size_t)size, obj);
}

/* Without a view: no file's write() runs for so few. 1: written; 0: many, or they have changed meanwhile; -1. */
static int save_small_bytearray(struct shoal_encoder *e, PyObject *obj)
{
    size_t size = (size_t)PyByteArray_GET_SIZE(obj);
    if (size >= SHOAL_FRAME_SIZE_TARGET)
        return 0;
    uint8_t *at = shoal__room(e, 9 + size);
    if (!at)
        return -1;
    if ((size_t)PyByteArray_GET_SIZE(obj) != size)
        return 0;
    at[0] = OP_BYTEARRAY8;
    shoal__store_le(at + 1, (uint64_t)size, 8);
    memcpy(at + 9, PyByteArray_AS_STRING(obj), size);
    e->sink->cursor += 9 + size;
    return 1;
}

int shoal__save_bytearray(struct shoal_encoder *e, PyObject *obj)
{
    Py_ssize_t size = PyByteArray_GET_SIZE(obj);
    if (e->protocol < 5) {
        if (size == 0)
            return save_call(e, (PyObject *)&PyByteArray_Type, PyTuple_New(0), obj);
        PyObject *bytes = PyBytes_FromObject(obj);
        PyObject *arguments = bytes ? PyTuple_Pack(1, bytes) : NULL;
        Py_XDECREF(bytes);
        return save_call(e, (PyObject *)&PyByteArray_Type, arguments, obj);
    }
    int taken = save_taken(e, obj, size);
    if (taken != 0)
        return taken < 0 ? -1 : 0;
    int written = save_small_bytearray(e, obj);
    if (written != 0)
        return written < 0 ? -1 : shoal__put(e, obj);
    /* The view keeps its size as it is while a file's write() runs. */
    Py_buffer view;
    if (PyObject_GetBuffer(obj, &view, PyBUF_SIMPLE) < 0)
        return -1;
    int result = save_bytearray_data(e, obj, view.buf, view.len);
    PyBuffer_Release(&view);
    return result < 0 ? -1 : shoal__put(e, obj);
}

/* 1: in band; 0: out of band; -1. */
static int is_in_band(struct shoal_encoder *e, PyObject *obj)
{
    if (e->hooks.buffer_callback) {
        PyObject *answer = PyObject_CallOneArg(e->hooks.buffer_callback, obj);
        int in_band = answer ? PyObject_IsTrue(answer) : -1;
        Py_XDECREF(answer);
        return in_band;
    }
    if (e->hooks.take) {
        int taken = e->hooks.take(e->hooks.take_context, obj);
        return taken < 0 ? -1 : !taken;
    }
    return 1;
}

static int save_view(struct shoal_encoder *e, PyObject *obj, const Py_buffer *view, bool writable)
{
    return view->readonly && !writable ? shoal__save_bytes_data(e, obj, view->buf, view->len)
                                       : save_bytearray_data(e, obj, view->buf, view->len);
}

int shoal__save_picklebuffer(struct shoal_encoder *e, PyObject *obj)
{
    if (e->protocol < 5) {
        PyErr_SetString(e->state->shared.pickling_error, "PickleBuffer can only be pickled with protocol >= 5");
        return -1;
    }
    const Py_buffer *view = PyPickleBuffer_GetBuffer(obj);
    if (!view)
        return -1;
    bool is_row = view->ndim <= 1 && (!view->strides || view->strides[0] == view->itemsize) && !view->suboffsets;
    if (!is_row && (view->suboffsets || !PyBuffer_IsContiguous(view, 'A'))) {
        PyErr_SetString(e->state->shared.pickling_error,
                        "PickleBuffer can not be pickled when pointing to a non-contiguous buffer");
        return -1;
    }
    /* In a pool an array arrives writable, as with protocols that copy it. */
    bool as_copy = e->hooks.take && !e->hooks.buffer_callback && shoal_is_array(view->obj);
    int in_band = 1;
    if (e->hooks.buffer_callback || e->hooks.take) {
        in_band = is_in_band(e, obj);
        view = in_band < 0 ? NULL : PyPickleBuffer_GetBuffer(obj); /* the callback may have released it */
        if (!view)
            return -1;
    }
    if (!in_band) {
        e->buffers_taken++;
        const uint8_t code[] = {OP_NEXT_BUFFER, OP_READONLY_BUFFER};
        return shoal__raw(e, code, view->readonly && !as_copy ? 2 : 1);
    }
    if (view->len < SHOAL_FRAME_SIZE_TARGET) { /* no file's write() runs; making room may let others run */
        if (!shoal__room(e, (size_t)view->len + 9) || !(view = PyPickleBuffer_GetBuffer(obj)))
            return -1;
        if (view->len < SHOAL_FRAME_SIZE_TARGET)
            return save_view(e, obj, view, as_copy) < 0 ? -1 : shoal__put(e, obj);
    }
    Py_buffer held; /* keeps the memory while a file's write() runs */
    if (PyObject_GetBuffer(obj, &held, PyBUF_FULL_RO) < 0)
        return -1;
    int result = save_view(e, obj, &held, as_copy);
    PyBuffer_Release(&held);
    return result < 0 ? -1 : shoal__put(e, obj);
}

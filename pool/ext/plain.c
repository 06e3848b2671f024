/* SPDX-License-Identifier: BSD-3-Clause */
/* plain.c - plain values, packed one behind the other: see plain.h. */
#include "plain.h"

#include <endian.h>
#include <stdbool.h>
#include <string.h>

enum tag {
    TAG_NONE = 1,
    TAG_FALSE,
    TAG_TRUE,
    TAG_INT8, /* the four in this order */
    TAG_INT16,
    TAG_INT32,
    TAG_INT64,
    TAG_FLOAT,
    TAG_STR,
    TAG_BYTES,
    TAG_TUPLE,
};

/* ---- writing ---- */

/* The value of an int; false: it does not fit. */
static inline bool int_value(PyObject *object, int64_t *ret_value)
{
#if PY_VERSION_HEX >= 0x030C0000
    if (PyUnstable_Long_IsCompact((PyLongObject *)object)) {
        *ret_value = PyUnstable_Long_CompactValue((PyLongObject *)object);
        return true;
    }
#else
    Py_ssize_t digits = Py_SIZE(object);
    if (digits >= -1 && digits <= 1) {
        *ret_value = digits == 0 ? 0 : digits * (int64_t)((PyLongObject *)object)->ob_digit[0];
        return true;
    }
#endif
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(object, &overflow);
    *ret_value = value;
    return overflow == 0;
}

static inline uint8_t *put_int(uint8_t *at, int64_t value)
{
    int width = value == (int8_t)value ? 0 : value == (int16_t)value ? 1 : value == (int32_t)value ? 2 : 3;
    uint64_t bytes = htole64((uint64_t)value);
    *at = (uint8_t)(TAG_INT8 + width);
    memcpy(at + 1, &bytes, sizeof bytes); /* all of them: cheaper than to choose, and there is room */
    return at + 1 + (1 << width);
}

static inline uint8_t *put_float(uint8_t *at, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    bits = htole64(bits);
    *at = TAG_FLOAT;
    memcpy(at + 1, &bits, sizeof bits);
    return at + 9;
}

static inline uint8_t *put_text(uint8_t *at, enum tag tag, const void *text, Py_ssize_t length)
{
    if (length > PLAIN_TEXT_MAX)
        return NULL;
    at[0] = (uint8_t)tag;
    at[1] = (uint8_t)length;
    memcpy(at + 2, text, (size_t)length);
    return at + 2 + length;
}

static inline uint8_t *put_atom(uint8_t *at, PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    int64_t value;
    if (type == &PyLong_Type)
        return int_value(object, &value) ? put_int(at, value) : NULL;
    if (type == &PyFloat_Type)
        return put_float(at, PyFloat_AS_DOUBLE(object));
    if (type == &PyUnicode_Type && PyUnicode_IS_COMPACT_ASCII(object))
        return put_text(at, TAG_STR, PyUnicode_1BYTE_DATA(object), PyUnicode_GET_LENGTH(object));
    if (type == &PyBytes_Type)
        return put_text(at, TAG_BYTES, PyBytes_AS_STRING(object), PyBytes_GET_SIZE(object));
    if (object != Py_None && type != &PyBool_Type)
        return NULL;
    *at = object == Py_None ? TAG_NONE : object == Py_True ? TAG_TRUE : TAG_FALSE;
    return at + 1;
}

/* Has the tuple one object that a pickle would write once and refer to? */
static bool has_text_twice(PyObject *tuple)
{
    for (Py_ssize_t i = 1; i < PyTuple_GET_SIZE(tuple); i++) {
        PyObject *element = PyTuple_GET_ITEM(tuple, i);
        for (Py_ssize_t k = 0; k < i; k++) {
            if (PyTuple_GET_ITEM(tuple, k) == element && (PyUnicode_Check(element) || PyBytes_Check(element)))
                return true;
        }
    }
    return false;
}

static uint8_t *put_tuple(uint8_t *at, PyObject *tuple)
{
    Py_ssize_t count = PyTuple_GET_SIZE(tuple);
    if (count < 1 || count > PLAIN_TUPLE_MAX || has_text_twice(tuple))
        return NULL;
    *at++ = TAG_TUPLE;
    *at++ = (uint8_t)count;
    for (Py_ssize_t i = 0; i < count && at != NULL; i++)
        at = put_atom(at, PyTuple_GET_ITEM(tuple, i));
    return at;
}

uint8_t *plain_write(uint8_t *at, PyObject *object)
{
    return PyTuple_CheckExact(object) ? put_tuple(at, object) : put_atom(at, object);
}

/* ---- reading ---- */

static inline uint64_t get_bytes(const uint8_t *at, size_t count)
{
    uint64_t bytes = 0;
    memcpy(&bytes, at, count);
    return le64toh(bytes);
}

static PyObject *get_text(enum tag tag, const uint8_t **cursor, const uint8_t *end)
{
    const uint8_t *at = *cursor;
    size_t length = at < end ? *at++ : 0;
    if (at == *cursor || (size_t)(end - at) < length)
        return NULL;
    *cursor = at + length;
    if (tag == TAG_BYTES)
        return PyBytes_FromStringAndSize((const char *)at, (Py_ssize_t)length);
    return PyUnicode_DecodeLatin1((const char *)at, (Py_ssize_t)length, NULL); /* ASCII, if nobody has damaged it */
}

/* How many bytes a value of fixed length has behind its tag; SIZE_MAX: it is of another kind. */
static inline size_t fixed_bytes(enum tag tag)
{
    static const uint8_t bytes[] = {[TAG_INT8] = 1, [TAG_INT16] = 2, [TAG_INT32] = 4, [TAG_INT64] = 8, [TAG_FLOAT] = 8};
    return tag >= TAG_NONE && tag <= TAG_FLOAT ? bytes[tag] : SIZE_MAX;
}

static inline PyObject *get_atom(enum tag tag, const uint8_t **cursor, const uint8_t *end)
{
    const uint8_t *at = *cursor;
    size_t width = fixed_bytes(tag);
    if (width == SIZE_MAX)
        return tag == TAG_STR || tag == TAG_BYTES ? get_text(tag, cursor, end) : NULL;
    if ((size_t)(end - at) < width)
        return NULL;
    *cursor = at + width;
    uint64_t bits;
    double real;
    switch (tag) {
    case TAG_INT8:
        return PyLong_FromLong((int8_t)*at);
    case TAG_INT16:
        return PyLong_FromLong((int16_t)get_bytes(at, 2));
    case TAG_INT32:
        return PyLong_FromLong((int32_t)get_bytes(at, 4));
    case TAG_INT64:
        return PyLong_FromLongLong((int64_t)get_bytes(at, 8));
    case TAG_FLOAT:
        bits = get_bytes(at, 8);
        memcpy(&real, &bits, sizeof real);
        return PyFloat_FromDouble(real);
    case TAG_NONE:
        return Py_NewRef(Py_None);
    default:
        return PyBool_FromLong(tag == TAG_TRUE);
    }
}

/* The tuple's elements are read before it is made: making it may run user code. */
static PyObject *get_tuple(const uint8_t **cursor, const uint8_t *end)
{
    PyObject *elements[PLAIN_TUPLE_MAX];
    const uint8_t *at = *cursor;
    Py_ssize_t count = at < end ? *at++ : 0, read = 0;
    if (count < 1 || count > PLAIN_TUPLE_MAX)
        return NULL;
    while (read < count && at < end) {
        enum tag tag = (enum tag)*at++;
        elements[read] = get_atom(tag, &at, end);
        if (elements[read] == NULL)
            break;
        read++;
    }
    *cursor = at;
    PyObject *tuple = read == count ? PyTuple_New(count) : NULL;
    for (Py_ssize_t i = 0; i < read; i++) {
        if (tuple != NULL)
            PyTuple_SET_ITEM(tuple, i, elements[i]);
        else
            Py_DECREF(elements[i]);
    }
    return tuple;
}

PyObject *plain_read(const uint8_t **cursor, const uint8_t *end)
{
    if (*cursor >= end)
        return NULL;
    enum tag tag = (enum tag)*(*cursor)++;
    return tag == TAG_TUPLE ? get_tuple(cursor, end) : get_atom(tag, cursor, end);
}

/* ---- skipping ---- */

static const uint8_t *skip_atom(enum tag tag, const uint8_t *at, const uint8_t *end)
{
    size_t bytes = fixed_bytes(tag);
    if ((tag == TAG_STR || tag == TAG_BYTES) && at < end)
        bytes = *at++;
    return (size_t)(end - at) < bytes ? NULL : at + bytes;
}

const uint8_t *plain_skip(const uint8_t *at, const uint8_t *end)
{
    if (at >= end)
        return NULL;
    enum tag tag = (enum tag)*at++;
    if (tag != TAG_TUPLE)
        return skip_atom(tag, at, end);
    size_t count = at < end ? *at++ : 0;
    if (count < 1 || count > PLAIN_TUPLE_MAX)
        return NULL;
    for (; count > 0 && at != NULL; count--) {
        if (at >= end)
            return NULL;
        tag = (enum tag)*at++;
        at = skip_atom(tag, at, end);
    }
    return at;
}

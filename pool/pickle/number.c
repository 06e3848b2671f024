/* SPDX-License-Identifier: BSD-3-Clause */
/* number.c - whole streams that hold one number, None or a bool: see number.h. */
#include "number.h"

#include "opcodes.h"

#include <stdbool.h>
#include <string.h>

static uint8_t *put_long(uint8_t *at, long value)
{
    if (value >= 0 && value < 0x100) {
        *at++ = OP_BININT1;
        *at++ = (uint8_t)value;
    } else if (value >= 0 && value < 0x10000) {
        *at++ = OP_BININT2;
        *at++ = (uint8_t)value;
        *at++ = (uint8_t)(value >> 8);
    } else if (value >= INT32_MIN && value <= INT32_MAX) {
        *at++ = OP_BININT;
        for (int i = 0; i < 4; i++)
            *at++ = (uint8_t)((uint64_t)value >> 8 * i);
    } else {
        int bytes = 8; /* as few as keep the sign */
        while (bytes > 1 && (int64_t)((uint64_t)value << (72 - 8 * bytes)) >> (72 - 8 * bytes) == value)
            bytes--;
        *at++ = OP_LONG1;
        *at++ = (uint8_t)bytes;
        for (int i = 0; i < bytes; i++)
            *at++ = (uint8_t)((uint64_t)value >> 8 * i);
    }
    return at;
}

size_t shoal_encode_number(PyObject *object, uint8_t *stream)
{
    int overflow = 0;
    long value = 0;
    bool number = PyLong_CheckExact(object);
    if (number) {
        value = PyLong_AsLongAndOverflow(object, &overflow);
        if (overflow != 0)
            return 0;
    } else if (!PyFloat_CheckExact(object) && object != Py_None && !PyBool_Check(object)) {
        return 0;
    }
    uint8_t *at = stream;
    *at++ = OP_PROTO;
    *at++ = 5;
    if (number) {
        at = put_long(at, value);
    } else if (PyFloat_CheckExact(object)) {
        double real = PyFloat_AS_DOUBLE(object);
        uint64_t bits;
        memcpy(&bits, &real, sizeof bits);
        *at++ = OP_BINFLOAT;
        for (int i = 7; i >= 0; i--)
            *at++ = (uint8_t)(bits >> 8 * i);
    } else {
        *at++ = object == Py_None ? OP_NONE : object == Py_True ? OP_NEWTRUE : OP_NEWFALSE;
    }
    *at++ = OP_STOP;
    return (size_t)(at - stream);
}

static PyObject *number_at(uint8_t opcode, const uint8_t *body)
{
    uint32_t bits = 0;
    uint64_t real_bits = 0;
    double real;
    int unused;
    switch (opcode) {
    case OP_BININT1:
        return PyLong_FromLong(body[0]);
    case OP_BININT2:
        return PyLong_FromLong(body[0] | body[1] << 8);
    case OP_BININT:
        for (int i = 3; i >= 0; i--)
            bits = bits << 8 | body[i];
        return PyLong_FromLong((int32_t)bits);
    case OP_LONG1:
        for (int i = body[0] - 1; i >= 0; i--)
            real_bits = real_bits << 8 | body[1 + i];
        unused = 64 - 8 * body[0];
        return PyLong_FromLongLong((int64_t)(real_bits << unused) >> unused);
    case OP_BINFLOAT:
        for (int i = 0; i < 8; i++)
            real_bits = real_bits << 8 | body[i];
        memcpy(&real, &real_bits, sizeof real);
        return PyFloat_FromDouble(real);
    case OP_NONE:
        return Py_NewRef(Py_None);
    case OP_NEWTRUE:
        return Py_NewRef(Py_True);
    default:
        return Py_NewRef(Py_False);
    }
}

PyObject *shoal_decode_number(const uint8_t *data, size_t length, size_t *ret_used)
{
    uint8_t copy[SHOAL_NUMBER_BYTES_MAX] = {0}; /* each byte is fetched once */
    memcpy(copy, data, length < sizeof copy ? length : sizeof copy);
    size_t body;
    switch (copy[2]) {
    case OP_BININT1: body = 1; break;
    case OP_BININT2: body = 2; break;
    case OP_BININT: body = 4; break;
    case OP_LONG1: body = copy[3] >= 1 && copy[3] <= 8 ? 1 + (size_t)copy[3] : SHOAL_NUMBER_BYTES_MAX; break;
    case OP_BINFLOAT: body = 8; break;
    case OP_NONE: case OP_NEWTRUE: case OP_NEWFALSE: body = 0; break;
    default: return NULL;
    }
    if (copy[0] != OP_PROTO || copy[1] != 5 || body + 4 > sizeof copy || length < body + 4 || copy[3 + body] != OP_STOP)
        return NULL;
    PyObject *object = number_at(copy[2], copy + 3);
    if (object == NULL)
        PyErr_Clear(); /* no memory: the long way says so */
    else if (ret_used != NULL)
        *ret_used = body + 4;
    return object;
}

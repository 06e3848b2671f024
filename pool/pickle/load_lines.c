/* SPDX-License-Identifier: BSD-3-Clause */
/* load_lines.c - the opcodes of protocol 0 whose argument is a line of text. */
#include "decoder.h"

#include <errno.h>
#include <stdlib.h>

Py_ssize_t shoal__take_filled_line(struct shoal_decoder *decoder, char **ret_line)
{
    Py_ssize_t length = shoal__take_line(decoder, ret_line);
    return length == 0 ? shoal__truncated(decoder) : length;
}

static PyObject *parse_int(const char *line, Py_ssize_t length)
{
    char *end;
    errno = 0;
    long value = strtol(line, &end, 0);
    if (errno == 0 && *end == '\0') {
        if (length == 2 && (value == 0 || value == 1))
            return PyBool_FromLong(value);
        return PyLong_FromLong(value);
    }
    PyObject *number = PyLong_FromString(line, NULL, 0);
    if (number == NULL)
        PyErr_SetString(PyExc_ValueError, "could not convert string to int");
    return number;
}

/* "00" and "01" are False and True: protocol 0 has no other way to say it. */
int shoal__load_int_line(struct shoal_decoder *decoder)
{
    char *line;
    Py_ssize_t length = shoal__take_filled_line(decoder, &line);
    return length < 0 ? -1 : shoal__push(decoder, parse_int(line, length));
}

int shoal__load_long_line(struct shoal_decoder *decoder)
{
    char *line;
    Py_ssize_t length = shoal__take_filled_line(decoder, &line);
    if (length < 0)
        return -1;
    if (line[length - 1] == 'L')
        line[length - 1] = '\0';
    return shoal__push(decoder, PyLong_FromString(line, NULL, 0));
}

int shoal__load_float_line(struct shoal_decoder *decoder)
{
    char *line;
    char *end;
    if (shoal__take_filled_line(decoder, &line) < 0)
        return -1;
    double value = PyOS_string_to_double(line, &end, PyExc_OverflowError);
    if (value == -1.0 && PyErr_Occurred())
        return -1;
    if (*end != '\0') {
        PyErr_SetString(PyExc_ValueError, "could not convert string to float");
        return -1;
    }
    return shoal__push(decoder, PyFloat_FromDouble(value));
}

/* The repr of a str of Python 2. Unescaping may warn, and a warning is user code. */
int shoal__load_string_line(struct shoal_decoder *decoder)
{
    char *line;
    Py_ssize_t length = shoal__take_line(decoder, &line);
    if (length < 0)
        return -1;
    if (length < 2 || line[0] != line[length - 1] || (line[0] != '\'' && line[0] != '"')) {
        PyErr_SetString(decoder->state->shared.unpickling_error, "the STRING opcode argument must be quoted");
        return -1;
    }
    shoal__release(decoder);
    PyObject *bytes = PyBytes_DecodeEscape(line + 1, length - 2, NULL, 0, NULL);
    if (bytes == NULL || decoder->keep_bytes)
        return shoal__push(decoder, bytes);
    PyObject *text = shoal__decode_string(decoder, PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes));
    Py_DECREF(bytes);
    return shoal__push(decoder, text);
}

int shoal__load_unicode_line(struct shoal_decoder *decoder)
{
    char *line;
    Py_ssize_t length = shoal__take_line(decoder, &line);
    return length < 0 ? -1 : shoal__push(decoder, PyUnicode_DecodeRawUnicodeEscape(line, length, NULL));
}

/* The line as an index: 0, or -1 with ValueError or OverflowError. */
static int take_index(struct shoal_decoder *decoder, const char *opcode, size_t *ret_index)
{
    char *line;
    if (shoal__take_filled_line(decoder, &line) < 0)
        return -1;
    PyObject *number = PyLong_FromString(line, NULL, 10);
    if (number == NULL)
        return -1;
    Py_ssize_t index = PyLong_AsSsize_t(number);
    Py_DECREF(number);
    if (index < 0) {
        if (!PyErr_Occurred())
            PyErr_Format(PyExc_ValueError, "negative %s argument", opcode);
        return -1;
    }
    *ret_index = (size_t)index;
    return 0;
}

int shoal__load_get_line(struct shoal_decoder *decoder)
{
    size_t index;
    return take_index(decoder, "GET", &index) < 0 ? -1 : shoal__push(decoder, shoal__get(decoder, index));
}

int shoal__load_put_line(struct shoal_decoder *decoder)
{
    size_t index;
    if (take_index(decoder, "PUT", &index) < 0 || shoal__stack_has(decoder, 1) < 0)
        return -1;
    return shoal__put(decoder, index, decoder->top[-1]);
}

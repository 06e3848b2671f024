/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * number.h - whole streams that hold one number (an int of 64 bits, a float), None or a bool, without an encoder or
 * decoder: to reset memo and stack takes longer than all the rest of such a stream.
 */
#ifndef SHOAL_PICKLE_NUMBER_H
#define SHOAL_PICKLE_NUMBER_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>

#define SHOAL_NUMBER_BYTES_MAX 13 /* PROTO 5, opcode, length, eight bytes, STOP */

/* The stream's length, 0 if the object is none of these. stream: SHOAL_NUMBER_BYTES_MAX bytes. */
size_t shoal_encode_number(PyObject *object, uint8_t *stream);

/* New reference, or NULL without an exception if data does not begin with exactly such a stream. */
PyObject *shoal_decode_number(const uint8_t *data, size_t length, size_t *ret_used);

#endif

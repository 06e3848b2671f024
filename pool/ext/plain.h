/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * plain.h - plain values, packed one behind the other.
 *
 * A map over a million numbers has a million items, and a pickle for each costs more than most functions do with them.
 * So values of the simplest types travel as a tag and their bytes:
 *
 *     None, False, True            tag
 *     int that fits 64 bits        tag, 1, 2, 4 or 8 bytes, as few as keep it
 *     float                        tag, 8 bytes
 *     str of ASCII, bytes          tag, length (1 byte), so many bytes
 *     tuple of 1 to 4 of these     tag, count (1 byte), the elements
 *
 * What arrives is what a pickle of the item alone gives: exact types only (a bool is no int, a subclass is not plain),
 * each value an object of its own. A tuple that has one str or bytes object twice is not plain, because its pickle says
 * that they are one. Numbers are little-endian.
 *
 * Writing and reading run no user code, but for what a garbage collection runs when a tuple is made.
 */
#ifndef SHOAL_EXT_PLAIN_H
#define SHOAL_EXT_PLAIN_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>

#define PLAIN_TEXT_MAX 255  /* bytes of a str or bytes */
#define PLAIN_TUPLE_MAX 4   /* elements */
#define PLAIN_BYTES_MAX (2u + PLAIN_TUPLE_MAX * (2u + PLAIN_TEXT_MAX)) /* of any one value */

/* Write object at `at`, where PLAIN_BYTES_MAX bytes are free: its end; NULL without an exception: it is not plain. */
uint8_t *plain_write(uint8_t *at, PyObject *object);

/* The value at *cursor, which is moved behind it: new reference. NULL without an exception: there is no whole value
 * before `end`; NULL with one: no memory. Each byte is fetched once. */
PyObject *plain_read(const uint8_t **cursor, const uint8_t *end);

/* Behind the value at `at`, or NULL: there is no whole value before `end`. */
const uint8_t *plain_skip(const uint8_t *at, const uint8_t *end);

#endif

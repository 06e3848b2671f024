/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * code_bytes.c - what is around a code object in its bytes: version, checksum, source; and which bytes were read
 * before.
 *
 * A code object is kept by its bytes when they come a second time: a worker that gets the same function again and again
 * makes its code once, and one that gets new functions all the time does not pay for keeping them. The checksum, which
 * the bytes carry, says where; an entry is replaced by another one for the same place.
 */
#include "code_reader.h"

enum { KEPT_SIZE_MAX = 64 * 1024, CODE_IS_DEEP = 50 };

uint32_t shoal__code_checksum(const uint8_t *data, size_t size)
{
    uint64_t hash = size * 0x9E3779B97F4A7C15u;
    for (; size >= 8; data += 8, size -= 8) {
        uint64_t word;
        memcpy(&word, data, sizeof word);
        if (__BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__)
            word = __builtin_bswap64(word);
        hash = (hash ^ word) * 0xD6E8FEB86659FD93u;
        hash ^= hash >> 32;
    }
    for (; size > 0; data++, size--)
        hash = (hash ^ *data) * 0x100000001b3u;
    hash ^= hash >> 29;
    hash *= 0xD6E8FEB86659FD93u;
    return (uint32_t)(hash >> 32);
}

/* Only where the nesting is the code's own: a caller at the end of its recursion is told so as ever. Not said at that
 * depth, where no exception can be made. */
void shoal__code_is_deep(PyObject *error, int depth)
{
    if (depth >= CODE_IS_DEEP && PyErr_ExceptionMatches(PyExc_RecursionError)) {
        PyErr_Clear();
        PyErr_Format(error,
                     "a function's code is nested too deeply: after %d levels (functions in functions, tuples of "
                     "constants in each other) the interpreter's recursion limit is reached",
                     depth);
    }
}

static uint32_t stored_sum(const uint8_t *at)
{
    return (uint32_t)at[2] | (uint32_t)at[3] << 8 | (uint32_t)at[4] << 16 | (uint32_t)at[5] << 24;
}

static int check_head(struct shoal_pickle_state *state, const uint8_t *at, Py_ssize_t size)
{
    PyObject *error = state->shared.unpickling_error;
    if (size < SHOAL_CODE_HEADER_SIZE) {
        PyErr_SetString(error, "a pickled function's code is cut short");
        return -1;
    }
    if (at[0] != PY_MAJOR_VERSION || at[1] != PY_MINOR_VERSION) {
        PyErr_Format(error,
                     "this pickle carries a function by value, whose bytecode was made by Python %d.%d; "
                     "Python %d.%d cannot run it",
                     at[0], at[1], PY_MAJOR_VERSION, PY_MINOR_VERSION);
        return -1;
    }
    if (stored_sum(at) != shoal__code_checksum(at + SHOAL_CODE_HEADER_SIZE, (size_t)(size - SHOAL_CODE_HEADER_SIZE))) {
        PyErr_SetString(error, "a pickled function's code is damaged");
        return -1;
    }
    return 0;
}

/* What is left is the source: for tracebacks here, and for sending the code on as it came. */
static int read_source(struct shoal_pickle_state *state, struct code_reader *r, PyObject *code, PyObject *bytes)
{
    PyObject *source = shoal__code_read_text(r);
    if (!source || r->at != r->end) {
        Py_XDECREF(source);
        shoal__code_damaged(r);
        return -1;
    }
    PyObject **keep = &state->writer.keep_source;
    if (!*keep)
        *keep = shoal_pickle__import("shoal._source", "keep");
    PyObject *none = *keep ? PyObject_CallFunctionObjArgs(*keep, code, source, NULL) : NULL;
    Py_DECREF(source);
    Py_XDECREF(none);
    if (!none)
        return -1;
    return r->odd ? 0 : shoal__code_arrived(state, code, bytes);
}

PyObject *shoal__code_read(struct shoal_pickle_state *state, PyObject *bytes, PyObject *odd)
{
    if (!PyBytes_CheckExact(bytes)) {
        PyErr_SetString(state->shared.unpickling_error, "a pickled function's code must be bytes");
        return NULL;
    }
    const uint8_t *start = (const uint8_t *)PyBytes_AS_STRING(bytes);
    Py_ssize_t size = PyBytes_GET_SIZE(bytes);
    if (check_head(state, start, size) < 0)
        return NULL;
    struct code_reader r;
    r.at = start + SHOAL_CODE_HEADER_SIZE;
    r.end = start + size;
    r.odd = odd;
    r.error = state->shared.unpickling_error;
    r.state = state;
    r.depth = r.limit = 0;
    r.known_count = 0;
    PyObject *code = shoal__code_read_object(&r, NULL);
    if (!code)
        shoal__code_is_deep(r.error, r.limit);
    if (code && r.at != r.end && read_source(state, &r, code, bytes) < 0)
        Py_CLEAR(code);
    for (size_t i = 0; i < r.known_count; i++)
        Py_DECREF(r.known[i]);
    return code;
}

/* ---- what was read before ---- */

/* The entry for bytes whose head was not looked at yet, or NULL if they are not of a size to be kept. */
static struct shoal_known_code *entry_of(struct shoal_pickle_state *state, PyObject *bytes, uint32_t *ret_sum)
{
    Py_ssize_t size = PyBytes_CheckExact(bytes) ? PyBytes_GET_SIZE(bytes) : 0;
    if (size < SHOAL_CODE_HEADER_SIZE || size > KEPT_SIZE_MAX)
        return NULL;
    *ret_sum = stored_sum((const uint8_t *)PyBytes_AS_STRING(bytes));
    return &state->known_codes[*ret_sum % SHOAL_KNOWN_CODES];
}

static bool is_same(PyObject *a, PyObject *b)
{
    return a == b || (PyBytes_GET_SIZE(a) == PyBytes_GET_SIZE(b) &&
                      memcmp(PyBytes_AS_STRING(a), PyBytes_AS_STRING(b), (size_t)PyBytes_GET_SIZE(a)) == 0);
}

PyObject *shoal__code_from_bytes(struct shoal_pickle_state *state, PyObject *bytes)
{
    uint32_t sum;
    struct shoal_known_code *entry = entry_of(state, bytes, &sum);
    if (entry && entry->code && is_same(entry->bytes, bytes))
        return Py_NewRef(entry->code);
    PyObject *code = shoal__code_read(state, bytes, NULL);
    if (!code || !entry)
        return code;
    if (entry->seen != sum) { /* most come once: those are not kept */
        entry->seen = sum;
        return code;
    }
    PyObject *old_bytes = entry->bytes, *old_code = entry->code;
    entry->bytes = Py_NewRef(bytes);
    entry->code = Py_NewRef(code);
    Py_XDECREF(old_bytes);
    Py_XDECREF(old_code);
    return code;
}

void shoal__known_codes_clear(struct shoal_pickle_state *state)
{
    for (size_t i = 0; i < SHOAL_KNOWN_CODES; i++) {
        Py_CLEAR(state->known_codes[i].bytes);
        Py_CLEAR(state->known_codes[i].code);
    }
}

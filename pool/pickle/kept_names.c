/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * kept_names.c - names that were read before.
 *
 * A code object names its variables, attributes and globals, and Python wants each name interned: a str is made,
 * hashed, looked up in the table of all, and dropped. That was nearly half of the time of reading code, and most names
 * in a program are used again and again. So the last one for each place in a small table is kept, by its characters.
 *
 * Names of modules and of what is found in them come from there, too: they have been hashed, and the interpreter's
 * cache of attributes knows names by their address.
 */
#include "state.h"

#include <string.h>

/* From the size, the first eight characters and the last eight. */
static size_t place_of(const uint8_t *text, size_t size)
{
    uint64_t first = 0;
    uint64_t last = 0;
    size_t part = size < 8 ? size : 8;
    if (part == 8) {
        memcpy(&first, text, 8);
        memcpy(&last, text + size - 8, 8);
    } else {
        for (size_t i = 0; i < part; i++)
            first = first << 8 | text[i];
    }
    uint64_t hash = (first ^ size) * 0x9E3779B97F4A7C15u;
    hash = (hash ^ hash >> 32 ^ last) * 0xD6E8FEB86659FD93u;
    return (size_t)(hash >> 40) % SHOAL_KEPT_NAMES;
}

static bool is_name(PyObject *str, const uint8_t *text, size_t size)
{
    return str && (size_t)PyUnicode_GET_LENGTH(str) == size && memcmp(PyUnicode_DATA(str), text, size) == 0;
}

PyObject *shoal__kept_name(const struct shoal_pickle_state *state, const uint8_t *text, size_t size)
{
    if (size == 0 || size > SHOAL_KEPT_NAME_SIZE)
        return NULL;
    PyObject *kept = state->kept_names[place_of(text, size)];
    return is_name(kept, text, size) ? Py_NewRef(kept) : NULL;
}

void shoal__keep_name(struct shoal_pickle_state *state, PyObject *name)
{
    if (!PyUnicode_IS_COMPACT_ASCII(name))
        return;
    size_t size = (size_t)PyUnicode_GET_LENGTH(name);
    if (size == 0 || size > SHOAL_KEPT_NAME_SIZE)
        return;
    PyObject **place = &state->kept_names[place_of(PyUnicode_DATA(name), size)];
    PyObject *old = *place;
    *place = Py_NewRef(name);
    Py_XDECREF(old);
}

void shoal__kept_names_clear(struct shoal_pickle_state *state)
{
    for (size_t i = 0; i < SHOAL_KEPT_NAMES; i++)
        Py_CLEAR(state->kept_names[i]);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * text_table.h - which strings of the memo say the same: text -> place among the memo's keys. Used by: the encoder,
 * save_str.c, save_bulk.c.
 *
 * A dict would do, at 100 ns for each new string, most of it for growing; a slot here is eight bytes: half of the hash
 * and the place, and the memo holds the string. What the memo has forgotten since (a save that was taken back) is found
 * to be another object there, or none, and passed over.
 */
#ifndef SHOAL_PICKLE_TEXT_TABLE_H
#define SHOAL_PICKLE_TEXT_TABLE_H

#include "memo_table.h"

#include <stdbool.h>
#include <string.h>

struct shoal_text_slot {
    uint32_t hash;
    uint32_t place; /* and one; 0: free */
};

struct shoal_texts {
    struct shoal_text_slot *slots; /* NULL: not begun */
    size_t mask;
    size_t count;
};

/* Begun, with the strings that the memo has. 0, or -1 with MemoryError. */
int shoal_texts_begin(struct shoal_texts *texts, const struct shoal_memo *memo);
void shoal_texts_end(struct shoal_texts *texts);
/* A string that shoal_texts_find did not find, and that is in the memo, or about to be, at this place. 0, or -1 with
 * MemoryError, which cannot be where there is room. */
int shoal_texts_add(struct shoal_texts *texts, const struct shoal_memo *memo, PyObject *str, size_t place);

static inline uint32_t shoal_text_hash(PyObject *str)
{
    Py_hash_t hash = ((PyASCIIObject *)str)->hash;
    return (uint32_t)(hash != -1 ? hash : PyObject_Hash(str)); /* of an exact str: cannot fail */
}

static inline bool shoal_text_equal(PyObject *a, PyObject *b)
{
    return PyUnicode_KIND(a) == PyUnicode_KIND(b) && PyUnicode_GET_LENGTH(a) == PyUnicode_GET_LENGTH(b) &&
           memcmp(PyUnicode_DATA(a), PyUnicode_DATA(b),
                  (size_t)PyUnicode_GET_LENGTH(a) * (size_t)PyUnicode_KIND(a)) == 0;
}

static inline bool shoal_texts_have_room(const struct shoal_texts *texts)
{
    return texts->count < (texts->mask + 1) / 2;
}

/* The string that lies where the slot says: borrowed, or NULL. It need not be the one that was entered. */
static inline PyObject *shoal_texts_held(const struct shoal_memo *memo, const struct shoal_text_slot *slot)
{
    if (slot->place > memo->count)
        return NULL;
    uintptr_t key = memo->keys[slot->place - 1];
    return !(key & SHOAL_MEMO_SHADOW) && PyUnicode_CheckExact((PyObject *)key) ? (PyObject *)key : NULL;
}

/* The first string of the memo that says the same: borrowed, or NULL. */
static inline PyObject *shoal_texts_find(const struct shoal_texts *texts, const struct shoal_memo *memo, PyObject *str)
{
    uint32_t hash = shoal_text_hash(str);
    for (size_t i = hash, step = 0;; i += ++step) {
        const struct shoal_text_slot *slot = &texts->slots[i & texts->mask];
        if (slot->place == 0)
            return NULL;
        PyObject *held = slot->hash == hash ? shoal_texts_held(memo, slot) : NULL;
        if (held && shoal_text_equal(held, str))
            return held;
    }
}

#endif

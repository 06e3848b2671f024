/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * memo_table.h - which objects this stream has seen already: identity -> number.
 *
 * A key is the address of an object. Addresses are even; the odd address next to an object stands for something that
 * belongs to it and is not the object itself (SHOAL_MEMO_SHADOW: the private copy of a function's globals). The table
 * holds a reference to each object, so that no address is used twice within a stream.
 *
 * Open addressing in 16-byte slots, at most half full. Emptying it costs one decref for each object that is in it and
 * nothing for the size of the table: a slot counts only if it carries the current generation.
 */
#ifndef SHOAL_PICKLE_MEMO_TABLE_H
#define SHOAL_PICKLE_MEMO_TABLE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

#define SHOAL_MEMO_SHADOW ((uintptr_t)1)

struct shoal_memo_slot {
    uintptr_t key;
    uint32_t generation;
    uint32_t index;
};

struct shoal_memo {
    struct shoal_memo_slot *slots; /* slot_count of them, a power of two; NULL until the first put */
    size_t mask;                   /* slot_count - 1 */
    uintptr_t *keys;               /* in the order of their coming: `count` of them, room for slot_count / 2 */
    size_t count;
    uint32_t generation;
};

int shoal_memo_init(struct shoal_memo *memo); /* 0, or -1 with MemoryError */
void shoal_memo_done(struct shoal_memo *memo);
void shoal_memo_reset(struct shoal_memo *memo); /* empty again; a very large table is given back */

size_t shoal_memo_size(const struct shoal_memo *memo); /* its memory, in bytes */

/* Enter a key that is not there yet, under `index`. 0, or -1 with an exception. */
int shoal_memo_put(struct shoal_memo *memo, uintptr_t key, uint32_t index);

/* Forget all but the first `count` that were entered. */
int shoal_memo_truncate(struct shoal_memo *memo, size_t count);

static inline size_t shoal_memo_hash(uintptr_t key)
{
    /* Neighbours in memory stay neighbours in the table; blocks of 64 KiB are spread. Several may come to lie on top of
     * each other: the way on from a taken slot takes longer and longer steps, which meet each slot once, and is out of
     * such a place soon. */
    return (key >> 4) + (key >> 16) * 0x9E3779B1u + (key & SHOAL_MEMO_SHADOW) * 0x2545F491u;
}

/* Where a key is, or, with a generation that is not the memo's, where it would be. */
static inline struct shoal_memo_slot *shoal_memo_place(const struct shoal_memo *memo, uintptr_t key)
{
    for (size_t i = shoal_memo_hash(key), step = 0;; i += ++step) {
        struct shoal_memo_slot *slot = &memo->slots[i & memo->mask];
        if (slot->generation != memo->generation || slot->key == key)
            return slot;
    }
}

/* May `shoal_memo_fill` be called? If not, shoal_memo_put makes room. */
static inline int shoal_memo_has_room(const struct shoal_memo *memo)
{
    return memo->count < (memo->mask + 1) / 2 && memo->keys && memo->count <= UINT32_MAX;
}

/* A free slot from shoal_memo_place, under the next number. */
static inline void shoal_memo_fill(struct shoal_memo *memo, struct shoal_memo_slot *slot, PyObject *object)
{
    *slot = (struct shoal_memo_slot){(uintptr_t)object, memo->generation, (uint32_t)memo->count};
    memo->keys[memo->count++] = (uintptr_t)object;
    Py_INCREF(object);
}

/* The number of a key, or -1. */
static inline int64_t shoal_memo_find(const struct shoal_memo *memo, uintptr_t key)
{
    const struct shoal_memo_slot *slot = shoal_memo_place(memo, key);
    return slot->generation == memo->generation ? (int64_t)slot->index : -1;
}

#endif

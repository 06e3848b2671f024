/* SPDX-License-Identifier: BSD-3-Clause */
#include "memo_table.h"

enum {
    FIRST_SLOTS = 64,
    FAST_GROWTH_SLOTS = 64 * 1024, /* up to here it grows fourfold */
    KEPT_SLOTS = 256 * 1024,       /* 4 MiB; a table that grew beyond this is not kept for the next stream */
};

static int allocate(struct shoal_memo *memo, size_t slot_count)
{
    struct shoal_memo_slot *slots = PyMem_Calloc(slot_count, sizeof *slots);
    uintptr_t *keys = PyMem_Realloc(memo->keys, slot_count / 2 * sizeof *keys);
    if (keys)
        memo->keys = keys; /* shrinking happens only when it is empty */
    if (!slots || !keys) {
        PyMem_Free(slots);
        PyErr_NoMemory();
        return -1;
    }
    PyMem_Free(memo->slots);
    memo->slots = slots;
    memo->mask = slot_count - 1;
    memo->generation = 1; /* fresh slots are of generation 0 */
    return 0;
}

int shoal_memo_init(struct shoal_memo *memo)
{
    *memo = (struct shoal_memo){0};
    return allocate(memo, FIRST_SLOTS);
}

static PyObject *object_of(uintptr_t key)
{
    return (PyObject *)(key & ~SHOAL_MEMO_SHADOW);
}

/* Dropping an object may run code, which may use this very table: it must be empty and whole by then. */
static void drop_objects(struct shoal_memo *memo)
{
    uintptr_t *keys = memo->keys;
    size_t count = memo->count;
    memo->keys = NULL;
    memo->count = 0;
    for (size_t i = 0; i < count; i++)
        Py_DECREF(object_of(keys[i]));
    PyMem_Free(memo->keys ? keys : NULL);
    if (!memo->keys)
        memo->keys = keys;
}

void shoal_memo_done(struct shoal_memo *memo)
{
    shoal_memo_reset(memo);
    PyMem_Free(memo->slots);
    PyMem_Free(memo->keys);
    memo->slots = NULL;
    memo->keys = NULL;
}

void shoal_memo_reset(struct shoal_memo *memo)
{
    if (memo->count == 0)
        return;
    if (++memo->generation == 0) {
        memset(memo->slots, 0, (memo->mask + 1) * sizeof *memo->slots);
        memo->generation = 1;
    }
    drop_objects(memo);
    if (memo->count == 0 && memo->mask + 1 > KEPT_SLOTS && allocate(memo, FIRST_SLOTS) < 0)
        PyErr_Clear(); /* the big one serves as well */
}

size_t shoal_memo_size(const struct shoal_memo *memo)
{
    size_t slots = memo->slots ? memo->mask + 1 : 0;
    return slots * sizeof *memo->slots + (memo->keys ? slots / 2 * sizeof *memo->keys : 0);
}

static void enter(struct shoal_memo *memo, uintptr_t key, uint32_t index)
{
    size_t i = shoal_memo_hash(key), step = 0;
    while (memo->slots[i & memo->mask].generation == memo->generation)
        i += ++step;
    memo->slots[i & memo->mask] = (struct shoal_memo_slot){key, memo->generation, index};
}

static int enlarge(struct shoal_memo *memo)
{
    struct shoal_memo_slot *old = memo->slots;
    size_t old_count = memo->mask + 1;
    uint32_t old_generation = memo->generation;
    memo->slots = NULL;
    if (allocate(memo, old_count * (old_count < FAST_GROWTH_SLOTS ? 4 : 2)) < 0) {
        memo->slots = old;
        return -1;
    }
    for (size_t i = 0; i < old_count; i++)
        if (old[i].generation == old_generation)
            enter(memo, old[i].key, old[i].index);
    PyMem_Free(old);
    return 0;
}

int shoal_memo_put(struct shoal_memo *memo, uintptr_t key, uint32_t index)
{
    if (memo->count >= (memo->mask + 1) / 2 && enlarge(memo) < 0)
        return -1;
    if (!memo->keys && !(memo->keys = PyMem_Calloc((memo->mask + 1) / 2, sizeof *memo->keys))) {
        PyErr_NoMemory();
        return -1;
    }
    enter(memo, key, index);
    memo->keys[memo->count++] = key;
    Py_INCREF(object_of(key));
    return 0;
}

int shoal_memo_truncate(struct shoal_memo *memo, size_t count)
{
    if (memo->count <= count)
        return 0;
    uint32_t *indexes = PyMem_Malloc((count + 1) * sizeof *indexes);
    if (!indexes) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i < count; i++)
        indexes[i] = (uint32_t)shoal_memo_find(memo, memo->keys[i]);
    if (++memo->generation == 0) {
        memset(memo->slots, 0, (memo->mask + 1) * sizeof *memo->slots);
        memo->generation = 1;
    }
    for (size_t i = 0; i < count; i++)
        enter(memo, memo->keys[i], indexes[i]);
    PyMem_Free(indexes);
    while (memo->count > count) /* dropping an object may run code, which finds the table whole */
        Py_DECREF(object_of(memo->keys[--memo->count]));
    return 0;
}

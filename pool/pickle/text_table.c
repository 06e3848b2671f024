/* SPDX-License-Identifier: BSD-3-Clause */
/* text_table.c - see the header. */
#include "text_table.h"

enum { SLOTS_FIRST = 64 };

static struct shoal_text_slot *new_slots(size_t count)
{
    struct shoal_text_slot *slots = PyMem_Calloc(count, sizeof *slots);
    if (!slots)
        PyErr_NoMemory();
    return slots;
}

static void enter(struct shoal_text_slot *slots, size_t mask, struct shoal_text_slot slot)
{
    size_t i = slot.hash;
    for (size_t step = 0; slots[i & mask].place != 0; i += ++step)
        continue;
    slots[i & mask] = slot;
}

/* Never more than half full: a search ends. */
static int make_room(struct shoal_texts *texts)
{
    if (shoal_texts_have_room(texts))
        return 0;
    size_t old_count = texts->mask + 1;
    struct shoal_text_slot *slots = new_slots(old_count * 2);
    if (!slots)
        return -1;
    for (size_t i = 0; i < old_count; i++)
        if (texts->slots[i].place != 0)
            enter(slots, old_count * 2 - 1, texts->slots[i]);
    PyMem_Free(texts->slots);
    texts->slots = slots;
    texts->mask = old_count * 2 - 1;
    return 0;
}

int shoal_texts_add(struct shoal_texts *texts, const struct shoal_memo *memo, PyObject *str, size_t place)
{
    if (place >= UINT32_MAX)
        return 0; /* such a one is not found again: it is written twice */
    if (make_room(texts) < 0)
        return -1;
    uint32_t hash = shoal_text_hash(str);
    size_t i = hash;
    /* The slot of a text that was taken back serves again: what is tried often must not make a long way of it. */
    for (size_t step = 0;; i += ++step) {
        struct shoal_text_slot *slot = &texts->slots[i & texts->mask];
        if (slot->place == 0) {
            texts->count++;
            break;
        }
        PyObject *held = slot->hash == hash ? shoal_texts_held(memo, slot) : NULL;
        if (slot->hash == hash && (!held || held == str || shoal_text_hash(held) != hash))
            break;
    }
    texts->slots[i & texts->mask] = (struct shoal_text_slot){hash, (uint32_t)place + 1};
    return 0;
}

int shoal_texts_begin(struct shoal_texts *texts, const struct shoal_memo *memo)
{
    if (!(texts->slots = new_slots(SLOTS_FIRST)))
        return -1;
    texts->mask = SLOTS_FIRST - 1;
    texts->count = 0;
    for (size_t i = 0; i < memo->count; i++) {
        PyObject *met = (PyObject *)(memo->keys[i] & ~SHOAL_MEMO_SHADOW);
        if (!(memo->keys[i] & SHOAL_MEMO_SHADOW) && PyUnicode_CheckExact(met) &&
            !shoal_texts_find(texts, memo, met) && shoal_texts_add(texts, memo, met, i) < 0) {
            shoal_texts_end(texts);
            return -1;
        }
    }
    return 0;
}

void shoal_texts_end(struct shoal_texts *texts)
{
    PyMem_Free(texts->slots);
    *texts = (struct shoal_texts){0};
}

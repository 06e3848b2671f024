/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * block.h - Python objects over arena memory.
 *
 * A Block stands for one arena block that this process holds; a View is a range of it that exports the buffer protocol.
 * An array keeps its View, the View its Block; when the last View is collected the Block gives the memory back: in the
 * process that owns the arena to the arena, in a worker by telling the parent.
 */
#ifndef SHOAL_EXT_BLOCK_H
#define SHOAL_EXT_BLOCK_H

#include "home.h"

enum block_kind {
    BLOCK_USER,      /* shoal.empty / array / share: travels as a handle, frozen at its first send */
    BLOCK_MESSAGE,   /* payload of a message that this process received (or, in the parent, a result) */
    BLOCK_BORROWED,  /* in a worker: a user block of the parent, read-only */
    BLOCK_INHERITED, /* existed when this process was forked */
};

struct block {
    PyObject_HEAD
    struct module_state *state;
    PyObject *module; /* keeps the state alive */
    struct home *home; /* owner's side: whose arena it is in; NULL in a worker */
    struct block *next, **previous_next;
    uint64_t offset;
    uint64_t size_bytes; /* as asked for */
    uint64_t epoch;
    uint8_t *address;
    enum block_kind kind;
    bool frozen;
    bool kept; /* in a worker: the parent knows that we hold it, and wants to hear when we do not */
};

/* New reference over an arena block whose owner's count we take over; NULL with an exception (the count stays ours). */
PyObject *block_adopt(struct module_state *state, struct home *home, uint64_t offset, uint64_t size_bytes,
                      enum block_kind kind);
/* In a worker: new reference to a Block at `address`, which is the parent's arena at `offset`. */
PyObject *block_map(struct module_state *state, uint8_t *address, uint64_t offset, uint64_t size_bytes,
                    enum block_kind kind);

/* New reference to a buffer exporter over [offset_in_block, + size). */
PyObject *view_new(struct block *block, uint64_t offset_in_block, uint64_t size_bytes, bool readonly);

/* The live Block of this process and epoch that contains [address, address + size), borrowed, or NULL. */
struct block *block_containing(struct module_state *state, const void *address, uint64_t size_bytes);

/* Make the array (or other exporter) that owns a writable buffer, and its bases, read-only where they can be. */
void block_freeze_exporter(struct module_state *state, PyObject *exporter);

/* fork.c. In a forked child: what it inherited becomes its own, its writes are seen by nobody else. */
void blocks_make_private(struct module_state *state);

#endif

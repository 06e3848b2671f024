/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * block.h - Python objects over arena memory.
 *
 * A Block stands for one arena block that this process holds; a View is a range of it that exports the buffer protocol.
 * An array keeps its View, the View its Block; when the last View is collected the Block gives the memory back: in the
 * process that owns the arena to the arena, in a worker by telling the parent.
 *
 * An array of the user's (shoal.share, empty, array) lies in one block that many hold. Who receives it gets a private
 * view (<shoal/shadow.h>): its memory is the block's until it is written. Where there can be no such view, a copy.
 */
#ifndef SHOAL_EXT_BLOCK_H
#define SHOAL_EXT_BLOCK_H

#include "home.h"
#include "intervals.h"

enum block_kind {
    BLOCK_USER,      /* shoal.empty / array / share: travels as a handle */
    BLOCK_MESSAGE,   /* payload of a message that this process received (or, in the parent, a result) */
    BLOCK_BORROWED,  /* in a worker: a user block of the parent, the memory that all share */
    BLOCK_PRIVATE,   /* a private view, or a copy, of a part of a user block */
    BLOCK_INHERITED, /* existed when this process was forked */
};

enum block_mode { /* of a user block: what arrives where it is sent */
    BLOCK_AS_COPY,   /* something writable of the receiver's own; the sender's array freezes at its first send */
    BLOCK_READ_ONLY, /* a read-only view of the memory that all share */
    BLOCK_OPEN,      /* the shared memory itself, for all to write */
};

struct block {
    PyObject_HEAD
    struct module_state *state;
    PyObject *module; /* keeps the state alive */
    struct home *home; /* owner's side: whose arena it is in; NULL in a worker */
    struct block *next, **previous_next;
    struct interval by_address, by_offset; /* in the state's trees: bytes of memory; the arena block */
    uint64_t offset;     /* of the arena block */
    uint64_t size_bytes; /* as asked for */
    uint64_t start;      /* what lies at `address`, as a place in the region; `offset` unless private */
    uint64_t epoch;
    uint8_t *address;
    struct home *shadowed; /* PRIVATE: a view of this one's region; strong */
    uint8_t *heap;         /* PRIVATE: a copy instead */
    enum block_kind kind;
    enum block_mode mode;
    bool frozen;
    bool writable_here; /* in a worker: its pages are, in the mapping of the region */
    bool lent; /* somebody may have a writable buffer of it */
    bool private_here;  /* its pages are mapped privately, in place: in a child, or because it was sent */
    bool of_task; /* in a worker: one of the blocks of the task at hand */
    bool kept; /* in a worker: the parent knows that we hold it, and wants to hear when we do not */
    unsigned long in_hand; /* of the thread that has it, and nobody else yet; or 0. Others' forks do not count it */
    bool packed; /* it is what handle.h describes: a handle to all of it arrives as such, a part of it as a copy */
    struct block *under; /* PRIVATE: who holds the arena block that it shows, if it does not itself; strong */
    struct block *local; /* of another process's arena: a copy in ours, for our own pools; strong */
};

/* New reference over an arena block whose owner's count we take over; NULL with an exception (the count stays ours). */
PyObject *block_adopt(struct module_state *state, struct home *home, uint64_t offset, uint64_t size_bytes,
                      enum block_kind kind);
/* In a worker: new reference to a Block at `address`, which is the parent's arena at `offset`. */
PyObject *block_map(struct module_state *state, uint8_t *address, uint64_t offset, uint64_t size_bytes,
                    enum block_kind kind);

/*
 * New reference to a private view (or copy) of [start, start + size) of the region, a part of the arena block at
 * `offset`. It holds nothing: the caller sees to it that the arena block stays. NULL with MemoryError.
 */
PyObject *block_private(struct module_state *state, struct home *home, uint64_t offset, uint64_t start,
                        uint64_t size_bytes);
/* Does a private block, PRIVATE or private_here, still show in this range what the arena block has? */
bool block_is_unwritten(const struct block *block, const void *address, uint64_t size_bytes);

/*
 * A user's block is sent by handle: from now on what is written through buffers of it that are out, whatever their
 * flags say, is this process's alone, as if a copy had been sent. Where no mapping can be had, it stays as it is.
 */
void block_sent(struct block *block);

/* New reference to a buffer exporter over [offset_in_block, + size). */
PyObject *view_new(struct block *block, uint64_t offset_in_block, uint64_t size_bytes, bool readonly);

/* The Block behind a Block or View, borrowed, and which bytes of it are meant; NULL, without an exception: neither. */
struct block *block_behind(struct module_state *state, PyObject *exporter, uint8_t **ret_start, uint64_t *ret_bytes);
/* New reference to a Block over new memory of this process's arena; NULL with MemoryError. */
struct block *block_allocate(struct module_state *state, uint64_t size_bytes, enum block_mode mode);

/* In a child of another thread's fork: nobody has this Block, nor its memory. */
static inline bool block_is_in_other_hands(const struct block *block)
{
    return block->in_hand != 0 && block->in_hand != PyThread_get_thread_ident();
}
void block_forsake(struct block *block);

/* The live Block of this process and epoch that contains [address, address + size), borrowed, or NULL. */
struct block *block_containing(struct module_state *state, const void *address, uint64_t size_bytes);

/* Calls visit for each live Block of the arena block at `offset`. */
void blocks_of_offset(struct module_state *state, uint64_t offset, void (*visit)(struct block *block, void *arg),
                      void *arg);

/* Make the array (or other exporter) that owns a writable buffer, and its bases, read-only where they can be. */
void block_freeze_exporter(struct module_state *state, PyObject *exporter);

/* Bytes of whole pages that it has in the region, from `offset` on; not for PRIVATE. */
static inline uint64_t block_pages(const struct block *block)
{
    return block->size_bytes == 0 ? 4096 : (block->size_bytes + 4095) & ~UINT64_C(4095);
}

/* fork.c. In a forked child: what it inherited becomes its own, its writes are seen by nobody else. */
void blocks_make_private(struct module_state *state);

#endif

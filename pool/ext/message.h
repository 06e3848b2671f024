/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * message.h - what travels between parent and worker, and how it is built.
 *
 * A stream is a sequence of sections, each an 8-byte prefix and one pickle, then the table of its out-of-band buffers:
 *
 *     +--------+--------+--------+--------+-- ... --+-----+-----------+-----------+-- ...
 *     | prefix | pickle | prefix | pickle |         | pad | entry 0   | entry 1   |
 *     +--------+--------+--------+--------+-- ... --+-----+-----------+-----------+-- ...
 *       bytes:40 | buffers:24                       to 8    struct buffer_entry, 32 bytes each
 *
 * A call has one section, (function, args, kwargs), or two, function and args, where these are plain; a batch has one
 * for the function and one for each item, so that an item that cannot be read spoils itself alone, and a batch can be
 * continued in its middle. A result has one section.
 * Items that are plain values (plain.h) share one, as many as follow each other: count:32 and the values instead of a
 * pickle. A single plain value is written so, too.
 * The pickler writes the stream straight into the ring; a stream that outgrows the room there moves to the heap, and
 * from there into the message's arena block, behind its buffers.
 */
#ifndef SHOAL_EXT_MESSAGE_H
#define SHOAL_EXT_MESSAGE_H

#include "block.h"
#include "plain.h"

/* Buffers below this size go in band: a copy is cheaper than a block and its mapping. */
#define OUT_OF_BAND_MIN (32u << 10)
#define BUFFER_ALIGN 64u

enum buffer_kind {
    BUFFER_IN_MESSAGE = 1, /* copied into the message's own block */
    BUFFER_SHARED = 2,     /* lies in a user block: a handle */
    BUFFER_ADOPTED = 3,    /* result only: lies in the task's own block, which goes back whole */
};

#define BUFFER_READONLY 1u
#define BUFFER_OPEN 2u /* SHARED: the memory itself is to be written by all; else it arrives as a private view */

struct buffer_entry {
    uint64_t offset; /* in the region */
    uint64_t size_bytes;
    uint64_t block_offset; /* of the arena block that contains it */
    uint32_t kind;
    uint32_t flags;
};
_Static_assert(sizeof(struct buffer_entry) == 32, "buffer_entry is part of the stream format");

#define SECTION_PREFIX_BYTES 8u
#define SECTION_PLAIN ((1u << 24) - 1) /* instead of a number of buffers: plain values */
#define SECTION_BUFFERS_MAX (SECTION_PLAIN - 1)

/* A buffer that the pickler handed to us: kept until it is copied. */
struct taken {
    Py_buffer view;      /* obj NULL when not held */
    struct block *block; /* strong; SHARED and ADOPTED only */
    uint64_t offset;     /* SHARED and ADOPTED: in the region */
    uint64_t size_bytes;
    enum buffer_kind kind;
    bool readonly, open; /* as BUFFER_READONLY, BUFFER_OPEN */
    bool in_pieces; /* IN_MESSAGE only: is put together when it is copied */
};

/* A message under construction. */
struct outgoing {
    struct shoal_sink sink; /* first: the grow function finds us through it */
    struct module_state *state;
    struct home *home;            /* whose blocks may travel by handle; borrowed */
    struct block *own_block;      /* worker: the block of the task at hand, may be adopted; borrowed */
    uint8_t *heap;                /* the stream's memory once it has left the ring; NULL before */
    const struct shoal_inheritance *inheritance; /* or NULL */
    size_t section_start;
    struct taken *taken;
    size_t taken_count, taken_capacity, section_first_buffer;
    const char *root; /* what the next section is, for error messages: a word that shoal._paths knows, or NULL */
    uint32_t root_index;
    bool far; /* who will read it runs on another CPU */
    bool self_contained;    /* it is to refer to no other block, and any process may read it, at any time, again */
    bool own_reducers_only; /* as in shoal_encoder_options */
};

/* Begin in [ring, ring + room), or on the heap if ring is NULL. */
void outgoing_begin(struct outgoing *out, struct module_state *state, struct home *home, uint8_t *ring, size_t room);
void outgoing_clear(struct outgoing *out);

/* Write one section: the items that are plain, up to the first that is not; or the first one's pickle. How many of the
 * `count` (at least 1) it holds, or -1 with an exception (the section is taken back). */
int64_t outgoing_section(struct outgoing *out, struct shoal_encoder *encoder, PyObject *const *items, uint32_t count);

/*
 * Write a call: 0 as one section, (function, args, kwargs or None), 1 as two, function and args, which are plain, so
 * that nothing of one can be part of the other; or -1 with an exception. args: a tuple; kwargs: NULL or not.
 */
int outgoing_call(struct outgoing *out, struct shoal_encoder *encoder, PyObject *function, PyObject *args,
                  PyObject *kwargs);

/* Pad and make room for the table, so that the stream's size is final: its bytes including the table. -1: exception. */
int64_t outgoing_seal(struct outgoing *out);
static inline bool outgoing_in_ring(const struct outgoing *out)
{
    return out->heap == NULL;
}

/* Bytes of arena block that the message needs: buffers to copy and, if it left the ring, the stream. */
uint64_t outgoing_block_bytes(const struct outgoing *out, uint64_t stream_bytes);

/*
 * Copy the buffers to `block` (address of block_offset; NULL if outgoing_block_bytes is 0), write the table, and copy
 * the stream behind the buffers if it left the ring (*ret_stream_offset is then its place in the region). Releases the
 * GIL for large copies. Drops the views.
 */
void outgoing_write(struct outgoing *out, uint8_t *block, uint64_t block_offset, uint64_t stream_bytes,
                    uint64_t *ret_stream_offset);

/* ---- reading ---- */

/* The next section in [*cursor, end): its pickle, checked to lie inside. -1 with UnpicklingError if it does not. */
int section_next(const uint8_t **cursor, const uint8_t *end, const uint8_t **ret_pickle, size_t *ret_bytes,
                 uint32_t *ret_buffers);

/* Of a section with SECTION_PLAIN buffers: moves *content to the first value, which ends before *content + *bytes, and
 * says how many there are to be. -1 with UnpicklingError. */
int section_plain(const uint8_t **content, size_t *bytes, uint32_t *ret_count);

/* The value of a section that holds a single plain one: new reference; NULL, without an exception: it is another. */
PyObject *section_single(const uint8_t *section, size_t bytes);

/* Raise UnpicklingError for a message that is damaged. Always -1. */
int raise_damaged(struct module_state *state, const char *what);

#endif

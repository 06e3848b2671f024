/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ring.h - records of bytes from one writer to one reader, in shared memory.
 *
 * The problem: a message should be written once, at the place where the other process reads it, without knowing its
 * length beforehand; a writer that dies half way must leave nothing behind.
 *
 * The ring: data_bytes (a power of two) mapped twice back to back, so that every record is contiguous; two 64-bit
 * positions that only grow, each written by one side. A record is an 8-byte header (length, and a magic tag that is
 * checked) and the payload, padded to 8. The writer works after the tail; publishing is one store of the tail with
 * release order, so an unpublished record does not exist, and giving one up costs nothing.
 *
 * One writer and one reader, in two processes or two threads. The reader trusts nothing: positions and lengths are
 * fetched once and checked; damage gives -EBADMSG, after which the ring is not to be read any more.
 */
#ifndef SHOAL_RING_H
#define SHOAL_RING_H

#include <shoal/export.h>
#include <shoal/region.h>

SHOAL_BEGIN_DECLS

struct shoal_ring;

enum shoal_ring_role { SHOAL_RING_WRITER, SHOAL_RING_READER };

/* Bytes of region that a ring of data_bytes takes (two control pages, data); a power of two, >= 4096. 0: it is not. */
SHOAL_API uint64_t shoal_ring_footprint(uint64_t data_bytes);

/* Lay an empty ring out at a page-aligned offset that has been reserved. Once, before anyone attaches. */
SHOAL_API int shoal_ring_format(struct shoal_region *region, uint64_t offset, uint64_t data_bytes);

/*
 * Map a ring and take a side of it. The mapping is inherited by fork; the handle then works in the child as well (one
 * process only may use a side). Errors: -EPROTO header of another version or layout; -EINVAL bounds; -ENOMEM.
 */
SHOAL_API int shoal_ring_attach(struct shoal_region *region, uint64_t offset, struct shoal_ring **ret_ring);
SHOAL_API void shoal_ring_detach(struct shoal_ring *ring);

/* In this process: the data and the writer's line (as_writer), or only the reader's line, stay writable. */
SHOAL_API int shoal_ring_protect(struct shoal_ring *ring, enum shoal_ring_role role);

/* Largest payload that a single record can have. */
SHOAL_API uint64_t shoal_ring_record_max(const struct shoal_ring *ring);

/*
 * Writer: room for a record of at least want_bytes; *ret_payload is contiguous for *ret_room bytes (all that is free).
 * May be called again with a larger want before the commit: what was written stays where it is.
 * -EAGAIN: not that much free now; -EMSGSIZE: never.
 */
SHOAL_API int shoal_ring_reserve(struct shoal_ring *ring, uint64_t want_bytes, void **ret_payload, uint64_t *ret_room);

/* Writer: publish the record, of used_bytes payload. Must not exceed the room. One release store. */
SHOAL_API int shoal_ring_commit(struct shoal_ring *ring, uint64_t used_bytes);

/*
 * Writer: the first used_bytes of the payload that is being written after the tail are whole. If the writer dies before
 * the commit, the reader can still have them (shoal_ring_salvage): for a record of many parts that each count by
 * themselves. No more than was reserved. One release store.
 */
SHOAL_API int shoal_ring_note(struct shoal_ring *ring, uint64_t used_bytes);

/* Reader: the oldest record, in place. -EAGAIN: none; -EBADMSG: damaged. */
SHOAL_API int shoal_ring_peek(struct shoal_ring *ring, const void **ret_payload, uint64_t *ret_bytes);

/* Reader: done with the record that peek gave. */
SHOAL_API void shoal_ring_pop(struct shoal_ring *ring);

/* Both: bytes between head and tail (a snapshot). */
SHOAL_API uint64_t shoal_ring_used(const struct shoal_ring *ring);

/*
 * Reader, when all committed records were read: what the writer has noted of a record and not committed, in place.
 * -EAGAIN: nothing; -EBADMSG: damaged. Of a writer that is gone, that is final. Of one that lives it is a look, void if
 * shoal_ring_used() is not 0 afterwards: then the bytes may have run on into the next record.
 */
SHOAL_API int shoal_ring_salvage(struct shoal_ring *ring, const void **ret_payload, uint64_t *ret_bytes);

/* Reader, when the writer is known to be gone: make the ring empty and usable by a new writer. */
SHOAL_API void shoal_ring_reset(struct shoal_ring *ring);

/* 0 if header, positions and every record between them are valid; -EBADMSG or -EPROTO if not. Reader's side only. */
SHOAL_API int shoal_ring_check(const struct shoal_ring *ring);

SHOAL_END_DECLS
#endif

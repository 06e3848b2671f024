/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * arena.h - blocks for large payloads inside a region, and who holds them.
 *
 * The problem: an allocator whose bookkeeping lies in shared memory is torn apart when a process is killed inside it;
 * a shared reference count is off for ever when its holder is killed.
 *
 * The answer: all bookkeeping is private to the one process that allocates (the owner). Other processes are told an
 * offset and a length. A block says *who* holds it: the owner's own count, and one bit per other process ("holder"),
 * set and cleared by the owner on what it learns. When a process dies its column is cleared, exactly.
 *
 * Blocks are aligned to pages, backed with memory (shoal_region_reserve) before they are handed out, recycled
 * last-in-first-out while their pages are warm, merged with free neighbours, and given back to the system in units of
 * 2 MiB by shoal_arena_trim().
 *
 * Not thread-safe: the caller serialises (in the pool, the GIL does). After a fork the child must not allocate or free
 * (it has a private copy of the bookkeeping).
 */
#ifndef SHOAL_ARENA_H
#define SHOAL_ARENA_H

#include <shoal/export.h>
#include <shoal/region.h>

SHOAL_BEGIN_DECLS

struct shoal_arena;

#define SHOAL_ARENA_HOLDERS_MAX 1024 /* holder ids are 0 .. this - 1 */

struct shoal_arena_stats {
    uint64_t budget_bytes;
    uint64_t used_bytes;   /* in blocks that somebody holds, without the exempt ones */
    uint64_t exempt_bytes; /* in blocks that were uncharged */
    uint64_t cached_bytes; /* backed by memory, held by nobody */
    uint64_t block_count;
};

/*
 * An arena over [offset, offset + size_bytes) of a region. budget_bytes bounds used_bytes + cached_bytes; 0 means half
 * of shoal_memory_available() now. Bounded by size_bytes in any case.
 */
SHOAL_API int shoal_arena_create(struct shoal_region *region, uint64_t offset, uint64_t size_bytes,
                                 uint64_t budget_bytes, struct shoal_arena **ret_arena);
SHOAL_API void shoal_arena_free(struct shoal_arena *arena);

/*
 * A block of at least size_bytes, with the owner's count at one. size_bytes may be 0.
 * Errors: -EDQUOT the budget is reached (freeing blocks helps); -ENOMEM/-ENOSPC the machine has no memory or the
 * region no contiguous room; -E2BIG larger than the budget altogether (freeing does not help).
 */
SHOAL_API int shoal_arena_alloc(struct shoal_arena *arena, uint64_t size_bytes, uint64_t *ret_offset);

/* Cut a block down to size_bytes (rounded up to pages); the rest is free again. */
SHOAL_API int shoal_arena_shrink(struct shoal_arena *arena, uint64_t offset, uint64_t size_bytes);

/* The owner's count. A block is free when the count is zero and no holder's bit is set. -ENOENT: no block there. */
SHOAL_API int shoal_arena_retain(struct shoal_arena *arena, uint64_t offset);
SHOAL_API int shoal_arena_release(struct shoal_arena *arena, uint64_t offset);

/* Another process holds the block, does not any more, or has died (all its bits). Holding twice is holding once. */
SHOAL_API int shoal_arena_hold(struct shoal_arena *arena, uint64_t offset, unsigned holder);
SHOAL_API int shoal_arena_unhold(struct shoal_arena *arena, uint64_t offset, unsigned holder);
SHOAL_API int shoal_arena_forget(struct shoal_arena *arena, unsigned holder);

/* 1 if this process holds it, 0 if not. -ENOENT. */
SHOAL_API int shoal_arena_holds(const struct shoal_arena *arena, uint64_t offset, unsigned holder);
/* Bytes of the blocks that it holds, alone or with others. Walks all blocks. */
SHOAL_API uint64_t shoal_arena_held_bytes(const struct shoal_arena *arena, unsigned holder);

/* True if `holder` is the only one that holds the block and the owner's count is zero / the owner alone holds it. */
SHOAL_API int shoal_arena_exclusive(const struct shoal_arena *arena, uint64_t offset, int holder_or_minus_one);

/*
 * The block does not count towards the budget any more (a result that its user keeps is the user's memory). -ENOENT.
 * shoal_arena_alloc_beyond: a block that never counted; bounded by the machine's memory and the region alone.
 */
SHOAL_API int shoal_arena_uncharge(struct shoal_arena *arena, uint64_t offset);
SHOAL_API int shoal_arena_alloc_beyond(struct shoal_arena *arena, uint64_t size_bytes, uint64_t *ret_offset);

/* The block that contains [offset, offset + length_bytes), if there is one in use. -ENOENT otherwise. */
SHOAL_API int shoal_arena_find(const struct shoal_arena *arena, uint64_t offset, uint64_t length_bytes,
                               uint64_t *ret_block, uint64_t *ret_block_bytes);

/* Give free, cached memory back to the system until at most keep_bytes of it are left. Returns 0. */
SHOAL_API int shoal_arena_trim(struct shoal_arena *arena, uint64_t keep_bytes);

SHOAL_API void shoal_arena_get_stats(const struct shoal_arena *arena, struct shoal_arena_stats *ret_stats);

/* Walk the whole structure; 0 if every invariant holds, -EUCLEAN if not. For tests and after faults. */
SHOAL_API int shoal_arena_check(const struct shoal_arena *arena);

SHOAL_END_DECLS
#endif

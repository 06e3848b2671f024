/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * arena.c - blocks for large payloads: taking, cutting, the budget, giving memory back.
 *
 * The problem: warm pages are ten times cheaper than fresh ones, so freed blocks should be used again, newest first;
 * but memory that nobody uses must not stand in the way of others, neither of our own budget nor of the machine.
 *
 * The protocol: a block comes from free backed memory (warm) if there is a piece that fits. Else a piece that is not
 * backed (cold) is given memory by fallocate first, so that "no memory" is an error code here and never SIGBUS later.
 * used + warm never exceeds the budget: when it would, or when the system refuses, warm memory is given back until it
 * fits. What is refused in the end leaves everything as it was.
 *
 * What it costs: constant time to take and to give; a system call only for cold memory, and for small blocks only once
 * per 256 KiB.
 * What it does not do: it moves nothing, so a long life with mixed sizes can leave holes that no large block fits into
 * (-ENOSPC; a region is sparse, so make it several times larger than the budget).
 */
#include "arena.h"

#include "region.h"
#include "sys.h"

#include <errno.h>
#include <stdlib.h>

#define BACK_AT_LEAST_BYTES (256u << 10)
#define CHECK_AFTER_BYTES (1u << 20)
#define RETURN_UNIT_BYTES (2u << 20) /* a smaller hole would split a huge page */

/* ---- life ---- */

/* The budget in pages: what was asked for, or half of what there is; at most all. 0: not even a page. */
static uint64_t budget_pages(uint64_t budget_bytes, uint64_t page_bytes, uint64_t page_count)
{
    uint64_t available;
    if (budget_bytes == 0)
        budget_bytes = shoal_memory_available(&available) == 0 ? available / 2 : page_count * page_bytes;
    return budget_bytes / page_bytes < page_count ? budget_bytes / page_bytes : page_count;
}

int shoal_arena_create(struct shoal_region *region, uint64_t offset, uint64_t size_bytes, uint64_t budget_bytes,
                       struct shoal_arena **ret_arena)
{
    uint64_t page_bytes = (uint64_t)shoal__sys_page_size();
    if ((offset | size_bytes) % page_bytes != 0 || size_bytes == 0 || offset < SHOAL_REGION_HEADER_BYTES ||
        !shoal_region_at(region, offset, size_bytes))
        return -EINVAL;
    struct shoal_arena *arena = calloc(1, sizeof(*arena));
    if (!arena)
        return -ENOMEM;
    arena->region = region;
    arena->offset = offset;
    arena->page_bytes = page_bytes;
    arena->page_count = size_bytes / page_bytes;
    arena->budget_pages = budget_pages(budget_bytes, page_bytes, arena->page_count);
    int status = arena->budget_pages > 0 ? shoal__space_init(arena) : -EINVAL;
    if (status < 0) {
        shoal_arena_free(arena);
        return status;
    }
    *ret_arena = arena;
    return 0;
}

void shoal_arena_free(struct shoal_arena *arena)
{
    if (!arena)
        return;
    shoal__space_done(arena);
    free(arena);
}

/* ---- giving memory back ---- */

/* Give back pages of a warm extent. Not being able to is no error: they stay warm. */
static void give_back(struct shoal_arena *arena, struct shoal__extent *extent, uint64_t first_page, uint64_t page_count)
{
    struct shoal__extent *cold;
    /* First the bookkeeping, which may find no memory for itself; giving back then has no reason to fail. */
    if (shoal__space_convert(arena, extent, first_page, page_count, SHOAL__EXTENT_COLD, &cold) == 0)
        shoal_region_discard(arena->region, arena->offset + first_page * arena->page_bytes,
                             page_count * arena->page_bytes);
}

/* Whole 2 MiB units of an extent, from its end, as many as it takes. */
static void give_back_units(struct shoal_arena *arena, struct shoal__extent *extent, uint64_t keep_pages)
{
    uint64_t unit = RETURN_UNIT_BYTES / arena->page_bytes;
    uint64_t shift = arena->offset / arena->page_bytes % unit; /* units are aligned in the region, not in the arena */
    uint64_t first = (extent->first_page + shift + unit - 1) / unit;
    uint64_t end = (extent->first_page + extent->page_count + shift) / unit;
    if (first >= end)
        return;
    uint64_t wanted = (arena->warm_pages - keep_pages + unit - 1) / unit;
    if (wanted < end - first)
        first = end - wanted;
    uint64_t first_page = first * unit - shift;
    give_back(arena, extent, first_page, (end - first) * unit);
}

/* Largest lists first, in each the oldest first: the newest are the ones whose pages are in the caches. */
static void trim_to(struct shoal_arena *arena, uint64_t keep_pages)
{
    const struct shoal__bins *warm = &arena->bins[SHOAL__EXTENT_WARM];
    unsigned smallest = shoal__space_class(RETURN_UNIT_BYTES / arena->page_bytes);
    for (bool units_only = true;; units_only = false) {
        for (unsigned class = SHOAL__SIZE_CLASSES; class-- > (units_only ? smallest : 1);) {
            struct shoal__extent *newer, *extent = warm->oldest[class];
            for (; extent && arena->warm_pages > keep_pages; extent = newer) {
                newer = extent->free.newer; /* converting changes no other warm extent */
                if (units_only)
                    give_back_units(arena, extent, keep_pages);
                else
                    give_back(arena, extent, extent->first_page, extent->page_count);
            }
        }
        if (!units_only || arena->warm_pages <= keep_pages)
            return;
    }
}

int shoal_arena_trim(struct shoal_arena *arena, uint64_t keep_bytes)
{
    trim_to(arena, keep_bytes / arena->page_bytes);
    return 0;
}

/* ---- taking ---- */

/* Back a range that has no memory. On failure it has none, either. */
static int back(struct shoal_arena *arena, uint64_t first_page, uint64_t page_count)
{
    uint64_t bytes = page_count * arena->page_bytes, offset = arena->offset + first_page * arena->page_bytes;
    int status = 0;
    arena->unchecked_bytes += bytes;
    if (arena->unchecked_bytes >= CHECK_AFTER_BYTES) {
        /* shoal_region_reserve looks for itself from there on; a named region is backed already. */
        if (bytes < CHECK_AFTER_BYTES && !arena->region->named)
            status = shoal__memory_check(bytes);
        arena->unchecked_bytes = 0;
    }
    if (status == 0) {
        status = shoal_region_reserve(arena->region, offset, bytes);
        if (status < 0)
            shoal_region_discard(arena->region, offset, bytes);
    }
    return status;
}

/* Where in a cold extent to begin: large blocks at a unit of 2 MiB, so that they can have large pages. */
static uint64_t place_in(const struct shoal_arena *arena, const struct shoal__extent *cold, uint64_t page_count)
{
    uint64_t unit = RETURN_UNIT_BYTES / arena->page_bytes, shift = arena->offset / arena->page_bytes % unit;
    uint64_t aligned = (cold->first_page + shift + unit - 1) / unit * unit - shift;
    bool fits = aligned + page_count <= cold->first_page + cold->page_count;
    return page_count >= unit && fits ? aligned : cold->first_page;
}

/* Turn cold memory into a warm extent of at least page_count pages. */
static int warm_up(struct shoal_arena *arena, uint64_t page_count, struct shoal__extent **ret_extent)
{
    struct shoal__extent *cold = shoal__space_find(arena, SHOAL__EXTENT_COLD, page_count);
    if (!cold && arena->warm_pages > 0) {
        trim_to(arena, 0); /* pieces of both kinds side by side become one */
        cold = shoal__space_find(arena, SHOAL__EXTENT_COLD, page_count);
    }
    if (!cold)
        return -ENOSPC;
    uint64_t count = BACK_AT_LEAST_BYTES / arena->page_bytes;
    uint64_t left = arena->budget_pages - arena->used_pages - arena->warm_pages;
    count = count < cold->page_count ? count : cold->page_count;
    count = count < left ? count : left;
    count = count > page_count ? count : page_count;
    uint64_t first_page = place_in(arena, cold, count);
    int status = back(arena, first_page, count);
    if (status < 0)
        return status;
    status = shoal__space_convert(arena, cold, first_page, count, SHOAL__EXTENT_WARM, ret_extent);
    if (status < 0)
        shoal_region_discard(arena->region, arena->offset + first_page * arena->page_bytes, count * arena->page_bytes);
    return status;
}

static int find_warm(struct shoal_arena *arena, uint64_t page_count, struct shoal__extent **ret_extent)
{
    struct shoal__extent *warm = shoal__space_find(arena, SHOAL__EXTENT_WARM, page_count);
    if (warm) {
        *ret_extent = warm;
        return 0;
    }
    if (page_count > arena->budget_pages - arena->used_pages)
        return -EDQUOT;
    uint64_t room = arena->budget_pages - arena->used_pages - page_count;
    if (arena->warm_pages > room)
        trim_to(arena, room);
    if (arena->warm_pages > room)
        return -ENOMEM; /* no memory for the bookkeeping of giving back */
    int status = warm_up(arena, page_count, ret_extent);
    if ((status == -ENOMEM || status == -ENOSPC) && arena->warm_pages > 0) {
        trim_to(arena, 0);
        status = warm_up(arena, page_count, ret_extent);
    }
    return status;
}

/* An extent has become a block, with the owner's count at one. */
static void take(struct shoal_arena *arena, struct shoal__extent *extent, uint64_t *ret_offset)
{
    extent->used.owner_count = 1;
    extent->used.exempt = false;
    arena->used_pages += extent->page_count;
    arena->block_count++;
    *ret_offset = arena->offset + extent->first_page * arena->page_bytes;
}

static uint64_t pages_of(const struct shoal_arena *arena, uint64_t size_bytes)
{
    return size_bytes ? (size_bytes + arena->page_bytes - 1) / arena->page_bytes : 1;
}

int shoal_arena_alloc(struct shoal_arena *arena, uint64_t size_bytes, uint64_t *ret_offset)
{
    if (size_bytes > (arena->budget_pages - arena->exempt_pages) * arena->page_bytes)
        return -E2BIG;
    uint64_t page_count = pages_of(arena, size_bytes);
    struct shoal__extent *extent;
    int status = find_warm(arena, page_count, &extent);
    if (status == 0)
        status = shoal__space_convert(arena, extent, extent->first_page, page_count, SHOAL__EXTENT_USED, &extent);
    if (status < 0)
        return status;
    take(arena, extent, ret_offset);
    return 0;
}

void shoal__arena_unexempt(struct shoal_arena *arena, uint64_t page_count)
{
    arena->exempt_pages -= page_count;
    arena->budget_pages -= page_count;
    uint64_t room = arena->budget_pages > arena->used_pages ? arena->budget_pages - arena->used_pages : 0;
    if (arena->warm_pages > room)
        trim_to(arena, room);
}

int shoal_arena_uncharge(struct shoal_arena *arena, uint64_t offset)
{
    struct shoal__extent *block = shoal__arena_block(arena, offset);
    if (!block)
        return -ENOENT;
    if (!block->used.exempt) {
        block->used.exempt = true;
        arena->exempt_pages += block->page_count;
        arena->budget_pages += block->page_count;
    }
    return 0;
}

int shoal_arena_alloc_beyond(struct shoal_arena *arena, uint64_t size_bytes, uint64_t *ret_offset)
{
    uint64_t page_count = pages_of(arena, size_bytes);
    if (page_count > arena->page_count)
        return -E2BIG;
    arena->budget_pages += page_count;
    arena->exempt_pages += page_count;
    struct shoal__extent *extent;
    int status = find_warm(arena, page_count, &extent);
    if (status == 0)
        status = shoal__space_convert(arena, extent, extent->first_page, page_count, SHOAL__EXTENT_USED, &extent);
    if (status < 0) {
        shoal__arena_unexempt(arena, page_count);
        return status;
    }
    take(arena, extent, ret_offset);
    extent->used.exempt = true;
    return 0;
}

int shoal_arena_shrink(struct shoal_arena *arena, uint64_t offset, uint64_t size_bytes)
{
    struct shoal__extent *block = shoal__arena_block(arena, offset), *rest;
    if (!block)
        return -ENOENT;
    if (size_bytes > block->page_count * arena->page_bytes)
        return -EINVAL;
    uint64_t keep = pages_of(arena, size_bytes), cut = block->page_count - keep;
    if (cut == 0)
        return 0;
    bool exempt = block->used.exempt;
    int status = shoal__space_convert(arena, block, block->first_page + keep, cut, SHOAL__EXTENT_WARM, &rest);
    if (status == 0)
        arena->used_pages -= cut;
    if (status == 0 && exempt)
        shoal__arena_unexempt(arena, cut);
    return status;
}

void shoal_arena_get_stats(const struct shoal_arena *arena, struct shoal_arena_stats *ret_stats)
{
    *ret_stats = (struct shoal_arena_stats){
        .budget_bytes = (arena->budget_pages - arena->exempt_pages) * arena->page_bytes,
        .used_bytes = (arena->used_pages - arena->exempt_pages) * arena->page_bytes,
        .exempt_bytes = arena->exempt_pages * arena->page_bytes,
        .cached_bytes = arena->warm_pages * arena->page_bytes,
        .block_count = arena->block_count,
    };
}

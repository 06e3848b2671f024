/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * arena_check.c - every invariant of an arena, walked.
 *
 * Extents cover the arena without gap or overlap; neighbours are linked both ways; no two free neighbours of one state;
 * every free extent is in the list of its size, and nothing else is; the index knows each start and no more; the totals
 * are the sums; blocks are held by somebody; the budget holds.
 */
#include "arena.h"

#include <errno.h>

struct walk {
    uint64_t extent_count, free_count, used_pages, warm_pages, block_count;
};

static bool check_extent(const struct shoal_arena *arena, const struct shoal__extent *extent, struct walk *walk)
{
    const struct shoal__extent *after = extent->after;
    if (extent->page_count == 0 || extent->state > SHOAL__EXTENT_USED)
        return false;
    if (after && (after->before != extent || after->first_page != extent->first_page + extent->page_count))
        return false;
    if (after && after->state == extent->state && extent->state != SHOAL__EXTENT_USED)
        return false;
    if (shoal__index_at(&arena->index, extent->first_page) != extent ||
        shoal__index_containing(&arena->index, extent->first_page + extent->page_count - 1) != extent)
        return false;
    walk->extent_count++;
    walk->free_count += extent->state != SHOAL__EXTENT_USED;
    if (extent->state == SHOAL__EXTENT_WARM)
        walk->warm_pages += extent->page_count;
    if (extent->state == SHOAL__EXTENT_USED) {
        walk->block_count++;
        walk->used_pages += extent->page_count;
        return shoal__extent_is_held(extent);
    }
    return true;
}

/* Lists hold extents of their state and size, linked both ways. Adds to *count; gives up when there are too many. */
static bool check_bins(const struct shoal_arena *arena, enum shoal__extent_state state, uint64_t limit, uint64_t *count)
{
    const struct shoal__bins *bins = &arena->bins[state];
    for (unsigned class = 0; class < SHOAL__SIZE_CLASSES; class++) {
        const struct shoal__extent *older = NULL, *extent = bins->oldest[class];
        bool occupied = (bins->occupied[class / 64] >> class % 64 & 1) != 0;
        if (occupied != (extent != NULL))
            return false;
        for (; extent; older = extent, extent = extent->free.newer) {
            if (extent->state != state || shoal__space_class(extent->page_count) != class ||
                extent->free.older != older || ++*count > limit)
                return false;
        }
        if (bins->newest[class] != older)
            return false;
    }
    return true;
}

int shoal_arena_check(const struct shoal_arena *arena)
{
    struct walk walk = { 0 };
    const struct shoal__extent *last = NULL, *extent = shoal__index_at(&arena->index, 0);
    if (!extent || extent->before || extent->first_page != 0)
        return -EUCLEAN;
    for (; extent; last = extent, extent = extent->after)
        if (!check_extent(arena, extent, &walk))
            return -EUCLEAN;
    uint64_t listed = 0, starts = 0;
    if (last->first_page + last->page_count != arena->page_count ||
        !check_bins(arena, SHOAL__EXTENT_COLD, walk.free_count, &listed) ||
        !check_bins(arena, SHOAL__EXTENT_WARM, walk.free_count, &listed) || listed != walk.free_count)
        return -EUCLEAN;
    for (uint64_t word = 0; word < (arena->page_count + 63) / 64; word++)
        starts += (uint64_t)__builtin_popcountll(arena->index.levels[0][word]);
    if (starts != walk.extent_count || walk.used_pages != arena->used_pages || walk.warm_pages != arena->warm_pages ||
        walk.block_count != arena->block_count)
        return -EUCLEAN;
    return arena->used_pages + arena->warm_pages <= arena->budget_pages ? 0 : -EUCLEAN;
}

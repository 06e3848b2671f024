/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * arena_space.c - the extents of an arena: found by size, split, merged.
 *
 * Free extents lie in lists by size: exact below 8 pages, then four lists per power of two. A search takes the newest
 * fit among the first few of its own list, else anything of the next list that is not empty, which fits for certain;
 * only when that fails is the own list searched to its end. Free neighbours of one state are always merged, at once.
 *
 * Cost: constant, but for that last search.
 */
#include "arena.h"

#include <errno.h>
#include <stdlib.h>

#define LOOK_AT_MOST 16

unsigned shoal__space_class(uint64_t page_count)
{
    if (page_count < 8)
        return (unsigned)page_count;
    unsigned log2 = 63u - (unsigned)__builtin_clzll(page_count);
    return 8u + (log2 - 3u) * 4u + (unsigned)(page_count >> (log2 - 2u) & 3u);
}

/* ---- lists by size ---- */

static void bin_push(struct shoal_arena *arena, struct shoal__extent *extent)
{
    struct shoal__bins *bins = &arena->bins[extent->state];
    unsigned class = shoal__space_class(extent->page_count);
    extent->free.newer = NULL;
    extent->free.older = bins->newest[class];
    if (extent->free.older)
        extent->free.older->free.newer = extent;
    else
        bins->oldest[class] = extent;
    bins->newest[class] = extent;
    bins->occupied[class / 64] |= 1ull << class % 64;
    if (extent->state == SHOAL__EXTENT_WARM)
        arena->warm_pages += extent->page_count;
}

static void bin_remove(struct shoal_arena *arena, struct shoal__extent *extent)
{
    struct shoal__bins *bins = &arena->bins[extent->state];
    unsigned class = shoal__space_class(extent->page_count);
    if (extent->free.newer)
        extent->free.newer->free.older = extent->free.older;
    else
        bins->newest[class] = extent->free.older;
    if (extent->free.older)
        extent->free.older->free.newer = extent->free.newer;
    else
        bins->oldest[class] = extent->free.newer;
    if (!bins->newest[class])
        bins->occupied[class / 64] &= ~(1ull << class % 64);
    if (extent->state == SHOAL__EXTENT_WARM)
        arena->warm_pages -= extent->page_count;
}

/* The lowest class >= `from` that is not empty, or SHOAL__SIZE_CLASSES. */
static unsigned next_class(const struct shoal__bins *bins, unsigned from)
{
    for (unsigned word = from / 64; word < sizeof(bins->occupied) / sizeof(bins->occupied[0]); word++) {
        uint64_t bits = bins->occupied[word];
        if (word == from / 64)
            bits &= ~0ull << from % 64;
        if (bits)
            return word * 64 + (unsigned)__builtin_ctzll(bits);
    }
    return SHOAL__SIZE_CLASSES;
}

struct shoal__extent *shoal__space_find(const struct shoal_arena *arena, enum shoal__extent_state state,
                                        uint64_t page_count)
{
    const struct shoal__bins *bins = &arena->bins[state];
    unsigned class = shoal__space_class(page_count);
    struct shoal__extent *extent = bins->newest[class];
    for (int looked = 0; extent && looked < LOOK_AT_MOST; looked++, extent = extent->free.older)
        if (extent->page_count >= page_count)
            return extent;
    unsigned larger = next_class(bins, class + 1);
    if (larger < SHOAL__SIZE_CLASSES)
        return bins->newest[larger];
    while (extent && extent->page_count < page_count)
        extent = extent->free.older;
    return extent;
}

/* ---- splitting and merging ---- */

/* Put `extent` into the chain and the index right after `left` (NULL: first of all). */
static void insert_after(struct shoal_arena *arena, struct shoal__extent *left, struct shoal__extent *extent)
{
    extent->before = left;
    extent->after = left ? left->after : NULL;
    if (extent->after)
        extent->after->before = extent;
    if (left)
        left->after = extent;
    shoal__index_put(&arena->index, extent);
}

/* Both are in no list. The left one takes over the pages of the right one, which is freed. */
static void absorb_right(struct shoal_arena *arena, struct shoal__extent *left, struct shoal__extent *right)
{
    shoal__index_drop(&arena->index, right->first_page);
    left->page_count += right->page_count;
    left->after = right->after;
    if (left->after)
        left->after->before = left;
    free(right);
}

/* Merge a free extent that is in no list with its free neighbours of its state, and put the result into its list. */
static struct shoal__extent *merge_and_push(struct shoal_arena *arena, struct shoal__extent *extent)
{
    struct shoal__extent *left = extent->before, *right = extent->after;
    if (right && right->state == extent->state) {
        bin_remove(arena, right);
        absorb_right(arena, extent, right);
    }
    if (left && left->state == extent->state) {
        bin_remove(arena, left);
        absorb_right(arena, left, extent);
        extent = left;
    }
    bin_push(arena, extent);
    return extent;
}

/* Cut `extent` (in no list) at `first_page`; the right part becomes `right`, of the same state, in no list either. */
static void split(struct shoal_arena *arena, struct shoal__extent *extent, uint64_t first_page,
                  struct shoal__extent *right)
{
    right->first_page = first_page;
    right->page_count = extent->page_count - (first_page - extent->first_page);
    right->state = extent->state;
    extent->page_count -= right->page_count;
    insert_after(arena, extent, right);
}

int shoal__space_convert(struct shoal_arena *arena, struct shoal__extent *extent, uint64_t first_page,
                         uint64_t page_count, enum shoal__extent_state state, struct shoal__extent **ret_extent)
{
    bool left_over = first_page > extent->first_page;
    bool right_over = first_page + page_count < extent->first_page + extent->page_count;
    struct shoal__extent *middle = left_over ? calloc(1, sizeof(*middle)) : extent;
    struct shoal__extent *right = right_over ? calloc(1, sizeof(*right)) : NULL;
    if (!middle || (right_over && !right)) {
        if (left_over)
            free(middle);
        free(right);
        return -ENOMEM;
    }
    enum shoal__extent_state old_state = extent->state;
    if (old_state != SHOAL__EXTENT_USED)
        bin_remove(arena, extent);
    if (left_over)
        split(arena, extent, first_page, middle);
    if (right_over)
        split(arena, middle, first_page + page_count, right);
    if (old_state != SHOAL__EXTENT_USED) {
        if (left_over)
            bin_push(arena, extent);
        if (right_over)
            bin_push(arena, right);
    }
    middle->state = state;
    if (state == SHOAL__EXTENT_USED) {
        middle->used.holders = 0;
        middle->used.more = NULL;
        middle->used.owner_count = 0;
    } else {
        middle = merge_and_push(arena, middle);
    }
    *ret_extent = middle;
    return 0;
}

/* ---- life ---- */

int shoal__space_init(struct shoal_arena *arena)
{
    int status = shoal__index_init(&arena->index, arena->page_count);
    if (status < 0)
        return status;
    struct shoal__extent *all = calloc(1, sizeof(*all));
    if (!all)
        return -ENOMEM;
    all->page_count = arena->page_count;
    all->state = SHOAL__EXTENT_COLD;
    insert_after(arena, NULL, all);
    bin_push(arena, all);
    return 0;
}

void shoal__space_done(struct shoal_arena *arena)
{
    struct shoal__extent *next, *extent = arena->index.level_count ? shoal__index_at(&arena->index, 0) : NULL;
    for (; extent; extent = next) {
        next = extent->after;
        if (extent->state == SHOAL__EXTENT_USED)
            free(extent->used.more);
        free(extent);
    }
    shoal__index_done(&arena->index);
}

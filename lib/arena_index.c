/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * arena_index.c - from a page number to the extent that it belongs to.
 *
 * Asked with the exact start (release, hold) it is one array access. Asked with any place inside (find) it is the
 * nearest start at or before it: a bit per page, above that a bit per 64 pages, and so on, like the index of a
 * dictionary, so that the search goes up a few words and down again. Six levels cover 2^36 pages (256 TiB).
 *
 * The arrays have an entry per page but are never touched where nothing starts, so they take address space, not memory.
 */
#include "arena.h"

#include <errno.h>
#include <stdlib.h>

int shoal__index_init(struct shoal__page_index *index, uint64_t page_count)
{
    *index = (struct shoal__page_index){ 0 };
    if (page_count > SIZE_MAX / sizeof(*index->extent_at))
        return -ENOMEM;
    index->extent_at = calloc((size_t)page_count, sizeof(*index->extent_at));
    if (!index->extent_at)
        return -ENOMEM;
    uint64_t bits = page_count;
    do {
        uint64_t words = (bits + 63) / 64;
        index->levels[index->level_count] = calloc((size_t)words, sizeof(uint64_t));
        if (!index->levels[index->level_count])
            return -ENOMEM;
        index->level_count++;
        bits = words;
    } while (bits > 1);
    return 0;
}

void shoal__index_done(struct shoal__page_index *index)
{
    free(index->extent_at);
    for (unsigned level = 0; level < SHOAL__INDEX_LEVELS; level++)
        free(index->levels[level]);
    *index = (struct shoal__page_index){ 0 };
}

void shoal__index_put(struct shoal__page_index *index, struct shoal__extent *extent)
{
    uint64_t at = extent->first_page;
    index->extent_at[at] = extent;
    for (unsigned level = 0; level < index->level_count; level++, at /= 64)
        index->levels[level][at / 64] |= 1ull << at % 64;
}

void shoal__index_drop(struct shoal__page_index *index, uint64_t first_page)
{
    uint64_t at = first_page;
    index->extent_at[at] = NULL;
    for (unsigned level = 0; level < index->level_count; level++, at /= 64) {
        index->levels[level][at / 64] &= ~(1ull << at % 64);
        if (index->levels[level][at / 64] != 0)
            return;
    }
}

struct shoal__extent *shoal__index_at(const struct shoal__page_index *index, uint64_t page)
{
    return index->extent_at[page];
}

struct shoal__extent *shoal__index_containing(const struct shoal__page_index *index, uint64_t page)
{
    uint64_t at = page;
    for (unsigned level = 0; level < index->level_count; level++) {
        /* Up: bits at or before ours in this word; from level 1 on strictly before, ours was empty below. */
        uint64_t mask = level == 0 ? ~0ull >> (63 - at % 64) : (1ull << at % 64) - 1;
        uint64_t word = index->levels[level][at / 64] & mask;
        if (word == 0) {
            at /= 64;
            continue;
        }
        at = at / 64 * 64 + (63u - (unsigned)__builtin_clzll(word));
        while (level-- > 0) /* down: the last bit of each word */
            at = at * 64 + (63u - (unsigned)__builtin_clzll(index->levels[level][at]));
        return index->extent_at[at];
    }
    return NULL;
}

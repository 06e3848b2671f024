/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * arena_holders.c - who holds a block.
 *
 * The owner's count, and one bit per other process, all in the owner's private memory: the owner sets and clears them
 * on what it is told. So when a process dies, its bits are cleared and what it held alone is free, exactly; no count
 * can be off. Forgetting a process walks all blocks, which is rare and costs a few nanoseconds for each.
 */
#include "arena.h"

#include <errno.h>
#include <stdlib.h>

struct shoal__extent *shoal__arena_block(const struct shoal_arena *arena, uint64_t offset)
{
    if (offset < arena->offset || (offset - arena->offset) % arena->page_bytes != 0)
        return NULL;
    uint64_t page = (offset - arena->offset) / arena->page_bytes;
    struct shoal__extent *extent = page < arena->page_count ? shoal__index_at(&arena->index, page) : NULL;
    return extent && extent->state == SHOAL__EXTENT_USED ? extent : NULL;
}

static bool has_more(const struct shoal__extent *block)
{
    for (unsigned word = 0; block->used.more && word < SHOAL__HOLDER_WORDS; word++)
        if (block->used.more[word])
            return true;
    return false;
}

bool shoal__extent_is_held(const struct shoal__extent *block)
{
    return block->used.owner_count || block->used.holders || has_more(block);
}

static void free_if_unheld(struct shoal_arena *arena, struct shoal__extent *block)
{
    if (shoal__extent_is_held(block))
        return;
    free(block->used.more);
    block->used.more = NULL;
    uint64_t exempt = block->used.exempt ? block->page_count : 0;
    arena->used_pages -= block->page_count;
    arena->block_count--;
    shoal__space_convert(arena, block, block->first_page, block->page_count, SHOAL__EXTENT_WARM, &block);
    shoal__arena_unexempt(arena, exempt);
}

/* ---- the owner's count ---- */

int shoal_arena_retain(struct shoal_arena *arena, uint64_t offset)
{
    struct shoal__extent *block = shoal__arena_block(arena, offset);
    if (!block)
        return -ENOENT;
    if (block->used.owner_count == UINT32_MAX)
        return -EOVERFLOW;
    block->used.owner_count++;
    return 0;
}

int shoal_arena_release(struct shoal_arena *arena, uint64_t offset)
{
    struct shoal__extent *block = shoal__arena_block(arena, offset);
    if (!block)
        return -ENOENT;
    if (block->used.owner_count == 0)
        return -EINVAL; /* others hold it, we do not */
    block->used.owner_count--;
    free_if_unheld(arena, block);
    return 0;
}

/* ---- other processes' bits ---- */

/* The word with this holder's bit; NULL if it lies in the part that is not there. */
static uint64_t *word_of(const struct shoal__extent *block, unsigned holder)
{
    if (holder < SHOAL__HOLDERS_INLINE)
        return (uint64_t *)&block->used.holders;
    return block->used.more ? &block->used.more[(holder - SHOAL__HOLDERS_INLINE) / 64] : NULL;
}

static bool clear_bit(struct shoal__extent *block, unsigned holder)
{
    uint64_t *word = word_of(block, holder), bit = 1ull << holder % 64;
    if (!word || !(*word & bit))
        return false;
    *word &= ~bit;
    return true;
}

int shoal_arena_hold(struct shoal_arena *arena, uint64_t offset, unsigned holder)
{
    struct shoal__extent *block = shoal__arena_block(arena, offset);
    if (holder >= SHOAL_ARENA_HOLDERS_MAX)
        return -EINVAL;
    if (!block)
        return -ENOENT;
    if (!word_of(block, holder)) {
        block->used.more = calloc(SHOAL__HOLDER_WORDS, sizeof(uint64_t));
        if (!block->used.more)
            return -ENOMEM;
    }
    *word_of(block, holder) |= 1ull << holder % 64;
    return 0;
}

int shoal_arena_unhold(struct shoal_arena *arena, uint64_t offset, unsigned holder)
{
    struct shoal__extent *block = shoal__arena_block(arena, offset);
    if (holder >= SHOAL_ARENA_HOLDERS_MAX)
        return -EINVAL;
    if (!block)
        return -ENOENT;
    if (clear_bit(block, holder))
        free_if_unheld(arena, block);
    return 0;
}

int shoal_arena_forget(struct shoal_arena *arena, unsigned holder)
{
    if (holder >= SHOAL_ARENA_HOLDERS_MAX)
        return -EINVAL;
    struct shoal__extent *extent = shoal__index_at(&arena->index, 0);
    while (extent) {
        /* Freeing may merge it with either neighbour; a used one after the next is never touched by that. */
        struct shoal__extent *next = extent->after;
        while (next && next->state != SHOAL__EXTENT_USED)
            next = next->after;
        if (extent->state == SHOAL__EXTENT_USED && clear_bit(extent, holder))
            free_if_unheld(arena, extent);
        extent = next;
    }
    return 0;
}

/* ---- questions ---- */

int shoal_arena_holds(const struct shoal_arena *arena, uint64_t offset, unsigned holder)
{
    const struct shoal__extent *block = shoal__arena_block(arena, offset);
    if (holder >= SHOAL_ARENA_HOLDERS_MAX)
        return -EINVAL;
    if (!block)
        return -ENOENT;
    const uint64_t *word = word_of(block, holder);
    return word && (*word & 1ull << holder % 64);
}

uint64_t shoal_arena_held_bytes(const struct shoal_arena *arena, unsigned holder)
{
    uint64_t pages = 0;
    const struct shoal__extent *extent = shoal__index_at(&arena->index, 0);
    for (; extent && holder < SHOAL_ARENA_HOLDERS_MAX; extent = extent->after) {
        const uint64_t *word = extent->state == SHOAL__EXTENT_USED ? word_of(extent, holder) : NULL;
        if (word && (*word & 1ull << holder % 64))
            pages += extent->page_count;
    }
    return pages * arena->page_bytes;
}

int shoal_arena_exclusive(const struct shoal_arena *arena, uint64_t offset, int holder_or_minus_one)
{
    struct shoal__extent *block = shoal__arena_block(arena, offset);
    if (!block)
        return -ENOENT;
    if (holder_or_minus_one >= SHOAL_ARENA_HOLDERS_MAX || holder_or_minus_one < -1)
        return -EINVAL;
    if (holder_or_minus_one < 0)
        return block->used.owner_count > 0 && !block->used.holders && !has_more(block);
    unsigned holder = (unsigned)holder_or_minus_one;
    const uint64_t *own = word_of(block, holder);
    if (block->used.owner_count > 0 || !own || *own != 1ull << holder % 64)
        return 0;
    if (own != &block->used.holders && block->used.holders)
        return 0;
    for (unsigned word = 0; block->used.more && word < SHOAL__HOLDER_WORDS; word++)
        if (&block->used.more[word] != own && block->used.more[word])
            return 0;
    return 1;
}

int shoal_arena_find(const struct shoal_arena *arena, uint64_t offset, uint64_t length_bytes, uint64_t *ret_block,
                     uint64_t *ret_block_bytes)
{
    if (offset < arena->offset || (offset - arena->offset) / arena->page_bytes >= arena->page_count)
        return -ENOENT;
    uint64_t inside = offset - arena->offset;
    const struct shoal__extent *extent = shoal__index_containing(&arena->index, inside / arena->page_bytes);
    if (!extent || extent->state != SHOAL__EXTENT_USED)
        return -ENOENT;
    uint64_t begin = extent->first_page * arena->page_bytes, bytes = extent->page_count * arena->page_bytes;
    if (length_bytes > bytes - (inside - begin))
        return -ENOENT;
    *ret_block = arena->offset + begin;
    *ret_block_bytes = bytes;
    return 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * arena.h - inside of an arena. All of it is private memory of the owner process.
 *
 *     arena.c          create, alloc, shrink, budget, trim
 *     arena_space.c    extents: splitting, merging, finding room (this file's shoal__space_*)
 *     arena_index.c    page number -> extent (shoal__index_*)
 *     arena_holders.c  who holds a block
 *     arena_check.c    is everything consistent
 *
 * The arena is cut into extents without gaps. Neighbours are linked by address; free ones lie in lists by size as well:
 *
 *     | USED | WARM | USED | USED |  COLD ...                          |
 *       block  free,                  free, without memory
 *              with memory
 */
#ifndef SHOAL_LIB_ARENA_H
#define SHOAL_LIB_ARENA_H

#include <shoal/arena.h>

enum shoal__extent_state {
    SHOAL__EXTENT_COLD, /* free, not backed */
    SHOAL__EXTENT_WARM, /* free, backed */
    SHOAL__EXTENT_USED, /* a block that somebody holds, backed */
};

#define SHOAL__HOLDERS_INLINE 64u
#define SHOAL__HOLDER_WORDS ((SHOAL_ARENA_HOLDERS_MAX - SHOAL__HOLDERS_INLINE) / 64u)

struct shoal__extent {
    uint64_t first_page; /* from the start of the arena */
    uint64_t page_count;
    struct shoal__extent *before, *after; /* neighbours by address */
    enum shoal__extent_state state;
    union {
        struct {
            struct shoal__extent *older, *newer; /* in the list of its size */
        } free;
        struct {
            uint64_t holders;  /* bit i: holder i */
            uint64_t *more;    /* holders from SHOAL__HOLDERS_INLINE on; NULL until there is one */
            uint32_t owner_count;
            bool exempt; /* not of the budget any more */
        } used;
    };
};

#define SHOAL__SIZE_CLASSES 224u
#define SHOAL__INDEX_LEVELS 9u

/* Free extents of one state by size class: newest first, because its pages are most likely in the caches. */
struct shoal__bins {
    uint64_t occupied[(SHOAL__SIZE_CLASSES + 63) / 64]; /* bit c: class c is not empty */
    struct shoal__extent *newest[SHOAL__SIZE_CLASSES];
    struct shoal__extent *oldest[SHOAL__SIZE_CLASSES];
};

struct shoal__page_index {
    struct shoal__extent **extent_at;      /* by first page; NULL where none starts. Untouched parts take no memory */
    uint64_t *levels[SHOAL__INDEX_LEVELS]; /* 0: a bit per page where an extent starts; n: a bit per word below */
    unsigned level_count;
};

struct shoal_arena {
    struct shoal_region *region;
    uint64_t offset;     /* of the arena in the region */
    uint64_t page_bytes; /* of the system */
    uint64_t page_count;
    uint64_t budget_pages; /* what was asked for, and all exempt pages on top */
    uint64_t exempt_pages;
    uint64_t used_pages;
    uint64_t warm_pages;
    uint64_t block_count;
    uint64_t unchecked_bytes; /* backed in small pieces since we last looked at what the machine has */
    struct shoal__bins bins[2]; /* COLD, WARM */
    struct shoal__page_index index;
};

/* ---- arena_index.c ---- */
int shoal__index_init(struct shoal__page_index *index, uint64_t page_count);
void shoal__index_done(struct shoal__page_index *index);
void shoal__index_put(struct shoal__page_index *index, struct shoal__extent *extent);
void shoal__index_drop(struct shoal__page_index *index, uint64_t first_page);
/* The extent that starts at this page, or NULL. */
struct shoal__extent *shoal__index_at(const struct shoal__page_index *index, uint64_t page);
/* The extent that starts at this page or nearest before it, or NULL. */
struct shoal__extent *shoal__index_containing(const struct shoal__page_index *index, uint64_t page);

/* ---- arena_space.c ---- */
/* One extent, COLD, over everything. */
int shoal__space_init(struct shoal_arena *arena);
void shoal__space_done(struct shoal_arena *arena);
/* A free extent of that state with at least so many pages, or NULL. It stays in its list. */
struct shoal__extent *shoal__space_find(const struct shoal_arena *arena, enum shoal__extent_state state,
                                        uint64_t page_count);
/*
 * Turn pages [first_page, first_page + page_count) of an extent into an extent of their own, of another state; what is
 * left of it on either side keeps its state, free neighbours of the new state are merged. Returns the extent that holds
 * the pages now. -ENOMEM changes nothing; never happens for a whole extent.
 */
int shoal__space_convert(struct shoal_arena *arena, struct shoal__extent *extent, uint64_t first_page,
                         uint64_t page_count, enum shoal__extent_state state, struct shoal__extent **ret_extent);
unsigned shoal__space_class(uint64_t page_count);

/* ---- arena.c ---- */
/* So many pages are not exempt any more: the budget shrinks, cached memory with it. */
void shoal__arena_unexempt(struct shoal_arena *arena, uint64_t page_count);

/* ---- arena_holders.c ---- */
/* The block at this offset, or NULL. */
struct shoal__extent *shoal__arena_block(const struct shoal_arena *arena, uint64_t offset);
bool shoal__extent_is_held(const struct shoal__extent *extent);

#endif

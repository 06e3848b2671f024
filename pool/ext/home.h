/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * home.h - this process's own shared memory: one region, one arena, made at first use, shared by all its pools and by
 * the arrays that its user allocates. A forked child that needs one makes its own; what it inherited stays mapped.
 */
#ifndef SHOAL_EXT_HOME_H
#define SHOAL_EXT_HOME_H

#include "module.h"

#define HOME_NO_BLOCK UINT64_MAX

struct home {
    struct shoal_region *region;
    struct shoal_arena *arena; /* NULL: another process's */
    struct shoal_shadow *shadow; /* private views of the region; NULL until the first */
    uint64_t budget_bytes;
    uint64_t backlog_bytes; /* on the heap: streams of tasks that wait for a slot */
    uint64_t unread_bytes;  /* on the heap: results that nobody has fetched */
    uint64_t unread_block_bytes; /* the same in blocks of the arena, which counts them as used */
    uint64_t reads;         /* grows when one is fetched */
    uint64_t hopeless_reads; /* `reads` when a submitter last waited for that in vain */
    unsigned starving;      /* submitters that wait for room: to be told when there is some */
    int64_t idle_ns; /* memory that was not asked for in so long goes back to the system: SHOAL_ARENA_IDLE */
    uint64_t uses; /* grows when memory is taken: between two looks at it, was there any? */
    uint64_t epoch; /* module_state.fork_epoch of the process that made it */
    long references;
};

/* Borrowed from the state (which keeps it for good), or NULL with an exception. */
struct home *home_get(struct module_state *state);
/* The region of the process that a worker serves, by descriptor (which stays the caller's): no arena in it for us.
 * New reference, or NULL with an exception. */
struct home *home_attach(struct module_state *state, int region_fd);
struct home *home_retain(struct home *home);
void home_release(struct home *home);

/* Memory that nobody uses: how much, and back to the system with it, in steps that let other threads in between. */
uint64_t home_cached_bytes(const struct home *home);
void home_give_back(struct home *home);

/* The arena's last holder id: what a child inherited when there was no descriptor to watch it with. Never released. */
#define HOME_UNWATCHED_HOLDER (SHOAL_ARENA_HOLDERS_MAX - 1)

#endif

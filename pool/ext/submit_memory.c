/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * submit_memory.c - a submission that needs memory which is not there.
 *
 * What is in flight is bounded by the budget: the arena's blocks, messages and results that nobody has fetched, and the
 * streams of the backlog, which lie on the heap. Who submits beyond it waits for tasks to end, draining meanwhile, as
 * in any other wait; if none is left that could give something back, it is told. Lazy input does not wait: it is asked
 * for again.
 */
#include "engine.h"

#include <errno.h>
#include <signal.h>

#include <shoal/killpoint.h>

bool memory_may_come(int error)
{
    return error == -EDQUOT || error == -ENOMEM || error == -ENOSPC;
}

/* ---- a block for the message ---- */

struct block_wait {
    struct engine *engine;
    uint64_t bytes, offset;
    int error;
    bool settled; /* asked again, it answers the same: whoever drains may ask on behalf of the one who waits */
};

static bool block_there(void *arg)
{
    struct block_wait *wait = arg;
    if (wait->settled)
        return true;
    wait->error = shoal_arena_alloc(wait->engine->home->arena, wait->bytes, &wait->offset);
    wait->settled = !memory_may_come(wait->error) || engine_all_done(wait->engine) || wait->engine->dead;
    if (wait->settled && wait->error >= 0)
        SHOAL_PARENT_POINT("memory: block found", raise(SIGINT) == 0);
    return wait->settled;
}

static int raise_no_room(struct engine *engine, uint64_t bytes, int error)
{
    if (engine_check(engine) < 0)
        return -1;
    if (error == -EDQUOT || error == -E2BIG)
        PyErr_Format(PyExc_MemoryError,
                     "the arguments need %llu bytes of shared memory, the arena's budget is %llu; send less at a time, "
                     "free arrays that lie in the arena, or raise SHOAL_ARENA_LIMIT",
                     (unsigned long long)bytes, (unsigned long long)engine->home->budget_bytes);
    else
        raise_error(error, "no shared memory for the arguments");
    return -1;
}

int memory_await_block(struct engine *engine, uint64_t bytes, uint64_t *ret_offset)
{
    struct block_wait wait = {.engine = engine, .bytes = bytes};
    if (engine_wait(engine, block_there, &wait, -1) < 0) { /* a signal; another thread may have found it meanwhile */
        if (wait.settled && wait.error >= 0)
            shoal_arena_release(engine->home->arena, wait.offset);
        return -1;
    }
    if (wait.error < 0)
        return raise_no_room(engine, bytes, wait.error);
    *ret_offset = wait.offset;
    return 0;
}

/* ---- the backlog ---- */

static bool backlog_fits(void *arg)
{
    struct engine *engine = arg;
    const struct home *home = engine->home;
    if (engine->backlog == NULL || home->backlog_bytes < BACKLOG_FREE_BYTES || engine->dead)
        return true;
    struct shoal_arena_stats stats;
    shoal_arena_get_stats(home->arena, &stats);
    return stats.used_bytes + home->backlog_bytes < stats.budget_bytes;
}

int memory_await_backlog(struct engine *engine, bool may_wait)
{
    if (backlog_fits(engine))
        return 0;
    if (!may_wait)
        return 1;
    return engine_wait(engine, backlog_fits, engine, -1) < 0 ? -1 : engine_check(engine);
}

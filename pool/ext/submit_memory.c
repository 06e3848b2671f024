/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * submit_memory.c - a submission that needs memory which is not there.
 *
 * What is in flight is bounded by the budget: the arena's blocks, messages and results that nobody has fetched, and, on
 * the heap, the streams of the backlog and results that nobody has fetched, those under way included, at what a task's
 * results took lately. Who submits beyond it waits for tasks to end, draining meanwhile, as in any other wait. Lazy
 * input does not wait: it is asked for again.
 *
 * Once all tasks have ended, only the fetching of results makes room, and the one who waits here cannot do it. So it is
 * told (MemoryError) if it is alone; where other threads might fetch, once none has for PATIENCE_NS. Those that come
 * after it are told at once, until somebody does.
 */
#include "engine.h"

#include <errno.h>
#include <signal.h>
#include <unistd.h>

#include <shoal/killpoint.h>

#define LOOK_NS INT64_C(20000000)       /* 20 ms: whoever makes room in this process says so; other pools do not */
#define DRAIN_EVERY 16 /* submissions */
#define PATIENCE_NS INT64_C(10000000000)

void memory_unread(struct engine *engine, uint64_t heap_bytes, uint64_t block_bytes)
{
    engine->home->unread_bytes += heap_bytes;
    engine->home->unread_block_bytes += block_bytes;
}

void memory_read(struct engine *engine, uint64_t heap_bytes, uint64_t block_bytes)
{
    struct home *home = engine->home;
    home->unread_bytes -= heap_bytes;
    home->unread_block_bytes -= block_bytes;
    home->reads++;
    if (home->starving == 0)
        return;
    for (struct engine *other = engine->state->engines; other != NULL; other = other->next) {
        if (other->home == home && !other->dead && other->epoch == other->state->fork_epoch)
            engine_news(other);
    }
}

/* The average rises quickly and falls slowly: what was allowed in vain cannot be taken back. */
void memory_task_took(struct engine *engine, uint64_t result_bytes)
{
    uint64_t average = engine->task_result_bytes;
    engine->task_result_bytes = (result_bytes > average ? average + result_bytes : 7 * average + result_bytes)
                                / (result_bytes > average ? 2 : 8);
}

bool memory_may_come(int error)
{
    return error == -EDQUOT || error == -ENOMEM || error == -ENOSPC;
}

/* ---- waiting ---- */

struct room_wait {
    struct engine *engine;
    unsigned long thread; /* the one who waits: whoever drains may ask on its behalf */
    uint64_t reads;
    int64_t since_ns; /* the last time that something was under way, or was fetched */
    uint64_t bytes, offset; /* of the block */
    int error;
    bool settled; /* asked again, it answers the same */
};

static struct room_wait room_wait_begin(struct engine *engine)
{
    return (struct room_wait){.engine = engine, .thread = PyThread_get_thread_ident(), .since_ns = shoal_now_ns(),
                              .reads = engine->home->reads};
}

/* A thread of Python other than the one who waits, and than those of pools that only drain. */
static bool others_may_fetch(const struct room_wait *wait)
{
    PyThreadState *thread = PyInterpreterState_ThreadHead(PyInterpreterState_Get());
    for (; thread != NULL; thread = PyThreadState_Next(thread)) {
        bool ours = thread->thread_id == wait->thread;
        for (struct engine *engine = wait->engine->state->engines; engine != NULL && !ours; engine = engine->next)
            ours = engine->progress_runs && !engine->progress_in_callbacks &&
                   engine->progress_thread == thread->thread_id;
        if (!ours)
            return true;
    }
    return false;
}

/* Is there anything that may make room? Tasks that end, a backlog of another pool, somebody who fetches results. */
static bool worth_waiting(struct room_wait *wait)
{
    struct home *home = wait->engine->home;
    bool moves = !engine_all_done(wait->engine) || home->reads != wait->reads;
    for (struct engine *other = wait->engine->state->engines; other != NULL && !moves; other = other->next)
        moves = other->home == home && !other->dead && other->backlog != NULL;
    if (moves) {
        wait->reads = home->reads;
        wait->since_ns = shoal_now_ns();
        return true;
    }
    if (home->unread_bytes + home->unread_block_bytes == 0)
        return false;
    if (home->hopeless_reads != home->reads && shoal_now_ns() - wait->since_ns < PATIENCE_NS && others_may_fetch(wait))
        return true;
    home->hopeless_reads = home->reads;
    return false;
}

/* Until it is settled. 0, or -1 with an exception (a signal). */
static int await(struct room_wait *wait, engine_predicate settled)
{
    struct home *home = home_retain(wait->engine->home);
    int done;
    home->starving++;
    do
        done = engine_wait(wait->engine, settled, wait, shoal_now_ns() + LOOK_NS);
    while (done == 0);
    home->starving--;
    home_release(home);
    return done < 0 ? -1 : 0;
}

/* ---- a block for the message ---- */

static bool block_settled(void *arg)
{
    struct room_wait *wait = arg;
    if (wait->settled)
        return true;
    wait->error = shoal_arena_alloc(wait->engine->home->arena, wait->bytes, &wait->offset);
    wait->settled = !memory_may_come(wait->error) || wait->engine->dead || !worth_waiting(wait);
    if (wait->settled && wait->error >= 0)
        SHOAL_PARENT_POINT("memory: block found", kill(getpid(), SIGINT) == 0); /* to the process, as Ctrl-C is */
    return wait->settled;
}

static int raise_no_room(struct engine *engine, uint64_t bytes, int error)
{
    if (engine_check(engine) < 0)
        return -1;
    if (error == -EDQUOT || error == -E2BIG)
        PyErr_Format(PyExc_MemoryError,
                     "the arguments need %llu bytes of shared memory, the arena's budget is %llu; send less at a time, "
                     "fetch results as they come, free arrays that lie in the arena, or raise SHOAL_ARENA_LIMIT",
                     (unsigned long long)bytes, (unsigned long long)engine->home->budget_bytes);
    else
        raise_error(error, "no shared memory for the arguments");
    return -1;
}

int memory_await_block(struct engine *engine, uint64_t bytes, uint64_t *ret_offset)
{
    struct room_wait wait = room_wait_begin(engine);
    wait.bytes = bytes;
    if (await(&wait, block_settled) < 0) { /* a signal; another thread may have found it meanwhile */
        if (wait.settled && wait.error >= 0)
            shoal_arena_release(engine->home->arena, wait.offset);
        return -1;
    }
    if (wait.error < 0)
        return raise_no_room(engine, bytes, wait.error);
    *ret_offset = wait.offset;
    return 0;
}

/* ---- room for one task more ---- */

static bool room_there(const struct engine *engine)
{
    const struct home *home = engine->home;
    uint64_t under_way = ((uint64_t)engine->in_flight + engine->backlog_count) * engine->task_result_bytes;
    uint64_t heap = home->backlog_bytes + home->unread_bytes + under_way;
    if (heap + home->unread_block_bytes < BACKLOG_FREE_BYTES)
        return true;
    struct shoal_arena_stats stats;
    shoal_arena_get_stats(home->arena, &stats);
    /* A result that was let go beyond the budget is not charged to it. */
    uint64_t blocks = stats.used_bytes > home->unread_block_bytes ? stats.used_bytes : home->unread_block_bytes;
    return blocks + heap < stats.budget_bytes;
}

static bool room_settled(void *arg)
{
    struct room_wait *wait = arg;
    wait->settled = wait->settled || wait->engine->dead || room_there(wait->engine) || !worth_waiting(wait);
    return wait->settled;
}

int memory_await_room(struct engine *engine, bool may_wait)
{
    if (engine->submitted % DRAIN_EVERY == 0)
        engine_drain_aside(engine); /* results that lie in the rings are not counted yet */
    if (room_there(engine))
        return 0;
    if (!may_wait)
        return 1;
    struct room_wait wait = room_wait_begin(engine);
    if (await(&wait, room_settled) < 0 || engine_check(engine) < 0)
        return -1;
    if (room_there(engine) || engine->home->unread_bytes + engine->home->unread_block_bytes < BACKLOG_FREE_BYTES)
        return 0;
    PyErr_Format(PyExc_MemoryError,
                 "results that nobody has fetched take %llu bytes, the arena's budget for what is in flight is %llu; "
                 "fetch results as they come (imap, as_completed), or raise SHOAL_ARENA_LIMIT",
                 (unsigned long long)(engine->home->unread_bytes + engine->home->unread_block_bytes),
                 (unsigned long long)engine->home->budget_bytes);
    return -1;
}

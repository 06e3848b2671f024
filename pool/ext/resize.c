/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * resize.c - more workers, or fewer, while the pool runs.
 *
 * The problem: what all processes share is laid out when the pool is made, and a worker that is forked sees the
 * parent's tables as they were then; tasks run all the time, workers die, and several threads may ask for different
 * numbers.
 *
 * The protocol: the task queue has lines and bells for `worker_max` workers from the start, a few hundred bytes each;
 * how many there are stands in its shared part, written by the parent. What is large, the rings of a worker, is made
 * when there first is such a worker, in a block of its own, and kept for the next one of this index.
 *     More: the tables are extended, then engine_bury_dead starts who is missing, as it does after a death. So only one
 * thread at a time starts workers.
 *     Fewer: those with the highest numbers are told to end after the task at hand (ORDER_RETIRE). What a worker has
 * not claimed is for anybody, so nothing is taken back and nothing lost. When it has ended it is buried as any other,
 * and none takes its place if its number is still too high: if the pool has grown again meanwhile, another does. The
 * tables are shortened from the end, as far as nobody is there.
 *
 * What it costs: a worker looks at its ring of orders after each task, two loads.
 * What it does not do: wait until those that are to end have; a task in them may take long.
 */
#include "engine.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include <shoal/killpoint.h>

/* ---- what a worker needs in the parent ---- */

int resize_choose_holders(struct engine *engine, unsigned first, unsigned end)
{
    bool used[HOME_UNWATCHED_HOLDER] = {false};
    for (struct engine *other = engine->state->engines; other != NULL; other = other->next) {
        /* One that another thread is ending forgets its holders at last. */
        if ((other->dead && other->queue == NULL && other != engine) || other->epoch != engine->epoch)
            continue;
        unsigned count = other == engine ? first : other->workers == NULL ? 0 : other->worker_count;
        for (unsigned i = 0; i < count; i++)
            used[other->workers[i].holder] = true;
    }
    unsigned next = 0;
    for (unsigned i = first; i < end; i++) {
        while (next < HOME_UNWATCHED_HOLDER && used[next])
            next++;
        if (next == HOME_UNWATCHED_HOLDER) {
            PyErr_Format(PyExc_ValueError, "the pools of this process have more than %d workers together",
                         HOME_UNWATCHED_HOLDER);
            return -1;
        }
        engine->workers[i].holder = next++;
    }
    return 0;
}

int resize_make_rings(struct engine *engine, unsigned index)
{
    struct worker *worker = &engine->workers[index];
    struct shoal_region *region = engine->home->region;
    struct shoal_taskqueue_config config = engine_config(engine);
    if (worker->results != NULL && worker->orders != NULL)
        return 0;
    if (worker->rings == HOME_NO_BLOCK) {
        int error = shoal_arena_alloc_beyond(engine->home->arena, engine_places(&config).worker_bytes, &worker->rings);
        if (error < 0) {
            worker->rings = HOME_NO_BLOCK;
            return raise_error(error, "no shared memory for another worker");
        }
        worker->rings_apart = true;
        shoal_arena_uncharge(engine->home->arena, worker->rings); /* the budget is for what is in flight */
    }
    uint64_t orders = worker->rings + shoal_ring_footprint(RESULT_RING_BYTES);
    int error = shoal_ring_format(region, worker->rings, RESULT_RING_BYTES);
    if (error == 0 && worker->results == NULL)
        error = shoal_ring_attach(region, worker->rings, &worker->results);
    if (error == 0)
        error = shoal_ring_format(region, orders, ORDER_RING_BYTES);
    if (error == 0)
        error = shoal_ring_attach(region, orders, &worker->orders);
    return error < 0 ? raise_error(error, "cannot map the rings of a worker") : 0;
}

/* ---- more, fewer ---- */

#ifdef SHOAL_KILL_POINTS
/* The last of the first so many that is there. */
static bool kill_last(struct engine *engine, unsigned count)
{
    while (count > 0 && engine->workers[count - 1].peer.pidfd < 0)
        count--;
    return count > 0 && shoal_peer_signal(&engine->workers[count - 1].peer, SIGKILL) >= 0;
}
#endif

static int extend(struct engine *engine, unsigned count)
{
    unsigned before = engine->worker_count;
    if (resize_choose_holders(engine, before, count) < 0)
        return -1;
    for (unsigned i = before; i < count; i++) {
        struct worker *worker = &engine->workers[i];
        if (resize_make_rings(engine, i) < 0)
            return -1;
        worker->stopped = worker->retired = false;
    }
    if (trace_extend(engine, count) < 0)
        return -1;
    engine->worker_count = count;
    if (count > engine->worker_most)
        engine->worker_most = count;
    shoal_taskqueue_set_active(engine->queue, count);
    return 0;
}

void resize_retire(struct engine *engine, unsigned index)
{
    struct worker *worker = &engine->workers[index];
    if (worker->peer.pidfd < 0 || worker->retired || worker->stopped)
        return;
    worker->retired = true;
    engine_order(engine, index, ORDER_RETIRE);
    SHOAL_PARENT_POINT("resize: order given", shoal_peer_signal(&worker->peer, SIGKILL));
}

bool resize_dismisses(struct engine *engine, unsigned index)
{
    return index >= engine->worker_target;
}

void resize_settle(struct engine *engine)
{
    unsigned count = engine->worker_count;
    while (count > engine->worker_target && engine->workers[count - 1].peer.pidfd < 0)
        count--;
    if (count == engine->worker_count)
        return;
    engine->worker_count = count;
    shoal_taskqueue_set_active(engine->queue, count);
    SHOAL_PARENT_POINT("resize: shortened", kill_last(engine, count));
}

/* Those that are missing, by whichever thread is at it. Not all may come up now; they are tried again. */
static void start_missing(struct engine *engine)
{
    engine->deaths_pending = true;
    while (engine->burying && !engine_buries_here(engine)) {
        Py_BEGIN_ALLOW_THREADS
        struct timespec pause = {.tv_nsec = 50000};
        nanosleep(&pause, NULL);
        Py_END_ALLOW_THREADS
    }
    engine_bury_dead(engine);
    engine_after_drain(engine);
}

PyObject *engine_resize(struct engine *engine, PyObject *number)
{
    Py_ssize_t workers = PyLong_AsSsize_t(number);
    if (workers == -1 && PyErr_Occurred())
        return NULL;
    if (engine_check(engine) < 0)
        return NULL;
    if (engine->closed) {
        PyErr_SetString(PyExc_ValueError, "Pool not running");
        return NULL;
    }
    if (workers < 1 || workers > (Py_ssize_t)engine->worker_max) {
        PyErr_Format(PyExc_ValueError,
                     "this pool can have between 1 and %u workers, not %zd: what they share was laid out for so many",
                     engine->worker_max, workers);
        return NULL;
    }
    unsigned target = (unsigned)workers;
    if (target > engine->worker_count && extend(engine, target) < 0)
        return NULL;
    SHOAL_PARENT_POINT("resize: extended", kill_last(engine, target));
    engine->worker_target = target;
    SHOAL_PARENT_POINT("resize: target set", kill_last(engine, target));
    for (unsigned i = target; i < engine->worker_count; i++)
        resize_retire(engine, i);
    progress_nudge(engine); /* it watches those that come, and those that go */
    start_missing(engine);
    if (engine->broken != NULL && engine_check(engine) < 0)
        return NULL;
    Py_RETURN_NONE;
}

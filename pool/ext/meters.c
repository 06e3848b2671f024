/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * meters.c - the parent's side of the meters: its own words, and all of them for who asks.
 *
 * Outcomes are counted from the ledger, here, exactly; times and bytes are what the workers say (meter.c). Nothing of a
 * meter is believed: the figures go to who asked as they are. Asking blocks nobody, and works on a pool that has ended:
 * what the meters said then is kept.
 */
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "directory.h"
#include "engine.h"
#include "meter.h"

static void set(struct engine *engine, enum meter_parent_word first, const uint64_t *words, unsigned count)
{
    if (engine->queue != NULL)
        shoal_taskqueue_meter_set(engine->queue, 0, first, words, count);
}

void meters_open(struct engine *engine)
{
    struct timespec wall;
    clock_gettime(CLOCK_REALTIME, &wall);
    struct module_state *state = engine->state;
    if (state->ticks_steady == 0)
        state->ticks_steady = shoal_ticks_steady() ? 1 : -1;
    uint64_t words[PARENT_WORDS] = {
        [PARENT_VERSION] = METER_FORMAT,
        [PARENT_PID] = (uint64_t)getpid(),
        [PARENT_CREATED] = (uint64_t)shoal_now_ns(),
        [PARENT_CREATED_WALL] = (uint64_t)wall.tv_sec * 1000000000u + (uint64_t)wall.tv_nsec,
        [PARENT_WORKERS] = engine->worker_count,
        [PARENT_STATE] = METER_RUNNING,
        [PARENT_STEADY] = state->ticks_steady > 0,
    };
    set(engine, 0, words, PARENT_WORDS);
    directory_add(engine->home, shoal_taskqueue_meter_offset(engine->queue), engine->worker_max);
}

void meters_forking(struct engine *engine, unsigned index)
{
    uint64_t now = (uint64_t)shoal_now_ns();
    shoal_taskqueue_meter_set(engine->queue, 1 + index, METER_FORKED, &now, 1);
}

void meters_count(struct engine *engine, struct worker *worker, bool failed, uint64_t items)
{
    engine->completed += items;
    engine->failed += failed ? items : 0;
    worker->failed += failed ? items : 0;
    worker->done += failed ? 0 : items;
}

void meters_submitted(struct engine *engine)
{
    uint64_t depth[] = {engine->in_flight, engine->backlog_count};
    _Static_assert(PARENT_IN_FLIGHT + 1 == PARENT_BACKLOG, "in this order");
    set(engine, PARENT_SUBMITTED, &engine->submitted, 1);
    set(engine, PARENT_IN_FLIGHT, depth, 2);
}

void meters_drained(struct engine *engine)
{
    struct shoal_arena_stats stats;
    shoal_arena_get_stats(engine->home->arena, &stats);
    uint64_t words[] = {engine->worker_count, engine->submitted,
                        engine->completed - engine->failed, engine->failed, engine->lost, engine->restarts,
                        engine->in_flight, engine->backlog_count, stats.used_bytes,
                        engine->dead ? METER_ENDED : engine->closed ? METER_CLOSED : METER_RUNNING};
    _Static_assert(PARENT_WORKERS + sizeof words / sizeof *words == PARENT_STATE + 1, "in this order");
    set(engine, PARENT_WORKERS, words, sizeof words / sizeof *words);
}

void meters_keep(struct engine *engine)
{
    size_t meter_bytes = SHOAL_METER_WORDS * sizeof(uint64_t);
    if (engine->queue == NULL || engine->meters_kept != NULL || engine->workers == NULL)
        return;
    directory_remove(engine->home, shoal_taskqueue_meter_offset(engine->queue));
    meters_drained(engine);
    engine->meters_kept = PyMem_RawMalloc((engine->worker_most + 1) * meter_bytes);
    for (unsigned i = 0; engine->meters_kept != NULL && i <= engine->worker_most; i++)
        shoal_taskqueue_meter_read(engine->queue, i, 0, engine->meters_kept + i * SHOAL_METER_WORDS, SHOAL_METER_WORDS);
}

/* One meter; its texts as they were at one moment, if that can be had in a few tries. */
static PyObject *read_meter(struct engine *engine, unsigned place)
{
    uint64_t words[SHOAL_METER_WORDS] = {0};
    if (engine->meters_kept != NULL) {
        memcpy(words, engine->meters_kept + (size_t)place * SHOAL_METER_WORDS, sizeof words);
    } else if (engine->queue != NULL) {
        uint64_t before, after = 1;
        for (int tries = 0; tries < 16; tries++) {
            shoal_taskqueue_meter_read(engine->queue, place, METER_SEQUENCE, &before, 1);
            shoal_taskqueue_meter_read(engine->queue, place, 0, words, SHOAL_METER_WORDS);
            shoal_taskqueue_meter_read(engine->queue, place, METER_SEQUENCE, &after, 1);
            if (place == 0 || (before == after && before % 2 == 0))
                break;
        }
    }
    return PyBytes_FromStringAndSize((const char *)words, sizeof words);
}

static uint64_t held_bytes(struct engine *engine, unsigned index)
{
    if (engine->dead)
        return 0;
    return (engine->workers[index].has_lease ? engine->workers[index].lease_bytes : 0) +
           shoal_arena_held_bytes(engine->home->arena, engine->workers[index].holder);
}

static bool runs_something(struct engine *engine, unsigned index)
{
    struct shoal_watch watch;
    return !engine->dead && engine->workers[index].peer.pidfd >= 0 &&
           shoal_taskqueue_watch(engine->queue, index, &watch) == 0 && watch.phase != SHOAL_WATCH_ENDED;
}

PyObject *engine_meters(struct engine *engine, PyObject *Py_UNUSED(ignored))
{
    if (engine_check_process(engine) < 0)
        return NULL;
    if (!engine->dead) {
        engine_drain_aside(engine);
        meters_drained(engine);
    }
    PyObject *workers = PyList_New(engine->worker_most);
    for (unsigned i = 0; workers != NULL && i < engine->worker_most; i++) {
        const struct worker *worker = &engine->workers[i];
        PyObject *item = Py_BuildValue("NlKKKKKN", read_meter(engine, 1 + i),
                                       worker->peer.pidfd >= 0 ? (long)worker->peer.pid : 0L, worker->restarts,
                                       worker->done, worker->failed, worker->lost, held_bytes(engine, i),
                                       PyBool_FromLong(runs_something(engine, i)));
        if (item == NULL)
            Py_CLEAR(workers);
        else
            PyList_SET_ITEM(workers, i, item);
    }
    return workers == NULL ? NULL : Py_BuildValue("NN", read_meter(engine, 0), workers);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * trace.c - the parent's side of a trace: what it records itself, and what it reads from the workers.
 *
 * The problem: each side sees a part of a task's life, in its own memory, and either may be killed; nothing that was
 * recorded is to be lost, memory is to stay bounded, and tasks are not to be held up.
 *
 * The protocol: the parent notes for each task when it was submitted, published and finished (struct life). Workers
 * write records into rings in a block of the arena, one ring each, which the parent reads when it drains and when they
 * are half full, when a worker is buried, and at the end. Both belong to each other by slot and generation. Times are
 * ticks (shoal_ticks), the same for all; two looks at the clock, at the beginning and the end, say what they are worth.
 *
 * Guarantees: what a worker had committed is in the trace, however it ended. `limit` bounds what is kept; what is
 * beyond is dropped and counted. What workers write is checked; it can spoil the trace and nothing else.
 * Costs: nothing when no trace runs, but a branch; else three ticks for each task here, four in the worker.
 * The block stays with the pool: a worker that is in the middle of a task may still write to its ring.
 */
#include "trace.h"

#include <string.h>
#include <time.h>

#include "engine.h"
#include "meter.h"

struct life { /* shoal._trace knows this layout */
    uint64_t submitted, written, read; /* ticks; read 0: it has not ended */
    uint64_t bytes;
    uint64_t sent_by, read_by; /* threads */
    uint32_t slot, generation, first, count;
    uint32_t outcome, reserved;
};
_Static_assert(sizeof(struct life) == 72, "shoal._trace reads it");

struct seen { /* a worker's record, and whose; shoal._trace knows this layout */
    uint32_t worker, pid;
    struct trace_record record;
};

struct trace {
    bool steady;
    uint32_t epoch;
    unsigned rings;
    uint64_t block;
    struct shoal_ring **ring;
    struct life *lives;
    struct seen *seen;
    size_t life_count, life_capacity, seen_count, seen_capacity, limit;
    uint64_t dropped_lives, dropped_seen;
    uint64_t ticks[2];
    int64_t ns[2];
    int64_t wall_ns;
};

uint64_t trace_ticks(const struct engine *engine)
{
    return shoal_ticks(engine->trace->steady);
}

/* ---- what is kept ---- */

/* One more of `size` bytes, or NULL: the limit is reached, or there is no memory. */
static void *append(struct trace *trace, void **list, size_t size, size_t *count, size_t *capacity)
{
    if (trace->life_count + trace->seen_count >= trace->limit)
        return NULL;
    if (*count == *capacity) {
        size_t more = *capacity ? 2 * *capacity : 1024;
        void *moved = PyMem_RawRealloc(*list, more * size);
        if (moved == NULL)
            return NULL;
        *list = moved;
        *capacity = more;
    }
    return (uint8_t *)*list + size * (*count)++;
}

static void keep(struct trace *trace, uint32_t worker, uint32_t pid, const struct trace_record *record)
{
    struct seen *seen = append(trace, (void **)&trace->seen, sizeof *seen, &trace->seen_count, &trace->seen_capacity);
    if (seen == NULL)
        trace->dropped_seen++;
    else
        *seen = (struct seen){.worker = worker, .pid = pid, .record = *record};
}

void trace_published(struct engine *engine, struct entry *entry, uint32_t slot, uint64_t submitted, uint64_t written)
{
    struct trace *trace = engine->trace;
    struct life *life = trace->life_count == UINT32_MAX ? NULL
        : append(trace, (void **)&trace->lives, sizeof *life, &trace->life_count, &trace->life_capacity);
    if (life == NULL) {
        trace->dropped_lives++;
        return;
    }
    *life = (struct life){
        .submitted = submitted != 0 ? submitted : written,
        .written = written,
        .bytes = entry->task.stream_bytes,
        .sent_by = PyThread_get_thread_ident(),
        .slot = slot,
        .generation = entry->generation,
        .first = entry->task.first_item,
        .count = entry->task.item_count,
    };
    entry->life = (uint32_t)trace->life_count;
    entry->traced = trace->epoch;
}

static struct life *life_of(struct engine *engine, const struct entry *entry)
{
    struct trace *trace = engine->trace;
    bool ours = engine->tracing && entry->life > 0 && entry->life <= trace->life_count && entry->traced == trace->epoch;
    return ours ? &trace->lives[entry->life - 1] : NULL;
}

void trace_requeued(struct engine *engine, const struct entry *entry, uint32_t slot)
{
    if (life_of(engine, entry) == NULL)
        return;
    struct trace_record record = {.kind = TRACE_REQUEUED, .slot = slot, .generation = entry->generation,
                                  .first = entry->life - 1, .begin = trace_ticks(engine)};
    keep(engine->trace, UINT32_MAX, 0, &record);
}

void trace_finished(struct engine *engine, const struct entry *entry)
{
    struct life *life = life_of(engine, entry);
    if (life == NULL)
        return;
    life->read = trace_ticks(engine);
    life->read_by = PyThread_get_thread_ident();
    life->outcome = entry->outcome;
}

/* ---- what workers have recorded ---- */

static void drain_ring(struct engine *engine, unsigned index)
{
    struct trace *trace = engine->trace;
    struct shoal_ring *ring = trace->ring[index];
    const void *bytes;
    uint64_t size;
    while (ring != NULL && shoal_ring_peek(ring, &bytes, &size) == 0) { /* damaged: there is nothing to be read */
        struct trace_record record;
        if (size == sizeof record) {
            memcpy(&record, bytes, sizeof record);
            bool whole = record.kind >= TRACE_BEGIN && record.kind <= TRACE_END;
            if (whole && record.epoch == trace->epoch) /* else of an earlier trace, written late */
                keep(trace, index, (uint32_t)engine->workers[index].peer.pid, &record);
        }
        shoal_ring_pop(ring);
    }
}

void trace_drain(struct engine *engine, bool all)
{
    struct trace *trace = engine->trace;
    for (unsigned i = 0; i < trace->rings && trace->ring != NULL; i++) {
        if (trace->ring[i] != NULL && (all || shoal_ring_used(trace->ring[i]) > TRACE_RING_BYTES / 2))
            drain_ring(engine, i);
    }
}

void trace_bury(struct engine *engine, unsigned index)
{
    struct trace *trace = engine->trace;
    if (trace == NULL || trace->ring == NULL || index >= trace->rings || trace->ring[index] == NULL)
        return;
    drain_ring(engine, index);
    shoal_ring_reset(trace->ring[index]);
}

/* ---- beginning and end ---- */

static void look_at_clock(struct trace *trace, int which)
{
    trace->ticks[which] = shoal_ticks(trace->steady);
    trace->ns[which] = shoal_now_ns();
}

static int make_rings(struct engine *engine, struct trace *trace)
{
    struct shoal_region *region = engine->home->region;
    uint64_t footprint = shoal_ring_footprint(TRACE_RING_BYTES);
    trace->rings = engine->worker_most;
    trace->ring = PyMem_RawCalloc(trace->rings, sizeof(struct shoal_ring *));
    if (trace->ring == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    int error = shoal_arena_alloc_beyond(engine->home->arena, trace->rings * footprint, &trace->block);
    if (error < 0) {
        trace->block = HOME_NO_BLOCK;
        return raise_error(error, "no shared memory for the trace");
    }
    shoal_arena_uncharge(engine->home->arena, trace->block); /* the budget is for what is in flight */
    for (unsigned i = 0; i < trace->rings && error >= 0; i++) {
        error = shoal_ring_format(region, trace->block + i * footprint, TRACE_RING_BYTES);
        if (error >= 0)
            error = shoal_ring_attach(region, trace->block + i * footprint, &trace->ring[i]);
    }
    return error < 0 ? raise_error(error, "cannot map the rings of the trace") : 0;
}

static uint64_t dropped_by(struct engine *engine, unsigned index)
{
    uint64_t dropped = 0;
    shoal_taskqueue_meter_read(engine->queue, 1 + index, METER_DROPPED, &dropped, 1);
    return dropped;
}

PyObject *engine_trace_start(struct engine *engine, PyObject *limit)
{
    size_t most = PyLong_AsSize_t(limit);
    if ((most == (size_t)-1 && PyErr_Occurred()) || engine_check(engine) < 0)
        return NULL;
    if (engine->tracing || (engine->trace != NULL && engine->trace->lives != NULL)) {
        PyErr_SetString(PyExc_RuntimeError, "a trace of this pool is running: one at a time");
        return NULL;
    }
    struct trace *trace = engine->trace;
    if (trace == NULL) {
        trace = PyMem_RawCalloc(1, sizeof *trace);
        if (trace == NULL)
            return PyErr_NoMemory();
        trace->block = HOME_NO_BLOCK;
        engine->trace = trace;
        if (make_rings(engine, trace) < 0) {
            trace_free(engine);
            return NULL;
        }
    }
    trace_drain(engine, true); /* what was written late, of an earlier one */
    trace->steady = engine->state->ticks_steady > 0;
    trace->epoch = trace->epoch % 0xffffe + 1;
    trace->limit = most;
    trace->life_count = trace->seen_count = 0;
    trace->dropped_lives = trace->dropped_seen = 0;
    for (unsigned i = 0; i < trace->rings; i++)
        trace->dropped_seen -= dropped_by(engine, i); /* of earlier ones: what is added at the end is more */
    struct timespec wall;
    clock_gettime(CLOCK_REALTIME, &wall);
    trace->wall_ns = (int64_t)wall.tv_sec * 1000000000 + wall.tv_nsec;
    look_at_clock(trace, 0);
    engine->tracing = true;
    shoal_taskqueue_set_notice(engine->queue, trace_notice(trace->block, trace->rings, trace->epoch));
    Py_RETURN_NONE;
}

/* No more is recorded; what workers have is read. */
static void stop(struct engine *engine)
{
    struct trace *trace = engine->trace;
    if (!engine->tracing)
        return;
    engine->tracing = false;
    shoal_taskqueue_set_notice(engine->queue, 0);
    trace_drain(engine, true);
    for (unsigned i = 0; i < trace->rings; i++)
        trace->dropped_seen += dropped_by(engine, i);
    look_at_clock(trace, 1);
}

void trace_close(struct engine *engine)
{
    struct trace *trace = engine->trace;
    if (trace == NULL)
        return;
    if (engine->queue != NULL && engine->epoch == engine->state->fork_epoch)
        stop(engine);
    for (unsigned i = 0; i < trace->rings && trace->ring != NULL; i++) {
        if (trace->ring[i] != NULL)
            shoal_ring_detach(trace->ring[i]);
    }
    PyMem_RawFree(trace->ring);
    trace->ring = NULL;
    if (trace->block != HOME_NO_BLOCK && engine->epoch == engine->state->fork_epoch)
        shoal_arena_release(engine->home->arena, trace->block);
    trace->block = HOME_NO_BLOCK;
}

void trace_forget(struct engine *engine)
{
    engine->tracing = false;
    trace_close(engine);
}

static void drop_lists(struct trace *trace)
{
    PyMem_RawFree(trace->lives);
    PyMem_RawFree(trace->seen);
    trace->lives = NULL;
    trace->seen = NULL;
    trace->life_count = trace->life_capacity = trace->seen_count = trace->seen_capacity = 0;
}

void trace_free(struct engine *engine)
{
    if (engine->trace == NULL)
        return;
    trace_close(engine);
    drop_lists(engine->trace);
    PyMem_RawFree(engine->trace);
    engine->trace = NULL;
}

PyObject *engine_trace_stop(struct engine *engine, PyObject *Py_UNUSED(ignored))
{
    struct trace *trace = engine->trace;
    if (engine_check_process(engine) < 0)
        return NULL;
    if (trace == NULL || trace->ns[0] == 0) {
        PyErr_SetString(PyExc_RuntimeError, "no trace of this pool is running");
        return NULL;
    }
    if (!engine->dead)
        engine_drain_aside(engine);
    stop(engine);
    Py_ssize_t life_bytes = (Py_ssize_t)(trace->life_count * sizeof(struct life));
    Py_ssize_t seen_bytes = (Py_ssize_t)(trace->seen_count * sizeof(struct seen));
    PyObject *result = Py_BuildValue("{sy#sy#s(KKLL)sLsKsK}", "lives", (const char *)trace->lives, life_bytes, "seen",
                                     (const char *)trace->seen, seen_bytes, "clock", trace->ticks[0], trace->ticks[1],
                                     (long long)trace->ns[0], (long long)trace->ns[1], "wall_ns",
                                     (long long)trace->wall_ns, "dropped_lives", trace->dropped_lives, "dropped_seen",
                                     trace->dropped_seen);
    drop_lists(trace);
    trace->ns[0] = 0;
    return result;
}

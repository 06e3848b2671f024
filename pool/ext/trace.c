/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * trace.c - the parent's side of a trace: what it records itself, and what it reads from the workers.
 *
 * The problem: each side sees a part of a task's life, in its own memory, and either may be killed; nothing that was
 * recorded is to be lost, memory is to stay bounded, and tasks are not to be held up.
 *
 * The protocol: the parent notes for each task when it was submitted, published and finished (struct life). Workers
 * write records into rings in blocks of the arena, one for each, which the parent reads when it drains and they are
 * half full, when a worker is buried, and at the end. A worker that comes during the trace has its ring before it is
 * started. Both belong to each other by slot and generation. Times are ticks (shoal_ticks), the same for all; two looks
 * at the clock, at the beginning and the end, say what they are worth.
 *
 * Guarantees: what a worker had noted is in the trace, however it ended. `limit` bounds what is kept; what is
 * beyond is dropped and counted. What workers write is checked; it can spoil the trace and nothing else.
 * Costs: nothing when no trace runs, but a branch; else three ticks and 112 bytes for each task here. Memory for the
 * first thirty thousand tasks, and the rings, are touched at the beginning, and stay for the next trace.
 * The blocks stay with the pool: a worker that is in the middle of a task may still write to its ring.
 */
#include "trace.h"

#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include <shoal/killpoint.h>

#include "engine.h"
#include "meter.h"
#include "trace_list.h"

struct life { /* shoal._trace knows this layout */
    uint64_t submitted, written, read; /* ticks; read 0: it has not ended */
    uint64_t bytes : 56, outcome : 8;
    uint64_t sent_by, read_by; /* threads */
    uint32_t slot, generation, first, count;
};
_Static_assert(sizeof(struct life) == 64, "a line of the cache; shoal._trace reads it");

/* Of one worker. */
struct trace_ring {
    struct shoal_ring *ring; /* NULL: none yet */
    uint64_t block;
};

struct trace {
    bool steady;
    uint32_t epoch;
    unsigned rings; /* that there is room for */
    uint32_t told, told_pid; /* whose record was kept last; pid 0: nobody's */
    uint64_t table; /* where each worker's ring lies, 0: none yet; a block */
    struct trace_ring *ring;
    struct trace_list lives, seen; /* struct life; union trace_record */
    size_t limit;
    uint64_t dropped_lives, dropped_seen;
    uint64_t ticks[2];
    int64_t ns[2]; /* 0: there is nothing to be fetched */
    int64_t wall_ns;
};

uint64_t trace_ticks(const struct engine *engine)
{
    return shoal_ticks(engine->trace->steady);
}

/* ---- what is kept ---- */

/* One more of `size` bytes, or NULL: the limit is reached, or there is no memory. */
static inline void *append(struct trace *trace, struct trace_list *list, size_t size)
{
    return trace->lives.count + trace->seen.count >= trace->limit ? NULL : trace_list_add(list, size);
}

static void keep(struct trace *trace, const union trace_record *record)
{
    union trace_record *seen = append(trace, &trace->seen, sizeof *seen);
    if (seen == NULL)
        trace->dropped_seen++;
    else
        *seen = *record;
}

void trace_published(struct engine *engine, struct entry *entry, uint32_t slot, uint64_t submitted, uint64_t written)
{
    struct trace *trace = engine->trace;
    struct life *life = trace->lives.count < UINT32_MAX ? append(trace, &trace->lives, sizeof *life) : NULL;
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
    entry->life = (uint32_t)trace->lives.count;
    entry->traced = trace->epoch;
}

static struct life *life_of(struct engine *engine, const struct entry *entry)
{
    struct trace *trace = engine->trace;
    bool ours = engine->tracing && entry->traced == trace->epoch && entry->life > 0 &&
                entry->life <= trace->lives.count;
    return ours ? trace_list_at(&trace->lives, entry->life - 1, sizeof(struct life)) : NULL;
}

void trace_requeued(struct engine *engine, const struct entry *entry, uint32_t slot)
{
    if (life_of(engine, entry) == NULL)
        return;
    union trace_record record = {.kind = TRACE_REQUEUED, .slot = slot, .generation = entry->generation,
                                 .unpickle = entry->life - 1};
    keep(engine->trace, &record);
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

/* A worker's: what is not one is no record. */
static void keep_many(struct trace *trace, const void *records, size_t count)
{
    const size_t most = TRACE_CHUNK_BYTES / sizeof(union trace_record);
    for (size_t done = 0; done < count;) {
        union trace_record *first = append(trace, &trace->seen, sizeof *first);
        if (first == NULL) {
            trace->dropped_seen += count - done;
            return;
        }
        size_t more = most - 1 - (trace->seen.count - 1) % most, left = count - done - 1;
        size_t room = trace->limit - trace->lives.count - trace->seen.count;
        more = more < left ? more : left;
        more = more < room ? more : room;
        memcpy(first, (const union trace_record *)records + done, (1 + more) * sizeof *first);
        for (size_t i = 0; i <= more; i++) {
            if (first[i].kind > TRACE_NAME)
                first[i].kind = 0;
        }
        trace->seen.count += more;
        done += 1 + more;
    }
}

/* What is written of a pack: whole records, and maybe one of a task that has only begun. */
static void take_pack(struct engine *engine, unsigned index, const uint8_t *bytes, uint64_t size)
{
    struct trace *trace = engine->trace;
    uint32_t epoch;
    if (size < TRACE_PACK_HEAD || size > sizeof(struct trace_pack))
        return;
    memcpy(&epoch, bytes, sizeof epoch);
    if (epoch != trace->epoch)
        return; /* of an earlier trace, written late */
    uint32_t pid = (uint32_t)engine->workers[index].peer.pid;
    if (trace->told != index || trace->told_pid != pid) {
        union trace_record *told = append(trace, &trace->seen, sizeof *told);
        if (told != NULL) {
            *told = (union trace_record){.kind = TRACE_WORKER, .slot = index, .generation = pid};
            trace->told = index;
            trace->told_pid = pid;
        }
    }
    bytes += TRACE_PACK_HEAD;
    size -= TRACE_PACK_HEAD;
    size_t count = size / sizeof(union trace_record), rest = size % sizeof(union trace_record);
    keep_many(trace, bytes, count);
    if (rest > 0) {
        union trace_record begun = {.kind = 0};
        memcpy(&begun, bytes + count * sizeof begun, rest);
        begun.ending = TRACE_OPEN;
        keep_many(trace, &begun, 1);
    }
}

static void drain_ring(struct engine *engine, unsigned index)
{
    struct shoal_ring *ring = engine->trace->ring[index].ring;
    const void *bytes;
    uint64_t size;
    while (ring != NULL && shoal_ring_peek(ring, &bytes, &size) == 0) { /* damaged: there is nothing to be read */
        take_pack(engine, index, bytes, size);
        SHOAL_PARENT_POINT("trace: pack taken", shoal_peer_signal(&engine->workers[index].peer, SIGKILL));
        shoal_ring_pop(ring);
    }
}

/* Also what is noted of the pack at hand. Its writer may live, and commit it just now: then it is read as committed. */
static void drain_noted(struct engine *engine, unsigned index)
{
    struct shoal_ring *ring = engine->trace->ring[index].ring;
    const void *bytes, *next;
    uint64_t size, next_size;
    int error;
    do {
        drain_ring(engine, index);
        error = shoal_ring_salvage(ring, &bytes, &size);
    } while (shoal_ring_peek(ring, &next, &next_size) == 0);
    SHOAL_PARENT_POINT("trace: noted read", shoal_peer_signal(&engine->workers[index].peer, SIGKILL));
    if (error == 0)
        take_pack(engine, index, bytes, size);
}

void trace_drain(struct engine *engine, bool all)
{
    struct trace *trace = engine->trace;
    for (unsigned i = 0; i < trace->rings && trace->ring != NULL; i++) {
        if (trace->ring[i].ring == NULL)
            continue;
        if (all)
            drain_noted(engine, i);
        else if (shoal_ring_used(trace->ring[i].ring) > TRACE_RING_BYTES / 2)
            drain_ring(engine, i);
    }
}

void trace_bury(struct engine *engine, unsigned index)
{
    struct trace *trace = engine->trace;
    if (trace == NULL || trace->ring == NULL || trace->ring[index].ring == NULL)
        return;
    drain_noted(engine, index);
    shoal_ring_reset(trace->ring[index].ring);
}

/* ---- beginning and end ---- */

static void look_at_clock(struct trace *trace, int which)
{
    trace->ticks[which] = shoal_ticks(trace->steady);
    trace->ns[which] = shoal_now_ns();
}

/* The ring of this worker; it has one already, or gets it now. 0, or -1 with an exception. */
static int make_ring(struct engine *engine, unsigned index)
{
    struct trace *trace = engine->trace;
    struct trace_ring *own = &trace->ring[index];
    struct shoal_region *region = engine->home->region;
    uint64_t footprint = shoal_ring_footprint(TRACE_RING_BYTES);
    if (own->ring != NULL)
        return 0;
    if (own->block == HOME_NO_BLOCK) {
        int error = shoal_arena_alloc_beyond(engine->home->arena, footprint, &own->block);
        if (error < 0) {
            own->block = HOME_NO_BLOCK;
            return raise_error(error, "no shared memory for the trace");
        }
        shoal_arena_uncharge(engine->home->arena, own->block); /* the budget is for what is in flight */
    }
    int error = shoal_ring_format(region, own->block, TRACE_RING_BYTES);
    if (error >= 0)
        error = shoal_ring_attach(region, own->block, &own->ring);
    if (error < 0)
        return raise_error(error, "cannot map the rings of the trace");
#ifdef MADV_POPULATE_WRITE
    madvise(shoal_region_at(region, own->block, footprint), footprint, MADV_POPULATE_WRITE);
#endif
    uint64_t *table = shoal_region_at(region, trace->table, trace->rings * sizeof *table);
    table[index] = own->block;
    return 0;
}

int trace_extend(struct engine *engine, unsigned count)
{
    int error = 0;
    for (unsigned i = 0; engine->tracing && i < count && error >= 0; i++)
        error = make_ring(engine, i);
    return error;
}

/* The table of the workers' rings, none of which is there yet. */
static int make_table(struct engine *engine)
{
    struct trace *trace = engine->trace;
    trace->rings = engine->worker_max;
    trace->ring = PyMem_RawCalloc(trace->rings, sizeof *trace->ring);
    if (trace->ring == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (unsigned i = 0; i < trace->rings; i++)
        trace->ring[i].block = HOME_NO_BLOCK;
    int error = shoal_arena_alloc_beyond(engine->home->arena, trace->rings * sizeof(uint64_t), &trace->table);
    if (error < 0) {
        trace->table = HOME_NO_BLOCK;
        return raise_error(error, "no shared memory for the trace");
    }
    shoal_arena_uncharge(engine->home->arena, trace->table);
    memset(shoal_region_at(engine->home->region, trace->table, trace->rings * sizeof(uint64_t)), 0,
           trace->rings * sizeof(uint64_t));
    return 0;
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
    if (engine->trace != NULL && engine->trace->ns[0] != 0) {
        PyErr_SetString(PyExc_RuntimeError, "a trace of this pool is running: one at a time");
        return NULL;
    }
    struct trace *trace = engine->trace;
    if (trace == NULL) {
        trace = PyMem_RawCalloc(1, sizeof *trace);
        if (trace == NULL)
            return PyErr_NoMemory();
        trace->table = HOME_NO_BLOCK;
        engine->trace = trace;
        if (make_table(engine) < 0) {
            trace_free(engine);
            return NULL;
        }
    }
    for (unsigned i = 0; i < engine->worker_most; i++) {
        if (make_ring(engine, i) < 0)
            return NULL;
    }
    trace_drain(engine, true); /* what was written late, of an earlier one */
    if (!trace_list_begin(&trace->lives, sizeof(struct life), most) ||
        !trace_list_begin(&trace->seen, sizeof(union trace_record), most))
        return PyErr_NoMemory();
    trace->told_pid = 0;
    trace->steady = engine->state->ticks_steady > 0;
    trace->epoch = trace->epoch % 0xffffe + 1;
    trace->limit = most;
    trace->dropped_lives = trace->dropped_seen = 0;
    for (unsigned i = 0; i < trace->rings; i++)
        trace->dropped_seen -= dropped_by(engine, i); /* of earlier ones: what is added at the end is more */
    struct timespec wall;
    clock_gettime(CLOCK_REALTIME, &wall);
    trace->wall_ns = (int64_t)wall.tv_sec * 1000000000 + wall.tv_nsec;
    look_at_clock(trace, 0);
    engine->tracing = true;
    shoal_taskqueue_set_notice(engine->queue, trace_notice(trace->table, trace->rings, trace->epoch));
    SHOAL_PARENT_POINT("trace: begun", shoal_peer_signal(&engine->workers[0].peer, SIGKILL));
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
    SHOAL_PARENT_POINT("trace: stopped", shoal_peer_signal(&engine->workers[0].peer, SIGKILL));
    trace_drain(engine, true);
    for (unsigned i = 0; i < trace->rings; i++)
        trace->dropped_seen += dropped_by(engine, i);
    look_at_clock(trace, 1);
}

static void give_back(struct engine *engine, uint64_t *block)
{
    if (*block != HOME_NO_BLOCK && engine->epoch == engine->state->fork_epoch)
        shoal_arena_release(engine->home->arena, *block);
    *block = HOME_NO_BLOCK;
}

void trace_close(struct engine *engine)
{
    struct trace *trace = engine->trace;
    if (trace == NULL)
        return;
    if (engine->queue != NULL && engine->epoch == engine->state->fork_epoch)
        stop(engine);
    for (unsigned i = 0; i < trace->rings && trace->ring != NULL; i++) {
        if (trace->ring[i].ring != NULL)
            shoal_ring_detach(trace->ring[i].ring);
        give_back(engine, &trace->ring[i].block);
    }
    PyMem_RawFree(trace->ring);
    trace->ring = NULL;
    give_back(engine, &trace->table);
}

void trace_forget(struct engine *engine)
{
    engine->tracing = false;
    trace_close(engine);
}

void trace_free(struct engine *engine)
{
    if (engine->trace == NULL)
        return;
    trace_close(engine);
    trace_list_drop(&engine->trace->lives, 0);
    trace_list_drop(&engine->trace->seen, 0);
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
    PyObject *lives = trace_list_bytes(&trace->lives, sizeof(struct life));
    PyObject *seen = trace_list_bytes(&trace->seen, sizeof(union trace_record));
    PyObject *result = NULL;
    if (lives != NULL && seen != NULL)
        result = Py_BuildValue("{sOsOs(KKLL)sLsKsK}", "lives", lives, "seen", seen, "clock", trace->ticks[0],
                               trace->ticks[1], (long long)trace->ns[0], (long long)trace->ns[1], "wall_ns",
                               (long long)trace->wall_ns, "dropped_lives", trace->dropped_lives, "dropped_seen",
                               trace->dropped_seen);
    Py_XDECREF(lives);
    Py_XDECREF(seen);
    trace_list_drop(&trace->lives, 1); /* the next trace has the first ones */
    trace_list_drop(&trace->seen, 1);
    trace->ns[0] = 0;
    return result;
}

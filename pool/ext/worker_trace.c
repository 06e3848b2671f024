/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * worker_trace.c - a worker records what it does, while a trace runs.
 *
 * The problem: a tiny task takes a quarter of a microsecond, and to be told must not take much more; and our death, at
 * any moment, is to lose nothing that was recorded before.
 *
 * Whether a trace runs stands in the queue's notice, which only the parent can write: one load for each task. Records
 * go into packs, each a record of a ring of shared memory of our own. Each counts from the moment it is noted, which is
 * one store; a pack is committed when it is full. If the ring is full, records are dropped and counted.
 *
 * A task's record is written and noted when user code begins, and its last part when the result is about to be handed
 * in: who has read the result finds it whole. If there are records of elements between the two, or a number is too
 * large for its place, the end is a record of its own. Names are told once, and then meant by number.
 *
 * Elements of a batch that take less than a microsecond share records, as many as make one: a record for each would
 * take longer than they do.
 *
 * Costs, for a tiny task: four ticks, of which the meter needs the last one as well, and 48 bytes.
 */
#include <string.h>
#include <sys/mman.h>

#include <shoal/killpoint.h>

#include "worker.h"

#define ELEMENTS_MAX 1024u
#define SHORT_TICKS 3000u /* a microsecond, more or less */

static void commit_pack(struct worker_trace *trace)
{
    if (trace->pack != NULL && trace->packed > 0) {
        shoal_ring_commit(trace->ring, TRACE_PACK_HEAD + trace->packed * sizeof(union trace_record));
        SHOAL_KILL_POINT("trace: pack committed");
    }
    trace->pack = NULL;
    trace->packed = 0;
    trace->open = NULL;
}

static bool begin_pack(struct engine *engine)
{
    struct worker_trace *trace = &engine->side->trace;
    void *place;
    uint64_t room;
    commit_pack(trace);
    if (shoal_ring_reserve(trace->ring, sizeof(struct trace_pack), &place, &room) < 0) {
        trace->dropped++;
        shoal_taskqueue_meter_set(engine->queue, 1 + engine->side->index, METER_DROPPED, &trace->dropped, 1);
        return false;
    }
    trace->pack = place;
    trace->pack->epoch = (uint32_t)(trace->notice >> 44);
    trace->pack->reserved = 0;
    SHOAL_KILL_POINT("trace: pack begun");
    return true;
}

/* Room for a record, which note() makes count; NULL: there is none. */
static union trace_record *next_record(struct engine *engine)
{
    struct worker_trace *trace = &engine->side->trace;
    const size_t most = sizeof trace->pack->record / sizeof *trace->pack->record;
    if ((trace->pack == NULL || trace->packed == most) && !begin_pack(engine))
        return NULL;
    trace->open = NULL;
    return &trace->pack->record[trace->packed++];
}

/* The last record counts, as far as it is written. */
static void note(const struct worker_trace *trace, size_t bytes)
{
    shoal_ring_note(trace->ring, TRACE_PACK_HEAD + (trace->packed - 1) * sizeof(union trace_record) + bytes);
}

static bool add(struct engine *engine, const union trace_record *record)
{
    union trace_record *place = next_record(engine);
    if (place == NULL)
        return false;
    *place = *record;
    note(&engine->side->trace, sizeof *record);
    return true;
}

static union trace_record record_of(struct engine *engine, enum trace_kind kind)
{
    const struct worker_side *side = engine->side;
    return (union trace_record){.kind = kind, .slot = side->claim.slot, .generation = side->claim.generation};
}

/* ---- names ---- */

static void forget_names(struct worker_trace *trace)
{
    for (size_t i = 0; i < sizeof trace->known / sizeof *trace->known; i++)
        Py_XDECREF(trace->known[i].name);
    memset(trace->known, 0, sizeof trace->known);
    trace->names = 0;
}

/* Not found by its address: by its text, or it is told now. Returns its number, 0 if there is no room to tell it. */
static uint16_t tell_name(struct engine *engine)
{
    struct worker_trace *trace = &engine->side->trace;
    const struct meter *meter = &engine->side->meter;
    const size_t most = sizeof trace->known / sizeof *trace->known;
    union trace_record record = {.kind = TRACE_NAME};
    meter_name_text(meter, record.text, sizeof record.text);
    struct trace_known *known = NULL;
    for (size_t i = 0; i < most && known == NULL; i++) {
        if (trace->known[i].number != 0 && memcmp(trace->known[i].text, record.text, sizeof record.text) == 0)
            known = &trace->known[i];
    }
    if (known == NULL) {
        if (trace->names == UINT16_MAX)
            forget_names(trace);
        record.name = (uint16_t)(trace->names + 1);
        if (!add(engine, &record))
            return 0;
        SHOAL_KILL_POINT("trace: name told");
        known = &trace->known[trace->names++ % most];
        known->number = record.name;
        memcpy(known->text, record.text, sizeof record.text);
    }
    /* A type is found by its text: it is not to live longer because it was seen here. */
    PyObject *name = meter->name != NULL && PyUnicode_Check(meter->name) ? meter->name : NULL;
    Py_XINCREF(name);
    Py_XSETREF(known->name, name);
    known->c_name = meter->c_name;
    return (uint16_t)known->number;
}

static uint16_t number_of_name(struct engine *engine, PyObject *function)
{
    struct worker_trace *trace = &engine->side->trace;
    struct meter *meter = &engine->side->meter;
    if (!PyFunction_Check(function) || ((PyFunctionObject *)function)->func_qualname != meter->name)
        meter_name_inner(meter, function);
    for (size_t i = 0; i < sizeof trace->known / sizeof *trace->known; i++) {
        const struct trace_known *known = &trace->known[i];
        if ((known->name != NULL && known->name == meter->name) ||
            (known->c_name != NULL && known->c_name == meter->c_name))
            return (uint16_t)known->number;
    }
    return tell_name(engine);
}

/* ---- a trace begins or ends ---- */

/* The ring that begins at `place`: pages that are mapped here at once cost a tenth of those met one by one. */
static void map_ring(struct worker_trace *trace)
{
#ifdef MADV_POPULATE_WRITE
    void *place;
    uint64_t room;
    if (shoal_ring_reserve(trace->ring, 0, &place, &room) == 0)
        madvise((void *)((uintptr_t)place & ~(uintptr_t)4095), TRACE_RING_BYTES, MADV_POPULATE_WRITE);
#else
    (void)trace;
#endif
}

void trace_look(struct engine *engine, uint64_t notice)
{
    struct worker_side *side = engine->side;
    struct worker_trace *trace = &side->trace;
    uint64_t place = (notice & UINT32_MAX) * 4096, rings = notice >> 32 & 0xfff;
    if (trace->ring != NULL)
        commit_pack(trace);
    forget_names(trace);
    trace->on = false;
    trace->notice = notice;
    if (notice == 0 || side->index >= rings)
        return;
    if (trace->ring == NULL) { /* a later trace has the same ring */
        const uint64_t *table = shoal_region_at(engine->home->region, place, rings * sizeof *table);
        if (table == NULL || table[side->index] == 0 ||
            shoal_ring_attach(engine->home->region, table[side->index], &trace->ring) < 0)
            return;
        if (shoal_ring_protect(trace->ring, SHOAL_RING_WRITER) < 0) {
            shoal_ring_detach(trace->ring);
            trace->ring = NULL;
            return;
        }
        map_ring(trace);
        SHOAL_KILL_POINT("trace: ring mapped");
    }
    trace->steady = side->meter.steady;
    trace->stride = 1;
    shoal_taskqueue_meter_read(engine->queue, 1 + side->index, METER_DROPPED, &trace->dropped, 1);
    trace->on = true;
}

/* ---- a task ---- */

void trace_claimed(struct engine *engine)
{
    struct worker_side *side = engine->side;
    struct worker_trace *trace = &side->trace;
    trace->open = NULL;
    trace->bytes_in = side->meter.word[METER_BYTES_IN] - side->task.stream_bytes;
    trace->bytes_out = side->meter.word[METER_BYTES_OUT];
    trace->claimed = shoal_ticks(trace->steady);
}

void trace_started(struct engine *engine, PyObject *function)
{
    struct worker_side *side = engine->side;
    struct worker_trace *trace = &side->trace;
    uint16_t name = function != NULL ? number_of_name(engine, function) : 0;
    trace->elements = 0;
    trace->stride = 1;
    trace->from = trace->ended = trace->started = shoal_ticks(trace->steady);
    uint64_t unpickle = trace->started - trace->claimed;
    if (unpickle >= UINT32_MAX) {
        union trace_record record = record_of(engine, TRACE_STARTED);
        record.elements.begin = trace->started;
        add(engine, &record);
        unpickle = UINT32_MAX;
    }
    union trace_record *record = next_record(engine);
    if (record == NULL)
        return;
    record->kind = TRACE_TASK; /* field by field: what is not told yet need not be written */
    record->ending = TRACE_OPEN;
    record->name = name;
    record->slot = side->claim.slot;
    record->generation = side->claim.generation;
    record->unpickle = (uint32_t)unpickle;
    record->task.claimed = trace->claimed;
    record->task.first = side->task.first_item + side->task.reserved;
    record->task.count = side->task.item_count - side->task.reserved;
    SHOAL_KILL_POINT("trace: begin written");
    note(trace, TRACE_OPEN_BYTES);
    SHOAL_KILL_POINT("trace: begin noted");
    trace->open = record;
}

void trace_element(struct engine *engine, uint32_t item)
{
    struct worker_trace *trace = &engine->side->trace;
    bool last = item + 1 == engine->side->task.first_item + engine->side->task.item_count;
    if (++trace->elements < trace->stride && !last)
        return;
    uint64_t begin = trace->from, took;
    trace->from = trace->ended = shoal_ticks(trace->steady);
    uint32_t count = trace->elements;
    trace->elements = 0;
    if (engine->side->task.item_count == 1)
        return; /* the task says it all */
    took = trace->ended - begin;
    if (took < SHORT_TICKS && trace->stride < ELEMENTS_MAX)
        trace->stride *= 2;
    else if (took > 4 * SHORT_TICKS) /* as many as take so long, if they go on like that */
        trace->stride = (uint32_t)(trace->stride * (uint64_t)SHORT_TICKS / took) + 1;
    union trace_record record = record_of(engine, TRACE_ELEMENTS);
    record.elements.begin = begin;
    record.elements.end = trace->ended;
    record.elements.count = count;
    record.elements.first = item + 1 - count;
    add(engine, &record);
    SHOAL_KILL_POINT("trace: elements told");
}

void trace_ended(struct engine *engine)
{
    struct worker_trace *trace = &engine->side->trace;
    trace->ended = shoal_ticks(trace->steady);
}

void trace_handed_in(struct engine *engine, bool raised)
{
    struct worker_side *side = engine->side;
    struct worker_trace *trace = &side->trace;
    union trace_record *open = trace->open;
    uint8_t ending = raised ? TRACE_FAILED : TRACE_RETURNED;
    uint64_t handed_in = shoal_ticks(trace->steady);
    uint64_t run = trace->ended - trace->started, pickle = handed_in - trace->ended;
    uint64_t bytes_in = side->meter.word[METER_BYTES_IN] - trace->bytes_in;
    uint64_t bytes_out = side->meter.word[METER_BYTES_OUT] - trace->bytes_out;
    side->meter.handed_in = trace->steady ? handed_in : 0;
    trace->open = NULL;
    if (open != NULL && (run | pickle | bytes_in | bytes_out) <= UINT32_MAX) {
        open->task.run = (uint32_t)run;
        open->task.pickle = (uint32_t)pickle;
        open->task.bytes_in = (uint32_t)bytes_in;
        open->task.bytes_out = (uint32_t)bytes_out;
        open->ending = ending;
        SHOAL_KILL_POINT("trace: end written");
        note(trace, sizeof *open);
        SHOAL_KILL_POINT("trace: end noted");
        return;
    }
    union trace_record record = record_of(engine, TRACE_END);
    record.ending = ending;
    record.end.ended = trace->ended;
    record.end.handed_in = handed_in;
    record.end.bytes_in = bytes_in;
    record.end.bytes_out = bytes_out;
    add(engine, &record);
    SHOAL_KILL_POINT("trace: end apart");
}

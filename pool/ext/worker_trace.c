/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * worker_trace.c - a worker records what it does, while a trace runs.
 *
 * Whether one runs stands in the queue's notice, which only the parent can write: one load for each task. The records
 * go into a ring of shared memory of our own, each committed by itself, so that our death loses none. If it is full,
 * the record is dropped and counted. The last one of a task is committed before its result: who has read the result
 * finds it.
 *
 * Elements of a batch that take less than a microsecond share records, as many as make one: a record for each would
 * take longer than they do.
 */
#include <string.h>

#include "worker.h"

#define ELEMENTS_MAX 1024u
#define SHORT_TICKS 3000u /* a microsecond, more or less */

static void add(struct engine *engine, const struct trace_record *record)
{
    struct worker_trace *trace = &engine->side->trace;
    void *place;
    uint64_t room;
    if (shoal_ring_reserve(trace->ring, sizeof *record, &place, &room) == 0) {
        memcpy(place, record, sizeof *record);
        shoal_ring_commit(trace->ring, sizeof *record);
        return;
    }
    trace->dropped++;
    shoal_taskqueue_meter_set(engine->queue, 1 + engine->side->index, METER_DROPPED, &trace->dropped, 1);
}

static struct trace_record record_of(struct engine *engine, enum trace_kind kind)
{
    const struct worker_side *side = engine->side;
    return (struct trace_record){
        .kind = kind,
        .epoch = (uint32_t)(side->trace.notice >> 44),
        .slot = side->claim.slot,
        .generation = side->claim.generation,
    };
}

void trace_look(struct engine *engine, uint64_t notice)
{
    struct worker_side *side = engine->side;
    struct worker_trace *trace = &side->trace;
    uint64_t place = (notice & UINT32_MAX) * 4096, rings = notice >> 32 & 0xfff;
    trace->on = false;
    trace->notice = notice;
    if (notice == 0 || side->index >= rings)
        return;
    if (trace->ring == NULL && /* a later trace has the same ring */
        shoal_ring_attach(engine->home->region, place + side->index * shoal_ring_footprint(TRACE_RING_BYTES),
                          &trace->ring) < 0)
        return;
    if (shoal_ring_protect(trace->ring, SHOAL_RING_WRITER) < 0)
        return;
    trace->steady = side->meter.steady;
    trace->stride = 1;
    shoal_taskqueue_meter_read(engine->queue, 1 + side->index, METER_DROPPED, &trace->dropped, 1);
    trace->on = true;
}

void trace_claimed(struct engine *engine)
{
    struct worker_side *side = engine->side;
    struct worker_trace *trace = &side->trace;
    trace->bytes_in = side->meter.word[METER_BYTES_IN] - side->task.stream_bytes;
    trace->bytes_out = side->meter.word[METER_BYTES_OUT];
    trace->claimed = shoal_ticks(trace->steady);
}

void trace_started(struct engine *engine, PyObject *function)
{
    struct worker_side *side = engine->side;
    struct worker_trace *trace = &side->trace;
    struct trace_record record = record_of(engine, TRACE_BEGIN);
    record.begin = trace->claimed;
    record.first = side->task.first_item + side->task.reserved;
    record.count = side->task.item_count - side->task.reserved;
    if (function != NULL)
        meter_name_text(&side->meter, function, record.name, sizeof record.name);
    trace->elements = 0;
    trace->stride = 1;
    trace->from = trace->ended = record.end = shoal_ticks(trace->steady);
    add(engine, &record);
}

void trace_element(struct engine *engine, uint32_t item)
{
    struct worker_trace *trace = &engine->side->trace;
    bool last = item + 1 == engine->side->task.first_item + engine->side->task.item_count;
    if (++trace->elements < trace->stride && !last)
        return;
    struct trace_record record = record_of(engine, TRACE_ELEMENTS);
    record.begin = trace->from;
    record.end = trace->from = trace->ended = shoal_ticks(trace->steady);
    record.count = trace->elements;
    record.first = item + 1 - trace->elements;
    trace->elements = 0;
    uint64_t took = record.end - record.begin;
    if (engine->side->task.item_count == 1)
        return; /* the task says it all */
    if (took < SHORT_TICKS && trace->stride < ELEMENTS_MAX)
        trace->stride *= 2;
    else if (took > 4 * SHORT_TICKS) /* as many as take so long, if they go on like that */
        trace->stride = (uint32_t)(trace->stride * (uint64_t)SHORT_TICKS / took) + 1;
    add(engine, &record);
}

void trace_ended(struct engine *engine)
{
    struct worker_trace *trace = &engine->side->trace;
    trace->ended = shoal_ticks(trace->steady);
}

void trace_handed_in(struct engine *engine, bool raised)
{
    const struct worker_side *side = engine->side;
    struct trace_record record = record_of(engine, TRACE_END);
    record.begin = side->trace.ended;
    record.end = shoal_ticks(side->trace.steady);
    record.bytes_in = side->meter.word[METER_BYTES_IN] - side->trace.bytes_in;
    record.bytes_out = side->meter.word[METER_BYTES_OUT] - side->trace.bytes_out;
    record.first = raised;
    add(engine, &record);
}

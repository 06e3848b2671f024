/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * drain.c - read what the workers wrote.
 *
 * A drain moves records out of the result rings to their owners as raw bytes, checks each against the ledger, and frees
 * slots. It runs no user code: references that it drops are collected in `trash`, owners that somebody watches in
 * `finished`; engine_after_drain() deals with both when everything is in order again.
 *
 * A record is copied out of the ring before it is looked at, so a worker that scribbles cannot change it between check
 * and use. A worker whose ring is damaged is killed: what it had is lost, and said to be.
 */
#include "say.h"

#include <errno.h>
#include <string.h>

#include <shoal/killpoint.h>

void engine_discard_later(struct engine *engine, PyObject *object)
{
    if (object == NULL)
        return;
    if (engine->trash_count == engine->trash_capacity) {
        size_t capacity = engine->trash_capacity ? 2 * engine->trash_capacity : 256;
        PyObject **moved = PyMem_RawRealloc(engine->trash, capacity * sizeof *moved);
        if (moved == NULL)
            return; /* leaks one reference rather than running user code here */
        engine->trash = moved;
        engine->trash_capacity = capacity;
    }
    engine->trash[engine->trash_count++] = object;
}

void engine_finished(struct engine *engine, struct owner *owner)
{
    if (owner->watches == NULL || owner->queued)
        return;
    owner->queued = true;
    owner->next_finished = NULL;
    Py_INCREF(owner);
    *engine->finished_end = owner;
    engine->finished_end = &owner->next_finished;
}

void engine_after_drain(struct engine *engine)
{
    if (engine->draining)
        return;
    if (engine->said != NULL)
        hear_deliver(engine);
    while (engine->trash_count > 0)
        Py_DECREF(engine->trash[--engine->trash_count]);
    while (engine->finished != NULL) {
        struct owner *owner = engine->finished;
        engine->finished = owner->next_finished;
        if (engine->finished == NULL)
            engine->finished_end = &engine->finished;
        owner->queued = false;
        owner_run_watches(owner);
        Py_DECREF(owner);
    }
}

/* ---- records ---- */

static int copy_out(struct engine *engine, struct arrival *arrival, const uint8_t *bytes, uint64_t size)
{
    arrival->bytes = (size_t)size;
    uint8_t *copy = arrival->inline_data;
    if (size > ARRIVAL_INLINE_BYTES)
        copy = arrival_allocate(engine, arrival, (size_t)size);
    if (copy == NULL)
        return -ENOMEM;
    memcpy(copy, bytes, (size_t)size);
    return 0;
}

/* The lease that the result lies in becomes the arrival's, cut to what was used. */
static int take_lease(struct engine *engine, struct worker *worker, const struct record *record,
                      struct arrival *arrival)
{
    if (!worker->has_lease || record->block_offset != worker->lease || record->block_bytes > worker->lease_bytes)
        return -EBADMSG;
    worker->has_lease = false;
    arrival->block = worker->lease;
    shoal_arena_shrink(engine->home->arena, worker->lease, record->block_bytes);
    arrival->block_bytes = record->block_bytes;
    memory_unread(engine, 0, record->block_bytes);
    if (!(record->flags & RECORD_IN_BLOCK))
        return 0;
    uint64_t end = record->block_offset + record->block_bytes;
    if (record->stream_offset < record->block_offset || record->stream_offset > end ||
        record->stream_bytes > end - record->stream_offset)
        return -EBADMSG;
    arrival->bytes = (size_t)record->stream_bytes;
    arrival->data = shoal_region_at(engine->home->region, record->stream_offset, record->stream_bytes);
    return arrival->data == NULL ? -EBADMSG : 0;
}

/*
 * Blocks of user arrays that the result refers to stay until it is unpickled: those of the task, those that the worker
 * has kept, and no others. Its table is read again then, and must still fit.
 */
static int hold_shared(struct engine *engine, unsigned index, const struct block_list *of_task,
                       struct arrival *arrival)
{
    const uint8_t *data = arrival->data != NULL ? arrival->data : arrival->inline_data;
    uint64_t table = (uint64_t)arrival->buffer_count * sizeof(struct buffer_entry);
    if (table > arrival->bytes)
        return -EBADMSG;
    for (uint64_t at = arrival->bytes - table; at < arrival->bytes; at += sizeof(struct buffer_entry)) {
        struct buffer_entry entry;
        memcpy(&entry, data + at, sizeof entry);
        if (entry.kind != BUFFER_SHARED)
            continue;
        if (shoal_arena_holds(engine->home->arena, entry.block_offset, engine->workers[index].holder) != 1 &&
            !block_list_has(of_task, entry.block_offset))
            return -EBADMSG;
        if (arrival->shared.offsets == NULL)
            arrival->shared.offsets = PyMem_RawMalloc(arrival->buffer_count * sizeof(uint64_t));
        if (arrival->shared.offsets == NULL)
            return -ENOMEM;
        if (shoal_arena_retain(engine->home->arena, entry.block_offset) == 0)
            arrival->shared.offsets[arrival->shared.count++] = entry.block_offset;
    }
    block_list_sort(&arrival->shared);
    return 0;
}

/* Blocks that the worker keeps views of after the task: it holds them until it says otherwise, or dies. */
static int note_kept(struct engine *engine, unsigned index, const struct entry *entry, const uint8_t *offsets,
                     uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        uint64_t offset;
        memcpy(&offset, offsets + i * sizeof offset, sizeof offset);
        if (offset != entry->block && !block_list_has(&entry->shared, offset))
            return -EBADMSG;
        shoal_arena_hold(engine->home->arena, offset, engine->workers[index].holder);
    }
    return 0;
}

/* The entry of the ledger that the record belongs to, if this worker may answer for it now; or NULL. */
static struct entry *entry_of(struct engine *engine, unsigned index, const struct record *record)
{
    if (record->slot >= ENGINE_SLOTS)
        return NULL;
    struct entry *entry = &engine->entries[record->slot];
    enum shoal_task_state state;
    unsigned owner_index;
    uint32_t generation;
    if (shoal_taskqueue_state(engine->queue, record->slot, &state, &owner_index, &generation) < 0)
        return NULL;
    if (entry->owner == NULL || entry->generation != record->generation || generation != record->generation ||
        state != SHOAL_TASK_STARTED || owner_index != index ||
        record->item != entry->task.first_item + entry->next_item)
        return NULL;
    return entry;
}

/* Whether there are so many values in the payload is seen when they are unpacked. */
static int take_run(struct engine *engine, unsigned index, const struct record *record, const uint8_t *payload,
                    uint64_t payload_bytes)
{
    struct entry *entry = entry_of(engine, index, record);
    if (entry == NULL || ((struct owner *)entry->owner)->kind != OWNER_GROUP || record->run_items == 0 ||
        record->run_items >= entry->task.item_count - entry->next_item)
        return -EBADMSG;
    group_deliver_run((struct owner *)entry->owner, record->item, record->run_items, payload, payload_bytes);
    entry->next_item += record->run_items;
    entry->result_bytes += payload_bytes;
    meters_count(engine, &engine->workers[index], false, record->run_items);
    return 0;
}

/* Those that there is no room for in the record of the task's end; or that end, for a batch that was cancelled. */
static int take_kept(struct engine *engine, unsigned index, const struct record *record, const uint8_t *payload,
                     uint64_t payload_bytes)
{
    const struct entry *entry = entry_of(engine, index, record);
    bool dropped = record->kind == RECORD_DROPPED;
    uint64_t stream = dropped ? record->stream_bytes : 0;
    if (entry == NULL || (dropped && !entry->unwanted) || stream > payload_bytes ||
        (uint64_t)record->kept_count * 8 > payload_bytes - stream)
        return -EBADMSG;
    int error = note_kept(engine, index, entry, payload + stream, record->kept_count);
    if (error == 0 && dropped)
        entry_finish(engine, record->slot);
    return error;
}

/* What a worker that has died had noted of a run and not published. */
static int salvage_run(struct engine *engine, unsigned index)
{
    const void *bytes;
    uint64_t size;
    int error = shoal_ring_salvage(engine->workers[index].results, &bytes, &size);
    if (error == -EAGAIN)
        return 0;
    struct record record;
    if (error < 0 || size < sizeof record)
        return -EBADMSG;
    memcpy(&record, bytes, sizeof record);
    const uint8_t *values = (const uint8_t *)bytes + sizeof record, *end = (const uint8_t *)bytes + size;
    record.run_items = 0;
    for (const uint8_t *at = values; at < end && at != NULL; at = plain_skip(at, end))
        record.run_items++;
    return record.kind != RECORD_RUN ? -EBADMSG : take_run(engine, index, &record, values, size - sizeof record);
}

static int take_result(struct engine *engine, unsigned index, const struct record *record, const uint8_t *payload,
                       uint64_t payload_bytes)
{
    struct worker *worker = &engine->workers[index];
    struct entry *entry = entry_of(engine, index, record);
    if (entry == NULL)
        return -EBADMSG;
    bool last = entry->next_item + 1 == entry->task.item_count;
    uint64_t inline_bytes = record->flags & RECORD_IN_BLOCK ? 0 : record->stream_bytes;
    if (last != !!(record->flags & RECORD_FINAL) || inline_bytes > payload_bytes ||
        (uint64_t)record->kept_count * 8 > payload_bytes - inline_bytes)
        return -EBADMSG;

    bool plain = record->flags == 0 && record->buffer_count == 0 && record->block_offset == HOME_NO_BLOCK &&
                 record->adopted == HOME_NO_BLOCK && record->kept_count == 0;
    if (plain && ((struct owner *)entry->owner)->kind == OWNER_GROUP &&
        group_deliver_small((struct owner *)entry->owner, record->item,
                            record->kind == RECORD_VALUE ? ARRIVAL_VALUE : ARRIVAL_ERROR, payload, inline_bytes)) {
        entry->next_item++; /* one of many: straight into the group's log */
        entry->result_bytes += inline_bytes;
        meters_count(engine, worker, record->kind == RECORD_ERROR, 1);
        return 0;
    }
    struct arrival arrival = {
        .kind = record->kind == RECORD_VALUE ? ARRIVAL_VALUE : ARRIVAL_ERROR,
        .item = record->item,
        .buffer_count = record->buffer_count,
        .block = HOME_NO_BLOCK,
        .adopted = HOME_NO_BLOCK,
    };
    int error = 0;
    if (record->block_offset != HOME_NO_BLOCK)
        error = take_lease(engine, worker, record, &arrival);
    else if (record->flags & RECORD_IN_BLOCK)
        error = -EBADMSG;
    if (error == 0 && !(record->flags & RECORD_IN_BLOCK))
        error = copy_out(engine, &arrival, payload, record->stream_bytes);
    if (error == 0 && record->adopted != HOME_NO_BLOCK) {
        if (record->adopted != entry->block || !last)
            error = -EBADMSG;
        else {
            arrival.adopted = entry->block;
            entry->block = HOME_NO_BLOCK;
        }
    }
    if (error == 0 && record->buffer_count > 0)
        error = hold_shared(engine, index, &entry->shared, &arrival);
    if (error == 0)
        error = note_kept(engine, index, entry, payload + inline_bytes, record->kept_count);
    if (error < 0) {
        arrival_clear(engine, &arrival);
        return error;
    }
    entry->next_item++;
    entry->result_bytes += inline_bytes + arrival.block_bytes;
    meters_count(engine, worker, record->kind == RECORD_ERROR, 1);
    owner_deliver((struct owner *)entry->owner, &arrival);
    if (last)
        entry_finish(engine, record->slot);
    return 0;
}

static void setup_failed(struct engine *engine, const uint8_t *payload, uint64_t payload_bytes)
{
    struct arrival arrival = {.kind = ARRIVAL_ERROR, .block = HOME_NO_BLOCK, .adopted = HOME_NO_BLOCK};
    if (copy_out(engine, &arrival, payload, payload_bytes) < 0)
        return;
    /* Decoding runs user code: keep it for engine_bury_dead, which is outside of the drain. */
    arrival_clear(engine, &engine->setup_error);
    engine->setup_error = arrival;
    engine->deaths_pending = true;
}

static int take_record(struct engine *engine, unsigned index, const uint8_t *bytes, uint64_t size)
{
    struct worker *worker = &engine->workers[index];
    struct record record;
    if (size < sizeof record)
        return -EBADMSG;
    memcpy(&record, bytes, sizeof record);
    switch (record.kind) {
    case RECORD_VALUE:
    case RECORD_ERROR:
        return take_result(engine, index, &record, bytes + sizeof record, size - sizeof record);
    case RECORD_RUN:
        return take_run(engine, index, &record, bytes + sizeof record, size - sizeof record);
    case RECORD_KEPT:
    case RECORD_DROPPED:
        return take_kept(engine, index, &record, bytes + sizeof record, size - sizeof record);
    case RECORD_HELLO:
        worker->ready = true;
        engine_start_succeeded(engine);
        return 0;
    case RECORD_SETUP_ERROR:
        setup_failed(engine, bytes + sizeof record, size - sizeof record);
        return 0;
    case RECORD_LEASE:
        if (record.block_bytes == 0 || worker->wanted_bytes != 0)
            return -EBADMSG;
        worker->wanted_bytes = record.block_bytes;
        worker->wanted_since_ns = shoal_now_ns();
        return 0;
    case RECORD_RELEASE:
        shoal_arena_unhold(engine->home->arena, record.block_offset, engine->workers[index].holder);
        return 0;
    case RECORD_BYE:
        worker->leaving = true;
        return 0;
    case RECORD_SAID:
        return hear_record(engine, index, &record, bytes + sizeof record, size - sizeof record);
    case RECORD_SWEPT:
        worker->sweeps_done = record.block_bytes;
        return 0;
    default:
        return -EBADMSG;
    }
}

int engine_drain_worker(struct engine *engine, unsigned index)
{
    struct worker *worker = &engine->workers[index];
    const void *bytes;
    uint64_t size;
    int taken = 0;
    uint64_t freed = 0;
    while (!worker->damaged) {
        int error = shoal_ring_peek(worker->results, &bytes, &size);
        if (error == -EAGAIN)
            break;
        if (error == 0)
            error = take_record(engine, index, bytes, size);
        SHOAL_PARENT_POINT("drain: record taken", shoal_peer_signal(&worker->peer, SIGKILL));
        if (error < 0) {
            engine_kill_damaged(engine, worker);
            break;
        }
        shoal_ring_pop(worker->results);
        freed += size;
        taken++;
    }
    /* A worker that waits for room found less than half of the ring free; it may have filled it while we read, so what
     * counts is what we have read, not what there was. An idle worker sleeps on the same bell: not for less. */
    if (freed > RESULT_RING_BYTES / 4)
        shoal_taskqueue_wake_worker(engine->queue, index);
    return taken;
}

void engine_drain_dead(struct engine *engine, unsigned index)
{
    struct worker *worker = &engine->workers[index];
    engine_drain_worker(engine, index);
    if (!worker->damaged && salvage_run(engine, index) < 0)
        worker->damaged = true;
}

int engine_drain(struct engine *engine)
{
    engine->drains++;
    return engine_drain_aside(engine);
}

int engine_drain_aside(struct engine *engine)
{
    if (engine->draining || engine->dead)
        return 0;
    engine->draining = true;
    int taken = 0;
    for (unsigned i = 0; i < engine->worker_count; i++) {
        if (shoal_ring_used(engine->workers[i].results) > 0)
            taken += engine_drain_worker(engine, i);
    }
    if (taken > 0 && engine->tracing)
        trace_drain(engine, false); /* before there are new tasks: what all slots hold fits in half of a ring */
    if (taken > 0 || engine->leases_wanted)
        engine_grant_leases(engine);
    if (taken > 0 && engine->backlog != NULL)
        engine_feed(engine);
    engine->draining = false;
    engine->takes += taken > 0;
    if (taken > 0)
        meters_drained(engine);
    if (taken > 0 && engine->someone_drains)
        engine_news(engine); /* another thread sleeps, maybe for what we have just read */
    return taken;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * submit.c - from a call to a published task.
 *
 * The stream is written after the tail of the task ring, without a lock: `tasks.busy` marks that somebody does.
 * Pickling runs user code, which may submit to the same pool or let another thread run that does; such a nested or
 * concurrent submission writes to the heap instead. Publishing moves the tail and then makes the slot READY, so an
 * error on the way leaves nothing behind.
 *
 * A task that finds no free slot waits in the backlog, its stream on the heap; order is kept. Records of the task ring
 * are given back in order: that of a call once a worker has started it (it has read its stream by then), that of a
 * batch when it is finished, because it may have to be continued by another worker.
 */
#include "engine.h"

#include "lost.h"

#include <errno.h>
#include <string.h>

void block_list_release(struct engine *engine, struct block_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        shoal_arena_release(engine->home->arena, list->offsets[i]);
    PyMem_RawFree(list->offsets);
    list->offsets = NULL;
    list->count = 0;
}

/* What the message refers to must stay until the task is finished. */
static int block_list_from(struct engine *engine, const struct outgoing *out, struct block_list *ret_list)
{
    ret_list->offsets = NULL;
    ret_list->count = 0;
    size_t shared = 0;
    for (size_t i = 0; i < out->taken_count; i++)
        shared += out->taken[i].kind == BUFFER_SHARED;
    if (shared == 0)
        return 0;
    ret_list->offsets = PyMem_RawMalloc(shared * sizeof *ret_list->offsets);
    if (ret_list->offsets == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i < out->taken_count; i++) {
        if (out->taken[i].kind != BUFFER_SHARED)
            continue;
        if (shoal_arena_retain(engine->home->arena, out->taken[i].block->offset) == 0)
            ret_list->offsets[ret_list->count++] = out->taken[i].block->offset;
    }
    block_list_sort(ret_list);
    return 0;
}

static void drop_stream(struct engine *engine, struct pending *pending)
{
    if (pending->stream != NULL)
        engine->home->backlog_bytes -= sizeof *pending + pending->stream_bytes;
    PyMem_RawFree(pending->stream);
}

void pending_free(struct engine *engine, struct pending *pending)
{
    drop_stream(engine, pending);
    if (pending->block != HOME_NO_BLOCK)
        shoal_arena_release(engine->home->arena, pending->block);
    block_list_release(engine, &pending->shared);
    PyMem_RawFree(pending);
}

/* ---- the task ring ---- */

static bool ring_record_needed(struct engine *engine, const struct ring_record *record)
{
    const struct entry *entry = &engine->entries[record->slot];
    if (entry->owner == NULL || entry->generation != record->generation)
        return false;
    if (entry->task.flags & TASK_BATCH)
        return true;
    enum shoal_task_state state;
    unsigned worker;
    uint32_t generation;
    if (shoal_taskqueue_state(engine->queue, record->slot, &state, &worker, &generation) < 0)
        return true;
    return generation == record->generation && state != SHOAL_TASK_STARTED;
}

void engine_reclaim_ring(struct engine *engine)
{
    struct task_ring *ring = &engine->tasks;
    while (ring->count > 0 && !ring_record_needed(engine, &ring->records[ring->first])) {
        const struct ring_record *record = &ring->records[ring->first];
        const struct entry *entry = &engine->entries[record->slot];
        if (entry->owner != NULL && entry->generation == record->generation)
            lost_keep(engine, record->slot);
        ring->head = ring->records[ring->first].end;
        ring->first = (ring->first + 1) % (2 * ENGINE_SLOTS);
        ring->count--;
    }
}

/* Free bytes after the tail; 0 if no record can be noted. */
static uint64_t ring_room(struct engine *engine)
{
    struct task_ring *ring = &engine->tasks;
    uint64_t room = TASK_RING_BYTES - (ring->tail - ring->head);
    if (room < TASK_RING_BYTES / 2 || ring->count >= ENGINE_SLOTS) {
        engine_reclaim_ring(engine);
        room = TASK_RING_BYTES - (ring->tail - ring->head);
    }
    return ring->count >= 2 * ENGINE_SLOTS ? 0 : room;
}

static uint8_t *ring_tail(struct engine *engine)
{
    return engine->tasks.base + engine->tasks.tail % TASK_RING_BYTES;
}

static void ring_publish(struct engine *engine, uint32_t slot, uint32_t generation, uint64_t bytes)
{
    struct task_ring *ring = &engine->tasks;
    ring->tail += (bytes + 7) & ~UINT64_C(7);
    ring->records[(ring->first + ring->count) % (2 * ENGINE_SLOTS)] =
        (struct ring_record){.slot = slot, .generation = generation, .end = ring->tail};
    ring->count++;
}

/* ---- publishing ---- */

/* The stream lies in a block already, or after the ring's tail (in_ring). Takes the pending's blocks and owner over. */
static void publish(struct engine *engine, uint32_t slot, struct pending *pending, bool in_ring)
{
    struct entry *entry = &engine->entries[slot];
    const struct owner *owner = (struct owner *)pending->owner;
    entry->task = (struct shoal_task){
        .stream_offset = in_ring ? engine->tasks.tail : pending->stream_offset,
        .stream_bytes = pending->stream_bytes,
        .block_offset = pending->block,
        .tag = pending->buffer_count,
        .flags = pending->flags | (in_ring ? TASK_IN_RING : 0) | (owner->timeout_ns > 0 ? TASK_LIMITED : 0) |
                 (owner->aborts ? TASK_ABORTS : 0),
        .first_item = pending->first_item,
        .item_count = pending->item_count,
    };
    entry->owner = pending->owner;
    entry->block = pending->block;
    entry->shared = pending->shared;
    entry->next_item = 0;
    entry->result_bytes = 0;
    entry->claims = 0;
    entry->unwanted = owner->unwanted;
    entry->life = entry->outcome = 0;
    entry->kill_ns = 0;
    uint64_t written = engine->tracing ? trace_ticks(engine) : 0; /* it may be done before we go on */
    shoal_taskqueue_publish(engine->queue, slot, &entry->task, &entry->generation);
    if (in_ring)
        ring_publish(engine, slot, entry->generation, pending->stream_bytes);
    engine->in_flight++;
    if (engine->tracing)
        trace_published(engine, entry, slot, pending->submitted, written);
    if (owner->timeout_ns > 0 || owner->unwanted)
        limits_note(engine, owner);
    item_set_slot((struct owner *)entry->owner, slot, entry->generation);
}

/* Give a pending stream a place that workers can read. 1 ring, 0 block, -1 none now. */
static int place_stream(struct engine *engine, struct pending *pending)
{
    if (pending->stream == NULL)
        return 0;
    if (!engine->tasks.busy && pending->stream_bytes <= STREAM_IN_RING_MAX &&
        ring_room(engine) >= pending->stream_bytes + 8) {
        memcpy(ring_tail(engine), pending->stream, pending->stream_bytes);
        return 1;
    }
    uint64_t block;
    if (pending->block != HOME_NO_BLOCK || shoal_arena_alloc(engine->home->arena, pending->stream_bytes, &block) < 0)
        return -1; /* a task with a block of its own waits for the ring: what is in flight frees it */
    memcpy(shoal_region_at(engine->home->region, block, pending->stream_bytes), pending->stream, pending->stream_bytes);
    pending->block = block;
    pending->stream_offset = block;
    return 0;
}

void engine_feed(struct engine *engine)
{
    uint32_t published = 0;
    while (engine->backlog != NULL) {
        int slot = shoal_taskqueue_acquire(engine->queue);
        if (slot < 0)
            break;
        struct pending *pending = engine->backlog;
        int in_ring = place_stream(engine, pending);
        if (in_ring < 0) {
            shoal_taskqueue_unacquire(engine->queue, (uint32_t)slot);
            break;
        }
        engine->backlog = pending->next;
        if (engine->backlog == NULL)
            engine->backlog_end = &engine->backlog;
        engine->backlog_count--;
        publish(engine, (uint32_t)slot, pending, in_ring == 1);
        drop_stream(engine, pending);
        PyMem_RawFree(pending);
        published++;
    }
    if (published > 0) {
        shoal_taskqueue_owner_here(engine->queue);
        shoal_taskqueue_wake(engine->queue);
    }
}

static int queue_pending(struct engine *engine, const struct pending *ready, uint8_t *stream)
{
    struct pending *pending = PyMem_RawMalloc(sizeof *pending);
    if (pending == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    *pending = *ready;
    pending->stream = stream;
    if (stream != NULL)
        engine->home->backlog_bytes += sizeof *pending + pending->stream_bytes;
    pending->next = NULL;
    *engine->backlog_end = pending;
    engine->backlog_end = &pending->next;
    engine->backlog_count++;
    return 0;
}

struct submission {
    struct engine *engine;
    struct outgoing out;
    struct shoal_encoder *encoder;
    bool own_encoder, ring_held, may_wait;
};

/* A block for the message; if the budget is reached, wait for tasks in flight to give memory back. 1: may not wait. */
static int allocate(struct submission *submission, uint64_t stream_bytes, uint64_t *ret_bytes, uint64_t *ret_offset)
{
    struct engine *engine = submission->engine;
    struct outgoing *out = &submission->out;
    uint64_t bytes = outgoing_block_bytes(out, stream_bytes);
    int error = shoal_arena_alloc(engine->home->arena, bytes, ret_offset);
    if (error < 0 && !submission->may_wait && memory_may_come(error))
        return 1;
    if (error < 0) {
        if (submission->ring_held) { /* others may need the ring while we wait */
            if (outgoing_in_ring(out) && out->sink.grow(&out->sink, 0) < 0)
                return -1;
            engine->tasks.busy = submission->ring_held = false;
            bytes = outgoing_block_bytes(out, stream_bytes);
        }
        if (memory_await_block(engine, bytes, ret_offset) < 0)
            return -1;
    }
    *ret_bytes = bytes;
    progress_tend(engine, bytes);
    return 0;
}

/* ---- one submission ---- */

static int submission_begin(struct submission *submission, struct engine *engine, bool may_wait)
{
    submission->engine = engine;
    submission->may_wait = may_wait;
    submission->own_encoder = engine->encoder_busy;
    submission->encoder = engine->encoder_busy ? shoal_encoder_new(engine->state->pickle) : engine->encoder;
    if (submission->encoder == NULL)
        return -1;
    engine->encoder_busy = true;
    engine->submitting++;
    uint64_t room = 0;
    submission->ring_held = !engine->tasks.busy && engine->backlog == NULL;
    if (submission->ring_held) {
        engine->tasks.busy = true;
        room = ring_room(engine);
        if (room > STREAM_IN_RING_MAX)
            room = STREAM_IN_RING_MAX;
    }
    outgoing_begin(&submission->out, engine->state, engine->home, room >= 64 ? ring_tail(engine) : NULL,
                   room & ~UINT64_C(7));
    submission->out.inheritance = engine_inheritance(engine);
    return 0;
}

static void submission_end(struct submission *submission)
{
    outgoing_clear(&submission->out);
    if (submission->ring_held)
        submission->engine->tasks.busy = false;
    if (submission->own_encoder)
        shoal_encoder_free(submission->encoder);
    else
        submission->engine->encoder_busy = false;
    struct engine *engine = submission->engine;
    engine->submitting--;
    if (engine->unmap_later && engine->submitting == 0)
        engine_unmap(engine);
    else if (engine->backlog != NULL && !engine->dead)
        engine_feed(engine); /* what could not use the ring while we did */
}

/* Into the backlog, with its stream: in `heap` (stolen), in the ring, or (NULL, not in the ring) in its block. */
static int put_off(struct submission *submission, struct pending *ready, uint8_t *heap)
{
    bool in_ring = heap == NULL && outgoing_in_ring(&submission->out);
    if (in_ring) {
        heap = PyMem_RawMalloc(ready->stream_bytes);
        if (heap != NULL)
            memcpy(heap, submission->out.sink.start, ready->stream_bytes);
    } else if (heap != NULL) { /* it was made with room to grow; there may be many that wait */
        uint8_t *cut = PyMem_RawRealloc(heap, ready->stream_bytes);
        heap = cut != NULL ? cut : heap;
    }
    if ((in_ring && heap == NULL) || queue_pending(submission->engine, ready, heap) < 0) {
        PyMem_RawFree(heap);
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

/* Publish what was written, or put it into the backlog. Takes a reference to owner. */
static int submission_publish(struct submission *submission, struct owner *owner, struct pending *ready)
{
    struct engine *engine = submission->engine;
    struct outgoing *out = &submission->out;
    int64_t stream_bytes = outgoing_seal(out);
    if (stream_bytes < 0)
        return -1;
    ready->stream_bytes = (uint64_t)stream_bytes;
    ready->buffer_count = (uint32_t)out->taken_count;
    ready->block = HOME_NO_BLOCK;
    uint64_t block_bytes = 0;
    /* the backlog keeps it on the heap */
    bool small = !outgoing_in_ring(out) && ready->stream_bytes <= STREAM_IN_RING_MAX;
    if (outgoing_block_bytes(out, ready->stream_bytes) - (small ? ready->stream_bytes : 0) > BUFFER_ALIGN) {
        int error = allocate(submission, ready->stream_bytes, &block_bytes, &ready->block);
        if (error != 0)
            return error;
        small = false;
    }
    if (engine_check(engine) < 0 || block_list_from(engine, out, &ready->shared) < 0)
        goto fail;
    uint8_t *block = NULL;
    if (ready->block != HOME_NO_BLOCK)
        block = shoal_region_at(engine->home->region, ready->block, block_bytes);
    out->far = block != NULL && shoal_taskqueue_taker_elsewhere(engine->queue);
    uint8_t *heap = NULL;
    if (small) { /* no block: the table goes to the end of the stream, the stream stays where it is */
        heap = out->heap;
        out->heap = NULL;
    }
    outgoing_write(out, block, ready->block, ready->stream_bytes, &ready->stream_offset);
    if (engine_check(engine) < 0) { /* another thread ended the pool while we copied */
        PyMem_RawFree(heap);
        goto fail;
    }
    bool in_ring = !small && outgoing_in_ring(out);
    int slot = engine->backlog == NULL && !small ? shoal_taskqueue_acquire(engine->queue) : -EAGAIN;
    ready->owner = Py_NewRef((PyObject *)owner);
    if (slot >= 0) {
        publish(engine, (uint32_t)slot, ready, in_ring);
        shoal_taskqueue_owner_here(engine->queue);
        shoal_taskqueue_wake(engine->queue);
        return 0;
    }
    if (put_off(submission, ready, heap) < 0) {
        Py_DECREF(ready->owner);
        goto fail;
    }
    if (submission->ring_held)
        engine->tasks.busy = submission->ring_held = false;
    engine_feed(engine);
    return 0;
fail:
    block_list_release(engine, &ready->shared);
    if (ready->block != HOME_NO_BLOCK)
        shoal_arena_release(engine->home->arena, ready->block);
    return -1;
}

int engine_submit_call(struct engine *engine, struct owner *owner, PyObject *function, PyObject *args,
                       PyObject *kwargs)
{
    if (engine_check(engine) < 0 || memory_await_room(engine, true) < 0)
        return -1;
    struct submission submission;
    if (submission_begin(&submission, engine, true) < 0)
        return -1;
    struct pending ready = {.item_count = 1, .submitted = engine->tracing ? trace_ticks(engine) : 0};
    int error = outgoing_call(&submission.out, submission.encoder, function, args, kwargs);
    ready.flags = error > 0 ? TASK_APART : 0;
    if (error >= 0)
        error = submission_publish(&submission, owner, &ready);
    submission_end(&submission);
    if (error == 0)
        engine->submitted++;
    meters_submitted(engine);
    return error;
}

int engine_submit_batch(struct engine *engine, struct owner *owner, const struct batch *batch, bool may_wait,
                        uint64_t function_max)
{
    int error = engine_check(engine) < 0 ? -1 : memory_await_room(engine, may_wait);
    if (error != 0)
        return error;
    struct submission submission;
    if (submission_begin(&submission, engine, may_wait) < 0)
        return -1;
    struct pending ready = {
        .flags = TASK_BATCH | (batch->star ? TASK_STAR : 0) | (batch->common != NULL ? TASK_COMMON : 0),
        .item_count = batch->count, .first_item = batch->first_item,
        .submitted = engine->tracing ? trace_ticks(engine) : 0};
    error = outgoing_section(&submission.out, submission.encoder, &batch->function, 1) < 0 ? -1 : 0;
    engine->function_failed = error < 0;
    if (error == 0 && outgoing_block_bytes(&submission.out, 0) + shoal_sink_used(&submission.out.sink) >= function_max)
        error = BATCH_TOO_LARGE;
    if (error == 0 && batch->common != NULL)
        error = outgoing_section(&submission.out, submission.encoder, &batch->common, 1) < 0 ? -1 : 0;
    submission.out.root = "element";
    for (uint32_t i = 0; i < batch->count && error == 0;) {
        submission.out.root_index = batch->first_item + i;
        int64_t held = outgoing_section(&submission.out, submission.encoder, batch->items + i, batch->count - i);
        error = held < 0 ? -1 : 0;
        i += held < 0 ? 0 : (uint32_t)held;
    }
    if (error == 0)
        error = submission_publish(&submission, owner, &ready);
    submission_end(&submission);
    if (error == 0)
        engine->submitted += batch->count;
    meters_submitted(engine);
    return error;
}

void entry_finish(struct engine *engine, uint32_t slot)
{
    struct entry *entry = &engine->entries[slot];
    if (entry->life > 0)
        trace_finished(engine, entry);
    shoal_taskqueue_finish(engine->queue, slot);
    if (entry->block != HOME_NO_BLOCK)
        shoal_arena_release(engine->home->arena, entry->block);
    block_list_release(engine, &entry->shared);
    engine_discard_later(engine, entry->owner);
    engine_discard_later(engine, entry->stop_error);
    entry->owner = entry->stop_error = NULL;
    if (entry->kept != NULL) {
        PyMem_RawFree(entry->kept);
        entry->kept = NULL;
    }
    engine->in_flight--;
    memory_task_took(engine, entry->result_bytes);
}

int engine_revoke(struct engine *engine, struct owner *owner)
{
    for (struct pending **link = &engine->backlog; *link != NULL && item_slot(owner) < 0; link = &(*link)->next) {
        struct pending *pending = *link;
        if (pending->owner != (PyObject *)owner)
            continue;
        *link = pending->next;
        if (*link == NULL)
            engine->backlog_end = link;
        engine->backlog_count--;
        engine_discard_later(engine, pending->owner);
        pending_free(engine, pending);
        return 1;
    }
    uint32_t first = 0, end = ENGINE_SLOTS;
    int64_t known = item_slot(owner);
    if (known >= 0) { /* an item knows its slot; a group may have many */
        first = (uint32_t)known;
        end = first + 1;
    }
    for (uint32_t slot = first; slot < end; slot++) {
        if (engine->entries[slot].owner == (PyObject *)owner && shoal_taskqueue_revoke(engine->queue, slot) == 0) {
            engine->entries[slot].outcome = TRACE_TAKEN_BACK;
            entry_finish(engine, slot);
            return 1;
        }
    }
    return 0;
}

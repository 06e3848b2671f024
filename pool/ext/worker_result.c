/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * worker_result.c - how a worker answers.
 *
 * The result is pickled straight into the worker's ring, behind a struct record; publishing it is the commit. Large
 * buffers go into a block that the parent leases to us, except those that lie in the task's own block and nowhere else
 * any more: that block goes back whole. So the order is: pickle; drop result and arguments; see which blocks user code
 * still holds; copy; commit.
 *
 * In the middle of a batch, plain results (plain.h) that follow each other make a run: one record, published when it is
 * long enough or something else comes. Each of them counts from the moment it is noted (shoal_ring_note): if we die,
 * the parent takes what was noted. What is at the batch's end is sent by itself: there the task's blocks are settled.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <shoal/killpoint.h>

#include "say.h"
#include "worker.h"

#define RESULT_IN_RING_MAX (RESULT_RING_BYTES / 4)
#define KEPT_IN_RECORD_MAX 1024u
/* engine_drain_worker rings when it has freed a quarter: who waits for more than the rest would not hear of less. */
_Static_assert(sizeof(struct record) + RESULT_IN_RING_MAX + KEPT_IN_RECORD_MAX * sizeof(uint64_t) +
                   2 * PLAIN_BYTES_MAX < RESULT_RING_BYTES / 4 * 3,
               "whatever a worker waits for");
#define RUN_BYTES_MAX (RESULT_RING_BYTES / 16) /* the parent unpacks one while we write the next */

/* ---- room in the ring ---- */

struct room_wait {
    struct worker_side *side;
    uint64_t want;
};

static bool room_there(void *arg)
{
    struct room_wait *wait = arg;
    void *place;
    uint64_t room;
    return shoal_ring_reserve(wait->side->own->results, wait->want, &place, &room) != -EAGAIN;
}

static uint8_t *ring_reserve(struct engine *engine, uint64_t want, uint64_t *ret_room)
{
    struct room_wait wait = {.side = engine->side, .want = want};
    void *place;
    int error;
    while ((error = shoal_ring_reserve(engine->side->own->results, want, &place, ret_room)) == -EAGAIN)
        worker_wait_for_parent(engine, room_there, &wait);
    if (error < 0)
        _exit(1); /* more than the ring can ever hold, or its positions are damaged; the parent says so */
    return place;
}

/* Publish what lies at the tail. Whom to wake: SHOAL_URGENT one who waits, SHOAL_LAZY also one who sleeps lazily,
 * SHOAL_AWAKE nobody; a ring that is half full (room: what was free, as far as we know) wakes anybody. */
static void ring_publish(struct engine *engine, uint64_t bytes, uint64_t room, enum shoal_urgency whom)
{
    struct shoal_ring *ring = engine->side->own->results;
    shoal_ring_commit(ring, bytes);
    if (room < RESULT_RING_BYTES / 2)
        whom = SHOAL_LAZY;
    if (whom != SHOAL_AWAKE)
        shoal_doorbell_ring(shoal_taskqueue_owner_bell(engine->queue), whom);
}

void result_send_plain(struct engine *engine, const struct record *record)
{
    uint64_t room;
    memcpy(ring_reserve(engine, sizeof *record, &room), record, sizeof *record);
    ring_publish(engine, sizeof *record, room, SHOAL_LAZY);
}

void result_flush_releases(struct engine *engine)
{
    struct worker_side *side = engine->side;
    while (side->release_count > 0) {
        struct record record = {.kind = RECORD_RELEASE, .block_offset = side->releases[--side->release_count],
                                .adopted = HOME_NO_BLOCK};
        uint64_t room;
        SHOAL_KILL_POINT("release: to be said");
        memcpy(ring_reserve(engine, sizeof record, &room), &record, sizeof record);
        shoal_ring_commit(side->own->results, sizeof record);
    }
}

/* ---- memory ---- */

static bool lease_answered(void *arg)
{
    struct worker_side *side = arg;
    return shoal_ring_used(side->own->orders) > 0;
}

/* Make sure that our lease has room for `bytes`. -1 with MemoryError if the parent has none. */
static int lease(struct engine *engine, uint64_t bytes)
{
    struct worker_side *side = engine->side;
    if (side->lease_there && side->lease_bytes >= bytes)
        return 0;
    struct record record = {.kind = RECORD_LEASE, .block_bytes = bytes, .block_offset = HOME_NO_BLOCK,
                            .adopted = HOME_NO_BLOCK};
    side->lease_there = false;
    side->lease_waiting = true;
    result_send_plain(engine, &record);
    SHOAL_KILL_POINT("lease: asked for");
    while (side->lease_waiting && !side->stop) {
        worker_wait_for_parent(engine, lease_answered, side);
        worker_read_orders(engine);
    }
    if (side->lease_there)
        return 0;
    if (side->lease_error == -E2BIG || side->lease_error == -EDQUOT)
        PyErr_Format(PyExc_MemoryError,
                     "the result needs %llu bytes of shared memory, the arena's budget is %llu: return less at a time, "
                     "or raise SHOAL_ARENA_LIMIT",
                     (unsigned long long)bytes, (unsigned long long)side->lease_limit);
    else
        raise_error(side->lease_error ? side->lease_error : -ENOMEM, "no shared memory for the result");
    return -1;
}

/* ---- one result ---- */

/*
 * Buffers in the task's own block go back with it if nobody else here refers to it, and if they are most of it.
 * Returns the block, or none.
 */
static uint64_t settle_adoption(struct engine *engine, struct outgoing *out)
{
    struct block *own = engine->side->own_block;
    Py_ssize_t ours = 1; /* side->blocks */
    uint64_t bytes = 0;
    for (size_t i = 0; i < out->taken_count; i++) {
        if (out->taken[i].kind != BUFFER_ADOPTED)
            continue;
        ours++;
        bytes += out->taken[i].size_bytes;
    }
    if (ours == 1)
        return HOME_NO_BLOCK;
    bool alone = Py_REFCNT(own) == ours && bytes >= own->size_bytes / 2;
    for (size_t i = 0; i < out->taken_count; i++) {
        struct taken *taken = &out->taken[i];
        if (taken->kind != BUFFER_ADOPTED || alone)
            continue;
        taken->kind = BUFFER_IN_MESSAGE;
        taken->view.buf = own->address + (taken->offset - own->offset);
    }
    return alone ? own->offset : HOME_NO_BLOCK;
}

static void drop_shared(struct outgoing *out)
{
    for (size_t i = 0; i < out->taken_count; i++)
        Py_CLEAR(out->taken[i].block);
}

/* Memory that there is no way to do without: the parent says that this worker was lost. */
static void *allocate(uint64_t bytes)
{
    void *memory = PyMem_RawMalloc(bytes);
    if (memory == NULL)
        _exit(1);
    return memory;
}

static void count_bytes(struct meter *meter, const struct outgoing *out, uint64_t stream_bytes)
{
    meter->word[METER_BYTES_OUT] += stream_bytes;
    for (size_t i = 0; i < out->taken_count; i++) {
        meter->word[METER_BYTES_OUT] += out->taken[i].size_bytes;
        meter->word[METER_SAVED] += out->taken[i].kind == BUFFER_IN_MESSAGE ? 0 : out->taken[i].size_bytes;
    }
}

/*
 * A task may have been given more blocks than a record, or the ring, has room for. Then those that are still held are
 * told in records of their own before the result. Its stream, which lies after the tail, makes way meanwhile.
 */
static void send_kept_before(struct engine *engine, struct record *result, const uint64_t *kept, uint8_t *stream,
                             uint64_t stream_bytes)
{
    uint8_t *aside = allocate(stream_bytes);
    memcpy(aside, stream, stream_bytes);
    for (uint32_t at = 0; at < result->kept_count; at += KEPT_IN_RECORD_MAX) {
        uint32_t left = result->kept_count - at;
        struct record record = *result;
        record.kind = RECORD_KEPT;
        record.kept_count = left < KEPT_IN_RECORD_MAX ? left : KEPT_IN_RECORD_MAX;
        uint64_t bytes = record.kept_count * sizeof *kept, room;
        uint8_t *place = ring_reserve(engine, sizeof record + bytes, &room);
        memcpy(place, &record, sizeof record);
        memcpy(place + sizeof record, kept + at, bytes);
        SHOAL_KILL_POINT("kept: to be published");
        ring_publish(engine, sizeof record + bytes, room, SHOAL_AWAKE);
    }
    result->kept_count = 0;
    uint64_t room;
    memcpy(ring_reserve(engine, sizeof *result + stream_bytes, &room) + sizeof *result, aside, stream_bytes);
    PyMem_RawFree(aside);
}

static void send(struct engine *engine, struct outgoing *out, struct record *record, bool last, uint64_t stream_bytes,
                 uint8_t *block, uint64_t block_bytes)
{
    struct worker_side *side = engine->side;
    out->far = block != NULL && shoal_taskqueue_owner_elsewhere(engine->queue);
    outgoing_write(out, block, side->lease, stream_bytes, &record->stream_offset);
    SHOAL_KILL_POINT("result: written");
    count_bytes(&side->meter, out, stream_bytes);
    drop_shared(out);
    record->stream_bytes = stream_bytes;
    record->buffer_count = (uint32_t)out->taken_count;
    if (block != NULL) {
        record->block_offset = side->lease;
        record->block_bytes = block_bytes;
        side->lease_there = false;
        result_lock(engine, side->lease, (side->lease_bytes + 4095) & ~UINT64_C(4095));
    }
    uint64_t inline_bytes = stream_bytes;
    if (!outgoing_in_ring(out)) {
        record->flags |= RECORD_IN_BLOCK;
        inline_bytes = 0;
    }
    uint64_t few[32], *kept = few, kept_offset = sizeof *record + inline_bytes, room;
    if (last) {
        if (side->block_count > sizeof few / sizeof few[0])
            kept = allocate(side->block_count * sizeof *kept);
        record->kept_count = input_end(engine, record->adopted, kept);
        if (record->kept_count > KEPT_IN_RECORD_MAX)
            send_kept_before(engine, record, kept, out->sink.start, inline_bytes);
    }
    uint64_t kept_bytes = record->kept_count * sizeof *kept;
    uint8_t *place = ring_reserve(engine, kept_offset + kept_bytes, &room);
    memcpy(place + kept_offset, kept, kept_bytes);
    if (kept != few)
        PyMem_RawFree(kept);
    memcpy(place, record, sizeof *record);
    if (last || side->limited)
        stop_settle(engine);
    if (last)
        shoal_taskqueue_returning(engine->queue, side->index);
    if (last && side->trace.on)
        trace_handed_in(engine, record->kind == RECORD_ERROR);
    bool urgent = record->kind == RECORD_ERROR && (side->task.flags & TASK_ABORTS);
    ring_publish(engine, kept_offset + kept_bytes, room, urgent ? SHOAL_LAZY : last ? SHOAL_URGENT : SHOAL_AWAKE);
}

/* ---- a run of results: plain values in the middle of a batch, one record ---- */

static void run_begin(struct engine *engine, uint32_t item)
{
    struct worker_side *side = engine->side;
    struct result_run *run = &side->run;
    struct record record = {
        .kind = RECORD_RUN,
        .slot = side->claim.slot,
        .generation = side->claim.generation,
        .item = item,
        .block_offset = HOME_NO_BLOCK,
        .adopted = HOME_NO_BLOCK,
    };
    run->record = ring_reserve(engine, sizeof record + PLAIN_BYTES_MAX, &run->room);
    memcpy(run->record, &record, sizeof record);
    run->cursor = run->record + sizeof record;
    run->limit = run->record + (run->room < RUN_BYTES_MAX ? run->room : RUN_BYTES_MAX) - PLAIN_BYTES_MAX;
}

void result_end_run(struct engine *engine)
{
    struct result_run *run = &engine->side->run;
    if (run->count > 0) {
        ((struct record *)(void *)run->record)->run_items = run->count;
        SHOAL_KILL_POINT("run: to be published");
        engine->side->meter.word[METER_BYTES_OUT] += (uint64_t)(run->cursor - run->record) - sizeof(struct record);
        ring_publish(engine, (uint64_t)(run->cursor - run->record), run->room, SHOAL_AWAKE);
    }
    run->record = NULL;
    run->count = 0;
}

bool result_add(struct engine *engine, uint32_t item, PyObject *object)
{
    struct result_run *run = &engine->side->run;
    if (run->record == NULL)
        run_begin(engine, item);
    uint8_t *end = plain_write(run->cursor, object);
    if (end == NULL)
        return false;
    run->cursor = end;
    run->count++;
    SHOAL_KILL_POINT("run: written");
    if (engine->side->limited)
        stop_settle(engine);
    shoal_ring_note(engine->side->own->results, (uint64_t)(end - run->record));
    if (end > run->limit)
        result_end_run(engine);
    return true;
}

/* Bytes of its stream, or -1. Pickling runs user code, which may bring us here again: then with another encoder. */
static int64_t encode_result(struct worker_side *side, struct outgoing *out, PyObject *object)
{
    bool own = side->encoder_busy;
    struct shoal_encoder *encoder = own ? shoal_encoder_new(out->state->pickle) : side->encoder;
    side->encoder_busy = true;
    int error = encoder == NULL || outgoing_section(out, encoder, &object, 1) < 0 ? -1 : 0;
    if (own)
        shoal_encoder_free(encoder);
    else
        side->encoder_busy = false;
    return error == 0 ? outgoing_seal(out) : -1;
}

static int send_result(struct engine *engine, enum record_kind kind, uint32_t item, bool last, PyObject *object,
                PyObject *arguments)
{
    struct worker_side *side = engine->side;
    uint64_t room;
    uint8_t *place = ring_reserve(engine, sizeof(struct record) + 256, &room);
    if (room > RESULT_IN_RING_MAX)
        room = RESULT_IN_RING_MAX;
    uint64_t kept_max = side->block_count < KEPT_IN_RECORD_MAX ? side->block_count : KEPT_IN_RECORD_MAX;
    uint64_t reserve = sizeof(struct record) + kept_max * sizeof(uint64_t);
    struct outgoing out;
    bool fits = room > reserve + 64;
    outgoing_begin(&out, engine->state, engine->home, fits ? place + sizeof(struct record) : NULL,
                   fits ? (room - reserve) & ~UINT64_C(7) : 0);
    out.root = "result";
    out.inheritance = engine_inheritance(engine);
    out.own_block = last && side->task.item_count == 1 ? side->own_block : NULL;
    int64_t stream_bytes = encode_result(side, &out, object);
    PyObject *type = NULL, *value = NULL, *traceback = NULL;
    if (stream_bytes < 0)
        PyErr_Fetch(&type, &value, &traceback);
    Py_DECREF(object);
    Py_XDECREF(arguments);
    if (stream_bytes < 0) {
        PyErr_Restore(type, value, traceback);
        outgoing_clear(&out);
        return -1;
    }
    struct record record = {
        .kind = (uint32_t)kind,
        .flags = last ? RECORD_FINAL : 0,
        .slot = side->claim.slot,
        .generation = side->claim.generation,
        .item = item,
        .block_offset = HOME_NO_BLOCK,
        .adopted = settle_adoption(engine, &out),
    };
    uint64_t block_bytes = outgoing_block_bytes(&out, (uint64_t)stream_bytes);
    uint8_t *block = NULL;
    int error = 0;
    if (block_bytes > 0) {
        if (outgoing_in_ring(&out) && !(side->lease_there && side->lease_bytes >= block_bytes)) {
            /* asking for memory is a record as well, and would be written over ours */
            error = out.sink.grow(&out.sink, 0);
            block_bytes = outgoing_block_bytes(&out, (uint64_t)stream_bytes);
        }
        if (error < 0 || lease(engine, block_bytes) < 0) {
            outgoing_clear(&out);
            return -1;
        }
        block = shoal_region_at(engine->home->region, side->lease, side->lease_bytes);
    }
    send(engine, &out, &record, last, (uint64_t)stream_bytes, block, block_bytes);
    outgoing_clear(&out);
    return 0;
}

/*
 * Changing the protection of a block takes 16 us for each MiB of small pages, and the parent need not wait for that. No
 * Python code runs here between the record and the change, as we have the GIL.
 */
void result_lock(struct engine *engine, uint64_t offset, uint64_t bytes)
{
    struct worker_side *side = engine->side;
    if (side->lock_later && side->unlocked_count < UNLOCKED_MAX)
        side->unlocked[side->unlocked_count++] = (struct lease_pages){.offset = offset, .bytes = bytes};
    else
        shoal_region_protect(engine->home->region, offset, bytes, false);
}

static void lock_now(struct engine *engine)
{
    struct worker_side *side = engine->side;
    while (side->unlocked_count > 0) {
        struct lease_pages *pages = &side->unlocked[--side->unlocked_count];
        shoal_region_protect(engine->home->region, pages->offset, pages->bytes, false);
    }
}

int result_send(struct engine *engine, enum record_kind kind, uint32_t item, bool last, PyObject *object,
                PyObject *arguments)
{
    struct worker_side *side = engine->side;
    bool before = side->ring_busy, later = side->lock_later;
    result_end_run(engine);
    side->ring_busy = side->lock_later = true;
    int error = send_result(engine, kind, item, last, object, arguments);
    side->ring_busy = before;
    side->lock_later = later;
    if (!later)
        lock_now(engine);
    if (side->unsaid != NULL)
        say_flush(engine);
    return error;
}

void result_send_error(struct engine *engine, uint32_t item, bool last, const char *stage, PyObject *arguments)
{
    engine->side->exposed = false;
    if (engine->side->raised)
        stage = "stopped";
    PyObject *exception = owner_fetch_exception();
    PyObject *packed = PyObject_CallFunction(engine->side->encode_error, "OsO", exception, stage, engine);
    if (packed == NULL) {
        PyErr_Clear();
        packed = PyUnicode_FromFormat("%s, and describing it failed", Py_TYPE(exception)->tp_name);
    }
    Py_DECREF(exception);
    if (packed == NULL || result_send(engine, RECORD_ERROR, item, last, packed, arguments) < 0) {
        PyErr_Print();
        _exit(1); /* no memory to say so; the parent says that this worker was lost */
    }
}

void result_send_setup_error(struct engine *engine)
{
    struct worker_side *side = engine->side;
    PyObject *exception = owner_fetch_exception();
    PyObject *packed = PyObject_CallFunction(side->encode_error, "OsO", exception, "initializer", engine);
    Py_DECREF(exception);
    struct outgoing out;
    outgoing_begin(&out, engine->state, engine->home, NULL, 0);
    if (packed == NULL || outgoing_section(&out, side->encoder, &packed, 1) < 0 || out.taken_count > 0) {
        PyErr_Print();
        _exit(1);
    }
    Py_DECREF(packed);
    size_t bytes = shoal_sink_used(&out.sink);
    if (bytes > RESULT_IN_RING_MAX)
        _exit(1);
    struct record record = {.kind = RECORD_SETUP_ERROR, .stream_bytes = bytes, .block_offset = HOME_NO_BLOCK,
                            .adopted = HOME_NO_BLOCK};
    uint64_t room;
    uint8_t *place = ring_reserve(engine, sizeof record + bytes, &room);
    memcpy(place, &record, sizeof record);
    memcpy(place + sizeof record, out.sink.start, bytes);
    ring_publish(engine, sizeof record + bytes, room, SHOAL_LAZY);
    outgoing_clear(&out);
}

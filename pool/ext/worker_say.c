/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * worker_say.c - what a worker says besides results.
 *
 * The problem: what a worker says must reach the parent before the result of the task that said it, must not be lost
 * when the worker is killed right afterwards, must not be held up for ever, and must not make the memory of anybody
 * grow without bound.
 *
 * The way: messages are records in the worker's result ring, among the results. What is published there survives the
 * worker. A full ring makes the worker wait, as results do. A message that is longer than a record is sent in parts.
 *
 * The difficulty: the ring has one writer, and is not always free. While a result is pickled behind its tail, user code
 * runs; threads of the user's say something while the main thread does that, or sleeps. So a message goes through a
 * queue, which is emptied at once if the ring is free and has room, without releasing the GIL. Else:
 *
 *     in the main thread               waits for room
 *     in the middle of a result        the queue is emptied when the result is out
 *     in another thread                the same, or by its next message; waits where the queue is long
 *
 * What is in the queue is lost if the worker is killed before it gets out. A child that a task forks says nothing.
 */
#include "say.h"
#include "worker.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include <shoal/killpoint.h>

#define QUEUE_LONG_BYTES (UINT64_C(1) << 20)

struct unsaid {
    struct unsaid *next;
    size_t bytes, sent;
    uint8_t data[];
};

/* One record of the oldest message. False: there is no room now. */
static bool send_part(struct engine *engine, struct unsaid *unsaid)
{
    struct shoal_ring *ring = engine->side->own->results;
    size_t left = unsaid->bytes - unsaid->sent;
    size_t part = left < SAY_PART_BYTES ? left : SAY_PART_BYTES;
    struct record record = {
        .kind = RECORD_SAID,
        .flags = part < left ? RECORD_MORE : 0,
        .stream_bytes = part,
        .block_offset = HOME_NO_BLOCK,
        .adopted = HOME_NO_BLOCK,
    };
    void *place;
    uint64_t room;
    if (shoal_ring_reserve(ring, sizeof record + part, &place, &room) < 0)
        return false;
    memcpy(place, &record, sizeof record);
    memcpy((uint8_t *)place + sizeof record, unsaid->data + unsaid->sent, part);
    SHOAL_KILL_POINT("said: written");
    shoal_ring_commit(ring, sizeof record + part);
    SHOAL_KILL_POINT("said: published");
    shoal_doorbell_ring(shoal_taskqueue_owner_bell(engine->queue), SHOAL_LAZY);
    unsaid->sent += part;
    return true;
}

void say_flush(struct engine *engine)
{
    struct worker_side *side = engine->side;
    if (side->unsaid == NULL || side->ring_busy)
        return;
    result_end_run(engine); /* what lies behind the tail, published or not, is not ours */
    while (side->unsaid != NULL && send_part(engine, side->unsaid)) {
        struct unsaid *first = side->unsaid;
        if (first->sent < first->bytes)
            continue;
        side->unsaid = first->next;
        if (side->unsaid == NULL)
            side->unsaid_end = &side->unsaid;
        side->unsaid_bytes -= first->bytes;
        PyMem_RawFree(first);
    }
}

static bool room_for_part(void *arg)
{
    struct worker_side *side = arg;
    void *place;
    uint64_t room, want = sizeof(struct record) + SAY_PART_BYTES;
    return side->ring_busy || shoal_ring_reserve(side->own->results, want, &place, &room) != -EAGAIN;
}

static void wait_for_room(struct engine *engine, bool main_thread)
{
    struct worker_side *side = engine->side;
    if (main_thread && !side->left) {
        worker_wait_for_parent(engine, room_for_part, side);
        return;
    }
    Py_BEGIN_ALLOW_THREADS
    struct timespec pause = {.tv_nsec = 1000000};
    nanosleep(&pause, NULL);
    Py_END_ALLOW_THREADS
}

PyObject *engine_say(struct engine *engine, PyObject *payload)
{
    struct worker_side *side = engine->side;
    if (!PyBytes_Check(payload)) {
        PyErr_SetString(PyExc_TypeError, "say() takes bytes");
        return NULL;
    }
    size_t bytes = (size_t)PyBytes_GET_SIZE(payload);
    if (side == NULL || engine->state->serving != engine || bytes > SAY_BYTES_MAX)
        Py_RETURN_FALSE;
    struct unsaid *unsaid = PyMem_RawMalloc(sizeof *unsaid + bytes);
    if (unsaid == NULL)
        return PyErr_NoMemory();
    *unsaid = (struct unsaid){.bytes = bytes};
    memcpy(unsaid->data, PyBytes_AS_STRING(payload), bytes);
    *side->unsaid_end = unsaid;
    side->unsaid_end = &unsaid->next;
    side->unsaid_bytes += bytes;
    bool main_thread = PyThread_get_thread_ident() == side->main_thread;
    for (;;) {
        say_flush(engine);
        bool waits = main_thread ? !side->ring_busy : side->unsaid_bytes > QUEUE_LONG_BYTES;
        if (side->unsaid == NULL || !waits)
            break;
        wait_for_room(engine, main_thread);
        if (engine->state->serving != engine)
            break; /* cannot be, but for a fork in between */
    }
    Py_RETURN_TRUE;
}

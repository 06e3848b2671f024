/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * limits.c - a task that takes too long, or that nobody wants any more while it runs.
 *
 * The problem: user code has to be ended from outside, in the middle; the next task on that worker is innocent, and the
 * outcome may come at the same moment.
 *
 * The protocol: a worker says in its line of the task queue which item it is at and since when
 * (lib/taskqueue_watch.c). Nobody waits for that: an item cannot have used up its time sooner than that time after it
 * was published, so the parent looks when the first one could have, and then knows when to look again. One that has is
 * asked to stop: a mark in the line, and a signal, whose handler raises in the worker's main thread what unwinds the
 * task (worker_stop.c). The worker answers with an error like any other. If it does not within the grace time (C code
 * that does not come back, a task that catches everything, a process that is stopped), the parent takes the outcome
 * over by one swap and kills it; recover.c then finds the worker dead over an item that it was to stop.
 *
 * Guarantees: one outcome, and no other item is hit. Costs: nothing is looked at, no clock either, while no task has a
 * limit; else one clock for each task when it is published and for each item when it begins.
 */
#include "engine.h"

#include <errno.h>
#include <signal.h>

#include <shoal/killpoint.h>

#define GRACE_NS INT64_C(1000000000)
#define BETWEEN_NS INT64_C(2000000) /* a worker is between two items: look again then */

static void look_by(struct engine *engine, int64_t at_ns)
{
    if (at_ns < engine->limits_ns) {
        engine->limits_ns = at_ns;
        progress_look_by(engine, at_ns);
    }
}

void limits_note(struct engine *engine, const struct owner *owner)
{
    look_by(engine, shoal_now_ns() + (owner->unwanted ? 0 : owner->timeout_ns));
}

static int64_t grace_of(const struct owner *owner)
{
    return owner->has_grace ? owner->grace_ns : GRACE_NS;
}

/* The error for an item that was stopped by force. Python code: what is looked at before may have changed. */
static PyObject *timeout_error(struct engine *engine, int64_t since_ns, pid_t pid)
{
    PyObject *error = NULL;
    if (engine->state->task_timeout != NULL) {
        double seconds = (double)(shoal_now_ns() - since_ns) / 1e9;
        error = PyObject_CallFunction(engine->state->task_timeout, "dl", seconds, (long)pid);
    }
    if (error == NULL) {
        PyErr_Clear();
        error = PyObject_CallFunction(PyExc_TimeoutError, "s", "the task took too long");
    }
    return error;
}

static void kill_over(struct engine *engine, uint32_t slot, unsigned index, const struct shoal_watch *watch)
{
    struct entry *entry = &engine->entries[slot];
    PyObject *error = NULL;
    if (!entry->unwanted) {
        uint32_t generation = entry->generation;
        error = timeout_error(engine, watch->since_ns, engine->workers[index].peer.pid);
        if (engine->dead || entry->owner == NULL || entry->generation != generation) {
            Py_XDECREF(error);
            return;
        }
    }
    SHOAL_PARENT_POINT("limits: to be killed", shoal_peer_signal(&engine->workers[index].peer, SIGKILL));
    if (shoal_taskqueue_watch_ask(engine->queue, index, watch->beat, SHOAL_WATCH_KILL) < 0) {
        engine_discard_later(engine, error); /* it has ended at this moment */
        return;
    }
    engine_discard_later(engine, entry->stop_error);
    entry->stop_error = error;
    engine->deaths_pending = true;
    if (engine->workers[index].peer.pidfd >= 0)
        shoal_peer_signal(&engine->workers[index].peer, SIGKILL);
}

static void ask(struct engine *engine, uint32_t slot, unsigned index, const struct shoal_watch *watch,
                enum shoal_watch_phase phase, int64_t now)
{
    struct entry *entry = &engine->entries[slot];
    if (shoal_taskqueue_watch_ask(engine->queue, index, watch->beat, phase) < 0)
        return;
    entry->stop_beat = watch->beat;
    entry->kill_ns = now + grace_of((struct owner *)entry->owner) + 1;
    SHOAL_PARENT_POINT("limits: asked", shoal_peer_signal(&engine->workers[index].peer, SIGKILL));
    if (engine->workers[index].peer.pidfd >= 0)
        shoal_peer_signal(&engine->workers[index].peer, STOP_SIGNAL);
}

/* See to this one; when to look at it again. */
static int64_t look_at(struct engine *engine, uint32_t slot, int64_t now)
{
    struct entry *entry = &engine->entries[slot];
    int64_t timeout_ns = ((struct owner *)entry->owner)->timeout_ns;
    if (timeout_ns == 0 && !entry->unwanted)
        return INT64_MAX;
    enum shoal_task_state state;
    unsigned index;
    uint32_t generation;
    struct shoal_watch watch;
    if (shoal_taskqueue_state(engine->queue, slot, &state, &index, &generation) < 0 || generation != entry->generation)
        return now + BETWEEN_NS; /* engine_look_closer deals with it */
    if (state == SHOAL_TASK_READY && entry->unwanted && shoal_taskqueue_revoke(engine->queue, slot) == 0) {
        entry_finish(engine, slot);
        return INT64_MAX;
    }
    if (state == SHOAL_TASK_READY)
        return timeout_ns > 0 ? now + timeout_ns : now + BETWEEN_NS;
    if (shoal_taskqueue_watch(engine->queue, index, &watch) < 0 || watch.slot != slot ||
        watch.generation != generation || watch.phase == SHOAL_WATCH_ENDED)
        return now + BETWEEN_NS;
    if (entry->kill_ns != 0 && entry->stop_beat != watch.beat)
        entry->kill_ns = 0; /* that one has ended */
    if (entry->kill_ns == 0 && entry->unwanted)
        ask(engine, slot, index, &watch, SHOAL_WATCH_STOP_ALL, now);
    else if (entry->kill_ns == 0 && watch.since_ns > 0 && now - watch.since_ns >= timeout_ns)
        ask(engine, slot, index, &watch, SHOAL_WATCH_STOP, now);
    if (entry->kill_ns == 0) {
        bool counts = watch.since_ns > 0 && watch.since_ns <= now && !entry->unwanted;
        return counts && watch.since_ns + timeout_ns > now ? watch.since_ns + timeout_ns : now + BETWEEN_NS;
    }
    if (now < entry->kill_ns && grace_of((struct owner *)entry->owner) > 0)
        return entry->kill_ns;
    kill_over(engine, slot, index, &watch);
    return INT64_MAX; /* its end, or that of the item, is what comes now */
}

void limits_look(struct engine *engine)
{
    int64_t now = shoal_now_ns();
    if (engine->dead || engine->burying || now < engine->limits_ns)
        return;
    engine->limits_ns = INT64_MAX;
    int64_t next = INT64_MAX;
    for (uint32_t slot = 0; slot < ENGINE_SLOTS && !engine->dead; slot++) {
        if (engine->entries[slot].owner == NULL)
            continue;
        int64_t at = look_at(engine, slot, now);
        if (engine->dead)
            return;
        if (at == INT64_MAX && engine->entries[slot].owner != NULL &&
            ((struct owner *)engine->entries[slot].owner)->timeout_ns > 0)
            at = now + BETWEEN_NS; /* killed: other items of it may follow */
        next = at < next ? at : next;
    }
    look_by(engine, next);
}

bool limits_drop(struct engine *engine, uint32_t slot)
{
    struct entry *entry = &engine->entries[slot];
    enum shoal_task_state state;
    if (shoal_taskqueue_state(engine->queue, slot, &state, NULL, NULL) < 0 || state == SHOAL_TASK_READY ||
        state == SHOAL_TASK_FREE)
        return false;
    entry->unwanted = true;
    int64_t now = shoal_now_ns();
    look_by(engine, look_at(engine, slot, now));
    return true;
}

void limits_drop_all(struct engine *engine, struct owner *owner)
{
    bool any = false;
    owner->unwanted = true;
    while (engine_revoke(engine, owner) > 0)
        ;
    for (uint32_t slot = 0; slot < ENGINE_SLOTS; slot++) {
        if (engine->entries[slot].owner != (PyObject *)owner)
            continue;
        engine->entries[slot].unwanted = true;
        any = true;
    }
    if (any)
        look_by(engine, shoal_now_ns());
}

PyObject *limits_error(struct engine *engine, uint32_t slot, const struct shoal_watch *watch)
{
    struct entry *entry = &engine->entries[slot];
    if (watch->slot != slot || watch->generation != entry->generation || watch->phase < SHOAL_WATCH_STOP)
        return NULL;
    PyObject *error = entry->stop_error;
    entry->stop_error = NULL;
    return error != NULL ? error : timeout_error(engine, watch->since_ns, 0);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * recover.c - a worker has died; another takes its place.
 *
 * The proof of death is the pidfd: nobody writes any more. Then, in this order: read what the worker had published;
 * clear its marks in the queue; look at every slot that it owned. CLAIMED (its arguments were being read): to another
 * worker, at no cost, CLAIMS_MAX times. STARTED: the item that was running is lost, with WorkerLost; the items of a
 * batch behind it go to another worker. Then its memory: its lease, its column of holders. Then the replacement is
 * forked.
 *
 * Workers that die again and again before they come up make the pool broken, with the reason of the last: start.c.
 */
#include "engine.h"

#include "group.h"
#include "inbox.h"
#include "lost.h"
#include "say.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <shoal/killpoint.h>

#define STATUS_WAIT_NS INT64_C(1000000000)

/* ---- the process of a worker ---- */

void engine_close_process(struct worker *worker)
{
    shoal_peer_close(&worker->peer);
    if (worker->status_fd >= 0)
        close(worker->status_fd);
    worker->status_fd = -1;
    worker->stillborn = false;
}

/*
 * It was not our child, and it is dead: how it ended, its own parent (multiprocessing's forkserver) reaps and writes
 * right afterwards. Nothing is known if that is gone, too. Without the GIL, which the forkserver may not wait for.
 */
static void read_status(struct worker *worker, struct shoal_peer_exit *end)
{
    int64_t status, deadline = shoal_now_ns() + STATUS_WAIT_NS;
    ssize_t got = -1;
    for (bool readable = false; !readable && shoal_now_ns() < deadline;) {
        struct pollfd fd = {.fd = worker->status_fd, .events = POLLIN};
        Py_BEGIN_ALLOW_THREADS
        readable = poll(&fd, 1, 100) > 0;
        if (readable)
            got = read(fd.fd, &status, sizeof status);
        Py_END_ALLOW_THREADS
    }
    if (got != (ssize_t)sizeof status)
        return;
    end->known = true;
    end->signal = status < 0 ? (int)-status : 0;
    end->exit_code = status < 0 ? 0 : (int)status;
}

/* Memory of one that is reaped by others, who do not tell how much it had. Looked at while it lives. */
static void look_at_memory(struct worker *worker)
{
    char path[40], text[128] = "";
    unsigned long long pages;
    snprintf(path, sizeof path, "/proc/%d/statm", (int)worker->peer.pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t got = read(fd, text, sizeof text - 1);
    close(fd);
    if (got > 0 && sscanf(text, "%*u %llu", &pages) == 1 && pages > 0)
        worker->seen_bytes = (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* 1 and how it ended if it is dead, 0 if it lives. */
static int reap(struct worker *worker, struct shoal_peer_exit *ret_end)
{
    *ret_end = (struct shoal_peer_exit){.known = false};
    int dead = worker->stillborn ? 1 : shoal_peer_reap(&worker->peer, ret_end);
    if (dead == 1 && !ret_end->known && worker->status_fd >= 0)
        read_status(worker, ret_end);
    if (dead == 1 && ret_end->peak_bytes == 0)
        ret_end->peak_bytes = worker->seen_bytes;
    return dead;
}

static void deliver_exception(struct engine *engine, struct entry *entry, uint32_t item, PyObject *error)
{
    struct arrival arrival = {.kind = ARRIVAL_EXCEPTION, .item = item, .object = Py_NewRef(error),
                              .block = HOME_NO_BLOCK, .adopted = HOME_NO_BLOCK};
    engine->lost++;
    entry->outcome = TRACE_LOST;
    owner_deliver((struct owner *)entry->owner, &arrival);
    (void)engine;
}

/* All items from the next one on end with `error`. */
static void fail_entry(struct engine *engine, uint32_t slot, PyObject *error)
{
    struct entry *entry = &engine->entries[slot];
    for (; entry->next_item < entry->task.item_count; entry->next_item++)
        deliver_exception(engine, entry, entry->task.first_item + entry->next_item, error);
    entry_finish(engine, slot);
}

/* The slot's stream, for another worker, from item `done` of this entry on. */
static void requeue(struct engine *engine, uint32_t slot)
{
    struct entry *entry = &engine->entries[slot];
    uint32_t old = entry->generation;
    struct shoal_task task = entry->task;
    task.reserved = entry->next_item; /* sections to skip: those before are done */
    shoal_taskqueue_requeue(engine->queue, slot, &task, &entry->generation);
    struct task_ring *ring = &engine->tasks;
    for (uint32_t i = 0; i < ring->count; i++) {
        struct ring_record *record = &ring->records[(ring->first + i) % (2 * ENGINE_SLOTS)];
        if (record->slot == slot && record->generation == old)
            record->generation = entry->generation;
    }
    item_set_slot((struct owner *)entry->owner, slot, entry->generation);
    if (entry->life > 0)
        trace_requeued(engine, entry, slot);
}

/* The item that is next has ended; those of a batch behind it are for another worker, if somebody wants them. */
static void go_on_after(struct engine *engine, uint32_t slot, PyObject *error)
{
    struct entry *entry = &engine->entries[slot];
    deliver_exception(engine, entry, entry->task.first_item + entry->next_item, error);
    entry->next_item++;
    entry->claims = 0;
    entry->kill_ns = 0;
    if (entry->next_item < entry->task.item_count && !entry->unwanted)
        requeue(engine, slot);
    else
        entry_finish(engine, slot);
}

static void recover_slot(struct engine *engine, uint32_t slot, enum shoal_task_state state, unsigned index, pid_t pid,
                         const struct shoal_peer_exit *end, const struct shoal_watch *watch)
{
    struct entry *entry = &engine->entries[slot];
    uint32_t before = entry->generation;
    PyObject *stopped = entry->unwanted ? NULL : limits_error(engine, slot, watch);
    if (stopped != NULL && entry->owner != NULL && entry->generation == before)
        go_on_after(engine, slot, stopped);
    Py_XDECREF(stopped);
    if (stopped != NULL)
        return;
    if (state == SHOAL_TASK_CLAIMED && ++entry->claims < CLAIMS_MAX && !entry->unwanted) {
        requeue(engine, slot);
        return;
    }
    bool damaged = engine->workers[index].damaged;
    char running[80] = "while it ran the task";
    if (entry->task.flags & TASK_BATCH)
        snprintf(running, sizeof running, "while it ran element %u of the input",
                 (unsigned)(entry->task.first_item + entry->next_item));
    const char *what = damaged ? "it wrote over the shared memory of its results"
                       : state == SHOAL_TASK_CLAIMED ? "the arguments could not be read: each worker that tried died"
                                                     : running;
    uint32_t generation = entry->generation;
    PyObject *error = lost_error(engine, index, pid, end, what, slot); /* Python code: another thread may end it */
    if (entry->owner == NULL || entry->generation != generation) {
        Py_XDECREF(error);
        return;
    }
    if (!(entry->task.flags & TASK_BATCH) || state == SHOAL_TASK_CLAIMED || entry->unwanted)
        fail_entry(engine, slot, error);
    else
        go_on_after(engine, slot, error);
    Py_XDECREF(error);
}

static void recover_slots(struct engine *engine, unsigned index, pid_t pid, const struct shoal_peer_exit *end,
                          const struct shoal_watch *watch)
{
    for (uint32_t slot = 0; slot < ENGINE_SLOTS; slot++) {
        if (engine->entries[slot].owner == NULL)
            continue;
        enum shoal_task_state state;
        unsigned worker;
        uint32_t generation;
        int error = shoal_taskqueue_state(engine->queue, slot, &state, &worker, &generation);
        if (error < 0 || generation != engine->entries[slot].generation ||
            (state != SHOAL_TASK_READY && state != SHOAL_TASK_CLAIMED && state != SHOAL_TASK_STARTED)) {
            PyObject *lost = lost_error(engine, index, pid, end, "the task table was written over", slot);
            if (engine->entries[slot].owner != NULL)
                fail_entry(engine, slot, lost);
            Py_XDECREF(lost);
        } else if (state != SHOAL_TASK_READY && worker == index) {
            uint64_t before = engine->lost;
            recover_slot(engine, slot, state, index, pid, end, watch);
            engine->workers[index].lost += engine->lost - before;
        }
    }
}

static void take_setup_error(struct engine *engine)
{
    PyObject *error;
    if (engine->setup_error.kind == ARRIVAL_NONE)
        return;
    if (arrival_decode(engine, &engine->setup_error, &error) < 0) {
        PyErr_Clear();
        return;
    }
    engine_break(engine, error);
    Py_DECREF(error);
}

/* ---- how those ended that are gone ---- */

/* For exit_code(): the last so many. What cannot be kept for lack of memory is not known. */
static void note_end(struct engine *engine, pid_t pid, const struct shoal_peer_exit *end)
{
    if (engine->ended == NULL)
        engine->ended = PyDict_New();
    PyObject *number = PyLong_FromLong(pid);
    PyObject *code = end->known ? PyLong_FromLong(end->signal ? -end->signal : end->exit_code) : Py_NewRef(Py_None);
    if (engine->ended != NULL && PyDict_GET_SIZE(engine->ended) >= (Py_ssize_t)(4 * engine->worker_count + 64))
        PyDict_Clear(engine->ended);
    if (engine->ended != NULL && number != NULL && code != NULL)
        PyDict_SetItem(engine->ended, number, code);
    PyErr_Clear();
    Py_XDECREF(number);
    Py_XDECREF(code);
}

PyObject *engine_exit_code(struct engine *engine, PyObject *pid)
{
    if (!PyLong_CheckExact(pid)) {
        PyErr_SetString(PyExc_TypeError, "exit_code() takes a pid");
        return NULL;
    }
    PyObject *code = engine->ended == NULL ? NULL : PyDict_GetItemWithError(engine->ended, pid); /* borrowed */
    if (code == NULL && engine->epoch == engine->state->fork_epoch && !engine->dead) {
        engine_drain(engine);
        while (engine->burying && !engine_buries_here(engine)) { /* another thread may be at this very worker */
            Py_BEGIN_ALLOW_THREADS
            struct timespec pause = {.tv_nsec = 50000};
            nanosleep(&pause, NULL);
            Py_END_ALLOW_THREADS
        }
        engine_bury_dead(engine);
        engine_after_drain(engine);
        code = engine->ended == NULL ? NULL : PyDict_GetItemWithError(engine->ended, pid); /* borrowed */
    }
    return Py_NewRef(code == NULL ? Py_None : code);
}

/* Is a worker that has died to be replaced? */
static bool needs_workers(struct engine *engine)
{
    bool finished = engine->closed && engine->groups == NULL && engine_all_done(engine);
    return engine->broken == NULL && engine->terminated == NULL && engine->abandoned == NULL && !finished;
}

#ifdef SHOAL_KILL_POINTS
/* Another one dies while this one is buried. */
static bool kill_next(struct engine *engine, unsigned index)
{
    struct worker *other = &engine->workers[(index + 1) % engine->worker_count];
    return other->peer.pidfd >= 0 && shoal_peer_signal(&other->peer, SIGKILL) >= 0;
}
#endif

static void recover_worker(struct engine *engine, unsigned index, const struct shoal_peer_exit *end)
{
    struct worker *worker = &engine->workers[index];
    pid_t pid = worker->peer.pid;
    engine->draining = true;
    engine_drain_dead(engine, index);
    SHOAL_PARENT_POINT("bury: drained", kill_next(engine, index));
    engine->draining = false;
    trace_bury(engine, index);
    hear_end(worker);
    engine_close_process(worker);
    struct shoal_watch watch = {.phase = SHOAL_WATCH_ENDED};
    shoal_taskqueue_watch(engine->queue, index, &watch); /* what it was at, before that is forgotten */
    shoal_taskqueue_bury(engine->queue, index);
    SHOAL_PARENT_POINT("bury: marks cleared", kill_next(engine, index));
    recover_slots(engine, index, pid, end, &watch);
    SHOAL_PARENT_POINT("bury: slots recovered", kill_next(engine, index));
    inboxes_worker_died(engine);
    shoal_taskqueue_wake(engine->queue); /* for what was requeued: the replacement may never come up */
    engine_free_lease(engine, worker);
    shoal_arena_forget(engine->home->arena, engine->workers[index].holder);
    shoal_ring_reset(worker->results);
    shoal_ring_reset(worker->orders);
    note_end(engine, pid, end);
    if (!worker->ready)
        engine_start_failed(engine, end);
    bool clean = worker->leaving || worker->stopped;
    worker->wanted_bytes = worker->sweeps_asked = worker->sweeps_done = 0;
    worker->ready = worker->leaving = worker->damaged = false;
    take_setup_error(engine);
    if (engine->abandoned != NULL && engine_workers_gone(engine))
        engine_fail_all(engine, engine->abandoned);
    if (!needs_workers(engine) || (worker->stopped && clean) || resize_dismisses(engine, index))
        return;
    if (engine_starts_in_vain(engine)) {
        PyObject *error = lost_error(engine, index, pid, end, "workers die as soon as they are started", LOST_NO_SLOT);
        engine_break(engine, error);
        Py_XDECREF(error);
        return;
    }
    engine->restarts++;
    worker->restarts++;
    if (engine_may_start(engine))
        engine_start_worker(engine, index);
}

void engine_bury_dead(struct engine *engine)
{
    if (engine->draining || engine->dead || engine->burying)
        return;
    engine->burying = true;
    engine->burying_thread = PyThread_get_thread_ident();
    engine->deaths_pending = false;
    for (unsigned i = 0; i < engine->worker_count && !engine->dead; i++) {
        struct worker *worker = &engine->workers[i];
        struct shoal_peer_exit end;
        if (worker->peer.pidfd >= 0 && reap(worker, &end) == 1)
            recover_worker(engine, i, &end);
        else if (worker->peer.pidfd < 0 && !worker->stopped && i < engine->worker_target && engine->open &&
                 needs_workers(engine) && engine_may_start(engine))
            engine_start_worker(engine, i); /* a fork that failed for lack of something is tried again */
    }
    if (!engine->dead)
        resize_settle(engine);
    engine->burying = false;
    if (engine->finish_later) {
        engine->finish_later = false;
        if (engine_reap_workers(engine, -1) > 0)
            engine_destroy(engine);
        else
            report_unraisable((PyObject *)engine); /* a handler raised; the next call reaps them */
    }
    if (!engine->dead)
        engine_feed(engine);
}

/*
 * A backstop against a worker that writes over what it may write: words, bells, idle bits. A task whose word makes no
 * sense any more has failed; READY tasks are announced again, and whoever sleeps is woken. One pass over the table a
 * second, while tasks are in flight.
 */
void engine_look_closer(struct engine *engine)
{
    int64_t now = shoal_now_ns();
    if (now >= engine->limits_ns)
        limits_look(engine);
    if (engine->in_flight == 0 || engine->dead || engine->burying || now - engine->looked_ns < LOOK_CLOSER_NS) {
        engine->looked_ns = engine->in_flight == 0 ? now : engine->looked_ns;
        return;
    }
    engine->looked_ns = now;
    for (unsigned i = 0; i < engine->worker_count; i++) {
        if (engine->workers[i].status_fd >= 0 && engine->workers[i].peer.pidfd >= 0)
            look_at_memory(&engine->workers[i]);
    }
    bool waiting = false;
    for (uint32_t slot = 0; slot < ENGINE_SLOTS && !engine->dead; slot++) {
        enum shoal_task_state state;
        uint32_t generation;
        if (engine->entries[slot].owner == NULL)
            continue;
        int error = shoal_taskqueue_state(engine->queue, slot, &state, NULL, &generation);
        waiting |= error >= 0 && state == SHOAL_TASK_READY;
        if (error >= 0 && generation == engine->entries[slot].generation && state != SHOAL_TASK_FREE)
            continue;
        const char *text = "a worker wrote over the task table: this task can no longer be followed";
        PyObject *lost = PyObject_CallFunction(PyExc_RuntimeError, "s", text);
        if (lost != NULL && engine->entries[slot].owner != NULL)
            fail_entry(engine, slot, lost);
        Py_XDECREF(lost);
    }
    if (waiting && !engine->dead) {
        shoal_taskqueue_rescan(engine->queue);
        shoal_taskqueue_wake_all(engine->queue);
    }
}

void engine_fail_all(struct engine *engine, PyObject *error)
{
    bool nested = engine->draining;
    engine->draining = true;
    for (uint32_t slot = 0; slot < ENGINE_SLOTS; slot++) {
        if (engine->entries[slot].owner != NULL)
            fail_entry(engine, slot, error);
    }
    while (engine->backlog != NULL) {
        struct pending *pending = engine->backlog;
        engine->backlog = pending->next;
        for (uint32_t i = 0; i < pending->item_count; i++) {
            struct arrival arrival = {.kind = ARRIVAL_EXCEPTION, .item = pending->first_item + i,
                                      .object = Py_NewRef(error), .block = HOME_NO_BLOCK, .adopted = HOME_NO_BLOCK};
            owner_deliver((struct owner *)pending->owner, &arrival);
        }
        engine_discard_later(engine, pending->owner);
        pending_free(engine, pending);
    }
    engine->backlog_end = &engine->backlog;
    engine->backlog_count = 0;
    engine->draining = nested;
    engine_news(engine);
}

void engine_kill_workers(struct engine *engine)
{
    for (unsigned i = 0; i < engine->worker_count; i++) {
        engine->workers[i].stopped = true;
        if (engine->workers[i].peer.pidfd >= 0)
            shoal_peer_signal(&engine->workers[i].peer, SIGKILL);
    }
}

void engine_break(struct engine *engine, PyObject *error)
{
    if (engine->broken != NULL || engine->terminated != NULL)
        return;
    engine->broken = Py_NewRef(error);
    engine_kill_workers(engine);
    PyObject *reason = engine_reason(engine);
    while (engine->groups != NULL)
        group_stop(engine->groups, reason != NULL ? reason : error);
    engine_fail_all(engine, reason != NULL ? reason : error);
    Py_XDECREF(reason);
}

bool engine_all_done(struct engine *engine)
{
    return engine->in_flight == 0 && engine->backlog == NULL;
}

bool engine_workers_gone(struct engine *engine)
{
    for (unsigned i = 0; i < engine->worker_count; i++) {
        if (engine->workers[i].peer.pidfd >= 0)
            return false;
    }
    return true;
}

void engine_order(struct engine *engine, unsigned index, uint32_t kind)
{
    struct worker *worker = &engine->workers[index];
    struct order order = {.kind = kind};
    void *place;
    uint64_t room;
    if (shoal_ring_reserve(worker->orders, sizeof order, &place, &room) < 0) {
        shoal_peer_signal(&worker->peer, SIGKILL); /* it has damaged its ring, and would never be told */
        return;
    }
    memcpy(place, &order, sizeof order);
    shoal_ring_commit(worker->orders, sizeof order);
    shoal_taskqueue_wake_worker(engine->queue, index);
}

void engine_stop_workers(struct engine *engine)
{
    for (unsigned i = 0; i < engine->worker_count; i++) {
        struct worker *worker = &engine->workers[i];
        if (worker->stopped)
            continue;
        worker->stopped = true;
        if (worker->peer.pidfd >= 0)
            engine_order(engine, i, ORDER_STOP);
    }
}

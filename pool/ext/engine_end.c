/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * engine_end.c - how a pool ends: closed and joined, terminated, broken, or dropped.
 *
 * In every case the workers are reaped before what they share is unmapped, and nothing is left: no process, descriptor,
 * mapping or block. Threads that wait are woken first; their items have an outcome by then.
 */
#include "engine.h"

#include <signal.h>

#include "group.h"
#include "inbox.h"
#include "say.h"

#define NO_POOL_KEEPS_BYTES (UINT64_C(8) << 20) /* so that the next pool starts in warm memory */

/* ---- the end ---- */

void engine_unmap(struct engine *engine)
{
    engine->unmap_later = false;
    trace_close(engine);
    for (unsigned i = 0; engine->workers != NULL && i < engine->worker_most; i++) {
        shoal_ring_detach(engine->workers[i].results);
        shoal_ring_detach(engine->workers[i].orders);
        engine->workers[i].results = engine->workers[i].orders = NULL;
        if (engine->epoch == engine->state->fork_epoch && engine->control != HOME_NO_BLOCK) {
            engine_free_lease(engine, &engine->workers[i]);
            if (i < engine->worker_count) /* the numbers of the others may be somebody else's by now */
                shoal_arena_forget(engine->home->arena, engine->workers[i].holder);
            if (engine->workers[i].rings_apart)
                shoal_arena_release(engine->home->arena, engine->workers[i].rings);
            engine->workers[i].rings_apart = false;
        }
    }
    if (engine->tasks.base != NULL)
        shoal_region_unmirror(engine->tasks.base, TASK_RING_BYTES);
    engine->tasks.base = NULL;
    shoal_taskqueue_free(engine->queue);
    engine->queue = NULL;
    if (engine->control != HOME_NO_BLOCK && engine->epoch == engine->state->fork_epoch)
        shoal_arena_release(engine->home->arena, engine->control);
    engine->control = HOME_NO_BLOCK;
    if (engine->epoch == engine->state->fork_epoch)
        engines_memory_freed(engine->state, UINT64_MAX);
}

/* So much of the arena has become free. A pool that lives gives it back when it has been idle for a while. */
void engines_memory_freed(struct module_state *state, uint64_t bytes)
{
    if (bytes < PROGRESS_TENDS_BYTES)
        return;
    for (struct engine *engine = state->engines; engine != NULL; engine = engine->next) {
        if (engine->epoch == state->fork_epoch && !engine->dead && engine->open && !engine->progress_stop) {
            progress_tend(engine, bytes);
            return;
        }
    }
    if (state->home != NULL)
        shoal_arena_trim(state->home->arena, NO_POOL_KEEPS_BYTES);
}

/* Workers that nobody buries any more. One may have been started while another thread ended the pool. */
static void end_workers_left(struct engine *engine)
{
    for (unsigned i = 0; engine->workers != NULL && i < engine->worker_count; i++) {
        struct shoal_peer *peer = &engine->workers[i].peer;
        struct shoal_peer_exit end;
        if (peer->pidfd < 0)
            continue;
        shoal_peer_signal(peer, SIGKILL);
        int error;
        Py_BEGIN_ALLOW_THREADS
        error = shoal_peer_wait(peer, -1);
        Py_END_ALLOW_THREADS
        if (error >= 0)
            shoal_peer_reap(peer, &end);
    }
}

void engine_destroy(struct engine *engine)
{
    if (engine->dead)
        return;
    engine->dead = true;
    if (engine->epoch == engine->state->fork_epoch)
        meters_keep(engine);
    foreign_reap(engine->state);
    progress_stop(engine);
    engine_wake_waiting(engine);
    if (engine->queue != NULL && engine->epoch == engine->state->fork_epoch)
        engine_await_nobody_inside(engine);
    if (engine->epoch == engine->state->fork_epoch)
        end_workers_left(engine);
    engine_free_waiters(engine);
    inboxes_engine_ended(engine);
    shoal_lifeline_close(&engine->lifeline);
    engine_discard_later(engine, engine->start); /* with the descriptors that it keeps for workers to be started */
    engine->start = NULL;
    if (engine->idle_call != NULL)
        engine_discard_later(engine, engine->idle_call);
    engine->idle_call = NULL;
    for (unsigned i = 0; engine->workers != NULL && i < engine->worker_count; i++)
        engine_close_process(&engine->workers[i]);
    engine->unmap_later = engine->submitting > 0; /* it may be this very thread, further up: user code of a pickling */
    if (!engine->unmap_later)
        engine_unmap(engine);
}

#define LOOK_AGAIN_NS 50000000

bool engine_buries_here(const struct engine *engine)
{
    return engine->burying && engine->burying_thread == PyThread_get_thread_ident();
}

int engine_reap_workers(struct engine *engine, int64_t deadline_ns)
{
    while (!engine_workers_gone(engine)) {
        engine->deaths_pending = false;
        engine_drain(engine); /* what it says as it ends may fill its ring */
        engine_bury_dead(engine);
        if (engine->dead || engine_workers_gone(engine))
            break;
        engine_stop_workers(engine); /* one that was being replaced when the others were told */
        int64_t now = shoal_now_ns();
        if (deadline_ns >= 0 && now >= deadline_ns)
            return 0;
        /* Another thread may be replacing a worker right now, whose end we do not watch yet. */
        int64_t look_again = now + LOOK_AGAIN_NS;
        if (deadline_ns >= 0 && deadline_ns < look_again)
            look_again = deadline_ns;
        if (engine_sleep(engine, SHOAL_AWAKE, -1, look_again, ENGINE_ANY_TAKES) < 0)
            return -1;
    }
    return 1;
}

PyObject *engine_terminate(struct engine *engine, PyObject *error)
{
    if (engine->dead || engine->epoch != engine->state->fork_epoch)
        Py_RETURN_NONE;
    if (!PyExceptionInstance_Check(error)) {
        PyErr_SetString(PyExc_TypeError, "terminate() takes an exception instance");
        return NULL;
    }
    if (engine->terminated == NULL)
        engine->terminated = Py_NewRef(error);
    engine->closed = true;
    engine_kill_workers(engine);
    PyObject *reason = engine_reason(engine);
    while (engine->groups != NULL && reason != NULL)
        group_stop(engine->groups, reason);
    if (reason != NULL)
        engine_fail_all(engine, reason);
    Py_XDECREF(reason);
    engine_after_drain(engine);
    if (engine_buries_here(engine)) { /* a signal handler in the midst of it */
        engine->finish_later = true;
        Py_RETURN_NONE;
    }
    if (engine_reap_workers(engine, -1) < 0)
        return NULL; /* a signal handler raised; the workers are killed, the next call reaps them */
    engine_destroy(engine);
    engine_after_drain(engine);
    hear_finish(engine);
    Py_RETURN_NONE;
}

PyObject *engine_abandon(struct engine *engine, PyObject *args)
{
    PyObject *error;
    int number;
    if (!PyArg_ParseTuple(args, "Oi:abandon", &error, &number))
        return NULL;
    if (!PyExceptionInstance_Check(error)) {
        PyErr_SetString(PyExc_TypeError, "abandon() takes an exception instance");
        return NULL;
    }
    if (!engine->dead && engine->epoch == engine->state->fork_epoch && engine->abandoned == NULL) {
        engine->closed = true;
        engine->abandoned = Py_NewRef(error);
        for (unsigned i = 0; i < engine->worker_count; i++) {
            if (engine->workers[i].peer.pidfd >= 0)
                shoal_peer_signal(&engine->workers[i].peer, number);
        }
        if (engine_workers_gone(engine))
            engine_fail_all(engine, error);
        progress_nudge(engine);
        engine_after_drain(engine);
    }
    Py_RETURN_NONE;
}

PyObject *engine_fail(struct engine *engine, PyObject *error)
{
    if (engine->dead || engine_check_process(engine) < 0) {
        PyErr_Clear();
        Py_RETURN_NONE;
    }
    engine_break(engine, error);
    engine_after_drain(engine);
    Py_RETURN_NONE;
}

PyObject *engine_close(struct engine *engine, PyObject *Py_UNUSED(ignored))
{
    engine->closed = true;
    if (!engine->dead && engine->epoch == engine->state->fork_epoch)
        meters_drained(engine);
    if (!engine->dead && engine->open && engine->epoch == engine->state->fork_epoch) {
        if (engine_all_done(engine) && engine->groups == NULL)
            engine_stop_workers(engine);
        else
            progress_nudge(engine);
    }
    Py_RETURN_NONE;
}

PyObject *engine_close_if_idle(struct engine *engine, PyObject *Py_UNUSED(ignored))
{
    if (engine->dead || engine->closed || !engine->open || engine->epoch != engine->state->fork_epoch ||
        engine->engaged > 0 || engine->submitting > 0 || engine->groups != NULL || !engine_all_done(engine))
        Py_RETURN_FALSE;
    engine->closed = true;
    engine_stop_workers(engine);
    progress_nudge(engine); /* it buries them */
    Py_RETURN_TRUE;
}

/* The first lazy group whose input join() has to pull, or NULL: the others do so themselves. */
static struct shoal_group *group_to_pull(struct engine *engine)
{
    struct shoal_group *group = engine->groups;
    while (group != NULL && (group->fed || group->bounded))
        group = group->next;
    return group;
}

static bool done_or_room(void *arg)
{
    struct engine *engine = arg;
    const struct shoal_group *group = group_to_pull(engine);
    if (group != NULL && group->stalled != NULL)
        return group->arrived == group->total;
    if (group != NULL)
        return group_has_much_room(group);
    return engine->groups == NULL && engine_all_done(engine);
}

/* Tasks that are still to be pulled from lazy inputs, then those in flight. 1 done, 0 deadline, -1 exception. */
static int finish_work(struct engine *engine, int64_t deadline_ns)
{
    for (struct shoal_group *fed = engine->groups; fed != NULL; fed = fed->next) {
        if (fed->fed && !fed->bounded)
            group_pull(&fed->owner);
    }
    for (;;) {
        struct shoal_group *group = engine->dead ? NULL : group_to_pull(engine);
        int pulled = 0;
        if (group != NULL) {
            Py_INCREF(group);
            pulled = group_pull(&group->owner);
            Py_DECREF(group);
        }
        if (pulled < 0)
            return -1;
        if (pulled > 0)
            continue;
        int waited = engine_wait(engine, done_or_room, engine, deadline_ns);
        if (waited <= 0 || group_to_pull(engine) == NULL)
            return waited;
    }
}

PyObject *engine_join(struct engine *engine, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"timeout", NULL};
    PyObject *timeout = NULL;
    int64_t deadline;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:join", names, &timeout) ||
        timeout_to_deadline(timeout, &deadline) < 0)
        return NULL;
    if (engine->dead) {
        hear_finish(engine);
        Py_RETURN_TRUE;
    }
    if (engine_check_process(engine) < 0)
        return NULL;
    if (engine->open && !engine->closed && engine->broken == NULL) {
        PyErr_SetString(PyExc_ValueError, "Pool is still running");
        return NULL;
    }
    if (engine_buries_here(engine)) {
        PyErr_SetString(PyExc_RuntimeError, "join() from a handler that interrupts the replacement of a worker");
        return NULL;
    }
    int done = finish_work(engine, deadline);
    if (done > 0 && !engine->dead) {
        engine_stop_workers(engine);
        done = engine_reap_workers(engine, deadline);
    }
    if (done < 0)
        return NULL;
    if (done == 0)
        Py_RETURN_FALSE;
    engine_destroy(engine);
    engine_after_drain(engine);
    hear_finish(engine);
    Py_RETURN_TRUE;
}

static void engine_unlist(struct engine *engine)
{
    for (struct engine **link = &engine->state->engines; *link != NULL; link = &(*link)->next) {
        if (*link == engine) {
            *link = engine->next;
            return;
        }
    }
}

void engine_dealloc(struct engine *engine)
{
    PyTypeObject *type = Py_TYPE(engine);
    PyObject_GC_UnTrack(engine);
    bool ours = engine->epoch == engine->state->fork_epoch;
    if (ours && !engine->dead && engine->workers != NULL) { /* dropped without close: nobody wants results */
        engine_kill_workers(engine);
        end_workers_left(engine);
        if (engine->queue != NULL && engine->entries != NULL)
            engine_fail_all(engine, PyExc_RuntimeError);
    }
    engine_destroy(engine);
    engine_free_waiters(engine);
    engine_unlist(engine);
    while (engine->trash_count > 0)
        Py_DECREF(engine->trash[--engine->trash_count]);
    PyMem_RawFree(engine->trash);
    PyMem_RawFree(engine->meters_kept);
    trace_free(engine);
    hear_forget(engine);
    arrival_clear(engine, &engine->setup_error);
    if (engine->encoder != NULL)
        shoal_encoder_free(engine->encoder);
    if (engine->decoder != NULL)
        shoal_decoder_free(engine->decoder);
    PyMem_Free(engine->workers);
    PyMem_Free(engine->entries);
    PyMem_Free(engine->tasks.records);
    home_release(engine->home);
    Py_CLEAR(engine->start);
    Py_CLEAR(engine->idle_call);
    Py_CLEAR(engine->task_error);
    Py_CLEAR(engine->inherited);
    Py_CLEAR(engine->ended);
    Py_XDECREF(engine->inheritance.also);
    Py_CLEAR(engine->broken);
    Py_CLEAR(engine->terminated);
    Py_CLEAR(engine->abandoned);
    PyObject *module = engine->module;
    type->tp_free((PyObject *)engine);
    Py_DECREF(type);
    Py_XDECREF(module);
}

int engine_traverse(struct engine *engine, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(engine));
    Py_VISIT(engine->start);
    Py_VISIT(engine->idle_call);
    Py_VISIT(engine->task_error);
    Py_VISIT(engine->inherited);
    Py_VISIT(engine->broken);
    Py_VISIT(engine->terminated);
    Py_VISIT(engine->abandoned);
    return 0;
}


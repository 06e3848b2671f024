/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * start.c - a worker is started, and how often that may fail.
 *
 * The problem: a worker that dies before it has come up may do so each time (its initializer ends the process, Shoal
 * cannot be imported there), and starting one after the other for ever would help nobody. But it may also have been
 * killed from outside, by somebody who kills workers, which says nothing about the next one.
 *
 * The rule: so many deaths in a row by the worker's own doing, and the pool is broken. Deaths by a signal that others
 * send, and those of which nobody knows, count apart: after as many of them there is a pause before each start, and the
 * pool is broken if none comes up for a while (the kernel, for lack of memory, kills each of them). One worker that
 * comes up is enough to begin anew.
 */
#include "engine.h"

#include <errno.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <shoal/killpoint.h>

#define FAILED_STARTS_MAX(engine) (3u * (engine)->worker_count + 3u)
#define KILLED_PAUSE_NS INT64_C(200000000)
#ifdef SHOAL_KILL_POINTS
#define KILLED_LONG_ENOUGH_NS INT64_C(2000000000)
#else
#define KILLED_LONG_ENOUGH_NS INT64_C(30000000000)
#endif

/* ---- how often it may fail ---- */

static bool killed_by_others(const struct shoal_peer_exit *end)
{
    return !end->known || end->signal == SIGKILL || end->signal == SIGTERM || end->signal == SIGHUP ||
           end->signal == SIGINT || end->signal == SIGQUIT;
}

void engine_start_failed(struct engine *engine, const struct shoal_peer_exit *end)
{
    if (!killed_by_others(end)) {
        engine->failed_starts++;
        return;
    }
    int64_t now = shoal_now_ns();
    if (engine->killed_starts++ == 0)
        engine->killed_since_ns = now;
    if (engine->killed_starts > FAILED_STARTS_MAX(engine))
        engine->start_after_ns = now + KILLED_PAUSE_NS;
}

void engine_start_succeeded(struct engine *engine)
{
    engine->failed_starts = engine->killed_starts = 0;
    engine->start_after_ns = 0;
}

bool engine_starts_in_vain(struct engine *engine)
{
    return engine->failed_starts > FAILED_STARTS_MAX(engine) ||
           (engine->killed_starts > FAILED_STARTS_MAX(engine) &&
            shoal_now_ns() - engine->killed_since_ns > KILLED_LONG_ENOUGH_NS);
}

bool engine_may_start(struct engine *engine)
{
    if (engine->start_after_ns == 0 || shoal_now_ns() >= engine->start_after_ns)
        return true;
    engine->deaths_pending = true; /* look again, then */
    return false;
}

/* ---- the start ---- */

/* Take hold of the process that `start` has made: `started` (stolen; NULL: an exception is set) is what it returned. */
static int watch(struct engine *engine, unsigned index, PyObject *started)
{
    struct worker *worker = &engine->workers[index];
    int pid, status_fd = -1;
    if (started == NULL)
        return -1;
    int parsed = PyTuple_Check(started) ? PyArg_ParseTuple(started, "ii", &pid, &status_fd)
                                        : (pid = (int)PyLong_AsLong(started)) != -1 || !PyErr_Occurred();
    Py_DECREF(started);
    if (!parsed)
        return -1;
    worker->status_fd = status_fd;
    PyObject *number = PyLong_FromLong(pid);
    if (number == NULL || (engine->ended != NULL && PyDict_DelItem(engine->ended, number) < 0)) /* of an earlier one */
        PyErr_Clear();
    Py_XDECREF(number);
    int error = shoal_peer_open((pid_t)pid, &worker->peer);
    if (error == 0)
        return 0;
    if (error == -ESRCH) {
        /* Dead and reaped already, by somebody else. What it may have handed in counts as that of any dead worker. */
        worker->peer.pid = pid;
        worker->peer.pidfd = eventfd(1, EFD_CLOEXEC);
        worker->stillborn = true;
        if (worker->peer.pidfd >= 0)
            return 0;
        raise_error(-errno, "cannot watch a worker");
    } else {
        kill(pid, SIGKILL);
        if (status_fd < 0)
            waitpid(pid, NULL, 0);
        raise_error(error, "cannot watch a worker");
    }
    engine_close_process(worker);
    return -1;
}

static void about_to_fork(struct engine *engine, unsigned index)
{
    engine->workers[index].stopped = engine->workers[index].retired = false;
    meters_forking(engine, index);
    engine->forking_index = (int)index;
    engine->forking_thread = PyThread_get_thread_ident();
}

PyObject *engine_forking(struct engine *engine, PyObject *index)
{
    long number = PyLong_AsLong(index);
    if (number == -1 && PyErr_Occurred())
        return NULL;
    if (number < 0 || number >= (long)engine->worker_count || engine_check_process(engine) < 0) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_IndexError, "there is no such worker");
        return NULL;
    }
    about_to_fork(engine, (unsigned)number);
    Py_RETURN_NONE;
}

/* `start` has returned this (stolen; NULL: an exception is set) for a worker. -1: the engine was not open yet. */
static int has_started(struct engine *engine, unsigned index, PyObject *started)
{
    struct worker *worker = &engine->workers[index];
    if (watch(engine, index, started) < 0)
        goto failed;
    worker->incarnation++;
    worker->seen_bytes = 0;
    SHOAL_PARENT_POINT("resize: started", shoal_peer_signal(&worker->peer, SIGKILL));
    worker->stopped = false; /* who marked it during the fork could not tell it */
    if (engine->terminated != NULL || engine->broken != NULL) { /* another thread ended the pool during the fork */
        worker->stopped = true;
        shoal_peer_signal(&worker->peer, SIGKILL);
    } else if (worker->damaged) { /* or has read nonsense from it, and could not kill it yet */
        shoal_peer_signal(&worker->peer, SIGKILL);
    } else if (engine->closed && engine->groups == NULL && engine_all_done(engine)) {
        engine_stop_workers(engine);
    } else if (index >= engine->worker_target) { /* or has made it smaller */
        resize_retire(engine, index);
    }
    return 0;
failed:
    shoal_arena_forget(engine->home->arena, engine->workers[index].holder);
    if (!engine->open)
        return -1; /* Engine.start raises it */
    engine->failed_starts++;
    if (engine_starts_in_vain(engine)) {
        PyObject *error_now = owner_fetch_exception();
        engine_break(engine, error_now);
        Py_XDECREF(error_now);
        return 0;
    }
    PyErr_Clear();
    engine->deaths_pending = true;
    return 0;
}

int engine_start_worker(struct engine *engine, unsigned index)
{
    engine_inherit_fork(engine);
    about_to_fork(engine, index);
    PyObject *start = Py_NewRef(engine->start);
    PyObject *started = PyObject_CallFunction(start, "OI", (PyObject *)engine, index);
    Py_DECREF(start);
    engine->forking_index = -1;
    return has_started(engine, index, started);
}

/*
 * All of a new pool, forked with nothing in between: what the parent does after a fork costs it copies of pages, which
 * the next fork takes away again.
 */
int engine_start_several(struct engine *engine, PyObject *several)
{
    PyObject *pids = PyList_New(0);
    if (pids == NULL)
        return -1;
    engine_inherit_fork(engine);
    PyObject *done = PyObject_CallFunction(several, "OIO", (PyObject *)engine, engine->worker_count, pids);
    engine->forking_index = -1;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    int error = done == NULL ? -1 : 0;
    Py_XDECREF(done);
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(pids) && i < (Py_ssize_t)engine->worker_count; i++) {
        if (has_started(engine, (unsigned)i, Py_NewRef(PyList_GET_ITEM(pids, i))) == 0)
            continue;
        error = -1;
        if (type == NULL)
            PyErr_Fetch(&type, &value, &traceback);
        PyErr_Clear();
    }
    Py_DECREF(pids);
    PyErr_Restore(type, value, traceback);
    return error;
}

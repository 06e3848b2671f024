/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * progress.c - submitted work goes on while the parent never calls Shoal.
 *
 * One thread behind a pool, started when something may need the parent while nobody waits (submit, map_async,
 * callbacks; not apply, which waits itself). It has three states:
 *
 *     idle     nothing in flight: sleeps on the workers' pidfds and its own eventfd; without end, or until the memory
 *              that the arena has warm, and that nobody has asked for in a while, has gone back to the system
 *     parked   callers were at work a moment ago: looks again in PARK_NS
 *     attends  sleeps on the pool's bell, lazily: workers ring it when they run dry, when their ring is half full, when
 *              they need memory; or, while somebody has callbacks, like a caller: for each result
 *
 * A call with large data starts it, too, if only to be idle.
 *
 * A caller that is about to sleep on the bell itself sends it from "attends" to "parked" first.
 */
#include "engine.h"
#include "inbox.h"

#include <stdint.h>
#include <time.h>
#include <unistd.h>

#define PARK_NS 2000000     /* 2 ms: how long results may lie while callers come and go */
#define BEHIND_NS 10000000  /* 10 ms: a caller sleeps on the bell; look whether it still does */
#define LINGER_NS 100000000 /* 100 ms after the last task: then idle */

static void wake(struct engine *engine)
{
    uint64_t one = 1;
    ssize_t ignored = write(engine->progress_fd, &one, sizeof one);
    (void)ignored; /* a full counter is a wake as well */
}

static void clear_wake(struct engine *engine)
{
    uint64_t count;
    ssize_t ignored = read(engine->progress_fd, &count, sizeof count);
    (void)ignored;
}

static bool look_after(struct engine *engine)
{
    int taken = engine_drain(engine);
    if (engine->deaths_pending)
        engine_bury_dead(engine);
    engine_look_closer(engine);
    if (engine->waiting != NULL)
        engine_wake_waiting(engine);
    engine->progress_in_callbacks = true;
    engine_after_drain(engine);
    engine->progress_in_callbacks = false;
    if (engine->closed && engine_all_done(engine) && engine->groups == NULL && !engine->dead) {
        engine_stop_workers(engine);
        if (engine_workers_gone(engine)) {
            engine_destroy(engine); /* nobody may ever call join() */
            engine_after_drain(engine);
        }
    }
    return taken > 0;
}

static void sleep_and_report(struct engine *engine, enum shoal_urgency urgency, int64_t deadline_ns)
{
    if (engine->limits_ns != INT64_MAX && (deadline_ns < 0 || engine->limits_ns < deadline_ns))
        deadline_ns = engine->limits_ns;
    engine->progress_until_ns = deadline_ns < 0 ? INT64_MAX : deadline_ns;
    if (engine_sleep(engine, urgency, engine->progress_fd, deadline_ns, ENGINE_ANY_TAKES) < 0)
        report_unraisable((PyObject *)engine);
    engine->progress_until_ns = INT64_MIN;
    clear_wake(engine);
}

/* Nothing was asked for in a while, which is what somebody wanted to know. */
static void tell_idle(struct engine *engine)
{
    PyObject *call = Py_NewRef(engine->idle_call);
    engine->progress_in_callbacks = true;
    PyObject *done = PyObject_CallNoArgs(call);
    engine->progress_in_callbacks = false;
    if (done == NULL)
        report_unraisable(call);
    Py_XDECREF(done);
    Py_DECREF(call);
}

PyObject *engine_when_idle(struct engine *engine, PyObject *args)
{
    double seconds;
    PyObject *callback;
    if (!PyArg_ParseTuple(args, "dO:when_idle", &seconds, &callback) || engine_check(engine) < 0)
        return NULL;
    engine->idle_after_ns = seconds < 9.0e9 ? (int64_t)(seconds * 1e9) : INT64_MAX / 2;
    Py_XSETREF(engine->idle_call, Py_NewRef(callback));
    progress_nudge(engine);
    Py_RETURN_NONE;
}

/* Until somebody calls for progress. Calls that wait for themselves come and go meanwhile. */
static void idle(struct engine *engine)
{
    engine->progress_called = false;
    engine->progress_idle = true;
    int64_t since = shoal_now_ns();
    uint64_t submitted = engine->submitted;
    while (!engine->progress_called && !engine->progress_stop && !engine->dead) {
        struct home *home = engine->home;
        uint64_t uses = home->uses;
        engine->progress_timed |= home_cached_bytes(home) > 0;
        int64_t deadline = engine->progress_timed ? shoal_now_ns() + home->idle_ns : -1;
        int64_t tell_at = engine->idle_call == NULL || engine->closed ? INT64_MAX : since + engine->idle_after_ns;
        if (tell_at != INT64_MAX && (deadline < 0 || tell_at < deadline)) {
            sleep_and_report(engine, SHOAL_AWAKE, tell_at);
            if (shoal_now_ns() >= tell_at) {
                bool idle = engine->submitted == submitted && engine_all_done(engine);
                since = shoal_now_ns();
                submitted = engine->submitted;
                if (idle && engine->idle_call != NULL)
                    tell_idle(engine);
                continue;
            }
        } else {
            sleep_and_report(engine, SHOAL_AWAKE, deadline);
        }
        if (deadline >= 0 && shoal_now_ns() >= deadline) {
            if (home->uses != uses || !engine_all_done(engine))
                continue;
            home_give_back(home);
            engine->progress_timed = false;
        } else if (engine->deaths_pending && !engine->someone_drains && !engine->progress_stop && !engine->dead) {
            look_after(engine);
            if (!engine_all_done(engine))
                break;
        }
    }
    engine->progress_idle = false;
}

static void progress_loop(struct engine *engine)
{
    if (engine->progress_tends)
        idle(engine);
    uint64_t drains_seen = engine->drains;
    int64_t idle_since = shoal_now_ns();
    while (!engine->progress_stop && !engine->dead) {
        bool others = engine->drains != drains_seen && engine->bridged == 0; /* those wait for nobody but us */
        bool callers = engine->someone_drains || others;
        int64_t now = shoal_now_ns();
        if (!callers && look_after(engine))
            callers = engine->watched == 0 && engine->bridged == 0; /* do not wake for each single result */
        else if (now >= engine->limits_ns)
            limits_look(engine);
        drains_seen = engine->drains;
        if (engine->progress_stop || engine->dead)
            break;
        bool done = engine_all_done(engine) && !engine_sweeps(engine);
        if (!done)
            idle_since = now;
        if (done && now - idle_since > LINGER_NS) {
            idle(engine);
            idle_since = shoal_now_ns();
        } else if (callers || engine->someone_drains || inbox_attends(engine)) {
            bool behind = engine->someone_drains || inbox_attends(engine);
            sleep_and_report(engine, SHOAL_AWAKE, now + (behind ? BEHIND_NS : PARK_NS));
        } else {
            engine->progress_attends = true;
            bool urgent = engine->watched > 0 || engine->bridged > 0;
            sleep_and_report(engine, urgent ? SHOAL_URGENT : SHOAL_LAZY, now + LINGER_NS);
            engine->progress_attends = false;
        }
    }
}

static void close_fd(struct engine *engine)
{
    if (engine->progress_fd >= 0)
        close(engine->progress_fd);
    engine->progress_fd = -1;
}

static void progress_main(void *arg)
{
    struct engine *engine = arg;
    engine->progress_thread = PyThread_get_thread_ident();
    progress_loop(engine);
    engine->progress_runs = false;
    if (engine->progress_stop)
        close_fd(engine);
    Py_DECREF(engine);
}

static void start(struct engine *engine, bool tends)
{
    if (engine->progress_runs || engine->progress_stop || engine->dead)
        return;
    engine->progress_runs = true;
    engine->progress_tends = tends;
    Py_INCREF(engine);
    if (thread_start(engine->state, "shoal-progress", progress_main, engine) < 0) {
        engine->progress_runs = false; /* callers still drain when they wait; only unattended progress is lost */
        Py_DECREF(engine);
    }
}

void progress_nudge(struct engine *engine)
{
    engine->progress_called = true;
    if (engine->progress_idle)
        wake(engine);
    start(engine, false);
}

void progress_look_by(struct engine *engine, int64_t at_ns)
{
    if (at_ns < engine->progress_until_ns && engine->progress_runs)
        wake(engine);
    else if (!engine->progress_runs)
        progress_nudge(engine);
}

void progress_tend(struct engine *engine, uint64_t bytes)
{
    engine->home->uses++;
    if (bytes < PROGRESS_TENDS_BYTES)
        return;
    if (engine->progress_idle && !engine->progress_timed)
        wake(engine);
    engine->progress_timed = true;
    start(engine, true);
}

void progress_attend(struct engine *engine)
{
    progress_nudge(engine);
    if (engine->progress_runs && !engine->progress_attends && !engine->someone_drains)
        wake(engine);
}

void progress_yield(struct engine *engine)
{
    if (engine->progress_attends)
        wake(engine);
}

void progress_stop(struct engine *engine)
{
    engine->progress_stop = true;
    while (engine->progress_runs && !engine->progress_in_callbacks &&
           engine->progress_thread != PyThread_get_thread_ident()) {
        wake(engine);
        Py_BEGIN_ALLOW_THREADS
        struct timespec pause = {.tv_nsec = 50000};
        nanosleep(&pause, NULL);
        Py_END_ALLOW_THREADS
    }
    if (!engine->progress_runs)
        close_fd(engine);
}

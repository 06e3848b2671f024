/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * wait.c - until something is done.
 *
 * Whoever waits collects: it drains the result rings for everybody, so that a round trip has no thread switch in it.
 * If several threads wait, one drains ("someone_drains") and posts the others when what they wait for is there; when
 * it leaves, it hands the role to one of them. No lock is held: all this is guarded by the GIL, which every sleep
 * releases.
 *
 * Before sleeping: spin for a while, if a worker runs on another CPU than we do, or else yield ours to it; then
 * announce on the bell, look again, block signals, look for signals, and sleep with the old mask in force only during
 * the sleep, so that a Ctrl-C between the look and the sleep is not lost. If other threads have it unblocked, the
 * kernel may give it to one of them, who wakes nobody: so no sleep is long.
 */
#include "engine.h"
#include "inbox.h"

#include <errno.h>
#include <math.h>
#include <sched.h>
#include <semaphore.h>
#include <time.h>

#define SPIN_WITH_GIL_NS 2000
#define SPIN_NS 50000
#define FAILED_SPINS_MAX 4u
#define SPIN_EVERY 8u /* after that many failures in a row, try only so often */
#define SIGNAL_LOOK_NS 50000000 /* a signal that another thread took, or that came just before, is seen after this */
#define LEASES_LOOK_NS 20000000 /* 20 ms: a worker waits for memory, see drain.c */
#define EXTRA_TOKEN UINT64_MAX

struct thread_waiter {
    struct thread_waiter *next;
    unsigned long thread;
    struct shoal_waiter *waiter;
    int extra_fd;
    uint64_t watched[]; /* incarnation of each worker that is watched, 0: none */
};

struct waiting {
    struct waiting *next;
    engine_predicate done;
    void *arg;
    sem_t woken;
};

int timeout_to_deadline(PyObject *timeout, int64_t *ret_deadline_ns)
{
    *ret_deadline_ns = -1;
    if (timeout == NULL || timeout == Py_None)
        return 0;
    double seconds = PyFloat_AsDouble(timeout);
    if (seconds == -1.0 && PyErr_Occurred())
        return -1;
    if (isnan(seconds)) {
        PyErr_SetString(PyExc_ValueError, "timeout is not a number");
        return -1;
    }
    if (seconds >= 9.0e9)
        return 0;
    *ret_deadline_ns = shoal_now_ns() + (seconds > 0 ? (int64_t)(seconds * 1e9) : 0);
    return 0;
}

/* ---- the waiter of this thread ---- */

static struct thread_waiter *own_waiter(struct engine *engine)
{
    unsigned long thread = PyThread_get_thread_ident();
    for (struct thread_waiter *own = engine->waiters; own != NULL; own = own->next) {
        if (own->thread == thread)
            return own;
    }
    struct thread_waiter *own = PyMem_Calloc(1, sizeof *own + engine->worker_max * sizeof own->watched[0]);
    if (own == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    int error = shoal_waiter_create(engine->doorbell, &own->waiter);
    if (error < 0) {
        PyMem_Free(own);
        raise_error(error, "cannot make a doorbell to sleep on");
        return NULL;
    }
    own->thread = thread;
    own->extra_fd = -1;
    own->next = engine->waiters;
    engine->waiters = own;
    return own;
}

static void drop_waiter(struct engine *engine, struct thread_waiter *gone)
{
    for (struct thread_waiter **link = &engine->waiters; *link != NULL; link = &(*link)->next) {
        if (*link != gone)
            continue;
        *link = gone->next;
        if (engine->epoch == engine->state->fork_epoch)
            shoal_waiter_free(gone->waiter);
        else
            shoal_waiter_abandon(gone->waiter);
        PyMem_Free(gone);
        return;
    }
}

void engine_free_waiters(struct engine *engine)
{
    while (engine->waiters != NULL)
        drop_waiter(engine, engine->waiters);
}

/* Watch the workers of today, and the extra descriptor. */
static int update_watches(struct engine *engine, struct thread_waiter *own, int extra_fd)
{
    int error = 0;
    for (unsigned i = 0; i < engine->worker_most && error >= 0; i++) {
        struct worker *worker = &engine->workers[i];
        uint64_t now = worker->peer.pidfd >= 0 ? worker->incarnation : 0;
        if (own->watched[i] == now)
            continue;
        if (own->watched[i] != 0)
            shoal_waiter_unwatch(own->waiter, i);
        own->watched[i] = 0;
        if (now != 0) {
            error = shoal_waiter_watch(own->waiter, worker->peer.pidfd, i);
            own->watched[i] = error < 0 ? 0 : now;
        }
    }
    if (error >= 0 && own->extra_fd != extra_fd) {
        if (own->extra_fd >= 0)
            shoal_waiter_unwatch(own->waiter, EXTRA_TOKEN);
        own->extra_fd = -1;
        if (extra_fd >= 0)
            error = shoal_waiter_watch(own->waiter, extra_fd, EXTRA_TOKEN);
        own->extra_fd = error < 0 ? -1 : extra_fd;
    }
    return error < 0 ? raise_error(error, "cannot watch the workers") : 0;
}

/* ---- sleeping ---- */

bool engine_has_arrivals(const struct engine *engine)
{
    for (unsigned i = 0; i < engine->worker_count; i++) {
        if (!engine->workers[i].damaged && shoal_ring_used(engine->workers[i].results) > 0)
            return true;
    }
    return false;
}

static bool something_arrived(void *arg)
{
    return engine_has_arrivals(arg);
}

int engine_sleep(struct engine *engine, enum shoal_urgency urgency, int extra_fd, int64_t deadline_ns, uint64_t takes)
{
    struct thread_waiter *own = own_waiter(engine);
    if (own == NULL || update_watches(engine, own, extra_fd) < 0)
        return -1;
    struct shoal_doorbell *bell = urgency == SHOAL_AWAKE ? NULL : shoal_taskqueue_owner_bell(engine->queue);
    uint64_t announcement = 0;
    uint32_t ticket = 0;
    if (bell != NULL) {
        announcement = ++engine->announcements;
        ticket = shoal_doorbell_announce(bell, urgency);
    }
    int happened = 0;
    int error = 0;
    if (bell == NULL || !something_arrived(engine)) {
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_BLOCK, &all, &before);
        error = PyErr_CheckSignals();
        /* While we spun, or in a handler, another thread may have taken what we wait for. */
        bool taken = takes != ENGINE_ANY_TAKES && takes != engine->takes;
        if (error == 0 && !taken && !engine->dead) { /* dead: a handler has terminated the pool, nothing is left */
            engine->inside++;
            Py_BEGIN_ALLOW_THREADS
            happened = shoal_waiter_wait(own->waiter, bell, ticket, deadline_ns, &before);
            Py_END_ALLOW_THREADS
            engine->inside--;
        }
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    if (bell != NULL && engine->announcements == announcement && !engine->dead)
        shoal_doorbell_retract(bell);
    if (happened == -EINTR)
        error = PyErr_CheckSignals();
    else if (happened == -EEXIST)
        drop_waiter(engine, own); /* made by a thread that has ended and whose identifier we have now */
    else if (happened < 0)
        error = raise_error(happened, "cannot sleep");
    else if (happened & SHOAL_WAIT_FD)
        engine->deaths_pending = true;
    return error < 0 ? -1 : 0;
}

void engine_await_nobody_inside(struct engine *engine)
{
    while (engine->inside > 0 || (engine->burying && !engine_buries_here(engine))) {
        shoal_doorbell_ring(shoal_taskqueue_owner_bell(engine->queue), SHOAL_LAZY);
        Py_BEGIN_ALLOW_THREADS
        struct timespec pause = {.tv_nsec = 50000};
        nanosleep(&pause, NULL);
        Py_END_ALLOW_THREADS
    }
}

/* ---- spinning ---- */

static bool spin_until(struct engine *engine, int64_t end_ns)
{
    for (unsigned round = 0;; round++) {
        if (something_arrived(engine))
            return true;
        if (round % 16 == 15 && (shoal_now_ns() >= end_ns || !shoal_taskqueue_worker_elsewhere(engine->queue)))
            return false;
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#endif
    }
}

/* The worker is on our CPU: let it run. */
static bool give_way(struct engine *engine)
{
    bool arrived;
    engine->inside++;
    Py_BEGIN_ALLOW_THREADS
    arrived = shoal_taskqueue_give_way(engine->queue, something_arrived, engine);
    Py_END_ALLOW_THREADS
    engine->inside--;
    return arrived;
}

static bool spin(struct engine *engine, int64_t deadline_ns)
{
    if (engine->in_flight == 0)
        return false;
    if (!shoal_taskqueue_worker_elsewhere(engine->queue))
        return give_way(engine);
    if (engine->failed_spins >= FAILED_SPINS_MAX && engine->failed_spins % SPIN_EVERY != 0) {
        engine->failed_spins++;
        return false;
    }
    int64_t now = shoal_now_ns();
    bool arrived = spin_until(engine, now + SPIN_WITH_GIL_NS);
    if (!arrived) {
        int64_t end = now + SPIN_NS;
        if (deadline_ns >= 0 && deadline_ns < end)
            end = deadline_ns;
        engine->inside++;
        Py_BEGIN_ALLOW_THREADS
        arrived = spin_until(engine, end);
        Py_END_ALLOW_THREADS
        engine->inside--;
    }
    engine->failed_spins = arrived ? 0 : engine->failed_spins + 1;
    return arrived;
}

/* ---- many who wait ---- */

void engine_wake_waiting(struct engine *engine)
{
    for (struct waiting *other = engine->waiting; other != NULL; other = other->next) {
        if (engine->dead || other->done(other->arg))
            sem_post(&other->woken);
    }
}

void engine_news(struct engine *engine)
{
    engine_wake_waiting(engine);
    if (engine->someone_drains && engine->queue != NULL)
        shoal_doorbell_ring(shoal_taskqueue_owner_bell(engine->queue), SHOAL_LAZY);
}

static void hand_over(struct engine *engine)
{
    if (engine->waiting != NULL && !engine->someone_drains)
        sem_post(&engine->waiting->woken);
    else if (engine->inboxes != NULL && !engine->dead)
        inboxes_take_over(engine);
}

static int follow(struct engine *engine, engine_predicate done, void *arg, int64_t deadline_ns)
{
    struct waiting self = {.next = engine->waiting, .done = done, .arg = arg};
    sem_init(&self.woken, 0, 0);
    engine->waiting = &self;
    int64_t until = shoal_now_ns() + SIGNAL_LOOK_NS;
    if (deadline_ns >= 0 && deadline_ns < until)
        until = deadline_ns;
    struct timespec at = {.tv_sec = until / 1000000000, .tv_nsec = until % 1000000000};
    Py_BEGIN_ALLOW_THREADS
    sem_clockwait(&self.woken, CLOCK_MONOTONIC, &at);
    Py_END_ALLOW_THREADS
    for (struct waiting **link = &engine->waiting; *link != NULL; link = &(*link)->next) {
        if (*link == &self) {
            *link = self.next;
            break;
        }
    }
    sem_destroy(&self.woken);
    return PyErr_CheckSignals();
}

/* The caller's deadline, or when to look again without having been rung. */
static int64_t sleep_until(const struct engine *engine, int64_t deadline_ns)
{
    int64_t look = shoal_now_ns() + (engine->leases_wanted ? LEASES_LOOK_NS : SIGNAL_LOOK_NS);
    if (engine->limits_ns < look)
        look = engine->limits_ns;
    if (engine->deaths_pending && engine->start_after_ns != 0 && engine->start_after_ns < look)
        look = engine->start_after_ns;
    return deadline_ns >= 0 && deadline_ns < look ? deadline_ns : look;
}

void engine_take_all(struct engine *engine)
{
    engine_drain(engine);
    if (engine->deaths_pending)
        engine_bury_dead(engine);
    engine_look_closer(engine);
    if (engine->waiting != NULL)
        engine_wake_waiting(engine);
    engine_after_drain(engine);
}

int engine_wait(struct engine *engine, engine_predicate done, void *arg, int64_t deadline_ns)
{
    int result = 0;
    for (;;) {
        engine_take_all(engine);
        result = 1;
        uint64_t takes = engine->takes;
        if (done(arg) || engine->dead)
            break;
        result = 0;
        if (deadline_ns >= 0 && shoal_now_ns() >= deadline_ns)
            break;
        if (engine->someone_drains) {
            result = follow(engine, done, arg, deadline_ns);
        } else {
            engine->someone_drains = true;
            if (!spin(engine, deadline_ns)) {
                progress_yield(engine);
                result = engine_sleep(engine, SHOAL_URGENT, -1, sleep_until(engine, deadline_ns), takes);
            }
            engine->someone_drains = false;
        }
        if (result < 0)
            break;
    }
    hand_over(engine);
    return result;
}

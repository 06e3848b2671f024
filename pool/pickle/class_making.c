/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * class_making.c - a class that several threads receive at once is made by one of them.
 *
 * The problem: making a class runs its hooks (metaclass, __init_subclass__, __set_name__), which are Python and may let
 * another thread go on; that thread may receive the same class, not find it, and make it, too: hooks would run twice.
 *
 * The protocol: who does not find a class enters that it is making it. Who finds that entered waits until it is over,
 * looks again, and makes the class itself if it is still not there (the first has failed). Everything happens under the
 * GIL; for the waiting it is released.
 *
 * Whoever would wait for itself does not, and makes the class, too; the one that is ready first then counts:
 *
 *   the hook of a class loads that class           known by the thread
 *   two threads whose hooks load each other's      known by following who waits for whom
 *   a hook waits for a thread that loads the       cannot be known. Such a thread mostly was started by the hook: one
 *   class                                          that is younger than the making has little patience. Others, that
 *                                                  got the work by a queue, have more, but it ends
 *
 * Guarantees: hooks run once, unless they take longer than that; no wait is for ever. In a forked child nobody waits
 * for a thread of the parent. Cost: an allocation for each class that is made; nothing for one that is here.
 */
#include "class_making.h"

#include "pythread.h"

#include <time.h>

enum { PATIENCE_OF_YOUNG_S = 1, PATIENCE_S = 30, MICROSECONDS = 1000000, CHAIN_MAX = 1000 };

struct shoal_making {
    struct shoal_making *next;
    PyObject *mark;
    unsigned long thread;    /* that makes it */
    uint64_t newest;         /* id of the youngest thread there was when it began */
    PyThread_type_lock over; /* held until it is */
    int users;
};

/* A thread that waits; on its stack. */
struct shoal_waiting {
    struct shoal_waiting *next;
    unsigned long thread;
    const struct shoal_making *making;
};

static void release(struct shoal_making *making)
{
    if (--making->users > 0)
        return;
    PyThread_free_lock(making->over);
    Py_DECREF(making->mark);
    PyMem_Free(making);
}

/* Another thread's, of the same identity; borrowed. *ret_own: this thread is making one, too. */
static struct shoal_making *find(const struct shoal_pickle_state *state, PyObject *mark, bool *ret_own)
{
    struct shoal_making *found = NULL;
    *ret_own = false;
    for (struct shoal_making *making = state->making; making; making = making->next) {
        if (memcmp(PyBytes_AS_STRING(making->mark), PyBytes_AS_STRING(mark), CLASS_IDENTITY_SIZE) != 0)
            continue;
        if (making->thread == PyThread_get_thread_ident())
            *ret_own = true;
        else
            found = making;
    }
    return found;
}

static const struct shoal_making *waited_for(const struct shoal_pickle_state *state, unsigned long thread)
{
    const struct shoal_waiting *waiting = state->waiting;
    while (waiting && waiting->thread != thread)
        waiting = waiting->next;
    return waiting ? waiting->making : NULL;
}

/* Does who makes it wait, through whomever, for this thread? */
static bool waits_for_me(const struct shoal_pickle_state *state, const struct shoal_making *making)
{
    for (int step = 0; making && step < CHAIN_MAX; step++) {
        making = waited_for(state, making->thread);
        if (making && making->thread == PyThread_get_thread_ident())
            return true;
    }
    return false;
}

static uint64_t newest_thread(void)
{
    return PyThreadState_GetID(PyInterpreterState_ThreadHead(PyInterpreterState_Get())); /* they are put in front */
}

static int64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * MICROSECONDS + now.tv_nsec / 1000;
}

static bool is_entered(const struct shoal_pickle_state *state, const struct shoal_making *making)
{
    const struct shoal_making *entered = state->making;
    while (entered && entered != making)
        entered = entered->next;
    return entered;
}

/* 1: it is over; 0: patience is; -1: a signal handler has raised. */
static int wait_for(struct shoal_pickle_state *state, struct shoal_making *making)
{
    bool young = PyThreadState_GetID(PyThreadState_Get()) > making->newest;
    int64_t deadline = now_us() + (int64_t)(young ? PATIENCE_OF_YOUNG_S : PATIENCE_S) * MICROSECONDS;
    for (;;) {
        int64_t left = deadline - now_us();
        PyLockStatus status;
        Py_BEGIN_ALLOW_THREADS
        status = PyThread_acquire_lock_timed(making->over, left > 0 ? left : 0, 1);
        Py_END_ALLOW_THREADS
        if (status == PY_LOCK_ACQUIRED)
            PyThread_release_lock(making->over); /* for the next one that waits */
        if (status != PY_LOCK_INTR)
            return status == PY_LOCK_ACQUIRED;
        if (PyErr_CheckSignals() < 0)
            return -1;
        if (!is_entered(state, making)) /* the handler has forked: nobody will end it here */
            return 1;
    }
}

static int wait_in_line(struct shoal_pickle_state *state, struct shoal_making *making)
{
    struct shoal_waiting waiting = {state->waiting, PyThread_get_thread_ident(), making};
    state->waiting = &waiting;
    making->users++;
    int result = wait_for(state, making);
    struct shoal_waiting **link = &state->waiting;
    while (*link && *link != &waiting)
        link = &(*link)->next;
    if (*link) /* else a signal handler has forked, and this is the child */
        *link = waiting.next;
    release(making);
    return result;
}

static struct shoal_making *enter(struct shoal_pickle_state *state, PyObject *mark)
{
    struct shoal_making *making = PyMem_Malloc(sizeof *making);
    PyThread_type_lock over = making ? PyThread_allocate_lock() : NULL;
    if (!over) {
        PyMem_Free(making);
        PyErr_NoMemory();
        return NULL;
    }
    PyThread_acquire_lock(over, NOWAIT_LOCK);
    *making = (struct shoal_making){
        .next = state->making,
        .mark = Py_NewRef(mark),
        .thread = PyThread_get_thread_ident(),
        .newest = newest_thread(),
        .over = over,
        .users = 1,
    };
    return state->making = making;
}

int shoal__making_begin(struct shoal_pickle_state *state, PyObject *mark, struct shoal_making **ret_making)
{
    bool own;
    struct shoal_making *other = find(state, mark, &own);
    if (other && !own && !waits_for_me(state, other)) {
        int result = wait_in_line(state, other);
        if (result != 0)
            return result < 0 ? -1 : 0;
    }
    struct shoal_making *making = enter(state, mark);
    if (!making)
        return -1;
    *ret_making = making;
    return 1;
}

void shoal__making_end(struct shoal_pickle_state *state, struct shoal_making *making)
{
    struct shoal_making **link = &state->making;
    while (*link != making)
        link = &(*link)->next;
    *link = making->next;
    PyThread_release_lock(making->over);
    release(making);
}

void shoal__makings_after_fork(struct shoal_pickle_state *state)
{
    state->waiting = NULL;
    for (struct shoal_making **link = &state->making; *link;) {
        struct shoal_making *making = *link;
        if (making->thread == PyThread_get_thread_ident()) {
            link = &making->next;
        } else {
            *link = making->next; /* the memory stays: who waited for it in the middle of a handler may use it yet */
        }
    }
}

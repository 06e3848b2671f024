/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * thread.c - threads of ours: the one behind a pool (progress.c), and those that pull inputs (group_feed.c).
 *
 * The problem: a fork copies memory as it is. A thread that has done its work still ends: it gives back its memory and
 * leaves the tables of whatever allocator the process has. If another thread forks just then, the child has the locks
 * of that for ever, unless the allocator takes care of forks. The C library's does; an address sanitizer's does not,
 * and a worker waited for such a lock, about once in a hundred pools made right after another had ended. Python, from
 * 3.12 on, warns of the thread, too.
 *
 * So our threads can be joined, and those that are through are waited for before this process forks. A thread that has
 * set `ended` needs nothing any more but to give up the GIL, which who waits does not hold.
 */
#include <pthread.h>
#include <signal.h>

#include "module.h"

struct own_thread {
    struct own_thread *next;
    pthread_t handle;
    void (*body)(void *arg);
    void *arg;
    bool ended; /* it only leaves */
    bool alone; /* in no list any more: it frees this itself */
};

static void *thread_main(void *arg)
{
    struct own_thread *thread = arg;
    sigset_t all; /* signals are for the thread that waits for results: here they would interrupt nobody */
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    PyGILState_STATE gil = PyGILState_Ensure();
    thread->body(thread->arg);
    if (thread->alone)
        PyMem_RawFree(thread);
    else
        thread->ended = true;
    PyGILState_Release(gil);
    return NULL;
}

static int create(struct own_thread *thread, const char *name)
{
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0)
        return -1;
    size_t stack = PyThread_get_stacksize(); /* what threading.stack_size() was set to: callbacks run here */
    if (stack > 0)
        pthread_attr_setstacksize(&attributes, stack);
    char own[16] = "";
    pthread_getname_np(pthread_self(), own, sizeof own);
    pthread_setname_np(pthread_self(), name); /* a thread is born with the name of the one that makes it */
    int error = pthread_create(&thread->handle, &attributes, thread_main, thread);
    pthread_setname_np(pthread_self(), own);
    pthread_attr_destroy(&attributes);
    return error == 0 ? 0 : -1;
}

/* Take out of the list those that have left their body, and, if `gone`, are found to have ended altogether. */
static struct own_thread *take_ended(struct module_state *state, bool gone)
{
    struct own_thread *ended = NULL;
    for (struct own_thread **link = &state->threads; *link != NULL;) {
        struct own_thread *thread = *link;
        if (!thread->ended || (gone && pthread_tryjoin_np(thread->handle, NULL) != 0)) {
            link = &thread->next;
            continue;
        }
        *link = thread->next;
        thread->next = ended;
        ended = thread;
    }
    return ended;
}

static void free_all(struct own_thread *thread)
{
    while (thread != NULL) {
        struct own_thread *next = thread->next;
        PyMem_RawFree(thread);
        thread = next;
    }
}

int thread_start(struct module_state *state, const char *name, void (*body)(void *arg), void *arg)
{
    free_all(take_ended(state, true)); /* a stack stays mapped until its thread is joined */
    struct own_thread *thread = PyMem_RawCalloc(1, sizeof *thread);
    if (thread == NULL)
        return -1;
    thread->body = body;
    thread->arg = arg;
    if (create(thread, name) < 0) {
        PyMem_RawFree(thread);
        return -1;
    }
    thread->next = state->threads;
    state->threads = thread;
    return 0;
}

void threads_join_ended(struct module_state *state)
{
    struct own_thread *ended = take_ended(state, false);
    if (ended == NULL)
        return;
    Py_BEGIN_ALLOW_THREADS
    for (struct own_thread *thread = ended; thread != NULL; thread = thread->next)
        pthread_join(thread->handle, NULL);
    Py_END_ALLOW_THREADS
    free_all(ended);
}

void threads_forget(struct module_state *state, bool detach)
{
    while (state->threads != NULL) {
        struct own_thread *thread = state->threads;
        state->threads = thread->next;
        if (detach)
            pthread_detach(thread->handle);
        if (thread->ended)
            PyMem_RawFree(thread);
        else
            thread->alone = true;
    }
}

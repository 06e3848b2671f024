/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fork.c - what a fork of this process means for pools and arena arrays; whoever forks: a pool, multiprocessing, user
 * code.
 *
 * Before: the child is noted as a holder of every block that Python can see here, so that none is used again for
 * something else while the child may look at it. But not of what another thread is just making or taking in: there is
 * no such thread in the child, so nobody has it there, and nobody would ever give it back. A worker's hold ends when it
 * says so or dies. Somebody else's child holds the write end of a pipe: when our end reads its end, the child and its
 * descendants are gone.
 * That is the C library's hook (pthread_atfork), not Python's: between Python's hooks and the fork other code may
 * run, and what it makes then, the child has too, and would keep a private view of memory that is used again.
 * In the child: pools of the parent cannot be used (their methods say so), their descriptors are closed, and the arrays
 * that it inherited are its own: what it writes there nobody else sees.
 */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <unistd.h>

#include "inbox.h"
#include "worker.h"

/* The engine for which this thread forks a worker, or NULL: the fork is somebody else's. Several threads may fork. */
static struct engine *forking_engine(struct module_state *state)
{
    unsigned long self = PyThread_get_thread_ident();
    for (struct engine *engine = state->engines; engine != NULL; engine = engine->next) {
        if (engine->forking_index >= 0 && engine->forking_thread == self && engine->epoch == state->fork_epoch)
            return engine;
    }
    return NULL;
}

/* ---- children that are not our workers ---- */

struct foreign {
    struct foreign *next;
    int read_fd, write_fd; /* write_fd: only until the fork has returned in `thread` */
    unsigned long thread;
    size_t count;
    struct home *home;
    uint64_t offsets[]; /* blocks that we retain for it */
};

static void foreign_free(struct foreign *foreign, bool give_back)
{
    if (foreign->write_fd >= 0)
        close(foreign->write_fd);
    close(foreign->read_fd);
    for (size_t i = 0; i < foreign->count && give_back; i++)
        shoal_arena_release(foreign->home->arena, foreign->offsets[i]);
    home_release(foreign->home);
    PyMem_RawFree(foreign);
}

void foreign_reap(struct module_state *state)
{
    for (struct foreign **link = &state->foreign; *link != NULL;) {
        struct foreign *foreign = *link;
        struct pollfd end = {.fd = foreign->read_fd};
        if (foreign->write_fd >= 0 || poll(&end, 1, 0) == 0) {
            link = &foreign->next;
            continue;
        }
        *link = foreign->next;
        foreign_free(foreign, true);
    }
}

static bool child_will_have(const struct module_state *state, const struct block *block)
{
    return block->home != NULL && block->epoch == state->fork_epoch && !block_is_in_other_hands(block);
}

/* Retain what Python can see here for a child that is about to be forked. False: no memory or descriptor for it. */
static bool foreign_add(struct module_state *state)
{
    size_t count = 0;
    for (struct block *block = state->blocks; block != NULL; block = block->next)
        count += child_will_have(state, block);
    if (count == 0)
        return true;
    struct foreign *foreign = PyMem_RawCalloc(1, sizeof *foreign + count * sizeof foreign->offsets[0]);
    int ends[2];
    if (foreign == NULL || pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0) {
        PyMem_RawFree(foreign);
        return false;
    }
    foreign->read_fd = ends[0];
    foreign->write_fd = ends[1];
    foreign->thread = PyThread_get_thread_ident();
    foreign->home = home_retain(state->home);
    for (struct block *block = state->blocks; block != NULL; block = block->next) {
        if (!child_will_have(state, block))
            continue;
        if (shoal_arena_retain(block->home->arena, block->offset) == 0)
            foreign->offsets[foreign->count++] = block->offset;
    }
    foreign->next = state->foreign;
    state->foreign = foreign;
    return true;
}

static void hold_all(struct module_state *state, unsigned holder)
{
    for (struct block *block = state->blocks; block != NULL; block = block->next) {
        if (child_will_have(state, block))
            shoal_arena_hold(block->home->arena, block->offset, holder);
    }
}

static void note_child(struct module_state *state)
{
    foreign_reap(state);
    struct engine *engine = forking_engine(state);
    if (engine != NULL)
        hold_all(state, engine->workers[engine->forking_index].holder);
    else if (!foreign_add(state))
        hold_all(state, HOME_UNWATCHED_HOLDER);
}

static void close_write_ends(struct module_state *state)
{
    for (struct foreign *foreign = state->foreign; foreign != NULL; foreign = foreign->next) {
        if (foreign->write_fd < 0 || foreign->thread != PyThread_get_thread_ident())
            continue;
        close(foreign->write_fd);
        foreign->write_fd = -1;
    }
}

/* ---- the C library's hooks ---- */

#define MODULES_KEY "shoal._ext.forked" /* in the interpreter's dict: a list, for who imports it once more */

/* Who forks without the GIL cannot be served; no Python code runs in between. */
static void for_each_state(void (*act)(struct module_state *state))
{
    if (!Py_IsInitialized() || !PyGILState_Check() || PyInterpreterState_Get() != PyInterpreterState_Main())
        return;
    PyObject *dict = PyInterpreterState_GetDict(PyInterpreterState_Get()); /* borrowed */
    PyObject *modules = dict == NULL ? NULL : PyDict_GetItemString(dict, MODULES_KEY);
    for (Py_ssize_t i = 0; modules != NULL && i < PyList_GET_SIZE(modules); i++)
        act(PyModule_GetState(PyList_GET_ITEM(modules, i)));
}

static void before_fork(void)
{
    for_each_state(note_child);
}

static void after_fork_in_parent(void)
{
    for_each_state(close_write_ends);
}

int fork_hooks_add(PyObject *module)
{
    PyObject *dict = PyInterpreterState_GetDict(PyInterpreterState_Get());
    PyObject *modules = dict == NULL ? NULL : PyDict_GetItemString(dict, MODULES_KEY);
    if (modules != NULL)
        return PyList_Append(modules, module);
    modules = dict == NULL ? NULL : PyList_New(0);
    int error = modules == NULL ? -1 : PyList_Append(modules, module);
    if (error == 0)
        error = PyDict_SetItemString(dict, MODULES_KEY, modules);
    Py_XDECREF(modules);
    if (error == 0 && pthread_atfork(before_fork, after_fork_in_parent, NULL) != 0) {
        PyErr_NoMemory();
        error = -1;
    }
    return error;
}

/* In the child: it keeps the write end of its own pipe for as long as it lives; the rest is the parent's. */
static void foreign_forget(struct module_state *state)
{
    while (state->foreign != NULL) {
        struct foreign *foreign = state->foreign;
        state->foreign = foreign->next;
        foreign->write_fd = -1;
        foreign_free(foreign, false);
    }
}

/* ---- in the child ---- */

void blocks_make_private(struct module_state *state)
{
    for (struct block *block = state->blocks; block != NULL; block = block->next) {
        if (block->home == NULL || block->kind != BLOCK_INHERITED || block->shadowed != NULL || block->heap != NULL)
            continue;
        struct shoal_region *region = block->home->region;
        if (block->mode == BLOCK_OPEN) /* shared, and stays so */
            block->writable_here = shoal_region_protect(region, block->offset, block_pages(block), true) == 0;
        else if (block->private_here) /* it was in the parent */
            shoal_region_protect(region, block->offset, block_pages(block), true);
        else
            block->private_here = shoal_region_privatize(region, block->offset, block_pages(block)) == 0;
    }
}

static void forget_parents_side(struct engine *engine, bool keep_lifeline)
{
    if (engine->dead)
        return;
    inboxes_forget_parents(engine);
    engine_free_waiters(engine); /* of another epoch: abandoned, the parent's rings are not touched */
    for (unsigned i = 0; i < engine->worker_count; i++)
        engine_close_process(&engine->workers[i]);
    if (!keep_lifeline)
        shoal_lifeline_close(&engine->lifeline);
    if (engine->progress_fd >= 0)
        close(engine->progress_fd);
    engine->progress_fd = -1;
    engine->progress_runs = engine->progress_idle = engine->progress_attends = false;
    engine->progress_stop = true;
    engine->someone_drains = false;
    engine->waiting = NULL;
    engine->inside = 0;
}

/* Not by a hook in Python for each: in a child that has hardly begun each costs copies of ten pages. */
PyObject *module_free_in_children(PyObject *module, PyObject *lock)
{
    struct module_state *state = PyModule_GetState(module);
    if (state->free_in_children == NULL && (state->free_in_children = PyList_New(0)) == NULL)
        return NULL;
    if (PyList_Append(state->free_in_children, lock) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static void free_locks(struct module_state *state)
{
    for (Py_ssize_t i = 0; state->free_in_children != NULL && i < PyList_GET_SIZE(state->free_in_children); i++) {
        PyObject *lock = PyList_GET_ITEM(state->free_in_children, i);
        PyObject *owned = PyObject_CallMethod(lock, "_is_owned", NULL);
        PyObject *freed = owned == Py_False ? PyObject_CallMethod(lock, "_at_fork_reinit", NULL) : NULL;
        if (owned != Py_True && freed == NULL)
            report_unraisable(lock);
        Py_XDECREF(owned);
        Py_XDECREF(freed);
    }
}

PyObject *module_after_fork_child(PyObject *module, PyObject *Py_UNUSED(unused))
{
    struct module_state *state = PyModule_GetState(module);
    struct engine *forking = forking_engine(state);
    struct engine *served = state->serving; /* a task of a worker forked us */
    free_locks(state);
    foreign_forget(state);
    if (state->home != NULL)
        shoal_region_forget_aside(state->home->region);
    threads_forget(state, false);
    uint64_t epoch = state->fork_epoch++;
    for (struct engine *engine = state->engines; engine != NULL; engine = engine->next) {
        if (engine->epoch == epoch)
            forget_parents_side(engine, engine == forking);
    }
    for (struct block *block = state->blocks, *next; block != NULL; block = next) {
        next = block->next;
        if (block_is_in_other_hands(block)) {
            block_forsake(block);
            continue;
        }
        block->kept = forking != NULL && block->home != NULL && block->epoch == epoch;
        block->kind = BLOCK_INHERITED;
        if (block->home == NULL && served != NULL)
            block->home = home_retain(served->home);
    }
    if (served != NULL) { /* the results are the worker's to write, not ours */
        shoal_region_protect(served->home->region, 0, shoal_region_size(served->home->region), false);
        shoal_ring_detach(served->side->own->results);
        served->side->own->results = NULL;
    }
    if (forking == NULL)
        blocks_make_private(state); /* a worker does it when the rest has been made read-only */
    state->home = NULL;             /* stays mapped for what was inherited; a pool made here gets its own */
    state->serving = NULL;
    Py_RETURN_NONE;
}

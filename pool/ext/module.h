/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * module.h - the state of shoal._ext, and the few things that every file of pool/ext needs.
 *
 * pool/ext may use: Python.h, <shoal/...> (what any user of the library gets), ../pickle/pickle.h. Nobody uses pool/ext
 * but Python. Everything here needs the GIL unless it says otherwise.
 */
#ifndef SHOAL_EXT_MODULE_H
#define SHOAL_EXT_MODULE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <shoal/shoal.h>

#ifdef Py_GIL_DISABLED
#error "Shoal does not support free-threaded builds of Python (Py_GIL_DISABLED): use a build with the GIL"
#endif

#include "../pickle/pickle.h"

struct home;
struct engine;
struct foreign;
struct own_thread;

struct module_state {
    struct shoal_pickle_state *pickle;
    struct home *home;         /* this process's region and arena; NULL until first use, and again in a forked child */
    struct block *blocks;      /* every Block object alive in this process, linked: what a fork must know */
    struct interval *blocks_by_address, *blocks_by_offset;
    struct engine *engines;    /* every Engine of this process, linked */
    struct engine *serving;    /* in a worker: the engine that it serves, else NULL */
    struct own_thread *threads; /* those that thread_start made, and that nobody has joined */
    struct foreign *foreign;   /* children that others forked, and the blocks that they may look at */
    int ticks_steady;          /* shoal_ticks_steady(): 1, -1; 0: not asked yet */
    uint64_t fork_epoch;       /* grows by one in each forked child: objects of another epoch are not ours */
    PyTypeObject *engine_type, *item_type, *group_type, *block_type, *view_type, *inherited_type, *imported_type;
    PyTypeObject *submitter_type, *inbox_type;
    PyObject *pool_broken;      /* configured: reason -> exception for what cannot be done any more */
    PyObject *worker_lost;      /* configured by the Python layer: see lost_error */
    PyObject *hear;             /* (message, worker) */
    PyObject *task_error;       /* configured: payload -> exception */
    PyObject *task_timeout;     /* configured: (seconds, pid or 0) -> exception; the process is about to be killed */
    PyObject *forking_reducers; /* configured: dict type -> reducer, live */
    PyObject *handle_type, *handle_reducer; /* configured: shoal._shared.Shared, and how it travels in a pool */
    PyObject *make_carried; /* configured: Block -> handle that arrives as a copy */
    PyObject *opener;       /* configured: (enum handle_place, object) -> the same with handles opened */
    PyObject *free_in_children; /* list of locks, or NULL: see module_free_in_children */
    PyObject *sweeper;      /* configured where objects are kept for handles: forgets those that are not live */
    bool handle_arrived;    /* in a worker: the arguments at hand have a handle in them */
    PyObject *str_flags, *str_writeable, *str_base;
};

extern struct PyModuleDef shoal_ext_module;

/* The state behind an instance of one of our types or of a subclass; borrowed, never NULL for our own instances. */
struct module_state *module_state_of(PyTypeObject *type);

/* Raise the Python exception for a library error (-errno), the one place where this is done. Always returns -1. */
int raise_error(int error, const char *what);

/* Report the exception that is set, of a callback or finalizer, and go on. */
void report_unraisable(PyObject *where);

int module_add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **ret_type, const char *name);

extern PyType_Spec engine_spec, item_spec, submitter_spec, group_spec, block_spec, view_spec;

/*
 * thread.c. Run body(arg) in a thread of ours, with the GIL and all signals blocked. It has this name from its first
 * moment on: who is about to fork tells ours from others by it. 0 or -1, without an exception.
 */
int thread_start(struct module_state *state, const char *name, void (*body)(void *arg), void *arg);
/* Wait for those that have left their body. Gives up the GIL meanwhile. */
void threads_join_ended(struct module_state *state);
/* In a forked child, where they are not (detach: false), or when the module ends (true). */
void threads_forget(struct module_state *state, bool detach);

/* fork.c: what must happen around any fork of this process. */
int fork_hooks_add(PyObject *module); /* once: 0 or -1 with an exception */
/* Registered with os.register_at_fork. */
PyObject *module_after_fork_child(PyObject *module, PyObject *unused);
PyObject *module_free_in_children(PyObject *module, PyObject *lock);
/* Give back what children held that have ended. One comparison when there are none. */
void foreign_reap(struct module_state *state);

/* attach.c */
PyObject *module_attach(PyObject *module, PyObject *args);

/* worker_input.c */
PyObject *module_task_item(PyObject *module, PyObject *unused);

/* worker_stop.c */
PyObject *module_stop_wanted(PyObject *module, PyObject *unused);
PyObject *module_stop_missed(PyObject *module, PyObject *args);

/* info.c */
PyObject *module_info(PyObject *module, PyObject *unused);

#endif

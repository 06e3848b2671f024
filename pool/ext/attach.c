/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * attach.c - a worker that was not forked from its pool's process.
 *
 * The problem: a forked worker has the pool's handles and mappings at birth; one that was executed anew, or forked from
 * another process, has nothing.
 *
 * The protocol: the parent hands over a few numbers and, in this order, the descriptors of the region, of the
 * lifeline's read end and, where bells are eventfds, of the owner's bell and each worker's. The worker maps the region
 * wherever there is room, since all places in it are offsets, and attaches to the task queue, the task ring and its own
 * two rings. The other workers' rings it never maps, but as part of the region, which becomes read-only in work().
 *
 * From there on it is as a forked worker: an engine of another process, which refuses everything but work().
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "engine.h"

struct handover {
    uint64_t control; /* of the engine's block in the region */
    uint64_t rings;   /* of this worker */
    uint32_t worker_max, max_tasks, doorbell;
    int32_t pid;
};

#define REGION 0
#define LIFELINE 1
#define BELLS 2 /* the first */

/* ---- in the pool's process ---- */

static int append(PyObject *list, int fd)
{
    PyObject *number = PyLong_FromLong(fd);
    int error = number == NULL ? -1 : PyList_Append(list, number);
    Py_XDECREF(number);
    return error;
}

PyObject *engine_handover(struct engine *engine, PyObject *number)
{
    unsigned long index = PyLong_AsUnsignedLong(number);
    if (index == (unsigned long)-1 && PyErr_Occurred())
        return NULL;
    if (engine_check_process(engine) < 0)
        return NULL;
    if (engine->dead || index >= engine->worker_count) {
        PyErr_SetString(PyExc_ValueError, "Pool not running");
        return NULL;
    }
    struct handover handover = {.control = engine->control, .rings = engine->workers[index].rings,
                                .worker_max = engine->worker_max, .max_tasks = engine->max_tasks,
                                .doorbell = engine->doorbell, .pid = getpid()};
    PyObject *fds = PyList_New(0);
    if (fds == NULL || append(fds, shoal_region_fd(engine->home->region)) < 0 ||
        append(fds, engine->lifeline.read_fd) < 0)
        goto fail;
    if (engine->doorbell == SHOAL_DOORBELL_URING_EVENTFD) {
        if (append(fds, shoal_doorbell_fd(shoal_taskqueue_owner_bell(engine->queue))) < 0)
            goto fail;
        for (unsigned i = 0; i < engine->worker_max; i++)
            if (append(fds, shoal_doorbell_fd(shoal_taskqueue_worker_bell(engine->queue, i))) < 0)
                goto fail;
    }
    return Py_BuildValue("y#N", (const char *)&handover, (Py_ssize_t)sizeof handover, fds);
fail:
    Py_XDECREF(fds);
    return NULL;
}

/* ---- in the worker ---- */

/* Borrowed descriptors, PyMem_Malloc'ed, or NULL with an exception. */
static int *read_descriptors(PyObject *sequence, Py_ssize_t expected)
{
    PyObject *fast = PySequence_Fast(sequence, "descriptors must be a sequence");
    if (fast == NULL)
        return NULL;
    int *fds = NULL;
    if (PySequence_Fast_GET_SIZE(fast) != expected)
        PyErr_Format(PyExc_ValueError, "%zd descriptors, expected %zd", PySequence_Fast_GET_SIZE(fast), expected);
    else if ((fds = PyMem_Calloc((size_t)expected, sizeof *fds)) == NULL)
        PyErr_NoMemory();
    for (Py_ssize_t i = 0; i < expected && fds != NULL; i++) {
        fds[i] = (int)PyLong_AsLong(PySequence_Fast_GET_ITEM(fast, i));
        if (fds[i] == -1 && PyErr_Occurred()) {
            PyMem_Free(fds);
            fds = NULL;
        }
    }
    Py_DECREF(fast);
    return fds;
}

static int map_rings(struct engine *engine, unsigned index, const struct engine_places *places)
{
    struct shoal_region *region = engine->home->region;
    uint64_t results = engine->workers[index].rings;
    void *base;
    engine->tasks.offset = engine->control + places->tasks;
    int error = shoal_region_mirror(region, engine->tasks.offset, TASK_RING_BYTES, &base);
    if (error < 0)
        return raise_error(error, "cannot map the task ring");
    engine->tasks.base = base;
    error = shoal_ring_attach(region, results, &engine->workers[index].results);
    if (error == 0)
        error = shoal_ring_attach(region, results + shoal_ring_footprint(RESULT_RING_BYTES),
                                  &engine->workers[index].orders);
    return error < 0 ? raise_error(error, "cannot map the rings of the worker") : 0;
}

static int attach(struct engine *engine, const int *fds, unsigned index, uint64_t rings)
{
    struct shoal_taskqueue_config config = engine_config(engine);
    struct engine_places places = engine_places(&config);
    engine->workers = PyMem_Calloc(engine->worker_max, sizeof *engine->workers);
    if (engine->workers == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (unsigned i = 0; i < engine->worker_max; i++) {
        engine->workers[i].peer = (struct shoal_peer){.pid = 0, .pidfd = -1};
        engine->workers[i].status_fd = -1;
    }
    engine->workers[index].rings = rings;
    engine->home = home_attach(engine->state, fds[REGION]);
    if (engine->home == NULL)
        return -1;
    engine->lifeline.read_fd = fcntl(fds[LIFELINE], F_DUPFD_CLOEXEC, 0);
    if (engine->lifeline.read_fd < 0)
        return raise_error(-errno, "cannot keep the pipe that ends us with the parent");
    int error = shoal_taskqueue_attach(engine->home->region, engine->control, &config,
                                       engine->doorbell == SHOAL_DOORBELL_URING_EVENTFD ? fds + BELLS : NULL,
                                       &engine->queue);
    if (error < 0)
        return raise_error(error, "cannot attach to the task queue");
    return map_rings(engine, index, &places);
}

PyObject *module_attach(PyObject *module, PyObject *args)
{
    struct module_state *state = PyModule_GetState(module);
    Py_buffer view;
    PyObject *sequence;
    unsigned int index;
    struct handover handover;
    if (!PyArg_ParseTuple(args, "y*OI:attach", &view, &sequence, &index))
        return NULL;
    bool fits = view.len == (Py_ssize_t)sizeof handover;
    if (fits)
        memcpy(&handover, view.buf, sizeof handover);
    PyBuffer_Release(&view);
    if (!fits || index >= handover.worker_max) {
        PyErr_SetString(PyExc_ValueError, "this is not what Engine.handover() gave");
        return NULL;
    }
    bool eventfds = handover.doorbell == SHOAL_DOORBELL_URING_EVENTFD;
    int *fds = read_descriptors(sequence, BELLS + (eventfds ? (Py_ssize_t)handover.worker_max + 1 : 0));
    if (fds == NULL)
        return NULL;
    struct engine *engine = (struct engine *)state->engine_type->tp_alloc(state->engine_type, 0);
    if (engine != NULL) {
        engine_init(engine, state, state->fork_epoch - 1);
        engine->served_pid = handover.pid;
        engine->control = handover.control;
        engine->worker_count = engine->worker_most = engine->worker_max = handover.worker_max;
        engine->max_tasks = handover.max_tasks;
        engine->doorbell = (enum shoal_doorbell_kind)handover.doorbell;
        if (attach(engine, fds, index, handover.rings) < 0)
            Py_CLEAR(engine);
    }
    PyMem_Free(fds);
    return (PyObject *)engine;
}

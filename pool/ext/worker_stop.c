/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * worker_stop.c - how a worker is stopped in the middle of a task. The other side: limits.c.
 *
 * The signal's handler is Python code that runs in the main thread, between two steps of the interpreter or when a
 * system call was interrupted. It asks here whether what runs now is meant, and if so raises. The exception unwinds the
 * task, `finally` blocks included; what the task makes of it does not count: it is answered with the timeout.
 *
 * It is raised once for an item (again, if the interpreter ignored it where it was raised), and only while user code of
 * it may run: while it is read, called, and its result pickled. From the swap before an outcome is handed in until the
 * next item begins, nothing is raised.
 */
#include "worker.h"

#include <signal.h>
#include <unistd.h>

void stop_begin(struct engine *engine)
{
    struct worker_side *side = engine->side;
    side->limited = (side->task.flags & TASK_LIMITED) != 0;
    side->raised = false;
    if (side->limited && !side->armed && side->arm != NULL) { /* it is Python: before we can be told to stop */
        side->armed = true;
        PyObject *done = PyObject_CallNoArgs(side->arm);
        if (done == NULL)
            PyErr_Clear(); /* where it is when it has to be killed will not be known */
        Py_XDECREF(done);
    }
    int64_t now = side->limited ? shoal_now_ns() : 0;
    shoal_taskqueue_watch_begin(engine->queue, side->index, &side->claim, now);
    side->since_ns = now;
    side->exposed = true;
}

void stop_settle(struct engine *engine)
{
    struct worker_side *side = engine->side;
    int phase = shoal_taskqueue_watch_end(engine->queue, side->index);
    while (phase < 0)
        pause(); /* the parent has given the outcome, and SIGKILL is on its way */
    side->drop_rest |= phase == SHOAL_WATCH_STOP_ALL;
}

bool stop_drops(struct engine *engine)
{
    return engine->side->drop_rest ||
           shoal_taskqueue_watch_phase(engine->queue, engine->side->index) == SHOAL_WATCH_STOP_ALL;
}

PyObject *module_stop_missed(PyObject *module, PyObject *args)
{
    struct module_state *state = PyModule_GetState(module);
    struct worker_side *side = state->serving == NULL ? NULL : state->serving->side;
    PyObject *stopped, *others, *unraisable;
    if (!PyArg_ParseTuple(args, "OOO:_stop_missed", &stopped, &others, &unraisable))
        return NULL;
    PyObject *type = PyObject_GetAttrString(unraisable, "exc_type");
    bool ours = type == stopped;
    Py_XDECREF(type);
    if (!ours)
        return type == NULL ? NULL : PyObject_CallOneArg(others, unraisable);
    if (side != NULL && side->exposed && side->raised) {
        side->raised = false;
        PyErr_SetInterruptEx(STOP_SIGNAL);
    }
    Py_RETURN_NONE;
}

PyObject *module_stop_wanted(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    struct module_state *state = PyModule_GetState(module);
    struct engine *engine = state->serving;
    struct worker_side *side = engine == NULL ? NULL : engine->side;
    if (side == NULL || !side->exposed || side->raised)
        Py_RETURN_NONE;
    enum shoal_watch_phase phase = shoal_taskqueue_watch_phase(engine->queue, side->index);
    if (phase != SHOAL_WATCH_STOP && phase != SHOAL_WATCH_STOP_ALL)
        Py_RETURN_NONE;
    side->raised = true;
    return PyFloat_FromDouble(side->since_ns == 0 ? 0.0 : (double)(shoal_now_ns() - side->since_ns) / 1e9);
}

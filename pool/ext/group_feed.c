/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * group_feed.c - the thread that pulls an input which may wait.
 *
 * The problem: an input that computes, sleeps, or reads from somewhere holds up whoever pulls it. If that is the thread
 * that takes the results, results which are there have to wait; and an input that waits for results of the very call
 * (it reads a queue that the taker fills) waits for ever.
 *
 * So such an input has a thread of its own, for as long as it lasts. It pulls and submits as far as the window allows,
 * then sleeps until the taker has made room, the group is stopped, or the pool is joined. Inputs that cannot wait (a
 * list, a range) are pulled by the taker: no thread is started and the GIL changes hands less often.
 *
 * What the input raises is the last outcome of the call. A thread that sits in user code cannot be ended: if the group
 * is stopped meanwhile, it ends as soon as the input comes back, and nothing waits for it.
 */
#include "group.h"

#include <time.h>

#include "engine.h"

#define LOOK_AGAIN_NS 1000000000     /* a backstop: whoever makes room posts */
#define MEMORY_COMES_BACK_NS 20000000 /* nobody posts when memory is given back */

bool group_input_may_wait(PyObject *iterable)
{
    PyTypeObject *const quick[] = {
        &PyList_Type, &PyTuple_Type, &PyRange_Type, &PyDict_Type, &PySet_Type, &PyFrozenSet_Type, &PyUnicode_Type,
        &PyBytes_Type, &PyByteArray_Type, &PyDictKeys_Type, &PyDictValues_Type, &PyDictItems_Type, &PyListIter_Type,
        &PyTupleIter_Type, &PyRangeIter_Type, &PyLongRangeIter_Type, &PyDictIterKey_Type, &PyDictIterValue_Type,
        &PyDictIterItem_Type, &PySetIter_Type, &PyUnicodeIter_Type, &PyBytesIter_Type,
    };
    for (size_t i = 0; i < sizeof quick / sizeof quick[0]; i++) {
        if (Py_IS_TYPE(iterable, quick[i]))
            return false;
    }
    return true;
}

bool group_inputs_may_wait(PyObject *inputs)
{
    bool some = false;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(inputs); i++)
        some |= group_input_may_wait(PyTuple_GET_ITEM(inputs, i));
    return some;
}

void group_wake_feeder(struct shoal_group *self)
{
    if (!self->feeder_waits)
        return;
    self->feeder_waits = false;
    sem_post(&self->room);
}

static bool has_input(const struct shoal_group *self)
{
    return self->source != NULL || self->stalled != NULL;
}

static void wait_for_room(struct shoal_group *self)
{
    int64_t until = shoal_now_ns() + (group_has_room(self) ? MEMORY_COMES_BACK_NS : LOOK_AGAIN_NS);
    struct timespec at = {.tv_sec = until / 1000000000, .tv_nsec = until % 1000000000};
    self->feeder_waits = true;
    Py_BEGIN_ALLOW_THREADS
    sem_clockwait(&self->room, CLOCK_MONOTONIC, &at);
    Py_END_ALLOW_THREADS
    self->feeder_waits = false;
}

/* The pool does not take anything any more: that is the last outcome. */
static void stop_with_current(struct shoal_group *self)
{
    PyObject *error = owner_fetch_exception();
    group_stop(self, error);
    Py_XDECREF(error);
}

static void feed(struct shoal_group *self)
{
    struct engine *engine = self->owner.engine;
    while (has_input(self) && !engine->dead) {
        if (group_refill(self) < 0)
            stop_with_current(self);
        if (self->log_read < self->log_end || self->owner.done)
            engine_news(engine); /* an outcome that did not come from a worker */
        progress_nudge(engine);
        engine_after_drain(engine);
        if (has_input(self) && !engine->dead)
            wait_for_room(self);
    }
}

static void feeder_main(void *arg)
{
    struct shoal_group *self = arg;
    feed(self);
    Py_DECREF(self);
}

int group_start_feeder(struct shoal_group *self)
{
    sem_init(&self->room, 0, 0);
    self->fed = true;
    Py_INCREF(self);
    if (thread_start(self->owner.engine->state, "shoal-input", feeder_main, self) == 0)
        return 0;
    Py_DECREF(self);
    self->fed = false;
    PyErr_SetString(PyExc_RuntimeError, "can't start new thread");
    return -1;
}

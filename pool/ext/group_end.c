/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * group_end.c - a map-like call that ends before its input does: cancelled, stopped, or by its first error.
 *
 * After that `cancelled` says that whatever still comes is dropped; `total` counts what has come and the one outcome
 * that is the end. What no worker has is taken back; what workers are at is stopped (limits.c) or left to run.
 */
#include "group.h"

#include "engine.h"

static void pull_no_more(struct shoal_group *self)
{
    struct engine *engine = self->owner.engine;
    engine_discard_later(engine, self->source);
    engine_discard_later(engine, self->stalled);
    self->source = self->stalled = NULL;
    group_unlist(self);
    group_wake_feeder(self);
}

void group_abort(struct shoal_group *self)
{
    struct engine *engine = self->owner.engine;
    pull_no_more(self);
    engine_discard_later(engine, self->ending);
    self->ending = NULL;
    self->cancelled = true;
    self->total = self->arrived + 1;
    limits_drop_all(engine, &self->owner);
}

PyObject *group_cancel(struct shoal_group *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"running", NULL};
    struct engine *engine = self->owner.engine;
    int running = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|p:cancel", names, &running))
        return NULL;
    group_collect(self);
    if (self->owner.done || engine == NULL || engine->dead || engine_check_process(engine) < 0) {
        PyErr_Clear();
        Py_RETURN_FALSE;
    }
    Py_INCREF(self);
    pull_no_more(self);
    while (engine_revoke(engine, &self->owner) > 0)
        ;
    struct arrival arrival = {.kind = ARRIVAL_EXCEPTION, .object = item_cancelled_error(), .block = HOME_NO_BLOCK,
                              .adopted = HOME_NO_BLOCK};
    engine_discard_later(engine, self->ending);
    self->ending = NULL;
    self->total = self->arrived + 1; /* the cancellation is the last thing that a reader gets */
    arrival.item = (uint32_t)self->arrived;
    group_deliver(&self->owner, &arrival);
    self->cancelled = true;
    if (running)
        limits_drop_all(engine, &self->owner);
    engine_feed(engine);
    engine_news(engine);
    engine_after_drain(engine);
    Py_DECREF(self);
    Py_RETURN_TRUE;
}

PyObject *group_stop_method(struct shoal_group *self, PyObject *error)
{
    struct engine *engine = self->owner.engine;
    if (!PyExceptionInstance_Check(error)) {
        PyErr_SetString(PyExc_TypeError, "_stop() takes an exception instance");
        return NULL;
    }
    if (engine != NULL && !engine->dead && engine->epoch == engine->state->fork_epoch) {
        group_stop(self, error);
        engine_news(engine);
        engine_after_drain(engine);
    }
    Py_RETURN_NONE;
}

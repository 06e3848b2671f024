/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * group_input.c - from the input of a map-like call to batches.
 *
 * Lazy groups look ahead a bounded number of items, whatever the input's length. Pulling runs user code, in which the
 * group may be cancelled or its pool terminated: `source` is looked at again after each item.
 */
#include "group.h"

#include "engine.h"
#include "handle.h"

#define PULL_NS 200000 /* an input that is slow: go back to the caller after this, if there is something to do */

/* The pickler says so in the path to the culprit. */
static bool names_element(PyObject *text, uint64_t item)
{
    PyObject *opening = PyUnicode_FromFormat("element %llu of the input", (unsigned long long)item);
    bool named = opening != NULL && PyUnicode_Tailmatch(text, opening, 0, PY_SSIZE_T_MAX, -1) == 1;
    Py_XDECREF(opening);
    PyErr_Clear();
    return named;
}

/* "…" -> "… [element 17 of the input]", where the exception is made of one text; else it stays as it is. */
static PyObject *name_element(PyObject *error, uint64_t item)
{
    PyObject *args = PyObject_GetAttrString(error, "args");
    PyObject *named = NULL;
    if (args != NULL && PyTuple_CheckExact(args) && PyTuple_GET_SIZE(args) == 1 &&
        PyUnicode_CheckExact(PyTuple_GET_ITEM(args, 0)) && !names_element(PyTuple_GET_ITEM(args, 0), item)) {
        PyObject *text = PyUnicode_FromFormat("%U [element %llu of the input]", PyTuple_GET_ITEM(args, 0),
                                              (unsigned long long)item);
        named = text == NULL ? NULL : PyObject_CallOneArg((PyObject *)Py_TYPE(error), text);
        Py_XDECREF(text);
    }
    Py_XDECREF(args);
    if (named == NULL || !PyExceptionInstance_Check(named)) {
        PyErr_Clear();
        Py_XSETREF(named, Py_NewRef(error));
    } else {
        PyException_SetCause(named, Py_NewRef(error));
    }
    return named;
}

/* The exception that is set becomes the outcome of `item`. */
static void deliver_current(struct shoal_group *self, uint64_t item, bool name)
{
    PyObject *value = owner_fetch_exception();
    struct arrival arrival = {.kind = ARRIVAL_EXCEPTION, .item = (uint32_t)item, .block = UINT64_MAX,
                              .adopted = UINT64_MAX};
    arrival.object = name ? name_element(value, item) : Py_NewRef(value);
    Py_DECREF(value);
    owner_deliver(&self->owner, &arrival);
}

static int submit_chunk(struct shoal_group *self, PyObject *const *items, uint32_t count, uint64_t first, bool may_wait)
{
    struct engine *engine = self->owner.engine;
    PyObject *stand_ins = self->repeats_none ? NULL : group_stand_ins(self, items, count);
    if (stand_ins != NULL)
        items = ((PyListObject *)stand_ins)->ob_item;
    else if (PyErr_Occurred() != NULL)
        return -1;
    struct cut cut = group_cut(self, items, count);
    struct batch batch = {.function = self->function, .common = cut.common, .items = items, .count = count,
                          .first_item = (uint32_t)first, .star = self->star};
    if (cut.rest != NULL)
        batch.items = ((PyListObject *)cut.rest)->ob_item;
    int error = BATCH_TOO_LARGE;
    if (!self->function_settled)
        error = engine_submit_batch(engine, &self->owner, &batch, may_wait, HANDLE_CARRY_MIN);
    if (error == BATCH_TOO_LARGE && !self->function_settled)
        group_carry_function(self);
    batch.function = cut.function == NULL ? self->function : cut.function;
    if (error == BATCH_TOO_LARGE)
        error = engine_submit_batch(engine, &self->owner, &batch, may_wait, UINT64_MAX);
    self->function_settled |= error == 0;
    Py_XDECREF(cut.function);
    Py_XDECREF(cut.common);
    Py_XDECREF(cut.rest);
    Py_XDECREF(stand_ins);
    return error;
}

/* A chunk did not pickle: find the element that is to blame; the others are sent. */
static int submit_one_by_one(struct shoal_group *self, PyObject *const *items, uint32_t count, uint64_t first)
{
    for (uint32_t i = 0; i < count; i++) {
        if (count > 1 && submit_chunk(self, items + i, 1, first + i, true) == 0)
            continue;
        if (!PyErr_ExceptionMatches(PyExc_Exception))
            return -1;
        deliver_current(self, first + i, !self->owner.engine->function_failed);
    }
    return 0;
}

int group_submit_items(struct shoal_group *self, PyObject *const *items, uint32_t count, bool may_wait)
{
    uint64_t first = self->total;
    if (first + count > UINT32_MAX) {
        PyErr_SetString(PyExc_OverflowError, "a single call takes at most 4294967295 items");
        return -1;
    }
    self->total += count; /* before the first result can come */
    int error = submit_chunk(self, items, count, first, may_wait);
    if (error == 0)
        return 0;
    if (error > 0 || !PyErr_ExceptionMatches(PyExc_Exception) || engine_check_quietly(self->owner.engine) < 0) {
        if (self->total == first + count) /* not stopped while it was pickled */
            self->total = first;
        return error;
    }
    if (count > 1)
        PyErr_Clear();
    return submit_one_by_one(self, items, count, first);
}

/* The next chunk of the input, a new list: shorter at its end, empty if it raised (the exception is set): as with
 * multiprocessing, what such a chunk had so far is not sent. */
static PyObject *pull_chunk(struct shoal_group *self)
{
    PyObject *items = PyList_New(0);
    PyObject *source = Py_NewRef(self->source);
    while (items != NULL && PyList_GET_SIZE(items) < (Py_ssize_t)self->chunk) {
        PyObject *item = PyIter_Next(source);
        if (item == NULL) {
            if (PyErr_Occurred() != NULL)
                Py_SETREF(items, PyList_New(0));
            break;
        }
        int error = PyList_Append(items, item);
        Py_DECREF(item);
        if (error < 0)
            Py_CLEAR(items);
    }
    Py_DECREF(source);
    return items;
}

static void finish_if_all_arrived(struct shoal_group *self)
{
    if (self->source != NULL || self->stalled != NULL)
        return;
    group_finish_if_done(self);
    group_unlist(self);
}

/* Its end, or the exception that is set: that is the last outcome. */
static void input_ended(struct shoal_group *self)
{
    if (PyErr_Occurred() != NULL)
        Py_XSETREF(self->ending, owner_fetch_exception());
    Py_CLEAR(self->source);
}

static bool memory_is_scarce(struct engine *engine, uint64_t outstanding)
{
    struct shoal_arena_stats stats;
    shoal_arena_get_stats(engine->home->arena, &stats);
    return stats.used_bytes + engine->home->unread_bytes > stats.budget_bytes / 2 &&
           outstanding >= 2 * (uint64_t)engine->worker_count;
}

bool group_has_room(const struct shoal_group *self)
{
    uint64_t outstanding = self->total - (self->to_the_end ? self->arrived : self->cursor);
    return outstanding + self->chunk <= self->window;
}

bool group_has_much_room(const struct shoal_group *self)
{
    uint64_t outstanding = self->total - (self->to_the_end ? self->arrived : self->cursor);
    return outstanding <= self->window - self->window / 4;
}

/* A chunk that there was no memory for; it is the next to go. 0 gone, 1 still no memory, -1 exception. */
static int submit_stalled(struct shoal_group *self)
{
    if (self->stalled == NULL)
        return 0;
    /* Neither in flight nor unread, or unread by someone who joins the pool first: only waiting can help or nothing */
    bool nothing_else = self->total == (self->to_the_end ? self->arrived : self->cursor);
    PyObject *items = self->stalled;
    self->stalled = NULL;
    PyObject **first = ((PyListObject *)items)->ob_item;
    int error = group_submit_items(self, first, (uint32_t)PyList_GET_SIZE(items), nothing_else);
    if (error > 0)
        self->stalled = items;
    else
        Py_DECREF(items);
    return error;
}

/* Pull one chunk and send it. 0 done, 1 no more now, -1 exception. */
static int refill_once(struct shoal_group *self)
{
    int error = submit_stalled(self);
    if (error != 0)
        return error;
    PyObject *items = pull_chunk(self);
    if (items == NULL)
        return -1;
    if (self->source == NULL) { /* stopped meanwhile: what was pulled is dropped */
        PyErr_Clear();
        Py_DECREF(items);
        return 0;
    }
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback); /* what the input raised comes after what it gave */
    Py_ssize_t count = PyList_GET_SIZE(items);
    bool ended = count < (Py_ssize_t)self->chunk;
    Py_XSETREF(self->stalled, count > 0 ? items : NULL);
    if (count == 0)
        Py_DECREF(items);
    error = submit_stalled(self);
    if (ended && error >= 0 && self->source != NULL) {
        PyErr_Restore(type, value, traceback);
        input_ended(self);
    } else {
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(traceback);
    }
    return error;
}

/* Enough is under way to keep the workers busy, and the one who takes results has waited for the input: go back to him
 * if there is something for him. A feeder holds nobody up, and a bounded call begins with as much as it may have. */
static bool enough_for_now(struct shoal_group *self, int64_t since_ns)
{
    if (self->fed || (self->bounded && self->cursor == 0) || shoal_now_ns() - since_ns < PULL_NS)
        return false;
    self->slow = true;
    struct engine *engine = self->owner.engine;
    if (self->total - self->arrived >= 2 * (uint64_t)engine->worker_count * self->chunk)
        return true;
    engine_drain(engine);
    return self->log_read < self->log_end;
}

int group_refill(struct shoal_group *self)
{
    if ((self->source == NULL && self->stalled == NULL) || self->pulling || !group_has_much_room(self))
        return 0;
    struct engine *engine = self->owner.engine;
    self->pulling = true;
    self->slow = false;
    int64_t since = shoal_now_ns();
    int error = 0;
    while (error == 0 && self->source != NULL && group_has_room(self) &&
           !memory_is_scarce(engine, self->total - self->arrived)) {
        error = refill_once(self);
        if (error == 0 && enough_for_now(self, since))
            break;
    }
    if (error == 0 && self->source == NULL)
        error = submit_stalled(self);
    self->pulling = false;
    if (self->source == NULL && self->stalled == NULL)
        group_all_sent(self);
    if (error >= 0)
        finish_if_all_arrived(self);
    return error < 0 ? -1 : 0;
}

void group_stop(struct shoal_group *self, PyObject *error)
{
    struct engine *engine = self->owner.engine;
    bool had_more = self->source != NULL || self->stalled != NULL;
    engine_discard_later(engine, self->source);
    engine_discard_later(engine, self->stalled);
    self->source = self->stalled = NULL;
    group_unlist(self);
    group_wake_feeder(self);
    if (!had_more || self->cancelled)
        return;
    engine_discard_later(engine, self->ending);
    self->ending = Py_NewRef(error);
    group_finish_if_done(self);
}

void group_unlist(struct shoal_group *self)
{
    if (!self->listed)
        return;
    *self->previous_next = self->next;
    if (self->next != NULL)
        self->next->previous_next = self->previous_next;
    self->listed = false;
}

int group_pull(struct owner *owner)
{
    struct shoal_group *self = (struct shoal_group *)owner;
    self->to_the_end = true;
    if (self->fed) {
        group_wake_feeder(self);
        return self->source == NULL && self->stalled == NULL;
    }
    return group_refill(self) < 0 ? -1 : self->source == NULL && self->stalled == NULL;
}

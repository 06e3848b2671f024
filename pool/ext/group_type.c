/* SPDX-License-Identifier: BSD-3-Clause */
/* group_type.c - the type Group: beginning a map-like call, waiting for it, iterating over it. See group.h. */
#include "group.h"

#include <stddef.h>
#include <structmember.h>

#include "engine.h"

#define AT_ONCE_MAX INT32_MAX /* elements in a chunk, chunks in a window: more is the same as that */

static void raise_timeout_error(void)
{
    PyObject *module = PyImport_ImportModule("multiprocessing");
    PyObject *type = module == NULL ? NULL : PyObject_GetAttrString(module, "TimeoutError");
    if (type != NULL)
        PyErr_SetNone(type);
    Py_XDECREF(type);
    Py_XDECREF(module);
}

static PyObject *group_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    struct shoal_group *self = (struct shoal_group *)type->tp_alloc(type, 0);
    if (self != NULL)
        self->owner.kind = OWNER_GROUP;
    return (PyObject *)self;
}

static void group_list(struct shoal_group *self)
{
    struct engine *engine = self->owner.engine;
    self->next = engine->groups;
    self->previous_next = &engine->groups;
    if (engine->groups != NULL)
        engine->groups->previous_next = &self->next;
    engine->groups = self;
    self->listed = true;
}

static bool group_has_news(void *arg)
{
    struct shoal_group *self = arg;
    return self->owner.done || self->log_read < self->log_end;
}

static int group_wait_for(struct shoal_group *self, engine_predicate predicate, int64_t deadline_ns)
{
    if (self->owner.engine == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "this call was never begun");
        return -1;
    }
    if (predicate(self))
        return 1;
    if (engine_check_process(self->owner.engine) < 0)
        return -1;
    return engine_wait(self->owner.engine, predicate, self, deadline_ns);
}

/* Where memory is short, results that are read make room: they are their reader's then, not the budget's. */
static int submit_waiting(struct shoal_group *self, PyObject *const *items, uint32_t count)
{
    for (;;) {
        bool nothing_else = self->arrived == self->total && self->log_read == self->log_end;
        int error = group_submit_items(self, items, count, nothing_else);
        if (error <= 0)
            return error;
        if (group_wait_for(self, group_has_news, -1) < 0 || group_decode(self) < 0)
            return -1;
    }
}

/* Up to a chunk of the input from `at` on, as a list or tuple of our own: the caller's may change under way. */
static PyObject *cut_chunk(struct shoal_group *self, PyObject *input, Py_ssize_t at)
{
    Py_ssize_t end = at > PY_SSIZE_T_MAX - (Py_ssize_t)self->chunk ? PY_SSIZE_T_MAX : at + (Py_ssize_t)self->chunk;
    PyObject *part = PySequence_GetSlice(input, at, end);
    if (part != NULL && PyRange_Check(part))
        Py_SETREF(part, PySequence_List(part));
    return part;
}

static int begin_list(struct shoal_group *self, PyObject *iterable)
{
    /* What is cut without running user code is cut chunk by chunk, while the workers are at those before. */
    bool simple = PyList_CheckExact(iterable) || PyTuple_CheckExact(iterable) || PyRange_Check(iterable);
    PyObject *input = simple ? Py_NewRef(iterable) : PySequence_List(iterable);
    Py_ssize_t size = input == NULL ? -1 : PySequence_Size(input);
    self->results = size < 0 ? NULL : PyList_New(size);
    self->function_settled = size <= (Py_ssize_t)self->chunk; /* one batch: it is sent once anyway */
    if (size > 1 && !PyRange_Check(input)) /* or the first chunk, if it is of one element, is sent as it is */
        self->last_item = Py_NewRef(PySequence_Fast_GET_ITEM(input, 1));
    int error = self->results == NULL ? -1 : 0;
    for (Py_ssize_t at = 0, count; at < size && error == 0 && !self->cancelled; at += count) {
        PyObject *part = cut_chunk(self, input, at);
        count = part == NULL ? 0 : PySequence_Fast_GET_SIZE(part);
        if (part == NULL)
            error = -1;
        else if (count > 0)
            error = submit_waiting(self, PySequence_Fast_ITEMS(part), (uint32_t)count);
        else
            size = at; /* the list has become shorter */
        Py_XDECREF(part);
    }
    Py_XDECREF(input);
    group_all_sent(self);
    if (error == 0 && size < PyList_GET_SIZE(self->results))
        error = PyList_SetSlice(self->results, size, PyList_GET_SIZE(self->results), NULL);
    self->begun = true;
    if (error == 0 && self->arrived == self->total)
        self->owner.done = true;
    return error;
}

/* A bounded call begins with all that it may have, also if that takes long. */
static int begin_lazily(struct shoal_group *self, bool may_wait)
{
    if ((self->bounded || !may_wait) && group_refill(self) < 0)
        return -1;
    bool has_more = self->source != NULL || self->stalled != NULL;
    return may_wait && has_more ? group_start_feeder(self) : 0;
}

static PyObject *group_begin(struct shoal_group *self, PyObject *args)
{
    PyObject *engine, *function, *iterable, *inputs = NULL;
    Py_ssize_t chunk, window;
    int star, mode, bounded = 0;
    struct module_state *state = module_state_of(Py_TYPE(self));
    if (!PyArg_ParseTuple(args, "O!OOnpin|O!p:_begin", state->engine_type, &engine, &function, &iterable, &chunk, &star,
                          &mode, &window, &PyTuple_Type, &inputs, &bounded))
        return NULL;
    if (chunk < 1 || window < 1 || mode < GROUP_LIST || mode > GROUP_UNORDERED ||
        self->owner.engine != NULL) {
        PyErr_SetString(PyExc_ValueError, "a group is begun once, with a chunk size and window of at least 1");
        return NULL;
    }
    if (engine_check((struct engine *)engine) < 0)
        return NULL;
    self->owner.engine = (struct engine *)Py_NewRef(engine);
    self->function = Py_NewRef(function);
    self->chunk = (uint32_t)Py_MIN(chunk, AT_ONCE_MAX);
    self->star = star;
    self->mode = (enum group_mode)mode;
    self->window = (uint64_t)Py_MIN(window, AT_ONCE_MAX) * self->chunk;
    self->bounded = bounded;
    self->repeats_none = self->mode != GROUP_LIST && (inputs == NULL || !group_input_is_fixed(inputs));
    if (self->mode == GROUP_LIST) {
        if (begin_list(self, iterable) < 0)
            return NULL;
    } else {
        self->source = PyObject_GetIter(iterable);
        if (self->source == NULL)
            return NULL;
        group_list(self);
        self->begun = true;
        if (begin_lazily(self, inputs != NULL && group_inputs_may_wait(inputs)) < 0)
            return NULL;
    }
    progress_nudge(self->owner.engine);
    Py_RETURN_NONE;
}

void group_collect(struct shoal_group *self)
{
    struct engine *engine = self->owner.engine;
    if (self->owner.done || engine == NULL || engine->epoch != engine->state->fork_epoch)
        return;
    engine_drain(engine);
    engine_after_drain(engine);
}

static bool group_is_done(void *arg)
{
    return ((struct owner *)arg)->done;
}

/* Wait for the end, decoding on the way, so that it overlaps with the workers' work. */
static int group_wait(struct shoal_group *self, int64_t deadline_ns)
{
    if (self->mode != GROUP_LIST)
        return group_wait_for(self, group_is_done, deadline_ns);
    while (!self->owner.done) {
        int done = group_wait_for(self, group_has_news, deadline_ns);
        if (done <= 0)
            return done;
        if (group_decode(self) < 0)
            return -1;
    }
    return 1;
}

static bool value_ready(const struct shoal_group *self)
{
    return self->capacity > 0 && self->values[self->cursor % self->capacity].object != NULL;
}

/* A value was taken. An input that is slow is pulled only when no value is there. */
static int make_use_of_room(struct shoal_group *self)
{
    if (!self->fed)
        return self->slow && value_ready(self) ? 0 : group_refill(self);
    if (self->feeder_waits && group_has_much_room(self))
        group_wake_feeder(self);
    return 0;
}

static PyObject *take_value(struct shoal_group *self)
{
    struct group_value value = group_take(self, self->cursor++);
    if (make_use_of_room(self) < 0) {
        Py_DECREF(value.object);
        return NULL;
    }
    if (value.ok)
        return value.object;
    PyErr_SetObject((PyObject *)Py_TYPE(value.object), value.object);
    Py_DECREF(value.object);
    return NULL;
}

static PyObject *group_next_until(struct shoal_group *self, int64_t deadline_ns)
{
    if (self->mode == GROUP_LIST || self->owner.engine == NULL) {
        PyErr_SetString(PyExc_TypeError, "this group is not an iterator");
        return NULL;
    }
    for (;;) {
        if (self->log_read < self->log_end && group_decode(self) < 0)
            return NULL;
        if (value_ready(self))
            return take_value(self);
        if (!self->fed && group_refill(self) < 0)
            return NULL;
        if (self->source == NULL && self->stalled == NULL && self->ending == NULL && self->cursor >= self->total &&
            self->error == NULL)
            return NULL; /* StopIteration */
        if (self->log_read < self->log_end)
            continue;
        if (self->owner.done && self->log_read == self->log_end && !value_ready(self)) {
            if (self->error != NULL) { /* it has ended the call */
                PyErr_SetObject((PyObject *)Py_TYPE(self->error), self->error);
                Py_CLEAR(self->error);
                self->cursor = self->total;
                return NULL;
            }
            if (self->cursor >= self->total)
                return NULL;
            PyErr_SetString(PyExc_RuntimeError, "a result is missing: there was no memory to keep it");
            self->cursor++;
            return NULL;
        }
        int arrived = group_wait_for(self, group_has_news, deadline_ns);
        if (arrived < 0)
            return NULL;
        if (arrived == 0) {
            raise_timeout_error();
            return NULL;
        }
    }
}

static PyObject *group_iternext(struct shoal_group *self)
{
    return group_next_until(self, -1);
}

static PyObject *group_next(struct shoal_group *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"timeout", NULL};
    PyObject *timeout = NULL;
    int64_t deadline;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:next", names, &timeout) ||
        timeout_to_deadline(timeout, &deadline) < 0)
        return NULL;
    PyObject *value = group_next_until(self, deadline);
    if (value == NULL && !PyErr_Occurred())
        PyErr_SetNone(PyExc_StopIteration);
    return value;
}

static PyObject *group_done(struct shoal_group *self, PyObject *Py_UNUSED(ignored))
{
    group_collect(self);
    return PyBool_FromLong(self->owner.done);
}

static PyObject *group_wait_method(struct shoal_group *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"timeout", NULL};
    PyObject *timeout = NULL;
    int64_t deadline;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:wait", names, &timeout) ||
        timeout_to_deadline(timeout, &deadline) < 0)
        return NULL;
    int done = group_wait(self, deadline);
    return done < 0 ? NULL : PyBool_FromLong(done);
}

static PyObject *group_outcome(struct shoal_group *self, PyObject *Py_UNUSED(ignored))
{
    if (!self->owner.done || self->mode != GROUP_LIST) {
        PyErr_SetString(PyExc_RuntimeError, "the call is not done, or is not a list");
        return NULL;
    }
    if (group_decode(self) < 0)
        return NULL;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(self->results) && self->error == NULL; i++) {
        if (PyList_GET_ITEM(self->results, i) == NULL)
            self->error = PyObject_CallFunction(PyExc_RuntimeError, "s", "a result is missing: no memory to keep it");
    }
    bool ok = self->error == NULL;
    return Py_BuildValue("(OO)", ok ? Py_True : Py_False, ok ? self->results : self->error);
}

static PyObject *group_pull_method(struct shoal_group *self, PyObject *Py_UNUSED(ignored))
{
    int all = group_pull(&self->owner);
    return all < 0 ? NULL : PyBool_FromLong(all);
}

static PyObject *group_limit(struct shoal_group *self, PyObject *args)
{
    return owner_limit(&self->owner, args);
}

static PyObject *group_watch(struct shoal_group *self, PyObject *callback)
{
    return owner_watch(&self->owner, callback, true);
}

static PyObject *group_watch_lazily(struct shoal_group *self, PyObject *callback)
{
    return owner_watch(&self->owner, callback, false);
}

static PyObject *group_get_total(struct shoal_group *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(self->total);
}

static int group_traverse(struct shoal_group *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->owner.watches);
    Py_VISIT(self->owner.engine);
    Py_VISIT(self->function);
    int visited = group_repeats_traverse(self, visit, arg);
    if (visited != 0)
        return visited;
    Py_VISIT(self->source);
    Py_VISIT(self->stalled);
    Py_VISIT(self->ending);
    Py_VISIT(self->results);
    Py_VISIT(self->error);
    for (uint64_t i = 0; i < self->capacity; i++)
        Py_VISIT(self->values[i].object);
    return 0;
}

static int group_clear(struct shoal_group *self)
{
    Py_CLEAR(self->owner.watches);
    Py_CLEAR(self->function);
    group_forget_repeats(self);
    Py_CLEAR(self->source);
    Py_CLEAR(self->stalled);
    Py_CLEAR(self->ending);
    Py_CLEAR(self->results);
    Py_CLEAR(self->error);
    for (uint64_t i = 0; i < self->capacity; i++) {
        struct group_value value = group_take(self, i);
        Py_XDECREF(value.object);
    }
    return 0;
}

static void group_dealloc(struct shoal_group *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (self->weakrefs != NULL)
        PyObject_ClearWeakRefs((PyObject *)self);
    group_unlist(self);
    group_clear_log(self);
    group_clear(self);
    PyMem_Free(self->values);
    if (self->fed)
        sem_destroy(&self->room);
    if (self->owner.urgent) /* its callbacks have not run: it was dropped before it was done */
        self->owner.engine->watched--;
    Py_CLEAR(self->owner.engine);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

PyDoc_STRVAR(group_doc,
"Group()\n--\n\n"
"The outcomes of a map-like call. Begun once with _begin(); an iterator in the modes ORDERED and UNORDERED.\n\n"
"One thread at a time iterates; wait() and done() may be called from any thread of the process.");

static PyMethodDef group_methods[] = {
    {"_begin", (PyCFunction)group_begin, METH_VARARGS,
     PyDoc_STR("_begin($self, engine, func, iterable, chunksize, star, mode, window, inputs=(), bounded=False, /)"
               "\n--\n\n"
               "Submit the input: all of it now (LIST), or at most `window` chunks ahead of the consumer.\n\n"
               "inputs: what it is made of; if one of them may wait, a thread of its own pulls it. bounded: it begins\n"
               "with as much as it may have, and join() does not pull it.")},
    {"next", (PyCFunction)(void (*)(void))group_next, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("next($self, /, timeout=None)\n--\n\n"
               "The next value, or raises its exception; multiprocessing.TimeoutError after `timeout` seconds.")},
    {"done", (PyCFunction)group_done, METH_NOARGS,
     PyDoc_STR("done($self, /)\n--\n\nTrue if every outcome is there; never blocks.")},
    {"wait", (PyCFunction)(void (*)(void))group_wait_method, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("wait($self, /, timeout=None)\n--\n\nWait for every outcome; False after `timeout` seconds.")},
    {"outcome", (PyCFunction)group_outcome, METH_NOARGS,
     PyDoc_STR("outcome($self, /)\n--\n\n(True, list) or (False, first exception by place). Mode LIST, when done.")},
    {"pull", (PyCFunction)group_pull_method, METH_NOARGS,
     PyDoc_STR("pull($self, /)\n--\n\nSubmit more of a lazy input although nobody takes results; True at its end.")},
    {"cancel", (PyCFunction)(void (*)(void))group_cancel, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("cancel($self, /, running=False)\n--\n\n"
               "Stop pulling, take back what no worker has, drop what comes; whoever waits gets CancelledError.\n"
               "running: what workers have is stopped.")},
    {"_limit", (PyCFunction)group_limit, METH_VARARGS,
     PyDoc_STR("_limit($self, timeout_ns, grace_ns, abort, /)\n--\n\n"
               "Before it is begun: how long each item may take (0: no limit), and how long ending it (-1: default);\n"
               "abort: the first error ends the call.")},
    {"_stop", (PyCFunction)group_stop_method, METH_O,
     PyDoc_STR("_stop($self, error, /)\n--\n\nStop pulling; if there was more, `error` is the last outcome.")},
    {"_counts", (PyCFunction)group_counts, METH_NOARGS,
     PyDoc_STR("_counts($self, /)\n--\n\n(items that have ended, whether all have); runs no user code.")},
    {"watch", (PyCFunction)group_watch, METH_O,
     PyDoc_STR("watch($self, callback, /)\n--\n\nCall callback(self) once when done; False if it is done already.")},
    {"watch_lazily", (PyCFunction)group_watch_lazily, METH_O,
     PyDoc_STR("watch_lazily($self, callback, /)\n--\n\n"
               "The same, for a callback that nobody waits for: no thread wakes to run it.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef group_getset[] = {
    {"total", (getter)group_get_total, NULL, PyDoc_STR("Items pulled from the input so far."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef group_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(struct shoal_group, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot group_slots[] = {
    {Py_tp_doc, (void *)group_doc},
    {Py_tp_new, group_new},
    {Py_tp_dealloc, group_dealloc},
    {Py_tp_traverse, group_traverse},
    {Py_tp_clear, group_clear},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, group_iternext},
    {Py_tp_methods, group_methods},
    {Py_tp_getset, group_getset},
    {Py_tp_members, group_members},
    {0, NULL},
};

PyType_Spec group_spec = {
    .name = "shoal._ext.Group",
    .basicsize = sizeof(struct shoal_group),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = group_slots,
};

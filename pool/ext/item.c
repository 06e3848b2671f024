/* SPDX-License-Identifier: BSD-3-Clause */
/* item.c - the outcome of one call: see item.h and owner.h. */
#include "item.h"

#include <stddef.h>
#include <structmember.h>

#include "engine.h"
#include "inbox.h"

/*
 * The garbage collector is not told of an Item before it could be part of a cycle: one that was just submitted refers
 * to its engine alone, and a program may have many thousands, which each collection would walk through.
 */
struct item *item_make(PyTypeObject *type)
{
    struct item *self = (struct item *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    PyObject_GC_UnTrack(self);
    self->owner.kind = OWNER_ITEM;
    self->slot = -1;
    self->ok = -1;
    return self;
}

void item_track(struct owner *owner)
{
    if (owner->kind == OWNER_ITEM && !PyObject_GC_IsTracked((PyObject *)owner))
        PyObject_GC_Track(owner);
}

static PyObject *item_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    return (PyObject *)item_make(type);
}

struct item *item_new_for(struct engine *engine)
{
    struct item *self = item_make(engine->state->item_type);
    if (self != NULL)
        self->owner.engine = (struct engine *)Py_NewRef((PyObject *)engine);
    return self;
}

void item_set_slot(struct owner *owner, int64_t slot, uint32_t generation)
{
    if (owner->kind != OWNER_ITEM)
        return;
    ((struct item *)owner)->slot = slot;
    ((struct item *)owner)->generation = generation;
}

int64_t item_slot(const struct owner *owner)
{
    return owner->kind == OWNER_ITEM ? ((const struct item *)owner)->slot : -1;
}

void item_deliver(struct owner *owner, struct arrival *arrival)
{
    struct item *self = (struct item *)owner;
    if (owner->done) {
        arrival_clear(owner->engine, arrival);
        return;
    }
    self->arrival = *arrival;
    self->slot = -1;
    if (arrival->object != NULL)
        item_track(owner);
    owner->done = true;
    engine_finished(owner->engine, owner);
    if (self->inbox != NULL)
        inbox_arrived(self);
}

static void collect(struct item *self)
{
    struct engine *engine = self->owner.engine;
    if (self->owner.done || engine == NULL || engine->epoch != engine->state->fork_epoch)
        return;
    engine_drain(engine);
    engine_after_drain(engine);
}

static bool item_is_done(void *arg)
{
    return ((struct owner *)arg)->done;
}

int item_wait(struct item *self, int64_t deadline_ns)
{
    if (self->owner.done)
        return 1;
    if (self->owner.engine == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "this call was never submitted");
        return -1;
    }
    if (engine_check_process(self->owner.engine) < 0)
        return -1;
    return engine_wait(self->owner.engine, item_is_done, self, deadline_ns);
}

/* Decode once. -1 with an exception if it is not done. */
static int item_decode(struct item *self)
{
    if (!self->owner.done) {
        PyErr_SetString(PyExc_RuntimeError, "the call is not done");
        return -1;
    }
    if (self->ok >= 0)
        return 0;
    if (owner_begin_decoding(&self->owner) < 0)
        return -1;
    if (self->ok < 0) {
        PyObject *value;
        int ok = arrival_decode(self->owner.engine, &self->arrival, &value);
        self->value = ok < 0 ? owner_fetch_exception() : value;
        self->ok = ok > 0;
        if (self->value != NULL && PyObject_IS_GC(self->value))
            item_track(&self->owner);
    }
    owner_end_decoding(&self->owner);
    return 0;
}

PyObject *item_value(struct item *self)
{
    if (item_decode(self) < 0)
        return NULL;
    if (self->ok)
        return Py_NewRef(self->value);
    PyErr_SetObject((PyObject *)Py_TYPE(self->value), self->value);
    return NULL;
}

static PyObject *item_value_method(struct item *self, PyObject *Py_UNUSED(ignored))
{
    return item_value(self);
}

static PyObject *item_outcome(struct item *self, PyObject *Py_UNUSED(ignored))
{
    if (item_decode(self) < 0)
        return NULL;
    return Py_BuildValue("(OO)", self->ok ? Py_True : Py_False, self->value);
}

static PyObject *item_done(struct item *self, PyObject *Py_UNUSED(ignored))
{
    collect(self);
    return PyBool_FromLong(self->owner.done);
}

static PyObject *item_running(struct item *self, PyObject *Py_UNUSED(ignored))
{
    collect(self);
    struct engine *engine = self->owner.engine;
    if (self->owner.done || self->slot < 0 || engine == NULL || engine->dead)
        Py_RETURN_FALSE;
    enum shoal_task_state state;
    unsigned worker;
    uint32_t generation;
    if (shoal_taskqueue_state(engine->queue, (uint32_t)self->slot, &state, &worker, &generation) < 0)
        Py_RETURN_FALSE;
    return PyBool_FromLong(generation == self->generation && state == SHOAL_TASK_STARTED);
}

static PyObject *item_cancel(struct item *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"running", NULL};
    int running = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|p:cancel", names, &running))
        return NULL;
    collect(self);
    if (self->cancelled)
        Py_RETURN_TRUE;
    struct engine *engine = self->owner.engine;
    if (self->owner.done || engine == NULL || engine->dead || engine_check_process(engine) < 0) {
        PyErr_Clear();
        Py_RETURN_FALSE;
    }
    Py_INCREF(self);
    if (engine_revoke(engine, &self->owner) ||
        (running && self->slot >= 0 && engine->entries[self->slot].owner == (PyObject *)self &&
         limits_drop(engine, (uint32_t)self->slot))) {
        PyObject *error = item_cancelled_error();
        struct arrival arrival = {.kind = ARRIVAL_EXCEPTION, .object = error, .block = HOME_NO_BLOCK,
                                  .adopted = HOME_NO_BLOCK};
        self->cancelled = true;
        item_deliver(&self->owner, &arrival);
        engine_feed(engine);
        engine_news(engine);
        engine_after_drain(engine);
    }
    PyObject *result = PyBool_FromLong(self->cancelled);
    Py_DECREF(self);
    return result;
}

PyObject *item_cancelled_error(void)
{
    PyObject *module = PyImport_ImportModule("concurrent.futures");
    PyObject *error = module == NULL ? NULL : PyObject_CallMethod(module, "CancelledError", NULL);
    Py_XDECREF(module);
    if (error == NULL) {
        PyErr_Clear();
        error = PyObject_CallNoArgs(PyExc_RuntimeError);
    }
    return error;
}

static PyObject *item_cancelled(struct item *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(self->cancelled);
}

/* Of a method whose one argument is `timeout`. */
static int deadline_argument(const char *method, PyObject *const *args, Py_ssize_t count, PyObject *names,
                             int64_t *ret_deadline_ns)
{
    Py_ssize_t named = names == NULL ? 0 : PyTuple_GET_SIZE(names);
    if (count + named > 1) {
        PyErr_Format(PyExc_TypeError, "%s() takes at most 1 argument", method);
        return -1;
    }
    if (named == 1 && PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, 0), "timeout") != 0) {
        PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument '%U'", method,
                     PyTuple_GET_ITEM(names, 0));
        return -1;
    }
    return timeout_to_deadline(count + named > 0 ? args[0] : NULL, ret_deadline_ns);
}

static PyObject *item_wait_method(struct item *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    int64_t deadline;
    if (deadline_argument("wait", args, count, names, &deadline) < 0)
        return NULL;
    int done = item_wait(self, deadline);
    return done < 0 ? NULL : PyBool_FromLong(done);
}

/* In place of an exception that may be set; always NULL. */
static PyObject *raise_futures_error(const char *name)
{
    PyErr_Clear();
    PyObject *module = PyImport_ImportModule("concurrent.futures");
    PyObject *type = module == NULL ? NULL : PyObject_GetAttrString(module, name);
    if (type != NULL)
        PyErr_SetNone(type);
    Py_XDECREF(type);
    Py_XDECREF(module);
    return NULL;
}

static PyObject *item_result(struct item *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    int64_t deadline;
    if (deadline_argument("result", args, count, names, &deadline) < 0)
        return NULL;
    int done = item_wait(self, deadline);
    if (done <= 0)
        return done < 0 ? NULL : raise_futures_error("TimeoutError");
    PyObject *value = item_value(self);
    return value == NULL && self->cancelled ? raise_futures_error("CancelledError") : value;
}

/* The attributes that somebody sets may refer to the item. */
static PyObject *item_get_dict(struct item *self, void *Py_UNUSED(closure))
{
    item_track(&self->owner);
    return PyObject_GenericGetDict((PyObject *)self, NULL);
}

static int item_setattro(struct item *self, PyObject *name, PyObject *value)
{
    item_track(&self->owner);
    return PyObject_GenericSetAttr((PyObject *)self, name, value);
}

static PyObject *item_watch(struct item *self, PyObject *callback)
{
    return owner_watch(&self->owner, callback, true);
}

static PyObject *item_limit(struct item *self, PyObject *args)
{
    return owner_limit(&self->owner, args);
}

static PyObject *item_attach(struct item *self, PyObject *engine)
{
    struct module_state *state = module_state_of(Py_TYPE(self));
    if (!Py_IS_TYPE(engine, state->engine_type) || self->owner.engine != NULL) {
        PyErr_SetString(PyExc_ValueError, "an item is attached once, to an Engine");
        return NULL;
    }
    self->owner.engine = (struct engine *)Py_NewRef(engine);
    Py_RETURN_NONE;
}

static PyObject *item_settle(struct item *self, PyObject *args)
{
    int ok, cancelled = 0;
    PyObject *value;
    if (!PyArg_ParseTuple(args, "pO|p:_settle", &ok, &value, &cancelled))
        return NULL;
    if (self->owner.done) {
        PyErr_SetString(PyExc_RuntimeError, "the call is done already");
        return NULL;
    }
    self->value = Py_NewRef(value);
    self->ok = (int8_t)ok;
    self->cancelled = cancelled;
    item_track(&self->owner);
    self->owner.done = true;
    if (self->owner.engine != NULL && !self->owner.engine->dead)
        engine_news(self->owner.engine);
    if (self->inbox != NULL)
        inbox_arrived(self);
    owner_run_watches(&self->owner);
    Py_RETURN_NONE;
}

static int item_traverse(struct item *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->value);
    Py_VISIT(self->owner.watches);
    Py_VISIT(self->owner.engine);
    Py_VISIT(self->arrival.object);
    return inbox_item_traverse(self, visit, arg);
}

static int item_clear(struct item *self)
{
    Py_CLEAR(self->value);
    Py_CLEAR(self->owner.watches);
    inbox_item_clear(self);
    return 0;
}

static void item_dealloc(struct item *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (self->weakrefs != NULL)
        PyObject_ClearWeakRefs((PyObject *)self);
    item_clear(self);
    if (self->owner.engine != NULL)
        arrival_clear(self->owner.engine, &self->arrival);
    if (self->owner.urgent) /* its callbacks have not run: it was dropped before it was done */
        self->owner.engine->watched--;
    Py_CLEAR(self->owner.engine);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

PyDoc_STRVAR(item_doc,
"Item()\n--\n\n"
"The outcome of one call that was submitted to an Engine. Subclasses need not call __init__.\n\n"
"Methods may be called from any thread of the process that submitted the call.");

static PyMethodDef item_methods[] = {
    {"done", (PyCFunction)item_done, METH_NOARGS,
     PyDoc_STR("done($self, /)\n--\n\nTrue if the outcome is there; looks for arrivals first, never blocks.")},
    {"running", (PyCFunction)item_running, METH_NOARGS,
     PyDoc_STR("running($self, /)\n--\n\nTrue if a worker has started the call and it is not done.")},
    {"cancel", (PyCFunction)(void (*)(void))item_cancel, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("cancel($self, /, running=False)\n--\n\n"
               "Take the call back if no worker has it, or stop it if `running`; True if it is cancelled.")},
    {"_limit", (PyCFunction)item_limit, METH_VARARGS,
     PyDoc_STR("_limit($self, timeout_ns, grace_ns, /)\n--\n\n"
               "Before it is submitted: how long it may take (0: no limit), and how long ending it (-1: default).")},
    {"cancelled", (PyCFunction)item_cancelled, METH_NOARGS,
     PyDoc_STR("cancelled($self, /)\n--\n\nTrue if cancel() succeeded.")},
    {"wait", (PyCFunction)(void (*)(void))item_wait_method, METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("wait($self, timeout=None)\n--\n\n"
               "Wait until the call is done; False if `timeout` seconds pass before.\n\n"
               "Releases the GIL; a signal handler that raises ends it at once.")},
    {"result", (PyCFunction)(void (*)(void))item_result, METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("result($self, timeout=None)\n--\n\n"
               "Return the result when it arrives, or raise what the call raised.\n\n"
               "Raises\n------\n"
               "concurrent.futures.CancelledError\n    If the future was cancelled.\n"
               "concurrent.futures.TimeoutError\n    If the result does not arrive within `timeout` seconds.")},
    {"outcome", (PyCFunction)item_outcome, METH_NOARGS,
     PyDoc_STR("outcome($self, /)\n--\n\n(True, value) or (False, exception). RuntimeError if it is not done.")},
    {"value", (PyCFunction)item_value_method, METH_NOARGS,
     PyDoc_STR("value($self, /)\n--\n\nThe value, or raises the call's exception. RuntimeError if it is not done.")},
    {"watch", (PyCFunction)item_watch, METH_O,
     PyDoc_STR("watch($self, callback, /)\n--\n\n"
               "Call callback(self) once when it is done; False, without a call, if it is done already.")},
    {"_settle", (PyCFunction)item_settle, METH_VARARGS,
     PyDoc_STR("_settle($self, ok, value, cancelled=False, /)\n--\n\n"
               "Give an outcome from outside. RuntimeError if there is one.")},
    {"_attach", (PyCFunction)item_attach, METH_O,
     PyDoc_STR("_attach($self, engine, /)\n--\n\n"
               "It is not submitted: who waits for it makes progress in this engine until it is settled.")},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef item_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(struct item, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

/* For subclasses, whose instances have a __dict__: to be their `__dict__`. */
static PyGetSetDef item_getset[] = {
    {"_attributes", (getter)item_get_dict, NULL, PyDoc_STR("The instance's __dict__."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot item_slots[] = {
    {Py_tp_doc, (void *)item_doc},
    {Py_tp_new, item_new},
    {Py_tp_dealloc, item_dealloc},
    {Py_tp_traverse, item_traverse},
    {Py_tp_clear, item_clear},
    {Py_tp_methods, item_methods},
    {Py_tp_members, item_members},
    {Py_tp_getset, item_getset},
    {Py_tp_setattro, item_setattro},
    {0, NULL},
};

PyType_Spec item_spec = {
    .name = "shoal._ext.Item",
    .basicsize = sizeof(struct item),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = item_slots,
};

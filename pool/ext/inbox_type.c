/* SPDX-License-Identifier: BSD-3-Clause */
/* inbox_type.c - the type Inbox as Python sees it: calls that are awaited, the table of methods. See inbox.h. */
#include "inbox.h"

#include "engine.h"
#include "item.h"

#define DRAIN_EVERY 32u /* calls, while there are more than fit into the queue: nobody else feeds it meanwhile */

static const char *const name_texts[INBOX_NAMES] = {"_item", "done", "_end", "set_result", "set_exception"};

/* ---- calls ---- */

/* A future for the item; new reference. The two refer to each other until it has an outcome. */
static PyObject *bind(struct inbox *self, struct item *item, PyObject *loop)
{
    if (self->closed) {
        PyErr_SetString(PyExc_RuntimeError, "the event loop's inbox is closed");
        return NULL;
    }
    if (item->inbox != NULL || item->owner.done) {
        PyErr_SetString(PyExc_ValueError, "an item is bound once, before it is submitted");
        return NULL;
    }
    if (self->loop == NULL && inbox_watch(self, loop) < 0)
        return NULL;
    PyObject *values[1] = {loop};
    PyObject *future = PyObject_Vectorcall(self->futures, values, 0, self->keyword);
    if (future == NULL || PyObject_SetAttr(future, self->names[INBOX_ITEM], (PyObject *)item) < 0) {
        Py_XDECREF(future);
        return NULL;
    }
    item->inbox = (struct inbox *)Py_NewRef((PyObject *)self);
    item->future = Py_NewRef(future);
    inbox_count(self, 1);
    return future;
}

static void submitted(struct inbox *self)
{
    struct engine *engine = self->engine;
    if (engine->backlog_count > 0 && ++self->submitted % DRAIN_EVERY == 0)
        engine_drain(engine);
    if (!inbox_attends_itself(self))
        inbox_attend(self);
}

static PyObject *inbox_bind(struct inbox *self, PyObject *args)
{
    PyObject *item, *loop;
    if (!PyArg_ParseTuple(args, "O!O:bind", self->engine->state->item_type, &item, &loop))
        return NULL;
    return bind(self, (struct item *)item, loop);
}

static PyObject *inbox_unbind_method(struct inbox *self, PyObject *item)
{
    if (PyObject_TypeCheck(item, self->engine->state->item_type) && ((struct item *)item)->inbox == self)
        inbox_unbind((struct item *)item);
    Py_RETURN_NONE;
}

static PyObject *inbox_expect(struct inbox *self, PyObject *Py_UNUSED(ignored))
{
    if (!self->closed)
        submitted(self);
    Py_RETURN_NONE;
}

static PyObject *inbox_submit(struct inbox *self, PyObject *const *args, Py_ssize_t count)
{
    if (count != 4 || !PyTuple_Check(args[2])) {
        PyErr_SetString(PyExc_TypeError, "submit(loop, func, args, kwargs)");
        return NULL;
    }
    struct item *item = item_make(self->engine->state->item_type);
    PyObject *future = item == NULL ? NULL : bind(self, item, args[0]);
    PyObject *kwargs = args[3] == Py_None || PyDict_GET_SIZE(args[3]) == 0 ? NULL : args[3];
    if (future != NULL && engine_submit_item(self->engine, item, args[1], args[2], kwargs) < 0) {
        PyObject *error = owner_fetch_exception();
        inbox_unbind(item);
        Py_CLEAR(future);
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        Py_XDECREF(error);
    } else if (future != NULL) {
        submitted(self);
    }
    Py_XDECREF(item);
    return future;
}

/* ---- the type ---- */

int inbox_item_traverse(struct item *item, visitproc visit, void *arg)
{
    Py_VISIT(item->future);
    Py_VISIT(item->inbox);
    return 0;
}

void inbox_item_clear(struct item *item)
{
    if (item->inbox != NULL)
        inbox_unbind(item);
}

static PyObject *inbox_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"engine", "futures", NULL};
    PyObject *engine, *futures;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O:Inbox", keywords, module_state_of(type)->engine_type, &engine,
                                     &futures) ||
        engine_check((struct engine *)engine) < 0)
        return NULL;
    struct inbox *self = (struct inbox *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->end = &self->first;
    self->futures = Py_NewRef(futures);
    self->fd = self->polled_fd = -1;
    self->keyword = Py_BuildValue("(s)", "loop");
    bool whole = self->keyword != NULL;
    for (int i = 0; i < INBOX_NAMES; i++) {
        self->names[i] = PyUnicode_InternFromString(name_texts[i]);
        whole = whole && self->names[i] != NULL;
    }
    self->engine = (struct engine *)Py_NewRef(engine);
    if (!whole || inbox_open_descriptors(self) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    self->next = self->engine->inboxes;
    self->engine->inboxes = self;
    return (PyObject *)self;
}

static int inbox_traverse(struct inbox *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->engine);
    Py_VISIT(self->futures);
    Py_VISIT(self->loop);
    for (struct item *item = self->first; item != NULL; item = item->next_arrived)
        Py_VISIT(item);
    return 0;
}

static int inbox_clear(struct inbox *self)
{
    Py_CLEAR(self->loop);
    self->closed = true;
    while (self->first != NULL)
        inbox_deliver(self);
    return 0;
}

static void unlist(struct inbox *self)
{
    for (struct inbox **link = &self->engine->inboxes; *link != NULL; link = &(*link)->next) {
        if (*link == self) {
            *link = self->next;
            return;
        }
    }
}

static void inbox_dealloc(struct inbox *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (self->engine != NULL) {
        if (self->engine->epoch == self->engine->state->fork_epoch)
            inbox_stop_attending(self);
        inbox_drop_waiter(self);
        unlist(self);
        if (self->engine->epoch == self->engine->state->fork_epoch)
            inboxes_take_over(self->engine);
    }
    inbox_close_descriptors(self);
    Py_CLEAR(self->loop);
    Py_CLEAR(self->futures);
    Py_CLEAR(self->keyword);
    for (int i = 0; i < INBOX_NAMES; i++)
        Py_CLEAR(self->names[i]);
    Py_CLEAR(self->engine);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

PyDoc_STRVAR(inbox_doc,
"Inbox(engine, futures)\n--\n\n"
"Where outcomes arrive that an event loop awaits, in the loop's thread.\n\n"
"futures(loop=loop) makes an asyncio future that has an attribute `_item` to be set, and a method `_end()` that ends\n"
"it as cancelled. All methods are called in the thread that runs the loop; outcomes may be collected by any.");

#define DOC(signature, text) PyDoc_STR(signature "\n--\n\n" text)
static PyMethodDef inbox_methods[] = {
    {"submit", (PyCFunction)(void (*)(void))inbox_submit, METH_FASTCALL,
     DOC("submit($self, loop, func, args, kwargs, /)", "Submit the call, and return a future for it.")},
    {"bind", (PyCFunction)inbox_bind, METH_VARARGS,
     DOC("bind($self, item, loop, /)", "Return a future for an Item that is about to be submitted; then expect().")},
    {"unbind", (PyCFunction)inbox_unbind_method, METH_O,
     DOC("unbind($self, item, /)", "It was not submitted after all.")},
    {"expect", (PyCFunction)inbox_expect, METH_NOARGS, DOC("expect($self, /)", "What was bound is submitted.")},
    {"collect", (PyCFunction)inbox_collect, METH_NOARGS,
     DOC("collect($self, /)", "Take what has arrived, and complete its futures. What the loop's reader calls.")},
    {"rest", (PyCFunction)inbox_rest, METH_NOARGS,
     DOC("rest($self, /)", "Have the loop watch nothing, if nothing is under way.")},
    {"close", (PyCFunction)inbox_close, METH_NOARGS,
     DOC("close($self, /)", "The loop has ended: what is still under way ends unseen.")},
    {NULL, NULL, 0, NULL},
};

static PyObject *get_outstanding(struct inbox *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(self->outstanding);
}

static PyObject *get_bridged(struct inbox *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->bridged);
}

static PyObject *get_watched(struct inbox *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->loop != NULL);
}

static PyGetSetDef inbox_getset[] = {
    {"outstanding", (getter)get_outstanding, NULL, PyDoc_STR("How many futures have no outcome yet."), NULL},
    {"bridged", (getter)get_bridged, NULL, PyDoc_STR("True if a thread collects, for want of a descriptor."), NULL},
    {"watched", (getter)get_watched, NULL, PyDoc_STR("True while the loop watches its descriptor."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot inbox_slots[] = {
    {Py_tp_doc, (void *)inbox_doc},
    {Py_tp_new, inbox_new},
    {Py_tp_dealloc, inbox_dealloc},
    {Py_tp_traverse, inbox_traverse},
    {Py_tp_clear, inbox_clear},
    {Py_tp_methods, inbox_methods},
    {Py_tp_getset, inbox_getset},
    {0, NULL},
};

PyType_Spec inbox_spec = {
    .name = "shoal._ext.Inbox",
    .basicsize = sizeof(struct inbox),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = inbox_slots,
};

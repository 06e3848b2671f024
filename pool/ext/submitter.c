/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * submitter.c - what is done for each call of an executor's submit(), in C: a method of Python's, with *args and
 * **kwargs, and the making of an object by its type, take as long as pickling and publishing the task.
 *
 * Beginning, end and errors are the subclass's: _start() is called while there is no engine, and _fail(future, error)
 * when a call could not be sent.
 */
#include "engine.h"
#include "item.h"

struct submitter {
    PyObject_HEAD
    PyObject *engine;      /* an Engine, or NULL */
    PyTypeObject *futures; /* Item or a subclass of it, or NULL */
    PyObject *instead;     /* called with each call (engine, fn, args, kwargs or None) to submit it; or NULL */
};

/* New reference. */
static struct engine *engine_now(struct submitter *self)
{
    if (self->engine != NULL)
        return (struct engine *)Py_NewRef(self->engine);
    PyObject *engine = PyObject_CallMethod((PyObject *)self, "_start", NULL);
    if (engine != NULL && !Py_IS_TYPE(engine, module_state_of(Py_TYPE(self))->engine_type)) {
        PyErr_SetString(PyExc_TypeError, "_start() has to give an Engine");
        Py_CLEAR(engine);
    }
    return (struct engine *)engine;
}

static PyObject *tuple_of(PyObject *const *args, Py_ssize_t count)
{
    PyObject *tuple = PyTuple_New(count);
    for (Py_ssize_t i = 0; tuple != NULL && i < count; i++)
        PyTuple_SET_ITEM(tuple, i, Py_NewRef(args[i]));
    return tuple;
}

static PyObject *dict_of(PyObject *names, PyObject *const *values)
{
    PyObject *dict = PyDict_New();
    for (Py_ssize_t i = 0; dict != NULL && i < PyTuple_GET_SIZE(names); i++) {
        if (PyDict_SetItem(dict, PyTuple_GET_ITEM(names, i), values[i]) < 0)
            Py_CLEAR(dict);
    }
    return dict;
}

/* What went wrong, and is set, is the future's, unless _fail() says that it is ours. */
static int deliver_failure(struct submitter *self, struct item *future)
{
    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return -1;
    PyObject *error = owner_fetch_exception();
    PyObject *done = error == NULL ? NULL : PyObject_CallMethod((PyObject *)self, "_fail", "OO", future, error);
    Py_XDECREF(error);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

static PyObject *submit(struct submitter *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    if (count < 1) {
        PyErr_SetString(PyExc_TypeError, "submit() missing 1 required positional argument: 'fn'");
        return NULL;
    }
    struct engine *engine = engine_now(self);
    if (engine == NULL)
        return NULL;
    engine->engaged++; /* it is not found idle, and closed, under our hands */
    bool named = names != NULL && PyTuple_GET_SIZE(names) > 0;
    PyObject *arguments = tuple_of(args + 1, count - 1);
    PyObject *kwargs = named ? dict_of(names, args + count) : NULL;
    struct item *future = NULL;
    bool taken = arguments != NULL && (kwargs != NULL || !named);
    if (taken && self->instead != NULL)
        future = (struct item *)PyObject_CallFunctionObjArgs(self->instead, engine, args[0], arguments,
                                                             named ? kwargs : Py_None, NULL);
    else if (taken)
        future = item_make(self->futures != NULL ? self->futures : engine->state->item_type);
    if (future != NULL && self->instead == NULL && engine_submit_item(engine, future, args[0], arguments, kwargs) < 0 &&
        deliver_failure(self, future) < 0)
        Py_CLEAR(future);
    engine->engaged--;
    Py_XDECREF(arguments);
    Py_XDECREF(kwargs);
    Py_DECREF(engine);
    return (PyObject *)future;
}

static PyObject *get_engine(struct submitter *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->engine != NULL ? self->engine : Py_None);
}

static int set_engine(struct submitter *self, PyObject *engine, void *Py_UNUSED(closure))
{
    if (engine == Py_None)
        engine = NULL;
    if (engine != NULL && !Py_IS_TYPE(engine, module_state_of(Py_TYPE(self))->engine_type)) {
        PyErr_SetString(PyExc_TypeError, "an Engine or None");
        return -1;
    }
    Py_XINCREF(engine);
    Py_XSETREF(self->engine, engine);
    return 0;
}

static PyObject *get_futures(struct submitter *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->futures != NULL ? (PyObject *)self->futures : Py_None);
}

static int set_futures(struct submitter *self, PyObject *type, void *Py_UNUSED(closure))
{
    if (type == NULL || !PyType_Check(type) ||
        !PyType_IsSubtype((PyTypeObject *)type, module_state_of(Py_TYPE(self))->item_type)) {
        PyErr_SetString(PyExc_TypeError, "Item or a subclass of it");
        return -1;
    }
    Py_INCREF(type);
    Py_XSETREF(self->futures, (PyTypeObject *)type);
    return 0;
}

static PyObject *get_instead(struct submitter *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->instead != NULL ? self->instead : Py_None);
}

static int set_instead(struct submitter *self, PyObject *callable, void *Py_UNUSED(closure))
{
    Py_XSETREF(self->instead, callable == Py_None ? NULL : Py_XNewRef(callable));
    return 0;
}

static int submitter_traverse(struct submitter *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->engine);
    Py_VISIT(self->futures);
    Py_VISIT(self->instead);
    return 0;
}

static int submitter_clear(struct submitter *self)
{
    Py_CLEAR(self->engine);
    Py_CLEAR(self->futures);
    Py_CLEAR(self->instead);
    return 0;
}

static void submitter_dealloc(struct submitter *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    submitter_clear(self);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

PyDoc_STRVAR(submitter_doc,
"Submitter()\n--\n\n"
"The part of an executor that takes calls. A subclass has _start() -> Engine, called while there is none, and\n"
"_fail(future, error), called when a call could not be sent; what that raises, submit() raises.");

static PyMethodDef submitter_methods[] = {
    {"submit", (PyCFunction)(void (*)(void))submit, METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("submit($self, fn, /, *args, **kwargs)\n--\n\n"
               "Have `fn(*args, **kwargs)` computed; return its Future at once.\n\n"
               "What goes wrong while the call is pickled arrives as the future's exception.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef submitter_getset[] = {
    {"_engine", (getter)get_engine, (setter)set_engine, PyDoc_STR("Engine while calls are taken, else None."), NULL},
    {"_futures", (getter)get_futures, (setter)set_futures, PyDoc_STR("The type of what submit() returns."), NULL},
    {"_instead", (getter)get_instead, (setter)set_instead,
     PyDoc_STR("None, or what submits each call: instead(engine, fn, args, kwargs or None) -> future."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot submitter_slots[] = {
    {Py_tp_doc, (void *)submitter_doc},
    {Py_tp_dealloc, submitter_dealloc},
    {Py_tp_traverse, submitter_traverse},
    {Py_tp_clear, submitter_clear},
    {Py_tp_methods, submitter_methods},
    {Py_tp_getset, submitter_getset},
    {0, NULL},
};

PyType_Spec submitter_spec = {
    .name = "shoal._ext.Submitter",
    .basicsize = sizeof(struct submitter),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = submitter_slots,
};

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pickler_type.c - the Python type Pickler, with the interface of _pickle.Pickler.
 *
 * The hooks (persistent_id, reducer_override, dispatch_table) are looked up at each dump(), on the instance and along
 * the classes, and held for that dump only: so a Pickler has no reference to its own methods and no cycle. They can be
 * methods of a subclass or be set on an instance; for a bare Pickler, which has no __dict__, the descriptors below
 * keep them.
 */
#include "pickler_type.h"

#include <structmember.h>

enum { KEPT_BYTES = 256 * 1024 }; /* a larger buffer is not kept for the next dump() */

static PyObject *pickler_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    struct shoal_pickle_state *state = shoal_pickle_state_of_type(type);
    if (!state)
        return NULL;
    struct shoal_pickler *self = (struct shoal_pickler *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    shoal_heap_sink_init(&self->heap);
    if (shoal_encoder_init(&self->encoder, state) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static int pickler_init(PyObject *object, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"file", "protocol", "fix_imports", "buffer_callback", NULL};
    struct shoal_pickler *self = (struct shoal_pickler *)object;
    PyObject *file, *protocol = NULL, *buffer_callback = NULL;
    int fix_imports = 1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|OpO:Pickler", names, &file, &protocol, &fix_imports,
                                     &buffer_callback))
        return -1;
    if (self->running) {
        PyErr_SetString(PyExc_RuntimeError, "this Pickler is at work");
        return -1;
    }
    Py_CLEAR(self->write);
    Py_CLEAR(self->buffer_callback);
    shoal_memo_reset(&self->encoder.memo);
    if (shoal__encoder_set_protocol(&self->encoder, protocol, fix_imports, buffer_callback) < 0)
        return -1;
    self->buffer_callback = Py_XNewRef(self->encoder.hooks.buffer_callback);
    self->encoder.hooks.buffer_callback = NULL; /* given at each dump */
    self->encoder.framing = self->encoder.protocol >= 4;
    self->encoder.fast = false;
    self->write = PyObject_GetAttr(file, self->encoder.state->names.write);
    if (!self->write && PyErr_ExceptionMatches(PyExc_AttributeError))
        PyErr_SetString(PyExc_TypeError, "file must have a 'write' attribute");
    return self->write ? 0 : -1;
}

static int pickler_traverse(PyObject *object, visitproc visit, void *arg)
{
    struct shoal_pickler *self = (struct shoal_pickler *)object;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->write);
    Py_VISIT(self->buffer_callback);
    Py_VISIT(self->persistent_id);
    Py_VISIT(self->dispatch_table);
    Py_VISIT(self->encoder.fast_seen);
    Py_VISIT(self->encoder.path);
    Py_VISIT(self->encoder.culprit);
    for (size_t i = 0; i < self->encoder.memo.count; i++)
        Py_VISIT((PyObject *)(self->encoder.memo.keys[i] & ~SHOAL_MEMO_SHADOW));
    return 0;
}

static int pickler_clear(PyObject *object)
{
    struct shoal_pickler *self = (struct shoal_pickler *)object;
    Py_CLEAR(self->write);
    Py_CLEAR(self->buffer_callback);
    Py_CLEAR(self->persistent_id);
    Py_CLEAR(self->dispatch_table);
    if (self->encoder.memo.slots)
        shoal_memo_reset(&self->encoder.memo);
    return 0;
}

static void pickler_dealloc(PyObject *object)
{
    struct shoal_pickler *self = (struct shoal_pickler *)object;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    pickler_clear(object);
    if (self->encoder.memo.slots)
        shoal_encoder_done(&self->encoder);
    shoal_heap_sink_clear(&self->heap);
    type->tp_free(self);
    Py_DECREF(type);
}

/* ---- dump ---- */

#if PY_VERSION_HEX >= 0x030D0000
#define LOOKUP_ATTRIBUTE PyObject_GetOptionalAttr
#else
#define LOOKUP_ATTRIBUTE _PyObject_LookupAttr
#endif

/*
 * For a class whose heirs end their reducer_override with super()'s. No method of Pickler itself, which would hide one
 * that comes later among the bases. As a builtin function it does not bind: the pickler is not among its arguments if
 * it is called on one, and is if somebody calls the class's.
 */
static PyObject *reducer_override(PyObject *Py_UNUSED(self), PyObject *const *Py_UNUSED(args), Py_ssize_t n)
{
    if (n >= 1 && n <= 2)
        return Py_NewRef(Py_NotImplemented);
    PyErr_Format(PyExc_TypeError, "reducer_override() takes one object (%zd given)", n);
    return NULL;
}

PyMethodDef shoal__pickler_functions[] = {
    {"reducer_override", (PyCFunction)(void (*)(void))reducer_override, METH_FASTCALL,
     "reducer_override(obj)\n--\n\n"
     "For subclasses to override: what __reduce__ would say of obj, or NotImplemented to write it as usual."},
    {NULL, NULL, 0, NULL},
};

/* The hook that a subclass or the instance brings, NULL if there is none. New reference. 0 or -1. */
static int find_persistent_id(struct shoal_pickler *self, PyObject **ret_hook)
{
    PyObject *name = self->encoder.state->names.persistent_id;
    PyObject *base = self->encoder.state->writer.pickler_type;
    *ret_hook = NULL;
    if (!self->persistent_id && Py_IS_TYPE(self, (PyTypeObject *)base))
        return 0;
    if (LOOKUP_ATTRIBUTE((PyObject *)self, name, ret_hook) < 0)
        return -1;
    /* Our own answer "None" to everything need not be asked. */
    if (*ret_hook && PyCFunction_Check(*ret_hook) &&
        PyCFunction_GET_FUNCTION(*ret_hook) == shoal__no_persistent_id)
        Py_CLEAR(*ret_hook);
    return 0;
}

/* Likewise. That of shoal.cloudpickle's Pickler answers NotImplemented, always. */
static int find_reducer_override(struct shoal_pickler *self, PyObject **ret_hook)
{
    *ret_hook = NULL;
    if (Py_IS_TYPE(self, (PyTypeObject *)self->encoder.state->writer.pickler_type))
        return 0; /* it has no __dict__ */
    if (LOOKUP_ATTRIBUTE((PyObject *)self, self->encoder.state->names.reducer_override, ret_hook) < 0)
        return -1;
    if (*ret_hook && PyCFunction_Check(*ret_hook) &&
        PyCFunction_GET_FUNCTION(*ret_hook) == (PyCFunction)(void (*)(void))reducer_override)
        Py_CLEAR(*ret_hook);
    return 0;
}

/*
 * Set on the instance, or an attribute of a class. A subclass with a table in its class hides our member; what somebody
 * has set through the member itself (loky does, as pickle wants it) still goes before the class's.
 */
static int find_dispatch_table(struct shoal_pickler *self, PyObject **ret_table)
{
    PyObject *name = self->encoder.state->names.dispatch_table;
    if (LOOKUP_ATTRIBUTE((PyObject *)self, name, ret_table) < 0)
        return -1;
    if (self->dispatch_table && *ret_table && *ret_table == _PyType_Lookup(Py_TYPE(self), name))
        Py_SETREF(*ret_table, Py_NewRef(self->dispatch_table));
    return 0;
}

static int run_dump(struct shoal_pickler *self, PyObject *obj)
{
    struct shoal_encoder *encoder = &self->encoder;
    struct shoal_encoder_hooks hooks = {.file_write = Py_NewRef(self->write),
                                        .buffer_callback = Py_XNewRef(self->buffer_callback)};
    int result = -1;
    if (find_persistent_id(self, &hooks.persistent_id) < 0 ||
        find_reducer_override(self, &hooks.reducer_override) < 0 ||
        find_dispatch_table(self, &hooks.dispatch_table) < 0 ||
        shoal__set_dispatch_table(&hooks, encoder->state, hooks.dispatch_table) < 0)
        goto out;
    shoal_heap_sink_rewind(&self->heap);
    encoder->sink = &self->heap.sink;
    encoder->hooks = hooks;
    result = shoal__encoder_run(encoder, obj);
    if (result == 0)
        result = shoal__flush(encoder);
    encoder->hooks = (struct shoal_encoder_hooks){0};
    Py_CLEAR(encoder->fast_seen);
    if (self->heap.sink.limit - self->heap.sink.start > KEPT_BYTES)
        shoal_heap_sink_clear(&self->heap);
out:
    Py_XDECREF(hooks.persistent_id);
    Py_XDECREF(hooks.reducer_override);
    Py_XDECREF(hooks.dispatch_table);
    Py_XDECREF(hooks.dispatch_maps);
    Py_XDECREF(hooks.buffer_callback);
    Py_DECREF(hooks.file_write);
    return result;
}

static PyObject *pickler_dump(PyObject *object, PyObject *obj)
{
    struct shoal_pickler *self = (struct shoal_pickler *)object;
    if (!self->write) {
        PyErr_Format(self->encoder.state->shared.pickling_error, "Pickler.__init__() was not called by %s.__init__()",
                     Py_TYPE(self)->tp_name);
        return NULL;
    }
    if (self->running) {
        PyErr_SetString(PyExc_RuntimeError, "this Pickler is at work: a nested dump() needs one of its own");
        return NULL;
    }
    self->running = true;
    int result = run_dump(self, obj);
    self->running = false;
    if (result < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *pickler_clear_memo(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    shoal_memo_reset(&((struct shoal_pickler *)object)->encoder.memo);
    Py_RETURN_NONE;
}

static PyObject *pickler_sizeof(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    const struct shoal_pickler *self = (struct shoal_pickler *)object;
    size_t size = (size_t)Py_TYPE(object)->tp_basicsize + shoal_memo_size(&self->encoder.memo);
    return PyLong_FromSize_t(size + (size_t)(self->heap.sink.limit - self->heap.sink.start));
}

/* ---- attributes ---- */

PyObject *shoal__no_persistent_id(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(obj))
{
    Py_RETURN_NONE;
}

static PyMethodDef no_persistent_id = {"persistent_id", shoal__no_persistent_id, METH_O,
                                       "persistent_id(obj, /)\n--\n\nThe id under which obj is written, or None."};

static PyObject *get_persistent_id(PyObject *object, void *Py_UNUSED(closure))
{
    struct shoal_pickler *self = (struct shoal_pickler *)object;
    if (self->persistent_id)
        return Py_NewRef(self->persistent_id);
    return PyCFunction_New(&no_persistent_id, object);
}

static int set_persistent_id(PyObject *object, PyObject *value, void *Py_UNUSED(closure))
{
    struct shoal_pickler *self = (struct shoal_pickler *)object;
    if (!value && !self->persistent_id) {
        PyErr_SetString(PyExc_AttributeError, "persistent_id");
        return -1;
    }
    if (value && !PyCallable_Check(value)) {
        PyErr_SetString(PyExc_TypeError, "persistent_id must be a callable taking one argument");
        return -1;
    }
    Py_XSETREF(self->persistent_id, Py_XNewRef(value));
    return 0;
}

static PyObject *get_bin(PyObject *object, void *Py_UNUSED(closure))
{
    return PyLong_FromLong(((struct shoal_pickler *)object)->encoder.binary);
}

static PyObject *get_fast(PyObject *object, void *Py_UNUSED(closure))
{
    return PyLong_FromLong(((struct shoal_pickler *)object)->encoder.fast);
}

static int set_fast(PyObject *object, PyObject *value, void *Py_UNUSED(closure))
{
    int fast = value ? PyObject_IsTrue(value) : 0;
    if (fast < 0)
        return -1;
    ((struct shoal_pickler *)object)->encoder.fast = fast;
    return 0;
}

static PyMethodDef pickler_methods[] = {
    {"dump", pickler_dump, METH_O, "dump($self, obj, /)\n--\n\nWrite one pickle of obj to the file."},
    {"clear_memo", pickler_clear_memo, METH_NOARGS,
     "clear_memo($self, /)\n--\n\nForget the objects that were written: they will be written whole again."},
    {"__sizeof__", pickler_sizeof, METH_NOARGS, "__sizeof__($self, /)\n--\n\nThe size in memory, in bytes."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef pickler_members[] = {
    {"dispatch_table", T_OBJECT_EX, offsetof(struct shoal_pickler, dispatch_table), 0,
     "Mapping from type to reducer, used instead of copyreg.dispatch_table."},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef pickler_getset[] = {
    {"memo", shoal__get_memo, shoal__set_memo, "The objects written so far: id -> (number, object).", NULL},
    {"persistent_id", get_persistent_id, set_persistent_id, "Gives the id under which an object is written.", NULL},
    {"bin", get_bin, NULL, "1 from protocol 1 on.", NULL},
    {"fast", get_fast, set_fast, "True: no memo, so that shared objects are written twice and cycles fail.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot pickler_slots[] = {
    {Py_tp_doc, "Pickler(file, protocol=None, fix_imports=True, buffer_callback=None)\n--\n\n"
                "Writes pickles to a binary file. As pickle.Pickler; functions and classes that cannot be imported\n"
                "where the pickle is loaded travel by value."},
    {Py_tp_new, pickler_new},
    {Py_tp_init, pickler_init},
    {Py_tp_dealloc, pickler_dealloc},
    {Py_tp_traverse, pickler_traverse},
    {Py_tp_clear, pickler_clear},
    {Py_tp_methods, pickler_methods},
    {Py_tp_members, pickler_members},
    {Py_tp_getset, pickler_getset},
    {0, NULL},
};

PyType_Spec shoal__pickler_spec = {
    .name = "shoal.Pickler",
    .basicsize = sizeof(struct shoal_pickler),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = pickler_slots,
};

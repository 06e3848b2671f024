/* SPDX-License-Identifier: BSD-3-Clause */
/* memo_proxy.c - Pickler.memo: the memo table as Python sees it, {id: (number, object)}. */
#include "pickler_type.h"

struct memo_proxy {
    PyObject_HEAD
    struct shoal_pickler *pickler;
};

static PyObject *proxy_copy(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    struct shoal_memo *memo = &((struct memo_proxy *)object)->pickler->encoder.memo;
    PyObject *copy = PyDict_New();
    for (size_t i = 0; copy && i < memo->count; i++) {
        uintptr_t key = memo->keys[i];
        PyObject *held = Py_NewRef((PyObject *)(key & ~SHOAL_MEMO_SHADOW)); /* a collection may clear the memo */
        PyObject *id = PyLong_FromVoidPtr((void *)key);
        PyObject *value = Py_BuildValue("nN", (Py_ssize_t)shoal_memo_find(memo, key), held);
        if (!id || !value || PyDict_SetItem(copy, id, value) < 0)
            Py_CLEAR(copy);
        Py_XDECREF(id);
        Py_XDECREF(value);
    }
    return copy;
}

static PyObject *proxy_clear_memo(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    shoal_memo_reset(&((struct memo_proxy *)object)->pickler->encoder.memo);
    Py_RETURN_NONE;
}

static PyObject *proxy_reduce(PyObject *object, PyObject *ignored)
{
    PyObject *copy = proxy_copy(object, ignored);
    PyObject *value = copy ? Py_BuildValue("(O(O))", (PyObject *)&PyDict_Type, copy) : NULL;
    Py_XDECREF(copy);
    return value;
}

static int proxy_traverse(PyObject *object, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(((struct memo_proxy *)object)->pickler);
    return 0;
}

/* Without its pickler it would be of no use, and it dies soon; the pickler's own clear breaks the cycle. */
static void proxy_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    Py_CLEAR(((struct memo_proxy *)object)->pickler);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyMethodDef proxy_methods[] = {
    {"copy", proxy_copy, METH_NOARGS, "copy()\n--\n\nThe memo as a new dict."},
    {"clear", proxy_clear_memo, METH_NOARGS, "clear()\n--\n\nEmpty the memo."},
    {"__reduce__", proxy_reduce, METH_NOARGS, "Pickled as the dict."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot proxy_slots[] = {
    {Py_tp_dealloc, proxy_dealloc},
    {Py_tp_traverse, proxy_traverse},
    {Py_tp_methods, proxy_methods},
    {Py_tp_hash, PyObject_HashNotImplemented},
    {0, NULL},
};

PyType_Spec shoal__memo_proxy_spec = {
    .name = "shoal.PicklerMemoProxy",
    .basicsize = sizeof(struct memo_proxy),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = proxy_slots,
};

PyObject *shoal__get_memo(PyObject *pickler, void *Py_UNUSED(closure))
{
    PyTypeObject *type = (PyTypeObject *)((struct shoal_pickler *)pickler)->encoder.state->writer.memo_proxy_type;
    struct memo_proxy *proxy = (struct memo_proxy *)type->tp_alloc(type, 0);
    if (proxy)
        proxy->pickler = (struct shoal_pickler *)Py_NewRef(pickler);
    return (PyObject *)proxy;
}

/* Enters one (number, object) of a user's dict. */
static int enter_value(struct shoal_memo *memo, PyObject *value)
{
    if (!PyTuple_Check(value) || PyTuple_GET_SIZE(value) != 2) {
        PyErr_SetString(PyExc_TypeError, "'memo' values must be 2-item tuples");
        return -1;
    }
    unsigned long index = PyLong_AsUnsignedLong(PyTuple_GET_ITEM(value, 0));
    if (index == (unsigned long)-1 && PyErr_Occurred())
        return -1;
    if (index > UINT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "'memo' numbers must be below 2**32");
        return -1;
    }
    uintptr_t key = (uintptr_t)PyTuple_GET_ITEM(value, 1);
    return shoal_memo_find(memo, key) >= 0 ? 0 : shoal_memo_put(memo, key, (uint32_t)index);
}

int shoal__set_memo(PyObject *pickler, PyObject *value, void *Py_UNUSED(closure))
{
    struct shoal_pickler *self = (struct shoal_pickler *)pickler;
    if (!value) {
        PyErr_SetString(PyExc_TypeError, "attribute deletion is not supported");
        return -1;
    }
    PyObject *entries;
    if (Py_IS_TYPE(value, (PyTypeObject *)self->encoder.state->writer.memo_proxy_type)) {
        entries = proxy_copy(value, NULL);
    } else if (PyDict_Check(value)) {
        entries = PyDict_Copy(value);
    } else {
        PyErr_Format(PyExc_TypeError, "'memo' attribute must be a PicklerMemoProxy object or dict, not %.200s",
                     Py_TYPE(value)->tp_name);
        return -1;
    }
    if (!entries)
        return -1;
    struct shoal_memo fresh;
    int result = shoal_memo_init(&fresh);
    Py_ssize_t position = 0;
    PyObject *key, *entry;
    while (result == 0 && PyDict_Next(entries, &position, &key, &entry))
        result = enter_value(&fresh, entry);
    Py_DECREF(entries);
    if (result == 0) {
        struct shoal_memo old = self->encoder.memo;
        self->encoder.memo = fresh;
        fresh = old;
    }
    if (fresh.slots)
        shoal_memo_done(&fresh);
    return result;
}

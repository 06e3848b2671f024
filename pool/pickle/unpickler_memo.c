/* SPDX-License-Identifier: BSD-3-Clause */
/* unpickler_memo.c - Unpickler.memo: a proxy, since the memo is not a dict; it can be copied, cleared and replaced. */
#include "unpickler.h"

struct memo_proxy {
    PyObject_HEAD
    PyObject *unpickler;
};

static struct shoal__memo *memo_of(PyObject *unpickler)
{
    struct shoal_decoder *decoder = ((struct shoal__unpickler *)unpickler)->decoder;
    if (decoder == NULL)
        PyErr_SetString(PyExc_RuntimeError, "Unpickler.__init__() was not called");
    return decoder == NULL ? NULL : &decoder->memo;
}

static int proxy_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((struct memo_proxy *)self)->unpickler);
    return 0;
}

static int proxy_clear_unpickler(PyObject *self)
{
    Py_CLEAR(((struct memo_proxy *)self)->unpickler);
    return 0;
}

static void proxy_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    proxy_clear_unpickler(self);
    type->tp_free(self);
    Py_DECREF(type);
}

PyDoc_STRVAR(clear_doc, "clear($self, /)\n--\n\nForget all objects.");

static PyObject *proxy_clear(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    struct shoal__memo *memo = memo_of(((struct memo_proxy *)self)->unpickler);
    if (memo == NULL)
        return NULL;
    shoal__memo_clear(memo);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(copy_doc, "copy($self, /)\n--\n\nReturn the memo as a dict: number -> object.");

static PyObject *proxy_copy(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    const struct shoal__memo *memo = memo_of(((struct memo_proxy *)self)->unpickler);
    return memo == NULL ? NULL : shoal__memo_to_dict(memo);
}

PyDoc_STRVAR(reduce_doc, "__reduce__($self, /)\n--\n\nPickle as a dict.");

static PyObject *proxy_reduce(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *dict = proxy_copy(self, NULL);
    return dict == NULL ? NULL : Py_BuildValue("O(N)", (PyObject *)&PyDict_Type, dict);
}

static PyMethodDef proxy_methods[] = {
    {"clear", proxy_clear, METH_NOARGS, clear_doc},
    {"copy", proxy_copy, METH_NOARGS, copy_doc},
    {"__reduce__", proxy_reduce, METH_NOARGS, reduce_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot proxy_slots[] = {
    {Py_tp_dealloc, proxy_dealloc},
    {Py_tp_traverse, proxy_traverse},
    {Py_tp_clear, proxy_clear_unpickler},
    {Py_tp_methods, proxy_methods},
    {Py_tp_hash, PyObject_HashNotImplemented},
    {0, NULL},
};

PyType_Spec shoal__unpickler_memo_spec = {
    .name = "shoal._ext.UnpicklerMemoProxy",
    .basicsize = sizeof(struct memo_proxy),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = proxy_slots,
};

PyObject *shoal__unpickler_get_memo(PyObject *self, void *Py_UNUSED(closure))
{
    const struct shoal_pickle_state *state = shoal_pickle_state_of_type(Py_TYPE(self));
    if (state == NULL)
        return NULL;
    PyTypeObject *type = (PyTypeObject *)state->reader.memo_proxy_type;
    struct memo_proxy *proxy = PyObject_GC_New(struct memo_proxy, type);
    if (proxy == NULL)
        return NULL;
    proxy->unpickler = Py_NewRef(self);
    PyObject_GC_Track(proxy);
    return (PyObject *)proxy;
}

int shoal__unpickler_set_memo(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    if (value == NULL) {
        PyErr_SetString(PyExc_TypeError, "attribute deletion is not supported");
        return -1;
    }
    const struct shoal_pickle_state *state = shoal_pickle_state_of_type(Py_TYPE(self));
    struct shoal__memo *memo = state == NULL ? NULL : memo_of(self);
    if (memo == NULL)
        return -1;
    PyObject *dict;
    if ((PyObject *)Py_TYPE(value) == state->reader.memo_proxy_type) {
        dict = proxy_copy(value, NULL);
    } else if (PyDict_Check(value)) {
        dict = Py_NewRef(value);
    } else {
        PyErr_Format(PyExc_TypeError, "'memo' attribute must be an UnpicklerMemoProxy object or dict, not %.200s",
                     Py_TYPE(value)->tp_name);
        return -1;
    }
    int result = dict == NULL ? -1 : shoal__memo_from_dict(memo, dict);
    Py_XDECREF(dict);
    return result;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* save_views.c - objects that show what others hold: dict views, mapping proxies, memory views. */
#include "special.h"

int shoal__save_mapping_proxy(struct shoal_encoder *e, PyObject *obj, const struct shoal_special_type *Py_UNUSED(kind))
{
    PyObject *copy = PyDict_New();
    PyObject *arguments = NULL;
    if (copy && PyDict_Update(copy, obj) == 0)
        arguments = PyTuple_Pack(1, copy);
    Py_XDECREF(copy);
    return shoal__save_made(e, (PyObject *)&PyDictProxy_Type, arguments, obj);
}

int shoal__save_dict_view(struct shoal_encoder *e, PyObject *obj, const struct shoal_special_type *Py_UNUSED(kind))
{
    PyObject *parts = PySequence_List(obj);
    PyObject *arguments = parts ? Py_BuildValue("(sO)", Py_TYPE(obj)->tp_name, parts) : NULL;
    Py_XDECREF(parts);
    return shoal__save_rebuilt(e, REBUILD_VIEW, arguments, obj) < 0 ? -1 : 1;
}

/* ---- memory views: memoryview(bytes or bytearray), and .cast(format, shape) if it is not one of plain bytes ---- */

/* A PickleBuffer of plain bytes, whatever shape and format obj gives them. */
static PyObject *flat_buffer(PyObject *obj)
{
    PyObject *shaped = PyPickleBuffer_FromObject(obj);
    PyObject *raw = shaped ? PyObject_CallMethod(shaped, "raw", NULL) : NULL;
    PyObject *flat = raw ? PyPickleBuffer_FromObject(raw) : NULL;
    Py_XDECREF(raw);
    Py_XDECREF(shaped);
    return flat;
}

/* The memory itself, once: no copy is made of it if it lies in one piece. A writable one arrives writable. */
static int save_memory(struct shoal_encoder *e, PyObject *obj, const Py_buffer *view)
{
    if (e->protocol >= 5 && PyBuffer_IsContiguous(view, 'C')) {
        PyObject *buffer = flat_buffer(obj);
        int result = buffer ? shoal__save(e, buffer) : -1;
        Py_XDECREF(buffer);
        return result;
    }
    if (e->protocol >= 3 && view->readonly && PyBuffer_IsContiguous(view, 'C'))
        return shoal__save_bytes_data(e, obj, view->buf, view->len);
    PyObject *copy = PyBytes_FromStringAndSize(NULL, view->len);
    if (copy && PyBuffer_ToContiguous(PyBytes_AS_STRING(copy), (Py_buffer *)view, view->len, 'C') < 0)
        Py_CLEAR(copy);
    if (copy && !view->readonly)
        Py_SETREF(copy, PyByteArray_FromObject(copy));
    int result = copy ? shoal__save(e, copy) : -1;
    Py_XDECREF(copy);
    return result;
}

static int save_flat(struct shoal_encoder *e, PyObject *obj, const Py_buffer *view)
{
    if (shoal__save(e, (PyObject *)&PyMemoryView_Type) < 0 || shoal__begin_tuple(e, 1) < 0 ||
        save_memory(e, obj, view) < 0 || shoal__end_tuple(e, 1) < 0)
        return -1;
    return shoal__op(e, OP_REDUCE);
}

/* Can memoryview.cast() make it? Of others (a record's format, an empty one) the plain bytes are sent. */
static bool is_castable(const Py_buffer *view)
{
    const char *format = view->format ? view->format : "B";
    if (*format == '@')
        format++;
    if (strlen(format) != 1 || !strchr("cbB?hHiIlLqQnNfdP", *format) || view->len == 0)
        return false;
    return view->ndim != 1 || *format != 'B';
}

static PyObject *shape_of(const Py_buffer *view)
{
    PyObject *shape = PyTuple_New(view->ndim);
    for (int i = 0; shape && i < view->ndim; i++) {
        PyObject *length = PyLong_FromSsize_t(view->shape[i]);
        if (length)
            PyTuple_SET_ITEM(shape, i, length);
        else
            Py_CLEAR(shape);
    }
    return shape;
}

static int save_cast(struct shoal_encoder *e, PyObject *obj, const Py_buffer *view)
{
    PyObject *method = PyUnicode_InternFromString("cast");
    PyObject *shape = shape_of(view);
    PyObject *arguments = shape ? Py_BuildValue("(sN)", view->format, shape) : NULL;
    int result = -1;
    if (method && arguments && shoal__save(e, e->state->shared.getattr) == 0 && shoal__begin_tuple(e, 2) == 0 &&
        save_flat(e, obj, view) == 0 && shoal__save(e, method) == 0 && shoal__end_tuple(e, 2) == 0 &&
        shoal__op(e, OP_REDUCE) == 0 && shoal__save(e, arguments) == 0)
        result = shoal__op(e, OP_REDUCE);
    Py_XDECREF(arguments);
    Py_XDECREF(method);
    return result;
}

int shoal__save_memory_view(struct shoal_encoder *e, PyObject *obj, const struct shoal_special_type *Py_UNUSED(kind))
{
    Py_buffer view;
    if (PyObject_GetBuffer(obj, &view, PyBUF_FULL_RO) < 0)
        return -1;
    int result = is_castable(&view) ? save_cast(e, obj, &view) : save_flat(e, obj, &view);
    PyBuffer_Release(&view);
    if (result < 0 || shoal__put(e, obj) < 0)
        return -1;
    return 1;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* load_containers.c - tuples and lists. */
#include "decoder.h"

int shoal__load_tuple(struct shoal_decoder *decoder)
{
    PyObject **start = shoal__unmark(decoder);
    return start == NULL ? -1 : shoal__push(decoder, shoal__pop_tuple(decoder, start));
}

int shoal__load_small_tuple(struct shoal_decoder *decoder, Py_ssize_t size)
{
    if (shoal__stack_has(decoder, size) < 0)
        return -1;
    return shoal__push(decoder, shoal__pop_tuple(decoder, decoder->top - size));
}

int shoal__load_list(struct shoal_decoder *decoder)
{
    PyObject **start = shoal__unmark(decoder);
    return start == NULL ? -1 : shoal__push(decoder, shoal__pop_list(decoder, start));
}

/* Room for count more items; over-allocated as list.append does it, but not when the list is new. 0 or -1. */
static int reserve(PyListObject *list, Py_ssize_t count)
{
    Py_ssize_t size = PyList_GET_SIZE((PyObject *)list);
    if (list->allocated - size >= count)
        return 0;
    Py_ssize_t wanted = size + count;
    Py_ssize_t allocated = size == 0 ? wanted : wanted + (wanted >> 3) + 6;
    PyObject **items = PyMem_Realloc(list->ob_item, (size_t)allocated * sizeof(*items));
    if (items == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    list->ob_item = items;
    list->allocated = allocated;
    return 0;
}

/* Move [start, top) of the stack to the end of a list, references and all. */
static int move_to_list(struct shoal_decoder *decoder, PyObject *list, PyObject **start)
{
    PyListObject *items = (PyListObject *)list;
    Py_ssize_t size = PyList_GET_SIZE(list);
    Py_ssize_t count = decoder->top - start;
    if (reserve(items, count) < 0)
        return -1;
    memcpy(items->ob_item + size, start, (size_t)count * sizeof(*start));
    Py_SET_SIZE(items, size + count);
    decoder->top = start;
    return 0;
}

static int call_append(struct shoal_decoder *decoder, PyObject *obj, PyObject **start)
{
    PyObject *append = PyObject_GetAttr(obj, decoder->state->names.append);
    int result = append == NULL ? -1 : 0;
    for (PyObject **item = start; result == 0 && item < decoder->top; item++) {
        PyObject *none = PyObject_CallOneArg(append, *item);
        result = none == NULL ? -1 : 0;
        Py_XDECREF(none);
    }
    Py_XDECREF(append);
    shoal__stack_cut(decoder, start);
    return result;
}

/* Anything with extend(), or append(): what pickles of list subclasses and the fourth item of a reduce are for. */
static int extend_object(struct shoal_decoder *decoder, PyObject *obj, PyObject **start)
{
    shoal__release(decoder);
    PyObject *extend = PyObject_GetAttr(obj, decoder->state->names.extend);
    if (extend == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError))
            return -1;
        PyErr_Clear();
        return call_append(decoder, obj, start);
    }
    PyObject *list = shoal__pop_list(decoder, start);
    PyObject *none = list == NULL ? NULL : PyObject_CallOneArg(extend, list);
    Py_DECREF(extend);
    Py_XDECREF(list);
    Py_XDECREF(none);
    return none == NULL ? -1 : 0;
}

int shoal__load_append(struct shoal_decoder *decoder)
{
    if (shoal__stack_has(decoder, 2) < 0)
        return -1;
    PyObject **start = decoder->top - 1;
    if (PyList_CheckExact(start[-1]))
        return move_to_list(decoder, start[-1], start);
    return extend_object(decoder, start[-1], start);
}

int shoal__load_appends(struct shoal_decoder *decoder)
{
    PyObject **start = shoal__unmark_above_one(decoder);
    if (start == NULL)
        return -1;
    if (start == decoder->top)
        return 0;
    if (PyList_CheckExact(start[-1]))
        return move_to_list(decoder, start[-1], start);
    return extend_object(decoder, start[-1], start);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * save_object_array.c - numpy arrays of objects, such as pandas' columns of strings.
 *
 * What is written is what numpy answers to __reduce__: an empty array, and the items as a list in its state. But there
 * is no list: the items are saved from where they lie. So strings that are in this array only have one reference, and
 * in streams that allow it (encoder.h, "sparse") need no memo entry; and nothing is written to them, which in a
 * process that has forked would copy the pages of all.
 *
 * Saving anything but simple objects and strings may run code that changes the array. numpy's list would not see that:
 * from the first such item on, a list is what is saved from here, too. Saving a string may let another thread run,
 * which may give the array other memory: it is looked at anew.
 *
 * Within a pool, where the reader has Shoal, large arrays go as one that is made as large as it will be, and calls of
 * shoal._rebuild._put_items() for a batch of items each: no list there either, and the items are still in the cache
 * when they are put into their place.
 *
 * Left to numpy: arrays that do not lie in order.
 */
#include "encoder.h"

struct items {
    PyObject *array;
    Py_buffer view;
    Py_ssize_t count;
    PyObject *list; /* of all, once there is one; otherwise NULL */
};

enum { RUN = 64, STATE_PARTS = 5 };

static PyObject **items_at(const struct items *items)
{
    return items->list ? ((PyListObject *)items->list)->ob_item : items->view.buf;
}

/* 1: got; 0: it does not lie in order; never an exception. */
static int get_view(PyObject *array, Py_buffer *ret_view)
{
    if (PyObject_GetBuffer(array, ret_view, PyBUF_ND | PyBUF_FORMAT) == 0)
        return 1;
    PyErr_Clear();
    return 0;
}

static int make_list(struct items *items)
{
    PyObject *list = PyList_New(items->count);
    if (!list)
        return -1;
    PyObject_GC_UnTrack(list); /* nobody else is to find it */
    PyObject **from = items->view.buf;
    for (Py_ssize_t i = 0; i < items->count; i++)
        PyList_SET_ITEM(list, i, Py_NewRef(from[i] ? from[i] : Py_None));
    items->list = list;
    return 0;
}

/* After something else may have run. */
static int look_anew(struct items *items)
{
    if (items->list)
        return 0;
    const void *before = items->view.buf;
    PyBuffer_Release(&items->view);
    if (get_view(items->array, &items->view) && items->view.buf == before &&
        items->view.len == items->count * (Py_ssize_t)sizeof(PyObject *))
        return 0;
    PyErr_SetString(PyExc_RuntimeError, "array changed size during pickling");
    return -1;
}

static int save_other(struct shoal_encoder *e, struct items *items, Py_ssize_t i)
{
    if (!items->list && !PyUnicode_CheckExact(items_at(items)[i]) && make_list(items) < 0)
        return -1;
    if (shoal__save_part(e, items_at(items)[i]) == 0)
        return look_anew(items);
    shoal__path_index(e, "item", items->array, i);
    return -1;
}

/* numpy reads NULL as None. */
static Py_ssize_t run_without_null(PyObject *const *at, Py_ssize_t count)
{
    Py_ssize_t n = 0;
    while (n < count && n < RUN && at[n])
        n++;
    return n;
}

static int save_some(struct shoal_encoder *e, struct items *items, Py_ssize_t i, Py_ssize_t end)
{
    while (i < end) {
        PyObject **at = items_at(items) + i;
        Py_ssize_t run = run_without_null(at, end - i);
        Py_ssize_t simple = shoal__bulk_items(e, at, run);
        i += simple;
        if (run > 0 && simple == run)
            continue;
        if ((run == 0 ? shoal__save_none(e) : save_other(e, items, i)) < 0)
            return -1;
        i++;
    }
    return 0;
}

static Py_ssize_t batch_end(const struct items *items, Py_ssize_t i)
{
    return items->count - i < SHOAL_BATCH_SIZE ? items->count : i + SHOAL_BATCH_SIZE;
}

static int save_items(struct shoal_encoder *e, struct items *items)
{
    if (shoal__op(e, OP_EMPTY_LIST) < 0)
        return -1;
    if (items->count == 1)
        return save_some(e, items, 0, 1) < 0 ? -1 : shoal__op(e, OP_APPEND);
    for (Py_ssize_t i = 0; i < items->count; i += SHOAL_BATCH_SIZE) {
        if (shoal__op(e, OP_MARK) < 0 || save_some(e, items, i, batch_end(items, i)) < 0 ||
            shoal__op(e, OP_APPENDS) < 0)
            return -1;
    }
    return 0;
}

/* 1: found; 0: numpy answers something else than is known here; -1. */
static int find_shell(struct shoal_state_writer *writer)
{
    if (!writer->array_shell) {
        PyObject *empty = shoal_pickle__import("numpy", "empty");
        PyObject *array = empty ? PyObject_CallFunction(empty, "iO", 0, writer->array_objects) : NULL;
        PyObject *shell = array ? PyObject_CallMethod(array, "__reduce__", NULL) : NULL;
        Py_XDECREF(array);
        Py_XSETREF(writer->array_empty, empty);
        if (!shell)
            return -1;
        Py_XSETREF(writer->array_shell, shell);
    }
    PyObject *shell = writer->array_shell;
    PyObject *state = PyTuple_CheckExact(shell) && PyTuple_GET_SIZE(shell) == 3 ? PyTuple_GET_ITEM(shell, 2) : NULL;
    return state && PyTuple_CheckExact(state) && PyTuple_GET_SIZE(state) == STATE_PARTS &&
           PyLong_CheckExact(PyTuple_GET_ITEM(state, 0)) && PyList_CheckExact(PyTuple_GET_ITEM(state, 4));
}

static int save_all(struct shoal_encoder *e, struct items *items)
{
    const struct shoal_state_writer *writer = &e->state->writer;
    PyObject *version = PyTuple_GET_ITEM(PyTuple_GET_ITEM(writer->array_shell, 2), 0);
    if (shoal__save(e, PyTuple_GET_ITEM(writer->array_shell, 0)) < 0 ||
        shoal__save(e, PyTuple_GET_ITEM(writer->array_shell, 1)) < 0 || shoal__op(e, OP_REDUCE) < 0 ||
        shoal__put(e, items->array) < 0)
        return -1;
    if (shoal__begin_tuple(e, STATE_PARTS) < 0 || shoal__save_long(e, version) < 0 ||
        shoal__save_shape(e, &items->view, false) < 0 || shoal__save_dtype(e, writer->array_objects) < 0 ||
        shoal__op(e, OP_NEWFALSE) < 0 || look_anew(items) < 0)
        return -1;
    if (save_items(e, items) < 0 || shoal__end_tuple(e, STATE_PARTS) < 0)
        return -1;
    return shoal__op(e, OP_BUILD);
}

/* One call, of which nothing stays on the reader's stack. */
static int save_batch(struct shoal_encoder *e, struct items *items, Py_ssize_t i)
{
    PyObject *first = PyLong_FromSsize_t(i);
    int result = first ? shoal__save_rebuilder(e, REBUILD_PUT_ITEMS) : -1;
    if (result == 0)
        result = shoal__save(e, items->array);
    if (result == 0)
        result = shoal__save_long(e, first);
    Py_XDECREF(first);
    if (result < 0 || shoal__op(e, OP_MARK) < 0 || save_some(e, items, i, batch_end(items, i)) < 0)
        return -1;
    const uint8_t end[] = {OP_TUPLE, OP_TUPLE3, OP_REDUCE, OP_POP};
    return shoal__raw(e, end, sizeof end);
}

static int save_in_place(struct shoal_encoder *e, struct items *items)
{
    const struct shoal_state_writer *writer = &e->state->writer;
    if (shoal__save(e, writer->array_empty) < 0 || shoal__begin_tuple(e, 2) < 0 ||
        shoal__save_shape(e, &items->view, false) < 0 || shoal__save_dtype(e, writer->array_objects) < 0 ||
        shoal__end_tuple(e, 2) < 0 || shoal__op(e, OP_REDUCE) < 0 || shoal__put(e, items->array) < 0 ||
        look_anew(items) < 0)
        return -1;
    int result = 0;
    for (Py_ssize_t i = 0; result == 0 && i < items->count; i += SHOAL_BATCH_SIZE)
        result = save_batch(e, items, i);
    return result;
}

int shoal__save_object_array(struct shoal_encoder *e, PyObject *array)
{
    struct items items = {.array = array};
    int found = find_shell(&e->state->writer);
    if (found <= 0 || !get_view(array, &items.view))
        return found < 0 ? -1 : 0;
    items.count = items.view.len / (Py_ssize_t)sizeof(PyObject *);
    bool in_place = e->hooks.take && items.count >= SHOAL_BATCH_SIZE;
    int result = items.count == 0 ? 0 : (in_place ? save_in_place : save_all)(e, &items) < 0 ? -1 : 1;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback); /* what is dropped may run code */
    if (items.view.obj)
        PyBuffer_Release(&items.view);
    Py_XDECREF(items.list);
    PyErr_Restore(type, value, traceback);
    return result;
}

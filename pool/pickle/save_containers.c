/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * save_containers.c - tuple, list, dict, and the items of reduced objects. Sets: save_sets.c.
 *
 * Saving a part may run user code, which may change the container under way. Sizes and positions are therefore looked
 * at anew for each part, and parts are held while they are saved (shoal__save_part). A dict that has changed its
 * size raises RuntimeError, as pickle does; a list is written as far as it goes.
 */
#include "encoder.h"

/* ---- tuple ---- */

/* It was entered into the memo while its parts were saved: a cycle through itself. Take that one. */
static int instead_of_tuple(struct shoal_encoder *e, int64_t index, Py_ssize_t n, bool marked)
{
    if (marked && e->binary) {
        if (shoal__op(e, OP_POP_MARK) < 0)
            return -1;
    } else {
        for (Py_ssize_t i = 0; i < n + marked; i++)
            if (shoal__op(e, OP_POP) < 0)
                return -1;
    }
    return shoal__get_index(e, index);
}

static int save_parts(struct shoal_encoder *e, PyObject *tuple, Py_ssize_t n)
{
    PyObject *const *parts = ((PyTupleObject *)tuple)->ob_item;
    for (Py_ssize_t i = 0; (i += shoal__bulk_items(e, parts + i, n - i)) < n; i++) {
        if (shoal__save_part(e, parts[i]) < 0) {
            shoal__path_index(e, "item", tuple, i);
            return -1;
        }
    }
    return 0;
}

int shoal__save_tuple(struct shoal_encoder *e, PyObject *obj)
{
    Py_ssize_t n = PyTuple_GET_SIZE(obj);
    if (shoal__begin_tuple(e, n) < 0 || save_parts(e, obj, n) < 0)
        return -1;
    if (n == 0)
        return shoal__end_tuple(e, n);
    int64_t index = shoal__find(e, obj);
    if (index >= 0)
        return instead_of_tuple(e, index, n, n > 3 || e->protocol < 2);
    if (shoal__end_tuple(e, n) < 0)
        return -1;
    return shoal__put(e, obj);
}

int shoal__save_usual_tuple(struct shoal_encoder *e, PyObject *obj)
{
    Py_ssize_t n = PyTuple_GET_SIZE(obj);
    if (n == 0)
        return shoal__op(e, OP_EMPTY_TUPLE);
    if ((n > 3 && shoal__op(e, OP_MARK) < 0) || save_parts(e, obj, n) < 0)
        return -1;
    uint8_t *at = shoal__room(e, 2);
    if (!at)
        return -1;
    struct shoal_memo_slot *slot = shoal_memo_place(&e->memo, (uintptr_t)obj);
    if (slot->generation == e->memo.generation)
        return instead_of_tuple(e, slot->index, n, n > 3);
    at[0] = (uint8_t)(n > 3 ? OP_TUPLE : OP_TUPLE1 + n - 1);
    e->sink->cursor++;
    if (!shoal_memo_has_room(&e->memo))
        return shoal__put(e, obj);
    shoal_memo_fill(&e->memo, slot, obj);
    at[1] = OP_MEMOIZE;
    e->sink->cursor++;
    return 0;
}

/* ---- list ---- */

/* Up to `most` items of the list. The number of items written, or -1. */
static Py_ssize_t save_some(struct shoal_encoder *e, PyObject *list, Py_ssize_t from, Py_ssize_t most)
{
    Py_ssize_t n = 0;
    while (n < most && from + n < PyList_GET_SIZE(list)) {
        Py_ssize_t left = PyList_GET_SIZE(list) - from - n;
        PyObject *item = PyList_GET_ITEM(list, from + n);
        if (!PyDict_CheckExact(item) && !PyList_CheckExact(item)) {
            Py_ssize_t simple = shoal__bulk_items(e, ((PyListObject *)list)->ob_item + from + n,
                                                  left < most - n ? left : most - n);
            n += simple;
            if (n == most || simple == left)
                break;
            item = PyList_GET_ITEM(list, from + n);
        }
        if (shoal__save_part(e, item) < 0) {
            shoal__path_index(e, "item", list, from + n);
            return -1;
        }
        n++;
    }
    return n;
}

static int batch_list(struct shoal_encoder *e, PyObject *list)
{
    if (PyList_GET_SIZE(list) == 1)
        return save_some(e, list, 0, 1) < 0 ? -1 : shoal__op(e, OP_APPEND);
    Py_ssize_t done = 0;
    while (done < PyList_GET_SIZE(list)) {
        if (shoal__op(e, OP_MARK) < 0)
            return -1;
        Py_ssize_t n = save_some(e, list, done, SHOAL_BATCH_SIZE);
        if (n < 0 || shoal__op(e, OP_APPENDS) < 0)
            return -1;
        done += n;
    }
    return 0;
}

static int save_list_items(struct shoal_encoder *e, PyObject *list)
{
    if (PyList_GET_SIZE(list) == 0)
        return 0;
    if (e->binary)
        return batch_list(e, list);
    PyObject *iterator = PyObject_GetIter(list);
    int result = iterator ? shoal__batch_items(e, iterator) : -1;
    Py_XDECREF(iterator);
    return result;
}

int shoal__save_list(struct shoal_encoder *e, PyObject *obj)
{
    int result;
    if (e->binary)
        result = shoal__op(e, OP_EMPTY_LIST);
    else
        result = shoal__op(e, OP_MARK) < 0 ? -1 : shoal__op(e, OP_LIST);
    if (result == 0)
        result = shoal__put(e, obj);
    if (result == 0)
        result = save_list_items(e, obj);
    return result;
}

/* ---- items and pairs from an iterator ---- */

struct batching {
    int (*save)(struct shoal_encoder *e, PyObject *part, Py_ssize_t number);
    int one;  /* opcode after a single part */
    int many; /* opcode after a batch that began with MARK */
    Py_ssize_t number; /* of the next part */
};

static int save_item(struct shoal_encoder *e, PyObject *item, Py_ssize_t number)
{
    if (shoal__save_part(e, item) == 0)
        return 0;
    shoal__path_index(e, "item", NULL, number);
    return -1;
}

static int save_pair(struct shoal_encoder *e, PyObject *pair, Py_ssize_t number)
{
    (void)number;
    if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2) {
        PyErr_SetString(PyExc_TypeError, "dict items iterator must return 2-tuples");
        return -1;
    }
    if (shoal__save_part(e, PyTuple_GET_ITEM(pair, 0)) < 0) {
        shoal__path_step(e, "key", NULL, PyTuple_GET_ITEM(pair, 0));
        return -1;
    }
    if (shoal__save_part(e, PyTuple_GET_ITEM(pair, 1)) < 0) {
        shoal__path_step(e, "value", NULL, PyTuple_GET_ITEM(pair, 0));
        return -1;
    }
    return 0;
}

/* Steals `part`. */
static int save_and_drop(struct shoal_encoder *e, struct batching *how, PyObject *part)
{
    int result = how->save(e, part, how->number++);
    Py_DECREF(part);
    return result;
}

static int batch_single(struct shoal_encoder *e, struct batching *how, PyObject *iterator)
{
    PyObject *part;
    while ((part = PyIter_Next(iterator)))
        if (save_and_drop(e, how, part) < 0 || shoal__op(e, how->one) < 0)
            return -1;
    return PyErr_Occurred() ? -1 : 0;
}

/* One batch: 1 if it was full, 0 if the iterator has ended, -1. */
static int batch_once(struct shoal_encoder *e, struct batching *how, PyObject *iterator)
{
    PyObject *first = PyIter_Next(iterator);
    if (!first)
        return PyErr_Occurred() ? -1 : 0;
    PyObject *next = PyIter_Next(iterator);
    if (!next) {
        if (PyErr_Occurred()) {
            Py_DECREF(first);
            return -1;
        }
        return save_and_drop(e, how, first) < 0 ? -1 : shoal__op(e, how->one);
    }
    if (shoal__op(e, OP_MARK) < 0 || how->save(e, first, how->number++) < 0) {
        Py_DECREF(first);
        Py_DECREF(next);
        return -1;
    }
    Py_DECREF(first);
    int n = 1;
    while (next) {
        if (save_and_drop(e, how, next) < 0)
            return -1;
        if (++n == SHOAL_BATCH_SIZE)
            break;
        next = PyIter_Next(iterator);
        if (!next && PyErr_Occurred())
            return -1;
    }
    return shoal__op(e, how->many) < 0 ? -1 : n == SHOAL_BATCH_SIZE;
}

static int batch_all(struct shoal_encoder *e, struct batching *how, PyObject *iterator)
{
    if (!e->binary)
        return batch_single(e, how, iterator);
    int more;
    do
        more = batch_once(e, how, iterator);
    while (more > 0);
    return more;
}

int shoal__batch_items(struct shoal_encoder *e, PyObject *iterator)
{
    return batch_all(e, &(struct batching){save_item, OP_APPEND, OP_APPENDS, 0}, iterator);
}

int shoal__batch_pairs(struct shoal_encoder *e, PyObject *iterator)
{
    return batch_all(e, &(struct batching){save_pair, OP_SETITEM, OP_SETITEMS, 0}, iterator);
}

/* ---- dict ---- */

/* Key and value are held by our caller, once each. */
static int save_held(struct shoal_encoder *e, PyObject *obj)
{
    if (PyUnicode_CheckExact(obj) && !e->hooks.persistent_id && shoal_sink_used(e->sink) < e->frame_end)
        return shoal__save_held_str(e, obj, 2);
    return shoal__save(e, obj);
}

static int save_entry(struct shoal_encoder *e, PyObject *key, PyObject *value)
{
    if (save_held(e, key) < 0) {
        shoal__path_step(e, "key", NULL, key);
        return -1;
    }
    if (save_held(e, value) < 0) {
        shoal__path_step(e, "value", NULL, key);
        return -1;
    }
    return 0;
}

/* The next entry: 1: written; 0: there is none; -1. */
static int save_next_entry(struct shoal_encoder *e, PyObject *dict, Py_ssize_t *position)
{
    PyObject *key, *value;
    if (!PyDict_Next(dict, position, &key, &value))
        return 0;
    Py_INCREF(key);
    Py_INCREF(value);
    int result = save_entry(e, key, value);
    Py_DECREF(key);
    Py_DECREF(value);
    return result < 0 ? -1 : 1;
}

/* Its key is written. */
static int save_value(struct shoal_encoder *e, const struct shoal_entry *begun)
{
    PyObject *key = Py_NewRef(begun->key), *value = Py_NewRef(begun->value);
    int result = save_held(e, value);
    if (result < 0)
        shoal__path_step(e, "value", NULL, key);
    Py_DECREF(key);
    Py_DECREF(value);
    return result;
}

/* Up to `most` entries from *position on. The number of entries written, or -1. */
static int save_entries(struct shoal_encoder *e, PyObject *dict, Py_ssize_t *position, int most)
{
    int n = 0, more = 1;
    while (n < most && more) {
        struct shoal_entry begun;
        n += shoal__bulk_entries(e, dict, position, most - n, &begun);
        if (begun.key)
            more = save_value(e, &begun) < 0 ? -1 : 1;
        else if (n < most)
            more = save_next_entry(e, dict, position);
        else
            break;
        if (more < 0)
            return -1;
        n += more;
    }
    return n;
}

int shoal__batch_dict(struct shoal_encoder *e, PyObject *dict)
{
    Py_ssize_t position = 0, size = PyDict_GET_SIZE(dict);
    if (size == 1) {
        int n = save_entries(e, dict, &position, 1);
        return n < 0 ? -1 : n == 0 ? 0 : shoal__op(e, OP_SETITEM);
    }
    int n;
    do {
        if (shoal__op(e, OP_MARK) < 0)
            return -1;
        n = save_entries(e, dict, &position, SHOAL_BATCH_SIZE);
        if (n < 0 || shoal__op(e, OP_SETITEMS) < 0)
            return -1;
        if (PyDict_GET_SIZE(dict) != size) {
            PyErr_SetString(PyExc_RuntimeError, "dictionary changed size during iteration");
            return -1;
        }
    } while (n == SHOAL_BATCH_SIZE);
    return 0;
}

static int save_dict_items(struct shoal_encoder *e, PyObject *dict)
{
    if (PyDict_GET_SIZE(dict) == 0)
        return 0;
    if (e->binary)
        return shoal__batch_dict(e, dict);
    PyObject *items = PyObject_CallMethodNoArgs(dict, e->state->names.items);
    PyObject *iterator = items ? PyObject_GetIter(items) : NULL;
    Py_XDECREF(items);
    int result = iterator ? shoal__batch_pairs(e, iterator) : -1;
    Py_XDECREF(iterator);
    return result;
}

int shoal__save_dict(struct shoal_encoder *e, PyObject *obj)
{
    int result = shoal__empty_dict(e);
    if (result == 0)
        result = shoal__put(e, obj);
    if (result == 0)
        result = save_dict_items(e, obj);
    return result;
}

/* ---- list and dict, the usual way: looked up and entered with one probe ---- */

int shoal__save_list_or_dict(struct shoal_encoder *e, PyObject *obj)
{
    bool is_dict = PyDict_CheckExact(obj);
    struct shoal_memo_slot *slot = shoal_memo_place(&e->memo, (uintptr_t)obj);
    if (slot->generation == e->memo.generation)
        return shoal__get_index(e, slot->index);
    if (!shoal_memo_has_room(&e->memo))
        return is_dict ? shoal__save_dict(e, obj) : shoal__save_list(e, obj);
    uint8_t *at = shoal__room(e, 2);
    if (!at)
        return -1;
    shoal_memo_fill(&e->memo, slot, obj);
    at[0] = is_dict ? OP_EMPTY_DICT : OP_EMPTY_LIST;
    at[1] = OP_MEMOIZE;
    e->sink->cursor += 2;
    if (is_dict)
        return PyDict_GET_SIZE(obj) == 0 ? 0 : shoal__batch_dict(e, obj);
    return PyList_GET_SIZE(obj) == 0 ? 0 : batch_list(e, obj);
}

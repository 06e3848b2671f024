/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * save_sets.c - set and frozenset.
 *
 * Plain data has its members in the order of their hashes, as pickle writes them. Within what travels by value, for
 * which one definition is to give one stream, they stand in an order that what they are gives (save_class.c).
 *
 * Saving a member may run user code: a set that has changed its size meanwhile raises RuntimeError, as in pickle.
 */
#include "encoder.h"

/* Exported by every CPython that we build for; the headers of some keep it to themselves. */
PyAPI_FUNC(int) _PySet_NextEntry(PyObject *set, Py_ssize_t *position, PyObject **key, Py_hash_t *hash);

/* Within what travels by value? */
static bool is_ordered(const struct shoal_encoder *e)
{
    return e->in_class || e->by_value;
}

/* The members, each followed by an opcode if that is not 0. 1: written; 0: to be written by their hashes; -1. */
static int save_in_order(struct shoal_encoder *e, PyObject *set, uint8_t each)
{
    Py_ssize_t size = PySet_GET_SIZE(set);
    if (!is_ordered(e))
        return 0;
    if (shoal__save_in_order(e, set, each) < 0)
        return -1;
    if (PySet_GET_SIZE(set) == size)
        return 1;
    PyErr_SetString(PyExc_RuntimeError, "set changed size during iteration");
    return -1;
}

/* The list is not in the memo: nobody else has it. */
static int save_list_in_order(struct shoal_encoder *e, PyObject *set)
{
    if (!e->binary)
        return shoal__op(e, OP_MARK) < 0 || shoal__op(e, OP_LIST) < 0 ? -1 : save_in_order(e, set, OP_APPEND);
    if (shoal__op(e, OP_EMPTY_LIST) < 0 || shoal__op(e, OP_MARK) < 0 || save_in_order(e, set, 0) < 0)
        return -1;
    return shoal__op(e, OP_APPENDS);
}

static int save_call_in_order(struct shoal_encoder *e, PyObject *set)
{
    if (shoal__save(e, (PyObject *)Py_TYPE(set)) < 0 || shoal__begin_tuple(e, 1) < 0 ||
        save_list_in_order(e, set) < 0 || shoal__end_tuple(e, 1) < 0 || shoal__op(e, OP_REDUCE) < 0)
        return -1;
    int64_t index = shoal__find(e, set);
    if (index >= 0) /* it was reached through its own members: that one is taken */
        return shoal__op(e, OP_POP) < 0 ? -1 : shoal__get_index(e, index);
    return shoal__put(e, set);
}

/* Before protocol 4: type([items]). */
static int save_set_by_call(struct shoal_encoder *e, PyObject *obj)
{
    if (is_ordered(e))
        return save_call_in_order(e, obj);
    PyObject *items = PySequence_List(obj);
    PyObject *value = items ? Py_BuildValue("(O(O))", (PyObject *)Py_TYPE(obj), items) : NULL;
    Py_XDECREF(items);
    int result = value ? shoal__save_reduced(e, value, obj) : -1;
    Py_XDECREF(value);
    return result;
}

/* Up to `most` items from *position on. The number of items written, or -1. */
static Py_ssize_t save_members(struct shoal_encoder *e, PyObject *set, Py_ssize_t *position, Py_ssize_t most)
{
    PyObject *item;
    Py_hash_t hash;
    Py_ssize_t n = 0;
    while (n < most && n < PySet_GET_SIZE(set) && _PySet_NextEntry(set, position, &item, &hash)) {
        if (shoal__save_part(e, item) < 0) {
            shoal__path_step(e, "member", set, NULL);
            return -1;
        }
        n++;
    }
    return n;
}

static int batch_set(struct shoal_encoder *e, PyObject *set)
{
    Py_ssize_t position = 0, size = PySet_GET_SIZE(set), n;
    do {
        if (shoal__op(e, OP_MARK) < 0)
            return -1;
        int sorted = save_in_order(e, set, 0);
        if (sorted != 0)
            return sorted < 0 ? -1 : shoal__op(e, OP_ADDITEMS);
        n = save_members(e, set, &position, SHOAL_BATCH_SIZE);
        if (n < 0 || shoal__op(e, OP_ADDITEMS) < 0)
            return -1;
        if (PySet_GET_SIZE(set) != size) {
            PyErr_SetString(PyExc_RuntimeError, "set changed size during iteration");
            return -1;
        }
    } while (n == SHOAL_BATCH_SIZE);
    return 0;
}

int shoal__save_set(struct shoal_encoder *e, PyObject *obj)
{
    if (e->protocol < 4)
        return save_set_by_call(e, obj);
    if (shoal__op(e, OP_EMPTY_SET) < 0 || shoal__put(e, obj) < 0)
        return -1;
    return PySet_GET_SIZE(obj) == 0 ? 0 : batch_set(e, obj);
}

int shoal__save_frozenset(struct shoal_encoder *e, PyObject *obj)
{
    if (e->protocol < 4)
        return save_set_by_call(e, obj);
    if (shoal__op(e, OP_MARK) < 0)
        return -1;
    Py_ssize_t position = 0;
    int sorted = save_in_order(e, obj, 0);
    if (sorted < 0 || (sorted == 0 && save_members(e, obj, &position, PY_SSIZE_T_MAX) < 0))
        return -1;
    int64_t index = shoal__find(e, obj);
    if (index >= 0) /* a cycle through itself, as with tuples */
        return shoal__op(e, OP_POP_MARK) < 0 ? -1 : shoal__get_index(e, index);
    return shoal__op(e, OP_FROZENSET) < 0 ? -1 : shoal__put(e, obj);
}

/* SPDX-License-Identifier: BSD-3-Clause */
#include "decoder_memo.h"

#include <string.h>

enum {
    FIRST_CAPACITY = 64,
    KEPT_CAPACITY = 64 * 1024, /* a larger array is given back after the stream */
};

static int grow(struct shoal__memo *memo, size_t index)
{
    size_t capacity = memo->capacity < FIRST_CAPACITY ? FIRST_CAPACITY : memo->capacity * 2;
    while (capacity <= index)
        capacity *= 2;
    PyObject **slots = PyMem_Realloc(memo->slots, capacity * sizeof(*slots));
    if (slots == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    memo->slots = slots;
    memo->capacity = capacity;
    memo->append_limit = memo->sparse == NULL ? capacity : 0;
    return 0;
}

static int put_sparse(struct shoal__memo *memo, size_t index, PyObject *obj)
{
    if (memo->sparse == NULL) {
        memo->sparse = PyDict_New();
        if (memo->sparse == NULL)
            return -1;
        memo->append_limit = 0;
    }
    PyObject *key = PyLong_FromSize_t(index);
    if (key == NULL)
        return -1;
    Py_ssize_t before = PyDict_GET_SIZE(memo->sparse);
    int result = PyDict_SetItem(memo->sparse, key, obj);
    Py_DECREF(key);
    memo->count += (size_t)(PyDict_GET_SIZE(memo->sparse) - before);
    return result;
}

/* An index that was too large when it was first put may have come into the array's reach since. */
static int forget_sparse(struct shoal__memo *memo, size_t index)
{
    PyObject *key = PyLong_FromSize_t(index);
    if (key == NULL)
        return -1;
    int found = PyDict_Contains(memo->sparse, key);
    if (found == 1) {
        memo->count--;
        found = PyDict_DelItem(memo->sparse, key);
    }
    Py_DECREF(key);
    return found < 0 ? -1 : 0;
}

int shoal__memo_put_anywhere(struct shoal__memo *memo, size_t index, PyObject *obj)
{
    if (index >= memo->index_limit)
        return put_sparse(memo, index, obj);
    if (memo->sparse != NULL && forget_sparse(memo, index) < 0)
        return -1;
    if (index >= memo->capacity && grow(memo, index) < 0)
        return -1;
    while (memo->used <= index)
        memo->slots[memo->used++] = NULL;
    PyObject *old = memo->slots[index];
    memo->slots[index] = obj;
    if (!memo->borrows) {
        Py_INCREF(obj);
        memo->owned = memo->used;
    }
    if (old == NULL)
        memo->count++;
    else if (!memo->borrows && !shoal__is_promise(old))
        Py_DECREF(old);
    return 0;
}

PyObject *shoal__memo_get_sparse(const struct shoal__memo *memo, size_t index)
{
    PyObject *key = PyLong_FromSize_t(index);
    if (key == NULL)
        return NULL;
    PyObject *obj = PyDict_GetItemWithError(memo->sparse, key);
    Py_DECREF(key);
    return obj;
}

void shoal__memo_own(struct shoal__memo *memo)
{
    for (size_t i = memo->owned; i < memo->used; i++)
        if (!shoal__is_promise(memo->slots[i]))
            Py_XINCREF(memo->slots[i]);
    memo->owned = memo->used;
    memo->borrows = false;
}

void shoal__memo_forget_borrowed(struct shoal__memo *memo)
{
    memo->used = memo->owned;
    memo->borrows = false;
}

/* Dropping an object may run user code: everything is taken out of the memo before the first one is dropped. */
void shoal__memo_clear(struct shoal__memo *memo)
{
    struct shoal__memo old = *memo;
    memo->used = memo->owned = memo->count = 0;
    memo->sparse = NULL;
    memo->append_limit = memo->capacity;
    if (old.owned == 0 && old.capacity <= KEPT_CAPACITY && old.sparse == NULL)
        return;

    memo->slots = NULL;
    memo->capacity = memo->append_limit = 0;
    for (size_t i = 0; i < old.owned; i++)
        if (!shoal__is_promise(old.slots[i]))
            Py_XDECREF(old.slots[i]);
    Py_XDECREF(old.sparse);
    if (memo->slots == NULL && old.capacity <= KEPT_CAPACITY) {
        memo->slots = old.slots;
        memo->capacity = memo->append_limit = old.capacity;
    } else {
        PyMem_Free(old.slots);
    }
}

void shoal__memo_done(struct shoal__memo *memo)
{
    shoal__memo_clear(memo);
    PyMem_Free(memo->slots);
    memo->slots = NULL;
    memo->capacity = memo->append_limit = 0;
}

PyObject *shoal__memo_to_dict(const struct shoal__memo *memo)
{
    PyObject *dict = memo->sparse == NULL ? PyDict_New() : PyDict_Copy(memo->sparse);
    for (size_t i = 0; dict != NULL && i < memo->used; i++) {
        if (memo->slots[i] == NULL)
            continue;
        PyObject *key = PyLong_FromSize_t(i);
        if (key == NULL || PyDict_SetItem(dict, key, memo->slots[i]) < 0)
            Py_CLEAR(dict);
        Py_XDECREF(key);
    }
    return dict;
}

static int put_item(struct shoal__memo *memo, PyObject *key, PyObject *value)
{
    if (!PyLong_Check(key)) {
        PyErr_SetString(PyExc_TypeError, "memo key must be integers");
        return -1;
    }
    Py_ssize_t index = PyLong_AsSsize_t(key);
    if (index < 0) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "memo key must be positive integers.");
        return -1;
    }
    return shoal__memo_put(memo, (size_t)index, value);
}

int shoal__memo_from_dict(struct shoal__memo *memo, PyObject *dict)
{
    struct shoal__memo fresh = {.index_limit = memo->index_limit + (size_t)PyDict_GET_SIZE(dict)};
    PyObject *key;
    PyObject *value;
    Py_ssize_t position = 0;
    while (PyDict_Next(dict, &position, &key, &value)) {
        if (put_item(&fresh, key, value) < 0) {
            shoal__memo_done(&fresh);
            return -1;
        }
    }
    struct shoal__memo old = *memo;
    *memo = fresh;
    shoal__memo_done(&old);
    return 0;
}

int shoal__memo_traverse(const struct shoal__memo *memo, visitproc visit, void *arg)
{
    Py_VISIT(memo->sparse);
    for (size_t i = 0; i < memo->owned; i++)
        if (!shoal__is_promise(memo->slots[i]))
            Py_VISIT(memo->slots[i]);
    return 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * load_hashed.c - dicts and sets.
 *
 * While decoding is plain (decoder.h) an insertion may not drop what the memo borrows: an equal key that is there
 * already, or the value that it had. So str and int keys go in by ways that show this before it happens; all other keys
 * end the epoch. So does a container that may hold other keys, whose comparing may run user code: it is known to have
 * none if it was empty, or was filled last and in this epoch.
 *
 * The hash of a tuple is that of all it holds, found by recursion. A stream of a few dozen bytes can build a tuple
 * that holds 2^60 others, or a chain of a million: walking those would never end, or end on the C stack's guard page.
 * So tuples are walked here first, to a limited depth, and with a budget that grows with the input.
 */
#include "decoder.h"

#include <assert.h>
#include <stddef.h>

enum { TUPLE_DEPTH_MAX = 1000 };

static_assert(offsetof(PySliceObject, step) == offsetof(PySliceObject, start) + 2 * sizeof(PyObject *),
              "the parts of a slice are walked as an array");

static bool is_simple_key(PyObject *key)
{
    return PyUnicode_CheckExact(key) || PyLong_CheckExact(key);
}

/* What is hashed by hashing its parts: tuples, and from 3.12 on slices. */
static bool has_parts(PyObject *key)
{
    return PyTuple_Check(key) || PySlice_Check(key);
}

/* 0, or -1: deeper or larger than a key may be. */
static int walk_parts(struct shoal_decoder *decoder, PyObject *key, int depth)
{
    PyObject *const *parts = PyTuple_Check(key) ? ((PyTupleObject *)key)->ob_item : &((PySliceObject *)key)->start;
    size_t size = PyTuple_Check(key) ? (size_t)PyTuple_GET_SIZE(key) : 3; /* a slice's are start, stop and step */
    if (depth > TUPLE_DEPTH_MAX || decoder->hash_budget < size)
        return -1;
    decoder->hash_budget -= size;
    for (size_t i = 0; i < size; i++)
        if (has_parts(parts[i]) && walk_parts(decoder, parts[i], depth + 1) < 0)
            return -1;
    return 0;
}

static int check_key(struct shoal_decoder *decoder, PyObject *key)
{
    if (!has_parts(key) || walk_parts(decoder, key, 0) == 0)
        return 0;
    PyErr_SetString(decoder->state->shared.unpickling_error, "a tuple is nested too deeply to be a key");
    return -1;
}

/* The first of a pair, if this is one. */
static PyObject *first_of_pair(PyObject *item)
{
    return (PyTuple_CheckExact(item) || PyList_CheckExact(item)) && PySequence_Fast_GET_SIZE(item) == 2
               ? PySequence_Fast_GET_ITEM(item, 0)
               : item;
}

/* set([...]) and dict([...]), as older protocols write them, hash what they are given, too. */
int shoal__check_arguments(struct shoal_decoder *decoder, PyObject *callable, PyObject *arguments)
{
    if (!PyType_Check(callable) || PyTuple_GET_SIZE(arguments) != 1)
        return 0;
    PyTypeObject *type = (PyTypeObject *)callable;
    bool is_dict = PyType_HasFeature(type, Py_TPFLAGS_DICT_SUBCLASS);
    if (!is_dict && !PyType_IsSubtype(type, &PySet_Type) && !PyType_IsSubtype(type, &PyFrozenSet_Type))
        return 0;
    PyObject *items = PyTuple_GET_ITEM(arguments, 0);
    if (!PyList_CheckExact(items) && !PyTuple_CheckExact(items))
        return 0;
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(items); i++) {
        PyObject *item = PySequence_Fast_GET_ITEM(items, i);
        if (check_key(decoder, is_dict ? first_of_pair(item) : item) < 0)
            return -1;
    }
    return 0;
}

/* Before adding to a container of this size: other keys in it may run user code. */
static void begin_adding(struct shoal_decoder *decoder, PyObject *container, Py_ssize_t size)
{
    if (size != 0 && decoder->simple != container)
        shoal__release(decoder);
}

/* Afterwards; epoch: the one in which it began. */
static void end_adding(struct shoal_decoder *decoder, PyObject *container, size_t epoch)
{
    decoder->simple = decoder->memo.borrows && decoder->epoch == epoch ? container : NULL;
}

/* While plain, key being simple: like PyDict_SetItem, but the memo owns before anything is dropped. */
static int set_plain_item(struct shoal_decoder *decoder, PyObject *dict, PyObject *key, PyObject *value)
{
    Py_ssize_t before = PyDict_GET_SIZE(dict);
    if (PyDict_SetDefault(dict, key, value) == NULL)
        return -1;
    if (PyDict_GET_SIZE(dict) != before)
        return 0;
    shoal__own(decoder);
    return PyDict_SetItem(dict, key, value);
}

static int set_item(struct shoal_decoder *decoder, PyObject *dict, PyObject *key, PyObject *value)
{
    if (PyDict_CheckExact(dict) && is_simple_key(key))
        return decoder->memo.borrows ? set_plain_item(decoder, dict, key, value) : PyDict_SetItem(dict, key, value);
    shoal__release(decoder);
    if (check_key(decoder, key) < 0)
        return -1;
    if (PyDict_CheckExact(dict))
        return PyDict_SetItem(dict, key, value);
    return PyObject_SetItem(dict, key, value);
}

/* [start, top) are keys and values for what lies below start; they are taken off the stack. */
static int set_items(struct shoal_decoder *decoder, PyObject *dict, PyObject **start)
{
    int result = 0;
    size_t epoch = decoder->epoch;
    if (PyDict_CheckExact(dict))
        begin_adding(decoder, dict, PyDict_GET_SIZE(dict));
    for (PyObject **item = start; result == 0 && item < decoder->top; item += 2)
        result = set_item(decoder, dict, item[0], item[1]);
    end_adding(decoder, dict, epoch);
    shoal__stack_cut(decoder, start);
    return result;
}

int shoal__load_setitem(struct shoal_decoder *decoder)
{
    if (shoal__stack_has(decoder, 3) < 0)
        return -1;
    PyObject **start = decoder->top - 2;
    return set_items(decoder, start[-1], start);
}

static int check_pairs(const struct shoal_decoder *decoder, PyObject **start, const char *opcode)
{
    if ((decoder->top - start) % 2 == 0)
        return 0;
    PyErr_Format(decoder->state->shared.unpickling_error, "odd number of items for %s", opcode);
    return -1;
}

int shoal__load_setitems(struct shoal_decoder *decoder)
{
    if (decoder->mark_count > 0 && decoder->marks[decoder->mark_count - 1].state != SHOAL__NO_STATE) {
        int closed = shoal__close_state(decoder);
        if (closed != 0)
            return closed < 0 ? -1 : 0;
    }
    PyObject **start = shoal__unmark_above_one(decoder);
    if (start == NULL || check_pairs(decoder, start, "SETITEMS") < 0)
        return -1;
    return set_items(decoder, start[-1], start);
}

int shoal__load_dict(struct shoal_decoder *decoder)
{
    PyObject **start = shoal__unmark(decoder);
    if (start == NULL || check_pairs(decoder, start, "DICT") < 0)
        return -1;
    PyObject *dict = PyDict_New();
    if (dict == NULL)
        return -1;
    if (set_items(decoder, dict, start) < 0) {
        Py_DECREF(dict);
        return -1;
    }
    return shoal__push(decoder, dict);
}

/* PySet_Add keeps the equal object that is there, so the new one may be dropped when it leaves the stack. */
static int add_to_set(struct shoal_decoder *decoder, PyObject *set, PyObject *item)
{
    if (!is_simple_key(item))
        shoal__release(decoder);
    if (check_key(decoder, item) < 0)
        return -1;
    Py_ssize_t before = PySet_GET_SIZE(set);
    if (PySet_Add(set, item) < 0)
        return -1;
    if (PySet_GET_SIZE(set) == before)
        shoal__own(decoder);
    return 0;
}

static int add_all(struct shoal_decoder *decoder, PyObject *set, PyObject **start)
{
    int result = 0;
    size_t epoch = decoder->epoch;
    begin_adding(decoder, set, PySet_GET_SIZE(set));
    for (PyObject **item = start; result == 0 && item < decoder->top; item++)
        result = add_to_set(decoder, set, *item);
    end_adding(decoder, set, epoch);
    shoal__stack_cut(decoder, start);
    return result;
}

static int call_add(struct shoal_decoder *decoder, PyObject *obj, PyObject **start)
{
    shoal__release(decoder);
    PyObject *add = PyObject_GetAttr(obj, decoder->state->names.add);
    int result = add == NULL ? -1 : 0;
    for (PyObject **item = start; result == 0 && item < decoder->top; item++) {
        PyObject *none = PyObject_CallOneArg(add, *item);
        result = none == NULL ? -1 : 0;
        Py_XDECREF(none);
    }
    Py_XDECREF(add);
    shoal__stack_cut(decoder, start);
    return result;
}

int shoal__load_additems(struct shoal_decoder *decoder)
{
    PyObject **start = shoal__unmark_above_one(decoder);
    if (start == NULL)
        return -1;
    if (start == decoder->top)
        return 0;
    if (PySet_Check(start[-1]))
        return add_all(decoder, start[-1], start);
    return call_add(decoder, start[-1], start);
}

/* A new frozenset may be added to as long as nobody else has it. */
int shoal__load_frozenset(struct shoal_decoder *decoder)
{
    PyObject **start = shoal__unmark(decoder);
    if (start == NULL)
        return -1;
    PyObject *set = PyFrozenSet_New(NULL);
    if (set == NULL)
        return -1;
    if (add_all(decoder, set, start) < 0) {
        Py_DECREF(set);
        return -1;
    }
    return shoal__push(decoder, set);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * group_repeat.c - what one map-like call would send again and again is sent once.
 *
 * That is its function, if it is large (what it has captured is), and an element of the input, or of its tuples, that
 * is the same object as in the element before it, if that is large. Both are packed into a block of the arena
 * (handle.h) that the messages refer to; in the worker a new object is made of it each time, as if it had been sent.
 *
 * Arguments that are the same in all elements of a batch, and come before all others, are sent once for the batch:
 *   - handles of shared objects are bound to its function, as they arrive as the same objects each time;
 *   - arrays have a section of their own, and the worker makes them anew for each element that needs it
 *     (worker_common.c). Not where one of the other arguments may refer to them, too: it is to arrive as the same.
 *
 * Elements only where nothing can run between two elements that might change them: not of generators. What it costs
 * who has no such input: a look at its first two elements. The function's size is known when it was pickled for the
 * first batch.
 */
#include "engine.h"
#include "group.h"
#include "handle.h"

/* Not something that is small for certain. */
static bool may_be_large(PyObject *object)
{
    if (PyUnicode_CheckExact(object))
        return PyUnicode_GET_LENGTH(object) >= (Py_ssize_t)HANDLE_CARRY_MIN / 4;
    if (PyBytes_CheckExact(object))
        return PyBytes_GET_SIZE(object) >= (Py_ssize_t)HANDLE_CARRY_MIN;
    return !(object == Py_None || PyLong_Check(object) || PyFloat_Check(object) || PyComplex_Check(object) ||
             PyType_Check(object) || PyModule_Check(object) || PyCFunction_Check(object));
}

static bool are_alike(PyObject *item, PyObject *other)
{
    return PyTuple_CheckExact(item) && PyTuple_CheckExact(other) && PyTuple_GET_SIZE(item) == PyTuple_GET_SIZE(other);
}

static bool have_something_in_common(PyObject *item, PyObject *other)
{
    if (item == other)
        return may_be_large(item);
    for (Py_ssize_t i = 0; are_alike(item, other) && i < PyTuple_GET_SIZE(item); i++) {
        PyObject *value = PyTuple_GET_ITEM(item, i);
        if (value == PyTuple_GET_ITEM(other, i) && may_be_large(value))
            return true;
    }
    return false;
}

/* What is sent in place of `object`, borrowed; `object` itself if it is not the one that `other` is, or is small. */
static PyObject *stand_in(struct shoal_group *self, PyObject *object, PyObject *other)
{
    for (unsigned i = 0; i < GROUP_REPEATS_MAX; i++) {
        if (self->repeats[i].object == object)
            return self->repeats[i].carried == Py_None ? object : self->repeats[i].carried;
    }
    if (object != other || !may_be_large(object))
        return object;
    PyObject *carried = handle_carry(self->owner.engine, object);
    struct repeat *place = &self->repeats[self->repeat_next++ % GROUP_REPEATS_MAX];
    struct repeat old = *place;
    *place = (struct repeat){.object = Py_NewRef(object), .carried = carried};
    Py_XDECREF(old.object);
    Py_XDECREF(old.carried);
    return carried == Py_None ? object : carried;
}

static PyObject *copy_of_tuple(PyObject *tuple)
{
    PyObject *copy = PyTuple_New(PyTuple_GET_SIZE(tuple));
    for (Py_ssize_t i = 0; copy != NULL && i < PyTuple_GET_SIZE(tuple); i++)
        PyTuple_SET_ITEM(copy, i, Py_NewRef(PyTuple_GET_ITEM(tuple, i)));
    return copy;
}

/* New reference. */
static PyObject *replaced(struct shoal_group *self, PyObject *item, PyObject *other)
{
    PyObject *whole = stand_in(self, item, other);
    if (whole != item || !are_alike(item, other))
        return Py_NewRef(whole);
    Py_ssize_t size = PyTuple_GET_SIZE(item);
    PyObject *tuple = NULL;
    for (Py_ssize_t i = 0; i < size; i++) {
        PyObject *value = stand_in(self, PyTuple_GET_ITEM(item, i), PyTuple_GET_ITEM(other, i));
        if (value == PyTuple_GET_ITEM(item, i))
            continue;
        Py_INCREF(value);
        if (tuple == NULL)
            tuple = copy_of_tuple(item);
        if (tuple == NULL) {
            Py_DECREF(value);
            return NULL;
        }
        PyObject *old = PyTuple_GET_ITEM(tuple, i);
        PyTuple_SET_ITEM(tuple, i, value);
        Py_DECREF(old);
    }
    return tuple != NULL ? tuple : Py_NewRef(item);
}

PyObject *group_stand_ins(struct shoal_group *self, PyObject *const *items, uint32_t count)
{
    PyObject *other = self->last_item != NULL ? self->last_item : count > 1 ? items[1] : NULL;
    if (other == NULL) {
        self->last_item = Py_NewRef(items[0]);
        return NULL;
    }
    if (!self->repeats_some && !have_something_in_common(items[0], other)) {
        self->repeats_none = true;
        return NULL;
    }
    self->repeats_some = true;
    Py_INCREF(other);
    PyObject *list = PyList_New(count);
    for (uint32_t i = 0; list != NULL && i < count; i++) {
        PyObject *item = replaced(self, items[i], other);
        Py_SETREF(other, Py_NewRef(items[i]));
        if (item == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, i, item);
    }
    Py_XSETREF(self->last_item, other);
    return list;
}

/* It stands for a shared object, and not for a part of this call, of which each element gets a copy. */
static bool is_shared_handle(const struct module_state *state, PyObject *object)
{
    if (state->handle_type == NULL || (PyObject *)Py_TYPE(object) != state->handle_type)
        return false;
    PyObject *ref = PyObject_GetAttrString(object, "_ref");
    PyObject *token = ref == NULL ? NULL : PyObject_GetAttrString(ref, "token");
    bool shared = token != NULL && PyBytes_CheckExact(token) && PyBytes_GET_SIZE(token) > 0;
    Py_XDECREF(token);
    Py_XDECREF(ref);
    PyErr_Clear();
    return shared;
}

/* How many arguments, from the first on, are the same objects in all items. */
static Py_ssize_t count_same(PyObject *const *items, uint32_t count)
{
    PyObject *first = items[0];
    Py_ssize_t same = PyTuple_CheckExact(first) ? PyTuple_GET_SIZE(first) : 0;
    for (uint32_t i = 1; i < count && same > 0; i++) {
        Py_ssize_t here = 0, most = PyTuple_CheckExact(items[i]) ? PyTuple_GET_SIZE(items[i]) : 0;
        while (here < same && here < most && PyTuple_GET_ITEM(items[i], here) == PyTuple_GET_ITEM(first, here))
            here++;
        same = here;
    }
    return same;
}

static Py_ssize_t count_handles(const struct module_state *state, PyObject *arguments, Py_ssize_t most)
{
    Py_ssize_t count = 0;
    while (count < most && is_shared_handle(state, PyTuple_GET_ITEM(arguments, count)))
        count++;
    return count;
}

/* An array of values: nothing else can refer to a part of it. */
static bool is_array_of_values(PyObject *object)
{
    if (PyType_HasFeature(Py_TYPE(object), Py_TPFLAGS_HEAPTYPE) || !shoal_is_array(object))
        return false;
    PyObject *dtype = PyObject_GetAttrString(object, "dtype");
    PyObject *refers = dtype == NULL ? NULL : PyObject_GetAttrString(dtype, "hasobject");
    bool values = refers == Py_False;
    Py_XDECREF(refers);
    Py_XDECREF(dtype);
    PyErr_Clear();
    return values;
}

static Py_ssize_t count_arrays(const struct module_state *state, PyObject *arguments, Py_ssize_t most)
{
    Py_ssize_t count = 0;
    for (; count < most; count++) {
        PyObject *object = PyTuple_GET_ITEM(arguments, count);
        if ((PyObject *)Py_TYPE(object) != state->handle_type && !is_array_of_values(object))
            break;
    }
    return count;
}

/* It holds nothing else: what comes before it can be sent apart from it. */
static bool holds_nothing(PyObject *object)
{
    return object == Py_None || PyLong_CheckExact(object) || PyFloat_CheckExact(object) || PyBool_Check(object) ||
           PyUnicode_CheckExact(object) || PyBytes_CheckExact(object) || PyComplex_CheckExact(object);
}

static bool rest_holds_nothing(PyObject *const *items, uint32_t count, Py_ssize_t from)
{
    for (uint32_t i = 0; i < count; i++) {
        for (Py_ssize_t k = from; k < PyTuple_GET_SIZE(items[i]); k++) {
            if (!holds_nothing(PyTuple_GET_ITEM(items[i], k)))
                return false;
        }
    }
    return true;
}

/* functools.partial(function, the first `bound` arguments): new reference, NULL with an exception. */
static PyObject *bind(PyObject *function, PyObject *arguments, Py_ssize_t bound)
{
    PyObject *functools = PyImport_ImportModule("functools");
    PyObject *partial = functools == NULL ? NULL : PyObject_GetAttrString(functools, "partial");
    PyObject *all = PyTuple_New(bound + 1), *made = NULL;
    if (partial != NULL && all != NULL) {
        PyTuple_SET_ITEM(all, 0, Py_NewRef(function));
        for (Py_ssize_t i = 0; i < bound; i++)
            PyTuple_SET_ITEM(all, i + 1, Py_NewRef(PyTuple_GET_ITEM(arguments, i)));
        made = PyObject_CallObject(partial, all);
    }
    Py_XDECREF(all);
    Py_XDECREF(partial);
    Py_XDECREF(functools);
    return made;
}

/* Of each item what is behind its first `from` arguments: new reference to a list, NULL with an exception. */
static PyObject *rest_of(PyObject *const *items, uint32_t count, Py_ssize_t from)
{
    PyObject *rest = PyList_New(count);
    for (uint32_t i = 0; rest != NULL && i < count; i++) {
        PyObject *left = PyTuple_GetSlice(items[i], from, PyTuple_GET_SIZE(items[i]));
        if (left == NULL)
            Py_CLEAR(rest);
        else
            PyList_SET_ITEM(rest, i, left);
    }
    return rest;
}

struct cut group_cut(struct shoal_group *self, PyObject *const *items, uint32_t count)
{
    const struct module_state *state = self->owner.engine->state;
    struct cut cut = {0};
    Py_ssize_t same = self->star && count > 1 ? count_same(items, count) : 0;
    Py_ssize_t arrays = same == 0 ? 0 : count_arrays(state, items[0], same);
    Py_ssize_t handles = arrays == 0 ? 0 : count_handles(state, items[0], arrays);
    if (arrays > handles && rest_holds_nothing(items, count, arrays)) {
        cut.common = PyTuple_GetSlice(items[0], 0, arrays);
        cut.rest = cut.common == NULL ? NULL : rest_of(items, count, arrays);
    } else if (handles > 0 && self->function_settled && !self->function_carried) {
        cut.function = bind(self->function, items[0], handles);
        cut.rest = cut.function == NULL ? NULL : rest_of(items, count, handles);
    }
    if (cut.rest == NULL) { /* they can go as they are */
        Py_CLEAR(cut.common);
        Py_CLEAR(cut.function);
    }
    PyErr_Clear();
    return cut;
}

/* All is sent: what is under way holds what it needs. */
void group_all_sent(struct shoal_group *self)
{
    if (self->function_carried)
        Py_SETREF(self->function, Py_NewRef(Py_None));
    self->function_carried = false;
    self->repeats_none = true;
    group_forget_repeats(self);
}

void group_carry_function(struct shoal_group *self)
{
    PyObject *carried = handle_carry(self->owner.engine, self->function);
    if (carried == Py_None)
        Py_DECREF(carried);
    else
        Py_SETREF(self->function, carried);
    self->function_carried = carried != Py_None;
    self->function_settled = true;
}

/* Nothing of the user's runs when it is pulled. */
bool group_input_is_fixed(PyObject *inputs)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(inputs); i++) {
        PyObject *input = PyTuple_GET_ITEM(inputs, i);
        if (group_input_may_wait(input) && strcmp(Py_TYPE(input)->tp_name, "itertools.repeat") != 0)
            return false;
    }
    return true;
}

int group_repeats_traverse(struct shoal_group *self, visitproc visit, void *arg)
{
    Py_VISIT(self->last_item);
    for (unsigned i = 0; i < GROUP_REPEATS_MAX; i++) {
        Py_VISIT(self->repeats[i].object);
        Py_VISIT(self->repeats[i].carried);
    }
    return 0;
}

void group_forget_repeats(struct shoal_group *self)
{
    Py_CLEAR(self->last_item);
    for (unsigned i = 0; i < GROUP_REPEATS_MAX; i++) {
        Py_CLEAR(self->repeats[i].object);
        Py_CLEAR(self->repeats[i].carried);
    }
}

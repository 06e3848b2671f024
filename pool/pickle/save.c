/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * save.c - which way an object is written.
 *
 * In the order of pickle: persistent id, atoms, memo, exact built-in containers, reducer_override, classes and
 * functions, dispatch table, metaclass instances, __reduce_ex__, __reduce__.
 */
#include "encoder.h"

/* 1: written as a persistent id; 0: it has none; -1. */
static int save_persistent(struct shoal_encoder *e, PyObject *obj)
{
    PyObject *id = PyObject_CallOneArg(e->hooks.persistent_id, obj);
    if (!id)
        return -1;
    int result = 0;
    if (id != Py_None) {
        if (e->binary) {
            result = shoal__save_without_id(e, id) < 0 ? -1 : shoal__op(e, OP_BINPERSID);
        } else {
            PyObject *text = PyObject_Str(id);
            PyObject *ascii = text ? PyUnicode_AsASCIIString(text) : NULL;
            if (ascii)
                result = shoal__op(e, OP_PERSID) < 0 ||
                                 shoal__raw(e, PyBytes_AS_STRING(ascii), (size_t)PyBytes_GET_SIZE(ascii)) < 0
                             ? -1
                             : shoal__op(e, '\n');
            else
                result = -1;
            if (!ascii && text && PyErr_ExceptionMatches(PyExc_UnicodeEncodeError))
                PyErr_SetString(e->state->shared.pickling_error,
                                "persistent IDs in protocol 0 must be ASCII strings");
            Py_XDECREF(ascii);
            Py_XDECREF(text);
        }
        result = result < 0 ? -1 : 1;
    }
    Py_DECREF(id);
    return result;
}

/* 1: written; 0: the type is none of the built-in containers; -1. */
static int save_builtin(struct shoal_encoder *e, PyObject *obj, PyTypeObject *type)
{
    int result;
    if (type == &PyDict_Type)
        result = shoal__save_dict(e, obj);
    else if (type == &PyList_Type)
        result = shoal__save_list(e, obj);
    else if (type == &PyTuple_Type)
        result = shoal__save_tuple(e, obj);
    else if (type == &PySet_Type)
        result = shoal__save_set(e, obj);
    else if (type == &PyFrozenSet_Type)
        result = shoal__save_frozenset(e, obj);
    else if (type == &PyByteArray_Type)
        result = shoal__save_bytearray(e, obj);
    else if (type == &PyPickleBuffer_Type)
        result = shoal__save_picklebuffer(e, obj);
    else
        return 0;
    return result < 0 ? -1 : 1;
}

/*
 * pickle asks no table about plain functions and classes. One of the pickler's own is asked here, since who enters
 * these types there means it; but not about what the reducer itself names to make the object again, which would have
 * no end. 1: written; 0: not in there; -1.
 */
static int save_by_own_reducer(struct shoal_encoder *e, PyObject *obj, PyTypeObject *type)
{
    PyObject *reducer = obj == e->maker ? NULL : shoal__find_own_reducer(e, (PyObject *)type);
    if (!reducer)
        return PyErr_Occurred() ? -1 : 0;
    PyObject *value = PyObject_CallOneArg(reducer, obj);
    Py_DECREF(reducer);
    if (!value)
        return -1;
    PyObject *outer = e->maker;
    e->maker = PyTuple_Check(value) && PyTuple_GET_SIZE(value) > 0 ? PyTuple_GET_ITEM(value, 0) : NULL;
    int result = shoal__save_any_reduce(e, value, obj);
    e->maker = outer;
    Py_DECREF(value);
    return result < 0 ? -1 : 1;
}

/* 1: written as a number, under which the reader has it; 0: it has not; -1. */
static int save_inherited(struct shoal_encoder *e, PyObject *obj, PyTypeObject *type)
{
    const struct shoal_inheritance *inheritance = e->hooks.inheritance;
    if (!inheritance->number ||
        (type != &PyFunction_Type && !PyType_Check(obj) && type != &PyCapsule_Type && type != inheritance->also))
        return 0;
    int64_t number = inheritance->number(inheritance->context, obj);
    if (number < 0)
        return number == -1 ? 0 : -1;
    if (shoal__save_small(e, (long)number) < 0 || shoal__op(e, OP_BINPERSID) < 0)
        return -1;
    return shoal__put(e, obj) < 0 ? -1 : 1;
}

static int save_other(struct shoal_encoder *e, PyObject *obj, PyTypeObject *type)
{
    if (e->hooks.inheritance) {
        int done = save_inherited(e, obj, type);
        if (done != 0)
            return done < 0 ? -1 : 0;
    }
    if (e->hooks.reducer_override) {
        PyObject *value = PyObject_CallOneArg(e->hooks.reducer_override, obj);
        if (!value)
            return -1;
        if (value != Py_NotImplemented) {
            int result = shoal__save_any_reduce(e, value, obj);
            Py_DECREF(value);
            return result;
        }
        Py_DECREF(value);
    }
    if (e->hooks.dispatch_table && (type == &PyType_Type || type == &PyFunction_Type)) {
        int done = save_by_own_reducer(e, obj, type);
        if (done != 0)
            return done < 0 ? -1 : 0;
    }
    if (type == &PyType_Type)
        return shoal__save_type(e, obj);
    if (type == &PyFunction_Type)
        return shoal__save_function(e, obj);
    return shoal__save_by_reduce(e, obj);
}

/* ---- cycles in fast mode: without a memo they would have no end ---- */

enum { FAST_DEPTH_MAX = 50 };

static int fast_enter(struct shoal_encoder *e, PyObject *obj)
{
    if (++e->fast_depth < FAST_DEPTH_MAX)
        return 0;
    if (!e->fast_seen && !(e->fast_seen = PyDict_New()))
        return -1;
    PyObject *id = PyLong_FromVoidPtr(obj);
    if (!id)
        return -1;
    int seen = PyDict_Contains(e->fast_seen, id);
    if (seen > 0)
        PyErr_Format(PyExc_ValueError, "fast mode: can't pickle cyclic objects including object type %.200s at %p",
                     Py_TYPE(obj)->tp_name, (void *)obj);
    int result = seen == 0 ? PyDict_SetItem(e->fast_seen, id, Py_None) : -1;
    Py_DECREF(id);
    return result;
}

static int fast_leave(struct shoal_encoder *e, PyObject *obj, int result)
{
    if (e->fast_depth-- < FAST_DEPTH_MAX || !e->fast_seen)
        return result;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *id = PyLong_FromVoidPtr(obj);
    if (!id || PyDict_DelItem(e->fast_seen, id) < 0)
        PyErr_Clear();
    Py_XDECREF(id);
    PyErr_Restore(type, value, traceback);
    return result;
}

/*
 * ---- cycles without an end, far down ----
 *
 * An object that is part of what it is made from comes again before it is in the memo. That has an end if each turn
 * enters something else into the memo, and there are objects that need many turns; but not this many.
 */

enum { TURNS_MAX = 100000 };

/* Of e->fast_seen: how often the object is under way just now, changed by `step`. The new number, or -1. */
static long count_turns(struct shoal_encoder *e, PyObject *obj, long step)
{
    if (!e->fast_seen && !(e->fast_seen = PyDict_New()))
        return -1;
    PyObject *id = PyLong_FromVoidPtr(obj);
    if (!id)
        return -1;
    PyObject *old = PyDict_GetItemWithError(e->fast_seen, id); /* borrowed */
    long turns = (old && PyLong_Check(old) ? PyLong_AsLong(old) : 0) + step;
    PyObject *now = turns > 0 ? PyLong_FromLong(turns) : NULL;
    int result = now ? PyDict_SetItem(e->fast_seen, id, now) : old ? PyDict_DelItem(e->fast_seen, id) : 0;
    Py_XDECREF(now);
    Py_DECREF(id);
    return result < 0 || PyErr_Occurred() ? -1 : turns;
}

static int save_other_deep_down(struct shoal_encoder *e, PyObject *obj, PyTypeObject *type)
{
    long turns = count_turns(e, obj, 1);
    if (turns < 0)
        return -1;
    int result = -1;
    if (turns <= TURNS_MAX)
        result = save_other(e, obj, type);
    else
        PyErr_Format(e->state->shared.pickling_error,
                     "cannot pickle '%.200s' object: it is part of what it is made from, again and again (deep "
                     "recursion). Its __reduce__ must not name the object itself among the arguments, but in the state",
                     type->tp_name);
    PyObject *error_type, *value, *traceback;
    PyErr_Fetch(&error_type, &value, &traceback);
    if (count_turns(e, obj, -1) < 0)
        PyErr_Clear();
    PyErr_Restore(error_type, value, traceback);
    return result;
}

/* ---- */

static int save_with_parts(struct shoal_encoder *e, PyObject *obj, PyTypeObject *type)
{
    int result = save_builtin(e, obj, type);
    if (result != 0)
        return result;
    return e->stack.current && !e->fast ? save_other_deep_down(e, obj, type) : save_other(e, obj, type);
}

struct deeper {
    struct shoal_encoder *e;
    PyObject *obj;
};

static int save_deeper(void *context)
{
    struct deeper *deeper = context;
    return shoal__save_without_id(deeper->e, deeper->obj);
}

int shoal__save_without_id(struct shoal_encoder *e, PyObject *obj)
{
    if (shoal_sink_used(e->sink) >= e->frame_end && shoal__frame_turn(e) < 0)
        return -1;
    PyTypeObject *type = Py_TYPE(obj);
    if (type == &PyUnicode_Type)
        return shoal__save_str(e, obj);
    if (type == &PyLong_Type)
        return shoal__save_long(e, obj);
    if (type == &PyFloat_Type)
        return shoal__save_float(e, obj);
    if (obj == Py_None)
        return shoal__save_none(e);
    if (type == &PyBool_Type)
        return shoal__save_bool(e, obj);
    return shoal__save_compound(e, obj, type);
}

int shoal__save_compound(struct shoal_encoder *e, PyObject *obj, PyTypeObject *type)
{
    if ((type == &PyDict_Type || type == &PyList_Type) && e->protocol >= 4 && !e->fast &&
        !shoal__deep_is_reached(&e->stack)) {
        int result = shoal__save_list_or_dict(e, obj);
        if (result < 0)
            shoal__path_culprit(e, obj);
        return result;
    }

    int64_t index = shoal__find(e, obj);
    if (index >= 0)
        return shoal__get_index(e, index);
    if (type == &PyBytes_Type)
        return shoal__save_bytes(e, obj);

    if (type == &PyTuple_Type && e->protocol >= 4 && !e->fast && !shoal__deep_is_reached(&e->stack)) {
        int result = shoal__save_usual_tuple(e, obj);
        if (result < 0)
            shoal__path_culprit(e, obj);
        return result;
    }
    if (shoal__deep_is_reached(&e->stack))
        return shoal__deep_call(&e->stack, e->state, save_deeper, &(struct deeper){e, obj});
    int result;
    if (e->fast) {
        result = fast_enter(e, obj) < 0 ? -1 : save_with_parts(e, obj, type);
        result = fast_leave(e, obj, result);
    } else {
        result = save_with_parts(e, obj, type);
    }
    if (result < 0) {
        shoal__path_culprit(e, obj);
        return -1;
    }
    return 0;
}

int shoal__save(struct shoal_encoder *e, PyObject *obj)
{
    if (e->hooks.persistent_id) {
        if (shoal_sink_used(e->sink) >= e->frame_end && shoal__frame_turn(e) < 0)
            return -1;
        int done = save_persistent(e, obj);
        if (done != 0)
            return done < 0 ? -1 : 0;
    }
    return shoal__save_without_id(e, obj);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * save_reduce.c - objects that say themselves how they are made again: copyreg, __reduce_ex__, __reduce__, and what
 * these return: (callable, arguments[, state[, list items[, dict items[, state setter]]]]).
 */
#include "encoder.h"

enum how_made { BY_CALL, BY_NEWOBJ, BY_NEWOBJ_EX };

struct reduced {
    PyObject *callable;  /* all borrowed from the tuple; NULL for None */
    PyObject *arguments; /* a tuple */
    PyObject *state;
    PyObject *list_items;
    PyObject *dict_items;
    PyObject *state_setter;
};

static int complain(struct shoal_encoder *e, const char *message)
{
    PyErr_SetString(e->state->shared.pickling_error, message);
    return -1;
}

static int complain_type(struct shoal_encoder *e, const char *format, PyObject *culprit)
{
    PyErr_Format(e->state->shared.pickling_error, format, Py_TYPE(culprit)->tp_name);
    return -1;
}

static PyObject *optional(PyObject *tuple, Py_ssize_t i)
{
    if (i >= PyTuple_GET_SIZE(tuple) || PyTuple_GET_ITEM(tuple, i) == Py_None)
        return NULL;
    return PyTuple_GET_ITEM(tuple, i);
}

static int unpack(struct shoal_encoder *e, PyObject *value, struct reduced *ret_parts)
{
    Py_ssize_t size = PyTuple_GET_SIZE(value);
    if (size < 2 || size > 6)
        return complain(e, "tuple returned by __reduce__ must contain 2 through 6 elements");
    struct reduced parts = {
        .callable = PyTuple_GET_ITEM(value, 0),
        .arguments = PyTuple_GET_ITEM(value, 1),
        .state = optional(value, 2),
        .list_items = optional(value, 3),
        .dict_items = optional(value, 4),
        .state_setter = optional(value, 5),
    };
    if (!PyCallable_Check(parts.callable))
        return complain(e, "first item of the tuple returned by __reduce__ must be callable");
    if (!PyTuple_Check(parts.arguments))
        return complain(e, "second item of the tuple returned by __reduce__ must be a tuple");
    if (parts.list_items && !PyIter_Check(parts.list_items))
        return complain_type(e, "fourth element of the tuple returned by __reduce__ must be an iterator, not %s",
                             parts.list_items);
    if (parts.dict_items && !PyIter_Check(parts.dict_items))
        return complain_type(e, "fifth element of the tuple returned by __reduce__ must be an iterator, not %s",
                             parts.dict_items);
    if (parts.state_setter && !PyCallable_Check(parts.state_setter))
        return complain_type(e, "sixth element of the tuple returned by __reduce__ must be a function, not %s",
                             parts.state_setter);
    *ret_parts = parts;
    return 0;
}

/* A callable of the name __newobj__ (whoever's it is) asks for NEWOBJ, from protocol 2 on. An enum how_made, or -1. */
static int how_made(struct shoal_encoder *e, PyObject *callable)
{
    if (callable == e->state->writer.newobj_function)
        return e->protocol >= 2 ? BY_NEWOBJ : BY_CALL;
    if (e->protocol < 2 || PyType_Check(callable))
        return BY_CALL;
    PyObject *name = PyObject_GetAttr(callable, e->state->names.name);
    if (!name) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError))
            return -1;
        PyErr_Clear();
        return BY_CALL;
    }
    int how = BY_CALL;
    if (PyUnicode_Check(name)) {
        if (PyUnicode_Compare(name, e->state->names.newobj) == 0)
            how = BY_NEWOBJ;
        else if (PyUnicode_Compare(name, e->state->names.newobj_ex) == 0)
            how = BY_NEWOBJ_EX;
    }
    Py_DECREF(name);
    return how;
}

/* Arguments and state often live for this one call only: in sparse mode they need no memo entry. */
static int save_arguments(struct shoal_encoder *e, PyObject *tuple)
{
    if (!e->sparse || e->hooks.persistent_id || !PyTuple_CheckExact(tuple) || Py_REFCNT(tuple) > 1)
        return shoal__save(e, tuple);
    Py_ssize_t n = PyTuple_GET_SIZE(tuple);
    if (shoal__begin_tuple(e, n) < 0)
        return -1;
    for (Py_ssize_t i = 0; i < n; i++) {
        if (shoal__save_part(e, PyTuple_GET_ITEM(tuple, i)) < 0) {
            shoal__path_index(e, "item", tuple, i);
            return -1;
        }
    }
    return shoal__end_tuple(e, n);
}

/* A part of what obj is made from. kind and from: which part, for the path to a culprit. */
static int save_making(struct shoal_encoder *e, PyObject *part, const char *kind, PyObject *obj, PyObject *from)
{
    if (shoal__save(e, part) == 0)
        return 0;
    shoal__path_step(e, kind, obj, from);
    return -1;
}

static int save_making_arguments(struct shoal_encoder *e, PyObject *arguments, PyObject *obj, PyObject *from)
{
    if (save_arguments(e, arguments) == 0)
        return 0;
    shoal__path_step(e, "arguments", obj, from);
    return -1;
}

static int has_wrong_class(struct shoal_encoder *e, PyObject *obj, PyObject *class)
{
    if (!obj || (PyObject *)Py_TYPE(obj) == class)
        return 0;
    PyObject *own = PyObject_GetAttr(obj, e->state->names.class_);
    if (!own)
        return -1;
    Py_DECREF(own); /* it is compared, not used */
    return own == class ? 0 : complain(e, "args[0] from __newobj__ args has the wrong class");
}

static int save_newobj(struct shoal_encoder *e, PyObject *arguments, PyObject *obj)
{
    Py_ssize_t n = PyTuple_GET_SIZE(arguments);
    if (n < 1)
        return complain(e, "__newobj__ arglist is empty");
    PyObject *class = PyTuple_GET_ITEM(arguments, 0);
    if (!PyType_Check(class))
        return complain(e, "args[0] from __newobj__ args is not a type");
    if (has_wrong_class(e, obj, class) < 0 || save_making(e, class, "class", obj, class) < 0)
        return -1;
    if (n == 1 && e->protocol >= 1 && !e->hooks.persistent_id)
        return shoal__op(e, OP_EMPTY_TUPLE) < 0 ? -1 : shoal__op(e, OP_NEWOBJ);
    PyObject *rest = PyTuple_GetSlice(arguments, 1, n);
    if (!rest)
        return -1;
    int result = save_making_arguments(e, rest, obj, class);
    Py_DECREF(rest);
    return result < 0 ? -1 : shoal__op(e, OP_NEWOBJ);
}

/* Before protocol 4: partial(cls.__new__, cls, *args, **kwargs)(). */
static int save_newobj_by_partial(struct shoal_encoder *e, PyObject *class, PyObject *arguments, PyObject *keywords)
{
    Py_ssize_t n = PyTuple_GET_SIZE(arguments);
    PyObject *call = NULL, *all = PyTuple_New(n + 2);
    PyObject *maker = all ? PyObject_GetAttr(class, e->state->names.new_) : NULL;
    if (maker) {
        PyTuple_SET_ITEM(all, 0, maker); /* steals */
        PyTuple_SET_ITEM(all, 1, Py_NewRef(class));
        for (Py_ssize_t i = 0; i < n; i++)
            PyTuple_SET_ITEM(all, i + 2, Py_NewRef(PyTuple_GET_ITEM(arguments, i)));
        call = PyObject_Call(e->state->shared.partial, all, keywords);
    }
    Py_XDECREF(all);
    int result = call ? shoal__save(e, call) : -1;
    Py_XDECREF(call);
    PyObject *nothing = result < 0 ? NULL : PyTuple_New(0);
    if (nothing)
        result = shoal__save(e, nothing); /* persistent_id is asked about it, too */
    Py_XDECREF(nothing);
    return !nothing || result < 0 ? -1 : shoal__op(e, OP_REDUCE);
}

static int save_newobj_ex(struct shoal_encoder *e, PyObject *triple, PyObject *obj)
{
    if (PyTuple_GET_SIZE(triple) != 3) {
        PyErr_Format(e->state->shared.pickling_error,
                     "length of the NEWOBJ_EX argument tuple must be exactly 3, not %zd", PyTuple_GET_SIZE(triple));
        return -1;
    }
    PyObject *class = PyTuple_GET_ITEM(triple, 0);
    PyObject *arguments = PyTuple_GET_ITEM(triple, 1);
    PyObject *keywords = PyTuple_GET_ITEM(triple, 2);
    if (!PyType_Check(class))
        return complain_type(e, "first item from NEWOBJ_EX argument tuple must be a class, not %.200s", class);
    if (!PyTuple_Check(arguments))
        return complain_type(e, "second item from NEWOBJ_EX argument tuple must be a tuple, not %.200s", arguments);
    if (!PyDict_Check(keywords))
        return complain_type(e, "third item from NEWOBJ_EX argument tuple must be a dict, not %.200s", keywords);
    if (e->protocol < 4)
        return save_newobj_by_partial(e, class, arguments, keywords);
    if (save_making(e, class, "class", obj, class) < 0 || save_making(e, arguments, "arguments", obj, class) < 0 ||
        save_making(e, keywords, "keywords", obj, class) < 0)
        return -1;
    return shoal__op(e, OP_NEWOBJ_EX);
}

/* Which part of the state failed is told in the words of a user: the attribute. */
static int save_state(struct shoal_encoder *e, PyObject *state, PyObject *obj)
{
    if (shoal__save(e, state) < 0) {
        shoal__path_step(e, "state", obj, NULL);
        return -1;
    }
    return 0;
}

static int save_contents(struct shoal_encoder *e, const struct reduced *parts, PyObject *obj)
{
    if (parts->list_items && shoal__batch_items(e, parts->list_items) < 0)
        return -1;
    if (parts->dict_items && shoal__batch_pairs(e, parts->dict_items) < 0)
        return -1;
    if (!parts->state)
        return 0;
    if (!parts->state_setter)
        return save_state(e, parts->state, obj) < 0 ? -1 : shoal__op(e, OP_BUILD);
    if (shoal__save(e, parts->state_setter) < 0 || shoal__save(e, obj) < 0 || save_state(e, parts->state, obj) < 0)
        return -1;
    const uint8_t call[] = {OP_TUPLE2, OP_REDUCE, OP_POP}; /* TUPLE2 in every protocol, as pickle has it */
    return shoal__raw(e, call, sizeof call);
}

int shoal__save_reduced(struct shoal_encoder *e, PyObject *value, PyObject *obj)
{
    struct reduced parts;
    if (unpack(e, value, &parts) < 0)
        return -1;
    int how = how_made(e, parts.callable);
    int result = -1;
    if (how == BY_NEWOBJ_EX)
        result = save_newobj_ex(e, parts.arguments, obj);
    else if (how == BY_NEWOBJ)
        result = save_newobj(e, parts.arguments, obj);
    else if (how == BY_CALL && save_making(e, parts.callable, "callable", obj, parts.callable) == 0 &&
             save_making_arguments(e, parts.arguments, obj, parts.callable) == 0)
        result = shoal__op(e, OP_REDUCE);
    if (result < 0)
        return -1;
    if (obj) {
        int64_t index = shoal__find(e, obj);
        if (index >= 0) /* it was reached through its own arguments: that one is taken, contents and all */
            return shoal__op(e, OP_POP) < 0 ? -1 : shoal__get_index(e, index);
        if (shoal__put(e, obj) < 0)
            return -1;
    }
    return save_contents(e, &parts, obj);
}

int shoal__save_any_reduce(struct shoal_encoder *e, PyObject *value, PyObject *obj)
{
    if (PyUnicode_Check(value))
        return shoal__save_global(e, obj, value);
    if (!PyTuple_Check(value))
        return complain(e, "__reduce__ must return a string or tuple");
    return shoal__save_reduced(e, value, obj);
}

/* The usual case, without making a bound method. Of an instance that cannot have attributes of its own the type alone
 * says which method it is: where the type has its own __reduce__ and leaves __reduce_ex__ to object, that calls the
 * former. */
static PyObject *reduce_by_type(struct shoal_encoder *e, PyObject *obj, bool *ret_done)
{
    const struct shoal_state_names *names = &e->state->names;
    PyTypeObject *type = Py_TYPE(obj);
    PyObject *reduce_ex = NULL;
    if (type->tp_getattro == PyObject_GenericGetAttr)
        reduce_ex = _PyType_Lookup(type, names->reduce_ex); /* borrowed, compared only */
    *ret_done = reduce_ex != NULL;
    if (!reduce_ex)
        return NULL;
    if (type->tp_dictoffset == 0 && reduce_ex == e->state->writer.object_reduce_ex) {
        PyObject *reduce = _PyType_Lookup(type, names->reduce);
        if (reduce && reduce != e->state->writer.object_reduce)
            return PyObject_CallMethodNoArgs(obj, names->reduce);
    }
    PyObject *protocol = PyLong_FromLong(e->protocol);
    PyObject *value = protocol ? PyObject_CallMethodOneArg(obj, names->reduce_ex, protocol) : NULL;
    Py_XDECREF(protocol);
    return value;
}

/* What the object's own methods say: new reference, or NULL with an exception. */
PyObject *shoal__reduce_itself(struct shoal_encoder *e, PyObject *obj)
{
    bool done;
    PyObject *answer = reduce_by_type(e, obj, &done);
    if (done)
        return answer;
    PyObject *method = PyObject_GetAttr(obj, e->state->names.reduce_ex);
    if (method) {
        PyObject *protocol = PyLong_FromLong(e->protocol);
        PyObject *value = protocol ? PyObject_CallOneArg(method, protocol) : NULL;
        Py_XDECREF(protocol);
        Py_DECREF(method);
        return value;
    }
    if (!PyErr_ExceptionMatches(PyExc_AttributeError))
        return NULL;
    PyErr_Clear();
    method = PyObject_GetAttr(obj, e->state->names.reduce);
    if (method) {
        PyObject *value = PyObject_CallNoArgs(method);
        Py_DECREF(method);
        return value;
    }
    if (PyErr_ExceptionMatches(PyExc_AttributeError))
        PyErr_Format(e->state->shared.pickling_error, "can't pickle '%.200s' object: %R", Py_TYPE(obj)->tp_name, obj);
    return NULL;
}

int shoal__save_by_reduce(struct shoal_encoder *e, PyObject *obj)
{
    PyTypeObject *type = Py_TYPE(obj);
    PyObject *value;
    PyObject *reducer = shoal__find_reducer(e, (PyObject *)type);
    if (reducer) {
        value = PyObject_CallOneArg(reducer, obj);
        Py_DECREF(reducer);
    } else if (PyErr_Occurred()) {
        return -1;
    } else if (PyType_IsSubtype(type, &PyType_Type)) {
        return shoal__save_type(e, obj);
    } else {
        int done = shoal__save_instance(e, obj);
        if (done == 0)
            done = shoal__save_array(e, obj);
        if (done == 0)
            done = shoal__save_special(e, obj);
        if (done != 0)
            return done < 0 ? -1 : 0;
        value = shoal__reduce_itself(e, obj);
        if (value)
            shoal__learn_instance(e, obj, value);
    }
    if (!value)
        return -1;
    int result = shoal__save_any_reduce(e, value, obj);
    Py_DECREF(value);
    return result;
}

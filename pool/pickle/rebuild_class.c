/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * rebuild_class.c - the reconstructors that streams name for classes: attributes of shoal._rebuild.
 *
 * Which class a mark means is looked up here; a class that is made or changed is so by shoal._rebuild_class, in Python.
 * They are called with what a stream says, so they check all of it.
 *
 * Of a class that was changed at its source, only what is different from when it was last received is set: attributes
 * that were set here since stay. What an attribute was is known by its digest.
 */
#include "class_making.h"
#include "pickler_type.h"

static PyObject *bad_arguments(struct shoal_pickle_state *state, const char *signature)
{
    PyErr_Format(state->shared.unpickling_error, "damaged pickle of a class: it must be made by %s", signature);
    return NULL;
}

static bool is_tuple_of_types(PyObject *obj)
{
    if (!PyTuple_CheckExact(obj))
        return false;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(obj); i++)
        if (!PyType_Check(PyTuple_GET_ITEM(obj, i)))
            return false;
    return true;
}

static bool is_metaclass(PyObject *obj)
{
    return PyType_Check(obj) && PyType_IsSubtype((PyTypeObject *)obj, &PyType_Type);
}

/* A function of another module of Shoal, imported at its first use: borrowed. */
static PyObject *helper_of(const char *module, PyObject **slot, const char *name)
{
    if (!*slot)
        *slot = shoal_pickle__import(module, name);
    return *slot;
}

static PyObject *helper(PyObject **slot, const char *name)
{
    return helper_of("shoal._rebuild_class", slot, name);
}

/* ---- what was received last ---- */

static PyObject *digest_object(struct shoal_pickle_state *state, PyObject *value)
{
    return PyLong_FromUnsignedLongLong(shoal__value_digest(state, value));
}

/* Enters the digests of `attributes` into record->parts; *ret_changed: new dict of those that were not the same. */
static int note_parts(struct shoal_pickle_state *state, struct shoal_class_record *record, PyObject *attributes,
                      PyObject **ret_changed)
{
    PyObject *changed = PyDict_New(), *key, *value;
    Py_ssize_t position = 0;
    int result = changed ? 0 : -1;
    if (!record->parts && !(record->parts = PyDict_New()))
        result = -1;
    while (result == 0 && PyDict_Next(attributes, &position, &key, &value)) {
        PyObject *now = PyUnicode_CheckExact(key) ? digest_object(state, value) : NULL;
        if (!now) {
            result = PyErr_Occurred() ? -1 : 0; /* a key that is no str: left alone */
            continue;
        }
        PyObject *then = PyDict_GetItemWithError(record->parts, key); /* borrowed; both are exact ints */
        int same = then ? PyObject_RichCompareBool(then, now, Py_EQ) : 0;
        result = same || PyDict_SetItem(changed, key, value) == 0 ? 0 : -1;
        if (result == 0)
            result = PyDict_SetItem(record->parts, key, now);
        Py_DECREF(now);
    }
    if (result == 0)
        *ret_changed = changed;
    else
        Py_XDECREF(changed);
    return result;
}

/* What super() reads, where the functions that came are more than the class's own. */
static int fill_class_cell(struct shoal_pickle_state *state, PyObject *namespace, PyObject *class)
{
    PyObject *cell = PyDict_GetItemWithError(namespace, state->classes.classcell); /* borrowed */
    if (!cell)
        return PyErr_Occurred() ? -1 : 0;
    return PyCell_Check(cell) && !PyCell_GET(cell) ? PyCell_Set(cell, class) : 0;
}

/* ---- classes that are here ---- */

/* list of attributes that were received and are not in the namespace any more; what came late is not looked at */
static PyObject *removed_parts(struct shoal_class_record *record, PyObject *namespace)
{
    PyObject *removed = PyList_New(0), *key, *value;
    Py_ssize_t position = 0;
    while (removed && record->parts && PyDict_Next(record->parts, &position, &key, &value))
        if (!PyDict_Contains(namespace, key) && PyList_Append(removed, key) < 0)
            Py_CLEAR(removed);
    for (Py_ssize_t i = 0; removed && i < PyList_GET_SIZE(removed); i++)
        if (PyDict_DelItem(record->parts, PyList_GET_ITEM(removed, i)) < 0)
            Py_CLEAR(removed);
    return removed;
}

static int change(struct shoal_pickle_state *state, struct shoal_class_record *record, PyObject *class,
                  PyObject *const *args)
{
    PyObject *bases = args[2], *namespace = args[3], *mark = args[4], *changed = NULL;
    PyObject *function = helper(&state->classes.change_class, "change");
    bool known = record->parts != NULL; /* a fork's copy was never received: all of it is set */
    PyObject *removed = known ? removed_parts(record, namespace) : PyList_New(0);
    PyObject *result = NULL;
    if (function && removed && note_parts(state, record, namespace, &changed) == 0) {
        Py_SETREF(record->mark, Py_NewRef(mark));
        record->open = true;
        record->opened_by = PyThread_get_thread_ident();
        record->made = false;
        result = PyObject_CallFunctionObjArgs(function, class, bases, changed, removed, NULL);
    }
    Py_XDECREF(changed);
    Py_XDECREF(removed);
    Py_XDECREF(result);
    return result ? 0 : -1;
}

/* New reference to the class if it is here, brought up to date; NULL, perhaps with an exception. args as of _class. */
static PyObject *find(struct shoal_pickle_state *state, PyObject *const *args)
{
    struct shoal_class_record *record;
    PyObject *class;
    enum shoal_class_verdict verdict = shoal__class_find(state, args[4], &record, &class);
    if (verdict == CLASS_UNKNOWN)
        return NULL;
    if (record->opened_by == PyThread_get_thread_ident()) /* another thread may not be ready with it */
        record->open = false;
    int result = fill_class_cell(state, args[3], class);
    if (result == 0 && verdict == CLASS_CHANGED) {
        Py_INCREF(record);
        result = change(state, record, class, args);
        Py_DECREF(record);
    }
    if (result == 0 && !shoal__class_is_source(state, record))
        result = shoal__refresh_class(class, args[3]);
    if (result < 0)
        Py_CLEAR(class);
    return class;
}

/* ---- classes that are made ---- */

/* The one that was made, or, if another thread was faster, that one. Steals `made`, which may be NULL. */
static PyObject *enter(struct shoal_pickle_state *state, PyObject *made, PyObject *const *args, PyObject *keywords)
{
    if (!made)
        return NULL;
    if (!PyType_Check(made)) {
        PyErr_Format(PyExc_TypeError, "the metaclass %R made no class of %R, but %R", args[0], args[1], made);
        Py_DECREF(made);
        return NULL;
    }
    if (shoal__class_record_of(state, made))
        return made; /* its metaclass gives out a class that was there before */
    PyObject *other = find(state, args), *changed = NULL;
    if (other || PyErr_Occurred()) {
        Py_DECREF(made);
        return other;
    }
    struct shoal_class_record *record = shoal__class_enter(state, made, args[4], keywords);
    if (!record || fill_class_cell(state, args[3], made) < 0 || note_parts(state, record, args[3], &changed) < 0)
        Py_CLEAR(made);
    Py_XDECREF(changed);
    return made;
}

/* New reference to the class if it is here, when no other thread makes it any more; else NULL: *ret_making is begun, or
 * there is an exception. */
static PyObject *find_or_begin(struct shoal_pickle_state *state, PyObject *const *args,
                               struct shoal_making **ret_making)
{
    for (;;) {
        PyObject *class = find(state, args);
        if (class || PyErr_Occurred() || shoal__making_begin(state, args[4], ret_making) != 0)
            return class;
    }
}

/* _class(metaclass, name, bases, namespace, mark[, keywords]) */
static PyObject *rebuild_class(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    struct shoal_pickle_state *state = shoal_pickle_state_of_function(self);
    if (!state)
        return NULL;
    PyObject *keywords = nargs == 6 ? args[5] : NULL;
    if (nargs < 5 || nargs > 6 || !is_metaclass(args[0]) || !PyUnicode_Check(args[1]) || !is_tuple_of_types(args[2]) ||
        !PyDict_CheckExact(args[3]) || !shoal__is_class_mark(args[4]) || (keywords && !PyDict_CheckExact(keywords)))
        return bad_arguments(state, "_class(metaclass, name, bases, namespace, mark[, keywords])");
    struct shoal_making *making;
    PyObject *class = find_or_begin(state, args, &making);
    if (class || PyErr_Occurred())
        return class;
    PyObject *make = helper(&state->classes.make_class, "make");
    PyObject *made = make ? PyObject_CallFunctionObjArgs(make, args[0], args[1], args[2], args[3],
                                                         keywords ? keywords : Py_None, NULL)
                          : NULL;
    class = enter(state, made, args, keywords);
    shoal__making_end(state, making);
    return class;
}

/* _enum(metaclass, name, bases, namespace, mark, members, keywords) */
static PyObject *rebuild_enum(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    struct shoal_pickle_state *state = shoal_pickle_state_of_function(self);
    if (!state)
        return NULL;
    if (nargs != 7 || !is_metaclass(args[0]) || !PyUnicode_Check(args[1]) || !is_tuple_of_types(args[2]) ||
        !PyDict_CheckExact(args[3]) || !shoal__is_class_mark(args[4]) || !PyList_CheckExact(args[5]) ||
        !PyDict_CheckExact(args[6]))
        return bad_arguments(state, "_enum(metaclass, name, bases, namespace, mark, members, keywords)");
    struct shoal_making *making;
    PyObject *class = find_or_begin(state, args, &making);
    if (class || PyErr_Occurred())
        return class;
    PyObject *make = helper_of("shoal._rebuild_enum", &state->classes.make_enum, "make_enum");
    PyObject *made = make ? PyObject_CallFunctionObjArgs(make, args[0], args[1], args[2], args[3], args[5], args[6],
                                                         NULL)
                          : NULL;
    class = enter(state, made, args, args[6]);
    shoal__making_end(state, making);
    return class;
}

/* _fill_class(class, attributes[, registered]): what could not be there when it was made. */
static PyObject *fill_class(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    struct shoal_pickle_state *state = shoal_pickle_state_of_function(self);
    if (!state)
        return NULL;
    if (nargs < 2 || nargs > 3 || !PyType_Check(args[0]) || !PyDict_CheckExact(args[1]) ||
        (nargs == 3 && !PyList_CheckExact(args[2])))
        return bad_arguments(state, "_fill_class(class, attributes[, registered])");
    struct shoal_class_record *record = shoal__class_record_of(state, args[0]);
    if (!record && PyErr_Occurred())
        return NULL;
    if (!record || shoal__class_is_source(state, record))
        Py_RETURN_NONE;
    bool just_made = record->open && record->made && record->opened_by == PyThread_get_thread_ident();
    if (!just_made && shoal__refresh_class(args[0], args[1]) < 0)
        return NULL;
    bool has_registered = nargs == 3 && PyList_GET_SIZE(args[2]) > 0; /* which is no part of what a class is */
    if (!record->open && !has_registered)
        Py_RETURN_NONE;
    PyObject *fill = helper(&state->classes.fill_class, "fill"), *changed = NULL, *result = NULL;
    if (fill && (record->open ? note_parts(state, record, args[1], &changed) == 0 : (changed = PyDict_New()) != NULL) &&
        (!just_made || PyDict_Update(changed, args[1]) == 0)) /* hooks may have set what was received already */
        result = PyObject_CallFunctionObjArgs(fill, args[0], changed, nargs == 3 ? args[2] : Py_None,
                                              record->made ? Py_True : Py_False, NULL);
    Py_XDECREF(changed);
    return result;
}

#define FASTCALL(function) (PyCFunction)(void (*)(void))(function)

PyMethodDef shoal__rebuild_class_functions[] = {
    {"_class", FASTCALL(rebuild_class), METH_FASTCALL, "A class that was pickled by value."},
    {"_enum", FASTCALL(rebuild_enum), METH_FASTCALL, "An enum that was pickled by value."},
    {"_fill_class", FASTCALL(fill_class), METH_FASTCALL, "What had to wait for a class."},
    {NULL, NULL, 0, NULL},
};

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * rebuild.c - the reconstructors that streams name for functions, code and cells: attributes of shoal._rebuild.
 *
 * They are called with what a stream says, so they check all of it.
 */
#include "pickler_type.h"

static int check_closure(PyObject *code, PyObject *closure)
{
    Py_ssize_t wanted = PyCode_GetNumFree((PyCodeObject *)code);
    if (!closure || closure == Py_None) {
        if (wanted > 0)
            PyErr_Format(PyExc_ValueError, "this function needs %zd closure cells and has none", wanted);
        return wanted > 0 ? -1 : 0;
    }
    if (!PyTuple_CheckExact(closure) || PyTuple_GET_SIZE(closure) != wanted) {
        PyErr_Format(PyExc_ValueError, "this function needs a tuple of %zd closure cells", wanted);
        return -1;
    }
    for (Py_ssize_t i = 0; i < wanted; i++) {
        if (!PyCell_Check(PyTuple_GET_ITEM(closure, i))) {
            PyErr_SetString(PyExc_TypeError, "a function's closure consists of cells");
            return -1;
        }
    }
    return 0;
}

/* The code object that a stream gives: as bytes, or made already. */
static PyObject *take_code(struct shoal_pickle_state *state, PyObject *code)
{
    return PyCode_Check(code) ? Py_NewRef(code) : shoal__code_from_bytes(state, code);
}

/* _function(code, globals[, cells]) */
static PyObject *rebuild_function(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    struct shoal_pickle_state *state = shoal_pickle_state_of_function(self);
    if (nargs < 2 || nargs > 3 || !PyDict_CheckExact(args[1])) {
        PyErr_SetString(PyExc_TypeError, "_function(code, globals[, cells])");
        return NULL;
    }
    PyObject *globals = args[1], *closure = nargs == 3 ? args[2] : NULL;
    PyObject *code = take_code(state, args[0]);
    if (!code)
        return NULL;
    PyObject *function = NULL;
    if (check_closure(code, closure) < 0)
        goto out;
    if (!PyDict_SetDefault(globals, state->names.builtins, PyEval_GetBuiltins()))
        goto out;
    function = PyFunction_New(code, globals);
    if (function && closure && closure != Py_None && PyTuple_GET_SIZE(closure) > 0 &&
        PyFunction_SetClosure(function, closure) < 0)
        Py_CLEAR(function);
out:
    Py_DECREF(code);
    return function;
}

/* _code(bytes[, odd constants]) */
static PyObject *rebuild_code(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    struct shoal_pickle_state *state = shoal_pickle_state_of_function(self);
    if (nargs == 1)
        return shoal__code_from_bytes(state, args[0]);
    if (nargs == 2 && PyTuple_CheckExact(args[1]))
        return shoal__code_read(state, args[0], args[1]);
    PyErr_SetString(PyExc_TypeError, "_code(bytes[, constants])");
    return NULL;
}

/* _cell([content]) */
static PyObject *rebuild_cell(PyObject *Py_UNUSED(self), PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs > 1) {
        PyErr_SetString(PyExc_TypeError, "_cell([content])");
        return NULL;
    }
    return PyCell_New(nargs ? args[0] : NULL);
}

/* _fill_cell(cell, content) */
static PyObject *rebuild_fill_cell(PyObject *Py_UNUSED(self), PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 2 || !PyCell_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "_fill_cell(cell, content)");
        return NULL;
    }
    if (PyCell_Set(args[0], args[1]) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* _is_importable(obj): would a reference by its own name lead to it? */
static PyObject *is_importable(PyObject *self, PyObject *obj)
{
    struct shoal_encoder e = {.state = shoal_pickle_state_of_function(self)};
    int result = shoal__is_importable(&e, obj);
    return result < 0 ? NULL : PyBool_FromLong(result);
}

#define FASTCALL(function) (PyCFunction)(void (*)(void))(function)

PyMethodDef shoal__rebuild_functions[] = {
    {"_function", FASTCALL(rebuild_function), METH_FASTCALL, "A function that was pickled by value, first step."},
    {"_code", FASTCALL(rebuild_code), METH_FASTCALL, "A code object that was pickled by value."},
    {"_cell", FASTCALL(rebuild_cell), METH_FASTCALL, "A closure cell."},
    {"_fill_cell", FASTCALL(rebuild_fill_cell), METH_FASTCALL, "A closure cell's second step."},
    {"_is_importable", is_importable, METH_O, "Would a reference by its own name lead to it, and may it be one?"},
    {NULL, NULL, 0, NULL},
};

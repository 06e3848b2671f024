/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * save_cell.c - closure cells, in two steps: a cell, and what is in it, since that may lead back to the function. They
 * go into the memo by their identity: closures that share a cell share it after loading.
 */
#include "births.h"

static bool is_atom(PyObject *obj)
{
    return obj == Py_None || PyBool_Check(obj) || PyLong_CheckExact(obj) || PyFloat_CheckExact(obj) ||
           PyUnicode_CheckExact(obj) || PyBytes_CheckExact(obj);
}

/* A new cell, in the memo, with its content only if that cannot lead back to it. */
static int make_cell(struct shoal_encoder *e, PyObject *cell)
{
    PyObject *content = PyCell_GET(cell);
    int n = content && (e->fast || is_atom(content));
    if (shoal__save_rebuilder(e, REBUILD_CELL) < 0 || shoal__begin_tuple(e, n) < 0)
        return -1;
    if (n) {
        Py_INCREF(content);
        int result = shoal__save(e, content);
        Py_DECREF(content);
        if (result < 0)
            return -1;
    }
    if (shoal__end_tuple(e, n) < 0 || shoal__op(e, OP_REDUCE) < 0)
        return -1;
    return shoal__put(e, cell);
}

static int fill_cell_now(struct shoal_encoder *e, PyObject *cell, PyObject *content)
{
    Py_INCREF(content);
    int result = -1;
    if (shoal__save_rebuilder(e, REBUILD_FILL_CELL) == 0 && shoal__begin_tuple(e, 2) == 0 &&
        shoal__get_index(e, shoal__find(e, cell)) == 0 && shoal__save(e, content) == 0 &&
        shoal__end_tuple(e, 2) == 0 && shoal__op(e, OP_REDUCE) == 0)
        result = shoal__op(e, OP_POP);
    Py_DECREF(content);
    return result;
}

/* fill_cell(cell, content), for a cell that is in the memo. */
static int fill_cell(struct shoal_encoder *e, PyObject *cell)
{
    PyObject *content = PyCell_GET(cell);
    if (e->fast || !content || is_atom(content))
        return 0;
    if (!e->births)
        return fill_cell_now(e, cell, content);
    struct shoal_birth *birth = shoal__birth_of(e, content);
    if (birth)
        return birth->cell == cell ? 0 : shoal__put_off(e, birth, LATE_CELL, cell, NULL, NULL);
    struct shoal_point point;
    shoal__point_take(e, &point);
    if (fill_cell_now(e, cell, content) == 0)
        return 0;
    if (shoal__point_return(e, &point) < 0)
        return -1;
    return shoal__put_off(e, e->blocked, LATE_CELL, cell, NULL, NULL);
}

int shoal__save_late_cell(struct shoal_encoder *e, PyObject *cell)
{
    PyObject *content = PyCell_GET(cell);
    return content ? fill_cell_now(e, cell, content) : 0;
}

int shoal__save_cell(struct shoal_encoder *e, PyObject *cell)
{
    return make_cell(e, cell) < 0 ? -1 : fill_cell(e, cell);
}

static PyObject *free_variable(PyObject *code, Py_ssize_t i)
{
#if PY_VERSION_HEX >= 0x030B0000
    PyObject *names = PyCode_GetFreevars((PyCodeObject *)code);
#else
    PyObject *names = Py_NewRef(((PyCodeObject *)code)->co_freevars);
#endif
    PyObject *name = names && i < PyTuple_GET_SIZE(names) ? Py_NewRef(PyTuple_GET_ITEM(names, i)) : NULL;
    Py_XDECREF(names);
    return name;
}

/* Is it what `__class__` and super() read in a class under way? Then the birth fills it. */
static void note_class_cell(struct shoal_encoder *e, PyFunctionObject *function, PyObject *cell, Py_ssize_t i)
{
    PyObject *content = PyCell_GET(cell);
    struct shoal_birth *birth = content ? shoal__birth_of(e, content) : NULL;
    if (!birth || birth->cell)
        return;
    PyObject *name = free_variable(function->func_code, i);
    if (name && PyUnicode_Compare(name, e->state->names.class_) == 0)
        birth->cell = cell;
    Py_XDECREF(name);
    PyErr_Clear();
}

int shoal__save_closure(struct shoal_encoder *e, PyFunctionObject *function)
{
    PyObject *closure = function->func_closure;
    Py_ssize_t n = PyTuple_GET_SIZE(closure);
    if (shoal__begin_tuple(e, n) < 0)
        return -1;
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *cell = PyTuple_GET_ITEM(closure, i);
        int64_t index = shoal__find(e, cell);
        if (e->births)
            note_class_cell(e, function, cell, i);
        if ((index >= 0 ? shoal__get_index(e, index) : make_cell(e, cell)) < 0)
            return -1;
    }
    return shoal__end_tuple(e, n);
}

static void tell_free_variable(struct shoal_encoder *e, PyFunctionObject *function, Py_ssize_t i)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *name = free_variable(function->func_code, i);
    PyErr_Restore(type, value, traceback);
    if (name)
        shoal__path_step(e, "closure", (PyObject *)function, name);
    Py_XDECREF(name);
}

int shoal__fill_closure(struct shoal_encoder *e, PyFunctionObject *function, int64_t first, int64_t end)
{
    PyObject *closure = function->func_closure;
    for (Py_ssize_t i = 0; closure && i < PyTuple_GET_SIZE(closure); i++) {
        int64_t index = shoal__find(e, PyTuple_GET_ITEM(closure, i));
        if (index < first || index >= end)
            continue;
        if (fill_cell(e, PyTuple_GET_ITEM(closure, i)) < 0) {
            tell_free_variable(e, function, i);
            return -1;
        }
    }
    return 0;
}

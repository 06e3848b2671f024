/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * rebuild.c - the reconstructors that streams name for functions, code, cells, modules and items of
 * arrays: attributes of shoal._rebuild.
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

/* The places for the items from number `first` on, if all of them are there and nobody has filled them. */
static PyObject **free_places(const Py_buffer *view, Py_ssize_t first, Py_ssize_t count)
{
    Py_ssize_t places = view->len / (Py_ssize_t)sizeof(PyObject *);
    if (strcmp(view->format, "O") != 0 || first < 0 || first > places || count > places - first)
        return NULL;
    PyObject **at = (PyObject **)view->buf + first;
    for (Py_ssize_t i = 0; i < count; i++)
        if (at[i] && at[i] != Py_None)
            return NULL;
    return at;
}

/* _put_items(array, first, items): into an array of objects that was just made; numpy reads NULL as None. */
static PyObject *rebuild_put_items(PyObject *Py_UNUSED(self), PyObject *const *args, Py_ssize_t nargs)
{
    Py_ssize_t first = nargs == 3 && PyLong_CheckExact(args[1]) ? PyLong_AsSsize_t(args[1]) : -1;
    PyErr_Clear();
    Py_buffer view;
    if (first < 0 || !shoal_is_array(args[0]) || !PyTuple_CheckExact(args[2])) {
        PyErr_SetString(PyExc_TypeError, "_put_items(array, first, items)");
        return NULL;
    }
    if (PyObject_GetBuffer(args[0], &view, PyBUF_ND | PyBUF_FORMAT | PyBUF_WRITABLE) < 0)
        return NULL;
    Py_ssize_t count = PyTuple_GET_SIZE(args[2]);
    PyObject **at = free_places(&view, first, count);
    for (Py_ssize_t i = 0; at && i < count; i++) {
        PyObject *before = at[i];
        at[i] = Py_NewRef(PyTuple_GET_ITEM(args[2], i));
        Py_XDECREF(before);
    }
    PyBuffer_Release(&view);
    if (at)
        Py_RETURN_NONE;
    PyErr_SetString(PyExc_ValueError, "_put_items: no free places for objects there");
    return NULL;
}

/* _import(name): the module itself, not its package */
static PyObject *rebuild_import(PyObject *Py_UNUSED(self), PyObject *name)
{
    if (!PyUnicode_Check(name)) {
        PyErr_SetString(PyExc_TypeError, "_import(name)");
        return NULL;
    }
    PyObject *first = PyImport_ImportModuleLevelObject(name, NULL, NULL, NULL, 0);
    if (!first)
        return NULL;
    Py_DECREF(first);
    PyObject *module = PyImport_GetModule(name);
    if (!module && !PyErr_Occurred())
        PyErr_Format(PyExc_ImportError, "module %R is not in sys.modules after its import", name);
    return module;
}

/* A module that is made as types.ModuleType makes it, of a class that may be derived from that. */
static PyObject *new_module(PyObject *class, PyObject *name)
{
    PyObject *arguments = PyTuple_Pack(1, name);
    if (!arguments)
        return NULL;
    PyObject *module = ((PyTypeObject *)class)->tp_new((PyTypeObject *)class, arguments, NULL);
    if (module && !PyModule_Check(module)) {
        PyErr_SetString(PyExc_TypeError, "_module: that class makes no modules");
        Py_CLEAR(module);
    }
    if (module && PyModule_Type.tp_init(module, arguments, NULL) < 0)
        Py_CLEAR(module);
    Py_DECREF(arguments);
    return module;
}

/* Puts `namespace` in the place of the module's own, which nobody has seen yet. */
static int give_namespace(struct shoal_pickle_state *state, PyObject *module, PyObject *namespace)
{
    PyObject **slot = _PyObject_GetDictPtr(module);
    if (!slot || !*slot) {
        PyErr_SetString(PyExc_TypeError, "_module: a module without a namespace");
        return -1;
    }
    PyObject *key, *value;
    Py_ssize_t position = 0;
    while (PyDict_Next(*slot, &position, &key, &value))
        if (!PyDict_SetDefault(namespace, key, value))
            return -1;
    if (!PyDict_SetDefault(namespace, state->names.builtins, PyEval_GetBuiltins()))
        return -1;
    Py_INCREF(namespace);
    Py_SETREF(*slot, namespace);
    return 0;
}

/* _module(name, namespace[, class]) */
static PyObject *rebuild_module(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *class = nargs == 3 ? args[2] : (PyObject *)&PyModule_Type;
    if (nargs < 2 || nargs > 3 || !PyUnicode_Check(args[0]) || !PyDict_CheckExact(args[1]) || !PyType_Check(class) ||
        !PyType_IsSubtype((PyTypeObject *)class, &PyModule_Type)) {
        PyErr_SetString(PyExc_TypeError, "_module(name, namespace[, class])");
        return NULL;
    }
    PyObject *module = new_module(class, args[0]);
    if (module && give_namespace(shoal_pickle_state_of_function(self), module, args[1]) < 0)
        Py_CLEAR(module);
    return module;
}

/*
 * _fill_module(module, attributes). Functions that came before the module, or are among its attributes, have put into
 * its namespace what they use: here all of it gets into the order of the source, in which it is sent on.
 */
static PyObject *rebuild_fill_module(PyObject *Py_UNUSED(self), PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 2 || !PyModule_Check(args[0]) || !PyDict_CheckExact(args[1])) {
        PyErr_SetString(PyExc_TypeError, "_fill_module(module, attributes)");
        return NULL;
    }
    PyObject *namespace = Py_NewRef(PyModule_GetDict(args[0]));
    PyObject *attributes = PyDict_Copy(args[1]), *key, *value;
    Py_ssize_t position = 0;
    int result = attributes ? 0 : -1;
    while (result == 0 && PyDict_Next(attributes, &position, &key, &value)) { /* our own: nobody changes it */
        PyObject *old = Py_XNewRef(PyDict_GetItemWithError(namespace, key));
        result = old ? PyDict_DelItem(namespace, key) : PyErr_Occurred() ? -1 : 0;
        Py_XDECREF(old);
        if (result == 0)
            result = PyDict_SetItem(namespace, key, value);
    }
    Py_XDECREF(attributes);
    Py_DECREF(namespace);
    return result < 0 ? NULL : Py_NewRef(Py_None);
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
    {"_put_items", FASTCALL(rebuild_put_items), METH_FASTCALL, "Some items of a large array of objects."},
    {"_fill_cell", FASTCALL(rebuild_fill_cell), METH_FASTCALL, "A closure cell's second step."},
    {"_is_importable", is_importable, METH_O, "Would a reference by its own name lead to it, and may it be one?"},
    {"_import", rebuild_import, METH_O, "A module that was pickled by its name."},
    {"_module", FASTCALL(rebuild_module), METH_FASTCALL, "A module that was pickled by value, first step."},
    {"_fill_module", FASTCALL(rebuild_fill_module), METH_FASTCALL, "A module that was pickled by value, second step."},
    {NULL, NULL, 0, NULL},
};

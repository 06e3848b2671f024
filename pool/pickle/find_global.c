/* SPDX-License-Identifier: BSD-3-Clause */
/* find_global.c - whether a name in a module leads to an object, and which one does. */
#include "encoder.h"

int shoal__attribute(PyObject *module, PyObject *dotted, PyObject **ret_found, PyObject **ret_parent)
{
    if (PyUnicode_FindChar(dotted, '.', 0, PyUnicode_GET_LENGTH(dotted), 1) < 0) {
        PyObject *direct = PyObject_GetAttr(module, dotted);
        if (!direct) {
            if (!PyErr_ExceptionMatches(PyExc_AttributeError))
                return -1;
            PyErr_Clear();
            return 0;
        }
        *ret_found = direct;
        *ret_parent = Py_NewRef(module);
        return 1;
    }
    PyObject *parts = NULL;
    PyObject *found = Py_NewRef(module), *parent = NULL;
    PyObject *dot = PyUnicode_FromString(".");
    if (dot)
        parts = PyUnicode_Split(dotted, dot, -1);
    Py_XDECREF(dot);
    int result = parts ? 1 : -1;
    for (Py_ssize_t i = 0; result == 1 && i < PyList_GET_SIZE(parts); i++) {
        Py_XDECREF(parent);
        parent = found;
        found = PyObject_GetAttr(parent, PyList_GET_ITEM(parts, i));
        if (!found) {
            result = PyErr_ExceptionMatches(PyExc_AttributeError) ? 0 : -1;
            if (result == 0)
                PyErr_Clear();
        }
    }
    Py_XDECREF(parts);
    if (result == 1) {
        *ret_found = found;
        *ret_parent = parent;
        return 1;
    }
    Py_XDECREF(found);
    Py_XDECREF(parent);
    return result;
}

/* Is it there under that name? 1, 0, -1. Whatever a strange module's attributes raise counts as "no". */
static int module_has(PyObject *module, PyObject *dotted, PyObject *obj)
{
    PyObject *found, *parent;
    int there = shoal__attribute(module, dotted, &found, &parent);
    if (there <= 0) {
        PyErr_Clear();
        return 0;
    }
    there = found == obj;
    Py_DECREF(found);
    Py_DECREF(parent);
    return there;
}

/* Many modules have to be asked, most say no: without an attribute error where the module's dict tells. */
static bool may_have(struct shoal_pickle_state *state, PyObject *module, PyObject *dotted)
{
    if (!PyModule_CheckExact(module) || PyUnicode_FindChar(dotted, '.', 0, PyUnicode_GET_LENGTH(dotted), 1) >= 0)
        return true;
    PyObject *dict = PyModule_GetDict(module); /* borrowed */
    bool may = PyDict_GetItemWithError(dict, dotted) || PyDict_GetItemWithError(dict, state->names.getattr);
    if (PyErr_Occurred()) {
        PyErr_Clear();
        return true;
    }
    return may;
}

/* Names that only the compiler gives: nothing is found under them. */
static bool is_no_attribute(PyObject *dotted)
{
    Py_ssize_t length = PyUnicode_GET_LENGTH(dotted);
    return length > 0 && PyUnicode_READ_CHAR(dotted, length - 1) == '>' &&
           PyUnicode_FindChar(dotted, '<', 0, length, -1) >= 0;
}

/* The first module that has it, or NULL without an exception. What is no module stands in sys.modules as well, such as
 * a lazy stand-in of a package: no other process need have it, so what can go by value is not looked for there. */
static PyObject *search_modules(struct shoal_pickle_state *state, PyObject *obj, PyObject *dotted)
{
    if (is_no_attribute(dotted) || PyUnicode_Contains(dotted, state->names.locals) == 1)
        return NULL;
    PyObject *modules = PyImport_GetModuleDict(); /* borrowed */
    PyObject *snapshot = modules && PyDict_Check(modules) ? PyDict_Copy(modules) : NULL;
    if (!snapshot)
        return NULL;
    bool modules_only = PyFunction_Check(obj) || PyType_Check(obj);
    Py_ssize_t position = 0;
    PyObject *name, *module, *found = NULL;
    while (!found && PyDict_Next(snapshot, &position, &name, &module)) {
        if (module == Py_None || (modules_only && !PyModule_Check(module)) || !PyUnicode_Check(name) ||
            PyUnicode_Compare(name, state->names.main) == 0 ||
            PyUnicode_CompareWithASCIIString(name, "__mp_main__") == 0)
            continue;
        if (may_have(state, module, dotted) && module_has(module, dotted, obj))
            found = Py_NewRef(name);
    }
    Py_DECREF(snapshot);
    return found;
}

PyObject *shoal__whichmodule(struct shoal_pickle_state *state, PyObject *obj, PyObject *dotted)
{
    PyObject *name = PyObject_GetAttr(obj, state->names.module);
    if (name && name != Py_None)
        return name;
    if (!name && !PyErr_ExceptionMatches(PyExc_AttributeError))
        return NULL;
    PyErr_Clear();
    Py_XDECREF(name);
    name = search_modules(state, obj, dotted);
    if (!name && !PyErr_Occurred())
        name = Py_NewRef(state->names.main);
    return name;
}

PyObject *shoal__own_name(struct shoal_pickle_state *state, PyObject *obj)
{
    PyObject *name = PyObject_GetAttr(obj, state->names.qualname);
    if (name || !PyErr_ExceptionMatches(PyExc_AttributeError))
        return name;
    PyErr_Clear();
    return PyObject_GetAttr(obj, state->names.name);
}

int shoal__is_registered(struct shoal_pickle_state *state, PyObject *module_name)
{
    PyObject *registered = state->writer.by_value_modules;
    if (PySet_GET_SIZE(registered) == 0)
        return 0;
    PyObject *name = Py_NewRef(module_name);
    int found;
    while ((found = PySet_Contains(registered, name)) == 0) {
        Py_ssize_t dot = PyUnicode_FindChar(name, '.', 0, PyUnicode_GET_LENGTH(name), -1);
        if (dot < 0)
            break;
        Py_SETREF(name, PyUnicode_Substring(name, 0, dot));
        if (!name)
            return -1;
    }
    Py_DECREF(name);
    return found;
}

static int leads_home(struct shoal_encoder *e, PyObject *obj, PyObject *name, PyObject *module_name)
{
    if (!PyUnicode_Check(module_name) || PyUnicode_Compare(module_name, e->state->names.main) == 0)
        return 0;
    int registered = shoal__is_registered(e->state, module_name);
    if (registered != 0)
        return registered < 0 ? -1 : 0;
    PyObject *module = PyDict_GetItemWithError(PyImport_GetModuleDict(), module_name); /* borrowed */
    if (!module)
        return PyErr_Occurred() ? -1 : 0;
    Py_INCREF(module); /* a name that is no exact str may run code when it is looked up */
    int there = 0;
    if (PyModule_CheckExact(module)) { /* most are: no need to split and to ask */
        there = PyDict_GetItemWithError(PyModule_GetDict(module), name) == obj;
        PyErr_Clear();
    }
    if (!there) {
        int local = PyUnicode_Contains(name, e->state->names.locals);
        there = local != 0 ? (local < 0 ? -1 : 0) : module_has(module, name, obj);
    }
    Py_DECREF(module);
    return there;
}

int shoal__find_home(struct shoal_encoder *e, PyObject *obj, PyObject *name, PyObject **ret_module_name)
{
    *ret_module_name = NULL;
    if (!name)
        return -1;
    if (!PyUnicode_Check(name))
        return 0;
    *ret_module_name = shoal__whichmodule(e->state, obj, name);
    return *ret_module_name ? leads_home(e, obj, name, *ret_module_name) : -1;
}

int shoal__is_importable(struct shoal_encoder *e, PyObject *obj)
{
    PyObject *module_name, *name = shoal__own_name(e->state, obj);
    int result = shoal__find_home(e, obj, name, &module_name);
    Py_XDECREF(module_name);
    Py_XDECREF(name);
    return result;
}

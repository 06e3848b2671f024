/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * class_keywords.c - what is seen of definitions and forks as they happen.
 *
 * A class does not keep the keyword arguments that its metaclass or a base's __init_subclass__ has used up, and without
 * them its hooks cannot be run again. The only place that sees them is builtins.__build_class__, which every class
 * statement calls: ours stands in for it, calls the one that was there, and keeps the keyword arguments of classes that
 * have any besides `metaclass`, as long as the class lives. It costs other definitions one call in C. What was defined
 * before Shoal was imported, or by calling a metaclass, is not seen.
 */
#include "class_making.h"

PyObject *shoal__class_keywords(struct shoal_pickle_state *state, PyObject *class)
{
    PyObject *both = shoal__find_address(state->classes.defined_with, class); /* borrowed: (weakref, dict) */
    PyErr_Clear();
    return both && shoal__leads_to_class(PyTuple_GET_ITEM(both, 0), class) ? PyTuple_GET_ITEM(both, 1) : NULL;
}

/* `type` itself takes none, and object.__init_subclass__ does not: a function that stood for the metaclass had them. */
static bool may_take_keywords(const struct shoal_state_classes *c, PyTypeObject *class)
{
    if (!Py_IS_TYPE(class, &PyType_Type))
        return true;
    for (Py_ssize_t i = 1; i < PyTuple_GET_SIZE(class->tp_mro); i++) {
        PyTypeObject *base = (PyTypeObject *)PyTuple_GET_ITEM(class->tp_mro, i);
        if (_PyType_Lookup(base, c->init_subclass) != c->no_init_subclass)
            return true;
    }
    return false;
}

static int remember_keywords(struct shoal_state_classes *c, PyObject *class, PyObject *const *values, PyObject *names)
{
    PyObject *keywords = PyDict_New();
    Py_ssize_t n = keywords ? PyTuple_GET_SIZE(names) : 0;
    int result = keywords ? 0 : -1;
    for (Py_ssize_t i = 0; result == 0 && i < n; i++)
        if (PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, i), "metaclass") != 0)
            result = PyDict_SetItem(keywords, PyTuple_GET_ITEM(names, i), values[i]);
    if (result == 0 && PyDict_GET_SIZE(keywords) > 0) {
        /* The weakref's entry leads to the tuple, and the tuple to the weakref, until the class dies. */
        PyObject *both = PyTuple_New(2);
        PyObject *reference = both ? shoal__class_watch(c, class, both) : NULL;
        if (reference) {
            PyTuple_SET_ITEM(both, 0, reference); /* steals */
            PyTuple_SET_ITEM(both, 1, Py_NewRef(keywords));
            result = shoal__put_address(c->defined_with, class, both);
        } else {
            result = -1;
        }
        Py_XDECREF(both);
    }
    Py_XDECREF(keywords);
    return result;
}

static PyObject *build_class(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    struct shoal_pickle_state *state = shoal_pickle_state_of_function(self);
    if (!state)
        return NULL;
    PyObject *class = PyObject_Vectorcall(state->classes.build_class, args, (size_t)nargs, names);
    if (class && names && PyTuple_GET_SIZE(names) > 0 && PyType_Check(class) &&
        may_take_keywords(&state->classes, (PyTypeObject *)class) &&
        remember_keywords(&state->classes, class, args + PyVectorcall_NARGS((size_t)nargs), names) < 0)
        PyErr_Clear(); /* no memory: the class is more important */
    return class;
}

/* After a fork the child has copies of its parent's classes. */
static PyObject *after_fork(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    struct shoal_pickle_state *state = shoal_pickle_state_of_function(self);
    if (!state)
        return NULL;
    state->fork_epoch++;
    shoal__makings_after_fork(state);
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"_build_class", (PyCFunction)(void (*)(void))build_class, METH_FASTCALL | METH_KEYWORDS,
     "Makes a class and remembers its keyword arguments: stands for builtins.__build_class__."},
    {"_after_fork", after_fork, METH_NOARGS, "Called in a child."},
    {NULL, NULL, 0, NULL},
};

/* What the interpreter is to call: at each class statement, and in each child. */
static int install(PyObject *module)
{
    PyObject *ours = PyObject_GetAttrString(module, "_build_class");
    PyObject *builtins = PyImport_ImportModule("builtins");
    int result = ours && builtins ? PyObject_SetAttrString(builtins, "__build_class__", ours) : -1;
    Py_XDECREF(builtins);
    Py_XDECREF(ours);
    PyObject *register_at_fork = result == 0 ? shoal_pickle__import("os", "register_at_fork") : NULL;
    PyObject *after = register_at_fork ? PyObject_GetAttrString(module, "_after_fork") : NULL;
    PyObject *arguments = PyTuple_New(0);
    PyObject *keywords = after ? Py_BuildValue("{sO}", "after_in_child", after) : NULL;
    PyObject *none = arguments && keywords ? PyObject_Call(register_at_fork, arguments, keywords) : NULL;
    Py_XDECREF(keywords);
    Py_XDECREF(arguments);
    Py_XDECREF(after);
    Py_XDECREF(register_at_fork);
    Py_XDECREF(none);
    return none ? 0 : -1;
}

int shoal__class_keywords_init(struct shoal_pickle_state *state, PyObject *module)
{
    state->classes.build_class = shoal_pickle__import("builtins", "__build_class__");
    if (!state->classes.build_class || shoal_pickle__add_functions(module, functions) < 0)
        return -1;
    return install(module);
}

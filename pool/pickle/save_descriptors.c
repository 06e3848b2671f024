/* SPDX-License-Identifier: BSD-3-Clause */
/* save_descriptors.c - what is found in classes: properties, wrapped functions, C's own descriptors, bound methods. */
#include "special.h"

int shoal__save_made(struct shoal_encoder *e, PyObject *callable, PyObject *arguments, PyObject *obj)
{
    PyObject *value = arguments ? PyTuple_Pack(2, callable, arguments) : NULL;
    int result = value ? shoal__save_reduced(e, value, obj) : -1;
    Py_XDECREF(value);
    Py_XDECREF(arguments);
    return result < 0 ? -1 : 1;
}

int shoal__save_property(struct shoal_encoder *e, PyObject *obj, const struct shoal_special_type *Py_UNUSED(kind))
{
    static const char *const parts[] = {"fget", "fset", "fdel", "__doc__"};
    PyObject *arguments = PyTuple_New(4);
    for (int i = 0; arguments && i < 4; i++) {
        PyObject *part = PyObject_GetAttrString(obj, parts[i]);
        if (part)
            PyTuple_SET_ITEM(arguments, i, part);
        else
            Py_CLEAR(arguments);
    }
    return shoal__save_made(e, (PyObject *)&PyProperty_Type, arguments, obj);
}

/* Is it what the wrapper takes from the function by itself when it is made? */
static int is_the_functions(PyObject *function, PyObject *name, PyObject *value)
{
    PyObject *own = PyObject_GetAttr(function, name);
    if (!own) {
        PyErr_Clear();
        return 0;
    }
    Py_DECREF(own); /* compared only */
    return own == value;
}

/* The attributes that a classmethod or staticmethod has of its own: a new dict; NULL, perhaps without an exception. */
static PyObject *own_attributes(PyObject *obj, PyObject *function)
{
    PyObject *dict = PyObject_GenericGetDict(obj, NULL);
    if (!dict) {
        PyErr_Clear(); /* it has none */
        return NULL;
    }
    PyObject *own = PyDict_Copy(dict), *name, *value;
    Py_DECREF(dict);
    PyObject *names = own ? PyDict_Keys(own) : NULL;
    for (Py_ssize_t i = 0; names && i < PyList_GET_SIZE(names); i++) {
        name = PyList_GET_ITEM(names, i);
        value = PyDict_GetItemWithError(own, name); /* borrowed */
        bool known = value && PyUnicode_Check(name) && is_the_functions(function, name, value);
        if (known && PyDict_DelItem(own, name) < 0)
            break;
    }
    Py_XDECREF(names);
    if (PyErr_Occurred() || (own && PyDict_GET_SIZE(own) == 0))
        Py_CLEAR(own);
    return own;
}

int shoal__save_wrapped(struct shoal_encoder *e, PyObject *obj, const struct shoal_special_type *Py_UNUSED(kind))
{
    PyObject *function = PyObject_GetAttrString(obj, "__func__");
    PyObject *own = function ? own_attributes(obj, function) : NULL;
    PyObject *value = NULL;
    if (own)
        value = Py_BuildValue("(O(O)O)", (PyObject *)Py_TYPE(obj), function, own);
    else if (!PyErr_Occurred())
        value = Py_BuildValue("(O(O))", (PyObject *)Py_TYPE(obj), function);
    int result = value ? shoal__save_reduced(e, value, obj) : -1;
    Py_XDECREF(value);
    Py_XDECREF(own);
    Py_XDECREF(function);
    return result < 0 ? -1 : 1;
}

/* Found in the class's own dict: getattr() would ask the metaclass first, which has a __dict__ of its own. */
int shoal__save_own_descriptor(struct shoal_encoder *e, PyObject *obj, const struct shoal_special_type *Py_UNUSED(kind))
{
    PyObject *class = (PyObject *)PyDescr_TYPE(obj), *name = PyDescr_NAME(obj);
    PyObject *direct = PyObject_GetAttr(class, name);
    if (!direct)
        PyErr_Clear();
    Py_XDECREF(direct); /* compared only */
    if (direct == obj)
        return shoal__save_made(e, e->state->shared.getattr, PyTuple_Pack(2, class, name), obj);
    return shoal__save_rebuilt(e, REBUILD_DESCRIPTOR, PyTuple_Pack(2, class, name), obj) < 0 ? -1 : 1;
}

/* Is it the attribute of its object that has the function's name? Then pickle's own way is right. 1, 0, -1. */
static int is_attribute(struct shoal_encoder *e, PyObject *self, PyObject *function)
{
    PyObject *name = PyObject_GetAttr(function, e->state->names.name);
    PyObject *found = NULL;
    if (name && PyUnicode_Check(name) && (PyType_Check(self) || _PyType_Lookup(Py_TYPE(self), name)))
        found = PyObject_GetAttr(self, name);
    Py_XDECREF(name);
    if (!found) {
        if (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_Exception))
            return -1;
        PyErr_Clear();
        return 0;
    }
    int same = PyMethod_Check(found) && PyMethod_GET_FUNCTION(found) == function && PyMethod_GET_SELF(found) == self;
    Py_DECREF(found);
    return same;
}

int shoal__save_method(struct shoal_encoder *e, PyObject *obj, const struct shoal_special_type *Py_UNUSED(kind))
{
    PyObject *self = PyMethod_GET_SELF(obj), *function = PyMethod_GET_FUNCTION(obj);
    int usual = is_attribute(e, self, function);
    if (usual != 0)
        return usual < 0 ? -1 : 0;
    return shoal__save_made(e, (PyObject *)&PyMethod_Type, PyTuple_Pack(2, function, self), obj);
}

/* Asked like another object, it would answer for the object that it stands for. */
int shoal__save_super(struct shoal_encoder *e, PyObject *obj, const struct shoal_special_type *Py_UNUSED(kind))
{
    PyObject *class = PyObject_GetAttrString(obj, "__thisclass__");
    PyObject *self = class ? PyObject_GetAttrString(obj, "__self__") : NULL;
    PyObject *arguments = NULL;
    if (self)
        arguments = self == Py_None ? PyTuple_Pack(1, class) : PyTuple_Pack(2, class, self);
    Py_XDECREF(self);
    Py_XDECREF(class);
    return shoal__save_made(e, (PyObject *)&PySuper_Type, arguments, obj);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * save_module.c - modules: those that can be imported by name, others by value.
 *
 * A module by value is made around the namespace that functions of its globals have in this stream, whichever of them
 * comes first: what such a function sets is seen in the module. It carries all of its attributes, as any of them may be
 * asked for; so does a module that is registered to travel by value, or whose package is.
 */
#include "dict_items.h"

static int save_attributes(struct dict_items *items, PyObject *module, PyObject *attributes)
{
    struct shoal_encoder *e = items->e;
    PyObject *key, *value;
    Py_ssize_t position = 0;
    while (PyDict_Next(attributes, &position, &key, &value)) { /* a copy: nobody else changes it */
        if (PyUnicode_Check(key) && PyUnicode_Compare(key, e->state->names.builtins) == 0)
            continue; /* the reader has its own */
        if (dict_items_add(items, key, value) < 0) {
            shoal__path_step(e, "value", attributes, key);
            shoal__path_step(e, "module", module, NULL);
            return -1;
        }
    }
    return dict_items_end(items);
}

static int save_contents(struct shoal_encoder *e, PyObject *module)
{
    PyObject *attributes = PyDict_Copy(PyModule_GetDict(module));
    if (!attributes)
        return -1;
    struct dict_items items = {.e = e};
    int result = save_attributes(&items, module, attributes);
    Py_DECREF(attributes);
    return result;
}

/* Without a memo, everything is written into the first step. */
static int save_first_step(struct shoal_encoder *e, PyObject *module)
{
    if (!e->fast)
        return shoal__save_namespace_of(e, PyModule_GetDict(module), false);
    return shoal__empty_dict(e) < 0 ? -1 : save_contents(e, module);
}

/* _module(name, namespace[, class]), then _fill_module(module, items): see there why these come together */
static int save_by_value(struct shoal_encoder *e, PyObject *module, PyObject *name)
{
    bool plain = PyModule_CheckExact(module);
    int n = plain ? 2 : 3;
    if (shoal__save_rebuilder(e, REBUILD_MODULE) < 0 || shoal__begin_tuple(e, n) < 0 || shoal__save(e, name) < 0 ||
        save_first_step(e, module) < 0 || (!plain && shoal__save(e, (PyObject *)Py_TYPE(module)) < 0) ||
        shoal__end_tuple(e, n) < 0 || shoal__op(e, OP_REDUCE) < 0 || shoal__put(e, module) < 0)
        return -1;
    if (e->fast)
        return 0;
    if (shoal__save_rebuilder(e, REBUILD_FILL_MODULE) < 0 || shoal__begin_tuple(e, 2) < 0 ||
        shoal__get_index(e, shoal__find(e, module)) < 0 || shoal__empty_dict(e) < 0 || save_contents(e, module) < 0 ||
        shoal__end_tuple(e, 2) < 0 || shoal__op(e, OP_REDUCE) < 0)
        return -1;
    return shoal__op(e, OP_POP);
}

/* Where the stream names Shoal anyway, by our own function, which is faster; otherwise so that it need not be there. */
static int save_by_name(struct shoal_encoder *e, PyObject *module, PyObject *name)
{
    if (e->by_value > 0) {
        if (shoal__save_rebuilder(e, REBUILD_IMPORT) < 0 || shoal__begin_tuple(e, 1) < 0 ||
            shoal__save_constant(e, name) < 0 || shoal__end_tuple(e, 1) < 0 || shoal__op(e, OP_REDUCE) < 0)
            return -1;
        return shoal__put(e, module);
    }
    PyObject *value = Py_BuildValue("(O(O))", e->state->shared.import_module, name);
    int result = value ? shoal__save_reduced(e, value, module) : -1;
    Py_XDECREF(value);
    return result;
}

/* New reference to the name in sys.modules: some modules of C call themselves by another one (_io by "io"). */
static PyObject *name_of(struct shoal_encoder *e, PyObject *module)
{
    PyObject *name = PyModule_GetNameObject(module);
    if (!name) {
        if (PyErr_ExceptionMatches(PyExc_SystemError))
            PyErr_SetString(e->state->shared.pickling_error,
                            "cannot pickle a nameless module: its __name__ is no string");
        return NULL;
    }
    PyObject *modules = PyImport_GetModuleDict();
    if (PyDict_GetItemWithError(modules, name) == module)
        return name;
    PyObject *spec = PyDict_GetItemWithError(PyModule_GetDict(module), e->state->names.spec); /* borrowed */
    PyObject *other = spec && spec != Py_None ? PyObject_GetAttrString(spec, "name") : NULL;
    PyErr_Clear();
    if (other && PyUnicode_CheckExact(other) && PyDict_GetItemWithError(modules, other) == module) {
        Py_DECREF(name);
        return other;
    }
    Py_XDECREF(other);
    return name;
}

int shoal__save_module(struct shoal_encoder *e, PyObject *module)
{
    PyObject *name = name_of(e, module);
    if (!name)
        return -1;
    PyObject *imported = PyDict_GetItemWithError(PyImport_GetModuleDict(), name); /* borrowed, compared only */
    int result, registered = shoal__is_registered(e->state, name);
    if (registered < 0 || (!imported && PyErr_Occurred()))
        result = -1;
    else if (imported == module && !registered)
        result = save_by_name(e, module, name);
    else {
        e->by_value++;
        result = save_by_value(e, module, name);
        e->by_value--;
    }
    Py_DECREF(name);
    return result;
}

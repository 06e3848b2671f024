/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * dispatch_table.c - the reducer that somebody has registered for a type.
 *
 * In this order, the first that has the type wins:
 *
 *   the pool's handles                  in a pool
 *   the pickler's own dispatch_table    instead of all that follows, as pickle has it
 *   ForkingPickler's reducers           in a pool
 *   copyreg.dispatch_table
 *
 * All are live: what is registered while a dump is under way counts from then on. The usual own table is a ChainMap
 * over copyreg's (multiprocessing, cloudpickle and their heirs make such); its dicts are asked directly, since its
 * __getitem__ is Python and would be called for every object (0.5 us).
 */
#include "encoder.h"

/* New reference; NULL without an exception if it is not in there. */
static PyObject *look_up(PyObject *table, PyObject *type)
{
    PyObject *found;
    if (PyDict_CheckExact(table)) {
        found = PyDict_GetItemWithError(table, type); /* borrowed */
        return Py_XNewRef(found);
    }
    found = PyObject_GetItem(table, type);
    if (!found && PyErr_ExceptionMatches(PyExc_KeyError))
        PyErr_Clear();
    return found;
}

/*
 * multiprocessing itself registers reducers for partial objects and for methods, from times when pickle had none. They
 * lose the attributes of a partial object, and methods whose function has another name than their attribute.
 */
static bool is_outdated(PyObject *reducer)
{
    static const char *const names[] = {"_reduce_partial", "_reduce_method", "_reduce_method_descriptor"};
    if (!PyFunction_Check(reducer))
        return false;
    PyFunctionObject *function = (PyFunctionObject *)reducer;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (PyUnicode_CompareWithASCIIString(function->func_name, names[i]) == 0)
            return function->func_module && PyUnicode_Check(function->func_module) &&
                   PyUnicode_CompareWithASCIIString(function->func_module, "multiprocessing.reduction") == 0;
    return false;
}

/* ChainMap.maps, without `except`, which may be NULL. */
static PyObject *look_up_chain(PyObject *maps, PyObject *type, PyObject *except)
{
    PyObject *found = NULL;
    for (Py_ssize_t i = 0; !found && i < PyList_GET_SIZE(maps); i++) {
        PyObject *table = PyList_GET_ITEM(maps, i);
        if (table == except)
            continue;
        Py_INCREF(table); /* comparing types may run a metaclass's code */
        found = look_up(table, type);
        Py_DECREF(table);
        if (!found && PyErr_Occurred())
            return NULL;
    }
    return found;
}

int shoal__set_dispatch_table(struct shoal_encoder_hooks *hooks, const struct shoal_pickle_state *state,
                              PyObject *table)
{
    hooks->dispatch_table = table;
    hooks->dispatch_maps = NULL;
    if (!table || !Py_IS_TYPE(table, (PyTypeObject *)state->shared.chain_map))
        return 0;
    PyObject *maps = PyObject_GetAttrString(table, "maps");
    if (!maps)
        return -1;
    if (PyList_CheckExact(maps))
        hooks->dispatch_maps = Py_NewRef(maps);
    Py_DECREF(maps);
    return 0;
}

PyObject *shoal__find_reducer(struct shoal_encoder *e, PyObject *type)
{
    if (type == e->hooks.handle_type)
        return Py_NewRef(e->hooks.handle_reducer);
    if (e->hooks.dispatch_maps)
        return look_up_chain(e->hooks.dispatch_maps, type, NULL);
    if (e->hooks.dispatch_table)
        return look_up(e->hooks.dispatch_table, type);
    if (e->hooks.reducers) {
        PyObject *found = look_up(e->hooks.reducers, type);
        if (!found && PyErr_Occurred())
            return NULL;
        if (found && !is_outdated(found)) {
            if (!e->hooks.own_reducers_only)
                return found;
            Py_DECREF(found);
            PyErr_Format(e->state->shared.pickling_error, "%R has a reducer of multiprocessing", type);
            return NULL;
        }
        Py_XDECREF(found);
    }
    return look_up(e->state->shared.dispatch_table, type);
}

PyObject *shoal__find_own_reducer(struct shoal_encoder *e, PyObject *type)
{
    if (e->hooks.dispatch_maps)
        return look_up_chain(e->hooks.dispatch_maps, type, e->state->shared.dispatch_table);
    if (e->hooks.dispatch_table && e->hooks.dispatch_table != e->state->shared.dispatch_table)
        return look_up(e->hooks.dispatch_table, type);
    return NULL;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* save_module.c - modules: by name, or by value with what is in them. */
#include "encoder.h"

/* The namespace of a module that travels by value is that of its functions: enter it under the dict's shadow. */
static int enter_namespace(struct shoal_encoder *e, PyObject *module, PyObject *dict)
{
    if (e->fast)
        return 0;
    PyObject *value = Py_BuildValue("(O(OO))", e->state->shared.getattr, module, e->state->names.dict);
    int result = value ? shoal__save_reduced(e, value, NULL) : -1;
    Py_XDECREF(value);
    uintptr_t key = (uintptr_t)dict | SHOAL_MEMO_SHADOW;
    if (result == 0 && shoal_memo_find(&e->memo, key) < 0)
        result = shoal__put_key(e, key);
    return result < 0 ? -1 : shoal__op(e, OP_POP);
}

static int save_module_by_value(struct shoal_encoder *e, PyObject *module, PyObject *name)
{
    PyObject *dict = PyModule_GetDict(module); /* borrowed */
    if (shoal__save_rebuilt(e, REBUILD_MODULE, PyTuple_Pack(1, name), module) < 0 ||
        enter_namespace(e, module, dict) < 0)
        return -1;
    PyObject *state = PyDict_Copy(dict);
    int result = state ? 0 : -1;
    if (result == 0 && PyDict_Contains(state, e->state->names.builtins) == 1)
        result = PyDict_DelItem(state, e->state->names.builtins);
    if (result == 0)
        result = shoal__save(e, state);
    if (result < 0)
        shoal__path_step(e, "module", module, NULL);
    Py_XDECREF(state);
    return result < 0 ? -1 : shoal__op(e, OP_BUILD);
}

int shoal__save_module(struct shoal_encoder *e, PyObject *module)
{
    PyObject *name = PyModule_GetNameObject(module);
    if (!name)
        return -1;
    PyObject *imported = PyDict_GetItemWithError(PyImport_GetModuleDict(), name); /* borrowed, compared only */
    int registered = PySet_GET_SIZE(e->state->writer.by_value_modules) > 0
                         ? PySet_Contains(e->state->writer.by_value_modules, name)
                         : 0;
    int result;
    if (registered < 0 || (!imported && PyErr_Occurred()))
        result = -1;
    else if (imported == module && !registered)
        result = shoal__save_rebuilt(e, REBUILD_IMPORT, PyTuple_Pack(1, name), module);
    else
        result = save_module_by_value(e, module, name);
    Py_DECREF(name);
    return result;
}

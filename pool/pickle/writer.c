/* SPDX-License-Identifier: BSD-3-Clause */
/* writer.c - sets up the pickler's section of the state, its types and functions. */
#include "class_record.h"
#include "pickler_type.h"

static const char *const rebuilder_names[REBUILDER_COUNT] = {
    [REBUILD_FUNCTION] = "_function",
    [REBUILD_CODE] = "_code",
    [REBUILD_CELL] = "_cell",
    [REBUILD_FILL_CELL] = "_fill_cell",
    [REBUILD_CLASS] = "_class",
    [REBUILD_FILL_CLASS] = "_fill_class",
    [REBUILD_ENUM] = "_enum",
    [REBUILD_MODULE] = "_module",
    [REBUILD_FILL_MODULE] = "_fill_module",
    [REBUILD_IMPORT] = "_import",
    [REBUILD_VIEW] = "_view",
    [REBUILD_DESCRIPTOR] = "_descriptor",
    [REBUILD_CONTENT] = "_content",
    [REBUILD_FIELD] = "_field",
    [REBUILD_PUT_ITEMS] = "_put_items",
    [REBUILD_DATACLASS_PARAMS] = "_dataclass_params",
};

static int add_place(PyObject *found, PyObject *type, const char *module, PyObject *name)
{
    PyObject *module_name = PyUnicode_InternFromString(module);
    PyObject *place = module_name ? PyTuple_Pack(2, module_name, name) : NULL;
    int result = place ? PyDict_SetItem(found, type, place) : -1;
    Py_XDECREF(place);
    Py_XDECREF(module_name);
    return result;
}

/* The types that this module has a name for, and that cannot be found under their own names. */
static int list_builtin_types(PyObject *found, const char *module_name)
{
    PyObject *module = PyImport_ImportModule(module_name);
    if (!module)
        return -1;
    PyObject *name, *value;
    Py_ssize_t position = 0;
    int result = 0;
    while (result == 0 && PyDict_Next(PyModule_GetDict(module), &position, &name, &value))
        if (PyType_CheckExact(value) && !PyDict_Contains(found, value))
            result = add_place(found, value, module_name, name);
    Py_DECREF(module);
    return result;
}

static int list_all_builtin_types(PyObject *found)
{
#if PY_VERSION_HEX >= 0x030D0000
    /* In `types`, but not in its dict: made when it is asked for. */
    PyObject *capsule = PyUnicode_InternFromString("CapsuleType");
    int added = capsule ? add_place(found, (PyObject *)&PyCapsule_Type, "types", capsule) : -1;
    Py_XDECREF(capsule);
    if (added < 0)
        return -1;
#endif
    return list_builtin_types(found, "types") < 0 ? -1 : list_builtin_types(found, "_collections_abc");
}

/* The code of functools.singledispatch's inner function `wrapper`: new reference, or NULL with an exception. */
static PyObject *find_single_dispatch_code(void)
{
    PyObject *maker = shoal_pickle__import("functools", "singledispatch");
    PyObject *code = maker && PyFunction_Check(maker) ? PyFunction_GET_CODE(maker) : NULL; /* borrowed from maker */
    PyObject *constants = code ? PyObject_GetAttrString(code, "co_consts") : NULL;
    PyObject *found = NULL;
    for (Py_ssize_t i = 0; constants && !found && i < PyTuple_GET_SIZE(constants); i++) {
        PyObject *constant = PyTuple_GET_ITEM(constants, i);
        if (PyCode_Check(constant) &&
            PyUnicode_CompareWithASCIIString(((PyCodeObject *)constant)->co_name, "wrapper") == 0)
            found = Py_NewRef(constant);
    }
    Py_XDECREF(constants);
    Py_XDECREF(maker);
    return found || PyErr_Occurred() ? found : Py_NewRef(Py_None); /* another functools: they go as functions do */
}

static int make_objects(struct shoal_state_writer *writer)
{
    writer->newobj_function = shoal_pickle__import("copyreg", "__newobj__");
    writer->slotnames = shoal_pickle__import("copyreg", "_slotnames");
    writer->object_reduce_ex = PyObject_GetAttrString((PyObject *)&PyBaseObject_Type, "__reduce_ex__");
    writer->object_reduce = PyObject_GetAttrString((PyObject *)&PyBaseObject_Type, "__reduce__");
    writer->by_value_modules = PySet_New(NULL);
    writer->builtin_types = PyDict_New();
    writer->single_dispatch_code = find_single_dispatch_code();
    writer->rebuild_module = PyUnicode_InternFromString(SHOAL_REBUILD);
    if (!writer->newobj_function || !writer->slotnames || !writer->object_reduce_ex || !writer->object_reduce ||
        !writer->by_value_modules || !writer->builtin_types || !writer->single_dispatch_code ||
        !writer->rebuild_module)
        return -1;
    for (int i = 0; i < REBUILDER_COUNT; i++)
        if (!(writer->rebuilder_names[i] = PyUnicode_InternFromString(rebuilder_names[i])))
            return -1;
#if PY_VERSION_HEX >= 0x030B0000
    writer->object_getstate = PyObject_GetAttrString((PyObject *)&PyBaseObject_Type, "__getstate__");
    if (!writer->object_getstate)
        return -1;
#endif
    return list_all_builtin_types(writer->builtin_types);
}

int shoal_pickle__writer_init(struct shoal_pickle_state *state, PyObject *module)
{
    struct shoal_state_writer *writer = &state->writer;
    if (make_objects(writer) < 0 || shoal__code_facts_init(state) < 0 ||
        shoal__class_records_init(state, module) < 0)
        return -1;
    writer->pickler_type = PyType_FromModuleAndSpec(module, &shoal__pickler_spec, NULL);
    writer->memo_proxy_type = PyType_FromModuleAndSpec(module, &shoal__memo_proxy_spec, NULL);
    if (!writer->pickler_type || !writer->memo_proxy_type ||
        PyObject_SetAttrString(module, "Pickler", writer->pickler_type) < 0 ||
        PyObject_SetAttrString(module, "_by_value_modules", writer->by_value_modules) < 0)
        return -1;
    if (shoal_pickle__add_functions(module, shoal__dump_functions) < 0 ||
        shoal_pickle__add_functions(module, shoal__pickler_functions) < 0 ||
        shoal_pickle__add_functions(module, shoal__explain_functions) < 0)
        return -1;
    if (shoal_pickle__add_functions(module, shoal__rebuild_class_functions) < 0 ||
        shoal_pickle__add_functions(module, shoal__rebuild_dataclass_functions) < 0)
        return -1;
    return shoal_pickle__add_functions(module, shoal__rebuild_functions);
}

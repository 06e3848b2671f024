/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * save_special.c - objects that pickle refuses although they are easily made again: modules, code, cells, descriptors,
 * mapping proxies, dict views, memory views; and the dataclasses module's marks, which must keep their identity.
 */
#include "encoder.h"

/* The second step of these names them again, and they refer to themselves: into the memo, fast mode or not. */
static bool needs_second_step(enum shoal_rebuilder which)
{
    return which == REBUILD_CLASS || which == REBUILD_ENUM;
}

int shoal__save_rebuilt(struct shoal_encoder *e, enum shoal_rebuilder which, PyObject *arguments, PyObject *obj)
{
    if (!arguments)
        return -1;
    int result = -1;
    if (shoal__save_rebuilder(e, which) == 0 && shoal__save(e, arguments) == 0 && shoal__op(e, OP_REDUCE) == 0)
        result = needs_second_step(which) ? shoal__put_key(e, (uintptr_t)obj) : shoal__put(e, obj);
    Py_DECREF(arguments);
    return result;
}

/* callable(*arguments). Steals `arguments`, which may be NULL with an exception set. */
static int save_made(struct shoal_encoder *e, PyObject *callable, PyObject *arguments, PyObject *obj)
{
    PyObject *value = arguments ? PyTuple_Pack(2, callable, arguments) : NULL;
    int result = value ? shoal__save_reduced(e, value, obj) : -1;
    Py_XDECREF(value);
    Py_XDECREF(arguments);
    return result;
}

/* ---- modules ---- */

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
        shoal__path_attribute(e);
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

/* ---- descriptors ---- */

static int save_property(struct shoal_encoder *e, PyObject *obj)
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
    return save_made(e, (PyObject *)&PyProperty_Type, arguments, obj);
}

/* Found in the class's own dict: getattr() would ask the metaclass first, which has a __dict__ of its own. */
static int save_getset(struct shoal_encoder *e, PyObject *obj)
{
    return shoal__save_rebuilt(e, REBUILD_DESCRIPTOR,
                               PyTuple_Pack(2, (PyObject *)PyDescr_TYPE(obj), PyDescr_NAME(obj)), obj);
}

static int save_wrapped(struct shoal_encoder *e, PyObject *obj)
{
    PyObject *function = PyObject_GetAttrString(obj, "__func__");
    PyObject *arguments = function ? PyTuple_Pack(1, function) : NULL;
    Py_XDECREF(function);
    return save_made(e, (PyObject *)Py_TYPE(obj), arguments, obj);
}

/* ---- views ---- */

static int save_mapping_proxy(struct shoal_encoder *e, PyObject *obj)
{
    PyObject *copy = PyDict_New();
    PyObject *arguments = NULL;
    if (copy && PyDict_Update(copy, obj) == 0)
        arguments = PyTuple_Pack(1, copy);
    Py_XDECREF(copy);
    return save_made(e, (PyObject *)&PyDictProxy_Type, arguments, obj);
}

static int save_memory_view(struct shoal_encoder *e, PyObject *obj)
{
    PyObject *bytes = PyObject_CallMethod(obj, "tobytes", NULL);
    PyObject *arguments = bytes ? PyTuple_Pack(1, bytes) : NULL;
    Py_XDECREF(bytes);
    return save_made(e, (PyObject *)&PyBytes_Type, arguments, obj);
}

static int save_dict_view(struct shoal_encoder *e, PyObject *obj)
{
    PyObject *parts = PySequence_List(obj);
    PyObject *arguments = parts ? Py_BuildValue("(sO)", Py_TYPE(obj)->tp_name, parts) : NULL;
    Py_XDECREF(parts);
    return shoal__save_rebuilt(e, REBUILD_VIEW, arguments, obj);
}

static bool is_dict_view(PyTypeObject *type)
{
    return type == &PyDictKeys_Type || type == &PyDictValues_Type || type == &PyDictItems_Type ||
           type == &PyODictKeys_Type || type == &PyODictValues_Type || type == &PyODictItems_Type;
}

/* ---- the dataclasses module's marks: MISSING, KW_ONLY, _FIELD, ... ---- */

static bool may_be_mark(PyTypeObject *type)
{
    return PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE) && (strcmp(type->tp_name, "_MISSING_TYPE") == 0 ||
                                                            strcmp(type->tp_name, "_FIELD_BASE") == 0 ||
                                                            strcmp(type->tp_name, "_KW_ONLY_TYPE") == 0 ||
                                                            strcmp(type->tp_name, "_HAS_DEFAULT_FACTORY_CLASS") == 0);
}

/* 1: written; 0: it is none; -1. */
static int save_mark(struct shoal_encoder *e, PyObject *obj)
{
    PyObject *dataclasses = PyImport_ImportModule("dataclasses");
    if (!dataclasses)
        return -1;
    PyObject *name, *value, *found = NULL;
    Py_ssize_t position = 0;
    while (!found && PyDict_Next(PyModule_GetDict(dataclasses), &position, &name, &value))
        if (value == obj)
            found = Py_NewRef(name);
    Py_DECREF(dataclasses);
    if (!found)
        return 0;
    int result = shoal__save_global(e, obj, found);
    Py_DECREF(found);
    return result < 0 ? -1 : 1;
}

/* ---- what shoal._rebuild can say a reduce value of, in Python ---- */

static bool may_be_described(PyTypeObject *type)
{
    static const char *const names[] = {"_io.TextIOWrapper", "WeakSet", "abstractproperty", "abstractclassmethod",
                                        "abstractstaticmethod"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(type->tp_name, names[i]) == 0)
            return true;
    return false;
}

/* 1: written; 0: it is something else of that name; -1. */
static int save_described(struct shoal_encoder *e, PyObject *obj)
{
    PyObject *describe = shoal__rebuild_helper(&e->state->writer.describe, "_describe");
    PyObject *value = describe ? PyObject_CallOneArg(describe, obj) : NULL;
    int result = -1;
    if (value == Py_None)
        result = 0;
    else if (value)
        result = shoal__save_any_reduce(e, value, obj) < 0 ? -1 : 1;
    Py_XDECREF(value);
    return result;
}

/* ---- type parameters: TypeVar and its kind ---- */

static bool may_be_type_parameter(PyTypeObject *type)
{
    const char *name = strrchr(type->tp_name, '.');
    name = name ? name + 1 : type->tp_name;
    return strcmp(name, "TypeVar") == 0 || strcmp(name, "ParamSpec") == 0 || strcmp(name, "TypeVarTuple") == 0;
}

/* 1: written by value; 0: can be imported, or is none; -1. */
static int save_type_parameter(struct shoal_encoder *e, PyObject *obj)
{
    int importable = shoal__is_importable(e, obj);
    if (importable != 0)
        return importable < 0 ? -1 : 0;
    PyObject *describe = shoal__rebuild_helper(&e->state->writer.describe_parameter, "_describe_type_parameter");
    PyObject *arguments = describe ? PyObject_CallOneArg(describe, obj) : NULL;
    if (arguments == Py_None) {
        Py_DECREF(arguments);
        return 0;
    }
    return shoal__save_rebuilt(e, REBUILD_TYPE_PARAMETER, arguments, obj) < 0 ? -1 : 1;
}

/* A module, unless it is of a kind that says itself how it is made again. */
static bool is_plain_module(const struct shoal_pickle_state *state, PyObject *obj)
{
    PyTypeObject *type = Py_TYPE(obj);
    return type == &PyModule_Type ||
           (PyModule_Check(obj) && type->tp_dictoffset &&
            _PyType_Lookup(type, state->names.reduce_ex) == state->writer.object_reduce_ex &&
            _PyType_Lookup(type, state->names.reduce) == state->writer.object_reduce);
}

int shoal__save_special(struct shoal_encoder *e, PyObject *obj)
{
    PyTypeObject *type = Py_TYPE(obj);
    int result;
    if (is_plain_module(e->state, obj))
        result = shoal__save_module(e, obj);
    else if (type == &PyCode_Type)
        result = shoal__save_code(e, obj);
    else if (type == &PyCell_Type)
        result = shoal__save_cell(e, obj);
    else if (type == &PyProperty_Type)
        result = save_property(e, obj);
    else if (type == &PyClassMethod_Type || type == &PyStaticMethod_Type)
        result = save_wrapped(e, obj);
    else if (type == &PyGetSetDescr_Type)
        result = save_getset(e, obj);
    else if (type == &PyDictProxy_Type)
        result = save_mapping_proxy(e, obj);
    else if (type == &PyMemoryView_Type)
        result = save_memory_view(e, obj);
    else if (is_dict_view(type))
        result = save_dict_view(e, obj);
    else if (may_be_mark(type))
        return save_mark(e, obj);
    else if (may_be_described(type))
        return save_described(e, obj);
    else
        return may_be_type_parameter(type) ? save_type_parameter(e, obj) : 0;
    return result < 0 ? -1 : 1;
}

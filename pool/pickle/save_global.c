/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * save_global.c - things by reference: a module's name and a dotted name in it.
 *
 * A reference is written only after it was followed: it must lead to the very object.
 */
#include "encoder.h"

/* A reference that has been followed. */
struct reference {
    PyObject *module_name;
    PyObject *name;      /* dotted */
    PyObject *last_name; /* after the last dot */
    PyObject *module;
    PyObject *parent;
};

static void reference_clear(struct reference *ref)
{
    Py_CLEAR(ref->module_name);
    Py_CLEAR(ref->name);
    Py_CLEAR(ref->last_name);
    Py_CLEAR(ref->module);
    Py_CLEAR(ref->parent);
}

static int follow(struct shoal_encoder *e, PyObject *obj, struct reference *ref)
{
    PyObject *error = e->state->shared.pickling_error;
    ref->module = shoal_pickle__get_module(e->state, ref->module_name);
    if (!ref->module || !PyModule_Check(ref->module)) { /* not there, or something that the import has to judge */
        PyErr_Clear();
        Py_CLEAR(ref->module);
        PyObject *first = PyImport_ImportModuleLevelObject(ref->module_name, NULL, NULL, NULL, 0);
        if (first) {
            Py_DECREF(first); /* of a dotted name it is the first part, and we want the last */
            ref->module = PyImport_GetModule(ref->module_name);
        }
    }
    if (!ref->module) {
        PyErr_Format(error, "Can't pickle %R: import of module %R failed", obj, ref->module_name);
        return -1;
    }
    PyObject *found;
    int there = shoal__attribute(ref->module, ref->name, &found, &ref->parent);
    if (there <= 0) {
        if (there == 0 || PyErr_ExceptionMatches(PyExc_Exception))
            PyErr_Format(error, "Can't pickle %R: attribute lookup %S on %S failed", obj, ref->name,
                         ref->module_name);
        return -1;
    }
    Py_DECREF(found); /* compared only; its parent is held */
    /* Ours stands for the other one: class_keywords.c. */
    if (found != obj && obj != e->state->classes.build_class) {
        PyErr_Format(error, "Can't pickle %R: it's not the same object as %S.%S", obj, ref->module_name, ref->name);
        return -1;
    }
    Py_ssize_t length = PyUnicode_GET_LENGTH(ref->name);
    Py_ssize_t dot = PyUnicode_FindChar(ref->name, '.', 0, length, -1);
    if (dot < 0) {
        ref->last_name = Py_NewRef(ref->name);
        return 0;
    }
    ref->last_name = PyUnicode_Substring(ref->name, dot + 1, length);
    return ref->last_name ? 0 : -1;
}

static int make_reference(struct shoal_encoder *e, PyObject *obj, PyObject *name, struct reference *ref)
{
    ref->name = name ? Py_NewRef(name) : shoal__own_name(e->state, obj);
    if (!ref->name)
        return -1;
    if (!PyUnicode_Check(ref->name)) {
        PyErr_Format(e->state->shared.pickling_error, "Can't pickle %R: its name is not a string", obj);
        return -1;
    }
    int local = PyUnicode_Contains(ref->name, e->state->names.locals);
    if (local != 0) {
        if (local > 0)
            PyErr_Format(PyExc_AttributeError, "Can't pickle local object %R", ref->name);
        return -1;
    }
    ref->module_name = shoal__whichmodule(e->state, obj, ref->name);
    if (!ref->module_name)
        return -1;
    return follow(e, obj, ref);
}

/* 1: written as an extension code; 0: it has none; -1. */
static int write_extension(struct shoal_encoder *e, PyObject *obj, const struct reference *ref)
{
    if (e->protocol < 2 || PyDict_GET_SIZE(e->state->shared.extension_registry) == 0)
        return 0;
    PyObject *key = PyTuple_Pack(2, ref->module_name, ref->name);
    if (!key)
        return -1;
    PyObject *registered = PyDict_GetItemWithError(e->state->shared.extension_registry, key); /* borrowed */
    Py_DECREF(key);
    if (!registered)
        return PyErr_Occurred() ? -1 : 0;
    long code = PyLong_AsLong(registered);
    if (code <= 0 || code > 0x7fffffffL) {
        if (!PyErr_Occurred())
            PyErr_Format(PyExc_RuntimeError, "Can't pickle %R: extension code %ld is out of range", obj, code);
        return -1;
    }
    uint8_t text[5];
    int size = code <= 0xff ? 1 : code <= 0xffff ? 2 : 4;
    text[0] = size == 1 ? OP_EXT1 : size == 2 ? OP_EXT2 : OP_EXT4;
    shoal__store_le(text + 1, (uint64_t)code, size);
    return shoal__raw(e, text, (size_t)size + 1) < 0 ? -1 : 1;
}

/* Protocols below 3 can be read by Python 2 if they use its names. Replaces module and name (owned by ref). */
static int use_old_names(struct shoal_encoder *e, struct reference *ref)
{
    PyObject *key = PyTuple_Pack(2, ref->module_name, ref->name);
    if (!key)
        return -1;
    PyObject *pair = PyDict_GetItemWithError(e->state->shared.name_3to2, key); /* borrowed */
    Py_DECREF(key);
    if (pair) {
        if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2 || !PyUnicode_Check(PyTuple_GET_ITEM(pair, 0)) ||
            !PyUnicode_Check(PyTuple_GET_ITEM(pair, 1))) {
            PyErr_SetString(PyExc_RuntimeError, "_compat_pickle.REVERSE_NAME_MAPPING values should be pairs of str");
            return -1;
        }
        Py_SETREF(ref->module_name, Py_NewRef(PyTuple_GET_ITEM(pair, 0)));
        Py_SETREF(ref->name, Py_NewRef(PyTuple_GET_ITEM(pair, 1)));
        return 0;
    }
    if (PyErr_Occurred())
        return -1;
    PyObject *module = PyDict_GetItemWithError(e->state->shared.import_3to2, ref->module_name); /* borrowed */
    if (!module)
        return PyErr_Occurred() ? -1 : 0;
    if (!PyUnicode_Check(module)) {
        PyErr_SetString(PyExc_RuntimeError, "_compat_pickle.REVERSE_IMPORT_MAPPING values should be strings");
        return -1;
    }
    Py_SETREF(ref->module_name, Py_NewRef(module));
    return 0;
}

static int write_identifier(struct shoal_encoder *e, PyObject *text, const char *kind)
{
    PyObject *encoded = e->protocol >= 3 ? PyUnicode_AsUTF8String(text) : PyUnicode_AsASCIIString(text);
    if (!encoded) {
        if (PyErr_ExceptionMatches(PyExc_UnicodeEncodeError))
            PyErr_Format(e->state->shared.pickling_error, "can't pickle %s identifier '%S' using pickle protocol %i",
                         kind, text, e->protocol);
        return -1;
    }
    int result = shoal__raw(e, PyBytes_AS_STRING(encoded), (size_t)PyBytes_GET_SIZE(encoded));
    Py_DECREF(encoded);
    return result < 0 ? -1 : shoal__op(e, '\n');
}

static int write_lines(struct shoal_encoder *e, PyObject *module_name, PyObject *name)
{
    if (shoal__op(e, OP_GLOBAL) < 0 || write_identifier(e, module_name, "module") < 0)
        return -1;
    return write_identifier(e, name, "global");
}

static int write_toplevel(struct shoal_encoder *e, struct reference *ref)
{
    if (e->fix_imports && use_old_names(e, ref) < 0)
        return -1;
    return write_lines(e, ref->module_name, ref->name);
}

/* Before protocol 4 a dotted name is a call of getattr. Written as the pickle of this version of Python writes it. */
#if PY_VERSION_HEX >= 0x030D0000
/* getattr(getattr(first, second), third): no parent needs a name of its own */
static int write_nested(struct shoal_encoder *e, struct reference *ref)
{
    PyObject *dot = PyUnicode_FromString(".");
    PyObject *parts = dot ? PyUnicode_Split(ref->name, dot, -1) : NULL;
    Py_XDECREF(dot);
    if (!parts)
        return -1;
    Py_SETREF(ref->name, Py_NewRef(PyList_GET_ITEM(parts, 0)));
    int result = 0;
    for (Py_ssize_t i = 1; result == 0 && i < PyList_GET_SIZE(parts); i++)
        result = shoal__save(e, e->state->shared.getattr) < 0 ? -1 : shoal__begin_tuple(e, 2);
    if (result == 0)
        result = write_toplevel(e, ref);
    for (Py_ssize_t i = 1; result == 0 && i < PyList_GET_SIZE(parts); i++) {
        if (shoal__save(e, PyList_GET_ITEM(parts, i)) < 0 || shoal__end_tuple(e, 2) < 0)
            result = -1;
        else
            result = shoal__op(e, OP_REDUCE);
    }
    Py_DECREF(parts);
    return result;
}
#else /* getattr(parent, last name) */
static int write_nested(struct shoal_encoder *e, struct reference *ref)
{
    PyObject *value = Py_BuildValue("(O(OO))", e->state->shared.getattr, ref->parent, ref->last_name);
    int result = value ? shoal__save_reduced(e, value, NULL) : -1;
    Py_XDECREF(value);
    return result;
}
#endif

/*
 * Within what travels by value, names stand by themselves, without the memo: whether a name is the same object as an
 * equal string (the key of a table of functions, say) is another thing after a load, and depends on who imported what.
 */
static int save_name(struct shoal_encoder *e, PyObject *name)
{
    return e->births || e->by_value ? shoal__save_constant(e, name) : shoal__save(e, name);
}

static int write_reference(struct shoal_encoder *e, struct reference *ref)
{
    bool direct = ref->parent == ref->module;
    if (direct)
        Py_SETREF(ref->name, Py_NewRef(ref->last_name));
    if (e->protocol < 4)
        return direct ? write_toplevel(e, ref) : write_nested(e, ref);
    if (save_name(e, ref->module_name) < 0 || save_name(e, ref->name) < 0)
        return -1;
    return shoal__op(e, OP_STACK_GLOBAL);
}

int shoal__save_global(struct shoal_encoder *e, PyObject *obj, PyObject *name)
{
    struct reference ref = {0};
    int result = make_reference(e, obj, name, &ref);
    if (result == 0)
        result = write_extension(e, obj, &ref);
    if (result == 0 && write_reference(e, &ref) == 0)
        result = shoal__put(e, obj);
    else if (result == 0)
        result = -1;
    reference_clear(&ref);
    return result < 0 ? -1 : 0;
}

int shoal__save_if_importable(struct shoal_encoder *e, PyObject *obj)
{
    PyObject *module_name, *name = shoal__own_name(e->state, obj);
    int result = shoal__find_home(e, obj, name, &module_name);
    if (result > 0 && e->protocol < 4) { /* it has other names there, perhaps */
        result = shoal__save_global(e, obj, NULL) < 0 ? -1 : 1;
    } else if (result > 0) {
        struct reference ref = {.module_name = module_name, .name = name};
        result = write_extension(e, obj, &ref);
        if (result == 0)
            result = shoal__save_named(e, obj, module_name, name) < 0 ? -1 : 1;
    }
    Py_XDECREF(module_name);
    Py_XDECREF(name);
    return result;
}

/* The singletons' types have no name in any module: type(None) and so on. */
static int save_type_of(struct shoal_encoder *e, PyObject *obj, PyObject *singleton)
{
    PyObject *value = Py_BuildValue("(O(O))", (PyObject *)&PyType_Type, singleton);
    int result = value ? shoal__save_reduced(e, value, obj) : -1;
    Py_XDECREF(value);
    return result;
}

int shoal__save_type(struct shoal_encoder *e, PyObject *obj)
{
    if (obj == (PyObject *)Py_TYPE(Py_None))
        return save_type_of(e, obj, Py_None);
    if (obj == (PyObject *)Py_TYPE(Py_NotImplemented))
        return save_type_of(e, obj, Py_NotImplemented);
    if (obj == (PyObject *)Py_TYPE(Py_Ellipsis))
        return save_type_of(e, obj, Py_Ellipsis);
    int written = shoal__save_if_importable(e, obj);
    return written != 0 ? (written < 0 ? -1 : 0) : shoal__save_class(e, obj);
}

int shoal__save_rebuilder(struct shoal_encoder *e, enum shoal_rebuilder which)
{
    PyObject *name = e->state->writer.rebuilder_names[which];
    uintptr_t key = (uintptr_t)name | SHOAL_MEMO_SHADOW;
    int64_t index = shoal_memo_find(&e->memo, key);
    if (index >= 0)
        return shoal__get_index(e, index);
    PyObject *module = e->state->writer.rebuild_module;
    if (e->protocol < 4) {
        if (write_lines(e, module, name) < 0)
            return -1;
    } else if (shoal__save_constant(e, module) < 0 || shoal__save_constant(e, name) < 0 ||
               shoal__op(e, OP_STACK_GLOBAL) < 0) {
        return -1;
    }
    return e->fast ? 0 : shoal__put_key(e, key);
}

int shoal__save_rebuilt(struct shoal_encoder *e, enum shoal_rebuilder which, PyObject *arguments, PyObject *obj)
{
    if (!arguments)
        return -1;
    int result = -1;
    if (shoal__save_rebuilder(e, which) < 0)
        result = -1;
    else if (shoal__save(e, arguments) < 0)
        shoal__path_step(e, "rebuilt", obj, e->state->writer.rebuilder_names[which]);
    else if (shoal__op(e, OP_REDUCE) == 0)
        result = shoal__put(e, obj);
    Py_DECREF(arguments);
    return result;
}

int shoal__save_named(struct shoal_encoder *e, PyObject *obj, PyObject *module, PyObject *name)
{
    int result;
    if (e->protocol < 4)
        result = write_lines(e, module, name);
    else if (save_name(e, module) < 0 || save_name(e, name) < 0)
        result = -1;
    else
        result = shoal__op(e, OP_STACK_GLOBAL);
    return result < 0 ? -1 : shoal__put(e, obj);
}

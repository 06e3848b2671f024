/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * load_globals.c - classes, functions and other objects that a stream names.
 *
 * A name is looked up each time: the module in sys.modules, the attribute in the module. Nothing is cached, so that
 * what was redefined since is found as it is now.
 */
#include "decoder.h"

#include "opcodes.h"

#include <string.h>

/* Imported and ready, also if another thread is at it just now. New reference. */
static PyObject *module_named(const struct shoal_pickle_state *state, PyObject *name)
{
    PyObject *module = shoal_pickle__get_module(state, name);
    if (module != NULL && module != Py_None)
        return module;
    if (module == NULL && PyErr_Occurred())
        return NULL;
    Py_XDECREF(module);
    return PyImport_Import(name);
}

/*
 * What getattr finds in an ordinary module, if it is in its dict: new reference; or NULL, without an exception. Names
 * that the type itself has an attribute for all begin with two underscores.
 */
static PyObject *in_dict_of(PyObject *module, PyObject *name)
{
    if (!PyUnicode_CheckExact(name) || PyUnicode_GET_LENGTH(name) < 2 ||
        (PyUnicode_READ_CHAR(name, 0) == '_' && PyUnicode_READ_CHAR(name, 1) == '_'))
        return NULL;
    PyObject *value = PyDict_GetItemWithError(PyModule_GetDict(module), name); /* borrowed */
    if (value == NULL)
        PyErr_Clear();
    return Py_XNewRef(value);
}

/* path and module are what the stream says, for the message. */
static PyObject *get_part(PyObject *parent, PyObject *part, PyObject *path, PyObject *module)
{
    PyObject *value = PyModule_CheckExact(parent) ? in_dict_of(parent, part) : NULL;
    if (value != NULL)
        return value;
    value = PyObject_GetAttr(parent, part);
    if (value == NULL && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear();
        PyErr_Format(PyExc_AttributeError, "Can't get attribute %R on %R", path, module);
    }
    return value;
}

/* 0, or -1: within a function nothing is found by name. */
static int check_part(const struct shoal_decoder *decoder, PyObject *part, PyObject *path, PyObject *module)
{
    if (PyUnicode_Compare(part, decoder->state->names.locals) != 0)
        return 0;
    PyErr_Format(PyExc_AttributeError, "Can't get local attribute %R on %R", path, module);
    return -1;
}

/* "Outer.Inner.method", one attribute after the other. */
static PyObject *follow_path(const struct shoal_decoder *decoder, PyObject *module, PyObject *path)
{
    PyObject *dot = PyUnicode_FromOrdinal('.');
    PyObject *parts = dot == NULL ? NULL : PyUnicode_Split(path, dot, -1);
    Py_XDECREF(dot);
    PyObject *obj = parts == NULL ? NULL : Py_NewRef(module);
    for (Py_ssize_t i = 0; obj != NULL && i < PyList_GET_SIZE(parts); i++)
        if (check_part(decoder, PyList_GET_ITEM(parts, i), path, module) < 0)
            Py_CLEAR(obj);
    for (Py_ssize_t i = 0; obj != NULL && i < PyList_GET_SIZE(parts); i++)
        Py_SETREF(obj, get_part(obj, PyList_GET_ITEM(parts, i), path, module));
    Py_XDECREF(parts);
    return obj;
}

/* The names of Python 2, as Python 3 has them: *module and *name are borrowed, before and after. 0 or -1. */
static int translate(const struct shoal_decoder *decoder, PyObject **module, PyObject **name)
{
    const struct shoal_state_shared *shared = &decoder->state->shared;
    PyObject *key = PyTuple_Pack(2, *module, *name);
    if (key == NULL)
        return -1;
    PyObject *pair = PyDict_GetItemWithError(shared->name_2to3, key);
    Py_DECREF(key);
    if (pair != NULL) {
        if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2 || !PyUnicode_Check(PyTuple_GET_ITEM(pair, 0)) ||
            !PyUnicode_Check(PyTuple_GET_ITEM(pair, 1))) {
            PyErr_SetString(PyExc_RuntimeError, "_compat_pickle.NAME_MAPPING values should be pairs of str");
            return -1;
        }
        *module = PyTuple_GET_ITEM(pair, 0);
        *name = PyTuple_GET_ITEM(pair, 1);
        return 0;
    }
    PyObject *renamed = PyErr_Occurred() ? NULL : PyDict_GetItemWithError(shared->import_2to3, *module);
    if (renamed == NULL)
        return PyErr_Occurred() ? -1 : 0;
    if (!PyUnicode_Check(renamed)) {
        PyErr_SetString(PyExc_RuntimeError, "_compat_pickle.IMPORT_MAPPING values should be strings");
        return -1;
    }
    *module = renamed;
    return 0;
}

static PyObject *find_in_module(struct shoal_decoder *decoder, PyObject *module_name, PyObject *name)
{
    PyObject *module = module_named(decoder->state, module_name);
    if (module == NULL)
        return NULL;
    Py_ssize_t dot = -1;
    if (decoder->protocol >= 4)
        dot = PyUnicode_FindChar(name, '.', 0, PyUnicode_GET_LENGTH(name), 1);
    PyObject *obj = NULL;
    if (dot >= 0)
        obj = follow_path(decoder, module, name);
    else if (dot == -1 && (decoder->protocol < 4 || check_part(decoder, name, name, module) == 0))
        obj = get_part(module, name, name, module);
    Py_DECREF(module);
    return obj;
}

/* The str that had the same characters before, or this one, which is kept for the next time. New reference. */
static PyObject *as_kept(struct shoal_pickle_state *state, PyObject *name)
{
    if (!PyUnicode_CheckExact(name) || !PyUnicode_IS_COMPACT_ASCII(name))
        return Py_NewRef(name);
    PyObject *kept = shoal__kept_name(state, PyUnicode_DATA(name), (size_t)PyUnicode_GET_LENGTH(name));
    if (kept != NULL)
        return kept;
    shoal__keep_name(state, name);
    return Py_NewRef(name);
}

PyObject *shoal__find_global(struct shoal_decoder *decoder, PyObject *module, PyObject *name)
{
    if (PySys_Audit("pickle.find_class", "OO", module, name) < 0)
        return NULL;
    if (decoder->protocol < 3 && decoder->fix_imports && translate(decoder, &module, &name) < 0)
        return NULL;
    module = as_kept(decoder->state, module);
    name = as_kept(decoder->state, name);
    PyObject *obj = find_in_module(decoder, module, name);
    Py_DECREF(module);
    Py_DECREF(name);
    return obj;
}

PyObject *shoal__find_class(struct shoal_decoder *decoder, PyObject *module, PyObject *name)
{
    shoal__release(decoder);
    if (!decoder->custom_find_class)
        return shoal__find_global(decoder, module, name);
    return PyObject_CallMethodObjArgs(decoder->unpickler, decoder->state->names.find_class, module, name, NULL);
}

int shoal__load_global(struct shoal_decoder *decoder)
{
    char *line;
    Py_ssize_t length = shoal__take_filled_line(decoder, &line);
    if (length < 0)
        return -1;
    PyObject *module = PyUnicode_DecodeUTF8(line, length, "strict");
    if (module == NULL)
        return -1;
    PyObject *obj = NULL;
    length = shoal__take_filled_line(decoder, &line);
    if (length >= 0) {
        PyObject *name = PyUnicode_DecodeUTF8(line, length, "strict");
        if (name != NULL)
            obj = shoal__find_class(decoder, module, name);
        Py_XDECREF(name);
    }
    Py_DECREF(module);
    return shoal__push(decoder, obj);
}

int shoal__load_stack_global(struct shoal_decoder *decoder)
{
    if (shoal__stack_has(decoder, 2) < 0)
        return -1;
    PyObject *module = decoder->top[-2];
    PyObject *name = decoder->top[-1];
    if (!PyUnicode_CheckExact(module) || !PyUnicode_CheckExact(name)) {
        PyErr_SetString(decoder->state->shared.unpickling_error, "STACK_GLOBAL requires str");
        return -1;
    }
    PyObject *obj = shoal__find_class(decoder, module, name);
    shoal__stack_cut(decoder, decoder->top - 2);
    return shoal__push(decoder, obj);
}

/*
 * Behind SHORT_BINUNICODE: the name of shoal._rebuild, and the one of something in it that was named before. New
 * reference to that, and the cursor is behind it all; or NULL, and nothing has changed.
 */
static PyObject *take_rebuilder_name(struct shoal_decoder *decoder)
{
    enum { MODULE = sizeof SHOAL_REBUILD - 1, LONGEST = 40 };
    uint8_t copy[1 + MODULE + 2 + LONGEST + 1]; /* each byte is fetched once */
    const uint8_t *at = decoder->source.cursor;
    size_t size = (size_t)(decoder->source.limit - at);
    if (size > sizeof copy)
        size = sizeof copy;
    if (size < 1 + MODULE + 2)
        return NULL;
    memcpy(copy, at, size);
    const uint8_t *name = copy + 1 + MODULE + 2;
    size_t length = name[-1];
    if (copy[0] != MODULE || memcmp(copy + 1, SHOAL_REBUILD, MODULE) != 0 || name[-2] != OP_SHORT_BINUNICODE ||
        length > LONGEST || size < 1 + MODULE + 2 + length + 1 || name[length] != OP_STACK_GLOBAL)
        return NULL;
    PyObject *kept = shoal__kept_name(decoder->state, name, length);
    if (kept != NULL)
        decoder->source.cursor = at + 1 + MODULE + 2 + length + 1;
    return kept;
}

/* A function by value names two or three of these. Without a str made for each name they take half of the time. */
int shoal__load_rebuilder(struct shoal_decoder *decoder)
{
    PyObject *name = decoder->custom_find_class || decoder->protocol < 4 ? NULL : take_rebuilder_name(decoder);
    if (name == NULL)
        return shoal__load(decoder, OP_SHORT_BINUNICODE);
    PyObject *module = decoder->state->writer.rebuild_module;
    shoal__release(decoder);
    PyObject *obj = PySys_Audit("pickle.find_class", "OO", module, name) < 0 ? NULL
                                                                             : find_in_module(decoder, module, name);
    Py_DECREF(name);
    return shoal__push(decoder, obj);
}

/* The object that copyreg.add_extension registered for a code. New reference. */
static PyObject *find_extension(struct shoal_decoder *decoder, PyObject *code)
{
    const struct shoal_state_shared *shared = &decoder->state->shared;
    PyObject *obj = PyDict_GetItemWithError(shared->extension_cache, code);
    if (obj != NULL || PyErr_Occurred())
        return Py_XNewRef(obj);
    PyObject *pair = PyDict_GetItemWithError(shared->inverted_registry, code);
    if (pair == NULL) {
        if (!PyErr_Occurred())
            PyErr_Format(PyExc_ValueError, "unregistered extension code %S", code);
        return NULL;
    }
    if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2 || !PyUnicode_Check(PyTuple_GET_ITEM(pair, 0)) ||
        !PyUnicode_Check(PyTuple_GET_ITEM(pair, 1))) {
        PyErr_Format(PyExc_ValueError, "_inverted_registry[%S] isn't a 2-tuple of strings", code);
        return NULL;
    }
    Py_INCREF(pair);
    obj = shoal__find_class(decoder, PyTuple_GET_ITEM(pair, 0), PyTuple_GET_ITEM(pair, 1));
    Py_DECREF(pair);
    if (obj != NULL && PyDict_SetItem(shared->extension_cache, code, obj) < 0)
        Py_CLEAR(obj);
    return obj;
}

int shoal__load_extension(struct shoal_decoder *decoder, size_t size_of_code)
{
    const uint8_t *at = shoal__take(decoder, size_of_code);
    if (at == NULL)
        return -1;
    long code = (int32_t)shoal__fetch(at, size_of_code);
    if (code <= 0) {
        PyErr_SetString(decoder->state->shared.unpickling_error, "EXT specifies code <= 0");
        return -1;
    }
    PyObject *key = PyLong_FromLong(code);
    if (key == NULL)
        return -1;
    shoal__release(decoder);
    PyObject *obj = find_extension(decoder, key);
    Py_DECREF(key);
    return shoal__push(decoder, obj);
}

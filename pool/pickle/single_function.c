/* SPDX-License-Identifier: BSD-3-Clause */
/* single_function.c - whole streams that hold one function by its name or by a number: see single_function.h. */
#include "single_function.h"

#include "decoder.h"
#include "opcodes.h"

#include <string.h>

/* ---- writing ---- */

static bool is_short_name(PyObject *name)
{
    return name != NULL && PyUnicode_CheckExact(name) && PyUnicode_IS_COMPACT_ASCII(name) &&
           PyUnicode_GET_LENGTH(name) > 0 && PyUnicode_GET_LENGTH(name) <= SHOAL_FUNCTION_NAME_MAX;
}

/* Begins as the names do that modules and classes have of the interpreter, __main__ among them. */
static bool is_special(PyObject *name)
{
    const char *text = (const char *)PyUnicode_1BYTE_DATA(name);
    return text[0] == '_' && text[1] == '_';
}

/* Does the name, and not a path of names, lead from an ordinary module to this very object? */
static bool leads_to(PyObject *module_name, PyObject *name, PyObject *obj)
{
    PyObject *modules = PyImport_GetModuleDict(); /* borrowed, as what is found in it */
    PyObject *module = PyDict_CheckExact(modules) ? PyDict_GetItemWithError(modules, module_name) : NULL;
    bool there = module != NULL && PyModule_CheckExact(module) &&
                 PyDict_GetItemWithError(PyModule_GetDict(module), name) == obj;
    PyErr_Clear();
    return there && memchr(PyUnicode_1BYTE_DATA(name), '.', (size_t)PyUnicode_GET_LENGTH(name)) == NULL;
}

static uint8_t *put_name(uint8_t *at, PyObject *name)
{
    size_t size = (size_t)PyUnicode_GET_LENGTH(name);
    *at++ = OP_SHORT_BINUNICODE;
    *at++ = (uint8_t)size;
    memcpy(at, PyUnicode_1BYTE_DATA(name), size);
    return at + size;
}

static int put_reference(const struct shoal_pickle_state *state, PyFunctionObject *function, uint8_t *stream)
{
    PyObject *module_name = function->func_module, *name = function->func_qualname;
    if (!is_short_name(module_name) || !is_short_name(name) || is_special(module_name) || is_special(name) ||
        PySet_GET_SIZE(state->writer.by_value_modules) > 0 || PyDict_GET_SIZE(state->shared.extension_registry) > 0 ||
        !leads_to(module_name, name, (PyObject *)function))
        return 0;
    uint8_t *at = stream;
    *at++ = OP_PROTO;
    *at++ = 5;
    at = put_name(at, module_name);
    at = put_name(at, name);
    *at++ = OP_STACK_GLOBAL;
    *at++ = OP_STOP;
    return (int)(at - stream);
}

static int put_number(const struct shoal_inheritance *inheritance, PyObject *function, uint8_t *stream)
{
    int64_t number = inheritance->number(inheritance->context, function);
    if (number < 0 || number > UINT16_MAX)
        return number == -2 ? -1 : 0;
    const uint8_t bytes[] = {OP_PROTO, 5, OP_BININT2, (uint8_t)number, (uint8_t)(number >> 8), OP_BINPERSID, OP_STOP};
    memcpy(stream, bytes, sizeof bytes);
    return sizeof bytes;
}

int shoal__encode_function(const struct shoal_pickle_state *state, const struct shoal_inheritance *inheritance,
                           PyObject *obj, uint8_t *stream)
{
    if (!PyFunction_Check(obj))
        return 0;
    int bytes = put_reference(state, (PyFunctionObject *)obj, stream); /* nothing of __main__, which has numbers */
    if (bytes == 0 && inheritance != NULL && inheritance->number != NULL)
        bytes = put_number(inheritance, obj, stream);
    return bytes;
}

/* ---- reading ---- */

/* The str behind *cursor, which is moved behind it: new reference; or NULL, without an exception. */
static PyObject *take_name(struct shoal_pickle_state *state, const uint8_t **cursor, const uint8_t *end)
{
    const uint8_t *at = *cursor;
    if (end - at < 2 || at[0] != OP_SHORT_BINUNICODE || end - at - 2 < at[1] || at[1] < 2 ||
        (at[2] == '_' && at[3] == '_'))
        return NULL;
    size_t size = at[1];
    at += 2;
    *cursor = at + size;
    if (memchr(at, '.', size) != NULL && *cursor + 2 == end) /* the second one: a path */
        return NULL;
    PyObject *name = shoal__kept_name(state, at, size);
    if (name != NULL)
        return name;
    for (size_t i = 0; i < size; i++)
        if (at[i] >= 0x80)
            return NULL;
    name = PyUnicode_DecodeASCII((const char *)at, (Py_ssize_t)size, NULL);
    if (name != NULL)
        shoal__keep_name(state, name);
    else
        PyErr_Clear();
    return name;
}

static PyObject *find(const struct shoal_pickle_state *state, PyObject *module_name, PyObject *name)
{
    PyObject *module = shoal_pickle__get_module(state, module_name);
    PyObject *obj = NULL;
    if (module != NULL && PyModule_CheckExact(module))
        obj = Py_XNewRef(PyDict_GetItemWithError(PyModule_GetDict(module), name));
    PyErr_Clear();
    Py_XDECREF(module);
    if (obj != NULL && PySys_Audit("pickle.find_class", "OO", module_name, name) < 0)
        Py_CLEAR(obj);
    return obj;
}

static PyObject *get_reference(struct shoal_decoder *decoder, const uint8_t *at, const uint8_t *end)
{
    PyObject *module_name = take_name(decoder->state, &at, end);
    PyObject *name = module_name == NULL ? NULL : take_name(decoder->state, &at, end);
    PyObject *obj = NULL;
    if (name != NULL && end - at == 2 && at[0] == OP_STACK_GLOBAL && at[1] == OP_STOP)
        obj = find(decoder->state, module_name, name);
    Py_XDECREF(name);
    Py_XDECREF(module_name);
    return obj;
}

static PyObject *get_number(const struct shoal_decoder *decoder, const uint8_t *at)
{
    PyObject *number = PyLong_FromLong(at[1] | at[2] << 8);
    PyObject *obj = number == NULL ? NULL : decoder->heir(decoder->heir_context, number);
    Py_XDECREF(number);
    return obj;
}

PyObject *shoal__decode_function(struct shoal_decoder *decoder, const uint8_t *data, size_t length)
{
    uint8_t copy[SHOAL_FUNCTION_BYTES_MAX]; /* each byte is fetched once */
    if (length < 7 || length > sizeof copy || decoder->custom_find_class)
        return NULL;
    memcpy(copy, data, length);
    if (copy[0] != OP_PROTO || copy[1] != 5)
        return NULL;
    if (copy[2] == OP_SHORT_BINUNICODE)
        return get_reference(decoder, copy + 2, copy + length);
    if (copy[2] == OP_BININT2 && length == 7 && copy[5] == OP_BINPERSID && copy[6] == OP_STOP && decoder->heir != NULL)
        return get_number(decoder, copy + 2);
    return NULL;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * code_facts.c - what must be known of a code object to send it: the globals that it uses, and itself as bytes.
 *
 * Both are costly to find and never change, so they are found once and kept in the code object's own co_extra: looking
 * them up is an array access, and they die with it.
 *
 * Globals are found by reading the bytecode: the names of LOAD_GLOBAL, STORE_GLOBAL and DELETE_GLOBAL, and, for class
 * bodies nested in a function, of LOAD_NAME and LOAD_FROM_DICT_OR_GLOBALS. `co_code` has no specialised instructions,
 * and its inline caches are zero, so that it can be read word by word.
 *
 * Form of the bytes: 2 bytes of Python version, 4 bytes of checksum, marshal data of version 2. Bytecode is made for
 * one version of Python; the version is looked at before anything else. The checksum makes damage an exception:
 * bytecode is not checked by the interpreter. Marshal version 2 knows no back references, whose use depends on
 * reference counts, nor interning: the same code gives the same bytes.
 */
#include "encoder.h"

#include <marshal.h>

enum { BYTES_HEADER_SIZE = 6, CODES_KEPT = 1024 };

#if PY_VERSION_HEX >= 0x030C0000
#define REQUEST_EXTRA_INDEX PyUnstable_Eval_RequestCodeExtraIndex
#define GET_EXTRA PyUnstable_Code_GetExtra
#define SET_EXTRA PyUnstable_Code_SetExtra
#else
#define REQUEST_EXTRA_INDEX _PyEval_RequestCodeExtraIndex
#define GET_EXTRA _PyCode_GetExtra
#define SET_EXTRA _PyCode_SetExtra
#endif

static void drop_facts(void *facts)
{
    Py_XDECREF((PyObject *)facts);
}

static int opcode_number(PyObject *opmap, const char *name, int *ret_number)
{
    PyObject *number = PyDict_GetItemString(opmap, name); /* borrowed */
    *ret_number = number ? (int)PyLong_AsLong(number) : -1;
    return PyErr_Occurred() ? -1 : 0;
}

int shoal__code_facts_init(struct shoal_pickle_state *state)
{
    struct shoal_code_opcodes *opcodes = &state->opcodes;
    opcodes->extra_index = REQUEST_EXTRA_INDEX(drop_facts);
    PyObject *opmap = shoal_pickle__import("opcode", "opmap");
    if (!opmap)
        return -1;
    int result = 0;
    if (opcode_number(opmap, "LOAD_GLOBAL", &opcodes->load_global) < 0 ||
        opcode_number(opmap, "STORE_GLOBAL", &opcodes->store_global) < 0 ||
        opcode_number(opmap, "DELETE_GLOBAL", &opcodes->delete_global) < 0 ||
        opcode_number(opmap, "LOAD_NAME", &opcodes->load_name) < 0 ||
        opcode_number(opmap, "LOAD_FROM_DICT_OR_GLOBALS", &opcodes->load_from_dict_or_globals) < 0 ||
        opcode_number(opmap, "EXTENDED_ARG", &opcodes->extended_arg) < 0)
        result = -1;
    Py_DECREF(opmap);
    return result;
}

/* ---- reading the bytecode ---- */

/* Which entry of co_names the instruction uses as a global, or -1. */
static Py_ssize_t global_index(const struct shoal_code_opcodes *opcodes, int opcode, Py_ssize_t argument)
{
    if (opcode == opcodes->load_global)
        return PY_VERSION_HEX >= 0x030B0000 ? argument >> 1 : argument;
    if (opcode == opcodes->store_global || opcode == opcodes->delete_global || opcode == opcodes->load_name ||
        opcode == opcodes->load_from_dict_or_globals)
        return argument;
    return -1;
}

/* Dicts with None for values serve as ordered sets. */
static int collect_globals(const struct shoal_code_opcodes *opcodes, PyObject *code, PyObject *names, PyObject *found)
{
    PyObject *text = PyObject_GetAttrString(code, "co_code");
    if (!text)
        return -1;
    const uint8_t *byte = (const uint8_t *)PyBytes_AS_STRING(text);
    Py_ssize_t size = PyBytes_GET_SIZE(text), argument = 0;
    int result = 0;
    for (Py_ssize_t i = 0; result == 0 && i + 1 < size; i += 2) {
        argument = argument << 8 | byte[i + 1];
        if (byte[i] == opcodes->extended_arg)
            continue;
        Py_ssize_t index = global_index(opcodes, byte[i], argument);
        if (index >= 0 && index < PyTuple_GET_SIZE(names))
            result = PyDict_SetItem(found, PyTuple_GET_ITEM(names, index), Py_None);
        argument = 0;
    }
    Py_DECREF(text);
    return result;
}

static int collect(const struct shoal_code_opcodes *opcodes, PyObject *code, PyObject *globals, PyObject *all)
{
    PyCodeObject *co = (PyCodeObject *)code;
    if (collect_globals(opcodes, code, co->co_names, globals) < 0)
        return -1;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(co->co_names); i++)
        if (PyDict_SetItem(all, PyTuple_GET_ITEM(co->co_names, i), Py_None) < 0)
            return -1;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(co->co_consts); i++) {
        PyObject *constant = PyTuple_GET_ITEM(co->co_consts, i);
        if (!PyCode_Check(constant))
            continue;
        if (Py_EnterRecursiveCall(" while reading a nested function"))
            return -1;
        int result = collect(opcodes, constant, globals, all);
        Py_LeaveRecursiveCall();
        if (result < 0)
            return -1;
    }
    return 0;
}

/* ---- the code as bytes ---- */

static uint32_t checksum(const uint8_t *data, size_t size)
{
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ data[i]) * 0x100000001b3u;
    return (uint32_t)(hash ^ hash >> 32);
}

static PyObject *code_to_bytes(struct shoal_pickle_state *state, PyObject *code)
{
    PyObject *marshalled = PyMarshal_WriteObjectToString(code, 2);
    if (!marshalled) {
        if (PyErr_ExceptionMatches(PyExc_ValueError))
            PyErr_Format(state->shared.pickling_error, "cannot pickle %R: one of its constants is not a constant",
                         code);
        return NULL;
    }
    Py_ssize_t size = PyBytes_GET_SIZE(marshalled);
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, BYTES_HEADER_SIZE + size);
    if (bytes) {
        uint8_t *at = (uint8_t *)PyBytes_AS_STRING(bytes);
        at[0] = PY_MAJOR_VERSION;
        at[1] = PY_MINOR_VERSION;
        memcpy(at + BYTES_HEADER_SIZE, PyBytes_AS_STRING(marshalled), (size_t)size);
        uint32_t sum = checksum(at + BYTES_HEADER_SIZE, (size_t)size);
        for (int i = 0; i < 4; i++)
            at[2 + i] = (uint8_t)(sum >> (8 * i));
    }
    Py_DECREF(marshalled);
    return bytes;
}

static PyObject *make_facts(struct shoal_pickle_state *state, PyObject *code)
{
    PyObject *facts = NULL, *bytes = NULL, *globals_tuple = NULL, *all_tuple = NULL;
    PyObject *globals = PyDict_New(), *all = PyDict_New();
    if (!globals || !all || collect(&state->opcodes, code, globals, all) < 0)
        goto out;
    globals_tuple = PySequence_Tuple(globals);
    all_tuple = PySequence_Tuple(all);
    bytes = code_to_bytes(state, code);
    if (globals_tuple && all_tuple && bytes)
        facts = PyTuple_Pack(3, globals_tuple, all_tuple, bytes);
out:
    Py_XDECREF(bytes);
    Py_XDECREF(all_tuple);
    Py_XDECREF(globals_tuple);
    Py_XDECREF(all);
    Py_XDECREF(globals);
    return facts;
}

PyObject *shoal__code_facts(struct shoal_pickle_state *state, PyObject *code)
{
    void *extra = NULL;
    if (GET_EXTRA(code, state->opcodes.extra_index, &extra) < 0)
        return NULL;
    if (extra)
        return extra;
    PyObject *facts = make_facts(state, code);
    if (!facts)
        return NULL;
    if (SET_EXTRA(code, state->opcodes.extra_index, facts) < 0) { /* takes over the reference */
        Py_DECREF(facts);
        return NULL;
    }
    return facts;
}

/* ---- and back ---- */

static PyObject *unmarshal(struct shoal_pickle_state *state, const uint8_t *at, Py_ssize_t size)
{
    PyObject *error = state->shared.unpickling_error;
    if (size < BYTES_HEADER_SIZE) {
        PyErr_SetString(error, "a pickled function's code is cut short");
        return NULL;
    }
    if (at[0] != PY_MAJOR_VERSION || at[1] != PY_MINOR_VERSION) {
        PyErr_Format(error,
                     "this pickle carries a function by value, whose bytecode was made by Python %d.%d; "
                     "Python %d.%d cannot run it",
                     at[0], at[1], PY_MAJOR_VERSION, PY_MINOR_VERSION);
        return NULL;
    }
    uint32_t sum = (uint32_t)at[2] | (uint32_t)at[3] << 8 | (uint32_t)at[4] << 16 | (uint32_t)at[5] << 24;
    if (sum != checksum(at + BYTES_HEADER_SIZE, (size_t)(size - BYTES_HEADER_SIZE))) {
        PyErr_SetString(error, "a pickled function's code is damaged");
        return NULL;
    }
    PyObject *code = PyMarshal_ReadObjectFromString((const char *)at + BYTES_HEADER_SIZE, size - BYTES_HEADER_SIZE);
    if (code && !PyCode_Check(code)) {
        Py_DECREF(code);
        PyErr_SetString(error, "a pickled function's code is something else");
        return NULL;
    }
    return code;
}

PyObject *shoal__code_from_bytes(struct shoal_pickle_state *state, PyObject *bytes)
{
    if (!PyBytes_CheckExact(bytes)) {
        PyErr_SetString(state->shared.unpickling_error, "a pickled function's code must be bytes");
        return NULL;
    }
    PyObject *known = state->writer.code_by_bytes;
    PyObject *code = PyDict_GetItemWithError(known, bytes);
    if (code || PyErr_Occurred())
        return Py_XNewRef(code);
    code = unmarshal(state, (const uint8_t *)PyBytes_AS_STRING(bytes), PyBytes_GET_SIZE(bytes));
    if (!code)
        return NULL;
    if (PyDict_GET_SIZE(known) >= CODES_KEPT)
        PyDict_Clear(known);
    if (PyDict_SetItem(known, bytes, code) < 0)
        Py_CLEAR(code);
    return code;
}

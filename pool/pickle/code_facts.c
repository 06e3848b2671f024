/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * code_facts.c - what must be known of a code object to send it: the globals that it uses, and itself as bytes.
 *
 * Both are costly to find and never change, so they are found once and kept in the code object's own co_extra: looking
 * them up is an array access, and they die with it.
 */
#include "code.h"

#if PY_VERSION_HEX >= 0x030C0000
#define REQUEST_EXTRA_INDEX PyUnstable_Eval_RequestCodeExtraIndex
#define GET_EXTRA PyUnstable_Code_GetExtra
#define SET_EXTRA PyUnstable_Code_SetExtra
#else
#define REQUEST_EXTRA_INDEX _PyEval_RequestCodeExtraIndex
#define GET_EXTRA _PyCode_GetExtra
#define SET_EXTRA _PyCode_SetExtra
#endif

static void facts_free(void *extra)
{
    struct shoal_code_facts *facts = extra;
    if (!facts)
        return;
    Py_XDECREF(facts->bytes);
    Py_XDECREF(facts->globals);
    Py_XDECREF(facts->names);
    Py_XDECREF(facts->odd);
    PyMem_Free(facts);
}

static int set_kind(struct shoal_code_opcodes *opcodes, PyObject *opmap, const char *name, enum shoal_opcode_kind kind)
{
    PyObject *number = PyDict_GetItemString(opmap, name); /* borrowed */
    if (!number)
        return 0; /* this Python has none of that name */
    long value = PyLong_AsLong(number);
    if (value == -1 && PyErr_Occurred())
        return -1;
    opcodes->kinds[value & 0xff] = (uint8_t)kind;
    return 0;
}

int shoal__code_facts_init(struct shoal_pickle_state *state)
{
    struct shoal_code_opcodes *opcodes = &state->opcodes;
    opcodes->extra_index = REQUEST_EXTRA_INDEX(facts_free);
    PyObject *opmap = shoal_pickle__import("opcode", "opmap");
    if (!opmap)
        return -1;
    const enum shoal_opcode_kind load_global =
        PY_VERSION_HEX >= 0x030B0000 ? OPCODE_GLOBAL_SHIFTED : OPCODE_GLOBAL;
    int result = -1;
    if (set_kind(opcodes, opmap, "LOAD_GLOBAL", load_global) == 0 &&
        set_kind(opcodes, opmap, "STORE_GLOBAL", OPCODE_GLOBAL) == 0 &&
        set_kind(opcodes, opmap, "DELETE_GLOBAL", OPCODE_GLOBAL) == 0 &&
        set_kind(opcodes, opmap, "LOAD_NAME", OPCODE_GLOBAL) == 0 &&
        set_kind(opcodes, opmap, "LOAD_FROM_DICT_OR_GLOBALS", OPCODE_GLOBAL) == 0 &&
        set_kind(opcodes, opmap, "EXTENDED_ARG", OPCODE_EXTENDED_ARG) == 0)
        result = 0;
    Py_DECREF(opmap);
    return result;
}

/* ---- sets of names ---- */

static int become_many(struct shoal_name_set *set)
{
    set->many = PyDict_New();
    int result = set->many ? 0 : -1;
    for (size_t i = 0; result == 0 && i < set->count; i++)
        result = PyDict_SetItem(set->many, set->few[i], Py_None);
    return result;
}

int shoal__name_set_add(struct shoal_name_set *set, PyObject *name)
{
    if (!set->many) {
        for (size_t i = 0; i < set->count; i++)
            if (set->few[i] == name)
                return 0;
        if (set->count < SHOAL_FEW_NAMES) {
            set->few[set->count++] = Py_NewRef(name);
            return 0;
        }
        if (become_many(set) < 0)
            return -1;
    }
    return PyDict_SetItem(set->many, name, Py_None);
}

PyObject *shoal__name_set_tuple(const struct shoal_name_set *set)
{
    if (set->many)
        return PySequence_Tuple(set->many);
    PyObject *tuple = PyTuple_New((Py_ssize_t)set->count);
    for (size_t i = 0; tuple && i < set->count; i++)
        PyTuple_SET_ITEM(tuple, (Py_ssize_t)i, Py_NewRef(set->few[i]));
    return tuple;
}

void shoal__name_set_done(struct shoal_name_set *set)
{
    for (size_t i = 0; i < set->count; i++)
        Py_DECREF(set->few[i]);
    Py_XDECREF(set->many);
}

/* ---- the facts ---- */

static struct shoal_code_facts *make_facts(struct shoal_pickle_state *state, PyObject *code)
{
    struct shoal_code_facts *facts = PyMem_Calloc(1, sizeof *facts);
    if (!facts) {
        PyErr_NoMemory();
        return NULL;
    }
    struct shoal_name_set globals;
    globals.count = 0;
    globals.many = NULL;
    PyObject *odd = NULL;
    facts->bytes = shoal__code_write(state, code, &globals, &odd);
    if (facts->bytes)
        facts->globals = shoal__name_set_tuple(&globals);
    if (facts->globals && odd)
        facts->odd = PyList_AsTuple(odd);
    bool failed = !facts->globals || (odd && !facts->odd);
    Py_XDECREF(odd);
    shoal__name_set_done(&globals);
    if (!failed)
        return facts;
    facts_free(facts);
    return NULL;
}

struct shoal_code_facts *shoal__code_facts(struct shoal_pickle_state *state, PyObject *code)
{
    void *extra = NULL;
    if (GET_EXTRA(code, state->opcodes.extra_index, &extra) < 0)
        return NULL;
    if (extra)
        return extra;
    struct shoal_code_facts *facts = make_facts(state, code);
    if (facts && SET_EXTRA(code, state->opcodes.extra_index, facts) < 0) {
        facts_free(facts);
        return NULL;
    }
    return facts;
}

static int collect_names(struct shoal_name_set *names, PyObject *code)
{
    PyCodeObject *co = (PyCodeObject *)code;
    int result = 0;
    for (Py_ssize_t i = 0; result == 0 && i < PyTuple_GET_SIZE(co->co_names); i++)
        result = shoal__name_set_add(names, PyTuple_GET_ITEM(co->co_names, i));
    for (Py_ssize_t i = 0; result == 0 && i < PyTuple_GET_SIZE(co->co_consts); i++) {
        PyObject *constant = PyTuple_GET_ITEM(co->co_consts, i);
        if (!PyCode_Check(constant))
            continue;
        if (Py_EnterRecursiveCall(" while reading a nested function"))
            return -1;
        result = collect_names(names, constant);
        Py_LeaveRecursiveCall();
    }
    return result;
}

PyObject *shoal__code_names(PyObject *code, struct shoal_code_facts *facts)
{
    if (facts->names)
        return facts->names;
    struct shoal_name_set names;
    names.count = 0;
    names.many = NULL;
    if (collect_names(&names, code) == 0)
        facts->names = shoal__name_set_tuple(&names);
    shoal__name_set_done(&names);
    return facts->names;
}

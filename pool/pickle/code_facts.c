/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * code_facts.c - what must be known of a code object to send it: the globals that it uses, and itself as bytes.
 *
 * Both are costly to find and never change, so they are found once and kept in the code object's own co_extra: looking
 * them up is an array access, and they die with it.
 *
 * Some globals are used without an instruction that says so: those that string annotations of nested functions and
 * classes name, and, if eval, exec or globals is used, those that constant strings name. They are looked for in the
 * constants; what an expression builds at run time cannot be known.
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

/* ---- globals that only texts name ---- */

/* What to make of the strings among the constants. */
enum text_use { TEXT_ANNOTATIONS, TEXT_SOURCE, TEXT_NAMES };

static bool is_variable_of_nested(PyObject *constants, PyObject *name)
{
    if (!PyUnicode_CheckExact(name))
        return false;
    if (PyUnicode_CompareWithASCIIString(name, "return") == 0)
        return true;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(constants); i++) {
        PyObject *code = PyTuple_GET_ITEM(constants, i);
        if (!PyCode_Check(code))
            continue;
#if PY_VERSION_HEX >= 0x030B0000
        PyObject *variables = ((PyCodeObject *)code)->co_localsplusnames;
#else
        PyObject *variables = ((PyCodeObject *)code)->co_varnames;
#endif
        if (PySequence_Contains(variables, name) == 1)
            return true;
    }
    PyErr_Clear();
    return false;
}

/* ('x', 'int', 'return', 'str'): the annotations of a nested function, where all of them are strings. */
static int add_annotations(struct shoal_name_set *set, PyObject *constants, PyObject *tuple)
{
    Py_ssize_t n = PyTuple_GET_SIZE(tuple);
    for (Py_ssize_t i = 0; i < n; i += 2)
        if (n % 2 || !PyUnicode_CheckExact(PyTuple_GET_ITEM(tuple, i + 1)) ||
            !is_variable_of_nested(constants, PyTuple_GET_ITEM(tuple, i)))
            return 0;
    for (Py_ssize_t i = 1; i < n; i += 2)
        if (shoal__name_set_add_text(set, PyTuple_GET_ITEM(tuple, i), false) < 0)
            return -1;
    return 0;
}

static int add_constant(struct shoal_name_set *set, PyObject *constants, PyObject *constant, enum text_use use);

static int add_tuple(struct shoal_name_set *set, PyObject *constants, PyObject *tuple, enum text_use use)
{
    if (use == TEXT_ANNOTATIONS)
        return add_annotations(set, constants, tuple);
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(tuple); i++)
        if (PyUnicode_CheckExact(PyTuple_GET_ITEM(tuple, i)) &&
            add_constant(set, constants, PyTuple_GET_ITEM(tuple, i), use) < 0)
            return -1;
    return 0;
}

static bool is_dotted_name(PyObject *text)
{
    if (!PyUnicode_IS_COMPACT_ASCII(text) || PyUnicode_GET_LENGTH(text) > 100)
        return false;
    const char *at = PyUnicode_DATA(text);
    return at[strspn(at, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.")] == '\0';
}

/* For getattr and its like: 'sub' or 'sub.module'. */
static int add_dotted_name(struct shoal_name_set *set, PyObject *text)
{
    if (!is_dotted_name(text))
        return 0;
    PyObject *parts = PyObject_CallMethod(text, "split", "s", ".");
    int result = parts ? 0 : -1;
    for (Py_ssize_t i = 0; result == 0 && i < PyList_GET_SIZE(parts); i++)
        result = shoal__name_set_add_text(set, PyList_GET_ITEM(parts, i), false);
    Py_XDECREF(parts);
    return result;
}

static int add_texts(struct shoal_name_set *set, PyObject *code, enum text_use use);

static int add_constant(struct shoal_name_set *set, PyObject *constants, PyObject *constant, enum text_use use)
{
    if (PyTuple_CheckExact(constant))
        return add_tuple(set, constants, constant, use);
    if (PyUnicode_CheckExact(constant) && use == TEXT_SOURCE)
        return shoal__name_set_add_text(set, constant, false);
    if (PyUnicode_CheckExact(constant) && use == TEXT_NAMES)
        return add_dotted_name(set, constant);
    if (!PyCode_Check(constant))
        return 0;
    if (Py_EnterRecursiveCall(" while reading a nested function"))
        return -1;
    int result = add_texts(set, constant, use);
    Py_LeaveRecursiveCall();
    return result;
}

/* The body of a class whose annotations are strings: each is a constant of its own. */
static int add_class_annotations(struct shoal_name_set *set, PyCodeObject *co)
{
    if (!(co->co_flags & CO_FUTURE_ANNOTATIONS) || co->co_flags & CO_OPTIMIZED)
        return 0;
    int result = 0;
    for (Py_ssize_t i = 0; result == 0 && i < PyTuple_GET_SIZE(co->co_consts); i++)
        if (PyUnicode_CheckExact(PyTuple_GET_ITEM(co->co_consts, i)))
            result = shoal__name_set_add_text(set, PyTuple_GET_ITEM(co->co_consts, i), true);
    return result;
}

static int add_texts(struct shoal_name_set *set, PyObject *code, enum text_use use)
{
    PyCodeObject *co = (PyCodeObject *)code;
    int result = use == TEXT_ANNOTATIONS ? add_class_annotations(set, co) : 0;
    for (Py_ssize_t i = 0; result == 0 && use == TEXT_NAMES && i < PyTuple_GET_SIZE(co->co_names); i++)
        result = shoal__name_set_add(set, PyTuple_GET_ITEM(co->co_names, i));
    for (Py_ssize_t i = 0; result == 0 && i < PyTuple_GET_SIZE(co->co_consts); i++)
        result = add_constant(set, co->co_consts, PyTuple_GET_ITEM(co->co_consts, i), use);
    return result;
}

static bool runs_source(const struct shoal_pickle_state *state, const struct shoal_name_set *globals)
{
    PyObject *const runners[] = {state->names.eval, state->names.exec, state->names.globals};
    for (size_t i = 0; i < sizeof runners / sizeof runners[0]; i++) {
        if (globals->many && PyDict_Contains(globals->many, runners[i]) == 1)
            return true;
        for (size_t k = 0; k < globals->count; k++)
            if (globals->few[k] == runners[i])
                return true;
    }
    return false;
}

static int add_hidden(const struct shoal_pickle_state *state, PyObject *code, struct shoal_name_set *globals)
{
    if (add_texts(globals, code, TEXT_ANNOTATIONS) < 0)
        return -1;
    return runs_source(state, globals) ? add_texts(globals, code, TEXT_SOURCE) : 0;
}

/* ---- the source ---- */

/* Might there be lines, though the file is none? Cheap: asked once for each new function. */
static bool may_have_source(const struct shoal_pickle_state *state, PyObject *filename)
{
    PyObject *module = PyDict_GetItemWithError(PyImport_GetModuleDict(), state->names.linecache); /* borrowed */
    PyObject *cache = module && PyModule_Check(module)
                          ? PyDict_GetItemWithError(PyModule_GetDict(module), state->names.cache)
                          : NULL;
    PyObject *entry = cache && PyDict_Check(cache) ? PyDict_GetItemWithError(cache, filename) : NULL;
    PyErr_Clear();
    if (entry) /* (size, time, lines, name), without a time if there is no file to look after */
        return PyTuple_Check(entry) && PyTuple_GET_SIZE(entry) == 4 && PyTuple_GET_ITEM(entry, 1) == Py_None;
    return PyUnicode_CompareWithASCIIString(filename, "<stdin>") == 0 ||
           (cache && PyUnicode_READ_CHAR(filename, 0) == '<' && PyUnicode_GET_LENGTH(filename) > 8 &&
            PyUnicode_READ_CHAR(filename, 1) == 'd' && PyUnicode_READ_CHAR(filename, 8) == ' '); /* "<doctest " */
}

/* New reference: its lines, or None. */
static PyObject *source_of(struct shoal_pickle_state *state, PyObject *code)
{
    PyObject *filename = ((PyCodeObject *)code)->co_filename;
    if (PyUnicode_GET_LENGTH(filename) == 0 || !may_have_source(state, filename))
        return Py_NewRef(Py_None);
    PyObject **own = &state->writer.own_source;
    if (!*own)
        *own = shoal_pickle__import("shoal._source", "own_lines");
    PyObject *source = *own ? PyObject_CallOneArg(*own, code) : NULL;
    if (!source && PyErr_ExceptionMatches(PyExc_Exception)) { /* strange lines: do without */
        PyErr_Clear();
        return Py_NewRef(Py_None);
    }
    return source;
}

/* ---- the facts ---- */

static int find_facts(struct shoal_pickle_state *state, PyObject *code, struct shoal_code_facts *facts)
{
    PyObject *source = facts->bytes ? Py_NewRef(Py_None) : source_of(state, code);
    if (!source)
        return -1;
    struct shoal_name_set globals;
    shoal__name_set_init(&globals);
    PyObject *odd = NULL, *text = PyUnicode_CheckExact(source) ? source : NULL;
    PyObject *bytes = shoal__code_write(state, code, text, &globals, &odd);
    PyObject *names = bytes && add_hidden(state, code, &globals) == 0 ? shoal__name_set_tuple(&globals) : NULL;
    PyObject *beside = names && odd ? PyList_AsTuple(odd) : NULL;
    shoal__name_set_done(&globals);
    Py_DECREF(source);
    bool failed = !names || (odd && !beside);
    Py_XDECREF(odd);
    if (failed) {
        Py_XDECREF(bytes);
        Py_XDECREF(names);
        return -1;
    }
    if (facts->bytes)
        Py_DECREF(bytes); /* as they came is as they go */
    else
        facts->bytes = bytes;
    if (facts->globals)
        Py_DECREF(names); /* found by somebody else meanwhile */
    else
        facts->globals = names;
    Py_XSETREF(facts->odd, beside);
    return 0;
}

static struct shoal_code_facts *new_facts(struct shoal_pickle_state *state, PyObject *code, PyObject *bytes)
{
    struct shoal_code_facts *facts = PyMem_Calloc(1, sizeof *facts);
    if (!facts) {
        PyErr_NoMemory();
        return NULL;
    }
    facts->bytes = Py_XNewRef(bytes);
    void *others = NULL; /* somebody may have found them meanwhile, and be using them */
    if ((!bytes && find_facts(state, code, facts) < 0) || GET_EXTRA(code, state->opcodes.extra_index, &others) < 0 ||
        (!others && SET_EXTRA(code, state->opcodes.extra_index, facts) < 0)) {
        facts_free(facts);
        return NULL;
    }
    if (others)
        facts_free(facts);
    return others ? others : facts;
}

int shoal__code_arrived(struct shoal_pickle_state *state, PyObject *code, PyObject *bytes)
{
    return new_facts(state, code, bytes) ? 0 : -1;
}

struct shoal_code_facts *shoal__code_facts(struct shoal_pickle_state *state, PyObject *code)
{
    void *extra = NULL;
    if (GET_EXTRA(code, state->opcodes.extra_index, &extra) < 0)
        return NULL;
    struct shoal_code_facts *facts = extra;
    if (!facts)
        return new_facts(state, code, NULL);
    if (!facts->globals && find_facts(state, code, facts) < 0)
        return NULL;
    return facts;
}

/* ---- names ---- */

PyObject *shoal__code_names(PyObject *code, struct shoal_code_facts *facts)
{
    if (facts->names)
        return facts->names;
    struct shoal_name_set names;
    shoal__name_set_init(&names);
    PyObject *found = add_texts(&names, code, TEXT_NAMES) == 0 ? shoal__name_set_tuple(&names) : NULL;
    shoal__name_set_done(&names);
    if (found && !facts->names)
        facts->names = found;
    else
        Py_XDECREF(found);
    return facts->names;
}

PyObject *shoal_code_globals(struct shoal_pickle_state *state, PyObject *code)
{
    struct shoal_code_facts *facts = shoal__code_facts(state, code);
    return facts ? Py_NewRef(facts->globals) : NULL;
}

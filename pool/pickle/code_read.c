/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * code_read.c - a code object from the bytes that code_write.c makes.
 *
 * Every length is held against what is left before anything is allocated for it, so damage that the checksum does not
 * see costs an exception and no more memory than the bytes themselves are worth. What the bytecode does when it runs
 * is beyond any check.
 */
#include "code.h"

enum { CODES_KEPT = 1024, KEPT_SIZE_MAX = 64 * 1024 };

struct code_reader {
    const uint8_t *at;
    const uint8_t *end;
    PyObject *odd;   /* tuple, or NULL */
    PyObject *error; /* UnpicklingError */
};

static PyObject *damaged(const struct code_reader *r)
{
    if (!PyErr_Occurred())
        PyErr_SetString(r->error, "a pickled function's code is damaged");
    return NULL;
}

/* ---- values ---- */

/* 0, or -1 without an exception. */
static int read_number(struct code_reader *r, uint64_t *ret_value)
{
    uint64_t value = 0;
    for (int shift = 0; shift < 64 && r->at < r->end; shift += 7) {
        uint8_t byte = *r->at++;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *ret_value = value;
            return 0;
        }
    }
    return -1;
}

static int64_t from_zigzag(uint64_t value)
{
    return (int64_t)(value >> 1 ^ (0 - (value & 1)));
}

/* A number of things of at least one byte each. */
static int read_count(struct code_reader *r, Py_ssize_t *ret_count)
{
    uint64_t count;
    if (read_number(r, &count) < 0 || count > (size_t)(r->end - r->at))
        return -1;
    *ret_count = (Py_ssize_t)count;
    return 0;
}

static PyObject *read_text(struct code_reader *r)
{
    uint64_t head;
    if (read_number(r, &head) < 0 || head >> 1 > (size_t)(r->end - r->at))
        return damaged(r);
    Py_ssize_t size = (Py_ssize_t)(head >> 1);
    const char *text = (const char *)r->at;
    r->at += size;
    if (head & 1)
        return PyUnicode_DecodeUTF8(text, size, "surrogatepass");
    PyObject *str = PyUnicode_New(size, 127);
    if (!str)
        return NULL;
    if (size == 1) { /* one character has one object; New gives another */
        Py_DECREF(str);
        return PyUnicode_DecodeASCII(text, size, NULL);
    }
    uint8_t *data = PyUnicode_DATA(str), high = 0;
    for (Py_ssize_t i = 0; i < size; i++) {
        data[i] = (uint8_t)text[i];
        high |= data[i];
    }
    if (high >= 0x80) {
        Py_DECREF(str);
        return damaged(r);
    }
    return str;
}

static PyObject *read_data(struct code_reader *r)
{
    Py_ssize_t size;
    if (read_count(r, &size) < 0)
        return damaged(r);
    r->at += size;
    return PyBytes_FromStringAndSize((const char *)r->at - size, size);
}

static PyObject *read_texts(struct code_reader *r)
{
    Py_ssize_t n;
    if (read_count(r, &n) < 0)
        return damaged(r);
    PyObject *tuple = PyTuple_New(n);
    for (Py_ssize_t i = 0; tuple && i < n; i++) {
        PyObject *text = read_text(r);
        if (text)
            PyTuple_SET_ITEM(tuple, i, text);
        else
            Py_CLEAR(tuple);
    }
    return tuple;
}

/* 0, or -1 without an exception. */
static int read_double(struct code_reader *r, double *ret_value)
{
    if (r->end - r->at < 8)
        return -1;
    uint64_t bits = 0;
    for (int i = 0; i < 8; i++)
        bits |= (uint64_t)r->at[i] << (8 * i);
    r->at += 8;
    memcpy(ret_value, &bits, sizeof bits);
    return 0;
}

/* ---- constants ---- */

static PyObject *read_constant(struct code_reader *r, PyCodeObject *outer);
static PyObject *read_code(struct code_reader *r, PyCodeObject *outer);

static PyObject *read_constants(struct code_reader *r, PyCodeObject *outer)
{
    Py_ssize_t n;
    if (read_count(r, &n) < 0)
        return damaged(r);
    PyObject *tuple = PyTuple_New(n);
    for (Py_ssize_t i = 0; tuple && i < n; i++) {
        PyObject *constant = read_constant(r, outer);
        if (constant)
            PyTuple_SET_ITEM(tuple, i, constant);
        else
            Py_CLEAR(tuple);
    }
    return tuple;
}

static PyObject *read_odd(struct code_reader *r)
{
    uint64_t index;
    if (read_number(r, &index) < 0 || !r->odd || index >= (uint64_t)PyTuple_GET_SIZE(r->odd))
        return damaged(r);
    return Py_NewRef(PyTuple_GET_ITEM(r->odd, (Py_ssize_t)index));
}

static PyObject *read_number_like(struct code_reader *r, uint8_t tag)
{
    if (tag == CODE_TAG_INT) {
        uint64_t value;
        return read_number(r, &value) < 0 ? damaged(r) : PyLong_FromLongLong(from_zigzag(value));
    }
    if (tag == CODE_TAG_LONG) {
        Py_ssize_t size;
        if (read_count(r, &size) < 0)
            return damaged(r);
        r->at += size;
        return _PyLong_FromByteArray(r->at - size, (size_t)size, 1, 1);
    }
    Py_complex value = {0, 0};
    if (read_double(r, &value.real) < 0 || (tag == CODE_TAG_COMPLEX && read_double(r, &value.imag) < 0))
        return damaged(r);
    return tag == CODE_TAG_COMPLEX ? PyComplex_FromCComplex(value) : PyFloat_FromDouble(value.real);
}

static PyObject *read_nesting(struct code_reader *r, uint8_t tag, PyCodeObject *outer)
{
    if (Py_EnterRecursiveCall(" while reading a code object"))
        return NULL;
    PyObject *obj = tag == CODE_TAG_CODE ? read_code(r, outer) : read_constants(r, outer);
    Py_LeaveRecursiveCall();
    if (obj && tag == CODE_TAG_FROZENSET)
        Py_SETREF(obj, PyFrozenSet_New(obj));
    return obj;
}

static PyObject *read_constant(struct code_reader *r, PyCodeObject *outer)
{
    if (r->at == r->end)
        return damaged(r);
    uint8_t tag = *r->at++;
    switch (tag) {
    case CODE_TAG_NONE:
        return Py_NewRef(Py_None);
    case CODE_TAG_TRUE:
        return Py_NewRef(Py_True);
    case CODE_TAG_FALSE:
        return Py_NewRef(Py_False);
    case CODE_TAG_ELLIPSIS:
        return Py_NewRef(Py_Ellipsis);
    case CODE_TAG_STR:
        return read_text(r);
    case CODE_TAG_BYTES:
        return read_data(r);
    case CODE_TAG_INT:
    case CODE_TAG_LONG:
    case CODE_TAG_FLOAT:
    case CODE_TAG_COMPLEX:
        return read_number_like(r, tag);
    case CODE_TAG_TUPLE:
    case CODE_TAG_FROZENSET:
    case CODE_TAG_CODE:
        return read_nesting(r, tag, outer);
    case CODE_TAG_ODD:
        return read_odd(r);
    default:
        return damaged(r);
    }
}

/* ---- the code object ---- */

enum { HEAD_NUMBERS = 6 };

/* What a code object is made of; all owned. */
struct code_parts {
    PyObject *name;
    PyObject *qualname; /* NULL before Python 3.11 */
    PyObject *filename;
    PyObject *bytecode;
    PyObject *line_table;
    PyObject *exception_table; /* NULL before Python 3.11 */
    PyObject *names;
    PyObject *local_names; /* those below, in the order of the frame; NULL before Python 3.11 */
    PyObject *variables;
    PyObject *cells;
    PyObject *free_variables;
    PyObject *constants;
    const uint8_t *kinds; /* of local_names; borrowed from the bytes */
    int numbers[HEAD_NUMBERS]; /* arguments, positional only, keyword only, stack size, flags, first line */
    int variable_count;
};

static void parts_done(struct code_parts *parts)
{
    Py_XDECREF(parts->name);
    Py_XDECREF(parts->qualname);
    Py_XDECREF(parts->filename);
    Py_XDECREF(parts->bytecode);
    Py_XDECREF(parts->line_table);
    Py_XDECREF(parts->exception_table);
    Py_XDECREF(parts->names);
    Py_XDECREF(parts->local_names);
    Py_XDECREF(parts->variables);
    Py_XDECREF(parts->cells);
    Py_XDECREF(parts->free_variables);
    Py_XDECREF(parts->constants);
}

#if PY_VERSION_HEX >= 0x030B0000
static PyObject *read_qualname(struct code_reader *r, int shape, PyObject *name, PyCodeObject *outer)
{
    int kind = shape & CODE_QUALNAME_MASK;
    if (kind == CODE_QUALNAME_OWN)
        return read_text(r);
    if (kind == CODE_QUALNAME_NAME)
        return Py_NewRef(name);
    if (!outer)
        return damaged(r);
    return PyUnicode_FromFormat("%U%s%U", outer->co_qualname, kind == CODE_QUALNAME_LOCALS ? ".<locals>." : ".", name);
}
#endif

static int read_head(struct code_reader *r, PyCodeObject *outer, struct code_parts *parts)
{
    if (r->at == r->end)
        return -1;
    int shape = *r->at++;
    if (shape & ~(CODE_OWN_FILENAME | CODE_QUALNAME_MASK) || !(parts->name = read_text(r)))
        return -1;
#if PY_VERSION_HEX >= 0x030B0000
    if (!(parts->qualname = read_qualname(r, shape, parts->name, outer)))
        return -1;
#endif
    if (shape & CODE_OWN_FILENAME)
        parts->filename = read_text(r);
    else if (outer)
        parts->filename = Py_NewRef(outer->co_filename);
    if (!parts->filename)
        return -1;
    for (int i = 0; i < HEAD_NUMBERS; i++) {
        uint64_t value;
        if (read_number(r, &value) < 0 || value > UINT32_MAX)
            return -1;
        parts->numbers[i] = (int)from_zigzag(value);
    }
    return 0;
}

#if PY_VERSION_HEX >= 0x030B0000
/* Python's constructor wants them apart, and puts them together in just this way. */
static PyObject *names_of_kind(PyObject *names, const uint8_t *kinds, int kind)
{
    Py_ssize_t n = PyTuple_GET_SIZE(names), count = 0;
    for (Py_ssize_t i = 0; i < n; i++)
        count += (kinds[i] & kind) != 0;
    PyObject *found = PyTuple_New(count);
    for (Py_ssize_t i = 0, at = 0; found && i < n; i++)
        if (kinds[i] & kind)
            PyTuple_SET_ITEM(found, at++, Py_NewRef(PyTuple_GET_ITEM(names, i)));
    return found;
}

enum { KIND_HIDDEN = 0x10, KIND_LOCAL = 0x20, KIND_CELL = 0x40, KIND_FREE = 0x80 };

static int read_locals(struct code_reader *r, struct code_parts *parts)
{
    if (!(parts->local_names = read_texts(r)))
        return -1;
    Py_ssize_t n = PyTuple_GET_SIZE(parts->local_names);
    if (n > r->end - r->at)
        return -1;
    parts->kinds = r->at;
    r->at += n;
    parts->variables = names_of_kind(parts->local_names, parts->kinds, KIND_LOCAL);
    parts->cells = parts->variables ? names_of_kind(parts->local_names, parts->kinds, KIND_CELL) : NULL;
    parts->free_variables = parts->cells ? names_of_kind(parts->local_names, parts->kinds, KIND_FREE) : NULL;
    if (!parts->free_variables)
        return -1;
    parts->variable_count = (int)PyTuple_GET_SIZE(parts->variables);
    return 0;
}
#else
static int read_locals(struct code_reader *r, struct code_parts *parts)
{
    uint64_t count;
    if (read_number(r, &count) < 0 || count > INT_MAX)
        return -1;
    parts->variable_count = (int)count;
    parts->variables = read_texts(r);
    parts->cells = parts->variables ? read_texts(r) : NULL;
    parts->free_variables = parts->cells ? read_texts(r) : NULL;
    return parts->free_variables ? 0 : -1;
}
#endif

static PyCodeObject *make(const struct code_parts *p)
{
    const int *n = p->numbers;
#if PY_VERSION_HEX >= 0x030C0000
    return PyUnstable_Code_NewWithPosOnlyArgs(n[0], n[1], n[2], p->variable_count, n[3], n[4], p->bytecode,
                                              p->constants, p->names, p->variables, p->free_variables, p->cells,
                                              p->filename, p->name, p->qualname, n[5], p->line_table,
                                              p->exception_table);
#elif PY_VERSION_HEX >= 0x030B0000
    return PyCode_NewWithPosOnlyArgs(n[0], n[1], n[2], p->variable_count, n[3], n[4], p->bytecode, p->constants,
                                     p->names, p->variables, p->free_variables, p->cells, p->filename, p->name,
                                     p->qualname, n[5], p->line_table, p->exception_table);
#else
    return PyCode_NewWithPosOnlyArgs(n[0], n[1], n[2], p->variable_count, n[3], n[4], p->bytecode, p->constants,
                                     p->names, p->variables, p->free_variables, p->cells, p->filename, p->name, n[5],
                                     p->line_table);
#endif
}

/* Variables of a comprehension that was made part of a class body: the constructor cannot be told. */
static int hide_locals(PyCodeObject *code, const struct code_parts *parts)
{
#if PY_VERSION_HEX >= 0x030C0000
    Py_ssize_t n = PyBytes_GET_SIZE(code->co_localspluskinds);
    if (n != PyTuple_GET_SIZE(parts->local_names))
        return -1; /* they did not come out as they were */
    uint8_t *kinds = (uint8_t *)PyBytes_AS_STRING(code->co_localspluskinds); /* nobody else has it yet */
    for (Py_ssize_t i = 0; i < n; i++)
        if (parts->kinds[i] & KIND_HIDDEN)
            kinds[i] |= KIND_HIDDEN;
#else
    (void)code;
    (void)parts;
#endif
    return 0;
}

static int read_parts(struct code_reader *r, PyCodeObject *outer, struct code_parts *parts)
{
    if (read_head(r, outer, parts) < 0 || !(parts->bytecode = read_data(r)) || !(parts->line_table = read_data(r)))
        return -1;
    if (PyBytes_GET_SIZE(parts->bytecode) == 0 || PyBytes_GET_SIZE(parts->bytecode) % 2)
        return -1;
#if PY_VERSION_HEX >= 0x030B0000
    if (!(parts->exception_table = read_data(r)))
        return -1;
#endif
    return (parts->names = read_texts(r)) ? read_locals(r, parts) : -1;
}

/* Nested code needs the outer one's names before that is made: a stand-in that has nothing else. */
static PyObject *read_inner(struct code_reader *r, const struct code_parts *parts)
{
    PyCodeObject names;
    names.co_filename = parts->filename;
#if PY_VERSION_HEX >= 0x030B0000
    names.co_qualname = parts->qualname;
#endif
    return read_constants(r, &names);
}

static PyObject *read_code(struct code_reader *r, PyCodeObject *outer)
{
    struct code_parts parts = {0};
    PyCodeObject *code = NULL;
    if (read_parts(r, outer, &parts) == 0 && (parts.constants = read_inner(r, &parts)))
        code = make(&parts);
    if (code && hide_locals(code, &parts) < 0)
        Py_CLEAR(code);
    parts_done(&parts);
    if (!code && PyErr_ExceptionMatches(PyExc_SystemError))
        PyErr_Clear();
    return code ? (PyObject *)code : damaged(r);
}

uint32_t shoal__code_checksum(const uint8_t *data, size_t size)
{
    uint64_t hash = size * 0x9E3779B97F4A7C15u;
    for (; size >= 8; data += 8, size -= 8) {
        uint64_t word;
        memcpy(&word, data, sizeof word);
        if (__BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__)
            word = __builtin_bswap64(word);
        hash = (hash ^ word) * 0xD6E8FEB86659FD93u;
        hash ^= hash >> 32;
    }
    for (; size > 0; data++, size--)
        hash = (hash ^ *data) * 0x100000001b3u;
    hash ^= hash >> 29;
    hash *= 0xD6E8FEB86659FD93u;
    return (uint32_t)(hash >> 32);
}

static int check_head(struct shoal_pickle_state *state, const uint8_t *at, Py_ssize_t size)
{
    PyObject *error = state->shared.unpickling_error;
    if (size < SHOAL_CODE_HEADER_SIZE) {
        PyErr_SetString(error, "a pickled function's code is cut short");
        return -1;
    }
    if (at[0] != PY_MAJOR_VERSION || at[1] != PY_MINOR_VERSION) {
        PyErr_Format(error,
                     "this pickle carries a function by value, whose bytecode was made by Python %d.%d; "
                     "Python %d.%d cannot run it",
                     at[0], at[1], PY_MAJOR_VERSION, PY_MINOR_VERSION);
        return -1;
    }
    uint32_t sum = (uint32_t)at[2] | (uint32_t)at[3] << 8 | (uint32_t)at[4] << 16 | (uint32_t)at[5] << 24;
    if (sum != shoal__code_checksum(at + SHOAL_CODE_HEADER_SIZE, (size_t)(size - SHOAL_CODE_HEADER_SIZE))) {
        PyErr_SetString(error, "a pickled function's code is damaged");
        return -1;
    }
    return 0;
}

PyObject *shoal__code_read(struct shoal_pickle_state *state, PyObject *bytes, PyObject *odd)
{
    if (!PyBytes_CheckExact(bytes)) {
        PyErr_SetString(state->shared.unpickling_error, "a pickled function's code must be bytes");
        return NULL;
    }
    const uint8_t *start = (const uint8_t *)PyBytes_AS_STRING(bytes);
    Py_ssize_t size = PyBytes_GET_SIZE(bytes);
    if (check_head(state, start, size) < 0)
        return NULL;
    struct code_reader r = {start + SHOAL_CODE_HEADER_SIZE, start + size, odd, state->shared.unpickling_error};
    PyObject *code = read_code(&r, NULL);
    if (code && r.at != r.end) {
        Py_DECREF(code);
        return damaged(&r);
    }
    return code;
}

PyObject *shoal__code_from_bytes(struct shoal_pickle_state *state, PyObject *bytes)
{
    PyObject *known = state->writer.code_by_bytes;
    PyObject *code = PyBytes_CheckExact(bytes) ? PyDict_GetItemWithError(known, bytes) : NULL; /* borrowed */
    if (code || PyErr_Occurred())
        return Py_XNewRef(code);
    code = shoal__code_read(state, bytes, NULL);
    if (!code || PyBytes_GET_SIZE(bytes) > KEPT_SIZE_MAX)
        return code;
    if (PyDict_GET_SIZE(known) >= CODES_KEPT)
        PyDict_Clear(known);
    if (PyDict_SetItem(known, bytes, code) < 0)
        Py_CLEAR(code);
    return code;
}

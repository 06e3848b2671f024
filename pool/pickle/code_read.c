/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * code_read.c - a code object from the bytes that code_write.c makes.
 *
 * Every length is held against what is left before anything is allocated for it, so damage that the checksum does not
 * see costs an exception and no more memory than the bytes themselves are worth. What the bytecode does when it runs
 * is beyond any check.
 */
#include "code_reader.h"

PyObject *shoal__code_damaged(const struct code_reader *r)
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

/* Text of `size` bytes. */
static PyObject *read_characters(struct code_reader *r, uint64_t size, bool ascii)
{
    if (size > (size_t)(r->end - r->at))
        return shoal__code_damaged(r);
    const char *text = (const char *)r->at;
    r->at += size;
    if (!ascii)
        return PyUnicode_DecodeUTF8(text, (Py_ssize_t)size, "surrogatepass");
    if (size <= 1) /* these have one object each */
        return PyUnicode_DecodeASCII(text, (Py_ssize_t)size, NULL);
    uint8_t high = 0;
    for (uint64_t i = 0; i < size; i++)
        high |= (uint8_t)text[i];
    if (high >= 0x80)
        return shoal__code_damaged(r);
    PyObject *str = PyUnicode_New((Py_ssize_t)size, 127);
    if (str)
        memcpy(PyUnicode_DATA(str), text, size);
    return str;
}

PyObject *shoal__code_read_text(struct code_reader *r)
{
    uint64_t head;
    return read_number(r, &head) < 0 ? shoal__code_damaged(r) : read_characters(r, head >> 1, !(head & 1));
}

/* Names, and what comes again and again like them. */
static PyObject *read_label(struct code_reader *r, uint64_t size, bool ascii)
{
    if (!ascii || size > (size_t)(r->end - r->at))
        return read_characters(r, size, ascii);
    PyObject *str = shoal__kept_name(r->state, r->at, size);
    if (str) {
        r->at += size;
        return str;
    }
    str = read_characters(r, size, true);
    if (str)
        shoal__keep_name(r->state, str);
    return str;
}

static PyObject *read_label_text(struct code_reader *r)
{
    uint64_t head;
    return read_number(r, &head) < 0 ? shoal__code_damaged(r) : read_label(r, head >> 1, !(head & 1));
}

static PyObject *read_name(struct code_reader *r)
{
    uint64_t head;
    if (read_number(r, &head) < 0)
        return shoal__code_damaged(r);
    if (head & CODE_NAME_KNOWN)
        return head >> 2 < r->known_count ? Py_NewRef(r->known[head >> 2]) : shoal__code_damaged(r);
    PyObject *name = read_label(r, head >> 2, !(head & 1));
    if (!name)
        return NULL;
    if (!PyUnicode_CHECK_INTERNED(name)) { /* before anybody else does it, and puts another object in its place */
        PyUnicode_InternInPlace(&name);
        shoal__keep_name(r->state, name);
    }
    if (r->known_count < SHOAL_KNOWN_NAMES)
        r->known[r->known_count++] = Py_NewRef(name);
    return name;
}

static PyObject *read_data(struct code_reader *r)
{
    Py_ssize_t size;
    if (read_count(r, &size) < 0)
        return shoal__code_damaged(r);
    r->at += size;
    return PyBytes_FromStringAndSize((const char *)r->at - size, size);
}

static PyObject *read_names(struct code_reader *r)
{
    Py_ssize_t n;
    if (read_count(r, &n) < 0)
        return shoal__code_damaged(r);
    PyObject *tuple = PyTuple_New(n);
    for (Py_ssize_t i = 0; tuple && i < n; i++) {
        PyObject *name = read_name(r);
        if (name)
            PyTuple_SET_ITEM(tuple, i, name);
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

static PyObject *read_constants(struct code_reader *r, PyCodeObject *outer)
{
    Py_ssize_t n;
    if (read_count(r, &n) < 0)
        return shoal__code_damaged(r);
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
        return shoal__code_damaged(r);
    return Py_NewRef(PyTuple_GET_ITEM(r->odd, (Py_ssize_t)index));
}

static PyObject *read_number_like(struct code_reader *r, uint8_t tag)
{
    if (tag == CODE_TAG_INT) {
        uint64_t value;
        return read_number(r, &value) < 0 ? shoal__code_damaged(r) : PyLong_FromLongLong(from_zigzag(value));
    }
    if (tag == CODE_TAG_LONG) {
        Py_ssize_t size;
        if (read_count(r, &size) < 0)
            return shoal__code_damaged(r);
        r->at += size;
        return _PyLong_FromByteArray(r->at - size, (size_t)size, 1, 1);
    }
    Py_complex value = {0, 0};
    if (read_double(r, &value.real) < 0 || (tag == CODE_TAG_COMPLEX && read_double(r, &value.imag) < 0))
        return shoal__code_damaged(r);
    return tag == CODE_TAG_COMPLEX ? PyComplex_FromCComplex(value) : PyFloat_FromDouble(value.real);
}

static PyObject *read_nesting(struct code_reader *r, uint8_t tag, PyCodeObject *outer)
{
    if (Py_EnterRecursiveCall(" while reading a code object")) {
        r->limit = r->depth;
        return NULL;
    }
    r->depth++;
    PyObject *obj = tag == CODE_TAG_CODE ? shoal__code_read_object(r, outer) : read_constants(r, outer);
    r->depth--;
    Py_LeaveRecursiveCall();
    if (obj && tag == CODE_TAG_FROZENSET)
        Py_SETREF(obj, PyFrozenSet_New(obj));
    return obj;
}

static PyObject *read_constant(struct code_reader *r, PyCodeObject *outer)
{
    if (r->at == r->end)
        return shoal__code_damaged(r);
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
        return shoal__code_read_text(r);
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
        return shoal__code_damaged(r);
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
static PyObject *join(PyObject *outer, const char *middle, PyObject *name)
{
    if (!PyUnicode_IS_COMPACT_ASCII(outer) || !PyUnicode_IS_COMPACT_ASCII(name))
        return PyUnicode_FromFormat("%U%s%U", outer, middle, name);
    size_t outer_size = (size_t)PyUnicode_GET_LENGTH(outer), name_size = (size_t)PyUnicode_GET_LENGTH(name);
    size_t middle_size = strlen(middle);
    PyObject *whole = PyUnicode_New((Py_ssize_t)(outer_size + middle_size + name_size), 127);
    if (whole) {
        char *at = PyUnicode_DATA(whole);
        memcpy(at, PyUnicode_DATA(outer), outer_size);
        memcpy(at + outer_size, middle, middle_size);
        memcpy(at + outer_size + middle_size, PyUnicode_DATA(name), name_size);
    }
    return whole;
}

static PyObject *read_qualname(struct code_reader *r, int shape, PyObject *name, PyCodeObject *outer)
{
    int kind = shape & CODE_QUALNAME_MASK;
    if (kind == CODE_QUALNAME_OWN)
        return shoal__code_read_text(r);
    if (kind == CODE_QUALNAME_NAME)
        return Py_NewRef(name);
    if (!outer)
        return shoal__code_damaged(r);
    return join(outer->co_qualname, kind == CODE_QUALNAME_LOCALS ? ".<locals>." : ".", name);
}
#endif

static int read_head(struct code_reader *r, PyCodeObject *outer, struct code_parts *parts)
{
    if (r->at == r->end)
        return -1;
    int shape = *r->at++;
    if (shape & ~(CODE_OWN_FILENAME | CODE_QUALNAME_MASK) || !(parts->name = read_label_text(r)))
        return -1;
#if PY_VERSION_HEX >= 0x030B0000
    if (!(parts->qualname = read_qualname(r, shape, parts->name, outer)))
        return -1;
#endif
    if (shape & CODE_OWN_FILENAME)
        parts->filename = read_label_text(r);
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
    if (!(parts->local_names = read_names(r)))
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
    parts->variables = read_names(r);
    parts->cells = parts->variables ? read_names(r) : NULL;
    parts->free_variables = parts->cells ? read_names(r) : NULL;
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
    return (parts->names = read_names(r)) ? read_locals(r, parts) : -1;
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

PyObject *shoal__code_read_object(struct code_reader *r, PyCodeObject *outer)
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
    return code ? (PyObject *)code : shoal__code_damaged(r);
}

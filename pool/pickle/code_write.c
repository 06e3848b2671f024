/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * code_write.c - a code object as bytes, and on the way the globals that it uses.
 *
 * Not marshal: that writes frozensets in the order of their hashes and references where objects happen to be shared,
 * and costs more than all the rest of sending a new function. Here each value is written whole, in one order:
 *
 *   code      shape, name, [qualname], [filename], argument counts, stack size, flags, first line,
 *             bytecode, line table, exception table, names, local names and their kinds, constants
 *   number    7 bits a byte, lowest first; signed ones as zigzag
 *   text      number (size << 1 | not ASCII), then UTF-8
 *   name      as text, but shifted by one more; or number (index << 2 | 2) of one that was there before
 *   data      number (size), then bytes
 *
 * Nested code leaves out the file's name, and its qualified name where that follows from the outer one.
 *
 * Globals are found by reading the bytecode: the names of LOAD_GLOBAL, STORE_GLOBAL and DELETE_GLOBAL, and, for class
 * bodies nested in a function, of LOAD_NAME and LOAD_FROM_DICT_OR_GLOBALS. The bytecode is that of `co_code`, without
 * specialised instructions and with empty inline caches, so it can be read word by word.
 */
#include "code.h"

#include "sink.h"

enum { SCRATCH_SIZE = 2048, FEW_MARKS = 256 };

struct code_writer {
    struct shoal_sink sink; /* first member */
    const uint8_t *opcode_kinds;
    struct shoal_name_set *globals;
    PyObject *odd; /* list, or NULL */
    int depth;
    int limit; /* the depth at which recursion met the interpreter's limit, or 0 */
    PyObject *known[SHOAL_KNOWN_NAMES]; /* borrowed from the code: names are interned, so one is one object */
    size_t known_count;
    uint8_t scratch[SCRATCH_SIZE];
};

static int grow(struct shoal_sink *sink, size_t need)
{
    struct code_writer *w = (struct code_writer *)sink;
    size_t used = shoal_sink_used(sink);
    size_t capacity = 2 * (size_t)(sink->limit - sink->start);
    if (need > (size_t)PY_SSIZE_T_MAX / 4 - used) {
        PyErr_NoMemory();
        return -1;
    }
    if (capacity < used + need)
        capacity = used + need;
    bool first = sink->start == w->scratch;
    uint8_t *moved = PyMem_Realloc(first ? NULL : sink->start, capacity);
    if (!moved) {
        PyErr_NoMemory();
        return -1;
    }
    if (first)
        memcpy(moved, w->scratch, used);
    *sink = (struct shoal_sink){moved, moved + used, moved + capacity, grow};
    return 0;
}

/* ---- values ---- */

static int write_byte(struct code_writer *w, int byte)
{
    if (shoal_sink_room(&w->sink, 1) < 0)
        return -1;
    *w->sink.cursor++ = (uint8_t)byte;
    return 0;
}

static int write_number(struct code_writer *w, uint64_t value)
{
    if (shoal_sink_room(&w->sink, 10) < 0)
        return -1;
    while (value >= 0x80) {
        *w->sink.cursor++ = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    *w->sink.cursor++ = (uint8_t)value;
    return 0;
}

static int write_signed(struct code_writer *w, int64_t value)
{
    return write_number(w, (uint64_t)value << 1 ^ (uint64_t)(value >> 63));
}

static int write_raw(struct code_writer *w, const void *data, size_t size)
{
    if (shoal_sink_room(&w->sink, size) < 0)
        return -1;
    memcpy(w->sink.cursor, data, size);
    w->sink.cursor += size;
    return 0;
}

static int write_data(struct code_writer *w, PyObject *bytes)
{
    size_t size = (size_t)PyBytes_GET_SIZE(bytes);
    return write_number(w, size) < 0 ? -1 : write_raw(w, PyBytes_AS_STRING(bytes), size);
}

/* shift: how many bits the size leaves free in its number. */
static int write_shifted(struct code_writer *w, PyObject *text, int shift)
{
    if (PyUnicode_IS_COMPACT_ASCII(text)) {
        size_t length = (size_t)PyUnicode_GET_LENGTH(text);
        return write_number(w, length << shift) < 0 ? -1 : write_raw(w, PyUnicode_DATA(text), length);
    }
    PyObject *encoded = PyUnicode_AsEncodedString(text, "utf-8", "surrogatepass");
    if (!encoded)
        return -1;
    size_t size = (size_t)PyBytes_GET_SIZE(encoded);
    int result = write_number(w, size << shift | 1) < 0 ? -1 : write_raw(w, PyBytes_AS_STRING(encoded), size);
    Py_DECREF(encoded);
    return result;
}

static int write_text(struct code_writer *w, PyObject *text)
{
    return write_shifted(w, text, 1);
}

static int write_name(struct code_writer *w, PyObject *name)
{
    for (size_t i = 0; i < w->known_count; i++)
        if (w->known[i] == name)
            return write_number(w, i << 2 | CODE_NAME_KNOWN);
    if (w->known_count < SHOAL_KNOWN_NAMES)
        w->known[w->known_count++] = name;
    return write_shifted(w, name, 2);
}

static int write_names(struct code_writer *w, PyObject *tuple)
{
    if (write_number(w, (uint64_t)PyTuple_GET_SIZE(tuple)) < 0)
        return -1;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(tuple); i++)
        if (write_name(w, PyTuple_GET_ITEM(tuple, i)) < 0)
            return -1;
    return 0;
}

static int write_double(struct code_writer *w, double value)
{
    uint8_t bytes[8];
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(bits >> (8 * i));
    return write_raw(w, bytes, sizeof bytes);
}

static int write_long(struct code_writer *w, PyObject *obj)
{
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(obj, &overflow);
    if (!overflow)
        return write_byte(w, CODE_TAG_INT) < 0 ? -1 : write_signed(w, value);
    size_t bits = _PyLong_NumBits(obj);
    if (bits == (size_t)-1 && PyErr_Occurred())
        return -1;
    size_t size = bits / 8 + 1;
    if (write_byte(w, CODE_TAG_LONG) < 0 || write_number(w, size) < 0 || shoal_sink_room(&w->sink, size) < 0)
        return -1;
#if PY_VERSION_HEX >= 0x030D0000
    int result = _PyLong_AsByteArray((PyLongObject *)obj, w->sink.cursor, size, 1, 1, 1);
#else
    int result = _PyLong_AsByteArray((PyLongObject *)obj, w->sink.cursor, size, 1, 1);
#endif
    w->sink.cursor += size;
    return result;
}

/* ---- constants ---- */

static int write_constant(struct code_writer *w, PyObject *obj, PyCodeObject *outer);
static int write_code(struct code_writer *w, PyCodeObject *co, PyCodeObject *outer);

static int write_constants(struct code_writer *w, PyObject *tuple, PyCodeObject *outer)
{
    Py_ssize_t n = PyTuple_GET_SIZE(tuple);
    int result = write_number(w, (uint64_t)n);
    for (Py_ssize_t i = 0; result == 0 && i < n; i++)
        result = write_constant(w, PyTuple_GET_ITEM(tuple, i), outer);
    return result;
}

struct span {
    const uint8_t *start;
    size_t size;
};

static int compare_spans(const void *a, const void *b)
{
    const struct span *x = a, *y = b;
    int order = memcmp(x->start, y->start, x->size < y->size ? x->size : y->size);
    return order ? order : (x->size > y->size) - (x->size < y->size);
}

/* The elements were written from offset `first` on, and end where `ends` says: bring them into their order. */
static int sort_elements(struct code_writer *w, size_t first, const size_t *ends, size_t n)
{
    size_t size = shoal_sink_used(&w->sink) - first;
    uint8_t *copy = PyMem_Malloc(size + n * sizeof(struct span));
    if (!copy) {
        PyErr_NoMemory();
        return -1;
    }
    struct span *spans = (struct span *)(void *)copy;
    uint8_t *text = copy + n * sizeof(struct span);
    memcpy(text, w->sink.start + first, size);
    for (size_t i = 0; i < n; i++) {
        size_t start = i ? ends[i - 1] - first : 0;
        spans[i] = (struct span){text + start, ends[i] - first - start};
    }
    qsort(spans, n, sizeof spans[0], compare_spans);
    uint8_t *at = w->sink.start + first;
    for (size_t i = 0; i < n; i++) {
        memcpy(at, spans[i].start, spans[i].size);
        at += spans[i].size;
    }
    PyMem_Free(copy);
    return 0;
}

static int write_frozenset(struct code_writer *w, PyObject *set, PyCodeObject *outer)
{
    size_t n = (size_t)PySet_GET_SIZE(set), i = 0;
    if (write_byte(w, CODE_TAG_FROZENSET) < 0 || write_number(w, n) < 0)
        return -1;
    size_t first = shoal_sink_used(&w->sink);
    size_t *ends = PyMem_New(size_t, n ? n : 1);
    PyObject *elements = ends ? PySequence_Tuple(set) : PyErr_NoMemory();
    int result = elements ? 0 : -1;
    for (; result == 0 && i < n; i++) {
        result = write_constant(w, PyTuple_GET_ITEM(elements, (Py_ssize_t)i), outer);
        ends[i] = shoal_sink_used(&w->sink);
    }
    if (result == 0 && n > 1)
        result = sort_elements(w, first, ends, n);
    Py_XDECREF(elements);
    PyMem_Free(ends);
    return result;
}

/* Somebody built a code object by hand: whatever it is, it may be something that can be pickled. */
static int write_odd(struct code_writer *w, PyObject *obj)
{
    if (!w->odd && !(w->odd = PyList_New(0)))
        return -1;
    if (write_byte(w, CODE_TAG_ODD) < 0 || write_number(w, (uint64_t)PyList_GET_SIZE(w->odd)) < 0)
        return -1;
    return PyList_Append(w->odd, obj);
}

static int write_nesting(struct code_writer *w, PyObject *obj, PyTypeObject *type, PyCodeObject *outer)
{
    if (Py_EnterRecursiveCall(" while writing a code object")) {
        w->limit = w->depth;
        return -1;
    }
    w->depth++;
    int result;
    if (type == &PyTuple_Type)
        result = write_byte(w, CODE_TAG_TUPLE) < 0 ? -1 : write_constants(w, obj, outer);
    else if (type == &PyFrozenSet_Type)
        result = write_frozenset(w, obj, outer);
    else
        result = write_byte(w, CODE_TAG_CODE) < 0 ? -1 : write_code(w, (PyCodeObject *)obj, outer);
    w->depth--;
    Py_LeaveRecursiveCall();
    return result;
}

static int write_constant(struct code_writer *w, PyObject *obj, PyCodeObject *outer)
{
    PyTypeObject *type = Py_TYPE(obj);
    if (obj == Py_None)
        return write_byte(w, CODE_TAG_NONE);
    if (type == &PyUnicode_Type)
        return write_byte(w, CODE_TAG_STR) < 0 ? -1 : write_text(w, obj);
    if (type == &PyLong_Type)
        return write_long(w, obj);
    if (type == &PyTuple_Type || type == &PyCode_Type || type == &PyFrozenSet_Type)
        return write_nesting(w, obj, type, outer);
    if (type == &PyBool_Type)
        return write_byte(w, obj == Py_True ? CODE_TAG_TRUE : CODE_TAG_FALSE);
    if (type == &PyFloat_Type)
        return write_byte(w, CODE_TAG_FLOAT) < 0 ? -1 : write_double(w, PyFloat_AS_DOUBLE(obj));
    if (type == &PyBytes_Type)
        return write_byte(w, CODE_TAG_BYTES) < 0 ? -1 : write_data(w, obj);
    if (obj == Py_Ellipsis)
        return write_byte(w, CODE_TAG_ELLIPSIS);
    if (type == &PyComplex_Type) {
        Py_complex value = PyComplex_AsCComplex(obj);
        if (write_byte(w, CODE_TAG_COMPLEX) < 0 || write_double(w, value.real) < 0)
            return -1;
        return write_double(w, value.imag);
    }
    return write_odd(w, obj);
}

/* ---- the globals ---- */

/* Marks the names that are used as globals. */
static void mark_globals(const uint8_t *kinds, const uint8_t *byte, Py_ssize_t size, uint8_t *marks, size_t n)
{
    size_t high = 0;
    for (Py_ssize_t i = 0; i + 1 < size; i += 2) {
        uint8_t kind = kinds[byte[i]];
        if (kind == OPCODE_PLAIN) {
            high = 0;
            continue;
        }
        size_t argument = high << 8 | byte[i + 1];
        if (kind == OPCODE_EXTENDED_ARG) {
            high = argument;
            continue;
        }
        high = 0;
        argument >>= kind == OPCODE_GLOBAL_SHIFTED;
        if (argument < n)
            marks[argument] = 1;
    }
}

static int add_globals(struct code_writer *w, PyObject *bytecode, PyObject *names)
{
    size_t n = (size_t)PyTuple_GET_SIZE(names);
    uint8_t few[FEW_MARKS] = {0};
    uint8_t *marks = n <= FEW_MARKS ? few : PyMem_Calloc(n, 1);
    if (!marks) {
        PyErr_NoMemory();
        return -1;
    }
    mark_globals(w->opcode_kinds, (const uint8_t *)PyBytes_AS_STRING(bytecode), PyBytes_GET_SIZE(bytecode), marks, n);
    int result = 0;
    for (size_t i = 0; result == 0 && i < n; i++)
        if (marks[i])
            result = shoal__name_set_add(w->globals, PyTuple_GET_ITEM(names, (Py_ssize_t)i));
    if (marks != few)
        PyMem_Free(marks);
    return result;
}

/* ---- the code object ---- */

#if PY_VERSION_HEX >= 0x030B0000
/* outer + middle + name == whole? Only ASCII is looked at: what follows from it must not depend on chance. */
static bool is_joined(PyObject *whole, PyObject *outer, const char *middle, PyObject *name)
{
    if (!PyUnicode_IS_COMPACT_ASCII(whole) || !PyUnicode_IS_COMPACT_ASCII(outer) || !PyUnicode_IS_COMPACT_ASCII(name))
        return false;
    size_t size = (size_t)PyUnicode_GET_LENGTH(whole), outer_size = (size_t)PyUnicode_GET_LENGTH(outer);
    size_t middle_size = strlen(middle), name_size = (size_t)PyUnicode_GET_LENGTH(name);
    const char *at = PyUnicode_DATA(whole);
    return size == outer_size + middle_size + name_size && memcmp(at, PyUnicode_DATA(outer), outer_size) == 0 &&
           memcmp(at + outer_size, middle, middle_size) == 0 &&
           memcmp(at + outer_size + middle_size, PyUnicode_DATA(name), name_size) == 0;
}
#endif

static int shape_of(PyCodeObject *co, PyCodeObject *outer)
{
    int shape = 0;
    if (!outer || (co->co_filename != outer->co_filename && PyUnicode_Compare(co->co_filename, outer->co_filename)))
        shape |= CODE_OWN_FILENAME;
#if PY_VERSION_HEX >= 0x030B0000
    if (co->co_qualname == co->co_name || PyUnicode_Compare(co->co_qualname, co->co_name) == 0)
        return shape | CODE_QUALNAME_NAME;
    if (outer && is_joined(co->co_qualname, outer->co_qualname, ".<locals>.", co->co_name))
        return shape | CODE_QUALNAME_LOCALS;
    if (outer && is_joined(co->co_qualname, outer->co_qualname, ".", co->co_name))
        return shape | CODE_QUALNAME_MEMBER;
#endif
    return shape;
}

static int write_head(struct code_writer *w, PyCodeObject *co, PyCodeObject *outer)
{
    int shape = shape_of(co, outer);
    if (write_byte(w, shape) < 0 || write_text(w, co->co_name) < 0)
        return -1;
#if PY_VERSION_HEX >= 0x030B0000
    if ((shape & CODE_QUALNAME_MASK) == CODE_QUALNAME_OWN && write_text(w, co->co_qualname) < 0)
        return -1;
#endif
    if (shape & CODE_OWN_FILENAME && write_text(w, co->co_filename) < 0)
        return -1;
    const int numbers[] = {co->co_argcount,  co->co_posonlyargcount, co->co_kwonlyargcount,
                           co->co_stacksize, co->co_flags,           co->co_firstlineno};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        if (write_signed(w, numbers[i]) < 0)
            return -1;
    return 0;
}

static int write_locals(struct code_writer *w, PyCodeObject *co)
{
#if PY_VERSION_HEX >= 0x030B0000
    if (write_names(w, co->co_localsplusnames) < 0)
        return -1;
    return write_raw(w, PyBytes_AS_STRING(co->co_localspluskinds), (size_t)PyBytes_GET_SIZE(co->co_localspluskinds));
#else
    if (write_number(w, (uint64_t)co->co_nlocals) < 0 || write_names(w, co->co_varnames) < 0 ||
        write_names(w, co->co_cellvars) < 0)
        return -1;
    return write_names(w, co->co_freevars);
#endif
}

static int write_code(struct code_writer *w, PyCodeObject *co, PyCodeObject *outer)
{
#if PY_VERSION_HEX >= 0x030B0000
    PyObject *bytecode = PyCode_GetCode(co);
#else
    PyObject *bytecode = Py_NewRef(co->co_code);
#endif
    if (!bytecode)
        return -1;
    int result = -1;
    if (write_head(w, co, outer) == 0 && write_data(w, bytecode) == 0)
        result = add_globals(w, bytecode, co->co_names);
    Py_DECREF(bytecode);
    if (result < 0 || write_data(w, co->co_linetable) < 0)
        return -1;
#if PY_VERSION_HEX >= 0x030B0000
    if (write_data(w, co->co_exceptiontable) < 0)
        return -1;
#endif
    if (write_names(w, co->co_names) < 0 || write_locals(w, co) < 0)
        return -1;
    return write_constants(w, co->co_consts, co);
}

static void seal(uint8_t *bytes, size_t size)
{
    bytes[0] = PY_MAJOR_VERSION;
    bytes[1] = PY_MINOR_VERSION;
    uint32_t sum = shoal__code_checksum(bytes + SHOAL_CODE_HEADER_SIZE, size - SHOAL_CODE_HEADER_SIZE);
    for (int i = 0; i < 4; i++)
        bytes[2 + i] = (uint8_t)(sum >> (8 * i));
}

PyObject *shoal__code_write(struct shoal_pickle_state *state, PyObject *code, PyObject *source,
                            struct shoal_name_set *globals, PyObject **ret_odd)
{
    struct code_writer w;
    w.sink = (struct shoal_sink){w.scratch, w.scratch + SHOAL_CODE_HEADER_SIZE, w.scratch + SCRATCH_SIZE, grow};
    w.opcode_kinds = state->opcodes.kinds;
    w.globals = globals;
    w.odd = NULL;
    w.depth = w.limit = 0;
    w.known_count = 0;
    PyObject *bytes = NULL;
    if (write_code(&w, (PyCodeObject *)code, NULL) == 0 && (!source || write_text(&w, source) == 0)) {
        seal(w.sink.start, shoal_sink_used(&w.sink));
        bytes = PyBytes_FromStringAndSize((const char *)w.sink.start, (Py_ssize_t)shoal_sink_used(&w.sink));
    }
    if (w.sink.start != w.scratch)
        PyMem_Free(w.sink.start);
    if (bytes) {
        *ret_odd = w.odd;
    } else {
        Py_XDECREF(w.odd);
        shoal__code_is_deep(state->shared.pickling_error, w.limit);
    }
    return bytes;
}

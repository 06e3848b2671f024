/* SPDX-License-Identifier: BSD-3-Clause */
#include "decoder.h"

enum {
    PEEK_SIZE = 128 * 1024,  /* how much is asked of peek() */
    PIECE_SIZE = 1024 * 1024, /* what is larger is read piece by piece */
};

int shoal__truncated(const struct shoal_decoder *decoder)
{
    PyErr_SetString(decoder->state->shared.unpickling_error, "pickle data was truncated");
    return -1;
}

static PyObject *attribute_or_null(PyObject *obj, PyObject *name)
{
    PyObject *value = PyObject_GetAttr(obj, name);
    if (value == NULL && PyErr_ExceptionMatches(PyExc_AttributeError))
        PyErr_Clear();
    return value;
}

int shoal__source_open(struct shoal_decoder *decoder, PyObject *file)
{
    struct shoal__source *source = &decoder->source;
    const struct shoal_state_names *names = &decoder->state->names;
    shoal__source_close(source);
    source->peek = attribute_or_null(file, names->peek);
    if (source->peek == NULL && PyErr_Occurred())
        return -1;
    source->readinto = attribute_or_null(file, names->readinto);
    if (source->readinto == NULL && PyErr_Occurred())
        return -1;
    source->read = attribute_or_null(file, names->read);
    if (source->read == NULL && PyErr_Occurred())
        return -1;
    source->readline = attribute_or_null(file, names->readline);
    if (source->readline == NULL && PyErr_Occurred())
        return -1;
    if (source->read == NULL || source->readline == NULL) {
        PyErr_SetString(PyExc_TypeError, "file must have 'read' and 'readline' attributes");
        Py_CLEAR(source->read);
        return -1;
    }
    return 0;
}

static void drop_window(struct shoal__source *source)
{
    source->start = source->cursor = source->limit = NULL;
    source->peeked = false;
    if (source->window.obj != NULL)
        PyBuffer_Release(&source->window);
}

void shoal__source_close(struct shoal__source *source)
{
    drop_window(source);
    Py_CLEAR(source->read);
    Py_CLEAR(source->readline);
    Py_CLEAR(source->readinto);
    Py_CLEAR(source->peek);
}

int shoal__source_traverse(const struct shoal__source *source, visitproc visit, void *arg)
{
    Py_VISIT(source->read);
    Py_VISIT(source->readline);
    Py_VISIT(source->readinto);
    Py_VISIT(source->peek);
    Py_VISIT(source->window.obj);
    return 0;
}

/* data: what a method of the file returned, stolen; NULL is passed on. The window's size, or -1. */
static Py_ssize_t set_window(struct shoal_decoder *decoder, PyObject *data, bool peeked)
{
    struct shoal__source *source = &decoder->source;
    if (data == NULL)
        return -1;
    drop_window(source);
    int result = PyObject_GetBuffer(data, &source->window, PyBUF_CONTIG_RO);
    Py_DECREF(data);
    if (result < 0)
        return -1;
    source->start = source->cursor = source->window.buf;
    source->limit = source->start + source->window.len;
    source->peeked = peeked;
    if (!peeked)
        shoal__count_input(decoder, (size_t)source->window.len);
    return source->window.len;
}

static PyObject *call_with_size(PyObject *method, size_t size)
{
    PyObject *argument = PyLong_FromSize_t(size);
    if (argument == NULL)
        return NULL;
    PyObject *result = PyObject_CallOneArg(method, argument);
    Py_DECREF(argument);
    return result;
}

/* Move the file to the cursor. Leftover bytes that the file has given away cannot be joined with more: a bad frame. */
int shoal__source_settle(struct shoal_decoder *decoder)
{
    struct shoal__source *source = &decoder->source;
    if (!source->peeked || source->cursor == source->start)
        return 0;
    size_t used = (size_t)(source->cursor - source->start);
    source->start = source->cursor;
    PyObject *consumed = call_with_size(source->read, used);
    if (consumed == NULL)
        return -1;
    Py_DECREF(consumed);
    shoal__count_input(decoder, used);
    return 0;
}

static int before_reading(struct shoal_decoder *decoder)
{
    const struct shoal__source *source = &decoder->source;
    if (source->read == NULL)
        return shoal__truncated(decoder);
    if (!source->peeked && source->cursor < source->limit) {
        PyErr_SetString(decoder->state->shared.unpickling_error, "pickle exhausted before end of frame");
        return -1;
    }
    return shoal__source_settle(decoder);
}

/* 1: the window has enough now; 0: it has not; -1. */
static int peek_window(struct shoal_decoder *decoder, size_t size)
{
    struct shoal__source *source = &decoder->source;
    if (source->peek == NULL || size >= PEEK_SIZE)
        return 0;
    PyObject *data = call_with_size(source->peek, PEEK_SIZE);
    if (data == NULL && PyErr_ExceptionMatches(PyExc_NotImplementedError)) {
        PyErr_Clear();
        Py_CLEAR(source->peek);
        return 0;
    }
    Py_ssize_t got = set_window(decoder, data, true);
    return got < 0 ? -1 : (size_t)got >= size;
}

/* Append size bytes from the file to *bytes (a bytes object of *length bytes). How many came, or -1. */
static Py_ssize_t read_piece(struct shoal_decoder *decoder, PyObject **bytes, size_t length, size_t size)
{
    PyObject *data = call_with_size(decoder->source.read, size);
    if (data == NULL)
        return -1;
    Py_buffer view;
    int result = PyObject_GetBuffer(data, &view, PyBUF_CONTIG_RO);
    Py_DECREF(data);
    if (result < 0)
        return -1;
    Py_ssize_t got = view.len < (Py_ssize_t)size ? view.len : (Py_ssize_t)size;
    if (_PyBytes_Resize(bytes, (Py_ssize_t)length + got) < 0)
        got = -1;
    else
        memcpy(PyBytes_AS_STRING(*bytes) + length, view.buf, (size_t)got);
    PyBuffer_Release(&view);
    return got;
}

/* size bytes from where the file stands, as bytes; the file has settled and the window is used up. */
static PyObject *read_bytes(struct shoal_decoder *decoder, size_t size)
{
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, 0);
    size_t length = 0;
    while (bytes != NULL && length < size) {
        size_t piece = length < PIECE_SIZE ? PIECE_SIZE : length;
        if (piece > size - length)
            piece = size - length;
        Py_ssize_t got = read_piece(decoder, &bytes, length, piece);
        if (got == 0)
            shoal__truncated(decoder);
        if (got <= 0)
            Py_CLEAR(bytes);
        length += (size_t)got;
    }
    if (bytes != NULL)
        shoal__count_input(decoder, size);
    return bytes;
}

int shoal__source_more(struct shoal_decoder *decoder, size_t size)
{
    if (before_reading(decoder) < 0)
        return -1;
    int enough = peek_window(decoder, size);
    if (enough != 0)
        return enough < 0 ? -1 : 0;
    drop_window(&decoder->source);
    PyObject *data = size > PIECE_SIZE ? read_bytes(decoder, size) : call_with_size(decoder->source.read, size);
    Py_ssize_t got = set_window(decoder, data, false);
    if (got < 0)
        return -1;
    return (size_t)got < size ? shoal__truncated(decoder) : 0;
}

int shoal__source_opcode(struct shoal_decoder *decoder)
{
    const uint8_t *at = shoal__take(decoder, 1);
    if (at != NULL)
        return *at;
    if (!decoder->end_is_damage && PyErr_ExceptionMatches(decoder->state->shared.unpickling_error))
        PyErr_SetString(PyExc_EOFError, "Ran out of input");
    return -1;
}

/* Where the next newline ends, searched in the window only; NULL: not there. */
static const uint8_t *line_end(const struct shoal__source *source)
{
    size_t left = (size_t)(source->limit - source->cursor);
    const uint8_t *newline = left > 0 ? memchr(source->cursor, '\n', left) : NULL;
    return newline == NULL ? NULL : newline + 1;
}

Py_ssize_t shoal__take_line(struct shoal_decoder *decoder, char **ret_line)
{
    struct shoal__source *source = &decoder->source;
    const uint8_t *end = line_end(source);
    if (end == NULL) {
        if (before_reading(decoder) < 0)
            return -1;
        if (set_window(decoder, PyObject_CallNoArgs(source->readline), false) < 0)
            return -1;
        end = line_end(source);
        if (end == NULL)
            return shoal__truncated(decoder);
    }
    size_t length = (size_t)(end - source->cursor) - 1;
    char *line = shoal__scratch(decoder, length + 1);
    if (line == NULL)
        return -1;
    memcpy(line, source->cursor, length);
    line[length] = '\0';
    source->cursor = end;
    *ret_line = line;
    return (Py_ssize_t)length;
}

/* Take what the window has of size bytes, and settle: the rest is then to be read. How much it was, or -1. */
static Py_ssize_t take_leftover(struct shoal_decoder *decoder, uint8_t *ret_bytes, size_t size)
{
    struct shoal__source *source = &decoder->source;
    size_t left = (size_t)(source->limit - source->cursor);
    if (left > size)
        left = size;
    memcpy(ret_bytes, source->cursor, left);
    source->cursor += left;
    return shoal__source_settle(decoder) < 0 ? -1 : (Py_ssize_t)left;
}

static Py_ssize_t call_readinto(PyObject *readinto, uint8_t *ret_bytes, size_t size)
{
    PyObject *view = PyMemoryView_FromMemory((char *)ret_bytes, (Py_ssize_t)size, PyBUF_WRITE);
    PyObject *count = view == NULL ? NULL : PyObject_CallOneArg(readinto, view);
    Py_XDECREF(view);
    if (count == NULL)
        return -1;
    Py_ssize_t got = PyLong_AsSsize_t(count);
    Py_DECREF(count);
    if (got >= 0 && (size_t)got <= size)
        return got;
    if (!PyErr_Occurred())
        PyErr_SetString(PyExc_ValueError, "readinto() returned an impossible size");
    return -1;
}

static Py_ssize_t call_read(PyObject *read, uint8_t *ret_bytes, size_t size)
{
    PyObject *data = call_with_size(read, size);
    if (data == NULL)
        return -1;
    Py_buffer view;
    int result = PyObject_GetBuffer(data, &view, PyBUF_CONTIG_RO);
    Py_DECREF(data);
    if (result < 0)
        return -1;
    Py_ssize_t got = view.len < (Py_ssize_t)size ? view.len : (Py_ssize_t)size;
    memcpy(ret_bytes, view.buf, (size_t)got);
    PyBuffer_Release(&view);
    return got;
}

/* At most size bytes from where the file stands. How many came, or -1. */
static Py_ssize_t read_into(struct shoal_decoder *decoder, uint8_t *ret_bytes, size_t size)
{
    const struct shoal__source *source = &decoder->source;
    Py_ssize_t got = source->readinto != NULL ? call_readinto(source->readinto, ret_bytes, size)
                                              : call_read(source->read, ret_bytes, size);
    if (got > 0)
        shoal__count_input(decoder, (size_t)got);
    return got;
}

static int resize(PyObject **object, size_t size)
{
    if (PyBytes_Check(*object))
        return _PyBytes_Resize(object, (Py_ssize_t)size);
    return PyByteArray_Resize(*object, (Py_ssize_t)size);
}

static uint8_t *bytes_of(PyObject *object)
{
    return (uint8_t *)(PyBytes_Check(object) ? PyBytes_AS_STRING(object) : PyByteArray_AS_STRING(object));
}

/* Fill object, which is empty, with size bytes; it grows as they come. 0 or -1. */
static int fill(struct shoal_decoder *decoder, PyObject **object, size_t size)
{
    struct shoal__source *source = &decoder->source;
    size_t capacity = (size_t)(source->limit - source->cursor);
    if (source->read != NULL)
        capacity += PIECE_SIZE;
    if (capacity > size)
        capacity = size;
    if (resize(object, capacity) < 0)
        return -1;
    Py_ssize_t got = take_leftover(decoder, bytes_of(*object), capacity);
    for (size_t length = 0; got >= 0;) {
        length += (size_t)got;
        if (length == size)
            return 0;
        if (length == capacity) {
            capacity = size - capacity < capacity ? size : capacity * 2;
            if (resize(object, capacity) < 0)
                return -1;
        }
        got = read_into(decoder, bytes_of(*object) + length, capacity - length);
        if (got == 0)
            return shoal__truncated(decoder);
    }
    return -1;
}

/* Does it have to be read, instead of being at hand (or missing)? */
static bool must_read(const struct shoal__source *source, size_t size)
{
    return source->read != NULL && (size_t)(source->limit - source->cursor) < size;
}

static PyObject *filled(struct shoal_decoder *decoder, PyObject *object, size_t size)
{
    if (object != NULL && fill(decoder, &object, size) < 0)
        Py_CLEAR(object);
    return object;
}

PyObject *shoal__take_bytes(struct shoal_decoder *decoder, size_t size)
{
    if (must_read(&decoder->source, size))
        return filled(decoder, PyBytes_FromStringAndSize(NULL, 0), size);
    const uint8_t *at = shoal__take(decoder, size);
    return at == NULL ? NULL : PyBytes_FromStringAndSize((const char *)at, (Py_ssize_t)size);
}

PyObject *shoal__take_bytearray(struct shoal_decoder *decoder, size_t size)
{
    if (must_read(&decoder->source, size))
        return filled(decoder, PyByteArray_FromStringAndSize(NULL, 0), size);
    const uint8_t *at = shoal__take(decoder, size);
    return at == NULL ? NULL : PyByteArray_FromStringAndSize((const char *)at, (Py_ssize_t)size);
}

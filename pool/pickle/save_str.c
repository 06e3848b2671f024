/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * save_str.c - strings.
 *
 * From protocol 1 on a string is its UTF-8 form, lone surrogates included ("surrogatepass"). It is encoded straight
 * into the sink, so that no UTF-8 copy stays with the string object; pure ASCII, which is most, is a memcpy.
 */
#include "encoder.h"

/* The loops are made once for each kind, which is a constant in them. */
#define FOR_KIND __attribute__((always_inline)) inline

static FOR_KIND size_t size_of_kind(int kind, const void *data, Py_ssize_t length)
{
    size_t size = 0;
    for (Py_ssize_t i = 0; i < length; i++) {
        Py_UCS4 c = PyUnicode_READ(kind, data, i);
        size += 1 + (c >= 0x80) + (c >= 0x800) + (c >= 0x10000);
    }
    return size;
}

static size_t utf8_size(int kind, const void *data, Py_ssize_t length)
{
    switch (kind) {
    case PyUnicode_1BYTE_KIND:
        return size_of_kind(PyUnicode_1BYTE_KIND, data, length);
    case PyUnicode_2BYTE_KIND:
        return size_of_kind(PyUnicode_2BYTE_KIND, data, length);
    default:
        return size_of_kind(PyUnicode_4BYTE_KIND, data, length);
    }
}

/* Where ASCII comes, more of it mostly does: a word at a time. The index of the first character that is left. */
static FOR_KIND Py_ssize_t store_ascii(uint8_t **at, int kind, const void *data, Py_ssize_t i, Py_ssize_t length)
{
    const Py_ssize_t step = (Py_ssize_t)sizeof(uint64_t) / kind;
    uint64_t word;
    if (kind == PyUnicode_4BYTE_KIND || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__)
        return i;
    for (; i + step <= length; i += step, *at += step) {
        memcpy(&word, (const uint8_t *)data + i * kind, sizeof word);
        if (word & (kind == PyUnicode_1BYTE_KIND ? 0x8080808080808080 : 0xff80ff80ff80ff80))
            break;
        if (kind == PyUnicode_2BYTE_KIND) {
            word = (word | word >> 8) & 0x0000ffff0000ffff;
            word |= word >> 16;
        }
        memcpy(*at, &word, (size_t)step);
    }
    return i;
}

static FOR_KIND uint8_t *store_kind(uint8_t *at, int kind, const void *data, Py_ssize_t length)
{
    Py_ssize_t i = 0;
    while (i < length) {
        Py_UCS4 c = PyUnicode_READ(kind, data, i);
        i++;
        if (c < 0x80) {
            *at++ = (uint8_t)c;
            i = store_ascii(&at, kind, data, i, length);
        } else if (c < 0x800) {
            at[0] = (uint8_t)(0xc0 | c >> 6);
            at[1] = (uint8_t)(0x80 | (c & 0x3f));
            at += 2;
        } else if (c < 0x10000) {
            at[0] = (uint8_t)(0xe0 | c >> 12);
            at[1] = (uint8_t)(0x80 | (c >> 6 & 0x3f));
            at[2] = (uint8_t)(0x80 | (c & 0x3f));
            at += 3;
        } else {
            at[0] = (uint8_t)(0xf0 | c >> 18);
            at[1] = (uint8_t)(0x80 | (c >> 12 & 0x3f));
            at[2] = (uint8_t)(0x80 | (c >> 6 & 0x3f));
            at[3] = (uint8_t)(0x80 | (c & 0x3f));
            at += 4;
        }
    }
    return at;
}

uint8_t *shoal__store_utf8(uint8_t *at, int kind, const void *data, Py_ssize_t length)
{
    switch (kind) {
    case PyUnicode_1BYTE_KIND:
        return store_kind(at, PyUnicode_1BYTE_KIND, data, length);
    case PyUnicode_2BYTE_KIND:
        return store_kind(at, PyUnicode_2BYTE_KIND, data, length);
    default:
        return store_kind(at, PyUnicode_4BYTE_KIND, data, length);
    }
}

/* UTF-8 that somebody has asked for stays with a string that is not ASCII: borrowed, or NULL. */
static const char *ready_utf8(PyObject *obj, size_t *ret_size)
{
    const PyCompactUnicodeObject *text = (const PyCompactUnicodeObject *)obj;
    if (text->utf8)
        *ret_size = (size_t)text->utf8_length;
    return text->utf8;
}

/* The size of the header, or 0 with an exception. */
static size_t make_header(struct shoal_encoder *e, uint8_t *header, size_t size)
{
    size_t header_size;
    if (size <= 0xff && e->protocol >= 4) {
        header[0] = OP_SHORT_BINUNICODE;
        header_size = 2;
    } else if (size <= UINT32_MAX) {
        header[0] = OP_BINUNICODE;
        header_size = 5;
    } else if (e->protocol >= 4) {
        header[0] = OP_BINUNICODE8;
        header_size = 9;
    } else {
        PyErr_SetString(PyExc_OverflowError,
                        "serializing a string larger than 4 GiB requires pickle protocol 4 or higher");
        return 0;
    }
    shoal__store_le(header + 1, size, (int)header_size - 1);
    return header_size;
}

/* A frame or a file is in the way: the data are needed in one piece, for a file as an object. */
static int save_apart(struct shoal_encoder *e, PyObject *obj, const uint8_t *header, size_t header_size)
{
    if (PyUnicode_IS_ASCII(obj) && !e->hooks.file_write)
        return shoal__blob(e, header, header_size, PyUnicode_DATA(obj), (size_t)PyUnicode_GET_LENGTH(obj), NULL);
    PyObject *encoded = PyUnicode_AsEncodedString(obj, "utf-8", "surrogatepass");
    if (!encoded)
        return -1;
    int result = shoal__blob(e, header, header_size, PyBytes_AS_STRING(encoded), (size_t)PyBytes_GET_SIZE(encoded),
                             encoded);
    Py_DECREF(encoded);
    return result;
}

enum { BYTES_PER_CHARACTER = 4 }; /* at most */

/* Without counting first: room for the longest that it may be, in the frame, and a header of one size. */
static int save_in_one_pass(struct shoal_encoder *e, PyObject *obj, Py_ssize_t length)
{
    enum { HEADER = 5 };
    int kind = (int)PyUnicode_KIND(obj);
    size_t longest = (size_t)length * (kind == PyUnicode_4BYTE_KIND ? BYTES_PER_CHARACTER : (size_t)kind + 1);
    uint8_t *at = shoal__room(e, HEADER + longest + 1);
    if (!at)
        return -1;
    uint8_t *end = shoal__store_utf8(at + HEADER, kind, PyUnicode_DATA(obj), length);
    at[0] = OP_BINUNICODE;
    shoal__store_le(at + 1, (uint64_t)(end - at - HEADER), HEADER - 1);
    e->sink->cursor = end;
    return 0;
}

static int save_utf8(struct shoal_encoder *e, PyObject *obj)
{
    Py_ssize_t length = PyUnicode_GET_LENGTH(obj);
    int kind = (int)PyUnicode_KIND(obj);
    const void *data = PyUnicode_DATA(obj);
    bool ascii = PyUnicode_IS_ASCII(obj);
    size_t size = (size_t)length;
    const char *ready = ascii ? data : ready_utf8(obj, &size);
    if (!ready && length > 0xff && length < SHOAL_FRAME_SIZE_TARGET / BYTES_PER_CHARACTER)
        return save_in_one_pass(e, obj, length);
    if (!ready)
        size = utf8_size(kind, data, length);
    uint8_t header[9];
    size_t header_size = make_header(e, header, size);
    if (header_size == 0)
        return -1;
    if (size >= SHOAL_FRAME_SIZE_TARGET && (e->framing || e->hooks.file_write))
        return save_apart(e, obj, header, header_size);
    uint8_t *at = shoal__room(e, header_size + size + 1);
    if (!at)
        return -1;
    memcpy(at, header, header_size);
    if (ready)
        memcpy(at + header_size, ready, size);
    else
        shoal__store_utf8(at + header_size, kind, data, length);
    e->sink->cursor = at + header_size + size;
    return 0;
}

/* Protocol 0: a line of "raw-unicode-escape", in which backslash, NUL, newline, return and ^Z are escaped as well. */
static int save_line(struct shoal_encoder *e, PyObject *obj)
{
    if (shoal__op(e, OP_UNICODE) < 0)
        return -1;
    int kind = (int)PyUnicode_KIND(obj);
    const void *data = PyUnicode_DATA(obj);
    Py_ssize_t length = PyUnicode_GET_LENGTH(obj);
    for (Py_ssize_t i = 0; i < length; i++) {
        Py_UCS4 c = PyUnicode_READ(kind, data, i);
        int result;
        if (c >= 0x10000)
            result = shoal__text(e, "\\U%08x", (unsigned)c);
        else if (c >= 0x100 || c == '\\' || c == 0 || c == '\n' || c == '\r' || c == 0x1a)
            result = shoal__text(e, "\\u%04x", (unsigned)c);
        else
            result = shoal__op(e, (int)c);
        if (result < 0)
            return -1;
    }
    return shoal__op(e, '\n');
}

int shoal__save_constant(struct shoal_encoder *e, PyObject *str)
{
    return e->binary ? save_utf8(e, str) : save_line(e, str);
}

/*
 * The stream of a class by value, and of its instances, must not depend on which strings are interned or shared, which
 * is another thing wherever it was loaded: from the first class on, equal strings are one. It lives as long as the
 * stream.
 */
static int save_equal_str(struct shoal_encoder *e, PyObject *obj)
{
    int64_t index = shoal__find(e, obj);
    if (index >= 0 && e->texts.slots && !e->in_class)
        return shoal__get_index(e, index);
    if (!e->texts.slots && shoal_texts_begin(&e->texts, &e->memo) < 0)
        return -1;
    PyObject *first = shoal_texts_find(&e->texts, &e->memo, obj); /* borrowed */
    if (first)
        index = shoal__find(e, first);
    if (index >= 0)
        return shoal__get_index(e, index);
    Py_INCREF(obj); /* a file's write() may drop what it sits in */
    int result = shoal__save_constant(e, obj);
    size_t place = e->memo.count;
    if (result == 0)
        result = shoal__put(e, obj);
    if (result == 0 && e->memo.count > place) /* fast mode has no memo */
        result = shoal_texts_add(&e->texts, &e->memo, obj, place);
    Py_DECREF(obj);
    return result;
}

int shoal__save_held_str(struct shoal_encoder *e, PyObject *obj, Py_ssize_t holders)
{
    /* The memo holds references: what has only its holders' cannot be in it. */
    bool lone = Py_REFCNT(obj) <= holders;
    if (e->in_class || (e->texts.slots && !(lone && e->sparse)))
        return save_equal_str(e, obj);
    if (!lone) {
        int64_t index = shoal__find(e, obj);
        if (index >= 0)
            return shoal__get_index(e, index);
    }
    Py_INCREF(obj); /* a file's write() may drop what it sits in */
    int result = shoal__save_constant(e, obj);
    if (result == 0 && !(lone && e->sparse))
        result = shoal__put(e, obj);
    Py_DECREF(obj);
    return result;
}

int shoal__save_str(struct shoal_encoder *e, PyObject *obj)
{
    return shoal__save_held_str(e, obj, 1);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* load_strings.c - str, bytes and bytearray with a counted length, and the 8-bit strings of Python 2. */
#include "decoder.h"

/*
 * Copies size bytes; the high bits of all of them, together. The last word overlaps the one before it: what is copied
 * last is what counts, and it has been looked at, too.
 */
static inline uint64_t copy_and_look(char *to, const uint8_t *from, size_t size)
{
    uint64_t seen = 0;
    uint64_t word;
    size_t i = 0;
    for (; i + sizeof(word) <= size; i += sizeof(word)) {
        word = shoal__fetch(from + i, sizeof(word));
        memcpy(to + i, &word, sizeof(word));
        seen |= word;
    }
    if (i > 0 && i < size) {
        i = size - sizeof(word);
        word = shoal__fetch(from + i, sizeof(word));
        memcpy(to + i, &word, sizeof(word));
        return (seen | word) & 0x8080808080808080u;
    }
    for (; i < size; i++) {
        word = shoal__fetch(from + i, 1);
        to[i] = (char)word;
        seen |= word;
    }
    return seen & 0x8080808080808080u;
}

/* Of any alignment. A volatile read is made once. */
typedef uint64_t block __attribute__((vector_size(16), aligned(1), may_alias));
enum { BLOCKS = 4, STRETCH = BLOCKS * sizeof(block) };

/* Copies whole stretches up to the first that is not ASCII, and that one, too. How much, and the high bits seen. */
static size_t copy_stretches(char *to, const uint8_t *from, size_t size, uint64_t *ret_seen)
{
    size_t i = 0;
    uint64_t high = 0;
    while (!high && i + STRETCH <= size) {
        block seen = {0, 0};
        for (size_t j = 0; j < BLOCKS; j++) {
            block here = *(const volatile block *)(from + i + j * sizeof(block));
            memcpy(to + i + j * sizeof(block), &here, sizeof here);
            seen |= here;
        }
        high = (seen[0] | seen[1]) & 0x8080808080808080u;
        i += STRETCH;
    }
    *ret_seen = high;
    return i;
}

/*
 * UTF-8 with surrogates. Nearly all text is ASCII, so it is copied into an ASCII string right away, in one pass; if it
 * turns out not to be, that copy is what gets decoded: the bytes of the stream are looked at once. Those of a bytes
 * object nobody changes, and a long text is decoded from there.
 */
PyObject *shoal__make_text(const struct shoal_decoder *decoder, const uint8_t *bytes, size_t size)
{
    if (size <= 1) {
        char single = size == 0 ? '\0' : (char)shoal__fetch(bytes, 1);
        return PyUnicode_DecodeUTF8(&single, (Py_ssize_t)size, "surrogatepass");
    }
    if (decoder->unchanging && size >= STRETCH && *bytes >= 0x80) /* no need to try */
        return PyUnicode_DecodeUTF8((const char *)bytes, (Py_ssize_t)size, "surrogatepass");
    PyObject *text = PyUnicode_New((Py_ssize_t)size, 127);
    if (text == NULL)
        return NULL;
    char *copy = PyUnicode_DATA(text);
    uint64_t high = 0;
    size_t copied = size >= STRETCH ? copy_stretches(copy, bytes, size, &high) : 0;
    bool from_stream = high && decoder->unchanging;
    if (!from_stream)
        high |= copy_and_look(copy + copied, bytes + copied, size - copied);
    if (high) {
        const char *encoded = from_stream ? (const char *)bytes : copy;
        PyObject *decoded = PyUnicode_DecodeUTF8(encoded, (Py_ssize_t)size, "surrogatepass");
        Py_DECREF(text);
        return decoded;
    }
    return text;
}

/* The length of what follows, which must fit into memory. 0, or -1 with UnpicklingError. */
static int take_length(struct shoal_decoder *decoder, size_t size_of_length, const char *opcode, size_t *ret_size)
{
    const uint8_t *at = shoal__take(decoder, size_of_length);
    if (at == NULL)
        return -1;
    uint64_t size = shoal__fetch(at, size_of_length);
    if (size > PY_SSIZE_T_MAX) {
        PyErr_Format(decoder->state->shared.unpickling_error, "%s exceeds system's maximum size of %zd bytes", opcode,
                     PY_SSIZE_T_MAX);
        return -1;
    }
    *ret_size = size;
    return 0;
}

int shoal__load_counted_text(struct shoal_decoder *decoder, size_t size_of_length)
{
    size_t size;
    if (take_length(decoder, size_of_length, "BINUNICODE", &size) < 0)
        return -1;
    const uint8_t *at = shoal__take(decoder, size);
    return at == NULL ? -1 : shoal__push(decoder, shoal__make_text(decoder, at, size));
}

int shoal__load_counted_bytes(struct shoal_decoder *decoder, size_t size_of_length)
{
    size_t size;
    if (take_length(decoder, size_of_length, "BINBYTES", &size) < 0)
        return -1;
    return shoal__push(decoder, shoal__take_bytes(decoder, size));
}

int shoal__load_counted_bytearray(struct shoal_decoder *decoder)
{
    size_t size;
    if (take_length(decoder, 8, "BYTEARRAY8", &size) < 0)
        return -1;
    return shoal__push(decoder, shoal__take_bytearray(decoder, size));
}

/* A str of Python 2: bytes, or decoded as the caller of loads asked. The codec may be anybody's code. */
PyObject *shoal__decode_string(struct shoal_decoder *decoder, const char *bytes, size_t size)
{
    if (decoder->keep_bytes)
        return PyBytes_FromStringAndSize(bytes, (Py_ssize_t)size);
    shoal__release(decoder);
    return PyUnicode_Decode(bytes, (Py_ssize_t)size, decoder->encoding, decoder->errors);
}

int shoal__load_counted_string(struct shoal_decoder *decoder, size_t size_of_length)
{
    size_t size;
    if (take_length(decoder, size_of_length, "BINSTRING", &size) < 0)
        return -1;
    if (size > INT32_MAX) {
        PyErr_SetString(decoder->state->shared.unpickling_error, "BINSTRING pickle has negative byte count");
        return -1;
    }
    PyObject *bytes = shoal__take_bytes(decoder, size);
    if (bytes == NULL || decoder->keep_bytes)
        return shoal__push(decoder, bytes);
    PyObject *text = shoal__decode_string(decoder, PyBytes_AS_STRING(bytes), size);
    Py_DECREF(bytes);
    return shoal__push(decoder, text);
}

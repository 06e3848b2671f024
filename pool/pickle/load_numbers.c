/* SPDX-License-Identifier: BSD-3-Clause */
/* load_numbers.c - int and float in binary. */
#include "decoder.h"

PyObject *shoal__make_float(const uint8_t *bytes)
{
    uint64_t bits = __builtin_bswap64(shoal__fetch(bytes, 8));
#if PY_BIG_ENDIAN
    bits = __builtin_bswap64(bits);
#endif
    double value;
    memcpy(&value, &bits, sizeof(value));
    return PyFloat_FromDouble(value);
}

/* Little-endian two's complement. A long one is copied before it is judged: the conversion reads it twice. */
PyObject *shoal__make_long(struct shoal_decoder *decoder, const uint8_t *bytes, size_t size)
{
    if (size == 0)
        return PyLong_FromLong(0);
    if (size <= sizeof(uint64_t)) {
        unsigned unused_bits = (unsigned)(64 - 8 * size);
        int64_t value = (int64_t)(shoal__fetch(bytes, size) << unused_bits) >> unused_bits;
        return PyLong_FromLongLong(value);
    }
    char *copy = shoal__scratch(decoder, size);
    if (copy == NULL)
        return NULL;
    memcpy(copy, bytes, size);
    return _PyLong_FromByteArray((const unsigned char *)copy, size, 1, 1);
}

int shoal__load_int4(struct shoal_decoder *decoder)
{
    const uint8_t *at = shoal__take(decoder, 4);
    return at == NULL ? -1 : shoal__push(decoder, PyLong_FromLong((int32_t)shoal__fetch(at, 4)));
}

int shoal__load_uint(struct shoal_decoder *decoder, size_t size)
{
    const uint8_t *at = shoal__take(decoder, size);
    return at == NULL ? -1 : shoal__push(decoder, PyLong_FromLong((long)shoal__fetch(at, size)));
}

int shoal__load_binfloat(struct shoal_decoder *decoder)
{
    const uint8_t *at = shoal__take(decoder, 8);
    return at == NULL ? -1 : shoal__push(decoder, shoal__make_float(at));
}

int shoal__load_counted_long(struct shoal_decoder *decoder, size_t size_of_length)
{
    const uint8_t *at = shoal__take(decoder, size_of_length);
    if (at == NULL)
        return -1;
    size_t size = shoal__fetch(at, size_of_length);
    if (size > INT32_MAX) {
        PyErr_SetString(decoder->state->shared.unpickling_error, "LONG pickle has negative byte count");
        return -1;
    }
    at = shoal__take(decoder, size);
    return at == NULL ? -1 : shoal__push(decoder, shoal__make_long(decoder, at, size));
}

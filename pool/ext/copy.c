/* SPDX-License-Identifier: BSD-3-Clause */
/* copy.c - see copy.h. */
#include "copy.h"

#include <string.h>

#ifdef __SSE2__
#include <emmintrin.h>

#define LINE_BYTES 64
#define PREFETCH_BYTES 1024 /* ahead; a prefetch past the end does no harm */

/* SSE2 is what every x86-64 has; AVX2 and AVX-512 were no faster, memory is the limit. */
static void copy_streaming(uint8_t *destination, const uint8_t *source, size_t size_bytes)
{
    size_t head = -(uintptr_t)destination % LINE_BYTES;
    memcpy(destination, source, head);
    destination += head;
    source += head;
    size_bytes -= head;
    for (; size_bytes >= LINE_BYTES; size_bytes -= LINE_BYTES) {
        const __m128i *from = (const __m128i *)(const void *)source;
        __m128i *to = (__m128i *)(void *)destination;
        __m128i first = _mm_loadu_si128(from), second = _mm_loadu_si128(from + 1);
        __m128i third = _mm_loadu_si128(from + 2), fourth = _mm_loadu_si128(from + 3);
        _mm_prefetch((const char *)source + PREFETCH_BYTES, _MM_HINT_NTA);
        _mm_stream_si128(to, first);
        _mm_stream_si128(to + 1, second);
        _mm_stream_si128(to + 2, third);
        _mm_stream_si128(to + 3, fourth);
        source += LINE_BYTES;
        destination += LINE_BYTES;
    }
    _mm_sfence(); /* streaming stores are weakly ordered: they must be there before the message is published */
    memcpy(destination, source, size_bytes);
}
#endif

void copy_bytes(uint8_t *destination, const uint8_t *source, size_t size_bytes, bool streaming)
{
#ifdef __SSE2__
    if (streaming && size_bytes >= 4 * LINE_BYTES) {
        copy_streaming(destination, source, size_bytes);
        return;
    }
#endif
    (void)streaming;
    memcpy(destination, source, size_bytes);
}

/* A row of items that do not touch. With a constant size, memcpy is a load and a store. */
static uint8_t *copy_row(uint8_t *destination, const uint8_t *source, ptrdiff_t count, ptrdiff_t stride,
                         size_t item_bytes)
{
#define ROW_OF(size) \
    case size: \
        for (; count > 0; count--, source += stride, destination += (size)) \
            memcpy(destination, source, (size)); \
        return destination;
    switch (item_bytes) {
        ROW_OF(1)
        ROW_OF(2)
        ROW_OF(4)
        ROW_OF(8)
        ROW_OF(16)
    default:
        for (; count > 0; count--, source += stride, destination += item_bytes)
            memcpy(destination, source, item_bytes);
        return destination;
    }
#undef ROW_OF
}

uint8_t *copy_items(uint8_t *destination, const uint8_t *source, int dimensions, const ptrdiff_t *shape,
                    const ptrdiff_t *strides, size_t item_bytes, bool streaming)
{
    /* What lies side by side already is one large item. */
    while (dimensions > 0 && (strides[dimensions - 1] == (ptrdiff_t)item_bytes || shape[dimensions - 1] == 1))
        item_bytes *= (size_t)shape[--dimensions];
    if (dimensions == 0) {
        copy_bytes(destination, source, item_bytes, streaming);
        return destination + item_bytes;
    }
    if (dimensions == 1)
        return copy_row(destination, source, shape[0], strides[0], item_bytes);
    for (ptrdiff_t i = 0; i < shape[0]; i++)
        destination = copy_items(destination, source + i * strides[0], dimensions - 1, shape + 1, strides + 1,
                                 item_bytes, streaming);
    return destination;
}

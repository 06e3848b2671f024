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

void copy_bytes(uint8_t *destination, const uint8_t *source, size_t size_bytes, uint64_t message_bytes)
{
#ifdef __SSE2__
    if (message_bytes >= COPY_STREAMING_MIN && size_bytes >= 4 * LINE_BYTES) {
        copy_streaming(destination, source, size_bytes);
        return;
    }
#endif
    (void)message_bytes;
    memcpy(destination, source, size_bytes);
}

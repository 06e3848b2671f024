/* SPDX-License-Identifier: BSD-3-Clause */
/* digest.h - numbers of 64 bits made of data: well mixed, no secret, the same in every process. */
#ifndef SHOAL_PICKLE_DIGEST_H
#define SHOAL_PICKLE_DIGEST_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint64_t rotated(uint64_t x, int bits)
{
    return x << bits | x >> (64 - bits);
}

static inline uint64_t mixed(uint64_t h, uint64_t value)
{
    value *= 0x87c37b91114253d5u;
    value = rotated(value, 31) * 0x4cf5ad432745937fu;
    h ^= value;
    return rotated(h, 27) * 5 + 0x52dce729u;
}

static inline uint64_t finished(uint64_t h)
{
    h = (h ^ h >> 33) * 0xff51afd7ed558ccdu;
    h = (h ^ h >> 33) * 0xc4ceb9fe1a85ec53u;
    return h ^ h >> 33;
}

static inline uint64_t digest_of_bytes(uint64_t h, const void *data, size_t size)
{
    const uint8_t *at = data;
    h = mixed(h, size);
    for (; size >= 8; at += 8, size -= 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        h = mixed(h, word);
    }
    uint64_t rest = 0;
    memcpy(&rest, at, size);
    return finished(mixed(h, rest));
}

static inline uint64_t digest_of_text(uint64_t h, const char *text)
{
    return digest_of_bytes(h, text, strlen(text));
}

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * copy.h - bytes into memory that another process reads next.
 *
 * The problem: memcpy into a block that another core has read last first fetches each line from that core (or, once the
 * message is larger than the caches, from memory), only to overwrite it; and throws out of the cache what we worked on.
 *
 * The answer: from COPY_STREAMING_MIN bytes per message on, stores that bypass the caches. Measured on a Zen 4 with
 * 32 MiB of L3, copying with memcpy of glibc and then reading on another core, against the same with these stores: 585
 * and 392 microseconds for 4 MiB, 1.65 and 1.12 ms for 8 MiB, 20 and 16 ms for 128 MiB. Where writer and reader run on
 * one core, they lose as long as the message fits into the cache (4 MiB: 0.28 ms for 0.16) and win above that; so the
 * bound is a compromise. On machines other than x86-64 all of it is memcpy.
 *
 * Who may call it: anybody, without the GIL. The ranges do not overlap.
 */
#ifndef SHOAL_EXT_COPY_H
#define SHOAL_EXT_COPY_H

#include <stddef.h>
#include <stdint.h>

#define COPY_STREAMING_MIN (UINT64_C(4) << 20)

/* message_bytes: of all pieces of the message that this one belongs to. */
void copy_bytes(uint8_t *destination, const uint8_t *source, size_t size_bytes, uint64_t message_bytes);

/*
 * The items of an array that does not lie in one piece, side by side, the last index varying fastest. `strides` are in
 * bytes, of any sign; returns the end of what was written.
 */
uint8_t *copy_items(uint8_t *destination, const uint8_t *source, int dimensions, const ptrdiff_t *shape,
                    const ptrdiff_t *strides, size_t item_bytes, uint64_t message_bytes);

#endif

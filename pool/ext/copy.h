/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * copy.h - bytes into memory that another process reads next.
 *
 * The problem: memcpy into a block that another core has read last first fetches each line from that core (or, once the
 * message is larger than the caches, from memory), only to overwrite it; and throws out of the cache what we worked on.
 *
 * The answer: stores that bypass the caches. If the reader runs on another CPU (both sides publish theirs), from
 * COPY_STREAMING_FAR_MIN bytes per message on: a task that sums an array of 64 KiB, 256 KiB, 1 MiB takes 49, 217, 610
 * microseconds with memcpy and 22, 45, 200 with these (Zen 4, virtual machine). On one CPU they lose as long as the
 * message fits into the cache (4 MiB: 0.28 ms for 0.16) and win above that: there from COPY_STREAMING_MIN on, a
 * compromise. On machines other than x86-64 all of it is memcpy.
 *
 * Who may call it: anybody, without the GIL. The ranges do not overlap.
 */
#ifndef SHOAL_EXT_COPY_H
#define SHOAL_EXT_COPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define COPY_STREAMING_MIN (UINT64_C(4) << 20)
#define COPY_STREAMING_FAR_MIN (UINT64_C(64) << 10) /* the reader runs on another CPU */

/* Whether a message of so many bytes is worth streaming stores: the third argument of all its pieces. */
static inline bool copy_is_streaming(uint64_t message_bytes, bool far)
{
    return message_bytes >= (far ? COPY_STREAMING_FAR_MIN : COPY_STREAMING_MIN);
}

void copy_bytes(uint8_t *destination, const uint8_t *source, size_t size_bytes, bool streaming);

/*
 * The items of an array that does not lie in one piece, side by side, the last index varying fastest. `strides` are in
 * bytes, of any sign; returns the end of what was written.
 */
uint8_t *copy_items(uint8_t *destination, const uint8_t *source, int dimensions, const ptrdiff_t *shape,
                    const ptrdiff_t *strides, size_t item_bytes, bool streaming);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * directory.h - which pools this process has, for whoever looks at its region from outside (`python -m shoal top`).
 *
 * One page between the region's header and the arena, in words of 64 bits:
 *
 *     0        8         16                        32
 *     +--------+---------+-------------------------+------------- - -
 *     | magic  | version | meters, workers of a    | of another     ...
 *     |        |         | pool; meters 0: free    |
 *     +--------+---------+-------------------------+------------- - -
 *
 * `meters` is the place of the pool's meters in the region (<shoal/taskqueue.h>; meter.h says what they mean). The
 * process that owns the region writes; in workers the page is read-only. A reader has no lock and believes nothing: a
 * pool may end, and its memory become something else, while it looks. Nothing is left behind by a process that is
 * killed, since the page goes with it. A process with more pools than there is room for has some that are not listed.
 */
#ifndef SHOAL_EXT_DIRECTORY_H
#define SHOAL_EXT_DIRECTORY_H

#include "home.h"

#define DIRECTORY_BYTES 4096u
#define DIRECTORY_MAGIC UINT64_C(0x3152494c414f4853) /* "SHOALIR1" in memory, little-endian */
#define DIRECTORY_VERSION 1u

void directory_add(struct home *home, uint64_t meters, uint32_t workers);
void directory_remove(struct home *home, uint64_t meters);

#endif

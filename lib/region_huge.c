/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * region_huge.c - 2 MiB pages for a region.
 *
 * The problem: a memory file gets pages of 4 KiB. For each of them there is a fault in every process that touches it,
 * an entry to be changed whenever a range is protected, and a lookup of its translation; together more than the copy
 * of the bytes themselves. The system's setting for large pages in such files is "never" nearly everywhere.
 *
 * The protocol: madvise(MADV_COLLAPSE, Linux 6.1) makes large pages of a range on request, whatever that setting is. It
 * needs a page table, so the first page of each unit is backed and read before. Where it does not work (older kernels,
 * no free memory in one piece) pages stay small; after a failure it is left for a while, as looking for memory in one
 * piece can take long.
 *
 * What it costs, for 64 MiB: 11 to 18 ms, where fallocate(2) and the first touch of small pages take 48. Afterwards, in
 * CPU time of a machine that others used, too: memset 1.7 ms for 2.9, making it read-only 0.02 for 2.4, populating 0.01
 * for 3.
 * What it does not do: it never fails. Whoever calls it backs the range with fallocate(2) behind it.
 */
#include "region.h"

#include "sys.h"

#include <errno.h>
#include <sys/mman.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define PAUSE_CALLS 32

int shoal__region_map_whole(const struct shoal_region *region, int flags, void **ret_address)
{
    size_t size = (size_t)region->size_bytes;
    if (region->size_bytes > SIZE_MAX - SHOAL__HUGE_BYTES)
        return -ENOMEM;
    int protection = PROT_READ | PROT_WRITE;
    if (size < SHOAL__HUGE_BYTES || region->named)
        return shoal__sys_mmap(NULL, size, protection, flags | MAP_NORESERVE, region->fd, 0, ret_address);
    /* Large pages are mapped as such where address and offset agree. */
    void *room, *mapped;
    int status = shoal__sys_mmap(NULL, size + SHOAL__HUGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                                 -1, 0, &room);
    if (status < 0)
        return status;
    size_t before = (size_t)(-(uintptr_t)room % SHOAL__HUGE_BYTES);
    uint8_t *start = (uint8_t *)room + before;
    status = shoal__sys_mmap(start, size, protection, flags | MAP_FIXED | MAP_NORESERVE, region->fd, 0, &mapped);
    if (status < 0) {
        shoal__sys_munmap(room, size + SHOAL__HUGE_BYTES);
        return status;
    }
    if (before > 0)
        shoal__sys_munmap(room, before);
    uint8_t *end = start + (size + region->page_bytes - 1) / region->page_bytes * region->page_bytes;
    uint8_t *end_of_room = (uint8_t *)room + size + SHOAL__HUGE_BYTES;
    if (end < end_of_room)
        shoal__sys_munmap(end, (size_t)(end_of_room - end));
    *ret_address = start;
    return 0;
}

void shoal__region_collapse(struct shoal_region *region, uint64_t offset, uint64_t length_bytes)
{
    uint64_t first = (offset + SHOAL__HUGE_BYTES - 1) / SHOAL__HUGE_BYTES * SHOAL__HUGE_BYTES;
    uint64_t end = (offset + length_bytes) / SHOAL__HUGE_BYTES * SHOAL__HUGE_BYTES;
    if (first >= end || !region->base || region->named || region->no_huge)
        return;
    if (region->huge_pause > 0) {
        region->huge_pause--;
        return;
    }
    for (uint64_t unit = first; unit < end; unit += SHOAL__HUGE_BYTES) {
        if (shoal__sys_fallocate(region->fd, 0, unit, region->page_bytes) < 0)
            return; /* whoever backs the range says why */
        (void)*(const volatile uint8_t *)(region->base + unit);
    }
    int status = shoal__sys_madvise(region->base + first, (size_t)(end - first), MADV_COLLAPSE);
    region->no_huge = status == -EINVAL;
    region->huge_pause = status < 0 ? PAUSE_CALLS : 0;
}

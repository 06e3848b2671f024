/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * region_aside.c - a range of a region becomes its process's own, in place, and the region's again.
 *
 * The problem: what was sent from a range of the region is to stay as it is, while the sender may still have pointers
 * into it and write through them, as if what it sent had been a copy. Mapping the range privately over itself does
 * that, but takes away the sender's page table for it: 64 MiB take 5 ms to unmap and 30 to be touched page by page when
 * the memory is used again.
 *
 * The protocol: mremap(2) moves the page table of the range to the same place in a second mapping of the whole region,
 * where nobody looks, and leaves the old one mapped, but empty (MREMAP_DONTUNMAP, Linux 5.13 for shared mappings): who
 * reads it meanwhile finds the same pages. A private mapping over it is the next step. To take the range back, its
 * page table is moved back, and what was written privately is gone. At no time is an address without a mapping, so
 * other threads may read and write there all along.
 * The second mapping has one kind of memory, with what was moved into it, too, so it stays one mapping in the kernel.
 * Where mremap or the second mapping cannot be had, the range is mapped privately and shared again: the same for the
 * program, but slower.
 *
 * What it costs: 13 microseconds for 1 MiB, 40 for 64 MiB, 190 for 1 GiB, and half of that back; reading the range in
 * between faults its pages in as any new mapping does.
 * What it does not do: it keeps no list of what is set aside.
 *
 * Whether a private range was written its page table knows: a page of our own is no page of the file (PAGEMAP_SCAN;
 * before Linux 6.7 an entry is read for each page). Nobody need look while this process has had no page fault, as the
 * first write to a page is one.
 */
#include "region.h"

#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

#define RANGES_MAX 8192u /* two mappings each, of 65,530 that Linux allows */
#define PAGES_AT_ONCE 512
#define IS_PRESENT (UINT64_C(1) << 63)
#define IS_SWAPPED (UINT64_C(1) << 62)
#define IS_OF_FILE (UINT64_C(1) << 61)

/* Move the page table of [from, from + length) to `to`; both stay mapped. */
static int move(uint8_t *from, uint8_t *to, uint64_t length_bytes)
{
    return shoal__sys_mremap(from, (size_t)length_bytes, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, to);
}

int shoal_region_set_aside(struct shoal_region *region, uint64_t offset, uint64_t length_bytes)
{
    void *aside = NULL;
    if (!shoal__is_page_range(region, offset, length_bytes) || length_bytes == 0)
        return -EINVAL;
    if (region->aside_count >= RANGES_MAX)
        return -EMFILE;
    if (!region->aside && !region->no_aside && !region->named) {
        if (shoal__region_map_whole(region, MAP_SHARED, &aside) == 0)
            region->aside = aside;
        else
            region->no_aside = true;
    }
    uint8_t *here = region->base + offset;
    bool moved = region->aside && move(here, region->aside + offset, length_bytes) == 0;
    int status = shoal_region_privatize(region, offset, length_bytes);
    if (status == 0)
        region->aside_count++;
    else if (moved)
        move(region->aside + offset, here, length_bytes);
    return status;
}

int shoal_region_take_back(struct shoal_region *region, uint64_t offset, uint64_t length_bytes)
{
    if (!shoal__is_page_range(region, offset, length_bytes) || length_bytes == 0)
        return -EINVAL;
    int status = region->aside ? move(region->aside + offset, region->base + offset, length_bytes) : -ENOTSUP;
    if (status < 0)
        status = shoal_region_share(region, offset, length_bytes, true);
    region->aside_count -= status == 0;
    return status;
}

void shoal_region_forget_aside(struct shoal_region *region)
{
    if (region->aside)
        shoal__sys_munmap(region->aside, (size_t)region->size_bytes);
    region->aside = NULL;
    region->aside_count = 0;
}

/* ---- was it written? ---- */

/* As shoal__sys_pagemap_finds_own, for kernels that do not have that: an entry of 8 bytes for each page. */
int shoal__pagemap_reads_own(int pagemap_fd, const uint8_t *address, uint64_t length_bytes)
{
    uint64_t page_bytes = (uint64_t)shoal__sys_page_size(), entries[PAGES_AT_ONCE];
    uint64_t page = (uintptr_t)address / page_bytes, left = length_bytes / page_bytes;
    /* The page of our stack that was just written: an emulator may show another program's table. */
    uint64_t known = (uintptr_t)&page / page_bytes, entry = 0;
    ssize_t one = shoal__sys_pread(pagemap_fd, &entry, sizeof(entry), known * sizeof(entry));
    if (one != (ssize_t)sizeof(entry) || !(entry & IS_PRESENT) || (entry & IS_OF_FILE))
        return one < 0 ? (int)one : -EIO;
    while (left > 0) {
        size_t count = left < PAGES_AT_ONCE ? (size_t)left : PAGES_AT_ONCE;
        ssize_t got = shoal__sys_pread(pagemap_fd, entries, count * sizeof(entries[0]), page * sizeof(entries[0]));
        if (got < (ssize_t)sizeof(entries[0]))
            return got < 0 ? (int)got : -EIO;
        count = (size_t)got / sizeof(entries[0]);
        for (size_t i = 0; i < count; i++) {
            if ((entries[i] & (IS_PRESENT | IS_SWAPPED)) && !(entries[i] & IS_OF_FILE))
                return 1;
        }
        page += count;
        left -= count;
    }
    return 0;
}

int shoal__pagemap_has_own(int pagemap_fd, const uint8_t *address, uint64_t length_bytes)
{
    int found = shoal__sys_pagemap_finds_own(pagemap_fd, address, length_bytes);
    bool unknown = found == -ENOTTY || found == -EINVAL || found == -ENOSYS; /* the last one is an emulator's */
    return unknown ? shoal__pagemap_reads_own(pagemap_fd, address, length_bytes) : found;
}

int shoal_region_is_unwritten(struct shoal_region *region, uint64_t offset, uint64_t length_bytes)
{
    if (length_bytes == 0 || !shoal__range_inside(region->size_bytes, offset, length_bytes))
        return -EINVAL;
    uint64_t first = offset / region->page_bytes * region->page_bytes;
    uint64_t bytes = shoal__region_round(offset - first + length_bytes);
    uint64_t faults = shoal__sys_page_faults();
    pid_t pid = shoal__sys_getpid();
    if (region->clean.pid == pid && region->clean.faults == faults && region->clean.first <= first &&
        first + bytes <= region->clean.first + region->clean.bytes)
        return 1; /* no page fault since it was looked at, and the first write to a page is one */
    int fd = shoal__sys_open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fd;
    int found = shoal__pagemap_has_own(fd, region->base + first, bytes);
    shoal__sys_close(fd);
    if (found == 0)
        region->clean = (struct shoal__clean){.first = first, .bytes = bytes, .faults = faults, .pid = pid};
    return found < 0 ? found : !found;
}

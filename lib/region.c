/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * region.c - mapping, backing and protecting of shared memory. Names and the checks of strangers: region_named.c.
 *
 * The problem: a store to a shared page that the system cannot provide is SIGBUS, and so is one beyond the end of a
 * file that somebody truncated.
 *
 * The protocol: a memfd is given its size, its header is backed and written, and it is sealed against shrinking,
 * growing and further sealing before anyone else can have it. Every other range is backed by fallocate(2) before use,
 * so that "no memory" is a return value. Where fallocate itself would have the kernel kill us (memory cgroups, and
 * memfds on a machine without memory), shoal__memory_check() refuses first.
 *
 * What it costs: a sparse region costs address space only. fallocate is about 0.1 ms per MiB of new memory.
 * What it does not do: it keeps no record of what is backed (arena.c does for its part).
 */
#include "region.h"

#include "layout.h"
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008u /* Linux 6.3; says that nobody will ever execute it */
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

#define RESERVE_STEP_BYTES (16ull << 20) /* fallocate undoes all of a call that a signal interrupts: keep calls short */
#define CHECK_FROM_BYTES (1ull << 20)    /* below, looking at what is available costs more than the memory */

uint64_t shoal__region_round(uint64_t size_bytes)
{
    uint64_t page = (uint64_t)shoal__sys_page_size();
    if (size_bytes == 0 || size_bytes > (uint64_t)INT64_MAX - page)
        return 0;
    return (size_bytes + page - 1) / page * page;
}

/* ---- making and mapping ---- */

static int map_all(struct shoal_region *region)
{
    void *address;
    int status = shoal__region_map_whole(region, MAP_SHARED, &address);
    if (status == 0)
        region->base = address;
    return status;
}

int shoal__region_format(int fd, uint64_t size_bytes, bool named, struct shoal_region **ret_region)
{
    struct shoal_region *region = calloc(1, sizeof(*region));
    int status = -ENOMEM;
    if (!region) {
        shoal__sys_close(fd);
        return status;
    }
    region->fd = fd;
    region->named = named;
    region->size_bytes = size_bytes;
    region->page_bytes = (uint64_t)shoal__sys_page_size();
    status = map_all(region);
    if (status < 0) {
        shoal_region_free(region);
        return status;
    }
    struct shoal__region_header *header = (void *)region->base;
    header->magic = SHOAL__REGION_MAGIC;
    header->version = SHOAL__LAYOUT_VERSION;
    header->named = named;
    header->fingerprint = SHOAL__LAYOUT_FINGERPRINT;
    header->size_bytes = size_bytes;
    shoal__store_release(&header->ready, 1); /* SYNC: region-ready */
    *ret_region = region;
    return 0;
}

static int make_memfd(void)
{
    unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
    int fd = shoal__sys_memfd_create("shoal", flags | MFD_NOEXEC_SEAL);
    return fd == -EINVAL ? shoal__sys_memfd_create("shoal", flags) : fd; /* before Linux 6.3 */
}

int shoal_region_create(uint64_t size_bytes, struct shoal_region **ret_region)
{
    uint64_t rounded = shoal__region_round(size_bytes);
    if (rounded == 0)
        return -EINVAL;
    int fd = make_memfd();
    if (fd < 0)
        return fd;
    int status = shoal__sys_ftruncate(fd, rounded);
    if (status == 0)
        status = shoal__sys_fallocate(fd, 0, 0, SHOAL_REGION_HEADER_BYTES);
    if (status == 0)
        status = shoal__sys_fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    if (status < 0) {
        shoal__sys_close(fd);
        return status;
    }
    return shoal__region_format(fd, rounded, false, ret_region);
}

int shoal_region_open_fd(int fd, struct shoal_region **ret_region)
{
    int own = shoal__sys_fcntl(fd, F_DUPFD_CLOEXEC, 0);
    return own < 0 ? own : shoal__region_adopt(own, ret_region);
}

void shoal_region_free(struct shoal_region *region)
{
    if (!region)
        return;
    shoal_region_forget_aside(region);
    if (region->base)
        shoal__sys_munmap(region->base, (size_t)region->size_bytes);
    if (region->fd >= 0)
        shoal__sys_close(region->fd);
    free(region);
}

/* ---- places in it ---- */

uint64_t shoal_region_size(const struct shoal_region *region)
{
    return region->size_bytes;
}

int shoal_region_fd(const struct shoal_region *region)
{
    return region->fd;
}

void *shoal_region_base(const struct shoal_region *region)
{
    return region->base;
}

void *shoal_region_at(const struct shoal_region *region, uint64_t offset, uint64_t length_bytes)
{
    return shoal__range_inside(region->size_bytes, offset, length_bytes) ? region->base + offset : NULL;
}

bool shoal_region_contains(const struct shoal_region *region, const void *address, uint64_t length_bytes,
                           uint64_t *ret_offset)
{
    uintptr_t base = (uintptr_t)region->base;
    uintptr_t place = (uintptr_t)address;
    if (place < base || !shoal__range_inside(region->size_bytes, place - base, length_bytes))
        return false;
    *ret_offset = place - base;
    return true;
}

/* ---- backing ---- */

int shoal_region_reserve(struct shoal_region *region, uint64_t offset, uint64_t length_bytes)
{
    if (!shoal__is_page_range(region, offset, length_bytes))
        return -EINVAL;
    if (region->named)
        return 0;
    if (length_bytes >= CHECK_FROM_BYTES) {
        int status = shoal__memory_check(length_bytes);
        if (status < 0)
            return status;
    }
    while (length_bytes > 0) {
        uint64_t step = length_bytes < RESERVE_STEP_BYTES ? length_bytes : RESERVE_STEP_BYTES;
        shoal__region_collapse(region, offset, step);
        int status = shoal__sys_fallocate(region->fd, 0, offset, step);
        if (status == -EINTR)
            continue;
        if (status < 0)
            return status;
        offset += step;
        length_bytes -= step;
    }
    return 0;
}

int shoal_region_discard(struct shoal_region *region, uint64_t offset, uint64_t length_bytes)
{
    if (!shoal__is_page_range(region, offset, length_bytes) || offset < SHOAL_REGION_HEADER_BYTES)
        return -EINVAL;
    if (region->named)
        return -ENOTSUP; /* whoever opens it next relies on there being no holes */
    if (length_bytes == 0)
        return 0;
    int status;
    do {
        status = shoal__sys_fallocate(region->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length_bytes);
    } while (status == -EINTR);
    return status;
}

int shoal_region_populate(struct shoal_region *region, uint64_t offset, uint64_t length_bytes, bool write)
{
    if (!shoal__is_page_range(region, offset, length_bytes))
        return -EINVAL;
    if (length_bytes == 0)
        return 0;
    int status = shoal__sys_madvise(region->base + offset, (size_t)length_bytes,
                                    write ? MADV_POPULATE_WRITE : MADV_POPULATE_READ);
    return status == -EINVAL ? 0 : status; /* before Linux 5.14: the pages come when they are touched */
}

/* ---- protecting, mirroring ---- */

int shoal_region_protect(struct shoal_region *region, uint64_t offset, uint64_t length_bytes, bool writable)
{
    if (!shoal__is_page_range(region, offset, length_bytes))
        return -EINVAL;
    return shoal__sys_mprotect(region->base + offset, (size_t)length_bytes, PROT_READ | (writable ? PROT_WRITE : 0));
}

int shoal_region_privatize(struct shoal_region *region, uint64_t offset, uint64_t length_bytes)
{
    if (!shoal__is_page_range(region, offset, length_bytes) || length_bytes == 0)
        return -EINVAL;
    void *mapped;
    return shoal__sys_mmap(region->base + offset, length_bytes, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, region->fd, offset, &mapped);
}

int shoal_region_share(struct shoal_region *region, uint64_t offset, uint64_t length_bytes, bool writable)
{
    if (!shoal__is_page_range(region, offset, length_bytes) || length_bytes == 0)
        return -EINVAL;
    void *mapped;
    return shoal__sys_mmap(region->base + offset, length_bytes, PROT_READ | (writable ? PROT_WRITE : 0),
                           MAP_SHARED | MAP_FIXED | MAP_NORESERVE, region->fd, offset, &mapped);
}

int shoal_region_mirror(struct shoal_region *region, uint64_t offset, uint64_t length_bytes, void **ret_address)
{
    void *both;
    if (!shoal__is_page_range(region, offset, length_bytes) || length_bytes == 0 || length_bytes > SIZE_MAX / 2)
        return -EINVAL;
    size_t length = (size_t)length_bytes;
    /* One mapping takes the room of both, so that nothing else can slip in between the two that replace it. */
    int status = shoal__sys_mmap(NULL, 2 * length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0,
                                 &both);
    if (status < 0)
        return status;
    for (int half = 0; half < 2 && status == 0; half++) {
        void *mapped;
        status = shoal__sys_mmap((uint8_t *)both + (size_t)half * length, length, PROT_READ | PROT_WRITE,
                                 MAP_SHARED | MAP_FIXED | MAP_NORESERVE, region->fd, offset, &mapped);
    }
    if (status < 0) {
        shoal__sys_munmap(both, 2 * length);
        return status;
    }
    *ret_address = both;
    return 0;
}

int shoal_region_unmirror(void *address, uint64_t length_bytes)
{
    return shoal__sys_munmap(address, 2 * (size_t)length_bytes);
}

int shoal_region_protect_mirror(void *address, uint64_t length_bytes, bool writable)
{
    return shoal__sys_mprotect(address, 2 * (size_t)length_bytes, PROT_READ | (writable ? PROT_WRITE : 0));
}

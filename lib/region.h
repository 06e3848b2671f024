/* SPDX-License-Identifier: BSD-3-Clause */
/* region.h - inside of a region: what region.c (anonymous, mapping) and region_named.c (names, checks) share. */
#ifndef SHOAL_LIB_REGION_H
#define SHOAL_LIB_REGION_H

#include <shoal/region.h>

#include <sys/types.h>

#define SHOAL__NAME_MAX 255

/* A range that was found unwritten when this process had had so many page faults. */
struct shoal__clean {
    uint64_t first, bytes, faults;
    pid_t pid;
};

struct shoal_region {
    uint8_t *base; /* main mapping, read and write */
    uint8_t *aside; /* region_aside.c: a second one; NULL until it is needed */
    bool no_aside;  /* it cannot be had */
    unsigned aside_count; /* ranges that are set aside */
    struct shoal__clean clean;
    uint64_t size_bytes;
    uint64_t page_bytes; /* of the system */
    int fd;
    bool no_huge;        /* this kernel makes no large pages of ranges */
    unsigned huge_pause; /* calls to pass before it is tried again */
    bool named;                     /* made under a name: wholly backed, and stays so */
    pid_t maker_pid;                /* the process that made the name; 0 if this handle was opened or has no name */
    char name[SHOAL__NAME_MAX + 2]; /* empty: none */
};

/* True if [offset, offset + length_bytes) lies in [0, size_bytes). No overflow. */
static inline bool shoal__range_inside(uint64_t size_bytes, uint64_t offset, uint64_t length_bytes)
{
    return offset <= size_bytes && length_bytes <= size_bytes - offset;
}

/* Round a size up to whole pages; 0 if that overflows or the size is 0. */
uint64_t shoal__region_round(uint64_t size_bytes);

/* Whole pages, inside the region. */
static inline bool shoal__is_page_range(const struct shoal_region *region, uint64_t offset, uint64_t length_bytes)
{
    return (offset | length_bytes) % region->page_bytes == 0 &&
           shoal__range_inside(region->size_bytes, offset, length_bytes);
}

/* ---- region_aside.c ---- */
/* Is there in this range, whole pages of a private mapping of a file, a page that is not the file's? 1, 0, or -errno.
 * pagemap_fd: /proc/self/pagemap. */
int shoal__pagemap_has_own(int pagemap_fd, const uint8_t *address, uint64_t length_bytes);
/* The same without PAGEMAP_SCAN. */
int shoal__pagemap_reads_own(int pagemap_fd, const uint8_t *address, uint64_t length_bytes);

/* ---- region_huge.c ---- */
#define SHOAL__HUGE_BYTES (UINT64_C(2) << 20)
/* All of the region, where large pages can be mapped as such. flags: MAP_SHARED or MAP_PRIVATE. */
int shoal__region_map_whole(const struct shoal_region *region, int flags, void **ret_address);
/* Try to back the whole 2 MiB units in a range that has no memory, each with one page. */
void shoal__region_collapse(struct shoal_region *region, uint64_t offset, uint64_t length_bytes);

/* Map fd (which the handle takes over, on failure too) and write the header, `ready` included. */
int shoal__region_format(int fd, uint64_t size_bytes, bool named, struct shoal_region **ret_region);

/* Check what fd is (kind, owner, seals, size, header), map it; the handle takes over fd, on failure too. */
int shoal__region_adopt(int fd, struct shoal_region **ret_region);

/*
 * Remove `name` if it still is the name of this region, and of no other that has taken it since. Whoever removes a name
 * holds the lock of the file that it names, so that two who clean up at once never remove a third one's.
 */
int shoal__region_unlink_if_ours(const struct shoal_region *region, const char *name);

/* -ENOMEM if this process could not take size_bytes more without being killed for it. */
int shoal__memory_check(uint64_t size_bytes);

#endif

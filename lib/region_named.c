/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * region_named.c - regions that unrelated processes find by name, and the checks before a stranger's file is mapped.
 *
 * The problem: anybody may have put a file under the name; its maker may be half way, of another version, dead, or
 * another user; and between looking and removing, the name may pass to somebody else.
 *
 * The protocol: made with O_CREAT|O_EXCL and mode 0600, sized, wholly backed, then mapped and its header written,
 * `ready` last. Opened with O_NOFOLLOW; then, on the open file and not on the name: a regular file, ours, for nobody
 * else, sized in whole pages, wholly backed; then the header, read by pread(2) first, because touching a page that is
 * not backed could be SIGBUS. Removed only under the lock (flock) of the file that it names.
 *
 * What it does not do: POSIX shared memory cannot be sealed, so a process of the same user that truncates the file
 * kills those who use it with SIGBUS. Anonymous regions (memfd) do not have that hole.
 */
#include "region.h"

#include "layout.h"
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>

#define ALL_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
#define STAT_BLOCK_BYTES 512u /* unit of st_blocks */

static int check_name(const char *name)
{
    size_t length = strnlen(name, SHOAL__NAME_MAX + 1);
    if (length < 2 || name[0] != '/' || strchr(name + 1, '/'))
        return -EINVAL;
    return length > SHOAL__NAME_MAX ? -ENAMETOOLONG : 0;
}

/* ---- making ---- */

/* Size it and back all of it; a region of which a part is missing would be a SIGBUS for whoever comes to that part. */
static int back_all(int fd, uint64_t size_bytes)
{
    struct shoal_region whole = { .fd = fd, .size_bytes = size_bytes, .page_bytes = (uint64_t)shoal__sys_page_size() };
    int status = shoal__sys_ftruncate(fd, size_bytes);
    return status < 0 ? status : shoal_region_reserve(&whole, 0, size_bytes);
}

int shoal_region_create_named(const char *name, uint64_t size_bytes, struct shoal_region **ret_region)
{
    uint64_t rounded = shoal__region_round(size_bytes);
    if (rounded == 0)
        return -EINVAL;
    int status = check_name(name);
    if (status < 0)
        return status;
    int fd = shoal__sys_shm_open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return fd;
    struct shoal_region *region = NULL;
    status = back_all(fd, rounded);
    if (status < 0)
        shoal__sys_close(fd);
    else
        status = shoal__region_format(fd, rounded, true, &region);
    if (status < 0) {
        shoal__sys_shm_unlink(name); /* made by us a moment ago, and not ready: nobody has opened it */
        return status;
    }
    region->maker_pid = shoal__sys_getpid();
    memcpy(region->name, name, strlen(name) + 1);
    *ret_region = region;
    return 0;
}

/* ---- opening ---- */

/* What the file is, before any of its content is looked at. */
static int check_file(int fd, uint64_t *ret_size, bool *ret_sealed)
{
    struct stat info;
    int status = shoal__sys_fstat(fd, &info);
    if (status < 0)
        return status;
    if (!S_ISREG(info.st_mode))
        return -EPROTO;
    int seals = shoal__sys_fcntl(fd, F_GET_SEALS, 0);
    bool sealed = seals >= 0 && (seals & ALL_SEALS) == ALL_SEALS;
    /* A sealed memfd cannot have been opened by a name: whoever has it was given it. */
    if (!sealed && (info.st_uid != shoal__sys_geteuid() || (info.st_mode & 077) != 0))
        return -EPERM;
    if (info.st_size == 0)
        return -EAGAIN; /* between its maker's shm_open and ftruncate */
    if (info.st_size < (off_t)SHOAL_REGION_HEADER_BYTES || info.st_size % shoal__sys_page_size() != 0)
        return -EPROTO;
    *ret_size = (uint64_t)info.st_size;
    *ret_sealed = sealed;
    return 0;
}

static bool is_backed(int fd, uint64_t size_bytes)
{
    struct stat info;
    return shoal__sys_fstat(fd, &info) == 0 && (uint64_t)info.st_blocks * STAT_BLOCK_BYTES >= size_bytes;
}

/* *header is a private copy: nothing in it can change between check and use. */
static int check_header(const struct shoal__region_header *header, uint64_t size_bytes, bool sealed)
{
    if (header->magic == 0)
        return -EAGAIN;
    if (header->magic != SHOAL__REGION_MAGIC || header->version != SHOAL__LAYOUT_VERSION ||
        header->fingerprint != SHOAL__LAYOUT_FINGERPRINT || header->size_bytes != size_bytes ||
        header->named != (sealed ? 0u : 1u))
        return -EPROTO;
    return 0;
}

static int read_header(int fd, struct shoal__region_header *ret_header)
{
    ssize_t got = shoal__sys_pread(fd, ret_header, sizeof(*ret_header), 0);
    if (got < 0)
        return (int)got;
    return (size_t)got == sizeof(*ret_header) ? 0 : -EPROTO;
}

int shoal__region_adopt(int fd, struct shoal_region **ret_region)
{
    struct shoal__region_header header;
    struct shoal_region *region = NULL;
    uint64_t size_bytes = 0;
    bool sealed = false;

    int status = check_file(fd, &size_bytes, &sealed);
    if (status == 0)
        status = read_header(fd, &header);
    if (status == 0)
        status = check_header(&header, size_bytes, sealed);
    if (status == 0 && !shoal__load_acquire(&header.ready)) /* SYNC: region-ready (again below, on the mapping) */
        status = -EAGAIN;
    if (status == 0 && !sealed && !is_backed(fd, size_bytes))
        status = -EPROTO;
    if (status < 0)
        goto fail;
    status = -ENOMEM;
    region = calloc(1, sizeof(*region));
    if (!region)
        goto fail;
    region->named = !sealed;
    region->size_bytes = size_bytes;
    region->page_bytes = (uint64_t)shoal__sys_page_size();
    region->fd = fd;
    void *address;
    status = shoal__region_map_whole(region, MAP_SHARED, &address);
    if (status < 0)
        goto fail;
    region->base = address;
    /* Orders everything that the maker wrote before `ready` before what we read from here on. */
    (void)shoal__load_acquire(&((struct shoal__region_header *)address)->ready); /* SYNC: region-ready */
    *ret_region = region;
    return 0;
fail:
    free(region);
    shoal__sys_close(fd);
    return status;
}

int shoal_region_open_named(const char *name, struct shoal_region **ret_region)
{
    int status = check_name(name);
    if (status < 0)
        return status;
    int fd = shoal__sys_shm_open(name, O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0);
    if (fd == -EACCES)
        return -EPERM; /* it is there and somebody else's */
    if (fd == -ELOOP)
        return -EPROTO;
    if (fd < 0)
        return fd;
    return shoal__region_adopt(fd, ret_region);
}

/* ---- removing ---- */

static bool same_file(int fd, int other_fd)
{
    struct stat one, two;
    return shoal__sys_fstat(fd, &one) == 0 && shoal__sys_fstat(other_fd, &two) == 0 && one.st_dev == two.st_dev &&
           one.st_ino == two.st_ino;
}

int shoal__region_unlink_if_ours(const struct shoal_region *region, const char *name)
{
    int status;
    do {
        status = shoal__sys_flock(region->fd, LOCK_EX);
    } while (status == -EINTR);
    if (status < 0)
        return status;
    int named = shoal__sys_shm_open(name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0);
    if (named < 0) {
        status = named;
    } else {
        status = same_file(region->fd, named) ? shoal__sys_shm_unlink(name) : -ENOENT;
        shoal__sys_close(named);
    }
    shoal__sys_flock(region->fd, LOCK_UN);
    return status;
}

int shoal_region_unlink(struct shoal_region *region)
{
    if (region->name[0] == '\0' || region->maker_pid != shoal__sys_getpid())
        return 0;
    int status = shoal__region_unlink_if_ours(region, region->name);
    if (status == 0 || status == -ENOENT)
        region->name[0] = '\0';
    return status == -ENOENT ? 0 : status; /* the other side may have removed it */
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * region.h - a piece of memory that several processes map.
 *
 * The problem: shared memory that is too small, truncated by somebody else, or promised but not there when it is
 * touched kills a process with SIGBUS; names under /dev/shm outlive their users and can be taken by strangers.
 *
 * What a region is: a file without a name (memfd), sparse, mapped MAP_SHARED, sealed so that nobody can shrink or
 * grow it. Children inherit it by fork, or are given its descriptor. Where two processes must meet that can hand
 * nothing over, it has a name instead (POSIX shared memory): created exclusively with mode 0600, fully backed before
 * use, and refused on opening if it belongs to another user, has another size than its header says, or another layout
 * version.
 *
 * Places in a region are offsets from its start, never pointers: two processes may map it at different addresses.
 *
 * All functions return >= 0, or -errno. No function here may be called on the same handle by two threads at once,
 * except the pure readers (shoal_region_at, _size, _base, _fd). A handle is inherited by fork and stays valid in the
 * child.
 */
#ifndef SHOAL_REGION_H
#define SHOAL_REGION_H

#include <shoal/export.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

SHOAL_BEGIN_DECLS

struct shoal_region;

/* Bytes at the start of every region that belong to its header (magic, version, layout fingerprint, size). */
#define SHOAL_REGION_HEADER_BYTES 4096

/*
 * Make an anonymous region of size_bytes (rounded up to pages). Nothing is backed yet except the header: back a range
 * with shoal_region_reserve() before it is touched.
 * Errors: -EINVAL size, -ENOMEM, -EMFILE/-ENFILE, -ENOSYS no memfd.
 */
SHOAL_API int shoal_region_create(uint64_t size_bytes, struct shoal_region **ret_region);

/*
 * Make a region with a name ("/name", shm_overview(7)), every page backed. -EEXIST if the name is taken by anybody.
 * The name stays until shoal_region_unlink(); unlink it as soon as both sides have opened it.
 */
SHOAL_API int shoal_region_create_named(const char *name, uint64_t size_bytes, struct shoal_region **ret_region);

/*
 * Open a region that another process of this user made by name.
 * Errors: -ENOENT; -EPERM another user owns it or others may write it; -EPROTO it is not a Shoal region, or of another
 * version, layout or size than its header says; -EAGAIN its maker has not finished it.
 */
SHOAL_API int shoal_region_open_named(const char *name, struct shoal_region **ret_region);

/* Map a region whose descriptor was received or inherited; fd stays the caller's. Checks seals and header like open. */
SHOAL_API int shoal_region_open_fd(int fd, struct shoal_region **ret_region);

/* Remove the name, if it has one and this process made it. */
SHOAL_API int shoal_region_unlink(struct shoal_region *region);

/* Unmap and close. Safe on NULL. Does not unlink. */
SHOAL_API void shoal_region_free(struct shoal_region *region);

SHOAL_API uint64_t shoal_region_size(const struct shoal_region *region);
SHOAL_API int shoal_region_fd(const struct shoal_region *region);
SHOAL_API void *shoal_region_base(const struct shoal_region *region);

/* The address of [offset, offset + length_bytes) in this process, or NULL if that is not wholly inside. */
SHOAL_API void *shoal_region_at(const struct shoal_region *region, uint64_t offset, uint64_t length_bytes);

/* True, with the offset, if [address, address + length_bytes) lies wholly in this process's main mapping. */
SHOAL_API bool shoal_region_contains(const struct shoal_region *region, const void *address, uint64_t length_bytes,
                                     uint64_t *ret_offset);

/*
 * Back a page-aligned range with memory now, so that touching it cannot SIGBUS. -ENOMEM or -ENOSPC if there is none;
 * then a part of the range may be backed. From 1 MiB on it is checked first against shoal_memory_available(), as if
 * none of the range were backed yet. A named region is backed as a whole: nothing to do.
 */
SHOAL_API int shoal_region_reserve(struct shoal_region *region, uint64_t offset, uint64_t length_bytes);

/*
 * Give the pages of a page-aligned range back to the system; reading it later gives zeros once it is reserved again.
 * -ENOTSUP for a named region, which stays backed.
 */
SHOAL_API int shoal_region_discard(struct shoal_region *region, uint64_t offset, uint64_t length_bytes);

/* Fault a range into this process's page table ahead of use (MADV_POPULATE_WRITE or _READ). A hint. */
SHOAL_API int shoal_region_populate(struct shoal_region *region, uint64_t offset, uint64_t length_bytes, bool write);

/* Make a page-aligned range of this process's main mapping writable or read-only. Other processes are not affected. */
SHOAL_API int shoal_region_protect(struct shoal_region *region, uint64_t offset, uint64_t length_bytes, bool writable);

/*
 * Make a page-aligned range of this process's main mapping private and writable: what it writes from now on nobody else
 * sees. A page that it has not written yet still shows what others write. Not undone by shoal_region_protect().
 */
SHOAL_API int shoal_region_privatize(struct shoal_region *region, uint64_t offset, uint64_t length_bytes);
/* Undo it: the range shows what all see, what was written privately is gone. */
SHOAL_API int shoal_region_share(struct shoal_region *region, uint64_t offset, uint64_t length_bytes, bool writable);

/*
 * As privatize, while other threads read and write there; what it costs hardly grows with the range, and neither does
 * taking it back, which shows the region again, as it was or was written by others. Ranges are taken back as they were
 * set aside. -ENOMEM, -EMFILE: too many mappings; nothing has changed.
 * In a forked child such a range is private as well; the child calls forget_aside, once, and uses share to undo it.
 */
SHOAL_API int shoal_region_set_aside(struct shoal_region *region, uint64_t offset, uint64_t length_bytes);
SHOAL_API int shoal_region_take_back(struct shoal_region *region, uint64_t offset, uint64_t length_bytes);
SHOAL_API void shoal_region_forget_aside(struct shoal_region *region);
/* Of a part of a private range: 1: nothing was written there; 0: something was; or -errno: it cannot be known. */
SHOAL_API int shoal_region_is_unwritten(struct shoal_region *region, uint64_t offset, uint64_t length_bytes);

/*
 * Map a page-aligned range twice, back to back, so that a record that wraps is contiguous. Inherited by fork.
 * shoal_region_unmirror() undoes it; shoal_region_protect_mirror() changes both halves.
 */
SHOAL_API int shoal_region_mirror(struct shoal_region *region, uint64_t offset, uint64_t length_bytes,
                                  void **ret_address);
SHOAL_API int shoal_region_unmirror(void *address, uint64_t length_bytes);
SHOAL_API int shoal_region_protect_mirror(void *address, uint64_t length_bytes, bool writable);

/*
 * Bytes of memory that this process could still take: the least of MemAvailable and what the memory cgroups (v1, v2,
 * all ancestors) leave. Source: /proc/meminfo, /proc/self/cgroup, cgroup files; a limit that cannot be read does not
 * count.
 */
SHOAL_API int shoal_memory_available(uint64_t *ret_bytes);

SHOAL_END_DECLS
#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * shadow.c - private views of a region; see <shoal/shadow.h>.
 *
 * The problem: mapping a block privately for each task costs two system calls, and the pages have to be faulted in
 * anew each time: 2 ms for 64 MiB that are read, every time. And a process may have 65,530 mappings.
 *
 * The protocol: one private mapping of the whole region, made at first use. A view is a range of it. While nothing was
 * written there, the mapping shows the region as it is, so the pages can stay for the next view of the same bytes,
 * whatever they are by then. So when a view is given back there is one question: was it written?
 *   - No page fault in this process since it was taken: no, as the first write to a page is a fault.
 *   - Otherwise the page tables know (region_aside.c): a page of our own is no page of the file. Looking takes 0.4 ms
 *     for 64 MiB mapped by small pages, nothing for what is not mapped; it may take a tenth of the time that the view
 *     was out.
 *   - It was, or that took too long: MADV_DONTNEED, and all of it is the region's again.
 * Two views at a time never share a page, as giving back one must not undo what the other wrote: a range that is out
 * is mapped once more, by itself, and so is everything where the whole region cannot be mapped (RLIMIT_AS, strict
 * overcommit).
 *
 * What it costs: taking and giving back a view that was only read, 1 to 2 microseconds; nothing per byte. A page that
 * is written costs its copy.
 * What it does not do: it holds nothing. That the block stays, and stays as it is, is the caller's to see to.
 */
#include <shoal/shadow.h>

#include "region.h"
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define OWN_MAPPINGS_MAX 8192u               /* leaves seven eighths of what Linux allows to the rest of the process */
#define SCAN_STEP_BYTES (UINT64_C(16) << 20) /* about 0.1 ms */
#define SCAN_AT_LEAST_NS 100000
#define SCAN_SHARE 10 /* of the time that the view was out */

struct faults {
    uint64_t count;
    pid_t pid; /* of whom: a forked child counts anew */
};

struct view {
    uint8_t *first, *end; /* whole pages */
    int64_t taken_ns;
    struct faults faults; /* of this process when it was taken, or before */
};

struct shoal_shadow {
    struct shoal_region *region;
    uint8_t *whole; /* NULL: cannot be had */
    struct view *views; /* that are out, of `whole`, by address; in `room`, which has space before and behind them */
    struct view *room;
    size_t view_count, room_count;
    unsigned own_count; /* views with a mapping of their own */
    struct faults last; /* when a view was given back, and none taken since; else pid 0 */
};

int shoal_shadow_create(struct shoal_region *region, struct shoal_shadow **ret_shadow)
{
    struct shoal_shadow *shadow = calloc(1, sizeof(*shadow));
    if (!shadow)
        return -ENOMEM;
    shadow->region = region;
    void *whole;
    if (shoal__region_map_whole(region, MAP_PRIVATE, &whole) == 0)
        shadow->whole = whole;
    *ret_shadow = shadow;
    return 0;
}

void shoal_shadow_free(struct shoal_shadow *shadow)
{
    if (!shadow)
        return;
    if (shadow->whole)
        shoal__sys_munmap(shadow->whole, (size_t)shadow->region->size_bytes);
    free(shadow->room);
    free(shadow);
}

/* ---- which views are out ---- */

/* The first view that ends behind `address`. */
static size_t find_view(const struct shoal_shadow *shadow, const uint8_t *address)
{
    size_t low = 0, high = shadow->view_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (shadow->views[middle].end > address)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* A task may have tens of thousands of views, taken and given back in the order of their addresses, or against it: so
 * what moves is the shorter side, which then is none. */
static int open_gap(struct shoal_shadow *shadow, size_t index)
{
    size_t count = shadow->view_count, before = (size_t)(shadow->views - shadow->room);
    bool downwards = index < count - index;
    if (downwards ? before == 0 : before + count == shadow->room_count) {
        size_t room_count = 4 * count + 16;
        struct view *room = malloc(room_count * sizeof(*room));
        if (!room)
            return -ENOMEM;
        if (count > 0)
            memcpy(room + room_count / 2 - count / 2, shadow->views, count * sizeof(*room));
        free(shadow->room);
        shadow->room = room;
        shadow->room_count = room_count;
        shadow->views = room + room_count / 2 - count / 2;
    }
    struct view *views = shadow->views;
    if (downwards)
        memmove(--shadow->views, views, index * sizeof(*views));
    else
        memmove(views + index + 1, views + index, (count - index) * sizeof(*views));
    shadow->view_count++;
    return 0;
}

static void close_gap(struct shoal_shadow *shadow, size_t index)
{
    struct view *views = shadow->views;
    size_t behind = --shadow->view_count - index;
    if (index < behind)
        memmove(++shadow->views, views, index * sizeof(*views));
    else
        memmove(views + index, views + index + 1, behind * sizeof(*views));
}

static struct faults count_faults(void)
{
    return (struct faults){.count = shoal__sys_page_faults(), .pid = shoal__sys_getpid()};
}

/* The count of the last give serves for one take: of faults between the two it would be thought that they are the new
 * view's, and the page tables are asked. */
static int insert_view(struct shoal_shadow *shadow, size_t index, uint8_t *first, uint8_t *end)
{
    int status = open_gap(shadow, index);
    if (status < 0)
        return status;
    struct faults faults = shadow->last.pid != 0 ? shadow->last : count_faults();
    shadow->last.pid = 0;
    shadow->views[index] = (struct view){.first = first, .end = end, .taken_ns = shoal__sys_monotonic_ns(),
                                         .faults = faults};
    return 0;
}

/* ---- was it written? ---- */

static bool no_fault_since(const struct view *view, const struct faults *now)
{
    return view->faults.pid == now->pid && view->faults.count == now->count;
}

/* 1: no page of our own in there; 0: there is, or it took longer than until the deadline; -errno: cannot be known. */
static int scan(const uint8_t *first, const uint8_t *end, int64_t deadline_ns)
{
    int fd = shoal__sys_open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    int found = fd < 0 ? fd : 0;
    while (found == 0 && first < end) {
        uint64_t left = (uint64_t)(end - first), step = left < SCAN_STEP_BYTES ? left : SCAN_STEP_BYTES;
        found = shoal__pagemap_has_own(fd, first, step);
        first += step;
        if (found == 0 && first < end && deadline_ns >= 0 && shoal__sys_monotonic_ns() > deadline_ns)
            found = 1;
    }
    if (fd >= 0)
        shoal__sys_close(fd);
    return found < 0 ? found : !found;
}

static bool is_clean_in_time(const struct view *view, const struct faults *faults)
{
    if (no_fault_since(view, faults))
        return true;
    int64_t now = shoal__sys_monotonic_ns(), share = (now - view->taken_ns) / SCAN_SHARE;
    return scan(view->first, view->end, now + (share > SCAN_AT_LEAST_NS ? share : SCAN_AT_LEAST_NS)) == 1;
}

/* ---- taking and giving ---- */

static bool is_of_whole(const struct shoal_shadow *shadow, const uint8_t *address)
{
    return shadow->whole && address >= shadow->whole && address < shadow->whole + shadow->region->size_bytes;
}

int shoal_shadow_take(struct shoal_shadow *shadow, uint64_t offset, uint64_t length_bytes, void **ret_address)
{
    struct shoal_region *region = shadow->region;
    if (length_bytes == 0 || !shoal__range_inside(region->size_bytes, offset, length_bytes))
        return -EINVAL;
    uint64_t into_page = offset % region->page_bytes, start = offset - into_page;
    uint64_t bytes = shoal__region_round(into_page + length_bytes);
    if (shadow->whole) {
        uint8_t *first = shadow->whole + start, *end = first + bytes;
        size_t index = find_view(shadow, first);
        if (index == shadow->view_count || shadow->views[index].first >= end) {
            int status = insert_view(shadow, index, first, end);
            if (status == 0)
                *ret_address = first + into_page;
            return status;
        }
    }
    if (shadow->own_count >= OWN_MAPPINGS_MAX)
        return -EMFILE;
    void *mapped;
    int status = shoal__sys_mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, region->fd,
                                 start, &mapped);
    if (status < 0)
        return status;
    shadow->own_count++;
    *ret_address = (uint8_t *)mapped + into_page;
    return 0;
}

void shoal_shadow_give(struct shoal_shadow *shadow, void *address, uint64_t length_bytes)
{
    uint64_t page_bytes = shadow->region->page_bytes, into_page = (uintptr_t)address % page_bytes;
    uint8_t *first = (uint8_t *)address - into_page;
    uint64_t bytes = shoal__region_round(into_page + length_bytes);
    if (!is_of_whole(shadow, first)) {
        shoal__sys_munmap(first, (size_t)bytes);
        shadow->own_count--;
        return;
    }
    size_t index = find_view(shadow, first);
    if (index == shadow->view_count || shadow->views[index].first != first)
        return; /* not one of ours */
    struct view *view = &shadow->views[index];
    shadow->last = count_faults();
    if (!is_clean_in_time(view, &shadow->last))
        shoal__sys_madvise(first, (size_t)bytes, MADV_DONTNEED);
    close_gap(shadow, index);
}

int shoal_shadow_renew(struct shoal_shadow *shadow, const void *address, uint64_t length_bytes)
{
    (void)length_bytes;
    const uint8_t *first = (const uint8_t *)address - (uintptr_t)address % shadow->region->page_bytes;
    size_t index = is_of_whole(shadow, first) ? find_view(shadow, first) : shadow->view_count;
    if (index == shadow->view_count || shadow->views[index].first != first)
        return 0;
    struct view *view = &shadow->views[index];
    struct faults now = {.count = shoal__sys_page_faults(), .pid = view->faults.pid};
    if (now.count == view->faults.count)
        return 1;
    if (!is_clean_in_time(view, &now))
        return 0;
    view->faults = now;
    view->taken_ns = shoal__sys_monotonic_ns();
    return 1;
}

bool shoal_shadow_may_contain(const struct shoal_shadow *shadow, const void *address)
{
    return shadow->own_count > 0 || is_of_whole(shadow, address);
}

int shoal_shadow_is_clean(const struct shoal_shadow *shadow, const void *address, uint64_t length_bytes)
{
    uint64_t page_bytes = shadow->region->page_bytes, into_page = (uintptr_t)address % page_bytes;
    const uint8_t *first = (const uint8_t *)address - into_page;
    if (is_of_whole(shadow, first)) {
        size_t index = find_view(shadow, first);
        struct faults now = count_faults();
        if (index < shadow->view_count && shadow->views[index].first <= first &&
            no_fault_since(&shadow->views[index], &now))
            return 1;
    }
    return scan(first, first + shoal__region_round(into_page + length_bytes), -1) == 1;
}

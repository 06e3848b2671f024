/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * worker_memory.c - a worker that has grown too large ends after its task, and another takes its place.
 *
 * What is measured is what is resident and the process's own (anonymous), not what it maps of the arena or of
 * libraries. What a forked worker was born with does not count: the kernel shows all of the parent's memory as the
 * child's.
 *
 * The kernel's figure costs some microseconds to read, more than a small task. So it is read at most each LOOK_NS, a
 * clock apart; and once more when the worker has been idle for so long, so that the last task counts as well. Before a
 * worker gives up it collects its garbage, at most each COLLECT_NS, and returns what is free to the system.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "worker.h"

#define LOOK_NS INT64_C(5000000)
#define COLLECT_NS INT64_C(1000000000)

/* 0 if it cannot be known. */
static uint64_t own_bytes(void)
{
    char text[128];
    uint64_t resident, shared;
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t got = read(fd, text, sizeof text - 1);
    close(fd);
    text[got < 0 ? 0 : got] = '\0';
    if (sscanf(text, "%*u %" SCNu64 " %" SCNu64, &resident, &shared) != 2 || shared > resident)
        return 0;
    return (resident - shared) * (uint64_t)sysconf(_SC_PAGESIZE);
}

void memory_begin(struct worker_side *side, uint64_t max_bytes, bool forked)
{
    side->memory_max = max_bytes;
    if (max_bytes == 0)
        return;
    side->memory_born = forked ? own_bytes() : 0;
    side->memory_next_ns = shoal_now_ns() + LOOK_NS;
}

static bool too_large(struct worker_side *side)
{
    uint64_t bytes = own_bytes();
    side->memory_next_ns = shoal_now_ns() + LOOK_NS;
    side->memory_pending = false;
    return bytes > side->memory_born && bytes - side->memory_born > side->memory_max;
}

static void collect(void)
{
    PyObject *gc = PyImport_ImportModule("gc"); /* PyGC_Collect() does nothing if the user has switched it off */
    PyObject *count = gc == NULL ? NULL : PyObject_CallMethod(gc, "collect", NULL);
    Py_XDECREF(gc);
    Py_XDECREF(count);
    PyErr_Clear();
#ifdef __GLIBC__
    malloc_trim(0);
#endif
}

bool memory_outgrown(struct worker_side *side)
{
    if (side->memory_max == 0 || !side->memory_pending || shoal_now_ns() < side->memory_next_ns)
        return false;
    if (!too_large(side))
        return false;
    int64_t now = shoal_now_ns();
    if (now < side->memory_collect_ns)
        return true;
    side->memory_collect_ns = now + COLLECT_NS;
    collect();
    return too_large(side);
}

int64_t memory_deadline(const struct worker_side *side, int64_t deadline_ns)
{
    bool sooner = side->memory_max != 0 && side->memory_pending && side->memory_next_ns < deadline_ns;
    return sooner ? side->memory_next_ns : deadline_ns;
}

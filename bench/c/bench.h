/* SPDX-License-Identifier: BSD-3-Clause */
/* bench.h - what the C benchmarks share. They use what users get: the installed headers and libshoal. */
#ifndef SHOAL_BENCH_H
#define SHOAL_BENCH_H

#include <shoal/shoal.h>

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* A call that must succeed, or the program ends with its reason. */
#define MUST(call) must((call), #call)
static inline int64_t must(int64_t status, const char *what)
{
    if (status < 0) {
        fprintf(stderr, "%s: %s\n", what, shoal_strerror((int)status));
        exit(1);
    }
    return status;
}

/* One row, as bench/rows_native.py reads it: mean nanoseconds of one operation. */
static inline void report(const char *row, int64_t begin_ns, uint64_t operations)
{
    printf("row=%s ns=%.1f\n", row, (double)(shoal_now_ns() - begin_ns) / (double)operations);
    fflush(stdout);
}

/* A region with `size_bytes` of memory behind its header, backed and faulted in. */
static inline struct shoal_region *region_of(uint64_t size_bytes)
{
    struct shoal_region *region;
    MUST(shoal_region_create(SHOAL_REGION_HEADER_BYTES + size_bytes, &region));
    MUST(shoal_region_reserve(region, SHOAL_REGION_HEADER_BYTES, size_bytes));
    MUST(shoal_region_populate(region, SHOAL_REGION_HEADER_BYTES, size_bytes, true));
    return region;
}

static inline void reap(pid_t pid)
{
    int status;
    if (waitpid(pid, &status, 0) != pid || status != 0) {
        fprintf(stderr, "the other process failed\n");
        exit(1);
    }
}

#endif

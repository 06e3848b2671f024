/* SPDX-License-Identifier: BSD-3-Clause */
/* ring.c - what one record costs. */
#include "bench.h"

#include <errno.h>
#include <sched.h>
#include <string.h>

#define DATA_BYTES (1u << 20)
#define RECORDS 2000000u

static int put(struct shoal_ring *ring, uint64_t byte_count, uint64_t number)
{
    void *payload;
    uint64_t room;
    int status = shoal_ring_reserve(ring, byte_count, &payload, &room);
    if (status < 0)
        return status;
    memset(payload, (int)number, byte_count);
    return shoal_ring_commit(ring, byte_count);
}

static int take(struct shoal_ring *ring, uint64_t *ret_sum)
{
    const void *payload;
    uint64_t byte_count;
    int status = shoal_ring_peek(ring, &payload, &byte_count);
    if (status < 0)
        return status;
    *ret_sum += *(const uint8_t *)payload;
    shoal_ring_pop(ring);
    return 0;
}

static void alone(struct shoal_ring *ring, const char *row, uint64_t byte_count)
{
    uint64_t sum = 0;
    int64_t begin_ns = shoal_now_ns();
    for (uint64_t number = 0; number < RECORDS; number++) {
        MUST(put(ring, byte_count, number));
        MUST(take(ring, &sum));
    }
    report(row, begin_ns, RECORDS);
}

/* Both sides busy; whoever finds nothing to do lets the other run. */
static void across(struct shoal_ring *ring, const char *row, uint64_t byte_count)
{
    uint64_t sum = 0;
    int64_t begin_ns = shoal_now_ns();
    pid_t pid = fork();
    for (uint64_t number = 0; number < RECORDS;) {
        int status = pid == 0 ? put(ring, byte_count, number) : take(ring, &sum);
        if (status == 0)
            number++;
        else if (status == -EAGAIN)
            sched_yield();
        else
            MUST(status);
    }
    if (pid == 0)
        _exit(0);
    report(row, begin_ns, RECORDS);
    reap(pid);
}

static struct shoal_ring *new_ring(void)
{
    struct shoal_ring *ring;
    struct shoal_region *region = region_of(shoal_ring_footprint(DATA_BYTES));
    MUST(shoal_ring_format(region, SHOAL_REGION_HEADER_BYTES, DATA_BYTES));
    MUST(shoal_ring_attach(region, SHOAL_REGION_HEADER_BYTES, &ring));
    return ring;
}

int main(void)
{
    alone(new_ring(), "ring_write_read_64B", 64);
    alone(new_ring(), "ring_write_read_4KiB", 4096);
    across(new_ring(), "ring_two_processes_64B", 64);
    across(new_ring(), "ring_two_processes_4KiB", 4096);
    return 0;
}

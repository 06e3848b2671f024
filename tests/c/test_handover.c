/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_handover.c - a worker that inherited no memory: another program, given descriptors over exec.
 *
 * The parent lays a task queue and a result ring out in a region and executes this very program anew with the
 * descriptors of the region, the lifeline and the bells. The child maps the region at another address than the
 * parent's, serves tasks, sleeps and is woken; kept descriptors are closed on exec, so nothing else comes along.
 */
#include <shoal/shoal.h>

#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define OFFSET 4096u
#define RING_BYTES 4096u
#define WORKERS 2u
#define TASKS 200u
#define STOP UINT64_MAX

struct shared {
    struct shoal_region *region;
    struct shoal_taskqueue *queue;
    struct shoal_ring *results;
    struct shoal_lifeline lifeline;
    uint64_t ring_offset;
    struct shoal_taskqueue_config config;
};

static uint64_t pages(uint64_t bytes)
{
    return (bytes + 4095) / 4096 * 4096;
}

static bool set_up(struct shared *shared)
{
    *shared = (struct shared) {
        .config = { .slot_count = 16, .worker_count = WORKERS, .spin_ns = 0 },
        .lifeline = { .read_fd = -1, .write_fd = -1 },
    };
    if (!ASSERT_OK(shoal_doorbell_choose(&shared->config.doorbell)))
        return false;
    uint64_t queue_bytes = pages(shoal_taskqueue_footprint(&shared->config));
    uint64_t ring_bytes = shoal_ring_footprint(RING_BYTES);
    shared->ring_offset = OFFSET + queue_bytes;
    return ASSERT_OK(shoal_region_create(OFFSET + queue_bytes + ring_bytes, &shared->region)) &&
           ASSERT_OK(shoal_region_reserve(shared->region, OFFSET, queue_bytes + ring_bytes)) &&
           ASSERT_OK(shoal_taskqueue_create(shared->region, OFFSET, &shared->config, &shared->queue)) &&
           ASSERT_OK(shoal_ring_format(shared->region, shared->ring_offset, RING_BYTES)) &&
           ASSERT_OK(shoal_ring_attach(shared->region, shared->ring_offset, &shared->results)) &&
           ASSERT_OK(shoal_lifeline_create(&shared->lifeline));
}

static void tear_down(struct shared *shared)
{
    shoal_lifeline_close(&shared->lifeline);
    shoal_ring_detach(shared->results);
    shoal_taskqueue_free(shared->queue);
    shoal_region_free(shared->region);
}

/* ---- the other program ---- */

/* The region, where the parent's mapping is not: its place is taken. */
static int open_elsewhere(int fd, void *parents, uint64_t size_bytes, struct shoal_region **ret_region)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
    void *taken = mmap(parents, size_bytes, PROT_NONE, flags, -1, 0);
    int status = shoal_region_open_fd(fd, ret_region);
    if (taken != MAP_FAILED)
        munmap(taken, size_bytes);
    return status == 0 && shoal_region_base(*ret_region) == parents ? -EADDRINUSE : status;
}

static int answer(struct shoal_ring *results, struct shoal_taskqueue *queue, uint64_t value)
{
    void *place;
    uint64_t room;
    int status;
    while ((status = shoal_ring_reserve(results, sizeof value, &place, &room)) == -EAGAIN)
        sched_yield();
    if (status < 0)
        return status;
    memcpy(place, &value, sizeof value);
    shoal_ring_commit(results, sizeof value);
    shoal_doorbell_ring(shoal_taskqueue_owner_bell(queue), SHOAL_URGENT);
    return 0;
}

static int serve(struct shoal_taskqueue *queue, struct shoal_ring *results, enum shoal_doorbell_kind kind)
{
    struct shoal_waiter *waiter;
    int status = shoal_waiter_create(kind, &waiter);
    while (status >= 0) {
        struct shoal_task task;
        struct shoal_claim claim;
        status = shoal_taskqueue_claim(queue, 0, &task, &claim);
        if (status == -EAGAIN) {
            status = shoal_taskqueue_wait(queue, 0, waiter, -1, NULL, NULL, NULL);
            continue;
        }
        if (status == 0)
            status = shoal_taskqueue_start(queue, 0, &claim);
        if (status == 0)
            status = answer(results, queue, (uint64_t)claim.slot << 32 | (task.tag * task.tag & UINT32_MAX));
        if (status == 0 && task.tag == STOP)
            break;
    }
    shoal_waiter_free(waiter);
    return status;
}

/* argv: program, region, lifeline, kind, queue bytes to the ring, parent's address, size, bells... */
static int other_program(char **argv)
{
    int bells[WORKERS + 1];
    struct shoal_lifeline lifeline = { .read_fd = atoi(argv[2]), .write_fd = -1 };
    struct shoal_taskqueue_config config = { .slot_count = 16, .worker_count = WORKERS, .spin_ns = 0 };
    config.doorbell = (enum shoal_doorbell_kind)atoi(argv[3]);
    uint64_t ring_offset = strtoull(argv[4], NULL, 0);
    void *parents = (void *)(uintptr_t)strtoull(argv[5], NULL, 0);
    uint64_t size_bytes = strtoull(argv[6], NULL, 0);
    struct shoal_region *region = NULL;
    struct shoal_taskqueue *queue = NULL;
    struct shoal_ring *results = NULL;
    for (unsigned i = 0; i <= WORKERS; i++)
        bells[i] = atoi(argv[7 + i]);
    int status = shoal_lifeline_arm(&lifeline);
    if (status >= 0)
        status = open_elsewhere(atoi(argv[1]), parents, size_bytes, &region);
    if (status >= 0)
        status = shoal_taskqueue_attach(region, OFFSET, &config, bells, &queue);
    if (status >= 0)
        status = shoal_taskqueue_protect(queue);
    if (status >= 0)
        status = shoal_ring_attach(region, ring_offset, &results);
    if (status >= 0)
        status = serve(queue, results, config.doorbell);
    shoal_ring_detach(results);
    shoal_taskqueue_free(queue);
    shoal_region_free(region);
    return status < 0 ? -status : 0;
}

static int to_number(char *text, size_t size, uint64_t number)
{
    return snprintf(text, size, "%#llx", (unsigned long long)number);
}

static int keep(char *text, size_t size, int fd)
{
    if (fd >= 0)
        fcntl(fd, F_SETFD, 0);
    return snprintf(text, size, "%d", fd);
}

static int execute(void *arg)
{
    struct shared *shared = arg;
    static char self[] = "/proc/self/exe";
    char text[6 + 1 + WORKERS][32];
    char *argv[1 + 6 + 1 + WORKERS + 1] = { self };
    for (unsigned i = 0; i < 7 + WORKERS; i++)
        argv[1 + i] = text[i];
    keep(text[0], sizeof text[0], shoal_region_fd(shared->region));
    keep(text[1], sizeof text[1], shared->lifeline.read_fd);
    snprintf(text[2], sizeof text[2], "%d", (int)shared->config.doorbell);
    to_number(text[3], sizeof text[3], shared->ring_offset);
    to_number(text[4], sizeof text[4], (uintptr_t)shoal_region_base(shared->region));
    to_number(text[5], sizeof text[5], shoal_region_size(shared->region));
    keep(text[6], sizeof text[6], shoal_doorbell_fd(shoal_taskqueue_owner_bell(shared->queue)));
    for (unsigned i = 0; i < WORKERS; i++)
        keep(text[7 + i], sizeof text[0], shoal_doorbell_fd(shoal_taskqueue_worker_bell(shared->queue, i)));
    execv(self, argv);
    return 99;
}

/* ---- the parent ---- */

static void publish(struct shared *shared, uint64_t tag)
{
    uint32_t generation;
    struct shoal_task task = { .tag = tag };
    int slot = shoal_taskqueue_acquire(shared->queue);
    if (slot < 0 || !ASSERT_OK(shoal_taskqueue_publish(shared->queue, (uint32_t)slot, &task, &generation)))
        return;
    shoal_taskqueue_wake(shared->queue);
}

/* The next result's value; its slot is free again. */
static uint32_t take(struct shared *shared, struct shoal_waiter *waiter)
{
    struct shoal_doorbell *bell = shoal_taskqueue_owner_bell(shared->queue);
    const void *bytes;
    uint64_t size, value;
    for (;;) {
        uint32_t ticket = shoal_doorbell_announce(bell, SHOAL_URGENT);
        int status = shoal_ring_peek(shared->results, &bytes, &size);
        if (status == -EAGAIN)
            status = shoal_waiter_wait(waiter, bell, ticket, -1, NULL) < 0 ? -EIO : -EAGAIN;
        shoal_doorbell_retract(bell);
        if (status == -EAGAIN)
            continue;
        if (!ASSERT_OK(status) || !ASSERT_EQ(size, sizeof value))
            return 0;
        memcpy(&value, bytes, sizeof value);
        shoal_ring_pop(shared->results);
        ASSERT_OK(shoal_taskqueue_finish(shared->queue, (uint32_t)(value >> 32)));
        return (uint32_t)value;
    }
}

static void another_program_serves_wherever_it_maps(void)
{
    struct test_footprint before;
    struct shared shared;
    struct shoal_waiter *waiter;
    test_footprint_take(&before);
    if (!set_up(&shared))
        return;
    REQUIRE_OK(shoal_waiter_create(shared.config.doorbell, &waiter));
    pid_t pid = test_fork(execute, &shared);
    for (uint64_t i = 1; i <= TASKS; i++) {
        publish(&shared, i);
        ASSERT_EQ(take(&shared, waiter), i * i);
    }
    for (uint64_t i = 1; i <= 8; i++) /* several at once */
        publish(&shared, i);
    uint64_t sum = 0;
    for (int i = 0; i < 8; i++)
        sum += take(&shared, waiter);
    ASSERT_EQ(sum, 204);
    publish(&shared, STOP);
    take(&shared, waiter);
    ASSERT_EQ(test_wait(pid), 0);
    ASSERT_OK(shoal_taskqueue_check(shared.queue));
    shoal_waiter_free(waiter);
    tear_down(&shared);
    test_footprint_same(&before);
}

static void another_program_dies_when_the_lifeline_ends(void)
{
    struct shared shared;
    struct shoal_waiter *waiter;
    if (!set_up(&shared))
        return;
    REQUIRE_OK(shoal_waiter_create(shared.config.doorbell, &waiter));
    pid_t pid = test_fork(execute, &shared);
    publish(&shared, 3);
    ASSERT_EQ(take(&shared, waiter), 9); /* it is up, and armed */
    shoal_lifeline_close(&shared.lifeline);
    ASSERT_EQ(test_wait(pid), -SIGKILL);
    shoal_waiter_free(waiter);
    tear_down(&shared);
}

static void what_is_not_that_queue_is_refused(void)
{
    struct shared shared;
    struct shoal_taskqueue *queue = NULL;
    if (!set_up(&shared))
        return;
    struct shoal_taskqueue_config other = shared.config;
    other.worker_count = 1;
    ASSERT_EQ(shoal_taskqueue_attach(shared.region, OFFSET, &other, NULL, &queue), -EPROTO);
    other = shared.config;
    other.slot_count = 8;
    ASSERT_EQ(shoal_taskqueue_attach(shared.region, OFFSET, &other, NULL, &queue), -EPROTO);
    ASSERT_EQ(shoal_taskqueue_attach(shared.region, OFFSET + 8, &shared.config, NULL, &queue), -EINVAL);
    if (shared.config.doorbell == SHOAL_DOORBELL_URING_EVENTFD)
        ASSERT_EQ(shoal_taskqueue_attach(shared.region, OFFSET, &shared.config, NULL, &queue), -ENOTSUP);
    CU_ASSERT_PTR_NULL(queue);
    tear_down(&shared);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        { "another program serves by descriptor, wherever it maps", another_program_serves_wherever_it_maps },
        { "another program dies when the lifeline ends", another_program_dies_when_the_lifeline_ends },
        { "what is not that queue is refused", what_is_not_that_queue_is_refused },
    };
    return argc > 1 ? other_program(argv) : test_main("handover", tests, TEST_COUNT(tests));
}

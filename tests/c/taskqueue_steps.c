/* SPDX-License-Identifier: BSD-3-Clause */
#include "taskqueue.h"
#include "taskqueue_steps.h"

#include <string.h>

bool set_up(struct fixture *f, uint32_t slot_count, uint32_t worker_count, int64_t spin_ns)
{
    *f = (struct fixture) { 0 };
    if (!ASSERT_OK(shoal_doorbell_choose(&f->kind)))
        return false;
    struct shoal_taskqueue_config config = {
        .slot_count = slot_count, .worker_count = worker_count, .doorbell = f->kind, .spin_ns = spin_ns
    };
    uint64_t footprint = shoal_taskqueue_footprint(&config);
    return ASSERT_OK(shoal_region_create(QUEUE_OFFSET + footprint, &f->region)) &&
           ASSERT_OK(shoal_region_reserve(f->region, QUEUE_OFFSET, footprint)) &&
           ASSERT_OK(shoal_taskqueue_create(f->region, QUEUE_OFFSET, &config, &f->queue)) &&
           ASSERT_OK(shoal_taskqueue_check(f->queue));
}

void tear_down(struct fixture *f)
{
    shoal_taskqueue_free(f->queue);
    shoal_region_free(f->region);
}

struct shoal_task task_of(uint64_t tag)
{
    uint32_t small = (uint32_t)tag;
    return (struct shoal_task) { .tag = tag, .stream_offset = tag * 3, .stream_bytes = tag * 5, .block_offset = ~tag,
                                 .flags = small, .first_item = small + 1, .item_count = small + 2 };
}

uint32_t submit(struct fixture *f, uint64_t tag)
{
    int slot = shoal_taskqueue_acquire(f->queue);
    struct shoal_task task = task_of(tag);
    ASSERT_OK(shoal_taskqueue_publish(f->queue, (uint32_t)slot, &task, NULL));
    return (uint32_t)slot;
}

int64_t claim_tag(struct fixture *f, unsigned worker, struct shoal_claim *ret_claim)
{
    struct shoal_task task;
    int status = shoal_taskqueue_claim(f->queue, worker, &task, ret_claim);
    if (status < 0)
        return status;
    struct shoal_task expected = task_of(task.tag);
    ASSERT_OK(memcmp(&task, &expected, sizeof task));
    return (int64_t)task.tag;
}

void expect_state(struct fixture *f, uint32_t slot, enum shoal_task_state expected, unsigned expected_worker)
{
    enum shoal_task_state state;
    unsigned worker;
    uint32_t generation;
    REQUIRE_OK(shoal_taskqueue_state(f->queue, slot, &state, &worker, &generation));
    ASSERT_EQ(state, expected);
    ASSERT_EQ(worker, expected_worker);
    ASSERT_OK(shoal_taskqueue_check(f->queue));
}

void lie_down(struct fixture *f, unsigned worker, uint64_t rest_ns)
{
    shoal__store_release(&f->queue->workers[worker].rest_ns, rest_ns);
    shoal__store_release(&f->queue->workers[worker].stance, SHOAL__SLEEPING);
    shoal__or_seqcst(&f->queue->common->idle[worker / 64], shoal__idle_bit(worker));
    shoal_doorbell_announce(shoal_taskqueue_worker_bell(f->queue, worker), SHOAL_URGENT);
}

bool was_rung(struct fixture *f, unsigned worker)
{
    return !shoal_doorbell_sleeps(shoal_taskqueue_worker_bell(f->queue, worker));
}

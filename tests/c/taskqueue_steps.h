/* SPDX-License-Identifier: BSD-3-Clause */
/* A task queue in a region of its own, and single steps of it, each of which checks what it can. */
#ifndef SHOAL_TEST_TASKQUEUE_STEPS_H
#define SHOAL_TEST_TASKQUEUE_STEPS_H

#include <shoal/taskqueue.h>

#include "support.h"

#define QUEUE_OFFSET 8192u /* in the region */

struct fixture {
    struct shoal_region *region;
    struct shoal_taskqueue *queue;
    enum shoal_doorbell_kind kind;
};

bool set_up(struct fixture *f, uint32_t slot_count, uint32_t worker_count, int64_t spin_ns);
void tear_down(struct fixture *f);
/* The whole task is derived from its tag, so that a mixture of two shows. */
struct shoal_task task_of(uint64_t tag);
/* Acquire and publish; the slot. */
uint32_t submit(struct fixture *f, uint64_t tag);
/* Claim; the tag, or -errno. */
int64_t claim_tag(struct fixture *f, unsigned worker, struct shoal_claim *ret_claim);
void expect_state(struct fixture *f, uint32_t slot, enum shoal_task_state expected, unsigned expected_worker);
/* As a worker does before it sleeps. */
void lie_down(struct fixture *f, unsigned worker, uint64_t rest_ns);
/* Since it lay down. */
bool was_rung(struct fixture *f, unsigned worker);

#endif

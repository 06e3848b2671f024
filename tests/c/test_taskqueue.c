/* SPDX-License-Identifier: BSD-3-Clause */
/* test_taskqueue.c - each step of a task, one after the other, and what is scribbled over. */
#include "taskqueue.h"
#include "taskqueue_steps.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>

/* ---- the way of a task ---- */

static void a_task_goes_its_way_once(void)
{
    struct fixture f;
    struct shoal_claim claim, other;
    if (!set_up(&f, 8, 2, 0))
        return;
    ASSERT_EQ(claim_tag(&f, 0, &claim), -EAGAIN);
    uint32_t slot = submit(&f, 77);
    expect_state(&f, slot, SHOAL_TASK_READY, UINT_MAX);
    ASSERT_EQ(shoal_taskqueue_backlog(f.queue), 1);
    REQUIRE_EQ(claim_tag(&f, 1, &claim), 77);
    ASSERT_EQ(claim.slot, slot);
    ASSERT_EQ(claim_tag(&f, 0, &other), -EAGAIN);
    expect_state(&f, slot, SHOAL_TASK_CLAIMED, 1);
    ASSERT_EQ(shoal_taskqueue_start(f.queue, 0, &claim), -EINVAL); /* it names worker 1 */
    other = claim;
    ASSERT_OK(shoal_taskqueue_start(f.queue, 1, &claim));
    ASSERT_EQ(shoal_taskqueue_start(f.queue, 1, &claim), -EINVAL);
    ASSERT_EQ(shoal_taskqueue_start(f.queue, 1, &other), -ESTALE);
    expect_state(&f, slot, SHOAL_TASK_STARTED, 1);
    ASSERT_EQ(shoal_taskqueue_revoke(f.queue, slot), -EBUSY);
    ASSERT_OK(shoal_taskqueue_finish(f.queue, slot));
    expect_state(&f, slot, SHOAL_TASK_FREE, UINT_MAX);
    ASSERT_EQ(shoal_taskqueue_finish(f.queue, slot), -EINVAL);
    ASSERT_EQ(shoal_taskqueue_free_slots(f.queue), 8);
    tear_down(&f);
}

static void there_are_as_many_workers_as_the_owner_says(void)
{
    struct fixture f;
    if (!set_up(&f, 4, 3, 0))
        return;
    ASSERT_EQ(shoal_taskqueue_set_active(f.queue, 0), -EINVAL);
    ASSERT_EQ(shoal_taskqueue_set_active(f.queue, 4), -EINVAL);
    shoal_taskqueue_returning(f.queue, 2);
    ASSERT_EQ(shoal_taskqueue_spinner(f.queue), 2);
    ASSERT_OK(shoal_taskqueue_set_active(f.queue, 1));
    CU_ASSERT_PTR_NOT_NULL(shoal_taskqueue_worker_bell(f.queue, 2)); /* it may come back */
    ASSERT_OK(shoal_taskqueue_bury(f.queue, 2)); /* as one of those that were too many */
    ASSERT_OK(shoal_taskqueue_check(f.queue));
    ASSERT_OK(shoal_taskqueue_set_active(f.queue, 3));
    ASSERT_OK(shoal_taskqueue_check(f.queue));
    tear_down(&f);
}

static void what_makes_no_sense_is_refused(void)
{
    struct fixture f;
    struct shoal_task task = task_of(1);
    struct shoal_claim claim = { .slot = 1000 };
    struct shoal_taskqueue *queue = NULL;
    if (!set_up(&f, 4, 1, 0))
        return;
    const struct shoal_taskqueue_config configs[] = {
        { .slot_count = 3, .worker_count = 1, .doorbell = f.kind },
        { .slot_count = 0, .worker_count = 1, .doorbell = f.kind },
        { .slot_count = 1u << 17, .worker_count = 1, .doorbell = f.kind },
        { .slot_count = 4, .worker_count = 0, .doorbell = f.kind },
        { .slot_count = 4, .worker_count = 1024, .doorbell = f.kind },
        { .slot_count = 4, .worker_count = 1, .doorbell = SHOAL_DOORBELL_AUTO },
        { .slot_count = 65536, .worker_count = 1, .doorbell = f.kind }, /* does not fit into this region */
    };
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++)
        ASSERT_EQ(shoal_taskqueue_create(f.region, QUEUE_OFFSET, &configs[i], &queue), -EINVAL);
    ASSERT_EQ(shoal_taskqueue_footprint(&configs[0]), 0);
    CU_ASSERT_PTR_NULL(queue);
    ASSERT_EQ(shoal_taskqueue_publish(f.queue, 0, &task, NULL), -EINVAL); /* not acquired */
    ASSERT_EQ(shoal_taskqueue_publish(f.queue, 99, &task, NULL), -EINVAL);
    ASSERT_EQ(shoal_taskqueue_revoke(f.queue, 0), -EINVAL);
    ASSERT_EQ(shoal_taskqueue_requeue(f.queue, 0, &task, NULL), -EINVAL);
    ASSERT_EQ(shoal_taskqueue_state(f.queue, 99, NULL, NULL, NULL), -EINVAL);
    ASSERT_EQ(shoal_taskqueue_claim(f.queue, 1, &task, &claim), -EINVAL);
    ASSERT_EQ(shoal_taskqueue_start(f.queue, 0, &claim), -EINVAL);
    ASSERT_EQ(shoal_taskqueue_bury(f.queue, 1), -EINVAL);
    ASSERT_EQ(shoal_taskqueue_wake_worker(f.queue, 1), -EINVAL);
    ASSERT_EQ(shoal_taskqueue_worker_cpu(f.queue, 1), -1);
    CU_ASSERT_PTR_NULL(shoal_taskqueue_worker_bell(f.queue, 1));
    shoal_taskqueue_unacquire(f.queue, 0);
    ASSERT_OK(shoal_taskqueue_check(f.queue));
    tear_down(&f);
}

static void every_slot_can_be_used_again(void)
{
    struct fixture f;
    struct shoal_claim claim;
    if (!set_up(&f, 16, 1, 0))
        return;
    for (uint64_t round = 0; round < 50; round++) {
        for (uint64_t i = 0; i < 16; i++)
            submit(&f, round * 100 + i);
        ASSERT_EQ(shoal_taskqueue_acquire(f.queue), -EAGAIN);
        for (uint64_t i = 0; i < 16; i++) { /* oldest first */
            REQUIRE_EQ(claim_tag(&f, 0, &claim), round * 100 + i);
            ASSERT_OK(shoal_taskqueue_start(f.queue, 0, &claim));
            ASSERT_OK(shoal_taskqueue_finish(f.queue, claim.slot));
        }
        ASSERT_OK(shoal_taskqueue_check(f.queue));
    }
    int slot = shoal_taskqueue_acquire(f.queue);
    ASSERT_EQ(shoal_taskqueue_free_slots(f.queue), 15);
    shoal_taskqueue_unacquire(f.queue, (uint32_t)slot);
    shoal_taskqueue_unacquire(f.queue, (uint32_t)slot);
    ASSERT_EQ(shoal_taskqueue_free_slots(f.queue), 16);
    tear_down(&f);
}

static void a_revoked_task_is_claimed_by_nobody(void)
{
    struct fixture f;
    struct shoal_claim claim;
    if (!set_up(&f, 8, 1, 0))
        return;
    uint32_t first = submit(&f, 1);
    submit(&f, 2);
    ASSERT_OK(shoal_taskqueue_revoke(f.queue, first));
    expect_state(&f, first, SHOAL_TASK_FREE, UINT_MAX);
    ASSERT_EQ(claim_tag(&f, 0, &claim), 2);
    ASSERT_EQ(claim_tag(&f, 0, &claim), -EAGAIN);
    ASSERT_EQ(submit(&f, 3), first); /* used again: the last entry of it must not bring it up twice */
    ASSERT_EQ(claim_tag(&f, 0, &claim), 3);
    ASSERT_EQ(claim_tag(&f, 0, &claim), -EAGAIN);
    tear_down(&f);
}

static void a_task_that_was_taken_away_cannot_be_started(void)
{
    struct fixture f;
    struct shoal_claim stale, claim;
    struct shoal_task again = task_of(11);
    uint32_t generation;
    if (!set_up(&f, 8, 2, 0))
        return;
    uint32_t slot = submit(&f, 10);
    ASSERT_EQ(claim_tag(&f, 0, &stale), 10);
    ASSERT_OK(shoal_taskqueue_requeue(f.queue, slot, &again, &generation));
    CU_ASSERT(generation != stale.generation);
    ASSERT_EQ(shoal_taskqueue_start(f.queue, 0, &stale), -ESTALE);
    ASSERT_EQ(claim_tag(&f, 1, &claim), 11);
    ASSERT_EQ(claim.generation, generation);
    ASSERT_EQ(shoal_taskqueue_start(f.queue, 0, &stale), -ESTALE);
    ASSERT_OK(shoal_taskqueue_start(f.queue, 1, &claim));
    ASSERT_OK(shoal_taskqueue_finish(f.queue, slot));
    slot = submit(&f, 12);
    ASSERT_EQ(claim_tag(&f, 0, &stale), 12);
    ASSERT_OK(shoal_taskqueue_finish(f.queue, slot));
    ASSERT_EQ(submit(&f, 13), slot);
    ASSERT_EQ(shoal_taskqueue_start(f.queue, 0, &stale), -ESTALE);
    ASSERT_EQ(claim_tag(&f, 1, &claim), 13);
    tear_down(&f);
}

static void old_tasks_outlive_any_number_of_revoked_ones(void)
{
    struct fixture f;
    struct shoal_claim claim;
    if (!set_up(&f, 8, 1, 0))
        return;
    for (uint64_t tag = 0; tag < 5; tag++) {
        submit(&f, tag);
        for (int i = 0; i < 100; i++)
            ASSERT_OK(shoal_taskqueue_revoke(f.queue, submit(&f, 1000)));
        ASSERT_OK(shoal_taskqueue_check(f.queue));
    }
    for (int64_t tag = 0; tag < 5; tag++)
        ASSERT_EQ(claim_tag(&f, 0, &claim), tag);
    ASSERT_EQ(claim_tag(&f, 0, &claim), -EAGAIN);
    tear_down(&f);
}

static void generations_wrap(void)
{
    struct fixture f;
    struct shoal_claim claim;
    if (!set_up(&f, 2, 1, 0))
        return;
    for (int slot = 0; slot < 2; slot++) {
        f.queue->generations[slot] = UINT32_MAX - 3;
        shoal__store_release(&f.queue->slots[slot].word, shoal__word(UINT32_MAX - 3, 0, 0, SHOAL_TASK_FREE));
    }
    for (uint64_t tag = 0; tag < 10; tag++) {
        uint32_t slot = submit(&f, tag);
        ASSERT_EQ(claim_tag(&f, 0, &claim), tag);
        ASSERT_OK(shoal_taskqueue_start(f.queue, 0, &claim));
        expect_state(&f, slot, SHOAL_TASK_STARTED, 0);
        ASSERT_OK(shoal_taskqueue_finish(f.queue, slot));
    }
    tear_down(&f);
}

/* ---- scribbled over ---- */

static void a_word_that_was_scribbled_over_is_seen_and_costs_one_task(void)
{
    struct fixture f;
    struct shoal_claim claim;
    if (!set_up(&f, 8, 3, 0))
        return;
    for (int what = 0; what < 7; what++) {
        uint32_t slot = submit(&f, 1);
        uint32_t generation = f.queue->generations[slot];
        const uint64_t words[] = { UINT64_MAX, 0x0123456789abcdefull,
                                   shoal__word(generation, 0, 0, SHOAL_TASK_FREE),
                                   shoal__word(generation + 1, 0, 0, SHOAL_TASK_READY),
                                   shoal__word(generation, 1, 0, SHOAL_TASK_READY),
                                   shoal__word(generation, 4, 0, SHOAL_TASK_CLAIMED),
                                   shoal__word(generation, 0, 0, SHOAL_TASK_STARTED) };
        shoal__store_release(&f.queue->slots[slot].word, words[what]);
        ASSERT_EQ(shoal_taskqueue_state(f.queue, slot, NULL, NULL, NULL), -EBADMSG);
        ASSERT_EQ(shoal_taskqueue_check(f.queue), -EUCLEAN);
        ASSERT_EQ(claim_tag(&f, 0, &claim), -EAGAIN);
        ASSERT_EQ(shoal_taskqueue_revoke(f.queue, slot), -EBUSY);
        ASSERT_OK(shoal_taskqueue_finish(f.queue, slot));
        ASSERT_OK(shoal_taskqueue_check(f.queue));
    }
    tear_down(&f);
}

static void a_head_that_was_scribbled_over_loses_no_task(void)
{
    const uint64_t offsets[] = { 1, 3, 4, 5, 17, 1000, 1ull << 32, 1ull << 63, UINT64_MAX - 2, UINT64_MAX - 40 };
    for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++) {
        for (int how = 0; how < 2; how++) {
            struct fixture f;
            struct shoal_claim claim;
            int64_t sum = 0, tag;
            if (!set_up(&f, 8, 1, 0))
                return;
            for (int t = 0; t < 60; t++)
                ASSERT_OK(shoal_taskqueue_revoke(f.queue, submit(&f, 9)));
            for (uint64_t t = 1; t <= 4; t++)
                submit(&f, t);
            shoal__add_seqcst(&f.queue->common->head, offsets[i]);
            if (how == 0)
                CU_ASSERT(shoal_taskqueue_rescan(f.queue) >= 0)
            else
                ASSERT_OK(shoal_taskqueue_bury(f.queue, 0));
            ASSERT_OK(shoal_taskqueue_check(f.queue));
            submit(&f, 5);
            while ((tag = claim_tag(&f, 0, &claim)) >= 0)
                sum += 1ll << (4 * tag);
            ASSERT_EQ(sum, 0x111110); /* each once */
            tear_down(&f);
        }
    }
}

struct scribbled {
    struct fixture f;
    shoal__a32 stop;
};

static void *scribble_over_the_head(void *arg)
{
    struct scribbled *self = arg;
    for (uint64_t head = 1ull << 40; !shoal__load_relaxed(&self->stop); head++)
        shoal__store_relaxed(&self->f.queue->common->head, head);
    return NULL;
}

static void *publish_all_the_same(void *arg)
{
    struct scribbled *self = arg;
    struct fixture *f = &self->f;
    for (uint64_t t = 0; t < 20000; t++) {
        uint32_t first = submit(f, t), second = submit(f, t);
        CU_ASSERT(shoal_taskqueue_rescan(f->queue) >= 0)
        ASSERT_OK(shoal_taskqueue_finish(f->queue, first));
        ASSERT_OK(shoal_taskqueue_finish(f->queue, second));
    }
    shoal__store_relaxed(&self->stop, 1);
    return NULL;
}

static void a_head_that_is_scribbled_over_all_the_time_costs_no_stack(void)
{
    struct scribbled self = { 0 };
    struct shoal_claim claim;
    pthread_t scribbler, publisher;
    pthread_attr_t small;
    if (!set_up(&self.f, 4096, 1, 0))
        return;
    /* Tasks in the last slots: it takes longest to find what the ring does not name. */
    for (int i = 0; i < 4090; i++)
        CU_ASSERT(shoal_taskqueue_acquire(self.f.queue) >= 0)
    REQUIRE_EQ(pthread_attr_init(&small), 0);
    long least = (long)PTHREAD_STACK_MIN; /* 128 KiB on aarch64 */
    REQUIRE_EQ(pthread_attr_setstacksize(&small, least > (32 << 10) ? (size_t)least : 32 << 10), 0);
    REQUIRE_EQ(pthread_create(&scribbler, NULL, scribble_over_the_head, &self), 0);
    REQUIRE_EQ(pthread_create(&publisher, &small, publish_all_the_same, &self), 0);
    pthread_join(publisher, NULL);
    pthread_join(scribbler, NULL);
    pthread_attr_destroy(&small);
    submit(&self.f, 7);
    CU_ASSERT(shoal_taskqueue_rescan(self.f.queue) >= 0)
    ASSERT_OK(shoal_taskqueue_check(self.f.queue));
    ASSERT_EQ(claim_tag(&self.f, 0, &claim), 7);
    tear_down(&self.f);
}

static void hints_that_were_scribbled_over_lead_nowhere(void)
{
    struct fixture f;
    struct shoal_claim claim;
    if (!set_up(&f, 8, 70, 0))
        return;
    for (uint32_t i = 0; i < SHOAL__QUEUE_IDLE_WORDS; i++)
        shoal__store_release(&f.queue->common->idle[i], UINT64_MAX);
    ASSERT_EQ(shoal_taskqueue_check(f.queue), -EUCLEAN);
    ASSERT_EQ(shoal_taskqueue_idle(f.queue), 70);
    for (uint32_t stance = 0; stance < 300; stance += 23) {
        for (uint32_t i = 0; i < 70; i++)
            shoal__store_release(&f.queue->workers[i].stance, stance == 0 ? UINT32_MAX : stance + i);
        shoal__store_release(&f.queue->common->spinner, stance * 0x10000001u);
        submit(&f, 1);
        CU_ASSERT(shoal_taskqueue_wake(f.queue) >= 0);
        CU_ASSERT(shoal_taskqueue_wake_all(f.queue) >= 0);
        CU_ASSERT(shoal_taskqueue_spinner(f.queue) < 70);
        ASSERT_EQ(claim_tag(&f, 3, &claim), 1);
        ASSERT_OK(shoal_taskqueue_finish(f.queue, claim.slot));
    }
    for (unsigned i = 0; i < 70; i++)
        ASSERT_OK(shoal_taskqueue_bury(f.queue, i));
    tear_down(&f);
}

static int write_what_is_the_owners(void *argument)
{
    struct fixture *f = argument;
    struct shoal_claim claim;
    struct shoal_task task;
    if (shoal_taskqueue_protect(f->queue) < 0 || shoal_taskqueue_claim(f->queue, 0, &task, &claim) < 0 ||
        shoal_taskqueue_start(f->queue, 0, &claim) < 0)
        return 1;
    signal(SIGSEGV, SIG_DFL);
    shoal__store_relaxed(&f->queue->descriptors[claim.slot].field[0], 0);
    return 0;
}

static void a_worker_can_write_nothing_that_is_the_owners(void)
{
    struct fixture f;
    if (!set_up(&f, 8, 1, 0))
        return;
    uint32_t slot = submit(&f, 1);
    int ended = test_wait(test_fork(write_what_is_the_owners, &f));
    CU_ASSERT(ended != 0 && ended != 1); /* a signal, or a sanitizer's code */
    expect_state(&f, slot, SHOAL_TASK_STARTED, 0);
    tear_down(&f);
}

int main(void)
{
    static const struct test tests[] = {
        { "a task goes its way once", a_task_goes_its_way_once },
        { "there are as many workers as the owner says", there_are_as_many_workers_as_the_owner_says },
        { "what makes no sense is refused", what_makes_no_sense_is_refused },
        { "every slot can be used again", every_slot_can_be_used_again },
        { "a revoked task is claimed by nobody", a_revoked_task_is_claimed_by_nobody },
        { "a task that was taken away cannot be started", a_task_that_was_taken_away_cannot_be_started },
        { "old tasks outlive any number of revoked ones", old_tasks_outlive_any_number_of_revoked_ones },
        { "generations wrap", generations_wrap },
        { "a word that was scribbled over is seen and costs one task",
          a_word_that_was_scribbled_over_is_seen_and_costs_one_task },
        { "a head that was scribbled over loses no task", a_head_that_was_scribbled_over_loses_no_task },
        { "a head that is scribbled over all the time costs no stack",
          a_head_that_is_scribbled_over_all_the_time_costs_no_stack },
        { "hints that were scribbled over lead nowhere", hints_that_were_scribbled_over_lead_nowhere },
        { "a worker can write nothing that is the owner's", a_worker_can_write_nothing_that_is_the_owners },
    };
    return test_main("taskqueue", tests, TEST_COUNT(tests));
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* test_taskqueue_lookout.c - while tasks are short, one sleeps with an open eye instead of many being woken. */
#include "taskqueue.h"
#include "taskqueue_steps.h"

#define CLAIMED 1000000u /* so many claims may take long, and the tasks be short all the same */

/* As if it had been awake while so many short tasks were claimed, more than it could take. */
static void has_seen_short_tasks(struct fixture *f, unsigned worker)
{
    struct shoal__queue_mind *mind = &f->queue->minds[worker];
    mind->seen_head = shoal__load_relaxed(&f->queue->common->head) - CLAIMED;
    mind->seen_ns = shoal_now_ns();
    mind->crowded = true;
}

/* Four workers of the hundred that there might be; worker 0 is awake, worker 3 is the lookout. */
static bool set_up_with_a_lookout(struct fixture *f, uint32_t pace, uint32_t cpu_count)
{
    if (!set_up(f, 64, 100, 0) || !ASSERT_OK(shoal_taskqueue_set_active(f->queue, 4)))
        return false;
    f->queue->cpu_count = cpu_count;
    for (unsigned worker = 1; worker < 4; worker++)
        lie_down(f, worker, worker);
    has_seen_short_tasks(f, 3);
    bool begun = shoal__lookout_begin(f->queue, 3, shoal_now_ns());
    shoal__store_relaxed(&f->queue->common->pace, pace);
    return ASSERT_EQ(begun, true);
}

static void what_those_awake_do_meanwhile_is_left_to_them(void)
{
    struct fixture f;
    if (!set_up_with_a_lookout(&f, 3, 8))
        return;
    for (uint64_t tag = 1; tag <= 3; tag++)
        submit(&f, tag);
    ASSERT_EQ(shoal_taskqueue_wake(f.queue), 0);
    submit(&f, 4);
    ASSERT_EQ(shoal_taskqueue_wake(f.queue), 3);
    ASSERT_EQ(shoal_taskqueue_check(f.queue), 0);
    tear_down(&f);
}

static void no_more_are_woken_than_there_are_processors(void)
{
    struct fixture f;
    if (!set_up_with_a_lookout(&f, 1, 2))
        return;
    for (uint64_t tag = 1; tag <= 4; tag++)
        submit(&f, tag);
    ASSERT_EQ(shoal_taskqueue_wake(f.queue), 1); /* with the one that is awake they are two */
    ASSERT_EQ(was_rung(&f, 2), true);            /* the warmest that is not the lookout */
    ASSERT_EQ(shoal_taskqueue_wake(f.queue), 0);
    tear_down(&f);
}

static void somebody_is_woken_if_nobody_is_awake(void)
{
    struct fixture f;
    if (!set_up_with_a_lookout(&f, 16, 1))
        return;
    lie_down(&f, 0, 9);
    submit(&f, 1);
    submit(&f, 2);
    ASSERT_EQ(shoal_taskqueue_wake(f.queue), 1);
    ASSERT_EQ(was_rung(&f, 0) && !was_rung(&f, 3), true);
    submit(&f, 3);
    ASSERT_EQ(shoal_taskqueue_wake(f.queue), 0); /* it is on its way */
    tear_down(&f);
}

static void a_lookout_that_was_woken_or_died_spares_nobody(void)
{
    struct fixture f;
    if (!set_up_with_a_lookout(&f, 16, 1))
        return;
    submit(&f, 1);
    ASSERT_EQ(shoal_taskqueue_wake(f.queue), 0);
    shoal__store_release(&f.queue->workers[3].stance, SHOAL__WOKEN);
    submit(&f, 2);
    ASSERT_EQ(shoal_taskqueue_wake(f.queue), 1); /* one comes, for two tasks */
    shoal__store_release(&f.queue->workers[3].stance, SHOAL__SLEEPING);
    ASSERT_OK(shoal_taskqueue_bury(f.queue, 3));
    ASSERT_EQ(shoal__load_relaxed(&f.queue->common->lookout), 0);
    tear_down(&f);
}

static void it_sleeps_on_while_tasks_are_short_and_few(void)
{
    struct fixture f;
    if (!set_up_with_a_lookout(&f, 16, 8))
        return;
    has_seen_short_tasks(&f, 3);
    ASSERT_EQ(shoal__lookout_stays(f.queue, 3, shoal_now_ns()), true);
    has_seen_short_tasks(&f, 3);
    ASSERT_EQ(shoal__lookout_stays(f.queue, 3, shoal_now_ns()), false); /* nobody was spared since */
    tear_down(&f);
}

/* So many claims in a millisecond, and 30 tasks that wait. Was somebody woken? */
static bool sends_another_at(struct fixture *f, uint32_t claims)
{
    struct shoal__queue_mind *mind = &f->queue->minds[3];
    shoal__store_relaxed(&f->queue->common->spared, 1);
    mind->seen_head = shoal__load_relaxed(&f->queue->common->head) - claims;
    mind->seen_ns = 0;
    ASSERT_EQ(shoal__lookout_stays(f->queue, 3, 1000000), true);
    return was_rung(f, 2);
}

static void it_sends_another_where_those_awake_fall_behind(void)
{
    struct fixture f;
    if (!set_up_with_a_lookout(&f, 16, 1))
        return;
    for (uint64_t tag = 1; tag <= 30; tag++)
        submit(&f, tag);
    ASSERT_EQ(sends_another_at(&f, 1000), false);
    ASSERT_EQ(sends_another_at(&f, 400), false);
    ASSERT_EQ(sends_another_at(&f, 200), true); /* 20 in the time that a wake takes, so that some are left */
    tear_down(&f);
}

static void it_sends_others_and_then_comes_itself_if_tasks_take_long(void)
{
    struct fixture f;
    if (!set_up_with_a_lookout(&f, 16, 1))
        return;
    submit(&f, 1);
    ASSERT_EQ(shoal_taskqueue_wake(f.queue), 0);
    ASSERT_EQ(shoal__lookout_stays(f.queue, 3, shoal_now_ns()), true); /* nothing was claimed since */
    ASSERT_EQ(was_rung(&f, 2) && !was_rung(&f, 1), true);
    ASSERT_EQ(shoal__lookout_stays(f.queue, 3, shoal_now_ns()), true);
    ASSERT_EQ(was_rung(&f, 1), true);
    ASSERT_EQ(shoal__lookout_stays(f.queue, 3, shoal_now_ns()), false);
    tear_down(&f);
}

static bool submit_silently(void *f)
{
    submit(f, 7); /* and wakes nobody */
    return false;
}

static void a_task_that_nobody_was_woken_for_is_found(void)
{
    struct fixture f;
    struct shoal_waiter *waiter;
    struct shoal_claim claim;
    if (!set_up(&f, 16, 2, 0) || !ASSERT_OK(shoal_waiter_create(f.kind, &waiter)))
        return;
    has_seen_short_tasks(&f, 1);
    ASSERT_EQ(shoal_taskqueue_wait(f.queue, 1, waiter, -1, NULL, submit_silently, &f), 1);
    ASSERT_EQ(claim_tag(&f, 1, &claim), 7);
    ASSERT_EQ(shoal__load_relaxed(&f.queue->common->lookout), 0);
    ASSERT_OK(shoal_taskqueue_check(f.queue));
    shoal_waiter_free(waiter);
    tear_down(&f);
}

static void who_has_not_seen_more_work_than_it_could_take_is_no_lookout(void)
{
    struct fixture f;
    if (!set_up(&f, 16, 2, 0))
        return;
    has_seen_short_tasks(&f, 1);
    f.queue->minds[1].crowded = false;
    ASSERT_EQ(shoal__lookout_begin(f.queue, 1, shoal_now_ns()), false);
    f.queue->minds[1].crowded = true;
    ASSERT_EQ(shoal__lookout_begin(f.queue, 1, shoal_now_ns()), false); /* few were claimed since */
    tear_down(&f);
}

int main(void)
{
    static const struct test tests[] = {
        { "what those awake do meanwhile is left to them", what_those_awake_do_meanwhile_is_left_to_them },
        { "no more are woken than there are processors", no_more_are_woken_than_there_are_processors },
        { "somebody is woken if nobody is awake", somebody_is_woken_if_nobody_is_awake },
        { "a lookout that was woken or died spares nobody", a_lookout_that_was_woken_or_died_spares_nobody },
        { "it sleeps on while tasks are short and few", it_sleeps_on_while_tasks_are_short_and_few },
        { "it sends another where those awake fall behind", it_sends_another_where_those_awake_fall_behind },
        { "it sends others, and then comes itself, if tasks take long",
          it_sends_others_and_then_comes_itself_if_tasks_take_long },
        { "a task that nobody was woken for is found", a_task_that_nobody_was_woken_for_is_found },
        { "who has not seen more work than it could take is no lookout",
          who_has_not_seen_more_work_than_it_could_take_is_no_lookout },
    };
    return test_main("taskqueue_lookout", tests, TEST_COUNT(tests));
}

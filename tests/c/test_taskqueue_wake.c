/* SPDX-License-Identifier: BSD-3-Clause */
/* test_taskqueue_wake.c - whom of the workers the queue wakes, and what ends a wait. */
#include "taskqueue.h"
#include "taskqueue_steps.h"

#include <errno.h>

#define MS 1000000ll

/* ---- whom to wake ---- */

static void no_more_are_woken_than_there_are_tasks_less_those_who_come(void)
{
    struct fixture f;
    if (!set_up(&f, 16, 100, 0))
        return;
    ASSERT_EQ(shoal_taskqueue_wake(f.queue), 0);
    lie_down(&f, 5, 100);
    lie_down(&f, 70, 300);
    lie_down(&f, 99, 200);
    ASSERT_EQ(shoal_taskqueue_idle(f.queue), 3);
    ASSERT_EQ(shoal_taskqueue_wake(f.queue), 0); /* nothing to do */
    submit(&f, 1);
    ASSERT_EQ(shoal_taskqueue_wake(f.queue), 1);
    ASSERT_EQ(was_rung(&f, 70), true); /* the warmest */
    ASSERT_EQ(shoal_taskqueue_wake(f.queue), 0); /* it is on its way */
    submit(&f, 2);
    shoal_taskqueue_returning(f.queue, 33);
    ASSERT_EQ(shoal_taskqueue_spinner(f.queue), 33);
    ASSERT_EQ(shoal_taskqueue_wake(f.queue), 0);
    submit(&f, 3);
    submit(&f, 4);
    submit(&f, 5);
    ASSERT_EQ(shoal_taskqueue_wake(f.queue), 2);
    ASSERT_EQ(was_rung(&f, 5) && was_rung(&f, 99), true);
    tear_down(&f);
}

static void who_claims_and_leaves_work_behind_wakes_the_next(void)
{
    struct fixture f;
    struct shoal_claim claim;
    if (!set_up(&f, 16, 4, 0))
        return;
    lie_down(&f, 1, 1);
    lie_down(&f, 2, 2);
    shoal_taskqueue_returning(f.queue, 0);
    submit(&f, 1);
    submit(&f, 2);
    ASSERT_EQ(claim_tag(&f, 0, &claim), 1); /* before the owner came to wake anybody */
    ASSERT_EQ(was_rung(&f, 2) && !was_rung(&f, 1), true);
    ASSERT_EQ(shoal_taskqueue_spinner(f.queue), -1);
    ASSERT_EQ(shoal_taskqueue_wake(f.queue), 0);
    tear_down(&f);
}

/* Worker 0 is about to look for a task, so the one that is there is left to it; worker 1 sleeps. */
static bool set_up_with_a_task_for_worker_0(struct fixture *f)
{
    if (!set_up(f, 16, 4, 0))
        return false;
    lie_down(f, 1, 1);
    shoal_taskqueue_returning(f->queue, 0);
    submit(f, 1);
    return ASSERT_EQ(shoal_taskqueue_wake(f->queue), 0);
}

static void who_leaves_instead_of_claiming_wakes_the_next(void)
{
    struct fixture f;
    if (!set_up_with_a_task_for_worker_0(&f))
        return;
    shoal_taskqueue_leave(f.queue, 0); /* it has served its number of tasks */
    ASSERT_EQ(was_rung(&f, 1), true);
    ASSERT_EQ(shoal_taskqueue_spinner(f.queue), -1);
    tear_down(&f);
}

static void a_death_undoes_what_others_were_told(void)
{
    struct fixture f;
    if (!set_up_with_a_task_for_worker_0(&f))
        return;
    ASSERT_OK(shoal_taskqueue_bury(f.queue, 0));
    ASSERT_EQ(was_rung(&f, 1), true);
    ASSERT_EQ(shoal_taskqueue_spinner(f.queue), -1);
    ASSERT_OK(shoal_taskqueue_bury(f.queue, 1));
    ASSERT_EQ(shoal_taskqueue_idle(f.queue), 0);
    tear_down(&f);
}

/* ---- ends of a wait ---- */

static bool say_yes(void *asked)
{
    ++*(int *)asked;
    return true;
}

static void a_wait_ends_for_what_it_should(void)
{
    struct fixture f;
    struct shoal_waiter *waiter;
    int asked = 0;
    if (!set_up(&f, 16, 2, -1) || !ASSERT_OK(shoal_waiter_create(f.kind, &waiter)))
        return;
    ASSERT_EQ(shoal_taskqueue_wait(f.queue, 2, waiter, 0, NULL, NULL, NULL), -EINVAL);
    for (int i = 0; i < 20; i++) {
        int64_t deadline_ns = shoal_now_ns() + MS / 4;
        ASSERT_EQ(shoal_taskqueue_wait(f.queue, 0, waiter, deadline_ns, NULL, NULL, NULL), 0);
        CU_ASSERT(shoal_now_ns() >= deadline_ns);
        ASSERT_EQ(shoal_taskqueue_wait(f.queue, 0, waiter, 0, NULL, NULL, NULL), 0);
    }
    ASSERT_EQ(shoal_taskqueue_idle(f.queue), 0);
    CU_ASSERT(shoal_taskqueue_worker_cpu(f.queue, 0) >= 0);
    ASSERT_EQ(shoal_taskqueue_wait(f.queue, 0, waiter, -1, NULL, say_yes, &asked), 1);
    ASSERT_EQ(asked, 1);
    submit(&f, 1);
    ASSERT_EQ(shoal_taskqueue_wait(f.queue, 0, waiter, -1, NULL, NULL, NULL), 1);
    ASSERT_OK(shoal_taskqueue_check(f.queue));
    shoal_waiter_free(waiter);
    tear_down(&f);
}

int main(void)
{
    static const struct test tests[] = {
        { "no more are woken than there are tasks less those who come",
          no_more_are_woken_than_there_are_tasks_less_those_who_come },
        { "who claims and leaves work behind wakes the next", who_claims_and_leaves_work_behind_wakes_the_next },
        { "who leaves instead of claiming wakes the next", who_leaves_instead_of_claiming_wakes_the_next },
        { "a death undoes what others were told", a_death_undoes_what_others_were_told },
        { "a wait ends for what it should", a_wait_ends_for_what_it_should },
    };
    return test_main("taskqueue_wake", tests, TEST_COUNT(tests));
}

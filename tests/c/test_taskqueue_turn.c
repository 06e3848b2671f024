/* SPDX-License-Identifier: BSD-3-Clause */
/* test_taskqueue_turn.c - when the CPU is given to the other side, and when it is not any more. */
#include "taskqueue.h"
#include "taskqueue_steps.h"

#define MS 1000000ll

struct other {
    int asked;
    bool ready;
};

static bool ask(void *arg)
{
    struct other *other = arg;
    other->asked++;
    return other->ready;
}

static void a_turn_ends_when_the_other_is_ready_or_does_not_get_ready(void)
{
    struct fixture f;
    struct other other = { .ready = true };
    if (!set_up(&f, 16, 2, 0))
        return;
    ASSERT_EQ(shoal_taskqueue_give_way(f.queue, ask, &other), true);
    ASSERT_EQ(other.asked, 1);
    other = (struct other) { .ready = false };
    ASSERT_EQ(shoal_taskqueue_give_way(f.queue, ask, &other), false);
    CU_ASSERT(other.asked > 1 && other.asked < 100);
    tear_down(&f);
}

static void nobody_gives_way_to_strangers_for_long(void)
{
    struct shoal__turn turn = { 0 };
    struct other other = { .ready = true };
    int64_t now_ns = shoal_now_ns();
    for (int slices = 0; slices < 20; slices++)
        shoal__turn_account(&turn, now_ns, 4 * MS);
    CU_ASSERT(turn.not_before_ns > now_ns + 50 * MS);
    turn.not_before_ns = INT64_MAX; /* the same, for a machine that is slow */
    ASSERT_EQ(shoal__turn_give(&turn, ask, &other), false);
    ASSERT_EQ(other.asked, 0); /* nor was the CPU yielded */
    turn.not_before_ns = now_ns; /* over: it is tried again */
    ASSERT_EQ(shoal__turn_give(&turn, ask, &other), true);
}

static bool ask_for_long(void *arg)
{
    int64_t begin_ns = shoal_now_ns();
    while (shoal_now_ns() < begin_ns + *(int64_t *)arg)
        ;
    return true;
}

static void a_long_turn_is_owed_whatever_it_was_timed_by(void)
{
    int64_t long_ns = MS;
    struct shoal__turn turns[] = { { .steady = false }, { .steady = shoal_ticks_steady() } };
    for (int i = 0; i < 2; i++)
        for (int turn = 1; turn <= 3; turn++) {
            int64_t owed_ns = turns[i].owed_ns;
            ASSERT_EQ(shoal__turn_give(&turns[i], ask_for_long, &long_ns), true);
            CU_ASSERT(turns[i].owed_ns > owed_ns + long_ns * 9 / 10 || turns[i].not_before_ns != 0);
        }
}

static void what_is_in_the_way_now_and_then_does_not_end_the_turns(void)
{
    struct shoal__turn turn = { 0 };
    for (int second = 0; second < 60; second++) {
        for (int quick = 0; quick < 2000; quick++)
            shoal__turn_account(&turn, second * 1000 * MS, MS / 200);
        shoal__turn_account(&turn, second * 1000 * MS, 4 * MS);
        shoal__turn_account(&turn, second * 1000 * MS, 5000 * MS); /* a caller that did something else meanwhile */
    }
    CU_ASSERT(turn.owed_ns < 20 * MS);
    ASSERT_EQ(turn.not_before_ns, 0);
}

static void only_a_worker_that_is_awake_counts_as_elsewhere(void)
{
    struct fixture f;
    if (!set_up(&f, 16, 3, 0))
        return;
    ASSERT_EQ(shoal_taskqueue_worker_elsewhere(f.queue), false); /* none has been seen */
    uint32_t elsewhere = 100000; /* no machine has it */
    shoal__store_release(&f.queue->workers[1].cpu, elsewhere);
    ASSERT_EQ(shoal_taskqueue_worker_elsewhere(f.queue), true);
    shoal__store_release(&f.queue->workers[1].stance, SHOAL__SLEEPING);
    ASSERT_EQ(shoal_taskqueue_worker_elsewhere(f.queue), false);
    shoal__store_release(&f.queue->workers[1].stance, SHOAL__WOKEN);
    ASSERT_EQ(shoal_taskqueue_worker_elsewhere(f.queue), true);
    tear_down(&f);
}

int main(void)
{
    static const struct test tests[] = {
        { "a turn ends when the other is ready, or does not get ready",
          a_turn_ends_when_the_other_is_ready_or_does_not_get_ready },
        { "nobody gives way to strangers for long", nobody_gives_way_to_strangers_for_long },
        { "a long turn is owed, whatever it was timed by", a_long_turn_is_owed_whatever_it_was_timed_by },
        { "what is in the way now and then does not end the turns",
          what_is_in_the_way_now_and_then_does_not_end_the_turns },
        { "only a worker that is awake counts as elsewhere", only_a_worker_that_is_awake_counts_as_elsewhere },
    };
    return test_main("taskqueue_turn", tests, TEST_COUNT(tests));
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* test_taskqueue_watch.c - ending what a worker runs: exactly one side gives the outcome, and nobody else is hit. */
#include "taskqueue.h"
#include "taskqueue_steps.h"

#include <pthread.h>

#define RACES 20000

static const struct shoal_claim claim = { .slot = 3, .generation = 7 };

static struct shoal_watch look(struct fixture *f)
{
    struct shoal_watch watch = { .phase = SHOAL_WATCH_KILL };
    ASSERT_EQ(shoal_taskqueue_watch(f->queue, 0, &watch), 0);
    return watch;
}

static void what_a_worker_runs_is_seen(void)
{
    struct fixture f;
    if (!set_up(&f, 16, 2, 0))
        return;
    ASSERT_EQ(look(&f).phase, SHOAL_WATCH_ENDED);
    shoal_taskqueue_watch_begin(f.queue, 0, &claim, 5);
    struct shoal_watch watch = look(&f);
    ASSERT_EQ(watch.phase, SHOAL_WATCH_RUNS);
    ASSERT_EQ(watch.slot, 3);
    ASSERT_EQ(watch.generation, 7);
    ASSERT_EQ(watch.since_ns, 5);
    ASSERT_EQ(shoal_taskqueue_watch_end(f.queue, 0), SHOAL_WATCH_RUNS);
    ASSERT_EQ(look(&f).phase, SHOAL_WATCH_ENDED);
    ASSERT_EQ(shoal_taskqueue_watch(f.queue, 2, &watch), -EINVAL);
    tear_down(&f);
}

static void asking_hits_what_was_meant_or_nothing(void)
{
    struct fixture f;
    if (!set_up(&f, 16, 2, 0))
        return;
    shoal_taskqueue_watch_begin(f.queue, 0, &claim, 5);
    uint64_t first = look(&f).beat;
    shoal_taskqueue_watch_end(f.queue, 0);
    ASSERT_EQ(shoal_taskqueue_watch_ask(f.queue, 0, first, SHOAL_WATCH_STOP), -ESTALE);
    shoal_taskqueue_watch_begin(f.queue, 0, &claim, 6);
    ASSERT_EQ(shoal_taskqueue_watch_ask(f.queue, 0, first, SHOAL_WATCH_KILL), -ESTALE);
    uint64_t second = look(&f).beat;
    ASSERT_EQ(shoal_taskqueue_watch_ask(f.queue, 0, second, SHOAL_WATCH_STOP_ALL), 0);
    ASSERT_EQ(shoal_taskqueue_watch_ask(f.queue, 0, second, SHOAL_WATCH_STOP), -ESTALE); /* no way back */
    ASSERT_EQ(shoal_taskqueue_watch_phase(f.queue, 0), SHOAL_WATCH_STOP_ALL);
    ASSERT_EQ(shoal_taskqueue_watch_end(f.queue, 0), SHOAL_WATCH_STOP_ALL);
    tear_down(&f);
}

static void who_is_to_be_killed_hands_nothing_in_and_its_successor_does(void)
{
    struct fixture f;
    if (!set_up(&f, 16, 2, 0))
        return;
    shoal_taskqueue_watch_begin(f.queue, 0, &claim, 5);
    ASSERT_EQ(shoal_taskqueue_watch_ask(f.queue, 0, look(&f).beat, SHOAL_WATCH_KILL), 0);
    ASSERT_EQ(shoal_taskqueue_watch_end(f.queue, 0), -ECANCELED);
    shoal_taskqueue_bury(f.queue, 0);
    shoal_taskqueue_watch_begin(f.queue, 0, &claim, 6);
    ASSERT_EQ(shoal_taskqueue_watch_end(f.queue, 0), SHOAL_WATCH_RUNS);
    tear_down(&f);
}

struct race {
    struct shoal_taskqueue *queue;
    uint64_t handed_in, held_back;
};

static void *serve(void *arg)
{
    struct race *race = arg;
    for (int i = 0; i < RACES; i++) {
        shoal_taskqueue_watch_begin(race->queue, 0, &claim, 1 + i);
        if (shoal_taskqueue_watch_end(race->queue, 0) >= 0) {
            race->handed_in++;
        } else {
            race->held_back++;
            shoal__watch_forget(race->queue, 0);
        }
    }
    return NULL;
}

static void of_two_who_end_it_at_once_one_does(void)
{
    struct fixture f;
    if (!set_up(&f, 16, 2, 0))
        return;
    struct race race = { .queue = f.queue };
    uint64_t killed = 0, last = 0;
    pthread_t thread;
    ASSERT_EQ(pthread_create(&thread, NULL, serve, &race), 0);
    while (last < RACES) {
        struct shoal_watch watch;
        if (shoal_taskqueue_watch(f.queue, 0, &watch) < 0)
            continue;
        last = watch.beat;
        CU_ASSERT_FATAL(watch.phase == SHOAL_WATCH_ENDED || watch.since_ns >= (int64_t)watch.beat);
        killed += shoal_taskqueue_watch_ask(f.queue, 0, watch.beat, SHOAL_WATCH_KILL) == 0;
    }
    pthread_join(thread, NULL);
    ASSERT_EQ(race.held_back, killed);
    ASSERT_EQ(race.handed_in + killed, RACES);
    tear_down(&f);
}

int main(void)
{
    static const struct test tests[] = {
        { "what a worker runs is seen", what_a_worker_runs_is_seen },
        { "asking hits what was meant, or nothing", asking_hits_what_was_meant_or_nothing },
        { "who is to be killed hands nothing in, and its successor does",
          who_is_to_be_killed_hands_nothing_in_and_its_successor_does },
        { "of two who end it at once, one does", of_two_who_end_it_at_once_one_does },
    };
    return test_main("taskqueue_watch", tests, TEST_COUNT(tests));
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* test_taskqueue_meter.c - what one has written everybody reads, and nobody writes beyond their own. */
#include "taskqueue.h"
#include "taskqueue_steps.h"

#include <string.h>

static void words_are_read_as_they_were_written(void)
{
    struct fixture f;
    if (!set_up(&f, 16, 2, 0))
        return;
    uint64_t words[SHOAL_METER_WORDS], got[SHOAL_METER_WORDS];
    for (unsigned meter = 0; meter <= 2; meter++) {
        for (unsigned i = 0; i < SHOAL_METER_WORDS; i++)
            words[i] = 1000 * meter + i;
        ASSERT_EQ(shoal_taskqueue_meter_set(f.queue, meter, 0, words, SHOAL_METER_WORDS), 0);
    }
    for (unsigned meter = 0; meter <= 2; meter++) {
        ASSERT_EQ(shoal_taskqueue_meter_read(f.queue, meter, 0, got, SHOAL_METER_WORDS), 0);
        ASSERT_EQ(got[0], 1000 * meter);
        ASSERT_EQ(got[SHOAL_METER_WORDS - 1], 1000 * meter + SHOAL_METER_WORDS - 1);
        ASSERT_EQ(shoal_taskqueue_meter_read(f.queue, meter, 7, got, 1), 0);
        ASSERT_EQ(got[0], 1000 * meter + 7);
    }
    ASSERT_EQ(shoal_taskqueue_check(f.queue), 0);
    tear_down(&f);
}

static void words_that_are_not_there_are_refused(void)
{
    struct fixture f;
    if (!set_up(&f, 16, 2, 0))
        return;
    uint64_t word = 5;
    ASSERT_EQ(shoal_taskqueue_meter_set(f.queue, 3, 0, &word, 1), -EINVAL);
    ASSERT_EQ(shoal_taskqueue_meter_set(f.queue, 1, SHOAL_METER_WORDS, &word, 1), -EINVAL);
    ASSERT_EQ(shoal_taskqueue_meter_read(f.queue, 1, 1, &word, SHOAL_METER_WORDS), -EINVAL);
    ASSERT_EQ(shoal_taskqueue_meter_read(f.queue, 3, 0, &word, 1), -EINVAL);
    ASSERT_EQ(shoal_taskqueue_meter_read(f.queue, 1, UINT32_MAX, &word, 2), -EINVAL);
    tear_down(&f);
}

static void they_begin_with_nothing_and_lie_in_the_queue(void)
{
    struct fixture f;
    if (!set_up(&f, 16, 2, 0))
        return;
    struct shoal_taskqueue_config config = {
        .slot_count = 16, .worker_count = 2, .doorbell = SHOAL_DOORBELL_SEMAPHORE, .spin_ns = 0
    };
    uint64_t first = shoal_taskqueue_meter_offset(f.queue) - f.queue->offset;
    ASSERT_EQ(first % SHOAL__CACHE_LINE, 0);
    CU_ASSERT(first >= f.queue->owner_bytes);
    CU_ASSERT(first + 3 * sizeof(struct shoal__queue_meter) <= shoal_taskqueue_footprint(&config));
    uint64_t got[SHOAL_METER_WORDS], zero[SHOAL_METER_WORDS] = { 0 };
    ASSERT_EQ(shoal_taskqueue_meter_read(f.queue, 2, 0, got, SHOAL_METER_WORDS), 0);
    ASSERT_EQ(memcmp(got, zero, sizeof got), 0);
    tear_down(&f);
}

static void ticks_do_not_go_back_and_are_the_clock_where_they_are_not_steady(void)
{
    uint64_t before = shoal_ticks(true);
    CU_ASSERT(shoal_ticks(true) >= before || !shoal_ticks_steady());
    int64_t begin = shoal_now_ns();
    int64_t ticks = (int64_t)shoal_ticks(false);
    CU_ASSERT(begin <= ticks && ticks <= shoal_now_ns());
}

int main(void)
{
    static const struct test tests[] = {
        { "words are read as they were written", words_are_read_as_they_were_written },
        { "words that are not there are refused", words_that_are_not_there_are_refused },
        { "they begin with nothing, and lie in the queue", they_begin_with_nothing_and_lie_in_the_queue },
        { "ticks do not go back, and are the clock where they are not steady",
          ticks_do_not_go_back_and_are_the_clock_where_they_are_not_steady },
    };
    return test_main("taskqueue_meter", tests, TEST_COUNT(tests));
}

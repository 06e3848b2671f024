/* SPDX-License-Identifier: BSD-3-Clause */
/* test_ring.c - records arrive whole, in order, once; damage is found and never followed. */
#include <shoal/ring.h>

#include "layout.h"
#include "support.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DATA_BYTES 8192u
#define OFFSET 16384u

struct fixture {
    struct shoal_region *region;
    struct shoal_ring *ring;
    struct shoal__ring_writer *writer; /* as it lies in memory */
    struct shoal__ring_reader *reader;
};

static bool set_up(struct fixture *f, uint64_t data_bytes)
{
    uint64_t footprint = shoal_ring_footprint(data_bytes);
    *f = (struct fixture) { 0 };
    if (!ASSERT_OK(shoal_region_create(OFFSET + footprint, &f->region)) ||
        !ASSERT_OK(shoal_region_reserve(f->region, OFFSET, footprint)) ||
        !ASSERT_OK(shoal_ring_format(f->region, OFFSET, data_bytes)) ||
        !ASSERT_OK(shoal_ring_attach(f->region, OFFSET, &f->ring)))
        return false;
    f->writer = shoal_region_at(f->region, OFFSET, sizeof *f->writer);
    f->reader = shoal_region_at(f->region, OFFSET + (uint64_t)sysconf(_SC_PAGESIZE), sizeof *f->reader);
    return true;
}

static void tear_down(struct fixture *f)
{
    shoal_ring_detach(f->ring);
    shoal_region_free(f->region);
}

/* What byte `index` of record `number` is, so that anything misplaced shows. */
static uint8_t pattern(uint64_t number, uint64_t index)
{
    return (uint8_t)(number * 31 + index * 7 + (index >> 8));
}

static int put(struct shoal_ring *ring, uint64_t number, uint64_t byte_count)
{
    void *payload;
    uint64_t room;
    int status = shoal_ring_reserve(ring, byte_count, &payload, &room);
    if (status < 0)
        return status;
    if (room < byte_count)
        return -ERANGE;
    for (uint64_t i = 0; i < byte_count; i++)
        ((uint8_t *)payload)[i] = pattern(number, i);
    return shoal_ring_commit(ring, byte_count);
}

/* 0 if the oldest record is `number` with that many bytes; it is popped then. */
static int take(struct shoal_ring *ring, uint64_t number, uint64_t byte_count)
{
    const void *payload;
    uint64_t got;
    int status = shoal_ring_peek(ring, &payload, &got);
    if (status < 0)
        return status;
    if (got != byte_count)
        return -ERANGE;
    for (uint64_t i = 0; i < got; i++)
        if (((const uint8_t *)payload)[i] != pattern(number, i))
            return -EILSEQ;
    shoal_ring_pop(ring);
    return 0;
}

/* Sizes that come by, small and large, up to the largest that fits. */
static uint64_t size_of(uint64_t number, uint64_t max)
{
    uint64_t mixed = (number + 1) * 0x9e3779b97f4a7c15ull;
    mixed ^= mixed >> 31;
    return number % 37 == 0 ? max : mixed % (number % 5 == 0 ? max : 200);
}

static void records_of_every_size_cross_the_end_whole(void)
{
    struct fixture f;
    if (!set_up(&f, DATA_BYTES))
        return;
    uint64_t max = shoal_ring_record_max(f.ring);
    for (uint64_t size = 0; size <= max; size += size < 40 ? 1 : 61) {
        REQUIRE_OK(put(f.ring, size, size));
        REQUIRE_OK(shoal_ring_check(f.ring));
        REQUIRE_OK(take(f.ring, size, size));
    }
    REQUIRE_OK(put(f.ring, 1, max));
    ASSERT_EQ(shoal_ring_used(f.ring), DATA_BYTES);
    ASSERT_EQ(put(f.ring, 2, 0), -EAGAIN);
    ASSERT_OK(take(f.ring, 1, max));
    ASSERT_EQ(shoal_ring_used(f.ring), 0);
    tear_down(&f);
}

static void a_full_ring_takes_no_more_and_a_record_too_large_never(void)
{
    struct fixture f;
    void *payload;
    uint64_t room, count = 0;
    if (!set_up(&f, DATA_BYTES))
        return;
    ASSERT_EQ(shoal_ring_reserve(f.ring, shoal_ring_record_max(f.ring) + 1, &payload, &room), -EMSGSIZE);
    ASSERT_EQ(shoal_ring_reserve(f.ring, UINT64_MAX, &payload, &room), -EMSGSIZE);
    while (put(f.ring, count, 24) == 0)
        count++;
    ASSERT_EQ(count, DATA_BYTES / 32);
    ASSERT_EQ(put(f.ring, count, 0), -EAGAIN);
    for (uint64_t i = 0; i < count; i++)
        REQUIRE_OK(take(f.ring, i, 24));
    ASSERT_EQ(take(f.ring, 0, 0), -EAGAIN);
    tear_down(&f);
}

static void a_record_grows_in_place_until_it_is_committed(void)
{
    struct fixture f;
    void *first, *second;
    uint64_t room, larger;
    if (!set_up(&f, DATA_BYTES))
        return;
    REQUIRE_OK(put(f.ring, 0, DATA_BYTES - 600));
    REQUIRE_OK(take(f.ring, 0, DATA_BYTES - 600));
    REQUIRE_OK(shoal_ring_reserve(f.ring, 10, &first, &room));
    memset(first, 'a', 10);
    REQUIRE_OK(shoal_ring_reserve(f.ring, 5000, &second, &larger));
    CU_ASSERT_PTR_EQUAL(first, second);
    CU_ASSERT(larger >= 5000);
    memset((char *)second + 10, 'b', 4990);
    ASSERT_EQ(shoal_ring_commit(f.ring, larger + 1), -EINVAL);
    ASSERT_OK(shoal_ring_commit(f.ring, 5000));
    ASSERT_EQ(shoal_ring_commit(f.ring, 1), -EINVAL);
    const void *payload;
    uint64_t got;
    REQUIRE_OK(shoal_ring_peek(f.ring, &payload, &got));
    ASSERT_EQ(got, 5000);
    ASSERT_EQ(((const char *)payload)[9], 'a');
    ASSERT_EQ(((const char *)payload)[4999], 'b');
    tear_down(&f);
}

static void what_is_not_committed_does_not_exist(void)
{
    struct fixture f;
    void *payload;
    uint64_t room;
    if (!set_up(&f, DATA_BYTES))
        return;
    REQUIRE_OK(shoal_ring_reserve(f.ring, 100, &payload, &room));
    memset(payload, 0xff, room);
    ASSERT_EQ(take(f.ring, 0, 0), -EAGAIN);
    ASSERT_OK(shoal_ring_check(f.ring));
    ASSERT_OK(put(f.ring, 7, 50));
    ASSERT_OK(take(f.ring, 7, 50));
    tear_down(&f);
}

static void a_ring_of_another_kind_is_refused(void)
{
    struct fixture f;
    struct shoal_ring *ring = NULL;
    if (!set_up(&f, DATA_BYTES))
        return;
    f.writer->version++;
    ASSERT_EQ(shoal_ring_attach(f.region, OFFSET, &ring), -EPROTO);
    ASSERT_EQ(shoal_ring_check(f.ring), -EPROTO);
    f.writer->version--;
    f.writer->magic ^= 1;
    ASSERT_EQ(shoal_ring_attach(f.region, OFFSET, &ring), -EPROTO);
    f.writer->magic ^= 1;
    const uint64_t sizes[] = { 0, 1, 4095, 4097, DATA_BYTES + 4096, 1ull << 63, UINT64_MAX };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        f.writer->data_bytes = sizes[i];
        ASSERT_EQ(shoal_ring_attach(f.region, OFFSET, &ring), -EPROTO);
    }
    f.writer->data_bytes = 1ull << 30; /* valid by itself, but not inside the region */
    ASSERT_EQ(shoal_ring_attach(f.region, OFFSET, &ring), -EINVAL);
    f.writer->data_bytes = DATA_BYTES;
    ASSERT_EQ(shoal_ring_attach(f.region, OFFSET + 8, &ring), -EINVAL);
    ASSERT_EQ(shoal_ring_attach(f.region, 1ull << 40, &ring), -EINVAL);
    ASSERT_EQ(shoal_ring_format(f.region, OFFSET, 5000), -EINVAL);
    ASSERT_EQ(shoal_ring_footprint(2048), 0);
    CU_ASSERT_PTR_NULL(ring);
    tear_down(&f);
}

static void a_tail_that_was_scribbled_over_is_not_followed(void)
{
    const uint64_t tails[] = { 7, 33, DATA_BYTES + 8, UINT64_MAX, UINT64_MAX - 7, 1ull << 63, 1ull << 32 };
    for (size_t i = 0; i < sizeof tails / sizeof *tails; i++) {
        struct fixture f;
        const void *payload;
        uint64_t got;
        if (!set_up(&f, DATA_BYTES))
            return;
        shoal__store_release(&f.writer->tail, tails[i]);
        ASSERT_EQ(shoal_ring_check(f.ring), -EBADMSG);
        CU_ASSERT(shoal_ring_used(f.ring) <= DATA_BYTES);
        ASSERT_EQ(shoal_ring_peek(f.ring, &payload, &got), -EBADMSG);
        shoal__store_release(&f.writer->tail, 0); /* put right again: the ring stays refused until it is reset */
        ASSERT_EQ(shoal_ring_peek(f.ring, &payload, &got), -EBADMSG);
        shoal_ring_reset(f.ring);
        ASSERT_OK(put(f.ring, 3, 30));
        ASSERT_OK(take(f.ring, 3, 30));
        tear_down(&f);
    }
}

static void a_head_that_was_scribbled_over_stops_the_writer(void)
{
    const uint64_t heads[] = { 1, 8, UINT64_MAX, UINT64_MAX - DATA_BYTES - 7, 1ull << 63 };
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        struct fixture f;
        if (!set_up(&f, DATA_BYTES))
            return;
        shoal__store_release(&f.reader->head, heads[i]);
        ASSERT_EQ(put(f.ring, 0, 100), -EBADMSG);
        tear_down(&f);
    }
}

static void a_record_word_that_was_scribbled_over_is_not_followed(void)
{
    const uint64_t good = SHOAL__RING_TAG << SHOAL__RING_TAG_SHIFT;
    const uint64_t words[] = { 0,        100,  good | 101,        good | DATA_BYTES, good | ((1ull << 40) - 1),
                               good ^ (1ull << 63), UINT64_MAX };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        struct fixture f;
        const void *payload;
        uint64_t got;
        if (!set_up(&f, DATA_BYTES))
            return;
        REQUIRE_OK(put(f.ring, 0, 96));
        REQUIRE_OK(put(f.ring, 1, 96));
        REQUIRE_OK(shoal_ring_peek(f.ring, &payload, &got));
        shoal_ring_pop(f.ring);
        *(uint64_t *)(uintptr_t)((const uint8_t *)payload + 96) = words[i];
        ASSERT_EQ(shoal_ring_check(f.ring), -EBADMSG);
        ASSERT_EQ(shoal_ring_peek(f.ring, &payload, &got), -EBADMSG);
        tear_down(&f);
    }
}

static void each_side_can_write_only_what_is_its(void)
{
    struct fixture f;
    if (!set_up(&f, DATA_BYTES))
        return;
    REQUIRE_OK(put(f.ring, 0, 40));
    ASSERT_OK(shoal_ring_protect(f.ring, SHOAL_RING_READER));
    ASSERT_OK(take(f.ring, 0, 40));
    ASSERT_EQ(shoal_ring_protect(f.ring, (enum shoal_ring_role)7), -EINVAL);
    for (int what = 0; what < 3; what++) {
        pid_t pid = fork();
        if (pid == 0) {
            signal(SIGSEGV, SIG_DFL); /* no report of a sanitizer: it is meant to be */
            const void *data = (const uint8_t *)f.reader + sysconf(_SC_PAGESIZE);
            if (what == 0)
                shoal__store_release(&f.writer->tail, 8);
            else if (what == 1)
                *(volatile uint8_t *)(uintptr_t)data = 1;
            else
                shoal__store_release(&f.reader->head, shoal__load_relaxed(&f.reader->head));
            _exit(0);
        }
        int ended = test_wait(pid);
        CU_ASSERT(what == 2 ? ended == 0 : ended != 0);
    }
    shoal_ring_reset(f.ring); /* works on a protected ring */
    ASSERT_OK(shoal_ring_protect(f.ring, SHOAL_RING_WRITER));
    ASSERT_OK(put(f.ring, 5, 50));
    tear_down(&f);
}

/* ---- two sides at once ---- */

#define MANY 200000u

struct side {
    struct shoal_ring *ring;
    uint64_t count;
    uint64_t failed_at; /* number + 1 of the first record that was wrong */
};

static void *write_many(void *argument)
{
    struct side *side = argument;
    uint64_t max = shoal_ring_record_max(side->ring);
    for (uint64_t number = 0; number < side->count;) {
        int status = put(side->ring, number, size_of(number, max));
        if (status == 0)
            number++;
        else if (status == -EAGAIN)
            sched_yield();
        else {
            side->failed_at = number + 1;
            break;
        }
    }
    return NULL;
}

static void *read_many(void *argument)
{
    struct side *side = argument;
    uint64_t max = shoal_ring_record_max(side->ring);
    for (uint64_t number = 0; number < side->count;) {
        int status = take(side->ring, number, size_of(number, max));
        if (status == 0)
            number++;
        else if (status == -EAGAIN)
            sched_yield();
        else {
            side->failed_at = number + 1;
            break;
        }
    }
    return NULL;
}

static void two_threads_exchange_many_records(void)
{
    struct fixture f;
    pthread_t thread;
    struct shoal_ring *other;
    if (!set_up(&f, DATA_BYTES))
        return;
    REQUIRE_OK(shoal_ring_attach(f.region, OFFSET, &other)); /* a handle for each side */
    struct side writes = { .ring = other, .count = MANY / 4 }, reads = { .ring = f.ring, .count = MANY / 4 };
    REQUIRE_OK(pthread_create(&thread, NULL, write_many, &writes));
    read_many(&reads);
    pthread_join(thread, NULL);
    ASSERT_EQ(writes.failed_at, 0);
    ASSERT_EQ(reads.failed_at, 0);
    ASSERT_OK(shoal_ring_check(f.ring));
    shoal_ring_detach(other);
    tear_down(&f);
}

static int write_in_child(void *argument)
{
    struct side *side = argument;
    if (shoal_ring_protect(side->ring, SHOAL_RING_WRITER) < 0)
        return 2;
    write_many(side);
    return side->failed_at != 0;
}

static void two_processes_exchange_many_records(void)
{
    struct fixture f;
    if (!set_up(&f, DATA_BYTES))
        return;
    struct side side = { .ring = f.ring, .count = MANY / 2 };
    pid_t pid = test_fork(write_in_child, &side);
    ASSERT_OK(shoal_ring_protect(f.ring, SHOAL_RING_READER));
    read_many(&side);
    ASSERT_EQ(side.failed_at, 0);
    ASSERT_EQ(test_wait(pid), 0);
    ASSERT_OK(shoal_ring_check(f.ring));
    tear_down(&f);
}

static int write_two_and_leave_one(void *argument)
{
    struct shoal_ring *ring = argument;
    void *payload;
    uint64_t room;
    if (shoal_ring_protect(ring, SHOAL_RING_WRITER) < 0 || put(ring, 0, 10) < 0 || put(ring, 1, 20) < 0 ||
        shoal_ring_reserve(ring, 500, &payload, &room) < 0)
        return 1;
    memset(payload, 0xee, 500);
    return 0;
}

static void a_new_writer_takes_over_after_the_death_of_the_last(void)
{
    struct fixture f;
    if (!set_up(&f, DATA_BYTES))
        return;
    ASSERT_OK(shoal_ring_protect(f.ring, SHOAL_RING_READER));
    for (int life = 0; life < 3; life++) {
        ASSERT_EQ(test_wait(test_fork(write_two_and_leave_one, f.ring)), 0);
        ASSERT_OK(shoal_ring_check(f.ring));
        ASSERT_OK(take(f.ring, 0, 10));
        ASSERT_OK(take(f.ring, 1, 20));
        ASSERT_EQ(take(f.ring, 2, 0), -EAGAIN);
        if (life > 0) /* reset, or simply go on: both must do */
            shoal_ring_reset(f.ring);
    }
    tear_down(&f);
}

static int note_two_of_three_parts(void *ring)
{
    void *payload;
    uint64_t room;
    if (shoal_ring_protect(ring, SHOAL_RING_WRITER) < 0 || put(ring, 0, 10) < 0 ||
        shoal_ring_reserve(ring, 300, &payload, &room) < 0)
        return 1;
    memset(payload, 0xab, 300);
    return shoal_ring_note(ring, 100) < 0 || shoal_ring_note(ring, 200) < 0;
}

static void what_a_writer_had_noted_can_be_had_after_its_death(void)
{
    struct fixture f;
    const void *payload;
    uint64_t bytes;
    if (!set_up(&f, DATA_BYTES))
        return;
    ASSERT_OK(shoal_ring_protect(f.ring, SHOAL_RING_READER));
    for (int life = 0; life < 100; life++) { /* the positions wrap */
        ASSERT_EQ(test_wait(test_fork(note_two_of_three_parts, f.ring)), 0);
        ASSERT_EQ(shoal_ring_salvage(f.ring, &payload, &bytes), -EAGAIN); /* not all is read */
        ASSERT_OK(take(f.ring, 0, 10));
        ASSERT_EQ(take(f.ring, 1, 0), -EAGAIN);
        REQUIRE_OK(shoal_ring_salvage(f.ring, &payload, &bytes));
        ASSERT_EQ(bytes, 200);
        CU_ASSERT(((const uint8_t *)payload)[0] == 0xab && ((const uint8_t *)payload)[199] == 0xab);
        if (life % 3 == 0)
            shoal_ring_reset(f.ring);
    }
    ASSERT_EQ(shoal_ring_salvage(f.ring, &payload, &bytes), -EAGAIN); /* the last life ended with a reset */
    tear_down(&f);
}

static void a_commit_takes_notes_back_bad_ones_are_not_followed(void)
{
    struct fixture f;
    const void *payload;
    void *place;
    uint64_t bytes;
    if (!set_up(&f, DATA_BYTES))
        return;
    for (uint64_t used = 0; used < 40; used++) {
        REQUIRE_OK(shoal_ring_reserve(f.ring, 40, &place, &bytes));
        ASSERT_EQ(shoal_ring_note(f.ring, bytes + 1), -EINVAL);
        ASSERT_OK(shoal_ring_note(f.ring, used));
        REQUIRE_OK(put(f.ring, used, used));
        ASSERT_OK(take(f.ring, used, used));
        ASSERT_EQ(shoal_ring_salvage(f.ring, &payload, &bytes), -EAGAIN);
    }
    uint64_t tail = shoal__load_relaxed(&f.writer->tail);
    const uint64_t bad[] = { tail + 1, tail + 7, tail + DATA_BYTES + 1, tail + (UINT64_MAX >> 1) };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        shoal__store_release(&f.writer->noted, bad[i]);
        ASSERT_EQ(shoal_ring_salvage(f.ring, &payload, &bytes), -EBADMSG);
    }
    tear_down(&f);
}

static void nothing_is_left_over(void)
{
    struct test_footprint before;
    struct fixture f;
    test_footprint_take(&before);
    if (!set_up(&f, 1u << 20))
        return;
    tear_down(&f);
    test_footprint_same(&before);
}

int main(void)
{
    static const struct test tests[] = {
        { "records of every size cross the end whole", records_of_every_size_cross_the_end_whole },
        { "a full ring takes no more and a record too large never",
          a_full_ring_takes_no_more_and_a_record_too_large_never },
        { "a record grows in place until it is committed", a_record_grows_in_place_until_it_is_committed },
        { "what is not committed does not exist", what_is_not_committed_does_not_exist },
        { "a ring of another kind is refused", a_ring_of_another_kind_is_refused },
        { "a tail that was scribbled over is not followed", a_tail_that_was_scribbled_over_is_not_followed },
        { "a head that was scribbled over stops the writer", a_head_that_was_scribbled_over_stops_the_writer },
        { "a record word that was scribbled over is not followed",
          a_record_word_that_was_scribbled_over_is_not_followed },
        { "each side can write only what is its", each_side_can_write_only_what_is_its },
        { "two threads exchange many records", two_threads_exchange_many_records },
        { "two processes exchange many records", two_processes_exchange_many_records },
        { "a new writer takes over after the death of the last", a_new_writer_takes_over_after_the_death_of_the_last },
        { "what a writer had noted can be had after its death", what_a_writer_had_noted_can_be_had_after_its_death },
        { "a commit takes notes back, bad ones are not followed", a_commit_takes_notes_back_bad_ones_are_not_followed },
        { "nothing is left over", nothing_is_left_over },
    };
    return test_main("ring", tests, TEST_COUNT(tests));
}

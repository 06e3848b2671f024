/* SPDX-License-Identifier: BSD-3-Clause */
/* test_channel.c - both sides of a channel; where no process has to die, both in this one. */
#include "support.h"

#include "channel.h"

#include <shoal/shoal.h>

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MIB (1ull << 20)

static const struct shoal_channel_config small = { .ring_bytes = 4096, .payload_bytes = MIB };

struct pair {
    struct shoal_channel *a, *b;
    struct test_footprint before;
};

static bool set_up(struct pair *pair)
{
    test_footprint_take(&pair->before);
    return ASSERT_OK(shoal_channel_create(test_name("channel"), &small, &pair->a)) &&
           ASSERT_OK(shoal_channel_open(test_name("channel"), &pair->b)) &&
           ASSERT_OK(shoal_channel_accept(pair->a, -1));
}

static void tear_down(struct pair *pair)
{
    if (pair->a)
        ASSERT_OK(shoal_arena_check(pair->a->arena));
    shoal_channel_free(pair->a);
    shoal_channel_free(pair->b);
    test_footprint_same(&pair->before);
}

static int64_t soon(void)
{
    return shoal_now_ns() + 2000000;
}

static bool send_text(struct shoal_channel *channel, const char *text)
{
    return ASSERT_OK(shoal_channel_send(channel, text, strlen(text) + 1, 0, -1));
}

static bool expect_text(struct shoal_channel *channel, const char *text)
{
    struct shoal_message message;
    return ASSERT_OK(shoal_channel_receive(channel, -1, &message)) &&
           ASSERT_EQ(message.byte_count, strlen(text) + 1) && ASSERT_EQ(strcmp(message.bytes, text), 0) &&
           ASSERT_EQ(message.payload_id, 0) && ASSERT_EQ(message.payload == NULL, true);
}

static uint64_t used_bytes(const struct shoal_channel *channel)
{
    struct shoal_arena_stats stats;
    shoal_arena_get_stats(channel->arena, &stats);
    return stats.used_bytes;
}

/* A payload of these bytes, sent with an empty message. Returns its id. */
static uint64_t send_payload(struct shoal_channel *channel, uint64_t bytes, int fill)
{
    void *payload = NULL;
    uint64_t id = 0;
    ASSERT_OK(shoal_channel_alloc(channel, bytes, &payload, &id));
    if (payload)
        memset(payload, fill, bytes);
    ASSERT_OK(shoal_channel_send(channel, NULL, 0, id, -1));
    return id;
}

/* ---- messages and payloads ---- */

static void messages_arrive_in_order_both_ways(void)
{
    struct pair pair;
    struct shoal_message message;
    if (!set_up(&pair))
        return;
    for (int round = 0; round < 100; round++) { /* several laps of the ring */
        send_text(pair.a, "one");
        send_text(pair.a, "two, which is longer");
        send_text(pair.b, "an answer");
        expect_text(pair.b, "one");
        expect_text(pair.b, "two, which is longer");
        expect_text(pair.a, "an answer");
    }
    ASSERT_EQ(shoal_channel_receive(pair.a, 0, &message), -ETIMEDOUT);
    ASSERT_EQ(shoal_channel_receive(pair.a, soon(), &message), -ETIMEDOUT);
    ASSERT_OK(shoal_channel_send(pair.a, NULL, 0, 0, -1)); /* an empty message is a message */
    ASSERT_OK(shoal_channel_receive(pair.b, -1, &message));
    ASSERT_EQ(message.byte_count, 0);
    tear_down(&pair);
}

static void a_payload_is_read_where_it_was_written(void)
{
    struct pair pair;
    struct shoal_message message;
    void *payload;
    uint64_t id;
    if (!set_up(&pair))
        return;
    REQUIRE_OK(shoal_channel_alloc(pair.a, 100000, &payload, &id));
    memset(payload, 0x5a, 100000);
    ASSERT_OK(shoal_channel_send(pair.a, "with", 5, id, -1));
    ASSERT_EQ(shoal_channel_send(pair.a, "again", 6, id, -1), -EINVAL); /* it is the receiver's now */
    ASSERT_EQ(shoal_channel_discard(pair.a, id), -EINVAL);
    REQUIRE_OK(shoal_channel_receive(pair.b, -1, &message));
    ASSERT_EQ(strcmp(message.bytes, "with"), 0);
    ASSERT_EQ(message.payload_bytes, 100000);
    uint64_t written_at = 0, read_at = 0;
    CU_ASSERT_TRUE(shoal_region_contains(pair.a->region, payload, 100000, &written_at));
    CU_ASSERT_TRUE(shoal_region_contains(pair.b->region, message.payload, 100000, &read_at));
    ASSERT_EQ(read_at, written_at);
    ASSERT_EQ(((uint8_t *)message.payload)[99999], 0x5a);
    CU_ASSERT_TRUE(used_bytes(pair.a) >= 100000);
    ASSERT_OK(shoal_channel_release(pair.b, message.payload_id));
    ASSERT_EQ(shoal_channel_release(pair.b, message.payload_id), -ENOENT);
    ASSERT_OK(shoal__channel_drain_returns(pair.a));
    ASSERT_EQ(used_bytes(pair.a), 0);
    tear_down(&pair);
}

static void payloads_come_back_without_messages_being_read(void)
{
    struct pair pair;
    struct shoal_message message;
    if (!set_up(&pair))
        return;
    send_text(pair.b, "nobody reads this");
    for (int round = 0; round < 1000; round++) { /* a thousand times half of the area */
        send_payload(pair.a, MIB / 2, round);
        REQUIRE_OK(shoal_channel_receive(pair.b, -1, &message));
        ASSERT_EQ(*(uint8_t *)message.payload, round & 0xff);
        ASSERT_OK(shoal_channel_release(pair.b, message.payload_id));
    }
    expect_text(pair.a, "nobody reads this");
    tear_down(&pair);
}

static void payload_room_is_bounded_and_can_be_waited_for(void)
{
    struct pair pair;
    struct shoal_message message;
    void *payload = NULL;
    uint64_t id = 7;
    if (!set_up(&pair))
        return;
    ASSERT_EQ(shoal_channel_alloc(pair.a, MIB + 1, &payload, &id), -E2BIG);
    send_payload(pair.a, MIB / 2, 1);
    ASSERT_EQ(shoal_channel_alloc(pair.a, MIB, &payload, &id), -EDQUOT);
    ASSERT_EQ(shoal_channel_alloc_wait(pair.a, MIB, soon(), &payload, &id), -ETIMEDOUT);
    ASSERT_EQ(id, 7);
    REQUIRE_OK(shoal_channel_receive(pair.b, -1, &message));
    ASSERT_OK(shoal_channel_release(pair.b, message.payload_id));
    ASSERT_OK(shoal_channel_alloc_wait(pair.a, MIB, -1, &payload, &id));
    ASSERT_OK(shoal_channel_discard(pair.a, id));
    ASSERT_EQ(shoal_channel_discard(pair.a, id), -ENOENT);
    tear_down(&pair);
}

static void every_page_can_be_out_and_come_back(void)
{
    struct pair pair;
    struct shoal_message message;
    enum { PAGES = 256 };
    uint64_t ids[PAGES];
    if (!set_up(&pair))
        return;
    for (int i = 0; i < PAGES; i++) {
        send_payload(pair.a, i == 0 ? 0 : 1, i);
        REQUIRE_OK(shoal_channel_receive(pair.b, -1, &message));
        ids[i] = message.payload_id;
    }
    for (int i = 0; i < PAGES; i++)
        ASSERT_OK(shoal_channel_release(pair.b, ids[i]));
    ASSERT_OK(shoal__channel_drain_returns(pair.a));
    ASSERT_EQ(used_bytes(pair.a), 0);
    tear_down(&pair);
}

static void sending_waits_for_room_until_the_deadline(void)
{
    struct pair pair;
    char text[1000] = "filler";
    int sent = 0;
    if (!set_up(&pair))
        return;
    ASSERT_EQ(shoal_channel_send(pair.a, text, 4096, 0, -1), -EMSGSIZE);
    while (shoal_channel_send(pair.a, text, sizeof(text), 0, 0) == 0)
        sent++;
    ASSERT_EQ(sent, 3);
    ASSERT_EQ(shoal_channel_send(pair.a, text, sizeof(text), 0, soon()), -ETIMEDOUT);
    struct shoal_message message;
    for (; sent > 0; sent--)
        ASSERT_OK(shoal_channel_receive(pair.b, 0, &message));
    shoal_channel_done(pair.b);
    shoal_channel_done(pair.b);
    ASSERT_OK(shoal_channel_send(pair.a, text, sizeof(text), 0, 0));
    tear_down(&pair);
}

static void ids_of_others_are_refused(void)
{
    struct pair pair;
    void *payload;
    uint64_t id;
    if (!set_up(&pair))
        return;
    REQUIRE_OK(shoal_channel_alloc(pair.a, 10, &payload, &id));
    const uint64_t wrong[] = { 1, 4096, id + 1, id + 4096, pair.a->plan.payloads[SHOAL__SIDE_B], UINT64_MAX };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        ASSERT_EQ(shoal_channel_send(pair.a, NULL, 0, wrong[i], 0), -ENOENT);
        ASSERT_EQ(shoal_channel_discard(pair.a, wrong[i]), -ENOENT);
        ASSERT_EQ(shoal_channel_release(pair.b, wrong[i]), -ENOENT);
    }
    ASSERT_EQ(shoal_channel_release(pair.b, id), -ENOENT); /* never sent */
    ASSERT_OK(shoal_channel_discard(pair.a, id));
    tear_down(&pair);
}

/* ---- names ---- */

static void the_name_is_gone_once_both_are_there(void)
{
    struct pair pair;
    struct shoal_channel *third;
    if (!set_up(&pair))
        return;
    struct test_footprint now;
    test_footprint_take(&now);
    ASSERT_EQ(now.names, pair.before.names);
    ASSERT_EQ(shoal_channel_open(test_name("channel"), &third), -ENOENT);
    tear_down(&pair);
}

static void of_two_who_open_one_is_refused(void)
{
    struct test_footprint before;
    struct shoal_channel *a, *b;
    test_footprint_take(&before);
    REQUIRE_OK(shoal_channel_create(test_name("busy"), &small, &a));
    a->shared->side[SHOAL__SIDE_B].pid = (uint32_t)getpid(); /* somebody has taken the place this moment */
    ASSERT_EQ(shoal_channel_open(test_name("busy"), &b), -EBUSY);
    ASSERT_EQ(shoal_channel_accept(a, soon()), -ETIMEDOUT);
    shoal_channel_free(a);
    test_footprint_same(&before);
}

static int make_and_die(void *arg)
{
    struct shoal_channel *channel;
    (void)arg;
    return -shoal_channel_create(test_name("abandoned"), &small, &channel);
}

static void the_name_of_a_dead_maker_is_taken_over(void)
{
    struct test_footprint before;
    struct shoal_channel *a, *b;
    test_footprint_take(&before);
    ASSERT_EQ(test_wait(test_fork(make_and_die, NULL)), 0);
    REQUIRE_OK(shoal_channel_create(test_name("abandoned"), &small, &a));
    ASSERT_EQ(shoal_channel_create(test_name("abandoned"), &small, &b), -EEXIST); /* this one lives */
    shoal_channel_free(a);
    ASSERT_EQ(test_wait(test_fork(make_and_die, NULL)), 0);
    ASSERT_EQ(shoal_channel_open(test_name("abandoned"), &b), -EPIPE);
    test_footprint_same(&before);
}

static void what_is_no_channel_is_refused(void)
{
    struct test_footprint before;
    struct shoal_region *region;
    struct shoal_channel *channel;
    test_footprint_take(&before);
    ASSERT_EQ(shoal_channel_open(test_name("none"), &channel), -ENOENT);
    REQUIRE_OK(shoal_region_create_named(test_name("plain"), 4096, &region));
    ASSERT_EQ(shoal_channel_open(test_name("plain"), &channel), -EPROTO); /* too small */
    ASSERT_EQ(shoal_channel_create(test_name("plain"), &small, &channel), -EEXIST);
    shoal_region_unlink(region);
    shoal_region_free(region);
    REQUIRE_OK(shoal_region_create_named(test_name("plain"), 8 * MIB, &region));
    ASSERT_EQ(shoal_channel_open(test_name("plain"), &channel), -EAGAIN); /* as if its maker were not done */
    memset(shoal_region_at(region, 4096, 4096), 0x41, 4096);
    ASSERT_EQ(shoal_channel_open(test_name("plain"), &channel), -EPROTO);
    ASSERT_EQ(shoal_channel_create(test_name("plain"), &small, &channel), -EEXIST);
    shoal_region_unlink(region);
    shoal_region_free(region);
    test_footprint_same(&before);
}

static void a_channel_with_wrong_sizes_is_refused(void)
{
    struct shoal_channel *a, *b;
    REQUIRE_OK(shoal_channel_create(test_name("sizes"), &small, &a));
    struct shoal__channel good = *a->shared, *shared = a->shared;
#define REFUSED(field, value)                                                                                          \
    shared->field = (value);                                                                                           \
    ASSERT_EQ(shoal_channel_open(test_name("sizes"), &b), -EPROTO);                                                    \
    shared->field = good.field
    REFUSED(ring_bytes, 8192);
    REFUSED(ring_bytes, 5000);
    REFUSED(ring_bytes, UINT64_MAX);
    REFUSED(payload_bytes, 2 * MIB);
    REFUSED(payload_bytes, UINT64_MAX);
    REFUSED(payload_bytes, 0);
    REFUSED(version, good.version + 1);
    REFUSED(doorbell_kind, 77);
    REFUSED(doorbell_kind, SHOAL_DOORBELL_URING_EVENTFD);
    struct shoal__ring_writer *ring = shoal_region_at(a->region, a->plan.messages[1], 4096);
    shoal_region_protect(a->region, a->plan.messages[1], 4096, true);
    ring->data_bytes *= 2; /* would reach into what lies behind it */
    ASSERT_EQ(shoal_channel_open(test_name("sizes"), &b), -EPROTO);
    ring->data_bytes /= 2;
    shared->pid_namespace++;
    ASSERT_EQ(shoal_channel_open(test_name("sizes"), &b), -ENOTSUP);
    shared->pid_namespace--;
    REQUIRE_OK(shoal_channel_open(test_name("sizes"), &b));
    shoal_channel_free(a);
    shoal_channel_free(b);
    const struct shoal_channel_config bad[] = {
        { .ring_bytes = 5000 },
        { .ring_bytes = 1 },
        { .payload_bytes = UINT64_MAX },
    };
    for (size_t i = 0; i < 3; i++)
        ASSERT_EQ(shoal_channel_create(NULL, &bad[i], &a), -EINVAL);
}

/* ---- damage ---- */

/* B writes this record as it stands; A has to refuse it, and goes on refusing. */
static void refused_record(const void *record, uint64_t bytes)
{
    struct pair pair;
    struct shoal_message message;
    void *place;
    uint64_t room;
    if (!set_up(&pair))
        return;
    REQUIRE_OK(shoal_ring_reserve(pair.b->messages[SHOAL__SIDE_B], bytes, &place, &room));
    memcpy(place, record, bytes);
    ASSERT_OK(shoal_ring_commit(pair.b->messages[SHOAL__SIDE_B], bytes));
    ASSERT_EQ(shoal_channel_receive(pair.a, -1, &message), -EBADMSG);
    ASSERT_EQ(shoal_channel_receive(pair.a, -1, &message), -EBADMSG);
    tear_down(&pair);
}

static void damaged_records_are_refused(void)
{
    struct pair pair;
    if (!set_up(&pair))
        return;
    uint64_t mine = pair.a->plan.payloads[SHOAL__SIDE_A], theirs = pair.a->plan.payloads[SHOAL__SIDE_B];
    tear_down(&pair);
    const struct shoal__channel_record records[] = {
        { .magic = SHOAL__CHANNEL_RECORD + 1 },
        { .magic = SHOAL__CHANNEL_RECORD, .has_payload = 2, .payload_offset = theirs },
        { .magic = SHOAL__CHANNEL_RECORD, .has_payload = 0, .payload_offset = theirs },
        { .magic = SHOAL__CHANNEL_RECORD, .has_payload = 0, .payload_bytes = 1 },
        { .magic = SHOAL__CHANNEL_RECORD, .has_payload = 1, .payload_offset = 0, .payload_bytes = 1 },
        { .magic = SHOAL__CHANNEL_RECORD, .has_payload = 1, .payload_offset = mine, .payload_bytes = 1 },
        { .magic = SHOAL__CHANNEL_RECORD, .has_payload = 1, .payload_offset = theirs + 8, .payload_bytes = 1 },
        { .magic = SHOAL__CHANNEL_RECORD, .has_payload = 1, .payload_offset = theirs, .payload_bytes = MIB + 1 },
        { .magic = SHOAL__CHANNEL_RECORD, .has_payload = 1, .payload_offset = theirs + MIB, .payload_bytes = 0 },
        { .magic = SHOAL__CHANNEL_RECORD, .has_payload = 1, .payload_offset = theirs, .payload_bytes = UINT64_MAX },
        { .magic = SHOAL__CHANNEL_RECORD, .has_payload = 1, .payload_offset = ~4095ull, .payload_bytes = 9 },
    };
    for (size_t i = 0; i < sizeof(records) / sizeof(records[0]); i++)
        refused_record(&records[i], sizeof(records[i]));
    refused_record("short", 5);
}

static void a_payload_sent_twice_is_refused(void)
{
    struct pair pair;
    struct shoal_message message;
    void *place;
    uint64_t room;
    if (!set_up(&pair))
        return;
    uint64_t id = send_payload(pair.b, 10, 1);
    REQUIRE_OK(shoal_channel_receive(pair.a, -1, &message));
    struct shoal__channel_record again = { SHOAL__CHANNEL_RECORD, 1, id, 10 };
    REQUIRE_OK(shoal_ring_reserve(pair.b->messages[SHOAL__SIDE_B], sizeof(again), &place, &room));
    memcpy(place, &again, sizeof(again));
    ASSERT_OK(shoal_ring_commit(pair.b->messages[SHOAL__SIDE_B], sizeof(again)));
    ASSERT_EQ(shoal_channel_receive(pair.a, -1, &message), -EBADMSG);
    tear_down(&pair);
}

static void returns_that_are_none_are_refused(void)
{
    struct pair pair;
    void *place, *payload;
    uint64_t room, id;
    if (!set_up(&pair))
        return;
    REQUIRE_OK(shoal_channel_alloc(pair.a, 10, &payload, &id));
    const uint64_t returned[] = { id, 4095 }; /* ours, but it does not have it: harmless; and nonsense */
    for (int i = 0; i < 2; i++) {
        REQUIRE_OK(shoal_ring_reserve(pair.b->returns[SHOAL__SIDE_B], 8, &place, &room));
        memcpy(place, &returned[i], 8);
        ASSERT_OK(shoal_ring_commit(pair.b->returns[SHOAL__SIDE_B], 8));
        ASSERT_EQ(shoal__channel_drain_returns(pair.a), i == 0 ? 0 : -EBADMSG);
        CU_ASSERT_TRUE(used_bytes(pair.a) > 0);
    }
    ASSERT_OK(shoal_channel_discard(pair.a, id));
    tear_down(&pair);
}

static int scribble_over_the_others_payload(void *arg)
{
    struct pair *pair = arg;
    signal(SIGSEGV, SIG_DFL);
    *(volatile uint8_t *)shoal_region_at(pair->b->region, pair->b->plan.payloads[SHOAL__SIDE_A], 1) = 1;
    return 0;
}

static void the_others_payloads_are_read_only(void)
{
    struct pair pair;
    if (!set_up(&pair))
        return;
    ASSERT_EQ(test_wait(test_fork(scribble_over_the_others_payload, &pair)), -SIGSEGV);
    tear_down(&pair);
}

/* ---- failing systems ---- */

static void creation_fails_cleanly_at_every_call(void)
{
    static const struct {
        enum test_fault call;
        int error;
    } faults[] = { { TEST_FAULT_mmap, -ENOMEM }, { TEST_FAULT_fallocate, -ENOSPC }, { TEST_FAULT_open, -EMFILE } };
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        for (int after = 0, status = -1; status < 0 && after < 100; after++) {
            for (int named = 0; named < 2; named++) {
                struct test_footprint before;
                struct shoal_channel *channel;
                test_footprint_take(&before);
                test_fault(faults[i].call, after, -1, faults[i].error);
                status = shoal_channel_create(named ? test_name("fails") : NULL, &small, &channel);
                test_fault_clear();
                if (status == 0)
                    shoal_channel_free(channel);
                else
                    ASSERT_EQ(status, faults[i].error);
                test_footprint_same(&before);
            }
        }
    }
}

static const struct test tests[] = {
    { "messages arrive whole and in order, both ways", messages_arrive_in_order_both_ways },
    { "a payload is read where it was written, and comes back once", a_payload_is_read_where_it_was_written },
    { "payloads come back though nobody reads the messages", payloads_come_back_without_messages_being_read },
    { "room for payloads is bounded and can be waited for", payload_room_is_bounded_and_can_be_waited_for },
    { "every page can be out at once and come back", every_page_can_be_out_and_come_back },
    { "sending waits for room until the deadline", sending_waits_for_room_until_the_deadline },
    { "ids of others, and of nobody, are refused", ids_of_others_are_refused },
    { "the name is gone once both sides are there", the_name_is_gone_once_both_are_there },
    { "of two who open one is refused", of_two_who_open_one_is_refused },
    { "the name of a maker that died is taken over or removed", the_name_of_a_dead_maker_is_taken_over },
    { "what is no channel is refused", what_is_no_channel_is_refused },
    { "a channel with wrong sizes, version or namespace is refused", a_channel_with_wrong_sizes_is_refused },
    { "damaged records are refused, for good", damaged_records_are_refused },
    { "a payload that we hold cannot be sent again", a_payload_sent_twice_is_refused },
    { "returns that are none free nothing", returns_that_are_none_are_refused },
    { "the other side's payloads are read-only", the_others_payloads_are_read_only },
    { "creation fails cleanly whichever system call fails", creation_fails_cleanly_at_every_call },
};

int main(void)
{
    return test_main("channel", tests, TEST_COUNT(tests));
}

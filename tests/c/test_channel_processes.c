/* SPDX-License-Identifier: BSD-3-Clause */
/* test_channel_processes.c - a channel between two processes that wait for each other, and of which one is killed. */
#include "support.h"

#include "channel.h"

#include <shoal/shoal.h>

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#define MIB (1ull << 20)

static const struct shoal_channel_config small = { .ring_bytes = 4096, .payload_bytes = 4 * MIB };

struct scene {
    struct shoal_channel *channel;
    bool named;
    struct test_footprint before;
};

/* In the child: side B. */
static int enter(struct scene *scene)
{
    if (!scene->named)
        return shoal_channel_inherit(scene->channel);
    struct shoal_channel *inherited = scene->channel;
    int status = shoal_channel_open(test_name("pair"), &scene->channel);
    shoal_channel_free(inherited);
    return status;
}

static bool set_up(struct scene *scene, bool named)
{
    scene->named = named;
    test_footprint_take(&scene->before);
    return ASSERT_OK(shoal_channel_create(named ? test_name("pair") : NULL, &small, &scene->channel));
}

static void tear_down(struct scene *scene)
{
    struct shoal_arena_stats stats;
    ASSERT_OK(shoal_arena_check(scene->channel->arena));
    shoal_arena_get_stats(scene->channel->arena, &stats);
    ASSERT_EQ(stats.used_bytes, 0);
    shoal_channel_free(scene->channel);
    test_footprint_same(&scene->before);
}

/* ---- an echo of messages and payloads ---- */

static uint64_t sum_of(const uint8_t *bytes, uint64_t count)
{
    uint64_t sum = 0;
    for (uint64_t i = 0; i < count; i++)
        sum = sum * 31 + bytes[i];
    return sum;
}

/* Answers each message with the checksum of its payload, until the other side closes. */
static int echo(void *arg)
{
    struct scene *scene = arg;
    struct shoal_message message;
    int status = enter(scene);
    while (status == 0) {
        status = shoal_channel_receive(scene->channel, -1, &message);
        if (status < 0)
            break;
        uint64_t sum = sum_of(message.payload, message.payload_bytes);
        if (message.payload_id)
            status = shoal_channel_release(scene->channel, message.payload_id);
        shoal_channel_done(scene->channel);
        if (status == 0)
            status = shoal_channel_send(scene->channel, &sum, sizeof(sum), 0, -1);
    }
    shoal_channel_free(scene->channel);
    return status == -EPIPE ? 0 : -status;
}

/* Sends a payload of these bytes and compares the checksum that comes back. 0 or -errno. */
static int ask(struct shoal_channel *channel, uint64_t bytes, int fill)
{
    struct shoal_message message;
    void *payload;
    uint64_t id, sum, got;
    int status = shoal_channel_alloc_wait(channel, bytes, -1, &payload, &id);
    if (status < 0)
        return status;
    memset(payload, fill, bytes);
    sum = sum_of(payload, bytes);
    status = shoal_channel_send(channel, "ask", 4, id, -1);
    if (status < 0) {
        shoal_channel_discard(channel, id);
        return status;
    }
    status = shoal_channel_receive(channel, -1, &message);
    if (status < 0)
        return status;
    memcpy(&got, message.bytes, sizeof(got));
    shoal_channel_done(channel);
    return ASSERT_EQ(message.byte_count, sizeof(got)) && ASSERT_EQ(got, sum) ? 0 : -EIO;
}

static void echo_between(bool named)
{
    struct scene scene;
    if (!set_up(&scene, named))
        return;
    pid_t pid = test_fork(echo, &scene);
    ASSERT_OK(shoal_channel_accept(scene.channel, -1));
    for (int round = 0; round < 200; round++)
        ASSERT_OK(ask(scene.channel, (uint64_t)(round * round), round));
    ASSERT_OK(ask(scene.channel, 3 * MIB, 9));
    ASSERT_OK(shoal__channel_drain_returns(scene.channel));
    /* Closing is what ends the child: it is told, having read everything. */
    struct shoal_arena_stats stats;
    shoal_arena_get_stats(scene.channel->arena, &stats);
    ASSERT_EQ(stats.used_bytes, 0);
    shoal_channel_free(scene.channel);
    ASSERT_EQ(test_wait(pid), 0);
    test_footprint_same(&scene.before);
}

static void a_forked_child_inherits_the_other_side(void)
{
    echo_between(false);
}

static void a_process_that_knows_the_name_is_the_other_side(void)
{
    echo_between(true);
}

/* ---- waiting for each other ---- */

static int count_messages(void *arg)
{
    struct scene *scene = arg;
    struct shoal_message message;
    unsigned expected = 0, got;
    int status = enter(scene);
    while (status == 0) {
        status = shoal_channel_receive(scene->channel, -1, &message);
        if (status < 0)
            break;
        memcpy(&got, message.bytes, sizeof(got));
        if (got != expected++)
            return 200;
    }
    return status == -EPIPE && expected == 20000 ? 0 : 201;
}

static void a_sender_that_is_faster_waits_and_loses_nothing(void)
{
    struct scene scene;
    if (!set_up(&scene, false))
        return;
    char text[200] = "";
    pid_t pid = test_fork(count_messages, &scene);
    for (unsigned i = 0; i < 20000; i++) {
        memcpy(text, &i, sizeof(i));
        ASSERT_OK(shoal_channel_send(scene.channel, text, sizeof(text), 0, -1));
    }
    shoal_channel_free(scene.channel);
    ASSERT_EQ(test_wait(pid), 0);
    test_footprint_same(&scene.before);
}

static int take_claim_and_die(void *arg)
{
    struct scene *scene = arg;
    scene->channel->shared->side[SHOAL__SIDE_B].pid = (uint32_t)getpid();
    return 0;
}

static void the_other_side_may_die_while_it_arrives(void)
{
    struct scene scene;
    if (!set_up(&scene, false))
        return;
    pid_t pid = test_fork(take_claim_and_die, &scene);
    ASSERT_EQ(shoal_channel_accept(scene.channel, -1), -EPIPE);
    ASSERT_EQ(test_wait(pid), 0);
    tear_down(&scene);
}

static void on_alarm_tick(int signal)
{
    (void)signal;
}

static void a_signal_ends_a_wait(void)
{
    struct scene scene;
    struct shoal_message message;
    struct sigaction action = { .sa_handler = on_alarm_tick }, old;
    struct itimerval every = { .it_interval.tv_usec = 1000, .it_value.tv_usec = 1000 }, never = { 0 }, before;
    if (!set_up(&scene, false))
        return;
    sigaction(SIGALRM, &action, &old); /* borrowed from the watchdog: a signal is certain to come */
    setitimer(ITIMER_REAL, &every, &before);
    ASSERT_EQ(shoal_channel_receive(scene.channel, -1, &message), -EINTR);
    ASSERT_EQ(shoal_channel_accept(scene.channel, -1), -EINTR);
    setitimer(ITIMER_REAL, &never, NULL);
    sigaction(SIGALRM, &old, NULL);
    setitimer(ITIMER_REAL, &before, NULL);
    tear_down(&scene);
}

static void *receive_in_thread(void *arg)
{
    struct scene *scene = arg;
    struct shoal_message message;
    int status = shoal_channel_receive(scene->channel, shoal_now_ns() + 1000000, &message);
    return (void *)(intptr_t)status;
}

static void a_side_may_pass_from_thread_to_thread(void)
{
    struct scene scene;
    struct shoal_message message;
    if (!set_up(&scene, false))
        return;
    pid_t pid = test_fork(echo, &scene);
    ASSERT_OK(shoal_channel_accept(scene.channel, -1));
    for (int round = 0; round < 3; round++) {
        pthread_t thread;
        void *status;
        ASSERT_EQ(pthread_create(&thread, NULL, receive_in_thread, &scene), 0);
        pthread_join(thread, &status);
        ASSERT_EQ((int)(intptr_t)status, -ETIMEDOUT);
        ASSERT_EQ(shoal_channel_receive(scene.channel, shoal_now_ns() + 1000000, &message), -ETIMEDOUT);
        ASSERT_OK(ask(scene.channel, 100, round));
    }
    shoal_channel_free(scene.channel);
    ASSERT_EQ(test_wait(pid), 0);
    test_footprint_same(&scene.before);
}

/* ---- death ---- */

/* Takes payloads and keeps them; says so once it has three. */
static int hoard(void *arg)
{
    struct scene *scene = arg;
    struct shoal_message message;
    int status = enter(scene);
    for (int i = 0; i < 3 && status == 0; i++)
        status = shoal_channel_receive(scene->channel, -1, &message);
    if (status == 0)
        status = shoal_channel_send(scene->channel, "last words", 11, 0, -1);
    while (status == 0)
        pause();
    return -status;
}

static void what_a_killed_side_held_comes_back(void)
{
    for (int sleeping = 0; sleeping < 2; sleeping++) {
        struct scene scene;
        struct shoal_message message;
        void *payload;
        uint64_t id;
        if (!set_up(&scene, sleeping))
            return;
        pid_t pid = test_fork(hoard, &scene);
        ASSERT_OK(shoal_channel_accept(scene.channel, -1));
        for (int i = 0; i < 3; i++) {
            ASSERT_OK(shoal_channel_alloc(scene.channel, MIB, &payload, &id));
            ASSERT_OK(shoal_channel_send(scene.channel, NULL, 0, id, -1));
        }
        if (sleeping) /* the last words are read before the death, else after it */
            ASSERT_OK(shoal_channel_receive(scene.channel, -1, &message));
        ASSERT_EQ(shoal_channel_alloc(scene.channel, 2 * MIB, &payload, &id), -EDQUOT);
        if (!sleeping)
            while (!shoal_ring_used(scene.channel->messages[SHOAL__SIDE_B])) /* it has said them */
                ;
        kill(pid, SIGKILL);
        if (!sleeping)
            ASSERT_OK(shoal_channel_receive(scene.channel, -1, &message));
        ASSERT_EQ(shoal_channel_receive(scene.channel, -1, &message), -EPIPE);
        ASSERT_EQ(shoal_channel_send(scene.channel, "x", 1, 0, -1), -EPIPE);
        ASSERT_EQ(test_wait(pid), -SIGKILL);
        ASSERT_OK(shoal_channel_alloc(scene.channel, 4 * MIB, &payload, &id));
        ASSERT_OK(shoal_channel_discard(scene.channel, id));
        tear_down(&scene);
    }
}

static int arrive_and_pause(void *arg)
{
    int status = enter(arg);
    while (status == 0)
        pause();
    return -status;
}

struct killer {
    pthread_t thread;
    pid_t pid;
    struct shoal_channel *channel;
};

/* Kills when the other side really sleeps. */
static void *kill_when_asleep(void *arg)
{
    struct killer *killer = arg;
    while (!shoal_doorbell_sleeps(killer->channel->bells[SHOAL__SIDE_A]))
        ;
    kill(killer->pid, SIGKILL);
    return NULL;
}

static void a_sleeper_is_woken_by_the_death_of_the_other(void)
{
    for (int what = 0; what < 3; what++) {
        struct scene scene;
        struct shoal_message message;
        char filler[1000] = "";
        void *payload;
        uint64_t id = 0;
        int status;
        if (!set_up(&scene, false))
            return;
        struct killer killer = { .channel = scene.channel, .pid = test_fork(arrive_and_pause, &scene) };
        ASSERT_OK(shoal_channel_accept(scene.channel, -1));
        if (what == 2)
            ASSERT_OK(shoal_channel_alloc(scene.channel, 4 * MIB, &payload, &id));
        ASSERT_EQ(pthread_create(&killer.thread, NULL, kill_when_asleep, &killer), 0);
        if (what == 0)
            status = shoal_channel_receive(scene.channel, -1, &message);
        else if (what == 1)
            do
                status = shoal_channel_send(scene.channel, filler, sizeof(filler), 0, -1);
            while (status == 0);
        else
            status = shoal_channel_alloc_wait(scene.channel, MIB, -1, &payload, &id);
        ASSERT_EQ(status, -EPIPE);
        pthread_join(killer.thread, NULL);
        ASSERT_EQ(test_wait(killer.pid), -SIGKILL);
        if (what == 2)
            ASSERT_OK(shoal_channel_discard(scene.channel, id));
        tear_down(&scene);
    }
}

static void *kill_after_a_while(void *arg)
{
    struct killer *killer = arg;
    for (volatile int turns = rand() % 3000000; turns > 0; turns--)
        ;
    kill(killer->pid, SIGKILL);
    return NULL;
}

/* Wait for a child that may be killed before it has knocked, of which nobody can tell us. */
static int accept_or_dead(struct shoal_channel *channel, pid_t pid)
{
    struct shoal_peer child;
    int status, alive = 1;
    if (!ASSERT_OK(shoal_peer_open(pid, &child)))
        return -ESRCH;
    do {
        alive = shoal_peer_alive(&child);
        status = shoal_channel_accept(channel, shoal_now_ns() + 5000000);
    } while (status == -ETIMEDOUT && alive == 1);
    shoal_peer_close(&child);
    return status == -ETIMEDOUT ? -EPIPE : status;
}

static void a_kill_at_any_moment_leaves_neither_a_hang_nor_a_leak(void)
{
    for (int round = 0; round < 60; round++) {
        struct scene scene;
        if (!set_up(&scene, round % 2))
            return;
        struct killer killer = { .channel = scene.channel, .pid = test_fork(echo, &scene) };
        ASSERT_EQ(pthread_create(&killer.thread, NULL, kill_after_a_while, &killer), 0);
        int status = accept_or_dead(scene.channel, killer.pid);
        while (status == 0)
            status = ask(scene.channel, (uint64_t)rand() % 100000, round);
        ASSERT_EQ(status, -EPIPE);
        pthread_join(killer.thread, NULL);
        ASSERT_EQ(test_wait(killer.pid), -SIGKILL);
        tear_down(&scene);
    }
}

static const struct test tests[] = {
    { "a forked child inherits the other side", a_forked_child_inherits_the_other_side },
    { "a process that knows the name is the other side", a_process_that_knows_the_name_is_the_other_side },
    { "a faster sender waits and loses nothing; what was sent before closing is read",
      a_sender_that_is_faster_waits_and_loses_nothing },
    { "the other side may die while it arrives", the_other_side_may_die_while_it_arrives },
    { "a signal ends a wait", a_signal_ends_a_wait },
    { "a side may pass from thread to thread", a_side_may_pass_from_thread_to_thread },
    { "what a killed side held comes back, what it said is read", what_a_killed_side_held_comes_back },
    { "a sleeper is woken by the death of the other", a_sleeper_is_woken_by_the_death_of_the_other },
    { "a kill at any moment leaves neither a hang nor a leak", a_kill_at_any_moment_leaves_neither_a_hang_nor_a_leak },
};

int main(void)
{
    return test_main("channel_processes", tests, TEST_COUNT(tests));
}

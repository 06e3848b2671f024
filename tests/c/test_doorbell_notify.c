/* SPDX-License-Identifier: BSD-3-Clause */
/* test_doorbell_notify.c - those who sleep in an epoll of their own hear of bells. Run for each kind. */
#include <shoal/doorbell.h>

#include "doorbell.h"
#include "support.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#define WATCHDOG_MS 60000
#define ROUNDS 2000

struct fixture {
    enum shoal_doorbell_kind kind;
    uint8_t *memory;
    struct shoal_doorbell *bell;
    struct shoal_waiter *waiter;
    int fd;
    shoal__a32 over;
};

static bool set_up(struct fixture *f)
{
    *f = (struct fixture) { .kind = SHOAL_DOORBELL_AUTO };
    ASSERT_OK(shoal_doorbell_choose(&f->kind));
    f->memory = mmap(NULL, SHOAL_BELL_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    f->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return f->memory != MAP_FAILED && f->fd >= 0 && ASSERT_OK(shoal_doorbell_create(f->memory, f->kind, &f->bell)) &&
           ASSERT_OK(shoal_waiter_create(f->kind, &f->waiter));
}

static void tear_down(struct fixture *f)
{
    shoal_waiter_free(f->waiter);
    shoal_doorbell_free(f->bell);
    munmap(f->memory, SHOAL_BELL_BYTES);
    close(f->fd);
}

/* False: this kind does not, and says so. */
static bool notifies(struct fixture *f)
{
    int status = shoal_waiter_notify(f->waiter, f->fd);
    if (f->kind == SHOAL_DOORBELL_URING)
        return ASSERT_OK(status);
    ASSERT_EQ(status, -ENOTSUP);
    ASSERT_EQ(shoal_waiter_arm(f->waiter, f->bell, 0), -ENOTSUP);
    ASSERT_EQ(shoal_waiter_collect(f->waiter), -ENOTSUP);
    return false;
}

static bool readable(struct fixture *f, int timeout_ms)
{
    struct pollfd poll_fd = { .fd = f->fd, .events = POLLIN };
    return poll(&poll_fd, 1, timeout_ms) == 1;
}

static int collect(struct fixture *f)
{
    uint64_t count;
    (void)!read(f->fd, &count, sizeof count);
    return shoal_waiter_collect(f->waiter);
}

/* Until the poller is through: some rounds end without a ring of their own (spurious ones come), so nobody counts. */
static void *ring_each_time(void *argument)
{
    struct fixture *f = argument;
    while (!shoal__load_acquire(&f->over))
        shoal_doorbell_ring(f->bell, SHOAL_URGENT);
    return NULL;
}

static void no_ring_is_lost_to_a_poller(void)
{
    struct fixture f;
    if (!set_up(&f))
        return;
    pthread_t ringer;
    if (notifies(&f) && ASSERT_EQ(pthread_create(&ringer, NULL, ring_each_time, &f), 0)) {
        for (int round = 0; round < ROUNDS; round++) {
            uint32_t ticket = shoal_doorbell_announce(f.bell, SHOAL_URGENT);
            int status = shoal_waiter_arm(f.waiter, f.bell, ticket);
            while (status == 0 && !shoal__bell_rang(f.bell, ticket)) {
                if (!ASSERT_EQ(readable(&f, WATCHDOG_MS), true))
                    abort();
                status = collect(&f) & SHOAL_WAIT_RANG;
                if (status == 0) /* what was collected may be the wait of an earlier round */
                    status = shoal_waiter_arm(f.waiter, f.bell, ticket);
            }
            ASSERT_EQ(status >= 0, true);
        }
        shoal__store_release(&f.over, 1);
        pthread_join(ringer, NULL);
    }
    tear_down(&f);
}

static void a_ring_of_another_process_makes_the_descriptor_readable(void)
{
    struct fixture f;
    if (!set_up(&f))
        return;
    if (notifies(&f)) {
        for (int round = 0; round < 3; round++) {
            collect(&f);
            ASSERT_EQ(readable(&f, 0), false);
            uint32_t ticket = shoal_doorbell_announce(f.bell, SHOAL_URGENT);
            ASSERT_EQ(shoal_waiter_arm(f.waiter, f.bell, ticket), 0);
            ASSERT_EQ(readable(&f, 0), false);
            pid_t pid = fork();
            if (pid == 0)
                _exit(shoal_doorbell_ring(f.bell, SHOAL_URGENT) == 1 ? 0 : 1);
            ASSERT_EQ(test_wait(pid), 0);
            ASSERT_EQ(readable(&f, WATCHDOG_MS), true);
            ASSERT_EQ(collect(&f) & SHOAL_WAIT_RANG, SHOAL_WAIT_RANG);
        }
    }
    tear_down(&f);
}

static void a_ring_before_it_was_armed_is_said(void)
{
    struct fixture f;
    if (!set_up(&f))
        return;
    if (notifies(&f)) {
        uint32_t ticket = shoal_doorbell_announce(f.bell, SHOAL_URGENT);
        ASSERT_EQ(shoal_doorbell_ring(f.bell, SHOAL_URGENT), 1);
        ASSERT_EQ(shoal_waiter_arm(f.waiter, f.bell, ticket), SHOAL_WAIT_RANG);
    }
    tear_down(&f);
}

static void a_watched_descriptor_makes_it_readable(void)
{
    struct fixture f;
    int fds[2];
    if (!set_up(&f) || !ASSERT_OK(pipe(fds)))
        return;
    if (notifies(&f)) {
        ASSERT_OK(shoal_waiter_watch(f.waiter, fds[0], 7));
        ASSERT_EQ(shoal_waiter_arm(f.waiter, NULL, 0), 0);
        ASSERT_EQ(write(fds[1], "x", 1), 1);
        ASSERT_EQ(readable(&f, WATCHDOG_MS), true);
        ASSERT_EQ(collect(&f), SHOAL_WAIT_FD);
    }
    close(fds[0]);
    close(fds[1]);
    tear_down(&f);
}

static void *collect_elsewhere(void *argument)
{
    struct fixture *f = argument;
    return (void *)(intptr_t)shoal_waiter_collect(f->waiter);
}

static void another_thread_is_refused(void)
{
    struct fixture f;
    if (!set_up(&f))
        return;
    pthread_t other;
    void *status = NULL;
    if (notifies(&f) && ASSERT_EQ(pthread_create(&other, NULL, collect_elsewhere, &f), 0)) {
        pthread_join(other, &status);
        ASSERT_EQ((intptr_t)status, -EEXIST);
    }
    tear_down(&f);
}

int main(void)
{
    static const struct test tests[] = {
        { "a ring of another process makes the descriptor readable",
          a_ring_of_another_process_makes_the_descriptor_readable },
        { "no ring is lost to a poller", no_ring_is_lost_to_a_poller },
        { "a ring before it was armed is said", a_ring_before_it_was_armed_is_said },
        { "a watched descriptor makes it readable", a_watched_descriptor_makes_it_readable },
        { "another thread is refused", another_thread_is_refused },
    };
    return test_main("doorbell_notify", tests, TEST_COUNT(tests));
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* test_doorbell.c - whom a ring wakes, and that a wait ends for what it should. Run once for each kind. */
#include <shoal/doorbell.h>

#include "doorbell.h"
#include "support.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MS 1000000ll

static enum shoal_doorbell_kind kind_here(void)
{
    enum shoal_doorbell_kind kind = SHOAL_DOORBELL_AUTO;
    ASSERT_OK(shoal_doorbell_choose(&kind));
    return kind;
}

/* Shared by the processes of a test. */
struct shared {
    _Alignas(64) uint8_t bells[2][SHOAL_BELL_BYTES];
};

struct fixture {
    enum shoal_doorbell_kind kind;
    struct shared *shared;
    struct shoal_doorbell *bells[2];
    struct shoal_waiter *waiter;
};

static bool set_up(struct fixture *f)
{
    *f = (struct fixture) { .kind = kind_here() };
    f->shared = mmap(NULL, sizeof *f->shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return f->shared != MAP_FAILED && ASSERT_OK(shoal_doorbell_create(f->shared->bells[0], f->kind, &f->bells[0])) &&
           ASSERT_OK(shoal_doorbell_create(f->shared->bells[1], f->kind, &f->bells[1])) &&
           ASSERT_OK(shoal_waiter_create(f->kind, &f->waiter));
}

static void tear_down(struct fixture *f)
{
    shoal_waiter_free(f->waiter);
    shoal_doorbell_free(f->bells[0]);
    shoal_doorbell_free(f->bells[1]);
    munmap(f->shared, sizeof *f->shared);
}

static int wait_until(struct fixture *f, int64_t deadline_ns)
{
    uint32_t ticket = shoal_doorbell_announce(f->bells[0], SHOAL_URGENT);
    int got = shoal_waiter_wait(f->waiter, f->bells[0], ticket, deadline_ns, NULL);
    shoal_doorbell_retract(f->bells[0]);
    return got;
}

/* ---- bells ---- */

static void only_an_announced_sleeper_is_rung_and_once(void)
{
    struct fixture f;
    if (!set_up(&f))
        return;
    struct shoal_doorbell *bell = f.bells[0];
    ASSERT_EQ(shoal_doorbell_sleeps(bell), false);
    ASSERT_EQ(shoal_doorbell_ring(bell, SHOAL_LAZY), 0);
    ASSERT_EQ(shoal_doorbell_ring(bell, SHOAL_URGENT), 0);
    shoal_doorbell_announce(bell, SHOAL_URGENT);
    ASSERT_EQ(shoal_doorbell_sleeps(bell), true);
    ASSERT_EQ(shoal_doorbell_ring(bell, SHOAL_URGENT), 1);
    ASSERT_EQ(shoal_doorbell_ring(bell, SHOAL_URGENT), 0);
    shoal_doorbell_announce(bell, SHOAL_URGENT);
    ASSERT_EQ(shoal_doorbell_ring(bell, SHOAL_LAZY), 1);
    shoal_doorbell_announce(bell, SHOAL_LAZY);
    ASSERT_EQ(shoal_doorbell_ring(bell, SHOAL_URGENT), 0);
    ASSERT_EQ(shoal_doorbell_ring(bell, SHOAL_LAZY), 1);
    shoal_doorbell_announce(bell, SHOAL_URGENT);
    shoal_doorbell_retract(bell);
    ASSERT_EQ(shoal_doorbell_ring(bell, SHOAL_LAZY), 0);
    ASSERT_EQ(shoal_doorbell_ring(bell, SHOAL_AWAKE), 1); /* whatever is announced */
    tear_down(&f);
}

static void what_is_not_a_bell_is_refused(void)
{
    struct fixture f;
    struct shoal_doorbell *bell = NULL;
    if (!set_up(&f))
        return;
    struct shoal__bell *shared = (void *)f.shared->bells[0];
    ASSERT_EQ(shoal_doorbell_create(f.shared->bells[0] + 8, f.kind, &bell), -EINVAL);
    ASSERT_EQ(shoal_doorbell_create(f.shared->bells[0], SHOAL_DOORBELL_AUTO, &bell), -EINVAL);
    ASSERT_EQ(shoal_doorbell_create(f.shared->bells[0], (enum shoal_doorbell_kind)9, &bell), -EINVAL);
    CU_ASSERT_PTR_NULL(bell);
    if (f.kind == SHOAL_DOORBELL_URING_EVENTFD) {
        ASSERT_EQ(shoal_doorbell_attach(shared, -1, &bell), -ENOTSUP);
    } else {
        ASSERT_OK(shoal_doorbell_attach(shared, -1, &bell));
        shoal_doorbell_announce(bell, SHOAL_URGENT);
        ASSERT_EQ(shoal_doorbell_ring(f.bells[0], SHOAL_URGENT), 1);
        shoal_doorbell_free(bell);
    }
    bell = NULL;
    shared->kind = 77;
    ASSERT_EQ(shoal_doorbell_attach(shared, -1, &bell), -EPROTO);
    shared->kind = (uint32_t)f.kind;
    shared->magic++;
    ASSERT_EQ(shoal_doorbell_attach(shared, -1, &bell), -EPROTO);
    CU_ASSERT_PTR_NULL(bell);
    CU_ASSERT_PTR_NULL(shoal_doorbell_kind_name((enum shoal_doorbell_kind)9));
    tear_down(&f);
}

/* ---- ends of a wait ---- */

static void a_ring_after_the_announcement_ends_the_sleep(void)
{
    struct fixture f;
    if (!set_up(&f))
        return;
    for (int round = 0; round < 200; round++) {
        uint32_t ticket = shoal_doorbell_announce(f.bells[0], SHOAL_URGENT);
        ASSERT_EQ(shoal_doorbell_ring(f.bells[0], SHOAL_URGENT), 1);
        ASSERT_EQ(shoal_waiter_wait(f.waiter, f.bells[0], ticket, -1, NULL), SHOAL_WAIT_RANG);
        shoal_doorbell_retract(f.bells[0]);
    }
    tear_down(&f);
}

static void a_deadline_ends_the_sleep_and_not_before(void)
{
    struct fixture f;
    int fds[2];
    if (!set_up(&f) || !ASSERT_OK(pipe(fds)))
        return;
    for (int watching = 0; watching < 2; watching++) {
        ASSERT_EQ(wait_until(&f, 0), 0);
        for (int i = 0; i < 5; i++) {
            int64_t deadline_ns = shoal_now_ns() + 3 * MS;
            ASSERT_EQ(wait_until(&f, deadline_ns), 0);
            CU_ASSERT(shoal_now_ns() >= deadline_ns);
            ASSERT_EQ(shoal_waiter_wait(f.waiter, NULL, 0, shoal_now_ns() + MS, NULL), 0);
        }
        if (!watching)
            ASSERT_OK(shoal_waiter_watch(f.waiter, fds[0], 1));
    }
    close(fds[0]);
    close(fds[1]);
    tear_down(&f);
}

static void a_ring_that_was_not_finished_is_noticed(void)
{
    struct fixture f;
    int fds[2];
    if (!set_up(&f) || !ASSERT_OK(pipe(fds)))
        return;
    struct shoal__bell *shared = (void *)f.shared->bells[0];
    for (int watching = 0; watching < 2; watching++) {
        uint32_t ticket = shoal_doorbell_announce(f.bells[0], SHOAL_URGENT);
        pid_t pid = fork();
        if (pid == 0) { /* what a ringer has done that is killed before its system call */
            usleep(2000);
            shoal__store_seqcst(&shared->word, (ticket & ~SHOAL__BELL_URGENCY) + SHOAL__BELL_COUNT);
            _exit(0);
        }
        ASSERT_EQ(shoal_waiter_wait(f.waiter, f.bells[0], ticket, -1, NULL), SHOAL_WAIT_RANG);
        ASSERT_EQ(test_wait(pid), 0);
        if (!watching)
            ASSERT_OK(shoal_waiter_watch(f.waiter, fds[0], 1));
    }
    close(fds[0]);
    close(fds[1]);
    tear_down(&f);
}

static void a_watched_descriptor_ends_the_sleep_while_it_is_readable(void)
{
    struct fixture f;
    uint64_t tokens[4];
    int fds[2];
    char byte;
    if (!set_up(&f) || !ASSERT_OK(pipe(fds)))
        return;
    ASSERT_OK(shoal_waiter_watch(f.waiter, fds[0], 42));
    ASSERT_EQ(shoal_waiter_watch(f.waiter, fds[0], 42), -EINVAL);
    ASSERT_EQ(shoal_waiter_watch(f.waiter, -1, 43), -EBADF);
    ASSERT_EQ(wait_until(&f, shoal_now_ns() + MS), 0);
    ASSERT_EQ(shoal_waiter_ready(f.waiter, tokens, 4), 0);
    ASSERT_EQ(write(fds[1], "x", 1), 1);
    for (int i = 0; i < 3; i++) { /* level-triggered */
        ASSERT_EQ(wait_until(&f, -1), SHOAL_WAIT_FD);
        ASSERT_EQ(shoal_waiter_ready(f.waiter, tokens, 4), 1);
        ASSERT_EQ(tokens[0], 42);
        ASSERT_EQ(shoal_waiter_wait(f.waiter, NULL, 0, -1, NULL), SHOAL_WAIT_FD);
    }
    ASSERT_EQ(read(fds[0], &byte, 1), 1);
    wait_until(&f, shoal_now_ns() + MS); /* a poll that was armed before the read may still report once */
    ASSERT_EQ(wait_until(&f, shoal_now_ns() + MS), 0);
    ASSERT_EQ(write(fds[1], "x", 1), 1);
    ASSERT_OK(shoal_waiter_unwatch(f.waiter, 42));
    ASSERT_EQ(shoal_waiter_unwatch(f.waiter, 42), -ENOENT);
    ASSERT_EQ(wait_until(&f, shoal_now_ns() + MS), 0);
    close(fds[0]);
    close(fds[1]);
    tear_down(&f);
}

static void a_number_that_is_used_again_is_another_descriptor(void)
{
    struct fixture f;
    uint64_t token;
    if (!set_up(&f))
        return;
    for (int round = 0; round < 50; round++) {
        int old = eventfd(0, EFD_CLOEXEC);
        ASSERT_OK(shoal_waiter_watch(f.waiter, old, 1));
        ASSERT_EQ(wait_until(&f, 0), 0);
        ASSERT_OK(shoal_waiter_unwatch(f.waiter, 1));
        close(old);
        int new = eventfd(round % 2, EFD_CLOEXEC);
        ASSERT_EQ(new, old);
        ASSERT_OK(shoal_waiter_watch(f.waiter, new, 2));
        ASSERT_EQ(wait_until(&f, 0), round % 2 ? SHOAL_WAIT_FD : 0);
        ASSERT_EQ(shoal_waiter_ready(f.waiter, &token, 1), round % 2);
        ASSERT_OK(shoal_waiter_unwatch(f.waiter, 2));
        close(new);
    }
    tear_down(&f);
}

#define MANY_FDS 300

static void hundreds_of_descriptors_are_watched(void)
{
    static int fds[MANY_FDS];
    static uint64_t tokens[MANY_FDS];
    struct fixture f;
    const uint64_t one = 1;
    if (!set_up(&f))
        return;
    for (int i = 0; i < MANY_FDS; i++) {
        fds[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (!ASSERT_EQ(fds[i] >= 0, true) || !ASSERT_OK(shoal_waiter_watch(f.waiter, fds[i], (uint64_t)i)))
            return;
    }
    ASSERT_EQ(wait_until(&f, shoal_now_ns() + MS), 0);
    for (int i = 0; i < MANY_FDS; i += 7)
        ASSERT_EQ(write(fds[i], &one, sizeof one), sizeof one);
    static bool seen[MANY_FDS];
    for (int found = 0; found < (MANY_FDS + 6) / 7;) { /* the kernel may report some of them in the next wait */
        REQUIRE_EQ(wait_until(&f, -1), SHOAL_WAIT_FD);
        int ready = shoal_waiter_ready(f.waiter, tokens, MANY_FDS);
        for (int i = 0; i < ready; i++) {
            ASSERT_EQ(tokens[i] % 7, 0);
            found += !seen[tokens[i]];
            seen[tokens[i]] = true;
        }
    }
    REQUIRE_EQ(wait_until(&f, -1), SHOAL_WAIT_FD);
    ASSERT_EQ(shoal_waiter_ready(f.waiter, tokens, 3), 3);
    for (int i = 0; i < MANY_FDS; i += 2)
        ASSERT_OK(shoal_waiter_unwatch(f.waiter, (uint64_t)i));
    ASSERT_EQ(wait_until(&f, -1), SHOAL_WAIT_FD);
    for (int i = 0; i < MANY_FDS; i++)
        close(fds[i]);
    tear_down(&f);
}

static void a_bell_that_rings_all_the_time_does_not_hide_a_descriptor(void)
{
    struct fixture f;
    if (!set_up(&f))
        return;
    int fd = eventfd(1, EFD_CLOEXEC), bits = 0;
    ASSERT_OK(shoal_waiter_watch(f.waiter, fd, 1));
    for (int round = 0; round < 1000 && (bits & SHOAL_WAIT_FD) == 0; round++) {
        uint32_t ticket = shoal_doorbell_announce(f.bells[0], SHOAL_URGENT);
        shoal_doorbell_ring(f.bells[0], SHOAL_URGENT);
        bits = shoal_waiter_wait(f.waiter, f.bells[0], ticket, -1, NULL);
    }
    ASSERT_EQ(bits & SHOAL_WAIT_FD, SHOAL_WAIT_FD);
    close(fd);
    tear_down(&f);
}

static int die_at_once(void *unused)
{
    (void)unused;
    return 3;
}

static void the_death_of_a_child_ends_the_sleep(void)
{
    struct fixture f;
    if (!set_up(&f))
        return;
    pid_t pid = test_fork(die_at_once, NULL);
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    ASSERT_OK(shoal_waiter_watch(f.waiter, pidfd, 7));
    ASSERT_EQ(wait_until(&f, -1), SHOAL_WAIT_FD);
    ASSERT_EQ(test_wait(pid), 3);
    close(pidfd);
    tear_down(&f);
}

/* ---- whose waiter it is ---- */

static int use_inherited_waiter(void *argument)
{
    struct fixture *f = argument;
    if (shoal_waiter_wait(f->waiter, f->bells[0], 0, 0, NULL) != -EEXIST)
        return 1;
    shoal_waiter_free(f->waiter); /* must not touch the parent's ring */
    struct shoal_waiter *own;
    if (shoal_waiter_create(f->kind, &own) < 0 || shoal_waiter_watch(own, STDERR_FILENO, 1) < 0)
        return 2;
    int got = shoal_waiter_wait(own, f->bells[1], shoal_doorbell_announce(f->bells[1], SHOAL_URGENT),
                                shoal_now_ns() + MS, NULL);
    shoal_waiter_free(own);
    return got < 0 ? 3 : 0;
}

static void *use_waiter_of_another_thread(void *argument)
{
    struct fixture *f = argument;
    return (void *)(intptr_t)shoal_waiter_wait(f->waiter, f->bells[0], 0, 0, NULL);
}

static void a_waiter_serves_only_the_thread_that_made_it(void)
{
    struct fixture f;
    pthread_t thread;
    void *result;
    int fds[2];
    if (!set_up(&f) || !ASSERT_OK(pipe(fds)))
        return;
    ASSERT_OK(shoal_waiter_watch(f.waiter, fds[0], 1));
    ASSERT_EQ(wait_until(&f, shoal_now_ns() + MS), 0); /* the ring exists and has requests under way */
    ASSERT_EQ(test_wait(test_fork(use_inherited_waiter, &f)), 0);
    ASSERT_OK(pthread_create(&thread, NULL, use_waiter_of_another_thread, &f));
    pthread_join(thread, &result);
    ASSERT_EQ((intptr_t)result, -EEXIST);
    ASSERT_EQ(write(fds[1], "x", 1), 1);
    ASSERT_EQ(wait_until(&f, -1), SHOAL_WAIT_FD); /* and it still works here */
    close(fds[0]);
    close(fds[1]);
    tear_down(&f);
}

static void nothing_is_left_over(void)
{
    struct test_footprint before;
    struct fixture f;
    kind_here();
    test_footprint_take(&before);
    if (!set_up(&f))
        return;
    int fd = eventfd(0, EFD_CLOEXEC);
    ASSERT_OK(shoal_waiter_watch(f.waiter, fd, 1));
    ASSERT_EQ(wait_until(&f, 0), 0);
    tear_down(&f);
    close(fd);
    test_footprint_same(&before);
}

static void the_clock_goes_on_and_the_cpu_is_one_of_ours(void)
{
    cpu_set_t one, before;
    ASSERT_OK(sched_getaffinity(0, sizeof before, &before));
    int64_t last_ns = shoal_now_ns();
    for (unsigned cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &before))
            continue;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        ASSERT_OK(sched_setaffinity(0, sizeof one, &one));
        ASSERT_EQ(shoal_cpu(), cpu);
        CU_ASSERT(shoal_now_ns() >= last_ns);
    }
    ASSERT_OK(sched_setaffinity(0, sizeof before, &before));
}

int main(void)
{
    static const struct test tests[] = {
        { "only an announced sleeper is rung and once", only_an_announced_sleeper_is_rung_and_once },
        { "what is not a bell is refused", what_is_not_a_bell_is_refused },
        { "a ring after the announcement ends the sleep", a_ring_after_the_announcement_ends_the_sleep },
        { "a deadline ends the sleep and not before", a_deadline_ends_the_sleep_and_not_before },
        { "a ring that was not finished is noticed", a_ring_that_was_not_finished_is_noticed },
        { "a watched descriptor ends the sleep while it is readable",
          a_watched_descriptor_ends_the_sleep_while_it_is_readable },
        { "a number that is used again is another descriptor", a_number_that_is_used_again_is_another_descriptor },
        { "hundreds of descriptors are watched", hundreds_of_descriptors_are_watched },
        { "a bell that rings all the time does not hide a descriptor",
          a_bell_that_rings_all_the_time_does_not_hide_a_descriptor },
        { "the death of a child ends the sleep", the_death_of_a_child_ends_the_sleep },
        { "a waiter serves only the thread that made it", a_waiter_serves_only_the_thread_that_made_it },
        { "nothing is left over", nothing_is_left_over },
        { "the clock goes on and the cpu is one of ours", the_clock_goes_on_and_the_cpu_is_one_of_ours },
    };
    return test_main("doorbell", tests, TEST_COUNT(tests));
}

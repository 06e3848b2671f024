/* SPDX-License-Identifier: BSD-3-Clause */
/* test_doorbell_wakes.c - no wake and no signal is lost, at whatever moment it comes. Run once for each kind. */
#include <shoal/doorbell.h>

#include "doorbell.h"
#include "support.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#define MS 1000000ll

static enum shoal_doorbell_kind kind_here(void)
{
    enum shoal_doorbell_kind kind = SHOAL_DOORBELL_AUTO;
    ASSERT_OK(shoal_doorbell_choose(&kind));
    return kind;
}

/* Shared by the processes of a test: bells and counters. */
struct shared {
    _Alignas(64) uint8_t bells[2][SHOAL_BELL_BYTES];
    _Alignas(64) shoal__a64 counts[2];
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

/* ---- signals ---- */

/* The thread sanitizer runs handlers later than the kernel does, at calls that it knows: io_uring is none of them. */
#if defined(__SANITIZE_THREAD__)
#define HANDLERS_COME_LATE 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define HANDLERS_COME_LATE 1
#endif
#endif
#ifndef HANDLERS_COME_LATE
#define HANDLERS_COME_LATE 0
#endif

static volatile sig_atomic_t signals_seen;

static void on_signal(int number)
{
    (void)number;
    signals_seen++;
}

/* SIGUSR1 is caught, with SA_RESTART (as careless programs do), and blocked. *ret_open: a mask that lets it through. */
static void block_signal(sigset_t *ret_before, sigset_t *ret_open)
{
    struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
    sigset_t one;
    sigaction(SIGUSR1, &action, NULL);
    sigemptyset(&one);
    sigaddset(&one, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &one, ret_before);
    *ret_open = *ret_before;
    sigdelset(ret_open, SIGUSR1);
    signals_seen = 0;
}

static void a_signal_from_before_the_sleep_is_not_lost(void)
{
    struct fixture f;
    sigset_t before, open, after;
    int fds[2];
    if (HANDLERS_COME_LATE) {
        test_skip("the thread sanitizer delays signal handlers");
        return;
    }
    if (!set_up(&f) || !ASSERT_OK(pipe(fds)))
        return;
    block_signal(&before, &open);
    for (int round = 0; round < 40; round++) {
        if (round == 20)
            ASSERT_OK(shoal_waiter_watch(f.waiter, fds[0], 1));
        signals_seen = 0;
        raise(SIGUSR1);
        ASSERT_EQ(signals_seen, 0);
        uint32_t ticket = shoal_doorbell_announce(f.bells[0], SHOAL_URGENT);
        ASSERT_EQ(shoal_waiter_wait(f.waiter, f.bells[0], ticket, -1, &open), -EINTR);
        ASSERT_EQ(signals_seen, 1);
        pthread_sigmask(SIG_BLOCK, NULL, &after);
        ASSERT_EQ(sigismember(&after, SIGUSR1), 1); /* the mask is as it was */
    }
    raise(SIGUSR1);
    ASSERT_EQ(wait_until(&f, shoal_now_ns() + MS), 0); /* no mask given: it stays blocked */
    ASSERT_EQ(signals_seen, 1);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    close(fds[0]);
    close(fds[1]);
    tear_down(&f);
}

struct signaller {
    pthread_t target;
    shoal__a32 rounds; /* asked for */
    shoal__a32 stop;
};

static void *send_signals(void *argument)
{
    struct signaller *signaller = argument;
    for (uint32_t sent = 0; !shoal__load_acquire(&signaller->stop);) {
        if (shoal__load_acquire(&signaller->rounds) > sent) {
            for (volatile unsigned spin = (sent * 2654435761u) >> 17; spin > 0; spin--) /* at any point of the wait */
                ;
            pthread_kill(signaller->target, SIGUSR1);
            sent++;
        } else {
            sched_yield();
        }
    }
    return NULL;
}

static void a_signal_at_any_point_ends_the_sleep(void)
{
    struct fixture f;
    sigset_t before, open;
    pthread_t thread;
    int fds[2];
    if (HANDLERS_COME_LATE) {
        test_skip("the thread sanitizer delays signal handlers");
        return;
    }
    if (!set_up(&f) || !ASSERT_OK(pipe(fds)))
        return;
    block_signal(&before, &open);
    struct signaller signaller = { .target = pthread_self() };
    ASSERT_OK(pthread_create(&thread, NULL, send_signals, &signaller));
    for (int round = 1; round <= 400; round++) {
        if (round == 200)
            ASSERT_OK(shoal_waiter_watch(f.waiter, fds[0], 1));
        shoal__store_release(&signaller.rounds, (uint32_t)round);
        uint32_t ticket = shoal_doorbell_announce(f.bells[0], SHOAL_URGENT);
        if (!ASSERT_EQ(shoal_waiter_wait(f.waiter, f.bells[0], ticket, -1, &open), -EINTR) ||
            !ASSERT_EQ(signals_seen, round))
            break;
    }
    shoal__store_release(&signaller.stop, 1);
    pthread_join(thread, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    close(fds[0]);
    close(fds[1]);
    tear_down(&f);
}

/* ---- no wake is lost ---- */

#define ROUNDS 20000u

/* Wait until the other side's count has reached `target`; returns false on an error. */
static bool await_count(struct fixture *f, struct shoal_waiter *waiter, int side, uint64_t target)
{
    while (shoal__load_acquire(&f->shared->counts[side]) < target) {
        uint32_t ticket = shoal_doorbell_announce(f->bells[side], SHOAL_URGENT);
        int got = 1;
        if (shoal__load_acquire(&f->shared->counts[side]) < target)
            got = shoal_waiter_wait(waiter, f->bells[side], ticket, -1, NULL);
        shoal_doorbell_retract(f->bells[side]);
        if (got <= 0 && got != -EINTR)
            return false;
    }
    return true;
}

/* Any time from none to longer than it takes to fall asleep. */
static void dawdle(uint64_t number)
{
    uint64_t mixed = (number + 7) * 0x9e3779b97f4a7c15ull;
    if (mixed >> 62 == 0) /* every fourth time */
        for (volatile uint64_t spin = (mixed >> 40) % 20000; spin > 0; spin--)
            ;
}

/* One side of a ping-pong; the other one's count is counts[1 - side]. */
static int play(struct fixture *f, struct shoal_waiter *waiter, int side, uint64_t rounds)
{
    for (uint64_t number = 1; number <= rounds; number++) {
        if (side == 1 && !await_count(f, waiter, 1, number))
            return 1;
        dawdle(number * 2 + (uint64_t)side);
        shoal__store_release(&f->shared->counts[1 - side], number);
        if (shoal_doorbell_ring(f->bells[1 - side], SHOAL_URGENT) < 0)
            return 2;
        if (side == 0 && !await_count(f, waiter, 0, number))
            return 3;
    }
    /* The belt saves what is lost, so a lost wake shows here. A slice of the semaphore may end just when it is rung. */
    uint64_t allowed = f->kind == SHOAL_DOORBELL_SEMAPHORE ? rounds / 100 : 0;
    return waiter->belt_catches > allowed ? 4 : 0;
}

static int play_in_child(void *argument)
{
    struct fixture *f = argument;
    struct shoal_waiter *waiter;
    shoal_waiter_abandon(f->waiter);
    if (shoal_waiter_create(f->kind, &waiter) < 0)
        return 10;
    int result = play(f, waiter, 1, ROUNDS);
    shoal_waiter_free(waiter);
    return result;
}

static void no_wake_is_lost_between_two_processes(void)
{
    for (int watching = 0; watching < 2; watching++) {
        struct fixture f;
        int fds[2];
        if (!set_up(&f) || !ASSERT_OK(pipe(fds)))
            return;
        if (watching)
            ASSERT_OK(shoal_waiter_watch(f.waiter, fds[0], 1));
        pid_t pid = test_fork(play_in_child, &f);
        ASSERT_EQ(play(&f, f.waiter, 0, ROUNDS), 0);
        ASSERT_EQ(test_wait(pid), 0);
        close(fds[0]);
        close(fds[1]);
        tear_down(&f);
    }
}

static void *play_in_thread(void *argument)
{
    struct fixture *f = argument;
    struct shoal_waiter *waiter;
    if (shoal_waiter_create(f->kind, &waiter) < 0)
        return (void *)10;
    int result = play(f, waiter, 1, ROUNDS / 2);
    shoal_waiter_free(waiter);
    return (void *)(intptr_t)result;
}

static void no_wake_is_lost_between_two_threads(void)
{
    struct fixture f;
    pthread_t thread;
    void *result;
    int fds[2];
    if (!set_up(&f) || !ASSERT_OK(pipe(fds)))
        return;
    ASSERT_OK(shoal_waiter_watch(f.waiter, fds[0], 1));
    ASSERT_OK(pthread_create(&thread, NULL, play_in_thread, &f));
    ASSERT_EQ(play(&f, f.waiter, 0, ROUNDS / 2), 0);
    pthread_join(thread, &result);
    ASSERT_EQ((intptr_t)result, 0);
    close(fds[0]);
    close(fds[1]);
    tear_down(&f);
}

#define RINGERS 3
#define RINGS 5000u

static int ring_often(void *argument)
{
    struct fixture *f = argument;
    shoal_waiter_abandon(f->waiter);
    for (uint64_t number = 0; number < RINGS; number++) {
        dawdle(number + (uint64_t)getpid());
        shoal__add_seqcst(&f->shared->counts[0], 1);
        if (shoal_doorbell_ring(f->bells[0], number % 2 ? SHOAL_LAZY : SHOAL_URGENT) < 0)
            return 1;
    }
    return 0;
}

static void many_ringers_wake_one_sleeper(void)
{
    struct fixture f;
    pid_t pids[RINGERS];
    if (!set_up(&f))
        return;
    for (int i = 0; i < RINGERS; i++)
        pids[i] = test_fork(ring_often, &f);
    for (uint64_t target = 1; target <= (uint64_t)RINGERS * RINGS; target++)
        if (!ASSERT_EQ(await_count(&f, f.waiter, 0, target), true))
            break;
    for (int i = 0; i < RINGERS; i++)
        ASSERT_EQ(test_wait(pids[i]), 0);
    tear_down(&f);
}

int main(void)
{
    static const struct test tests[] = {
        { "a signal from before the sleep is not lost", a_signal_from_before_the_sleep_is_not_lost },
        { "a signal at any point ends the sleep", a_signal_at_any_point_ends_the_sleep },
        { "no wake is lost between two processes", no_wake_is_lost_between_two_processes },
        { "no wake is lost between two threads", no_wake_is_lost_between_two_threads },
        { "many ringers wake one sleeper", many_ringers_wake_one_sleeper },
    };
    return test_main("doorbell_wakes", tests, TEST_COUNT(tests));
}

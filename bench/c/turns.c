/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * turns.c - the least that a round trip of two processes on one CPU can take: they do nothing but let each other run.
 * What a pool's round trip on one core takes beyond that is the pool's, and Python's.
 */
#include "bench.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define ROUND_TRIPS 20000u

struct shared {
    _Atomic uint32_t turns[2]; /* 1: this side may go on */
};

static void yield_until(_Atomic uint32_t *turn)
{
    while (*turn == 0)
        sched_yield();
}

static void sleep_until(_Atomic uint32_t *turn)
{
    while (*turn == 0)
        syscall(SYS_futex, turn, FUTEX_WAIT, 0, NULL, NULL, 0);
}

static void leave(_Atomic uint32_t *turn)
{
    (void)turn;
}

static void wake(_Atomic uint32_t *turn)
{
    syscall(SYS_futex, turn, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void take_turns(const char *row, void (*await)(_Atomic uint32_t *), void (*tell)(_Atomic uint32_t *))
{
    struct shared *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        exit(1);
    shared->turns[0] = 1;
    int side = 0;
    pid_t pid = fork();
    if (pid == 0)
        side = 1;
    int64_t begin_ns = shoal_now_ns();
    for (unsigned round_trip = 0; round_trip < ROUND_TRIPS; round_trip++) {
        await(&shared->turns[side]);
        shared->turns[side] = 0;
        shared->turns[1 - side] = 1;
        tell(&shared->turns[1 - side]);
    }
    if (pid == 0)
        _exit(0);
    report(row, begin_ns, ROUND_TRIPS);
    reap(pid);
    munmap(shared, sizeof *shared);
}

int main(void)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET((unsigned)sched_getcpu(), &one);
    if (sched_setaffinity(0, sizeof one, &one) < 0)
        return 1;
    take_turns("turns_yielding", yield_until, leave);
    take_turns("turns_asleep", sleep_until, wake);
    return 0;
}

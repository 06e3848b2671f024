/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * taskqueue_turn.c - owner process and worker on one CPU take turns. Used by both.
 *
 * The problem: on one CPU spinning keeps the other side away, and sleeping costs two system calls and a wake on each
 * side: a bare round trip of two processes that sleep and wake each other takes 4.4 us, of two that yield the CPU to
 * each other 3.0.
 *
 * The protocol: whoever has nothing to do and sees the other on its own CPU yields a few times before it announces
 * itself and sleeps. Nothing is announced meanwhile, so nobody has to be woken: it is a spin in which the other runs.
 *
 * A yield that was quick is timed by the CPU's counter alone, where that is steady: with four looks at the clock a
 * round trip took a thirtieth longer.
 *
 * Now and then one sleeps all the same: it is when somebody is woken that the scheduler looks for an idle CPU, and two
 * that spin on two of them take half the time.
 *
 * What it must not do: yield to somebody else. A process that computes on this CPU would run for its whole slice of
 * some milliseconds, where a sleeper that is woken gets the CPU at once. So a yield that took long is a debt, which
 * quick ones pay off; beyond a credit, one sleeps as ever, for TIMES as long as one owes. With a stranger on the CPU
 * all the time that costs one part in TIMES. (Often no stranger is in the way: yielding is within one group of
 * processes, and a session is one where the kernel groups by sessions.) A task or a caller that itself computes looks
 * the same, and does no harm: what a wake costs is little beside it.
 */
#include "taskqueue.h"

#include "sys.h"

#define TRIES 4 /* the scheduler may give the CPU back to us once or twice before the other's turn comes */
#define QUICK_NS 100000
#define SAVED_NS 10000       /* by one that was quick: more than the wake, because not every long one is a stranger's */
#define CREDIT_NS 20000000
#define LONGEST_NS 10000000  /* what one can cost: a slice of the scheduler; who takes longer is no stranger */
#define TIMES 32
#define SLEEP_EVERY 256
#if defined(__aarch64__)
#define SURELY_QUICK_TICKS 1000 /* 1 to 50 us of a counter of 20 MHz to 1 GHz */
#else
#define SURELY_QUICK_TICKS 20000 /* 4 to 20 us of a counter of 1 to 5 GHz; 20 us of the clock */
#endif

void shoal__turn_account(struct shoal__turn *turn, int64_t end_ns, int64_t took_ns)
{
    if (took_ns <= QUICK_NS) {
        turn->owed_ns = turn->owed_ns > SAVED_NS ? turn->owed_ns - SAVED_NS : 0;
        return;
    }
    turn->owed_ns += took_ns < LONGEST_NS ? took_ns : LONGEST_NS;
    if (turn->owed_ns > CREDIT_NS) {
        turn->not_before_ns = end_ns + TIMES * (turn->owed_ns - CREDIT_NS);
        turn->owed_ns = CREDIT_NS;
    }
}

/*
 * From `then` to `now`, in nanoseconds. A tick is worth what it was since the last time that this was asked, which is
 * long ago beside what is measured.
 */
static int64_t elapsed_ns(struct shoal__turn *turn, uint64_t then, uint64_t now, int64_t now_ns)
{
    double worth = now > turn->base_ticks ? (double)(now_ns - turn->base_ns) / (double)(now - turn->base_ticks) : 0;
    turn->base_ticks = now;
    turn->base_ns = now_ns;
    return (int64_t)((double)(now - then) * worth);
}

bool shoal__turn_give(struct shoal__turn *turn, bool (*ready)(void *), void *arg)
{
    if (turn->not_before_ns != 0) {
        if (shoal_now_ns() < turn->not_before_ns)
            return false;
        turn->not_before_ns = 0;
    }
    if (++turn->count % SLEEP_EVERY == 0)
        return false;
    bool is_ready = false;
    uint64_t begin = shoal_ticks(turn->steady);
    if (turn->base_ns == 0) {
        turn->base_ns = shoal_now_ns();
        turn->base_ticks = begin;
    }
    for (int tries = 0; tries < TRIES && !is_ready; tries++) {
        shoal__sys_yield();
        is_ready = ready(arg);
    }
    uint64_t end = shoal_ticks(turn->steady);
    if (end - begin > SURELY_QUICK_TICKS) {
        int64_t end_ns = shoal_now_ns(), took_ns = elapsed_ns(turn, begin, end, end_ns);
        if (is_ready || took_ns > QUICK_NS) /* a quick one for nothing has neither cost nor saved */
            shoal__turn_account(turn, end_ns, took_ns);
    } else if (is_ready) {
        shoal__turn_account(turn, 0, 0);
    }
    return is_ready;
}

bool shoal_taskqueue_give_way(struct shoal_taskqueue *queue, bool (*ready)(void *), void *arg)
{
    return shoal__turn_give(&queue->turn, ready, arg);
}

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

bool shoal__turn_give(struct shoal__turn *turn, bool (*ready)(void *), void *arg)
{
    int64_t begin_ns = shoal_now_ns();
    if (begin_ns < turn->not_before_ns || ++turn->count % SLEEP_EVERY == 0)
        return false;
    bool is_ready = false;
    for (int tries = 0; tries < TRIES && !is_ready; tries++) {
        shoal__sys_yield();
        is_ready = ready(arg);
    }
    int64_t end_ns = shoal_now_ns();
    if (is_ready || end_ns - begin_ns > QUICK_NS) /* a quick one for nothing has neither cost nor saved */
        shoal__turn_account(turn, end_ns, end_ns - begin_ns);
    return is_ready;
}

bool shoal_taskqueue_give_way(struct shoal_taskqueue *queue, bool (*ready)(void *), void *arg)
{
    return shoal__turn_give(&queue->turn, ready, arg);
}

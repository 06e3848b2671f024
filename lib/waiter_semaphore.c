/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * waiter_semaphore.c - to sleep on a POSIX semaphore, where io_uring is forbidden.
 *
 * The problem: sem_clockwait knows neither descriptors nor a signal mask.
 *
 * The protocol: sleep in slices of SHOAL__SLICE_NS. Between two slices a ppoll that does not wait looks at the watched
 * descriptors, with the caller's mask in force, so that a signal that is already there gives -EINTR. During the slice
 * the mask is set by hand. A signal that arrives between the two runs its handler unnoticed; for that case a wait with
 * a mask returns -EINTR without need after MASKED_SLICES slices, and the caller looks for what its handlers left.
 *
 * Costs: one post or wait when somebody sleeps; a hundred short wakes a second during a sleep. Descriptors and signals
 * are noticed up to one slice late. Posts that nobody waited for end one later slice early and are taken back then.
 */
#include "doorbell.h"

#include "sys.h"

#include <errno.h>

#define MASKED_SLICES 10

static int slice_sleep(struct shoal_doorbell *bell, int64_t deadline_ns, const sigset_t *mask)
{
    sigset_t before;
    if (mask != NULL) {
        int status = shoal__sys_sigmask(mask, &before);
        if (status < 0)
            return status;
    }
    int status = shoal__sys_sem_clockwait((sem_t *)(void *)bell->shared->semaphore, deadline_ns);
    if (mask != NULL)
        shoal__sys_sigmask(&before, NULL);
    return status;
}

int shoal__semaphore_sleep(struct shoal_waiter *waiter, struct shoal_doorbell *bell, uint32_t ticket,
                           int64_t deadline_ns, const sigset_t *mask)
{
    for (int slices = 0;; slices++) {
        if (waiter->watch_count > 0 || mask != NULL) {
            int bits = shoal__waiter_poll(waiter, -1, 0, mask);
            if (bits != 0)
                return bits;
        }
        int64_t now_ns = shoal_now_ns();
        if (shoal__bell_rang(bell, ticket) || (deadline_ns >= 0 && now_ns >= deadline_ns))
            return 0;
        if (mask != NULL && slices == MASKED_SLICES)
            return -EINTR;
        int status = slice_sleep(bell, shoal__deadline_min(deadline_ns, now_ns + SHOAL__SLICE_NS), mask);
        if (status == 0) {
            shoal__bell_drain(bell);
            return SHOAL_WAIT_RANG;
        }
        if (status != -ETIMEDOUT)
            return status;
    }
}

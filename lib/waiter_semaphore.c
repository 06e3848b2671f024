/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * waiter_semaphore.c - to sleep on a POSIX semaphore, where io_uring is forbidden.
 *
 * The problem: sem_clockwait knows neither descriptors nor a signal mask.
 *
 * The protocol: sleep in slices of SHOAL__SLICE_NS. Between two slices a ppoll that does not wait looks at the watched
 * descriptors, with the caller's mask in force, so that a signal that is already there gives -EINTR. A caller with a
 * mask has blocked what it wants to be told of: during the slice it stays blocked, and so is never handled unnoticed
 * between a look and the sleep.
 *
 * Costs: one post or wait when somebody sleeps; a hundred short wakes a second during a sleep. Descriptors and signals
 * are noticed up to one slice late. Posts that nobody waited for end one later slice early and are taken back then.
 */
#include "doorbell.h"

#include "sys.h"

#include <errno.h>

int shoal__semaphore_sleep(struct shoal_waiter *waiter, struct shoal_doorbell *bell, uint32_t ticket,
                           int64_t deadline_ns, const sigset_t *mask)
{
    for (;;) {
        if (waiter->watch_count > 0 || mask != NULL) {
            int bits = shoal__waiter_poll(waiter, -1, 0, mask);
            if (bits != 0)
                return bits;
        }
        int64_t now_ns = shoal_now_ns();
        if (shoal__bell_rang(bell, ticket) || (deadline_ns >= 0 && now_ns >= deadline_ns))
            return 0;
        int64_t slice_ns = shoal__deadline_min(deadline_ns, now_ns + SHOAL__SLICE_NS);
        int status = shoal__sys_sem_clockwait((sem_t *)(void *)bell->shared->semaphore, slice_ns);
        if (status == 0) {
            shoal__bell_drain(bell);
            return SHOAL_WAIT_RANG;
        }
        if (status != -ETIMEDOUT)
            return status;
    }
}

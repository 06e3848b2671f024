/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * waiter_uring.c - to sleep on a bell and on descriptors at once, with io_uring.
 *
 * The problem: one sleep for a futex (or an eventfd), any number of pidfds, a deadline and a signal mask, whose cost
 * does not grow with the number of descriptors.
 *
 * The protocol: each watched descriptor has one poll under way, armed once and again when it has fired; the bell has
 * one futex wait (or a poll on its eventfd). What is still under way from the last sleep is used again: a futex wait
 * that is queued stays good whatever the word was, as long as we compare word and ticket after it is queued. Every
 * request carries a serial number that is never used twice, so completions of what was cancelled are known for what
 * they are.
 *
 * Submitting and sleeping are two calls: a call that submits something reports that, and hides that a signal or the
 * timeout ended the sleep. The second carries timeout and signal mask (atomic).
 *
 * The ring: single issuer with deferred task work where the kernel can (completions are made in our own call, nothing
 * interrupts the thread otherwise), 64 entries (8 KiB of locked memory), kept out of children. Only the thread that
 * waits may use it. Needs Linux 5.11 (timeout in the call), futexes 6.7.
 */
#include "doorbell.h"
#include "uring_ops.h"

#include "sys.h"

#include <errno.h>
#include <stdlib.h>

#define RING_ENTRIES 64
#define SUBMIT_TRIES 16
#define SERIAL_IGNORED 0 /* completions of cancels */

/* From 5.18 to 6.1; the header of liburing 2.3 has them. */
static const unsigned setup_flags[] = {
    IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SUBMIT_ALL,
    IORING_SETUP_COOP_TASKRUN,
    0,
};

struct shoal__uring {
    struct io_uring ring;
    struct shoal_doorbell *bell; /* whose wait is under way; NULL: none */
    uint64_t bell_serial;
};

int shoal__uring_ensure(struct shoal_waiter *waiter)
{
    if (waiter->uring != NULL)
        return 0;
    struct shoal__uring *uring = calloc(1, sizeof *uring);
    if (uring == NULL)
        return -ENOMEM;
    int status = -EINVAL;
    for (size_t i = 0; status == -EINVAL && i < sizeof setup_flags / sizeof *setup_flags; i++)
        status = io_uring_queue_init(RING_ENTRIES, &uring->ring, setup_flags[i]);
    if (status < 0)
        goto fail;
    status = (uring->ring.features & IORING_FEAT_EXT_ARG) != 0 ? io_uring_ring_dontfork(&uring->ring) : -EOPNOTSUPP;
    if (status < 0) {
        io_uring_queue_exit(&uring->ring);
        goto fail;
    }
    waiter->uring = uring;
    return 0;
fail:
    free(uring);
    return status;
}

void shoal__uring_free(struct shoal__uring *uring)
{
    if (uring == NULL)
        return;
    io_uring_queue_exit(&uring->ring);
    free(uring);
}

void shoal__uring_abandon(struct shoal__uring *uring)
{
    if (uring == NULL)
        return;
    shoal__sys_close(uring->ring.ring_fd);
    free(uring);
}

/* ---- completions ---- */

static struct shoal__watch *watch_of(struct shoal_waiter *waiter, uint64_t serial)
{
    for (size_t i = 0; i < waiter->watch_count; i++)
        if (waiter->watches[i].serial == serial)
            return &waiter->watches[i];
    return NULL;
}

/* SHOAL_WAIT_RANG if it was woken; an error if the kernel does not know how to wait for a bell. */
static int bell_completed(struct shoal__uring *uring, int result)
{
    struct shoal_doorbell *bell = uring->bell;
    uring->bell = NULL;
    if (result == -EAGAIN || result == -ECANCELED || result == -EINTR)
        return 0;
    if (result < 0)
        return result;
    if (bell->kind == SHOAL_DOORBELL_URING_EVENTFD)
        shoal__bell_drain(bell);
    return SHOAL_WAIT_RANG;
}

/* Take every completion that is there. SHOAL_WAIT_* bits or -errno. */
static int reap(struct shoal_waiter *waiter)
{
    struct shoal__uring *uring = waiter->uring;
    struct io_uring_cqe *cqe;
    int bits = 0, error = 0;
    while (io_uring_peek_cqe(&uring->ring, &cqe) == 0) {
        uint64_t serial = cqe->user_data;
        int result = cqe->res;
        io_uring_cqe_seen(&uring->ring, cqe);
        struct shoal__watch *watch;
        if (serial == SERIAL_IGNORED) {
            continue;
        } else if (uring->bell != NULL && serial == uring->bell_serial) {
            int rang = bell_completed(uring, result);
            if (rang < 0)
                error = rang;
            else
                bits |= rang;
        } else if ((watch = watch_of(waiter, serial)) != NULL) {
            watch->armed = false;
            watch->ready = true; /* an error of the poll, too: the descriptor deserves a look */
            bits |= SHOAL_WAIT_FD;
        }
    }
    return error < 0 ? error : bits;
}

/* ---- requests ---- */

static int submit(struct shoal__uring *uring)
{
    int status = 0;
    for (int tries = 0; io_uring_sq_ready(&uring->ring) > 0 && tries < SUBMIT_TRIES; tries++) {
        status = io_uring_submit(&uring->ring);
        if (status < 0 && status != -EAGAIN && status != -EBUSY && status != -EINTR)
            return status;
    }
    return io_uring_sq_ready(&uring->ring) > 0 ? status : 0;
}

static int next_sqe(struct shoal__uring *uring, struct io_uring_sqe **ret_sqe)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);
    if (sqe == NULL) {
        int status = submit(uring);
        if (status < 0)
            return status;
        sqe = io_uring_get_sqe(&uring->ring);
        if (sqe == NULL)
            return -EBUSY;
    }
    *ret_sqe = sqe;
    return 0;
}

static int cancel(struct shoal__uring *uring, uint64_t serial)
{
    struct io_uring_sqe *sqe;
    int status = next_sqe(uring, &sqe);
    if (status < 0)
        return status;
    io_uring_prep_cancel64(sqe, serial, 0);
    sqe->user_data = SERIAL_IGNORED;
    return 0;
}

static int poll_once(struct shoal__uring *uring, int fd, uint64_t serial)
{
    struct io_uring_sqe *sqe;
    int status = next_sqe(uring, &sqe);
    if (status < 0)
        return status;
    io_uring_prep_poll_add(sqe, fd, POLLIN);
    sqe->user_data = serial;
    return 0;
}

static int arm_watches(struct shoal_waiter *waiter)
{
    while (waiter->cancelled_count > 0) {
        int status = cancel(waiter->uring, waiter->cancelled[waiter->cancelled_count - 1]);
        if (status < 0)
            return status;
        waiter->cancelled_count--;
    }
    for (size_t i = 0; i < waiter->watch_count; i++) {
        struct shoal__watch *watch = &waiter->watches[i];
        if (watch->armed)
            continue;
        int status = poll_once(waiter->uring, watch->fd, watch->serial);
        if (status < 0)
            return status;
        watch->armed = true;
    }
    return 0;
}

static int arm_bell(struct shoal_waiter *waiter, struct shoal_doorbell *bell, uint32_t ticket)
{
    struct shoal__uring *uring = waiter->uring;
    if (uring->bell == bell)
        return 0;
    int status = uring->bell != NULL ? cancel(uring, uring->bell_serial) : 0;
    if (status < 0)
        return status;
    uring->bell = NULL;
    if (bell == NULL)
        return 0;
    uint64_t serial = ++waiter->last_serial;
    if (bell->kind == SHOAL_DOORBELL_URING_EVENTFD) {
        status = poll_once(uring, bell->event_fd, serial);
    } else {
        struct io_uring_sqe *sqe;
        status = next_sqe(uring, &sqe);
        if (status >= 0) {
            shoal__uring_prep_futex_wait(sqe, &bell->shared->word, ticket);
            sqe->user_data = serial;
        }
    }
    if (status < 0)
        return status;
    uring->bell = bell;
    uring->bell_serial = serial;
    return 0;
}

int shoal__uring_arm(struct shoal_waiter *waiter, struct shoal_doorbell *bell, uint32_t ticket)
{
    int status = shoal__uring_ensure(waiter);
    if (status >= 0)
        status = arm_watches(waiter);
    if (status >= 0)
        status = arm_bell(waiter, bell, ticket);
    return status < 0 ? status : submit(waiter->uring);
}

/* ---- sleeping ---- */

/* Run what the kernel has put off for us and, if there is no completion, wait for one. */
static int enter(struct shoal__uring *uring, bool sleep, int64_t deadline_ns, const sigset_t *mask)
{
    struct __kernel_timespec timeout = { 0 };
    struct io_uring_getevents_arg argument = { .sigmask = (uint64_t)(uintptr_t)mask, .sigmask_sz = _NSIG / 8 };
    if (deadline_ns >= 0 || !sleep) {
        int64_t left_ns = sleep ? deadline_ns - shoal_now_ns() : 0;
        if (left_ns > 0) {
            timeout.tv_sec = left_ns / 1000000000;
            timeout.tv_nsec = left_ns % 1000000000;
        }
        argument.ts = (uint64_t)(uintptr_t)&timeout;
    }
    int status = io_uring_enter2((unsigned)uring->ring.ring_fd, 0, 1, IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG,
                                 (sigset_t *)(void *)&argument, sizeof argument);
    return status == -ETIME ? 0 : status;
}

int shoal__uring_sleep(struct shoal_waiter *waiter, struct shoal_doorbell *bell, uint32_t ticket, int64_t deadline_ns,
                       const sigset_t *mask)
{
    int status = shoal__uring_arm(waiter, bell, ticket);
    if (status < 0)
        return status;
    /* Our wait is queued; a ring before this look is seen by it, a ring after it completes the wait. */
    bool sleep = bell == NULL || !shoal__bell_rang(bell, ticket);
    status = enter(waiter->uring, sleep, deadline_ns, mask);
    if (status < 0 && status != -EBUSY)
        return status;
    return reap(waiter);
}

/* ---- for those who sleep elsewhere ---- */

int shoal__uring_notify(struct shoal_waiter *waiter, int event_fd)
{
    int status = shoal__uring_ensure(waiter);
    return status < 0 ? status : io_uring_register_eventfd(&waiter->uring->ring, event_fd);
}

int shoal__uring_collect(struct shoal_waiter *waiter)
{
    if (waiter->uring == NULL)
        return 0;
    int status = enter(waiter->uring, false, -1, NULL);
    return status < 0 && status != -EBUSY && status != -EINTR ? status : reap(waiter);
}

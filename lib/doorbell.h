/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * doorbell.h - inside of doorbells: what doorbell.c (bells), waiter.c (what all waiters share), waiter_uring.c,
 * waiter_semaphore.c and doorbell_probe.c know of each other.
 */
#ifndef SHOAL_LIB_DOORBELL_H
#define SHOAL_LIB_DOORBELL_H

#include <shoal/doorbell.h>

#include "layout.h"

#include <pthread.h>
#include <semaphore.h>
#include <sys/types.h>

struct shoal_doorbell {
    struct shoal__bell *shared;
    enum shoal_doorbell_kind kind; /* our copy: the shared one may be scribbled over */
    int event_fd;                  /* kind uring-eventfd; -1 otherwise */
    bool made_here;
};

/* A sleeper looks at least this often whether the bell's word has changed, should the ringer have died half way. */
#define SHOAL__BELT_NS 500000000ll
/* The longest sleep of the kind semaphore. */
#define SHOAL__SLICE_NS 10000000ll

/* One watched descriptor. */
struct shoal__watch {
    uint64_t token;
    uint64_t serial; /* never used twice: tells completions of this watch from those of a removed one */
    int fd;
    bool armed; /* kind uring*: a poll is under way */
    bool ready; /* was readable in the last wait */
};

struct shoal__uring; /* waiter_uring.c */

struct shoal_waiter {
    enum shoal_doorbell_kind kind;
    pid_t process; /* that it belongs to */
    pthread_t thread;
    struct shoal__watch *watches;
    size_t watch_count;
    size_t watch_room;
    uint64_t last_serial;
    struct pollfd *polls;       /* kind semaphore: scratch, watch_room of them */
    struct shoal__uring *uring; /* kinds uring*: made at the first wait that needs it */
    uint64_t *cancelled;        /* serials of polls to take back at the next wait */
    size_t cancelled_count;
    unsigned quick_returns; /* waits in a row that returned before they slept */
    uint64_t belt_catches;  /* rings that only the belt noticed: should stay 0 while nobody dies */
};

/* Has the bell been rung since `ticket` was taken? */
static inline bool shoal__bell_rang(const struct shoal_doorbell *bell, uint32_t ticket)
{
    /* SYNC: bell-word. What the ringer published before it rang is visible after this. */
    return shoal__load_acquire(&bell->shared->word) != ticket;
}

/* Take back what was posted or written and is not needed any more, so that it does not end the next sleep. */
void shoal__bell_drain(struct shoal_doorbell *bell);

/* Earlier of two deadlines, -1 being never. */
static inline int64_t shoal__deadline_min(int64_t a_ns, int64_t b_ns)
{
    if (a_ns < 0)
        return b_ns;
    return b_ns < 0 || a_ns < b_ns ? a_ns : b_ns;
}

/* Poll the watched descriptors and, if given, one more. Sets `ready`; returns SHOAL_WAIT_* bits, 0, or -errno. */
int shoal__waiter_poll(struct shoal_waiter *waiter, int bell_fd, int64_t deadline_ns, const sigset_t *mask);

/*
 * One sleep until deadline_ns (-1 only without a bell) or an event. Returns SHOAL_WAIT_* bits, 0, -EINTR, or -errno.
 * SHOAL_WAIT_RANG means that the kernel said so; whether it is still news the caller sees in the bell's word.
 */
int shoal__uring_sleep(struct shoal_waiter *waiter, struct shoal_doorbell *bell, uint32_t ticket, int64_t deadline_ns,
                       const sigset_t *mask);
int shoal__semaphore_sleep(struct shoal_waiter *waiter, struct shoal_doorbell *bell, uint32_t ticket,
                           int64_t deadline_ns, const sigset_t *mask);

/* Make the waiter's ring, if it has none. -errno as io_uring_setup(2), -EOPNOTSUPP: too old a kernel. */
int shoal__uring_ensure(struct shoal_waiter *waiter);
/* Ask the kernel to complete when the bell is rung, without sleeping. For the probe. */
int shoal__uring_arm(struct shoal_waiter *waiter, struct shoal_doorbell *bell, uint32_t ticket);
/* Have event_fd written for each completion. Take completions, without sleeping: SHOAL_WAIT_* bits or -errno. */
int shoal__uring_notify(struct shoal_waiter *waiter, int event_fd);
int shoal__uring_collect(struct shoal_waiter *waiter);
void shoal__uring_free(struct shoal__uring *uring);
/* In a child: close the descriptor, touch nothing else (the ring's memory is not mapped here). */
void shoal__uring_abandon(struct shoal__uring *uring);

#endif

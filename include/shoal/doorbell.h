/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * doorbell.h - to sleep until another process has something for us, and to wake it only if it sleeps.
 *
 * The problem: waking a sleeper costs a system call (and 60 us until it runs, on a virtual machine); most of the time
 * nobody sleeps. A wake that gets lost is a hang.
 *
 * The protocol (Dekker's): the sleeper announces itself, looks once more whether there is work, and only then sleeps;
 * the ringer publishes its work, and rings only if somebody is announced. Both have a full fence between their store
 * and their load, so at least one of them sees the other. Ringing when nobody is announced is one load.
 *
 * Three kinds with the same meaning:
 *   uring           io_uring with futex operations (Linux 6.7)
 *   uring-eventfd   io_uring that reads an eventfd
 *   semaphore       a POSIX semaphore in the shared page, bounded waits; works where io_uring is forbidden
 *
 * One sleeper at a time on a bell. A *bell* is 128 bytes of shared memory plus, for uring-eventfd, a descriptor that
 * children inherit by fork or are given. A *waiter* is what one thread sleeps with; it can watch file descriptors
 * (pidfds) besides the bell. A waiter belongs to the thread that made it, is not inherited by fork (a child makes its
 * own), and its ring is never touched by a child.
 */
#ifndef SHOAL_DOORBELL_H
#define SHOAL_DOORBELL_H

#include <shoal/export.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

SHOAL_BEGIN_DECLS

enum shoal_doorbell_kind {
    SHOAL_DOORBELL_AUTO = 0, /* the first of the following that works, unless $SHOAL_DOORBELL names one */
    SHOAL_DOORBELL_URING,
    SHOAL_DOORBELL_URING_EVENTFD,
    SHOAL_DOORBELL_SEMAPHORE,
};

#define SHOAL_BELL_BYTES 128

/* How urgently a sleeper wants to be woken. */
enum shoal_urgency {
    SHOAL_AWAKE = 0,
    SHOAL_LAZY = 1,   /* wake me only with shoal_doorbell_ring(.., SHOAL_LAZY) */
    SHOAL_URGENT = 2, /* wake me with any ring */
};

struct shoal_doorbell; /* one bell, as this process sees it */
struct shoal_waiter;

/* "uring", "uring-eventfd", "semaphore"; NULL if unknown. */
SHOAL_API const char *shoal_doorbell_kind_name(enum shoal_doorbell_kind kind);

/*
 * Try a kind by doing it once (a wake through it, and a watched descriptor). 0, or -errno with one line of reason, such
 * as "io_uring_setup: Operation not permitted (kernel.io_uring_disabled or a seccomp filter)". reason may be NULL.
 */
SHOAL_API int shoal_doorbell_probe(enum shoal_doorbell_kind kind, char *reason, size_t reason_bytes);

/*
 * Resolve AUTO: SHOAL_DOORBELL if set (-EINVAL if it names no kind, the probe's error if that kind does not work here),
 * else the first that works.
 */
SHOAL_API int shoal_doorbell_choose(enum shoal_doorbell_kind *ret_kind);

/* A bell in SHOAL_BELL_BYTES of shared memory, aligned to 64. Errors: -EMFILE, -ENOMEM, -EINVAL. */
SHOAL_API int shoal_doorbell_create(void *memory, enum shoal_doorbell_kind kind, struct shoal_doorbell **ret_bell);

/*
 * See a bell that another, unrelated process created. event_fd: what shoal_doorbell_fd() says there, as it was received
 * here; it stays the caller's. Kind uring-eventfd without one: -ENOTSUP. Not a bell: -EPROTO.
 */
SHOAL_API int shoal_doorbell_attach(void *memory, int event_fd, struct shoal_doorbell **ret_bell);

/* The descriptor that an unrelated process needs besides the memory; -1: none. */
SHOAL_API int shoal_doorbell_fd(const struct shoal_doorbell *bell);

/* Closes what this process has of it; the shared part is left alone. After the waiters that slept on it are freed. */
SHOAL_API void shoal_doorbell_free(struct shoal_doorbell *bell);

/* Sleeper: say that we are about to sleep. Returns the ticket to pass to shoal_waiter_wait. Full fence inside. */
SHOAL_API uint32_t shoal_doorbell_announce(struct shoal_doorbell *bell, enum shoal_urgency urgency);

/* Sleeper: awake again (also after a wait that returned). */
SHOAL_API void shoal_doorbell_retract(struct shoal_doorbell *bell);

/*
 * Ringer: full fence, one load; a system call only if someone with this urgency sleeps. Returns 1 if it rang, 0, or
 * -errno. Any number of threads and processes at once.
 * With SHOAL_AWAKE it rings whether anybody is announced or not (another ringer may have died half way).
 */
SHOAL_API int shoal_doorbell_ring(struct shoal_doorbell *bell, enum shoal_urgency at_least);

/* True if a sleeper is announced (a hint). */
SHOAL_API bool shoal_doorbell_sleeps(const struct shoal_doorbell *bell);

/* What can happen during a wait; bits of the return value. 0 is a timeout. */
enum { SHOAL_WAIT_RANG = 1, SHOAL_WAIT_FD = 2 };

SHOAL_API int shoal_waiter_create(enum shoal_doorbell_kind kind, struct shoal_waiter **ret_waiter);
SHOAL_API void shoal_waiter_free(struct shoal_waiter *waiter);

/* In a child after fork: drop what was inherited without touching the parent's ring. */
SHOAL_API void shoal_waiter_abandon(struct shoal_waiter *waiter);

/*
 * Wake up when fd becomes readable as well (level-triggered: until it is unwatched). token: the caller's, given back.
 * Neither makes a system call; both may be called by any thread while no thread waits with this waiter. A descriptor
 * may be closed once it is unwatched. -EINVAL: the token is in use; -ENOENT: it is not.
 */
SHOAL_API int shoal_waiter_watch(struct shoal_waiter *waiter, int fd, uint64_t token);
SHOAL_API int shoal_waiter_unwatch(struct shoal_waiter *waiter, uint64_t token);

/*
 * Sleep until the bell is rung after `ticket` was taken, a watched descriptor is readable, the deadline
 * (CLOCK_MONOTONIC nanoseconds; -1: none) has passed, or a signal arrives that `mask` lets through (mask may be NULL:
 * as it is). The mask is in force only during the sleep (kinds uring*), atomically; the semaphore kind looks every 10
 * ms with it, and sleeps with the mask as it is: who passes one blocks those signals before. Returns 0 (deadline), bits
 * SHOAL_WAIT_*, -EINTR, or another -errno. Spurious wakes are possible.
 * bell may be NULL: only descriptors and the deadline. -EEXIST: the waiter belongs to another thread; make a new one.
 */
SHOAL_API int shoal_waiter_wait(struct shoal_waiter *waiter, struct shoal_doorbell *bell, uint32_t ticket,
                                int64_t deadline_ns, const sigset_t *mask);

/*
 * Tokens of descriptors that were readable in the last wait; returns how many were written (at most max). If many
 * become readable at once, some are reported by the next wait.
 */
SHOAL_API int shoal_waiter_ready(struct shoal_waiter *waiter, uint64_t *ret_tokens, int max);

/*
 * For those who sleep elsewhere, in an event loop's epoll: the same in three steps, none of which sleeps. An eventfd
 * that is given once is written whenever something has happened that would have ended a wait; spurious ones come, too.
 *
 *     ticket = announce(bell); look for work; shoal_waiter_arm(waiter, bell, ticket)
 *     ... event_fd is readable: read event_fd, then shoal_waiter_collect(waiter), retract(bell), look for work
 *
 * In this order: what happens between the two makes event_fd readable once more; the other way round it would be lost.
 * Arm says SHOAL_WAIT_RANG if the bell has been rung already: nothing may come of event_fd then. There is no belt for a
 * ringer that died half way: look now and then. -EEXIST as above.
 *
 * Kind uring only, else -ENOTSUP. A bell of kind uring-eventfd has a descriptor that can be polled itself:
 * edge-triggered, and never read, which would take a wake away from a waiter. (A ring that polls it cannot tell an
 * eventfd of it: the kernel does not wake one eventfd by another.) A semaphore has none.
 */
SHOAL_API int shoal_waiter_notify(struct shoal_waiter *waiter, int event_fd);
SHOAL_API int shoal_waiter_arm(struct shoal_waiter *waiter, struct shoal_doorbell *bell, uint32_t ticket);
SHOAL_API int shoal_waiter_collect(struct shoal_waiter *waiter); /* bits SHOAL_WAIT_* of what has happened */

/* CLOCK_MONOTONIC, in nanoseconds. */
SHOAL_API int64_t shoal_now_ns(void);

/*
 * The CPU's own counter, where it is cheaper than the clock and as good: steady, and the same on all CPUs, since the
 * kernel keeps its clock by it. Otherwise nanoseconds of the clock. Which of the two it is, shoal_ticks_steady() finds
 * out (a file is read); processes that compare ticks of each other pass the answer on.
 */
SHOAL_API bool shoal_ticks_steady(void);
SHOAL_API uint64_t shoal_ticks(bool steady);

/* The CPU this thread runs on, from glibc's rseq area (one load); sched_getcpu() where there is none. */
SHOAL_API unsigned shoal_cpu(void);

SHOAL_END_DECLS
#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * waiter.c - what all waiters share: whose they are, what they watch, and the loop around one sleep.
 *
 * The problem: a wait has up to four ends (bell, descriptors, deadline, signal), and each kind of sleep below can end
 * for none of them.
 *
 * The protocol: the bell's word alone says whether it was rung; a sleep only saves us from looking all the time. So the
 * loop is: look at the word, sleep at most SHOAL__BELT_NS, look again. The belt covers a ringer that was killed after
 * it changed the word and before its system call, and wakes that an old kernel delivers late.
 *
 * The cheapest sleep that does is taken: a futex call for a bell alone (kind uring: a futex is what io_uring waits on,
 * too, so the ringer need not know), ppoll for an eventfd alone, io_uring as soon as descriptors are watched as well or
 * a signal mask has to be in force during a futex wait. Workers watch nothing; they never make a ring.
 */
#include "doorbell.h"

#include "sys.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A bell that rings all the time must not hide the descriptors: look at them after so many waits without a sleep. */
#define QUICK_RETURNS_MAX 32

int shoal_waiter_create(enum shoal_doorbell_kind kind, struct shoal_waiter **ret_waiter)
{
    if (kind < SHOAL_DOORBELL_URING || kind > SHOAL_DOORBELL_SEMAPHORE)
        return -EINVAL;
    struct shoal_waiter *waiter = calloc(1, sizeof *waiter);
    if (waiter == NULL)
        return -ENOMEM;
    waiter->kind = kind;
    waiter->process = shoal__sys_getpid();
    waiter->thread = pthread_self();
    *ret_waiter = waiter;
    return 0;
}

static void memory_free(struct shoal_waiter *waiter)
{
    free(waiter->watches);
    free(waiter->polls);
    free(waiter->cancelled);
    free(waiter);
}

void shoal_waiter_free(struct shoal_waiter *waiter)
{
    if (waiter == NULL)
        return;
    if (waiter->process != shoal__sys_getpid()) {
        shoal_waiter_abandon(waiter);
        return;
    }
    shoal__uring_free(waiter->uring);
    memory_free(waiter);
}

void shoal_waiter_abandon(struct shoal_waiter *waiter)
{
    if (waiter == NULL)
        return;
    shoal__uring_abandon(waiter->uring);
    memory_free(waiter);
}

/* ---- watched descriptors ---- */

static struct shoal__watch *find_watch(struct shoal_waiter *waiter, uint64_t token)
{
    for (size_t i = 0; i < waiter->watch_count; i++)
        if (waiter->watches[i].token == token)
            return &waiter->watches[i];
    return NULL;
}

static int grow(void **array, size_t count, size_t item_bytes)
{
    void *larger = realloc(*array, count * item_bytes);
    if (larger == NULL)
        return -ENOMEM;
    *array = larger;
    return 0;
}

/* Room for twice as many watches; in the list of cancelled polls, too: at most what is armed can be cancelled. */
static int make_room(struct shoal_waiter *waiter)
{
    size_t room = waiter->watch_room > 0 ? 2 * waiter->watch_room : 8;
    void *watches = waiter->watches, *polls = waiter->polls, *cancelled = waiter->cancelled;
    int status = grow(&watches, room, sizeof *waiter->watches);
    waiter->watches = watches;
    if (status >= 0)
        status = grow(&polls, room + 1, sizeof *waiter->polls);
    waiter->polls = polls;
    if (status >= 0)
        status = grow(&cancelled, room, sizeof *waiter->cancelled);
    waiter->cancelled = cancelled;
    if (status >= 0)
        waiter->watch_room = room;
    return status;
}

int shoal_waiter_watch(struct shoal_waiter *waiter, int fd, uint64_t token)
{
    if (fd < 0)
        return -EBADF;
    if (find_watch(waiter, token) != NULL)
        return -EINVAL;
    if (waiter->watch_count == waiter->watch_room) {
        int status = make_room(waiter);
        if (status < 0)
            return status;
    }
    waiter->watches[waiter->watch_count++] =
        (struct shoal__watch) { .token = token, .serial = ++waiter->last_serial, .fd = fd };
    return 0;
}

int shoal_waiter_unwatch(struct shoal_waiter *waiter, uint64_t token)
{
    struct shoal__watch *watch = find_watch(waiter, token);
    if (watch == NULL)
        return -ENOENT;
    if (watch->armed)
        waiter->cancelled[waiter->cancelled_count++] = watch->serial;
    *watch = waiter->watches[--waiter->watch_count];
    return 0;
}

int shoal_waiter_ready(struct shoal_waiter *waiter, uint64_t *ret_tokens, int max)
{
    int count = 0;
    for (size_t i = 0; i < waiter->watch_count && count < max; i++)
        if (waiter->watches[i].ready)
            ret_tokens[count++] = waiter->watches[i].token;
    return count;
}

int shoal__waiter_poll(struct shoal_waiter *waiter, int bell_fd, int64_t deadline_ns, const sigset_t *mask)
{
    struct pollfd alone, *polls = waiter->watch_count > 0 ? waiter->polls : &alone;
    size_t count = waiter->watch_count;
    for (size_t i = 0; i < count; i++)
        polls[i] = (struct pollfd) { .fd = waiter->watches[i].fd, .events = POLLIN };
    if (bell_fd >= 0)
        polls[count++] = (struct pollfd) { .fd = bell_fd, .events = POLLIN };
    int status = shoal__sys_ppoll(polls, count, deadline_ns, mask);
    if (status <= 0)
        return status;
    int bits = 0;
    for (size_t i = 0; i < waiter->watch_count; i++)
        if (polls[i].revents != 0) {
            waiter->watches[i].ready = true;
            bits |= SHOAL_WAIT_FD;
        }
    if (bell_fd >= 0 && polls[count - 1].revents != 0)
        bits |= SHOAL_WAIT_RANG;
    return bits;
}

/* ---- waiting ---- */

static int futex_sleep(struct shoal_doorbell *bell, uint32_t ticket, int64_t deadline_ns)
{
    int status = shoal__sys_futex_wait(&bell->shared->word, ticket, deadline_ns);
    if (status == -ETIMEDOUT)
        return 0;
    return status == 0 || status == -EAGAIN ? SHOAL_WAIT_RANG : status;
}

static int eventfd_sleep(struct shoal_waiter *waiter, struct shoal_doorbell *bell, int64_t deadline_ns,
                         const sigset_t *mask)
{
    int bits = shoal__waiter_poll(waiter, bell->event_fd, deadline_ns, mask);
    if (bits > 0 && (bits & SHOAL_WAIT_RANG) != 0)
        shoal__bell_drain(bell);
    return bits;
}

static int sleep_once(struct shoal_waiter *waiter, struct shoal_doorbell *bell, uint32_t ticket, int64_t deadline_ns,
                      const sigset_t *mask)
{
    if (bell == NULL && (waiter->watch_count == 0 || waiter->kind == SHOAL_DOORBELL_SEMAPHORE))
        return shoal__waiter_poll(waiter, -1, deadline_ns, mask);
    if (waiter->kind == SHOAL_DOORBELL_SEMAPHORE)
        return shoal__semaphore_sleep(waiter, bell, ticket, deadline_ns, mask);
    if (waiter->watch_count == 0 && waiter->kind == SHOAL_DOORBELL_URING_EVENTFD)
        return eventfd_sleep(waiter, bell, deadline_ns, mask);
    if (waiter->watch_count == 0 && mask == NULL)
        return futex_sleep(bell, ticket, deadline_ns);
    return shoal__uring_sleep(waiter, bell, ticket, deadline_ns, mask);
}

/* The bell has been rung before we slept. Now and then, see to the descriptors all the same. */
static int return_quickly(struct shoal_waiter *waiter)
{
    if (++waiter->quick_returns < QUICK_RETURNS_MAX || waiter->watch_count == 0)
        return SHOAL_WAIT_RANG;
    waiter->quick_returns = 0;
    int bits = shoal__waiter_poll(waiter, -1, 0, NULL);
    return bits > 0 ? bits | SHOAL_WAIT_RANG : SHOAL_WAIT_RANG;
}

static bool used_by_its_thread(const struct shoal_waiter *waiter)
{
    return waiter->process == shoal__sys_getpid() && pthread_equal(waiter->thread, pthread_self());
}

int shoal_waiter_wait(struct shoal_waiter *waiter, struct shoal_doorbell *bell, uint32_t ticket, int64_t deadline_ns,
                      const sigset_t *mask)
{
    if (!used_by_its_thread(waiter))
        return -EEXIST;
    if (bell != NULL && bell->kind != waiter->kind)
        return -EINVAL;
    for (size_t i = 0; i < waiter->watch_count; i++)
        waiter->watches[i].ready = false;
    if (bell != NULL && shoal__bell_rang(bell, ticket))
        return return_quickly(waiter);
    waiter->quick_returns = 0;
    for (;;) {
        int64_t belt_ns = bell != NULL ? shoal_now_ns() + SHOAL__BELT_NS : -1;
        int bits = sleep_once(waiter, bell, ticket, shoal__deadline_min(deadline_ns, belt_ns), mask);
        if (bits < 0)
            return bits;
        bool told = (bits & SHOAL_WAIT_RANG) != 0;
        bits &= ~SHOAL_WAIT_RANG;
        if (bell != NULL && shoal__bell_rang(bell, ticket)) {
            bits |= SHOAL_WAIT_RANG;
            waiter->belt_catches += !told && shoal_now_ns() >= belt_ns;
        }
        if (bits != 0 || (deadline_ns >= 0 && shoal_now_ns() >= deadline_ns))
            return bits;
    }
}

/* ---- for those who sleep elsewhere ---- */

int shoal_waiter_notify(struct shoal_waiter *waiter, int event_fd)
{
    if (waiter->kind != SHOAL_DOORBELL_URING)
        return -ENOTSUP;
    return used_by_its_thread(waiter) ? shoal__uring_notify(waiter, event_fd) : -EEXIST;
}

int shoal_waiter_arm(struct shoal_waiter *waiter, struct shoal_doorbell *bell, uint32_t ticket)
{
    if (waiter->kind != SHOAL_DOORBELL_URING)
        return -ENOTSUP;
    if (!used_by_its_thread(waiter))
        return -EEXIST;
    if (bell != NULL && bell->kind != waiter->kind)
        return -EINVAL;
    int status = shoal__uring_arm(waiter, bell, ticket);
    if (status < 0)
        return status;
    /* As in a sleep: our wait is queued, so a ring after this look completes it. */
    return bell != NULL && shoal__bell_rang(bell, ticket) ? SHOAL_WAIT_RANG : 0;
}

int shoal_waiter_collect(struct shoal_waiter *waiter)
{
    if (waiter->kind != SHOAL_DOORBELL_URING)
        return -ENOTSUP;
    if (!used_by_its_thread(waiter))
        return -EEXIST;
    for (size_t i = 0; i < waiter->watch_count; i++)
        waiter->watches[i].ready = false;
    return shoal__uring_collect(waiter);
}

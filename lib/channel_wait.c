/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * channel_wait.c - is the other side there, and sleeping until it has done something.
 *
 * The problem: to wait for one thing (a record, room, the other side itself) and yet notice that the one who should
 * bring it is dead; pids are all that unrelated processes know of each other, and pids are reused.
 *
 * The protocol: each side writes its pid and the time its process was started into the shared page before `present`.
 * The other takes a pidfd of that pid and then compares the time, so that a later process of that number is not
 * mistaken for it. From then on the pidfd is watched by every sleep. Until then (side B may die between taking its
 * place and saying so, which rings no bell) sleeps are cut to 100 ms.
 *
 * Before it sleeps, a side spins for up to 50 us, but only if the other side last ran on another CPU: on the same CPU a
 * spin only keeps the other from running.
 */
#include "channel.h"

#include "atomic.h"
#include "peer.h"
#include "sys.h"

#include <errno.h>

#define SPIN_NS 50000
#define SPIN_LOOKS 32 /* between two looks at the clock */
#define UNMET_TICK_NS 100000000ll
#define PEER_TOKEN 1u

static struct shoal__channel_side *side_of(const struct shoal_channel *channel, int side)
{
    return &channel->shared->side[side];
}

void shoal__channel_here(struct shoal_channel *channel)
{
    /* Relaxed: only decides whether the other side spins; stale, it spins once in vain or not at all. */
    shoal__store_relaxed(&side_of(channel, channel->side)->cpu, shoal_cpu() + 1);
}

/* ---- the other side ---- */

static void mark_gone(struct shoal_channel *channel)
{
    channel->gone = true;
    if (channel->arena)
        shoal_arena_forget(channel->arena, SHOAL__CHANNEL_HOLDER);
}

/* Side B has taken its place but not said that it is there: if it is dead, it never will. */
static int look_after_claimant(struct shoal_channel *channel, pid_t pid)
{
    struct shoal_peer claimant = { .pidfd = -1 };
    int status = shoal_peer_open(pid, &claimant);
    if (status == 0 && shoal_peer_alive(&claimant) == 0)
        status = -ESRCH;
    shoal_peer_close(&claimant);
    if (status != -ESRCH)
        return status;
    channel->met = true;
    mark_gone(channel);
    return 0;
}

int shoal__channel_meet(struct shoal_channel *channel)
{
    struct shoal__channel_side *other = side_of(channel, shoal__channel_other(channel));
    if (channel->met)
        return 0;
    if (!shoal__load_acquire(&other->present)) { /* SYNC: channel-present */
        pid_t claimant = (pid_t)shoal__load_relaxed(&other->pid);
        return claimant == 0 ? 0 : look_after_claimant(channel, claimant);
    }
    pid_t pid = (pid_t)shoal__load_relaxed(&other->pid);
    int status = shoal__peer_open_started(pid, shoal__load_relaxed(&other->start_ticks), &channel->peer);
    if (status < 0 && status != -ESRCH)
        return status;
    channel->met = true;
    if (status == -ESRCH)
        mark_gone(channel);
    return 0;
}

bool shoal__channel_look(struct shoal_channel *channel)
{
    channel->sends_since_look = 0;
    (void)shoal__channel_meet(channel); /* failing for want of a descriptor: the next look tries again */
    if (channel->gone)
        return true;
    struct shoal__channel_side *other = side_of(channel, shoal__channel_other(channel));
    bool closed = shoal__load_acquire(&other->closed) != 0; /* SYNC: channel-closed */
    if (closed || (channel->met && shoal_peer_alive(&channel->peer) == 0))
        mark_gone(channel);
    return channel->gone;
}

/* ---- sleeping ---- */

/* A waiter of this thread that watches the other side. */
static int prepare_waiter(struct shoal_channel *channel, bool renew)
{
    if (renew && channel->waiter) {
        shoal_waiter_free(channel->waiter); /* another thread's, who is not here any more */
        channel->waiter = NULL;
    }
    if (!channel->waiter) {
        int status = shoal_waiter_create(channel->kind, &channel->waiter);
        if (status < 0)
            return status;
        channel->watched = false;
    }
    if (channel->watched || !channel->met || channel->peer.pidfd < 0)
        return 0;
    int status = shoal_waiter_watch(channel->waiter, channel->peer.pidfd, PEER_TOKEN);
    channel->watched = status >= 0;
    return status;
}

static bool spin(struct shoal_channel *channel, bool (*ready)(struct shoal_channel *))
{
    uint32_t other_cpu = shoal__load_relaxed(&side_of(channel, shoal__channel_other(channel))->cpu);
    if (other_cpu == 0 || other_cpu == shoal_cpu() + 1)
        return false;
    int64_t end_ns = shoal_now_ns() + SPIN_NS;
    do {
        for (int look = 0; look < SPIN_LOOKS; look++) {
            if (ready(channel))
                return true;
            shoal__cpu_relax();
        }
    } while (shoal_now_ns() < end_ns);
    return false;
}

/* Announce, look again, sleep. 0: something may have happened; -EPIPE, -EINTR and so on. */
static int sleep_once(struct shoal_channel *channel, bool (*ready)(struct shoal_channel *), enum shoal_urgency urgency,
                      int64_t deadline_ns)
{
    struct shoal_doorbell *bell = channel->bells[channel->side];
    int status = shoal__channel_meet(channel);
    if (status == 0)
        status = prepare_waiter(channel, false);
    if (status < 0)
        return status;
    if (!channel->met) {
        int64_t tick_ns = shoal_now_ns() + UNMET_TICK_NS;
        deadline_ns = deadline_ns < 0 || deadline_ns > tick_ns ? tick_ns : deadline_ns;
    }
    uint32_t ticket = shoal_doorbell_announce(bell, urgency);
    /* Asked before `ready`: what a side does before it closes or dies is seen after this. */
    bool gone = shoal__channel_look(channel);
    if (ready(channel) || gone) {
        shoal_doorbell_retract(bell);
        return ready(channel) ? 0 : -EPIPE;
    }
    status = shoal_waiter_wait(channel->waiter, bell, ticket, deadline_ns, NULL);
    if (status == -EEXIST) {
        status = prepare_waiter(channel, true);
        if (status >= 0)
            status = shoal_waiter_wait(channel->waiter, bell, ticket, deadline_ns, NULL);
    }
    shoal_doorbell_retract(bell);
    return status < 0 ? status : 0;
}

int shoal__channel_wait(struct shoal_channel *channel, bool (*ready)(struct shoal_channel *),
                        enum shoal_urgency urgency, int64_t deadline_ns)
{
    shoal__channel_here(channel);
    if (ready(channel) || spin(channel, ready))
        return 0;
    for (;;) {
        if (deadline_ns >= 0 && shoal_now_ns() >= deadline_ns) {
            bool gone = shoal__channel_look(channel);
            return ready(channel) ? 0 : gone ? -EPIPE : -ETIMEDOUT;
        }
        int status = sleep_once(channel, ready, urgency, deadline_ns);
        if (status < 0)
            return status;
        shoal__channel_here(channel);
        if (ready(channel))
            return 0;
    }
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * channel.h - inside of a channel.
 *
 *     channel.c         messages and payloads: send, receive, alloc, release
 *     channel_open.c    making, opening, inheriting, closing; what lies where
 *     channel_wait.c    whether the other side is there, and sleeping until it has done something
 */
#ifndef SHOAL_LIB_CHANNEL_H
#define SHOAL_LIB_CHANNEL_H

#include <shoal/channel.h>
#include <shoal/ring.h>

#include "layout.h"

#include <sys/types.h>

enum { SHOAL__SIDE_A = 0, SHOAL__SIDE_B = 1 };

/* What lies where in the region; computed from the three sizes, by each side for itself. */
struct shoal__channel_plan {
    uint64_t ring_bytes, payload_bytes; /* as asked for, rounded */
    uint64_t return_bytes;              /* of each ring of returned payloads */
    uint64_t channel;                   /* offsets: struct shoal__channel */
    uint64_t messages[2];               /* ring that side s writes */
    uint64_t returns[2];                /* ring in which side s gives payloads back */
    uint64_t payloads[2];               /* area that side s allocates from */
    uint64_t total_bytes;
};

struct shoal_channel {
    struct shoal_region *region;
    struct shoal__channel *shared;
    struct shoal__channel_plan plan;
    enum shoal_doorbell_kind kind;
    pid_t process; /* that uses this handle as its side; in any other (a fork) only freeing is allowed */
    int side;      /* SHOAL__SIDE_A or _B */
    struct shoal_doorbell *bells[2];
    struct shoal_ring *messages[2], *returns[2];
    struct shoal_arena *arena; /* over our payload area; the other side is holder 0 */
    uint64_t *lengths;         /* by page of our area: bytes asked for, where a block starts */
    uint64_t *held;            /* bit per page of the other's area: a payload that starts there is with us */
    struct shoal_waiter *waiter;
    struct shoal_peer peer;
    bool met;      /* the other side is or was there; peer is open unless it was dead already */
    bool watched;  /* the waiter watches peer */
    bool gone;     /* the other side has closed or is dead */
    bool pending;  /* a message was given out and is not done */
    bool damaged;  /* what came from the other side cannot be right */
    unsigned sends_since_look;
    uint64_t want_bytes; /* of the record that waits for room */
};

static inline int shoal__channel_other(const struct shoal_channel *channel)
{
    return 1 - channel->side;
}

#define SHOAL__CHANNEL_HOLDER 0u /* the other side, in our arena */

/* ---- channel_wait.c ---- */

/* Take notice of the other side if it has come. Does not wait. -EMFILE and the like. */
int shoal__channel_meet(struct shoal_channel *channel);
/* Look whether the other side has closed or died; if so, take back all that it held. Returns channel->gone. */
bool shoal__channel_look(struct shoal_channel *channel);
/*
 * Until ready(channel): 0, -ETIMEDOUT, -EINTR, or -EPIPE when the other side is gone and it still is not. With
 * SHOAL_URGENT every ring wakes us, with SHOAL_LAZY only new messages.
 */
int shoal__channel_wait(struct shoal_channel *channel, bool (*ready)(struct shoal_channel *),
                        enum shoal_urgency urgency, int64_t deadline_ns);
void shoal__channel_here(struct shoal_channel *channel); /* publish the CPU we run on */

/* ---- channel.c ---- */
/* Payloads that the other side has given back become free. -EBADMSG. */
int shoal__channel_drain_returns(struct shoal_channel *channel);

#endif

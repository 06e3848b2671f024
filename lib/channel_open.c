/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * channel_open.c - making, opening, inheriting and closing a channel, and what lies where in its region.
 *
 *     | region header | channel page | messages A, B | returns A, B | payloads of A | payloads of B |
 *
 * The place of side B is taken by one compare-and-swap of its pid, so that of two who open at once one gets -EBUSY. B
 * removes the name as soon as it is there; a name whose maker died before anybody came is taken over by the next maker,
 * who knows by pid and start time that the first one is dead.
 *
 * Each side maps writable what it writes (its rings, its payload area, the channel page) and the rest read-only, so
 * that a stray store into the other's payloads ends the one who strays.
 */
#include "channel.h"

#include "atomic.h"
#include "peer.h"
#include "region.h"
#include "sys.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define RING_BYTES_DEFAULT (256ull << 10)
#define RING_BYTES_MAX (1ull << 32)
#define PAYLOAD_BYTES_DEFAULT (64ull << 20)
#define PAYLOAD_BYTES_MAX (1ull << 40)
#define RING_WORD_BYTES 8u      /* before each record of a ring */
#define RETURN_RECORD_BYTES 16u /* in the ring of returns: its word and an offset */

/* ---- the plan ---- */

static uint64_t take(uint64_t *next, uint64_t bytes)
{
    uint64_t start = *next;
    *next += bytes;
    return start;
}

static int make_plan(uint64_t ring_bytes, uint64_t payload_bytes, struct shoal__channel_plan *ret_plan)
{
    uint64_t page = (uint64_t)shoal__sys_page_size(), next = page;
    ring_bytes = ring_bytes ? ring_bytes : RING_BYTES_DEFAULT;
    payload_bytes = payload_bytes ? payload_bytes : PAYLOAD_BYTES_DEFAULT;
    if (ring_bytes > RING_BYTES_MAX || payload_bytes > PAYLOAD_BYTES_MAX || shoal_ring_footprint(ring_bytes) == 0)
        return -EINVAL;
    payload_bytes = shoal__region_round(payload_bytes);
    uint64_t return_bytes = page;
    while (return_bytes < payload_bytes / SHOAL__PAGE_BYTES * RETURN_RECORD_BYTES)
        return_bytes *= 2;
    struct shoal__channel_plan plan = {
        .ring_bytes = ring_bytes,
        .payload_bytes = payload_bytes,
        .return_bytes = return_bytes,
    };
    plan.channel = take(&next, page);
    for (int side = 0; side < 2; side++)
        plan.messages[side] = take(&next, shoal_ring_footprint(ring_bytes));
    for (int side = 0; side < 2; side++)
        plan.returns[side] = take(&next, shoal_ring_footprint(return_bytes));
    for (int side = 0; side < 2; side++)
        plan.payloads[side] = take(&next, payload_bytes);
    plan.total_bytes = next;
    *ret_plan = plan;
    return 0;
}

/* ---- what both sides have ---- */

static int attach_ring(struct shoal_channel *channel, uint64_t offset, uint64_t data_bytes,
                       struct shoal_ring **ret_ring)
{
    int status = shoal_ring_attach(channel->region, offset, ret_ring);
    if (status < 0)
        return status;
    /* A ring that says it is larger than planned would reach into what lies behind it. */
    return shoal_ring_record_max(*ret_ring) + RING_WORD_BYTES == data_bytes ? 0 : -EPROTO;
}

static int attach_rings(struct shoal_channel *channel)
{
    const struct shoal__channel_plan *plan = &channel->plan;
    int status = 0;
    for (int side = 0; side < 2 && status == 0; side++) {
        status = attach_ring(channel, plan->messages[side], plan->ring_bytes, &channel->messages[side]);
        if (status == 0)
            status = attach_ring(channel, plan->returns[side], plan->return_bytes, &channel->returns[side]);
    }
    return status;
}

/* Writable: what our side writes. Read-only: the rest. */
static int protect(struct shoal_channel *channel)
{
    int own = channel->side, other = shoal__channel_other(channel);
    const struct shoal__channel_plan *plan = &channel->plan;
    int status = shoal_ring_protect(channel->messages[own], SHOAL_RING_WRITER);
    if (status == 0)
        status = shoal_ring_protect(channel->returns[own], SHOAL_RING_WRITER);
    if (status == 0)
        status = shoal_ring_protect(channel->messages[other], SHOAL_RING_READER);
    if (status == 0)
        status = shoal_ring_protect(channel->returns[other], SHOAL_RING_READER);
    if (status == 0)
        status = shoal_region_protect(channel->region, plan->payloads[other], plan->payload_bytes, false);
    if (status == 0)
        status = shoal_region_protect(channel->region, plan->payloads[own], plan->payload_bytes, true);
    return status;
}

/* The private part of being this side. */
static int become(struct shoal_channel *channel, int side)
{
    const struct shoal__channel_plan *plan = &channel->plan;
    uint64_t pages = plan->payload_bytes / SHOAL__PAGE_BYTES;
    channel->side = side;
    channel->process = shoal__sys_getpid();
    channel->lengths = calloc((size_t)pages, sizeof(*channel->lengths));
    channel->held = calloc((size_t)(pages + 63) / 64, sizeof(*channel->held));
    if (!channel->lengths || !channel->held)
        return -ENOMEM;
    int status = shoal_arena_create(channel->region, plan->payloads[side], plan->payload_bytes, plan->payload_bytes,
                                    &channel->arena);
    return status < 0 ? status : protect(channel);
}

static void unbecome(struct shoal_channel *channel)
{
    shoal_waiter_free(channel->waiter);
    shoal_arena_free(channel->arena);
    free(channel->lengths);
    free(channel->held);
    shoal_peer_close(&channel->peer);
    channel->waiter = NULL;
    channel->arena = NULL;
    channel->lengths = channel->held = NULL;
    channel->met = channel->watched = channel->gone = channel->pending = channel->damaged = false;
}

static struct shoal_channel *new_handle(void)
{
    struct shoal_channel *channel = calloc(1, sizeof(*channel));
    if (channel)
        channel->peer.pidfd = -1;
    return channel;
}

/* Everything private, nothing shared. */
static void drop(struct shoal_channel *channel)
{
    unbecome(channel);
    for (int side = 0; side < 2; side++) {
        shoal_ring_detach(channel->messages[side]);
        shoal_ring_detach(channel->returns[side]);
        shoal_doorbell_free(channel->bells[side]);
    }
    shoal_region_free(channel->region);
    free(channel);
}

/* Say who we are: the other side may look for us from here on. */
static int write_identity(struct shoal_channel *channel)
{
    struct shoal__channel_side *own = &channel->shared->side[channel->side];
    uint64_t ticks;
    int status = shoal__peer_start_time(channel->process, &ticks);
    if (status < 0)
        return status;
    shoal__store_relaxed(&own->pid, (uint32_t)channel->process);
    shoal__store_relaxed(&own->start_ticks, ticks);
    shoal__store_release(&own->present, 1); /* SYNC: channel-present */
    return 0;
}

/* ---- side A ---- */

/* AUTO: the best that works for this use; an eventfd cannot be had by a process that does not inherit it. */
static int choose_kind(enum shoal_doorbell_kind wanted, bool named, enum shoal_doorbell_kind *ret_kind)
{
    enum shoal_doorbell_kind kind = wanted;
    int status = wanted == SHOAL_DOORBELL_AUTO ? shoal_doorbell_choose(&kind) : 0;
    if (status < 0)
        return status;
    if (named && kind == SHOAL_DOORBELL_URING_EVENTFD) {
        if (wanted != SHOAL_DOORBELL_AUTO)
            return -ENOTSUP;
        bool futexes = shoal_doorbell_probe(SHOAL_DOORBELL_URING, NULL, 0) == 0;
        kind = futexes ? SHOAL_DOORBELL_URING : SHOAL_DOORBELL_SEMAPHORE;
    }
    *ret_kind = kind;
    return 0;
}

/*
 * Is the channel under this name one whose maker is dead, and which nobody has opened? Then remove the name.
 * 0: removed, the name may be free now.
 */
static int remove_abandoned(const char *name)
{
    struct shoal_region *region;
    struct shoal_peer maker;
    uint64_t namespace;
    int status = shoal_region_open_named(name, &region);
    if (status < 0)
        return status == -ENOENT ? 0 : -EEXIST;
    const struct shoal__channel *shared = shoal_region_at(region, (uint64_t)shoal__sys_page_size(), sizeof(*shared));
    status = -EEXIST;
    /* Not `ready`: it may have died before. The magic says that what follows the identity is a channel. */
    if (shared && shared->magic == SHOAL__CHANNEL_MAGIC &&
        shoal__load_acquire(&shared->side[SHOAL__SIDE_A].present) && /* SYNC: channel-present */
        shoal__peer_namespace(&namespace) == 0 && shared->pid_namespace == namespace) {
        int alive = shoal__peer_open_started((pid_t)shoal__load_relaxed(&shared->side[SHOAL__SIDE_A].pid),
                                             shoal__load_relaxed(&shared->side[SHOAL__SIDE_A].start_ticks), &maker);
        if (alive == 0)
            shoal_peer_close(&maker);
        else if (alive == -ESRCH)
            status = shoal__region_unlink_if_ours(region, name);
    }
    shoal_region_free(region);
    return status == -ENOENT ? 0 : status;
}

static int make_region(const char *name, uint64_t bytes, uint64_t control_bytes, struct shoal_region **ret_region)
{
    uint64_t page = (uint64_t)shoal__sys_page_size();
    if (name) {
        int status = shoal_region_create_named(name, bytes, ret_region);
        if (status == -EEXIST && remove_abandoned(name) == 0)
            status = shoal_region_create_named(name, bytes, ret_region);
        return status;
    }
    int status = shoal_region_create(bytes, ret_region);
    return status < 0 ? status : shoal_region_reserve(*ret_region, page, control_bytes - page);
}

/* Lay out the channel page, the rings and the bells. The region is fresh, so what is not written is zero. */
static int format(struct shoal_channel *channel)
{
    const struct shoal__channel_plan *plan = &channel->plan;
    struct shoal__channel *shared = channel->shared;
    int status = write_identity(channel); /* first: whoever finds the rest unfinished can tell whether we live */
    if (status == 0)
        status = shoal__peer_namespace(&shared->pid_namespace);
    shared->magic = SHOAL__CHANNEL_MAGIC;
    shared->version = SHOAL__CHANNEL_VERSION;
    shared->doorbell_kind = (uint32_t)channel->kind;
    shared->ring_bytes = plan->ring_bytes;
    shared->payload_bytes = plan->payload_bytes;
    for (int side = 0; side < 2 && status == 0; side++) {
        status = shoal_ring_format(channel->region, plan->messages[side], plan->ring_bytes);
        if (status == 0)
            status = shoal_ring_format(channel->region, plan->returns[side], plan->return_bytes);
        if (status == 0)
            status = shoal_doorbell_create(shared->bell[side], channel->kind, &channel->bells[side]);
    }
    return status;
}

int shoal_channel_create(const char *name, const struct shoal_channel_config *config,
                         struct shoal_channel **ret_channel)
{
    static const struct shoal_channel_config defaults = { 0 };
    const struct shoal_channel_config *wanted = config ? config : &defaults;
    struct shoal_channel *channel = new_handle();
    if (!channel)
        return -ENOMEM;
    struct shoal__channel_plan *plan = &channel->plan;
    int status = make_plan(wanted->ring_bytes, wanted->payload_bytes, plan);
    if (status == 0)
        status = choose_kind(wanted->doorbell, name != NULL, &channel->kind);
    if (status == 0)
        status = make_region(name, plan->total_bytes, plan->payloads[0], &channel->region);
    if (status < 0)
        goto fail;
    channel->shared = shoal_region_at(channel->region, plan->channel, sizeof(*channel->shared));
    channel->process = shoal__sys_getpid();
    status = format(channel);
    if (status == 0)
        status = attach_rings(channel);
    if (status == 0)
        status = become(channel, SHOAL__SIDE_A);
    if (status < 0)
        goto fail;
    shoal__store_release(&channel->shared->ready, 1); /* SYNC: channel-ready */
    *ret_channel = channel;
    return 0;
fail:
    if (channel->region)
        shoal_region_unlink(channel->region);
    drop(channel);
    return status;
}

/* ---- side B ---- */

/* Take the place of side B, if it is free. */
static int claim(struct shoal_channel *channel)
{
    shoal__a32 *pid = &channel->shared->side[SHOAL__SIDE_B].pid;
    uint32_t nobody = 0;
    return shoal__cas_acqrel(pid, &nobody, (uint32_t)shoal__sys_getpid()) ? 0 : -EBUSY;
}

/* Fetch and check what A wrote. */
static int read_shared(struct shoal_channel *channel)
{
    uint64_t page = (uint64_t)shoal__sys_page_size(), namespace;
    struct shoal__channel *shared = shoal_region_at(channel->region, page, sizeof(*shared));
    if (!shared)
        return -EPROTO;
    channel->shared = shared;
    if (!shoal__load_acquire(&shared->ready)) /* SYNC: channel-ready */
        return shared->magic == 0 || shared->magic == SHOAL__CHANNEL_MAGIC ? -EAGAIN : -EPROTO;
    uint64_t ring_bytes = *(volatile uint64_t *)&shared->ring_bytes;
    uint64_t payload_bytes = *(volatile uint64_t *)&shared->payload_bytes;
    uint32_t kind = *(volatile uint32_t *)&shared->doorbell_kind;
    if (shared->magic != SHOAL__CHANNEL_MAGIC || shared->version != SHOAL__CHANNEL_VERSION || ring_bytes == 0 ||
        payload_bytes == 0 || make_plan(ring_bytes, payload_bytes, &channel->plan) < 0 ||
        channel->plan.total_bytes != shoal_region_size(channel->region))
        return -EPROTO;
    if (kind != SHOAL_DOORBELL_URING && kind != SHOAL_DOORBELL_SEMAPHORE)
        return -EPROTO;
    channel->kind = (enum shoal_doorbell_kind)kind;
    int status = shoal__peer_namespace(&namespace);
    if (status < 0)
        return status;
    return shared->pid_namespace == namespace ? 0 : -ENOTSUP; /* we could not tell whether it lives */
}

static int attach_bells(struct shoal_channel *channel)
{
    int status = 0;
    for (int side = 0; side < 2 && status == 0; side++)
        status = shoal_doorbell_attach(channel->shared->bell[side], -1, &channel->bells[side]);
    return status;
}

/* Side B is there: tell A. */
static int arrive(struct shoal_channel *channel)
{
    int status = write_identity(channel);
    if (status < 0)
        return status;
    status = shoal__channel_meet(channel);
    shoal_doorbell_ring(channel->bells[SHOAL__SIDE_A], SHOAL_LAZY);
    return status < 0 ? status : channel->gone ? -EPIPE : 0;
}

int shoal_channel_open(const char *name, struct shoal_channel **ret_channel)
{
    struct shoal_channel *channel = new_handle();
    if (!channel)
        return -ENOMEM;
    bool claimed = false;
    int status = shoal_region_open_named(name, &channel->region);
    if (status == 0)
        status = read_shared(channel);
    if (status == 0)
        status = attach_rings(channel);
    if (status == 0)
        status = attach_bells(channel);
    if (status == 0)
        status = claim(channel);
    claimed = status == 0;
    if (status == 0)
        status = become(channel, SHOAL__SIDE_B);
    if (status == 0)
        status = arrive(channel);
    if (claimed) /* whatever comes: nobody else can open it any more */
        shoal__region_unlink_if_ours(channel->region, name);
    if (status < 0) {
        if (claimed)
            shoal__store_release(&channel->shared->side[SHOAL__SIDE_B].closed, 1); /* SYNC: channel-closed */
        drop(channel);
        return status;
    }
    *ret_channel = channel;
    return 0;
}

int shoal_channel_inherit(struct shoal_channel *channel)
{
    if (channel->process == shoal__sys_getpid())
        return -EINVAL;
    int status = claim(channel);
    if (status < 0)
        return status;
    unbecome(channel); /* the copy of A's bookkeeping */
    status = become(channel, SHOAL__SIDE_B);
    if (status == 0)
        status = arrive(channel);
    if (status < 0)
        shoal__store_release(&channel->shared->side[SHOAL__SIDE_B].closed, 1); /* SYNC: channel-closed */
    return status;
}

/* ---- both ---- */

static bool has_met(struct shoal_channel *channel)
{
    (void)shoal__channel_meet(channel); /* an error comes back from the wait */
    return channel->met;
}

int shoal_channel_accept(struct shoal_channel *channel, int64_t deadline_ns)
{
    int status = shoal__channel_wait(channel, has_met, SHOAL_LAZY, deadline_ns);
    if (status < 0)
        return status;
    shoal_region_unlink(channel->region); /* B does so, too; whoever is first */
    return channel->peer.pidfd < 0 ? -EPIPE : 0;
}

void shoal_channel_free(struct shoal_channel *channel)
{
    if (!channel)
        return;
    if (channel->process == shoal__sys_getpid()) {
        shoal__store_release(&channel->shared->side[channel->side].closed, 1); /* SYNC: channel-closed */
        shoal_doorbell_ring(channel->bells[shoal__channel_other(channel)], SHOAL_LAZY);
        shoal_region_unlink(channel->region);
    }
    drop(channel);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * channel.c - messages and payloads.
 *
 * The problem: two processes exchange messages with large payloads that should be written once and read where they are;
 * either may die while it holds payloads of the other, or send nonsense.
 *
 * The protocol: each side writes one ring of messages and one ring of returned payloads, and allocates from its own
 * half of the payload area with bookkeeping of its own. Sending hands a block from our count to the other side's bit;
 * its id coming back through the ring of returns clears the bit; the other side's death clears all of them.
 *
 *     A: alloc, fill --- messages[A] {offset, bytes} --> B: receive, read in place
 *     A: block free  <-- returns[B]  {offset} ---------- B: release
 *
 * The ring of returns has room for every block that there can be, so releasing never waits; it is drained when payloads
 * are allocated, so it does not stand behind messages that nobody has read.
 *
 * Guarantees: messages arrive whole, in order, once; every offset and length is copied out and checked before use.
 * Costs: no system call while both sides are awake, but one poll in 64 sends, to see whether the reader lives.
 * Does not: protect a receiver from a sender that goes on writing into a payload or message after it was sent.
 */
#include "channel.h"

#include "atomic.h"

#include <errno.h>
#include <string.h>

#define SENDS_PER_LOOK 64

/* ---- places in payload areas ---- */

/* The page of a block that may start at `offset` in the area of `side`; false if that is no place for a block. */
static bool page_in_area(const struct shoal_channel *channel, int side, uint64_t offset, uint64_t *ret_page)
{
    uint64_t start = channel->plan.payloads[side];
    if (offset < start || offset - start >= channel->plan.payload_bytes || (offset - start) % SHOAL__PAGE_BYTES != 0)
        return false;
    *ret_page = (offset - start) / SHOAL__PAGE_BYTES;
    return true;
}

static uint64_t *held_word(struct shoal_channel *channel, uint64_t page, uint64_t *ret_bit)
{
    *ret_bit = 1ull << page % 64;
    return &channel->held[page / 64];
}

/* ---- payloads, sender ---- */

int shoal__channel_drain_returns(struct shoal_channel *channel)
{
    struct shoal_ring *ring = channel->returns[shoal__channel_other(channel)];
    const void *record;
    uint64_t bytes, offset;
    int status;
    while ((status = shoal_ring_peek(ring, &record, &bytes)) == 0) {
        if (bytes != sizeof(offset))
            return -EBADMSG;
        memcpy(&offset, record, sizeof(offset));
        shoal_ring_pop(ring);
        /* What it does not hold, or is no block, it cannot give back; the arena finds out. */
        if (shoal_arena_unhold(channel->arena, offset, SHOAL__CHANNEL_HOLDER) < 0)
            return -EBADMSG;
    }
    return status == -EAGAIN ? 0 : status;
}

int shoal_channel_alloc(struct shoal_channel *channel, uint64_t payload_bytes, void **ret_payload,
                        uint64_t *ret_payload_id)
{
    uint64_t offset, page;
    int status = shoal__channel_drain_returns(channel);
    if (status < 0)
        return status;
    status = shoal_arena_alloc(channel->arena, payload_bytes, &offset);
    if (status < 0 && shoal__channel_look(channel)) /* then all that it held is free */
        status = shoal_arena_alloc(channel->arena, payload_bytes, &offset);
    if (status < 0)
        return status;
    if (!page_in_area(channel, channel->side, offset, &page))
        return -EUCLEAN;
    channel->lengths[page] = payload_bytes;
    *ret_payload = shoal_region_at(channel->region, offset, payload_bytes);
    *ret_payload_id = offset;
    return 0;
}

int shoal_channel_discard(struct shoal_channel *channel, uint64_t payload_id)
{
    return shoal_arena_release(channel->arena, payload_id);
}

static bool has_returns(struct shoal_channel *channel)
{
    const void *record;
    uint64_t bytes;
    return shoal_ring_peek(channel->returns[shoal__channel_other(channel)], &record, &bytes) != -EAGAIN;
}

int shoal_channel_alloc_wait(struct shoal_channel *channel, uint64_t payload_bytes, int64_t deadline_ns,
                             void **ret_payload, uint64_t *ret_payload_id)
{
    for (;;) {
        int status = shoal_channel_alloc(channel, payload_bytes, ret_payload, ret_payload_id);
        if (status != -EDQUOT && status != -ENOSPC)
            return status;
        status = shoal__channel_wait(channel, has_returns, SHOAL_URGENT, deadline_ns);
        if (status < 0)
            return status;
    }
}

/* ---- sending ---- */

static bool has_room(struct shoal_channel *channel)
{
    void *record;
    uint64_t room;
    return shoal_ring_reserve(channel->messages[channel->side], channel->want_bytes, &record, &room) != -EAGAIN;
}

/* Our own payload that has not been sent: its block is held by us alone. */
static int check_own_payload(struct shoal_channel *channel, uint64_t payload_id, struct shoal__channel_record *record)
{
    uint64_t page;
    int exclusive = shoal_arena_exclusive(channel->arena, payload_id, -1);
    if (exclusive < 0)
        return exclusive;
    if (!exclusive || !page_in_area(channel, channel->side, payload_id, &page))
        return -EINVAL;
    record->has_payload = 1;
    record->payload_offset = payload_id;
    record->payload_bytes = channel->lengths[page];
    return 0;
}

int shoal_channel_send(struct shoal_channel *channel, const void *bytes, uint64_t byte_count, uint64_t payload_id,
                       int64_t deadline_ns)
{
    struct shoal__channel_record record = { .magic = SHOAL__CHANNEL_RECORD };
    struct shoal_ring *ring = channel->messages[channel->side];
    void *place;
    uint64_t room;
    if (byte_count > shoal_ring_record_max(ring) - sizeof(record))
        return -EMSGSIZE;
    int status = payload_id ? check_own_payload(channel, payload_id, &record) : 0;
    if (status < 0)
        return status;
    if (channel->gone || (++channel->sends_since_look >= SENDS_PER_LOOK && shoal__channel_look(channel)))
        return -EPIPE;
    channel->want_bytes = sizeof(record) + byte_count;
    status = shoal_ring_reserve(ring, channel->want_bytes, &place, &room);
    if (status == -EAGAIN) {
        status = shoal__channel_wait(channel, has_room, SHOAL_URGENT, deadline_ns);
        if (status == 0)
            status = shoal_ring_reserve(ring, channel->want_bytes, &place, &room);
    }
    if (status < 0)
        return status;
    memcpy(place, &record, sizeof(record));
    if (byte_count > 0)
        memcpy((uint8_t *)place + sizeof(record), bytes, byte_count);
    if (payload_id) { /* before the commit: from there on it may come back */
        shoal_arena_hold(channel->arena, payload_id, SHOAL__CHANNEL_HOLDER);
        shoal_arena_release(channel->arena, payload_id);
    }
    shoal_ring_commit(ring, channel->want_bytes);
    shoal__channel_here(channel);
    shoal_doorbell_ring(channel->bells[shoal__channel_other(channel)], SHOAL_LAZY);
    return 0;
}

/* ---- receiving ---- */

static bool has_message(struct shoal_channel *channel)
{
    const void *record;
    uint64_t bytes;
    return shoal_ring_peek(channel->messages[shoal__channel_other(channel)], &record, &bytes) != -EAGAIN;
}

/* The payload that a record names, checked and marked as held by us. */
static int take_payload(struct shoal_channel *channel, const struct shoal__channel_record *record,
                        struct shoal_message *message)
{
    int other = shoal__channel_other(channel);
    uint64_t page, bit;
    if (record->has_payload > 1 || (!record->has_payload && (record->payload_offset || record->payload_bytes)))
        return -EBADMSG;
    if (!record->has_payload)
        return 0;
    if (!page_in_area(channel, other, record->payload_offset, &page) ||
        record->payload_bytes > channel->plan.payload_bytes - page * SHOAL__PAGE_BYTES)
        return -EBADMSG;
    uint64_t *word = held_word(channel, page, &bit);
    if (*word & bit)
        return -EBADMSG; /* we have it already */
    *word |= bit;
    message->payload = shoal_region_at(channel->region, record->payload_offset, record->payload_bytes);
    message->payload_bytes = record->payload_bytes;
    message->payload_id = record->payload_offset;
    return 0;
}

int shoal_channel_receive(struct shoal_channel *channel, int64_t deadline_ns, struct shoal_message *ret_message)
{
    struct shoal_ring *ring = channel->messages[shoal__channel_other(channel)];
    struct shoal__channel_record record;
    struct shoal_message message = { 0 };
    const void *place;
    uint64_t bytes;
    shoal_channel_done(channel);
    if (channel->damaged)
        return -EBADMSG;
    int status = shoal_ring_peek(ring, &place, &bytes);
    if (status == -EAGAIN) {
        status = shoal__channel_wait(channel, has_message, SHOAL_LAZY, deadline_ns);
        if (status == 0)
            status = shoal_ring_peek(ring, &place, &bytes);
    }
    if (status == 0 && bytes < sizeof(record))
        status = -EBADMSG;
    if (status == 0) {
        memcpy(&record, place, sizeof(record));
        status = record.magic == SHOAL__CHANNEL_RECORD ? take_payload(channel, &record, &message) : -EBADMSG;
    }
    if (status < 0) {
        channel->damaged = status == -EBADMSG;
        return status;
    }
    message.bytes = (const uint8_t *)place + sizeof(record);
    message.byte_count = bytes - sizeof(record);
    channel->pending = true;
    *ret_message = message;
    return 0;
}

void shoal_channel_done(struct shoal_channel *channel)
{
    int other = shoal__channel_other(channel);
    if (!channel->pending)
        return;
    channel->pending = false;
    shoal_ring_pop(channel->messages[other]);
    shoal_doorbell_ring(channel->bells[other], SHOAL_URGENT); /* if it waits for room */
}

int shoal_channel_release(struct shoal_channel *channel, uint64_t payload_id)
{
    int other = shoal__channel_other(channel);
    struct shoal_ring *ring = channel->returns[channel->side];
    uint64_t page, bit, room;
    void *place;
    if (!page_in_area(channel, other, payload_id, &page))
        return -ENOENT;
    uint64_t *word = held_word(channel, page, &bit);
    if (!(*word & bit))
        return -ENOENT;
    int status = shoal_ring_reserve(ring, sizeof(payload_id), &place, &room);
    if (status < 0)
        return channel->gone ? 0 : status;
    *word &= ~bit;
    memcpy(place, &payload_id, sizeof(payload_id));
    shoal_ring_commit(ring, sizeof(payload_id));
    shoal_doorbell_ring(channel->bells[other], SHOAL_URGENT);
    return 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * channel.h - whole messages between two processes, large payloads included: ring + arena + doorbell + peer.
 *
 * Two sides, A (which creates) and B (which opens), one ring in each direction and half of the payload area for each
 * side to allocate from. A message is bytes in the ring and, if it has one, a payload: a block that the sender fills in
 * place and the receiver reads in place, so that a payload is written once and never copied. The receiver says when it
 * is done with it; if it dies, the sender takes back all that it held.
 *
 * One thread per side at a time; it need not be the same one. Unrelated processes find each other by name; a forked
 * child inherits an anonymous one.
 */
#ifndef SHOAL_CHANNEL_H
#define SHOAL_CHANNEL_H

#include <shoal/arena.h>
#include <shoal/doorbell.h>
#include <shoal/peer.h>
#include <shoal/region.h>

SHOAL_BEGIN_DECLS

struct shoal_channel;

struct shoal_channel_config {
    uint64_t ring_bytes;    /* of each ring; power of two, >= 4096; 0: 256 KiB */
    uint64_t payload_bytes; /* room for payloads, for each side; 0: 64 MiB */
    enum shoal_doorbell_kind doorbell; /* AUTO: the best for this use (no eventfd between unrelated processes) */
};

struct shoal_message {
    const void *bytes; /* in the ring, until shoal_channel_done() */
    uint64_t byte_count;
    void *payload; /* in the shared payload area, or NULL */
    uint64_t payload_bytes;
    uint64_t payload_id; /* to release it by */
};

/* Side A. With a name: a named region (unlinked as soon as B has it); name NULL: anonymous, for a child to inherit. */
SHOAL_API int shoal_channel_create(const char *name, const struct shoal_channel_config *config,
                                   struct shoal_channel **ret_channel);
/*
 * Side B, by name, or in a forked child of A from the handle that it inherited. Errors: as shoal_region_open_named;
 * -EBUSY somebody else is side B; -EPIPE the maker is dead; -ENOTSUP it lives in another pid namespace.
 */
SHOAL_API int shoal_channel_open(const char *name, struct shoal_channel **ret_channel);
SHOAL_API int shoal_channel_inherit(struct shoal_channel *channel);
/*
 * Wait until the other side is there: 0, -ETIMEDOUT, -EINTR, -EPIPE it came and is dead. Deadline in CLOCK_MONOTONIC
 * ns, -1 none. A process that dies before it has opened the channel is nobody that we know of: give a deadline.
 */
SHOAL_API int shoal_channel_accept(struct shoal_channel *channel, int64_t deadline_ns);
SHOAL_API void shoal_channel_free(struct shoal_channel *channel);

/* A payload to fill in place. -EDQUOT/-ENOMEM no room (release what the peer has returned first; it is done inside). */
SHOAL_API int shoal_channel_alloc(struct shoal_channel *channel, uint64_t payload_bytes, void **ret_payload,
                                  uint64_t *ret_payload_id);
/* The same, waiting until the other side has released enough: also -ETIMEDOUT, -EINTR, -EPIPE; -E2BIG as ever. */
SHOAL_API int shoal_channel_alloc_wait(struct shoal_channel *channel, uint64_t payload_bytes, int64_t deadline_ns,
                                       void **ret_payload, uint64_t *ret_payload_id);
/* A payload that was not sent. */
SHOAL_API int shoal_channel_discard(struct shoal_channel *channel, uint64_t payload_id);

/*
 * Send bytes, and a payload from shoal_channel_alloc (payload_id 0: none), which is the receiver's from now on. Waits
 * for room until the deadline: 0, -ETIMEDOUT, -EINTR, -EPIPE the other side is dead or has closed, -EMSGSIZE. That it
 * is dead is noticed while waiting and at every 64th send; until then, as with a pipe, a send may go unread. An id
 * that is not a payload of ours: -ENOENT, -EINVAL. When it fails, the payload is still the sender's.
 */
SHOAL_API int shoal_channel_send(struct shoal_channel *channel, const void *bytes, uint64_t byte_count,
                                 uint64_t payload_id, int64_t deadline_ns);

/*
 * The next message: 0, -ETIMEDOUT, -EINTR, -EPIPE the other side is dead or has closed and everything was read,
 * -EBADMSG damaged (every offset and length is checked before it is used).
 */
SHOAL_API int shoal_channel_receive(struct shoal_channel *channel, int64_t deadline_ns,
                                    struct shoal_message *ret_message);
/* Done with the bytes of the last message. The next receive does it as well. */
SHOAL_API void shoal_channel_done(struct shoal_channel *channel);
/* Done with a payload that was received. -ENOENT: we do not have it. Never waits. */
SHOAL_API int shoal_channel_release(struct shoal_channel *channel, uint64_t payload_id);

SHOAL_END_DECLS
#endif

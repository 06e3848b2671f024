/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ring.c - records from one writer to one reader.
 *
 * The problem: to write a record of unknown length where the other process reads it, such that a writer that dies in
 * the middle leaves nothing behind, and a writer that scribbles cannot lead the reader out of bounds.
 *
 * The protocol: positions count bytes since the beginning and only grow; position & (data_bytes - 1) is the place. The
 * data is mapped twice back to back, so every record is contiguous. The writer puts payload and record word after the
 * tail and publishes both with one release store of the tail; the reader frees with one release store of the head.
 *
 * Each side keeps its own position in private memory and never believes the shared copy of it; what it reads of the
 * other side (position, record word) is fetched once and checked. The other side's position is remembered and fetched
 * again only when what is remembered does not suffice, so that the cache line travels once for many records.
 *
 * A record of many parts may note how much of it is whole: a third position, which counts only while it is past the
 * tail, so that a commit takes it back by itself. The reader looks at it when the writer is gone.
 *
 * Guarantees: records arrive whole, in order, once. Costs: two stores and a load per record and side, no system call.
 * Does not: wait (a doorbell does), allow two writers or two readers, repair damage (shoal_ring_reset starts anew).
 */
#include <shoal/killpoint.h>
#include <shoal/ring.h>

#include "atomic.h"
#include "layout.h"
#include "sys.h"

#include <errno.h>
#include <stdlib.h>

#define RECORD_WORD_BYTES 8u
#define DATA_BYTES_MIN 4096u
#define DATA_BYTES_MAX (1ull << 39) /* a length fits in 40 bits */

struct shoal_ring {
    struct shoal_region *region;
    struct shoal__ring_writer *writer; /* page 0 */
    struct shoal__ring_reader *reader; /* page 1 */
    uint8_t *data;                     /* 2 * data_bytes of addresses */
    uint64_t offset;
    uint64_t data_bytes;
    int protected_as; /* enum shoal_ring_role, or -1 */

    /* Each side takes over its position from shared memory at its first call, and is its only source from then on. */
    bool writes;
    uint64_t tail;      /* writer's own */
    uint64_t head_seen; /* writer: the reader's, when last looked */
    uint64_t room;      /* writer: what the last reserve gave */

    bool reads;
    bool broken;        /* reader: damage was seen */
    uint64_t head;      /* reader's own */
    uint64_t tail_seen; /* reader: the writer's, when last looked */
    uint64_t peeked;    /* reader: bytes, word included, of the record that peek gave; 0: none */
};

static uint64_t page_bytes(void)
{
    return (uint64_t)shoal__sys_page_size();
}

static bool data_bytes_valid(uint64_t data_bytes)
{
    return data_bytes >= DATA_BYTES_MIN && data_bytes <= DATA_BYTES_MAX && (data_bytes & (data_bytes - 1)) == 0 &&
           data_bytes % page_bytes() == 0;
}

/* Bytes that a record takes; payload_bytes is at most DATA_BYTES_MAX. */
static uint64_t record_bytes(uint64_t payload_bytes)
{
    return RECORD_WORD_BYTES + ((payload_bytes + 7) & ~7ull);
}

static shoal__a64 *record_word(const struct shoal_ring *ring, uint64_t position)
{
    return (shoal__a64 *)(void *)(ring->data + (position & (ring->data_bytes - 1)));
}

uint64_t shoal_ring_footprint(uint64_t data_bytes)
{
    return data_bytes_valid(data_bytes) ? 2 * page_bytes() + data_bytes : 0;
}

static void write_header(struct shoal__ring_writer *writer, uint64_t data_bytes)
{
    writer->version = SHOAL__RING_VERSION;
    writer->reserved = 0;
    writer->data_bytes = data_bytes;
    writer->magic = SHOAL__RING_MAGIC;
}

static int header_check(const struct shoal__ring_writer *writer, uint64_t *ret_data_bytes)
{
    uint64_t data_bytes = *(const volatile uint64_t *)&writer->data_bytes;
    if (writer->magic != SHOAL__RING_MAGIC || writer->version != SHOAL__RING_VERSION || !data_bytes_valid(data_bytes))
        return -EPROTO;
    *ret_data_bytes = data_bytes;
    return 0;
}

int shoal_ring_format(struct shoal_region *region, uint64_t offset, uint64_t data_bytes)
{
    uint64_t footprint = shoal_ring_footprint(data_bytes);
    if (footprint == 0 || offset % page_bytes() != 0)
        return -EINVAL;
    uint8_t *start = shoal_region_at(region, offset, footprint);
    if (start == NULL)
        return -EINVAL;
    struct shoal__ring_writer *writer = (void *)start;
    struct shoal__ring_reader *reader = (void *)(start + page_bytes());
    shoal__store_relaxed(&writer->tail, 0);
    shoal__store_relaxed(&writer->noted, 0);
    shoal__store_relaxed(&reader->head, 0);
    write_header(writer, data_bytes);
    return 0;
}

int shoal_ring_attach(struct shoal_region *region, uint64_t offset, struct shoal_ring **ret_ring)
{
    uint64_t page = page_bytes(), data_bytes;
    uint8_t *start = offset % page == 0 ? shoal_region_at(region, offset, 2 * page) : NULL;
    if (start == NULL)
        return -EINVAL;
    int status = header_check((void *)start, &data_bytes);
    if (status < 0)
        return status;
    if (shoal_region_at(region, offset, 2 * page + data_bytes) == NULL)
        return -EINVAL;
    struct shoal_ring *ring = calloc(1, sizeof *ring);
    if (ring == NULL)
        return -ENOMEM;
    void *data;
    status = shoal_region_mirror(region, offset + 2 * page, data_bytes, &data);
    if (status < 0) {
        free(ring);
        return status;
    }
    *ring = (struct shoal_ring) { .region = region,
                                  .writer = (void *)start,
                                  .reader = (void *)(start + page),
                                  .data = data,
                                  .offset = offset,
                                  .data_bytes = data_bytes,
                                  .protected_as = -1 };
    *ret_ring = ring;
    return 0;
}

void shoal_ring_detach(struct shoal_ring *ring)
{
    if (ring == NULL)
        return;
    shoal_region_unmirror(ring->data, ring->data_bytes);
    free(ring);
}

int shoal_ring_protect(struct shoal_ring *ring, enum shoal_ring_role role)
{
    uint64_t page = page_bytes();
    bool writes = role == SHOAL_RING_WRITER;
    if (!writes && role != SHOAL_RING_READER)
        return -EINVAL;
    int status = shoal_region_protect(ring->region, ring->offset, page, writes);
    if (status >= 0)
        status = shoal_region_protect(ring->region, ring->offset + page, page, !writes);
    if (status >= 0)
        status = shoal_region_protect(ring->region, ring->offset + 2 * page, ring->data_bytes, writes);
    if (status >= 0)
        status = shoal_region_protect_mirror(ring->data, ring->data_bytes, writes);
    if (status < 0)
        return status;
    ring->protected_as = (int)role;
    return 0;
}

uint64_t shoal_ring_record_max(const struct shoal_ring *ring)
{
    return ring->data_bytes - RECORD_WORD_BYTES;
}

/* Is [head, tail) something that a ring can hold? */
static bool positions_valid(const struct shoal_ring *ring, uint64_t head, uint64_t tail)
{
    return tail - head <= ring->data_bytes && ((head | tail) & 7) == 0;
}

/* ---- writer ---- */

static int writer_look(struct shoal_ring *ring)
{
    if (!ring->writes) {
        /* Ours alone since the last writer was gone; relaxed: no data is read through it. */
        ring->tail = shoal__load_relaxed(&ring->writer->tail);
        ring->writes = true;
    }
    /* SYNC: ring-head. What the reader has given back is overwritten only after it has read it. */
    uint64_t head = shoal__load_acquire(&ring->reader->head);
    if (!positions_valid(ring, head, ring->tail))
        return -EBADMSG;
    ring->head_seen = head;
    return 0;
}

int shoal_ring_reserve(struct shoal_ring *ring, uint64_t want_bytes, void **ret_payload, uint64_t *ret_room)
{
    if (want_bytes > shoal_ring_record_max(ring))
        return -EMSGSIZE;
    uint64_t need = record_bytes(want_bytes);
    uint64_t room = ring->writes ? ring->data_bytes - (ring->tail - ring->head_seen) : 0;
    /* Below a half the remembered room is worth renewing: at most two looks in a lap, if the reader keeps up. */
    if (room < need || room < ring->data_bytes / 2) {
        int status = writer_look(ring);
        if (status < 0)
            return status;
        room = ring->data_bytes - (ring->tail - ring->head_seen);
        if (room < need)
            return -EAGAIN;
    }
    ring->room = room - RECORD_WORD_BYTES;
    *ret_payload = (uint8_t *)record_word(ring, ring->tail) + RECORD_WORD_BYTES;
    *ret_room = ring->room;
    return 0;
}

int shoal_ring_commit(struct shoal_ring *ring, uint64_t used_bytes)
{
    if (!ring->writes || used_bytes > ring->room)
        return -EINVAL;
    shoal__store_relaxed(record_word(ring, ring->tail), SHOAL__RING_TAG << SHOAL__RING_TAG_SHIFT | used_bytes);
    ring->tail += record_bytes(used_bytes);
    ring->room = 0;
    SHOAL_KILL_POINT("commit: written");
    /* SYNC: ring-tail. Payload and record word before it. */
    shoal__store_release(&ring->writer->tail, ring->tail);
    SHOAL_KILL_POINT("commit: published");
    return 0;
}

int shoal_ring_note(struct shoal_ring *ring, uint64_t used_bytes)
{
    if (!ring->writes || used_bytes > ring->room)
        return -EINVAL;
    /* SYNC: ring-noted. A reader that looks while we live sees whole parts; our death orders everything. */
    shoal__store_release(&ring->writer->noted, ring->tail + RECORD_WORD_BYTES + used_bytes);
    SHOAL_KILL_POINT("note: noted");
    return 0;
}

/* ---- reader ---- */

static void reader_begin(struct shoal_ring *ring)
{
    if (ring->reads)
        return;
    ring->head = shoal__load_relaxed(&ring->reader->head); /* ours alone */
    ring->tail_seen = ring->head;
    ring->reads = true;
}

/* The record at `position` of [position, tail): its bytes, word included, or -EBADMSG. */
static int64_t record_at(const struct shoal_ring *ring, uint64_t position, uint64_t tail, uint64_t *ret_payload_bytes)
{
    uint64_t word = shoal__load_relaxed(record_word(ring, position)); /* ordered by the acquire of the tail */
    uint64_t payload_bytes = word & ((1ull << SHOAL__RING_TAG_SHIFT) - 1);
    if (word >> SHOAL__RING_TAG_SHIFT != SHOAL__RING_TAG || payload_bytes > shoal_ring_record_max(ring) ||
        record_bytes(payload_bytes) > tail - position)
        return -EBADMSG;
    *ret_payload_bytes = payload_bytes;
    return (int64_t)record_bytes(payload_bytes);
}

int shoal_ring_peek(struct shoal_ring *ring, const void **ret_payload, uint64_t *ret_bytes)
{
    reader_begin(ring);
    if (ring->broken)
        return -EBADMSG;
    if (ring->head == ring->tail_seen) {
        /* SYNC: ring-tail */
        uint64_t tail = shoal__load_acquire(&ring->writer->tail);
        if (tail == ring->head)
            return -EAGAIN;
        if (!positions_valid(ring, ring->head, tail)) {
            ring->broken = true;
            return -EBADMSG;
        }
        ring->tail_seen = tail;
    }
    uint64_t payload_bytes;
    int64_t taken = record_at(ring, ring->head, ring->tail_seen, &payload_bytes);
    if (taken < 0) {
        ring->broken = true;
        return -EBADMSG;
    }
    ring->peeked = (uint64_t)taken;
    *ret_payload = (const uint8_t *)record_word(ring, ring->head) + RECORD_WORD_BYTES;
    *ret_bytes = payload_bytes;
    return 0;
}

void shoal_ring_pop(struct shoal_ring *ring)
{
    if (ring->peeked == 0)
        return;
    ring->head += ring->peeked;
    ring->peeked = 0;
    SHOAL_KILL_POINT("pop: order read");
    /* SYNC: ring-head. Our reads of the record before it. */
    shoal__store_release(&ring->reader->head, ring->head);
}

uint64_t shoal_ring_used(const struct shoal_ring *ring)
{
    /* A snapshot of two words: head first, so that an honest pair never comes out negative. */
    uint64_t head = ring->reads ? ring->head : shoal__load_acquire(&ring->reader->head);
    uint64_t tail = ring->writes ? ring->tail : shoal__load_acquire(&ring->writer->tail);
    uint64_t used = tail - head;
    return used <= ring->data_bytes ? used : ring->data_bytes;
}

int shoal_ring_salvage(struct shoal_ring *ring, const void **ret_payload, uint64_t *ret_bytes)
{
    reader_begin(ring);
    uint64_t tail = shoal__load_acquire(&ring->writer->tail); /* SYNC: ring-tail */
    uint64_t noted = shoal__load_acquire(&ring->writer->noted); /* SYNC: ring-noted */
    if (ring->broken || tail != ring->head)
        return ring->broken || !positions_valid(ring, ring->head, tail) ? -EBADMSG : -EAGAIN;
    if ((int64_t)(noted - tail) <= 0) /* of a record that was committed */
        return -EAGAIN;
    if (noted - tail < RECORD_WORD_BYTES || noted - tail > ring->data_bytes)
        return -EBADMSG;
    *ret_payload = (const uint8_t *)record_word(ring, tail) + RECORD_WORD_BYTES;
    *ret_bytes = noted - tail - RECORD_WORD_BYTES;
    return 0;
}

void shoal_ring_reset(struct shoal_ring *ring)
{
    uint64_t page = page_bytes();
    bool read_only = ring->protected_as == SHOAL_RING_READER;
    if (read_only)
        shoal_region_protect(ring->region, ring->offset, page, true);
    write_header(ring->writer, ring->data_bytes);
    /* SYNC: ring-tail. Release although the writer is gone: the next may be a thread that finds the ring by itself. */
    shoal__store_release(&ring->reader->head, 0);
    shoal__store_release(&ring->writer->tail, 0);
    shoal__store_relaxed(&ring->writer->noted, 0); /* 0 does not pass any tail */
    if (read_only)
        shoal_region_protect(ring->region, ring->offset, page, false);
    ring->writes = ring->reads = ring->broken = false;
    ring->room = ring->peeked = 0;
}

int shoal_ring_check(const struct shoal_ring *ring)
{
    uint64_t data_bytes, payload_bytes;
    if (header_check(ring->writer, &data_bytes) < 0 || data_bytes != ring->data_bytes)
        return -EPROTO;
    if (ring->broken)
        return -EBADMSG;
    uint64_t position = shoal__load_acquire(&ring->reader->head);
    if (ring->reads && position != ring->head)
        return -EBADMSG;
    uint64_t tail = shoal__load_acquire(&ring->writer->tail); /* SYNC: ring-tail */
    if (!positions_valid(ring, position, tail))
        return -EBADMSG;
    while (position != tail) {
        int64_t taken = record_at(ring, position, tail, &payload_bytes);
        if (taken < 0)
            return -EBADMSG;
        position += (uint64_t)taken;
    }
    return 0;
}

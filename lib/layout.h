/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * layout.h - every struct that lies in shared memory, and nothing else.
 *
 * Each field says who writes it and when. Sizes and offsets are asserted. All sizes, and offsets of what could move
 * without changing one, go into one fingerprint that is stored in the header of every region: two builds that do not
 * agree on the layout do not open each other's regions.
 * Fields are naturally aligned, of fixed width; what different processes write lies on different cache lines.
 *
 * Sections: region, channel, ring, doorbell, task queue, fingerprint (last, it covers all others).
 */
#ifndef SHOAL_LIB_LAYOUT_H
#define SHOAL_LIB_LAYOUT_H

#include "atomic.h"

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#define SHOAL__PAGE_BYTES 4096u /* unit of places in a region; the system's pages may be a multiple of it */
#define SHOAL__CACHE_LINE 64u

/* One step of the fingerprint: order-sensitive, all in 64-bit unsigned arithmetic, a constant expression. */
#define SHOAL__FP_START 0xcbf29ce484222325ull
#define SHOAL__FP(hash, value) ((((hash) ^ (uint64_t)(value)) * 0x100000001b3ull))

/* ======================================== region ======================================== */

/*
 * The first page of every region. Written by its maker, once, before `ready`; nobody writes it afterwards.
 *
 *     0        8        16        24       32       40               4096
 *     +--------+--------+---------+--------+--------+------------------+
 *     | magic  |version | finger- | size   | ready  |  zeros           |
 *     |        |(+named)|  print  |        |        |                  |
 *     +--------+--------+---------+--------+--------+------------------+
 */
struct shoal__region_header {
    uint64_t magic;       /* maker, before ready: SHOAL__REGION_MAGIC */
    uint32_t version;     /* maker, before ready: SHOAL__LAYOUT_VERSION */
    uint32_t named;       /* maker, before ready: 1 if it was made under a name */
    uint64_t fingerprint; /* maker, before ready: SHOAL__LAYOUT_FINGERPRINT */
    uint64_t size_bytes;  /* maker, before ready: of the whole region, header included */
    shoal__a32 ready;     /* maker, last, with release order: 1. SYNC: region-ready */
    uint32_t reserved;    /* nobody */
};

#define SHOAL__REGION_MAGIC 0x3147524c414f4853ull /* "SHOALRG1" in memory, little-endian */
#define SHOAL__LAYOUT_VERSION 1u

static_assert(sizeof(struct shoal__region_header) == 40, "region header");
static_assert(offsetof(struct shoal__region_header, fingerprint) == 16, "region header");
static_assert(offsetof(struct shoal__region_header, ready) == 32, "region header");

#define SHOAL__FP_REGION(hash)                                                                                         \
    SHOAL__FP(SHOAL__FP(SHOAL__FP((hash), sizeof(struct shoal__region_header)),                                       \
                        offsetof(struct shoal__region_header, size_bytes)),                                            \
              offsetof(struct shoal__region_header, ready))

/* ======================================== channel ======================================== */

/*
 * The page after the region's header. Side A is the one that made the channel, B the one that opened it.
 *
 *     0          64         128        192          320          448
 *     +----------+----------+----------+------------+------------+
 *     | constant | side A   | side B   | bell of A  | bell of B  |
 *     +----------+----------+----------+------------+------------+
 */
struct shoal__channel_side {
    shoal__a32 pid; /* A: before ready. B: one CAS from 0, which is how the place is taken */
    shoal__a32 present; /* that side, last, with release order: 1. SYNC: channel-present */
    shoal__a64 start_ticks; /* that side, before present: when its process was started */
    shoal__a32 closed; /* that side, after its last record: 1. SYNC: channel-closed */
    shoal__a32 cpu; /* that side, now and then: where it runs, plus one; 0 unknown. A hint */
    uint8_t pad[40];
};

struct shoal__channel {
    uint64_t magic; /* A, before ready, as all up to ready */
    uint32_t version;
    uint32_t doorbell_kind; /* enum shoal_doorbell_kind, not AUTO */
    uint64_t ring_bytes; /* of each ring of messages */
    uint64_t payload_bytes; /* of each side's payload area */
    uint64_t pid_namespace; /* in which the pids count */
    shoal__a32 ready; /* A, last, with release order: 1. SYNC: channel-ready */
    uint8_t pad[20];
    struct shoal__channel_side side[2];
    uint8_t bell[2][128]; /* see doorbell below: the sleeper is that side */
};

/* How each record in a ring of messages begins; the message's bytes follow. Its sender writes it, before the commit. */
struct shoal__channel_record {
    uint32_t magic;
    uint32_t has_payload; /* 0 or 1 */
    uint64_t payload_offset; /* in the region, start of a block of the sender; 0 without payload */
    uint64_t payload_bytes;
};

#define SHOAL__CHANNEL_MAGIC 0x314e48434c414f53ull /* "SOALCHN1" in memory, little-endian */
#define SHOAL__CHANNEL_VERSION 1u
#define SHOAL__CHANNEL_RECORD 0x4745534du /* "MSEG" */

static_assert(sizeof(struct shoal__channel_side) == 64 && sizeof(struct shoal__channel_record) == 24, "channel");
static_assert(offsetof(struct shoal__channel, side) == 64 && offsetof(struct shoal__channel, bell) == 192, "channel");
static_assert(sizeof(struct shoal__channel) == 448, "channel");

#define SHOAL__FP_CHANNEL(hash)                                                                                        \
    SHOAL__FP(SHOAL__FP(SHOAL__FP((hash), sizeof(struct shoal__channel)), sizeof(struct shoal__channel_record)),       \
              SHOAL__CHANNEL_VERSION)

/* ======================================== ring ======================================== */

/*
 * Two pages of control, then the data (mapped twice by whoever attaches). A page for each side, so that each side can
 * write its own only:
 *
 *     page 0                                     page 1                 data_bytes
 *     +---------------------+---------------+    +---------------+      +----------------------------------+
 *     | magic, version,     | tail (line 1) |    | head          |      | records, each 8-byte aligned:    |
 *     | data_bytes          | noted (2)     |    |               |      | word {tag:24, length:40}, bytes  |
 *     +---------------------+---------------+    +---------------+      +----------------------------------+
 */
struct shoal__ring_writer {
    uint64_t magic;      /* formatter, last: SHOAL__RING_MAGIC */
    uint32_t version;    /* formatter: SHOAL__RING_VERSION */
    uint32_t reserved;   /* nobody */
    uint64_t data_bytes; /* formatter: a power of two */
    uint8_t pad[40];
    shoal__a64 tail; /* writer, at each commit; reader, in reset, when the writer is gone. SYNC: ring-tail */
    uint8_t pad_tail[56]; /* a reader that polls the tail does not disturb a writer that notes */
    shoal__a64 noted; /* writer: position up to which the record after the tail is whole; else <= tail; reader: reset */
};

struct shoal__ring_reader {
    shoal__a64 head; /* reader, at each pop. SYNC: ring-head */
};

#define SHOAL__RING_MAGIC 0x314e52414f4853ull /* "SHOARN1" in memory, little-endian */
#define SHOAL__RING_VERSION 2u
#define SHOAL__RING_TAG_SHIFT 40u
#define SHOAL__RING_TAG 0x52a3c5ull /* top 24 bits of a record's word */

static_assert(offsetof(struct shoal__ring_writer, data_bytes) == 16, "ring");
static_assert(offsetof(struct shoal__ring_writer, tail) == 64, "ring");
static_assert(offsetof(struct shoal__ring_writer, noted) == 128, "ring");
static_assert(sizeof(struct shoal__ring_writer) == 136 && sizeof(struct shoal__ring_reader) == 8, "ring");

#define SHOAL__FP_RING(hash)                                                                                           \
    SHOAL__FP(SHOAL__FP(SHOAL__FP((hash), sizeof(struct shoal__ring_writer)),                                         \
                        offsetof(struct shoal__ring_writer, tail)),                                                    \
              SHOAL__RING_VERSION)

/* ======================================== doorbell ======================================== */

/*
 * One bell. `word` is the futex, the announcement and the count of rings in one, so that a ringer takes the
 * announcement and changes what the sleeper compares in a single compare-and-swap:
 *
 *      31                         2 1       0
 *     +----------------------------+---------+
 *     |  rings so far (mod 2^30)   | urgency |   urgency: 0 awake, 1 lazy, 2 urgent
 *     +----------------------------+---------+
 */
struct shoal__bell {
    uint32_t magic; /* maker: SHOAL__BELL_MAGIC */
    uint32_t kind;  /* maker: enum shoal_doorbell_kind */
    shoal__a32 word; /* sleeper: urgency bits; ringers: count up and urgency to 0. SYNC: bell-word */
    uint8_t pad[52];
    uint8_t semaphore[64]; /* kind semaphore: a sem_t, made by the maker, posted by ringers, drained by the sleeper */
};

#define SHOAL__BELL_MAGIC 0x4c4c4542u /* "BELL" */
#define SHOAL__BELL_URGENCY 3u        /* mask of the urgency bits */
#define SHOAL__BELL_COUNT 4u          /* one ring */

static_assert(sizeof(struct shoal__bell) == 128, "bell");
static_assert(offsetof(struct shoal__bell, word) == 8 && offsetof(struct shoal__bell, semaphore) == 64, "bell");

#define SHOAL__FP_DOORBELL(hash)                                                                                       \
    SHOAL__FP(SHOAL__FP((hash), sizeof(struct shoal__bell)), offsetof(struct shoal__bell, word))

/* ======================================== task queue ======================================== */

/*
 * Part one, whole pages, which workers may map read-only: written by the owner process alone.
 *
 *     +---------------+----------------------------+-------------------------------------------+
 *     | queue_owner   | descriptor[slot_count]     | entry[2 * slot_count]  (the index ring)   |
 *     +---------------+----------------------------+-------------------------------------------+
 *
 * Part two, whole pages: written by everybody.
 *
 *     +---------------+----------------------------+------------------------+------------------+-------------------+
 *     | queue_common  | slot[slot_count]           | worker[worker_count]   | bell[1 + worker] | meter[1 + worker] |
 *     +---------------+----------------------------+------------------------+------------------+-------------------+
 *
 * Word of a slot, the truth about its task (owner 0: nobody; else the worker's index plus one):
 *
 *      63            32 31        16 15         8 7         0
 *     +----------------+------------+------------+-----------+
 *     |  generation    |   owner    |  attempt   |   state   |
 *     +----------------+------------+------------+-----------+
 *
 * Entry of the index ring: {generation:32, slot:32}.
 */
struct shoal__queue_owner {
    uint64_t magic;        /* owner process, at creation */
    uint32_t slot_count;   /* owner process, at creation */
    uint32_t worker_count; /* owner process, at creation: how many there may be */
    shoal__a32 active;     /* owner process: so many there are, the first ones */
    uint8_t pad0[44];
    shoal__a64 tail; /* owner process, at each publish. SYNC: queue-tail */
    uint8_t pad1[56];
    shoal__a32 cpu; /* owner process, now and then: where it runs, or SHOAL__QUEUE_NO_CPU */
    uint8_t pad2[4];
    shoal__a64 notice; /* owner process: a word for all workers, whose meaning is its user's. SYNC: notice */
    uint8_t pad3[48];
};

struct shoal__queue_descriptor {
    shoal__a64 field[6]; /* owner process, before READY: struct shoal_task, eight bytes at a time */
    uint8_t pad[16];
};

#define SHOAL__QUEUE_IDLE_WORDS 16u

struct shoal__queue_common {
    shoal__a64 head;    /* whoever comes next: past entries that are claimed or stale. A hint */
    shoal__a32 spinner; /* the worker (index plus one) that will look for work next; itself. 0: none. A hint */
    uint32_t pad0;
    shoal__a64 idle[SHOAL__QUEUE_IDLE_WORDS]; /* bit: the worker sleeps, or is about to; itself. A hint */
    /* taskqueue_lookout.c. Hints */
    shoal__a32 lookout; /* the worker (index plus one) that sleeps for a tick at a time; itself. 0: none */
    shoal__a32 pace;    /* the lookout: how many tasks are claimed in the time that a wake takes */
    shoal__a32 spared;  /* 1: somebody was not woken, as there is a lookout; whoever would have. 0: the lookout */
    uint8_t pad1[36];
};

struct shoal__queue_slot {
    shoal__a64 word; /* every step one compare-and-swap: owner process or the worker that it names. SYNC: task-word */
    uint8_t pad[56];
};

struct shoal__queue_worker {
    shoal__a32 stance; /* itself; who wakes it: SLEEPING -> WOKEN. enum shoal__stance */
    shoal__a32 cpu;    /* itself: where it was last seen, or SHOAL__QUEUE_NO_CPU */
    shoal__a64 rest_ns; /* itself: when it last went to sleep */
    /* What it runs; taskqueue_watch.c. */
    shoal__a64 watch;    /* beat:61 | phase:3. Itself, and the owner process, by swaps. SYNC: watch */
    shoal__a64 running;  /* itself: generation:32 | slot:32 */
    shoal__a64 since_ns; /* itself: 0 if nobody wants to know */
    uint8_t pad[24];
};

/* Figures for whoever looks on: taskqueue_meter.c. [0] is the owner process's, [1 + worker] a worker's. */
struct shoal__queue_meter {
    shoal__a64 word[64]; /* the one it belongs to. What each means is not the queue's affair */
};

#define SHOAL__QUEUE_MAGIC 0x3145554551485300ull
#define SHOAL__QUEUE_NO_CPU UINT32_MAX

static_assert(sizeof(struct shoal__queue_owner) == 192 && offsetof(struct shoal__queue_owner, tail) == 64 &&
                  offsetof(struct shoal__queue_owner, cpu) == 128,
              "queue");
static_assert(sizeof(struct shoal__queue_descriptor) == 64 && sizeof(struct shoal__queue_slot) == 64, "queue");
static_assert(sizeof(struct shoal__queue_common) == 192 && sizeof(struct shoal__queue_worker) == 64, "queue");
static_assert(sizeof(struct shoal__queue_meter) == 512, "queue");

#define SHOAL__FP_QUEUE_SIZES(hash)                                                                                    \
    SHOAL__FP(SHOAL__FP(SHOAL__FP(SHOAL__FP(SHOAL__FP(SHOAL__FP((hash), sizeof(struct shoal__queue_owner)),           \
                                                      sizeof(struct shoal__queue_descriptor)),                         \
                                            sizeof(struct shoal__queue_common)),                                       \
                                  sizeof(struct shoal__queue_slot)),                                                   \
                        sizeof(struct shoal__queue_worker)),                                                           \
              sizeof(struct shoal__queue_meter))

#define SHOAL__FP_TASKQUEUE(hash)                                                                                      \
    SHOAL__FP(SHOAL__FP(SHOAL__FP(SHOAL__FP_QUEUE_SIZES(hash), offsetof(struct shoal__queue_owner, notice)),          \
                        SHOAL__QUEUE_IDLE_WORDS * 1000 + offsetof(struct shoal__queue_common, lookout)),              \
              offsetof(struct shoal__queue_worker, since_ns))

/* ======================================== fingerprint ======================================== */

/* Add each section's SHOAL__FP_<SECTION> here. */
#define SHOAL__LAYOUT_FINGERPRINT                                                                                      \
    (SHOAL__FP_TASKQUEUE(SHOAL__FP_DOORBELL(SHOAL__FP_RING(SHOAL__FP_CHANNEL(SHOAL__FP_REGION(SHOAL__FP_START))))))

#endif

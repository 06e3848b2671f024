/* SPDX-License-Identifier: BSD-3-Clause */
/* trace.h - what is recorded of each task's life while a trace runs: by the parent in trace.c, by a worker in
 * worker_trace.c. */
#ifndef SHOAL_EXT_TRACE_H
#define SHOAL_EXT_TRACE_H

#include "module.h"

#define TRACE_RING_BYTES (UINT64_C(1) << 18) /* of each worker; the parent empties it when it is half full */
#define TRACE_NAME_BYTES 40u

enum trace_kind {
    TRACE_TASK = 1, /* its user code begins; most often it becomes the whole story of the task */
    TRACE_STARTED,  /* before a TASK: when user code began, if that is too far from the claim for a number of 32 bits */
    TRACE_ELEMENTS,
    TRACE_END, /* of a TASK whose record is out of reach, or has no room for the numbers */
    TRACE_NAME,
    TRACE_WORKER,   /* by the parent: whose the next records are */
    TRACE_REQUEUED, /* by the parent */
};

enum trace_ending { TRACE_OPEN, TRACE_RETURNED, TRACE_FAILED };

/* What is recorded, in the order of what happened. Times are ticks. shoal._trace knows this layout. */
union trace_record {
    struct {
        uint8_t kind;
        uint8_t ending; /* TASK, END: enum trace_ending */
        uint16_t name;  /* NAME: what number it has from now on; TASK: that number */
        uint32_t slot, generation; /* WORKER: index, pid */
        uint32_t unpickle;         /* TASK: from the claim; UINT32_MAX: see STARTED. REQUEUED: the life */
        union {
            struct {
                uint64_t claimed;
                uint32_t first, count; /* of the elements. Up to here it is told when user code begins */
                uint32_t run, pickle;  /* until user code ended, and from there until it was about to be handed in */
                uint32_t bytes_in, bytes_out; /* of the task, arrays included */
            } task;
            struct {
                uint64_t ended, handed_in, bytes_in, bytes_out;
            } end;
            struct {
                uint64_t begin, end; /* STARTED: begin */
                uint32_t first, count;
            } elements;
        };
    };
    struct {
        uint64_t head;
        char text[TRACE_NAME_BYTES]; /* NAME */
    };
};
_Static_assert(sizeof(union trace_record) == 48, "shoal._trace reads it");

/* In a worker's ring: records are told many at a time. Each counts from the moment it is noted (shoal_ring_note). */
struct trace_pack {
    uint32_t epoch, reserved; /* of the trace */
    union trace_record record[84];
};
#define TRACE_PACK_HEAD 8u
#define TRACE_OPEN_BYTES 32u /* of a TASK that has begun */

/* What workers are told in the queue's notice: 0, or where the table of their rings lies, and how long it is. */
static inline uint64_t trace_notice(uint64_t offset, unsigned rings, uint32_t epoch)
{
    return offset / 4096 | (uint64_t)rings << 32 | (uint64_t)(epoch & 0xfffff) << 44;
}

struct engine;
struct entry;
struct trace;

/* ---- in the parent ---- */

PyObject *engine_trace_start(struct engine *engine, PyObject *limit);
PyObject *engine_trace_stop(struct engine *engine, PyObject *unused);
int trace_extend(struct engine *engine, unsigned count); /* so many workers are to be; 0, or -1 with an exception */
uint64_t trace_ticks(const struct engine *engine);
/* A task was published at that tick, and submitted at that one (0: it is not known). */
void trace_published(struct engine *engine, struct entry *entry, uint32_t slot, uint64_t submitted, uint64_t written);
void trace_requeued(struct engine *engine, const struct entry *entry, uint32_t slot);
void trace_finished(struct engine *engine, const struct entry *entry);
void trace_drain(struct engine *engine, bool all); /* all: whatever there is; else rings that are filling up */
void trace_bury(struct engine *engine, unsigned index); /* the worker is dead */
void trace_close(struct engine *engine); /* the pool ends: nothing shared is left, what was read is kept */
void trace_free(struct engine *engine);
void trace_forget(struct engine *engine); /* in a child: what it has inherited */

enum trace_outcome { TRACE_DONE, TRACE_RAISED, TRACE_LOST, TRACE_TAKEN_BACK };

/* ---- in a worker ---- */

struct trace_known { /* a name that was told */
    PyObject *name;  /* strong: str; or NULL */
    const char *c_name;
    uint32_t number; /* 0: none */
    char text[TRACE_NAME_BYTES];
};

struct worker_trace {
    bool on, steady;
    uint64_t notice;
    struct shoal_ring *ring;
    struct trace_pack *pack;   /* in the ring and not committed; or NULL */
    uint32_t packed;           /* records in it */
    union trace_record *open; /* the last one in the pack: the task at hand; or NULL */
    struct trace_known known[8];
    uint32_t names;
    uint64_t claimed, started, ended, from;
    uint64_t bytes_in, bytes_out; /* of the meter, at the claim */
    uint32_t elements, stride; /* since `from`; so many make a record, while they are short */
    uint64_t dropped;
};

void trace_look(struct engine *engine, uint64_t notice);
void trace_claimed(struct engine *engine);
void trace_started(struct engine *engine, PyObject *function);
void trace_element(struct engine *engine, uint32_t item);
void trace_ended(struct engine *engine);
void trace_handed_in(struct engine *engine, bool raised);

#endif

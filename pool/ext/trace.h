/* SPDX-License-Identifier: BSD-3-Clause */
/* trace.h - what is recorded of each task's life while a trace runs: by the parent in trace.c, by a worker in
 * worker_trace.c. */
#ifndef SHOAL_EXT_TRACE_H
#define SHOAL_EXT_TRACE_H

#include "module.h"

#define TRACE_RING_BYTES (UINT64_C(1) << 19) /* of each worker; the parent empties it at the latest when half full */
#define TRACE_NAME_BYTES 40u

enum trace_kind { TRACE_BEGIN = 1, TRACE_ELEMENTS, TRACE_END, TRACE_REQUEUED };

/* In a worker's ring of the trace. shoal._trace knows this layout. */
struct trace_record {
    uint32_t kind;
    uint32_t epoch; /* of the trace */
    uint32_t slot, generation;
    uint64_t begin; /* ticks. BEGIN: claimed; ELEMENTS: begin; END: user code ended */
    uint64_t end;   /* BEGIN: user code began; ELEMENTS: end; END: about to be handed in */
    uint64_t bytes_in, bytes_out; /* END: of the task, arrays included */
    uint32_t first, count; /* of the elements. REQUEUED: first is the life */
    char name[TRACE_NAME_BYTES]; /* BEGIN */
};
_Static_assert(sizeof(struct trace_record) == 96, "shoal._trace reads it");

/* What workers are told in the queue's notice: 0, or where their rings lie. */
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

struct worker_trace {
    bool on, steady;
    uint64_t notice;
    struct shoal_ring *ring;
    uint64_t claimed, ended, from;
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

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * say.h - what a worker says besides results: lines of text, log records, warnings. See worker_say.c for the worker's
 * side, hear.c for the parent's.
 */
#ifndef SHOAL_EXT_SAY_H
#define SHOAL_EXT_SAY_H

#include "engine.h"

#define SAY_PART_BYTES (RESULT_RING_BYTES / 16) /* of a message in one record */
#define SAY_BYTES_MAX (UINT64_C(64) << 20)      /* of a message */

/* ---- worker_say.c ---- */

/* say(payload): True, or False if this is no worker that could. */
PyObject *engine_say(struct engine *engine, PyObject *payload);
/* What could not be written when it was said, as far as there is room now. */
void say_flush(struct engine *engine);

/* ---- hear.c ---- */

struct said {
    struct said *next;
    unsigned worker;
    size_t bytes;
    uint8_t data[];
};

/* A RECORD_SAID of a worker: 0, or -EBADMSG, -ENOMEM. No user code. */
int hear_record(struct engine *engine, unsigned index, const struct record *record, const uint8_t *payload,
                uint64_t payload_bytes);
/* A worker is gone, perhaps in the middle of a message. */
void hear_end(struct worker *worker);
/* Hand to the Python layer what has arrived, in order. User code. One thread at a time does that. */
void hear_deliver(struct engine *engine);
/* The same, and wait for another thread that does it, for a while. */
void hear_finish(struct engine *engine);
void hear_forget(struct engine *engine);

#endif

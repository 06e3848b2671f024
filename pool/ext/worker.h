/* SPDX-License-Identifier: BSD-3-Clause */
/* worker.h - what a worker process keeps for itself: see worker.c. */
#ifndef SHOAL_EXT_WORKER_H
#define SHOAL_EXT_WORKER_H

#include "engine.h"
#include "meter.h"
#include "trace.h"

/* Results that are being gathered in one record, after the tail of our ring: see worker_result.c. */
struct result_run {
    uint8_t *record; /* its struct record; NULL: there is none */
    uint8_t *cursor, *limit; /* past the limit it is published */
    uint64_t room;
    uint32_t count;
};

#define LEASES_KNOWN 4u
#define UNLOCKED_MAX 4u

struct worker_side {
    unsigned index;
    struct worker *own; /* of the engine's table: our rings */
    struct shoal_waiter *waiter;
    struct shoal_encoder *encoder;
    struct shoal_decoder *decoder;
    bool encoder_busy;
    bool ring_busy; /* a result is being written after the tail of our ring, and user code or other threads may run */
    /* worker_say.c: what was said and is not in the ring yet */
    struct unsaid *unsaid, **unsaid_end;
    uint64_t unsaid_bytes;
    unsigned long main_thread;
    bool left; /* it takes no more tasks */
    PyObject *encode_error;
    bool stop, retire;
    pid_t parent;
    struct shoal_peer pool_process; /* of our pool, if that is not our parent; else pidfd -1 */
    uint32_t served;
    struct meter meter;
    struct worker_trace trace;
    uint64_t sweep_asked, sweep_done; /* numbers of orders */
    /* worker_memory.c; memory_max 0: it may be as large as it likes */
    uint64_t memory_max, memory_born;
    int64_t memory_next_ns, memory_collect_ns; /* not before */
    bool memory_pending;                       /* tasks were run since the last look */
    /* memory for results */
    uint64_t lease, lease_bytes, lease_limit;
    int lease_error;
    bool lease_waiting, lease_there;
    struct lease_pages {
        uint64_t offset, bytes;
    } mapped[LEASES_KNOWN]; /* the last ones whose pages were mapped here all at once */
    unsigned mapped_next;
    bool lock_later;          /* a result is being handed in: what becomes read-only waits until it is */
    struct lease_pages unlocked[UNLOCKED_MAX];
    unsigned unlocked_count;
    /* blocks that have died here and that the parent believes we hold */
    uint64_t *releases;
    size_t release_count, release_capacity;
    /* the task at hand */
    struct shoal_task task;
    struct shoal_claim claim;
    const uint8_t *cursor, *end, *table;
    uint64_t buffer_count, first_buffer;
    const uint8_t *plain_end; /* of the section of plain values that the cursor is in */
    uint32_t plain_left;      /* how many of them are still to be read */
    struct result_run run;
    struct block **blocks; /* strong: those that the task's arguments were given */
    size_t block_count, block_capacity;
    size_t blocks_of_function; /* of a batch: the first ones */
    struct block *own_block; /* borrowed from blocks: the task's message */
    uint32_t item; /* of the task, as the call numbers its elements */
    /* worker_stop.c */
    PyObject *arm;    /* called before the first task that has a limit, or NULL */
    int64_t since_ns; /* the item at hand */
    bool armed, limited;
    bool exposed;   /* user code of the item at hand may run: it can be interrupted */
    bool raised;    /* it was */
    bool drop_rest; /* nobody wants what is left of the batch */
    bool unsound;   /* interrupted while it read a task: what that had begun may be half done, so it ends after it */
    bool reading_function;   /* of a batch that another worker may have to go on with: it must find it as it was */
    struct common *common;   /* worker_common.c; NULL: there was no need yet */
};

/* worker_input.c: the task's streams and buffers. */
int input_begin(struct engine *engine);
PyObject *input_next(struct engine *engine); /* the next object, or NULL with an exception */
/* A section that is read again and again: each time a new object, whose buffers are private. */
struct input_place {
    const uint8_t *pickle;
    size_t bytes;
    uint64_t first_buffer;
};
int input_note(struct engine *engine, struct input_place *ret_place); /* the cursor's; moves it behind. -1: exception */
PyObject *input_again(struct engine *engine, const struct input_place *place);
/* An item of a batch is done: gives back the private views that it was given, in `blocks` from block_count on. */
void input_item_done(struct engine *engine, size_t block_count);
int input_skip(struct engine *engine, uint32_t items);
/* Everything of the task was dropped: which blocks are still held by user code? Fills offsets, returns how many.
 * ret_kept NULL: the task was not ours after all, nothing is told. */
uint32_t input_end(struct engine *engine, uint64_t adopted, uint64_t *ret_kept);

/* worker_common.c: what the elements of a batch have in common. */
int common_begin(struct engine *engine); /* steps over its section; -1 with an exception */
/* All arguments of an element, `rest` (stolen) the last ones: a new tuple, or NULL with an exception. */
PyObject *common_join(struct engine *engine, PyObject *rest);
void common_end(struct engine *engine); /* nothing of it is held any more */

/* worker_result.c */
/*
 * Hand in a result (steals object). `arguments` (stolen, may be NULL) is dropped before it is decided which blocks
 * stay. 0, or -1 with an exception: nothing was handed in (it did not pickle, there is no memory for it), arguments
 * are gone.
 */
int result_send(struct engine *engine, enum record_kind kind, uint32_t item, bool last, PyObject *object,
                PyObject *arguments);
/* Hand in a result in the middle of a batch, if it is plain. False: nothing was done. */
bool result_add(struct engine *engine, uint32_t item, PyObject *object);
/* Hand in the exception that is set. Always succeeds, or ends the process. */
void result_send_error(struct engine *engine, uint32_t item, bool last, const char *stage, PyObject *arguments);
/* These pages are not ours to write any more, now or when the result at hand has been handed in. */
void result_lock(struct engine *engine, uint64_t offset, uint64_t bytes);
/* The initializer raised: the exception that is set. */
void result_send_setup_error(struct engine *engine);
/* A record without payload. */
void result_send_plain(struct engine *engine, const struct record *record);
void result_flush_releases(struct engine *engine);
/* Publish a run that is open, if there is one. */
void result_end_run(struct engine *engine);

/* worker_stop.c */
void stop_begin(struct engine *engine);  /* an item begins */
void stop_settle(struct engine *engine); /* right before its outcome is handed in; does not return if it must not be */
bool stop_drops(struct engine *engine);  /* nobody wants what is left of the batch */

/* worker_memory.c */
void memory_begin(struct worker_side *side, uint64_t max_bytes, bool forked);
bool memory_outgrown(struct worker_side *side); /* between two tasks: is this one to end? May run user code */
int64_t memory_deadline(const struct worker_side *side, int64_t deadline_ns); /* when to ask again if it is idle */

/* worker_orders.c */
#define LOOK_FOR_PARENT_NS INT64_C(10000000000) /* the lifeline is the rule; this is for who closed it */
bool worker_parent_gone(const struct worker_side *side);
void worker_read_orders(struct engine *engine);
/* Sleep until the parent has sent an order or may have freed room in our ring. */
void worker_wait_for_parent(struct engine *engine, bool (*there)(void *), void *arg);

#endif

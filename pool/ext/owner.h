/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * owner.h - who gets a result: an Item (one call) or a Group (a map-like call).
 *
 * The drain only hands over raw bytes ("arrivals"); they are unpickled by the one who asks.
 */
#ifndef SHOAL_EXT_OWNER_H
#define SHOAL_EXT_OWNER_H

#include "module.h"

enum arrival_kind {
    ARRIVAL_NONE = 0,
    ARRIVAL_VALUE,     /* a pickled result */
    ARRIVAL_ERROR,     /* a pickled description of an exception */
    ARRIVAL_EXCEPTION, /* an exception object made here (WorkerLost, cancelled) */
    ARRIVAL_RUN,       /* plain values of several items; in a group's log only */
};

#define ARRIVAL_INLINE_BYTES 64

/* References on blocks of user arrays: of a task in flight, or of a result that may refer to them. In order. */
struct block_list {
    uint64_t *offsets;
    size_t count;
};

void block_list_sort(struct block_list *list);
bool block_list_has(const struct block_list *list, uint64_t offset);

struct arrival {
    enum arrival_kind kind;
    uint32_t item;
    uint32_t buffer_count;
    bool of_group; /* `item` is an element of a map's input */
    size_t bytes;
    const uint8_t *data; /* inline_data, malloc'd (owned), or in the block */
    uint8_t *owned;
    uint64_t block, adopted; /* arena blocks whose owner's count we have, or HOME_NO_BLOCK */
    uint64_t block_bytes;    /* of `block`, as far as it counts as unread */
    struct block_list shared; /* blocks of user arrays that buffers may lie in */
    PyObject *object;        /* ARRIVAL_EXCEPTION */
    uint8_t inline_data[ARRIVAL_INLINE_BYTES];
};

enum owner_kind { OWNER_ITEM, OWNER_GROUP };

struct owner {
    PyObject_HEAD
    struct engine *engine; /* strong, NULL before submission */
    PyObject *watches;     /* list of callables, or NULL */
    struct owner *next_finished;
    enum owner_kind kind;
    bool done;
    bool queued;            /* in the engine's list of finished owners */
    bool urgent;            /* watched urgently: one of engine.watched */
    bool decoding;          /* a thread unpickles: user code runs, so others wait for it */
    unsigned long decoder;  /* which */
    bool has_grace;
    bool unwanted;          /* cancelled: also what is being submitted at that moment */
    bool aborts;            /* a group whose first error ends it */
    int64_t timeout_ns;     /* of each of its tasks or items, from the moment a worker has it; 0: none */
    int64_t grace_ns;       /* between asking a worker to stop it and killing it; limits.c has a default */
};

/* Take an arrival over (also on failure). Called by the drain: no user code. */
void owner_deliver(struct owner *owner, struct arrival *arrival);

/* Run and drop the watches. User code. */
void owner_run_watches(struct owner *owner);
/* urgently: the callback is to run soon, so that the progress thread wakes for each result while nobody waits. */
PyObject *owner_watch(struct owner *owner, PyObject *callback, bool urgently);

/* Memory of its own for a stream of `size` bytes, counted as unread until arrival_free_bytes; or NULL. */
uint8_t *arrival_allocate(struct engine *engine, struct arrival *arrival, size_t size);
void arrival_free_bytes(struct engine *engine, struct arrival *arrival);

/* Release memory and blocks of an arrival that will not be decoded (any more). */
void arrival_clear(struct engine *engine, struct arrival *arrival);

/* Unpickle: 1 value, 0 exception instance in *ret_object (new reference); -1 only for MemoryError and the like. */
int arrival_decode(struct engine *engine, struct arrival *arrival, PyObject **ret_object);

/* One thread at a time unpickles for an owner; others wait here. -1 with RuntimeError if this thread does already. */
int owner_begin_decoding(struct owner *owner);
void owner_end_decoding(struct owner *owner);

/* item.c, group.c */
void item_deliver(struct owner *owner, struct arrival *arrival);
void group_deliver(struct owner *owner, struct arrival *arrival);
/* As group_deliver, for a short stream without buffers that is not the last of its task. False: take the long way. */
bool group_deliver_small(struct owner *owner, uint32_t item, enum arrival_kind kind, const uint8_t *stream,
                         uint64_t stream_bytes);
/* Plain values of `count` items of a batch. */
void group_deliver_run(struct owner *owner, uint32_t first_item, uint32_t count, const uint8_t *values, uint64_t bytes);
int group_pull(struct owner *owner); /* lazy groups: submit more input; 1 all pulled, 0 window is full, -1 exception */

/* The exception that is set, normalized, with its traceback; new reference. */
PyObject *owner_fetch_exception(void);

/* _limit(timeout_ns, grace_ns, aborts=False): before it is submitted. */
PyObject *owner_limit(struct owner *owner, PyObject *args);

/* Where an Item's task is, so that it can be taken back. */
void item_set_slot(struct owner *owner, int64_t slot, uint32_t generation);
int64_t item_slot(const struct owner *owner); /* -1: it has none, or is a group */

void item_track(struct owner *owner); /* it may be part of a cycle from now on; nothing for a group */

PyObject *item_cancelled_error(void);

#endif

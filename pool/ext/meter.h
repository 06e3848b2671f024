/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * meter.h - what each worker, and the parent, say about themselves: the words of the task queue's meters.
 *
 * Readers: Engine.meters(), and whoever maps the region from outside. The numbers are part of the layout: who changes
 * what a word means raises METER_FORMAT.
 */
#ifndef SHOAL_EXT_METER_H
#define SHOAL_EXT_METER_H

#include "module.h"

#define METER_FORMAT 1u

enum meter_word { /* of a worker's meter; it writes them, but for FORKED */
    METER_VERSION,  /* METER_FORMAT; 0: it has not come up */
    METER_SEQUENCE, /* odd while what is from METER_LONGEST on is being written */
    METER_SERVED,   /* calls and elements that ended */
    METER_START,    /* ns, and so the next four: from the fork to ready */
    METER_WAIT,     /* from one task handed in to the next one claimed */
    METER_RUN,      /* in user code */
    METER_PICKLE,   /* from its end until the result is handed in */
    METER_UNPICKLE, /* from the claim to the beginning of user code */
    METER_BYTES_IN,
    METER_BYTES_OUT,
    METER_SAVED,  /* bytes that came or went without any copy */
    METER_MARK,   /* CLOCK_MONOTONIC ns: the four times are those up to here */
    METER_DROPPED, /* records of traces that there was no room for */
    METER_FORKED, /* CLOCK_MONOTONIC ns; by the parent, before there is a process */
    METER_COUNTERS = 16,
    METER_LONGEST = 16, /* METER_LONG_TASKS of them, each METER_LONG_WORDS */
};

#define METER_LONG_TASKS 5u
#define METER_LONG_WORDS 8u
#define METER_NAME_BYTES 48u

struct meter_long_task {
    uint64_t run_ns;
    uint64_t begin_ns; /* CLOCK_MONOTONIC */
    char name[METER_NAME_BYTES]; /* UTF-8, NUL-padded */
};
_Static_assert(sizeof(struct meter_long_task) == METER_LONG_WORDS * sizeof(uint64_t), "it is told in words");
_Static_assert(METER_LONGEST + METER_LONG_TASKS * METER_LONG_WORDS <= SHOAL_METER_WORDS, "there is room for them");

enum meter_parent_word { /* of meter 0; the parent writes them */
    PARENT_VERSION,
    PARENT_PID,
    PARENT_CREATED,       /* CLOCK_MONOTONIC ns */
    PARENT_CREATED_WALL,  /* CLOCK_REALTIME ns */
    PARENT_WORKERS,
    PARENT_SUBMITTED,
    PARENT_DONE,
    PARENT_FAILED,
    PARENT_LOST,
    PARENT_RESTARTS,
    PARENT_IN_FLIGHT,
    PARENT_BACKLOG,
    PARENT_ARENA_USED,
    PARENT_STATE,         /* enum meter_state */
    PARENT_STEADY,        /* 1: all of this pool may use the CPU's counter (shoal_ticks) */
    PARENT_WORDS,
};

enum meter_state { METER_RUNNING = 1, METER_CLOSED, METER_ENDED };

/* ---- in a worker: meter.c says how it measures ---- */

struct engine;

struct meter {
    bool timing;    /* the item at hand is timed */
    bool off;       /* SHOAL_METERS=off, for measuring what this costs */
    bool steady;    /* shoal_ticks */
    bool longest_changed;
    uint32_t left;  /* items that are not timed before the next one that is */
    uint32_t items; /* not timed, since the mark */
    int64_t mark_ns;
    PyObject *name; /* strong: str, or the type, of the function at hand; or NULL: c_name */
    const char *c_name;
    /* The clock: ns since the base by ticks, `scale` of them 2^-32 ns each; 0: not known yet. */
    uint64_t first_ticks, base_ticks, scale;
    int64_t first_ns, base_ns;
    uint64_t word[METER_COUNTERS];
    uint64_t lap[METER_COUNTERS];     /* of the item that is timed, by phase */
    uint64_t average[METER_COUNTERS]; /* ns of an item, by phase */
    uint64_t item_ns;                 /* their sum */
    uint64_t untimed_ns, untimed_items; /* to be split by the averages */
    uint64_t random;
    uint64_t handed_in; /* ticks: a trace has just looked; 0: it has not */
    struct meter_long_task longest[METER_LONG_TASKS]; /* longest first */
};

void meter_open(struct engine *engine);  /* the worker begins: goes on with what was left by its predecessor */
void meter_ready(struct engine *engine); /* it has come up */
void meter_publish(struct engine *engine);

/* Nothing to do: returns what time it is, more or less. */
int64_t meter_wait_begins(struct engine *engine);
void meter_wait_ended(struct engine *engine);

/* In the middle of handing something in: we wait for the parent, which takes as long as it takes. */
int64_t meter_stall_begins(struct meter *meter);
void meter_stall_ended(struct meter *meter, int64_t begun_ns);

/* The item that is about to begin is timed: everything before it has ended. */
void meter_time(struct engine *engine);
/* Of an item that is timed: so much of it (phase) has ended; user code has; it was handed in. */
void meter_lap(struct engine *engine, enum meter_word phase);
void meter_ran(struct engine *engine, PyObject *function);
void meter_finish(struct engine *engine);
void meter_task_ended(struct engine *engine);
/* The function of a batch has been read (NULL: in vain), and its first item is next. */
void meter_batch_opened(struct engine *engine, PyObject *function);

/* This function runs now; its name is wanted if it turns out to take long. */
void meter_name(struct meter *meter, PyObject *function);
/* The same; of a partial, what it calls. */
void meter_name_inner(struct meter *meter, PyObject *function);
/* That name as text, NUL-padded. */
void meter_name_text(const struct meter *meter, char *place, size_t room);

/* An item begins. */
static inline void meter_item(struct engine *engine, struct meter *meter)
{
    if (meter->left == 0)
        meter_time(engine);
    else
        meter->left--, meter->items++;
}

/* A task was claimed: its first item begins, and comes with so many bytes. */
static inline void meter_task(struct engine *engine, struct meter *meter, uint64_t stream_bytes)
{
    meter->word[METER_BYTES_IN] += stream_bytes;
    meter_item(engine, meter);
}

#endif

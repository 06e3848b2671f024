/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * group.h - a map-like call: many items in batches, one destination.
 *
 * The drain appends arrivals to `log` (bytes); the thread that asks decodes them, into `results` (mode LIST, by index)
 * or into the circular `values` (ORDERED by index, UNORDERED by arrival), from which next() takes them.
 *
 * Who pulls the input of a lazy call: the thread that takes results, or, where that could make results wait for the
 * input, a thread of its own (group_feed.c).
 */
#ifndef SHOAL_EXT_GROUP_H
#define SHOAL_EXT_GROUP_H

#include "owner.h"

#include <semaphore.h>

enum group_mode { GROUP_LIST = 0, GROUP_ORDERED = 1, GROUP_UNORDERED = 2 };

struct group_value {
    PyObject *object; /* NULL: not there yet */
    uint64_t bytes;   /* what it counts for as long as nobody has taken it */
    bool ok;
};

#define GROUP_REPEATS_MAX 4u
struct repeat { /* both NULL, or both strong */
    PyObject *object;
    PyObject *carried; /* what is sent in its place; None: it is sent itself */
};

struct shoal_group {
    struct owner owner;
    PyObject *function, *source; /* source: iterator, NULL once exhausted */
    PyObject *stalled;           /* a chunk (list) that there was no memory for, or NULL */
    PyObject *ending;            /* an exception that comes after all other outcomes, or NULL */
    uint32_t chunk;
    bool star, pulling, begun, listed, cancelled;
    bool fed;        /* a thread of its own pulls the input */
    bool bounded;    /* never more than the window, also if the pool is joined */
    bool to_the_end; /* the pool is joined: results that wait for their reader do not count */
    bool slow;       /* the input was, when it was last pulled */
    bool feeder_waits;
    bool function_settled; /* it was seen that it is small, or is to be sent once, or it is carried */
    bool function_carried; /* function is what is sent in its place */
    bool repeats_none, repeats_some; /* as far as is known; neither: not enough of the input was seen */
    unsigned repeat_next; /* of `repeats`: the next one to be replaced */
    struct repeat repeats[GROUP_REPEATS_MAX];
    PyObject *last_item; /* of the input, to compare the next one with; NULL before */
    sem_t room; /* posted for the feeder */
    enum group_mode mode;
    uint64_t window;             /* items in flight at most, for lazy modes */
    uint64_t total, arrived;     /* items pulled; items whose outcome is in the log or further */
    struct shoal_group *next, **previous_next; /* engine's list of lazy groups that are not exhausted */
    /* raw outcomes */
    uint8_t *log;
    size_t log_read, log_end, log_capacity;
    /* LIST */
    PyObject *results;
    PyObject *error;
    uint64_t error_item;
    bool failed;
    /* lazy */
    struct group_value *values;
    uint64_t capacity; /* of values, a power of two */
    uint64_t cursor;   /* next() returns this one */
    uint64_t decoded;  /* UNORDERED: place of the next decoded one */
    PyObject *weakrefs;
};

/* group.c */
struct group_value group_take(struct shoal_group *self, uint64_t index); /* out of `values`; the caller's then */
int group_decode(struct shoal_group *self);   /* everything in the log; -1 with an exception */
void group_clear_log(struct shoal_group *self); /* what was never asked for */
void group_finish_if_done(struct shoal_group *self);

/* group_input.c */
/* 0, -1 with an exception, or 1: there is no memory, and may_wait is false. */
int group_submit_items(struct shoal_group *self, PyObject *const *items, uint32_t count, bool may_wait);
int group_refill(struct shoal_group *self); /* pull as much as the window allows */
bool group_has_room(const struct shoal_group *self);
bool group_has_much_room(const struct shoal_group *self); /* pulled in bulk, not for each result that is taken */
void group_unlist(struct shoal_group *self); /* no longer one of the engine's lazy groups */
/* Nothing more is pulled; `error`, if there was more, is the last outcome. */
void group_stop(struct shoal_group *self, PyObject *error);

/* group_end.c */
void group_abort(struct shoal_group *self); /* its error has come: nothing more does */
PyObject *group_cancel(struct shoal_group *self, PyObject *args, PyObject *kwargs);
PyObject *group_stop_method(struct shoal_group *self, PyObject *error);

/* group_count.c */
PyObject *group_counts(struct shoal_group *self, PyObject *unused);

/* group_type.c */
void group_collect(struct shoal_group *self); /* look for arrivals */

/* group_repeat.c */
/* New reference to a list in place of these items; NULL: none needed, or with an exception. */
PyObject *group_stand_ins(struct shoal_group *self, PyObject *const *items, uint32_t count);
/* What is sent once for all elements of a chunk; strong references, NULL where there is none. */
struct cut {
    PyObject *function; /* with the handles that come first bound to it */
    PyObject *common;   /* tuple: the arrays, and handles, that come first */
    PyObject *rest;     /* list: of each element, what is left */
};
struct cut group_cut(struct shoal_group *self, PyObject *const *items, uint32_t count);
void group_carry_function(struct shoal_group *self);
bool group_input_is_fixed(PyObject *inputs);
void group_all_sent(struct shoal_group *self);
void group_forget_repeats(struct shoal_group *self);
int group_repeats_traverse(struct shoal_group *self, visitproc visit, void *arg);

/* group_feed.c */
bool group_input_may_wait(PyObject *input);
bool group_inputs_may_wait(PyObject *inputs); /* one of this tuple */
int group_start_feeder(struct shoal_group *self); /* 0, or -1 with an exception: no thread */
void group_wake_feeder(struct shoal_group *self);

#endif

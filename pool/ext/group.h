/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * group.h - a map-like call: many items in batches, one destination.
 *
 * The drain appends arrivals to `log` (bytes); the thread that asks decodes them, into `results` (mode LIST, by index)
 * or into the circular `values` (ORDERED by index, UNORDERED by arrival), from which next() takes them.
 */
#ifndef SHOAL_EXT_GROUP_H
#define SHOAL_EXT_GROUP_H

#include "owner.h"

enum group_mode { GROUP_LIST = 0, GROUP_ORDERED = 1, GROUP_UNORDERED = 2 };

struct group_value {
    PyObject *object; /* NULL: not there yet */
    bool ok;
};

struct shoal_group {
    struct owner owner;
    PyObject *function, *source; /* source: iterator, NULL once exhausted */
    PyObject *stalled;           /* a chunk (list) that there was no memory for, or NULL */
    uint32_t chunk;
    bool star, pulling, begun, listed, cancelled;
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
int group_decode(struct shoal_group *self);   /* everything in the log; -1 with an exception */
void group_clear_log(struct shoal_group *self); /* what was never asked for */

/* group_input.c */
/* 0, -1 with an exception, or 1: there is no memory, and may_wait is false. */
int group_submit_items(struct shoal_group *self, PyObject *const *items, uint32_t count, bool may_wait);
int group_refill(struct shoal_group *self); /* pull as much as the window allows */
void group_unlist(struct shoal_group *self); /* no longer one of the engine's lazy groups */

#endif

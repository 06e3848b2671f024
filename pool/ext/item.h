/* SPDX-License-Identifier: BSD-3-Clause */
/* item.h - the outcome of one call. */
#ifndef SHOAL_EXT_ITEM_H
#define SHOAL_EXT_ITEM_H

#include "owner.h"

struct item {
    struct owner owner;
    PyObject *value; /* once decoded: the value, or the exception */
    int64_t slot;    /* of the task, -1 while it has none */
    uint32_t generation;
    int8_t ok;       /* 1 value, 0 exception, -1 not decoded */
    bool cancelled;
    struct arrival arrival;
    PyObject *weakrefs;
    struct inbox *inbox; /* of the event loop that awaits it: inbox.h. Strong, or NULL */
    PyObject *future;    /* what is awaited there */
    struct item *next_arrived;
};

struct item *item_make(PyTypeObject *type); /* Item or a subclass of it; needs no __init__ */
struct item *item_new_for(struct engine *engine);
/* When done: the value (new reference), or NULL with the exception raised. */
PyObject *item_value(struct item *item);
/* 1 done, 0 deadline, -1 exception. */
int item_wait(struct item *item, int64_t deadline_ns);

#endif

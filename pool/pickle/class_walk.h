/* SPDX-License-Identifier: BSD-3-Clause */
/* class_walk.h - the walk behind class_digest.c and walk_instance.c. Used by these two alone. */
#ifndef SHOAL_PICKLE_CLASS_WALK_H
#define SHOAL_PICKLE_CLASS_WALK_H

#include "class_digest.h"
#include "digest.h"
#include "encoder.h"

enum { DEPTH_MAX = 48, FIRST_SEEN = 32 };

/* What was met on the way: of a container under way 1, of one that is done its digest. */
struct seen {
    PyObject *object; /* borrowed: nothing dies while no code runs; else it is in `kept` */
    uint64_t digest;
};

struct walk {
    struct shoal_pickle_state *state;
    int depth;
    bool captured; /* inside of what a function captures */
    struct shoal_encoder *asking; /* objects are asked what they are made of, for this stream; NULL: no code is run */
    PyObject *kept;               /* list, when asking: all that was met, and copies of what code might change */
    PyObject *error[3];           /* what ended the asking: type, value, traceback; or NULL */
    struct seen *seen;
    size_t seen_count, seen_mask;
    struct seen first[FIRST_SEEN];
};

enum tag {
    TAG_NONE = 1, TAG_BOOL, TAG_INT, TAG_FLOAT, TAG_COMPLEX, TAG_STR, TAG_BYTES, TAG_LIST, TAG_TUPLE, TAG_DICT, TAG_SET,
    TAG_FUNCTION, TAG_CODE, TAG_CLASS, TAG_MODULE, TAG_WRAPPED, TAG_PROPERTY, TAG_METHOD, TAG_NAMED, TAG_INSTANCE,
    TAG_BUFFER, TAG_SLOT, TAG_CYCLE, TAG_DEEP, TAG_CELL,
};

uint64_t shoal__walk(struct walk *w, PyObject *obj);

/* Its parts, mixed into h. A walk that asks goes through a copy, since what it asks may change the container. */
uint64_t shoal__walk_tuple(struct walk *w, uint64_t h, PyObject *tuple);
uint64_t shoal__walk_list(struct walk *w, uint64_t h, PyObject *list);
uint64_t shoal__walk_dict(struct walk *w, uint64_t h, PyObject *dict);
uint64_t shoal__walk_set(struct walk *w, PyObject *set);

uint64_t shoal__int_digest(PyObject *obj);
uint64_t shoal__place_digest(PyTypeObject *type);

/* Steals what a walk that asks has to keep: borrowed, or NULL without an exception. */
PyObject *shoal__walk_keep(struct walk *w, PyObject *obj);

/* walk_instance.c */
uint64_t shoal__walk_instance(struct walk *w, PyObject *obj);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * class_record.h - which class is which, across processes: see class_record.c. Used by: save_class.c, rebuild_class.c,
 * class_keywords.c, class_making.c.
 */
#ifndef SHOAL_PICKLE_CLASS_RECORD_H
#define SHOAL_PICKLE_CLASS_RECORD_H

#include "class_digest.h"

enum { CLASS_IDENTITY_SIZE = 16 };

struct shoal_class_record {
    PyObject_HEAD
    PyObject *reference; /* weakref to the class */
    PyObject *mark;      /* bytes: how streams name it, and which changes it went through */
    PyObject *keywords;  /* dict: the keyword arguments of its definition; or NULL */
    PyObject *parts;     /* dict: attribute -> digest when it was last received; NULL: was not */
    unsigned fork_epoch; /* of the process that made this record */
    bool received;
    bool made; /* it is not there from before */
    bool open; /* what is received after the class itself is to be set, too */
    unsigned long opened_by; /* the thread that received it so, and may be in the middle of that */
};

extern PyType_Spec shoal__class_record_spec;

/* The record of a class that is about to be dumped: borrowed. NULL with an exception. */
struct shoal_class_record *shoal__class_record(struct shoal_pickle_state *state, PyTypeObject *class);
/* The same, but none is made: NULL without an exception. */
struct shoal_class_record *shoal__class_record_of(struct shoal_pickle_state *state, PyObject *class);

enum shoal_class_verdict {
    CLASS_UNKNOWN, /* to be made */
    CLASS_SAME,    /* lives here, nothing is to be done to it */
    CLASS_CHANGED, /* lives here and was changed at its source since */
};

/* Is what the mark names here? *ret_record is borrowed, *ret_class new. The mark has been checked. */
enum shoal_class_verdict shoal__class_find(struct shoal_pickle_state *state, PyObject *mark,
                                           struct shoal_class_record **ret_record, PyObject **ret_class);
/* A class that was just made, as what the mark names: borrowed, NULL with an exception. keywords may be NULL. */
struct shoal_class_record *shoal__class_enter(struct shoal_pickle_state *state, PyObject *class, PyObject *mark,
                                              PyObject *keywords);
bool shoal__is_class_mark(PyObject *obj);

/* Is this process where it was defined? What others say of it then counts for nothing. */
static inline bool shoal__class_is_source(const struct shoal_pickle_state *state,
                                          const struct shoal_class_record *record)
{
    return !record->received && record->fork_epoch == state->fork_epoch;
}

/* refresh_class.c: the methods' globals and cells, as they came in this namespace. 0 or -1. */
int shoal__refresh_class(PyObject *class, PyObject *namespace);

/* The keyword arguments that a class was defined with: borrowed dict, or NULL without an exception. */
PyObject *shoal__class_keywords(struct shoal_pickle_state *state, PyObject *class);
int shoal__class_keywords_init(struct shoal_pickle_state *state, PyObject *module);

/* ---- tables by address, of what is kept as long as a class lives ---- */

PyObject *shoal__find_address(PyObject *table, const void *address); /* borrowed; NULL, perhaps with an exception */
int shoal__put_address(PyObject *table, const void *address, PyObject *value);
/* New weakref to the class that takes `value` out of its table when the class dies. */
PyObject *shoal__class_watch(struct shoal_state_classes *classes, PyObject *class, PyObject *value);
bool shoal__leads_to_class(PyObject *reference, PyObject *class); /* an address may have been used again */

int shoal__class_records_init(struct shoal_pickle_state *state, PyObject *module);

#endif

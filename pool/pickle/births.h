/* SPDX-License-Identifier: BSD-3-Clause */
/* births.h - classes that are being written and cannot be referred to yet: see births.c. */
#ifndef SHOAL_PICKLE_BIRTHS_H
#define SHOAL_PICKLE_BIRTHS_H

#include "encoder.h"

/* One class under way; on the C stack of save_class.c. */
struct shoal_birth {
    PyObject *class;
    PyObject *cell; /* what super() in its methods reads: filled by the birth itself; borrowed, NULL if there is none */
    struct shoal_birth *outer;
};

enum shoal_late_kind {
    LATE_NOTHING,    /* the caller sees to it */
    LATE_GLOBAL,     /* owner: the real globals dict */
    LATE_CELL,       /* owner: the cell */
    LATE_FUNCTION,   /* owner: the function, whose attributes they are */
    LATE_ATTRIBUTE,  /* owner: the class */
    LATE_REGISTERED, /* owner: the ABC; value: list of classes */
    LATE_PARAMETER,  /* owner: the type parameter; value: what its __reduce__ would say */
    LATE_CONTENT,    /* owner: a list, dict, set or instance; value: a copy of what is in it or of its __dict__ */
};

struct shoal_late {
    const struct shoal_birth *birth; /* compared: the class that it waits for */
    enum shoal_late_kind kind;
    PyObject *owner, *key, *value; /* strong; key and value may be NULL */
};

/* Instead of a birth: the end of the outermost class, with all that waits for it. */
#define SHOAL_LATE_END NULL

/* Where a stream stands, to go back to. */
struct shoal_point {
    size_t used, memo, taken;
    Py_ssize_t late;
};

/* The birth under way of obj, or NULL. */
static inline struct shoal_birth *shoal__birth_of(const struct shoal_encoder *e, const PyObject *obj)
{
    struct shoal_birth *birth = e->births;
    while (birth && birth->class != obj)
        birth = birth->outer;
    return birth;
}

void shoal__point_take(const struct shoal_encoder *e, struct shoal_point *ret_point);
/* After a save that failed. 1: because of e->blocked, and the stream is as it was; -1: for another reason. */
int shoal__point_return(struct shoal_encoder *e, const struct shoal_point *point);
int shoal__put_off(struct shoal_encoder *e, const struct shoal_birth *birth, enum shoal_late_kind kind, PyObject *owner,
                   PyObject *key, PyObject *value);
bool shoal__is_put_off(const struct shoal_encoder *e, const struct shoal_birth *birth, enum shoal_late_kind kind,
                       PyObject *owner, PyObject *key);
/* `key: value` of the dict on top; *any: there was one before. 1: written; 0: put off; -1. */
int shoal__save_item(struct shoal_encoder *e, bool *any, PyObject *key, PyObject *value, enum shoal_late_kind kind,
                     PyObject *owner);
int shoal__end_items(struct shoal_encoder *e, bool any);
/* All that waits for a birth, which is over: the class is in the memo. */
int shoal__save_late(struct shoal_encoder *e, const struct shoal_birth *birth);
/* obj leads to a class under way in a way that nothing was found for: fails. */
int shoal__block(struct shoal_encoder *e, struct shoal_birth *birth);

/* How the other files write what was put off. */
int shoal__save_late_global(struct shoal_encoder *e, PyObject *globals, PyObject *key, PyObject *value);
int shoal__save_late_cell(struct shoal_encoder *e, PyObject *cell);
int shoal__save_late_function(struct shoal_encoder *e, PyObject *function);
int shoal__save_late_attribute(struct shoal_encoder *e, PyObject *class, PyObject *key, PyObject *value);
int shoal__save_late_parameter(struct shoal_encoder *e, PyObject *parameter, PyObject *reduced);
int shoal__save_late_registered(struct shoal_encoder *e, PyObject *class, PyObject *classes);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * special.h - types whose objects pickle refuses, or loses something of, although they are easily made again.
 *
 * Used by save_special.c, which finds out once for each type, and by the files that know how to write them.
 */
#ifndef SHOAL_PICKLE_SPECIAL_H
#define SHOAL_PICKLE_SPECIAL_H

#include "encoder.h"

/*
 * 1: written; 0: there is nothing special about this one, ask it; -1 with an exception.
 * kind: what is known of its type.
 */
typedef int (*shoal_special_saver)(struct shoal_encoder *e, PyObject *obj, const struct shoal_special_type *kind);

/* callable(*arguments), into the memo as obj. Steals `arguments`, which may be NULL with an exception set. 1 or -1. */
int shoal__save_made(struct shoal_encoder *e, PyObject *callable, PyObject *arguments, PyObject *obj);

int shoal__save_property(struct shoal_encoder *e, PyObject *obj, const struct shoal_special_type *kind);
/* classmethod, staticmethod */
int shoal__save_wrapped(struct shoal_encoder *e, PyObject *obj, const struct shoal_special_type *kind);
/* A type's own, of C. */
int shoal__save_own_descriptor(struct shoal_encoder *e, PyObject *obj, const struct shoal_special_type *kind);
int shoal__save_method(struct shoal_encoder *e, PyObject *obj, const struct shoal_special_type *kind);
int shoal__save_super(struct shoal_encoder *e, PyObject *obj, const struct shoal_special_type *kind);

int shoal__save_exception(struct shoal_encoder *e, PyObject *obj, const struct shoal_special_type *kind);
/* The entry of an exception type. 0 or -1. */
int shoal__learn_exception(struct shoal_encoder *e, PyTypeObject *type, struct shoal_special_type *entry);

int shoal__save_mapping_proxy(struct shoal_encoder *e, PyObject *obj, const struct shoal_special_type *kind);
int shoal__save_memory_view(struct shoal_encoder *e, PyObject *obj, const struct shoal_special_type *kind);
int shoal__save_dict_view(struct shoal_encoder *e, PyObject *obj, const struct shoal_special_type *kind);

/* For fields and parameters of dataclasses. 1: *ret_saver is set; 0: the type is none of these; -1. */
int shoal__find_dataclass_saver(struct shoal_pickle_state *state, PyTypeObject *type, shoal_special_saver *ret_saver);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* class_digest.h - what a class is now, as a number: see class_digest.c. Used by: class_record.c, save_class.c. */
#ifndef SHOAL_PICKLE_CLASS_DIGEST_H
#define SHOAL_PICKLE_CLASS_DIGEST_H

#include "state.h"
#include <stdbool.h>

struct shoal_encoder;

/* Never fails: what cannot be looked into counts by its type alone. */
uint64_t shoal__class_digest(struct shoal_pickle_state *state, PyTypeObject *class);
uint64_t shoal__value_digest(struct shoal_pickle_state *state, PyObject *value);
/* Of what is in it, as far as it or its __reduce__ says, for the order in a stream. 0; -1 for what is no Exception. */
int shoal__order_digest(struct shoal_encoder *e, PyObject *value, uint64_t *ret_digest);
uint64_t shoal__text_digest(PyObject *text);

/* Does a new class make this attribute by itself? Then it is neither written nor part of the digest. */
bool shoal__class_makes(const struct shoal_state_names *names, PyTypeObject *class, PyObject *key, PyObject *value);

/* The class's own dict: new reference. */
PyObject *shoal__class_dict(PyTypeObject *class);

#endif

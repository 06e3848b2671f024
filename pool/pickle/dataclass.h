/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * dataclass.h - what a dataclass keeps of its fields and of its decorator, taken apart and made again.
 *
 *   shoal._rebuild._field(bits, name[, type[, default or default factory]])
 *   shoal._rebuild._dataclass_params(bits)
 *
 * The problem: a Field has eleven slots, of which three say something and the others are flags, and a class has one for
 * each of its own and inherited fields. Asked how they are made again, they cost half of a dataclass.
 *
 * So the flags are bits, and the slots are read and set where they lie. What could lead back to the field, or to the
 * class that has it, is not an argument: it is set afterwards, as the state of any object. Used by save_dataclass.c and
 * rebuild_dataclass.c.
 */
#ifndef SHOAL_PICKLE_DATACLASS_H
#define SHOAL_PICKLE_DATACLASS_H

#include "state.h"
#include <stdbool.h>

/* Slots of dataclasses.Field: their numbers in `field_offsets`. Those up to FIELD_VALUES are not flags. */
enum shoal_field_slot {
    FIELD_NAME,
    FIELD_TYPE,
    FIELD_DEFAULT,
    FIELD_FACTORY,
    FIELD_METADATA,
    FIELD_VALUES,
    FIELD_REPR = FIELD_VALUES,
    FIELD_INIT,
    FIELD_COMPARE,
    FIELD_HASH,
    FIELD_KW_ONLY,
    FIELD_KIND,
};

/*
 * The bits of a field:
 *
 *   0 repr   1 init   2 compare   3-4 hash: None, True, False   5-6 kw_only: False, True, MISSING
 *   7-8 _field_type: None, _FIELD, _FIELD_CLASSVAR, _FIELD_INITVAR   9 the fourth argument is a default factory
 */
enum {
    FIELD_BIT_REPR = 1 << 0,
    FIELD_BIT_INIT = 1 << 1,
    FIELD_BIT_COMPARE = 1 << 2,
    FIELD_HASH_SHIFT = 3,
    FIELD_KW_ONLY_SHIFT = 5,
    FIELD_KIND_SHIFT = 7,
    FIELD_BIT_FACTORY = 1 << 9,
    FIELD_BITS_END = 1 << 10,
};

/*
 * Finds the module's types and marks, and where their slots lie. 1: known; 0: this `dataclasses` is another than the
 * one that is known here; -1. Runs code of the module only.
 */
int shoal__dataclass_learn(struct shoal_pickle_state *state);

static inline PyObject **shoal__slot(PyObject *obj, Py_ssize_t offset)
{
    return (PyObject **)(void *)((char *)obj + offset);
}

/* The values that a pair or triple of bits stands for, in their order; borrowed. */
static inline void shoal__field_choices(const struct shoal_pickle_state *state, PyObject *hash[3], PyObject *kw_only[3],
                                        PyObject *kinds[4])
{
    const struct shoal_state_dataclasses *d = &state->dataclasses;
    hash[0] = Py_None;
    hash[1] = kw_only[1] = Py_True;
    hash[2] = kw_only[0] = Py_False;
    kw_only[2] = d->missing;
    kinds[0] = Py_None;
    kinds[1] = d->kind_field;
    kinds[2] = d->kind_class_variable;
    kinds[3] = d->kind_init_variable;
}

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * type_version.h - a number that says what a type is now.
 *
 * The problem: what was found out about a type is kept by its address. The type may be changed, or die and leave its
 * address to another.
 *
 * What it gives: a number that changes when the type or one of its bases is changed, and that no other type gets. It is
 * the interpreter's version tag. Python 3.10 alone begins to count anew after sys._clear_type_cache() and when it runs
 * out of tags; before, it takes the tags of all types away. So there an epoch stands before the tag, which ends when a
 * type that nobody else looks at is found without its own.
 */
#ifndef SHOAL_PICKLE_TYPE_VERSION_H
#define SHOAL_PICKLE_TYPE_VERSION_H

#include "state.h"

#if PY_VERSION_HEX < 0x030B0000
void shoal__type_version_new_epoch(struct shoal_pickle_state *state);
#endif

/* 0: it has none just now; what looks up one of its attributes gives it one. */
static inline uint64_t shoal__type_version(struct shoal_pickle_state *state, PyTypeObject *type)
{
#if PY_VERSION_HEX < 0x030D0000
    if (!PyType_HasFeature(type, Py_TPFLAGS_VALID_VERSION_TAG))
        return 0;
#endif
#if PY_VERSION_HEX < 0x030B0000
    PyTypeObject *watched = (PyTypeObject *)state->shared.watched_type;
    if (!watched || type->tp_version_tag == 0)
        return 0;
    if (!PyType_HasFeature(watched, Py_TPFLAGS_VALID_VERSION_TAG))
        shoal__type_version_new_epoch(state);
    return (uint64_t)state->tag_epoch << 32 | (unsigned)type->tp_version_tag;
#else
    (void)state;
    return (uint64_t)type->tp_version_tag;
#endif
}

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * dict_items.h - items for the dict on top of the reader's stack, one after the other, in any protocol.
 *
 * Their keys are names of ours: they get no memo entry, since a reader may replace them by interned ones.
 */
#ifndef SHOAL_PICKLE_DICT_ITEMS_H
#define SHOAL_PICKLE_DICT_ITEMS_H

#include "encoder.h"

struct dict_items {
    struct shoal_encoder *e;
    bool any;
};

static inline int dict_items_add(struct dict_items *items, PyObject *key, PyObject *value)
{
    struct shoal_encoder *e = items->e;
    if (e->binary && !items->any && shoal__op(e, OP_MARK) < 0)
        return -1;
    items->any = true;
    if ((PyUnicode_CheckExact(key) ? shoal__save_constant(e, key) : shoal__save(e, key)) < 0 ||
        shoal__save(e, value) < 0)
        return -1;
    return e->binary ? 0 : shoal__op(e, OP_SETITEM);
}

static inline int dict_items_end(struct dict_items *items)
{
    return items->e->binary && items->any ? shoal__op(items->e, OP_SETITEMS) : 0;
}

#endif

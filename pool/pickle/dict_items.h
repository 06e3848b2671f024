/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * dict_items.h - items for the dict on top of the reader's stack, one after the other, in any protocol.
 *
 * Their keys are names of ours: they get no memo entry, since a reader may replace them by interned ones. Neither do
 * values that are names (dict_items_add_name): which equal strings are one object is another thing here and there.
 */
#ifndef SHOAL_PICKLE_DICT_ITEMS_H
#define SHOAL_PICKLE_DICT_ITEMS_H

#include "encoder.h"

struct dict_items {
    struct shoal_encoder *e;
    bool any;
};

static inline int dict_items__save_name(struct shoal_encoder *e, PyObject *obj)
{
    return PyUnicode_CheckExact(obj) ? shoal__save_constant(e, obj) : shoal__save(e, obj);
}

static inline int dict_items__begin(struct dict_items *items, PyObject *key)
{
    struct shoal_encoder *e = items->e;
    if (e->binary && !items->any && shoal__op(e, OP_MARK) < 0)
        return -1;
    items->any = true;
    return dict_items__save_name(e, key);
}

static inline int dict_items_add(struct dict_items *items, PyObject *key, PyObject *value)
{
    struct shoal_encoder *e = items->e;
    if (dict_items__begin(items, key) < 0 || shoal__save(e, value) < 0)
        return -1;
    return e->binary ? 0 : shoal__op(e, OP_SETITEM);
}

static inline int dict_items_add_name(struct dict_items *items, PyObject *key, PyObject *value)
{
    struct shoal_encoder *e = items->e;
    if (dict_items__begin(items, key) < 0 || dict_items__save_name(e, value) < 0)
        return -1;
    return e->binary ? 0 : shoal__op(e, OP_SETITEM);
}

static inline int dict_items_end(struct dict_items *items)
{
    return items->e->binary && items->any ? shoal__op(items->e, OP_SETITEMS) : 0;
}

#endif

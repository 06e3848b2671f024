/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * save_bulk.c - runs of simple objects, which most data consist of, with the cursor in a register.
 *
 * Simple are None, bools, ints of one digit, floats, the empty tuple, short bytes and strings (ASCII up to 255
 * characters, others up to 63), and what is in the memo already, in protocols from 2 on (bytes and strings from 4 on),
 * without persistent_id and fast mode. What is written is what the functions of each kind write.
 *
 * Nothing here runs other code, allocates, or gives the GIL away: so a run needs no references of its own and no
 * looking whether its container has changed. Each run ends before the end of the sink and of the frame comes near,
 * where the memo is full, and at the first object that is not simple; the ordinary functions go on from there.
 */
#include "encoder.h"

enum {
    STR_SIZE_MAX = 255,
    WIDE_LENGTH_MAX = STR_SIZE_MAX / 4, /* characters of any kind */
    SIMPLE_SIZE_MAX = 2 + STR_SIZE_MAX + 1, /* header, characters, MEMOIZE */
};

struct bulk {
    struct shoal_memo *memo;
    const uint8_t *stop;   /* the cursor up to which another two objects may be written */
    size_t memo_count_max; /* 0: no strings or bytes */
    size_t bytes_max;
    bool sparse;
    struct shoal_texts *texts; /* there are classes by value: equal strings are one (save_str.c); or NULL */
};

/* False: not possible here. */
static inline bool bulk_begin(struct shoal_encoder *e, struct bulk *bulk)
{
    if (e->protocol < 2 || e->fast || e->hooks.persistent_id)
        return false;
    const struct shoal_sink *sink = e->sink;
    size_t room = (size_t)(sink->limit - sink->cursor);
    if (e->frame_end != SIZE_MAX) {
        size_t used = shoal_sink_used(sink);
        size_t frame_room = used < e->frame_end ? e->frame_end - used : 0;
        room = frame_room < room ? frame_room : room;
    }
    if (room <= 2 * SIMPLE_SIZE_MAX)
        return false;
    bulk->stop = sink->cursor + room - 2 * SIMPLE_SIZE_MAX;
    bulk->memo = &e->memo;
    /* Within a class by value strings are known by what they say (save_str.c). */
    bulk->memo_count_max = e->protocol >= 4 && e->memo.keys && !e->in_class ? (e->memo.mask + 1) / 2 : 0;
    bulk->bytes_max = STR_SIZE_MAX;
    if (e->hooks.out_of_band_min > 0 && e->hooks.out_of_band_min <= STR_SIZE_MAX)
        bulk->bytes_max = e->hooks.out_of_band_min - 1;
    bulk->sparse = e->sparse;
    bulk->texts = e->texts.slots ? &e->texts : NULL;
    return true;
}

/* A call of memcpy costs more than copying a short string. */
static inline uint8_t *copy_short(uint8_t *at, const uint8_t *from, size_t size)
{
    if (size > 32) {
        memcpy(at, from, size);
    } else if (size >= 16) {
        uint8_t first[16], last[16];
        memcpy(first, from, 16);
        memcpy(last, from + size - 16, 16);
        memcpy(at, first, 16);
        memcpy(at + size - 16, last, 16);
    } else if (size >= 8) {
        uint64_t first, last;
        memcpy(&first, from, 8);
        memcpy(&last, from + size - 8, 8);
        memcpy(at, &first, 8);
        memcpy(at + size - 8, &last, 8);
    } else if (size >= 4) {
        uint32_t first, last;
        memcpy(&first, from, 4);
        memcpy(&last, from + size - 4, 4);
        memcpy(at, &first, 4);
        memcpy(at + size - 4, &last, 4);
    } else if (size > 0) {
        at[0] = from[0];
        at[size / 2] = from[size / 2];
        at[size - 1] = from[size - 1];
    }
    return at + size;
}

static inline uint8_t *store_get(uint8_t *at, uint32_t index)
{
    at[0] = index < 256 ? OP_BINGET : OP_LONG_BINGET;
    shoal__store_le(at + 1, index, 4);
    return at + (index < 256 ? 2 : 5);
}

static inline uint8_t *store_text(uint8_t *at, PyObject *str)
{
    size_t length = (size_t)PyUnicode_GET_LENGTH(str);
    uint8_t *end = PyUnicode_IS_ASCII(str)
                       ? copy_short(at + 2, PyUnicode_DATA(str), length)
                       : shoal__store_utf8(at + 2, (int)PyUnicode_KIND(str), PyUnicode_DATA(str), (Py_ssize_t)length);
    at[0] = OP_SHORT_BINUNICODE;
    at[1] = (uint8_t)(end - at - 2);
    return end;
}

static inline uint8_t *store_str(const struct bulk *bulk, uint8_t *at, PyObject *str)
{
    if (!PyUnicode_IS_COMPACT(str) ||
        PyUnicode_GET_LENGTH(str) > (PyUnicode_IS_ASCII(str) ? STR_SIZE_MAX : WIDE_LENGTH_MAX))
        return NULL;
    struct shoal_memo *memo = bulk->memo;
    if (memo->count >= bulk->memo_count_max || memo->count > UINT32_MAX)
        return NULL;
    /* The memo holds references: what has only its container's cannot be in it. */
    if (bulk->sparse && Py_REFCNT(str) <= 1 && !bulk->texts)
        return store_text(at, str);
    struct shoal_memo_slot *slot = shoal_memo_place(memo, (uintptr_t)str);
    if (slot->generation == memo->generation)
        return store_get(at, slot->index);
    if (bulk->texts) {
        if (bulk->sparse && Py_REFCNT(str) <= 1)
            return store_text(at, str);
        PyObject *first = shoal_texts_find(bulk->texts, memo, str);
        if (first)
            return store_get(at, shoal_memo_place(memo, (uintptr_t)first)->index);
        if (!shoal_texts_have_room(bulk->texts) || shoal_texts_add(bulk->texts, memo, str, memo->count) < 0)
            return NULL; /* growing may fail */
    }
    shoal_memo_fill(memo, slot, str);
    at = store_text(at, str);
    *at = OP_MEMOIZE;
    return at + 1;
}

static uint8_t *store_bytes(const struct bulk *bulk, uint8_t *at, PyObject *bytes, struct shoal_memo_slot *slot)
{
    size_t size = (size_t)PyBytes_GET_SIZE(bytes);
    struct shoal_memo *memo = bulk->memo;
    if (size > bulk->bytes_max || memo->count >= bulk->memo_count_max || memo->count > UINT32_MAX)
        return NULL;
    shoal_memo_fill(memo, slot, bytes);
    at[0] = OP_SHORT_BINBYTES;
    at[1] = (uint8_t)size;
    at = copy_short(at + 2, (const uint8_t *)PyBytes_AS_STRING(bytes), size);
    *at = OP_MEMOIZE;
    return at + 1;
}

/* Members of enums, functions, shared parts: mostly not the first time that they are met. Tuples mostly are. */
static uint8_t *store_met(const struct bulk *bulk, uint8_t *at, PyObject *obj, PyTypeObject *type)
{
    struct shoal_memo_slot *slot = shoal_memo_place(bulk->memo, (uintptr_t)obj);
    if (slot->generation == bulk->memo->generation)
        return store_get(at, slot->index);
    if (type == &PyBytes_Type)
        return store_bytes(bulk, at, obj, slot);
    if (type != &PyTuple_Type || PyTuple_GET_SIZE(obj) > 0)
        return NULL;
    *at = OP_EMPTY_TUPLE;
    return at + 1;
}

/* The cursor after it, or NULL: it is not simple, and nothing was written. */
static inline uint8_t *store_simple(const struct bulk *bulk, uint8_t *at, PyObject *obj)
{
    PyTypeObject *type = Py_TYPE(obj);
    if (type == &PyUnicode_Type)
        return store_str(bulk, at, obj);
    long small;
    if (type == &PyLong_Type)
        return shoal__long_is_small(obj, &small) ? shoal__store_small(at, small) : NULL;
    if (type == &PyFloat_Type)
        return shoal__store_float(at, PyFloat_AS_DOUBLE(obj));
    if (obj == Py_None)
        *at = OP_NONE;
    else if (type == &PyBool_Type)
        *at = obj == Py_True ? OP_NEWTRUE : OP_NEWFALSE;
    else if (type == &PyDict_Type || type == &PyList_Type)
        return NULL; /* these are looked up and entered with one probe */
    else
        return store_met(bulk, at, obj, type);
    return at + 1;
}

Py_ssize_t shoal__bulk_items(struct shoal_encoder *e, PyObject *const *items, Py_ssize_t count)
{
    struct bulk bulk;
    if (!bulk_begin(e, &bulk))
        return 0;
    uint8_t *at = e->sink->cursor;
    Py_ssize_t n = 0;
    for (; n < count && at <= bulk.stop; n++) {
        uint8_t *after = store_simple(&bulk, at, items[n]);
        if (!after)
            break;
        at = after;
    }
    e->sink->cursor = at;
    return n;
}

int shoal__bulk_entries(struct shoal_encoder *e, PyObject *dict, Py_ssize_t *position, int most,
                        struct shoal_entry *ret_begun)
{
    struct bulk bulk;
    ret_begun->key = NULL;
    if (!bulk_begin(e, &bulk))
        return 0;
    uint8_t *at = e->sink->cursor;
    PyObject *key, *value;
    Py_ssize_t next = *position;
    int n = 0;
    while (n < most && at <= bulk.stop && PyDict_Next(dict, &next, &key, &value)) {
        uint8_t *after = store_simple(&bulk, at, key);
        if (!after)
            break;
        *position = next;
        at = after;
        after = store_simple(&bulk, at, value);
        if (!after) {
            *ret_begun = (struct shoal_entry){key, value};
            break;
        }
        at = after;
        n++;
    }
    e->sink->cursor = at;
    return n;
}

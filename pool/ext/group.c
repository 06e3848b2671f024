/* SPDX-License-Identifier: BSD-3-Clause */
/* group.c - what has arrived for a map-like call, and its unpickling: see group.h. */
#include "group.h"

#include <stddef.h>
#include <string.h>

#include "engine.h"

#define LONG_LIST 65536 /* items: with their values, two megabytes or more */
#define HEAVY_BYTES 1024 /* a longer result stays where it is instead of being copied into the log */

struct piece { /* in the log, followed by `bytes` of stream, or by a struct arrival if heavy; padded to 8 */
    uint32_t item;
    uint32_t bytes;
    uint32_t kind;
    union {
        uint32_t heavy; /* 0 or 1 */
        uint32_t count; /* RUN: values, of this item and those behind it */
    };
};

static bool is_heavy(const struct piece *piece)
{
    return piece->kind != ARRIVAL_RUN && piece->heavy;
}

static size_t piece_bytes(const struct piece *piece)
{
    return sizeof *piece + (((size_t)piece->bytes + 7) & ~(size_t)7);
}

static void *log_append(struct shoal_group *self, size_t bytes)
{
    if (self->log_read == self->log_end)
        self->log_read = self->log_end = 0;
    if (self->log_capacity - self->log_end < bytes) {
        size_t capacity = 2 * self->log_capacity + bytes + 1024;
        uint8_t *moved = PyMem_RawRealloc(self->log, capacity);
        if (moved == NULL)
            return NULL;
        self->log = moved;
        self->log_capacity = capacity;
    }
    void *place = self->log + self->log_end;
    self->log_end += bytes;
    memory_unread(self->owner.engine, bytes, 0);
    return place;
}

static const uint8_t *log_look(const struct shoal_group *self, struct piece *ret_piece)
{
    const uint8_t *place = self->log + self->log_read;
    memcpy(ret_piece, place, sizeof *ret_piece);
    return place + sizeof *ret_piece;
}

/* This piece is read: its body stays where it is until something is appended. */
static void log_pass(struct shoal_group *self, const struct piece *piece)
{
    size_t bytes = piece_bytes(piece);
    self->log_read += bytes;
    memory_read(self->owner.engine, bytes, 0);
}

void group_finish_if_done(struct shoal_group *self)
{
    if (self->arrived < self->total || self->source != NULL || self->stalled != NULL || !self->begun ||
        self->owner.done)
        return;
    if (self->ending != NULL) {
        struct arrival arrival = {.kind = ARRIVAL_EXCEPTION, .item = (uint32_t)self->total, .object = self->ending,
                                  .block = HOME_NO_BLOCK, .adopted = HOME_NO_BLOCK};
        self->ending = NULL;
        self->total++;
        group_deliver(&self->owner, &arrival); /* and is called again */
        return;
    }
    self->owner.done = true;
    engine_finished(self->owner.engine, &self->owner);
}

static void note_arrivals(struct shoal_group *self, uint32_t count)
{
    self->arrived += count;
    if (self->feeder_waits && self->to_the_end && group_has_much_room(self))
        group_wake_feeder(self);
    group_finish_if_done(self);
}

bool group_deliver_small(struct owner *owner, uint32_t item, enum arrival_kind kind, const uint8_t *stream,
                         uint64_t stream_bytes)
{
    struct shoal_group *self = (struct shoal_group *)owner;
    if (stream_bytes > HEAVY_BYTES || self->cancelled || (self->owner.aborts && kind != ARRIVAL_VALUE))
        return false;
    struct piece piece = {.item = item, .kind = (uint32_t)kind, .bytes = (uint32_t)stream_bytes};
    uint8_t *place = log_append(self, piece_bytes(&piece));
    if (place == NULL)
        return false;
    memcpy(place, &piece, sizeof piece);
    memcpy(place + sizeof piece, stream, piece.bytes);
    note_arrivals(self, 1);
    return true;
}

void group_deliver_run(struct owner *owner, uint32_t first_item, uint32_t count, const uint8_t *values, uint64_t bytes)
{
    struct shoal_group *self = (struct shoal_group *)owner;
    if (self->cancelled)
        return;
    struct piece piece = {.item = first_item, .kind = ARRIVAL_RUN, .bytes = (uint32_t)bytes, .count = count};
    uint8_t *place = log_append(self, piece_bytes(&piece));
    if (place != NULL) { /* else the items are missing, and said to be */
        memcpy(place, &piece, sizeof piece);
        memcpy(place + sizeof piece, values, piece.bytes);
    }
    note_arrivals(self, count);
}

void group_deliver(struct owner *owner, struct arrival *arrival)
{
    struct shoal_group *self = (struct shoal_group *)owner;
    if (self->cancelled) {
        arrival_clear(owner->engine, arrival);
        return;
    }
    bool heavy = arrival->block != HOME_NO_BLOCK || arrival->adopted != HOME_NO_BLOCK || arrival->object != NULL ||
                 arrival->buffer_count > 0 || arrival->bytes > HEAVY_BYTES;
    struct piece piece = {.item = arrival->item, .kind = (uint32_t)arrival->kind, .heavy = heavy,
                          .bytes = heavy ? (uint32_t)sizeof *arrival : (uint32_t)arrival->bytes};
    uint8_t *place = log_append(self, piece_bytes(&piece));
    if (place == NULL) {
        arrival_clear(owner->engine, arrival); /* no memory for 100 bytes: the item is missing, and said to be */
    } else {
        memcpy(place, &piece, sizeof piece);
        if (heavy) {
            memcpy(place + sizeof piece, arrival, sizeof *arrival);
        } else {
            memcpy(place + sizeof piece, arrival->data != NULL ? arrival->data : arrival->inline_data, piece.bytes);
            arrival_free_bytes(owner->engine, arrival);
        }
    }
    if (self->owner.aborts && piece.kind != ARRIVAL_VALUE)
        group_abort(self);
    note_arrivals(self, 1);
}

/* ---- decoding ---- */

static int make_room(struct shoal_group *self, uint64_t index)
{
    if (index - self->cursor < self->capacity)
        return 0;
    uint64_t capacity = self->capacity ? self->capacity : 64;
    while (index - self->cursor >= capacity)
        capacity *= 2;
    struct group_value *values = PyMem_Calloc(capacity, sizeof *values);
    if (values == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (uint64_t i = 0; i < self->capacity; i++) {
        uint64_t at = self->cursor + i;
        values[at % capacity] = self->values[at % self->capacity];
    }
    PyMem_Free(self->values);
    self->values = values;
    self->capacity = capacity;
    return 0;
}

struct group_value group_take(struct shoal_group *self, uint64_t index)
{
    struct group_value *place = &self->values[index % self->capacity];
    struct group_value value = *place;
    *place = (struct group_value){0};
    if (value.bytes > 0)
        memory_read(self->owner.engine, value.bytes, 0);
    return value;
}

/* Steals object. bytes: what it took where it came from. */
static int keep(struct shoal_group *self, uint64_t item, PyObject *object, bool ok, uint64_t bytes)
{
    if (self->mode == GROUP_LIST || (self->owner.aborts && !ok)) {
        if (!ok) {
            if (self->error == NULL || item < self->error_item) {
                Py_XSETREF(self->error, object);
                self->error_item = item;
            } else {
                Py_DECREF(object);
            }
        } else if (item < (uint64_t)PyList_GET_SIZE(self->results) &&
                   PyList_GET_ITEM(self->results, (Py_ssize_t)item) == NULL) {
            PyList_SET_ITEM(self->results, (Py_ssize_t)item, object);
        } else {
            Py_DECREF(object);
        }
        return 0;
    }
    uint64_t index = self->mode == GROUP_ORDERED ? item : self->decoded++;
    if (index < self->cursor || make_room(self, index) < 0) {
        Py_DECREF(object);
        return PyErr_Occurred() ? -1 : 0;
    }
    struct group_value before = group_take(self, index);
    self->values[index % self->capacity] = (struct group_value){.object = object, .bytes = bytes, .ok = ok};
    if (bytes > 0)
        memory_unread(self->owner.engine, bytes, 0);
    Py_XDECREF(before.object);
    return 0;
}

/* The values of a run, which stays in the log meanwhile. Making a tuple may run user code (a garbage collection), in
 * which the log may move. */
static int decode_values(struct shoal_group *self, const struct piece *piece)
{
    size_t at = self->log_read + sizeof *piece, end = at + piece->bytes;
    uint64_t last = (self->mode == GROUP_ORDERED ? piece->item : self->decoded) + (uint64_t)piece->count - 1;
    if (self->mode != GROUP_LIST && last >= self->cursor && make_room(self, last) < 0)
        return -1; /* nothing was taken: the next one who asks tries again */
    for (uint32_t i = 0; i < piece->count; i++) {
        const uint8_t *log = self->log, *cursor = log + at;
        PyObject *object = plain_read(&cursor, log + end);
        bool ok = object != NULL;
        at = ok ? (size_t)(cursor - log) : end;
        if (!ok) {
            if (PyErr_Occurred() == NULL)
                raise_damaged(NULL, "its worker said that there were more results");
            object = owner_fetch_exception();
        }
        if (object == NULL || keep(self, (uint64_t)piece->item + i, object, ok, piece->bytes / piece->count) < 0)
            return -1;
    }
    log_pass(self, piece);
    return 0;
}

/* A list that takes megabytes with its values: they come from large pages. */
static bool is_long(const struct shoal_group *self)
{
    return self->mode == GROUP_LIST && self->results != NULL && PyList_GET_SIZE(self->results) >= LONG_LIST;
}

static int decode_run(struct shoal_group *self, const struct piece *piece)
{
    if (!is_long(self))
        return decode_values(self, piece);
    struct shoal_pickle_state *pickle = self->owner.engine->state->pickle;
    bool collects = PyGC_Disable() == 1;
    shoal_large_pages_use(pickle);
    int error = decode_values(self, piece);
    shoal_large_pages_rest(pickle);
    if (collects)
        PyGC_Enable();
    return error;
}

/* Unpickling runs user code, which may make the log grow: what is unpickled is a copy, or the arrival's own memory. */
static int decode_one(struct shoal_group *self)
{
    struct piece piece;
    struct arrival arrival;
    const uint8_t *body = log_look(self, &piece);
    if (piece.kind == ARRIVAL_RUN)
        return decode_run(self, &piece);
    log_pass(self, &piece);
    if (!piece.heavy && piece.kind == ARRIVAL_VALUE) {
        PyObject *object = section_single(body, piece.bytes);
        if (object != NULL)
            return keep(self, piece.item, object, true, piece.bytes);
    }
    if (piece.heavy) {
        memcpy(&arrival, body, sizeof arrival);
    } else {
        memset(&arrival, 0, offsetof(struct arrival, inline_data));
        arrival.kind = (enum arrival_kind)piece.kind;
        arrival.item = piece.item;
        arrival.bytes = piece.bytes;
        arrival.block = arrival.adopted = HOME_NO_BLOCK;
        uint8_t *copy = arrival.inline_data;
        if (piece.bytes > ARRIVAL_INLINE_BYTES)
            copy = arrival_allocate(self->owner.engine, &arrival, piece.bytes);
        if (copy == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        memcpy(copy, body, piece.bytes);
    }
    arrival.of_group = true;
    uint64_t bytes = (arrival.owned != NULL ? arrival.bytes : 0) + arrival.block_bytes;
    PyObject *object;
    int ok = arrival_decode(self->owner.engine, &arrival, &object);
    return ok < 0 ? -1 : keep(self, piece.item, object, ok, bytes);
}

int group_decode(struct shoal_group *self)
{
    if (owner_begin_decoding(&self->owner) < 0)
        return -1;
    int error = 0;
    while (self->log_read < self->log_end && error == 0)
        error = decode_one(self);
    owner_end_decoding(&self->owner);
    if (self->owner.done && is_long(self))
        shoal_large_pages_end(self->owner.engine->state->pickle);
    return error;
}

void group_clear_log(struct shoal_group *self)
{
    while (self->log_read < self->log_end) {
        struct piece piece;
        const uint8_t *body = log_look(self, &piece);
        if (is_heavy(&piece)) {
            struct arrival arrival;
            memcpy(&arrival, body, sizeof arrival);
            arrival_clear(self->owner.engine, &arrival);
        }
        log_pass(self, &piece);
    }
    PyMem_RawFree(self->log);
    self->log = NULL;
    self->log_read = self->log_end = self->log_capacity = 0;
}


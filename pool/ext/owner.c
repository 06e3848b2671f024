/* SPDX-License-Identifier: BSD-3-Clause */
/* owner.c - arrivals and how they are unpickled; watches. See owner.h. */
#include "owner.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine.h"

static int compare_offsets(const void *a, const void *b)
{
    uint64_t first = *(const uint64_t *)a, second = *(const uint64_t *)b;
    return (first > second) - (first < second);
}

void block_list_sort(struct block_list *list)
{
    if (list->count > 1)
        qsort(list->offsets, list->count, sizeof list->offsets[0], compare_offsets);
}

bool block_list_has(const struct block_list *list, uint64_t offset)
{
    return list->count > 0 &&
           bsearch(&offset, list->offsets, list->count, sizeof list->offsets[0], compare_offsets) != NULL;
}

uint8_t *arrival_allocate(struct engine *engine, struct arrival *arrival, size_t size)
{
    uint8_t *bytes = PyMem_RawMalloc(size);
    if (bytes == NULL)
        return NULL;
    arrival->data = arrival->owned = bytes;
    memory_unread(engine, size, 0);
    return bytes;
}

void arrival_free_bytes(struct engine *engine, struct arrival *arrival)
{
    if (arrival->owned != NULL || arrival->block_bytes != 0)
        memory_read(engine, arrival->owned != NULL ? arrival->bytes : 0, arrival->block_bytes);
    PyMem_RawFree(arrival->owned);
    arrival->owned = NULL;
    arrival->block_bytes = 0;
}

void arrival_clear(struct engine *engine, struct arrival *arrival)
{
    if (arrival->kind == ARRIVAL_NONE)
        return;
    bool ours = engine != NULL && engine->epoch == engine->state->fork_epoch; /* a forked child must not give back */
    if (ours && arrival->block != HOME_NO_BLOCK)
        shoal_arena_release(engine->home->arena, arrival->block);
    if (ours && arrival->adopted != HOME_NO_BLOCK)
        shoal_arena_release(engine->home->arena, arrival->adopted);
    if (ours)
        block_list_release(engine, &arrival->shared);
    arrival_free_bytes(engine, arrival);
    Py_CLEAR(arrival->object);
    arrival->kind = ARRIVAL_NONE;
}

/* ---- the giver of out-of-band buffers, parent's side ---- */

struct giver {
    struct engine *engine;
    struct arrival *arrival;
    const uint8_t *table;
    struct block *block, *adopted; /* made when first asked for; strong */
};

/* The Block of this arrival at `slot`, made on first use: it takes the arrival's count over. New block stays ours. */
static struct block *giver_block(struct giver *giver, uint64_t *count, struct block **block)
{
    if (*block != NULL)
        return *block;
    struct home *home = giver->engine->home;
    uint64_t start, size;
    if (*count == HOME_NO_BLOCK || shoal_arena_find(home->arena, *count, 0, &start, &size) < 0 || start != *count) {
        raise_damaged(NULL, "a buffer lies in no block");
        return NULL;
    }
    *block = (struct block *)block_adopt(giver->engine->state, home, start, size, BLOCK_MESSAGE);
    if (*block != NULL) {
        shoal_arena_uncharge(home->arena, start); /* the user's from now on */
        (*block)->in_hand = PyThread_get_thread_ident();
        *count = HOME_NO_BLOCK;
    }
    return *block;
}

/*
 * A user block that came back as a handle, or a part of it: a new reference to what its mode says. The user's own
 * array of it may be gone by now.
 */
static struct block *giver_shared(struct giver *giver, const struct buffer_entry *entry)
{
    struct home *home = giver->engine->home;
    struct module_state *state = giver->engine->state;
    uint64_t offset, size;
    if (!block_list_has(&giver->arrival->shared, entry->block_offset) ||
        shoal_arena_find(home->arena, entry->offset, entry->size_bytes, &offset, &size) < 0 ||
        offset != entry->block_offset) {
        raise_damaged(NULL, "a handle to an array that the task did not have");
        return NULL;
    }
    struct block *known = block_containing(state, shoal_region_at(home->region, entry->offset, entry->size_bytes),
                                           entry->size_bytes);
    bool in_place = entry->flags & (BUFFER_READONLY | BUFFER_OPEN);
    if (known != NULL && known->kind == BLOCK_USER) {
        if (!known->packed)
            in_place = known->mode != BLOCK_AS_COPY;
        if (in_place)
            return (struct block *)Py_NewRef((PyObject *)known);
    }
    struct block *block = (struct block *)(in_place ? block_adopt(state, home, offset, size, BLOCK_USER)
                                                    : block_private(state, home, offset, entry->offset,
                                                                    entry->size_bytes));
    if (block == NULL || block->heap != NULL)
        return block;
    if (shoal_arena_retain(home->arena, offset) < 0) { /* four billion views of it */
        block->epoch--; /* it holds nothing */
        Py_DECREF((PyObject *)block);
        PyErr_NoMemory();
        return NULL;
    }
    if (block->home == NULL)
        block->home = home_retain(home);
    if (in_place) {
        block->mode = entry->flags & BUFFER_OPEN ? BLOCK_OPEN : BLOCK_READ_ONLY;
        block->frozen = block->mode == BLOCK_READ_ONLY;
    }
    return block;
}

static PyObject *give(void *context, Py_ssize_t index)
{
    struct giver *giver = context;
    if (index < 0 || (uint64_t)index >= giver->arrival->buffer_count) {
        raise_damaged(NULL, "it asks for a buffer that it does not have");
        return NULL;
    }
    struct buffer_entry entry;
    memcpy(&entry, giver->table + (size_t)index * sizeof entry, sizeof entry);
    struct block *block;
    if (entry.kind == BUFFER_IN_MESSAGE)
        block = (struct block *)Py_XNewRef((PyObject *)giver_block(giver, &giver->arrival->block, &giver->block));
    else if (entry.kind == BUFFER_ADOPTED)
        block = (struct block *)Py_XNewRef((PyObject *)giver_block(giver, &giver->arrival->adopted, &giver->adopted));
    else
        block = giver_shared(giver, &entry);
    if (block == NULL)
        return NULL;
    PyObject *view = NULL;
    if (entry.offset < block->start || entry.size_bytes > block->size_bytes ||
        entry.offset - block->start > block->size_bytes - entry.size_bytes)
        raise_damaged(NULL, "a buffer lies outside of its block");
    else
        view = view_new(block, entry.offset - block->start, entry.size_bytes,
                        block->frozen || (entry.flags & BUFFER_READONLY));
    Py_DECREF(block);
    return view;
}

/* Who has the result has it from now on. Steals block, which may be NULL. */
static void put_down(struct block *block)
{
    if (block != NULL)
        block->in_hand = 0;
    Py_XDECREF((PyObject *)block);
}

static PyObject *decode_pickle(struct engine *engine, struct arrival *arrival)
{
    const uint8_t *data = arrival->data != NULL ? arrival->data : arrival->inline_data;
    size_t table = (size_t)arrival->buffer_count * sizeof(struct buffer_entry);
    if (table > arrival->bytes) {
        raise_damaged(NULL, "its table of buffers is longer than the message");
        return NULL;
    }
    const uint8_t *cursor = data, *pickle;
    size_t bytes;
    uint32_t buffers;
    if (section_next(&cursor, data + arrival->bytes - table, &pickle, &bytes, &buffers) < 0)
        return NULL;
    if (buffers == SECTION_PLAIN) {
        uint32_t count;
        PyObject *object = section_plain(&pickle, &bytes, &count) < 0 ? NULL : plain_read(&pickle, pickle + bytes);
        if (object == NULL && PyErr_Occurred() == NULL)
            raise_damaged(NULL, "it is not the value that it should be");
        return object;
    }
    struct giver giver = {.engine = engine, .arrival = arrival, .table = data + arrival->bytes - table};
    struct shoal_decoder *decoder = engine->decoder_busy ? shoal_decoder_new(engine->state->pickle) : engine->decoder;
    if (decoder == NULL)
        return NULL;
    bool own = engine->decoder_busy;
    engine->decoder_busy = true;
    if (own)
        engine_set_heir(engine, decoder);
    PyObject *object = shoal_decode(decoder, pickle, bytes, give, &giver, NULL);
    if (own)
        shoal_decoder_free(decoder);
    else
        engine->decoder_busy = false;
    put_down(giver.block);
    put_down(giver.adopted);
    return object;
}

PyObject *owner_fetch_exception(void)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL && value != NULL)
        PyException_SetTraceback(value, traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value;
}

/* What the worker said about an exception -> the exception. Steals payload. */
static PyObject *make_task_error(struct engine *engine, const struct arrival *arrival, PyObject *payload)
{
    char what[64] = "";
    if (arrival->of_group)
        snprintf(what, sizeof what, "element %u of the input", (unsigned)arrival->item);
    PyObject *error = PyObject_CallFunction(engine->task_error, "OsO", payload, what, engine);
    Py_DECREF(payload);
    return error;
}

int arrival_decode(struct engine *engine, struct arrival *arrival, PyObject **ret_object)
{
    int ok;
    if (arrival->kind == ARRIVAL_EXCEPTION) {
        *ret_object = Py_NewRef(arrival->object);
        ok = 0;
    } else {
        enum arrival_kind kind = arrival->kind;
        PyObject *object = decode_pickle(engine, arrival);
        ok = kind == ARRIVAL_VALUE && object != NULL;
        if (kind == ARRIVAL_ERROR && object != NULL && engine->task_error != NULL)
            object = make_task_error(engine, arrival, object);
        if (object == NULL)
            object = owner_fetch_exception();
        else if (!ok && !PyExceptionInstance_Check(object))
            Py_SETREF(object, PyObject_CallFunction(PyExc_RuntimeError, "O", object));
        *ret_object = object;
    }
    arrival_clear(engine, arrival);
    return *ret_object == NULL ? -1 : ok;
}

void owner_deliver(struct owner *owner, struct arrival *arrival)
{
    if (owner->kind == OWNER_ITEM)
        item_deliver(owner, arrival);
    else
        group_deliver(owner, arrival);
}

void owner_run_watches(struct owner *owner)
{
    PyObject *watches = owner->watches;
    owner->watches = NULL;
    if (watches == NULL)
        return;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(watches); i++) {
        PyObject *callback = Py_NewRef(PyList_GET_ITEM(watches, i));
        PyObject *result = PyObject_CallOneArg(callback, (PyObject *)owner);
        if (result == NULL)
            report_unraisable(callback);
        Py_XDECREF(result);
        Py_DECREF(callback);
    }
    if (owner->urgent)
        owner->engine->watched--;
    owner->urgent = false;
    Py_DECREF(watches);
}

PyObject *owner_watch(struct owner *owner, PyObject *callback, bool urgently)
{
    item_track(owner);
    if (owner->engine != NULL) {
        engine_drain(owner->engine);
        engine_after_drain(owner->engine);
    }
    if (owner->done)
        Py_RETURN_FALSE;
    if (owner->watches == NULL) {
        owner->watches = PyList_New(0);
        if (owner->watches == NULL)
            return NULL;
    }
    if (PyList_Append(owner->watches, callback) < 0)
        return NULL;
    if (owner->engine == NULL || !urgently)
        Py_RETURN_TRUE;
    if (!owner->urgent)
        owner->engine->watched++;
    owner->urgent = true;
    progress_attend(owner->engine);
    Py_RETURN_TRUE;
}

PyObject *owner_limit(struct owner *owner, PyObject *args)
{
    long long timeout_ns, grace_ns;
    int aborts = 0;
    if (!PyArg_ParseTuple(args, "LL|p:_limit", &timeout_ns, &grace_ns, &aborts))
        return NULL;
    if (owner->engine != NULL || timeout_ns < 0 || timeout_ns > INT64_MAX / 4 || grace_ns > INT64_MAX / 4) {
        PyErr_SetString(PyExc_ValueError, "limits are set before it is submitted, in nanoseconds");
        return NULL;
    }
    owner->timeout_ns = timeout_ns;
    owner->has_grace = grace_ns >= 0;
    owner->grace_ns = grace_ns;
    owner->aborts = aborts;
    Py_RETURN_NONE;
}

int owner_begin_decoding(struct owner *owner)
{
    unsigned long self = PyThread_get_thread_ident();
    while (owner->decoding) {
        if (owner->decoder == self) {
            PyErr_SetString(PyExc_RuntimeError, "a result asks for itself while it is being unpickled");
            return -1;
        }
        Py_BEGIN_ALLOW_THREADS
        struct timespec pause = {.tv_nsec = 200000}; /* rare, and user code is running: nothing to be woken by */
        nanosleep(&pause, NULL);
        Py_END_ALLOW_THREADS
        if (PyErr_CheckSignals() < 0)
            return -1;
    }
    owner->decoding = true;
    owner->decoder = self;
    return 0;
}

void owner_end_decoding(struct owner *owner)
{
    owner->decoding = false;
}

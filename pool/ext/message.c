/* SPDX-License-Identifier: BSD-3-Clause */
/* message.c - building and taking apart streams; see message.h. */
#include "message.h"

#include "copy.h"
#include "engine.h"
#include "handle.h"

#define RELEASE_GIL_FROM (UINT64_C(1) << 20) /* a shorter copy is done before another thread could make use of it */

static uint64_t align_up(uint64_t value, uint64_t alignment)
{
    return (value + alignment - 1) & ~(alignment - 1);
}

static int outgoing_grow(struct shoal_sink *sink, size_t need)
{
    struct outgoing *out = (struct outgoing *)sink;
    size_t used = shoal_sink_used(sink);
    size_t capacity = used + (used >> 1) + need + 1024;
    uint8_t *moved = out->heap != NULL ? PyMem_RawRealloc(out->heap, capacity) : PyMem_RawMalloc(capacity);
    if (moved == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    if (out->heap == NULL && used > 0)
        memcpy(moved, sink->start, used);
    out->heap = moved;
    sink->start = moved;
    sink->cursor = moved + used;
    sink->limit = moved + capacity;
    return 0;
}

void outgoing_begin(struct outgoing *out, struct module_state *state, struct home *home, uint8_t *ring, size_t room)
{
    memset(out, 0, sizeof *out);
    out->state = state;
    out->home = home;
    out->sink.start = out->sink.cursor = ring;
    out->sink.limit = ring == NULL ? NULL : ring + room;
    out->sink.grow = outgoing_grow;
}

static void taken_drop(struct taken *taken)
{
    if (taken->view.obj != NULL)
        PyBuffer_Release(&taken->view);
    Py_CLEAR(taken->block);
}

static void outgoing_forget_buffers(struct outgoing *out, size_t keep)
{
    while (out->taken_count > keep)
        taken_drop(&out->taken[--out->taken_count]);
}

void outgoing_clear(struct outgoing *out)
{
    outgoing_forget_buffers(out, 0);
    PyMem_Free(out->taken);
    PyMem_RawFree(out->heap);
    out->taken = NULL;
    out->heap = NULL;
}

static struct taken *outgoing_slot(struct outgoing *out)
{
    if (out->taken_count == out->taken_capacity) {
        size_t capacity = out->taken_capacity ? 2 * out->taken_capacity : 8;
        struct taken *moved = PyMem_Realloc(out->taken, capacity * sizeof *moved);
        if (moved == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
        out->taken = moved;
        out->taken_capacity = capacity;
    }
    struct taken *taken = &out->taken[out->taken_count];
    memset(taken, 0, sizeof *taken);
    return taken;
}

/* Two arrays over the same memory come back as two, as they would with pickle: only one of them can have the block. */
static bool overlaps_adopted(const struct outgoing *out, uint64_t offset, uint64_t size_bytes)
{
    for (size_t i = 0; i < out->taken_count; i++) {
        const struct taken *other = &out->taken[i];
        if (other->kind == BUFFER_ADOPTED && offset < other->offset + other->size_bytes &&
            other->offset < offset + size_bytes)
            return true;
    }
    return false;
}

/* The Block of this process that the buffer lies in, borrowed, or NULL: mostly without a walk over all Blocks. */
static struct block *containing(const struct outgoing *out, const struct taken *taken)
{
    uint64_t offset;
    const struct home *home = out->home;
    if (!shoal_region_contains(home->region, taken->view.buf, taken->size_bytes, &offset) &&
        (home->shadow == NULL || !shoal_shadow_may_contain(home->shadow, taken->view.buf)))
        return NULL;
    struct block *block = block_containing(out->state, taken->view.buf, taken->size_bytes);
    return block != NULL && block->epoch == out->state->fork_epoch ? block : NULL;
}

/* What another process's pool gave us by handle, for a pool of ours: from now on our arena has it, too. */
static void find_local(struct outgoing *out, struct taken *taken)
{
    uint8_t *start;
    uint64_t bytes;
    struct block *block = block_behind(out->state, taken->view.obj, &start, &bytes);
    struct block *local = NULL;
    if (block != NULL && out->home == out->state->home && !(block->kind == BLOCK_USER && block->home == out->home))
        local = handle_local(out->state, block);
    if (local == NULL)
        return;
    taken->kind = BUFFER_SHARED;
    taken->block = (struct block *)Py_NewRef((PyObject *)local);
    taken->offset = local->start + (uint64_t)(start - block->address);
}

/* Does the buffer lie in a block that can travel by handle? Fills kind, block, offset and what arrives if so. */
static void find_block(struct outgoing *out, struct taken *taken)
{
    if (taken->size_bytes == 0 || out->self_contained)
        return;
    struct block *block = containing(out, taken);
    if (block == NULL) {
        find_local(out, taken);
        return;
    }
    uint64_t offset = block->start + (uint64_t)((uint8_t *)taken->view.buf - block->address);
    bool is_own = block == out->own_block && !overlaps_adopted(out, offset, taken->size_bytes);
    bool whole = (block->kind == BLOCK_USER && !block->private_here) || block->kind == BLOCK_BORROWED;
    if (whole || ((block->kind == BLOCK_PRIVATE || block->kind == BLOCK_USER) &&
                  block_is_unwritten(block, taken->view.buf, taken->size_bytes)))
        taken->kind = BUFFER_SHARED;
    else if (is_own)
        taken->kind = BUFFER_ADOPTED;
    else
        return;
    taken->block = (struct block *)Py_NewRef(block);
    taken->offset = offset;
}

/*
 * What arrives: an array that can be written, whatever its own flag says, as with multiprocessing; but of an arena
 * block what its mode says. Other things, such as bytes or buffers of Arrow, arrive read-only if they are.
 */
static void settle_flags(struct outgoing *out, struct taken *taken)
{
    bool readonly = taken->view.readonly && !taken->in_pieces;
    taken->readonly = readonly && !shoal_is_array(taken->view.obj);
    if (taken->kind != BUFFER_SHARED)
        return;
    struct block *block = taken->block;
    taken->open = block->mode == BLOCK_OPEN;
    taken->readonly = block->mode == BLOCK_READ_ONLY || (block->mode == BLOCK_OPEN && readonly);
    if (block->kind == BLOCK_USER && block->mode == BLOCK_AS_COPY && !readonly)
        block_freeze_exporter(out->state, taken->view.obj);
}

/* shoal_buffer_taker: 1 taken, 0 in band, -1 exception. */
static int outgoing_take(void *context, PyObject *exporter)
{
    struct outgoing *out = context;
    if (out->taken_count - out->section_first_buffer >= SECTION_BUFFERS_MAX)
        return 0;
    struct taken *taken = outgoing_slot(out);
    if (taken == NULL)
        return -1;
    if (PyObject_GetBuffer(exporter, &taken->view, PyBUF_ANY_CONTIGUOUS) < 0) {
        PyErr_Clear();
        taken->in_pieces = true;
        if (PyObject_GetBuffer(exporter, &taken->view, PyBUF_STRIDED_RO) < 0) {
            PyErr_Clear(); /* in band, the pickler says what is wrong with it */
            return 0;
        }
    }
    taken->size_bytes = (uint64_t)taken->view.len;
    taken->kind = BUFFER_IN_MESSAGE;
    if (!taken->in_pieces)
        find_block(out, taken);
    settle_flags(out, taken);
    bool as_copy = taken->kind == BUFFER_IN_MESSAGE ||
                   (taken->kind == BUFFER_SHARED && !taken->readonly && !taken->open);
    if (as_copy && taken->size_bytes < OUT_OF_BAND_MIN) {
        taken_drop(taken);
        return 0;
    }
    if (taken->kind == BUFFER_SHARED && taken->block->kind == BLOCK_USER)
        block_sent(taken->block);
    if (taken->kind != BUFFER_IN_MESSAGE)
        PyBuffer_Release(&taken->view); /* the block keeps the memory; the array itself may go */
    out->taken_count++;
    return 1;
}

static void put_prefix(uint8_t *at, uint64_t bytes, uint64_t buffers)
{
    uint64_t prefix = bytes << 24 | buffers;
    memcpy(at, &prefix, sizeof prefix);
}

/* 1 written, 0 not plain, -1 exception. */
static int write_plain(struct shoal_sink *sink, PyObject *object)
{
    uint8_t copy[PLAIN_BYTES_MAX];
    bool roomy = (size_t)(sink->limit - sink->cursor) >= sizeof copy;
    uint8_t *end = plain_write(roomy ? sink->cursor : copy, object);
    if (end == NULL)
        return 0;
    if (roomy) {
        sink->cursor = end;
        return 1;
    }
    if (shoal_sink_room(sink, (size_t)(end - copy)) < 0)
        return -1;
    memcpy(sink->cursor, copy, (size_t)(end - copy));
    sink->cursor += end - copy;
    return 1;
}

/* How many of the items, 0 if the first is not plain, -1 exception. */
static int64_t plain_section(struct outgoing *out, PyObject *const *items, uint32_t count)
{
    size_t start = shoal_sink_used(&out->sink);
    uint32_t written = 0;
    int error = 1;
    if (shoal_sink_room(&out->sink, SECTION_PREFIX_BYTES + sizeof written) < 0)
        return -1;
    out->sink.cursor += SECTION_PREFIX_BYTES + sizeof written;
    for (; written < count && (error = write_plain(&out->sink, items[written])) > 0; written++)
        ;
    uint8_t *section = out->sink.start + start;
    if (error < 0 || written == 0) {
        out->sink.cursor = section;
        return error;
    }
    put_prefix(section, (uint64_t)(out->sink.cursor - section) - SECTION_PREFIX_BYTES, SECTION_PLAIN);
    memcpy(section + SECTION_PREFIX_BYTES, &written, sizeof written);
    return written;
}

int64_t outgoing_section(struct outgoing *out, struct shoal_encoder *encoder, PyObject *const *items, uint32_t count)
{
    int64_t plain = plain_section(out, items, count);
    if (plain != 0)
        return plain;
    struct shoal_encoder_options options = {
        .reducers = out->self_contained ? NULL : out->state->forking_reducers,
        .handle_type = out->self_contained ? NULL : out->state->handle_type,
        .handle_reducer = out->state->handle_reducer,
        .own_reducers_only = out->own_reducers_only,
        .take = outgoing_take,
        .take_context = out,
        .out_of_band_min = OUT_OF_BAND_MIN,
        .inheritance = out->inheritance,
        .root = out->root,
        .root_index = out->root_index,
    };
    size_t start = shoal_sink_used(&out->sink);
    size_t first_buffer = out->taken_count;
    out->section_first_buffer = first_buffer;
    if (shoal_sink_room(&out->sink, SECTION_PREFIX_BYTES) < 0)
        return -1;
    out->sink.cursor += SECTION_PREFIX_BYTES;
    if (shoal_encode(encoder, items[0], &out->sink, &options) < 0) {
        out->sink.cursor = out->sink.start + start;
        outgoing_forget_buffers(out, first_buffer);
        return -1;
    }
    uint64_t bytes = shoal_sink_used(&out->sink) - start - SECTION_PREFIX_BYTES;
    put_prefix(out->sink.start + start, bytes, out->taken_count - first_buffer);
    return 1;
}

/* Texts that a function by value may have, too: a pickle of both would say that they are one. */
static bool has_text(PyObject *args)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(args); i++) {
        PyObject *argument = PyTuple_GET_ITEM(args, i);
        if (PyUnicode_Check(argument) || PyBytes_Check(argument))
            return true;
    }
    return false;
}

int outgoing_call(struct outgoing *out, struct shoal_encoder *encoder, PyObject *function, PyObject *args,
                  PyObject *kwargs)
{
    uint8_t copy[PLAIN_BYTES_MAX];
    if (kwargs == NULL && PyFunction_Check(function) && plain_write(copy, args) != NULL && !has_text(args)) {
        out->root = "function";
        if (outgoing_section(out, encoder, &function, 1) < 0)
            return -1;
        return plain_section(out, &args, 1) < 0 ? -1 : 1;
    }
    PyObject *call = PyTuple_Pack(3, function, args, kwargs == NULL ? Py_None : kwargs);
    if (call == NULL)
        return -1;
    out->root = "task";
    int64_t held = outgoing_section(out, encoder, &call, 1);
    Py_DECREF(call);
    return held < 0 ? -1 : 0;
}

int64_t outgoing_seal(struct outgoing *out)
{
    if (out->taken_count == 0)
        return (int64_t)shoal_sink_used(&out->sink);
    size_t table = out->taken_count * sizeof(struct buffer_entry);
    if (shoal_sink_room(&out->sink, 8 + table) < 0)
        return -1;
    while (shoal_sink_used(&out->sink) % 8 != 0)
        *out->sink.cursor++ = 0;
    out->sink.cursor += table;
    return (int64_t)shoal_sink_used(&out->sink);
}

uint64_t outgoing_block_bytes(const struct outgoing *out, uint64_t stream_bytes)
{
    uint64_t total = 0;
    for (size_t i = 0; i < out->taken_count; i++) {
        if (out->taken[i].kind == BUFFER_IN_MESSAGE)
            total = align_up(total, BUFFER_ALIGN) + out->taken[i].size_bytes;
    }
    if (!outgoing_in_ring(out))
        total = align_up(total, BUFFER_ALIGN) + stream_bytes;
    return total;
}

/* Copy what travels in the message's block, buffer by buffer, in the order of outgoing_block_bytes. Needs no GIL. */
static uint64_t copy_all(const struct outgoing *out, uint8_t *block, uint64_t stream_bytes)
{
    uint64_t position = 0;
    bool streaming = copy_is_streaming(outgoing_block_bytes(out, stream_bytes), out->far);
    for (size_t i = 0; i < out->taken_count; i++) {
        const struct taken *taken = &out->taken[i];
        if (taken->kind != BUFFER_IN_MESSAGE)
            continue;
        position = align_up(position, BUFFER_ALIGN);
        const Py_buffer *view = &taken->view;
        if (taken->in_pieces)
            copy_items(block + position, view->buf, view->ndim, view->shape, view->strides, (size_t)view->itemsize,
                       streaming);
        else
            copy_bytes(block + position, view->buf, taken->size_bytes, streaming);
        position += taken->size_bytes;
    }
    if (!outgoing_in_ring(out)) {
        position = align_up(position, BUFFER_ALIGN);
        copy_bytes(block + position, out->heap, stream_bytes, streaming);
    }
    return position; /* of the stream, if it is there */
}

static void write_table(struct outgoing *out, uint64_t block_offset, uint64_t stream_bytes)
{
    uint64_t position = 0;
    uint8_t *place = out->sink.start + stream_bytes - out->taken_count * sizeof(struct buffer_entry);
    for (size_t i = 0; i < out->taken_count; i++, place += sizeof(struct buffer_entry)) {
        struct taken *taken = &out->taken[i];
        struct buffer_entry entry = {
            .offset = taken->offset,
            .size_bytes = taken->size_bytes,
            .kind = (uint32_t)taken->kind,
            .flags = (taken->readonly ? BUFFER_READONLY : 0) | (taken->open ? BUFFER_OPEN : 0),
        };
        if (taken->kind == BUFFER_IN_MESSAGE) {
            position = align_up(position, BUFFER_ALIGN);
            entry.offset = block_offset + position;
            entry.block_offset = block_offset;
            position += taken->size_bytes;
        } else {
            entry.block_offset = taken->block->offset;
        }
        memcpy(place, &entry, sizeof entry);
    }
}

void outgoing_write(struct outgoing *out, uint8_t *block, uint64_t block_offset, uint64_t stream_bytes,
                    uint64_t *ret_stream_offset)
{
    write_table(out, block_offset, stream_bytes); /* first: it is part of the stream that is copied */
    uint64_t position;
    if (outgoing_block_bytes(out, stream_bytes) < RELEASE_GIL_FROM) {
        position = copy_all(out, block, stream_bytes);
    } else {
        Py_BEGIN_ALLOW_THREADS
        position = copy_all(out, block, stream_bytes);
        Py_END_ALLOW_THREADS
    }
    for (size_t i = 0; i < out->taken_count; i++) {
        if (out->taken[i].kind == BUFFER_IN_MESSAGE)
            PyBuffer_Release(&out->taken[i].view);
    }
    if (!outgoing_in_ring(out))
        *ret_stream_offset = block_offset + position;
}

int raise_damaged(struct module_state *state, const char *what)
{
    (void)state;
    PyObject *pickle = PyImport_ImportModule("_pickle");
    PyObject *type = pickle == NULL ? NULL : PyObject_GetAttrString(pickle, "UnpicklingError");
    Py_XDECREF(pickle);
    if (type != NULL)
        PyErr_Format(type, "damaged message: %s", what);
    Py_XDECREF(type);
    return -1;
}

int section_next(const uint8_t **cursor, const uint8_t *end, const uint8_t **ret_pickle, size_t *ret_bytes,
                 uint32_t *ret_buffers)
{
    uint64_t prefix;
    if ((size_t)(end - *cursor) < sizeof prefix)
        return raise_damaged(NULL, "a section is cut short");
    memcpy(&prefix, *cursor, sizeof prefix);
    uint64_t bytes = prefix >> 24;
    if (bytes > (size_t)(end - *cursor) - sizeof prefix)
        return raise_damaged(NULL, "a section is longer than its stream");
    *ret_pickle = *cursor + sizeof prefix;
    *ret_bytes = (size_t)bytes;
    *ret_buffers = (uint32_t)(prefix & SECTION_PLAIN);
    *cursor = *ret_pickle + bytes;
    return 0;
}

int section_plain(const uint8_t **content, size_t *bytes, uint32_t *ret_count)
{
    uint32_t count;
    if (*bytes < sizeof count)
        return raise_damaged(NULL, "a section of values is cut short");
    memcpy(&count, *content, sizeof count);
    if (count == 0)
        return raise_damaged(NULL, "a section of values is empty");
    *content += sizeof count;
    *bytes -= sizeof count;
    *ret_count = count;
    return 0;
}

PyObject *section_single(const uint8_t *section, size_t bytes)
{
    uint64_t prefix;
    uint32_t count;
    if (bytes < sizeof prefix + sizeof count)
        return NULL;
    memcpy(&prefix, section, sizeof prefix);
    memcpy(&count, section + sizeof prefix, sizeof count);
    if (prefix != ((uint64_t)(bytes - sizeof prefix) << 24 | SECTION_PLAIN) || count != 1)
        return NULL;
    const uint8_t *value = section + sizeof prefix + sizeof count;
    PyObject *object = plain_read(&value, section + bytes);
    if (object == NULL)
        PyErr_Clear(); /* no memory: the long way says so */
    return object;
}

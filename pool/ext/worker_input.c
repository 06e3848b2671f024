/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * worker_input.c - reading a task in place.
 *
 * The stream lies in the task ring or in a block, both read-only here. Buffers are given as views of
 *   - the message's own block, which this task alone holds and which is made writable for it;
 *   - the same, but private, for what the function of a batch carries: another worker may have to go on with the batch;
 *   - a block of the user's arrays that others hold, too: private, unless it was shared to be read only, or to be
 *     written by all.
 */
#include <errno.h>
#include <string.h>

#include "worker.h"

int input_begin(struct engine *engine)
{
    struct worker_side *side = engine->side;
    const struct shoal_task *task = &side->task;
    const uint8_t *stream;
    if (task->flags & TASK_IN_RING)
        stream = task->stream_bytes > TASK_RING_BYTES ? NULL
                                                      : engine->tasks.base + task->stream_offset % TASK_RING_BYTES;
    else
        stream = shoal_region_at(engine->home->region, task->stream_offset, task->stream_bytes);
    uint64_t table = task->tag * sizeof(struct buffer_entry);
    if (stream == NULL || task->tag > task->stream_bytes || table > task->stream_bytes)
        return raise_damaged(NULL, "the task's stream is not where it should be");
    side->table = stream + task->stream_bytes - table;
    side->cursor = stream;
    side->end = side->table;
    side->buffer_count = task->tag;
    side->first_buffer = 0;
    side->plain_left = 0;
    return 0;
}

/* End of the last buffer in the message's own block: how much of it we map. */
static uint64_t own_block_bytes(const struct worker_side *side)
{
    uint64_t end = 0;
    for (uint64_t i = 0; i < side->buffer_count; i++) {
        struct buffer_entry entry;
        memcpy(&entry, side->table + i * sizeof entry, sizeof entry);
        if (entry.kind == BUFFER_IN_MESSAGE && entry.offset + entry.size_bytes > end)
            end = entry.offset + entry.size_bytes;
    }
    return end - side->task.block_offset;
}

static int remember(struct worker_side *side, struct block *block)
{
    if (side->block_count == side->block_capacity) {
        size_t capacity = side->block_capacity ? 2 * side->block_capacity : 8;
        struct block **moved = PyMem_Realloc(side->blocks, capacity * sizeof *moved);
        if (moved == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        side->blocks = moved;
        side->block_capacity = capacity;
    }
    side->blocks[side->block_count++] = (struct block *)Py_NewRef((PyObject *)block);
    block->of_task = true;
    return 0;
}

/* Takes over a reference to a new Block and returns it borrowed, kept by the task; NULL with an exception. */
static struct block *keep(struct worker_side *side, PyObject *made)
{
    if (made == NULL)
        return NULL;
    int error = remember(side, (struct block *)made);
    Py_DECREF(made);
    return error < 0 ? NULL : (struct block *)made;
}

static int make_writable(struct engine *engine, struct block *block)
{
    int error = shoal_region_protect(engine->home->region, block->offset, block_pages(block), true);
    block->writable_here = error >= 0;
    return error;
}

/* What others see, too, and what they write: the block itself, from its start to the end of this buffer. */
static struct block *block_in_place(struct engine *engine, const struct buffer_entry *entry)
{
    struct worker_side *side = engine->side;
    uint64_t size = entry->offset + entry->size_bytes - entry->block_offset;
    uint8_t *address = shoal_region_at(engine->home->region, entry->block_offset, size);
    if (address == NULL || entry->offset < entry->block_offset) {
        raise_damaged(NULL, "a buffer lies outside of the region");
        return NULL;
    }
    struct block *known = block_containing(engine->state, address, size);
    if (known != NULL && known->kind == BLOCK_BORROWED && known->offset == entry->block_offset &&
        (known->of_task || known->kept))
        return known;
    struct block *block = keep(side, block_map(engine->state, address, entry->block_offset, size, BLOCK_BORROWED));
    if (block == NULL)
        return NULL;
    block->mode = entry->flags & BUFFER_OPEN ? BLOCK_OPEN : BLOCK_READ_ONLY;
    block->frozen = block->mode == BLOCK_READ_ONLY;
    if (!block->frozen && make_writable(engine, block) < 0) {
        raise_error(-ENOMEM, "cannot make shared memory writable");
        return NULL;
    }
    return block;
}

/* The task's message, whole; NULL without an exception if it cannot be made writable (too many mappings). */
static struct block *own_block(struct engine *engine)
{
    struct worker_side *side = engine->side;
    if (side->own_block != NULL)
        return side->own_block;
    uint64_t size = own_block_bytes(side);
    uint8_t *address = shoal_region_at(engine->home->region, side->task.block_offset, size);
    if (address == NULL) {
        raise_damaged(NULL, "a buffer lies outside of the region");
        return NULL;
    }
    struct block *block = keep(side, block_map(engine->state, address, side->task.block_offset, size, BLOCK_MESSAGE));
    if (block == NULL || make_writable(engine, block) < 0)
        return NULL;
    side->own_block = block;
    return block;
}

/* The Block for this entry, borrowed. */
static struct block *block_for(struct engine *engine, const struct buffer_entry *entry)
{
    struct worker_side *side = engine->side;
    bool own = entry->kind == BUFFER_IN_MESSAGE;
    if (own && entry->block_offset != side->task.block_offset) {
        raise_damaged(NULL, "a buffer lies outside of its message");
        return NULL;
    }
    if (own && !side->reading_function) {
        struct block *block = own_block(engine);
        if (block != NULL || PyErr_Occurred())
            return block;
    }
    if (!own && (entry->flags & (BUFFER_READONLY | BUFFER_OPEN)))
        return block_in_place(engine, entry);
    struct block *block = keep(side, block_private(engine->state, engine->home, entry->block_offset, entry->offset,
                                                   entry->size_bytes));
    if (block != NULL && own)
        block->kind = BLOCK_MESSAGE; /* nobody else knows it: it does not travel by handle */
    return block;
}

static PyObject *give(void *context, Py_ssize_t index)
{
    struct engine *engine = context;
    struct worker_side *side = engine->side;
    if (index < 0 || (uint64_t)index >= side->buffer_count - side->first_buffer) {
        raise_damaged(NULL, "it asks for a buffer that it does not have");
        return NULL;
    }
    struct buffer_entry entry;
    memcpy(&entry, side->table + (side->first_buffer + (uint64_t)index) * sizeof entry, sizeof entry);
    side->meter.word[METER_BYTES_IN] += entry.size_bytes;
    side->meter.word[METER_SAVED] += entry.kind == BUFFER_IN_MESSAGE ? 0 : entry.size_bytes;
    struct block *block = block_for(engine, &entry);
    if (block == NULL)
        return NULL;
    if (entry.offset < block->start || entry.size_bytes > block->size_bytes ||
        entry.offset - block->start > block->size_bytes - entry.size_bytes) {
        raise_damaged(NULL, "a buffer lies outside of its block");
        return NULL;
    }
    return view_new(block, entry.offset - block->start, entry.size_bytes,
                    block->frozen || (entry.flags & BUFFER_READONLY));
}

/* The cursor moves into the next section if that has plain values: 1; else behind it, and there is its pickle: 0. */
static int enter_section(struct worker_side *side, const uint8_t **ret_pickle, size_t *ret_bytes, uint32_t *ret_buffers)
{
    if (section_next(&side->cursor, side->end, ret_pickle, ret_bytes, ret_buffers) < 0)
        return -1;
    if (*ret_buffers != SECTION_PLAIN)
        return 0;
    if (section_plain(ret_pickle, ret_bytes, &side->plain_left) < 0)
        return -1;
    side->cursor = *ret_pickle;
    side->plain_end = *ret_pickle + *ret_bytes;
    return 1;
}

/* To the next value; NULL: there is none, and so none of those that were to follow. */
static inline void pass_plain(struct worker_side *side, const uint8_t *next)
{
    side->plain_left--;
    side->cursor = side->plain_left == 0 || next == NULL ? side->plain_end : next;
}

static PyObject *next_plain(struct worker_side *side)
{
    const uint8_t *next = side->cursor;
    PyObject *object = plain_read(&next, side->plain_end);
    if (object == NULL) {
        if (PyErr_Occurred() == NULL)
            raise_damaged(NULL, "a value is cut short");
        next = plain_skip(side->cursor, side->plain_end);
    }
    pass_plain(side, next);
    return object;
}

int input_note(struct engine *engine, struct input_place *ret_place)
{
    struct worker_side *side = engine->side;
    uint32_t buffers;
    if (section_next(&side->cursor, side->end, &ret_place->pickle, &ret_place->bytes, &buffers) < 0)
        return -1;
    if (buffers == SECTION_PLAIN)
        return raise_damaged(NULL, "values are where there should be a pickle");
    ret_place->first_buffer = side->first_buffer;
    side->first_buffer += buffers;
    return 0;
}

PyObject *input_again(struct engine *engine, const struct input_place *place)
{
    struct worker_side *side = engine->side;
    uint64_t first_buffer = side->first_buffer;
    side->first_buffer = place->first_buffer;
    side->reading_function = true;
    PyObject *object = shoal_decode(side->decoder, place->pickle, place->bytes, give, engine, NULL);
    side->reading_function = false;
    side->first_buffer = first_buffer;
    return object;
}

PyObject *input_next(struct engine *engine)
{
    struct worker_side *side = engine->side;
    if (side->plain_left > 0)
        return next_plain(side);
    const uint8_t *pickle;
    size_t bytes;
    uint32_t buffers;
    int plain = enter_section(side, &pickle, &bytes, &buffers);
    if (plain != 0)
        return plain < 0 ? NULL : next_plain(side);
    PyObject *object = shoal_decode(side->decoder, pickle, bytes, give, engine, NULL);
    side->first_buffer += buffers;
    return object;
}

int input_skip(struct engine *engine, uint32_t items)
{
    struct worker_side *side = engine->side;
    for (; items > 0; items--) {
        const uint8_t *pickle;
        size_t bytes;
        uint32_t buffers;
        int plain = side->plain_left > 0 ? 1 : enter_section(side, &pickle, &bytes, &buffers);
        if (plain < 0)
            return -1;
        if (plain == 0) {
            side->first_buffer += buffers;
            continue;
        }
        pass_plain(side, plain_skip(side->cursor, side->plain_end));
    }
    return 0;
}

void input_item_done(struct engine *engine, size_t block_count)
{
    struct worker_side *side = engine->side;
    size_t count = block_count;
    for (size_t i = block_count; i < side->block_count; i++) {
        struct block *block = side->blocks[i];
        if ((block->shadowed != NULL || block->heap != NULL) && Py_REFCNT(block) == 1)
            Py_DECREF(block);
        else
            side->blocks[count++] = block;
    }
    side->block_count = count;
}

/* The parent is to be told no more that we do not hold it. */
static void unrelease(struct worker_side *side, uint64_t offset)
{
    size_t count = 0;
    for (size_t i = 0; i < side->release_count; i++) {
        if (side->releases[i] != offset)
            side->releases[count++] = side->releases[i];
    }
    side->release_count = count;
}

uint32_t input_end(struct engine *engine, uint64_t adopted, uint64_t *ret_kept)
{
    struct worker_side *side = engine->side;
    uint32_t kept = 0;
    for (size_t i = 0; i < side->block_count; i++) {
        struct block *block = side->blocks[i];
        if (Py_REFCNT(block) > 1 && block->offset != adopted && block->heap == NULL && !block->kept &&
            ret_kept != NULL) {
            ret_kept[kept++] = block->offset;
            block->kept = true;
            unrelease(side, block->offset);
        }
        block->of_task = false;
        Py_DECREF(block);
    }
    side->block_count = 0;
    side->own_block = NULL;
    return kept;
}

/* What the other live Blocks of an arena block need: that we hold it, that it is writable here. */
struct needs {
    bool kept, writable;
};

static void add_needs(struct block *block, void *arg)
{
    struct needs *needs = arg;
    needs->kept |= block->heap == NULL && block->kept;
    needs->writable |= block->heap == NULL && block->writable_here;
}

/* A Block has died in this worker: the parent is told with the next record, if it believes that we hold it. */
void worker_block_gone(struct engine *engine, struct block *block)
{
    struct worker_side *side = engine->side;
    if (side == NULL || !(block->kept || block->writable_here || block->private_here))
        return;
    struct needs others = {0}; /* this one is in no list any more */
    blocks_of_offset(block->state, block->offset, add_needs, &others);
    if (block->private_here)
        shoal_region_share(block->home->region, block->offset, block_pages(block), false);
    if (block->writable_here && !others.writable)
        result_lock(engine, block->offset, block_pages(block));
    if (!block->kept || others.kept)
        return;
    if (side->release_count == side->release_capacity) {
        size_t capacity = side->release_capacity ? 2 * side->release_capacity : 64;
        uint64_t *moved = PyMem_RawRealloc(side->releases, capacity * sizeof *moved);
        if (moved == NULL)
            return; /* the parent takes it back when this process ends */
        side->releases = moved;
        side->release_capacity = capacity;
    }
    side->releases[side->release_count++] = block->offset;
}

PyObject *module_task_item(PyObject *module, PyObject *Py_UNUSED(unused))
{
    struct module_state *state = PyModule_GetState(module);
    return PyLong_FromUnsignedLong(state->serving != NULL ? state->serving->side->item : 0);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * worker_input.c - reading a task in place.
 *
 * The stream lies in the task ring or in a block, both read-only here. Buffers are given as views: of the message's own
 * block, which this task alone holds and which is made writable for it, or of a block of the user's arrays, read-only.
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

static uint64_t pages(uint64_t bytes)
{
    return bytes == 0 ? 4096 : (bytes + 4095) & ~UINT64_C(4095);
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
    return 0;
}

/* The Block for this entry, borrowed: one that this task was given already, or a new one. */
static struct block *block_for(struct engine *engine, const struct buffer_entry *entry)
{
    struct worker_side *side = engine->side;
    struct module_state *state = engine->state;
    bool own = entry->kind == BUFFER_IN_MESSAGE;
    if (own && side->own_block != NULL)
        return side->own_block;
    uint64_t size = own ? own_block_bytes(side) : entry->offset + entry->size_bytes - entry->block_offset;
    uint8_t *address = shoal_region_at(engine->home->region, entry->block_offset, size);
    if (address == NULL || (own && entry->block_offset != side->task.block_offset)) {
        raise_damaged(NULL, "a buffer lies outside of the region");
        return NULL;
    }
    for (size_t i = 0; i < side->block_count && !own; i++) {
        struct block *known = side->blocks[i];
        if (known->offset == entry->block_offset && known->size_bytes >= size)
            return known;
    }
    struct block *block = (struct block *)block_map(state, address, entry->block_offset, size,
                                                    own ? BLOCK_MESSAGE : BLOCK_BORROWED);
    if (block == NULL)
        return NULL;
    int error = remember(side, block);
    Py_DECREF(block);
    if (error < 0)
        return NULL;
    if (own) {
        side->own_block = block;
        error = shoal_region_protect(engine->home->region, block->offset, pages(size), true);
        block->frozen = error < 0; /* too many mappings: then it is read-only */
    }
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
    struct block *block = block_for(engine, &entry);
    if (block == NULL)
        return NULL;
    if (entry.offset < block->offset || entry.size_bytes > block->size_bytes ||
        entry.offset - block->offset > block->size_bytes - entry.size_bytes) {
        raise_damaged(NULL, "a buffer lies outside of its block");
        return NULL;
    }
    return view_new(block, entry.offset - block->offset, entry.size_bytes,
                    block->frozen || (entry.flags & BUFFER_READONLY));
}

PyObject *input_next(struct engine *engine)
{
    struct worker_side *side = engine->side;
    const uint8_t *pickle;
    size_t bytes;
    uint32_t buffers;
    if (section_next(&side->cursor, side->end, &pickle, &bytes, &buffers) < 0)
        return NULL;
    PyObject *object = shoal_decode(side->decoder, pickle, bytes, give, engine, NULL);
    side->first_buffer += buffers;
    return object;
}

int input_skip(struct engine *engine, uint32_t sections)
{
    struct worker_side *side = engine->side;
    while (sections-- > 0) {
        const uint8_t *pickle;
        size_t bytes;
        uint32_t buffers;
        if (section_next(&side->cursor, side->end, &pickle, &bytes, &buffers) < 0)
            return -1;
        side->first_buffer += buffers;
    }
    return 0;
}

uint32_t input_end(struct engine *engine, uint64_t adopted, uint64_t *ret_kept)
{
    struct worker_side *side = engine->side;
    uint32_t kept = 0;
    for (size_t i = 0; i < side->block_count; i++) {
        struct block *block = side->blocks[i];
        bool own = block == side->own_block;
        if (Py_REFCNT(block) > 1 && block->offset != adopted) {
            if (!block->kept && ret_kept != NULL) {
                ret_kept[kept++] = block->offset;
                block->kept = true;
            }
        } else if (own) {
            shoal_region_protect(engine->home->region, block->offset, pages(block->size_bytes), false);
        }
        Py_DECREF(block);
    }
    side->block_count = 0;
    side->own_block = NULL;
    return kept;
}

/* A Block has died in this worker: the parent is told with the next record, if it believes that we hold it. */
void worker_block_gone(struct engine *engine, struct block *block)
{
    struct worker_side *side = engine->side;
    if (side == NULL || !block->kept)
        return;
    if (block->kind == BLOCK_MESSAGE)
        shoal_region_protect(engine->home->region, block->offset, pages(block->size_bytes), false);
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

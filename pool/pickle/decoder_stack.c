/* SPDX-License-Identifier: BSD-3-Clause */
#include "decoder.h"

enum {
    FIRST_DEPTH = 256,
    KEPT_DEPTH = 64 * 1024, /* a larger stack is given back after the stream */
    FIRST_MARKS = 32,
};

int shoal__stack_grow(struct shoal_decoder *decoder)
{
    size_t depth = (size_t)(decoder->end - decoder->base);
    size_t used = (size_t)(decoder->top - decoder->base);
    size_t fence = (size_t)(decoder->fence - decoder->base);
    size_t wanted = depth < FIRST_DEPTH ? FIRST_DEPTH : depth * 2;
    PyObject **base = PyMem_Realloc(decoder->base, wanted * sizeof(*base));
    if (base == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    decoder->base = base;
    decoder->top = base + used;
    decoder->fence = base + fence;
    decoder->end = base + wanted;
    return 0;
}

/* Top moves before each object is dropped: its end may run user code, and the stack must be sound by then. */
void shoal__stack_cut(struct shoal_decoder *decoder, PyObject **to)
{
    while (decoder->top > to)
        Py_DECREF(*--decoder->top);
}

/* After a stream: nothing may be left on it; keep the memory unless it is much. */
void shoal__stack_done(struct shoal_decoder *decoder)
{
    shoal__stack_cut(decoder, decoder->base);
    decoder->fence = decoder->base;
    decoder->mark_count = 0;
    if (decoder->end - decoder->base > KEPT_DEPTH) {
        PyMem_Free(decoder->base);
        decoder->base = decoder->top = decoder->fence = decoder->end = NULL;
    }
    if (decoder->mark_capacity > KEPT_DEPTH) {
        PyMem_Free(decoder->marks);
        decoder->marks = NULL;
        decoder->mark_capacity = 0;
    }
}

int shoal__underflow(const struct shoal_decoder *decoder)
{
    PyErr_SetString(decoder->state->shared.unpickling_error,
                    decoder->mark_count > 0 ? "unexpected MARK found" : "unpickling stack underflow");
    return -1;
}

int shoal__mark(struct shoal_decoder *decoder)
{
    if (decoder->mark_count == decoder->mark_capacity) {
        size_t wanted = decoder->mark_capacity < FIRST_MARKS ? FIRST_MARKS : decoder->mark_capacity * 2;
        struct shoal__mark *marks = PyMem_Realloc(decoder->marks, wanted * sizeof(*marks));
        if (marks == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        decoder->marks = marks;
        decoder->mark_capacity = wanted;
    }
    struct shoal__mark *mark = &decoder->marks[decoder->mark_count++];
    mark->offset = (size_t)(decoder->top - decoder->base);
    mark->index = decoder->memo.used;
    mark->state = SHOAL__NO_STATE;
    decoder->fence = decoder->top;
    return 0;
}

PyObject **shoal__unmark(struct shoal_decoder *decoder)
{
    if (decoder->mark_count == 0) {
        PyErr_SetString(decoder->state->shared.unpickling_error, "could not find MARK");
        return NULL;
    }
    struct shoal__mark *mark = &decoder->marks[decoder->mark_count - 1];
    if (mark->state != SHOAL__NO_STATE && shoal__make_state(decoder, mark) < 0)
        return NULL;
    decoder->mark_count--;
    decoder->fence = decoder->base + (decoder->mark_count > 0 ? mark[-1].offset : 0);
    return decoder->base + mark->offset;
}

PyObject **shoal__unmark_above_one(struct shoal_decoder *decoder)
{
    PyObject **start = shoal__unmark(decoder);
    if (start != NULL && start == decoder->fence) {
        shoal__underflow(decoder);
        return NULL;
    }
    return start;
}

PyObject *shoal__pop_tuple(struct shoal_decoder *decoder, PyObject **from)
{
    Py_ssize_t size = decoder->top - from;
    PyObject *tuple = PyTuple_New(size);
    if (tuple == NULL)
        return NULL;
    for (Py_ssize_t i = 0; i < size; i++)
        PyTuple_SET_ITEM(tuple, i, from[i]);
    decoder->top = from;
    return tuple;
}

PyObject *shoal__pop_list(struct shoal_decoder *decoder, PyObject **from)
{
    Py_ssize_t size = decoder->top - from;
    PyObject *list = PyList_New(size);
    if (list == NULL)
        return NULL;
    for (Py_ssize_t i = 0; i < size; i++)
        PyList_SET_ITEM(list, i, from[i]);
    decoder->top = from;
    return list;
}

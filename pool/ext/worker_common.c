/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * worker_common.c - what all elements of a batch have in common, made anew for each of them, or as good as new.
 *
 * The problem: an array that ten thousand elements share is to arrive at each of them as its own: what one writes no
 * other one sees. To unpickle it, to take private pages for it and to give them back costs more than many elements do.
 *
 * The answer: the array that one element had is given to the next one, where nobody could tell it from a new one:
 *   - nobody but us refers to it, to what it is a view of, or to the memory, not even weakly;
 *   - its header (shape, strides, dtype, flags ...) is as it was;
 *   - no page of the memory was written (shoal_shadow_renew), or all are to see what is written.
 * Else it is dropped and made from its section of the stream, as it would have been without this.
 *
 * The header is looked at in place, by the layout that numpy promises to every extension there is. Before it is relied
 * on, it is compared with what the array says of itself through Python and the buffer protocol.
 *
 * What it costs an element: a look at the count of page faults, and some comparisons. Elements that write pay for the
 * comparisons in vain; after some of them in a row no more are prepared in this batch.
 */
#include "worker.h"

#include "handle.h"
#include "message.h"

#include <string.h>

#define ARRAYS_MAX 4      /* among the arguments in common; with more, they are made anew */
#define CHAIN_MAX 3       /* an array, what it is a view of ... */
#define DIMENSIONS_MAX 4
#define IN_VAIN_MAX 8

struct ndarray {
    PyObject_HEAD
    char *data;
    int dimensions;
    Py_ssize_t *shape, *strides;
    PyObject *base, *dtype;
    int flags;
    PyObject *weakrefs;
};

struct header { /* of one array, as it was when it was made */
    struct ndarray *array; /* borrowed */
    struct ndarray was;
    Py_ssize_t shape[DIMENSIONS_MAX], strides[DIMENSIONS_MAX];
};

struct memory {
    PyObject *view; /* what the last array of the chain has as its base; borrowed, as is the block */
    struct block *block;
    Py_ssize_t references; /* of the block */
    bool seen_by_all;      /* what is written */
};

struct common {
    struct input_place place;
    PyObject *arguments; /* tuple, or NULL: to be made */
    bool lasting;        /* it may serve the next element, too, if all these are as they were */
    unsigned in_vain;
    uint64_t bytes_in, saved; /* what making it counts */
    unsigned header_count, memory_count;
    struct header headers[ARRAYS_MAX * CHAIN_MAX];
    struct memory memories[ARRAYS_MAX];
};

/* ---- what an array is ---- */

static bool has_attribute(PyObject *object, const char *name, const PyObject *value)
{
    PyObject *found = PyObject_GetAttrString(object, name);
    Py_XDECREF(found);
    PyErr_Clear();
    return found == value;
}

static bool has_number(PyObject *object, const char *name, long number)
{
    PyObject *found = PyObject_GetAttrString(object, name);
    bool same = found != NULL && PyLong_Check(found) && PyLong_AsLong(found) == number;
    Py_XDECREF(found);
    PyErr_Clear();
    return same;
}

/* Of an array without dimensions both may be NULL. */
static bool are_same(const Py_ssize_t *a, const Py_ssize_t *b, int count)
{
    return count == 0 || memcmp(a, b, (size_t)count * sizeof *a) == 0;
}

/* Does it say the same of itself as its header in memory? */
static bool agrees(const struct ndarray *array)
{
    PyObject *object = (PyObject *)array;
    Py_buffer buffer;
    if (PyObject_GetBuffer(object, &buffer, PyBUF_STRIDES) < 0) {
        PyErr_Clear();
        return false;
    }
    bool same = buffer.buf == array->data && buffer.ndim == array->dimensions && buffer.ndim <= DIMENSIONS_MAX &&
                are_same(buffer.shape, array->shape, buffer.ndim) &&
                are_same(buffer.strides, array->strides, buffer.ndim);
    PyBuffer_Release(&buffer);
    PyObject *flags = same ? PyObject_GetAttrString(object, "flags") : NULL;
    same = flags != NULL && has_number(flags, "num", array->flags) && has_attribute(object, "base", array->base) &&
           has_attribute(object, "dtype", array->dtype);
    Py_XDECREF(flags);
    PyErr_Clear();
    return same;
}

/* Nobody can change a type of numpy's own. */
static bool is_own_type_of_numpy(PyObject *dtype)
{
    return has_number(dtype, "isbuiltin", 1) && has_attribute(dtype, "metadata", Py_None);
}

static bool is_exact_array(PyObject *object)
{
    return !PyType_HasFeature(Py_TYPE(object), Py_TPFLAGS_HEAPTYPE) && shoal_is_array(object) &&
           Py_TYPE(object)->tp_basicsize >= (Py_ssize_t)sizeof(struct ndarray);
}

/* The array, and what it is a view of: noted, down to the memory. False: it is not what could serve again. */
static bool note_array(struct common *self, const struct module_state *state, PyObject *object)
{
    for (int depth = 0; is_exact_array(object); depth++) {
        struct ndarray *array = (struct ndarray *)object;
        if (depth == CHAIN_MAX || array->base == NULL || array->weakrefs != NULL || !agrees(array) ||
            !is_own_type_of_numpy(array->dtype))
            return false;
        struct header *header = &self->headers[self->header_count++];
        header->array = array;
        header->was = *array;
        for (int i = 0; i < array->dimensions; i++) {
            header->shape[i] = array->shape[i];
            header->strides[i] = array->strides[i];
        }
        object = array->base;
    }
    uint8_t *start;
    uint64_t bytes;
    struct block *block = block_behind((struct module_state *)state, object, &start, &bytes);
    if (block == NULL || Py_TYPE(object) != state->view_type)
        return false;
    bool in_place = block->kind == BLOCK_BORROWED;
    if (!in_place && block->shadowed == NULL)
        return false;
    self->memories[self->memory_count++] =
        (struct memory){.view = object, .block = block, .references = Py_REFCNT(block), .seen_by_all = in_place};
    return true;
}

static bool header_is_as_it_was(const struct header *header)
{
    const struct ndarray *array = header->array, *was = &header->was;
    return Py_REFCNT(array) == 1 && array->data == was->data && array->dimensions == was->dimensions &&
           array->base == was->base && array->dtype == was->dtype && array->flags == was->flags &&
           array->weakrefs == NULL && are_same(array->shape, header->shape, was->dimensions) &&
           are_same(array->strides, header->strides, was->dimensions);
}

/* ---- the arguments ---- */

/* From the outside in: what comes later is reached through what came before, which is there if it is as it was. */
static bool is_as_good_as_new(const struct common *self)
{
    if (Py_REFCNT(self->arguments) != 1)
        return false;
    for (unsigned i = 0; i < self->header_count; i++) {
        if (!header_is_as_it_was(&self->headers[i]))
            return false;
    }
    for (unsigned i = 0; i < self->memory_count; i++) {
        const struct memory *memory = &self->memories[i];
        const struct block *block = memory->block;
        if (Py_REFCNT(memory->view) != 1 || Py_REFCNT(block) != memory->references)
            return false;
        if (!memory->seen_by_all &&
            shoal_shadow_renew(block->shadowed->shadow, block->address, block->size_bytes) != 1)
            return false;
    }
    return true;
}

/* Are all of them such that they may serve again? `sent`: with the handles, which each element gets the objects of. */
static bool note_all(struct common *self, const struct module_state *state, PyObject *sent)
{
    self->header_count = self->memory_count = 0;
    if (self->in_vain >= IN_VAIN_MAX)
        return false;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(sent); i++) {
        PyObject *object = PyTuple_GET_ITEM(sent, i);
        if (state->handle_type != NULL && (PyObject *)Py_TYPE(object) == state->handle_type)
            continue;
        if (self->memory_count == ARRAYS_MAX || !note_array(self, state, object))
            return false;
    }
    return true;
}

static int make(struct engine *engine, struct common *self)
{
    struct worker_side *side = engine->side;
    uint64_t *word = side->meter.word, bytes_in = word[METER_BYTES_IN], saved = word[METER_SAVED];
    PyObject *made = input_again(engine, &self->place);
    if (made != NULL && !PyTuple_CheckExact(made)) {
        raise_damaged(NULL, "these are no arguments");
        Py_CLEAR(made);
    }
    if (made == NULL)
        return -1;
    self->bytes_in = word[METER_BYTES_IN] - bytes_in;
    self->saved = word[METER_SAVED] - saved;
    self->lasting = note_all(self, engine->state, made);
    if (engine->state->handle_arrived)
        made = handles_open(engine, made, HANDLE_IN_ITEM_STAR);
    self->arguments = made;
    return made == NULL ? -1 : 0;
}

/* The arguments for the next element. */
static int prepare(struct engine *engine, struct common *self)
{
    struct worker_side *side = engine->side;
    if (self->arguments != NULL && self->lasting && is_as_good_as_new(self)) {
        self->in_vain = 0;
        side->meter.word[METER_BYTES_IN] += self->bytes_in;
        side->meter.word[METER_SAVED] += self->saved;
        return 0;
    }
    if (self->arguments != NULL) {
        self->in_vain += self->lasting;
        Py_CLEAR(self->arguments);
        input_item_done(engine, side->blocks_of_function);
    }
    return make(engine, self);
}

int common_begin(struct engine *engine)
{
    struct worker_side *side = engine->side;
    if (side->common == NULL)
        side->common = PyMem_Calloc(1, sizeof *side->common);
    if (side->common == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    Py_CLEAR(side->common->arguments);
    side->common->in_vain = 0;
    return input_note(engine, &side->common->place);
}

PyObject *common_join(struct engine *engine, PyObject *rest)
{
    struct common *self = engine->side->common;
    PyObject *all = NULL;
    if (!PyTuple_CheckExact(rest))
        raise_damaged(NULL, "these are no arguments");
    else if (prepare(engine, self) == 0)
        all = PyTuple_New(PyTuple_GET_SIZE(self->arguments) + PyTuple_GET_SIZE(rest));
    Py_ssize_t first = all == NULL ? 0 : PyTuple_GET_SIZE(self->arguments);
    for (Py_ssize_t i = 0; all != NULL && i < PyTuple_GET_SIZE(all); i++)
        PyTuple_SET_ITEM(all, i, Py_NewRef(i < first ? PyTuple_GET_ITEM(self->arguments, i)
                                                     : PyTuple_GET_ITEM(rest, i - first)));
    Py_DECREF(rest);
    return all;
}

void common_end(struct engine *engine)
{
    if (engine->side->common != NULL)
        Py_CLEAR(engine->side->common->arguments);
}

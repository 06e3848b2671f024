/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * decoder.c - the life of a decoder, and of one stream in it.
 *
 * A decoder is used again and again: stack, memo and scratch memory stay. Whatever happens to a stream, at its end the
 * stack is empty, and (from memory) so is the memo.
 */
#include "decoder.h"
#include "number.h"
#include "single_function.h"

enum {
    INDEX_LIMIT_MIN = 256, /* the memo indices and the tuples to walk that any stream may have, however short */
    HASH_BUDGET_MIN = 1 << 20,
    SCRATCH_KEPT = 64 * 1024,
    SHORT_EPOCH = 2, /* steps: opcodes that are not done in place */
    PATIENCE = 8,    /* short epochs in a row */
    REST = 32,       /* steps without */
};

struct shoal_decoder *shoal_decoder_new(struct shoal_pickle_state *state)
{
    struct shoal_decoder *decoder = PyMem_Calloc(1, sizeof(*decoder));
    if (decoder == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    decoder->state = state;
    decoder->instances_dealloc = ((PyTypeObject *)state->shared.unpickling_error)->tp_dealloc;
    shoal__decoder_reset(decoder);
    return decoder;
}

void shoal_decoder_set_heir(struct shoal_decoder *decoder, shoal_heir heir, void *context)
{
    decoder->heir = heir;
    decoder->heir_context = context;
}

void shoal_decoder_free(struct shoal_decoder *decoder)
{
    if (decoder == NULL)
        return;
    shoal__source_close(&decoder->source);
    shoal__stack_done(decoder);
    shoal__memo_done(&decoder->memo);
    Py_CLEAR(decoder->buffers);
    shoal__instances_done(&decoder->instances);
    PyMem_Free(decoder->notes.objects);
    PyMem_Free(decoder->base);
    PyMem_Free(decoder->marks);
    PyMem_Free(decoder->scratch);
    PyMem_Free(decoder);
}

void shoal__decoder_reset(struct shoal_decoder *decoder)
{
    decoder->fix_imports = true;
    decoder->keep_bytes = false;
    decoder->end_is_damage = false;
    decoder->encoding = "ASCII";
    decoder->errors = "strict";
    decoder->give = NULL;
    decoder->give_context = NULL;
    decoder->buffers_given = 0;
    Py_CLEAR(decoder->buffers);
    decoder->memo.index_limit = INDEX_LIMIT_MIN;
    decoder->hash_budget = HASH_BUDGET_MIN;
}

char *shoal__scratch(struct shoal_decoder *decoder, size_t size)
{
    if (decoder->scratch_size < size) {
        size_t wanted = size < 256 ? 256 : size + size / 2;
        char *scratch = PyMem_Realloc(decoder->scratch, wanted);
        if (scratch == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
        decoder->scratch = scratch;
        decoder->scratch_size = wanted;
    }
    return decoder->scratch;
}

/* Where nearly each opcode calls something, epochs only cost: after several that ended soon, some steps go without. */
static bool rests(struct shoal_decoder *decoder)
{
    if (decoder->rest == 0)
        return false;
    decoder->rest--;
    return true;
}

void shoal__plainly(struct shoal_decoder *decoder)
{
    if (rests(decoder))
        return;
    decoder->steps = 0;
    decoder->memo.borrows = true;
    if (!decoder->holding) {
        decoder->collector_was_on = PyGC_Disable() == 1;
        decoder->holding = true;
        shoal__large_pages_use(&decoder->large_pages);
    }
}

void shoal__let_collector_go(struct shoal_decoder *decoder)
{
    decoder->holding = false;
    shoal__large_pages_rest(&decoder->large_pages);
    if (decoder->collector_was_on)
        PyGC_Enable();
}

void shoal__end_epoch(struct shoal_decoder *decoder)
{
    decoder->epoch++;
    decoder->short_epochs = decoder->steps < SHORT_EPOCH ? decoder->short_epochs + 1 : 0;
    if (decoder->short_epochs > PATIENCE)
        decoder->rest = REST;
    decoder->simple = NULL;
    shoal__memo_own(&decoder->memo);
    shoal__keep_promises(decoder);
}

/* The promise at index is of a state that is still open. Marks are in the order of their indices. 0 or -1. */
static int make_open_state(struct shoal_decoder *decoder, size_t index)
{
    size_t low = 0;
    size_t high = decoder->mark_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (decoder->marks[middle].index <= index)
            low = middle + 1;
        else
            high = middle;
    }
    /* Now marks[low - 1] is the last one with an index not above it; a mark right inside of the state has the next. */
    struct shoal__mark *mark = low > 0 ? &decoder->marks[low - 1] : NULL;
    if (mark != NULL && mark->index == index && mark->state == SHOAL__NAMED_STATE)
        return shoal__make_state(decoder, mark);
    PyErr_SetString(PyExc_SystemError, "a promised state has no mark");
    return -1;
}

/* The array grows, or something is there already, or it is a sparse index: the latter two may drop something. */
int shoal__put_over(struct shoal_decoder *decoder, size_t index, PyObject *obj)
{
    struct shoal__memo *memo = &decoder->memo;
    if (index != memo->used || memo->sparse != NULL)
        shoal__release(decoder);
    if (index < memo->used && shoal__is_promise(memo->slots[index]) && make_open_state(decoder, index) < 0)
        return -1;
    return shoal__memo_put_anywhere(memo, index, obj);
}

PyObject *shoal__get(struct shoal_decoder *decoder, size_t index)
{
    struct shoal__memo *memo = &decoder->memo;
    if (index < memo->used && shoal__is_promise(memo->slots[index])) {
        shoal__own(decoder);
        if (shoal__is_promise(memo->slots[index]) && make_open_state(decoder, index) < 0)
            return NULL;
    }
    PyObject *obj = shoal__memo_get(memo, index);
    if (obj == NULL && !PyErr_Occurred())
        PyErr_Format(decoder->state->shared.unpickling_error, "Memo value not found at index %zu", index);
    return Py_XNewRef(obj);
}

/* The stream is over: forgetting what the memo borrows costs nothing. */
static void end_plain(struct shoal_decoder *decoder)
{
    if (decoder->memo.borrows)
        shoal__memo_forget_borrowed(&decoder->memo);
    decoder->in_memory = decoder->unchanging = false;
    decoder->simple = NULL;
    decoder->short_epochs = decoder->steps = decoder->rest = 0;
    decoder->epoch++;
    shoal__instances_clear(&decoder->instances);
    if (decoder->holding)
        shoal__let_collector_go(decoder);
    shoal__large_pages_end(&decoder->large_pages);
}

static PyObject *load_value(struct shoal_decoder *decoder)
{
    decoder->protocol = 0;
    if (shoal__run(decoder) < 0 || shoal__source_settle(decoder) < 0)
        return NULL;
    return shoal__pop(decoder);
}

PyObject *shoal__decoder_load(struct shoal_decoder *decoder)
{
    decoder->busy = true;
    PyObject *value = load_value(decoder);
    end_plain(decoder);
    if (value != NULL && shoal__check_chains(decoder) < 0)
        Py_CLEAR(value);
    if (value == NULL)
        shoal__tell_place(decoder); /* may run user code */

    /* What is left on the stack may run user code when it goes, which must not find (or replace) the exception. */
    PyObject *type;
    PyObject *error;
    PyObject *traceback;
    if (value == NULL)
        PyErr_Fetch(&type, &error, &traceback);
    shoal__stack_done(decoder);
    Py_CLEAR(decoder->persistent_load);
    if (decoder->source.read == NULL || (value == NULL && shoal__notes_are_many(decoder)))
        shoal__memo_clear(&decoder->memo);
    shoal__notes_clear(decoder, value != NULL);
    if (value == NULL)
        PyErr_Restore(type, error, traceback);

    if (decoder->scratch_size > SCRATCH_KEPT) {
        PyMem_Free(decoder->scratch);
        decoder->scratch = NULL;
        decoder->scratch_size = 0;
    }
    decoder->busy = false;
    return value;
}

/* From memory: the memo is the stream's own. */
static PyObject *load_memory(struct shoal_decoder *decoder, const uint8_t *data, size_t length, size_t *ret_used)
{
    struct shoal__source *source = &decoder->source;
    source->start = source->cursor = data;
    source->limit = data + length;
    shoal__count_input(decoder, length);
    decoder->in_memory = true;
    shoal__large_pages_begin(&decoder->large_pages, length);
    shoal__plainly(decoder);
    PyObject *value = shoal__decoder_load(decoder);
    if (value != NULL && ret_used != NULL)
        *ret_used = (size_t)(source->cursor - data);
    source->start = source->cursor = source->limit = NULL;
    shoal__decoder_reset(decoder);
    return value;
}

PyObject *shoal_decode(struct shoal_decoder *decoder, const uint8_t *data, size_t length, shoal_buffer_giver give,
                       void *give_context, size_t *ret_used)
{
    PyObject *number = shoal_decode_number(data, length, ret_used);
    if (number != NULL)
        return number;
    PyObject *function = ret_used == NULL ? shoal__decode_function(decoder, data, length) : NULL;
    if (function != NULL || PyErr_Occurred())
        return function;
    decoder->give = give;
    decoder->give_context = give_context;
    decoder->end_is_damage = true;
    return load_memory(decoder, data, length, ret_used);
}

/* The n-th buffer is the iterator's next one. */
static PyObject *give_next(void *context, Py_ssize_t index)
{
    const struct shoal_decoder *decoder = context;
    (void)index;
    PyObject *buffer = PyIter_Next(decoder->buffers);
    if (buffer == NULL && !PyErr_Occurred())
        PyErr_SetString(decoder->state->shared.unpickling_error, "not enough out-of-band buffers");
    return buffer;
}

/* options: borrowed until the decoder is reset, but for the iterator over its buffers. 0 or -1. */
int shoal__decoder_configure(struct shoal_decoder *decoder, const struct shoal__load_options *options)
{
    decoder->fix_imports = options->fix_imports;
    decoder->encoding = options->encoding;
    decoder->errors = options->errors;
    decoder->keep_bytes = strcmp(options->encoding, "bytes") == 0;
    if (options->buffers == NULL || options->buffers == Py_None)
        return 0;
    decoder->buffers = PyObject_GetIter(options->buffers);
    if (decoder->buffers == NULL)
        return -1;
    decoder->give = give_next;
    decoder->give_context = decoder;
    return 0;
}

PyObject *shoal__decode_object(struct shoal_decoder *decoder, PyObject *data, const struct shoal__load_options *options)
{
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    PyObject *value = NULL;
    decoder->unchanging = PyBytes_CheckExact(data);
    if (shoal__decoder_configure(decoder, options) == 0)
        value = load_memory(decoder, view.buf, (size_t)view.len, NULL);
    else
        shoal__decoder_reset(decoder);
    PyBuffer_Release(&view);
    return value;
}

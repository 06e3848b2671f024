/* SPDX-License-Identifier: BSD-3-Clause */
#include "encoder.h"
#include "number.h"
#include "single_function.h"

#include <stdarg.h>
#include <stdio.h>

int shoal_encoder_init(struct shoal_encoder *encoder, struct shoal_pickle_state *state)
{
    *encoder = (struct shoal_encoder){
        .state = state, .protocol = SHOAL_PROTOCOL_DEFAULT, .binary = true, .frame_end = SIZE_MAX};
    return shoal_memo_init(&encoder->memo);
}

void shoal_encoder_done(struct shoal_encoder *encoder)
{
    shoal_memo_done(&encoder->memo);
    shoal__classes_clear(encoder);
    PyMem_Free(encoder->late);
    encoder->late = NULL;
    shoal__path_forget(encoder);
    Py_CLEAR(encoder->fast_seen);
    Py_CLEAR(encoder->first_code);
    Py_CLEAR(encoder->codes);
}

struct shoal_encoder *shoal_encoder_new(struct shoal_pickle_state *state)
{
    struct shoal_encoder *encoder = PyMem_Malloc(sizeof *encoder);
    if (!encoder) {
        PyErr_NoMemory();
        return NULL;
    }
    if (shoal_encoder_init(encoder, state) < 0) {
        PyMem_Free(encoder);
        return NULL;
    }
    return encoder;
}

void shoal_encoder_free(struct shoal_encoder *encoder)
{
    if (!encoder)
        return;
    shoal_encoder_done(encoder);
    PyMem_Free(encoder);
}

int shoal__encoder_set_protocol(struct shoal_encoder *encoder, PyObject *protocol, int fix_imports,
                                PyObject *buffer_callback)
{
    long chosen = SHOAL_PROTOCOL_DEFAULT;
    if (protocol && protocol != Py_None) {
        chosen = PyLong_AsLong(protocol);
        if (chosen == -1 && PyErr_Occurred())
            return -1;
        if (chosen < 0)
            chosen = SHOAL_PROTOCOL_HIGHEST;
        else if (chosen > SHOAL_PROTOCOL_HIGHEST) {
            PyErr_Format(PyExc_ValueError, "pickle protocol must be <= %d", SHOAL_PROTOCOL_HIGHEST);
            return -1;
        }
    }
    if (buffer_callback && buffer_callback != Py_None && chosen < 5) {
        PyErr_SetString(PyExc_ValueError, "buffer_callback needs protocol >= 5");
        return -1;
    }
    encoder->protocol = (int)chosen;
    encoder->binary = chosen >= 1;
    encoder->fix_imports = fix_imports && chosen < 3;
    encoder->hooks.buffer_callback = buffer_callback == Py_None ? NULL : buffer_callback;
    return 0;
}

static int run(struct shoal_encoder *encoder, PyObject *obj)
{
    encoder->path_mode = PATH_UNDECIDED;
    encoder->path_length = 0;
    encoder->fast_depth = 0;
    encoder->births = NULL;
    encoder->in_class = 0;
    encoder->maker = NULL;
    if (encoder->protocol >= 2) {
        const uint8_t header[] = {OP_PROTO, (uint8_t)encoder->protocol};
        if (shoal__raw(encoder, header, sizeof header) < 0)
            return -1;
    }
    encoder->frame_end = SIZE_MAX;
    if (encoder->framing) {
        if (!shoal__room(encoder, SHOAL_FRAME_HEADER_SIZE))
            return -1;
        shoal__frame_open(encoder);
    }
    if (shoal__save(encoder, obj) < 0) {
        shoal__path_tell(encoder);
        return -1;
    }
    if (shoal__op(encoder, OP_STOP) < 0 || shoal__frame_close(encoder) < 0)
        return -1;
    return 0;
}

int shoal__encoder_run(struct shoal_encoder *encoder, PyObject *obj)
{
    shoal__deep_enter(&encoder->stack, encoder->state);
    int result = run(encoder, obj);
    shoal__deep_leave(&encoder->stack, encoder->state);
    /* After a failure, what waits for a class must not be taken for what the next dump has put off. */
    if (result < 0 || encoder->texts.slots)
        shoal__classes_clear(encoder);
    return result;
}

int shoal_encode(struct shoal_encoder *encoder, PyObject *obj, struct shoal_sink *sink,
                 const struct shoal_encoder_options *options)
{
    if (shoal_sink_room(sink, SHOAL_NUMBER_BYTES_MAX) < 0)
        return -1;
    size_t number = shoal_encode_number(obj, sink->cursor);
    sink->cursor += number;
    if (number > 0)
        return 0;
    if (PyFunction_Check(obj)) {
        int bytes = shoal_sink_room(sink, SHOAL_FUNCTION_BYTES_MAX);
        if (bytes == 0)
            bytes = shoal__encode_function(encoder->state, options ? options->inheritance : NULL, obj, sink->cursor);
        if (bytes > 0)
            sink->cursor += bytes;
        if (bytes != 0)
            return bytes < 0 ? -1 : 0;
    }
    encoder->sink = sink;
    encoder->hooks = (struct shoal_encoder_hooks){0};
    encoder->root = options ? options->root : NULL;
    encoder->root_index = options ? options->root_index : 0;
    if (options) {
        encoder->hooks.reducers = options->reducers;
        encoder->hooks.handle_type = options->handle_type;
        encoder->hooks.handle_reducer = options->handle_reducer;
        encoder->hooks.own_reducers_only = options->own_reducers_only;
        encoder->hooks.inheritance = options->inheritance;
        encoder->hooks.take = options->take;
        encoder->hooks.take_context = options->take_context;
        encoder->hooks.out_of_band_min = options->take ? options->out_of_band_min : 0;
    }
    encoder->protocol = 5;
    encoder->binary = true;
    encoder->fix_imports = false;
    encoder->framing = false;
    encoder->sparse = true;
    int result = shoal__encoder_run(encoder, obj);
    if (result == 0) {
        shoal_memo_reset(&encoder->memo);
        return 0;
    }
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback); /* what is dropped with the memo may run code */
    shoal_memo_reset(&encoder->memo);
    PyErr_Restore(type, value, traceback);
    return result;
}

/* ---- frames: from 4 on, a stream is cut into frames so that a reader can fetch it in large pieces ---- */

void shoal__frame_open(struct shoal_encoder *encoder)
{
    encoder->frame_start = shoal_sink_used(encoder->sink);
    encoder->frame_end = encoder->frame_start + SHOAL_FRAME_HEADER_SIZE + SHOAL_FRAME_SIZE_TARGET;
    encoder->sink->cursor += SHOAL_FRAME_HEADER_SIZE; /* filled in when it is closed */
}

int shoal__frame_close(struct shoal_encoder *encoder)
{
    if (encoder->frame_end == SIZE_MAX)
        return 0;
    uint8_t *header = encoder->sink->start + encoder->frame_start;
    size_t length = (size_t)(encoder->sink->cursor - header) - SHOAL_FRAME_HEADER_SIZE;
    if (length >= SHOAL_FRAME_SIZE_MIN) {
        header[0] = OP_FRAME;
        shoal__store_le(header + 1, length, 8);
    } else {
        memmove(header, header + SHOAL_FRAME_HEADER_SIZE, length);
        encoder->sink->cursor -= SHOAL_FRAME_HEADER_SIZE;
    }
    encoder->frame_end = SIZE_MAX;
    return 0;
}

int shoal__flush(struct shoal_encoder *encoder)
{
    size_t used = shoal_sink_used(encoder->sink);
    if (!encoder->hooks.file_write || used == 0)
        return 0;
    PyObject *bytes = PyBytes_FromStringAndSize((const char *)encoder->sink->start, (Py_ssize_t)used);
    if (!bytes)
        return -1;
    encoder->sink->cursor = encoder->sink->start;
    PyObject *result = PyObject_CallOneArg(encoder->hooks.file_write, bytes);
    Py_DECREF(bytes);
    Py_XDECREF(result);
    return result ? 0 : -1;
}

int shoal__frame_turn(struct shoal_encoder *encoder)
{
    if (encoder->births)
        return 0; /* it may have to go back */
    if (shoal__frame_close(encoder) < 0 || shoal__flush(encoder) < 0)
        return -1;
    if (!shoal__room(encoder, SHOAL_FRAME_HEADER_SIZE))
        return -1;
    shoal__frame_open(encoder);
    return 0;
}

int shoal__blob(struct shoal_encoder *e, const uint8_t *header, size_t header_size, const void *data, size_t size,
                PyObject *payload)
{
    bool apart = size >= SHOAL_FRAME_SIZE_TARGET;
    if (!apart || e->births || (!e->framing && !e->hooks.file_write)) {
        if (!shoal__room(e, header_size + size))
            return -1;
        memcpy(e->sink->cursor, header, header_size);
        memcpy(e->sink->cursor + header_size, data, size);
        e->sink->cursor += header_size + size;
        return 0;
    }
    if (shoal__frame_close(e) < 0 || shoal__raw(e, header, header_size) < 0)
        return -1;
    if (e->hooks.file_write) {
        if (shoal__flush(e) < 0)
            return -1;
        PyObject *whole = payload ? Py_NewRef(payload) : PyBytes_FromStringAndSize(data, (Py_ssize_t)size);
        PyObject *result = whole ? PyObject_CallOneArg(e->hooks.file_write, whole) : NULL;
        Py_XDECREF(whole);
        Py_XDECREF(result);
        if (!result)
            return -1;
    } else if (shoal__raw(e, data, size) < 0) {
        return -1;
    }
    if (e->framing) {
        if (!shoal__room(e, SHOAL_FRAME_HEADER_SIZE))
            return -1;
        shoal__frame_open(e);
    }
    return 0;
}

/* ---- small pieces ---- */

int shoal__text(struct shoal_encoder *e, const char *format, ...)
{
    char text[64];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return shoal__raw(e, text, (size_t)length);
}

int shoal__begin_tuple(struct shoal_encoder *e, Py_ssize_t n)
{
    if (n == 0 || (n <= 3 && e->protocol >= 2))
        return 0;
    return shoal__op(e, OP_MARK);
}

int shoal__end_tuple(struct shoal_encoder *e, Py_ssize_t n)
{
    if (n == 0) {
        if (!e->binary && shoal__op(e, OP_MARK) < 0)
            return -1;
        return shoal__op(e, e->binary ? OP_EMPTY_TUPLE : OP_TUPLE);
    }
    if (n <= 3 && e->protocol >= 2)
        return shoal__op(e, OP_TUPLE1 + (int)n - 1);
    return shoal__op(e, OP_TUPLE);
}

int shoal__empty_dict(struct shoal_encoder *e)
{
    if (e->binary)
        return shoal__op(e, OP_EMPTY_DICT);
    return shoal__op(e, OP_MARK) < 0 ? -1 : shoal__op(e, OP_DICT);
}

int shoal__put_key(struct shoal_encoder *e, uintptr_t key)
{
    size_t index = e->memo.count;
    if (index > UINT32_MAX) {
        PyErr_SetString(e->state->shared.pickling_error, "memo id too large for LONG_BINPUT");
        return -1;
    }
    if (shoal_memo_put(&e->memo, key, (uint32_t)index) < 0)
        return -1;
    if (e->protocol >= 4)
        return shoal__op(e, OP_MEMOIZE);
    if (!e->binary)
        return shoal__text(e, "%c%zu\n", OP_PUT, index);
    uint8_t code[5] = {index < 256 ? OP_BINPUT : OP_LONG_BINPUT};
    shoal__store_le(code + 1, index, 4);
    return shoal__raw(e, code, index < 256 ? 2 : 5);
}

int shoal__put(struct shoal_encoder *e, PyObject *obj)
{
    if (e->fast)
        return 0;
    if (e->protocol < 4 || !shoal_memo_has_room(&e->memo) || e->sink->cursor == e->sink->limit)
        return shoal__put_key(e, (uintptr_t)obj);
    struct shoal_memo_slot *slot = shoal_memo_place(&e->memo, (uintptr_t)obj);
    if (slot->generation == e->memo.generation)
        return shoal__put_key(e, (uintptr_t)obj);
    shoal_memo_fill(&e->memo, slot, obj);
    *e->sink->cursor++ = OP_MEMOIZE;
    return 0;
}

int shoal__get_index(struct shoal_encoder *e, int64_t index)
{
    if (index < 0) {
        PyErr_SetString(e->state->shared.pickling_error, "the memo was cleared or replaced by the object under way");
        return -1;
    }
    if (!e->binary)
        return shoal__text(e, "%c%lld\n", OP_GET, (long long)index);
    uint8_t *at = shoal__room(e, 5);
    if (!at)
        return -1;
    at[0] = index < 256 ? OP_BINGET : OP_LONG_BINGET;
    shoal__store_le(at + 1, (uint64_t)index, 4);
    e->sink->cursor += index < 256 ? 2 : 5;
    return 0;
}

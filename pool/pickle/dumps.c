/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * dumps.c - the module functions dump and dumps.
 *
 * dumps writes into a piece of the stack first, and only what outgrows it goes into a bytes object that grows: most
 * pickles are small, and one copy of a small one is cheaper than growing.
 *
 * A program often dumps the same thing, or things alike, again and again. So the size of the last large pickle is where
 * growing stops first: malloc then gives the memory that the last one has left, and no page is fetched from the kernel
 * anew (1e6 ints: 6.0 to 4.2 ms, 1191 to 0 page faults a time).
 */
#include "pickler_type.h"

enum {
    SCRATCH_SIZE = 4096,
    FIRST_BYTES_SIZE = 64 * 1024,
    FAST_GROWTH = 4,
    SIZE_SLACK = 32, /* what room is asked for at the end and not used */
    FAST_GROWTH_MAX = 64 * 1024 * 1024,
};

struct bytes_sink {
    struct shoal_sink sink; /* first member: the pickler knows this part only */
    PyObject *bytes;        /* NULL while `scratch` is enough */
    size_t last_size;       /* of the last pickle that was larger than `scratch` */
    uint8_t scratch[SCRATCH_SIZE];
};

static int bytes_sink_grow(struct shoal_sink *sink, size_t need)
{
    struct bytes_sink *self = (struct bytes_sink *)sink;
    size_t used = shoal_sink_used(sink);
    size_t capacity = self->bytes ? (size_t)PyBytes_GET_SIZE(self->bytes) : FIRST_BYTES_SIZE / FAST_GROWTH;
    size_t hint = self->last_size + SIZE_SLACK;
    if (need > (size_t)PY_SSIZE_T_MAX / 2 - used) {
        PyErr_NoMemory();
        return -1;
    }
    /* Pages that are never touched cost nothing and are given back at the end; moving costs. */
    capacity *= capacity < FAST_GROWTH_MAX ? FAST_GROWTH : 2;
    if (hint < capacity && hint >= used + need)
        capacity = hint;
    if (capacity < used + need)
        capacity = used + need;
    if (self->bytes) {
        if (_PyBytes_Resize(&self->bytes, (Py_ssize_t)capacity) < 0) {
            sink->start = sink->cursor = sink->limit = self->scratch;
            return -1;
        }
    } else {
        self->bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)capacity);
        if (!self->bytes)
            return -1;
        memcpy(PyBytes_AS_STRING(self->bytes), self->scratch, used);
    }
    sink->start = (uint8_t *)PyBytes_AS_STRING(self->bytes);
    sink->cursor = sink->start + used;
    sink->limit = sink->start + capacity;
    return 0;
}

/* The encoder that the last call left, or a new one. */
static struct shoal_encoder *encoder_borrow(struct shoal_pickle_state *state)
{
    struct shoal_encoder *encoder = state->idle_encoder;
    state->idle_encoder = NULL;
    return encoder ? encoder : shoal_encoder_new(state);
}

static void encoder_return(struct shoal_pickle_state *state, struct shoal_encoder *encoder)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback); /* what is dropped with the memo may run code */
    shoal_memo_reset(&encoder->memo);
    Py_CLEAR(encoder->fast_seen);
    if (!state->idle_encoder)
        state->idle_encoder = encoder;
    else
        shoal_encoder_free(encoder);
    PyErr_Restore(type, value, traceback);
}

struct dump_options {
    PyObject *protocol;
    int fix_imports;
    PyObject *buffer_callback;
};

static int encode_with(struct shoal_encoder *encoder, PyObject *obj, struct shoal_sink *sink, PyObject *file_write,
                       const struct dump_options *options)
{
    encoder->hooks = (struct shoal_encoder_hooks){.file_write = file_write};
    if (shoal__encoder_set_protocol(encoder, options->protocol, options->fix_imports, options->buffer_callback) < 0)
        return -1;
    encoder->framing = encoder->protocol >= 4;
    encoder->sparse = false;
    encoder->fast = false;
    encoder->sink = sink;
    if (shoal__encoder_run(encoder, obj) < 0)
        return -1;
    return shoal__flush(encoder);
}

static PyObject *dumps_with(struct shoal_pickle_state *state, PyObject *obj, const struct dump_options *options)
{
    struct shoal_encoder *encoder = encoder_borrow(state);
    if (!encoder)
        return NULL;
    struct bytes_sink out;
    out.bytes = NULL;
    out.last_size = state->last_dumps_size;
    out.sink = (struct shoal_sink){out.scratch, out.scratch, out.scratch + SCRATCH_SIZE, bytes_sink_grow};
    int result = encode_with(encoder, obj, &out.sink, NULL, options);
    encoder_return(state, encoder);
    if (result < 0) {
        Py_XDECREF(out.bytes);
        return NULL;
    }
    Py_ssize_t used = (Py_ssize_t)shoal_sink_used(&out.sink);
    if (!out.bytes)
        return PyBytes_FromStringAndSize((const char *)out.scratch, used);
    state->last_dumps_size = (size_t)used;
    _PyBytes_Resize(&out.bytes, used);
    return out.bytes;
}

static PyObject *dumps(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"obj", "protocol", "fix_imports", "buffer_callback", NULL};
    struct shoal_pickle_state *state = shoal_pickle_state_of_function(self);
    PyObject *obj;
    struct dump_options options = {.fix_imports = 1};
    if (!kwargs && PyTuple_GET_SIZE(args) == 1)
        return dumps_with(state, PyTuple_GET_ITEM(args, 0), &options);
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O$pO:dumps", names, &obj, &options.protocol,
                                     &options.fix_imports, &options.buffer_callback))
        return NULL;
    return dumps_with(state, obj, &options);
}

static int dump_with(struct shoal_pickle_state *state, PyObject *obj, PyObject *write,
                     const struct dump_options *options)
{
    struct shoal_encoder *encoder = encoder_borrow(state);
    if (!encoder)
        return -1;
    struct shoal_heap_sink heap;
    shoal_heap_sink_init(&heap);
    int result = encode_with(encoder, obj, &heap.sink, write, options);
    encoder_return(state, encoder);
    shoal_heap_sink_clear(&heap);
    return result;
}

static PyObject *dump(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"obj", "file", "protocol", "fix_imports", "buffer_callback", NULL};
    struct shoal_pickle_state *state = shoal_pickle_state_of_function(self);
    PyObject *obj, *file;
    struct dump_options options = {.fix_imports = 1};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|O$pO:dump", names, &obj, &file, &options.protocol,
                                     &options.fix_imports, &options.buffer_callback))
        return NULL;
    PyObject *write = PyObject_GetAttr(file, state->names.write);
    if (!write) {
        if (PyErr_ExceptionMatches(PyExc_AttributeError))
            PyErr_SetString(PyExc_TypeError, "file must have a 'write' attribute");
        return NULL;
    }
    int result = dump_with(state, obj, write, &options);
    Py_DECREF(write);
    if (result < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyMethodDef shoal__dump_functions[] = {
    {"dump", (PyCFunction)(void (*)(void))dump, METH_VARARGS | METH_KEYWORDS,
     "dump(obj, file, protocol=None, *, fix_imports=True, buffer_callback=None)\n--\n\n"
     "Write a pickle of obj to the binary file."},
    {"dumps", (PyCFunction)(void (*)(void))dumps, METH_VARARGS | METH_KEYWORDS,
     "dumps(obj, protocol=None, *, fix_imports=True, buffer_callback=None)\n--\n\n"
     "A pickle of obj, as bytes."},
    {NULL, NULL, 0, NULL},
};

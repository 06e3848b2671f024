/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * engine_inherit.c - streams between a pool and its workers in which things go by number: see inherited.h.
 *
 * Tasks and results are such. Exceptions are pickled apart, so that their description arrives although they themselves
 * do not: dumps() and loads() are for them.
 */
#include "engine.h"
#include "inherited.h"

#include <string.h>

void engine_set_heir(struct engine *engine, struct shoal_decoder *decoder)
{
    if (engine->inherited != NULL)
        shoal_decoder_set_heir(decoder, inherited_object, engine->inherited);
}

PyObject *engine_inherit(struct engine *engine, PyObject *args)
{
    PyObject *inherited, *also;
    if (!PyArg_ParseTuple(args, "O!O!:inherit", engine->state->inherited_type, &inherited, &PyType_Type, &also))
        return NULL;
    if (engine->open || engine->inherited != NULL) {
        PyErr_SetString(PyExc_ValueError, "inherit() comes before start(), once");
        return NULL;
    }
    engine->inherited = Py_NewRef(inherited);
    engine->inheritance = (struct shoal_inheritance){.number = inherited_number, .stand_in = inherited_stand_in,
                                                     .context = inherited, .also = (PyTypeObject *)Py_NewRef(also)};
    engine_set_heir(engine, engine->decoder);
    Py_RETURN_NONE;
}

void engine_inherit_in_worker(struct engine *engine)
{
    engine->inheritance.number = inherited_number_in_worker;
    engine->inheritance.stand_in = inherited_no_stand_in;
}

struct memory_sink {
    struct shoal_sink sink; /* first */
    uint8_t *bytes;
};

static int grow(struct shoal_sink *sink, size_t need)
{
    struct memory_sink *memory = (struct memory_sink *)sink;
    size_t used = shoal_sink_used(sink);
    size_t capacity = used + (used >> 1) + need + 256;
    uint8_t *moved = PyMem_Realloc(memory->bytes, capacity);
    if (moved == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    memory->bytes = sink->start = moved;
    sink->cursor = moved + used;
    sink->limit = moved + capacity;
    return 0;
}

PyObject *engine_dumps(struct engine *engine, PyObject *object)
{
    struct memory_sink memory = {.sink = {.grow = grow}};
    struct shoal_encoder_options options = {.inheritance = engine_inheritance(engine)};
    struct shoal_encoder *encoder = shoal_encoder_new(engine->state->pickle);
    PyObject *bytes = NULL;
    if (encoder != NULL && shoal_encode(encoder, object, &memory.sink, &options) == 0)
        bytes = PyBytes_FromStringAndSize((const char *)memory.bytes, (Py_ssize_t)shoal_sink_used(&memory.sink));
    if (encoder != NULL)
        shoal_encoder_free(encoder);
    PyMem_Free(memory.bytes);
    return bytes;
}

PyObject *engine_loads(struct engine *engine, PyObject *bytes)
{
    if (!PyBytes_CheckExact(bytes)) {
        PyErr_SetString(PyExc_TypeError, "loads() takes bytes");
        return NULL;
    }
    struct shoal_decoder *decoder = shoal_decoder_new(engine->state->pickle);
    if (decoder == NULL)
        return NULL;
    engine_set_heir(engine, decoder);
    PyObject *object = shoal_decode(decoder, (const uint8_t *)PyBytes_AS_STRING(bytes),
                                    (size_t)PyBytes_GET_SIZE(bytes), NULL, NULL, NULL);
    shoal_decoder_free(decoder);
    return object;
}

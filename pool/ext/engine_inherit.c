/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * engine_inherit.c - streams between a pool and its workers in which things go by number: see inherited.h for workers
 * that were forked, imported.h for those that were started anew.
 *
 * Tasks and results are such. Exceptions are pickled apart, so that their description arrives although they themselves
 * do not: dumps() and loads() are for them.
 */
#include "engine.h"
#include "imported.h"
#include "inherited.h"
#include "worker.h"

#include <string.h>

void engine_set_heir(struct engine *engine, struct shoal_decoder *decoder)
{
    if (engine->inherited == NULL)
        return;
    if (Py_IS_TYPE(engine->inherited, engine->state->inherited_type))
        shoal_decoder_set_heir(decoder, inherited_object, engine->inherited);
    else if (engine->served_pid != 0)
        shoal_decoder_set_heir(decoder, imported_object, engine->inherited);
}

PyObject *engine_inherit(struct engine *engine, PyObject *args)
{
    PyObject *inherited, *also;
    struct module_state *state = engine->state;
    if (!PyArg_ParseTuple(args, "OO!:inherit", &inherited, &PyType_Type, &also))
        return NULL;
    bool forked = Py_IS_TYPE(inherited, state->inherited_type);
    if (!forked && !Py_IS_TYPE(inherited, state->imported_type)) {
        PyErr_SetString(PyExc_TypeError, "an Inherited or Imported");
        return NULL;
    }
    if (engine->open || engine->inherited != NULL) {
        PyErr_SetString(PyExc_ValueError, "inherit() comes before start(), once");
        return NULL;
    }
    engine->inherited = Py_NewRef(inherited);
    engine->inheritance = (struct shoal_inheritance){.context = inherited, .also = (PyTypeObject *)Py_NewRef(also)};
    if (forked) {
        engine->inheritance.number = inherited_number;
        engine->inheritance.stand_in = inherited_stand_in;
        engine->inheritance.keeps = inherited_keeps;
    } else if (engine->served_pid == 0) {
        engine->inheritance.space = imported_space;
        engine->inheritance.keeps = imported_keeps;
    }
    engine_set_heir(engine, engine->side != NULL ? engine->side->decoder : engine->decoder);
    Py_RETURN_NONE;
}

PyObject *engine_inherited_object(struct engine *engine, PyObject *number)
{
    if (engine->inherited == NULL || !Py_IS_TYPE(engine->inherited, engine->state->inherited_type))
        Py_RETURN_NONE;
    return inherited_object(engine->inherited, number);
}

void engine_inherit_in_worker(struct engine *engine)
{
    if (engine->inherited == NULL)
        return;
    engine->inheritance.number = inherited_number_in_worker;
    engine->inheritance.stand_in = NULL;
    engine->inheritance.keeps = NULL;
}

void engine_inherit_fork(struct engine *engine)
{
    if (engine->inherited != NULL && Py_IS_TYPE(engine->inherited, engine->state->inherited_type))
        inherited_fork(engine->inherited);
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

PyObject *engine_dumps(struct engine *engine, PyObject *args)
{
    PyObject *object, *reducers = NULL;
    if (!PyArg_ParseTuple(args, "O|O!:dumps", &object, &PyDict_Type, &reducers))
        return NULL;
    struct memory_sink memory = {.sink = {.grow = grow}};
    struct shoal_encoder_options options = {.inheritance = engine_inheritance(engine), .reducers = reducers};
    struct shoal_encoder *encoder = shoal_encoder_new(engine->state->pickle);
    PyObject *bytes = NULL;
    if (encoder != NULL && shoal_encode(encoder, object, &memory.sink, &options) == 0)
        bytes = PyBytes_FromStringAndSize((const char *)memory.bytes, (Py_ssize_t)shoal_sink_used(&memory.sink));
    if (encoder != NULL)
        shoal_encoder_free(encoder);
    PyMem_Free(memory.bytes);
    return bytes;
}

PyObject *engine_loads(struct engine *engine, PyObject *data)
{
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    PyObject *object = NULL;
    struct shoal_decoder *decoder = shoal_decoder_new(engine->state->pickle);
    if (decoder != NULL) {
        engine_set_heir(engine, decoder);
        object = shoal_decode(decoder, view.buf, (size_t)view.len, NULL, NULL, NULL);
        shoal_decoder_free(decoder);
    }
    PyBuffer_Release(&view);
    return object;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pickle.h - the border of pool/pickle: object graph <-> stream.
 *
 * May use: Python.h, sink.h. May not use: shared memory, the engine. Used by: pool/ext.
 * Everything here needs the GIL.
 */
#ifndef SHOAL_PICKLE_PICKLE_H
#define SHOAL_PICKLE_PICKLE_H

#include "sink.h"

#include <stdbool.h>

struct shoal_pickle_state; /* interned names, imported objects, types; one per module object */

/* Adds Pickler, Unpickler, PicklingError, UnpicklingError, dump, dumps, load, loads, ... to the module. 0 or -1. */
int shoal_pickle_state_init(PyObject *module, struct shoal_pickle_state **ret_state);
int shoal_pickle_state_traverse(struct shoal_pickle_state *state, visitproc visit, void *arg);
int shoal_pickle_state_clear(struct shoal_pickle_state *state);
void shoal_pickle_state_free(struct shoal_pickle_state *state);

/* How much memory this process could still take: 0 with *ret_bytes set, or negative. It bounds deep nesting. */
typedef int (*shoal_memory_meter)(uint64_t *ret_bytes);
void shoal_pickle_state_set_memory_meter(struct shoal_pickle_state *state, shoal_memory_meter meter);

/* ---- for the engine: no file object, no subclass, reused from message to message ---- */

/*
 * Out-of-band buffers. Called for each PickleBuffer (and, in pool mode, each bytes/bytearray of at least
 * `out_of_band_min` bytes) in stream order. `exporter` is any object with the buffer protocol (borrowed: take a
 * reference or a Py_buffer to keep it). Returns 1: taken, out of band; 0: write it in band; -1: exception set.
 * The n-th buffer taken is the n-th that the unpickler asks for. Whether what arrives can be written is the unpickler's
 * giver to say where the exporter is an array of numpy; of anything else the stream says if it is read-only.
 */
typedef int (*shoal_buffer_taker)(void *context, PyObject *exporter);

/* Is it a numpy.ndarray, or of a subclass? Asks for the type's name, not for numpy. */
bool shoal_is_array(PyObject *object);

/*
 * What the reader has already, because it was forked from this process or this one from it, or has imported the same
 * main module: objects by number. Each question may be missing (NULL).
 *
 * `number` is asked about functions, classes, capsules and objects of the type `also`, once each in a stream: a number
 * from 0 on, -1: it has not, -2: exception set. `stand_in` is asked about each global that a function by value takes
 * along: an object (borrowed) to write in place of its value, which need not be there; or NULL, without an exception.
 *
 * `space` is asked about the globals of a function by value: the number of the dict that the reader has for them, or
 * -1; then the function gets that one, in place of a new one. `keeps` is asked about each global that would be written
 * into it: 1 if the reader's value is to stay, 0, or -1 with an exception.
 */
struct shoal_inheritance {
    int64_t (*number)(void *context, PyObject *obj);
    PyObject *(*stand_in)(void *context, PyObject *globals, PyObject *name);
    int64_t (*space)(void *context, PyObject *globals);
    int (*keeps)(void *context, PyObject *function, PyObject *name, PyObject *value);
    void *context;
    PyTypeObject *also;
};

struct shoal_encoder; /* a pickler's working memory: memo table, per-stream state; one per stream under way */

struct shoal_encoder_options {
    PyObject *reducers;         /* dict type -> reducer that goes before copyreg's, or NULL; borrowed */
    PyObject *handle_type, *handle_reducer; /* one type more, which goes before all, or NULL; borrowed */
    bool own_reducers_only;     /* an object that `reducers` has a reducer for is a PicklingError: what such a reducer
                                   gives may be good for one reader only */
    shoal_buffer_taker take;    /* NULL: everything in band */
    void *take_context;
    size_t out_of_band_min;     /* bytes and bytearray from this size on are offered to `take`; 0: only PickleBuffer */
    const struct shoal_inheritance *inheritance; /* or NULL; borrowed */
    const char *root;           /* what obj is, for error messages: a word that shoal._paths knows, or NULL */
    Py_ssize_t root_index;
};

struct shoal_encoder *shoal_encoder_new(struct shoal_pickle_state *state);
void shoal_encoder_free(struct shoal_encoder *encoder);

/*
 * Write one complete protocol 5 pickle (PROTO .. STOP, without FRAME opcodes) of obj at the sink's cursor.
 * 0, or -1 with an exception; the caller then forgets what was written. The memo starts empty for each call.
 * Runs user code (__reduce__ and others): the encoder must not be used again, from this thread or another, until it
 * returns; error messages say where in the object the culprit sits.
 */
int shoal_encode(struct shoal_encoder *encoder, PyObject *obj, struct shoal_sink *sink,
                 const struct shoal_encoder_options *options);

/* New reference to the n-th out-of-band buffer (an object with the buffer protocol), or NULL with an exception. */
typedef PyObject *(*shoal_buffer_giver)(void *context, Py_ssize_t index);

struct shoal_decoder *shoal_decoder_new(struct shoal_pickle_state *state);
void shoal_decoder_free(struct shoal_decoder *decoder);

struct shoal_decoder; /* an unpickler's working memory: stack, memo */

/* The other side of shoal_inheritance: new reference to the object with this number (any object of the stream may stand
 * there), or NULL with an exception. */
typedef PyObject *(*shoal_heir)(void *context, PyObject *number);
void shoal_decoder_set_heir(struct shoal_decoder *decoder, shoal_heir heir, void *context);

/* New reference to a tuple of str: the global names that the code, or code nested in it, uses. NULL: exception. */
PyObject *shoal_code_globals(struct shoal_pickle_state *state, PyObject *code);

/*
 * Read one pickle of any protocol from data, in place; *ret_used (may be NULL) says how many bytes it had.
 * Every byte is fetched once; nothing outside [data, data + length) is read; allocations are in proportion to length.
 * New reference, or NULL with UnpicklingError (damaged or cut short) or what the loaded objects raised.
 * Runs user code: the decoder must not be used again until it returns.
 */
PyObject *shoal_decode(struct shoal_decoder *decoder, const uint8_t *data, size_t length, shoal_buffer_giver give,
                       void *give_context, size_t *ret_used);

/*
 * Objects of a list of some megabytes are about to be made: until _rest, which is as cheap, they lie in large pages
 * (large_pages.h). Neither user code nor a garbage collection may run meanwhile. What is left of the last page goes
 * back with _end.
 */
void shoal_large_pages_use(struct shoal_pickle_state *state);
void shoal_large_pages_rest(struct shoal_pickle_state *state);
void shoal_large_pages_end(struct shoal_pickle_state *state);

#endif

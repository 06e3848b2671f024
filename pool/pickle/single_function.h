/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * single_function.h - whole streams that hold one function that goes by its name or by a number, without an encoder or
 * decoder: what a pool sends with each call and each batch. They are pickles like any other, and mean the same; what
 * is not as usual is left to the long way.
 */
#ifndef SHOAL_PICKLE_SINGLE_FUNCTION_H
#define SHOAL_PICKLE_SINGLE_FUNCTION_H

#include "pickle.h"

struct shoal_decoder;

#define SHOAL_FUNCTION_NAME_MAX 100
#define SHOAL_FUNCTION_BYTES_MAX (2 + 2 * (2 + SHOAL_FUNCTION_NAME_MAX) + 2)

/* The stream's length; 0: not in this way; -1: exception. stream: SHOAL_FUNCTION_BYTES_MAX bytes. No user code runs,
 * but what `inheritance` runs. */
int shoal__encode_function(const struct shoal_pickle_state *state, const struct shoal_inheritance *inheritance,
                           PyObject *obj, uint8_t *stream);

/* New reference; NULL without an exception: data is not exactly such a stream, or it does not lead to an object in the
 * usual way. */
PyObject *shoal__decode_function(struct shoal_decoder *decoder, const uint8_t *data, size_t length);

#endif

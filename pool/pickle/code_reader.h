/* SPDX-License-Identifier: BSD-3-Clause */
/* code_reader.h - reading the bytes of a code object, between code_bytes.c and code_read.c. */
#ifndef SHOAL_PICKLE_CODE_READER_H
#define SHOAL_PICKLE_CODE_READER_H

#include "code.h"

struct code_reader {
    const uint8_t *at;
    const uint8_t *end;
    PyObject *odd;   /* tuple, or NULL */
    PyObject *error; /* UnpicklingError */
    struct shoal_pickle_state *state;
    int depth;
    int limit; /* the depth at which recursion met the interpreter's limit, or 0 */
    PyObject *known[SHOAL_KNOWN_NAMES]; /* owned: what they came with may be gone, an element that a set has twice */
    size_t known_count;
};

/* NULL, with UnpicklingError unless there is an exception already. */
PyObject *shoal__code_damaged(const struct code_reader *r);
PyObject *shoal__code_read_text(struct code_reader *r);
/* outer: what it is nested in, or NULL */
PyObject *shoal__code_read_object(struct code_reader *r, PyCodeObject *outer);

#endif

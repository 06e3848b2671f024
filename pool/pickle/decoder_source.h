/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * decoder_source.h - where the stream comes from: memory, read in place, or a file object.
 *
 * In both cases there is a window [cursor, limit) of bytes at hand. In memory it is all there will ever be. From a file
 * it is one of two kinds: bytes that were read (the file stands behind them), or bytes that were only peeked at (the
 * file still stands at `start`, so what was not used can be left there). A decoder never reads beyond what a pickle
 * needs, so that several pickles, or anything else, can follow each other in a file.
 *
 * Sizes come from the stream and are not believed: whatever is large is read piece by piece, each piece at most as
 * large as everything that came before.
 */
#ifndef SHOAL_PICKLE_DECODER_SOURCE_H
#define SHOAL_PICKLE_DECODER_SOURCE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <stdint.h>

struct shoal_decoder;

struct shoal__source {
    const uint8_t *start; /* of the window */
    const uint8_t *cursor;
    const uint8_t *limit;

    /* A file's methods; read is NULL for memory. */
    PyObject *read;
    PyObject *readline;
    PyObject *readinto; /* or NULL */
    PyObject *peek;     /* or NULL */
    Py_buffer window;   /* what holds the window of a file */
    bool peeked;        /* the window's bytes are still in the file */
};

/* Make the decoder read from a file object: looks the methods up. 0, or -1 with TypeError. */
int shoal__source_open(struct shoal_decoder *decoder, PyObject *file);
void shoal__source_close(struct shoal__source *source); /* drops the window and the methods */
int shoal__source_traverse(const struct shoal__source *source, visitproc visit, void *arg);

/* Make at least size bytes available in one piece at the cursor. 0, or -1 with UnpicklingError. */
int shoal__source_more(struct shoal_decoder *decoder, size_t size);

/* The next opcode, or -1 with EOFError. */
int shoal__source_opcode(struct shoal_decoder *decoder);

/*
 * Take a line: ret_line is a private copy without the newline, with a zero byte instead, valid until the next line.
 * Its length, or -1.
 */
Py_ssize_t shoal__take_line(struct shoal_decoder *decoder, char **ret_line);
Py_ssize_t shoal__take_filled_line(struct shoal_decoder *decoder, char **ret_line); /* not empty */

/* Take size bytes as a new bytes or bytearray object. */
PyObject *shoal__take_bytes(struct shoal_decoder *decoder, size_t size);
PyObject *shoal__take_bytearray(struct shoal_decoder *decoder, size_t size);

/* Give back to the file what was peeked and not used. 0 or -1. */
int shoal__source_settle(struct shoal_decoder *decoder);

int shoal__truncated(const struct shoal_decoder *decoder); /* sets the exception, returns -1 */

#endif

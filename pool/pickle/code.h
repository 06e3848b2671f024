/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * code.h - code objects: what must be known of one to send a function, and the bytes as which it travels.
 *
 * Used by the pickler's own files only.
 *
 * The form is canonical: equal definitions have equal bytes, whatever is interned, shared or hashed in which way.
 *
 *   2 bytes   version of Python whose bytecode this is; looked at before anything else
 *   4 bytes   checksum of the rest: nothing checks bytecode when it runs, so damage must be seen before
 *   code      the code object, see code_write.c
 *   [source]  text: the function's own lines, where a reader would not find them in a file
 */
#ifndef SHOAL_PICKLE_CODE_H
#define SHOAL_PICKLE_CODE_H

#include "state.h"

#include <stdbool.h>
#include <string.h>

enum { SHOAL_CODE_HEADER_SIZE = 6 };

/* One byte before each constant. */
enum shoal_code_tag {
    CODE_TAG_NONE = 'N',
    CODE_TAG_TRUE = 'T',
    CODE_TAG_FALSE = 'F',
    CODE_TAG_ELLIPSIS = '.',
    CODE_TAG_INT = 'i',       /* zigzag number */
    CODE_TAG_LONG = 'l',      /* size, two's complement */
    CODE_TAG_FLOAT = 'f',     /* 8 bytes */
    CODE_TAG_COMPLEX = 'c',   /* 16 bytes */
    CODE_TAG_STR = 's',       /* text */
    CODE_TAG_BYTES = 'b',     /* size, data */
    CODE_TAG_TUPLE = '(',     /* count, constants */
    CODE_TAG_FROZENSET = '{', /* count, constants by their bytes */
    CODE_TAG_CODE = 'C',      /* a nested code object */
    CODE_TAG_ODD = 'o',       /* number of an object that travels beside the bytes */
};

/* The first byte of a code object. */
enum shoal_code_shape {
    CODE_OWN_FILENAME = 1, /* otherwise that of the code that it is nested in */
    CODE_QUALNAME_OWN = 0, /* the rest from Python 3.11 on */
    CODE_QUALNAME_NAME = 2,   /* as its name */
    CODE_QUALNAME_LOCALS = 4, /* as outer qualname.<locals>.name */
    CODE_QUALNAME_MEMBER = 6, /* as outer qualname.name */
    CODE_QUALNAME_MASK = 6,
};

/* Beside a size, in the number that a name begins with: it is the index of a name that was written before. */
enum { CODE_NAME_KNOWN = 2, SHOAL_KNOWN_NAMES = 64 };

struct shoal_code_facts {
    PyObject *bytes;   /* how it travels */
    PyObject *globals; /* tuple of str: global names that it or a code nested in it uses; NULL in code that came in with
                          its source and was not sent on yet */
    PyObject *names;   /* tuple of str: all names and identifiers in it; NULL until somebody asks */
    PyObject *odd;     /* tuple: constants that are no constants, or NULL */
};

/* Lives with the code object, which the caller holds as long as it uses this. NULL with an exception. */
struct shoal_code_facts *shoal__code_facts(struct shoal_pickle_state *state, PyObject *code);
/* facts->names, found now if they are not known yet: borrowed, or NULL with an exception. */
PyObject *shoal__code_names(PyObject *code, struct shoal_code_facts *facts);
int shoal__code_facts_init(struct shoal_pickle_state *state);

/* Set of names in the order of their coming; small ones need no allocation. */
enum { SHOAL_FEW_NAMES = 32 };
struct shoal_name_set {
    PyObject *few[SHOAL_FEW_NAMES];
    size_t count; /* of `few` */
    PyObject *many; /* dict, as soon as they are more */
};

void shoal__name_set_init(struct shoal_name_set *set);
int shoal__name_set_add(struct shoal_name_set *set, PyObject *name); /* an interned str */
PyObject *shoal__name_set_tuple(const struct shoal_name_set *set);
void shoal__name_set_done(struct shoal_name_set *set);

/* The identifiers in a text. strict: none if it is prose, i.e. two words stand side by side. */
int shoal__name_set_add_text(struct shoal_name_set *set, PyObject *text, bool strict);

/* bytes of the code object; adds the globals that it uses. source: its text, or NULL. *ret_odd: list of what travels
 * beside them, or NULL. */
PyObject *shoal__code_write(struct shoal_pickle_state *state, PyObject *code, PyObject *source,
                            struct shoal_name_set *globals, PyObject **ret_odd);
/* The code object has come in as `bytes`, with its source: they are how it travels on. 0 or -1. */
int shoal__code_arrived(struct shoal_pickle_state *state, PyObject *code, PyObject *bytes);
/* A code object from such bytes; odd: a tuple, or NULL. New reference, or NULL with UnpicklingError. */
PyObject *shoal__code_read(struct shoal_pickle_state *state, PyObject *bytes, PyObject *odd);
/* Likewise, and kept, so that reading it again is a lookup. */
PyObject *shoal__code_from_bytes(struct shoal_pickle_state *state, PyObject *bytes);
void shoal__known_codes_clear(struct shoal_pickle_state *state);

/* The interpreter's recursion limit was met at this depth of code: `error` says so instead, if the code is deep. */
void shoal__code_is_deep(PyObject *error, int depth);
uint32_t shoal__code_checksum(const uint8_t *data, size_t size);

#endif

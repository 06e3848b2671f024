/* SPDX-License-Identifier: BSD-3-Clause */
/* exception.h - exceptions: the fields that they have in C. Used by save_exception.c. */
#ifndef SHOAL_PICKLE_EXCEPTION_H
#define SHOAL_PICKLE_EXCEPTION_H

#include "special.h"

/* By the struct that they are. */
enum shoal_exception_family {
    EXCEPTION_SIMPLE, /* no fields */
    EXCEPTION_STOP,
    EXCEPTION_EXIT,
    EXCEPTION_IMPORT,
    EXCEPTION_OS,
    EXCEPTION_SYNTAX,
    EXCEPTION_UNICODE,
    EXCEPTION_NAME,
    EXCEPTION_ATTRIBUTE,
    EXCEPTION_GROUP,
};

/* base: one of the interpreter's own. */
enum shoal_exception_family shoal__exception_family(PyTypeObject *base);

/* Does a call of the class, as pickle makes it, give the fields? If false, it may do so all the same. Runs no code. */
bool shoal__exception_is_as_called(PyObject *error, enum shoal_exception_family family);

/* Into the dict `extras`: the fields that are something, or, with `like`, that are not what it has. 0 or -1. */
int shoal__exception_add_fields(PyObject *extras, PyObject *error, enum shoal_exception_family family, PyObject *like);

#endif

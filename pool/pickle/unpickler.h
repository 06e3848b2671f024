/* SPDX-License-Identifier: BSD-3-Clause */
/* unpickler.h - the unpickler as Python sees it: the type Unpickler, its memo, load and loads. */
#ifndef SHOAL_PICKLE_UNPICKLER_H
#define SHOAL_PICKLE_UNPICKLER_H

#include "decoder.h"

struct shoal__unpickler {
    PyObject_HEAD
    struct shoal_decoder *decoder; /* NULL until __init__ was called */
    PyObject *encoding;            /* what the decoder's options point into */
    PyObject *errors;
    PyObject *persistent_load; /* the instance's own, set as an attribute; or NULL */
};

extern PyType_Spec shoal__unpickler_spec;
extern PyType_Spec shoal__unpickler_memo_spec;
extern PyMethodDef shoal__unpickler_functions[];

/* The attribute `memo`. */
PyObject *shoal__unpickler_get_memo(PyObject *self, void *closure);
int shoal__unpickler_set_memo(PyObject *self, PyObject *value, void *closure);

#endif

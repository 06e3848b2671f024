/* SPDX-License-Identifier: BSD-3-Clause */
/* pickler_type.h - the Python types of the writing side; used by pickler_type.c, memo_proxy.c, dumps.c, writer.c. */
#ifndef SHOAL_PICKLE_PICKLER_TYPE_H
#define SHOAL_PICKLE_PICKLER_TYPE_H

#include "encoder.h"

struct shoal_pickler {
    PyObject_HEAD
    struct shoal_encoder encoder;
    struct shoal_heap_sink heap;
    PyObject *write;           /* the file's method; NULL until __init__ */
    PyObject *buffer_callback; /* or NULL */
    PyObject *persistent_id;   /* set on the instance, or NULL */
    PyObject *dispatch_table;  /* set on the instance, or NULL */
    bool running;
};

extern PyType_Spec shoal__pickler_spec;
extern PyType_Spec shoal__memo_proxy_spec;
extern PyMethodDef shoal__pickler_functions[]; /* pickler_type.c */
extern PyMethodDef shoal__dump_functions[];    /* dumps.c */
extern PyMethodDef shoal__explain_functions[]; /* explain_skip.c */
extern PyMethodDef shoal__rebuild_functions[]; /* rebuild.c */
extern PyMethodDef shoal__rebuild_class_functions[]; /* rebuild_class.c */
extern PyMethodDef shoal__rebuild_dataclass_functions[]; /* rebuild_dataclass.c */

PyObject *shoal__no_persistent_id(PyObject *self, PyObject *obj);
PyObject *shoal__get_memo(PyObject *pickler, void *closure);
int shoal__set_memo(PyObject *pickler, PyObject *value, void *closure);

#endif

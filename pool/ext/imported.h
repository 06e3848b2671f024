/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * imported.h - the globals of __main__ in workers that were started anew.
 *
 * The problem: what belongs to __main__ travels by value. With multiprocessing it goes by reference, to the main module
 * that each worker has imported as __mp_main__, and programs count on that: an initializer sets a global, and tasks
 * read it; tasks keep things in globals.
 *
 * The rule: functions of __main__ go by value still, so that they are what the parent has; but their globals are those
 * of the worker's main module, and the values that they use are written into it, as the parent has them now. Except for
 * the worker's own, which stay:
 *
 *   - what the initializer assigns;
 *   - what the main module gives a literal at its import (`cache = {}`, `model = None`) that the parent has not changed
 *     since;
 *   - what the main module makes at its import, and the function itself assigns, or cannot be pickled.
 *
 * Which names those are is read in the text of the main module (pool/shoal/_imported.py). A name whose value was once
 * another than its literal is written from then on, since workers have that other value.
 *
 * The cost: for each global that a function by value uses, one or two lookups by name and a comparison.
 */
#ifndef SHOAL_EXT_IMPORTED_H
#define SHOAL_EXT_IMPORTED_H

#include "module.h"

/* For shoal_inheritance, in the parent, and its other side in a worker; the context is an Imported. */
int64_t imported_space(void *imported, PyObject *globals);
int imported_keeps(void *imported, PyObject *function, PyObject *name, PyObject *value);
PyObject *imported_object(void *imported, PyObject *number);

extern PyType_Spec imported_spec;

#endif

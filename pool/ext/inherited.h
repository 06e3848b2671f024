/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * inherited.h - what of __main__ goes by reference to forked workers.
 *
 * The problem: what belongs to __main__ travels by value, with the parent's globals. But a forked worker has all of it,
 * and programs that come from multiprocessing count on that: an initializer sets a global of __main__, and tasks read
 * it; tasks keep things in globals; a class has a lock for all its instances.
 *
 * The rule: a function or class of __main__ that is, in the parent, what it was when the workers were forked, goes as a
 * number: each worker has it in its own copy of this table, whatever its name leads to by now, and it finds the
 * worker's globals. Unless the parent has changed, since then, a global that it or what it uses reads: then it goes by
 * value, with the parent's globals as they are. Not counted are globals that the initializer or the functions
 * themselves assign: those are the worker's own.
 *
 * Functions by value get the worker's value of what the initializer assigns, and of what cannot be sent (a lock, an
 * open file) and is what it was at the fork, or was None or a pool then. What was not there at the fork and cannot be
 * sent, such as the pool itself, is left out of methods: a class by value has methods that run in the parent alone.
 *
 * From a worker to the parent, what is in the table goes as a number always.
 *
 * Workers that are forked later have later globals: what differs then from what the first ones have is "changed" for
 * good. What was None, a pool, or not there at the first fork does not count even so while it cannot be sent.
 *
 * The cost: one lookup by address, a digest of the definition, and a comparison for each global that is read.
 */
#ifndef SHOAL_EXT_INHERITED_H
#define SHOAL_EXT_INHERITED_H

#include "module.h"

/* For shoal_inheritance, in the parent and in a worker, and its other side; the context is an Inherited. */
int64_t inherited_number(void *inherited, PyObject *obj);
int64_t inherited_number_in_worker(void *inherited, PyObject *obj);
PyObject *inherited_stand_in(void *inherited, PyObject *globals, PyObject *name);
int inherited_keeps(void *inherited, PyObject *function, PyObject *name, PyObject *value);
PyObject *inherited_object(void *inherited, PyObject *number);

/* Another worker is about to be forked: what has changed by now is not the same in all of them any more. */
void inherited_fork(PyObject *inherited);

extern PyType_Spec inherited_spec;

#endif

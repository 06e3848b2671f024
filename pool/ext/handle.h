/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * handle.h - objects that are pickled once, into a block that all workers map: see handle.c.
 */
#ifndef SHOAL_EXT_HANDLE_H
#define SHOAL_EXT_HANDLE_H

#include "block.h"
#include "message.h"

/* From this size on, what a map-like call would send again and again is packed once. A copy of less is cheaper. */
#define HANDLE_CARRY_MIN (UINT64_C(128) << 10)

/*
 * New reference to a Python handle (shoal._shared.Shared) that arrives as a copy of `object` each time it is sent; None
 * if it is not worth while or cannot be; NULL never: nothing is raised, whoever sends the object itself will say why.
 */
PyObject *handle_carry(struct engine *engine, PyObject *object);

/* The block that stands in for one of another process's arena in messages to our own pools, borrowed; NULL: none. */
struct block *handle_local(struct module_state *state, struct block *block);

/* In a worker: objects whose handles their makers have dropped go, and the parent is told. */
void handles_sweep(struct engine *engine);

/* In a worker, where a handle has arrived: the object (stolen) with the handles that are to be opened in it opened.
 * NULL with an exception. */
enum handle_place { HANDLE_IN_CALL, HANDLE_IN_FUNCTION, HANDLE_IN_ITEM, HANDLE_IN_ITEM_STAR };
PyObject *handles_open(struct engine *engine, PyObject *object, enum handle_place place);

extern PyMethodDef handle_methods[];

#endif

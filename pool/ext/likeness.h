/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * likeness.h - is this still what it was? For globals and definitions that a forked worker has a copy of.
 *
 * Runs no user code, and keeps nothing alive that is large: what can be referred to weakly is; of plain data (numbers,
 * strings, containers of these) a digest of the value is kept, so that a change in place is seen as well.
 *
 * What it does not see: what is done in place to other objects than containers, or deep inside of a container, beyond
 * its first few hundred parts.
 */
#ifndef SHOAL_EXT_LIKENESS_H
#define SHOAL_EXT_LIKENESS_H

#include "module.h"

struct likeness {
    uint64_t digest;
    PyObject *held; /* the object itself, or a weak reference to it, or NULL: the digest alone */
    bool weak;
};

int likeness_take(struct likeness *likeness, PyObject *obj); /* 0, or -1 with MemoryError */
bool likeness_same(const struct likeness *likeness, PyObject *obj);
void likeness_clear(struct likeness *likeness);

/* What was found out about an object, as long as it is still what it was. */
struct judgement {
    bool made;
    bool verdict;
    struct likeness subject;
};

bool judgement_holds(const struct judgement *judgement, PyObject *obj);
/* What the callable says of the object: 1, 0, -1. It may run user code, and so move what the caller points to. */
int judgement_ask(PyObject *judge, PyObject *obj);
int judgement_keep(struct judgement *judgement, PyObject *obj, int verdict); /* the verdict, or -1 with MemoryError */

/* Of a Python function or a class: everything that makes it what it is. 0 for anything else. */
uint64_t definition_digest(PyObject *obj);

#endif

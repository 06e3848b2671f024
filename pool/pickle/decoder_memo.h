/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * decoder_memo.h - what a stream has numbered with PUT or MEMOIZE.
 *
 * The problem: nearly every object of a stream is put, few are fetched again, and all must be forgotten afterwards.
 * An array serves, but an index comes from the stream and may be anything; and taking and dropping a reference for
 * each object costs as much as making a small one.
 *
 * Indices up to `index_limit`, which grows with the bytes read, lie in the array; the rest, which no pickler writes,
 * in a dict. So memory stays in proportion to the input.
 *
 * While `owns` is false the slots are borrowed. That is right as long as nothing that was put can be dropped: no user
 * code has run, nothing was popped or replaced (see "plain" in decoder.h). shoal__memo_own() ends that time; forgetting
 * borrowed slots costs nothing.
 */
#ifndef SHOAL_PICKLE_DECODER_MEMO_H
#define SHOAL_PICKLE_DECODER_MEMO_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>

struct shoal__memo {
    PyObject **slots;    /* [0, used): an object, or NULL where nothing was put */
    size_t used;
    size_t capacity;
    size_t append_limit; /* capacity, or 0 while there is a sparse part: below it, appending needs no further look */
    size_t count;        /* objects put, sparse ones included: the index of the next MEMOIZE */
    size_t index_limit;  /* the array never grows beyond this */
    PyObject *sparse;    /* dict: int -> object; NULL: none */
    bool owns;           /* the slots hold references */
};

int shoal__memo_put_anywhere(struct shoal__memo *memo, size_t index, PyObject *obj);
/* Borrowed; NULL without an exception: none. */
PyObject *shoal__memo_get_sparse(const struct shoal__memo *memo, size_t index);
void shoal__memo_own(struct shoal__memo *memo);
void shoal__memo_clear(struct shoal__memo *memo); /* forgets the objects, keeps the array unless it is large */
void shoal__memo_done(struct shoal__memo *memo);
PyObject *shoal__memo_to_dict(const struct shoal__memo *memo);       /* new dict: int -> object */
int shoal__memo_from_dict(struct shoal__memo *memo, PyObject *dict); /* replaces; TypeError, ValueError */
int shoal__memo_traverse(const struct shoal__memo *memo, visitproc visit, void *arg);

/* 0, or -1 with MemoryError. */
static inline int shoal__memo_put(struct shoal__memo *memo, size_t index, PyObject *obj)
{
    if (index != memo->used || index >= memo->append_limit)
        return shoal__memo_put_anywhere(memo, index, obj);
    if (memo->owns)
        Py_INCREF(obj);
    memo->slots[index] = obj;
    memo->used++;
    memo->count++;
    return 0;
}

/* Borrowed; NULL without an exception: nothing is there in the array. */
static inline PyObject *shoal__memo_look(const struct shoal__memo *memo, size_t index)
{
    return index < memo->used ? memo->slots[index] : NULL;
}

/* Borrowed; NULL: nothing was put there (or, with an exception, no memory). */
static inline PyObject *shoal__memo_get(const struct shoal__memo *memo, size_t index)
{
    PyObject *obj = shoal__memo_look(memo, index);
    return obj != NULL || memo->sparse == NULL ? obj : shoal__memo_get_sparse(memo, index);
}

#endif

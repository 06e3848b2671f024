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
 * While `borrows` is true, what is put is not owned: slots [owned, used) are borrowed. That is right as long as nothing
 * that was put can be dropped: no user code runs, nothing is popped or replaced (see "plain" in decoder.h).
 * shoal__memo_own() ends that time; forgetting borrowed slots costs nothing.
 *
 * A slot may also hold a promise instead of an object: the dict with an instance's state, which need not exist unless
 * it is fetched (load_instance.c). A promise is an odd number, owns nothing, and is looked up as if nothing were there.
 */
#ifndef SHOAL_PICKLE_DECODER_MEMO_H
#define SHOAL_PICKLE_DECODER_MEMO_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <stdint.h>

struct shoal__memo {
    PyObject **slots;    /* [0, used): an object, a promise, or NULL where nothing was put */
    size_t used;
    size_t capacity;
    size_t append_limit; /* capacity, or 0 while there is a sparse part: below it, appending needs no further look */
    size_t count;        /* objects put, sparse ones included: the index of the next MEMOIZE */
    size_t index_limit;  /* the array never grows beyond this */
    PyObject *sparse;    /* dict: int -> object; NULL: none */
    size_t owned;        /* slots [0, owned) hold references; all of them unless it borrows */
    bool borrows;        /* what is put is borrowed */
};

/* Not while it borrows, if something may be there already: that is dropped. */
int shoal__memo_put_anywhere(struct shoal__memo *memo, size_t index, PyObject *obj);
/* Borrowed; NULL without an exception: none. */
PyObject *shoal__memo_get_sparse(const struct shoal__memo *memo, size_t index);
void shoal__memo_own(struct shoal__memo *memo);             /* ends borrowing; promises stay what they are */
void shoal__memo_forget_borrowed(struct shoal__memo *memo); /* ends borrowing; the slots that are not owned are gone */
void shoal__memo_clear(struct shoal__memo *memo); /* forgets the objects, keeps the array unless it is large */
void shoal__memo_done(struct shoal__memo *memo);
PyObject *shoal__memo_to_dict(const struct shoal__memo *memo);       /* new dict: int -> object */
int shoal__memo_from_dict(struct shoal__memo *memo, PyObject *dict); /* replaces; TypeError, ValueError */
int shoal__memo_traverse(const struct shoal__memo *memo, visitproc visit, void *arg);

static inline bool shoal__is_promise(const PyObject *slot)
{
    return ((uintptr_t)slot & 1) != 0;
}

/* The promise of an instance's state, of an instance that may still be unknown (NULL). */
static inline PyObject *shoal__promise(PyObject *obj)
{
    return (PyObject *)((uintptr_t)obj | 1);
}

/* Can it be put by appending, without a further look? */
static inline bool shoal__memo_appends(const struct shoal__memo *memo, size_t index)
{
    return index == memo->used && index < memo->append_limit;
}

/* Needs shoal__memo_appends(). */
static inline void shoal__memo_append(struct shoal__memo *memo, PyObject *obj)
{
    if (!memo->borrows) {
        Py_INCREF(obj);
        memo->owned++;
    }
    memo->slots[memo->used++] = obj;
    memo->count++;
}

/* 0, or -1 with MemoryError. */
static inline int shoal__memo_put(struct shoal__memo *memo, size_t index, PyObject *obj)
{
    if (!shoal__memo_appends(memo, index))
        return shoal__memo_put_anywhere(memo, index, obj);
    shoal__memo_append(memo, obj);
    return 0;
}

/* Borrowed; NULL without an exception: nothing is there in the array, or a promise. */
static inline PyObject *shoal__memo_look(const struct shoal__memo *memo, size_t index)
{
    PyObject *slot = index < memo->used ? memo->slots[index] : NULL;
    return shoal__is_promise(slot) ? NULL : slot;
}

/* Borrowed; NULL: nothing was put there (or, with an exception, no memory). */
static inline PyObject *shoal__memo_get(const struct shoal__memo *memo, size_t index)
{
    PyObject *obj = shoal__memo_look(memo, index);
    return obj != NULL || memo->sparse == NULL ? obj : shoal__memo_get_sparse(memo, index);
}

#endif

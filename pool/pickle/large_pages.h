/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * large_pages.h - the objects of a large stream come from pages of 2 MiB.
 *
 * The problem: Python's allocator gets its memory from the system in arenas of 1 MiB, and gives each back when its
 * last object goes. So a stream of 100,000 strings touches some 1,800 fresh pages when it is loaded, each a page fault,
 * and does so again at the next load. On a virtual machine that is more time (4 of 7 ms) than all else together.
 *
 * The protocol: while the decoder, or the pool that reads the plain results of a long list (shoal_large_pages_use in
 * pickle.h), makes objects and runs no user code, PyObject_SetArenaAllocator()
 * points to a function here, which cuts arenas from stretches of 2 MiB that the system is asked to back with one large
 * page. Freeing is left to Python's own function, munmap(), which takes such a piece as well as any; so nothing of this
 * outlives the decoding, and nothing has to be undone when arenas are freed.
 *
 * What it guarantees: nobody else's allocator is replaced, nor is anything done while there are several interpreters,
 * which may have GILs of their own. Without large pages, or without memory for them, it is as if this were not there.
 *
 * What it costs: up to 1 MiB of memory beside an arena that outlives its neighbour, until the system is short of memory
 * and takes it. What is left of the last stretch goes back at the end of the stream.
 */
#ifndef SHOAL_PICKLE_LARGE_PAGES_H
#define SHOAL_PICKLE_LARGE_PAGES_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct shoal__large_pages {
    PyObjectArenaAllocator usual; /* Python's own, while ours is in its place */
    uint8_t *at;                  /* what is left of the last stretch */
    size_t left;
    void (*judged)(void *, void *, size_t); /* the `free` that was looked at last; NULL: none was */
    bool is_own; /* what was found: it is Python's */
    bool wanted; /* for this stream */
    bool used;   /* just now */
};

/* Before a stream of so many bytes is loaded. */
void shoal__large_pages_begin(struct shoal__large_pages *pages, size_t stream_size);
void shoal__large_pages_use(struct shoal__large_pages *pages); /* not while they are used */
void shoal__large_pages_rest(struct shoal__large_pages *pages); /* before user code runs */
void shoal__large_pages_end(struct shoal__large_pages *pages);  /* not while they are used */

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
#include "state.h"

#include <dlfcn.h>
#include <sys/mman.h>

#define STRETCH ((size_t)2 << 20)       /* a large page of x86-64, and of others with pages of 4 KiB */
#define LARGE_STREAM ((size_t)256 << 10) /* its objects take a megabyte or more */

/* An address of this alignment with STRETCH bytes behind it, or NULL. Recent kernels align it by themselves. */
static uint8_t *map_stretch(void)
{
    uint8_t *at = mmap(NULL, STRETCH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        return NULL;
    if ((uintptr_t)at % STRETCH == 0)
        return at;
    munmap(at, STRETCH);
    at = mmap(NULL, 2 * STRETCH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        return NULL;
    size_t before = STRETCH - (uintptr_t)at % STRETCH;
    munmap(at, before);
    if (before < STRETCH)
        munmap(at + before + STRETCH, STRETCH - before);
    return at + before;
}

/* Python's arenas; what does not fit in here is not one of them. */
static void *allocate(void *context, size_t size)
{
    struct shoal__large_pages *pages = context;
    if (size == 0 || STRETCH % size != 0)
        return pages->usual.alloc(pages->usual.ctx, size);
    if (pages->left < size) {
        shoal__large_pages_end(pages);
        uint8_t *at = map_stretch();
        if (at == NULL)
            return pages->usual.alloc(pages->usual.ctx, size);
        madvise(at, STRETCH, MADV_HUGEPAGE); /* where there are none, small pages will do */
        pages->at = at;
        pages->left = STRETCH;
    }
    void *arena = pages->at;
    pages->at += size;
    pages->left -= size;
    return arena;
}

/* Python's own functions, which unmap what they are given? */
static bool is_own(const PyObjectArenaAllocator *allocator)
{
    union {
        void (*free)(void *, void *, size_t);
        void *(*malloc)(size_t);
        void *address;
    } given = {.free = allocator->free}, python = {.malloc = PyObject_Malloc};
    Dl_info given_place;
    Dl_info python_place;
    return allocator->ctx == NULL && dladdr(given.address, &given_place) != 0 &&
           dladdr(python.address, &python_place) != 0 && given_place.dli_fbase == python_place.dli_fbase;
}

static bool is_only_interpreter(void)
{
    return PyInterpreterState_Next(PyInterpreterState_Head()) == NULL;
}

void shoal__large_pages_begin(struct shoal__large_pages *pages, size_t stream_size)
{
    pages->wanted = false;
    if (stream_size < LARGE_STREAM)
        return;
    PyObject_GetArenaAllocator(&pages->usual);
    if (pages->usual.ctx != NULL)
        return;
    if (pages->judged != pages->usual.free) { /* looking up addresses takes some microseconds */
        pages->judged = pages->usual.free;
        pages->is_own = is_own(&pages->usual);
    }
    pages->wanted = pages->is_own;
}

void shoal__large_pages_use(struct shoal__large_pages *pages)
{
    if (!pages->wanted || !is_only_interpreter())
        return;
    PyObjectArenaAllocator now;
    PyObject_GetArenaAllocator(&now);
    if (now.alloc != pages->usual.alloc || now.free != pages->usual.free || now.ctx != pages->usual.ctx)
        return;
    now.ctx = pages;
    now.alloc = allocate;
    PyObject_SetArenaAllocator(&now);
    pages->used = true;
}

void shoal__large_pages_rest(struct shoal__large_pages *pages)
{
    if (!pages->used)
        return;
    PyObject_SetArenaAllocator(&pages->usual);
    pages->used = false;
}

void shoal__large_pages_end(struct shoal__large_pages *pages)
{
    if (pages->left > 0)
        munmap(pages->at, pages->left);
    pages->left = 0;
}

/* ---- for the engine ---- */

void shoal_large_pages_use(struct shoal_pickle_state *state)
{
    shoal__large_pages_begin(&state->large_pages, LARGE_STREAM);
    shoal__large_pages_use(&state->large_pages);
}

void shoal_large_pages_rest(struct shoal_pickle_state *state)
{
    shoal__large_pages_rest(&state->large_pages);
}

void shoal_large_pages_end(struct shoal_pickle_state *state)
{
    shoal__large_pages_end(&state->large_pages);
}

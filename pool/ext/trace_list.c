/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * trace_list.c - see trace_list.h.
 *
 * A page that is touched for the first time costs as much as three tiny tasks, a huge one as much as a hundred, but it
 * lasts for thirty thousand. The first chunk is touched when a trace begins: not while tasks wait.
 */
#include "trace_list.h"

#include <string.h>
#include <sys/mman.h>

bool trace_list_more(struct trace_list *list, size_t bytes)
{
    uint8_t **moved = PyMem_RawRealloc(list->chunks, (list->chunk_count + 1) * sizeof *moved);
    if (moved == NULL)
        return false;
    list->chunks = moved;
    void *chunk = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (chunk == MAP_FAILED)
        return false;
    if (bytes == TRACE_CHUNK_BYTES)
        madvise(chunk, bytes, MADV_HUGEPAGE);
#ifdef MADV_POPULATE_WRITE
    if (list->chunk_count == 0)
        madvise(chunk, bytes, MADV_POPULATE_WRITE);
#endif
    list->chunks[list->chunk_count++] = chunk;
    return true;
}

void trace_list_drop(struct trace_list *list, size_t left)
{
    list->count = 0;
    while (list->chunk_count > left) {
        list->chunk_count--;
        munmap(list->chunks[list->chunk_count], list->chunk_count == 0 ? list->first_bytes : TRACE_CHUNK_BYTES);
    }
    if (left == 0) {
        PyMem_RawFree(list->chunks);
        list->chunks = NULL;
    }
}

bool trace_list_begin(struct trace_list *list, size_t size, size_t limit)
{
    size_t bytes = TRACE_CHUNK_BYTES;
    if (limit < TRACE_CHUNK_BYTES / size)
        bytes = (limit * size + 4095) / 4096 * 4096;
    trace_list_drop(list, list->chunk_count > 0 && list->first_bytes == bytes);
    list->first_bytes = bytes;
    return list->chunk_count > 0 || bytes == 0 || trace_list_more(list, bytes);
}

PyObject *trace_list_bytes(const struct trace_list *list, size_t size)
{
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(list->count * size));
    size_t most = TRACE_CHUNK_BYTES / size;
    for (size_t i = 0; bytes != NULL && i < list->count; i += most) {
        size_t count = list->count - i < most ? list->count - i : most;
        memcpy(PyBytes_AS_STRING(bytes) + i * size, list->chunks[i / most], count * size);
    }
    return bytes;
}

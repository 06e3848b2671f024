/* SPDX-License-Identifier: BSD-3-Clause */
/* trace_list.h - a list that grows by large pieces, which stay where they are: what a trace keeps. */
#ifndef SHOAL_EXT_TRACE_LIST_H
#define SHOAL_EXT_TRACE_LIST_H

#include <Python.h>
#include <stdbool.h>

#define TRACE_CHUNK_BYTES ((size_t)1 << 21) /* a huge page */

/* All members have one size, which each call is told. */
struct trace_list {
    uint8_t **chunks; /* of TRACE_CHUNK_BYTES each; the first may be smaller */
    size_t chunk_count, count;
    size_t first_bytes;
};

bool trace_list_begin(struct trace_list *list, size_t size, size_t limit); /* empty, for so many; false: no memory */
bool trace_list_more(struct trace_list *list, size_t bytes);               /* another chunk */
void trace_list_drop(struct trace_list *list, size_t left);                /* empty, and keeps the first chunks */
PyObject *trace_list_bytes(const struct trace_list *list, size_t size);    /* a copy of it all */

static inline void *trace_list_at(const struct trace_list *list, size_t index, size_t size)
{
    const size_t most = TRACE_CHUNK_BYTES / size;
    return list->chunks[index / most] + index % most * size;
}

/* One more, or NULL: there is no memory. */
static inline void *trace_list_add(struct trace_list *list, size_t size)
{
    if (list->count / (TRACE_CHUNK_BYTES / size) >= list->chunk_count && !trace_list_more(list, TRACE_CHUNK_BYTES))
        return NULL;
    return trace_list_at(list, list->count++, size);
}

#endif

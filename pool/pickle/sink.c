/* SPDX-License-Identifier: BSD-3-Clause */
#include "sink.h"

#include <stdlib.h>

enum { FIRST_CAPACITY = 4096 };

void shoal_heap_sink_init(struct shoal_heap_sink *heap)
{
    heap->sink = (struct shoal_sink){.grow = shoal_heap_sink_grow};
}

void shoal_heap_sink_clear(struct shoal_heap_sink *heap)
{
    free(heap->sink.start);
    shoal_heap_sink_init(heap);
}

void shoal_heap_sink_rewind(struct shoal_heap_sink *heap)
{
    heap->sink.cursor = heap->sink.start;
}

int shoal_heap_sink_grow(struct shoal_sink *sink, size_t need)
{
    size_t used = sink->start ? shoal_sink_used(sink) : 0;
    size_t capacity = sink->start ? (size_t)(sink->limit - sink->start) : FIRST_CAPACITY / 2;
    if (need > (size_t)PY_SSIZE_T_MAX / 2 - used) {
        PyErr_NoMemory();
        return -1;
    }
    capacity = capacity * 2 > used + need ? capacity * 2 : used + need;
    uint8_t *moved = realloc(sink->start, capacity);
    if (!moved) {
        PyErr_NoMemory();
        return -1;
    }
    sink->start = moved;
    sink->cursor = moved + used;
    sink->limit = moved + capacity;
    return 0;
}

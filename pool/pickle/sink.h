/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * sink.h - where the pickler writes: a ring, a heap buffer, a bytes object, a file; the pickler does not know which.
 *
 * The pickler writes at `cursor` as long as there is room before `limit`. When there is not, it calls `grow`, which
 * must make room for at least `need` more bytes after the cursor; it may move everything to another place (the pickler
 * keeps offsets from `start`, never pointers). Nothing counts until the owner of the sink commits it, in its own way:
 * a pickling error costs nothing.
 */
#ifndef SHOAL_PICKLE_SINK_H
#define SHOAL_PICKLE_SINK_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

struct shoal_sink {
    uint8_t *start;  /* first byte of this stream */
    uint8_t *cursor; /* next byte to write */
    uint8_t *limit;  /* one past the last byte that may be written */
    /* 0, or -1 with a Python exception set. Preserves [start, cursor). */
    int (*grow)(struct shoal_sink *sink, size_t need);
};

/* A sink in malloc'd memory that doubles. */
struct shoal_heap_sink {
    struct shoal_sink sink;
};

void shoal_heap_sink_init(struct shoal_heap_sink *heap);   /* allocates nothing yet */
void shoal_heap_sink_clear(struct shoal_heap_sink *heap);  /* frees */
void shoal_heap_sink_rewind(struct shoal_heap_sink *heap); /* empty again, memory kept */
int shoal_heap_sink_grow(struct shoal_sink *sink, size_t need);

static inline size_t shoal_sink_used(const struct shoal_sink *sink)
{
    return (size_t)(sink->cursor - sink->start);
}

static inline int shoal_sink_room(struct shoal_sink *sink, size_t need)
{
    if ((size_t)(sink->limit - sink->cursor) >= need)
        return 0;
    return sink->grow(sink, need);
}

#endif

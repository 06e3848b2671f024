/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lost.c - what is told of a worker that is gone.
 *
 * The problem: an error that says "worker 3 was killed" leaves its reader to find out with what. The parent knows the
 * task, but as a stream only; unpickling it would run user code, which may do the same to the parent as it did to the
 * worker.
 *
 * The way: the beginning of the stream's sections is handed to shoal._lost, which reads them without making anything.
 * Plain values are made here. Of a map-like call the function itself is at hand.
 *
 * The stream of a single call leaves the task ring once a worker has started it. That is seen when the ring is
 * reclaimed, by when nearly all such calls have ended: of the few that have not, the beginning is kept.
 */
#include "lost.h"

#include "group.h"

#include <string.h>

#define KEPT_BYTES_MAX 1024u  /* of a stream that leaves the ring */
#define TOLD_BYTES_MAX 16384u /* of a section */

struct span {
    const uint8_t *at, *end; /* at NULL: nothing is known */
};

/* ---- where the stream is ---- */

void lost_keep(struct engine *engine, uint32_t slot)
{
    struct entry *entry = &engine->entries[slot];
    uint64_t bytes = entry->task.stream_bytes < KEPT_BYTES_MAX ? entry->task.stream_bytes : KEPT_BYTES_MAX;
    PyMem_RawFree(entry->kept);
    entry->kept = PyMem_RawMalloc(bytes + 1);
    if (entry->kept != NULL)
        memcpy(entry->kept, engine->tasks.base + entry->task.stream_offset % TASK_RING_BYTES, bytes);
}

static struct span stream_of(struct engine *engine, const struct entry *entry)
{
    const struct shoal_task *task = &entry->task;
    uint64_t bytes = task->stream_bytes;
    const uint8_t *at = NULL;
    if (entry->kept != NULL) {
        at = entry->kept;
        bytes = bytes < KEPT_BYTES_MAX ? bytes : KEPT_BYTES_MAX;
    } else if (!(task->flags & TASK_IN_RING)) {
        at = shoal_region_at(engine->home->region, task->stream_offset, bytes);
    } else if (task->stream_offset >= engine->tasks.head) {
        at = engine->tasks.base + task->stream_offset % TASK_RING_BYTES;
    }
    return (struct span){at, at == NULL ? NULL : at + bytes};
}

/* ---- its sections ---- */

/* Step over a section of a stream that may end early: what is there of its content, and how many buffers it has. */
static struct span next_section(struct span *stream, uint32_t *ret_buffers)
{
    uint64_t prefix;
    if (stream->at == NULL || (size_t)(stream->end - stream->at) < sizeof prefix)
        return *stream = (struct span){NULL, NULL};
    memcpy(&prefix, stream->at, sizeof prefix);
    struct span content = {stream->at + sizeof prefix, stream->end};
    uint64_t left = (uint64_t)(content.end - content.at);
    *ret_buffers = (uint32_t)(prefix & SECTION_PLAIN);
    if (prefix >> 24 <= left)
        content.end = content.at + (prefix >> 24);
    stream->at = content.end;
    return content;
}

/* A pickle as bytes, a plain value as a tuple with it, None if there is nothing: new reference. */
static PyObject *told(struct span content, bool plain)
{
    if (content.at == NULL)
        return Py_NewRef(Py_None);
    if (plain) {
        PyObject *value = plain_read(&content.at, content.end);
        if (value != NULL || PyErr_Occurred())
            return value == NULL ? NULL : Py_BuildValue("(N)", value);
        return Py_NewRef(Py_None);
    }
    size_t bytes = (size_t)(content.end - content.at);
    return PyBytes_FromStringAndSize((const char *)content.at,
                                     (Py_ssize_t)(bytes < TOLD_BYTES_MAX ? bytes : TOLD_BYTES_MAX));
}

/* Where the values of a section of plain ones begin; their number in *ret_count. */
static struct span plain_values(struct span content, uint32_t *ret_count)
{
    *ret_count = 0;
    if (content.at == NULL || (size_t)(content.end - content.at) < sizeof *ret_count)
        return (struct span){NULL, NULL};
    memcpy(ret_count, content.at, sizeof *ret_count);
    content.at += sizeof *ret_count;
    return content;
}

/* The next section of a stream, or the item `skip` items further on. */
static PyObject *told_item(struct span *stream, uint32_t skip)
{
    for (;;) {
        uint32_t buffers = 0, count;
        struct span content = next_section(stream, &buffers);
        bool plain = buffers == SECTION_PLAIN;
        if (content.at == NULL || (!plain && skip == 0))
            return told(content, false);
        if (!plain) {
            skip--;
            continue;
        }
        content = plain_values(content, &count);
        if (skip >= count && content.at != NULL) {
            skip -= count;
            continue;
        }
        for (; skip > 0 && content.at != NULL; skip--)
            content.at = plain_skip(content.at, content.end);
        return told(content, true);
    }
}

/* What runs: (form, function, arguments), where the form says what the two are; or None. */
static PyObject *told_task(struct engine *engine, uint32_t slot)
{
    const struct entry *entry = slot == LOST_NO_SLOT ? NULL : &engine->entries[slot];
    if (entry == NULL || entry->owner == NULL)
        return Py_NewRef(Py_None);
    struct span stream = stream_of(engine, entry);
    bool batch = entry->task.flags & TASK_BATCH;
    bool common = entry->task.flags & TASK_COMMON;
    PyObject *function = told_item(&stream, 0), *arguments = Py_NewRef(Py_None);
    PyObject *first = common && function != NULL ? told_item(&stream, 0) : NULL;
    if (function != NULL && (batch || (entry->task.flags & TASK_APART)))
        Py_SETREF(arguments, told_item(&stream, batch ? entry->next_item : 0));
    if (common)
        arguments = first == NULL || arguments == NULL ? NULL : Py_BuildValue("(NN)", first, arguments);
    const struct shoal_group *group = (const struct shoal_group *)entry->owner;
    if (function != NULL && batch && group->owner.kind == OWNER_GROUP && group->function != NULL)
        Py_SETREF(function, Py_NewRef(group->function));
    const char *form = !batch ? (entry->task.flags & TASK_APART ? "apart" : "call")
                       : common ? "common" : entry->task.flags & TASK_STAR ? "star" : "item";
    if (function == NULL || arguments == NULL) {
        Py_XDECREF(function);
        Py_XDECREF(arguments);
        return NULL;
    }
    return Py_BuildValue("(sNN)", form, function, arguments);
}

/* ---- the error ---- */

PyObject *lost_error(struct engine *engine, unsigned index, pid_t pid, const struct shoal_peer_exit *end,
                     const char *what, uint32_t slot)
{
    PyObject *error = NULL, *task = told_task(engine, slot);
    if (task == NULL) {
        PyErr_Clear();
        task = Py_NewRef(Py_None);
    }
    if (engine->state->worker_lost != NULL) {
        PyObject *signal = end->known && end->signal ? PyLong_FromLong(end->signal) : Py_NewRef(Py_None);
        PyObject *code = end->known && !end->signal ? PyLong_FromLong(end->exit_code) : Py_NewRef(Py_None);
        error = PyObject_CallFunction(engine->state->worker_lost, "IlNNsKOOO", index, (long)pid, signal, code, what,
                                      (unsigned long long)end->peak_bytes, task, engine,
                                      engine->start == NULL ? Py_None : engine->start);
    }
    Py_DECREF(task);
    if (error == NULL) {
        PyErr_Clear();
        error = PyObject_CallFunction(PyExc_RuntimeError, "s", "a worker of the pool died");
    }
    return error;
}

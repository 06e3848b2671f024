/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * decoder_chains.c - objects that hang in each other and that Python frees by recursion.
 *
 * The problem: when an object goes, so does what it held alone, from within its own deallocator. For lists, tuples,
 * dicts, sets, most exceptions and instances the interpreter counts the levels and puts the rest off; for all others
 * (cells, methods, properties, slices, deques, ...) it does not. A stream of 8 MB makes a chain of 2 million cells, and
 * whoever drops that runs over the C stack's end. Plain pickle can build such chains, too, and does.
 *
 * How: what a stream makes of such types is noted, with a reference. As long as that is half of MANY objects or fewer,
 * no chain of them is too long. When there are more, those are counted at the end of the stream under which others hang
 * directly for more than SHORT levels; where there are MANY of these, the stream is refused. A chain is looked at as it
 * is at the end, so the order in which it was put together does not matter. A list or dict between two objects ends a
 * chain, since freeing one has a guard.
 *
 * What is refused, or has failed for another reason, is freed here: by then only the notes hold these objects, so
 * each is let go after those that it hangs in.
 *
 * Guarantees: what one stream has made can be freed on a stack of 8 MiB, the usual one: MANY levels of any type take
 * less (measured on 3.10 to 3.13; twice as much for functions and dicts of a type of their own, so these count twice).
 * Cost: two comparisons for each object that is made by a call; 8 bytes for one that is noted. Beyond half of MANY,
 * about 50 ns for each; where that many hang in each other, a sort and at most SHORT looks at what each of them holds.
 *
 * Not covered: chains put together by several streams, links that a callable hides within what it makes, threads with
 * smaller stacks.
 */
#include "decoder.h"

#ifndef SHOAL_UNGUARDED_MANY
#define SHOAL_UNGUARDED_MANY 100000 /* fuzzing is done with a small one */
#endif

enum {
    MANY = SHOAL_UNGUARDED_MANY,
    SHORT = 4,
    NOTES_MIN = 64,
    NOTES_KEPT = 4096,
};

/* ---- which objects ---- */

static bool is_unguarded(const struct shoal_decoder *decoder, PyObject *obj)
{
    PyTypeObject *type = Py_TYPE(obj);
    if (!PyType_IS_GC(type) || PyType_Check(obj))
        return false;
    destructor dealloc = type->tp_dealloc;
    return dealloc != decoder->instances_dealloc && dealloc != PyList_Type.tp_dealloc &&
           dealloc != PyTuple_Type.tp_dealloc && dealloc != PyDict_Type.tp_dealloc &&
           dealloc != PySet_Type.tp_dealloc && dealloc != ((PyTypeObject *)PyExc_BaseException)->tp_dealloc;
}

int shoal__note_unguarded(struct shoal_decoder *decoder, PyObject *obj)
{
    struct shoal__notes *notes = &decoder->notes;
    if (!is_unguarded(decoder, obj))
        return 0;
    if (notes->count == notes->capacity) {
        size_t wanted = notes->capacity < NOTES_MIN ? NOTES_MIN : notes->capacity * 2;
        PyObject **objects = PyMem_Realloc(notes->objects, wanted * sizeof(*objects));
        if (objects == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        notes->objects = objects;
        notes->capacity = wanted;
    }
    notes->objects[notes->count++] = Py_NewRef(obj);
    return 0;
}

bool shoal__notes_are_many(const struct shoal_decoder *decoder)
{
    return decoder->notes.count > MANY / 2;
}

static int find_one(PyObject *obj, void *decoder)
{
    return is_unguarded(decoder, obj);
}

/* How many hang something of the kind in themselves; no more are counted than matter. */
static size_t count_links(struct shoal_decoder *decoder)
{
    const struct shoal__notes *notes = &decoder->notes;
    size_t count = 0;
    for (size_t i = 0; i < notes->count && count <= MANY / 2; i++)
        count += Py_TYPE(notes->objects[i])->tp_traverse(notes->objects[i], find_one, decoder) != 0;
    return count;
}

/* ---- how deep ---- */

/* Of one noted object. */
struct place {
    uint8_t least; /* at least so many levels hang under it */
    uint8_t below; /* fewer than so many do; 0: not known */
    bool free;     /* let go */
};

struct graph {
    struct shoal_decoder *decoder;
    struct shoal__notes notes; /* in the order of their addresses, each once */
    struct place *places;
};

static int compare_addresses(const void *a, const void *b)
{
    uintptr_t one = (uintptr_t)*(PyObject *const *)a;
    uintptr_t other = (uintptr_t)*(PyObject *const *)b;
    return (one > other) - (one < other);
}

/* Sorts the decoder's notes, leaving out what is there twice. 0, or -1: no memory. */
static int graph_init(struct graph *graph, struct shoal_decoder *decoder)
{
    struct shoal__notes *notes = &decoder->notes;
    qsort(notes->objects, notes->count, sizeof(*notes->objects), compare_addresses);
    size_t kept = 0;
    for (size_t i = 0; i < notes->count; i++) {
        if (kept > 0 && notes->objects[kept - 1] == notes->objects[i])
            Py_DECREF(notes->objects[i]);
        else
            notes->objects[kept++] = notes->objects[i];
    }
    notes->count = kept;
    *graph = (struct graph){decoder, *notes, PyMem_Calloc(kept, sizeof(*graph->places))};
    return graph->places == NULL ? -1 : 0;
}

/* The index of an object, or -1: it was not noted, or has gone and this is another one in its place. */
static Py_ssize_t graph_find(const struct graph *graph, PyObject *obj)
{
    if (!is_unguarded(graph->decoder, obj))
        return -1;
    PyObject **found = bsearch(&obj, graph->notes.objects, graph->notes.count, sizeof(obj), compare_addresses);
    Py_ssize_t index = found == NULL ? -1 : found - graph->notes.objects;
    return index >= 0 && graph->places[index].free ? -1 : index;
}

struct descent {
    struct graph *graph;
    uint8_t levels;
};

static bool reaches(struct graph *graph, size_t index, uint8_t levels);

static int descend(PyObject *obj, void *context)
{
    const struct descent *descent = context;
    Py_ssize_t index = graph_find(descent->graph, obj);
    return index >= 0 && reaches(descent->graph, (size_t)index, descent->levels);
}

/* Do so many levels hang under it? Each question is worked out once, so no shape of graph takes long. */
static bool reaches(struct graph *graph, size_t index, uint8_t levels)
{
    struct place *place = &graph->places[index];
    if (place->least >= levels)
        return true;
    if (place->below != 0 && levels >= place->below)
        return false;
    PyObject *obj = graph->notes.objects[index];
    struct descent descent = {graph, levels - 1};
    bool found = Py_TYPE(obj)->tp_traverse(obj, descend, &descent) != 0;
    if (found)
        place->least = levels;
    else
        place->below = levels;
    return found;
}

/* What freeing it takes of the stack, compared with others. */
static size_t weight(PyObject *obj)
{
    return PyDict_Check(obj) || PyFunction_Check(obj) ? 2 : 1;
}

static bool is_too_deep(struct graph *graph)
{
    size_t sum = 0;
    for (size_t i = 0; i < graph->notes.count && sum <= MANY; i++)
        if (reaches(graph, i, SHORT + 1))
            sum += weight(graph->notes.objects[i]);
    return sum > MANY;
}

int shoal__check_chains(struct shoal_decoder *decoder)
{
    if (!shoal__notes_are_many(decoder) || count_links(decoder) <= MANY / 2)
        return 0;
    struct graph graph;
    if (graph_init(&graph, decoder) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    bool deep = is_too_deep(&graph);
    PyMem_Free(graph.places);
    if (deep)
        PyErr_Format(decoder->state->shared.unpickling_error,
                     "cells, methods, deques or other objects that Python frees by recursion hang in each other, about "
                     "%d of them or more: freeing them would overflow the stack",
                     MANY);
    return deep ? -1 : 0;
}

/* ---- letting go ---- */

/* Those that may be free to go. */
struct waiting {
    struct graph *graph;
    size_t *indices;
    size_t count;
    size_t capacity;
};

/* 0, or -1: no memory. */
static int wait_for(struct waiting *waiting, size_t index)
{
    if (waiting->count == waiting->capacity) {
        size_t wanted = waiting->capacity < NOTES_MIN ? NOTES_MIN : waiting->capacity * 2;
        size_t *indices = PyMem_Realloc(waiting->indices, wanted * sizeof(*indices));
        if (indices == NULL)
            return -1;
        waiting->indices = indices;
        waiting->capacity = wanted;
    }
    waiting->indices[waiting->count++] = index;
    return 0;
}

static int wait_for_part(PyObject *obj, void *context)
{
    struct waiting *waiting = context;
    Py_ssize_t index = graph_find(waiting->graph, obj);
    return index < 0 ? 0 : wait_for(waiting, (size_t)index);
}

/* One that nobody else holds, then those among its parts of which that is true by then, and so on. 0 or -1. */
static int let_go_from(struct waiting *waiting, size_t index)
{
    struct graph *graph = waiting->graph;
    int result = wait_for(waiting, index);
    while (result == 0 && waiting->count > 0) {
        size_t next = waiting->indices[--waiting->count];
        PyObject *obj = graph->notes.objects[next];
        if (graph->places[next].free || Py_REFCNT(obj) != 1)
            continue;
        result = Py_TYPE(obj)->tp_traverse(obj, wait_for_part, waiting);
        if (result == 0) {
            graph->places[next].free = true;
            Py_DECREF(obj);
        }
    }
    return result;
}

static int let_go_of_all(struct waiting *waiting)
{
    int result = 0;
    for (size_t i = 0; result == 0 && i < waiting->graph->notes.count; i++)
        result = let_go_from(waiting, i);
    return result;
}

/* Rings of cells, in a stream that has failed: the collector would empty one and free the rest by recursion. */
static void empty_deep_cells(struct graph *graph)
{
    for (size_t i = 0; i < graph->notes.count; i++)
        if (!graph->places[i].free && PyCell_Check(graph->notes.objects[i]) && reaches(graph, i, SHORT + 1))
            PyCell_Set(graph->notes.objects[i], NULL);
}

/* Without memory for it, the objects stay for ever: that is better than a crash. */
static void let_go_one_by_one(struct shoal_decoder *decoder)
{
    struct graph graph;
    if (graph_init(&graph, decoder) == 0) {
        struct waiting waiting = {.graph = &graph};
        int result = let_go_of_all(&waiting);
        if (result == 0) {
            empty_deep_cells(&graph);
            result = let_go_of_all(&waiting);
        }
        for (size_t i = 0; result == 0 && i < graph.notes.count; i++)
            if (!graph.places[i].free)
                Py_DECREF(graph.notes.objects[i]);
        PyMem_Free(waiting.indices);
    }
    PyMem_Free(graph.places);
}

void shoal__notes_clear(struct shoal_decoder *decoder, bool loaded)
{
    struct shoal__notes *notes = &decoder->notes;
    if (!loaded && shoal__notes_are_many(decoder))
        let_go_one_by_one(decoder);
    else
        for (size_t i = 0; i < notes->count; i++)
            Py_DECREF(notes->objects[i]);
    notes->count = 0;
    if (notes->capacity > NOTES_KEPT) {
        PyMem_Free(notes->objects);
        notes->objects = NULL;
        notes->capacity = 0;
    }
}

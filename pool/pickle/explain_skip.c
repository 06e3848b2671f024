/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * explain_skip.c - passing over plain values of a pickle, for shoal.explain.
 *
 * Explaining reads a pickle as a tree, in Python: some microseconds for each opcode. Of a long container it tells the
 * first hundred elements and counts the others, which here takes some nanoseconds for each.
 *
 * The opcodes are followed with a stack of positions instead of objects: for each value, where it begins. An opcode
 * that makes one value of several, or completes one, keeps the first's position. The walk has an end where the opcode
 * comes that takes all values for a container begun before: only there it is known that each of them is whole. It fails
 * at whatever is not plain: a name, a call of something that explain knows, a large value; and where an opcode works on
 * what lies before the start, because the walk began in the middle of a value. A later start in the same container
 * would fail there, too, but one inside of the value in which that is may not: a tree is large, and its leaves are not.
 *
 * Nothing is read beyond the data, whatever it is; memory goes with the number of values, of which there is a limit.
 */
#include "pickler_type.h"

enum {
    VALUES = 1 << 20, /* at a time */
    MARKS = 64,
};

struct value { /* memoized, frames: how many there were before it */
    size_t start;
    uint32_t memoized, frames;
    int64_t origin; /* the memo number that it was taken from, or -1 */
};

struct mark {
    struct value value; /* if it begins one */
    int depth;          /* how many values are below it */
};

struct walk {
    const uint8_t *data;
    size_t size, at;
    size_t large; /* a value of so many bytes is to be told by itself */
    int64_t memo; /* the next number */
    uint32_t memoized, frames;
    PyObject *calls;
    int depth, room, marks;
    struct mark mark[MARKS];
    struct value *stack;
};

/* The argument of an opcode: `width` bytes at its position. */
static uint64_t number_at(const struct walk *w, int width)
{
    uint64_t value = 0;
    for (int i = 0; i < width; i++)
        value |= (uint64_t)w->data[w->at + 1 + (size_t)i] << (8 * i);
    return value;
}

/* How many values are above the innermost mark, or above the one around it. */
static int above_mark(const struct walk *w)
{
    return w->depth - (w->marks ? w->mark[w->marks - 1].depth : 0);
}

static int between_marks(const struct walk *w)
{
    return w->mark[w->marks - 1].depth - (w->marks > 1 ? w->mark[w->marks - 2].depth : 0);
}

/* The handlers answer how many bytes the opcode has; 0: the walk ends before it. */

static bool has_room(struct walk *w)
{
    if (w->depth < w->room)
        return true;
    if (w->room == VALUES)
        return false;
    int room = w->room ? 4 * w->room : 1024;
    struct value *stack = PyMem_Realloc(w->stack, (size_t)room * sizeof *stack);
    if (!stack)
        return false;
    w->stack = stack;
    w->room = room;
    return true;
}

static size_t begin_value(struct walk *w, size_t size, int64_t origin)
{
    if (!has_room(w) || size > w->size - w->at || size >= w->large)
        return 0;
    w->stack[w->depth++] = (struct value){w->at, w->memoized, w->frames, origin};
    return size;
}

/* A value with its length before it. */
static size_t begin_long_value(struct walk *w, int width)
{
    if (w->size - w->at < 1 + (size_t)width)
        return 0;
    uint64_t length = number_at(w, width);
    return length >= w->large ? 0 : begin_value(w, 1 + (size_t)width + (size_t)length, -1);
}

static size_t from_memo(struct walk *w, int width)
{
    if (w->size - w->at < 1 + (size_t)width)
        return 0;
    int64_t origin = (int64_t)number_at(w, width);
    return origin < w->memo ? begin_value(w, 1 + (size_t)width, origin) : 0;
}

/* One value of the upper `count`. */
static size_t join(struct walk *w, int count)
{
    if (above_mark(w) < count)
        return 0;
    w->depth -= count - 1;
    w->stack[w->depth - 1].origin = -1;
    return 1;
}

static size_t open_mark(struct walk *w)
{
    if (w->marks == MARKS)
        return 0;
    w->mark[w->marks++] = (struct mark){{w->at, w->memoized, w->frames, -1}, w->depth};
    return 1;
}

/* What is above the mark goes into the value below it. */
static size_t close_into_value(struct walk *w)
{
    if (w->marks == 0 || between_marks(w) < 1)
        return 0;
    w->depth = w->mark[--w->marks].depth;
    w->stack[w->depth - 1].origin = -1;
    return 1;
}

/* What is above the mark becomes one value, which begins with the mark. */
static size_t close_as_value(struct walk *w)
{
    if (w->marks == 0 || !has_room(w))
        return 0;
    const struct mark *mark = &w->mark[--w->marks];
    w->stack[mark->depth] = mark->value;
    w->depth = mark->depth + 1;
    return 1;
}

static size_t call(struct walk *w)
{
    if (above_mark(w) < 2 || w->stack[w->depth - 2].origin < 0)
        return 0;
    PyObject *origin = PyLong_FromLongLong(w->stack[w->depth - 2].origin);
    int known = origin ? PySet_Contains(w->calls, origin) : -1;
    Py_XDECREF(origin);
    if (known < 0)
        PyErr_Clear();
    return known == 1 ? join(w, 2) : 0;
}

/* width: of the number that is given, 0 for MEMOIZE. */
static size_t memoize(struct walk *w, int width)
{
    if (above_mark(w) < 1 || w->size - w->at < 1 + (size_t)width)
        return 0;
    if (width && (int64_t)number_at(w, width) != w->memo)
        return 0;
    w->memo++;
    w->memoized++;
    return 1 + (size_t)width;
}

static size_t pass_frame(struct walk *w)
{
    if (w->size - w->at < 9)
        return 0;
    w->frames++;
    return 9;
}

static size_t step(struct walk *w)
{
    switch (w->data[w->at]) {
    case OP_NONE: case OP_NEWTRUE: case OP_NEWFALSE:
    case OP_EMPTY_LIST: case OP_EMPTY_DICT: case OP_EMPTY_TUPLE: case OP_EMPTY_SET:
        return begin_value(w, 1, -1);
    case OP_BININT1: return begin_value(w, 2, -1);
    case OP_BININT2: return begin_value(w, 3, -1);
    case OP_BININT: return begin_value(w, 5, -1);
    case OP_BINFLOAT: return begin_value(w, 9, -1);
    case OP_SHORT_BINUNICODE: case OP_SHORT_BINBYTES: case OP_LONG1:
        return begin_long_value(w, 1);
    case OP_BINUNICODE: case OP_BINBYTES:
        return begin_long_value(w, 4);
    case OP_BYTEARRAY8: return begin_long_value(w, 8);
    case OP_BINGET: return from_memo(w, 1);
    case OP_LONG_BINGET: return from_memo(w, 4);
    case OP_MEMOIZE: return memoize(w, 0);
    case OP_BINPUT: return memoize(w, 1);
    case OP_LONG_BINPUT: return memoize(w, 4);
    case OP_MARK: return open_mark(w);
    case OP_APPENDS: case OP_SETITEMS: case OP_ADDITEMS:
        return close_into_value(w);
    case OP_TUPLE: case OP_FROZENSET:
        return close_as_value(w);
    case OP_TUPLE1: return join(w, 1);
    case OP_TUPLE2: case OP_APPEND: case OP_BUILD: case OP_NEWOBJ:
        return join(w, 2);
    case OP_TUPLE3: case OP_SETITEM: return join(w, 3);
    case OP_REDUCE: return call(w);
    case OP_FRAME: return pass_frame(w);
    default: return 0;
    }
}

/* The opcode that is next takes all values. */
static bool takes_all(const struct walk *w)
{
    uint8_t opcode = w->data[w->at];
    return w->marks == 0 && (opcode == OP_APPENDS || opcode == OP_SETITEMS || opcode == OP_ADDITEMS ||
                             opcode == OP_TUPLE || opcode == OP_FROZENSET);
}

/* Where that begins which is under way, or was just ended: of what is inside of it nothing counts. */
static size_t latest(const struct walk *w)
{
    int outer = w->marks ? w->mark[0].depth : w->depth;
    return outer ? w->stack[outer - 1].start : w->marks ? w->mark[0].value.start : w->at;
}

/* Whether it came to its end. */
static bool run(struct walk *w)
{
    while (w->at < w->size) {
        if (takes_all(w))
            return true;
        size_t taken = step(w);
        w->at += taken;
        if (!taken || w->at - latest(w) >= w->large) { /* it is large, or is going to be */
            w->at = taken || w->marks ? latest(w) : w->at;
            return false;
        }
    }
    return false;
}

/*
 * _skip_plain(data, at, large, memo, calls) -> (at, values, memoized, bytes of frames): how far, and what was passed.
 * calls: memo numbers of what may be called. If values is 0, at is where it failed. Otherwise it is even, as there may
 * be keys and their values.
 */
static PyObject *skip_plain(PyObject *Py_UNUSED(self), PyObject *args)
{
    Py_buffer data;
    Py_ssize_t at, large;
    long long memo;
    PyObject *calls, *answer = NULL;
    if (!PyArg_ParseTuple(args, "y*nnLO!:_skip_plain", &data, &at, &large, &memo, &PySet_Type, &calls))
        return NULL;
    if (at < 0 || at > data.len || large < 0 || memo < 0) {
        PyErr_SetString(PyExc_ValueError, "outside of the pickle");
    } else {
        struct walk w = {.data = data.buf, .size = (size_t)data.len, .at = (size_t)at, .large = (size_t)large,
                         .memo = memo, .calls = calls};
        bool ended = run(&w);
        if (ended && w.depth & 1) { /* the last one is left, and all that came with it */
            w.depth--;
            w.at = w.stack[w.depth].start;
            w.memoized = w.stack[w.depth].memoized;
            w.frames = w.stack[w.depth].frames;
        }
        if (!ended)
            w.depth = 0;
        answer = Py_BuildValue("(niII)", (Py_ssize_t)w.at, w.depth, (unsigned)w.memoized, 9 * (unsigned)w.frames);
        PyMem_Free(w.stack);
    }
    PyBuffer_Release(&data);
    return answer;
}

PyMethodDef shoal__explain_functions[] = {
    {"_skip_plain", skip_plain, METH_VARARGS, "How far there are only plain values, for shoal.explain."},
    {NULL, NULL, 0, NULL},
};

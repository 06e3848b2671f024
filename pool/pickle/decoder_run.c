/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * decoder_run.c - the loop over the opcodes.
 *
 * The most frequent opcodes are done here, with the cursor and the top of the stack in registers, if all the bytes and
 * objects that they need are at hand. A case that has made an object breaks out of the switch with it; one that finds
 * that something is missing breaks out with nothing made and nothing changed, and the careful twin (shoal__load) does
 * the same opcode again: it reads on from a file, or raises what is due.
 * At the head of the loop there is always a byte to read and room for one more object.
 */
#include "decoder.h"

#include "opcodes.h"

/* No byte: a short string that begins as the name of shoal._rebuild does. */
#define PERHAPS_REBUILDER 256u

static inline bool perhaps_rebuilder(const uint8_t *text)
{
    return shoal__fetch(text, 8) == shoal__fetch((const uint8_t *)SHOAL_REBUILD, 8);
}

/* Make both true: an opcode at the cursor, room on the stack. 0 or -1. */
static int refill(struct shoal_decoder *decoder)
{
    struct shoal__source *source = &decoder->source;
    if (decoder->top == decoder->end && shoal__stack_grow(decoder) < 0)
        return -1;
    if (source->cursor == source->limit) {
        if (shoal__source_opcode(decoder) < 0)
            return -1;
        source->cursor--;
    }
    return 0;
}

static inline PyObject *small_tuple(PyObject **items, Py_ssize_t size)
{
    PyObject *tuple = PyTuple_New(size);
    for (Py_ssize_t i = 0; tuple != NULL && i < size; i++)
        PyTuple_SET_ITEM(tuple, i, items[i]);
    return tuple;
}

/* The decoder is made to know the cursor and the top only if it will look at them. */
static inline int put(struct shoal_decoder *decoder, size_t index, const uint8_t *at, PyObject **top)
{
    if (shoal__memo_appends(&decoder->memo, index)) {
        shoal__memo_append(&decoder->memo, top[-1]);
        return 0;
    }
    decoder->source.cursor = at;
    decoder->top = top;
    return shoal__put_over(decoder, index, top[-1]);
}

/* What cannot be done in place; the most frequent of it by the shortest way. */
static inline int step(struct shoal_decoder *decoder, unsigned opcode)
{
    switch (opcode) {
    case OP_APPENDS:
        return shoal__load_appends(decoder);
    case OP_SETITEMS:
        return shoal__load_setitems(decoder);
    case OP_NEWOBJ:
        return shoal__load_newobj(decoder, false);
    case OP_BUILD:
        return shoal__load_build(decoder);
    case OP_REDUCE:
        return shoal__load_reduce(decoder);
    case PERHAPS_REBUILDER:
        return shoal__load_rebuilder(decoder);
    default:
        return shoal__load(decoder, opcode);
    }
}

/* Of at most eight bytes. A load of a fixed size takes no call. */
static inline PyObject *long_of(const uint8_t *bytes, size_t size, size_t left)
{
    unsigned unused_bits = (unsigned)(64 - 8 * size);
    uint64_t value = shoal__fetch(bytes, left < sizeof(value) ? size : sizeof(value));
    int64_t number = (int64_t)(value << unused_bits) >> unused_bits;
    return sizeof(long) == sizeof(number) ? PyLong_FromLong((long)number) : PyLong_FromLongLong(number);
}

/*
 * Up to STOP.
 * Why it is long: it is the hot loop, and its cases share the cursor and the top in registers.
 */
int shoal__run(struct shoal_decoder *decoder)
{
    const uint8_t *at = decoder->source.cursor;
    const uint8_t *limit = decoder->source.limit;
    PyObject **top = decoder->top;
    size_t size;
    int result;

    for (;;) {
        if (at == limit || top == decoder->end) {
            decoder->source.cursor = at;
            decoder->top = top;
            if (refill(decoder) < 0)
                return -1;
            at = decoder->source.cursor;
            limit = decoder->source.limit;
            top = decoder->top;
        }
        unsigned opcode = (unsigned)shoal__fetch(at++, 1);
        size_t left = (size_t)(limit - at);
        PyObject *obj = NULL;

        switch (opcode) {
        case OP_NONE:
            obj = Py_NewRef(Py_None);
            break;
        case OP_NEWTRUE:
            obj = Py_NewRef(Py_True);
            break;
        case OP_NEWFALSE:
            obj = Py_NewRef(Py_False);
            break;

        case OP_BININT1:
            if (left < 1)
                break;
            obj = PyLong_FromLong((long)shoal__fetch(at, 1));
            at += 1;
            if (obj == NULL)
                goto failed;
            break;
        case OP_BININT2:
            if (left < 2)
                break;
            obj = PyLong_FromLong((long)shoal__fetch(at, 2));
            at += 2;
            if (obj == NULL)
                goto failed;
            break;
        case OP_BININT:
            if (left < 4)
                break;
            obj = PyLong_FromLong((int32_t)shoal__fetch(at, 4));
            at += 4;
            if (obj == NULL)
                goto failed;
            break;
        case OP_LONG1:
            size = left < 1 ? 0 : shoal__fetch(at, 1);
            if (size == 0 || size > sizeof(int64_t) || left - 1 < size)
                break;
            obj = long_of(at + 1, size, left - 1);
            at += 1 + size;
            if (obj == NULL)
                goto failed;
            break;
        case OP_BINFLOAT:
            if (left < 8)
                break;
            obj = shoal__make_float(at);
            at += 8;
            if (obj == NULL)
                goto failed;
            break;

        case OP_SHORT_BINUNICODE:
            size = left < 1 ? 0 : shoal__fetch(at, 1);
            if (left < 1 + size)
                break;
            if (size == sizeof SHOAL_REBUILD - 1 && perhaps_rebuilder(at + 1)) {
                opcode = PERHAPS_REBUILDER;
                break;
            }
            obj = shoal__make_text(decoder, at + 1, size);
            at += 1 + size;
            if (obj == NULL)
                goto failed;
            break;
        case OP_BINUNICODE:
            size = left < 4 ? 0 : shoal__fetch(at, 4);
            if (left < 4 + size)
                break;
            obj = shoal__make_text(decoder, at + 4, size);
            at += 4 + size;
            if (obj == NULL)
                goto failed;
            break;
        case OP_SHORT_BINBYTES:
            size = left < 1 ? 0 : shoal__fetch(at, 1);
            if (left < 1 + size)
                break;
            obj = PyBytes_FromStringAndSize((const char *)at + 1, (Py_ssize_t)size);
            at += 1 + size;
            if (obj == NULL)
                goto failed;
            break;

        case OP_EMPTY_TUPLE:
            obj = PyTuple_New(0);
            if (obj == NULL)
                goto failed;
            break;
        case OP_EMPTY_LIST:
            obj = PyList_New(0);
            if (obj == NULL)
                goto failed;
            break;
        case OP_EMPTY_DICT:
            obj = PyDict_New();
            if (obj == NULL)
                goto failed;
            break;

        case OP_TUPLE1:
        case OP_TUPLE2:
        case OP_TUPLE3:
            size = opcode - OP_TUPLE1 + 1;
            if ((size_t)(top - decoder->fence) < size)
                break;
            obj = small_tuple(top - size, (Py_ssize_t)size);
            if (obj == NULL)
                goto failed;
            top -= size;
            break;

        case OP_MEMOIZE:
            if (top == decoder->fence)
                break;
            if (put(decoder, decoder->memo.count, at, top) < 0)
                goto failed;
            continue;
        case OP_BINPUT:
            if (top == decoder->fence || left < 1)
                break;
            if (put(decoder, shoal__fetch(at, 1), at, top) < 0)
                goto failed;
            at += 1;
            continue;
        case OP_LONG_BINPUT:
            if (top == decoder->fence || left < 4)
                break;
            if (put(decoder, shoal__fetch(at, 4), at, top) < 0)
                goto failed;
            at += 4;
            continue;
        case OP_BINGET:
            obj = left < 1 ? NULL : shoal__memo_look(&decoder->memo, shoal__fetch(at, 1));
            if (obj == NULL)
                break;
            Py_INCREF(obj);
            at += 1;
            break;
        case OP_LONG_BINGET:
            obj = left < 4 ? NULL : shoal__memo_look(&decoder->memo, shoal__fetch(at, 4));
            if (obj == NULL)
                break;
            Py_INCREF(obj);
            at += 4;
            break;
        default:
            break;
        }

        if (obj != NULL) {
            *top++ = obj;
            if (at < limit && shoal__fetch(at, 1) == OP_MEMOIZE &&
                shoal__memo_appends(&decoder->memo, decoder->memo.count)) {
                shoal__memo_append(&decoder->memo, obj);
                at++;
            }
            continue;
        }
        decoder->source.cursor = at;
        decoder->top = top;
        result = step(decoder, opcode);
        if (result != 0)
            return result < 0 ? -1 : 0;
        decoder->steps++;
        if (!decoder->memo.borrows && decoder->in_memory)
            shoal__plainly(decoder);
        at = decoder->source.cursor;
        limit = decoder->source.limit;
        top = decoder->top;
    }

failed:
    decoder->source.cursor = at;
    decoder->top = top;
    return -1;
}

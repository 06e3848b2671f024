/* SPDX-License-Identifier: BSD-3-Clause */
/* decoder_dispatch.c - every opcode and who loads it. */
#include "decoder.h"

#include "opcodes.h"

static int load_proto(struct shoal_decoder *decoder)
{
    const uint8_t *at = shoal__take(decoder, 1);
    if (at == NULL)
        return -1;
    unsigned protocol = (unsigned)shoal__fetch(at, 1);
    if (protocol > SHOAL_PROTOCOL_HIGHEST) {
        PyErr_Format(PyExc_ValueError, "unsupported pickle protocol: %u", protocol);
        return -1;
    }
    decoder->protocol = (int)protocol;
    return 0;
}

/* A frame promises bytes: from a file they are read at once. The frame's end has no other meaning. */
static int load_frame(struct shoal_decoder *decoder)
{
    const uint8_t *at = shoal__take(decoder, 8);
    if (at == NULL)
        return -1;
    uint64_t size = shoal__fetch(at, 8);
    if (size > PY_SSIZE_T_MAX) {
        PyErr_Format(decoder->state->shared.unpickling_error, "FRAME length exceeds system's maximum of %zd bytes",
                     PY_SSIZE_T_MAX);
        return -1;
    }
    const struct shoal__source *source = &decoder->source;
    return (size_t)(source->limit - source->cursor) < size ? shoal__source_more(decoder, size) : 0;
}

/* The mark stack and the object stack are two: the one that was pushed last is popped. */
static int load_pop(struct shoal_decoder *decoder)
{
    if (decoder->mark_count > 0 && decoder->top == decoder->fence) {
        shoal__unmark(decoder);
        return 0;
    }
    shoal__release(decoder);
    PyObject *obj = shoal__pop(decoder);
    Py_XDECREF(obj);
    return obj == NULL ? -1 : 0;
}

static int load_pop_mark(struct shoal_decoder *decoder)
{
    PyObject **start = shoal__unmark(decoder);
    if (start == NULL)
        return -1;
    shoal__release(decoder);
    shoal__stack_cut(decoder, start);
    return 0;
}

static int load_dup(struct shoal_decoder *decoder)
{
    return shoal__stack_has(decoder, 1) < 0 ? -1 : shoal__push(decoder, Py_NewRef(decoder->top[-1]));
}

static int load_get(struct shoal_decoder *decoder, size_t size)
{
    const uint8_t *at = shoal__take(decoder, size);
    if (at == NULL)
        return -1;
    return shoal__push(decoder, shoal__get(decoder, shoal__fetch(at, size)));
}

static int load_put(struct shoal_decoder *decoder, size_t size)
{
    const uint8_t *at = shoal__take(decoder, size);
    if (at == NULL || shoal__stack_has(decoder, 1) < 0)
        return -1;
    return shoal__put(decoder, shoal__fetch(at, size), decoder->top[-1]);
}

static int load_memoize(struct shoal_decoder *decoder)
{
    if (shoal__stack_has(decoder, 1) < 0)
        return -1;
    return shoal__put(decoder, decoder->memo.count, decoder->top[-1]);
}

static int bad_opcode(const struct shoal_decoder *decoder, unsigned opcode)
{
    bool printable = opcode >= 0x20 && opcode <= 0x7e && opcode != '\'' && opcode != '\\';
    PyErr_Format(decoder->state->shared.unpickling_error,
                 printable ? "invalid load key, '%c'." : "invalid load key, '\\x%02x'.", (int)opcode);
    return -1;
}

/* What the border of memory and time does not concern: atoms and the stack. */
static int load_atom(struct shoal_decoder *decoder, unsigned opcode)
{
    switch (opcode) {
    case OP_NONE:
        return shoal__push(decoder, Py_NewRef(Py_None));
    case OP_NEWTRUE:
        return shoal__push(decoder, Py_NewRef(Py_True));
    case OP_NEWFALSE:
        return shoal__push(decoder, Py_NewRef(Py_False));
    case OP_INT:
        return shoal__load_int_line(decoder);
    case OP_BININT:
        return shoal__load_int4(decoder);
    case OP_BININT1:
        return shoal__load_uint(decoder, 1);
    case OP_BININT2:
        return shoal__load_uint(decoder, 2);
    case OP_LONG:
        return shoal__load_long_line(decoder);
    case OP_LONG1:
        return shoal__load_counted_long(decoder, 1);
    case OP_LONG4:
        return shoal__load_counted_long(decoder, 4);
    case OP_FLOAT:
        return shoal__load_float_line(decoder);
    case OP_BINFLOAT:
        return shoal__load_binfloat(decoder);
    case OP_STRING:
        return shoal__load_string_line(decoder);
    case OP_SHORT_BINSTRING:
        return shoal__load_counted_string(decoder, 1);
    case OP_BINSTRING:
        return shoal__load_counted_string(decoder, 4);
    case OP_SHORT_BINBYTES:
        return shoal__load_counted_bytes(decoder, 1);
    case OP_BINBYTES:
        return shoal__load_counted_bytes(decoder, 4);
    case OP_BINBYTES8:
        return shoal__load_counted_bytes(decoder, 8);
    case OP_BYTEARRAY8:
        return shoal__load_counted_bytearray(decoder);
    case OP_UNICODE:
        return shoal__load_unicode_line(decoder);
    case OP_SHORT_BINUNICODE:
        return shoal__load_counted_text(decoder, 1);
    case OP_BINUNICODE:
        return shoal__load_counted_text(decoder, 4);
    case OP_BINUNICODE8:
        return shoal__load_counted_text(decoder, 8);
    default:
        return bad_opcode(decoder, opcode);
    }
}

static int load_object(struct shoal_decoder *decoder, unsigned opcode)
{
    switch (opcode) {
    case OP_GLOBAL:
        return shoal__load_global(decoder);
    case OP_STACK_GLOBAL:
        return shoal__load_stack_global(decoder);
    case OP_EXT1:
        return shoal__load_extension(decoder, 1);
    case OP_EXT2:
        return shoal__load_extension(decoder, 2);
    case OP_EXT4:
        return shoal__load_extension(decoder, 4);
    case OP_REDUCE:
        return shoal__load_reduce(decoder);
    case OP_BUILD:
        return shoal__load_build(decoder);
    case OP_NEWOBJ:
        return shoal__load_newobj(decoder, false);
    case OP_NEWOBJ_EX:
        return shoal__load_newobj(decoder, true);
    case OP_INST:
        return shoal__load_inst(decoder);
    case OP_OBJ:
        return shoal__load_obj(decoder);
    case OP_PERSID:
        return shoal__load_persid(decoder);
    case OP_BINPERSID:
        return shoal__load_binpersid(decoder);
    case OP_NEXT_BUFFER:
        return shoal__load_next_buffer(decoder);
    case OP_READONLY_BUFFER:
        return shoal__load_readonly_buffer(decoder);
    default:
        return load_atom(decoder, opcode);
    }
}

static int load_control(struct shoal_decoder *decoder, unsigned opcode)
{
    switch (opcode) {
    case OP_PROTO:
        return load_proto(decoder);
    case OP_FRAME:
        return load_frame(decoder);
    case OP_POP:
        return load_pop(decoder);
    case OP_POP_MARK:
        return load_pop_mark(decoder);
    case OP_DUP:
        return load_dup(decoder);
    case OP_GET:
        return shoal__load_get_line(decoder);
    case OP_BINGET:
        return load_get(decoder, 1);
    case OP_LONG_BINGET:
        return load_get(decoder, 4);
    case OP_PUT:
        return shoal__load_put_line(decoder);
    case OP_BINPUT:
        return load_put(decoder, 1);
    case OP_LONG_BINPUT:
        return load_put(decoder, 4);
    case OP_MEMOIZE:
        return load_memoize(decoder);
    default:
        return load_object(decoder, opcode);
    }
}

int shoal__load(struct shoal_decoder *decoder, unsigned opcode)
{
    switch (opcode) {
    case OP_STOP:
        return SHOAL__STOPPED;
    case OP_MARK:
        return shoal__mark(decoder);
    case OP_TUPLE:
        return shoal__load_tuple(decoder);
    case OP_EMPTY_TUPLE:
        return shoal__push(decoder, PyTuple_New(0));
    case OP_TUPLE1:
        return shoal__load_small_tuple(decoder, 1);
    case OP_TUPLE2:
        return shoal__load_small_tuple(decoder, 2);
    case OP_TUPLE3:
        return shoal__load_small_tuple(decoder, 3);
    case OP_LIST:
        return shoal__load_list(decoder);
    case OP_EMPTY_LIST:
        return shoal__push(decoder, PyList_New(0));
    case OP_APPEND:
        return shoal__load_append(decoder);
    case OP_APPENDS:
        return shoal__load_appends(decoder);
    case OP_DICT:
        return shoal__load_dict(decoder);
    case OP_EMPTY_DICT:
        return shoal__push(decoder, PyDict_New());
    case OP_SETITEM:
        return shoal__load_setitem(decoder);
    case OP_SETITEMS:
        return shoal__load_setitems(decoder);
    case OP_EMPTY_SET:
        return shoal__push(decoder, PySet_New(NULL));
    case OP_ADDITEMS:
        return shoal__load_additems(decoder);
    case OP_FROZENSET:
        return shoal__load_frozenset(decoder);
    default:
        return load_control(decoder, opcode);
    }
}

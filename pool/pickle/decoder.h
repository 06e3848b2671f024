/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * decoder.h - the inside of the unpickler, shared by decoder*.c, load_*.c and unpickler*.c.
 *
 * Every opcode has a careful function here that takes its argument through shoal__take() or shoal__take_line(), which
 * check what is left, and read on from a file if there is one. decoder_run.c repeats the most frequent ones in place,
 * for the case that everything they need is at hand.
 *
 * Plain decoding. As long as opcodes of a stream in memory run no user code (and so no other thread's code either) and
 * drop nothing, whatever they put cannot go away: for that time the memo borrows its objects. Whoever is about to drop
 * an object that may have been put calls shoal__own() first. That ends an epoch; the loop begins another one with the
 * next opcode.
 *
 * The cyclic collector is held off while the decoder works, for it would find no garbage and look at everything again
 * and again; it is on whenever user code runs. Whoever is about to run some calls shoal__release() first, which
 * implies shoal__own(); the loop takes hold of it again afterwards. For the same time, memory comes from large pages.
 */
#ifndef SHOAL_PICKLE_DECODER_H
#define SHOAL_PICKLE_DECODER_H

#include "state.h"

#include "decoder_memo.h"
#include "decoder_source.h"
#include "large_pages.h"

#include <stdbool.h>
#include <string.h>

enum {
    SHOAL__STOPPED = 1, /* what shoal__load() returns for STOP */
    SHOAL__HASH_STEPS_PER_BYTE = 64,
};

/* The keyword arguments of load, loads and Unpickler. */
struct shoal__load_options {
    bool fix_imports;
    const char *encoding;
    const char *errors;
    PyObject *buffers; /* NULL or None: no buffers */
};

/* A MARK, and the instance's state that opens with it, if it is one that was put off (load_instance.c). */
struct shoal__mark {
    size_t offset; /* from the stack's base */
    size_t index;  /* the memo's next one at that time: that of the state's promise, if it is named */
    size_t epoch;  /* when the state was opened */
    enum { SHOAL__NO_STATE, SHOAL__NAMED_STATE, SHOAL__UNNAMED_STATE } state;
};

/* The instances of one stream: its classes, the attributes that they were seen with, the promised states. */
struct shoal__instances {
    struct shoal__class *classes; /* a table by address; NULL until there is a first instance */
    struct shoal__shape *shapes;  /* all of them, a list */
    unsigned shape_count;
    struct shoal__promised *promised;
    size_t promised_count;
    size_t promised_capacity;
};

/* What the stream has made of types whose objects Python frees by recursion (decoder_chains.c); owned. */
struct shoal__notes {
    PyObject **objects;
    size_t count;
    size_t capacity;
};

struct shoal_decoder {
    struct shoal__source source;

    /* The stack: [base, top) holds references; what lies below fence belongs to an outer MARK. */
    PyObject **base;
    PyObject **top;
    PyObject **fence;
    PyObject **end;
    struct shoal__mark *marks; /* the last one is the fence */
    size_t mark_count;
    size_t mark_capacity;

    struct shoal__memo memo;
    struct shoal__instances instances;
    struct shoal__notes notes;
    struct shoal__large_pages large_pages;
    destructor instances_dealloc;     /* of classes made in Python */
    struct shoal_pickle_state *state; /* borrowed: who owns the decoder keeps the module alive */

    int protocol;
    size_t epoch;          /* counts the times that something may have been dropped, or user code run */
    PyObject *simple;      /* a dict or set that has been filled in this epoch and has simple keys only; or NULL */
    unsigned short_epochs; /* how many in a row ended soon */
    unsigned steps;        /* of this epoch */
    unsigned rest;         /* steps to go without borrowing */
    PyTypeObject *harmless; /* the last one that shoal__load_reduce found to run no user code; or NULL */
    bool in_memory;        /* this stream may be decoded plainly, and hold the collector off */
    bool unchanging;       /* and nobody changes its bytes meanwhile */
    bool holding;          /* it does just now */
    bool collector_was_on; /* while holding: switch it on again */
    bool busy;
    bool end_is_damage; /* the end of the input where an opcode should be: UnpicklingError instead of EOFError */
    bool fix_imports;
    bool keep_bytes; /* encoding="bytes" */
    const char *encoding;
    const char *errors;
    size_t hash_budget; /* tuples that may still be walked through for the sake of their hash */

    shoal_buffer_giver give; /* NULL: no out-of-band buffers */
    void *give_context;
    Py_ssize_t buffers_given;
    PyObject *buffers; /* the iterator behind `give`, if the buffers are Python's */

    shoal_heir heir; /* what persistent ids are to the engine; NULL: nothing */
    void *heir_context;

    PyObject *unpickler;       /* whose find_class and persistent_load count; borrowed; NULL: none */
    bool custom_find_class;    /* it may have a find_class of its own */
    PyObject *persistent_load; /* fetched from it when first needed in a stream */

    PyObject *not_made; /* what was called when loading failed, or NULL */

    char *scratch; /* private copies of lines and of numbers */
    size_t scratch_size;
};

/* decoder_error.c; with an exception set */
void shoal__not_made(struct shoal_decoder *decoder, PyObject *callable); /* the first one counts */
void shoal__tell_place(struct shoal_decoder *decoder);

/* decoder.c */
void shoal__plainly(struct shoal_decoder *decoder);       /* begin an epoch, hold the collector off */
void shoal__decoder_reset(struct shoal_decoder *decoder); /* default options, no source */
PyObject *shoal__decoder_load(struct shoal_decoder *decoder); /* one pickle from the source */
void shoal__let_collector_go(struct shoal_decoder *decoder);
char *shoal__scratch(struct shoal_decoder *decoder, size_t size);
int shoal__decoder_configure(struct shoal_decoder *decoder, const struct shoal__load_options *options);
PyObject *shoal__decode_object(struct shoal_decoder *decoder, PyObject *data,
                               const struct shoal__load_options *options);

/* decoder_chains.c */
int shoal__note_unguarded(struct shoal_decoder *decoder, PyObject *obj);
bool shoal__notes_are_many(const struct shoal_decoder *decoder);
int shoal__check_chains(struct shoal_decoder *decoder); /* at the end of a stream: 0, or -1 */
void shoal__notes_clear(struct shoal_decoder *decoder, bool loaded); /* last, when the decoder holds nothing else */

/* decoder_run.c */
int shoal__run(struct shoal_decoder *decoder); /* up to STOP: 0, or -1 */

/* decoder_dispatch.c */
int shoal__load(struct shoal_decoder *decoder, unsigned opcode); /* one opcode: 0, SHOAL__STOPPED or -1 */

/* decoder_stack.c */
int shoal__stack_grow(struct shoal_decoder *decoder);
void shoal__stack_cut(struct shoal_decoder *decoder, PyObject **to); /* drops what lies above */
void shoal__stack_done(struct shoal_decoder *decoder);
int shoal__underflow(const struct shoal_decoder *decoder); /* sets the exception, returns -1 */
int shoal__mark(struct shoal_decoder *decoder);
PyObject **shoal__unmark(struct shoal_decoder *decoder);                 /* where the marked items start, or NULL */
PyObject **shoal__unmark_above_one(struct shoal_decoder *decoder);       /* the same, with an object below the mark */
PyObject *shoal__pop_tuple(struct shoal_decoder *decoder, PyObject **from); /* [from, top) as a new tuple */
PyObject *shoal__pop_list(struct shoal_decoder *decoder, PyObject **from);

/* load_numbers.c */
PyObject *shoal__make_long(struct shoal_decoder *decoder, const uint8_t *bytes, size_t size);
PyObject *shoal__make_float(const uint8_t *bytes);
int shoal__load_int4(struct shoal_decoder *decoder);
int shoal__load_uint(struct shoal_decoder *decoder, size_t size);
int shoal__load_binfloat(struct shoal_decoder *decoder);
int shoal__load_counted_long(struct shoal_decoder *decoder, size_t size_of_length);

/* load_strings.c */
PyObject *shoal__make_text(const struct shoal_decoder *decoder, const uint8_t *bytes, size_t size);
int shoal__load_counted_text(struct shoal_decoder *decoder, size_t size_of_length);
int shoal__load_counted_bytes(struct shoal_decoder *decoder, size_t size_of_length);
int shoal__load_counted_string(struct shoal_decoder *decoder, size_t size_of_length);
int shoal__load_counted_bytearray(struct shoal_decoder *decoder);
PyObject *shoal__decode_string(struct shoal_decoder *decoder, const char *bytes, size_t size);

/* load_lines.c: protocol 0 */
int shoal__load_int_line(struct shoal_decoder *decoder);
int shoal__load_long_line(struct shoal_decoder *decoder);
int shoal__load_float_line(struct shoal_decoder *decoder);
int shoal__load_string_line(struct shoal_decoder *decoder);
int shoal__load_unicode_line(struct shoal_decoder *decoder);
int shoal__load_get_line(struct shoal_decoder *decoder);
int shoal__load_put_line(struct shoal_decoder *decoder);

/* load_containers.c */
int shoal__load_tuple(struct shoal_decoder *decoder);
int shoal__load_small_tuple(struct shoal_decoder *decoder, Py_ssize_t size);
int shoal__load_list(struct shoal_decoder *decoder);
int shoal__load_append(struct shoal_decoder *decoder);
int shoal__load_appends(struct shoal_decoder *decoder);

/* load_hashed.c: dicts and sets */
int shoal__load_dict(struct shoal_decoder *decoder);
int shoal__load_setitem(struct shoal_decoder *decoder);
int shoal__load_setitems(struct shoal_decoder *decoder);
int shoal__load_additems(struct shoal_decoder *decoder);
int shoal__load_frozenset(struct shoal_decoder *decoder);
int shoal__check_arguments(struct shoal_decoder *decoder, PyObject *callable, PyObject *arguments);

/* load_globals.c */
PyObject *shoal__find_global(struct shoal_decoder *decoder, PyObject *module, PyObject *name);
PyObject *shoal__find_class(struct shoal_decoder *decoder, PyObject *module, PyObject *name); /* asks the unpickler */
int shoal__load_global(struct shoal_decoder *decoder);
int shoal__load_stack_global(struct shoal_decoder *decoder);
/* What OP_SHORT_BINUNICODE is, and more at once if a function of shoal._rebuild is named. */
int shoal__load_rebuilder(struct shoal_decoder *decoder);
int shoal__load_extension(struct shoal_decoder *decoder, size_t size_of_code);

/* load_objects.c */
int shoal__load_reduce(struct shoal_decoder *decoder);
int shoal__load_newobj(struct shoal_decoder *decoder, bool with_keywords);
int shoal__load_inst(struct shoal_decoder *decoder);
int shoal__load_obj(struct shoal_decoder *decoder);
int shoal__load_persid(struct shoal_decoder *decoder);
int shoal__load_binpersid(struct shoal_decoder *decoder);
int shoal__load_next_buffer(struct shoal_decoder *decoder);
int shoal__load_readonly_buffer(struct shoal_decoder *decoder);

/* load_build.c */
bool shoal__is_usual(const struct shoal_decoder *decoder, PyTypeObject *type);
int shoal__load_build(struct shoal_decoder *decoder);

/* load_instance.c: instances of usual classes */
int shoal__make_instance(struct shoal_decoder *decoder); /* for NEWOBJ: 1: done; 0: no, nothing has happened; -1 */
int shoal__close_state(struct shoal_decoder *decoder);   /* for SETITEMS: 1: done, and BUILD too; 0; -1 */
int shoal__make_state(struct shoal_decoder *decoder, struct shoal__mark *mark); /* a dict, after all: 0 or -1 */
void shoal__keep_promises(struct shoal_decoder *decoder);
void shoal__instances_clear(struct shoal__instances *instances); /* after a stream; what is known of classes stays */
void shoal__instances_done(struct shoal__instances *instances);

/* decoder.c */
void shoal__end_epoch(struct shoal_decoder *decoder);
int shoal__put_over(struct shoal_decoder *decoder, size_t index, PyObject *obj);
PyObject *shoal__get(struct shoal_decoder *decoder, size_t index); /* new reference, or NULL with an exception */

/* Before an object that the memo may borrow can go away. */
static inline void shoal__own(struct shoal_decoder *decoder)
{
    if (decoder->memo.borrows)
        shoal__end_epoch(decoder);
}

/* Before user code runs. */
static inline void shoal__release(struct shoal_decoder *decoder)
{
    shoal__own(decoder);
    if (decoder->holding)
        shoal__let_collector_go(decoder);
}

/* 0 or -1. */
static inline int shoal__put(struct shoal_decoder *decoder, size_t index, PyObject *obj)
{
    if (!shoal__memo_appends(&decoder->memo, index))
        return shoal__put_over(decoder, index, obj);
    shoal__memo_append(&decoder->memo, obj);
    return 0;
}

/* Steals obj, also on failure; NULL (with an exception) is passed on. 0 or -1. */
static inline int shoal__push(struct shoal_decoder *decoder, PyObject *obj)
{
    if (obj == NULL)
        return -1;
    if (decoder->top == decoder->end && shoal__stack_grow(decoder) < 0) {
        Py_DECREF(obj);
        return -1;
    }
    *decoder->top++ = obj;
    return 0;
}

/* The same for an object that was made by a call. */
static inline int shoal__push_made(struct shoal_decoder *decoder, PyObject *obj)
{
    if (obj != NULL && PyType_IS_GC(Py_TYPE(obj)) && Py_TYPE(obj)->tp_dealloc != decoder->instances_dealloc &&
        shoal__note_unguarded(decoder, obj) < 0) {
        Py_DECREF(obj);
        return -1;
    }
    return shoal__push(decoder, obj);
}

/* New reference (the stack's), or NULL with an exception. */
static inline PyObject *shoal__pop(struct shoal_decoder *decoder)
{
    if (decoder->top == decoder->fence) {
        shoal__underflow(decoder);
        return NULL;
    }
    return *--decoder->top;
}

/* Are there count objects above the fence? 0 or -1. */
static inline int shoal__stack_has(const struct shoal_decoder *decoder, Py_ssize_t count)
{
    return decoder->top - decoder->fence < count ? shoal__underflow(decoder) : 0;
}

/* The limits that grow with what was read. */
static inline void shoal__count_input(struct shoal_decoder *decoder, size_t size)
{
    decoder->memo.index_limit += size;
    decoder->hash_budget += SHOAL__HASH_STEPS_PER_BYTE * size;
}

/*
 * Numbers out of the stream. Each byte is fetched once: the empty asm keeps the compiler from going back to the
 * stream, which another process might be changing.
 */
static inline uint64_t shoal__fetch(const uint8_t *at, size_t size)
{
    uint64_t value = 0;
    memcpy(&value, at, size);
    __asm__("" : "+r"(value));
#if PY_BIG_ENDIAN
    value = __builtin_bswap64(value);
#endif
    return value;
}

/* The next size bytes of the stream, in place, taken; NULL with an exception if they are not there. */
static inline const uint8_t *shoal__take(struct shoal_decoder *decoder, size_t size)
{
    struct shoal__source *source = &decoder->source;
    if ((size_t)(source->limit - source->cursor) < size && shoal__source_more(decoder, size) < 0)
        return NULL;
    const uint8_t *at = source->cursor;
    source->cursor += size;
    return at;
}

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * encoder.h - one stream under way: where it goes, what it has seen, what the caller wants done differently.
 *
 * Used by the pickler's own files only. The save functions return 0, or -1 with an exception set; each writes its
 * object completely, memo entry included. Any of them may run user code, except those for exact atoms.
 *
 * In the words of the format: "put" enters the object that lies on top of the reader's stack into the memo.
 */
#ifndef SHOAL_PICKLE_ENCODER_H
#define SHOAL_PICKLE_ENCODER_H

#include "code.h"
#include "deep_stack.h"
#include "opcodes.h"
#include "state.h"
#include "text_table.h"
#include <stdbool.h>
#include <string.h>

/* What the caller chose; all references borrowed, NULL where nothing was chosen. */
struct shoal_encoder_hooks {
    PyObject *persistent_id;    /* callable(obj) -> id or None */
    PyObject *reducer_override; /* callable(obj) -> reduce value or NotImplemented */
    PyObject *dispatch_table;   /* mapping type -> reducer, instead of copyreg's */
    PyObject *dispatch_maps;    /* if that is a ChainMap: its maps, a list; owned by whoever sets the hooks */
    PyObject *buffer_callback;  /* callable(PickleBuffer) -> true: in band */
    PyObject *file_write;       /* callable(bytes): closed frames are written as they come */
    PyObject *reducers;         /* dict type -> reducer that goes before copyreg's */
    PyObject *handle_type, *handle_reducer; /* one type more, which goes before all */
    bool own_reducers_only;     /* an object that `reducers` has a reducer for is an error */
    shoal_buffer_taker take;
    void *take_context;
    size_t out_of_band_min;
    const struct shoal_inheritance *inheritance; /* what the reader has already */
};

enum shoal_path_mode { PATH_UNDECIDED, PATH_COLLECT, PATH_IGNORE };

struct shoal_encoder {
    struct shoal_pickle_state *state;
    struct shoal_sink *sink;
    struct shoal_memo memo;
    struct shoal_encoder_hooks hooks;
    struct shoal_deep_stack stack;

    int protocol;
    bool binary;      /* protocol >= 1 */
    bool fast;        /* no memo at all */
    bool fix_imports; /* Python 2's names for modules, protocol < 3 */
    bool sparse;      /* no memo entries for strings that one container alone holds, nor for argument tuples: such a
                         string arrives twice if a reducer takes it out of there and gives it away again */
    bool framing;

    size_t frame_start; /* offset of the open frame's header; only while framing */
    size_t frame_end;   /* offset at which it is to be closed; SIZE_MAX when not framing */

    PyObject *maker; /* compared, never followed: what the value of a reducer for functions or classes calls */
    PyObject *first_code; /* bytes of the first code object of the stream, or NULL */
    PyObject *codes;      /* dict: bytes -> the same bytes, for all of them; NULL while there is one only */

    unsigned in_class;           /* how many classes by value are under way, with what waits for them */
    struct shoal_texts texts;    /* begun with the first of them: strings by what they say */
    struct shoal_birth *births;  /* classes under way, innermost first (births.c) */
    struct shoal_birth *blocked; /* the one that stood in the way of the last save that failed */
    struct shoal_late *late;     /* what waits for births */
    Py_ssize_t late_count, late_room;
    size_t buffers_taken; /* out of band */

    unsigned by_value; /* how many functions and modules by value are under way */

    unsigned fast_depth;
    PyObject *fast_seen; /* dict of ids on the way down, beyond a certain depth: id -> None, or how often */

    enum shoal_path_mode path_mode;
    PyObject *path;         /* list of steps: where the culprit sits (error_path.c) */
    Py_ssize_t path_length; /* how many steps there were, those that were dropped included */
    PyObject *culprit;      /* the innermost object that could not be saved */
    const char *root;       /* what the root is to its user, a word for shoal._paths; or NULL */
    Py_ssize_t root_index;
};

int shoal_encoder_init(struct shoal_encoder *encoder, struct shoal_pickle_state *state);
void shoal_encoder_done(struct shoal_encoder *encoder);
int shoal__encoder_set_protocol(struct shoal_encoder *encoder, PyObject *protocol, int fix_imports,
                                PyObject *buffer_callback);
/* One whole pickle, PROTO to STOP, with what is in the memo already. Hooks, protocol and sink are set. */
int shoal__encoder_run(struct shoal_encoder *encoder, PyObject *obj);
int shoal__frame_turn(struct shoal_encoder *encoder);  /* close the frame that is full, open the next one */
int shoal__frame_close(struct shoal_encoder *encoder); /* before something that must not lie in a frame */
void shoal__frame_open(struct shoal_encoder *encoder);
int shoal__flush(struct shoal_encoder *encoder); /* give to file_write what there is */

/* ---- writing bytes ---- */

static inline uint8_t *shoal__room(struct shoal_encoder *e, size_t need)
{
    return shoal_sink_room(e->sink, need) < 0 ? NULL : e->sink->cursor;
}

static inline int shoal__op(struct shoal_encoder *e, int opcode)
{
    if (shoal_sink_room(e->sink, 1) < 0)
        return -1;
    *e->sink->cursor++ = (uint8_t)opcode;
    return 0;
}

static inline int shoal__raw(struct shoal_encoder *e, const void *data, size_t size)
{
    if (shoal_sink_room(e->sink, size) < 0)
        return -1;
    memcpy(e->sink->cursor, data, size);
    e->sink->cursor += size;
    return 0;
}

static inline void shoal__store_le(uint8_t *at, uint64_t value, int size)
{
    if (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__) {
        memcpy(at, &value, (size_t)size);
        return;
    }
    for (int i = 0; i < size; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

int shoal__text(struct shoal_encoder *e, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Header and data; large data outside of frames and straight to the file. payload: an object that holds exactly
 * `data`, or NULL. */
int shoal__blob(struct shoal_encoder *e, const uint8_t *header, size_t header_size, const void *data, size_t size,
                PyObject *payload);
int shoal__begin_tuple(struct shoal_encoder *e, Py_ssize_t n);
int shoal__end_tuple(struct shoal_encoder *e, Py_ssize_t n);
int shoal__empty_dict(struct shoal_encoder *e);

/* ---- memo ---- */

int shoal__put_key(struct shoal_encoder *e, uintptr_t key);
int shoal__get_index(struct shoal_encoder *e, int64_t index);

int shoal__put(struct shoal_encoder *e, PyObject *obj);

static inline int64_t shoal__find(const struct shoal_encoder *e, PyObject *obj)
{
    return shoal_memo_find(&e->memo, (uintptr_t)obj);
}

void shoal__classes_clear(struct shoal_encoder *e); /* what is kept for classes under way (births.c) */

/* ---- saving objects ---- */

int shoal__save(struct shoal_encoder *e, PyObject *obj);
int shoal__save_without_id(struct shoal_encoder *e, PyObject *obj); /* does not ask persistent_id about obj itself */
/* What is no str, int, float, bool or None; without persistent ids, and with no frame to be closed first. */
int shoal__save_compound(struct shoal_encoder *e, PyObject *obj, PyTypeObject *type);
int shoal__save_none(struct shoal_encoder *e);
int shoal__save_bool(struct shoal_encoder *e, PyObject *obj);
int shoal__save_long(struct shoal_encoder *e, PyObject *obj);
int shoal__save_float(struct shoal_encoder *e, PyObject *obj);
int shoal__save_str(struct shoal_encoder *e, PyObject *obj);
/* holders: how many references are the container's and the caller's own; a str that has no others was not met yet. */
int shoal__save_held_str(struct shoal_encoder *e, PyObject *obj, Py_ssize_t holders);
/* As UTF-8 from `at` on, where there is room for four bytes a character; the end. */
uint8_t *shoal__store_utf8(uint8_t *at, int kind, const void *data, Py_ssize_t length);
int shoal__save_constant(struct shoal_encoder *e, PyObject *str); /* a name of ours: no memo entry */
int shoal__save_bytes(struct shoal_encoder *e, PyObject *obj);
int shoal__save_bytes_data(struct shoal_encoder *e, PyObject *exporter, const void *data,
                            Py_ssize_t size); /* protocol 3 on; no memo entry */
int shoal__save_bytearray(struct shoal_encoder *e, PyObject *obj);
int shoal__save_picklebuffer(struct shoal_encoder *e, PyObject *obj);
int shoal__save_tuple(struct shoal_encoder *e, PyObject *obj);
int shoal__save_usual_tuple(struct shoal_encoder *e, PyObject *obj); /* not in the memo; protocol 4 on, with a memo */
int shoal__save_list(struct shoal_encoder *e, PyObject *obj);
int shoal__save_dict(struct shoal_encoder *e, PyObject *obj);
int shoal__save_list_or_dict(struct shoal_encoder *e, PyObject *obj); /* protocol 4 on, with a memo */
int shoal__save_set(struct shoal_encoder *e, PyObject *obj);
int shoal__save_frozenset(struct shoal_encoder *e, PyObject *obj);
/* Of these, as many from the first on as are simple; how many. */
Py_ssize_t shoal__bulk_items(struct shoal_encoder *e, PyObject *const *items, Py_ssize_t count);
/* Entries, likewise, at most `most`; moves *position. Where a key was simple and its value is not, that entry is the
 * last one, not counted, and the caller writes the value; otherwise ret_begun->key is NULL. */
struct shoal_entry {
    PyObject *key; /* both borrowed from the dict */
    PyObject *value;
};
int shoal__bulk_entries(struct shoal_encoder *e, PyObject *dict, Py_ssize_t *position, int most,
                        struct shoal_entry *ret_begun);
int shoal__batch_items(struct shoal_encoder *e, PyObject *iterator);      /* APPEND(S) */
int shoal__batch_pairs(struct shoal_encoder *e, PyObject *iterator);      /* SETITEM(S), of tuples of two */
int shoal__batch_dict(struct shoal_encoder *e, PyObject *dict);           /* SETITEM(S), of an exact dict */
int shoal__save_reduced(struct shoal_encoder *e, PyObject *value, PyObject *obj); /* value: a tuple; obj may be NULL */
int shoal__save_by_reduce(struct shoal_encoder *e, PyObject *obj);        /* dispatch table, __reduce_ex__, ... */
int shoal__save_any_reduce(struct shoal_encoder *e, PyObject *value, PyObject *obj); /* a str or a tuple */
PyObject *shoal__reduce_itself(struct shoal_encoder *e, PyObject *obj); /* what its own methods say: new reference */
/* New reference to the reducer that is registered for the type; NULL without an exception if there is none. */
PyObject *shoal__find_reducer(struct shoal_encoder *e, PyObject *type);
/* The same, in the pickler's own table only and not in copyreg's. */
PyObject *shoal__find_own_reducer(struct shoal_encoder *e, PyObject *type);
/* table: borrowed, may be NULL. Sets hooks->dispatch_maps to a new reference or NULL. 0 or -1. */
int shoal__set_dispatch_table(struct shoal_encoder_hooks *hooks, const struct shoal_pickle_state *state,
                              PyObject *table);
int shoal__save_global(struct shoal_encoder *e, PyObject *obj, PyObject *name); /* name NULL: its own */
/* By its own name if that leads to it. 1: written; 0: it does not, or must not; -1. */
int shoal__save_if_importable(struct shoal_encoder *e, PyObject *obj);
int shoal__save_named(struct shoal_encoder *e, PyObject *obj, PyObject *module, PyObject *name); /* not followed */
int shoal__save_type(struct shoal_encoder *e, PyObject *obj);
int shoal__save_function(struct shoal_encoder *e, PyObject *obj);
int shoal__save_single_dispatch(struct shoal_encoder *e, PyObject *function); /* of functools.singledispatch */
int shoal__save_class(struct shoal_encoder *e, PyObject *obj); /* by value */
/* A new list: in an order that is that of the values, not of their hashes and of how the set has grown. */
PyObject *shoal__ordered_members(struct shoal_encoder *e, PyObject *set);
int shoal__save_in_order(struct shoal_encoder *e, PyObject *set, uint8_t each); /* so; after each this opcode or 0 */
int shoal__save_module(struct shoal_encoder *e, PyObject *obj);
int shoal__save_cell(struct shoal_encoder *e, PyObject *obj);
int shoal__save_closure(struct shoal_encoder *e, PyFunctionObject *function); /* a tuple of cells, first step */
/* Fills the cells that came into the memo with this function: those with numbers from `first` up to `end`. */
int shoal__fill_closure(struct shoal_encoder *e, PyFunctionObject *function, int64_t first, int64_t end);
/* The namespace of functions whose globals this is: named, or made and put, empty or with what any module has. Not for
 * fast mode. */
int shoal__save_namespace_of(struct shoal_encoder *e, PyObject *globals, bool seeded);
/* First step: the namespace of this function. */
int shoal__save_namespace(struct shoal_encoder *e, PyFunctionObject *f, struct shoal_code_facts *facts);
/* Second step, after the function itself: the globals that it uses, and submodules of packages among them. */
int shoal__fill_namespace(struct shoal_encoder *e, PyFunctionObject *f, PyObject *code, struct shoal_code_facts *facts);

/* 1: written; 0: not known to be ordinary, ask it; -1. */
int shoal__save_instance(struct shoal_encoder *e, PyObject *obj);
/* value: what obj has just answered to __reduce_ex__. */
void shoal__learn_instance(struct shoal_encoder *e, PyObject *obj, PyObject *value);
/* numpy arrays. 1: written; 0: it is none, or numpy is to be asked; -1. */
int shoal__save_array(struct shoal_encoder *e, PyObject *obj);
int shoal__save_object_array(struct shoal_encoder *e, PyObject *array); /* likewise; its dtype is array_objects */
int shoal__save_dtype(struct shoal_encoder *e, PyObject *dtype);
int shoal__save_shape(struct shoal_encoder *e, const Py_buffer *view, bool reversed);
int shoal__save_code(struct shoal_encoder *e, PyObject *obj);

/* 1: written; 0: not one of those that only travel by value; -1. For objects with no reducer of their own. */
int shoal__save_special(struct shoal_encoder *e, PyObject *obj);

/* A Python function of shoal._rebuild, imported at its first use: borrowed, kept in *slot; NULL with an exception. */
PyObject *shoal__rebuild_helper(PyObject **slot, const char *name);
/* rebuilder(*arguments), into the memo as obj. Steals `arguments`, which may be NULL with an exception set. */
int shoal__save_rebuilt(struct shoal_encoder *e, enum shoal_rebuilder which, PyObject *arguments, PyObject *obj);
/* Names one of our reconstructors: GLOBAL or STACK_GLOBAL with a memo entry. */
int shoal__save_rebuilder(struct shoal_encoder *e, enum shoal_rebuilder which);

/* Ints of one digit, which are most, without a call. */
static inline bool shoal__long_is_small(PyObject *obj, long *ret_value)
{
#if PY_VERSION_HEX >= 0x030C0000
    if (!PyUnstable_Long_IsCompact((PyLongObject *)obj))
        return false;
    *ret_value = (long)PyUnstable_Long_CompactValue((PyLongObject *)obj);
#else
    Py_ssize_t digits = Py_SIZE(obj);
    if (digits < -1 || digits > 1)
        return false;
    *ret_value = digits == 0 ? 0 : digits * (long)((PyLongObject *)obj)->ob_digit[0];
#endif
    return true;
}

/* A value of 32 bits, in binary form; 5 bytes are written, and the new cursor says how many count. */
static inline uint8_t *shoal__store_small(uint8_t *at, long value)
{
    uint64_t bits = (uint64_t)value;
    at[0] = bits <= 0xff ? OP_BININT1 : bits <= 0xffff ? OP_BININT2 : OP_BININT;
    shoal__store_le(at + 1, bits, 4);
    return at + (bits <= 0xff ? 2 : bits <= 0xffff ? 3 : 5);
}

static inline uint8_t *shoal__store_float(uint8_t *at, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__)
        bits = __builtin_bswap64(bits);
    at[0] = OP_BINFLOAT;
    memcpy(at + 1, &bits, sizeof bits);
    return at + 9;
}

static inline int shoal__save_small(struct shoal_encoder *e, long value)
{
    if (!e->binary)
        return shoal__text(e, "%c%ld\n", OP_INT, value);
    uint8_t *at = shoal__room(e, 5);
    if (!at)
        return -1;
    e->sink->cursor = shoal__store_small(at, value);
    return 0;
}

/* A part of a container, borrowed from it. What runs no user code needs no reference of its own meanwhile. */
static inline int shoal__save_part(struct shoal_encoder *e, PyObject *obj)
{
    if (!e->hooks.persistent_id && shoal_sink_used(e->sink) < e->frame_end) {
        PyTypeObject *type = Py_TYPE(obj);
        if (type == &PyUnicode_Type)
            return shoal__save_str(e, obj);
        if (type == &PyLong_Type) {
            long small;
            return shoal__long_is_small(obj, &small) ? shoal__save_small(e, small) : shoal__save_long(e, obj);
        }
        if (type == &PyFloat_Type)
            return shoal__save_float(e, obj);
        if (obj == Py_None)
            return shoal__save_none(e);
        if (type == &PyBool_Type)
            return shoal__save_bool(e, obj);
        Py_INCREF(obj);
        int result = shoal__save_compound(e, obj, type);
        Py_DECREF(obj);
        return result;
    }
    Py_INCREF(obj);
    int result = shoal__save(e, obj);
    Py_DECREF(obj);
    return result;
}

/* ---- finding things by name ---- */

/* New reference to the attribute at the end of `dotted`, and to what holds it. -1: error; 0: not found; 1. */
int shoal__attribute(PyObject *module, PyObject *dotted, PyObject **ret_found, PyObject **ret_parent);
/* The module that obj says it is from, or the first one that has it; new reference to a str, or NULL. */
PyObject *shoal__whichmodule(struct shoal_pickle_state *state, PyObject *obj, PyObject *dotted);
int shoal__is_registered(struct shoal_pickle_state *state, PyObject *module_name); /* by value, or its package is */
int shoal__is_importable(struct shoal_encoder *e, PyObject *obj); /* 1: by reference, 0: by value, -1 */
/* The name that obj gives itself: new reference, or NULL. */
PyObject *shoal__own_name(struct shoal_pickle_state *state, PyObject *obj);
/* The same as is_importable; name: its own, or NULL with an exception. Sets a new reference, or NULL. */
int shoal__find_home(struct shoal_encoder *e, PyObject *obj, PyObject *name, PyObject **ret_module_name);

/* ---- where the culprit sits; called with an exception set, when saving a part has failed ---- */

/* kind: one of the words that shoal._paths knows. owner: whose part it is. detail: which one. Both may be NULL. */
void shoal__path_step(struct shoal_encoder *e, const char *kind, PyObject *owner, PyObject *detail);
void shoal__path_index(struct shoal_encoder *e, const char *kind, PyObject *owner, Py_ssize_t index);
void shoal__path_add(struct shoal_encoder *e, const char *format, ...); /* a step in plain words */
void shoal__path_culprit(struct shoal_encoder *e, PyObject *obj);       /* the first one that is named counts */
void shoal__path_tell(struct shoal_encoder *e);                         /* at the root: into the message */
void shoal__path_forget(struct shoal_encoder *e);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * state.h - what the pickler and the unpickler keep per module object: imported objects, interned names, types.
 *
 * May use: Python.h. Used by: everything in pool/pickle, by nobody outside.
 *
 * The state is reached in three ways: encoders and decoders point to it; module functions get it through the module
 * that is their `self` (shoal_pickle_state_of_function), whose own state must begin with a pointer to it, and which it
 * must be for the functions themselves to be picklable by name; types find it through their module's attribute
 * `_pickle_state` (shoal_pickle_state_of_type, slower: once per object made).
 *
 * The sections `shared`, `writer_objects` and `reader_objects` hold PyObject pointers and nothing else: traverse and
 * clear walk them as arrays.
 */
#ifndef SHOAL_PICKLE_STATE_H
#define SHOAL_PICKLE_STATE_H

#include "large_pages.h"
#include "pickle.h"

#define SHOAL_REBUILD "shoal._rebuild" /* the module of what streams name to make things again */
#define SHOAL_PICKLE_STATE_ATTRIBUTE "_pickle_state"

/* Imported once; all strong references. */
struct shoal_state_shared {
    PyObject *capsule; /* wraps the state itself, for the types */
    PyObject *pickling_error;   /* _pickle.PicklingError */
    PyObject *unpickling_error; /* _pickle.UnpicklingError */

    PyObject *dispatch_table;     /* copyreg.dispatch_table */
    PyObject *extension_registry; /* copyreg._extension_registry: (module, name) -> code */
    PyObject *inverted_registry;  /* copyreg._inverted_registry: code -> (module, name) */
    PyObject *extension_cache;    /* copyreg._extension_cache: code -> object */

    PyObject *import_2to3; /* _compat_pickle.IMPORT_MAPPING */
    PyObject *name_2to3;   /* _compat_pickle.NAME_MAPPING */
    PyObject *import_3to2; /* _compat_pickle.REVERSE_IMPORT_MAPPING */
    PyObject *name_3to2;   /* _compat_pickle.REVERSE_NAME_MAPPING */

    PyObject *getattr;       /* builtins.getattr */
    PyObject *partial;       /* functools.partial */
    PyObject *codecs_encode; /* _codecs.encode */
    PyObject *chain_map;     /* collections.ChainMap */
    PyObject *import_module; /* importlib.import_module */
    PyObject *watched_type;  /* of Python 3.10 (type_version.h), else NULL */
};

/* Interned attribute and method names: the field is called as the name, without the outer underscores. */
struct shoal_state_names {
    PyObject *qualname;
    PyObject *name;
    PyObject *module;
    PyObject *reduce;
    PyObject *reduce_ex;
    PyObject *getstate;
    PyObject *getnewargs;
    PyObject *getnewargs_ex;
    PyObject *setstate;
    PyObject *dict;
    PyObject *class_;
    PyObject *new_;
    PyObject *newobj;
    PyObject *newobj_ex;
    PyObject *main;
    PyObject *locals; /* "<locals>" */
    PyObject *write;
    PyObject *read;
    PyObject *readinto;
    PyObject *readline;
    PyObject *peek;
    PyObject *append;
    PyObject *extend;
    PyObject *add;
    PyObject *items;
    PyObject *persistent_id;
    PyObject *persistent_load;
    PyObject *reducer_override;
    PyObject *dispatch_table;
    PyObject *find_class;
    PyObject *builtins; /* "__builtins__" */
    PyObject *package;
    PyObject *path;
    PyObject *file;
    PyObject *doc;
    PyObject *annotations;
    PyObject *kwdefaults;
    PyObject *defaults;
    PyObject *type_params;
    PyObject *slots;
    PyObject *weakref;
    PyObject *orig_bases;
    PyObject *abc_impl;
    PyObject *initargs; /* "__getinitargs__" */
    PyObject *contents; /* "cell_contents" */
    PyObject *latin1;
    PyObject *slotnames; /* "__slotnames__": copyreg's cache */
    PyObject *forward_arg; /* "__forward_arg__" */
    PyObject *args;        /* "__args__" */
    PyObject *eval;
    PyObject *exec;
    PyObject *globals;
    PyObject *getattr; /* "__getattr__" */
    PyObject *linecache;
    PyObject *cache;
    PyObject *spec;         /* "__spec__" */
    PyObject *initializing; /* "_initializing" */
    PyObject *init;         /* "__init__" */
    PyObject *setattr;      /* "__setattr__" */
    PyObject *cause;        /* "__cause__" */
    PyObject *context;      /* "__context__" */
    PyObject *suppress_context; /* "__suppress_context__" */
    PyObject *notes;            /* "__notes__" */
    PyObject *exception_args;   /* "args" */
};

/* What streams name to make things again that travel by value: shoal._rebuild.<name>. */
enum shoal_rebuilder {
    REBUILD_FUNCTION,
    REBUILD_CODE,
    REBUILD_CELL,
    REBUILD_FILL_CELL,
    REBUILD_CLASS,
    REBUILD_FILL_CLASS,
    REBUILD_ENUM,
    REBUILD_MODULE,
    REBUILD_FILL_MODULE,
    REBUILD_IMPORT,
    REBUILD_VIEW,
    REBUILD_DESCRIPTOR,
    REBUILD_CONTENT,
    REBUILD_FIELD,
    REBUILD_DATACLASS_PARAMS,
    REBUILD_PUT_ITEMS,
    REBUILDER_COUNT,
};

struct shoal_state_writer {
    PyObject *pickler_type;
    PyObject *memo_proxy_type;
    PyObject *newobj_function;  /* copyreg.__newobj__ */
    PyObject *object_reduce_ex; /* object.__reduce_ex__, to see whether a type overrides it */
    PyObject *object_reduce;    /* object.__reduce__ */
    PyObject *object_getstate;  /* object.__getstate__ (3.11 on), or NULL */
    PyObject *slotnames;        /* copyreg._slotnames */
    PyObject *by_value_modules; /* set of module names registered to travel by value */
    PyObject *builtin_types;    /* dict: type -> (module, name), where it does not say so itself */
    PyObject *own_source;  /* shoal._source.own_lines, or NULL until a function without a file is sent */
    PyObject *keep_source; /* shoal._source.keep, likewise */
    PyObject *rebuild_module;               /* "shoal._rebuild" */
    PyObject *rebuilder_names[REBUILDER_COUNT]; /* str; their addresses are also the memo's keys for them */
    PyObject *single_dispatch_code; /* of each function that functools.singledispatch returns */
    PyObject *find_describer; /* shoal._describe.find_describer, or NULL until such an object is met */
    PyObject *array_dtype;    /* numpy.dtype, NULL until an array is sent */
    PyObject *array_objects;  /* numpy.dtype("O"), likewise */
    PyObject *known_dtype;    /* the last one that numpy has one object of, or NULL */
    PyObject *known_name;     /* of that, as dtype() takes it */
    PyObject *array_empty;    /* numpy.empty, likewise */
    PyObject *array_shell;    /* what an empty array of objects answers to __reduce__, or NULL until one is sent */
    PyObject *array_maker;    /* numpy._core.numeric._frombuffer, None if there is none, NULL until an array is sent */
    PyObject *describe_parameter; /* shoal._rebuild._describe_type_parameter, likewise */
};

/* Classes by value: which is which (class_record.c), and names that they need. */
struct shoal_state_classes {
    PyObject *record_type;
    PyObject *by_address;   /* dict: address of a class -> its record */
    PyObject *by_reference; /* dict: address of a weakref of ours -> (address of the class, what is kept of it) */
    PyObject *by_identity;  /* dict: identity -> list of records */
    PyObject *ordinals;     /* dict: identity without its ordinal -> the next ordinal */
    PyObject *defined_with; /* dict: address of a class -> (weakref, keyword arguments of its definition) */
    PyObject *forget;       /* callback of our weakrefs */
    PyObject *build_class;  /* the __build_class__ that was there before ours */
    PyObject *no_init_subclass; /* object.__init_subclass__, as found in its dict */
    PyObject *list_effects;
    PyObject *list_registered; /* functions of shoal._rebuild, from their first use on */
    PyObject *describe_enum;
    PyObject *make_class;
    PyObject *make_enum;
    PyObject *change_class;
    PyObject *fill_class;
    PyObject *init_subclass; /* "__init_subclass__" */
    PyObject *set_name;
    PyObject *func;
    PyObject *fget;
    PyObject *fset;
    PyObject *fdel;
    PyObject *static_attributes;
    PyObject *classcell;
    PyObject *abstract_methods;
};

/* Of the module dataclasses, from the first field on that is met (dataclass.h); before that all are NULL. */
struct shoal_state_dataclasses {
    PyObject *field_type;     /* Field */
    PyObject *params_type;    /* _DataclassParams */
    PyObject *missing;        /* MISSING */
    PyObject *empty_metadata; /* _EMPTY_METADATA */
    PyObject *kind_field;     /* _FIELD */
    PyObject *kind_class_variable;
    PyObject *kind_init_variable;
    PyObject *module_name; /* "dataclasses" */
    PyObject *field_name;  /* "Field" */
};

enum { SHOAL_FIELD_SLOTS = 11, SHOAL_PARAMS_SLOTS = 10 };

/* Where the slots of these two types lie. */
struct shoal_dataclass_layout {
    Py_ssize_t field_offsets[SHOAL_FIELD_SLOTS]; /* by enum shoal_field_slot */
    Py_ssize_t params_offsets[SHOAL_PARAMS_SLOTS];
    int params_count; /* fewer before 3.12 */
};

/* What an instruction's argument has to do with globals. */
enum shoal_opcode_kind {
    OPCODE_PLAIN,
    OPCODE_GLOBAL,         /* number of a name that is a global */
    OPCODE_GLOBAL_SHIFTED, /* likewise, above one bit of something else */
    OPCODE_EXTENDED_ARG,
};

/* How to read the bytecode of the running interpreter (code_write.c), and where to keep what was found. */
struct shoal_code_opcodes {
    uint8_t kinds[256];     /* enum shoal_opcode_kind by opcode */
    Py_ssize_t extra_index; /* our place in every code object's co_extra */
};

/* A class whose instances are written without asking them, as long as its version is this (save_instance.c). */
struct shoal_plain_type {
    PyTypeObject *type; /* compared, never followed */
    uint64_t version;   /* 0: no entry */
};

enum { SHOAL_PLAIN_TYPES = 256 };

/* What is known of a type whose objects were about to be asked how they are made again (save_special.c). */
struct shoal_special_type {
    PyTypeObject *type; /* compared, never followed */
    uint64_t version;   /* 0: no entry */
    unsigned facts;     /* of exceptions (save_exception.c) */
    /* NULL: nothing special about it */
    int (*save)(struct shoal_encoder *e, PyObject *obj, const struct shoal_special_type *kind);
    PyObject *about; /* strong, or NULL: a describer; nothing that would die with the type */
};

enum { SHOAL_SPECIAL_TYPES = 1024, SHOAL_SPECIAL_WAYS = 4 };

/* A code object by the bytes as which it came (code_bytes.c). */
struct shoal_known_code {
    PyObject *bytes;
    PyObject *code; /* NULL: none yet */
    uint32_t seen;  /* checksum of the bytes that came here last */
};

enum { SHOAL_KNOWN_CODES = 1024 };

/* Names that streams are full of, one for each place of a table (kept_names.c). */
enum { SHOAL_KEPT_NAMES = 1024, SHOAL_KEPT_NAME_SIZE = 48 };

/* The unpickler's own section. */
struct shoal_state_reader {
    PyObject *unpickler_type;
    PyObject *memo_proxy_type; /* of Unpickler.memo */
};

struct shoal_pickle_state {
    struct shoal_state_shared shared;
    struct shoal_state_names names;
    struct shoal_state_writer writer;
    struct shoal_state_reader reader;
    struct shoal_state_classes classes;
    struct shoal_state_dataclasses dataclasses;
    struct shoal_dataclass_layout dataclass_layout;
    unsigned tag_epoch;  /* of Python 3.10 (type_version.h) */
    unsigned fork_epoch; /* how many forks lie between the first process and this one */
    struct shoal_code_opcodes opcodes;
    struct shoal_known_code known_codes[SHOAL_KNOWN_CODES];
    PyObject *kept_names[SHOAL_KEPT_NAMES]; /* NULL: none yet */
    struct shoal_plain_type plain_types[SHOAL_PLAIN_TYPES];
    struct shoal_special_type special_types[SHOAL_SPECIAL_TYPES];
    struct shoal_making *making;   /* classes that are being made just now (class_making.c) */
    struct shoal_waiting *waiting; /* threads that wait for one of these */
    struct shoal_deep_stack *deep_stacks; /* of the dumps under way, the latest first */
    shoal_memory_meter memory_available;  /* NULL: unknown */
    size_t last_dumps_size; /* of the last large pickle that dumps has made */
    struct shoal__large_pages large_pages; /* of the engine; each decoder has its own */
    struct shoal_encoder *idle_encoder; /* kept between calls of dumps; NULL while one is under way */
    struct shoal_decoder *idle_decoder; /* kept between calls of loads; NULL while one is under way */
};

/* Borrowed from the module; NULL with an exception if the type is not one of ours. */
struct shoal_pickle_state *shoal_pickle_state_of_type(PyTypeObject *type);

/* For module functions made by shoal_pickle__add_functions: `self` is the module. NULL with an exception: not ready. */
struct shoal_pickle_state *shoal_pickle_state_of_function(PyObject *self);

/* Adds each method of the NULL-terminated table to the module, with the module as its `self`. 0 or -1. */
int shoal_pickle__add_functions(PyObject *module, PyMethodDef *methods);

/*
 * What PyImport_GetModule gives: a module that is there, after another thread's import of it is over. Asked for the
 * same few modules all the time, that one forms the text of an AttributeError for each that was not imported but made
 * with the interpreter. New reference; NULL, perhaps without an exception.
 */
PyObject *shoal_pickle__get_module(const struct shoal_pickle_state *state, PyObject *name);

/* A str of these ASCII characters that was kept, interned or not. New reference, or NULL: none. */
PyObject *shoal__kept_name(const struct shoal_pickle_state *state, const uint8_t *text, size_t size);
void shoal__keep_name(struct shoal_pickle_state *state, PyObject *name); /* if it is ASCII and not too long */
void shoal__kept_names_clear(struct shoal_pickle_state *state);

/* Import `attribute` of `module`: new reference or NULL. */
PyObject *shoal_pickle__import(const char *module, const char *attribute);

/* The sections' own set-up; each adds its types and functions to the module. 0 or -1. */
int shoal_pickle__writer_init(struct shoal_pickle_state *state, PyObject *module);
int shoal_pickle__reader_init(struct shoal_pickle_state *state, PyObject *module);

#endif

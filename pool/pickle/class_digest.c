/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * class_digest.c - what a class is now, as a number of 64 bits.
 *
 * The problem: a class must be known again by its definition, in another process and under another hash seed, and a
 * change must be seen, also one made in place (a list that was appended to) or one level away (a global that a method
 * reads). The pickle of the class would say it, but its bytes depend on what the stream holds besides.
 *
 * So the class is walked: its name, metaclass, bases and attributes; of a function the code, defaults, annotations,
 * attributes, and what it captures: cells and the globals that it names; of containers and instances what they hold. Of
 * other classes only the place counts, since they are known by themselves; of functions that are captured only the
 * code. Sums of mixed numbers make dicts and sets independent of order; addresses, hashes and interning never count.
 *
 * Guarantees: runs no Python code, changes nothing, fails never. Equal definitions give equal numbers; unequal ones
 * give unequal numbers but for accident. What is opaque (a lock, an iterator, what an object of C keeps inside) counts
 * by its type. Cost: about 0.15 us for each method and 10 ns for each atom.
 */
#include "class_digest.h"

#include "code.h"
#include "digest.h"
#include "encoder.h"

#include <structmember.h>

/* Exported by every CPython that we build for; the headers of some keep it to themselves. */
PyAPI_FUNC(int) _PySet_NextEntry(PyObject *set, Py_ssize_t *position, PyObject **key, Py_hash_t *hash);

enum { DEPTH_MAX = 48, FIRST_SEEN = 32 };

/* What was met on the way: of a container under way 1, of one that is done its digest. */
struct seen {
    PyObject *object; /* borrowed: nothing dies while no code runs */
    uint64_t digest;
};

struct walk {
    struct shoal_pickle_state *state;
    int depth;
    bool captured; /* inside of what a function captures */
    struct seen *seen;
    size_t seen_count, seen_mask;
    struct seen first[FIRST_SEEN];
};

enum tag {
    TAG_NONE = 1, TAG_BOOL, TAG_INT, TAG_FLOAT, TAG_COMPLEX, TAG_STR, TAG_BYTES, TAG_LIST, TAG_TUPLE, TAG_DICT, TAG_SET,
    TAG_FUNCTION, TAG_CODE, TAG_CLASS, TAG_MODULE, TAG_WRAPPED, TAG_PROPERTY, TAG_METHOD, TAG_NAMED, TAG_INSTANCE,
    TAG_BUFFER, TAG_SLOT, TAG_CYCLE, TAG_DEEP, TAG_CELL,
};

uint64_t shoal__text_digest(PyObject *text)
{
    if (!text || !PyUnicode_Check(text))
        return TAG_NONE;
    return digest_of_bytes(TAG_STR, PyUnicode_DATA(text),
                           (size_t)PyUnicode_GET_LENGTH(text) * (size_t)PyUnicode_KIND(text));
}

/* ---- what was met ---- */

static struct seen *seen_slot(struct walk *w, PyObject *object)
{
    for (size_t i = (uintptr_t)object >> 4;; i++) {
        struct seen *slot = &w->seen[i & w->seen_mask];
        if (!slot->object || slot->object == object)
            return slot;
    }
}

/* Without memory for more the table stays as it is, and the walk ends at DEPTH_MAX. */
static bool make_room(struct walk *w)
{
    if (w->seen_count * 2 < w->seen_mask)
        return true;
    struct seen *old = w->seen;
    size_t old_count = w->seen_mask + 1;
    struct seen *larger = PyMem_Calloc(old_count * 4, sizeof *larger);
    if (!larger)
        return w->seen_count + 1 < w->seen_mask;
    w->seen = larger;
    w->seen_mask = old_count * 4 - 1;
    for (size_t i = 0; i < old_count; i++)
        if (old[i].object)
            *seen_slot(w, old[i].object) = old[i];
    if (old != w->first)
        PyMem_Free(old);
    return true;
}

/* ---- parts ---- */

static uint64_t walk(struct walk *w, PyObject *obj);

static uint64_t walk_tuple(struct walk *w, uint64_t h, PyObject *tuple)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(tuple); i++)
        h = mixed(h, walk(w, PyTuple_GET_ITEM(tuple, i)));
    return finished(mixed(h, (uint64_t)PyTuple_GET_SIZE(tuple)));
}

static uint64_t walk_list(struct walk *w, uint64_t h, PyObject *list)
{
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++)
        h = mixed(h, walk(w, PyList_GET_ITEM(list, i)));
    return finished(mixed(h, (uint64_t)PyList_GET_SIZE(list)));
}

static uint64_t walk_dict(struct walk *w, uint64_t h, PyObject *dict)
{
    PyObject *key, *value;
    Py_ssize_t position = 0;
    uint64_t sum = 0;
    while (PyDict_Next(dict, &position, &key, &value))
        sum += finished(mixed(walk(w, key), walk(w, value)));
    return finished(mixed(h, sum));
}

static uint64_t walk_set(struct walk *w, PyObject *set)
{
    PyObject *item;
    Py_hash_t hash;
    Py_ssize_t position = 0;
    uint64_t sum = 0;
    while (_PySet_NextEntry(set, &position, &item, &hash))
        sum += finished(walk(w, item));
    return finished(mixed(TAG_SET, sum));
}

static uint64_t digest_of_int(PyObject *obj)
{
    long small;
    if (shoal__long_is_small(obj, &small))
        return finished(mixed(TAG_INT, (uint64_t)small));
    uint64_t hash = (uint64_t)PyLong_Type.tp_hash(obj); /* a residue: the same in every process */
    return finished(mixed(mixed(TAG_INT, hash), (uint64_t)Py_SIZE(obj)));
}

static uint64_t digest_of_doubles(uint64_t h, double a, double b)
{
    const double both[2] = {a, b};
    return digest_of_bytes(h, both, sizeof both);
}

/* Where a class is found: enough, since each class is known by itself. */
static uint64_t digest_of_place(PyTypeObject *type)
{
    uint64_t h = TAG_CLASS;
    if (!PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE))
        return digest_of_text(h, type->tp_name);
    return mixed(h, shoal__text_digest(((PyHeapTypeObject *)type)->ht_qualname));
}

static uint64_t walk_attribute(struct walk *w, PyObject *obj, PyObject *name)
{
    PyObject *value = PyObject_GetAttr(obj, name); /* of an exact built-in type: no code runs */
    if (!value) {
        PyErr_Clear();
        return TAG_NONE;
    }
    uint64_t h = walk(w, value);
    Py_DECREF(value);
    return h;
}

/* ---- functions ---- */

static uint64_t digest_of_code(struct walk *w, PyObject *code, PyObject **ret_globals)
{
    const struct shoal_code_facts *facts = shoal__code_facts(w->state, code);
    if (!facts) {
        PyErr_Clear();
        return TAG_CODE;
    }
    if (ret_globals)
        *ret_globals = facts->globals;
    return digest_of_bytes(TAG_CODE, PyBytes_AS_STRING(facts->bytes), (size_t)PyBytes_GET_SIZE(facts->bytes));
}

/* Classes are left out: a method names its own class, which is not there yet while it is made. */
static uint64_t walk_captured(struct walk *w, PyFunctionObject *f, PyObject *names)
{
    uint64_t sum = 0;
    bool before = w->captured;
    w->captured = true;
    for (Py_ssize_t i = 0; f->func_closure && i < PyTuple_GET_SIZE(f->func_closure); i++) {
        PyObject *content = PyCell_GET(PyTuple_GET_ITEM(f->func_closure, i));
        if (content && !PyType_Check(content))
            sum += finished(mixed((uint64_t)i + TAG_CELL, walk(w, content)));
    }
    for (Py_ssize_t i = 0; names && i < PyTuple_GET_SIZE(names); i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);
        PyObject *value = PyDict_GetItem(f->func_globals, name); /* keys are str, nearly always: no code runs */
        if (value && !PyType_Check(value))
            sum += finished(mixed(shoal__text_digest(name), walk(w, value)));
    }
    w->captured = before;
    return sum;
}

/* 3.10 on keeps annotations as a tuple of names and values until somebody asks for the dict. */
static uint64_t walk_annotations(struct walk *w, PyObject *annotations)
{
    if (!annotations || !PyTuple_CheckExact(annotations))
        return annotations ? walk(w, annotations) : TAG_NONE;
    uint64_t sum = 0;
    for (Py_ssize_t i = 0; i + 1 < PyTuple_GET_SIZE(annotations); i += 2) {
        uint64_t name = walk(w, PyTuple_GET_ITEM(annotations, i));
        sum += finished(mixed(name, walk(w, PyTuple_GET_ITEM(annotations, i + 1))));
    }
    return finished(mixed(TAG_DICT, sum));
}

static uint64_t walk_function(struct walk *w, PyFunctionObject *f)
{
    PyCodeObject *code = (PyCodeObject *)f->func_code;
    PyObject *names = NULL;
    uint64_t h = digest_of_code(w, (PyObject *)code, &names);
    if (f->func_defaults)
        h = mixed(h, walk(w, f->func_defaults));
    if (f->func_kwdefaults)
        h = mixed(h, walk(w, f->func_kwdefaults));
    if (w->captured)
        return finished(h);
    if (f->func_name != code->co_name)
        h = mixed(h, shoal__text_digest(f->func_name));
    PyObject *implied = PyTuple_GET_SIZE(code->co_consts) > 0 ? PyTuple_GET_ITEM(code->co_consts, 0) : NULL;
    if (f->func_doc != implied)
        h = mixed(h, shoal__text_digest(f->func_doc));
    if (f->func_annotations)
        h = mixed(h, walk_annotations(w, f->func_annotations));
    if (f->func_dict && PyDict_GET_SIZE(f->func_dict) > 0)
        h = mixed(h, walk_dict(w, TAG_DICT, f->func_dict));
    return finished(mixed(h, walk_captured(w, f, names)));
}

/* ---- instances ---- */

static uint64_t walk_slots(struct walk *w, PyObject *obj)
{
    uint64_t sum = 0;
    PyObject *mro = Py_TYPE(obj)->tp_mro;
    for (Py_ssize_t i = 0; mro && i < PyTuple_GET_SIZE(mro); i++) {
        PyTypeObject *base = (PyTypeObject *)PyTuple_GET_ITEM(mro, i);
        PyObject *names = PyType_HasFeature(base, Py_TPFLAGS_HEAPTYPE) ? ((PyHeapTypeObject *)base)->ht_slots : NULL;
        for (Py_ssize_t j = 0; names && j < PyTuple_GET_SIZE(names); j++) {
            PyObject *described = _PyType_Lookup(base, PyTuple_GET_ITEM(names, j));
            if (!described || !Py_IS_TYPE(described, &PyMemberDescr_Type))
                continue;
            PyObject *value = PyMember_GetOne((const char *)obj, ((PyMemberDescrObject *)described)->d_member);
            if (value)
                sum += finished(mixed((uint64_t)j + TAG_SLOT, walk(w, value)));
            else
                PyErr_Clear();
            Py_XDECREF(value);
        }
    }
    return sum;
}

static uint64_t digest_of_buffer(PyObject *obj)
{
    Py_buffer view;
    if (PyObject_GetBuffer(obj, &view, PyBUF_SIMPLE) < 0) {
        PyErr_Clear();
        return TAG_BUFFER;
    }
    uint64_t h = digest_of_bytes(TAG_BUFFER, view.buf, (size_t)view.len);
    PyBuffer_Release(&view);
    return h;
}

static uint64_t walk_instance(struct walk *w, PyObject *obj)
{
    PyTypeObject *type = Py_TYPE(obj);
    uint64_t h = mixed(TAG_INSTANCE, digest_of_place(type));
    if (PyType_HasFeature(type, Py_TPFLAGS_LIST_SUBCLASS))
        h = walk_list(w, h, obj);
    else if (PyType_HasFeature(type, Py_TPFLAGS_TUPLE_SUBCLASS))
        h = walk_tuple(w, h, obj);
    else if (PyType_HasFeature(type, Py_TPFLAGS_DICT_SUBCLASS))
        h = walk_dict(w, h, obj);
    else if (PyAnySet_Check(obj))
        h = mixed(h, walk_set(w, obj));
    else if (PyType_HasFeature(type, Py_TPFLAGS_LONG_SUBCLASS))
        h = mixed(h, digest_of_int(obj));
    else if (PyType_HasFeature(type, Py_TPFLAGS_UNICODE_SUBCLASS))
        h = mixed(h, shoal__text_digest(obj));
    else if (type->tp_as_buffer && type->tp_as_buffer->bf_getbuffer && !PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE))
        h = mixed(h, digest_of_buffer(obj));
    if (!PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE))
        return finished(h);
    PyObject *dict = type->tp_dictoffset ? PyObject_GenericGetDict(obj, NULL) : NULL;
    if (!dict)
        PyErr_Clear();
    else if (PyDict_Check(dict) && PyDict_GET_SIZE(dict) > 0)
        h = mixed(h, walk_dict(w, TAG_DICT, dict));
    Py_XDECREF(dict);
    /* What a dataclass keeps of its fields says nothing that its attributes and methods do not say. */
    if (strcmp(type->tp_name, "Field") != 0 && strcmp(type->tp_name, "_DataclassParams") != 0)
        h = mixed(h, walk_slots(w, obj));
    return finished(h);
}

/* ---- the whole ---- */

/* What runs no deeper; 0: something else. */
static uint64_t digest_of_atom(PyObject *obj, PyTypeObject *type)
{
    if (type == &PyUnicode_Type)
        return shoal__text_digest(obj);
    if (type == &PyLong_Type)
        return digest_of_int(obj);
    if (obj == Py_None)
        return TAG_NONE;
    if (type == &PyBool_Type)
        return finished(mixed(TAG_BOOL, obj == Py_True));
    if (type == &PyFloat_Type)
        return digest_of_doubles(TAG_FLOAT, PyFloat_AS_DOUBLE(obj), 0);
    if (type == &PyComplex_Type)
        return digest_of_doubles(TAG_COMPLEX, PyComplex_RealAsDouble(obj), PyComplex_ImagAsDouble(obj));
    if (type == &PyBytes_Type)
        return digest_of_bytes(TAG_BYTES, PyBytes_AS_STRING(obj), (size_t)PyBytes_GET_SIZE(obj));
    if (PyType_HasFeature(type, Py_TPFLAGS_TYPE_SUBCLASS))
        return digest_of_place((PyTypeObject *)obj);
    if (PyModule_Check(obj)) {
        PyObject *name = PyModule_GetNameObject(obj);
        uint64_t h = mixed(TAG_MODULE, shoal__text_digest(name));
        PyErr_Clear();
        Py_XDECREF(name);
        return h;
    }
    if (type == &PyCFunction_Type)
        return digest_of_text(TAG_NAMED, ((PyCFunctionObject *)obj)->m_ml->ml_name);
    if (type == &PyMethodDescr_Type || type == &PyMemberDescr_Type || type == &PyGetSetDescr_Type ||
        type == &PyWrapperDescr_Type)
        return mixed(TAG_NAMED, shoal__text_digest(PyDescr_NAME(obj)));
    return 0;
}

static uint64_t walk_built_in(struct walk *w, PyObject *obj, PyTypeObject *type)
{
    const struct shoal_state_classes *c = &w->state->classes;
    if (type == &PyFunction_Type)
        return walk_function(w, (PyFunctionObject *)obj);
    if (type == &PyTuple_Type)
        return walk_tuple(w, TAG_TUPLE, obj);
    if (type == &PyList_Type)
        return walk_list(w, TAG_LIST, obj);
    if (type == &PyDict_Type)
        return walk_dict(w, TAG_DICT, obj);
    if (PyAnySet_CheckExact(obj))
        return walk_set(w, obj);
    if (type == &PyCode_Type)
        return digest_of_code(w, obj, NULL);
    if (type == &PyClassMethod_Type || type == &PyStaticMethod_Type)
        return finished(mixed(digest_of_place(type), walk_attribute(w, obj, c->func)));
    if (type == &PyProperty_Type) {
        uint64_t h = mixed(TAG_PROPERTY, walk_attribute(w, obj, c->fget));
        h = mixed(h, walk_attribute(w, obj, c->fset));
        return finished(mixed(h, walk_attribute(w, obj, c->fdel)));
    }
    if (type == &PyMethod_Type)
        return finished(mixed(mixed(TAG_METHOD, walk(w, PyMethod_GET_FUNCTION(obj))), walk(w, PyMethod_GET_SELF(obj))));
    if (type == &PyCell_Type)
        return PyCell_GET(obj) ? walk(w, PyCell_GET(obj)) : TAG_CELL;
    return walk_instance(w, obj);
}

static uint64_t walk(struct walk *w, PyObject *obj)
{
    PyTypeObject *type = Py_TYPE(obj);
    uint64_t h = digest_of_atom(obj, type);
    if (h)
        return h;
    if (w->depth >= DEPTH_MAX || !make_room(w))
        return TAG_DEEP;
    struct seen *slot = seen_slot(w, obj);
    bool keep = !PyTuple_CheckExact(obj) || w->depth > 2; /* most tuples are small and of atoms */
    if (slot->object)
        return slot->digest;
    if (keep) {
        *slot = (struct seen){obj, TAG_CYCLE};
        w->seen_count++;
    }
    w->depth++;
    Py_INCREF(obj); /* up to 3.11 making a dict may start a collection, whose finalizers run code */
    h = walk_built_in(w, obj, type);
    Py_DECREF(obj);
    w->depth--;
    if (keep)
        seen_slot(w, obj)->digest = h;
    return h;
}

static void walk_begin(struct walk *w, struct shoal_pickle_state *state)
{
    w->state = state;
    w->depth = 0;
    w->captured = false;
    w->seen = w->first;
    w->seen_count = 0;
    w->seen_mask = FIRST_SEEN - 1;
    memset(w->first, 0, sizeof w->first);
}

static void walk_end(struct walk *w)
{
    if (w->seen != w->first)
        PyMem_Free(w->seen);
}

uint64_t shoal__value_digest(struct shoal_pickle_state *state, PyObject *value)
{
    struct walk w;
    walk_begin(&w, state);
    uint64_t h = walk(&w, value);
    walk_end(&w);
    return h;
}

PyObject *shoal__class_dict(PyTypeObject *class)
{
#if PY_VERSION_HEX >= 0x030C0000
    return PyType_GetDict(class);
#else
    return Py_NewRef(class->tp_dict);
#endif
}

/* Not every key is interned. */
static bool is_name(PyObject *key, PyObject *name)
{
    return key == name || (PyUnicode_Check(key) && PyUnicode_Compare(key, name) == 0);
}

bool shoal__class_makes(const struct shoal_state_names *names, PyTypeObject *class, PyObject *key, PyObject *value)
{
    PyTypeObject *kind = Py_TYPE(value);
    if (kind == &PyMemberDescr_Type)
        return PyDescr_TYPE(value) == class;
    if (kind == &PyGetSetDescr_Type) /* a dataclass with slots still has those of the class that it was made from */
        return PyDescr_TYPE(value) == class || is_name(key, names->weakref) || is_name(key, names->dict);
    if (is_name(key, names->abc_impl) || is_name(key, names->slotnames))
        return true;
    /* Somebody asked for the annotations of a class that has none. */
    return kind == &PyDict_Type && PyDict_GET_SIZE(value) == 0 && is_name(key, names->annotations);
}

/* 3.13 fills this tuple from a set: its order means nothing. */
static uint64_t digest_of_names(PyObject *tuple)
{
    uint64_t sum = 0;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(tuple); i++)
        sum += shoal__text_digest(PyTuple_GET_ITEM(tuple, i));
    return sum;
}

uint64_t shoal__class_digest(struct shoal_pickle_state *state, PyTypeObject *class)
{
    const struct shoal_state_names *names = &state->names;
    struct walk w;
    walk_begin(&w, state);
    PyObject *dict = shoal__class_dict(class), *key, *value;
    Py_ssize_t position = 0;
    uint64_t sum = 0;
    while (PyDict_Next(dict, &position, &key, &value)) {
        if (shoal__class_makes(names, class, key, value))
            continue;
        bool unordered = PyTuple_CheckExact(value) && is_name(key, state->classes.static_attributes);
        sum += finished(mixed(walk(&w, key), unordered ? digest_of_names(value) : walk(&w, value)));
    }
    Py_DECREF(dict);
    uint64_t h = mixed(digest_of_place(class), digest_of_place(Py_TYPE(class)));
    PyObject *bases = class->tp_bases;
    for (Py_ssize_t i = 0; bases && i < PyTuple_GET_SIZE(bases); i++)
        h = mixed(h, digest_of_place((PyTypeObject *)PyTuple_GET_ITEM(bases, i)));
    walk_end(&w);
    return finished(mixed(h, sum));
}

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
 * by its type. For the order of a set's members the walk may ask objects what they are made of, and then tells apart
 * what it can (shoal__order_digest). Cost: about 0.15 us for each method and 10 ns for each atom.
 */
#include "class_walk.h"

#include "code.h"

/* Exported by every CPython that we build for; the headers of some keep it to themselves. */
PyAPI_FUNC(int) _PySet_NextEntry(PyObject *set, Py_ssize_t *position, PyObject **key, Py_hash_t *hash);

/* ---- what was met ---- */

static struct seen *shoal__seen_slot(struct walk *w, PyObject *object)
{
    for (size_t i = (uintptr_t)object >> 4;; i++) {
        struct seen *slot = &w->seen[i & w->seen_mask];
        if (!slot->object || slot->object == object)
            return slot;
    }
}

/* Without memory for more the table stays as it is, and the walk ends at DEPTH_MAX. */
static bool shoal__seen_room(struct walk *w)
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
            *shoal__seen_slot(w, old[i].object) = old[i];
    if (old != w->first)
        PyMem_Free(old);
    return true;
}

PyObject *shoal__walk_keep(struct walk *w, PyObject *obj)
{
    if (obj && PyList_Append(w->kept, obj) == 0) {
        Py_DECREF(obj);
        return obj;
    }
    PyErr_Clear();
    Py_XDECREF(obj);
    return NULL;
}

/* ---- numbers for what runs no deeper ---- */

uint64_t shoal__text_digest(PyObject *text)
{
    if (!text || !PyUnicode_Check(text))
        return TAG_NONE;
    return digest_of_bytes(TAG_STR, PyUnicode_DATA(text),
                           (size_t)PyUnicode_GET_LENGTH(text) * (size_t)PyUnicode_KIND(text));
}

/* ---- parts ---- */

uint64_t shoal__walk_tuple(struct walk *w, uint64_t h, PyObject *tuple)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(tuple); i++)
        h = mixed(h, shoal__walk(w, PyTuple_GET_ITEM(tuple, i)));
    return finished(mixed(h, (uint64_t)PyTuple_GET_SIZE(tuple)));
}

uint64_t shoal__walk_list(struct walk *w, uint64_t h, PyObject *list)
{
    if (w->asking) {
        PyObject *copy = shoal__walk_keep(w, PyList_AsTuple(list));
        return copy ? shoal__walk_tuple(w, h, copy) : TAG_DEEP;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++)
        h = mixed(h, shoal__walk(w, PyList_GET_ITEM(list, i)));
    return finished(mixed(h, (uint64_t)PyList_GET_SIZE(list)));
}

uint64_t shoal__walk_dict(struct walk *w, uint64_t h, PyObject *dict)
{
    if (w->asking && !(dict = shoal__walk_keep(w, PyDict_Copy(dict))))
        return TAG_DEEP;
    PyObject *key, *value;
    Py_ssize_t position = 0;
    uint64_t sum = 0;
    while (PyDict_Next(dict, &position, &key, &value))
        sum += finished(mixed(shoal__walk(w, key), shoal__walk(w, value)));
    return finished(mixed(h, sum));
}

uint64_t shoal__walk_set(struct walk *w, PyObject *set)
{
    if (w->asking && !(set = shoal__walk_keep(w, PyFrozenSet_New(set))))
        return TAG_DEEP;
    PyObject *item;
    Py_hash_t hash;
    Py_ssize_t position = 0;
    uint64_t sum = 0;
    while (_PySet_NextEntry(set, &position, &item, &hash))
        sum += finished(shoal__walk(w, item));
    return finished(mixed(TAG_SET, sum));
}

uint64_t shoal__int_digest(PyObject *obj)
{
    long small;
    if (shoal__long_is_small(obj, &small))
        return finished(mixed(TAG_INT, (uint64_t)small));
    uint64_t hash = (uint64_t)PyLong_Type.tp_hash(obj); /* a residue: the same in every process */
    return finished(mixed(mixed(TAG_INT, hash), (uint64_t)_PyLong_NumBits(obj)));
}

static uint64_t digest_of_doubles(uint64_t h, double a, double b)
{
    const double both[2] = {a, b};
    return digest_of_bytes(h, both, sizeof both);
}

/* Where a class is found: enough, since each class is known by itself. */
uint64_t shoal__place_digest(PyTypeObject *type)
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
    uint64_t h = shoal__walk(w, value);
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
    if (w->asking && names)
        names = shoal__walk_keep(w, Py_NewRef(names));
    w->captured = true;
    for (Py_ssize_t i = 0; f->func_closure && i < PyTuple_GET_SIZE(f->func_closure); i++) {
        PyObject *content = PyCell_GET(PyTuple_GET_ITEM(f->func_closure, i));
        if (content && (w->asking || !PyType_Check(content)))
            sum += finished(mixed((uint64_t)i + TAG_CELL, shoal__walk(w, content)));
    }
    for (Py_ssize_t i = 0; names && i < PyTuple_GET_SIZE(names); i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);
        PyObject *value = PyDict_GetItem(f->func_globals, name); /* keys are str, nearly always: no code runs */
        if (value && (w->asking || !PyType_Check(value)))
            sum += finished(mixed(shoal__text_digest(name), shoal__walk(w, value)));
    }
    w->captured = before;
    return sum;
}

/* 3.10 on keeps annotations as a tuple of names and values until somebody asks for the dict. */
static uint64_t walk_annotations(struct walk *w, PyObject *annotations)
{
    if (!annotations || !PyTuple_CheckExact(annotations))
        return annotations ? shoal__walk(w, annotations) : TAG_NONE;
    if (w->asking && !(annotations = shoal__walk_keep(w, Py_NewRef(annotations))))
        return TAG_DEEP;
    uint64_t sum = 0;
    for (Py_ssize_t i = 0; i + 1 < PyTuple_GET_SIZE(annotations); i += 2) {
        uint64_t name = shoal__walk(w, PyTuple_GET_ITEM(annotations, i));
        sum += finished(mixed(name, shoal__walk(w, PyTuple_GET_ITEM(annotations, i + 1))));
    }
    return finished(mixed(TAG_DICT, sum));
}

static uint64_t walk_function(struct walk *w, PyFunctionObject *f)
{
    PyCodeObject *code = (PyCodeObject *)f->func_code;
    PyObject *names = NULL;
    uint64_t h = digest_of_code(w, (PyObject *)code, &names);
    if (f->func_defaults)
        h = mixed(h, shoal__walk(w, f->func_defaults));
    if (f->func_kwdefaults)
        h = mixed(h, shoal__walk(w, f->func_kwdefaults));
    if (w->captured && !w->asking)
        return finished(h);
    if (f->func_name != code->co_name)
        h = mixed(h, shoal__text_digest(f->func_name));
    PyObject *implied = PyTuple_GET_SIZE(code->co_consts) > 0 ? PyTuple_GET_ITEM(code->co_consts, 0) : NULL;
    if (f->func_doc != implied)
        h = mixed(h, shoal__text_digest(f->func_doc));
    if (f->func_annotations)
        h = mixed(h, walk_annotations(w, f->func_annotations));
    if (f->func_dict && PyDict_GET_SIZE(f->func_dict) > 0)
        h = mixed(h, shoal__walk_dict(w, TAG_DICT, f->func_dict));
    return finished(mixed(h, walk_captured(w, f, names)));
}

/* ---- the whole ---- */

/* What runs no deeper; 0: something else. */
static uint64_t digest_of_atom(PyObject *obj, PyTypeObject *type)
{
    if (type == &PyUnicode_Type)
        return shoal__text_digest(obj);
    if (type == &PyLong_Type)
        return shoal__int_digest(obj);
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
        return shoal__place_digest((PyTypeObject *)obj);
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

/* Where only the place would count of what another one may have the place of. */
static uint64_t digest_of_named(struct walk *w, PyObject *obj)
{
    if (PyCFunction_Check(obj)) {
        PyObject *self = PyCFunction_GET_SELF(obj);
        uint64_t h = digest_of_text(TAG_NAMED, ((PyCFunctionObject *)obj)->m_ml->ml_name);
        return self ? finished(mixed(h, shoal__walk(w, self))) : h;
    }
    uint64_t h = shoal__place_digest((PyTypeObject *)obj);
    if (!PyType_HasFeature((PyTypeObject *)obj, Py_TPFLAGS_HEAPTYPE))
        return h;
    int importable = shoal__is_importable(w->asking, obj);
    PyErr_Clear();
    if (importable != 1)
        return finished(mixed(h, shoal__class_digest(w->state, (PyTypeObject *)obj)));
    PyObject *dict = shoal__class_dict((PyTypeObject *)obj);
    h = finished(mixed(h, shoal__text_digest(PyDict_GetItem(dict, w->state->names.module))));
    Py_DECREF(dict);
    return h;
}

static bool is_named(PyObject *obj)
{
    return PyType_Check(obj) || Py_IS_TYPE(obj, &PyCFunction_Type);
}

static uint64_t walk_built_in(struct walk *w, PyObject *obj, PyTypeObject *type)
{
    const struct shoal_state_classes *c = &w->state->classes;
    if (w->asking && is_named(obj))
        return digest_of_named(w, obj);
    if (type == &PyFunction_Type)
        return walk_function(w, (PyFunctionObject *)obj);
    if (type == &PyTuple_Type)
        return shoal__walk_tuple(w, TAG_TUPLE, obj);
    if (type == &PyList_Type)
        return shoal__walk_list(w, TAG_LIST, obj);
    if (type == &PyDict_Type)
        return shoal__walk_dict(w, TAG_DICT, obj);
    if (PyAnySet_CheckExact(obj))
        return shoal__walk_set(w, obj);
    if (type == &PyCode_Type)
        return digest_of_code(w, obj, NULL);
    if (type == &PyClassMethod_Type || type == &PyStaticMethod_Type)
        return finished(mixed(shoal__place_digest(type), walk_attribute(w, obj, c->func)));
    if (type == &PyProperty_Type) {
        uint64_t h = mixed(TAG_PROPERTY, walk_attribute(w, obj, c->fget));
        h = mixed(h, walk_attribute(w, obj, c->fset));
        return finished(mixed(h, walk_attribute(w, obj, c->fdel)));
    }
    if (type == &PyMethod_Type)
        return finished(mixed(mixed(TAG_METHOD, shoal__walk(w, PyMethod_GET_FUNCTION(obj))),
                              shoal__walk(w, PyMethod_GET_SELF(obj))));
    if (type == &PyCell_Type)
        return PyCell_GET(obj) ? shoal__walk(w, PyCell_GET(obj)) : TAG_CELL;
    return shoal__walk_instance(w, obj);
}

uint64_t shoal__walk(struct walk *w, PyObject *obj)
{
    PyTypeObject *type = Py_TYPE(obj);
    uint64_t h = w->asking && is_named(obj) ? 0 : digest_of_atom(obj, type);
    if (h)
        return h;
    if (w->depth >= DEPTH_MAX || !shoal__seen_room(w) || (w->asking && !shoal__walk_keep(w, Py_NewRef(obj))))
        return TAG_DEEP;
    struct seen *slot = shoal__seen_slot(w, obj);
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
        shoal__seen_slot(w, obj)->digest = h;
    return h;
}

static void walk_begin(struct walk *w, struct shoal_pickle_state *state)
{
    w->state = state;
    w->depth = 0;
    w->captured = false;
    w->asking = NULL;
    w->kept = NULL;
    memset(w->error, 0, sizeof w->error);
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
    uint64_t h = shoal__walk(&w, value);
    walk_end(&w);
    return h;
}

int shoal__order_digest(struct shoal_encoder *e, PyObject *value, uint64_t *ret_digest)
{
    struct walk w;
    walk_begin(&w, e->state);
    w.asking = e;
    w.kept = PyList_New(0);
    if (!w.kept)
        return -1;
    uint64_t h = shoal__walk(&w, value);
    walk_end(&w);
    Py_DECREF(w.kept);
    if (w.error[0]) {
        PyErr_Restore(w.error[0], w.error[1], w.error[2]);
        return -1;
    }
    *ret_digest = h;
    return 0;
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
        sum += finished(mixed(shoal__walk(&w, key), unordered ? digest_of_names(value) : shoal__walk(&w, value)));
    }
    Py_DECREF(dict);
    uint64_t h = mixed(shoal__place_digest(class), shoal__place_digest(Py_TYPE(class)));
    PyObject *bases = class->tp_bases;
    for (Py_ssize_t i = 0; bases && i < PyTuple_GET_SIZE(bases); i++)
        h = mixed(h, shoal__place_digest((PyTypeObject *)PyTuple_GET_ITEM(bases, i)));
    walk_end(&w);
    return finished(mixed(h, sum));
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * class_record.c - which class is which, across processes.
 *
 * The problem: a class by value travels with each pickle that needs it, in both directions, and must be one class
 * wherever it arrives, while two definitions must stay two; and the bytes that name it must be the same in each run of
 * a program, so that nothing about them can be random.
 *
 * A class gets its identity at its first dump: its digest, its place (module and qualified name) and an ordinal among
 * the classes that had both in common so far. The identity stays. The process in which it was defined watches it: each
 * dump that finds another digest than the last one adds it to the class's history. Identity and history are its mark:
 *
 *   digest at the first dump 8 | place 4 | ordinal 4 [| changes so far 4 | the digests after the last of them, 8 each]
 *
 * A process that receives a mark looks for a class of that identity. One whose last digest stands in the mark's history
 * is an earlier state of it: it is brought up to date. One whose own history has the mark's last digest is a later
 * state: it is left as it is. Otherwise both come from one definition and went different ways in different processes:
 * they are two classes, unless the definitions are equal now. A class that was received (or that a fork has copied) is
 * never a source: what is done to it there stays there, and it is sent on under the mark that it came with.
 *
 * What is not told apart: a state in which a class was here once, and the same state of another process's class.
 *
 * Guarantees: weak both ways; nothing here runs Python code between looking and writing, so that threads that load or
 * dump at once see whole records. Cost: a dict lookup for a class that is here; a digest for each dump of a class that
 * was defined here.
 */
#include "class_record.h"

#include "encoder.h"

enum { STAMP_AT = CLASS_IDENTITY_SIZE, DIGESTS_AT = STAMP_AT + 4, DIGESTS_MAX = 16 };

/* ---- marks ---- */

static uint64_t fetch_le(const uint8_t *at, int size)
{
    uint64_t value = 0;
    for (int i = 0; i < size; i++)
        value |= (uint64_t)at[i] << (8 * i);
    return value;
}

static const uint8_t *bytes_of(PyObject *mark)
{
    return (const uint8_t *)PyBytes_AS_STRING(mark);
}

bool shoal__is_class_mark(PyObject *obj)
{
    if (!PyBytes_CheckExact(obj))
        return false;
    Py_ssize_t size = PyBytes_GET_SIZE(obj);
    if (size == CLASS_IDENTITY_SIZE)
        return true;
    Py_ssize_t digests = (size - DIGESTS_AT) / 8;
    return size > DIGESTS_AT && (size - DIGESTS_AT) % 8 == 0 && digests <= DIGESTS_MAX &&
           fetch_le(bytes_of(obj) + STAMP_AT, 4) >= (uint64_t)digests;
}

static uint64_t stamp_of(PyObject *mark)
{
    return PyBytes_GET_SIZE(mark) == CLASS_IDENTITY_SIZE ? 0 : fetch_le(bytes_of(mark) + STAMP_AT, 4);
}

/* The digest after that many changes. false: so long ago that it is not kept. */
static bool digest_at(PyObject *mark, uint64_t stamp, uint64_t *ret_digest)
{
    uint64_t last = stamp_of(mark), kept = 0;
    if (PyBytes_GET_SIZE(mark) > DIGESTS_AT)
        kept = (uint64_t)(PyBytes_GET_SIZE(mark) - DIGESTS_AT) / 8;
    if (stamp == 0)
        *ret_digest = fetch_le(bytes_of(mark), 8);
    else if (stamp <= last && stamp > last - kept)
        *ret_digest = fetch_le(bytes_of(mark) + DIGESTS_AT + 8 * (stamp - (last - kept) - 1), 8);
    else
        return false;
    return true;
}

static uint64_t last_digest(PyObject *mark)
{
    uint64_t digest = 0;
    digest_at(mark, stamp_of(mark), &digest);
    return digest;
}

/* Did the class of the older mark become what the newer one says? What is not kept any more is believed. */
static bool leads_to(PyObject *older, PyObject *newer)
{
    uint64_t digest;
    return !digest_at(newer, stamp_of(older), &digest) || digest == last_digest(older);
}

/* New reference: the mark after one more change. */
static PyObject *mark_of_change(PyObject *mark, uint64_t digest)
{
    Py_ssize_t kept = PyBytes_GET_SIZE(mark) > DIGESTS_AT ? (PyBytes_GET_SIZE(mark) - DIGESTS_AT) / 8 : 0;
    Py_ssize_t drop = kept == DIGESTS_MAX;
    uint8_t out[DIGESTS_AT + 8 * DIGESTS_MAX];
    memcpy(out, bytes_of(mark), CLASS_IDENTITY_SIZE);
    shoal__store_le(out + STAMP_AT, stamp_of(mark) + 1, 4);
    if (kept - drop > 0)
        memcpy(out + DIGESTS_AT, bytes_of(mark) + DIGESTS_AT + 8 * drop, (size_t)(8 * (kept - drop)));
    shoal__store_le(out + DIGESTS_AT + 8 * (kept - drop), digest, 8);
    return PyBytes_FromStringAndSize((const char *)out, DIGESTS_AT + 8 * (kept - drop + 1));
}

/* ---- the tables: address -> record, address of a record's weakref -> record, identity -> list of records ---- */

PyObject *shoal__find_address(PyObject *table, const void *address)
{
    PyObject *key = PyLong_FromVoidPtr((void *)(uintptr_t)address);
    PyObject *found = key ? PyDict_GetItemWithError(table, key) : NULL; /* borrowed */
    Py_XDECREF(key);
    return found;
}

int shoal__put_address(PyObject *table, const void *address, PyObject *value)
{
    PyObject *key = PyLong_FromVoidPtr((void *)(uintptr_t)address);
    int result = key ? PyDict_SetItem(table, key, value) : -1;
    Py_XDECREF(key);
    return result;
}

static void drop_address(PyObject *table, const void *address, PyObject *value)
{
    PyObject *key = PyLong_FromVoidPtr((void *)(uintptr_t)address);
    if (key && PyDict_GetItemWithError(table, key) == value)
        PyDict_DelItem(table, key);
    Py_XDECREF(key);
    PyErr_Clear();
}

static void drop_identity(PyObject *table, struct shoal_class_record *record)
{
    PyObject *identity = PyBytes_FromStringAndSize(PyBytes_AS_STRING(record->mark), CLASS_IDENTITY_SIZE);
    PyObject *list = identity ? PyDict_GetItemWithError(table, identity) : NULL; /* borrowed */
    Py_ssize_t n = list ? PyList_GET_SIZE(list) : 0;
    for (Py_ssize_t i = 0; i < n; i++) {
        if (PyList_GET_ITEM(list, i) != (PyObject *)record)
            continue;
        PyList_SetSlice(list, i, i + 1, NULL);
        break;
    }
    if (list && PyList_GET_SIZE(list) == 0)
        PyDict_DelItem(table, identity);
    Py_XDECREF(identity);
    PyErr_Clear();
}

/* New reference to what a weakref of ours leads to, or NULL if it is gone. */
static PyObject *referent(PyObject *reference)
{
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *found;
    return PyWeakref_GetRef(reference, &found) < 0 ? NULL : found;
#else
    PyObject *found = PyWeakref_GET_OBJECT(reference); /* borrowed */
    return found == Py_None ? NULL : Py_NewRef(found);
#endif
}

bool shoal__leads_to_class(PyObject *reference, PyObject *class)
{
    PyObject *found = referent(reference);
    Py_XDECREF(found);
    return found == class;
}

/* A class has died: (weakref). Its record is found by the weakref's own address. */
static PyObject *forget_class(PyObject *self, PyObject *reference)
{
    struct shoal_pickle_state *state = shoal_pickle_state_of_function(self);
    if (!state)
        return NULL;
    struct shoal_state_classes *c = &state->classes;
    PyObject *found = shoal__find_address(c->by_reference, reference); /* borrowed */
    if (!found) {
        PyErr_Clear();
        Py_RETURN_NONE;
    }
    Py_INCREF(found);
    PyObject *address = PyTuple_GET_ITEM(found, 0), *record = PyTuple_GET_ITEM(found, 1);
    drop_address(c->by_reference, reference, found);
    if (Py_IS_TYPE(record, (PyTypeObject *)c->record_type)) {
        drop_identity(c->by_identity, (struct shoal_class_record *)record);
        drop_address(c->by_address, PyLong_AsVoidPtr(address), record);
    } else {
        drop_address(c->defined_with, PyLong_AsVoidPtr(address), record);
    }
    Py_DECREF(found);
    Py_RETURN_NONE;
}

/* A weakref to the class that takes `value` out of its table when the class dies: new reference. */
PyObject *shoal__class_watch(struct shoal_state_classes *c, PyObject *class, PyObject *value)
{
    PyObject *reference = PyWeakref_NewRef(class, c->forget);
    PyObject *address = reference ? PyLong_FromVoidPtr(class) : NULL;
    PyObject *both = address ? PyTuple_Pack(2, address, value) : NULL;
    if (!both || shoal__put_address(c->by_reference, reference, both) < 0)
        Py_CLEAR(reference);
    Py_XDECREF(both);
    Py_XDECREF(address);
    return reference;
}

static struct shoal_class_record *enter(struct shoal_pickle_state *state, PyObject *class, PyObject *mark)
{
    struct shoal_state_classes *c = &state->classes;
    PyObject *identity = PyBytes_FromStringAndSize(PyBytes_AS_STRING(mark), CLASS_IDENTITY_SIZE);
    struct shoal_class_record *record =
        identity ? PyObject_New(struct shoal_class_record, (PyTypeObject *)c->record_type) : NULL;
    if (!record) {
        Py_XDECREF(identity);
        return NULL;
    }
    record->reference = record->keywords = record->parts = NULL;
    record->mark = Py_NewRef(mark);
    record->fork_epoch = state->fork_epoch;
    record->received = record->made = record->open = false;
    record->opened_by = 0;
    record->reference = shoal__class_watch(c, class, (PyObject *)record);
    PyObject *list = PyDict_GetItemWithError(c->by_identity, identity); /* borrowed */
    int result = record->reference && !PyErr_Occurred() ? 0 : -1;
    if (result == 0 && !list) {
        PyObject *fresh = PyList_New(0);
        result = fresh ? PyDict_SetItem(c->by_identity, identity, fresh) : -1;
        Py_XDECREF(fresh);
        list = fresh;
    }
    if (result == 0)
        result = PyList_Append(list, (PyObject *)record);
    if (result == 0)
        result = shoal__put_address(c->by_address, class, (PyObject *)record);
    Py_DECREF(identity);
    Py_DECREF(record); /* the tables hold it */
    return result < 0 ? NULL : record;
}

struct shoal_class_record *shoal__class_record_of(struct shoal_pickle_state *state, PyObject *class)
{
    struct shoal_class_record *record =
        (struct shoal_class_record *)shoal__find_address(state->classes.by_address, class); /* borrowed */
    return record && shoal__leads_to_class(record->reference, class) ? record : NULL;
}

/* ---- dumping ---- */

static int next_ordinal(struct shoal_pickle_state *state, const uint8_t *base, uint64_t *ret_ordinal)
{
    PyObject *key = PyBytes_FromStringAndSize((const char *)base, CLASS_IDENTITY_SIZE - 4);
    PyObject *known = key ? PyDict_GetItemWithError(state->classes.ordinals, key) : NULL; /* borrowed */
    uint64_t ordinal = known ? PyLong_AsUnsignedLongLong(known) : 0;
    PyObject *next = key && !PyErr_Occurred() ? PyLong_FromUnsignedLongLong(ordinal + 1) : NULL;
    int result = next ? PyDict_SetItem(state->classes.ordinals, key, next) : -1;
    Py_XDECREF(next);
    Py_XDECREF(key);
    *ret_ordinal = ordinal;
    return result;
}

static struct shoal_class_record *first_dump(struct shoal_pickle_state *state, PyTypeObject *class)
{
    uint8_t identity[CLASS_IDENTITY_SIZE];
    shoal__store_le(identity, shoal__class_digest(state, class), 8);
    PyObject *dict = shoal__class_dict(class);
    uint64_t place = shoal__text_digest(PyDict_GetItemWithError(dict, state->names.module)) * 3 +
                     shoal__text_digest(((PyHeapTypeObject *)class)->ht_qualname);
    Py_DECREF(dict);
    shoal__store_le(identity + 8, place, 4);
    uint64_t ordinal;
    if (next_ordinal(state, identity, &ordinal) < 0)
        return NULL;
    shoal__store_le(identity + 12, ordinal, 4);
    PyObject *mark = PyBytes_FromStringAndSize((const char *)identity, CLASS_IDENTITY_SIZE);
    struct shoal_class_record *record = mark ? enter(state, (PyObject *)class, mark) : NULL;
    Py_XDECREF(mark);
    if (record)
        record->keywords = Py_XNewRef(shoal__class_keywords(state, (PyObject *)class));
    return record;
}

struct shoal_class_record *shoal__class_record(struct shoal_pickle_state *state, PyTypeObject *class)
{
    struct shoal_class_record *record = shoal__class_record_of(state, (PyObject *)class);
    if (!record)
        return PyErr_Occurred() ? NULL : first_dump(state, class);
    if (record->received || record->fork_epoch != state->fork_epoch)
        return record;
    uint64_t digest = shoal__class_digest(state, class);
    if (digest == last_digest(record->mark))
        return record;
    PyObject *changed = mark_of_change(record->mark, digest);
    if (!changed)
        return NULL;
    Py_SETREF(record->mark, changed);
    return record;
}

/* ---- loading ---- */

static enum shoal_class_verdict judge(struct shoal_pickle_state *state, const struct shoal_class_record *record,
                                      PyObject *class, PyObject *mark)
{
    if (PyBytes_GET_SIZE(mark) == CLASS_IDENTITY_SIZE || record->mark == mark)
        return CLASS_SAME; /* the first state of all */
    uint64_t ours = stamp_of(record->mark), theirs = stamp_of(mark);
    if (theirs <= ours)
        return leads_to(mark, record->mark) ? CLASS_SAME : CLASS_UNKNOWN;
    if (record->received || record->fork_epoch != state->fork_epoch)
        return leads_to(record->mark, mark) ? CLASS_CHANGED : CLASS_UNKNOWN;
    return shoal__class_digest(state, (PyTypeObject *)class) == last_digest(mark) ? CLASS_SAME : CLASS_UNKNOWN;
}

enum shoal_class_verdict shoal__class_find(struct shoal_pickle_state *state, PyObject *mark,
                                           struct shoal_class_record **ret_record, PyObject **ret_class)
{
    PyObject *identity = PyBytes_FromStringAndSize(PyBytes_AS_STRING(mark), CLASS_IDENTITY_SIZE);
    PyObject *list = identity ? PyDict_GetItemWithError(state->classes.by_identity, identity) : NULL; /* borrowed */
    Py_XDECREF(identity);
    PyErr_Clear();
    for (Py_ssize_t i = 0; list && i < PyList_GET_SIZE(list); i++) {
        struct shoal_class_record *record = (struct shoal_class_record *)PyList_GET_ITEM(list, i);
        PyObject *class = referent(record->reference);
        if (!class)
            continue;
        enum shoal_class_verdict verdict = judge(state, record, class, mark);
        if (verdict != CLASS_UNKNOWN) {
            *ret_record = record;
            *ret_class = class;
            return verdict;
        }
        Py_DECREF(class);
    }
    return CLASS_UNKNOWN;
}

/* A class that is defined here later must not get the ordinal of one that was received. */
static int reserve_ordinal(struct shoal_pickle_state *state, PyObject *mark)
{
    PyObject *key = PyBytes_FromStringAndSize(PyBytes_AS_STRING(mark), CLASS_IDENTITY_SIZE - 4);
    PyObject *known = key ? PyDict_GetItemWithError(state->classes.ordinals, key) : NULL; /* borrowed */
    uint64_t next = known ? PyLong_AsUnsignedLongLong(known) : 0;
    uint64_t ordinal = fetch_le(bytes_of(mark) + CLASS_IDENTITY_SIZE - 4, 4);
    int result = key && !PyErr_Occurred() ? 0 : -1;
    if (result == 0 && ordinal >= next) {
        PyObject *number = PyLong_FromUnsignedLongLong(ordinal + 1);
        result = number ? PyDict_SetItem(state->classes.ordinals, key, number) : -1;
        Py_XDECREF(number);
    }
    Py_XDECREF(key);
    return result;
}

struct shoal_class_record *shoal__class_enter(struct shoal_pickle_state *state, PyObject *class, PyObject *mark,
                                              PyObject *keywords)
{
    if (reserve_ordinal(state, mark) < 0)
        return NULL;
    struct shoal_class_record *record = enter(state, class, mark);
    if (!record)
        return NULL;
    record->received = record->made = record->open = true;
    record->opened_by = PyThread_get_thread_ident();
    record->keywords = Py_XNewRef(keywords);
    return record;
}

/* ---- set-up ---- */

static void record_dealloc(PyObject *self)
{
    struct shoal_class_record *record = (struct shoal_class_record *)self;
    PyTypeObject *type = Py_TYPE(self);
    Py_CLEAR(record->reference);
    Py_CLEAR(record->mark);
    Py_CLEAR(record->keywords);
    Py_CLEAR(record->parts);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyType_Slot record_slots[] = {
    {Py_tp_dealloc, record_dealloc},
    {0, NULL},
};

PyType_Spec shoal__class_record_spec = {
    .name = "shoal._ext.ClassRecord",
    .basicsize = sizeof(struct shoal_class_record),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = record_slots,
};

static PyMethodDef functions[] = {
    {"_forget_class", forget_class, METH_O, "Called when a class that was sent or received has died."},
    {NULL, NULL, 0, NULL},
};

static int intern(PyObject **ret_name, const char *text)
{
    *ret_name = PyUnicode_InternFromString(text);
    return *ret_name ? 0 : -1;
}

int shoal__class_records_init(struct shoal_pickle_state *state, PyObject *module)
{
    struct shoal_state_classes *c = &state->classes;
    PyObject **const tables[] = {&c->by_address, &c->by_reference, &c->by_identity, &c->ordinals, &c->defined_with};
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++)
        if (!(*tables[i] = PyDict_New()))
            return -1;
    if (intern(&c->init_subclass, "__init_subclass__") < 0 || intern(&c->set_name, "__set_name__") < 0 ||
        intern(&c->func, "__func__") < 0 || intern(&c->fget, "fget") < 0 || intern(&c->fset, "fset") < 0 ||
        intern(&c->fdel, "fdel") < 0 || intern(&c->static_attributes, "__static_attributes__") < 0 ||
        intern(&c->classcell, "__classcell__") < 0 || intern(&c->abstract_methods, "__abstractmethods__") < 0)
        return -1;
    c->no_init_subclass = Py_XNewRef(_PyType_Lookup(&PyBaseObject_Type, c->init_subclass));
    c->record_type = PyType_FromModuleAndSpec(module, &shoal__class_record_spec, NULL);
    if (!c->record_type || shoal_pickle__add_functions(module, functions) < 0)
        return -1;
    c->forget = PyObject_GetAttrString(module, "_forget_class");
    return c->forget ? shoal__class_keywords_init(state, module) : -1;
}

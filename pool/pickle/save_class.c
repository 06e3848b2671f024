/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * save_class.c - classes that cannot be imported, by value.
 *
 *   shoal._rebuild._class(metaclass, name, bases, namespace, mark[, keywords])    and from here on it is in the memo
 *   what had to wait for it (births.c), among it
 *   shoal._rebuild._fill_class(class, attributes[, classes registered with an ABC])
 *
 * The namespace is the class's own dict in its order, without what a class makes by itself: slot descriptors, __dict__,
 * __weakref__, _abc_impl. The reader hands all of it to the metaclass at once, as the class statement did. The mark
 * says which class it is (class_record.c): where it lives already, _class gives the living one.
 *
 * So that one definition gives one stream: attribute names are written whole wherever they stand, whether they are
 * interned or not, and sets of strings in order.
 */
#include "class_digest.h"
#include "births.h"
#include "class_record.h"

PyObject *shoal__rebuild_helper(PyObject **slot, const char *name)
{
    if (!*slot)
        *slot = shoal_pickle__import("shoal._rebuild", name);
    return *slot;
}

static bool is_text(PyObject *key, PyObject *text)
{
    return key == text || (PyUnicode_Check(key) && PyUnicode_Compare(key, text) == 0);
}

/* ---- what a class consists of ---- */

static bool is_all_text(PyObject *list)
{
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++)
        if (!PyUnicode_CheckExact(PyList_GET_ITEM(list, i)))
            return false;
    return true;
}

/* New reference to the sorted members of a set (or tuple) of strings; NULL, perhaps with an exception: it is none. */
static PyObject *sorted_text(PyObject *members)
{
    PyObject *list = PySequence_List(members);
    if (list && (!is_all_text(list) || PyList_Sort(list) < 0))
        Py_CLEAR(list);
    return list;
}

/* 3.13 fills this tuple from a set. New reference to the value that is to be written. */
static PyObject *written_value(struct shoal_encoder *e, PyObject *key, PyObject *value)
{
    if (!PyTuple_CheckExact(value) || !is_text(key, e->state->classes.static_attributes))
        return Py_NewRef(value);
    PyObject *sorted = sorted_text(value);
    PyObject *tuple = sorted ? PyList_AsTuple(sorted) : NULL;
    Py_XDECREF(sorted);
    return tuple || PyErr_Occurred() ? tuple : Py_NewRef(value);
}

/* Of a private slot only the end of its mangled name is compared. */
static bool is_slot(PyObject *made, PyObject *name)
{
    Py_ssize_t length = PyUnicode_GET_LENGTH(made), end = PyUnicode_GET_LENGTH(name);
    return PyUnicode_Tailmatch(made, name, 0, length, 1) == 1 &&
           (length == end || (PyUnicode_READ_CHAR(name, 0) == '_' && PyUnicode_READ_CHAR(made, 0) == '_'));
}

/* A list may have been changed since the class was made of it. */
static bool says_the_slots(PyObject *list, PyTypeObject *class)
{
    PyObject *slots = ((PyHeapTypeObject *)class)->ht_slots; /* a tuple, without __dict__ and __weakref__, or NULL */
    Py_ssize_t n = slots ? PyTuple_GET_SIZE(slots) : 0, found = 0;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        PyObject *name = PyList_GET_ITEM(list, i);
        if (!PyUnicode_CheckExact(name) || PyUnicode_GET_LENGTH(name) == 0)
            return false;
        if (PyUnicode_CompareWithASCIIString(name, "__dict__") == 0 ||
            PyUnicode_CompareWithASCIIString(name, "__weakref__") == 0)
            continue;
        Py_ssize_t before = found;
        for (Py_ssize_t j = 0; j < n; j++)
            found += is_slot(PyTuple_GET_ITEM(slots, j), name);
        if (found == before)
            return false;
    }
    return found == n;
}

/*
 * What says the slots, if __slots__ does not say them any more (it may have been an iterator): the names of their
 * descriptors. New reference, or NULL without an exception.
 */
static PyObject *slots_by_descriptors(struct shoal_encoder *e, PyTypeObject *class, PyObject *dict)
{
    PyObject *slots = PyDict_GetItemWithError(dict, e->state->names.slots); /* borrowed */
    if (!slots || PyUnicode_Check(slots) || PyTuple_Check(slots) || PyDict_Check(slots) || PyAnySet_Check(slots) ||
        (PyList_CheckExact(slots) && says_the_slots(slots, class)))
        return NULL;
    PyObject *names = PyList_New(0), *key, *value;
    Py_ssize_t position = 0;
    int result = names ? 0 : -1;
    while (result == 0 && PyDict_Next(dict, &position, &key, &value))
        if ((Py_IS_TYPE(value, &PyMemberDescr_Type) || Py_IS_TYPE(value, &PyGetSetDescr_Type)) &&
            PyDescr_TYPE(value) == class)
            result = PyList_Append(names, key);
    PyObject *tuple = result == 0 ? PyList_AsTuple(names) : NULL;
    Py_XDECREF(names);
    return tuple;
}

/* New reference to a dict of the attributes that are written. */
static PyObject *attributes_of(struct shoal_encoder *e, PyTypeObject *class)
{
    const struct shoal_state_names *names = &e->state->names;
    PyObject *dict = shoal__class_dict(class), *attributes = PyDict_New(), *key, *value;
    Py_ssize_t position = 0;
    int result = attributes ? 0 : -1;
    while (result == 0 && PyDict_Next(dict, &position, &key, &value)) {
        if (shoal__class_makes(names, class, key, value))
            continue;
        if (value == Py_None && is_text(key, names->doc))
            continue; /* a class without one gets None */
        PyObject *written = written_value(e, key, value);
        result = written ? PyDict_SetItem(attributes, key, written) : -1;
        Py_XDECREF(written);
    }
    PyObject *slots = result == 0 ? slots_by_descriptors(e, class, dict) : NULL;
    if (slots)
        result = PyDict_SetItem(attributes, names->slots, slots);
    Py_XDECREF(slots);
    Py_DECREF(dict);
    /* A new class takes the name out of its namespace, and what is left there is an attribute for the instances. */
    if (result == 0)
        result = PyDict_SetItem(attributes, names->qualname, ((PyHeapTypeObject *)class)->ht_qualname);
    if (result < 0)
        Py_CLEAR(attributes);
    return attributes;
}

/* New reference to the live classes that were registered with an ABC, or None. */
static PyObject *registered_with(struct shoal_encoder *e, PyTypeObject *class)
{
    if (!_PyType_Lookup(class, e->state->names.abc_impl))
        return Py_NewRef(Py_None);
    PyObject *list = shoal__rebuild_helper(&e->state->classes.list_registered, "_list_registered");
    return list ? PyObject_CallOneArg(list, (PyObject *)class) : NULL;
}

/* ---- writing it ---- */

static int save_name(struct shoal_encoder *e, PyObject *name)
{
    return PyUnicode_CheckExact(name) ? shoal__save_constant(e, name) : shoal__save(e, name);
}

static bool is_all_int(PyObject *list)
{
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++)
        if (!PyLong_CheckExact(PyList_GET_ITEM(list, i)))
            return false;
    return true;
}

struct member {
    uint64_t digest;
    uint64_t place; /* in the memo: of two that are alike, the one that was written first */
    PyObject *object; /* the list's own reference */
};

static int compare_members(const void *a, const void *b)
{
    uint64_t first = ((const struct member *)a)->digest, second = ((const struct member *)b)->digest;
    if (first == second) {
        first = ((const struct member *)a)->place;
        second = ((const struct member *)b)->place;
    }
    return (first > second) - (first < second);
}

/* By what they are: no hash and no address counts. 0 or -1. */
static int sort_by_digest(struct shoal_encoder *e, PyObject *list)
{
    Py_ssize_t n = PyList_GET_SIZE(list);
    struct member *members = PyMem_Calloc((size_t)n + 1, sizeof *members);
    if (!members) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *object = PyList_GET_ITEM(list, i);
        members[i] = (struct member){0, (uint64_t)shoal__find(e, object), object}; /* -1, not there, is the last */
        if (shoal__order_digest(e, object, &members[i].digest) < 0) {
            PyMem_Free(members);
            return -1;
        }
    }
    qsort(members, (size_t)n, sizeof *members, compare_members);
    for (Py_ssize_t i = 0; i < n; i++)
        PyList_SET_ITEM(list, i, members[i].object); /* a permutation: each still has its reference */
    PyMem_Free(members);
    return 0;
}

PyObject *shoal__ordered_members(struct shoal_encoder *e, PyObject *set)
{
    PyObject *list = sorted_text(set);
    if (list || PyErr_Occurred() || !(list = PySequence_List(set)))
        return list;
    if ((is_all_int(list) ? PyList_Sort(list) : sort_by_digest(e, list)) < 0)
        Py_CLEAR(list);
    return list;
}

int shoal__save_in_order(struct shoal_encoder *e, PyObject *set, uint8_t each)
{
    PyObject *list = shoal__ordered_members(e, set);
    int result = list ? 0 : -1;
    for (Py_ssize_t i = 0; result == 0 && i < PyList_GET_SIZE(list); i++) {
        PyObject *member = PyList_GET_ITEM(list, i);
        result = save_name(e, member);
        if (result < 0)
            shoal__path_step(e, "member", set, NULL);
        else if (each)
            result = shoal__op(e, each);
    }
    Py_XDECREF(list);
    return result;
}

/* The cell of super() as __classcell__: the birth fills it, before any hook runs. */
static int save_class_cell(struct shoal_encoder *e, const struct shoal_birth *birth, bool *any)
{
    int64_t index = birth->cell ? shoal__find(e, birth->cell) : -1;
    if (index < 0)
        return 0;
    if ((e->binary && !*any && shoal__op(e, OP_MARK) < 0) || shoal__save_constant(e, e->state->classes.classcell) < 0 ||
        shoal__get_index(e, index) < 0)
        return -1;
    *any = true;
    return e->binary ? 0 : shoal__op(e, OP_SETITEM);
}

static int save_attribute(struct shoal_encoder *e, bool *any, PyObject *class, PyObject *key, PyObject *value)
{
    if (shoal__save_item(e, any, key, value, LATE_ATTRIBUTE, class) >= 0)
        return 0;
    shoal__path_step(e, "class attribute", class, key);
    return -1;
}

static int save_all_attributes(struct shoal_encoder *e, bool *any, PyObject *class, PyObject *attributes)
{
    PyObject *key, *value;
    Py_ssize_t position = 0;
    while (PyDict_Next(attributes, &position, &key, &value)) /* our own dict: nobody changes it */
        if (save_attribute(e, any, class, key, value) < 0)
            return -1;
    return 0;
}

static int save_namespace(struct shoal_encoder *e, const struct shoal_birth *birth, PyObject *attributes)
{
    bool any = false;
    if (shoal__empty_dict(e) < 0 || save_all_attributes(e, &any, birth->class, attributes) < 0 ||
        save_class_cell(e, birth, &any) < 0)
        return -1;
    return shoal__end_items(e, any);
}

/* One attribute, or all of the dict `value` if key is NULL; registered may be NULL. */
static int save_fill(struct shoal_encoder *e, PyObject *class, PyObject *key, PyObject *value, PyObject *registered)
{
    int n = registered ? 3 : 2;
    bool any = false;
    if (shoal__save_rebuilder(e, REBUILD_FILL_CLASS) < 0 || shoal__begin_tuple(e, n) < 0 ||
        shoal__save(e, class) < 0 || shoal__empty_dict(e) < 0)
        return -1;
    if (key ? save_attribute(e, &any, class, key, value) < 0 : value && save_all_attributes(e, &any, class, value) < 0)
        return -1;
    if (shoal__end_items(e, any) < 0 || (registered && shoal__save(e, registered) < 0) ||
        shoal__end_tuple(e, n) < 0 || shoal__op(e, OP_REDUCE) < 0)
        return -1;
    return shoal__op(e, OP_POP);
}

int shoal__save_late_attribute(struct shoal_encoder *e, PyObject *class, PyObject *key, PyObject *value)
{
    return save_fill(e, class, key, value, NULL);
}

int shoal__save_late_registered(struct shoal_encoder *e, PyObject *class, PyObject *classes)
{
    return save_fill(e, class, NULL, NULL, classes);
}

/* What a class is made from besides its attributes. kind: which part, for the path to a culprit. */
static int save_making(struct shoal_encoder *e, PyObject *class, const char *kind, PyObject *part)
{
    if (shoal__save(e, part) == 0)
        return 0;
    shoal__path_step(e, kind, class, NULL);
    return -1;
}

static int save_ordinary(struct shoal_encoder *e, struct shoal_birth *birth, const struct shoal_class_record *record)
{
    PyTypeObject *class = (PyTypeObject *)birth->class;
    int n = record->keywords ? 6 : 5;
    PyObject *attributes = attributes_of(e, class);
    int result = attributes && shoal__save_rebuilder(e, REBUILD_CLASS) == 0 && shoal__begin_tuple(e, n) == 0 &&
                         save_making(e, birth->class, "metaclass", (PyObject *)Py_TYPE(class)) == 0 &&
                         save_name(e, ((PyHeapTypeObject *)class)->ht_name) == 0 &&
                         save_making(e, birth->class, "bases", class->tp_bases) == 0 &&
                         save_namespace(e, birth, attributes) == 0 &&
                         shoal__save(e, record->mark) == 0
                     ? 0
                     : -1;
    Py_XDECREF(attributes);
    if (result < 0 || (record->keywords && save_making(e, birth->class, "keywords of", record->keywords) < 0))
        return -1;
    return shoal__end_tuple(e, n);
}

/* An enum is born with its members; shoal._rebuild_enum says what is left of its attributes then. */
static int save_enum(struct shoal_encoder *e, struct shoal_birth *birth, const struct shoal_class_record *record)
{
    PyObject *describe = shoal__rebuild_helper(&e->state->classes.describe_enum, "_describe_enum");
    birth->cell = birth->class; /* no cell at all: EnumMeta has no place for one, so that cells are filled afterwards */
    PyObject *attributes = describe ? attributes_of(e, (PyTypeObject *)birth->class) : NULL;
    PyObject *both = attributes ? PyObject_CallFunctionObjArgs(describe, birth->class, attributes, record->mark,
                                                               record->keywords ? record->keywords : Py_None, NULL)
                                : NULL;
    Py_XDECREF(attributes);
    int result = -1;
    if (both && PyTuple_Check(both) && PyTuple_GET_SIZE(both) == 2 && PyTuple_Check(PyTuple_GET_ITEM(both, 0)) &&
        PyDict_CheckExact(PyTuple_GET_ITEM(both, 1))) {
        result = 0;
        if (PyDict_GET_SIZE(PyTuple_GET_ITEM(both, 1)) > 0)
            result = shoal__put_off(e, birth, LATE_ATTRIBUTE, birth->class, NULL, PyTuple_GET_ITEM(both, 1));
        if (result == 0 && shoal__save_rebuilder(e, REBUILD_ENUM) < 0)
            result = -1;
        if (result == 0 && (result = shoal__save(e, PyTuple_GET_ITEM(both, 0))) < 0)
            shoal__path_step(e, "rebuilt", birth->class, e->state->writer.rebuilder_names[REBUILD_ENUM]);
    } else if (both) {
        PyErr_SetString(PyExc_TypeError, "_describe_enum must return (arguments, attributes)");
    }
    Py_XDECREF(both);
    return result;
}

static int is_enum(PyObject *class)
{
    PyObject *enum_module = PyDict_GetItemString(PyImport_GetModuleDict(), "enum"); /* borrowed */
    if (!enum_module || Py_IS_TYPE(class, &PyType_Type))
        return 0; /* nobody has made an enum yet, or it has no metaclass of its own */
    PyObject *meta = PyObject_GetAttrString(enum_module, "EnumMeta");
    int result = meta ? PyObject_IsInstance(class, meta) : -1;
    Py_XDECREF(meta);
    return result;
}

/* May a hook have run at its definition whose doings travel with it, too? */
static int may_have_hooks(struct shoal_encoder *e, PyTypeObject *class)
{
    if (!Py_IS_TYPE(class, &PyType_Type) ||
        _PyType_Lookup(class, e->state->classes.init_subclass) != e->state->classes.no_init_subclass)
        return 1;
    PyObject *dict = shoal__class_dict(class), *key, *value;
    Py_ssize_t position = 0;
    int result = 0;
    while (!result && PyDict_Next(dict, &position, &key, &value)) {
        PyTypeObject *kind = Py_TYPE(value);
        result = PyType_HasFeature(kind, Py_TPFLAGS_HEAPTYPE) && _PyType_Lookup(kind, e->state->classes.set_name);
    }
    Py_DECREF(dict);
    return result;
}

/* One thing that hooks may have written to: (kind, owner, key, value). */
static int put_off_effect(struct shoal_encoder *e, PyObject *effect)
{
    int kind;
    PyObject *owner, *key, *value;
    if (!PyArg_ParseTuple(effect, "iOOO", &kind, &owner, &key, &value))
        return -1;
    if (kind < LATE_GLOBAL || kind > LATE_CONTENT || (kind == LATE_GLOBAL && !PyDict_CheckExact(owner)) ||
        (kind == LATE_CELL && !PyCell_Check(owner)) || (kind == LATE_ATTRIBUTE && !PyType_Check(owner))) {
        PyErr_SetString(PyExc_TypeError, "_list_effects must return tuples (kind, owner, key, value)");
        return -1;
    }
    uintptr_t shadow = kind == LATE_GLOBAL ? SHOAL_MEMO_SHADOW : 0;
    if (shoal_memo_find(&e->memo, (uintptr_t)owner | shadow) < 0 ||
        shoal__is_put_off(e, SHOAL_LATE_END, (enum shoal_late_kind)kind, owner, key))
        return 0;
    return shoal__put_off(e, SHOAL_LATE_END, (enum shoal_late_kind)kind, owner, key, value);
}

/*
 * Hooks that travel by value run again in the reader, on a state that has their doings in it already: a registry of
 * names would have the class twice. So what they may have written to is set to what it is here, at the end.
 */
static int put_off_effects(struct shoal_encoder *e, PyTypeObject *class)
{
    if (!may_have_hooks(e, class))
        return 0;
    PyObject *list = shoal__rebuild_helper(&e->state->classes.list_effects, "_list_effects");
    PyObject *effects = list ? PyObject_CallOneArg(list, (PyObject *)class) : NULL;
    int result = effects && PyList_CheckExact(effects) ? 0 : -1;
    for (Py_ssize_t i = 0; result == 0 && i < PyList_GET_SIZE(effects); i++)
        result = put_off_effect(e, PyList_GET_ITEM(effects, i));
    Py_XDECREF(effects);
    return result;
}

static int save_born(struct shoal_encoder *e, struct shoal_birth *birth, const struct shoal_class_record *record)
{
    PyObject *registered = registered_with(e, (PyTypeObject *)birth->class);
    int enumeration = registered ? is_enum(birth->class) : -1;
    int result = enumeration < 0 ? -1 : enumeration ? save_enum(e, birth, record) : save_ordinary(e, birth, record);
    if (result == 0 && PyList_CheckExact(registered) && PyList_GET_SIZE(registered) > 0)
        result = shoal__put_off(e, birth, LATE_REGISTERED, birth->class, NULL, registered);
    Py_XDECREF(registered);
    if (result < 0 || put_off_effects(e, (PyTypeObject *)birth->class) < 0)
        return -1;
    return shoal__op(e, OP_REDUCE);
}

static int save_by_value(struct shoal_encoder *e, PyObject *class)
{
    struct shoal_class_record *record = shoal__class_record(e->state, (PyTypeObject *)class); /* borrowed: */
    if (!record)
        return -1;
    Py_INCREF(record);
    e->in_class++;
    struct shoal_birth birth = {.class = class, .outer = e->births};
    bool fast = e->fast;
    e->fast = false; /* a class refers to itself: into the memo, fast mode or not */
    e->births = &birth;
    int result = save_born(e, &birth, record);
    e->births = birth.outer;
    Py_DECREF(record);
    if (result == 0 && shoal__find(e, class) >= 0) /* it was reached through its own bases or metaclass */
        result = shoal__block(e, &birth);
    if (result == 0)
        result = shoal__put_key(e, (uintptr_t)class);
    if (result == 0)
        result = shoal__save_late(e, &birth);
    if (e->in_class == 1 && result == 0)
        result = shoal__save_late(e, SHOAL_LATE_END);
    e->in_class--;
    e->fast = fast;
    return result;
}

/* Types of the interpreter that do not say where they can be found. 1: written; 0: not one of them; -1. */
static int save_builtin_type(struct shoal_encoder *e, PyObject *class)
{
    PyObject *place = PyDict_GetItemWithError(e->state->writer.builtin_types, class); /* borrowed */
    if (!place)
        return PyErr_Occurred() ? -1 : 0;
    return shoal__save_named(e, class, PyTuple_GET_ITEM(place, 0), PyTuple_GET_ITEM(place, 1)) < 0 ? -1 : 1;
}

int shoal__save_class(struct shoal_encoder *e, PyObject *class)
{
    struct shoal_birth *birth = shoal__birth_of(e, class);
    if (birth)
        return shoal__block(e, birth);
    PyTypeObject *type = (PyTypeObject *)class;
    bool built_in = Py_IS_TYPE(class, &PyType_Type) && !PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE);
    int builtin = built_in ? save_builtin_type(e, class) : 0;
    if (builtin != 0)
        return builtin < 0 ? -1 : 0;
    if (!PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE) || PyType_HasFeature(type, Py_TPFLAGS_IMMUTABLETYPE))
        return shoal__save_global(e, class, NULL); /* made in C: pickle's own complaint is the right one */
    return save_by_value(e, class);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * births.c - classes that are being written and cannot be referred to yet.
 *
 * The problem: a class is to be born in the reader as it was at its definition, in one call of its metaclass with the
 * whole namespace, so that all hooks (metaclass, __init_subclass__, __set_name__) run once and see what they would see.
 * The namespace is thus written before the class, and whatever in it refers to the class must come after it: a method's
 * globals and cells, a registry that lists the class, an instance kept as an attribute.
 *
 * What is put off, from the small to the large:
 *
 *   a global or a cell that is the class       the item; most classes have no more than this
 *   a list, dict, set or plain instance        it is made, with all in it that does not lead to the class; after the
 *                                              birth its content becomes exactly what it is here: a registry to which
 *                                              the hooks have added the class meanwhile has it once
 *   a function's attributes                    all of them
 *   a type parameter's bound or default        these
 *   whatever else leads to the class           the attribute or global: it cannot have been there at the definition
 *
 * Whether something leads to the class is found by trying: it is saved, and when the class is reached, the save fails
 * and the stream, the memo and the list of what was put off go back to where they were. While a class is under way the
 * open frame therefore grows, and nothing goes to the file. A buffer that somebody has taken cannot be taken back: then
 * the save fails.
 */
#include "births.h"

enum { LATE_ROOM_FIRST = 16 };

/* ---- going back ---- */

void shoal__point_take(const struct shoal_encoder *e, struct shoal_point *ret_point)
{
    *ret_point = (struct shoal_point){shoal_sink_used(e->sink), e->memo.count, e->buffers_taken, e->late_count};
}

static void late_clear(struct shoal_late *late)
{
    Py_CLEAR(late->owner);
    Py_CLEAR(late->key);
    Py_CLEAR(late->value);
}

static void forget_late(struct shoal_encoder *e, Py_ssize_t count)
{
    while (e->late_count > count) {
        struct shoal_late last = e->late[--e->late_count];
        late_clear(&last);
    }
}

void shoal__classes_clear(struct shoal_encoder *e)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback); /* what is dropped may run code */
    e->births = NULL;
    e->in_class = 0;
    shoal_texts_end(&e->texts);
    forget_late(e, 0);
    PyErr_Restore(type, value, traceback);
}

int shoal__point_return(struct shoal_encoder *e, const struct shoal_point *point)
{
    if (!e->blocked || !PyErr_ExceptionMatches(e->state->shared.pickling_error) || e->buffers_taken != point->taken)
        return -1;
    PyErr_Clear();
    shoal__path_forget(e);
    e->sink->cursor = e->sink->start + point->used;
    forget_late(e, point->late);
    return shoal_memo_truncate(&e->memo, point->memo) < 0 ? -1 : 1;
}

int shoal__block(struct shoal_encoder *e, struct shoal_birth *birth)
{
    e->blocked = birth;
    PyErr_Format(e->state->shared.pickling_error,
                 "Can't pickle class '%U' by value: what it is made of leads back to it, and cannot be made before it",
                 ((PyHeapTypeObject *)birth->class)->ht_qualname);
    return -1;
}

/* ---- putting off ---- */

bool shoal__is_put_off(const struct shoal_encoder *e, const struct shoal_birth *birth, enum shoal_late_kind kind,
                       PyObject *owner, PyObject *key)
{
    for (Py_ssize_t i = e->late_count; i-- > 0;) {
        const struct shoal_late *late = &e->late[i];
        if (late->birth == birth && late->kind == kind && late->owner == owner && late->key == key)
            return true;
    }
    return false;
}

int shoal__put_off(struct shoal_encoder *e, const struct shoal_birth *birth, enum shoal_late_kind kind, PyObject *owner,
                   PyObject *key, PyObject *value)
{
    if (kind == LATE_NOTHING)
        return 0;
    if (e->late_count == e->late_room) {
        Py_ssize_t room = e->late_room ? e->late_room * 2 : LATE_ROOM_FIRST;
        struct shoal_late *larger = PyMem_Realloc(e->late, (size_t)room * sizeof *larger);
        if (!larger) {
            PyErr_NoMemory();
            return -1;
        }
        e->late = larger;
        e->late_room = room;
    }
    e->late[e->late_count++] =
        (struct shoal_late){birth, kind, Py_NewRef(owner), Py_XNewRef(key), Py_XNewRef(value)};
    return 0;
}

static int save_content(struct shoal_encoder *e, PyObject *owner, PyObject *content)
{
    if (shoal__save_rebuilder(e, REBUILD_CONTENT) < 0 || shoal__begin_tuple(e, 2) < 0 || shoal__save(e, owner) < 0 ||
        shoal__save(e, content) < 0 || shoal__end_tuple(e, 2) < 0 || shoal__op(e, OP_REDUCE) < 0)
        return -1;
    return shoal__op(e, OP_POP);
}

static int save_one(struct shoal_encoder *e, const struct shoal_late *late)
{
    switch (late->kind) {
    case LATE_GLOBAL:
        return shoal__save_late_global(e, late->owner, late->key, late->value);
    case LATE_CELL:
        return shoal__save_late_cell(e, late->owner);
    case LATE_FUNCTION:
        return shoal__save_late_function(e, late->owner);
    case LATE_ATTRIBUTE:
        return shoal__save_late_attribute(e, late->owner, late->key, late->value);
    case LATE_REGISTERED:
        return shoal__save_late_registered(e, late->owner, late->value);
    case LATE_PARAMETER:
        return shoal__save_late_parameter(e, late->owner, late->value);
    case LATE_CONTENT:
        return save_content(e, late->owner, late->value);
    default:
        return 0;
    }
}

/* Is it the name by which a function knows the class itself? */
static bool is_its_name(const struct shoal_late *late)
{
    if (!late->birth)
        return false;
    PyObject *value = late->kind == LATE_CELL ? PyCell_GET(late->owner) : late->value;
    return (late->kind == LATE_CELL || late->kind == LATE_GLOBAL) && value == late->birth->class;
}

/*
 * Takes the next that waits for the birth out of the list: its names first, since what else waits may have a subclass
 * in it, whose hooks need them.
 */
static bool next_late(struct shoal_encoder *e, const struct shoal_birth *birth, struct shoal_late *ret_late)
{
    Py_ssize_t first = -1;
    for (Py_ssize_t i = 0; i < e->late_count; i++) {
        if (e->late[i].birth != birth || (first >= 0 && !is_its_name(&e->late[i])))
            continue;
        first = i;
        if (is_its_name(&e->late[i]))
            break;
    }
    if (first < 0)
        return false;
    *ret_late = e->late[first];
    e->late_count--;
    memmove(&e->late[first], &e->late[first + 1], (size_t)(e->late_count - first) * sizeof *e->late);
    return true;
}

/* Who needed it is not known any more; what it was is. */
static void tell_late(struct shoal_encoder *e, const struct shoal_late *late)
{
    if (late->kind == LATE_GLOBAL)
        shoal__path_step(e, "global", NULL, late->key);
    else if (late->kind == LATE_CELL)
        shoal__path_add(e, "a closure variable");
    else if (late->kind == LATE_CONTENT && PyType_HasFeature(Py_TYPE(late->owner), Py_TPFLAGS_HEAPTYPE))
        shoal__path_step(e, "state", late->owner, NULL);
}

int shoal__save_late(struct shoal_encoder *e, const struct shoal_birth *birth)
{
    struct shoal_late late;
    int result = 0;
    while (result == 0 && next_late(e, birth, &late)) {
        struct shoal_point point;
        shoal__point_take(e, &point);
        result = save_one(e, &late);
        if (result < 0 && e->births && shoal__point_return(e, &point) == 1)
            result = shoal__put_off(e, e->blocked, late.kind, late.owner, late.key, late.value);
        if (result < 0)
            tell_late(e, &late);
        late_clear(&late);
    }
    return result;
}

/* ---- containers and instances, without what leads to the class ---- */

static int save_open(struct shoal_encoder *e, PyObject *value);

/* One object. 1: written; 0: put off, the stream is as it was; -1. */
static int save_or_skip(struct shoal_encoder *e, PyObject *value)
{
    struct shoal_birth *birth = shoal__birth_of(e, value);
    if (birth) {
        e->blocked = birth;
        return 0;
    }
    struct shoal_point point;
    shoal__point_take(e, &point);
    if (shoal__save(e, value) == 0)
        return 1;
    if (shoal__point_return(e, &point) < 0)
        return -1;
    birth = e->blocked;
    int opened = save_open(e, value);
    if (opened == 1)
        return 1;
    if (opened < 0 && shoal__point_return(e, &point) < 0)
        return -1;
    e->blocked = birth;
    return 0;
}

static int key_and_value(struct shoal_encoder *e, bool *any, PyObject *key, PyObject *value)
{
    if (e->binary && !*any && shoal__op(e, OP_MARK) < 0)
        return -1;
    *any = true;
    int written = PyUnicode_CheckExact(key) ? (shoal__save_constant(e, key) < 0 ? -1 : 1) : save_or_skip(e, key);
    if (written <= 0)
        return written;
    written = e->births ? save_or_skip(e, value) : shoal__save(e, value) < 0 ? -1 : 1;
    if (written == 1 && !e->binary && shoal__op(e, OP_SETITEM) < 0)
        return -1;
    return written;
}

int shoal__save_item(struct shoal_encoder *e, bool *any, PyObject *key, PyObject *value, enum shoal_late_kind kind,
                     PyObject *owner)
{
    struct shoal_birth *birth = e->births ? shoal__birth_of(e, value) : NULL;
    if (birth) {
        e->blocked = birth;
        return shoal__put_off(e, birth, kind, owner, key, value);
    }
    bool before = *any;
    struct shoal_point point;
    shoal__point_take(e, &point);
    int written = key_and_value(e, any, key, value);
    if (written != 0)
        return written;
    /* The key goes, too: it was a constant, or an object that its container holds. */
    *any = before;
    e->sink->cursor = e->sink->start + point.used;
    if (shoal_memo_truncate(&e->memo, point.memo) < 0)
        return -1;
    return shoal__put_off(e, e->blocked, kind, owner, key, value);
}

int shoal__end_items(struct shoal_encoder *e, bool any)
{
    return e->binary && any ? shoal__op(e, OP_SETITEMS) : 0;
}

static int open_list(struct shoal_encoder *e, PyObject *list)
{
    PyObject *copy = PyList_GetSlice(list, 0, PY_SSIZE_T_MAX);
    int result = copy ? 0 : -1;
    if (result == 0 && (e->binary ? shoal__op(e, OP_EMPTY_LIST)
                                  : shoal__op(e, OP_MARK) < 0 ? -1 : shoal__op(e, OP_LIST)) < 0)
        result = -1;
    if (result == 0)
        result = shoal__put(e, list);
    for (Py_ssize_t i = 0; result == 0 && i < PyList_GET_SIZE(copy); i++) {
        int written = save_or_skip(e, PyList_GET_ITEM(copy, i));
        if (written < 0)
            shoal__path_index(e, "item", list, i);
        result = written < 0 ? -1 : written ? shoal__op(e, OP_APPEND) : 0;
    }
    if (result == 0)
        result = shoal__put_off(e, e->blocked, LATE_CONTENT, list, NULL, copy);
    Py_XDECREF(copy);
    return result < 0 ? -1 : 1;
}

static int open_dict(struct shoal_encoder *e, PyObject *dict)
{
    PyObject *copy = PyDict_Copy(dict), *key, *value;
    Py_ssize_t position = 0;
    bool any = false;
    int result = copy && shoal__empty_dict(e) == 0 ? shoal__put(e, dict) : -1;
    while (result == 0 && PyDict_Next(copy, &position, &key, &value)) { /* our own dict: nobody changes it */
        result = shoal__save_item(e, &any, key, value, LATE_NOTHING, NULL) < 0 ? -1 : 0;
        if (result < 0)
            shoal__path_step(e, "value", NULL, key);
    }
    if (result == 0)
        result = shoal__end_items(e, any);
    if (result == 0)
        result = shoal__put_off(e, e->blocked, LATE_CONTENT, dict, NULL, copy);
    Py_XDECREF(copy);
    return result < 0 ? -1 : 1;
}

static int begin_set(struct shoal_encoder *e, PyObject *set)
{
    if (e->protocol >= 4)
        return shoal__op(e, OP_EMPTY_SET) < 0 ? -1 : shoal__put(e, set);
    PyObject *value = Py_BuildValue("(O())", (PyObject *)&PySet_Type);
    int result = value ? shoal__save_reduced(e, value, set) : -1;
    Py_XDECREF(value);
    return result;
}

static int open_set(struct shoal_encoder *e, PyObject *set)
{
    PyObject *copy = shoal__ordered_members(e, set);
    int result = copy ? begin_set(e, set) : -1;
    for (Py_ssize_t i = 0; result == 0 && e->protocol >= 4 && i < PyList_GET_SIZE(copy); i++) {
        struct shoal_point point;
        shoal__point_take(e, &point);
        if ((result = shoal__op(e, OP_MARK)) < 0)
            break;
        int written = save_or_skip(e, PyList_GET_ITEM(copy, i));
        if (written == 0)
            e->sink->cursor = e->sink->start + point.used;
        result = written < 0 ? -1 : written ? shoal__op(e, OP_ADDITEMS) : 0;
    }
    if (result == 0)
        result = shoal__put_off(e, e->blocked, LATE_CONTENT, set, NULL, copy);
    Py_XDECREF(copy);
    return result < 0 ? -1 : 1;
}

/* The attributes of an instance, for the dict of its state that goes before the birth; all of them follow. */
static int open_state(struct shoal_encoder *e, PyObject *obj, PyObject *state)
{
    PyObject *copy = PyDict_Copy(state), *key, *value;
    Py_ssize_t position = 0;
    bool any = false;
    int result = copy ? shoal__empty_dict(e) : -1;
    while (result == 0 && PyDict_Next(copy, &position, &key, &value)) { /* our own dict: nobody changes it */
        result = shoal__save_item(e, &any, key, value, LATE_NOTHING, NULL) < 0 ? -1 : 0;
        if (result < 0)
            shoal__path_step(e, "value", NULL, key);
    }
    if (result == 0 && shoal__end_items(e, any) == 0 && shoal__op(e, OP_BUILD) == 0)
        result = shoal__put_off(e, e->blocked, LATE_CONTENT, obj, NULL, copy);
    else
        result = -1;
    Py_XDECREF(copy);
    return result;
}

/* An instance whose state is a dict and goes into its own. 1, 0, -1. */
static int open_instance(struct shoal_encoder *e, PyObject *obj)
{
    PyTypeObject *type = Py_TYPE(obj);
    if (!PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE) || PyType_Check(obj) || e->protocol < 2 ||
        _PyType_Lookup(type, e->state->names.setstate))
        return 0;
    PyObject *value = PyObject_CallMethod(obj, "__reduce_ex__", "i", e->protocol);
    if (!value)
        return -1;
    PyObject *made = NULL;
    int result = 0;
    if (PyTuple_Check(value) && PyTuple_GET_SIZE(value) >= 3 && PyDict_CheckExact(PyTuple_GET_ITEM(value, 2))) {
        for (Py_ssize_t i = 3; i < PyTuple_GET_SIZE(value); i++)
            if (PyTuple_GET_ITEM(value, i) != Py_None)
                goto out;
        made = PyTuple_GetSlice(value, 0, 2);
        result = made && shoal__save_reduced(e, made, obj) == 0 &&
                         open_state(e, obj, PyTuple_GET_ITEM(value, 2)) == 0
                     ? 1
                     : -1;
    }
out:
    Py_XDECREF(made);
    Py_DECREF(value);
    return result;
}

/* A container without what leads to the class, which is put off. 1: written; 0: there is no such way; -1. */
static int save_open(struct shoal_encoder *e, PyObject *value)
{
    if (Py_EnterRecursiveCall(" while pickling what leads back to a class"))
        return -1;
    PyTypeObject *type = Py_TYPE(value);
    int result;
    if (type == &PyList_Type)
        result = open_list(e, value);
    else if (type == &PyDict_Type)
        result = open_dict(e, value);
    else if (type == &PySet_Type)
        result = open_set(e, value);
    else
        result = open_instance(e, value);
    Py_LeaveRecursiveCall();
    return result;
}

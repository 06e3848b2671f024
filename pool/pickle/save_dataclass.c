/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * save_dataclass.c - the fields and parameters of dataclasses that travel by value: see dataclass.h.
 *
 * Outside of a class they go as any object does, so that what reads them needs no Shoal; but before protocol 2 nothing
 * else can make objects with slots.
 */
#include "dataclass.h"
#include "dict_items.h"
#include "special.h"

static const char *const value_names[FIELD_VALUES] = {
    [FIELD_NAME] = "name",
    [FIELD_TYPE] = "type",
    [FIELD_DEFAULT] = "default",
    [FIELD_FACTORY] = "default_factory",
    [FIELD_METADATA] = "metadata",
};

static bool is_compact(const struct shoal_encoder *e)
{
    return e->in_class > 0 || e->protocol < 2;
}

/* Its number among the choices; -1: none of them. */
static int number_of(PyObject *value, PyObject *const *choices, int count)
{
    int i = count - 1;
    while (i >= 0 && choices[i] != value)
        i--;
    return i;
}

/* -1: something is not as the module leaves it. */
static int bits_of_field(const struct shoal_pickle_state *state, PyObject *field)
{
    const Py_ssize_t *offsets = state->dataclass_layout.field_offsets;
    PyObject *flags[] = {Py_False, Py_True}, *hashes[3], *kw_onlys[3], *kinds[4];
    shoal__field_choices(state, hashes, kw_onlys, kinds);
    int repr = number_of(*shoal__slot(field, offsets[FIELD_REPR]), flags, 2);
    int init = number_of(*shoal__slot(field, offsets[FIELD_INIT]), flags, 2);
    int compare = number_of(*shoal__slot(field, offsets[FIELD_COMPARE]), flags, 2);
    int hash = number_of(*shoal__slot(field, offsets[FIELD_HASH]), hashes, 3);
    int kw_only = number_of(*shoal__slot(field, offsets[FIELD_KW_ONLY]), kw_onlys, 3);
    int kind = number_of(*shoal__slot(field, offsets[FIELD_KIND]), kinds, 4);
    if (repr < 0 || init < 0 || compare < 0 || hash < 0 || kw_only < 0 || kind < 0)
        return -1;
    return (repr ? FIELD_BIT_REPR : 0) | (init ? FIELD_BIT_INIT : 0) | (compare ? FIELD_BIT_COMPARE : 0) |
           hash << FIELD_HASH_SHIFT | kw_only << FIELD_KW_ONLY_SHIFT | kind << FIELD_KIND_SHIFT;
}

/* Can it be written without leading anywhere? */
static bool is_leaf(const struct shoal_encoder *e, PyObject *value)
{
    PyTypeObject *type = Py_TYPE(value);
    return type == &PyUnicode_Type || type == &PyLong_Type || type == &PyFloat_Type || type == &PyBytes_Type ||
           type == &PyBool_Type || value == Py_None ||
           (type == &PyType_Type && !PyType_HasFeature((PyTypeObject *)value, Py_TPFLAGS_HEAPTYPE)) ||
           shoal__find(e, value) >= 0;
}

static int save_rest(struct shoal_encoder *e, PyObject *field, PyObject *const *rest)
{
    struct dict_items items = {.e = e};
    if (shoal__begin_tuple(e, 2) < 0 || shoal__save_none(e) < 0 || shoal__empty_dict(e) < 0)
        return -1;
    for (int i = 0; i < FIELD_VALUES; i++) {
        PyObject *name = rest[i] ? PyUnicode_InternFromString(value_names[i]) : NULL;
        if (!name && rest[i])
            return -1;
        int result = name ? dict_items_add(&items, name, rest[i]) : 0;
        if (result < 0) {
            shoal__path_step(e, "value", NULL, name);
            shoal__path_step(e, "state", field, NULL);
        }
        Py_XDECREF(name);
        if (result < 0)
            return -1;
    }
    if (dict_items_end(&items) < 0 || shoal__end_tuple(e, 2) < 0)
        return -1;
    return shoal__op(e, OP_BUILD);
}

/* values: strong; those that become arguments are taken out by setting them to NULL in `rest`, their copy. */
static int save_field_parts(struct shoal_encoder *e, PyObject *field, int bits, PyObject *const *values)
{
    const struct shoal_state_dataclasses *d = &e->state->dataclasses;
    PyObject *rest[FIELD_VALUES], *arguments[2] = {Py_None, NULL};
    int n = 2;
    memcpy(rest, values, sizeof rest);
    rest[FIELD_NAME] = NULL;
    for (int i = FIELD_DEFAULT; i <= FIELD_FACTORY; i++)
        if (rest[i] == d->missing)
            rest[i] = NULL;
    if (rest[FIELD_METADATA] == d->empty_metadata)
        rest[FIELD_METADATA] = NULL;
    if (is_leaf(e, rest[FIELD_TYPE])) {
        arguments[0] = rest[FIELD_TYPE];
        rest[FIELD_TYPE] = NULL;
        n = 3;
    }
    int which = rest[FIELD_DEFAULT] ? FIELD_DEFAULT : FIELD_FACTORY;
    if (rest[which] && is_leaf(e, rest[which])) {
        arguments[1] = rest[which];
        rest[which] = NULL;
        bits |= which == FIELD_FACTORY ? FIELD_BIT_FACTORY : 0;
        n = 4;
    }
    if (shoal__save_rebuilder(e, REBUILD_FIELD) < 0 || shoal__begin_tuple(e, n) < 0 || shoal__save_small(e, bits) < 0 ||
        shoal__save(e, values[FIELD_NAME]) < 0 || (n > 2 && shoal__save(e, arguments[0]) < 0) ||
        (n > 3 && shoal__save(e, arguments[1]) < 0) || shoal__end_tuple(e, n) < 0 || shoal__op(e, OP_REDUCE) < 0 ||
        shoal__put(e, field) < 0)
        return -1;
    if (rest[FIELD_TYPE] || rest[FIELD_DEFAULT] || rest[FIELD_FACTORY] || rest[FIELD_METADATA])
        return save_rest(e, field, rest);
    return 0;
}

/* One that holds what the module would not put there goes as any object does, for which pickle needs protocol 2. */
static int save_odd(struct shoal_encoder *e, PyObject *obj)
{
    if (e->protocol >= 2)
        return 0;
    PyObject *value = PyObject_CallMethod(obj, "__reduce_ex__", "i", 2);
    int result = value && shoal__save_any_reduce(e, value, obj) == 0 ? 1 : -1;
    Py_XDECREF(value);
    return result;
}

static int save_field(struct shoal_encoder *e, PyObject *obj, const struct shoal_special_type *Py_UNUSED(kind))
{
    struct shoal_pickle_state *state = e->state;
    if (!is_compact(e) || (PyObject *)Py_TYPE(obj) != state->dataclasses.field_type)
        return 0;
    int bits = bits_of_field(state, obj);
    PyObject *values[FIELD_VALUES];
    for (int i = 0; i < FIELD_VALUES; i++)
        if (!(values[i] = *shoal__slot(obj, state->dataclass_layout.field_offsets[i])))
            return save_odd(e, obj);
    if (bits < 0 || !(PyUnicode_CheckExact(values[FIELD_NAME]) || values[FIELD_NAME] == Py_None))
        return save_odd(e, obj);
    for (int i = 0; i < FIELD_VALUES; i++) /* what is saved first may change them */
        Py_INCREF(values[i]);
    int result = save_field_parts(e, obj, bits, values);
    for (int i = 0; i < FIELD_VALUES; i++)
        Py_DECREF(values[i]);
    return result < 0 ? -1 : 1;
}

static int save_params(struct shoal_encoder *e, PyObject *obj, const struct shoal_special_type *Py_UNUSED(kind))
{
    const struct shoal_dataclass_layout *layout = &e->state->dataclass_layout;
    if (!is_compact(e) || (PyObject *)Py_TYPE(obj) != e->state->dataclasses.params_type)
        return 0;
    long bits = 0;
    for (int i = 0; i < layout->params_count; i++) {
        PyObject *value = *shoal__slot(obj, layout->params_offsets[i]);
        if (value != Py_True && value != Py_False)
            return save_odd(e, obj);
        bits |= value == Py_True ? 1L << i : 0;
    }
    if (shoal__save_rebuilder(e, REBUILD_DATACLASS_PARAMS) < 0 || shoal__begin_tuple(e, 1) < 0 ||
        shoal__save_small(e, bits) < 0 || shoal__end_tuple(e, 1) < 0 || shoal__op(e, OP_REDUCE) < 0)
        return -1;
    return shoal__put(e, obj) < 0 ? -1 : 1;
}

/* Nobody has said how such objects are pickled. */
static bool leaves_pickling_to_object(const struct shoal_pickle_state *state, PyTypeObject *type)
{
    const struct shoal_state_names *names = &state->names;
    return _PyType_Lookup(type, names->reduce_ex) == state->writer.object_reduce_ex &&
           _PyType_Lookup(type, names->reduce) == state->writer.object_reduce &&
           _PyType_Lookup(type, names->getstate) == state->writer.object_getstate &&
           !_PyType_Lookup(type, names->setstate);
}

int shoal__find_dataclass_saver(struct shoal_pickle_state *state, PyTypeObject *type, shoal_special_saver *ret_saver)
{
    bool may_be_field = strcmp(type->tp_name, "Field") == 0;
    if (!PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE) ||
        !(may_be_field || strcmp(type->tp_name, "_DataclassParams") == 0) || !leaves_pickling_to_object(state, type))
        return 0;
    int known = shoal__dataclass_learn(state);
    const struct shoal_state_dataclasses *d = &state->dataclasses;
    if (known <= 0 || (PyObject *)type != (may_be_field ? d->field_type : d->params_type))
        return known < 0 ? -1 : 0;
    *ret_saver = may_be_field ? save_field : save_params;
    return 1;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* rebuild_dataclass.c - the reconstructors that streams name for the fields of dataclasses: see dataclass.h. */
#include "dataclass.h"
#include "pickler_type.h"
#include <structmember.h>

/* ---- the module ---- */

/* Where the slot lies, or -1: there is none of that name. */
static Py_ssize_t offset_of(PyObject *type, const char *name)
{
    PyObject *key = PyUnicode_InternFromString(name);
    PyObject *descriptor = key ? _PyType_Lookup((PyTypeObject *)type, key) : NULL; /* borrowed from the type */
    Py_XDECREF(key);
    if (!descriptor || !Py_IS_TYPE(descriptor, &PyMemberDescr_Type) || (PyObject *)PyDescr_TYPE(descriptor) != type)
        return -1;
    const PyMemberDef *member = ((PyMemberDescrObject *)descriptor)->d_member;
    return member->type == T_OBJECT_EX ? member->offset : -1;
}

static Py_ssize_t slot_count(PyObject *type)
{
    PyObject *slots = PyObject_GetAttrString(type, "__slots__");
    Py_ssize_t count = slots && PyTuple_CheckExact(slots) ? PyTuple_GET_SIZE(slots) : -1;
    PyErr_Clear();
    Py_XDECREF(slots);
    return count;
}

static bool learn_layout(PyObject *field_type, PyObject *params_type, struct shoal_dataclass_layout *ret_layout)
{
    static const char *const field_names[SHOAL_FIELD_SLOTS] = {
        [FIELD_NAME] = "name",         [FIELD_TYPE] = "type",
        [FIELD_DEFAULT] = "default",   [FIELD_FACTORY] = "default_factory",
        [FIELD_METADATA] = "metadata", [FIELD_REPR] = "repr",
        [FIELD_INIT] = "init",         [FIELD_COMPARE] = "compare",
        [FIELD_HASH] = "hash",         [FIELD_KW_ONLY] = "kw_only",
        [FIELD_KIND] = "_field_type",
    };
    static const char *const params_names[SHOAL_PARAMS_SLOTS] = {
        "init",       "repr",    "eq",    "order",       "unsafe_hash", "frozen",
        "match_args", "kw_only", "slots", "weakref_slot", /* the last four from 3.12 on */
    };
    for (int i = 0; i < SHOAL_FIELD_SLOTS; i++)
        if ((ret_layout->field_offsets[i] = offset_of(field_type, field_names[i])) < 0)
            return false;
    Py_ssize_t count = slot_count(params_type);
    if (slot_count(field_type) != SHOAL_FIELD_SLOTS || count < 0 || count > SHOAL_PARAMS_SLOTS)
        return false;
    ret_layout->params_count = (int)count;
    for (int i = 0; i < count; i++)
        if ((ret_layout->params_offsets[i] = offset_of(params_type, params_names[i])) < 0)
            return false;
    return true;
}

int shoal__dataclass_learn(struct shoal_pickle_state *state)
{
    struct shoal_state_dataclasses found = {0};
    const struct {
        PyObject **object;
        const char *name;
    } wanted[] = {
        {&found.field_type, "Field"},
        {&found.params_type, "_DataclassParams"},
        {&found.missing, "MISSING"},
        {&found.empty_metadata, "_EMPTY_METADATA"},
        {&found.kind_field, "_FIELD"},
        {&found.kind_class_variable, "_FIELD_CLASSVAR"},
        {&found.kind_init_variable, "_FIELD_INITVAR"},
    };
    PyObject *module = PyImport_ImportModule("dataclasses");
    bool whole = module != NULL;
    for (size_t i = 0; whole && i < sizeof wanted / sizeof wanted[0]; i++)
        whole = (*wanted[i].object = PyObject_GetAttrString(module, wanted[i].name)) != NULL;
    int result = whole ? 1 : PyErr_ExceptionMatches(PyExc_Exception) ? 0 : -1;
    if (result == 0)
        PyErr_Clear();
    Py_XDECREF(module);
    struct shoal_dataclass_layout layout;
    found.module_name = PyUnicode_InternFromString("dataclasses");
    found.field_name = PyUnicode_InternFromString("Field");
    if (!found.module_name || !found.field_name)
        result = -1;
    if (result == 1 && !(PyType_Check(found.field_type) && PyType_Check(found.params_type) &&
                         learn_layout(found.field_type, found.params_type, &layout)))
        result = PyErr_Occurred() ? -1 : 0;
    struct shoal_state_dataclasses dropped = found;
    if (result == 1) {
        dropped = state->dataclasses;
        state->dataclasses = found;
        state->dataclass_layout = layout;
    }
    PyObject *const *objects = (PyObject *const *)&dropped;
    for (size_t i = 0; i < sizeof dropped / sizeof(PyObject *); i++)
        Py_XDECREF(objects[i]);
    return result;
}

/* ---- the reconstructors ---- */

/* Somebody may have imported or executed the module anew. */
static bool is_current(const struct shoal_state_dataclasses *d)
{
    if (!d->field_type)
        return false;
    PyObject *module = PyDict_GetItemWithError(PyImport_GetModuleDict(), d->module_name); /* borrowed */
    return module && PyModule_Check(module) &&
           PyDict_GetItemWithError(PyModule_GetDict(module), d->field_name) == d->field_type;
}

/* 0 if the module is known here, or -1. */
static int need_module(struct shoal_pickle_state *state)
{
    if (is_current(&state->dataclasses))
        return 0;
    if (PyErr_Occurred())
        return -1;
    int known = shoal__dataclass_learn(state);
    if (known == 0)
        PyErr_SetString(state->shared.unpickling_error, "the module dataclasses is not as this Python's own is");
    return known == 1 ? 0 : -1;
}

static PyObject *bad_arguments(struct shoal_pickle_state *state, const char *signature)
{
    if (!PyErr_Occurred())
        PyErr_Format(state->shared.unpickling_error, "damaged pickle of a dataclass: it must be made by %s", signature);
    return NULL;
}

/* The number, from 0 on and below `end`, or -1, perhaps with an exception. */
static long take_bits(PyObject *obj, long end)
{
    long bits = PyLong_CheckExact(obj) ? PyLong_AsLong(obj) : -1;
    return bits >= 0 && bits < end ? bits : -1;
}

/* _field(bits, name[, type[, default or default factory]]) */
static PyObject *rebuild_field(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    struct shoal_pickle_state *state = shoal_pickle_state_of_function(self);
    if (!state || need_module(state) < 0)
        return NULL;
    long bits = nargs >= 2 && nargs <= 4 ? take_bits(args[0], FIELD_BITS_END) : -1;
    long hash = bits >> FIELD_HASH_SHIFT & 3, kw_only = bits >> FIELD_KW_ONLY_SHIFT & 3;
    if (bits < 0 || hash > 2 || kw_only > 2 || !(PyUnicode_CheckExact(args[1]) || args[1] == Py_None))
        return bad_arguments(state, "_field(bits, name[, type[, default]])");
    const struct shoal_state_dataclasses *d = &state->dataclasses;
    PyTypeObject *type = (PyTypeObject *)d->field_type;
    PyObject *field = type->tp_alloc(type, 0), *hashes[3], *kw_onlys[3], *kinds[4];
    if (!field)
        return NULL;
    shoal__field_choices(state, hashes, kw_onlys, kinds);
    PyObject *given = nargs > 3 ? args[3] : d->missing;
    bool is_factory = bits & FIELD_BIT_FACTORY;
    PyObject *const values[SHOAL_FIELD_SLOTS] = {
        [FIELD_NAME] = args[1],
        [FIELD_TYPE] = nargs > 2 ? args[2] : Py_None,
        [FIELD_DEFAULT] = is_factory ? d->missing : given,
        [FIELD_FACTORY] = is_factory ? given : d->missing,
        [FIELD_METADATA] = d->empty_metadata,
        [FIELD_REPR] = bits & FIELD_BIT_REPR ? Py_True : Py_False,
        [FIELD_INIT] = bits & FIELD_BIT_INIT ? Py_True : Py_False,
        [FIELD_COMPARE] = bits & FIELD_BIT_COMPARE ? Py_True : Py_False,
        [FIELD_HASH] = hashes[hash],
        [FIELD_KW_ONLY] = kw_onlys[kw_only],
        [FIELD_KIND] = kinds[bits >> FIELD_KIND_SHIFT & 3],
    };
    for (int i = 0; i < SHOAL_FIELD_SLOTS; i++)
        *shoal__slot(field, state->dataclass_layout.field_offsets[i]) = Py_NewRef(values[i]);
    return field;
}

/* _dataclass_params(bits) */
static PyObject *rebuild_params(PyObject *self, PyObject *number)
{
    struct shoal_pickle_state *state = shoal_pickle_state_of_function(self);
    if (!state || need_module(state) < 0)
        return NULL;
    const struct shoal_dataclass_layout *layout = &state->dataclass_layout;
    long bits = take_bits(number, 1L << SHOAL_PARAMS_SLOTS);
    if (bits < 0)
        return bad_arguments(state, "_dataclass_params(bits)");
    PyTypeObject *type = (PyTypeObject *)state->dataclasses.params_type;
    PyObject *params = type->tp_alloc(type, 0);
    for (int i = 0; params && i < layout->params_count; i++)
        *shoal__slot(params, layout->params_offsets[i]) = Py_NewRef(bits >> i & 1 ? Py_True : Py_False);
    return params;
}

#define FASTCALL(function) (PyCFunction)(void (*)(void))(function)

PyMethodDef shoal__rebuild_dataclass_functions[] = {
    {"_field", FASTCALL(rebuild_field), METH_FASTCALL, "A field of a dataclass that was pickled by value."},
    {"_dataclass_params", rebuild_params, METH_O, "What the decorator of such a dataclass was given."},
    {NULL, NULL, 0, NULL},
};

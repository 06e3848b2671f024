/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * save_special.c - which objects are written in a way of ours, although they have no reducer registered.
 *
 * The problem: there are some sixty such types, among them every exception; half of them live in modules that may not
 * be imported yet, and most objects are of none of them and must not pay for that.
 *
 * So each type is looked at once. What was found, which mostly is "nothing", stays in a table by the type's address,
 * four that fall together side by side, as long as the type's version (type_version.h) is the same: an entry for a type
 * that died or was changed cannot match. An ordinary object pays a comparison or two.
 *
 * Types that only C can take apart are listed here; the others, and subclasses, are those of shoal._describe, which is
 * asked with the type and gives a describer: a callable(obj, protocol) -> what __reduce__ would say, or None.
 */
#include "births.h"
#include "special.h"
#include "type_version.h"

/* ---- savers for what other files write, in the form of this table ---- */

static int save_module(struct shoal_encoder *e, PyObject *obj, const struct shoal_special_type *Py_UNUSED(kind))
{
    return shoal__save_module(e, obj) < 0 ? -1 : 1;
}

/* Asked, it gives its name, which would be looked for in each module there is. */
static int save_ellipsis(struct shoal_encoder *e, PyObject *obj, const struct shoal_special_type *Py_UNUSED(kind))
{
    if (e->protocol < 4) /* Python 2's name */
        return 0;
    PyObject *module = PyUnicode_InternFromString("builtins");
    PyObject *name = PyUnicode_InternFromString(obj == Py_Ellipsis ? "Ellipsis" : "NotImplemented");
    int result = module && name && shoal__save_named(e, obj, module, name) == 0 ? 1 : -1;
    Py_XDECREF(module);
    Py_XDECREF(name);
    return result;
}

static int save_code(struct shoal_encoder *e, PyObject *obj, const struct shoal_special_type *Py_UNUSED(kind))
{
    return shoal__save_code(e, obj) < 0 ? -1 : 1;
}

static int save_cell(struct shoal_encoder *e, PyObject *obj, const struct shoal_special_type *Py_UNUSED(kind))
{
    return shoal__save_cell(e, obj) < 0 ? -1 : 1;
}

static int save_with_describer(struct shoal_encoder *e, PyObject *obj, PyObject *describer)
{
    PyObject *value = PyObject_CallFunction(describer, "Oi", obj, e->protocol);
    int result = -1;
    if (value == Py_None)
        result = 0;
    else if (value)
        result = shoal__save_any_reduce(e, value, obj) < 0 ? -1 : 1;
    Py_XDECREF(value);
    return result;
}

static int save_described(struct shoal_encoder *e, PyObject *obj, const struct shoal_special_type *kind)
{
    return save_with_describer(e, obj, kind->about);
}

int shoal__save_single_dispatch(struct shoal_encoder *e, PyObject *function)
{
    PyObject *describe = shoal_pickle__import("shoal._describe", "single_dispatch");
    int result = describe ? save_with_describer(e, function, describe) : -1;
    Py_XDECREF(describe);
    return result < 0 ? -1 : 0;
}

/* ---- marks, which are compared by identity: dataclasses.MISSING and others ---- */

/* The module that has marks of a type of this name, or NULL. */
static const char *module_of_marks(PyTypeObject *type)
{
    static const struct {
        const char *type_name;
        const char *module;
    } kinds[] = {
        {"_MISSING_TYPE", "dataclasses"},
        {"_FIELD_BASE", "dataclasses"},
        {"_KW_ONLY_TYPE", "dataclasses"},
        {"_HAS_DEFAULT_FACTORY_CLASS", "dataclasses"},
        {"_auto_null", "enum"},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE) && strcmp(type->tp_name, kinds[i].type_name) == 0)
            return kinds[i].module;
    return NULL;
}

static int save_mark(struct shoal_encoder *e, PyObject *obj, const struct shoal_special_type *Py_UNUSED(kind))
{
    PyObject *module_name = PyUnicode_InternFromString(module_of_marks(Py_TYPE(obj)));
    PyObject *module = module_name ? PyImport_Import(module_name) : NULL;
    PyObject *name, *value, *found = NULL;
    Py_ssize_t position = 0;
    while (module && !found && PyDict_Next(PyModule_GetDict(module), &position, &name, &value))
        if (value == obj)
            found = Py_NewRef(name);
    int result = found ? shoal__save_named(e, obj, module_name, found) : 0;
    if (result == 0)
        result = module ? found != NULL : -1;
    Py_XDECREF(found);
    Py_XDECREF(module);
    Py_XDECREF(module_name);
    return result;
}

/* ---- type parameters: TypeVar and its kind ---- */

static bool may_be_type_parameter(PyTypeObject *type)
{
    const char *name = strrchr(type->tp_name, '.');
    name = name ? name + 1 : type->tp_name;
    return strcmp(name, "TypeVar") == 0 || strcmp(name, "ParamSpec") == 0 || strcmp(name, "TypeVarTuple") == 0;
}

/* The second step of one whose bound or default was put off: the setter's call. reduced: what __reduce__ would say. */
int shoal__save_late_parameter(struct shoal_encoder *e, PyObject *parameter, PyObject *reduced)
{
    if (shoal__save(e, PyTuple_GET_ITEM(reduced, 5)) < 0 || shoal__save(e, parameter) < 0 ||
        shoal__save(e, PyTuple_GET_ITEM(reduced, 2)) < 0)
        return -1;
    const uint8_t call[] = {OP_TUPLE2, OP_REDUCE, OP_POP};
    return shoal__raw(e, call, sizeof call);
}

/* Within a class that may be what its bound or default names. */
static int save_open_parameter(struct shoal_encoder *e, PyObject *reduced, PyObject *parameter)
{
    PyObject *made = PyTuple_GetSlice(reduced, 0, 2);
    int result = made ? shoal__save_reduced(e, made, parameter) : -1;
    Py_XDECREF(made);
    if (result < 0)
        return -1;
    struct shoal_point point;
    shoal__point_take(e, &point);
    result = shoal__save_late_parameter(e, parameter, reduced);
    if (result < 0 && shoal__point_return(e, &point) == 1)
        result = shoal__put_off(e, e->blocked, LATE_PARAMETER, parameter, NULL, reduced);
    return result;
}

static int save_type_parameter(struct shoal_encoder *e, PyObject *obj, const struct shoal_special_type *Py_UNUSED(kind))
{
    int written = shoal__save_if_importable(e, obj);
    if (written != 0)
        return written;
    PyObject *describe = shoal__rebuild_helper(&e->state->writer.describe_parameter, "_describe_type_parameter");
    PyObject *value = describe ? PyObject_CallOneArg(describe, obj) : NULL;
    int result = -1;
    if (value == Py_None)
        result = 0;
    else if (value && e->births && PyTuple_Check(value) && PyTuple_GET_SIZE(value) == 6)
        result = save_open_parameter(e, value, obj) < 0 ? -1 : 1;
    else if (value)
        result = shoal__save_any_reduce(e, value, obj) < 0 ? -1 : 1;
    Py_XDECREF(value);
    return result;
}

/* ---- finding out about a type ---- */

static shoal_special_saver saver_of_builtin(PyTypeObject *type)
{
    const struct {
        PyTypeObject *type;
        shoal_special_saver save;
    } known[] = {
        {&PyCode_Type, save_code},
        {&PyEllipsis_Type, save_ellipsis},
        {Py_TYPE(Py_NotImplemented), save_ellipsis},
        {&PyCell_Type, save_cell},
        {&PyMethod_Type, shoal__save_method},
        {&PyProperty_Type, shoal__save_property},
        {&PyClassMethod_Type, shoal__save_wrapped},
        {&PyStaticMethod_Type, shoal__save_wrapped},
        {&PyGetSetDescr_Type, shoal__save_own_descriptor},
        {&PyClassMethodDescr_Type, shoal__save_own_descriptor},
        {&PySuper_Type, shoal__save_super},
        {&PyDictProxy_Type, shoal__save_mapping_proxy},
        {&PyMemoryView_Type, shoal__save_memory_view},
        {&PyDictKeys_Type, shoal__save_dict_view},
        {&PyDictValues_Type, shoal__save_dict_view},
        {&PyDictItems_Type, shoal__save_dict_view},
        {&PyODictKeys_Type, shoal__save_dict_view},
        {&PyODictValues_Type, shoal__save_dict_view},
        {&PyODictItems_Type, shoal__save_dict_view},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (known[i].type == type)
            return known[i].save;
    return NULL;
}

/* A module, unless it is of a kind that says itself how it is made again. */
static bool is_plain_module(const struct shoal_pickle_state *state, PyTypeObject *type)
{
    return type == &PyModule_Type ||
           (PyType_IsSubtype(type, &PyModule_Type) && type->tp_dictoffset &&
            _PyType_Lookup(type, state->names.reduce_ex) == state->writer.object_reduce_ex &&
            _PyType_Lookup(type, state->names.reduce) == state->writer.object_reduce);
}

static int ask_describers(struct shoal_encoder *e, struct shoal_special_type *entry)
{
    PyObject **find = &e->state->writer.find_describer;
    if (!*find)
        *find = shoal_pickle__import("shoal._describe", "find_describer");
    PyObject *describer = *find ? PyObject_CallOneArg(*find, (PyObject *)entry->type) : NULL;
    if (!describer)
        return -1;
    if (describer == Py_None) {
        Py_DECREF(describer);
    } else {
        entry->about = describer;
        entry->save = save_described;
    }
    return 0;
}

static int find_out(struct shoal_encoder *e, PyTypeObject *type, struct shoal_special_type *entry)
{
    *entry = (struct shoal_special_type){.type = type};
    bool is_exception = PyType_HasFeature(type, Py_TPFLAGS_BASE_EXC_SUBCLASS);
    if (is_exception && shoal__learn_exception(e, type, entry) < 0)
        return -1;
    _PyType_Lookup(type, e->state->names.reduce_ex); /* gives it a version tag if it has none */
    entry->version = shoal__type_version(e->state, type);
    if (is_exception)
        return 0;
    entry->save = saver_of_builtin(type);
    if (!entry->save && is_plain_module(e->state, type))
        entry->save = save_module;
    if (!entry->save && module_of_marks(type))
        entry->save = save_mark;
    if (!entry->save && may_be_type_parameter(type))
        entry->save = save_type_parameter;
    if (!entry->save && shoal__find_dataclass_saver(e->state, type, &entry->save) < 0)
        return -1;
    return entry->save ? 0 : ask_describers(e, entry);
}

static int save_with(struct shoal_encoder *e, PyObject *obj, const struct shoal_special_type *entry)
{
    if (!entry->save)
        return 0;
    struct shoal_special_type kind = *entry; /* which may be replaced meanwhile */
    Py_XINCREF(kind.about);
    int result = kind.save(e, obj, &kind);
    Py_XDECREF(kind.about);
    return result;
}

int shoal__save_special(struct shoal_encoder *e, PyObject *obj)
{
    PyTypeObject *type = Py_TYPE(obj);
    size_t set = ((uintptr_t)type >> 5) % (SHOAL_SPECIAL_TYPES / SHOAL_SPECIAL_WAYS);
    struct shoal_special_type *entries = &e->state->special_types[set * SHOAL_SPECIAL_WAYS];
    for (int i = 0; i < SHOAL_SPECIAL_WAYS; i++)
        if (entries[i].type == type && entries[i].version != 0 &&
            entries[i].version == shoal__type_version(e->state, type))
            return save_with(e, obj, &entries[i]);
    struct shoal_special_type found;
    if (find_out(e, type, &found) < 0)
        return -1;
    PyObject *replaced = entries[SHOAL_SPECIAL_WAYS - 1].about;
    memmove(entries + 1, entries, (SHOAL_SPECIAL_WAYS - 1) * sizeof *entries);
    Py_XINCREF(found.about); /* the entry's own */
    entries[0] = found;
    Py_XDECREF(replaced);
    int result = save_with(e, obj, &found);
    Py_XDECREF(found.about);
    return result;
}

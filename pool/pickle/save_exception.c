/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * save_exception.c - exceptions, with all that they know.
 *
 * The problem: pickle calls the class with `args` and then updates __dict__. That loses the cause, the context and
 * whether it is suppressed; it loses attributes in slots and some fields of the interpreter's own (NameError.name); and
 * it fails, or makes another exception, where a class's __init__ hands other arguments on than it gets:
 *
 *     class NotFound(Exception):
 *         def __init__(self, kind, key):
 *             super().__init__(f"no {kind} of the name {key}")
 *
 * So what has an __init__ of its own is made without it, by __new__, and all of its state is set afterwards. State is a
 * dict whose items BaseException.__setstate__ sets as attributes, links and `args` included: plain pickle reads it
 * anywhere. Only where a class has a __setattr__ of its own, as a frozen dataclass has, or a __setstate__, does the
 * load need Shoal, and then for what goes past these.
 *
 * An exception of which pickle loses nothing is left to pickle, byte for byte, and so is one whose class has a
 * __reduce__ of its own, save for links and notes. Tracebacks stay behind: they hold the frames, and all that is in
 * them. A pool tells a worker's traceback as text, in the cause.
 */
#include "exception.h"

enum {
    FAMILY = 0x0f,
    OWN_INIT = 0x10,
    OWN_NEW = 0x20,
    OWN_REDUCE = 0x40, /* or it holds something that only C knows of */
    OWN_SETATTR = 0x80,
    OWN_SETSTATE = 0x100,
    OWN_SLOTS = 0x200,
};

/* ---- what is to be known of a class ---- */

/* The interpreter's own type that an exception is laid out as: borrowed. */
static PyTypeObject *base_of(PyTypeObject *type)
{
    while (PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE))
        type = type->tp_base;
    return type;
}

static bool has_hidden_state(PyTypeObject *type, PyTypeObject *base, Py_ssize_t slots)
{
    Py_ssize_t pointer = (Py_ssize_t)sizeof(PyObject *), dict_and_weakrefs = 2 * pointer;
    return strchr(base->tp_name, '.') || type->tp_basicsize - base->tp_basicsize - pointer * slots > dict_and_weakrefs;
}

/* New reference to a list, which the class keeps: an entry that kept it would outlive the class. */
static PyObject *names_of_slots(struct shoal_encoder *e, PyTypeObject *type)
{
    PyObject *slots = PyObject_CallOneArg(e->state->writer.slotnames, (PyObject *)type);
    if (slots && !PyList_Check(slots)) {
        PyErr_SetString(PyExc_TypeError, "__slotnames__ of an exception class is not a list");
        Py_CLEAR(slots);
    }
    return slots;
}

int shoal__learn_exception(struct shoal_encoder *e, PyTypeObject *type, struct shoal_special_type *entry)
{
    PyTypeObject *base = base_of(type);
    const struct shoal_state_names *names = &e->state->names;
    PyObject *slots = type == base ? PyList_New(0) : names_of_slots(e, type);
    if (!slots)
        return -1;
    const struct {
        PyObject *name;
        unsigned fact;
    } methods[] = {
        {names->init, OWN_INIT},        {names->new_, OWN_NEW},           {names->reduce, OWN_REDUCE},
        {names->reduce_ex, OWN_REDUCE}, {names->setattr, OWN_SETATTR}, {names->setstate, OWN_SETSTATE},
    };
    entry->facts = shoal__exception_family(base);
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++)
        if (_PyType_Lookup(type, methods[i].name) != _PyType_Lookup(base, methods[i].name))
            entry->facts |= methods[i].fact;
    if (has_hidden_state(type, base, PyList_GET_SIZE(slots)))
        entry->facts |= OWN_REDUCE;
    if (PyList_GET_SIZE(slots) > 0)
        entry->facts |= OWN_SLOTS;
    Py_DECREF(slots);
    entry->save = shoal__save_exception;
    return 0;
}

/* ---- what pickle would lose ---- */

/* In the order in which they can be set: setting a cause suppresses the context. */
static int add_links(const struct shoal_state_names *names, PyObject *extras, PyObject *obj)
{
    const PyBaseExceptionObject *error = (PyBaseExceptionObject *)obj;
    bool suppress = error->suppress_context, has_cause = error->cause != NULL;
    if (has_cause && PyDict_SetItem(extras, names->cause, error->cause) < 0)
        return -1;
    if (error->context && PyDict_SetItem(extras, names->context, error->context) < 0)
        return -1;
    return suppress == has_cause ? 0 : PyDict_SetItem(extras, names->suppress_context, suppress ? Py_True : Py_False);
}

static int add_each_slot(PyObject *extras, PyObject *obj, PyObject *slots)
{
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(slots); i++) {
        PyObject *name = Py_NewRef(PyList_GET_ITEM(slots, i));
        PyObject *value = PyObject_GetAttr(obj, name);
        if (!value && PyErr_ExceptionMatches(PyExc_AttributeError))
            PyErr_Clear();
        int result = value ? PyDict_SetItem(extras, name, value) : PyErr_Occurred() ? -1 : 0;
        Py_XDECREF(value);
        Py_DECREF(name);
        if (result < 0)
            return -1;
    }
    return 0;
}

static int add_slots(struct shoal_encoder *e, PyObject *extras, PyObject *obj, unsigned facts)
{
    if (!(facts & OWN_SLOTS))
        return 0;
    PyObject *slots = names_of_slots(e, Py_TYPE(obj));
    int result = slots ? add_each_slot(extras, obj, slots) : -1;
    Py_XDECREF(slots);
    return result;
}

/* The fields that the call which `value` tells of would not set. */
static int add_lost(PyObject *extras, PyObject *obj, unsigned facts, PyObject *value)
{
    enum shoal_exception_family family = facts & FAMILY;
    if (shoal__exception_is_as_called(obj, family))
        return 0;
    PyObject *args = PyTuple_GET_SIZE(value) > 1 ? PyTuple_GET_ITEM(value, 1) : NULL;
    if (!args || !PyTuple_Check(args))
        return 0;
    PyObject *blank = NULL;
    if (family != EXCEPTION_NAME && family != EXCEPTION_ATTRIBUTE &&
        !(blank = PyObject_Call((PyObject *)base_of(Py_TYPE(obj)), args, NULL)))
        return -1;
    int result = shoal__exception_add_fields(extras, obj, family, blank);
    Py_XDECREF(blank);
    return result;
}

static int add_notes(const struct shoal_state_names *names, PyObject *extras, PyObject *obj)
{
    PyObject *dict = ((PyBaseExceptionObject *)obj)->dict;
    PyObject *notes = dict ? PyDict_GetItemWithError(dict, names->notes) : NULL; /* borrowed */
    if (!notes)
        return PyErr_Occurred() ? -1 : 0;
    Py_INCREF(notes);
    int any = PyObject_IsTrue(notes);
    int result = any > 0 ? PyDict_SetItem(extras, names->notes, notes) : any;
    Py_DECREF(notes);
    return result;
}

/* ---- in the form of what __reduce__ says ---- */

/* (callable, arguments, (setter, state, extras), list items, dict items, _fill_exception); `value` is not longer. */
static PyObject *filled(PyObject *value, PyObject *setter, PyObject *state, PyObject *extras)
{
    PyObject *fill = shoal_pickle__import("shoal._rebuild", "_fill_exception");
    if (!fill)
        return NULL;
    PyObject *items[] = {Py_None, Py_None};
    for (Py_ssize_t i = 3; i < 5 && i < PyTuple_GET_SIZE(value); i++)
        items[i - 3] = PyTuple_GET_ITEM(value, i);
    return Py_BuildValue("(OO(OOO)OON)", PyTuple_GET_ITEM(value, 0), PyTuple_GET_ITEM(value, 1), setter, state, extras,
                         items[0], items[1], fill);
}

static PyObject *merged(PyObject *state, PyObject *extras)
{
    PyObject *all = state && state != Py_None ? PyDict_Copy(state) : PyDict_New();
    if (all && PyDict_Update(all, extras) < 0)
        Py_CLEAR(all);
    return all;
}

/* What the exception says of itself, with these attributes set in the end. New reference. */
static PyObject *with_extras(PyObject *value, PyObject *extras, unsigned facts)
{
    Py_ssize_t n = PyTuple_GET_SIZE(value);
    if (PyDict_GET_SIZE(extras) == 0 || n < 2)
        return Py_NewRef(value);
    PyObject *state = n > 2 ? PyTuple_GET_ITEM(value, 2) : Py_None;
    PyObject *setter = n > 5 ? PyTuple_GET_ITEM(value, 5) : Py_None;
    bool is_dict = state == Py_None || PyDict_CheckExact(state);
    if (setter != Py_None || !is_dict || facts & (OWN_SETATTR | OWN_SETSTATE))
        return filled(value, setter, state, extras);
    PyObject *all = merged(state, extras);
    PyObject *result = all ? PyTuple_New(n > 3 ? n : 3) : NULL;
    if (!result) {
        Py_XDECREF(all);
        return NULL;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(result); i++)
        PyTuple_SET_ITEM(result, i, i == 2 ? all : Py_NewRef(PyTuple_GET_ITEM(value, i))); /* steals */
    return result;
}

/* (copyreg.__newobj__, (class, *given)), or base.__new__ instead where the class has one of its own. */
static PyObject *call_of_new(struct shoal_encoder *e, PyObject *obj, unsigned facts, PyObject *given)
{
    Py_ssize_t n = PyTuple_GET_SIZE(given);
    PyObject *arguments = PyTuple_New(n + 1);
    if (!arguments)
        return NULL;
    PyTuple_SET_ITEM(arguments, 0, Py_NewRef(Py_TYPE(obj)));
    for (Py_ssize_t i = 0; i < n; i++)
        PyTuple_SET_ITEM(arguments, i + 1, Py_NewRef(PyTuple_GET_ITEM(given, i)));
    PyObject *make = facts & OWN_NEW ? PyObject_GetAttr((PyObject *)base_of(Py_TYPE(obj)), e->state->names.new_)
                                     : Py_NewRef(e->state->writer.newobj_function);
    return make ? Py_BuildValue("(NN)", make, arguments) : (Py_DECREF(arguments), NULL);
}

/* What __new__ is to get: new reference. */
static PyObject *given_to_new(PyObject *obj, unsigned facts)
{
#if PY_VERSION_HEX >= 0x030B0000
    const PyBaseExceptionGroupObject *group = (PyBaseExceptionGroupObject *)obj;
    if ((facts & FAMILY) == EXCEPTION_GROUP && group->msg && group->excs)
        return PyTuple_Pack(2, group->msg, group->excs);
#endif
    (void)facts;
    return Py_NewRef(((PyBaseExceptionObject *)obj)->args);
}

/* `args` as an attribute, unless __new__ sets it. */
static int add_args(const struct shoal_state_names *names, PyObject *extras, PyObject *obj, unsigned facts,
                    PyObject *given)
{
    PyObject *args = ((PyBaseExceptionObject *)obj)->args;
    bool differ = (facts & FAMILY) == EXCEPTION_OS;
    if (!differ && given != args) {
        int same = PyObject_RichCompareBool(given, args, Py_EQ);
        if (same < 0)
            return -1;
        differ = !same;
    }
    return differ ? PyDict_SetItem(extras, names->exception_args, args) : 0;
}

/* Its own __setattr__ is bypassed; its own __setstate__ gets what pickle would give it. */
static PyObject *with_state(PyObject *obj, PyObject *value, PyObject *extras, unsigned facts)
{
    PyObject *own = ((PyBaseExceptionObject *)obj)->dict;
    PyObject *dict = own && PyDict_GET_SIZE(own) > 0 ? own : Py_None;
    bool more = PyDict_GET_SIZE(extras) > 0;
    if (!more && dict == Py_None)
        return Py_NewRef(value);
    bool bypass = facts & OWN_SETATTR && !(facts & OWN_SETSTATE);
    if (more && facts & OWN_SETSTATE)
        return filled(value, Py_None, dict, extras);
    if (!more && !bypass)
        return PyTuple_Pack(3, PyTuple_GET_ITEM(value, 0), PyTuple_GET_ITEM(value, 1), dict);
    PyObject *all = merged(dict, extras);
    PyObject *result = NULL;
    if (all && bypass)
        result = filled(value, Py_None, Py_None, all);
    else if (all)
        result = PyTuple_Pack(3, PyTuple_GET_ITEM(value, 0), PyTuple_GET_ITEM(value, 1), all);
    Py_XDECREF(all);
    return result;
}

/* Made without its __init__ and its __new__: new reference. */
static PyObject *remade(struct shoal_encoder *e, PyObject *obj, const struct shoal_special_type *kind, PyObject *extras)
{
    const struct shoal_state_names *names = &e->state->names;
    PyObject *given = given_to_new(obj, kind->facts), *result = NULL;
    PyObject *value = given ? call_of_new(e, obj, kind->facts, given) : NULL;
    if (value && add_args(names, extras, obj, kind->facts, given) == 0 &&
        shoal__exception_add_fields(extras, obj, kind->facts & FAMILY, NULL) == 0 &&
        add_slots(e, extras, obj, kind->facts) == 0 && add_links(names, extras, obj) == 0)
        result = with_state(obj, value, extras, kind->facts);
    Py_XDECREF(value);
    Py_XDECREF(given);
    return result;
}

/* What it says of itself, and what that leaves out: new reference. */
static PyObject *completed(struct shoal_encoder *e, PyObject *obj, const struct shoal_special_type *kind,
                           PyObject *extras)
{
    const struct shoal_state_names *names = &e->state->names;
    PyObject *value = shoal__reduce_itself(e, obj);
    if (!value || !PyTuple_Check(value))
        return value;
    int added;
    if (kind->facts & OWN_REDUCE) /* others may add notes, whatever the class tells of itself */
        added = add_notes(names, extras, obj);
    else
        added = add_lost(extras, obj, kind->facts, value) < 0 ? -1 : add_slots(e, extras, obj, kind->facts);
    PyObject *result = NULL;
    if (added == 0 && add_links(names, extras, obj) == 0)
        result = with_extras(value, extras, kind->facts);
    Py_DECREF(value);
    return result;
}

static bool has_links(PyObject *obj)
{
    const PyBaseExceptionObject *error = (PyBaseExceptionObject *)obj;
    return error->cause || error->context || error->suppress_context;
}

static bool has_notes(const struct shoal_state_names *names, PyObject *obj)
{
    PyObject *dict = ((PyBaseExceptionObject *)obj)->dict;
    bool has = dict && PyDict_GetItemWithError(dict, names->notes);
    PyErr_Clear();
    return has;
}

int shoal__save_exception(struct shoal_encoder *e, PyObject *obj, const struct shoal_special_type *kind)
{
    bool is_remade = !(kind->facts & OWN_REDUCE) && kind->facts & (OWN_INIT | OWN_NEW);
    if (!is_remade && !has_links(obj)) {
        if (kind->facts & OWN_REDUCE
                ? !has_notes(&e->state->names, obj)
                : !(kind->facts & OWN_SLOTS) && shoal__exception_is_as_called(obj, kind->facts & FAMILY))
            return 0; /* pickle's own way loses nothing */
    }
    PyObject *extras = PyDict_New();
    PyObject *value = !extras ? NULL : is_remade ? remade(e, obj, kind, extras) : completed(e, obj, kind, extras);
    Py_XDECREF(extras);
    int result = value && shoal__save_any_reduce(e, value, obj) == 0 ? 1 : -1;
    Py_XDECREF(value);
    return result;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * save_namespace.c - the globals of functions that travel by value.
 *
 * Functions of one stream that share a globals dict share one new namespace, which is in the memo under that dict's
 * shadow. Each function adds what it uses, after it is in the memo itself, as its globals may lead back to it:
 *
 *   - the globals that its code and the code nested in it name (code_write.c), as far as they are there now;
 *   - what its string annotations name, so that typing.get_type_hints works;
 *   - if it uses eval, exec or globals: what the constant strings in its code name.
 *
 * Where the reader has a namespace for them (struct shoal_inheritance), that one is filled, but for what it keeps.
 *
 * A package among these, or in its closure, brings those of its submodules along that are loaded here and that the code
 * can reach through attributes, or through constant strings as getattr takes them: the reader imports them as well.
 */
#include "births.h"
#include "dict_items.h"

/* What a function may expect to find in any module's namespace, and its own builtins. */
static int seed_namespace(struct shoal_encoder *e, PyObject *globals)
{
    struct shoal_state_names *names = &e->state->names;
    PyObject *const seeds[] = {names->name, names->package, names->path, names->file, names->builtins};
    struct dict_items items = {.e = e};
    for (size_t i = 0; i < sizeof seeds / sizeof seeds[0]; i++) {
        PyObject *value = PyDict_GetItemWithError(globals, seeds[i]); /* borrowed */
        if (!value && PyErr_Occurred())
            return -1;
        if (!value || value == Py_None)
            continue;
        if (seeds[i] == names->builtins && (value == PyEval_GetBuiltins() || PyModule_Check(value)))
            continue; /* the reader has its own */
        Py_INCREF(value);
        int result = dict_items_add_name(&items, seeds[i], value);
        Py_DECREF(value);
        if (result < 0)
            return -1;
    }
    return dict_items_end(&items);
}

/* ---- globals ---- */

static int save_one_global(struct dict_items *items, PyObject *key, PyObject *value, PyFunctionObject *f)
{
    struct shoal_encoder *e = items->e;
    Py_INCREF(value);
    int result = e->births ? shoal__save_item(e, &items->any, key, value, LATE_GLOBAL, f->func_globals)
                           : dict_items_add(items, key, value);
    Py_DECREF(value);
    if (result < 0)
        shoal__path_step(e, "global", (PyObject *)f, key);
    return result < 0 ? -1 : 0;
}

/* Not by identity alone: a name need not be interned. */
static bool is_same_name(PyObject *key, PyObject *name)
{
    return key == name ||
           (PyUnicode_GET_LENGTH(key) == PyUnicode_GET_LENGTH(name) && PyUnicode_Compare(key, name) == 0);
}

/* Written by seed_namespace, or with the whole module. */
static bool is_seeded(struct shoal_encoder *e, PyObject *key, PyObject *value)
{
    const struct shoal_state_names *names = &e->state->names;
    return value != Py_None && (is_same_name(key, names->name) || is_same_name(key, names->package) ||
                                is_same_name(key, names->path) || is_same_name(key, names->file));
}

/* What is to be written for a global: its value, what stands for it, or NULL (perhaps with an exception). Borrowed. */
static PyObject *value_of_global(struct shoal_encoder *e, PyFunctionObject *f, PyObject *name)
{
    const struct shoal_inheritance *inheritance = e->hooks.inheritance;
    PyObject *stand_in = inheritance && inheritance->stand_in
                             ? inheritance->stand_in(inheritance->context, f->func_globals, name)
                             : NULL;
    if (stand_in)
        return stand_in;
    PyObject *value = PyDict_GetItemWithError(f->func_globals, name);
    if (!value || !inheritance || !inheritance->keeps)
        return value;
    int kept = inheritance->keeps(inheritance->context, (PyObject *)f, name, value);
    /* That may have run user code. */
    return kept != 0 ? NULL : PyDict_GetItemWithError(f->func_globals, name);
}

/* Those of the names that are there now. except: names that were written already, or NULL. */
static int save_globals(struct dict_items *items, PyFunctionObject *f, PyObject *names, PyObject *except)
{
    struct shoal_encoder *e = items->e;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); i++) {
        PyObject *key = PyTuple_GET_ITEM(names, i);
        PyObject *value = value_of_global(e, f, key); /* borrowed */
        if (!value) {
            if (PyErr_Occurred())
                return -1;
            continue; /* a builtin, not there yet, or the reader's own */
        }
        int written = except ? PySequence_Contains(except, key) : is_seeded(e, key, value);
        if (written < 0 || (!written && save_one_global(items, key, value, f) < 0))
            return -1;
    }
    return 0;
}

int shoal__save_late_global(struct shoal_encoder *e, PyObject *globals, PyObject *key, PyObject *value)
{
    int64_t index = shoal_memo_find(&e->memo, (uintptr_t)globals | SHOAL_MEMO_SHADOW);
    if (shoal__get_index(e, index) < 0 || shoal__save_constant(e, key) < 0 || shoal__save(e, value) < 0 ||
        shoal__op(e, OP_SETITEM) < 0)
        return -1;
    return shoal__op(e, OP_POP);
}

/* ---- annotations ---- */

enum { ANNOTATION_DEPTH = 8 };

/* Names in a string, a ForwardRef, or in the arguments of something generic. */
static int names_of_annotation(struct shoal_encoder *e, struct shoal_name_set *names, PyObject *annotation, int depth)
{
    if (PyUnicode_CheckExact(annotation))
        return shoal__name_set_add_text(names, annotation, false);
    if (PyType_CheckExact(annotation) || annotation == Py_None || depth >= ANNOTATION_DEPTH)
        return 0;
    PyObject *found = PyObject_GetAttr(annotation, e->state->names.forward_arg);
    if (!found) {
        PyErr_Clear();
        found = PyObject_GetAttr(annotation, e->state->names.args);
    }
    int result = 0;
    if (found && PyUnicode_CheckExact(found))
        result = shoal__name_set_add_text(names, found, false);
    else if (found && PyTuple_CheckExact(found))
        for (Py_ssize_t i = 0; result == 0 && i < PyTuple_GET_SIZE(found); i++)
            result = names_of_annotation(e, names, PyTuple_GET_ITEM(found, i), depth + 1);
    else
        PyErr_Clear();
    Py_XDECREF(found);
    return result;
}

/* New tuple of what the function's annotations name, or NULL: with an exception, or because there is nothing. */
static PyObject *names_in_annotations(struct shoal_encoder *e, PyFunctionObject *f)
{
    PyObject *annotations = f->func_annotations ? PyFunction_GetAnnotations((PyObject *)f) : NULL; /* borrowed */
    if (!annotations || !PyDict_CheckExact(annotations) || !(annotations = PyDict_Values(annotations)))
        return NULL;
    struct shoal_name_set names;
    shoal__name_set_init(&names);
    int result = 0;
    for (Py_ssize_t i = 0; result == 0 && i < PyList_GET_SIZE(annotations); i++)
        result = names_of_annotation(e, &names, PyList_GET_ITEM(annotations, i), 0);
    Py_DECREF(annotations);
    PyObject *tuple = result == 0 && (names.count || names.many) ? shoal__name_set_tuple(&names) : NULL;
    shoal__name_set_done(&names);
    return tuple;
}

/* ---- submodules ---- */

static bool is_submodule(PyObject *module, PyObject *package_name, PyObject *last_name, PyObject *name_key)
{
    PyObject *full = PyDict_GetItemWithError(PyModule_GetDict(module), name_key); /* borrowed */
    if (!full || !PyUnicode_Check(full))
        return false;
    Py_ssize_t outer = PyUnicode_GET_LENGTH(package_name), inner = PyUnicode_GET_LENGTH(last_name);
    return PyUnicode_GET_LENGTH(full) == outer + 1 + inner && PyUnicode_READ_CHAR(full, outer) == '.' &&
           PyUnicode_Tailmatch(full, package_name, 0, outer, -1) == 1 &&
           PyUnicode_Tailmatch(full, last_name, outer + 1, outer + 1 + inner, 1) == 1 &&
           PyDict_GetItemWithError(PyImport_GetModuleDict(), full) == module;
}

/* Loaded modules below `module` that names lead to. */
static int save_submodules(struct shoal_encoder *e, PyObject *module, PyObject *names)
{
    PyObject *dict = PyModule_GetDict(module); /* borrowed */
    PyObject *own = PyDict_GetItemWithError(dict, e->state->names.name);
    if (!own || !PyUnicode_Check(own) || !PyDict_GetItemWithError(dict, e->state->names.path))
        return PyErr_Occurred() ? -1 : 0; /* no package */
    Py_INCREF(own);
    int result = 0;
    for (Py_ssize_t i = 0; result == 0 && i < PyTuple_GET_SIZE(names); i++) {
        PyObject *found = PyDict_GetItemWithError(dict, PyTuple_GET_ITEM(names, i)); /* borrowed */
        if (!found || !PyModule_Check(found) || found == module ||
            !is_submodule(found, own, PyTuple_GET_ITEM(names, i), e->state->names.name))
            continue;
        Py_INCREF(found);
        if (shoal__find(e, found) < 0)
            result = shoal__save(e, found) < 0 ? -1 : shoal__op(e, OP_POP);
        if (result == 0)
            result = Py_EnterRecursiveCall(" while naming submodules");
        if (result == 0) {
            result = save_submodules(e, found, names);
            Py_LeaveRecursiveCall();
        }
        Py_DECREF(found);
    }
    Py_DECREF(own);
    return result < 0 || PyErr_Occurred() ? -1 : 0;
}

/* `module` may be anything that the function uses, or NULL. */
static int save_reachable(struct shoal_encoder *e, PyObject *module, PyObject *code, struct shoal_code_facts *facts)
{
    if (!module || !PyModule_Check(module))
        return 0;
    PyObject *names = shoal__code_names(code, facts); /* borrowed */
    if (!names)
        return -1;
    Py_INCREF(module);
    int result = save_submodules(e, module, names);
    Py_DECREF(module);
    return result;
}

static int save_all_reachable(struct shoal_encoder *e, PyFunctionObject *f, PyObject *code,
                              struct shoal_code_facts *facts)
{
    PyObject *globals = f->func_globals, *closure = f->func_closure;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(facts->globals); i++) {
        PyObject *value = PyDict_GetItemWithError(globals, PyTuple_GET_ITEM(facts->globals, i)); /* borrowed */
        if (save_reachable(e, value, code, facts) < 0)
            return -1;
    }
    for (Py_ssize_t i = 0; closure && i < PyTuple_GET_SIZE(closure); i++)
        if (save_reachable(e, PyCell_GET(PyTuple_GET_ITEM(closure, i)), code, facts) < 0)
            return -1;
    return PyErr_Occurred() ? -1 : 0;
}

/* ---- the two steps ---- */

int shoal__save_namespace_of(struct shoal_encoder *e, PyObject *globals, bool seeded)
{
    uintptr_t key = (uintptr_t)globals | SHOAL_MEMO_SHADOW;
    int64_t index = shoal_memo_find(&e->memo, key);
    if (index >= 0)
        return shoal__get_index(e, index);
    const struct shoal_inheritance *inheritance = e->hooks.inheritance;
    bool numbered = seeded && inheritance && inheritance->space;
    int64_t number = numbered ? inheritance->space(inheritance->context, globals) : -1;
    if (number >= 0)
        return shoal__save_small(e, (long)number) < 0 || shoal__op(e, OP_BINPERSID) < 0 ? -1 : shoal__put_key(e, key);
    if (shoal__empty_dict(e) < 0 || shoal__put_key(e, key) < 0)
        return -1;
    return seeded ? seed_namespace(e, globals) : 0;
}

int shoal__save_namespace(struct shoal_encoder *e, PyFunctionObject *f, struct shoal_code_facts *facts)
{
    if (!e->fast)
        return shoal__save_namespace_of(e, f->func_globals, true);
    struct dict_items items = {.e = e};
    if (shoal__empty_dict(e) < 0 || seed_namespace(e, f->func_globals) < 0 ||
        save_globals(&items, f, facts->globals, NULL) < 0)
        return -1;
    return dict_items_end(&items);
}

static bool has_any(struct shoal_encoder *e, PyObject *globals, PyObject *names)
{
    const struct shoal_inheritance *inheritance = e->hooks.inheritance;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); i++)
        if (PyDict_Contains(globals, PyTuple_GET_ITEM(names, i)) == 1 ||
            (inheritance && inheritance->stand_in &&
             inheritance->stand_in(inheritance->context, globals, PyTuple_GET_ITEM(names, i))))
            return true;
    PyErr_Clear();
    return false;
}

static int fill(struct shoal_encoder *e, PyFunctionObject *f, PyObject *names, PyObject *except)
{
    if (!has_any(e, f->func_globals, names))
        return 0;
    struct dict_items items = {.e = e};
    int64_t index = shoal_memo_find(&e->memo, (uintptr_t)f->func_globals | SHOAL_MEMO_SHADOW);
    if (shoal__get_index(e, index) < 0 || save_globals(&items, f, names, except) < 0 || dict_items_end(&items) < 0)
        return -1;
    return shoal__op(e, OP_POP);
}

int shoal__fill_namespace(struct shoal_encoder *e, PyFunctionObject *f, PyObject *code, struct shoal_code_facts *facts)
{
    if (e->fast)
        return 0;
    if (fill(e, f, facts->globals, NULL) < 0)
        return -1;
    PyObject *annotated = f->func_annotations ? names_in_annotations(e, f) : NULL;
    int result = annotated ? fill(e, f, annotated, facts->globals) : PyErr_Occurred() ? -1 : 0;
    Py_XDECREF(annotated);
    return result < 0 ? -1 : save_all_reachable(e, f, code, facts);
}

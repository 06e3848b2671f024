/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * save_function.c - functions: by reference where they can be imported, otherwise by value.
 *
 * A function by value is written in two steps, because it may refer to itself in any of its parts:
 *
 *   shoal._rebuild._function(code, globals, cells)      and from here on it is in the memo
 *   globals[...] = ..., cells filled, attributes set
 *
 * `globals` is a namespace of its own. Functions of one stream that share a globals dict share one such namespace, so
 * its first mention makes a dict, which the memo keeps under the real dict's shadow; each function adds the globals
 * that it uses. Cells go into the memo by their identity: closures that share a cell share it after loading. Attributes
 * are written only where they differ from what the code object and the namespace imply: the usual lambda has none.
 * All this is plain pickle: SETITEMS, REDUCE and BUILD.
 *
 * In fast mode there is no memo: everything is written into the first step, and cycles have no end, as pickle says.
 */
#include "births.h"

/* ---- dict items, of any protocol, for the dict on top of the stack ---- */

struct items {
    struct shoal_encoder *e;
    bool any;
};

/* To be called before each key. */
static int items_next(struct items *items)
{
    struct shoal_encoder *e = items->e;
    int result = 0;
    if (e->binary && !items->any)
        result = shoal__op(e, OP_MARK);
    items->any = true;
    return result;
}

static int items_key(struct items *items, PyObject *key)
{
    return items_next(items) < 0 ? -1 : shoal__save_constant(items->e, key);
}

static int items_value_done(struct items *items)
{
    return items->e->binary ? 0 : shoal__op(items->e, OP_SETITEM);
}

static int items_end(struct items *items)
{
    return items->e->binary && items->any ? shoal__op(items->e, OP_SETITEMS) : 0;
}

static int items_add(struct items *items, PyObject *key, PyObject *value)
{
    if (items_key(items, key) < 0 || shoal__save(items->e, value) < 0)
        return -1;
    return items_value_done(items);
}

/* ---- globals ---- */

/* What a function may expect to find in any module's namespace. */
static int seed_namespace(struct shoal_encoder *e, PyObject *globals)
{
    struct shoal_state_names *names = &e->state->names;
    PyObject *const seeds[] = {names->name, names->package, names->path, names->file};
    struct items items = {.e = e};
    for (size_t i = 0; i < sizeof seeds / sizeof seeds[0]; i++) {
        PyObject *value = PyDict_GetItemWithError(globals, seeds[i]); /* borrowed */
        if (!value && PyErr_Occurred())
            return -1;
        if (!value || value == Py_None)
            continue;
        Py_INCREF(value);
        if (PyUnicode_CheckExact(value)) /* of equal strings, which one it is depends on who imported the module */
            PyUnicode_InternInPlace(&value);
        int result = items_add(&items, seeds[i], value);
        Py_DECREF(value);
        if (result < 0)
            return -1;
    }
    return items_end(&items);
}

/* Modules that `module` is a package of and that the code may reach through it: they must be imported as well. */
static int save_submodules(struct shoal_encoder *e, PyObject *module, PyObject *names)
{
    PyObject *dict = PyModule_GetDict(module); /* borrowed */
    if (!PyDict_GetItemWithError(dict, e->state->names.path))
        return PyErr_Occurred() ? -1 : 0; /* no package */
    PyObject *own = PyModule_GetNameObject(module);
    if (!own) {
        PyErr_Clear();
        return 0;
    }
    int result = 0;
    for (Py_ssize_t i = 0; result == 0 && i < PyTuple_GET_SIZE(names); i++) {
        PyObject *full = PyUnicode_FromFormat("%U.%U", own, PyTuple_GET_ITEM(names, i));
        PyObject *found = full ? PyImport_GetModule(full) : NULL;
        Py_XDECREF(full);
        if (!found) {
            result = PyErr_Occurred() ? -1 : 0;
            continue;
        }
        if (PyModule_Check(found) && found != module) {
            if (shoal__find(e, found) < 0)
                result = shoal__save(e, found) < 0 ? -1 : shoal__op(e, OP_POP);
            if (result == 0)
                result = Py_EnterRecursiveCall(" while naming submodules");
            if (result == 0) {
                result = save_submodules(e, found, names);
                Py_LeaveRecursiveCall();
            }
        }
        Py_DECREF(found);
    }
    Py_DECREF(own);
    return result;
}

static int save_one_global(struct items *items, PyObject *key, PyObject *value, PyObject *function)
{
    struct shoal_encoder *e = items->e;
    int result = e->births ? shoal__save_item(e, &items->any, key, value, LATE_GLOBAL,
                                              ((PyFunctionObject *)function)->func_globals)
                           : items_add(items, key, value);
    if (result < 0) {
        shoal__path_step(e, "global", function, key);
        return -1;
    }
    return 0;
}

/* The globals that the function uses, as items of the namespace on top of the stack. */
static int save_globals(struct shoal_encoder *e, PyObject *function, PyObject *globals, PyObject *names)
{
    struct items items = {.e = e};
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); i++) {
        PyObject *key = PyTuple_GET_ITEM(names, i);
        PyObject *value = PyDict_GetItemWithError(globals, key); /* borrowed */
        if (!value) {
            if (PyErr_Occurred())
                return -1;
            continue; /* a builtin, or not there yet */
        }
        Py_INCREF(value);
        int result = save_one_global(&items, key, value, function);
        Py_DECREF(value);
        if (result < 0)
            return -1;
    }
    return items_end(&items);
}

int shoal__save_late_global(struct shoal_encoder *e, PyObject *globals, PyObject *key, PyObject *value)
{
    int64_t index = shoal_memo_find(&e->memo, (uintptr_t)globals | SHOAL_MEMO_SHADOW);
    if (shoal__get_index(e, index) < 0 || shoal__save_constant(e, key) < 0 || shoal__save(e, value) < 0 ||
        shoal__op(e, OP_SETITEM) < 0)
        return -1;
    return shoal__op(e, OP_POP);
}

static int save_globals_submodules(struct shoal_encoder *e, PyObject *globals, PyObject *code,
                                   struct shoal_code_facts *facts)
{
    PyObject *names = facts->globals;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); i++) {
        PyObject *value = PyDict_GetItemWithError(globals, PyTuple_GET_ITEM(names, i)); /* borrowed */
        if (!value || !PyModule_Check(value))
            continue;
        PyObject *reachable = shoal__code_names(code, facts);
        if (!reachable)
            return -1;
        Py_INCREF(value);
        int result = save_submodules(e, value, reachable);
        Py_DECREF(value);
        if (result < 0)
            return -1;
    }
    return PyErr_Occurred() ? -1 : 0;
}

static bool has_any(PyObject *globals, PyObject *names)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); i++)
        if (PyDict_Contains(globals, PyTuple_GET_ITEM(names, i)) == 1)
            return true;
    PyErr_Clear();
    return false;
}

/* First step: the namespace as an object. */
static int save_namespace(struct shoal_encoder *e, PyObject *function, PyObject *globals, PyObject *names)
{
    uintptr_t key = (uintptr_t)globals | SHOAL_MEMO_SHADOW;
    int64_t index = shoal_memo_find(&e->memo, key);
    if (index >= 0)
        return shoal__get_index(e, index);
    if (shoal__empty_dict(e) < 0)
        return -1;
    if (!e->fast && shoal__put_key(e, key) < 0)
        return -1;
    if (seed_namespace(e, globals) < 0)
        return -1;
    return e->fast ? save_globals(e, function, globals, names) : 0;
}

/* Second step: what this function uses. */
static int fill_namespace(struct shoal_encoder *e, PyObject *function, PyObject *globals, PyObject *code,
                          struct shoal_code_facts *facts)
{
    PyObject *names = facts->globals;
    if (e->fast || !has_any(globals, names))
        return 0;
    int64_t index = shoal_memo_find(&e->memo, (uintptr_t)globals | SHOAL_MEMO_SHADOW);
    if (shoal__get_index(e, index) < 0 || save_globals(e, function, globals, names) < 0 || shoal__op(e, OP_POP) < 0)
        return -1;
    return save_globals_submodules(e, globals, code, facts);
}

/* ---- attributes ---- */

static bool same_text(PyObject *a, PyObject *b)
{
    if (a == b)
        return true;
    return a && b && PyUnicode_Check(a) && PyUnicode_Check(b) && PyUnicode_Compare(a, b) == 0;
}

/* The docstring that a new function takes from its code. Borrowed. */
static PyObject *implied_doc(PyCodeObject *code)
{
    if (PyTuple_GET_SIZE(code->co_consts) == 0 || !PyUnicode_Check(PyTuple_GET_ITEM(code->co_consts, 0)))
        return Py_None;
    return PyTuple_GET_ITEM(code->co_consts, 0);
}

static PyObject *implied_qualname(PyCodeObject *code)
{
#if PY_VERSION_HEX >= 0x030B0000
    return code->co_qualname;
#else
    return code->co_name;
#endif
}

static bool is_filled(PyObject *obj)
{
    if (!obj || obj == Py_None)
        return false;
    return !PyDict_CheckExact(obj) || PyDict_GET_SIZE(obj) > 0;
}

struct attribute {
    PyObject *name;
    PyObject *value; /* borrowed from the function, which our caller holds */
};

enum { ATTRIBUTES_MAX = 8 };

/* What must be said of the function. The number of entries. */
static int list_attributes(struct shoal_encoder *e, PyFunctionObject *f, struct attribute *out)
{
    struct shoal_state_names *names = &e->state->names;
    PyCodeObject *code = (PyCodeObject *)f->func_code;
    PyObject *module = f->func_module ? f->func_module : Py_None;
    PyObject *implied_module = PyDict_GetItemWithError(f->func_globals, names->name); /* borrowed */
    PyErr_Clear();
    int n = 0;
    if (!same_text(f->func_name, code->co_name))
        out[n++] = (struct attribute){names->name, f->func_name};
    if (!same_text(f->func_qualname, implied_qualname(code)))
        out[n++] = (struct attribute){names->qualname, f->func_qualname};
    if (!same_text(module, implied_module ? implied_module : Py_None))
        out[n++] = (struct attribute){names->module, module};
    if (!same_text(f->func_doc, implied_doc(code)))
        out[n++] = (struct attribute){names->doc, f->func_doc ? f->func_doc : Py_None};
    if (is_filled(f->func_defaults))
        out[n++] = (struct attribute){names->defaults, f->func_defaults};
    if (is_filled(f->func_kwdefaults))
        out[n++] = (struct attribute){names->kwdefaults, f->func_kwdefaults};
    PyObject *annotations = f->func_annotations ? PyFunction_GetAnnotations((PyObject *)f) : NULL; /* borrowed */
    if (is_filled(annotations))
        out[n++] = (struct attribute){names->annotations, annotations};
#if PY_VERSION_HEX >= 0x030C0000
    if (f->func_typeparams && PyTuple_Check(f->func_typeparams) && PyTuple_GET_SIZE(f->func_typeparams) > 0)
        out[n++] = (struct attribute){names->type_params, f->func_typeparams};
#endif
    return n;
}

static int save_attributes(struct shoal_encoder *e, PyFunctionObject *f, const struct attribute *attributes, int n)
{
    struct items items = {.e = e};
    if (shoal__empty_dict(e) < 0)
        return -1;
    for (int i = 0; i < n; i++) {
        if (items_add(&items, attributes[i].name, attributes[i].value) < 0) {
            shoal__path_step(e, "function", (PyObject *)f, attributes[i].name);
            return -1;
        }
    }
    return items_end(&items);
}

/* BUILD with (its __dict__ or None, {attribute: value}). */
static int save_state_now(struct shoal_encoder *e, PyFunctionObject *f)
{
    struct attribute attributes[ATTRIBUTES_MAX];
    int n = list_attributes(e, f, attributes);
    bool has_dict = is_filled(f->func_dict);
    if (n == 0 && !has_dict)
        return PyErr_Occurred() ? -1 : 0;
    for (int i = 0; i < n; i++)
        Py_INCREF(attributes[i].value);
    PyObject *dict = Py_NewRef(has_dict ? f->func_dict : Py_None);
    int result = -1;
    if (shoal__begin_tuple(e, 2) == 0) {
        result = shoal__save(e, dict);
        if (result < 0)
            shoal__path_step(e, "state", (PyObject *)f, NULL);
        else
            result = save_attributes(e, f, attributes, n);
    }
    Py_DECREF(dict);
    for (int i = 0; i < n; i++)
        Py_DECREF(attributes[i].value);
    if (result < 0 || shoal__end_tuple(e, 2) < 0)
        return -1;
    return shoal__op(e, OP_BUILD);
}

static int save_function_state(struct shoal_encoder *e, PyFunctionObject *f)
{
    if (!e->births)
        return save_state_now(e, f);
    struct shoal_point point;
    shoal__point_take(e, &point);
    if (save_state_now(e, f) == 0)
        return 0;
    if (shoal__point_return(e, &point) < 0)
        return -1;
    return shoal__put_off(e, e->blocked, LATE_FUNCTION, (PyObject *)f, NULL, NULL);
}

int shoal__save_late_function(struct shoal_encoder *e, PyObject *function)
{
    if (shoal__get_index(e, shoal__find(e, function)) < 0 || save_state_now(e, (PyFunctionObject *)function) < 0)
        return -1;
    return shoal__op(e, OP_POP);
}

/* ---- code ---- */

/* Equal code is one object where it is loaded, so it has to be one object in the stream. */
static int save_code_bytes(struct shoal_encoder *e, PyObject *bytes)
{
    if (e->first_code && shoal__find(e, e->first_code) < 0) { /* that was another stream */
        Py_CLEAR(e->first_code);
        Py_CLEAR(e->codes);
    }
    if (!e->first_code) {
        e->first_code = Py_NewRef(bytes);
        return shoal__save(e, bytes);
    }
    if (bytes == e->first_code)
        return shoal__save(e, bytes);
    if (!e->codes && (!(e->codes = PyDict_New()) || PyDict_SetItem(e->codes, e->first_code, e->first_code) < 0))
        return -1;
    PyObject *same = PyDict_SetDefault(e->codes, bytes, bytes); /* borrowed */
    return same ? shoal__save(e, same) : -1;
}

/* _code(bytes, odd constants), in the memo as the code object. */
static int save_odd_code(struct shoal_encoder *e, PyObject *code, struct shoal_code_facts *facts)
{
    int64_t index = shoal__find(e, code);
    if (index >= 0)
        return shoal__get_index(e, index);
    if (shoal__save_rebuilder(e, REBUILD_CODE) < 0 || shoal__begin_tuple(e, 2) < 0 ||
        save_code_bytes(e, facts->bytes) < 0 || shoal__save(e, facts->odd) < 0 || shoal__end_tuple(e, 2) < 0 ||
        shoal__op(e, OP_REDUCE) < 0)
        return -1;
    return shoal__put(e, code);
}

int shoal__save_code(struct shoal_encoder *e, PyObject *code)
{
    struct shoal_code_facts *facts = shoal__code_facts(e->state, code);
    if (!facts)
        return -1;
    if (facts->odd)
        return save_odd_code(e, code, facts);
    if (shoal__save_rebuilder(e, REBUILD_CODE) < 0 || shoal__begin_tuple(e, 1) < 0 ||
        save_code_bytes(e, facts->bytes) < 0 || shoal__end_tuple(e, 1) < 0 || shoal__op(e, OP_REDUCE) < 0)
        return -1;
    return shoal__put(e, code);
}

/* ---- the whole ---- */

static int save_by_value(struct shoal_encoder *e, PyFunctionObject *f, PyObject *code)
{
    struct shoal_code_facts *facts = shoal__code_facts(e->state, code);
    PyObject *globals = f->func_globals, *closure = f->func_closure;
    int n = closure ? 3 : 2;
    if (!facts || shoal__save_rebuilder(e, REBUILD_FUNCTION) < 0 || shoal__begin_tuple(e, n) < 0 ||
        (facts->odd ? save_odd_code(e, code, facts) : save_code_bytes(e, facts->bytes)) < 0 ||
        save_namespace(e, (PyObject *)f, globals, facts->globals) < 0)
        return -1;
    int64_t first = (int64_t)e->memo.count;
    if (closure && shoal__save_closure(e, f) < 0)
        return -1;
    int64_t end = (int64_t)e->memo.count;
    if (shoal__end_tuple(e, n) < 0 || shoal__op(e, OP_REDUCE) < 0 || shoal__put(e, (PyObject *)f) < 0)
        return -1;
    if (shoal__fill_closure(e, f, first, end) < 0 || fill_namespace(e, (PyObject *)f, globals, code, facts) < 0)
        return -1;
    return save_function_state(e, f);
}

int shoal__save_function(struct shoal_encoder *e, PyObject *obj)
{
    int importable = shoal__is_importable(e, obj);
    if (importable != 0)
        return importable < 0 ? -1 : shoal__save_global(e, obj, NULL);
    PyObject *code = Py_NewRef(((PyFunctionObject *)obj)->func_code); /* user code may give it another meanwhile */
    int result = code == e->state->writer.single_dispatch_code ? shoal__save_single_dispatch(e, obj)
                                                               : save_by_value(e, (PyFunctionObject *)obj, code);
    Py_DECREF(code);
    return result;
}

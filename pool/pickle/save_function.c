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
#include "dict_items.h"

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
    bool is_name;
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
        out[n++] = (struct attribute){names->name, f->func_name, true};
    if (!same_text(f->func_qualname, implied_qualname(code)))
        out[n++] = (struct attribute){names->qualname, f->func_qualname, true};
    if (!same_text(module, implied_module ? implied_module : Py_None))
        out[n++] = (struct attribute){names->module, module, true};
    if (!same_text(f->func_doc, implied_doc(code)))
        out[n++] = (struct attribute){names->doc, f->func_doc ? f->func_doc : Py_None, false};
    if (is_filled(f->func_defaults))
        out[n++] = (struct attribute){names->defaults, f->func_defaults, false};
    if (is_filled(f->func_kwdefaults))
        out[n++] = (struct attribute){names->kwdefaults, f->func_kwdefaults, false};
    PyObject *annotations = f->func_annotations ? PyFunction_GetAnnotations((PyObject *)f) : NULL; /* borrowed */
    if (is_filled(annotations))
        out[n++] = (struct attribute){names->annotations, annotations, false};
#if PY_VERSION_HEX >= 0x030C0000
    if (f->func_typeparams && PyTuple_Check(f->func_typeparams) && PyTuple_GET_SIZE(f->func_typeparams) > 0)
        out[n++] = (struct attribute){names->type_params, f->func_typeparams, false};
#endif
    return n;
}

static int save_attributes(struct shoal_encoder *e, PyFunctionObject *f, const struct attribute *attributes, int n)
{
    struct dict_items items = {.e = e};
    if (shoal__empty_dict(e) < 0)
        return -1;
    for (int i = 0; i < n; i++) {
        const struct attribute *a = &attributes[i];
        if ((a->is_name ? dict_items_add_name : dict_items_add)(&items, a->name, a->value) < 0) {
            shoal__path_step(e, "function", (PyObject *)f, a->name);
            return -1;
        }
    }
    return dict_items_end(&items);
}

/* What somebody has set on it. */
static int save_own_dict(struct shoal_encoder *e, PyObject *f, PyObject *dict)
{
    PyObject *copy = PyDict_Copy(dict), *key, *value;
    struct dict_items items = {.e = e};
    Py_ssize_t position = 0;
    int result = copy ? shoal__empty_dict(e) : -1;
    while (result == 0 && PyDict_Next(copy, &position, &key, &value)) { /* our own dict: nobody changes it */
        result = dict_items_add(&items, key, value);
        if (result < 0) {
            shoal__path_step(e, "value", NULL, key);
            shoal__path_step(e, "state", f, NULL);
        }
    }
    Py_XDECREF(copy);
    return result < 0 ? -1 : dict_items_end(&items);
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
        result = has_dict ? save_own_dict(e, (PyObject *)f, dict) : shoal__save_none(e);
        if (result == 0)
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

static bool was_written(struct shoal_encoder *e, PyObject *bytes)
{
    return e->first_code && shoal__find(e, e->codes ? PyDict_GetItemWithError(e->codes, bytes) : bytes) >= 0;
}

/* The function of this stream that this is the code of: borrowed, or NULL. Looked for only where there is one. */
static PyObject *function_with(struct shoal_encoder *e, PyObject *code)
{
    for (size_t i = e->memo.count; i-- > 0;) {
        PyObject *met = (PyObject *)(e->memo.keys[i] & ~SHOAL_MEMO_SHADOW);
        if (!(e->memo.keys[i] & SHOAL_MEMO_SHADOW) && PyFunction_Check(met) && PyFunction_GET_CODE(met) == code)
            return met;
    }
    return NULL;
}

/* Code on its own, which is rare: one object with that of the function, whichever comes first. */
int shoal__save_code(struct shoal_encoder *e, PyObject *code)
{
    struct shoal_code_facts *facts = shoal__code_facts(e->state, code);
    if (!facts)
        return -1;
    PyObject *function = was_written(e, facts->bytes) ? function_with(e, code) : NULL;
    if (function) {
        PyObject *value = Py_BuildValue("(O(Os))", e->state->shared.getattr, function, "__code__");
        int result = value ? shoal__save_reduced(e, value, code) : -1;
        Py_XDECREF(value);
        return result;
    }
    if (facts->odd)
        return save_odd_code(e, code, facts);
    if (shoal__save_rebuilder(e, REBUILD_CODE) < 0 || shoal__begin_tuple(e, 1) < 0 ||
        save_code_bytes(e, facts->bytes) < 0 || shoal__end_tuple(e, 1) < 0 || shoal__op(e, OP_REDUCE) < 0)
        return -1;
    return shoal__put(e, code);
}

/* ---- the whole ---- */

/* What `_function` makes it of: the bytes, or the code where that is an object of this stream. */
static int save_function_code(struct shoal_encoder *e, PyObject *code, struct shoal_code_facts *facts)
{
    if (facts->odd)
        return save_odd_code(e, code, facts);
    int64_t index = shoal__find(e, code);
    return index >= 0 ? shoal__get_index(e, index) : save_code_bytes(e, facts->bytes);
}

static int save_by_value(struct shoal_encoder *e, PyFunctionObject *f, PyObject *code)
{
    struct shoal_code_facts *facts = shoal__code_facts(e->state, code);
    PyObject *closure = f->func_closure;
    int n = closure ? 3 : 2;
    if (!facts || shoal__save_rebuilder(e, REBUILD_FUNCTION) < 0 || shoal__begin_tuple(e, n) < 0 ||
        save_function_code(e, code, facts) < 0 || shoal__save_namespace(e, f, facts) < 0)
        return -1;
    int64_t first = (int64_t)e->memo.count;
    if (closure && shoal__save_closure(e, f) < 0)
        return -1;
    int64_t end = (int64_t)e->memo.count;
    if (shoal__end_tuple(e, n) < 0 || shoal__op(e, OP_REDUCE) < 0 || shoal__put(e, (PyObject *)f) < 0)
        return -1;
    if (shoal__fill_closure(e, f, first, end) < 0 || shoal__fill_namespace(e, f, code, facts) < 0)
        return -1;
    return save_function_state(e, f);
}

int shoal__save_function(struct shoal_encoder *e, PyObject *obj)
{
    int written = shoal__save_if_importable(e, obj);
    if (written != 0)
        return written < 0 ? -1 : 0;
    PyObject *code = Py_NewRef(((PyFunctionObject *)obj)->func_code); /* user code may give it another meanwhile */
    e->by_value++;
    int result = code == e->state->writer.single_dispatch_code ? shoal__save_single_dispatch(e, obj)
                                                               : save_by_value(e, (PyFunctionObject *)obj, code);
    e->by_value--;
    Py_DECREF(code);
    return result;
}

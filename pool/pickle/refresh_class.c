/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * refresh_class.c - the surroundings of a class's methods, when a class that is here already is received again.
 *
 * The problem: a class that has not changed is left as it is. But what its methods see around them, the globals that
 * they use and the cells of their closures, came with the stream, too, and may have become different here: a method has
 * counted up a global, say. Functions that travel alone find what the source has, each time; methods must, too.
 *
 * So what the new methods see is compared with what those of the class see. Equal: nothing is touched, which is the
 * rule. Different: the class gets the new methods, all of them, so that they still share one namespace. A method that
 * was replaced here (its code is another) stays.
 *
 * Equal is what is known to be: the same object, equal atoms, containers of equal parts, functions of the same code
 * and equal surroundings; up to so many steps. Anything else counts as different: then methods change their identity,
 * which does no harm, while a stale value would. What the stream gives to a method only after the class itself, since
 * it leads back to the class, is not compared.
 */
#include "class_record.h"

enum { STEPS_MAX = 500 };

struct comparison {
    int steps;                  /* left */
    PyObject *old_globals;      /* under comparison just now: borrowed, compared only */
    PyObject *new_globals;
};

static int compare(struct comparison *c, PyObject *old, PyObject *new);

static bool is_atom(PyObject *obj)
{
    return PyLong_CheckExact(obj) || PyUnicode_CheckExact(obj) || PyFloat_CheckExact(obj) || PyBytes_CheckExact(obj) ||
           PyComplex_CheckExact(obj);
}

/* Its hash runs no code, and it is equal to what it was as a member or key there. */
static bool is_simple_key(PyObject *obj)
{
    return is_atom(obj) || obj == Py_None || PyBool_Check(obj);
}

/* Each compares two of the same type: 1 equal, 0 different or not known, -1. */

static int compare_tuples(struct comparison *c, PyObject *old, PyObject *new)
{
    Py_ssize_t n = PyTuple_GET_SIZE(old);
    int equal = n == PyTuple_GET_SIZE(new);
    for (Py_ssize_t i = 0; equal == 1 && i < n; i++)
        equal = compare(c, PyTuple_GET_ITEM(old, i), PyTuple_GET_ITEM(new, i));
    return equal;
}

static int compare_lists(struct comparison *c, PyObject *old, PyObject *new)
{
    PyObject *olds = PyList_AsTuple(old), *news = PyList_AsTuple(new);
    int equal = olds && news ? compare_tuples(c, olds, news) : -1;
    Py_XDECREF(olds);
    Py_XDECREF(news);
    return equal;
}

/* Are all items of `new` in `old`? */
static int compare_items(struct comparison *c, PyObject *old, PyObject *new)
{
    PyObject *key, *value;
    Py_ssize_t position = 0;
    int equal = 1;
    while (equal == 1 && PyDict_Next(new, &position, &key, &value)) {
        if (!is_simple_key(key))
            return 0;
        PyObject *other = PyDict_GetItemWithError(old, key); /* borrowed; comparing atoms runs no code */
        equal = other ? compare(c, other, value) : PyErr_Occurred() ? -1 : 0;
    }
    return equal;
}

/* Of sets of atoms: an empty one is in each dataclass's __repr__, which keeps there what is under way. */
static int compare_sets(PyObject *old, PyObject *new)
{
    PyObject *members = PySequence_Tuple(new);
    int equal = !members ? -1 : PySet_GET_SIZE(old) == PyTuple_GET_SIZE(members);
    for (Py_ssize_t i = 0; equal == 1 && i < PyTuple_GET_SIZE(members); i++) {
        PyObject *member = PyTuple_GET_ITEM(members, i);
        equal = is_simple_key(member) ? PySet_Contains(old, member) : 0;
    }
    Py_XDECREF(members);
    return equal;
}

static int compare_cells(struct comparison *c, PyObject *old, PyObject *new)
{
    PyObject *now = PyCell_GET(old), *then = PyCell_GET(new);
    return now && then ? compare(c, now, then) : 1; /* what is not there yet comes later */
}

static int compare_codes(PyObject *old, PyObject *new)
{
    return old == new ? 1 : PyObject_RichCompareBool(old, new, Py_EQ);
}

static int compare_globals(struct comparison *c, PyObject *old, PyObject *new)
{
    if (old == new || (old == c->old_globals && new == c->new_globals))
        return 1;
    PyObject *outer_old = c->old_globals, *outer_new = c->new_globals;
    c->old_globals = old;
    c->new_globals = new;
    PyObject *copy = PyDict_Copy(new);
    int equal = copy ? 1 : -1;
    if (equal == 1 && PyDict_GetItemString(copy, "__builtins__"))
        equal = PyDict_DelItemString(copy, "__builtins__");
    equal = equal < 0 ? -1 : compare_items(c, old, copy);
    Py_XDECREF(copy);
    c->old_globals = outer_old;
    c->new_globals = outer_new;
    return equal;
}

static int compare_functions(struct comparison *c, PyObject *old, PyObject *new)
{
    PyFunctionObject *now = (PyFunctionObject *)old, *then = (PyFunctionObject *)new;
    int equal = compare_codes(now->func_code, then->func_code);
    if (equal == 1)
        equal = compare_globals(c, now->func_globals, then->func_globals);
    if (equal == 1 && now->func_closure && then->func_closure)
        equal = compare(c, now->func_closure, then->func_closure);
    return equal;
}

static int compare_wrapped(struct comparison *c, PyObject *old, PyObject *new)
{
    PyObject *now = PyObject_GetAttrString(old, "__func__");
    PyObject *then = now ? PyObject_GetAttrString(new, "__func__") : NULL;
    int equal = then ? compare(c, now, then) : -1;
    Py_XDECREF(now);
    Py_XDECREF(then);
    return equal;
}

static int compare_properties(struct comparison *c, PyObject *old, PyObject *new)
{
    static const char *const parts[] = {"fget", "fset", "fdel"};
    int equal = 1;
    for (int i = 0; equal == 1 && i < 3; i++) {
        PyObject *now = PyObject_GetAttrString(old, parts[i]);
        PyObject *then = now ? PyObject_GetAttrString(new, parts[i]) : NULL;
        equal = then ? compare(c, now, then) : -1;
        Py_XDECREF(now);
        Py_XDECREF(then);
    }
    return equal;
}

static int compare_same_type(struct comparison *c, PyObject *old, PyObject *new)
{
    PyTypeObject *type = Py_TYPE(old);
    if (is_atom(old))
        return PyObject_RichCompareBool(old, new, Py_EQ);
    if (type == &PyFunction_Type)
        return compare_functions(c, old, new);
    if (type == &PyTuple_Type)
        return compare_tuples(c, old, new);
    if (type == &PyList_Type)
        return compare_lists(c, old, new);
    if (type == &PyDict_Type)
        return PyDict_GET_SIZE(old) == PyDict_GET_SIZE(new) ? compare_items(c, old, new) : 0;
    if (type == &PySet_Type || type == &PyFrozenSet_Type)
        return compare_sets(old, new);
    if (type == &PyCell_Type)
        return compare_cells(c, old, new);
    if (type == &PyClassMethod_Type || type == &PyStaticMethod_Type)
        return compare_wrapped(c, old, new);
    if (type == &PyProperty_Type)
        return compare_properties(c, old, new);
    return type == &PyCode_Type ? compare_codes(old, new) : 0;
}

static int compare(struct comparison *c, PyObject *old, PyObject *new)
{
    if (old == new)
        return 1;
    if (Py_TYPE(old) != Py_TYPE(new) || --c->steps < 0)
        return 0;
    if (Py_EnterRecursiveCall(" while comparing what methods see"))
        return -1;
    Py_INCREF(old);
    Py_INCREF(new);
    int equal = compare_same_type(c, old, new);
    Py_DECREF(old);
    Py_DECREF(new);
    Py_LeaveRecursiveCall();
    return equal;
}

/* ---- methods ---- */

/* The code of a function, or of the one in a classmethod, staticmethod or property: new reference; NULL: none. */
static PyObject *code_of(PyObject *member)
{
    PyObject *function;
    if (PyFunction_Check(member))
        function = Py_NewRef(member);
    else if (Py_IS_TYPE(member, &PyClassMethod_Type) || Py_IS_TYPE(member, &PyStaticMethod_Type))
        function = PyObject_GetAttrString(member, "__func__");
    else if (Py_IS_TYPE(member, &PyProperty_Type))
        function = PyObject_GetAttrString(member, "fget");
    else
        return NULL;
    PyObject *code = function && PyFunction_Check(function) ? Py_NewRef(PyFunction_GET_CODE(function)) : NULL;
    Py_XDECREF(function);
    PyErr_Clear();
    return code;
}

/* Is the class's member of this name the one that came earlier, and not one that was put there since? 1, 0, -1. */
static int is_counterpart(PyObject *old, PyObject *new)
{
    if (!old || Py_TYPE(old) != Py_TYPE(new))
        return 0;
    PyObject *now = code_of(old), *then = code_of(new);
    int same = now && then ? compare_codes(now, then) : 0;
    Py_XDECREF(now);
    Py_XDECREF(then);
    return same;
}

/* The class's own member: new reference, or NULL, perhaps with an exception. */
static PyObject *own_member(PyObject *class, PyObject *name)
{
    PyObject *dict = shoal__class_dict((PyTypeObject *)class);
    PyObject *found = dict ? Py_XNewRef(PyDict_GetItemWithError(dict, name)) : NULL;
    Py_XDECREF(dict);
    return found;
}

/* Adds to `methods` those that the class would get; *ret_equal: they see what the class's see. 0 or -1. */
static int gather(PyObject *class, PyObject *namespace, PyObject *methods, bool *ret_equal)
{
    struct comparison comparison = {.steps = STEPS_MAX};
    PyObject *name, *member;
    Py_ssize_t position = 0;
    *ret_equal = true;
    while (PyDict_Next(namespace, &position, &name, &member)) {
        PyObject *own = PyUnicode_CheckExact(name) ? own_member(class, name) : NULL;
        int counterpart = own == member ? 0 : is_counterpart(own, member);
        int equal = counterpart == 1 && *ret_equal ? compare(&comparison, own, member) : 1;
        Py_XDECREF(own);
        if (counterpart < 0 || equal < 0 || PyErr_Occurred())
            return -1;
        if (counterpart == 1 && PyDict_SetItem(methods, name, member) < 0)
            return -1;
        *ret_equal = *ret_equal && equal == 1;
    }
    return 0;
}

int shoal__refresh_class(PyObject *class, PyObject *namespace)
{
    bool equal;
    PyObject *methods = PyDict_New(), *name, *member;
    int result = methods ? gather(class, namespace, methods, &equal) : -1;
    Py_ssize_t position = 0;
    while (result == 0 && !equal && PyDict_Next(methods, &position, &name, &member)) /* our own dict */
        result = PyType_Type.tp_setattro(class, name, member);
    Py_XDECREF(methods);
    return result;
}

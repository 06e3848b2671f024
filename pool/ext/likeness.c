/* SPDX-License-Identifier: BSD-3-Clause */
/* likeness.c - digests of values and definitions: see likeness.h. */
#include "likeness.h"

#include <string.h>

#define PARTS_MAX 512        /* looked at in one value */
#define DEPTH_MAX 16
#define TEXT_MAX (64 * 1024) /* a longer str or bytes is known by its address and length */
#define SMALL_BYTES 1024     /* such an object may be kept alive */

static uint64_t mix(uint64_t digest, uint64_t value)
{
    digest = (digest ^ value) * UINT64_C(0x9E3779B97F4A7C15);
    return digest ^ digest >> 32;
}

static uint64_t address_of(PyObject *obj)
{
    return mix((uintptr_t)Py_TYPE(obj), (uintptr_t)obj);
}

/* ---- values ---- */

static uint64_t digest_value(PyObject *obj, unsigned *parts, unsigned depth);

static uint64_t digest_double(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* Exact types whose value is all that there is to them. */
static bool digest_atom(PyObject *obj, uint64_t *ret_digest)
{
    PyTypeObject *type = Py_TYPE(obj);
    uint64_t value;
    if (type == &PyLong_Type) {
        value = (uint64_t)PyObject_Hash(obj);
    } else if (type == &PyUnicode_Type || type == &PyBytes_Type) {
        Py_ssize_t length = type == &PyUnicode_Type ? PyUnicode_GET_LENGTH(obj) : PyBytes_GET_SIZE(obj);
        value = mix(length > TEXT_MAX ? (uintptr_t)obj : (uint64_t)PyObject_Hash(obj), (uint64_t)length);
    } else if (type == &PyFloat_Type) {
        value = digest_double(PyFloat_AS_DOUBLE(obj));
    } else if (type == &PyComplex_Type) {
        Py_complex both = PyComplex_AsCComplex(obj);
        value = mix(digest_double(both.real), digest_double(both.imag));
    } else if (obj == Py_None || type == &PyBool_Type || obj == Py_Ellipsis || obj == Py_NotImplemented) {
        value = (uintptr_t)obj;
    } else {
        return false;
    }
    *ret_digest = mix((uintptr_t)type, value);
    return true;
}

static bool is_container(PyObject *obj)
{
    return PyList_CheckExact(obj) || PyTuple_CheckExact(obj) || PyDict_CheckExact(obj) || PyAnySet_CheckExact(obj) ||
           PyByteArray_CheckExact(obj);
}

static uint64_t digest_sequence(PyObject *obj, uint64_t digest, unsigned *parts, unsigned depth)
{
    Py_ssize_t size = PySequence_Fast_GET_SIZE(obj);
    for (Py_ssize_t i = 0; i < size && *parts > 0; i++)
        digest = mix(digest, digest_value(PySequence_Fast_GET_ITEM(obj, i), parts, depth));
    return mix(digest, (uint64_t)size);
}

static uint64_t digest_dict(PyObject *obj, uint64_t digest, unsigned *parts, unsigned depth)
{
    Py_ssize_t position = 0;
    PyObject *key, *value;
    while (*parts > 0 && PyDict_Next(obj, &position, &key, &value)) {
        digest = mix(digest, digest_value(key, parts, depth));
        digest = mix(digest, digest_value(value, parts, depth));
    }
    return mix(digest, (uint64_t)PyDict_GET_SIZE(obj));
}

/* Equal sets may be in another order. Up to 3.12 no iterator: making one could run the garbage collector. */
static uint64_t digest_set(PyObject *obj, uint64_t digest, unsigned *parts, unsigned depth)
{
    uint64_t sum = 0;
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *iterator = PyObject_GetIter(obj), *member;
    while (iterator != NULL && *parts > 0 && (member = PyIter_Next(iterator)) != NULL) {
        sum += digest_value(member, parts, depth);
        Py_DECREF(member);
    }
    Py_XDECREF(iterator);
    PyErr_Clear();
#else
    Py_ssize_t position = 0;
    PyObject *member;
    Py_hash_t hash;
    while (*parts > 0 && _PySet_NextEntry(obj, &position, &member, &hash))
        sum += digest_value(member, parts, depth);
#endif
    return mix(mix(digest, sum), (uint64_t)PySet_GET_SIZE(obj));
}

static uint64_t digest_value(PyObject *obj, unsigned *parts, unsigned depth)
{
    uint64_t digest;
    if (*parts > 0)
        --*parts;
    if (digest_atom(obj, &digest))
        return digest;
    if (!is_container(obj) || depth == 0)
        return address_of(obj);
    digest = mix((uintptr_t)Py_TYPE(obj), 1);
    if (PyList_CheckExact(obj) || PyTuple_CheckExact(obj))
        return digest_sequence(obj, digest, parts, depth - 1);
    if (PyDict_CheckExact(obj))
        return digest_dict(obj, digest, parts, depth - 1);
    if (PyAnySet_CheckExact(obj))
        return digest_set(obj, digest, parts, depth - 1);
    Py_ssize_t size = PyByteArray_GET_SIZE(obj);
    const unsigned char *bytes = (const unsigned char *)PyByteArray_AS_STRING(obj);
    for (Py_ssize_t i = 0; i < size && *parts > 0; i++, --*parts)
        digest = mix(digest, bytes[i]);
    return mix(mix(digest, (uintptr_t)obj), (uint64_t)size);
}

static uint64_t digest_of(PyObject *obj)
{
    unsigned parts = PARTS_MAX;
    return obj == NULL ? 0 : digest_value(obj, &parts, DEPTH_MAX);
}

/* ---- likeness ---- */

static bool is_small(PyObject *obj)
{
    PyTypeObject *type = Py_TYPE(obj);
    Py_ssize_t items = type->tp_itemsize == 0 || PyLong_Check(obj) ? 0 : Py_SIZE(obj);
    return type->tp_basicsize + (items < 0 ? -items : items) * type->tp_itemsize <= SMALL_BYTES;
}

int likeness_take(struct likeness *likeness, PyObject *obj)
{
    *likeness = (struct likeness){0};
    uint64_t digest;
    if (digest_atom(obj, &digest) || is_container(obj)) {
        likeness->digest = digest_of(obj);
    } else if (PyType_SUPPORTS_WEAKREFS(Py_TYPE(obj))) {
        likeness->held = PyWeakref_NewRef(obj, NULL);
        likeness->weak = true;
        return likeness->held == NULL ? -1 : 0;
    } else if (!PyObject_IS_GC(obj) && is_small(obj)) {
        likeness->held = Py_NewRef(obj);
    } else {
        likeness->digest = address_of(obj);
    }
    return 0;
}

bool likeness_same(const struct likeness *likeness, PyObject *obj)
{
    if (likeness->held == NULL) {
        uint64_t digest;
        if (digest_atom(obj, &digest) || is_container(obj))
            return digest_of(obj) == likeness->digest;
        return address_of(obj) == likeness->digest;
    }
    if (!likeness->weak)
        return likeness->held == obj;
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *now = NULL;
    bool same = PyWeakref_GetRef(likeness->held, &now) == 1 && now == obj;
    Py_XDECREF(now);
    return same;
#else
    return PyWeakref_GET_OBJECT(likeness->held) == obj && obj != Py_None; /* None: it is gone */
#endif
}

void likeness_clear(struct likeness *likeness)
{
    Py_CLEAR(likeness->held);
}

/* ---- definitions ---- */

#define WRAPPED_MAX 4 /* functions in the closures of functions: what decorators make */

static uint64_t digest_function(PyFunctionObject *function, unsigned depth)
{
    uint64_t digest = mix((uintptr_t)function, (uintptr_t)function->func_code);
    digest = mix(digest, digest_of(function->func_defaults));
    digest = mix(digest, digest_of(function->func_kwdefaults));
    digest = mix(digest, digest_of(function->func_dict));
    PyObject *closure = function->func_closure;
    for (Py_ssize_t i = 0; closure != NULL && i < PyTuple_GET_SIZE(closure); i++) {
        PyObject *value = PyCell_GET(PyTuple_GET_ITEM(closure, i)); /* borrowed */
        bool inside = value != NULL && PyFunction_Check(value) && depth > 0;
        digest = mix(digest, inside ? digest_function((PyFunctionObject *)value, depth - 1) : digest_of(value));
    }
    return digest;
}

/* What the interpreter and pickle note in a class when it is used. */
static bool is_note(PyObject *name)
{
    static const char *const notes[] = {"__slotnames__", "__annotations__", "__annotations_cache__", "__weakref__",
                                        "__dict__", "__abstractmethods__", "_abc_impl"};
    for (size_t i = 0; i < sizeof notes / sizeof notes[0]; i++) {
        if (PyUnicode_CompareWithASCIIString(name, notes[i]) == 0)
            return true;
    }
    return false;
}

static uint64_t digest_class(PyTypeObject *type)
{
    uint64_t digest = mix((uintptr_t)type, digest_of(type->tp_bases));
    Py_ssize_t position = 0;
    PyObject *name, *value;
    while (type->tp_dict != NULL && PyDict_Next(type->tp_dict, &position, &name, &value)) {
        if (!PyUnicode_CheckExact(name) || is_note(name))
            continue;
        digest = mix(digest, digest_of(name));
        digest = mix(digest, PyFunction_Check(value) ? digest_function((PyFunctionObject *)value, WRAPPED_MAX)
                                                    : digest_of(value));
    }
    return digest;
}

uint64_t definition_digest(PyObject *obj)
{
    if (PyFunction_Check(obj))
        return digest_function((PyFunctionObject *)obj, WRAPPED_MAX);
    return PyType_Check(obj) ? digest_class((PyTypeObject *)obj) : 0;
}

bool judgement_holds(const struct judgement *judgement, PyObject *obj)
{
    return judgement->made && likeness_same(&judgement->subject, obj);
}

int judgement_ask(PyObject *judge, PyObject *obj)
{
    PyObject *answer = PyObject_CallOneArg(judge, obj);
    int verdict = answer == NULL ? -1 : PyObject_IsTrue(answer);
    Py_XDECREF(answer);
    return verdict;
}

int judgement_keep(struct judgement *judgement, PyObject *obj, int verdict)
{
    likeness_clear(&judgement->subject);
    judgement->made = likeness_take(&judgement->subject, obj) == 0;
    judgement->verdict = verdict;
    return judgement->made ? verdict : -1;
}

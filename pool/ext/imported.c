/* SPDX-License-Identifier: BSD-3-Clause */
/* imported.c - what stays as it is in the main module of a worker: see imported.h. */
#include "imported.h"

#include "likeness.h"

#define CODES_MAX 1000 /* whose assignments are remembered */

struct settled { /* a global that the import of the main module makes */
    bool is_literal;      /* and the parent has never been seen with another value than: */
    struct likeness then;
    struct judgement now; /* can what it is now be sent? */
};

struct imported {
    PyObject_HEAD
    PyObject *namespace;   /* of the main module */
    PyObject *own;         /* frozenset of names that the initializer assigns */
    PyObject *names;       /* dict: name -> index in settled */
    PyObject *assigned;    /* callable(code) -> frozenset of global names that it assigns */
    PyObject *codes;       /* dict: code -> what that returned */
    PyObject *can_be_sent; /* callable(value) -> bool */
    struct settled *settled;
    size_t settled_count;
};

/* ---- making ---- */

/* settled: dict of name -> (literal,) or () */
static int take_settled(struct imported *self, PyObject *settled)
{
    Py_ssize_t position = 0;
    PyObject *name, *literal;
    self->settled = PyMem_Calloc((size_t)PyDict_GET_SIZE(settled) + 1, sizeof *self->settled);
    if (self->settled == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    while (PyDict_Next(settled, &position, &name, &literal)) { /* a dict made for us: nobody changes it */
        if (!PyTuple_CheckExact(literal)) {
            PyErr_SetString(PyExc_TypeError, "settled: a dict of tuples");
            return -1;
        }
        struct settled *one = &self->settled[self->settled_count];
        PyObject *index = PyLong_FromSize_t(self->settled_count++);
        int error = index == NULL ? -1 : PyDict_SetItem(self->names, name, index);
        Py_XDECREF(index);
        one->is_literal = PyTuple_GET_SIZE(literal) == 1;
        if (error == 0 && one->is_literal)
            error = likeness_take(&one->then, PyTuple_GET_ITEM(literal, 0));
        if (error < 0)
            return -1;
    }
    return 0;
}

static PyObject *imported_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"namespace", "own", "settled", "assigned", "can_be_sent", NULL};
    PyObject *namespace, *own = NULL, *settled = NULL, *assigned = NULL, *can_be_sent = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!|O!O!OO:Imported", names, &PyDict_Type, &namespace,
                                     &PyFrozenSet_Type, &own, &PyDict_Type, &settled, &assigned, &can_be_sent))
        return NULL;
    struct imported *self = (struct imported *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->namespace = Py_NewRef(namespace);
    self->own = own != NULL ? Py_NewRef(own) : PyFrozenSet_New(NULL);
    self->assigned = Py_XNewRef(assigned);
    self->can_be_sent = Py_XNewRef(can_be_sent);
    self->names = PyDict_New();
    self->codes = PyDict_New();
    bool asks = assigned != NULL && can_be_sent != NULL;
    if (settled != NULL && !asks)
        PyErr_SetString(PyExc_TypeError, "with settled, assigned and can_be_sent are needed");
    if (self->own == NULL || self->names == NULL || self->codes == NULL || (settled != NULL && !asks) ||
        (settled != NULL && take_settled(self, settled) < 0))
        Py_CLEAR(self);
    return (PyObject *)self;
}

/* ---- what stays ---- */

/* Does the code of the function assign this global? 1, 0, -1. */
static int assigns(struct imported *self, PyObject *function, PyObject *name)
{
    PyObject *code = Py_NewRef(PyFunction_GET_CODE(function)); /* user code may give it another meanwhile */
    PyObject *found = Py_XNewRef(PyDict_GetItemWithError(self->codes, code));
    if (found == NULL && !PyErr_Occurred()) {
        found = PyObject_CallOneArg(self->assigned, code);
        if (PyDict_GET_SIZE(self->codes) >= CODES_MAX)
            PyDict_Clear(self->codes);
        if (found != NULL && PyDict_SetItem(self->codes, code, found) < 0)
            Py_CLEAR(found);
    }
    Py_DECREF(code);
    int answer = found == NULL ? -1 : PySequence_Contains(found, name);
    Py_XDECREF(found);
    return answer;
}

/* Definitions go by value, or say why they cannot. 1, 0, -1. */
static int can_be_sent(struct imported *self, struct settled *one, PyObject *value)
{
    if (PyFunction_Check(value) || PyType_Check(value) || PyModule_Check(value))
        return 1;
    if (judgement_holds(&one->now, value))
        return one->now.verdict;
    Py_INCREF(value);
    int verdict = judgement_ask(self->can_be_sent, value);
    if (verdict >= 0)
        verdict = judgement_keep(&one->now, value, verdict);
    Py_DECREF(value);
    return verdict;
}

int imported_keeps(void *context, PyObject *function, PyObject *name, PyObject *value)
{
    struct imported *self = context;
    if (PyFunction_GET_GLOBALS(function) != self->namespace)
        return 0;
    int own = PySet_Contains(self->own, name);
    if (own != 0)
        return own;
    PyObject *index = PyDict_GetItemWithError(self->names, name); /* borrowed */
    if (index == NULL)
        return PyErr_Occurred() ? -1 : 0;
    struct settled *one = &self->settled[PyLong_AsSize_t(index)];
    if (one->is_literal && likeness_same(&one->then, value))
        return 1;
    int assigned = assigns(self, function, name);
    if (assigned != 0)
        return assigned;
    int sent = can_be_sent(self, one, value);
    if (sent > 0)
        one->is_literal = false; /* from now on, what the workers have is not that any more */
    return sent < 0 ? -1 : !sent;
}

int64_t imported_space(void *context, PyObject *globals)
{
    struct imported *self = context;
    return globals == self->namespace ? 0 : -1;
}

PyObject *imported_object(void *context, PyObject *number)
{
    struct imported *self = context;
    if (PyLong_CheckExact(number) && PyLong_AsLong(number) == 0)
        return Py_NewRef(self->namespace);
    PyErr_SetString(PyExc_ValueError, "it names something that a worker does not have");
    return NULL;
}

/* ---- the type ---- */

static int imported_traverse(struct imported *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->namespace);
    Py_VISIT(self->assigned);
    Py_VISIT(self->codes);
    Py_VISIT(self->can_be_sent);
    return 0;
}

static int imported_clear(struct imported *self)
{
    Py_CLEAR(self->assigned);
    Py_CLEAR(self->can_be_sent);
    return 0;
}

static void imported_dealloc(struct imported *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    imported_clear(self);
    for (size_t i = 0; i < self->settled_count; i++) {
        likeness_clear(&self->settled[i].then);
        likeness_clear(&self->settled[i].now.subject);
    }
    PyMem_Free(self->settled);
    Py_CLEAR(self->namespace);
    Py_CLEAR(self->own);
    Py_CLEAR(self->names);
    Py_CLEAR(self->codes);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

PyDoc_STRVAR(imported_doc,
"Imported(namespace, own=frozenset(), settled={}, assigned=None, can_be_sent=None)\n--\n\n"
"The globals of __main__ in workers that were started anew. In such a worker: the namespace alone.\n\n"
"own: names that the pool's initializer assigns. settled: dict of names that the import of the main module assigns ->\n"
"(the literal that it gives,) or (). assigned(code) -> frozenset of the globals that it assigns.\n"
"can_be_sent(value) -> whether it can be pickled.");

static PyType_Slot imported_slots[] = {
    {Py_tp_doc, (void *)imported_doc},
    {Py_tp_new, imported_new},
    {Py_tp_dealloc, imported_dealloc},
    {Py_tp_traverse, imported_traverse},
    {Py_tp_clear, imported_clear},
    {0, NULL},
};

PyType_Spec imported_spec = {
    .name = "shoal._ext.Imported",
    .basicsize = sizeof(struct imported),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = imported_slots,
};

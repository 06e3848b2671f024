/* SPDX-License-Identifier: BSD-3-Clause */
/* inherited.c - the table of what forked workers have of __main__: see inherited.h. */
#include "inherited.h"

#include "likeness.h"

struct binding { /* a global of __main__ */
    PyObject *name;
    struct likeness then; /* when the first workers were forked */
    bool unset;           /* it was not there then, or None ("not set yet"), or a pool */
    bool missing;         /* it was not there */
    bool diverged;        /* later workers have something else */
    struct judgement now; /* can what it is now be sent? */
    PyObject *stand_in;   /* capsule, or NULL: stands for the worker's value; numbers behind those of own */
};

struct member { /* a function or class */
    PyObject *object;
    uint64_t definition;
    bool diverged, analysed;
    uint32_t *bindings; /* that it reads, itself or through others */
    uint32_t *parts;    /* members that it uses, itself included */
    size_t binding_count, part_count;
};

struct inherited {
    PyObject_HEAD
    PyObject *namespace;   /* of __main__ */
    PyObject *numbers;     /* dict: address of an object -> its number */
    PyObject *names;       /* dict: name -> index in bindings */
    PyObject *own;         /* list of names that the initializer assigns */
    PyObject *stand_ins;   /* dict: such a name -> what stands for the worker's value; numbers behind the members */
    size_t binding_count_then; /* when the first workers were forked */
    PyObject *analyse;     /* callable(object) -> (names, objects) that it uses */
    PyObject *can_be_sent; /* callable(value) -> bool */
    struct member *members;
    size_t member_count;
    struct binding *bindings;
    size_t binding_count, binding_room;
};

/* ---- making ---- */

static struct binding *add_binding(struct inherited *self, PyObject *name)
{
    if (self->binding_count == self->binding_room) {
        size_t room = self->binding_room ? 2 * self->binding_room : 64;
        struct binding *moved = PyMem_Realloc(self->bindings, room * sizeof *moved);
        if (moved == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
        self->bindings = moved;
        self->binding_room = room;
    }
    PyObject *index = PyLong_FromSize_t(self->binding_count);
    int error = index == NULL ? -1 : PyDict_SetItem(self->names, name, index);
    Py_XDECREF(index);
    if (error < 0)
        return NULL;
    struct binding *binding = &self->bindings[self->binding_count++];
    *binding = (struct binding){.name = Py_NewRef(name), .missing = true, .unset = true};
    return binding;
}

static bool is_a(PyObject *value, PyObject *types)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(types); i++) {
        PyObject *type = PyTuple_GET_ITEM(types, i);
        if (PyType_Check(type) && PyObject_TypeCheck(value, (PyTypeObject *)type))
            return true;
    }
    return false;
}

static int take_bindings(struct inherited *self, PyObject *pools)
{
    Py_ssize_t position = 0;
    PyObject *name, *value;
    PyObject *copy = PyDict_Copy(self->namespace); /* a finalizer that runs meanwhile may change it */
    int error = copy == NULL ? -1 : 0;
    while (error == 0 && PyDict_Next(copy, &position, &name, &value)) {
        if (!PyUnicode_CheckExact(name))
            continue;
        struct binding *binding = add_binding(self, name);
        error = binding == NULL ? -1 : likeness_take(&binding->then, value);
        if (error == 0)
            binding->missing = false;
        if (error == 0)
            binding->unset = value == Py_None || is_a(value, pools);
    }
    Py_XDECREF(copy);
    return error;
}

static int give_number(struct inherited *self, PyObject *obj, size_t number)
{
    PyObject *address = PyLong_FromVoidPtr(obj);
    PyObject *value = PyLong_FromSize_t(number);
    int error = address == NULL || value == NULL ? -1 : PyDict_SetItem(self->numbers, address, value);
    Py_XDECREF(address);
    Py_XDECREF(value);
    return error;
}

static int take_members(struct inherited *self, PyObject *objects)
{
    self->members = PyMem_Calloc((size_t)PyList_GET_SIZE(objects) + 1, sizeof *self->members);
    if (self->members == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(objects); i++) {
        PyObject *object = PyList_GET_ITEM(objects, i);
        if (give_number(self, object, self->member_count) < 0)
            return -1;
        self->members[self->member_count++] =
            (struct member){.object = Py_NewRef(object), .definition = definition_digest(object)};
    }
    return 0;
}

static PyObject *new_stand_in(struct inherited *self, size_t number)
{
    PyObject *stand_in = PyCapsule_New(self, "shoal.own_global", NULL);
    if (stand_in != NULL && give_number(self, stand_in, number) < 0)
        Py_CLEAR(stand_in);
    return stand_in;
}

static int make_stand_ins(struct inherited *self)
{
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(self->own); i++) {
        PyObject *stand_in = new_stand_in(self, self->member_count + (size_t)i);
        int error = stand_in == NULL ? -1 : PyDict_SetItem(self->stand_ins, PyList_GET_ITEM(self->own, i), stand_in);
        Py_XDECREF(stand_in);
        if (error < 0)
            return -1;
    }
    return 0;
}

static PyObject *inherited_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *words[] = {"namespace", "objects", "own", "analyse", "can_be_sent", "pools", NULL};
    PyObject *namespace, *objects, *own, *analyse, *can_be_sent, *pools;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O!O!OOO!:Inherited", words, &PyDict_Type, &namespace,
                                     &PyList_Type, &objects, &PyList_Type, &own, &analyse, &can_be_sent, &PyTuple_Type,
                                     &pools))
        return NULL;
    struct inherited *self = (struct inherited *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->namespace = Py_NewRef(namespace);
    self->own = Py_NewRef(own);
    self->analyse = Py_NewRef(analyse);
    self->can_be_sent = Py_NewRef(can_be_sent);
    self->numbers = PyDict_New();
    self->names = PyDict_New();
    self->stand_ins = PyDict_New();
    if (self->numbers == NULL || self->names == NULL || self->stand_ins == NULL || take_bindings(self, pools) < 0 ||
        take_members(self, objects) < 0 || make_stand_ins(self) < 0)
        Py_CLEAR(self);
    else
        self->binding_count_then = self->binding_count;
    return (PyObject *)self;
}

/* ---- what a member uses ---- */

/* -1: none, -2: exception. */
static int64_t find_number(struct inherited *self, PyObject *obj)
{
    PyObject *address = PyLong_FromVoidPtr(obj);
    PyObject *number = address == NULL ? NULL : PyDict_GetItemWithError(self->numbers, address); /* borrowed */
    Py_XDECREF(address);
    if (number == NULL)
        return PyErr_Occurred() ? -2 : -1;
    return PyLong_AsLongLong(number);
}

static int note_names(struct inherited *self, PyObject *names, uint32_t *indices, size_t *ret_count)
{
    size_t count = 0;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);
        if (PyDict_Contains(self->stand_ins, name) != 0)
            continue;
        PyObject *known = PyDict_GetItemWithError(self->names, name); /* borrowed */
        if (known == NULL) {
            struct binding *binding = PyErr_Occurred() ? NULL : add_binding(self, name);
            if (binding == NULL)
                return -1;
            indices[count++] = (uint32_t)(binding - self->bindings);
        } else {
            indices[count++] = (uint32_t)PyLong_AsUnsignedLong(known);
        }
    }
    *ret_count = count;
    return 0;
}

static int note_parts(struct inherited *self, PyObject *parts, uint32_t *indices, size_t *ret_count)
{
    size_t count = 0;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(parts); i++) {
        int64_t number = find_number(self, PyTuple_GET_ITEM(parts, i));
        if (number == -2)
            return -1;
        if (number >= 0 && (uint64_t)number < self->member_count)
            indices[count++] = (uint32_t)number;
    }
    *ret_count = count;
    return 0;
}

static int analyse(struct inherited *self, struct member *member)
{
    PyObject *names, *parts;
    PyObject *both = PyObject_CallOneArg(self->analyse, member->object);
    if (both == NULL || !PyArg_ParseTuple(both, "O!O!", &PyTuple_Type, &names, &PyTuple_Type, &parts)) {
        Py_XDECREF(both);
        return -1;
    }
    uint32_t *name_indices = PyMem_Calloc((size_t)PyTuple_GET_SIZE(names) + 1, sizeof *name_indices);
    uint32_t *part_indices = PyMem_Calloc((size_t)PyTuple_GET_SIZE(parts) + 1, sizeof *part_indices);
    size_t name_count, part_count;
    int error = -1;
    if (name_indices == NULL || part_indices == NULL)
        PyErr_NoMemory();
    else if (note_names(self, names, name_indices, &name_count) == 0 &&
             note_parts(self, parts, part_indices, &part_count) == 0)
        error = 0;
    Py_DECREF(both);
    if (error < 0 || member->analysed) { /* by another thread meanwhile */
        PyMem_Free(name_indices);
        PyMem_Free(part_indices);
        return error;
    }
    member->bindings = name_indices;
    member->binding_count = name_count;
    member->parts = part_indices;
    member->part_count = part_count;
    member->analysed = true;
    return 0;
}

/* ---- is it what it was ---- */

static bool binding_changed(struct binding binding, PyObject *value)
{
    if (value == NULL) /* taken away in the parent, to save memory: workers have it all the same */
        return false;
    return binding.diverged || binding.missing || !likeness_same(&binding.then, value);
}

/* It was not set when the workers were forked: what it is now does not count if it cannot be sent. 1, 0, -1. */
static int can_be_sent(struct inherited *self, uint32_t index, PyObject *value)
{
    if (judgement_holds(&self->bindings[index].now, value))
        return self->bindings[index].now.verdict;
    Py_INCREF(value);
    int verdict = judgement_ask(self->can_be_sent, value);
    if (verdict >= 0) /* the bindings may have moved */
        verdict = judgement_keep(&self->bindings[index].now, value, verdict);
    Py_DECREF(value);
    return verdict;
}

static int is_unchanged(struct inherited *self, struct member *member)
{
    if (!member->analysed && analyse(self, member) < 0)
        return -1;
    for (size_t i = 0; i < member->part_count; i++) {
        const struct member *part = &self->members[member->parts[i]];
        if (part->diverged || definition_digest(part->object) != part->definition)
            return 0;
    }
    for (size_t i = 0; i < member->binding_count; i++) {
        uint32_t index = member->bindings[i];
        struct binding binding = self->bindings[index]; /* a copy: they may be moved */
        PyObject *value = PyDict_GetItemWithError(self->namespace, binding.name); /* borrowed */
        if (value == NULL && PyErr_Occurred())
            return -1;
        if (!binding_changed(binding, value))
            continue;
        int counts = binding.unset ? can_be_sent(self, index, value) : 1;
        if (counts != 0)
            return counts < 0 ? -1 : 0;
    }
    return 1;
}

int64_t inherited_number(void *context, PyObject *obj)
{
    struct inherited *self = context;
    int64_t number = find_number(self, obj);
    if (number < 0 || (uint64_t)number >= self->member_count)
        return number;
    int same = is_unchanged(self, &self->members[number]);
    return same < 0 ? -2 : same ? number : -1;
}

int64_t inherited_number_in_worker(void *context, PyObject *obj)
{
    struct inherited *self = context;
    int64_t number = find_number(self, obj);
    return number >= 0 && (uint64_t)number >= self->member_count ? -1 : number;
}

/* ---- what functions by value find ---- */

/* The index of the binding; -1: there is none yet, -2: exception. */
static int64_t find_binding(struct inherited *self, PyObject *name)
{
    PyObject *known = PyDict_GetItemWithError(self->names, name); /* borrowed */
    if (known == NULL)
        return PyErr_Occurred() ? -2 : -1;
    return PyLong_AsLongLong(known);
}

/* What can always be sent, or says by itself why not. */
static bool is_definition_or_plain(PyObject *value)
{
    return PyFunction_Check(value) || PyType_Check(value) || PyModule_Check(value) || PyLong_CheckExact(value) ||
           PyUnicode_CheckExact(value) || PyFloat_CheckExact(value) || PyBool_Check(value);
}

/* Of what was there at the fork, cannot be sent, and was not given to the name since: borrowed, or NULL. */
static PyObject *stand_in_for_unsendable(struct inherited *self, PyObject *name)
{
    int64_t index = find_binding(self, name);
    if (index < 0 || (size_t)index >= self->binding_count_then)
        return NULL;
    struct binding *binding = &self->bindings[index];
    PyObject *value = PyDict_GetItemWithError(self->namespace, name); /* borrowed */
    if (value == NULL || is_definition_or_plain(value))
        return NULL;
    if (!binding->unset && (binding->diverged || !likeness_same(&binding->then, value)))
        return NULL;
    if (can_be_sent(self, (uint32_t)index, value) != 0)
        return NULL;
    binding = &self->bindings[index]; /* it may have been moved */
    if (binding->stand_in == NULL) {
        size_t first = self->member_count + (size_t)PyList_GET_SIZE(self->own);
        binding->stand_in = new_stand_in(self, first + (size_t)index);
    }
    return binding->stand_in;
}

PyObject *inherited_stand_in(void *context, PyObject *globals, PyObject *name)
{
    struct inherited *self = context;
    if (globals != self->namespace)
        return NULL;
    PyObject *stand_in = PyDict_GetItemWithError(self->stand_ins, name); /* borrowed */
    if (stand_in == NULL && !PyErr_Occurred())
        stand_in = stand_in_for_unsendable(self, name);
    PyErr_Clear();
    return stand_in;
}

/* Is it a method of a class, by its name? */
static bool is_method(PyObject *function)
{
    PyObject *name = ((PyFunctionObject *)function)->func_qualname;
    Py_ssize_t dot = PyUnicode_FindChar(name, '.', 0, PyUnicode_GET_LENGTH(name), -1);
    return dot > 0 && PyUnicode_READ_CHAR(name, dot - 1) != '>'; /* "<locals>." */
}

int inherited_keeps(void *context, PyObject *function, PyObject *name, PyObject *value)
{
    struct inherited *self = context;
    if (PyFunction_GET_GLOBALS(function) != self->namespace || is_definition_or_plain(value) || !is_method(function))
        return 0;
    int64_t index = find_binding(self, name);
    if (index == -1)
        index = add_binding(self, name) == NULL ? -2 : (int64_t)self->binding_count - 1;
    if (index < 0)
        return -1;
    if (!self->bindings[index].missing)
        return 0;
    int sent = can_be_sent(self, (uint32_t)index, value);
    return sent < 0 ? -1 : !sent;
}

/* The worker's own value of what a number behind the members stands for. */
static PyObject *own_value(struct inherited *self, size_t at)
{
    size_t own_count = (size_t)PyList_GET_SIZE(self->own);
    bool assigned = at < own_count;
    if (!assigned && at - own_count >= self->binding_count_then) {
        PyErr_SetString(PyExc_ValueError, "it names something that was not inherited");
        return NULL;
    }
    PyObject *name = assigned ? PyList_GET_ITEM(self->own, (Py_ssize_t)at) : self->bindings[at - own_count].name;
    PyObject *value = PyDict_GetItemWithError(self->namespace, name); /* borrowed */
    if (value == NULL && !PyErr_Occurred())
        PyErr_Format(PyExc_NameError, "name %R is not defined%s", name,
                     assigned ? ": the pool's initializer did not assign it" : ": a task has deleted it");
    return Py_XNewRef(value);
}

PyObject *inherited_object(void *context, PyObject *number)
{
    struct inherited *self = context;
    size_t at = PyLong_CheckExact(number) ? PyLong_AsSize_t(number) : (size_t)-1;
    PyErr_Clear();
    return at < self->member_count ? Py_NewRef(self->members[at].object) : own_value(self, at - self->member_count);
}

void inherited_fork(PyObject *inherited)
{
    struct inherited *self = (struct inherited *)inherited;
    for (size_t i = 0; i < self->binding_count; i++) {
        PyObject *value = PyDict_GetItemWithError(self->namespace, self->bindings[i].name); /* borrowed */
        PyErr_Clear();
        if (binding_changed(self->bindings[i], value))
            self->bindings[i].diverged = true;
    }
    for (size_t i = 0; i < self->member_count; i++) {
        struct member *member = &self->members[i];
        member->diverged = member->diverged || definition_digest(member->object) != member->definition;
    }
}

/* ---- the type ---- */

static int inherited_traverse(struct inherited *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->namespace);
    Py_VISIT(self->own);
    Py_VISIT(self->stand_ins);
    Py_VISIT(self->analyse);
    Py_VISIT(self->can_be_sent);
    for (size_t i = 0; i < self->member_count; i++)
        Py_VISIT(self->members[i].object);
    return 0;
}

static int inherited_clear(struct inherited *self)
{
    Py_CLEAR(self->analyse);
    Py_CLEAR(self->can_be_sent);
    return 0;
}

static void inherited_dealloc(struct inherited *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    inherited_clear(self);
    for (size_t i = 0; i < self->member_count; i++) {
        Py_DECREF(self->members[i].object);
        PyMem_Free(self->members[i].bindings);
        PyMem_Free(self->members[i].parts);
    }
    for (size_t i = 0; i < self->binding_count; i++) {
        Py_DECREF(self->bindings[i].name);
        likeness_clear(&self->bindings[i].then);
        likeness_clear(&self->bindings[i].now.subject);
        Py_XDECREF(self->bindings[i].stand_in);
    }
    PyMem_Free(self->members);
    PyMem_Free(self->bindings);
    Py_CLEAR(self->namespace);
    Py_CLEAR(self->numbers);
    Py_CLEAR(self->names);
    Py_CLEAR(self->own);
    Py_CLEAR(self->stand_ins);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

PyDoc_STRVAR(inherited_doc,
"Inherited(namespace, objects, own, analyse, can_be_sent, pools)\n--\n\n"
"What forked workers have of __main__, whose namespace this is: functions and classes, made before the fork.\n\n"
"own: names that the pool's initializer assigns. analyse(object) -> (names, objects) that it uses, as tuples.\n"
"can_be_sent(value) -> whether it can be pickled. pools: types of what is of no use in a worker.");

static PyType_Slot inherited_slots[] = {
    {Py_tp_doc, (void *)inherited_doc},
    {Py_tp_new, inherited_new},
    {Py_tp_dealloc, inherited_dealloc},
    {Py_tp_traverse, inherited_traverse},
    {Py_tp_clear, inherited_clear},
    {0, NULL},
};

PyType_Spec inherited_spec = {
    .name = "shoal._ext.Inherited",
    .basicsize = sizeof(struct inherited),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = inherited_slots,
};

/* SPDX-License-Identifier: BSD-3-Clause */
/* load_objects.c - objects made by calling something, and those that come from outside of the stream. */
#include "decoder.h"

/* Built-in types that run no user code when they are made from numbers, text and bytes; frequent in streams. */
static bool is_harmless_type(PyTypeObject *type)
{
    static const char *const names[] = {"datetime.datetime", "datetime.date", "datetime.time", "datetime.timedelta",
                                        "complex",           "range"};
    if (PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE))
        return false;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(type->tp_name, names[i]) == 0)
            return true;
    return false;
}

static bool is_number_or_text(PyObject *obj)
{
    return PyLong_CheckExact(obj) || PyBytes_CheckExact(obj) || PyUnicode_CheckExact(obj) || PyFloat_CheckExact(obj);
}

/* A type that is not on the heap stays, so its address is enough to know it again. */
static bool is_harmless(struct shoal_decoder *decoder, PyObject *callable, PyObject *arguments)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(arguments); i++)
        if (!is_number_or_text(PyTuple_GET_ITEM(arguments, i)))
            return false;
    if ((PyObject *)decoder->harmless == callable)
        return true;
    if (!PyType_Check(callable) || !is_harmless_type((PyTypeObject *)callable))
        return false;
    decoder->harmless = (PyTypeObject *)callable;
    return true;
}

static PyObject *call(struct shoal_decoder *decoder, PyObject *callable, PyObject *arguments)
{
    if (!PyTuple_Check(arguments)) {
        PyErr_SetString(PyExc_TypeError, "argument list must be a tuple");
        return NULL;
    }
    if (shoal__check_arguments(decoder, callable, arguments) < 0)
        return NULL;
    return PyObject_Call(callable, arguments, NULL);
}

/* Arguments may have been put: the memo owns them before they go. A harmless call leaves the epoch as it is. */
int shoal__load_reduce(struct shoal_decoder *decoder)
{
    if (shoal__stack_has(decoder, 2) < 0)
        return -1;
    PyObject *arguments = decoder->top[-1];
    PyObject *callable = decoder->top[-2];
    if (decoder->memo.borrows && PyTuple_CheckExact(arguments) && is_harmless(decoder, callable, arguments)) {
        shoal__memo_own(&decoder->memo);
        decoder->memo.borrows = true;
    } else {
        shoal__release(decoder);
    }
    decoder->top -= 2;
    PyObject *obj = call(decoder, callable, arguments);
    if (obj == NULL)
        shoal__not_made(decoder, callable);
    Py_DECREF(callable);
    Py_DECREF(arguments);
    return shoal__push_made(decoder, obj);
}

static PyObject *bad_newobj(const struct shoal_decoder *decoder, const char *opcode, const char *what, PyObject *obj)
{
    PyErr_Format(decoder->state->shared.unpickling_error, "%s %s, not %.200s", opcode, what, Py_TYPE(obj)->tp_name);
    return NULL;
}

/* cls.__new__(cls, *arguments, **keywords); keywords may be NULL. */
static PyObject *make_new(struct shoal_decoder *decoder, PyObject *cls, PyObject *arguments, PyObject *keywords)
{
    const char *opcode = keywords == NULL ? "NEWOBJ" : "NEWOBJ_EX";
    if (!PyType_Check(cls))
        return bad_newobj(decoder, opcode, "class argument must be a type", cls);
    PyTypeObject *type = (PyTypeObject *)cls;
    if (type->tp_new == NULL) {
        PyErr_Format(decoder->state->shared.unpickling_error, "%s class argument '%.200s' doesn't have __new__", opcode,
                     type->tp_name);
        return NULL;
    }
    if (!PyTuple_Check(arguments))
        return bad_newobj(decoder, opcode, "args argument must be a tuple", arguments);
    if (keywords != NULL && !PyDict_Check(keywords))
        return bad_newobj(decoder, opcode, "kwargs argument must be a dict", keywords);
    if (type->tp_new != PyBaseObject_Type.tp_new)
        shoal__release(decoder);
    return type->tp_new(type, arguments, keywords);
}

int shoal__load_newobj(struct shoal_decoder *decoder, bool with_keywords)
{
    if (shoal__stack_has(decoder, with_keywords ? 3 : 2) < 0)
        return -1;
    int made = with_keywords ? 0 : shoal__make_instance(decoder);
    if (made != 0)
        return made < 0 ? -1 : 0;
    shoal__own(decoder);
    PyObject *keywords = with_keywords ? *--decoder->top : NULL;
    PyObject *arguments = *--decoder->top;
    PyObject *cls = *--decoder->top;
    PyObject *obj = make_new(decoder, cls, arguments, keywords);
    if (obj == NULL)
        shoal__not_made(decoder, cls);
    Py_DECREF(cls);
    Py_DECREF(arguments);
    Py_XDECREF(keywords);
    return shoal__push_made(decoder, obj);
}

/* What INST and OBJ have in common: an old-style class was made without its __init__ if that had no arguments. */
static PyObject *instantiate(const struct shoal_decoder *decoder, PyObject *cls, PyObject *arguments)
{
    if (PyTuple_GET_SIZE(arguments) > 0 || !PyType_Check(cls))
        return PyObject_Call(cls, arguments, NULL);
    PyObject *initargs = PyObject_GetAttr(cls, decoder->state->names.initargs);
    if (initargs != NULL) {
        Py_DECREF(initargs);
        return PyObject_Call(cls, arguments, NULL);
    }
    if (!PyErr_ExceptionMatches(PyExc_AttributeError))
        return NULL;
    PyErr_Clear();
    return PyObject_CallMethodOneArg(cls, decoder->state->names.new_, cls);
}

/* A line of ASCII; a persistent id may be empty, a class not. */
static PyObject *take_name(struct shoal_decoder *decoder, bool may_be_empty)
{
    char *line;
    Py_ssize_t length = may_be_empty ? shoal__take_line(decoder, &line) : shoal__take_filled_line(decoder, &line);
    return length < 0 ? NULL : PyUnicode_DecodeASCII(line, length, "strict");
}

static PyObject *take_class(struct shoal_decoder *decoder)
{
    PyObject *module = take_name(decoder, false);
    if (module == NULL)
        return NULL;
    PyObject *name = take_name(decoder, false);
    PyObject *cls = name == NULL ? NULL : shoal__find_class(decoder, module, name);
    Py_DECREF(module);
    Py_XDECREF(name);
    return cls;
}

int shoal__load_inst(struct shoal_decoder *decoder)
{
    PyObject **start = shoal__unmark(decoder);
    if (start == NULL)
        return -1;
    PyObject *cls = take_class(decoder);
    if (cls == NULL)
        return -1;
    PyObject *arguments = shoal__pop_tuple(decoder, start);
    PyObject *obj = arguments == NULL ? NULL : instantiate(decoder, cls, arguments);
    if (obj == NULL)
        shoal__not_made(decoder, cls);
    Py_DECREF(cls);
    Py_XDECREF(arguments);
    return shoal__push_made(decoder, obj);
}

int shoal__load_obj(struct shoal_decoder *decoder)
{
    PyObject **start = shoal__unmark(decoder);
    if (start == NULL)
        return -1;
    if (start == decoder->top)
        return shoal__underflow(decoder);
    shoal__release(decoder);
    PyObject *arguments = shoal__pop_tuple(decoder, start + 1);
    if (arguments == NULL)
        return -1;
    PyObject *cls = *--decoder->top;
    PyObject *obj = instantiate(decoder, cls, arguments);
    if (obj == NULL)
        shoal__not_made(decoder, cls);
    Py_DECREF(cls);
    Py_DECREF(arguments);
    return shoal__push_made(decoder, obj);
}

static int no_persistent_load(const struct shoal_decoder *decoder)
{
    PyErr_SetString(decoder->state->shared.unpickling_error, "A load persistent id instruction was encountered, "
                                                             "but no persistent_load function was specified.");
    return -1;
}

/* Steals pid. */
static int load_persistent(struct shoal_decoder *decoder, PyObject *pid)
{
    shoal__release(decoder);
    if (decoder->persistent_load == NULL)
        decoder->persistent_load = PyObject_GetAttr(decoder->unpickler, decoder->state->names.persistent_load);
    PyObject *obj = NULL;
    if (decoder->persistent_load != NULL)
        obj = PyObject_CallOneArg(decoder->persistent_load, pid);
    Py_DECREF(pid);
    return shoal__push(decoder, obj);
}

int shoal__load_persid(struct shoal_decoder *decoder)
{
    if (decoder->unpickler == NULL)
        return no_persistent_load(decoder);
    PyObject *pid = take_name(decoder, true);
    if (pid != NULL)
        return load_persistent(decoder, pid);
    if (PyErr_ExceptionMatches(PyExc_UnicodeDecodeError))
        PyErr_SetString(decoder->state->shared.unpickling_error, "persistent IDs in protocol 0 must be ASCII strings");
    return -1;
}

static int load_inherited(struct shoal_decoder *decoder)
{
    PyObject *number = shoal__pop(decoder);
    if (number == NULL)
        return -1;
    shoal__release(decoder);
    PyObject *obj = decoder->heir(decoder->heir_context, number);
    Py_DECREF(number);
    return shoal__push(decoder, obj);
}

int shoal__load_binpersid(struct shoal_decoder *decoder)
{
    if (decoder->unpickler == NULL)
        return decoder->heir == NULL ? no_persistent_load(decoder) : load_inherited(decoder);
    PyObject *pid = shoal__pop(decoder);
    return pid == NULL ? -1 : load_persistent(decoder, pid);
}

int shoal__load_next_buffer(struct shoal_decoder *decoder)
{
    if (decoder->give == NULL) {
        PyErr_SetString(decoder->state->shared.unpickling_error,
                        "pickle stream refers to out-of-band data but no *buffers* argument was given");
        return -1;
    }
    shoal__release(decoder);
    return shoal__push(decoder, decoder->give(decoder->give_context, decoder->buffers_given++));
}

int shoal__load_readonly_buffer(struct shoal_decoder *decoder)
{
    if (shoal__stack_has(decoder, 1) < 0)
        return -1;
    shoal__release(decoder);
    PyObject *view = PyMemoryView_FromObject(decoder->top[-1]);
    if (view == NULL)
        return -1;
    if (PyMemoryView_GET_BUFFER(view)->readonly) {
        Py_DECREF(view);
        return 0;
    }
    PyMemoryView_GET_BUFFER(view)->readonly = 1;
    PyObject *writable = decoder->top[-1];
    decoder->top[-1] = view;
    Py_DECREF(writable);
    return 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * exception_fields.c - what the interpreter's own exceptions keep in C besides their arguments.
 *
 * pickle calls the class with the arguments and trusts that this sets the fields to what they are. Mostly it does, and
 * looking costs a few comparisons; only where a field was changed afterwards is another exception made to compare with.
 */
#include "exception.h"

enum shoal_exception_family shoal__exception_family(PyTypeObject *base)
{
    const struct {
        PyObject *type;
        enum shoal_exception_family family;
    } known[] = {
        {PyExc_StopIteration, EXCEPTION_STOP},        {PyExc_SystemExit, EXCEPTION_EXIT},
        {PyExc_ImportError, EXCEPTION_IMPORT},        {PyExc_OSError, EXCEPTION_OS},
        {PyExc_SyntaxError, EXCEPTION_SYNTAX},        {PyExc_UnicodeDecodeError, EXCEPTION_UNICODE},
        {PyExc_UnicodeEncodeError, EXCEPTION_UNICODE}, {PyExc_UnicodeTranslateError, EXCEPTION_UNICODE},
        {PyExc_NameError, EXCEPTION_NAME},            {PyExc_AttributeError, EXCEPTION_ATTRIBUTE},
#if PY_VERSION_HEX >= 0x030B0000
        {PyExc_BaseExceptionGroup, EXCEPTION_GROUP},
#endif
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (PyType_IsSubtype(base, (PyTypeObject *)known[i].type))
            return known[i].family;
    return EXCEPTION_SIMPLE;
}

/* AttributeError.obj stays behind: it may be anything, and large. A group's fields are its arguments. */
static const char *const *names_of(enum shoal_exception_family family)
{
    static const char *const stop[] = {"value", NULL};
    static const char *const exit[] = {"code", NULL};
    static const char *const import[] = {"msg", "name", "path", "name_from", NULL};
    static const char *const os[] = {"errno", "strerror", "filename", "filename2", "characters_written", NULL};
    static const char *const syntax[] = {"msg", "filename", "lineno", "offset", "text", "end_lineno", "end_offset",
                                         "print_file_and_line", NULL};
    static const char *const unicode[] = {"encoding", "object", "start", "end", "reason", NULL};
    static const char *const name[] = {"name", NULL};
    static const char *const none[] = {NULL};
    switch (family) {
    case EXCEPTION_STOP:
        return stop;
    case EXCEPTION_EXIT:
        return exit;
    case EXCEPTION_IMPORT:
        return import;
    case EXCEPTION_OS:
        return os;
    case EXCEPTION_SYNTAX:
        return syntax;
    case EXCEPTION_UNICODE:
        return unicode;
    case EXCEPTION_NAME:
    case EXCEPTION_ATTRIBUTE:
        return name;
    case EXCEPTION_SIMPLE:
    case EXCEPTION_GROUP:
        break;
    }
    return none;
}

/* ---- did the call with these arguments set them? ---- */

static bool is_nothing(PyObject *field)
{
    return !field || field == Py_None;
}

static bool is_same(PyObject *field, PyObject *argument)
{
    return field == argument || (is_nothing(field) && is_nothing(argument));
}

static bool is_number(Py_ssize_t field, PyObject *argument)
{
    if (!PyLong_CheckExact(argument))
        return false;
    Py_ssize_t value = PyLong_AsSsize_t(argument);
    if (value == -1 && PyErr_Occurred()) {
        PyErr_Clear();
        return false;
    }
    return value == field;
}

static bool os_is_as_called(const PyOSErrorObject *error, PyObject *const *args, Py_ssize_t n)
{
    bool files = !is_nothing(error->filename);
    if (n < 2 || n > 5)
        return is_nothing(error->myerrno) && is_nothing(error->strerror) && !files && is_nothing(error->filename2) &&
               error->written == -1;
    if (!is_same(error->myerrno, args[0]) || !is_same(error->strerror, args[1]))
        return false;
    bool blocking = PyObject_TypeCheck((PyObject *)error, (PyTypeObject *)PyExc_BlockingIOError);
    if (n == 2) /* the names of files are added to the arguments */
        return error->written == -1 && (files || is_nothing(error->filename2)) &&
               !(blocking && files && PyNumber_Check(error->filename));
    return n == 3 && blocking && !files && is_nothing(error->filename2) && is_number(error->written, args[2]);
}

static bool syntax_is_as_called(const PySyntaxErrorObject *error, PyObject *const *args, Py_ssize_t n)
{
    PyObject *const fields[] = {error->filename, error->lineno,     error->offset,
                                error->text,     error->end_lineno, error->end_offset};
    PyObject *const *place = NULL;
    Py_ssize_t given = 0;
    if (n == 2) {
        if (!PyTuple_CheckExact(args[1]))
            return false;
        place = &PyTuple_GET_ITEM(args[1], 0);
        given = PyTuple_GET_SIZE(args[1]);
        if (given != 4 && given != 6)
            return false;
    }
    for (Py_ssize_t i = 0; i < 6; i++)
        if (!is_same(fields[i], i < given ? place[i] : NULL))
            return false;
    return is_same(error->msg, n > 0 ? args[0] : NULL) && is_nothing(error->print_file_and_line);
}

/* Encoding and object, where there are such, start, end, reason. */
static bool unicode_is_as_called(const PyUnicodeErrorObject *error, PyObject *const *args, Py_ssize_t n)
{
    if (PyObject_TypeCheck((PyObject *)error, (PyTypeObject *)PyExc_UnicodeTranslateError)) {
        if (n != 4 || !is_nothing(error->encoding) || error->object != args[0])
            return false;
    } else if (n != 5 || error->encoding != args[0] || error->object != args[1]) {
        return false;
    }
    return is_number(error->start, args[n - 3]) && is_number(error->end, args[n - 2]) && error->reason == args[n - 1];
}

bool shoal__exception_is_as_called(PyObject *error, enum shoal_exception_family family)
{
    PyObject *tuple = ((PyBaseExceptionObject *)error)->args;
    if (!tuple)
        return false;
    PyObject *const *args = &PyTuple_GET_ITEM(tuple, 0);
    Py_ssize_t n = PyTuple_GET_SIZE(tuple);
    switch (family) {
    case EXCEPTION_STOP:
        return is_same(((PyStopIterationObject *)error)->value, n > 0 ? args[0] : NULL);
    case EXCEPTION_EXIT:
        return is_same(((PySystemExitObject *)error)->code, n == 0 ? NULL : n == 1 ? args[0] : tuple);
    case EXCEPTION_IMPORT: /* it tells of its other fields in the state */
        return is_same(((PyImportErrorObject *)error)->msg, n == 1 ? args[0] : NULL);
    case EXCEPTION_OS:
        return os_is_as_called((PyOSErrorObject *)error, args, n);
    case EXCEPTION_SYNTAX:
        return syntax_is_as_called((PySyntaxErrorObject *)error, args, n);
    case EXCEPTION_UNICODE:
        return unicode_is_as_called((PyUnicodeErrorObject *)error, args, n);
    case EXCEPTION_NAME:
        return is_nothing(((PyNameErrorObject *)error)->name);
    case EXCEPTION_ATTRIBUTE: /* tells of its name from 3.12 on */
        return PY_VERSION_HEX >= 0x030C0000 || is_nothing(((PyAttributeErrorObject *)error)->name);
    case EXCEPTION_SIMPLE:
    case EXCEPTION_GROUP:
        break;
    }
    return true;
}

/* ---- as attributes ---- */

/* New reference, NULL without an exception: it has none. */
static PyObject *attribute(PyObject *obj, const char *name)
{
    PyObject *value = PyObject_GetAttrString(obj, name);
    if (!value && PyErr_ExceptionMatches(PyExc_AttributeError))
        PyErr_Clear();
    return value;
}

int shoal__exception_add_fields(PyObject *extras, PyObject *error, enum shoal_exception_family family, PyObject *like)
{
    for (const char *const *name = names_of(family); *name; name++) {
        PyObject *value = attribute(error, *name);
        PyObject *other = value && like ? attribute(like, *name) : NULL;
        bool told = value && !is_same(value, other);
        if (told && PyDict_SetItemString(extras, *name, value) < 0)
            told = false;
        Py_XDECREF(other);
        Py_XDECREF(value);
        if (PyErr_Occurred())
            return -1;
    }
    return 0;
}

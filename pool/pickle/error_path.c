/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * error_path.c - say where in the object the culprit sits.
 *
 * The way down costs nothing: no record is kept of where the pickler is. When saving a part fails, each level adds its
 * step while the exception unwinds, and the root appends the path to the exception's message. Only exceptions that
 * complain about an object's nature are touched (TypeError, AttributeError, PicklingError with one str for argument);
 * what else user code raises passes as it is. The exception object stays the same.
 */
#include "encoder.h"

enum { PATH_STEPS_MAX = 40 };

static bool is_complaint(struct shoal_encoder *e)
{
    return PyErr_ExceptionMatches(PyExc_TypeError) || PyErr_ExceptionMatches(PyExc_AttributeError) ||
           PyErr_ExceptionMatches(e->state->shared.pickling_error);
}

void shoal__path_add(struct shoal_encoder *e, const char *format, ...)
{
    if (e->path_mode == PATH_UNDECIDED) {
        Py_CLEAR(e->path);
        e->path_mode = is_complaint(e) ? PATH_COLLECT : PATH_IGNORE;
    }
    if (e->path_mode == PATH_IGNORE || (e->path && PyList_GET_SIZE(e->path) >= PATH_STEPS_MAX))
        return;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    va_list arguments;
    va_start(arguments, format);
    PyObject *step = PyUnicode_FromFormatV(format, arguments);
    va_end(arguments);
    if (!e->path)
        e->path = PyList_New(0);
    if (!step || !e->path || PyList_Append(e->path, step) < 0)
        PyErr_Clear(); /* a shorter path, then */
    Py_XDECREF(step);
    PyErr_Restore(type, value, traceback);
}

static bool is_step(PyObject *path, Py_ssize_t i, const char *opening)
{
    const char *step = i >= 0 ? PyUnicode_AsUTF8(PyList_GET_ITEM(path, i)) : NULL;
    return step && strncmp(step, opening, strlen(opening)) == 0;
}

void shoal__path_attribute(struct shoal_encoder *e)
{
    if (e->path_mode != PATH_COLLECT || !e->path)
        return;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    Py_ssize_t last = PyList_GET_SIZE(e->path) - 1;
    if ((is_step(e->path, last, "[0]") || is_step(e->path, last, "[1]")) && is_step(e->path, last - 1, "['"))
        PyList_SetSlice(e->path, last--, PY_SSIZE_T_MAX, NULL);
    if (is_step(e->path, last, "['")) {
        PyObject *step = PyList_GET_ITEM(e->path, last);
        PyObject *name = PyUnicode_Substring(step, 1, PyUnicode_GET_LENGTH(step) - 1);
        PyObject *told = name ? PyUnicode_FromFormat("attribute %U", name) : NULL;
        Py_XDECREF(name);
        if (told)
            PyList_SetItem(e->path, last, told); /* steals */
    }
    PyErr_Clear(); /* of the above: the path is then told as it is */
    PyErr_Restore(type, value, traceback);
}

/* Steps as "[3]" or "attribute 'x'", root first: the former stick to what is before them. New reference or NULL. */
static PyObject *joined(PyObject *path)
{
    PyObject *text = PyUnicode_FromString("");
    for (Py_ssize_t i = PyList_GET_SIZE(path) - 1; text && i >= 0; i--) {
        PyObject *step = PyList_GET_ITEM(path, i);
        bool sticks = PyUnicode_READ_CHAR(step, 0) == '[' || PyUnicode_GET_LENGTH(text) == 0;
        PyObject *longer = PyUnicode_FromFormat(sticks ? "%U%U" : "%U -> %U", text, step);
        Py_SETREF(text, longer);
    }
    return text;
}

/* Is it a message of pickling itself? What user code says is left as it is. */
static bool is_ours(PyObject *message)
{
    static const char *const openings[] = {"cannot pickle", "can't pickle", "Can't pickle", "Can't get local",
                                           "PickleBuffer can"};
    for (size_t i = 0; i < sizeof openings / sizeof openings[0]; i++) {
        PyObject *opening = PyUnicode_FromString(openings[i]);
        Py_ssize_t match = opening ? PyUnicode_Tailmatch(message, opening, 0, PY_SSIZE_T_MAX, -1) : 0;
        Py_XDECREF(opening);
        if (match == 1)
            return true;
    }
    return false;
}

/* Replaces exception.args by (message + path,). -1: it is not of that form, or an error. */
static int append_path(PyObject *exception, PyObject *path)
{
    PyObject *arguments = PyObject_GetAttrString(exception, "args");
    PyObject *where = NULL, *message = NULL, *replaced = NULL;
    int result = -1;
    if (!arguments || !PyTuple_Check(arguments) || PyTuple_GET_SIZE(arguments) != 1 ||
        !PyUnicode_Check(PyTuple_GET_ITEM(arguments, 0)) || !is_ours(PyTuple_GET_ITEM(arguments, 0)))
        goto out;
    where = joined(path);
    if (!where)
        goto out;
    message = PyUnicode_FromFormat("%U (at: %U)", PyTuple_GET_ITEM(arguments, 0), where);
    replaced = message ? PyTuple_Pack(1, message) : NULL;
    if (replaced)
        result = PyObject_SetAttrString(exception, "args", replaced);
out:
    Py_XDECREF(replaced);
    Py_XDECREF(message);
    Py_XDECREF(where);
    Py_XDECREF(arguments);
    return result;
}

void shoal__path_tell(struct shoal_encoder *e)
{
    if (e->path_mode != PATH_COLLECT || !e->path || PyList_GET_SIZE(e->path) == 0)
        return;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (append_path(value, e->path) < 0)
        PyErr_Clear();
    Py_CLEAR(e->path);
    PyErr_Restore(type, value, traceback);
}

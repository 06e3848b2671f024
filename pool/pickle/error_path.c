/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * error_path.c - say where in the object the culprit sits.
 *
 * The way down costs nothing: no record is kept of where the pickler is. When saving a part fails, each level adds its
 * step while the exception unwinds: a word for its kind, the object whose part it was, and which part. At the root,
 * shoal._paths makes words of the steps and of the culprit a hint, and puts them into the exception's message, or into
 * a note where the message is somebody else's. The exception object stays the same.
 *
 * Of a long way the steps next to the culprit and those next to the root are kept. Nothing that is not an Exception is
 * touched, nor is MemoryError: no memory is to be had then.
 */
#include "encoder.h"

#include <stdarg.h>

enum { KEPT_INNER = 24, KEPT_OUTER = 24 }; /* steps */

void shoal__path_forget(struct shoal_encoder *e)
{
    e->path_mode = PATH_UNDECIDED;
    e->path_length = 0;
    Py_CLEAR(e->path);
    Py_CLEAR(e->culprit);
}

/* Is the exception that is set one to be told about? Decided once, when it starts to unwind. */
static bool is_collecting(struct shoal_encoder *e)
{
    if (e->path_mode == PATH_UNDECIDED) {
        bool told = PyErr_ExceptionMatches(PyExc_Exception) && !PyErr_ExceptionMatches(PyExc_MemoryError);
        e->path_mode = told ? PATH_COLLECT : PATH_IGNORE;
    }
    return e->path_mode == PATH_COLLECT;
}

void shoal__path_culprit(struct shoal_encoder *e, PyObject *obj)
{
    if (is_collecting(e) && !e->culprit)
        e->culprit = Py_NewRef(obj);
}

/* Innermost first; beyond KEPT_INNER, the last KEPT_OUTER go round in a circle. Steals step. */
static void keep(struct shoal_encoder *e, PyObject *step)
{
    if (!e->path)
        e->path = PyList_New(0);
    if (!step || !e->path) {
        Py_XDECREF(step);
        return;
    }
    Py_ssize_t n = e->path_length;
    if (n < KEPT_INNER + KEPT_OUTER) {
        if (PyList_Append(e->path, step) == 0)
            e->path_length++;
        Py_DECREF(step);
    } else {
        PyList_SetItem(e->path, KEPT_INNER + (n - KEPT_INNER) % KEPT_OUTER, step); /* steals */
        e->path_length++;
    }
}

/* Steals detail, which may be NULL. */
static void add(struct shoal_encoder *e, const char *kind, PyObject *owner, PyObject *detail)
{
    PyObject *step = Py_BuildValue("(sOO)", kind, owner ? owner : Py_None, detail ? detail : Py_None);
    Py_XDECREF(detail);
    keep(e, step);
    PyErr_Clear(); /* it is a shorter path, then */
}

void shoal__path_step(struct shoal_encoder *e, const char *kind, PyObject *owner, PyObject *detail)
{
    if (!is_collecting(e))
        return;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    add(e, kind, owner, Py_XNewRef(detail));
    PyErr_Restore(type, value, traceback);
}

void shoal__path_index(struct shoal_encoder *e, const char *kind, PyObject *owner, Py_ssize_t index)
{
    if (!is_collecting(e))
        return;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    add(e, kind, owner, PyLong_FromSsize_t(index));
    PyErr_Restore(type, value, traceback);
}

void shoal__path_add(struct shoal_encoder *e, const char *format, ...)
{
    if (!is_collecting(e))
        return;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    va_list arguments;
    va_start(arguments, format);
    add(e, "text", NULL, PyUnicode_FromFormatV(format, arguments));
    va_end(arguments);
    PyErr_Restore(type, value, traceback);
}

/* The steps root first. `left_out` says after how many of them others are missing, and how many. */
static PyObject *root_first(struct shoal_encoder *e, Py_ssize_t *ret_after, Py_ssize_t *ret_missing)
{
    Py_ssize_t kept = e->path ? PyList_GET_SIZE(e->path) : 0, turned = 0;
    *ret_after = *ret_missing = 0;
    if (e->path_length > kept) {
        *ret_after = KEPT_OUTER;
        *ret_missing = e->path_length - kept;
        turned = (e->path_length - KEPT_INNER) % KEPT_OUTER; /* where the oldest of the circle is */
    }
    PyObject *steps = PyList_New(kept);
    for (Py_ssize_t i = 0; steps && i < kept; i++) {
        Py_ssize_t from = i < KEPT_INNER ? i : KEPT_INNER + (i - KEPT_INNER + turned) % KEPT_OUTER;
        PyList_SET_ITEM(steps, kept - 1 - i, Py_NewRef(PyList_GET_ITEM(e->path, from)));
    }
    return steps;
}

void shoal__path_tell(struct shoal_encoder *e)
{
    if (!is_collecting(e))
        return;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    Py_ssize_t after, missing;
    PyObject *steps = root_first(e, &after, &missing);
    PyObject *tell = steps ? shoal_pickle__import("shoal._paths", "tell") : NULL;
    PyObject *done = tell ? PyObject_CallFunction(tell, "OOnnOsn", value, steps, after, missing,
                                                  e->culprit ? e->culprit : Py_None, e->root ? e->root : "",
                                                  e->root_index)
                          : NULL;
    Py_XDECREF(done);
    Py_XDECREF(tell);
    Py_XDECREF(steps);
    if (!done)
        PyErr_Clear(); /* the exception goes out as it came */
    shoal__path_forget(e);
    PyErr_Restore(type, value, traceback);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * decoder_error.c - say what was being made when loading failed, and where in the stream.
 *
 * It goes into a note of the exception (Python 3.11 and later): type and text are the standard unpicklers'. A load that
 * goes well pays nothing. EOFError is left alone, it is how the end of a file is told; so is what is no Exception.
 */
#include "decoder.h"

void shoal__not_made(struct shoal_decoder *decoder, PyObject *callable)
{
    if (decoder->not_made == NULL)
        decoder->not_made = Py_NewRef(callable);
}

#if PY_VERSION_HEX >= 0x030B0000
/* New reference to a str; NULL: it has no such name. No exception. */
static PyObject *name_of(PyObject *obj, PyObject *attribute)
{
    PyObject *name = PyObject_GetAttr(obj, attribute);
    if (name == NULL || !PyUnicode_Check(name)) {
        PyErr_Clear();
        Py_CLEAR(name);
    }
    return name;
}

/* "module.name" of what was called, or NULL. */
static PyObject *full_name(const struct shoal_decoder *decoder)
{
    PyObject *name = name_of(decoder->not_made, decoder->state->names.qualname);
    PyObject *module = name == NULL ? NULL : name_of(decoder->not_made, decoder->state->names.module);
    bool short_form = module == NULL || PyUnicode_CompareWithASCIIString(module, "builtins") == 0;
    PyObject *full = short_form ? Py_XNewRef(name) : PyUnicode_FromFormat("%U.%U", module, name);
    Py_XDECREF(module);
    Py_XDECREF(name);
    return full;
}

static PyObject *make_note(const struct shoal_decoder *decoder)
{
    const struct shoal__source *source = &decoder->source;
    PyObject *made = decoder->not_made == NULL ? NULL : full_name(decoder);
    PyObject *note = NULL;
    Py_ssize_t at = source->read == NULL ? source->cursor - source->start : -1; /* of a file, this is only a part */
    if (made != NULL && at >= 0)
        note = PyUnicode_FromFormat("while making %U (byte %zd of the pickle)", made, at);
    else if (made != NULL)
        note = PyUnicode_FromFormat("while making %U", made);
    else if (at >= 0)
        note = PyUnicode_FromFormat("at byte %zd of the pickle", at);
    Py_XDECREF(made);
    return note;
}

static void add_note(const struct shoal_decoder *decoder, PyObject *error)
{
    if (!PyObject_TypeCheck(error, (PyTypeObject *)PyExc_Exception) ||
        PyErr_GivenExceptionMatches(error, PyExc_EOFError) || PyErr_GivenExceptionMatches(error, PyExc_MemoryError))
        return;
    PyObject *note = make_note(decoder);
    PyObject *done = note == NULL ? NULL : PyObject_CallMethod(error, "add_note", "O", note);
    Py_XDECREF(done);
    Py_XDECREF(note);
    PyErr_Clear(); /* of the above: then there is no note */
}
#endif

void shoal__tell_place(struct shoal_decoder *decoder)
{
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
#if PY_VERSION_HEX >= 0x030B0000
    PyErr_NormalizeException(&type, &error, &traceback);
    add_note(decoder, error);
#endif
    Py_CLEAR(decoder->not_made);
    PyErr_Restore(type, error, traceback);
}

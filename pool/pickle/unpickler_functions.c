/* SPDX-License-Identifier: BSD-3-Clause */
/* unpickler_functions.c - load and loads, and the reader's part of the module. */
#include "unpickler.h"

/* What a call of load or loads was given. All borrowed. */
struct arguments {
    PyObject *input; /* file, or data */
    struct shoal__load_options options;
};

/* One keyword argument. 0 or -1. */
static int set_option(struct arguments *arguments, const char *function, PyObject *name, PyObject *value)
{
    struct shoal__load_options *options = &arguments->options;
    const char **text;
    if (PyUnicode_CompareWithASCIIString(name, "buffers") == 0) {
        options->buffers = value;
        return 0;
    }
    if (PyUnicode_CompareWithASCIIString(name, "fix_imports") == 0) {
        int truth = PyObject_IsTrue(value);
        options->fix_imports = truth == 1;
        return truth < 0 ? -1 : 0;
    }
    if (PyUnicode_CompareWithASCIIString(name, "encoding") == 0) {
        text = &options->encoding;
    } else if (PyUnicode_CompareWithASCIIString(name, "errors") == 0) {
        text = &options->errors;
    } else {
        PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument '%U'", function, name);
        return -1;
    }
    if (!PyUnicode_Check(value)) {
        PyErr_Format(PyExc_TypeError, "%s() argument '%U' must be str, not %.50s", function, name,
                     Py_TYPE(value)->tp_name);
        return -1;
    }
    *text = PyUnicode_AsUTF8(value);
    return *text == NULL ? -1 : 0;
}

/* keyword: the name that the one positional argument may be given by, or NULL. 0 or -1. */
static int parse(const char *function, const char *keyword, PyObject *const *args, Py_ssize_t count, PyObject *names,
                 struct arguments *ret_arguments)
{
    struct arguments arguments = {
        .input = count > 0 ? args[0] : NULL,
        .options = {.fix_imports = true, .encoding = "ASCII", .errors = "strict"},
    };
    if (count > 1) {
        PyErr_Format(PyExc_TypeError, "%s() takes exactly 1 positional argument (%zd given)", function, count);
        return -1;
    }
    for (Py_ssize_t i = 0; names != NULL && i < PyTuple_GET_SIZE(names); i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);
        PyObject *value = args[count + i];
        if (keyword != NULL && arguments.input == NULL && PyUnicode_CompareWithASCIIString(name, keyword) == 0)
            arguments.input = value;
        else if (set_option(&arguments, function, name, value) < 0)
            return -1;
    }
    if (arguments.input == NULL) {
        PyErr_Format(PyExc_TypeError, "%s() missing required argument '%s' (pos 1)", function,
                     keyword == NULL ? "data" : keyword);
        return -1;
    }
    *ret_arguments = arguments;
    return 0;
}

PyDoc_STRVAR(loads_doc, "loads($module, data, /, *, fix_imports=True, encoding='ASCII', errors='strict', buffers=())\n"
                        "--\n\n"
                        "Return the object that a pickle holds. data is any bytes-like object; what follows the\n"
                        "pickle in it is ignored. Loading runs what the pickle says: never load what you do not "
                        "trust.");

/* The decoder that lies idle is taken; a loads within a loads makes another. */
static PyObject *loads(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    struct shoal_pickle_state *state = shoal_pickle_state_of_function(self);
    struct arguments arguments;
    if (state == NULL || parse("loads", NULL, args, count, names, &arguments) < 0)
        return NULL;
    struct shoal_decoder *decoder = state->idle_decoder;
    state->idle_decoder = NULL;
    if (decoder == NULL)
        decoder = shoal_decoder_new(state);
    if (decoder == NULL)
        return NULL;
    PyObject *value = shoal__decode_object(decoder, arguments.input, &arguments.options);
    if (state->idle_decoder == NULL)
        state->idle_decoder = decoder;
    else
        shoal_decoder_free(decoder);
    return value;
}

PyDoc_STRVAR(load_doc, "load($module, file, *, fix_imports=True, encoding='ASCII', errors='strict', buffers=())\n"
                       "--\n\n"
                       "Read one pickle from a binary file and return the object.\n\n"
                       "The same as Unpickler(file).load(). Loading runs what the pickle says: never load what you\n"
                       "do not trust.");

static PyObject *load(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    struct shoal_pickle_state *state = shoal_pickle_state_of_function(self);
    struct arguments arguments;
    if (state == NULL || parse("load", "file", args, count, names, &arguments) < 0)
        return NULL;
    struct shoal_decoder *decoder = shoal_decoder_new(state);
    if (decoder == NULL)
        return NULL;
    PyObject *value = NULL;
    if (shoal__source_open(decoder, arguments.input) == 0 &&
        shoal__decoder_configure(decoder, &arguments.options) == 0)
        value = shoal__decoder_load(decoder);
    shoal_decoder_free(decoder);
    return value;
}

PyMethodDef shoal__unpickler_functions[] = {
    {"load", (PyCFunction)(void (*)(void))load, METH_FASTCALL | METH_KEYWORDS, load_doc},
    {"loads", (PyCFunction)(void (*)(void))loads, METH_FASTCALL | METH_KEYWORDS, loads_doc},
    {NULL, NULL, 0, NULL},
};

int shoal_pickle__reader_init(struct shoal_pickle_state *state, PyObject *module)
{
    state->reader.memo_proxy_type = PyType_FromModuleAndSpec(module, &shoal__unpickler_memo_spec, NULL);
    state->reader.unpickler_type = PyType_FromModuleAndSpec(module, &shoal__unpickler_spec, NULL);
    if (state->reader.memo_proxy_type == NULL || state->reader.unpickler_type == NULL)
        return -1;
    if (PyModule_AddType(module, (PyTypeObject *)state->reader.unpickler_type) < 0)
        return -1;
    return shoal_pickle__add_functions(module, shoal__unpickler_functions);
}

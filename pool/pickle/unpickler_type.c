/* SPDX-License-Identifier: BSD-3-Clause */
/* unpickler_type.c - the Python type Unpickler: a decoder that reads from a file and keeps its memo between loads. */
#include "unpickler.h"

PyDoc_STRVAR(unpickler_doc, "Unpickler(file, *, fix_imports=True, encoding='ASCII', errors='strict', buffers=None)\n"
                            "--\n\n"
                            "Reads pickles of any protocol from a binary file.\n\n"
                            "file needs the methods read(n) and readline(); readinto(b) and peek(n) are used if\n"
                            "they are there. Nothing beyond the end of a pickle is consumed. buffers is an iterable\n"
                            "of the out-of-band buffers, in the order in which the pickler gave them away.\n\n"
                            "Loading runs what the pickle says: never load what you do not trust.");

static struct shoal__unpickler *as_unpickler(PyObject *self)
{
    return (struct shoal__unpickler *)self;
}

static bool is_busy(const struct shoal__unpickler *unpickler)
{
    if (unpickler->decoder == NULL || !unpickler->decoder->busy)
        return false;
    PyErr_SetString(PyExc_RuntimeError, "Unpickler object is already used");
    return true;
}

/* A decoder that reads from file: new each time, so that __init__ may be called again. NULL with an exception. */
static struct shoal_decoder *open_decoder(PyObject *self, PyObject *file, const struct shoal__load_options *options)
{
    struct shoal_pickle_state *state = shoal_pickle_state_of_type(Py_TYPE(self));
    struct shoal_decoder *decoder = state == NULL ? NULL : shoal_decoder_new(state);
    if (decoder == NULL)
        return NULL;
    decoder->unpickler = self;
    if (shoal__source_open(decoder, file) < 0 || shoal__decoder_configure(decoder, options) < 0) {
        shoal_decoder_free(decoder);
        return NULL;
    }
    return decoder;
}

static int unpickler_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"file", "fix_imports", "encoding", "errors", "buffers", NULL};
    struct shoal__unpickler *unpickler = as_unpickler(self);
    PyObject *file;
    PyObject *encoding = NULL;
    PyObject *errors = NULL;
    PyObject *buffers = NULL;
    int fix_imports = 1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$pUUO:Unpickler", keywords, &file, &fix_imports, &encoding,
                                     &errors, &buffers) ||
        is_busy(unpickler))
        return -1;
    struct shoal__load_options options = {
        .fix_imports = fix_imports != 0,
        .encoding = encoding == NULL ? "ASCII" : PyUnicode_AsUTF8(encoding),
        .errors = errors == NULL ? "strict" : PyUnicode_AsUTF8(errors),
        .buffers = buffers,
    };
    if (options.encoding == NULL || options.errors == NULL)
        return -1;
    struct shoal_decoder *decoder = open_decoder(self, file, &options);
    if (decoder == NULL)
        return -1;
    Py_XINCREF(encoding);
    Py_XSETREF(unpickler->encoding, encoding);
    Py_XINCREF(errors);
    Py_XSETREF(unpickler->errors, errors);
    struct shoal_decoder *old = unpickler->decoder;
    unpickler->decoder = decoder;
    shoal_decoder_free(old);
    return 0;
}

static int unpickler_traverse(PyObject *self, visitproc visit, void *arg)
{
    const struct shoal__unpickler *unpickler = as_unpickler(self);
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(unpickler->persistent_load);
    const struct shoal_decoder *decoder = unpickler->decoder;
    if (decoder == NULL)
        return 0;
    Py_VISIT(decoder->buffers);
    Py_VISIT(decoder->persistent_load);
    int result = shoal__source_traverse(&decoder->source, visit, arg);
    return result != 0 ? result : shoal__memo_traverse(&decoder->memo, visit, arg);
}

static int unpickler_clear(PyObject *self)
{
    struct shoal__unpickler *unpickler = as_unpickler(self);
    struct shoal_decoder *decoder = unpickler->decoder;
    unpickler->decoder = NULL;
    shoal_decoder_free(decoder);
    Py_CLEAR(unpickler->encoding);
    Py_CLEAR(unpickler->errors);
    Py_CLEAR(unpickler->persistent_load);
    return 0;
}

static void unpickler_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    unpickler_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *unpickler_find_class(PyObject *self, PyObject *args);

/* Is find_class overridden, in a subclass or in the instance? Only then it is called as a method. 1, 0 or -1. */
static int has_own_find_class(PyObject *self, const struct shoal_pickle_state *state)
{
    if ((PyObject *)Py_TYPE(self) == state->reader.unpickler_type)
        return 0;
    PyObject *method = PyObject_GetAttr(self, state->names.find_class);
    if (method == NULL)
        return -1;
    bool ours = PyCFunction_Check(method) && PyCFunction_GET_FUNCTION(method) == unpickler_find_class;
    Py_DECREF(method);
    return !ours;
}

PyDoc_STRVAR(load_doc, "load($self, /)\n--\n\nRead one pickle from the file and return the object.");

static PyObject *unpickler_load(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    const struct shoal__unpickler *unpickler = as_unpickler(self);
    struct shoal_decoder *decoder = unpickler->decoder;
    if (decoder == NULL) {
        struct shoal_pickle_state *state = shoal_pickle_state_of_type(Py_TYPE(self));
        if (state != NULL)
            PyErr_Format(state->shared.unpickling_error, "Unpickler.__init__() was not called by %s.__init__()",
                         Py_TYPE(self)->tp_name);
        return NULL;
    }
    int own_find_class = is_busy(unpickler) ? -1 : has_own_find_class(self, decoder->state);
    if (own_find_class < 0)
        return NULL;
    decoder->custom_find_class = own_find_class;
    return shoal__decoder_load(decoder);
}

PyDoc_STRVAR(find_class_doc, "find_class($self, module_name, global_name, /)\n--\n\n"
                             "Return the object that a pickle names; override it to say which ones may be loaded.");

static PyObject *unpickler_find_class(PyObject *self, PyObject *args)
{
    struct shoal_decoder *decoder = as_unpickler(self)->decoder;
    PyObject *module;
    PyObject *name;
    if (!PyArg_ParseTuple(args, "UU:find_class", &module, &name))
        return NULL;
    if (decoder == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "Unpickler.__init__() was not called");
        return NULL;
    }
    return shoal__find_global(decoder, module, name);
}

PyDoc_STRVAR(persistent_load_doc, "persistent_load($self, pid, /)\n--\n\n"
                                  "Return the object that a persistent id stands for; override it, or set it as an\n"
                                  "attribute. This one refuses all of them.");

static PyObject *unpickler_persistent_load(PyObject *self, PyObject *Py_UNUSED(pid))
{
    struct shoal_pickle_state *state = shoal_pickle_state_of_type(Py_TYPE(self));
    if (state != NULL)
        PyErr_SetString(state->shared.unpickling_error, "A load persistent id instruction was encountered, "
                                                        "but no persistent_load function was specified.");
    return NULL;
}

PyDoc_STRVAR(sizeof_doc, "__sizeof__($self, /)\n--\n\nReturn the size in memory, in bytes.");

static PyObject *unpickler_sizeof(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    const struct shoal_decoder *decoder = as_unpickler(self)->decoder;
    size_t size = (size_t)Py_TYPE(self)->tp_basicsize;
    if (decoder != NULL)
        size += sizeof(*decoder) + (size_t)(decoder->end - decoder->base) * sizeof(PyObject *) +
                decoder->mark_capacity * sizeof(*decoder->marks) + decoder->memo.capacity * sizeof(PyObject *) +
                decoder->scratch_size;
    return PyLong_FromSize_t(size);
}

/* persistent_load is a method of the class, and may be set on each instance, with or without a __dict__. */
static bool is_persistent_load(PyObject *name)
{
    return PyUnicode_Check(name) && PyUnicode_CompareWithASCIIString(name, "persistent_load") == 0;
}

static PyObject *unpickler_getattro(PyObject *self, PyObject *name)
{
    PyObject *own = as_unpickler(self)->persistent_load;
    if (own != NULL && is_persistent_load(name))
        return Py_NewRef(own);
    return PyObject_GenericGetAttr(self, name);
}

static int unpickler_setattro(PyObject *self, PyObject *name, PyObject *value)
{
    struct shoal__unpickler *unpickler = as_unpickler(self);
    if (!is_persistent_load(name))
        return PyObject_GenericSetAttr(self, name, value);
    if (value == NULL && unpickler->persistent_load == NULL) {
        PyErr_SetObject(PyExc_AttributeError, name);
        return -1;
    }
    Py_XINCREF(value);
    Py_XSETREF(unpickler->persistent_load, value);
    return 0;
}

static PyMethodDef unpickler_methods[] = {
    {"load", unpickler_load, METH_NOARGS, load_doc},
    {"find_class", unpickler_find_class, METH_VARARGS, find_class_doc},
    {"persistent_load", unpickler_persistent_load, METH_O, persistent_load_doc},
    {"__sizeof__", unpickler_sizeof, METH_NOARGS, sizeof_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef unpickler_getset[] = {
    {"memo", shoal__unpickler_get_memo, shoal__unpickler_set_memo, "the objects put so far, by number", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot unpickler_slots[] = {
    {Py_tp_doc, (void *)unpickler_doc},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_init, unpickler_init},
    {Py_tp_dealloc, unpickler_dealloc},
    {Py_tp_traverse, unpickler_traverse},
    {Py_tp_clear, unpickler_clear},
    {Py_tp_getattro, unpickler_getattro},
    {Py_tp_setattro, unpickler_setattro},
    {Py_tp_methods, unpickler_methods},
    {Py_tp_getset, unpickler_getset},
    {0, NULL},
};

PyType_Spec shoal__unpickler_spec = {
    .name = "shoal.Unpickler",
    .basicsize = sizeof(struct shoal__unpickler),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = unpickler_slots,
};

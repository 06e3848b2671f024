/* SPDX-License-Identifier: BSD-3-Clause */
#include "code.h"
#include "type_version.h"

static int import_into(PyObject **ret_object, const char *module, const char *attribute)
{
    *ret_object = shoal_pickle__import(module, attribute);
    return *ret_object ? 0 : -1;
}

PyObject *shoal_pickle__import(const char *module_name, const char *attribute)
{
    PyObject *module = PyImport_ImportModule(module_name);
    if (!module)
        return NULL;
    PyObject *found = PyObject_GetAttrString(module, attribute);
    Py_DECREF(module);
    return found;
}

/* Known to be imported completely: its spec says so, or nobody imports it. Runs no code. */
static bool is_ready(const struct shoal_pickle_state *state, PyObject *module)
{
    PyObject *key = state->names.initializing;
    PyObject *spec = PyDict_GetItemWithError(PyModule_GetDict(module), state->names.spec); /* borrowed */
    if (!spec || spec == Py_None)
        return spec == Py_None;
    if (Py_TYPE(spec)->tp_getattro != PyObject_GenericGetAttr || _PyType_Lookup(Py_TYPE(spec), key))
        return false;
    PyObject *dict = PyObject_GenericGetDict(spec, NULL);
    PyObject *flag = dict && PyDict_CheckExact(dict) ? PyDict_GetItemWithError(dict, key) : Py_True;
    bool ready = !flag || flag == Py_False;
    Py_XDECREF(dict);
    return ready && !PyErr_Occurred();
}

PyObject *shoal_pickle__get_module(const struct shoal_pickle_state *state, PyObject *name)
{
    PyObject *modules = PyImport_GetModuleDict(); /* borrowed, as what is found in it */
    PyObject *module = PyDict_CheckExact(modules) && PyUnicode_CheckExact(name) ? PyDict_GetItemWithError(modules, name)
                                                                                : NULL;
    if (module && PyModule_CheckExact(module) && is_ready(state, module))
        return Py_NewRef(module);
    PyErr_Clear();
    return PyImport_GetModule(name);
}

static int shared_init(struct shoal_state_shared *shared)
{
    const struct {
        PyObject **object;
        const char *module;
        const char *attribute;
    } wanted[] = {
        {&shared->pickling_error, "_pickle", "PicklingError"},
        {&shared->unpickling_error, "_pickle", "UnpicklingError"},
        {&shared->dispatch_table, "copyreg", "dispatch_table"},
        {&shared->extension_registry, "copyreg", "_extension_registry"},
        {&shared->inverted_registry, "copyreg", "_inverted_registry"},
        {&shared->extension_cache, "copyreg", "_extension_cache"},
        {&shared->import_2to3, "_compat_pickle", "IMPORT_MAPPING"},
        {&shared->name_2to3, "_compat_pickle", "NAME_MAPPING"},
        {&shared->import_3to2, "_compat_pickle", "REVERSE_IMPORT_MAPPING"},
        {&shared->name_3to2, "_compat_pickle", "REVERSE_NAME_MAPPING"},
        {&shared->getattr, "builtins", "getattr"},
        {&shared->partial, "functools", "partial"},
        {&shared->codecs_encode, "_codecs", "encode"},
        {&shared->chain_map, "collections", "ChainMap"},
        {&shared->import_module, "importlib", "import_module"},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++)
        if (import_into(wanted[i].object, wanted[i].module, wanted[i].attribute) < 0)
            return -1;
    return 0;
}

#if PY_VERSION_HEX < 0x030B0000

static int watched_type_init(struct shoal_pickle_state *state)
{
    PyType_Slot no_slots[] = {{0, NULL}};
    PyType_Spec spec = {.name = "shoal._ext.Watched", .basicsize = sizeof(PyObject), .slots = no_slots};
    state->shared.watched_type = PyType_FromSpec(&spec);
    return state->shared.watched_type ? 0 : -1;
}

void shoal__type_version_new_epoch(struct shoal_pickle_state *state)
{
    state->tag_epoch++;
    _PyType_Lookup((PyTypeObject *)state->shared.watched_type, state->names.class_); /* gives it a tag */
}

#else

static int watched_type_init(struct shoal_pickle_state *Py_UNUSED(state))
{
    return 0;
}

#endif

void shoal_pickle_state_set_memory_meter(struct shoal_pickle_state *state, shoal_memory_meter meter)
{
    state->memory_available = meter;
}

static int names_init(struct shoal_state_names *names)
{
    const struct {
        PyObject **name;
        const char *text;
    } wanted[] = {
        {&names->qualname, "__qualname__"},
        {&names->name, "__name__"},
        {&names->module, "__module__"},
        {&names->reduce, "__reduce__"},
        {&names->reduce_ex, "__reduce_ex__"},
        {&names->getstate, "__getstate__"},
        {&names->getnewargs, "__getnewargs__"},
        {&names->getnewargs_ex, "__getnewargs_ex__"},
        {&names->setstate, "__setstate__"},
        {&names->dict, "__dict__"},
        {&names->class_, "__class__"},
        {&names->new_, "__new__"},
        {&names->newobj, "__newobj__"},
        {&names->newobj_ex, "__newobj_ex__"},
        {&names->main, "__main__"},
        {&names->locals, "<locals>"},
        {&names->write, "write"},
        {&names->read, "read"},
        {&names->readinto, "readinto"},
        {&names->readline, "readline"},
        {&names->peek, "peek"},
        {&names->append, "append"},
        {&names->extend, "extend"},
        {&names->add, "add"},
        {&names->items, "items"},
        {&names->persistent_id, "persistent_id"},
        {&names->persistent_load, "persistent_load"},
        {&names->reducer_override, "reducer_override"},
        {&names->dispatch_table, "dispatch_table"},
        {&names->find_class, "find_class"},
        {&names->builtins, "__builtins__"},
        {&names->package, "__package__"},
        {&names->path, "__path__"},
        {&names->file, "__file__"},
        {&names->doc, "__doc__"},
        {&names->annotations, "__annotations__"},
        {&names->kwdefaults, "__kwdefaults__"},
        {&names->defaults, "__defaults__"},
        {&names->type_params, "__type_params__"},
        {&names->slots, "__slots__"},
        {&names->weakref, "__weakref__"},
        {&names->orig_bases, "__orig_bases__"},
        {&names->abc_impl, "_abc_impl"},
        {&names->initargs, "__getinitargs__"},
        {&names->contents, "cell_contents"},
        {&names->latin1, "latin1"},
        {&names->slotnames, "__slotnames__"},
        {&names->forward_arg, "__forward_arg__"},
        {&names->args, "__args__"},
        {&names->eval, "eval"},
        {&names->exec, "exec"},
        {&names->globals, "globals"},
        {&names->getattr, "__getattr__"},
        {&names->linecache, "linecache"},
        {&names->cache, "cache"},
        {&names->spec, "__spec__"},
        {&names->initializing, "_initializing"},
        {&names->init, "__init__"},
        {&names->setattr, "__setattr__"},
        {&names->cause, "__cause__"},
        {&names->context, "__context__"},
        {&names->suppress_context, "__suppress_context__"},
        {&names->notes, "__notes__"},
        {&names->exception_args, "args"},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++)
        if (!(*wanted[i].name = PyUnicode_InternFromString(wanted[i].text)))
            return -1;
    return 0;
}

int shoal_pickle_state_init(PyObject *module, struct shoal_pickle_state **ret_state)
{
    struct shoal_pickle_state *state = PyMem_Calloc(1, sizeof *state);
    if (!state) {
        PyErr_NoMemory();
        return -1;
    }
    if (shared_init(&state->shared) < 0 || names_init(&state->names) < 0 || watched_type_init(state) < 0)
        goto fail;
    state->shared.capsule = PyCapsule_New(state, SHOAL_PICKLE_STATE_ATTRIBUTE, NULL);
    if (!state->shared.capsule ||
        PyObject_SetAttrString(module, SHOAL_PICKLE_STATE_ATTRIBUTE, state->shared.capsule) < 0)
        goto fail;
    if (PyObject_SetAttrString(module, "PicklingError", state->shared.pickling_error) < 0 ||
        PyObject_SetAttrString(module, "UnpicklingError", state->shared.unpickling_error) < 0)
        goto fail;
    if (shoal_pickle__writer_init(state, module) < 0 || shoal_pickle__reader_init(state, module) < 0)
        goto fail;
    *ret_state = state;
    return 0;

fail:
    shoal_pickle_state_clear(state);
    shoal_pickle_state_free(state);
    return -1;
}

/* A section is an array of object pointers. */
static int visit_section(const void *section, size_t size, visitproc visit, void *arg)
{
    PyObject *const *objects = section;
    for (size_t i = 0; i < size / sizeof(PyObject *); i++)
        Py_VISIT(objects[i]);
    return 0;
}

static void clear_section(void *section, size_t size)
{
    PyObject **objects = section;
    for (size_t i = 0; i < size / sizeof(PyObject *); i++)
        Py_CLEAR(objects[i]);
}

int shoal_pickle_state_traverse(struct shoal_pickle_state *state, visitproc visit, void *arg)
{
    int result = visit_section(&state->shared, sizeof state->shared, visit, arg);
    if (!result)
        result = visit_section(&state->names, sizeof state->names, visit, arg);
    if (!result)
        result = visit_section(&state->writer, sizeof state->writer, visit, arg);
    if (!result)
        result = visit_section(&state->reader, sizeof state->reader, visit, arg);
    for (size_t i = 0; !result && i < SHOAL_SPECIAL_TYPES; i++)
        Py_VISIT(state->special_types[i].about);
    if (!result)
        result = visit_section(&state->classes, sizeof state->classes, visit, arg);
    if (!result)
        result = visit_section(&state->dataclasses, sizeof state->dataclasses, visit, arg);
    return result;
}

int shoal_pickle_state_clear(struct shoal_pickle_state *state)
{
    if (state->idle_encoder) {
        shoal_encoder_free(state->idle_encoder);
        state->idle_encoder = NULL;
    }
    if (state->idle_decoder) {
        shoal_decoder_free(state->idle_decoder);
        state->idle_decoder = NULL;
    }
    for (size_t i = 0; i < SHOAL_SPECIAL_TYPES; i++) {
        state->special_types[i].version = 0;
        Py_CLEAR(state->special_types[i].about);
    }
    clear_section(&state->classes, sizeof state->classes);
    clear_section(&state->dataclasses, sizeof state->dataclasses);
    shoal__known_codes_clear(state);
    shoal__kept_names_clear(state);
    clear_section(&state->reader, sizeof state->reader);
    clear_section(&state->writer, sizeof state->writer);
    clear_section(&state->names, sizeof state->names);
    clear_section(&state->shared, sizeof state->shared);
    return 0;
}

void shoal_pickle_state_free(struct shoal_pickle_state *state)
{
    if (!state)
        return;
    shoal_pickle_state_clear(state);
    shoal__large_pages_end(&state->large_pages);
    PyMem_Free(state);
}

struct shoal_pickle_state *shoal_pickle_state_of_function(PyObject *self)
{
    struct shoal_pickle_state *const *first = PyModule_GetState(self);
    if (first && *first)
        return *first;
    PyErr_SetString(PyExc_RuntimeError, "the module is not ready, or gone");
    return NULL;
}

struct shoal_pickle_state *shoal_pickle_state_of_type(PyTypeObject *type)
{
    PyObject *mro = type->tp_mro; /* borrowed: `type` is alive in our caller */
    for (Py_ssize_t i = 0; mro && i < PyTuple_GET_SIZE(mro); i++) {
        PyTypeObject *base = (PyTypeObject *)PyTuple_GET_ITEM(mro, i);
        if (!PyType_HasFeature(base, Py_TPFLAGS_HEAPTYPE) || !((PyHeapTypeObject *)base)->ht_module)
            continue;
        PyObject *capsule = PyObject_GetAttrString(((PyHeapTypeObject *)base)->ht_module, SHOAL_PICKLE_STATE_ATTRIBUTE);
        if (!capsule) {
            PyErr_Clear();
            continue;
        }
        struct shoal_pickle_state *state = PyCapsule_GetPointer(capsule, SHOAL_PICKLE_STATE_ATTRIBUTE);
        Py_DECREF(capsule);
        return state;
    }
    PyErr_SetString(PyExc_TypeError, "this type does not derive from one of Shoal's picklers");
    return NULL;
}

int shoal_pickle__add_functions(PyObject *module, PyMethodDef *methods)
{
    PyObject *name = PyObject_GetAttrString(module, "__name__");
    if (!name)
        return -1;
    int result = 0;
    for (PyMethodDef *method = methods; method->ml_name && result == 0; method++) {
        PyObject *function = PyCFunction_NewEx(method, module, name);
        result = function ? PyObject_SetAttrString(module, method->ml_name, function) : -1;
        Py_XDECREF(function);
    }
    Py_DECREF(name);
    return result;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* module.c - shoal._ext: the table of what it contains, and its state. The work is in the other files. */
#include "module.h"

#include <errno.h>

#include "engine.h"
#include "handle.h"
#include "imported.h"
#include "inbox.h"
#include "inherited.h"

struct module_state *module_state_of(PyTypeObject *type)
{
#if PY_VERSION_HEX >= 0x030B0000
    PyObject *module = PyType_GetModuleByDef(type, &shoal_ext_module);
#else
    PyObject *module = _PyType_GetModuleByDef(type, &shoal_ext_module);
#endif
    return PyModule_GetState(module);
}

int raise_error(int error, const char *what)
{
    int number = error < 0 ? -error : error;
    if (number == ENOMEM || number == EDQUOT || number == E2BIG) {
        PyErr_Format(PyExc_MemoryError, "%s: %s", what, shoal_strerror(error));
        return -1;
    }
    PyObject *text = PyUnicode_FromFormat("%s: %s", what, shoal_strerror(error));
    PyObject *exception = text == NULL ? NULL : PyObject_CallFunction(PyExc_OSError, "iN", number, text);
    if (exception != NULL)
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    Py_XDECREF(exception);
    return -1;
}

void report_unraisable(PyObject *where)
{
    if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt)) { /* not ours to swallow: the main thread gets it again */
        PyErr_Clear();
        PyErr_SetInterrupt();
        return;
    }
    PyErr_WriteUnraisable(where);
}

int module_add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **ret_type, const char *name)
{
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
    if (type == NULL)
        return -1;
    *ret_type = (PyTypeObject *)type;
    return PyModule_AddObjectRef(module, name, type);
}

static PyObject *module_configure(PyObject *module, PyObject *args, PyObject *kwargs)
{
    struct module_state *state = PyModule_GetState(module);
    static char *names[] = {"worker_lost",    "task_error",   "forking_reducers", "pool_broken", "handle_type",
                            "handle_reducer", "make_carried", "opener",           "sweeper",     "task_timeout",
                            "hear",           NULL};
    enum { COUNT = sizeof names / sizeof names[0] - 1, REDUCERS = 2 };
    PyObject **const places[COUNT] = {&state->worker_lost, &state->task_error, &state->forking_reducers,
                                      &state->pool_broken, &state->handle_type, &state->handle_reducer,
                                      &state->make_carried, &state->opener, &state->sweeper,
                                      &state->task_timeout, &state->hear};
    PyObject *given[COUNT] = {NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$OOO!OOOOOOOO:configure", names, &given[0], &given[1],
                                     &PyDict_Type, &given[REDUCERS], &given[3], &given[4], &given[5], &given[6],
                                     &given[7], &given[8], &given[9], &given[10]))
        return NULL;
    for (int i = 0; i < COUNT; i++) {
        if (given[i] != NULL)
            Py_XSETREF(*places[i], Py_NewRef(given[i]));
    }
    Py_RETURN_NONE;
}

static PyObject *module_serving(PyObject *module, PyObject *Py_UNUSED(unused))
{
    struct module_state *state = PyModule_GetState(module);
    return Py_NewRef(state->serving != NULL ? (PyObject *)state->serving : Py_None);
}

static PyObject *module_in_worker(PyObject *module, PyObject *Py_UNUSED(unused))
{
    struct module_state *state = PyModule_GetState(module);
    return PyBool_FromLong(state->serving != NULL);
}

static PyObject *module_code_globals(PyObject *module, PyObject *code)
{
    struct module_state *state = PyModule_GetState(module);
    if (!PyCode_Check(code)) {
        PyErr_SetString(PyExc_TypeError, "_code_globals() takes a code object");
        return NULL;
    }
    return shoal_code_globals(state->pickle, code);
}

static PyObject *module_before_fork(PyObject *module, PyObject *Py_UNUSED(unused))
{
    threads_join_ended(PyModule_GetState(module));
    Py_RETURN_NONE;
}

static int register_at_fork(PyObject *module)
{
    if (fork_hooks_add(module) < 0)
        return -1;
    PyObject *os = PyImport_ImportModule("os");
    PyObject *hook = os == NULL ? NULL : PyObject_GetAttrString(os, "register_at_fork");
    PyObject *before = PyObject_GetAttrString(module, "_before_fork");
    PyObject *after = before == NULL ? NULL : PyObject_GetAttrString(module, "_after_fork_child");
    PyObject *args = PyTuple_New(0);
    PyObject *kwargs = after == NULL ? NULL : Py_BuildValue("{sOsO}", "before", before, "after_in_child", after);
    PyObject *result = hook == NULL || args == NULL || kwargs == NULL ? NULL : PyObject_Call(hook, args, kwargs);
    int error = result == NULL ? -1 : 0;
    Py_XDECREF(os);
    Py_XDECREF(hook);
    Py_XDECREF(before);
    Py_XDECREF(after);
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
    Py_XDECREF(result);
    return error;
}

/* Before anything else is made: what forks, signals and the by-value tables rest on is one for the process. */
static int refuse_subinterpreters(void)
{
    if (PyInterpreterState_Get() == PyInterpreterState_Main())
        return 0;
    PyErr_SetString(PyExc_ImportError,
                    "shoal works in the main interpreter only: pools fork and watch processes, which belong to the "
                    "whole process. Import it there, or run this code in a process of its own");
    return -1;
}

static int module_exec(PyObject *module)
{
    if (refuse_subinterpreters() < 0)
        return -1;
    struct module_state *state = PyModule_GetState(module);
    state->str_flags = PyUnicode_InternFromString("flags");
    state->str_writeable = PyUnicode_InternFromString("writeable");
    state->str_base = PyUnicode_InternFromString("base");
    if (state->str_flags == NULL || state->str_writeable == NULL || state->str_base == NULL ||
        shoal_pickle_state_init(module, &state->pickle) < 0 ||
        module_add_type(module, &block_spec, &state->block_type, "Block") < 0 ||
        module_add_type(module, &view_spec, &state->view_type, "View") < 0 ||
        module_add_type(module, &item_spec, &state->item_type, "Item") < 0 ||
        module_add_type(module, &group_spec, &state->group_type, "Group") < 0 ||
        module_add_type(module, &inherited_spec, &state->inherited_type, "Inherited") < 0 ||
        module_add_type(module, &imported_spec, &state->imported_type, "Imported") < 0 ||
        module_add_type(module, &engine_spec, &state->engine_type, "Engine") < 0 ||
        module_add_type(module, &submitter_spec, &state->submitter_type, "Submitter") < 0 ||
        module_add_type(module, &inbox_spec, &state->inbox_type, "Inbox") < 0 ||
        PyModule_AddFunctions(module, handle_methods) < 0)
        return -1;
    shoal_pickle_state_set_memory_meter(state->pickle, shoal_memory_available);
    static const char *const modes[] = {"LIST", "ORDERED", "UNORDERED"}; /* as enum group_mode */
    for (long mode = 0; mode < 3; mode++) {
        PyObject *value = PyLong_FromLong(mode);
        int error = value == NULL ? -1 : PyObject_SetAttrString((PyObject *)state->group_type, modes[mode], value);
        Py_XDECREF(value);
        if (error < 0)
            return -1;
    }
    if (PyModule_AddStringConstant(module, "__version__", SHOAL_VERSION) < 0)
        return -1;
    return register_at_fork(module);
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    struct module_state *state = PyModule_GetState(module);
    if (state == NULL)
        return 0;
    Py_VISIT(state->engine_type);
    Py_VISIT(state->item_type);
    Py_VISIT(state->submitter_type);
    Py_VISIT(state->inbox_type);
    Py_VISIT(state->group_type);
    Py_VISIT(state->block_type);
    Py_VISIT(state->view_type);
    Py_VISIT(state->inherited_type);
    Py_VISIT(state->imported_type);
    Py_VISIT(state->worker_lost);
    Py_VISIT(state->task_error);
    Py_VISIT(state->task_timeout);
    Py_VISIT(state->hear);
    Py_VISIT(state->forking_reducers);
    Py_VISIT(state->pool_broken);
    Py_VISIT(state->handle_type);
    Py_VISIT(state->handle_reducer);
    Py_VISIT(state->make_carried);
    Py_VISIT(state->opener);
    Py_VISIT(state->sweeper);
    Py_VISIT(state->free_in_children);
    return state->pickle == NULL ? 0 : shoal_pickle_state_traverse(state->pickle, visit, arg);
}

static int module_clear(PyObject *module)
{
    struct module_state *state = PyModule_GetState(module);
    if (state == NULL)
        return 0;
    Py_CLEAR(state->worker_lost);
    Py_CLEAR(state->task_error);
    Py_CLEAR(state->task_timeout);
    Py_CLEAR(state->hear);
    Py_CLEAR(state->forking_reducers);
    Py_CLEAR(state->pool_broken);
    Py_CLEAR(state->handle_type);
    Py_CLEAR(state->handle_reducer);
    Py_CLEAR(state->make_carried);
    Py_CLEAR(state->opener);
    Py_CLEAR(state->sweeper);
    Py_CLEAR(state->free_in_children);
    return state->pickle == NULL ? 0 : shoal_pickle_state_clear(state->pickle);
}

static void module_free(void *module)
{
    struct module_state *state = PyModule_GetState(module);
    if (state == NULL)
        return;
    module_clear(module);
    threads_forget(state, true);
    Py_CLEAR(state->engine_type);
    Py_CLEAR(state->item_type);
    Py_CLEAR(state->submitter_type);
    Py_CLEAR(state->inbox_type);
    Py_CLEAR(state->group_type);
    Py_CLEAR(state->block_type);
    Py_CLEAR(state->view_type);
    Py_CLEAR(state->inherited_type);
    Py_CLEAR(state->imported_type);
    Py_CLEAR(state->str_flags);
    Py_CLEAR(state->str_writeable);
    Py_CLEAR(state->str_base);
    if (state->pickle != NULL)
        shoal_pickle_state_free(state->pickle);
    state->pickle = NULL;
    home_release(state->home);
    state->home = NULL;
}

static PyMethodDef module_methods[] = {
    {"configure", (PyCFunction)(void (*)(void))module_configure, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("configure($module, /, *, worker_lost=..., task_error=..., forking_reducers=..., pool_broken=...,\n"
               "          handle_type=..., handle_reducer=..., make_carried=..., opener=..., sweeper=...,\n"
               "          task_timeout=..., hear=...)\n"
               "--\n\n"
               "Hand in the Python layer's exceptions, the live table of ForkingPickler's reducers, and what handles\n"
               "of shared objects need.")},
    {"attach", module_attach, METH_VARARGS,
     PyDoc_STR("attach($module, handover, descriptors, index, /)\n--\n\n"
               "In worker `index`, which was not forked from the pool's process: its Engine, for work() only. The\n"
               "arguments are what Engine.handover() gave there; the descriptors stay the caller's.")},
    {"info", module_info, METH_NOARGS,
     PyDoc_STR("info($module, /)\n--\n\nWhat was found on this machine, as a dict.")},
    {"_stop_wanted", module_stop_wanted, METH_NOARGS,
     PyDoc_STR("_stop_wanted($module, /)\n--\n\n"
               "In a worker's handler of the signal: is what runs to be stopped? How long it ran, or None; once.")},
    {"_stop_missed", module_stop_missed, METH_VARARGS,
     PyDoc_STR("_stop_missed($module, stopped, others, unraisable, /)\n--\n\n"
               "A worker's sys.unraisablehook: what was raised to stop the task (of type `stopped`) is raised again,\n"
               "all else is for the hook `others`.")},
    {"_task_item", module_task_item, METH_NOARGS,
     PyDoc_STR("_task_item($module, /)\n--\n\n"
               "In a worker: the index of the element that it is at, of a map-like call.")},
    {"_serving", module_serving, METH_NOARGS,
     PyDoc_STR("_serving($module, /)\n--\n\nIn a worker: the Engine that it serves; else None.")},
    {"in_worker", module_in_worker, METH_NOARGS,
     PyDoc_STR("in_worker($module, /)\n--\n\nTrue in a worker process of a pool.")},
    {"_code_globals", module_code_globals, METH_O,
     PyDoc_STR("_code_globals($module, code, /)\n--\n\n"
               "The global names that a code object, or code nested in it, uses: a tuple.")},
    {"_free_in_children", module_free_in_children, METH_O,
     PyDoc_STR("_free_in_children($module, lock, /)\n--\n\n"
               "In each child that is forked, free this RLock, if another thread than the one that forked held it.")},
    {"_before_fork", module_before_fork, METH_NOARGS, PyDoc_STR("Registered with os.register_at_fork.")},
    {"_after_fork_child", module_after_fork_child, METH_NOARGS, PyDoc_STR("Registered with os.register_at_fork.")},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#ifdef Py_mod_multiple_interpreters
    /* Any may ask, so that it is module_exec that refuses and says why; Python's own refusal names no reason. */
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
    {0, NULL},
};

struct PyModuleDef shoal_ext_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "shoal._ext",
    .m_doc = "The C core of shoal: engine, pickler and arena. Its Python face is the package shoal.",
    .m_size = sizeof(struct module_state),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__ext(void)
{
    return PyModuleDef_Init(&shoal_ext_module);
}

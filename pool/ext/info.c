/* SPDX-License-Identifier: BSD-3-Clause */
/* info.c - what was found on this machine: shoal._ext.info(). */
#include <sys/utsname.h>

#include "home.h"

static int add(PyObject *dict, const char *name, PyObject *value)
{
    int error = value == NULL ? -1 : PyDict_SetItemString(dict, name, value);
    Py_XDECREF(value);
    return error;
}

static PyObject *doorbells(void)
{
    static const enum shoal_doorbell_kind kinds[] = {SHOAL_DOORBELL_URING, SHOAL_DOORBELL_URING_EVENTFD,
                                                     SHOAL_DOORBELL_SEMAPHORE};
    PyObject *result = PyDict_New();
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0] && result != NULL; i++) {
        char reason[256] = "ok";
        if (shoal_doorbell_probe(kinds[i], reason, sizeof reason) >= 0)
            snprintf(reason, sizeof reason, "ok");
        if (add(result, shoal_doorbell_kind_name(kinds[i]), PyUnicode_FromString(reason)) < 0)
            Py_CLEAR(result);
    }
    return result;
}

PyObject *module_info(PyObject *module, PyObject *Py_UNUSED(unused))
{
    struct module_state *state = PyModule_GetState(module);
    struct home *home = home_get(state);
    if (home == NULL)
        return NULL;
    struct shoal_arena_stats stats;
    shoal_arena_get_stats(home->arena, &stats);
    uint64_t available = 0;
    shoal_memory_available(&available);
    enum shoal_doorbell_kind kind;
    const char *chosen = "none";
    if (shoal_doorbell_choose(&kind) >= 0)
        chosen = shoal_doorbell_kind_name(kind);
    struct utsname system;
    uname(&system);
    PyObject *result = Py_BuildValue(
        "{sssssssKsKsKsKsK}", "version", shoal_version(), "kernel", system.release, "doorbell", chosen, "region_bytes",
        shoal_region_size(home->region), "arena_budget_bytes", home->budget_bytes, "arena_used_bytes", stats.used_bytes,
        "arena_cached_bytes", stats.cached_bytes, "memory_available_bytes", available);
    if (result != NULL && add(result, "doorbells", doorbells()) < 0)
        Py_CLEAR(result);
    return result;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* home.c - see home.h. */
#include "directory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HOME_BYTES_MIN (UINT64_C(64) << 20)
#define IDLE_NS INT64_C(10000000000)
#define GIVE_BACK_STEP_BYTES (UINT64_C(32) << 20) /* some ms */

/* "64M", "2G", "100000": bytes with an optional binary suffix. 0 and an exception on nonsense. */
static uint64_t parse_bytes(const char *text)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    unsigned shift = 0;
    switch (*end) {
    case 'k': case 'K': shift = 10; end++; break;
    case 'm': case 'M': shift = 20; end++; break;
    case 'g': case 'G': shift = 30; end++; break;
    case 't': case 'T': shift = 40; end++; break;
    default: break;
    }
    if (errno != 0 || end == text || *end != '\0' || value == 0 || *text == '-' || value > (UINT64_MAX >> shift)) {
        PyErr_Format(PyExc_ValueError, "SHOAL_ARENA_LIMIT=%s: expected a number of bytes such as 512M or 4G", text);
        return 0;
    }
    return (uint64_t)value << shift;
}

/* "10", "0.5": seconds. -1 and an exception on nonsense. */
static int64_t parse_seconds(const char *text)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= 0 && value < 1e9)) {
        PyErr_Format(PyExc_ValueError, "SHOAL_ARENA_IDLE=%s: expected a number of seconds such as 10 or 0.5", text);
        return -1;
    }
    return value < 0.01 ? 10000000 : (int64_t)(value * 1e9); /* not a busy loop */
}

/* Address space is free, memory is not: as much as the machine has, less where a limit on address space forbids it. */
static int region_of_fitting_size(struct shoal_region **ret_region)
{
    long pages = sysconf(_SC_PHYS_PAGES);
    uint64_t size = HOME_BYTES_MIN;
    while (pages > 0 && size < (uint64_t)pages * 4096)
        size <<= 1;
    for (;;) {
        int error = shoal_region_create(size, ret_region);
        if (error != -ENOMEM || size <= HOME_BYTES_MIN)
            return error;
        size >>= 1;
    }
}

static struct home *home_new(struct module_state *state)
{
    uint64_t limit = 0;
    int64_t idle_ns = IDLE_NS;
    const char *text = getenv("SHOAL_ARENA_LIMIT");
    if (text != NULL && *text != '\0' && (limit = parse_bytes(text)) == 0)
        return NULL;
    text = getenv("SHOAL_ARENA_IDLE");
    if (text != NULL && *text != '\0' && (idle_ns = parse_seconds(text)) < 0)
        return NULL;
    struct home *home = PyMem_Calloc(1, sizeof *home);
    if (home == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    int error = region_of_fitting_size(&home->region);
    if (error < 0) {
        raise_error(error, "cannot make the shared region");
        goto fail;
    }
    uint64_t before = SHOAL_REGION_HEADER_BYTES + DIRECTORY_BYTES;
    error = shoal_arena_create(home->region, before, shoal_region_size(home->region) - before, limit, &home->arena);
    if (error < 0) {
        raise_error(error, "cannot make the arena");
        goto fail;
    }
    struct shoal_arena_stats stats;
    shoal_arena_get_stats(home->arena, &stats);
    home->budget_bytes = stats.budget_bytes;
    home->idle_ns = idle_ns;
    home->hopeless_reads = UINT64_MAX;
    home->epoch = state->fork_epoch;
    home->references = 1;
    return home;
fail:
    shoal_region_free(home->region);
    PyMem_Free(home);
    return NULL;
}

struct home *home_get(struct module_state *state)
{
    if (state->home == NULL)
        state->home = home_new(state);
    return state->home;
}

struct home *home_attach(struct module_state *state, int region_fd)
{
    struct home *home = PyMem_Calloc(1, sizeof *home);
    if (home == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    int error = shoal_region_open_fd(region_fd, &home->region);
    if (error < 0) {
        raise_error(error, "cannot map the shared region");
        PyMem_Free(home);
        return NULL;
    }
    home->epoch = state->fork_epoch - 1;
    home->references = 1;
    return home;
}

struct home *home_retain(struct home *home)
{
    home->references++;
    return home;
}

void home_release(struct home *home)
{
    if (home == NULL || --home->references > 0)
        return;
    shoal_arena_free(home->arena);
    shoal_shadow_free(home->shadow);
    shoal_region_free(home->region);
    PyMem_Free(home);
}

uint64_t home_cached_bytes(const struct home *home)
{
    struct shoal_arena_stats stats = {0};
    if (home->arena != NULL)
        shoal_arena_get_stats(home->arena, &stats);
    return stats.cached_bytes;
}

void home_give_back(struct home *home)
{
    uint64_t uses = home->uses, cached = home_cached_bytes(home), before;
    home->references++; /* the pool may end in between */
    do {
        before = cached;
        shoal_arena_trim(home->arena, cached > GIVE_BACK_STEP_BYTES ? cached - GIVE_BACK_STEP_BYTES : 0);
        cached = home_cached_bytes(home);
        Py_BEGIN_ALLOW_THREADS
        Py_END_ALLOW_THREADS
    } while (cached > 0 && cached < before && home->uses == uses);
    home_release(home);
}

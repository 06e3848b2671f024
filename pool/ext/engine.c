/* SPDX-License-Identifier: BSD-3-Clause */
/* engine.c - may an engine be used, and its making. See engine.h. */
#include "engine.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>

#define WORKERS_MAX 1000
#define ROOM_OF_EVENTFDS 6

/* ---- may it be used? ---- */

int engine_check_process(struct engine *engine)
{
    if (engine->epoch == engine->state->fork_epoch)
        return 0;
    PyErr_SetString(PyExc_RuntimeError,
                    "this pool belongs to the process that made it, not to its forked children: make a pool here");
    return -1;
}

PyObject *engine_reason(struct engine *engine)
{
    PyObject *reason = engine->broken != NULL ? engine->broken : engine->terminated;
    if (reason == NULL)
        reason = engine->abandoned;
    if (reason == NULL)
        return PyObject_CallFunction(PyExc_ValueError, "s", "Pool not running");
    if (engine->broken != NULL && engine->state->pool_broken != NULL)
        return PyObject_CallOneArg(engine->state->pool_broken, reason);
    return Py_NewRef(reason);
}

int engine_check(struct engine *engine)
{
    if (engine_check_process(engine) < 0)
        return -1;
    if (engine->open && !engine->closed && !engine->dead && engine->broken == NULL && engine->terminated == NULL)
        return 0;
    /* A lazy group may pull the rest of its input while the pool is closed and joined. */
    if (engine->open && engine->closed && engine->groups != NULL && !engine->dead && engine->broken == NULL &&
        engine->terminated == NULL)
        return 0;
    PyObject *reason = engine_reason(engine);
    if (reason != NULL)
        PyErr_SetObject((PyObject *)Py_TYPE(reason), reason);
    Py_XDECREF(reason);
    return -1;
}

int engine_check_quietly(struct engine *engine)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    int result = engine_check(engine);
    PyErr_Restore(type, value, traceback);
    return result;
}

/* ---- making ---- */

struct shoal_taskqueue_config engine_config(const struct engine *engine)
{
    return (struct shoal_taskqueue_config){
        .slot_count = ENGINE_SLOTS,
        .worker_count = engine->worker_max,
        .doorbell = engine->doorbell,
        .spin_ns = -1,
    };
}

struct engine_places engine_places(const struct shoal_taskqueue_config *config)
{
    struct engine_places places;
    places.tasks = (shoal_taskqueue_footprint(config) + 4095) & ~UINT64_C(4095);
    places.rings = places.tasks + TASK_RING_BYTES;
    places.worker_bytes = shoal_ring_footprint(RESULT_RING_BYTES) + shoal_ring_footprint(ORDER_RING_BYTES);
    return places;
}

static int make_shared(struct engine *engine)
{
    struct shoal_taskqueue_config config = engine_config(engine);
    struct engine_places places = engine_places(&config);
    engine->control_bytes = places.rings + engine->worker_count * places.worker_bytes;
    struct home *home = engine->home;
    int error = shoal_arena_alloc(home->arena, engine->control_bytes, &engine->control);
    if (error == -EDQUOT || error == -E2BIG) {
        PyErr_Format(PyExc_MemoryError,
                     "a pool of %u workers needs %llu bytes of shared memory, the arena's budget is %llu: raise "
                     "SHOAL_ARENA_LIMIT", engine->worker_count, (unsigned long long)engine->control_bytes,
                     (unsigned long long)home->budget_bytes);
        return -1;
    }
    if (error < 0)
        return raise_error(error, "no shared memory for the pool");
    shoal_arena_uncharge(home->arena, engine->control); /* the budget is for what is in flight */
    error = shoal_taskqueue_create(home->region, engine->control, &config, &engine->queue);
    if (error < 0)
        return raise_error(error, "cannot make the task queue");
    meters_open(engine);
    engine->tasks.offset = engine->control + places.tasks;
    void *base;
    error = shoal_region_mirror(home->region, engine->tasks.offset, TASK_RING_BYTES, &base);
    if (error < 0)
        return raise_error(error, "cannot map the task ring");
    engine->tasks.base = base;
    shoal_taskqueue_set_active(engine->queue, engine->worker_count);
    for (unsigned i = 0; i < engine->worker_count; i++) {
        engine->workers[i].rings = engine->control + places.rings + i * places.worker_bytes;
        if (resize_make_rings(engine, i) < 0)
            return -1;
    }
    return 0;
}

static int make_private(struct engine *engine)
{
    engine->workers = PyMem_Calloc(engine->worker_max, sizeof *engine->workers);
    engine->entries = PyMem_Calloc(ENGINE_SLOTS, sizeof *engine->entries);
    engine->tasks.records = PyMem_Calloc(2 * ENGINE_SLOTS, sizeof *engine->tasks.records);
    engine->encoder = shoal_encoder_new(engine->state->pickle);
    engine->decoder = shoal_decoder_new(engine->state->pickle);
    if (engine->workers == NULL || engine->entries == NULL || engine->tasks.records == NULL ||
        engine->encoder == NULL || engine->decoder == NULL) {
        if (!PyErr_Occurred())
            PyErr_NoMemory();
        return -1;
    }
    for (unsigned i = 0; i < engine->worker_max; i++) {
        engine->workers[i].peer = (struct shoal_peer){.pid = 0, .pidfd = -1};
        engine->workers[i].status_fd = -1;
        engine->workers[i].rings = HOME_NO_BLOCK;
    }
    engine->progress_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (engine->progress_fd < 0)
        return raise_error(-errno, "cannot make an eventfd");
    int error = shoal_lifeline_create(&engine->lifeline);
    return error < 0 ? raise_error(error, "cannot make the pipe that ends the workers with us") : 0;
}

void engine_init(struct engine *engine, struct module_state *state, uint64_t epoch)
{
    engine->state = state;
    engine->module = Py_NewRef(PyType_GetModule(state->engine_type));
    engine->epoch = epoch;
    engine->control = HOME_NO_BLOCK;
    engine->backlog_end = &engine->backlog;
    engine->finished_end = &engine->finished;
    engine->said_end = &engine->said;
    engine->progress_fd = -1;
    engine->limits_ns = INT64_MAX;
    engine->progress_until_ns = INT64_MIN;
    engine->forking_index = -1;
    engine->lifeline = (struct shoal_lifeline){.read_fd = -1, .write_fd = -1};
    engine->next = state->engines;
    state->engines = engine;
}

/* So many workers there can ever be. Where bells are descriptors, all workers have all of them: not too many, then. */
static unsigned room_for(Py_ssize_t workers, Py_ssize_t asked, enum shoal_doorbell_kind kind)
{
    Py_ssize_t room = asked < workers ? workers : asked < WORKERS_MAX ? asked : WORKERS_MAX;
    if (kind == SHOAL_DOORBELL_URING_EVENTFD && room > 2 * workers + ROOM_OF_EVENTFDS)
        room = 2 * workers + ROOM_OF_EVENTFDS;
    return (unsigned)(room < WORKERS_MAX ? room : WORKERS_MAX);
}

PyObject *engine_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"workers", "start", "max_tasks", "task_error", "room", NULL};
    Py_ssize_t workers, room = 0;
    PyObject *start, *task_error = NULL;
    unsigned int max_tasks = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "nO|IOn:Engine", names, &workers, &start, &max_tasks,
                                     &task_error, &room))
        return NULL;
    if (workers < 1 || workers > WORKERS_MAX) {
        PyErr_Format(PyExc_ValueError, "the number of workers must be between 1 and %d, not %zd", WORKERS_MAX, workers);
        return NULL;
    }
    struct module_state *state = module_state_of(type);
    struct home *home = home_get(state);
    if (home == NULL)
        return NULL;
    enum shoal_doorbell_kind kind;
    int error = shoal_doorbell_choose(&kind);
    if (error < 0) {
        const char *forced = getenv("SHOAL_DOORBELL");
        char what[256];
        snprintf(what, sizeof what, "no usable doorbell (SHOAL_DOORBELL=%s)", forced == NULL ? "" : forced);
        raise_error(error, what);
        return NULL;
    }
    struct engine *engine = (struct engine *)type->tp_alloc(type, 0);
    if (engine == NULL)
        return NULL;
    engine_init(engine, state, state->fork_epoch);
    engine->home = home_retain(home);
    engine->start = Py_NewRef(start);
    engine->task_error = Py_XNewRef(task_error != NULL && task_error != Py_None ? task_error : state->task_error);
    engine->worker_count = engine->worker_target = engine->worker_most = (unsigned)workers;
    engine->worker_max = room_for(workers, room, kind);
    engine->max_tasks = max_tasks;
    engine->doorbell = kind;
    if (make_private(engine) < 0 || resize_choose_holders(engine, 0, engine->worker_count) < 0 ||
        make_shared(engine) < 0) {
        Py_DECREF(engine);
        return NULL;
    }
    return (PyObject *)engine;
}

PyObject *engine_start(struct engine *engine, PyObject *args)
{
    PyObject *several = NULL;
    if (!PyArg_ParseTuple(args, "|O:start", &several) || engine_check_process(engine) < 0)
        return NULL;
    if (several != NULL && engine->worker_count > 1 && engine_start_several(engine, several) < 0)
        return NULL;
    for (unsigned i = 0; i < engine->worker_count; i++) {
        if (engine->workers[i].peer.pidfd < 0 && engine_start_worker(engine, i) < 0)
            return NULL;
    }
    engine->open = true;
    Py_RETURN_NONE;
}

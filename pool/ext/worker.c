/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * worker.c - the loop in the child.
 *
 *     claim a task -> read it in place -> start (from here on it counts as run) -> call -> hand the result in
 *
 * Nothing to do: spin or sleep in the task queue. What the parent alone writes is read-only here, so that a stray write
 * of user code hits our own results at most. The parent's death ends us through the lifeline, even in a busy task.
 */
#include "worker.h"

#include "handle.h"
#include "say.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <shoal/killpoint.h>

static bool orders_there(void *arg)
{
    return shoal_ring_used(((struct worker_side *)arg)->own->orders) > 0;
}

/* ---- tasks ---- */

static void call_begins(struct engine *engine, PyObject *function)
{
    struct worker_side *side = engine->side;
    if (side->trace.on)
        trace_started(engine, function);
    else if (!side->meter.timing)
        meter_name(&side->meter, function);
}

static void call_ended(struct engine *engine, PyObject *function)
{
    struct worker_side *side = engine->side;
    if (side->meter.timing)
        meter_ran(engine, function);
    if (side->trace.on)
        trace_ended(engine);
}

static PyObject *call_triple(struct engine *engine, PyObject *triple)
{
    if (!PyTuple_CheckExact(triple) || PyTuple_GET_SIZE(triple) != 3 || !PyTuple_Check(PyTuple_GET_ITEM(triple, 1))) {
        raise_damaged(NULL, "this is not a call");
        return NULL;
    }
    PyObject *function = PyTuple_GET_ITEM(triple, 0), *kwargs = PyTuple_GET_ITEM(triple, 2), *dict = NULL;
    if (kwargs != Py_None && !PyDict_Check(kwargs)) { /* a mapping */
        kwargs = dict = PyObject_CallOneArg((PyObject *)&PyDict_Type, kwargs);
        if (dict == NULL)
            return NULL;
    }
    call_begins(engine, function);
    PyObject *result = PyObject_Call(function, PyTuple_GET_ITEM(triple, 1), kwargs == Py_None ? NULL : kwargs);
    call_ended(engine, function);
    Py_XDECREF(dict);
    return result;
}

/* -1: the task was taken away from us. */
static int start(struct engine *engine)
{
    return shoal_taskqueue_start(engine->queue, engine->side->index, &engine->side->claim) < 0 ? -1 : 0;
}

static void abandon(struct engine *engine)
{
    PyErr_Clear();
    stop_settle(engine);
    engine->side->meter.timing = false;
    engine->side->meter.items = 0;
    input_end(engine, HOME_NO_BLOCK, NULL);
}

/*
 * A task forked, and its child has come back out of the task: it must not answer in the worker's place. It ends as a
 * forked child does that reaches the end of its program.
 */
static void leave_as_child(void)
{
    int code = 0;
    if (PyErr_ExceptionMatches(PyExc_SystemExit)) {
        PyObject *exit = owner_fetch_exception();
        PyObject *value = exit == NULL ? NULL : PyObject_GetAttrString(exit, "code");
        code = value == NULL || value == Py_None ? 0 : PyLong_Check(value) ? (int)PyLong_AsLong(value) : 1;
    } else if (PyErr_Occurred()) {
        PyErr_Print();
        code = 1;
    }
    PyErr_Clear();
    static const char *const names[] = {"stdout", "stderr"};
    for (int i = 0; i < 2; i++) {
        PyObject *stream = PySys_GetObject(names[i]); /* borrowed */
        PyObject *flushed = stream == NULL ? NULL : PyObject_CallMethod(stream, "flush", NULL);
        Py_XDECREF(flushed);
        PyErr_Clear();
    }
    _exit(code);
}

/* Steals both. */
static inline void answer(struct engine *engine, uint32_t item, bool last, PyObject *result, PyObject *arguments)
{
    if (engine->state->serving != engine)
        leave_as_child();
    SHOAL_KILL_POINT("task: called");
    if (result != NULL && engine->side->raised) { /* it caught what was to end it */
        Py_CLEAR(result);
        PyErr_SetNone(PyExc_TimeoutError);
    }
    if (result != NULL && !last && result_add(engine, item, result)) {
        Py_DECREF(result);
        Py_DECREF(arguments);
    } else if (result == NULL) {
        result_send_error(engine, item, last, "call", arguments);
    } else if (result_send(engine, RECORD_VALUE, item, last, result, arguments) < 0) {
        result_send_error(engine, item, last, "result", NULL);
    }
}

static PyObject *call_apart(PyObject *function, PyObject *args)
{
    if (!PyTuple_CheckExact(args)) {
        raise_damaged(NULL, "this is not a call");
        return NULL;
    }
    return PyObject_Call(function, args, NULL);
}

/* input_next, and the handles that are to be are opened. */
static inline PyObject *next_opened(struct engine *engine, enum handle_place place)
{
    PyObject *object = input_next(engine);
    if (object != NULL && engine->state->handle_arrived)
        object = handles_open(engine, object, place);
    return object;
}

static void serve_call(struct engine *engine)
{
    struct worker_side *side = engine->side;
    bool apart = side->task.flags & TASK_APART;
    enum handle_place place = apart ? HANDLE_IN_FUNCTION : HANDLE_IN_CALL;
    PyObject *call = input_begin(engine) < 0 ? NULL : next_opened(engine, place);
    PyObject *args = apart && call != NULL ? next_opened(engine, HANDLE_IN_ITEM_STAR) : NULL;
    side->unsound |= side->raised;
    SHOAL_KILL_POINT("task: read");
    if (side->meter.timing)
        meter_lap(engine, METER_UNPICKLE);
    if (start(engine) < 0) {
        Py_XDECREF(call);
        Py_XDECREF(args);
        abandon(engine);
        return;
    }
    if (call == NULL || (apart && args == NULL)) {
        Py_XDECREF(call);
        if (side->trace.on)
            trace_started(engine, NULL);
        result_send_error(engine, side->task.first_item, true, "arguments", NULL);
    } else if (apart) {
        call_begins(engine, call);
        PyObject *result = call_apart(call, args);
        call_ended(engine, call);
        Py_DECREF(args);
        answer(engine, side->task.first_item, true, result, call);
    } else {
        answer(engine, side->task.first_item, true, call_triple(engine, call), call);
    }
}

/* function: stolen with the last item, so that it is gone when it is decided which blocks are still held. */
static void serve_item(struct engine *engine, PyObject *function, uint32_t item, bool last)
{
    bool star = engine->side->task.flags & TASK_STAR;
    engine->side->item = item;
    PyObject *argument = next_opened(engine, star ? HANDLE_IN_ITEM_STAR : HANDLE_IN_ITEM);
    PyObject *result = NULL;
    if (argument != NULL && engine->side->task.flags & TASK_COMMON)
        argument = common_join(engine, argument);
    if (last)
        common_end(engine);
    engine->side->unsound |= engine->side->raised;
    if (engine->side->meter.timing)
        meter_lap(engine, METER_UNPICKLE);
    if (argument == NULL) {
        result_send_error(engine, item, last, "arguments", last ? function : NULL);
        return;
    }
    if (!star) {
        result = PyObject_CallOneArg(function, argument);
    } else {
        PyObject *args = PySequence_Tuple(argument);
        if (args != NULL)
            result = PyObject_CallObject(function, args);
        Py_XDECREF(args);
    }
    if (engine->side->meter.timing)
        meter_ran(engine, function);
    if (engine->side->trace.on)
        trace_element(engine, item);
    if (last)
        Py_DECREF(function);
    answer(engine, item, last, result, argument);
}

/* The batch's function, and the cursor before the item that has `skip` items before it; NULL with an exception. */
static PyObject *open_batch(struct engine *engine, uint32_t skip)
{
    struct worker_side *side = engine->side;
    side->reading_function = side->task.item_count > 1;
    PyObject *function = input_begin(engine) < 0 ? NULL : next_opened(engine, HANDLE_IN_FUNCTION);
    side->reading_function = false;
    if (function != NULL && side->task.flags & TASK_COMMON && common_begin(engine) < 0)
        Py_CLEAR(function);
    if (function != NULL && input_skip(engine, skip) < 0)
        Py_CLEAR(function);
    side->unsound |= side->raised;
    return function;
}

static void next_item_begins(struct engine *engine)
{
    if (engine->side->limited)
        stop_begin(engine);
    meter_item(engine, &engine->side->meter);
}

/* Nobody wants the batch from this item on. */
static void drop_rest(struct engine *engine, uint32_t item)
{
    engine->side->exposed = false;
    common_end(engine);
    PyErr_Clear();
    result_send(engine, RECORD_DROPPED, item, true, Py_NewRef(Py_None), NULL);
}

static void serve_batch(struct engine *engine)
{
    struct worker_side *side = engine->side;
    PyObject *function = open_batch(engine, side->task.reserved);
    PyObject *error_type = NULL, *error = NULL, *traceback = NULL;
    if (function == NULL)
        PyErr_Fetch(&error_type, &error, &traceback);
    SHOAL_KILL_POINT("batch: function read");
    meter_batch_opened(engine, function);
    bool ours = start(engine) == 0;
    if (side->trace.on)
        trace_started(engine, function);
    uint32_t count = side->task.item_count;
    side->blocks_of_function = side->block_count;
    bool reread = false;
    for (uint32_t i = side->task.reserved; i < count && ours; i++) {
        uint32_t item = side->task.first_item + i;
        bool last = i + 1 == count;
        if (i > side->task.reserved)
            next_item_begins(engine);
        if (stop_drops(engine)) {
            Py_CLEAR(function);
            drop_rest(engine, item);
            break;
        }
        if (function == NULL && reread) {
            function = open_batch(engine, i);
            if (function == NULL)
                PyErr_Fetch(&error_type, &error, &traceback);
        }
        reread = function == NULL && side->raised; /* that was this item's time; the others have theirs */
        if (reread) {
            PyErr_Restore(error_type, error, traceback);
            error_type = error = traceback = NULL;
            result_send_error(engine, item, last, "arguments", NULL);
        } else if (function == NULL) {
            Py_XINCREF(error_type);
            Py_XINCREF(error);
            Py_XINCREF(traceback);
            PyErr_Restore(error_type, error, traceback);
            result_send_error(engine, item, last, "arguments", NULL);
        } else {
            serve_item(engine, function, item, last);
            if (last)
                function = NULL;
            else if (side->block_count > side->blocks_of_function)
                input_item_done(engine, side->blocks_of_function);
        }
        if (side->meter.timing)
            meter_finish(engine);
    }
    Py_XDECREF(function);
    Py_XDECREF(error_type);
    Py_XDECREF(error);
    Py_XDECREF(traceback);
    common_end(engine);
    if (!ours)
        abandon(engine);
}

static bool serve_one(struct engine *engine)
{
    struct worker_side *side = engine->side;
    if (shoal_taskqueue_claim(engine->queue, side->index, &side->task, &side->claim) < 0)
        return false;
    side->drop_rest = false;
    meter_task(engine, &side->meter, side->task.stream_bytes);
    uint64_t notice = shoal_taskqueue_notice(engine->queue);
    if (notice != side->trace.notice)
        trace_look(engine, notice);
    if (side->trace.on)
        trace_claimed(engine);
    stop_begin(engine);
    if (side->task.flags & TASK_BATCH)
        serve_batch(engine);
    else
        serve_call(engine);
    if (side->meter.timing)
        meter_finish(engine);
    side->exposed = false;
    side->served++;
    meter_task_ended(engine);
    if (engine->state->sweeper != NULL)
        handles_sweep(engine);
    if (side->release_count > 0)
        result_flush_releases(engine);
    if (side->unsaid != NULL)
        say_flush(engine);
    return true;
}

static int serve(struct engine *engine)
{
    struct worker_side *side = engine->side;
    while ((engine->max_tasks == 0 || side->served < engine->max_tasks) && !side->unsound && !side->retire) {
        if (serve_one(engine)) {
            if (orders_there(side)) /* it may be told to end */
                worker_read_orders(engine);
            side->memory_pending = true;
            if (memory_outgrown(side))
                break;
            continue;
        }
        if (memory_outgrown(side))
            break;
        worker_read_orders(engine);
        if (side->unsaid != NULL)
            say_flush(engine);
        if (side->stop)
            return 0;
        if (side->retire)
            break;
        if (engine->state->sweeper != NULL || side->sweep_asked != side->sweep_done)
            handles_sweep(engine);
        /* Out of work: now even a lazy sleeper wants to hear what we have handed in. */
        shoal_doorbell_ring(shoal_taskqueue_owner_bell(engine->queue), SHOAL_LAZY);
        int woken;
        int64_t idle_since = meter_wait_begins(engine);
        Py_BEGIN_ALLOW_THREADS
        int64_t deadline = memory_deadline(side, idle_since + LOOK_FOR_PARENT_NS);
        woken = shoal_taskqueue_wait(engine->queue, side->index, side->waiter, deadline, NULL, orders_there, side);
        Py_END_ALLOW_THREADS
        meter_wait_ended(engine);
        if (woken == 0 && worker_parent_gone(side))
            return 1;
        if (woken == -EINTR && PyErr_CheckSignals() < 0) {
            PyErr_Print();
            return 1;
        }
        if (woken < 0 && woken != -EINTR)
            return 1;
    }
    struct record bye = {.kind = RECORD_BYE, .block_offset = HOME_NO_BLOCK, .adopted = HOME_NO_BLOCK};
    SHOAL_KILL_POINT("bye: to be said");
    result_send_plain(engine, &bye);
    SHOAL_KILL_POINT("bye: said");
    return 0;
}

/* ---- the beginning ---- */

/* What only the parent writes becomes read-only; rings of the others are not mapped at all. */
static int protect(struct engine *engine, unsigned index)
{
    struct shoal_region *region = engine->home->region;
    /* All of it, under all its mappings; then what a worker writes: slot words and bells, its side of its own rings. */
    int error = shoal_region_protect(region, 0, shoal_region_size(region), false);
    if (error >= 0)
        error = shoal_region_protect(region, engine->control, engine->tasks.offset - engine->control, true);
    if (error >= 0)
        error = shoal_taskqueue_protect(engine->queue);
    if (error >= 0)
        error = shoal_region_protect_mirror(engine->tasks.base, TASK_RING_BYTES, false);
    if (error >= 0)
        error = shoal_ring_protect(engine->workers[index].results, SHOAL_RING_WRITER);
    if (error >= 0)
        error = shoal_ring_protect(engine->workers[index].orders, SHOAL_RING_READER);
    for (unsigned i = 0; i < engine->worker_most; i++) {
        if (i == index)
            continue;
        shoal_ring_detach(engine->workers[i].results);
        shoal_ring_detach(engine->workers[i].orders);
        engine->workers[i].results = engine->workers[i].orders = NULL;
    }
    for (struct engine *other = engine->state->engines; other != NULL; other = other->next) {
        if (other != engine)
            engine_unmap(other); /* inherited: another pool's rings, under mappings of their own */
    }
    if (engine->served_pid == 0) /* otherwise nothing of this region was inherited */
        blocks_make_private(engine->state);
    return error < 0 ? raise_error(error, "cannot protect shared memory in the worker") : 0;
}

static struct worker_side *side_new(struct engine *engine, unsigned index, PyObject *encode_error)
{
    struct worker_side *side = PyMem_Calloc(1, sizeof *side);
    if (side == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    side->index = index;
    side->own = &engine->workers[index];
    side->encode_error = Py_NewRef(encode_error);
    side->parent = getppid();
    side->unsaid_end = &side->unsaid;
    side->main_thread = PyThread_get_thread_ident();
    side->pool_process = (struct shoal_peer){.pid = 0, .pidfd = -1};
    side->encoder = shoal_encoder_new(engine->state->pickle);
    side->decoder = shoal_decoder_new(engine->state->pickle);
    if (side->decoder != NULL)
        engine_set_heir(engine, side->decoder);
    engine_inherit_in_worker(engine);
    int error = shoal_waiter_create(engine->doorbell, &side->waiter);
    if (error < 0)
        raise_error(error, "cannot make a doorbell to sleep on");
    return error < 0 || side->encoder == NULL || side->decoder == NULL ? NULL : side; /* the process ends then */
}

static int set_up(struct engine *engine, PyObject *setup)
{
    struct record hello = {.kind = RECORD_HELLO, .block_offset = HOME_NO_BLOCK, .adopted = HOME_NO_BLOCK};
    PyObject *result = PyObject_CallNoArgs(setup);
    if (result != NULL) {
        Py_DECREF(result);
        meter_ready(engine);
        SHOAL_KILL_POINT("hello: to be said");
        result_send_plain(engine, &hello);
        return 0;
    }
    result_send_setup_error(engine);
    return 1;
}

PyObject *engine_work(struct engine *engine, PyObject *args)
{
    unsigned int index;
    PyObject *setup, *encode_error, *arm = NULL;
    unsigned long long max_memory = 0;
    if (!PyArg_ParseTuple(args, "IOO|OK:work", &index, &setup, &encode_error, &arm, &max_memory))
        return NULL;
    if (index >= engine->worker_count || engine->epoch + 1 != engine->state->fork_epoch || engine->dead) {
        PyErr_SetString(PyExc_RuntimeError, "work() is for the worker itself");
        return NULL;
    }
    engine->state->serving = (struct engine *)Py_NewRef((PyObject *)engine); /* to the end of this process */
    trace_forget(engine);
    engine->side = side_new(engine, index, encode_error);
    if (engine->side == NULL || protect(engine, index) < 0)
        return NULL;
    engine->side->arm = Py_XNewRef(arm);
    memory_begin(engine->side, max_memory, engine->served_pid == 0);
    meter_open(engine);
    int error = shoal_lifeline_arm(&engine->lifeline);
    if (error >= 0 && engine->served_pid != 0) /* it lives, or the lifeline has killed us */
        error = shoal_peer_open(engine->served_pid, &engine->side->pool_process);
    if (error < 0) {
        raise_error(error, "cannot watch the parent");
        return NULL;
    }
    if (set_up(engine, setup) != 0)
        return PyLong_FromLong(1);
    int code = serve(engine);
    engine->side->left = true;
    shoal_taskqueue_leave(engine->queue, index); /* exit functions may take long */
    return PyLong_FromLong(code);
}

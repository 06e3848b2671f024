/* SPDX-License-Identifier: BSD-3-Clause */
/* engine_type.c - the type Engine as Python sees it: calls, questions, the table of methods. */
#include "engine.h"

#include "say.h"

#include "item.h"

/* ---- calls ---- */

static PyObject *as_tuple(PyObject *args)
{
    return PyTuple_CheckExact(args) ? Py_NewRef(args) : PySequence_Tuple(args);
}

static PyObject *none_as_null(PyObject *object)
{
    return object == Py_None ? NULL : object;
}

int engine_submit_item(struct engine *engine, struct item *item, PyObject *function, PyObject *args, PyObject *kwargs)
{
    if (item->owner.engine != NULL) {
        PyErr_SetString(PyExc_ValueError, "an item is submitted once");
        return -1;
    }
    item->owner.engine = (struct engine *)Py_NewRef((PyObject *)engine);
    item->owner.urgent = item->owner.watches != NULL;
    engine->watched += item->owner.urgent;
    if (engine_submit_call(engine, &item->owner, function, args, kwargs) < 0)
        return -1;
    progress_nudge(engine);
    return 0;
}

static PyObject *engine_submit(struct engine *engine, PyObject *const *args, Py_ssize_t count)
{
    if (count != 4 || !PyObject_TypeCheck(args[0], engine->state->item_type)) {
        PyErr_SetString(PyExc_TypeError, "submit(item, func, args, kwargs)");
        return NULL;
    }
    struct item *item = (struct item *)args[0];
    PyObject *arguments = as_tuple(args[2]);
    if (arguments == NULL)
        return NULL;
    int error = engine_submit_item(engine, item, args[1], arguments, none_as_null(args[3]));
    Py_DECREF(arguments);
    if (error < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *engine_call(struct engine *engine, PyObject *const *args, Py_ssize_t count)
{
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "call(func, args, kwargs)");
        return NULL;
    }
    PyObject *arguments = as_tuple(args[1]);
    struct item *item = arguments == NULL ? NULL : item_new_for(engine);
    PyObject *value = NULL;
    if (item != NULL && engine_submit_call(engine, &item->owner, args[0], arguments, none_as_null(args[2])) == 0) {
        if (item_wait(item, -1) > 0)
            value = item_value(item);
        else if (!item->owner.done)
            engine_revoke(engine, &item->owner); /* interrupted: nobody will ask for it */
    }
    Py_XDECREF(arguments);
    Py_XDECREF(item);
    return value;
}

static PyObject *engine_drain_method(struct engine *engine, PyObject *Py_UNUSED(ignored))
{
    if (engine_check_process(engine) < 0)
        return NULL;
    engine_drain(engine);
    if (engine->deaths_pending)
        engine_bury_dead(engine);
    engine_after_drain(engine);
    Py_RETURN_NONE;
}

static PyObject *engine_pids(struct engine *engine, PyObject *Py_UNUSED(ignored))
{
    PyObject *pids = PyList_New(engine->worker_count);
    for (unsigned i = 0; pids != NULL && i < engine->worker_count; i++) {
        const struct shoal_peer *peer = &engine->workers[i].peer;
        PyList_SET_ITEM(pids, i, PyLong_FromLong(peer->pidfd >= 0 ? (long)peer->pid : 0));
    }
    return pids;
}

static PyObject *engine_pending(struct engine *engine, PyObject *Py_UNUSED(ignored))
{
    PyObject *items = PyList_New(0);
    for (uint32_t slot = 0; items != NULL && slot < ENGINE_SLOTS; slot++) {
        PyObject *owner = engine->entries[slot].owner;
        if (owner != NULL && ((struct owner *)owner)->kind == OWNER_ITEM && PyList_Append(items, owner) < 0)
            Py_CLEAR(items);
    }
    for (struct pending *pending = engine->backlog; items != NULL && pending != NULL; pending = pending->next) {
        if (((struct owner *)pending->owner)->kind == OWNER_ITEM && PyList_Append(items, pending->owner) < 0)
            Py_CLEAR(items);
    }
    return items;
}

static PyObject *engine_stats(struct engine *engine, PyObject *Py_UNUSED(ignored))
{
    struct shoal_arena_stats stats;
    shoal_arena_get_stats(engine->home->arena, &stats);
    return Py_BuildValue("{sKsKsKsKsIsIsKsKsKsK}", "submitted", engine->submitted, "completed", engine->completed,
                         "lost", engine->lost, "restarts", engine->restarts, "in_flight", engine->in_flight, "backlog",
                         engine->backlog_count, "arena_used", stats.used_bytes, "arena_cached", stats.cached_bytes,
                         "arena_budget", stats.budget_bytes, "unread",
                         engine->home->unread_bytes + engine->home->unread_block_bytes);
}

/* 0 if everything shared is valid: rings, task queue, arena. For tests, after faults. */
static PyObject *engine_verify(struct engine *engine, PyObject *Py_UNUSED(ignored))
{
    if (engine->dead || engine_check_process(engine) < 0)
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    int error = shoal_taskqueue_check(engine->queue);
    for (unsigned i = 0; i < engine->worker_count && error >= 0; i++)
        error = shoal_ring_check(engine->workers[i].results);
    if (error >= 0)
        error = shoal_arena_check(engine->home->arena);
    if (error < 0) {
        raise_error(error, "the shared memory of the pool is not valid");
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *get_doorbell(struct engine *engine, void *Py_UNUSED(closure))
{
    return PyUnicode_FromString(shoal_doorbell_kind_name(engine->doorbell));
}

static PyObject *get_workers(struct engine *engine, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(engine->worker_target);
}

static PyObject *get_room(struct engine *engine, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(engine->worker_max);
}

static PyObject *get_broken(struct engine *engine, void *Py_UNUSED(closure))
{
    return Py_NewRef(engine->broken != NULL ? engine->broken : Py_None);
}

static PyObject *get_closed(struct engine *engine, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(engine->closed || engine->dead);
}

PyDoc_STRVAR(engine_doc,
"Engine(workers, start, max_tasks=0, task_error=None, room=0)\n--\n\n"
"One pool: workers, task queue, arena use.\n\n"
"start(engine, index) forks worker `index` and returns its pid; the child calls engine.work() and then os._exit().\n"
"Or it has another process start it, and returns its pid and a descriptor from which its exit status can be read (8\n"
"bytes, as multiprocessing's forkserver writes it; the engine closes it).\n"
"task_error(payload, what, engine) makes the exception of a task that raised; by default what configure() was given.\n"
"A worker ends after max_tasks tasks (0: never) and is replaced. Raises ValueError for a number of workers outside of\n"
"1 to 1000 or a bad SHOAL_ARENA_LIMIT or SHOAL_DOORBELL, OSError and MemoryError with the cause. Usable from any\n"
"thread of the process that made it; in a forked child every method raises RuntimeError.");

#define DOC(signature, text) PyDoc_STR(signature "\n--\n\n" text)
static PyMethodDef engine_methods[] = {
    {"inherit", (PyCFunction)engine_inherit, METH_VARARGS,
     DOC("inherit($self, inherited, also, /)",
         "Before start(): what the workers will have of __main__, objects of the type `also` included.")},
    {"dumps", (PyCFunction)engine_dumps, METH_VARARGS,
     DOC("dumps($self, obj, reducers={}, /)",
         "Pickle, with what was inherited as numbers: for loads() on the other side. reducers: dict type -> reducer.")},
    {"loads", (PyCFunction)engine_loads, METH_O,
     DOC("loads($self, data, /)", "Unpickle what dumps() made: bytes or the like.")},
    {"start", (PyCFunction)engine_start, METH_VARARGS,
     DOC("start($self, several=None, /)",
         "Start the workers; if there is more than one, several(self, count, pids) forks them and notes their pids.")},
    {"forking", (PyCFunction)engine_forking, METH_O,
     DOC("forking($self, index, /)", "The next fork of this thread is this worker.")},
    {"submit", (PyCFunction)(void (*)(void))engine_submit, METH_FASTCALL,
     DOC("submit($self, item, func, args, kwargs, /)", "Pickle the call now and queue it; `item` gets the outcome.")},
    {"call", (PyCFunction)(void (*)(void))engine_call, METH_FASTCALL,
     DOC("call($self, func, args, kwargs, /)", "Submit, wait, and return the value or raise the exception.")},
    {"drain", (PyCFunction)engine_drain_method, METH_NOARGS,
     DOC("drain($self, /)", "Move what has arrived to its owners; never blocks.")},
    {"close", (PyCFunction)engine_close, METH_NOARGS,
     DOC("close($self, /)", "Nothing new is submitted; workers end when all is done.")},
    {"join", (PyCFunction)(void (*)(void))engine_join, METH_VARARGS | METH_KEYWORDS,
     DOC("join($self, /, timeout=None)", "After close() or terminate(): wait until all has ended. False: timeout.")},
    {"terminate", (PyCFunction)engine_terminate, METH_O,
     DOC("terminate($self, error, /)", "Kill and reap the workers; unfinished items end with `error`. Idempotent.")},
    {"fail", (PyCFunction)engine_fail, METH_O,
     DOC("fail($self, error, /)", "Make the pool broken with `error` as the reason.")},
    {"abandon", (PyCFunction)engine_abandon, METH_VARARGS,
     DOC("abandon($self, error, signal, /)",
         "As close(); workers get the signal and are not replaced: with the last, what is left ends with `error`.")},
    {"pids", (PyCFunction)engine_pids, METH_NOARGS,
     DOC("pids($self, /)", "Process ids of the workers by index, 0 where one is being replaced.")},
    {"exit_code", (PyCFunction)engine_exit_code, METH_O,
     DOC("exit_code($self, pid, /)",
         "How this worker ended: its exit code, minus its signal, None if it runs, or it is not known.")},
    {"inherited_object", (PyCFunction)engine_inherited_object, METH_O,
     DOC("inherited_object($self, number, /)", "What goes by this number to forked workers; None if nothing does.")},
    {"say", (PyCFunction)engine_say, METH_O,
     DOC("say($self, payload, /)", "In a worker: hand this to the parent's `hear`. False if this is none.")},
    {"pending", (PyCFunction)engine_pending, METH_NOARGS,
     DOC("pending($self, /)", "Items of this engine that are not done.")},
    {"stats", (PyCFunction)engine_stats, METH_NOARGS, DOC("stats($self, /)", "Counters, by name.")},
    {"meters", (PyCFunction)engine_meters, METH_NOARGS,
     DOC("meters($self, /)",
         "What the parent and each worker say about themselves: (words, [(words, pid, restarts, done, failed, lost,\n"
         "held bytes, busy), ...]). Words are bytes of native uint64; see pool/ext/meter.h and shoal._stats.")},
    {"trace_start", (PyCFunction)engine_trace_start, METH_O,
     DOC("trace_start($self, limit, /)", "Record each task's life from now on, as far as `limit` records.")},
    {"trace_stop", (PyCFunction)engine_trace_stop, METH_NOARGS,
     DOC("trace_stop($self, /)", "Stop, and return what was recorded: shoal._trace knows what it is.")},
    {"verify", (PyCFunction)engine_verify, METH_NOARGS,
     DOC("verify($self, /)", "Check everything shared; OSError if something is not valid.")},
    {"close_if_idle", (PyCFunction)engine_close_if_idle, METH_NOARGS,
     DOC("close_if_idle($self, /)",
         "Close it if nothing is under way or being submitted; return whether it was closed.")},
    {"when_idle", (PyCFunction)engine_when_idle, METH_VARARGS,
     DOC("when_idle($self, seconds, callback, /)",
         "Have callback() called, in the engine's thread, each time that nothing was asked for in so many seconds.")},
    {"resize", (PyCFunction)engine_resize, METH_O,
     DOC("resize($self, workers, /)",
         "Have so many workers from now on. Those that are too many end after the task at hand.")},
    {"handover", (PyCFunction)engine_handover, METH_O,
     DOC("handover($self, index, /)",
         "What a worker that is not forked from this process needs: (bytes, descriptors) for shoal._ext.attach there.\n"
         "The descriptors stay the engine's.")},
    {"work", (PyCFunction)engine_work, METH_VARARGS,
     DOC("work($self, index, setup, encode_error, arm=None, max_memory=0, /)",
         "In the worker: serve until told to stop; returns the exit code. arm() is called before the first task that\n"
         "has a limit of time.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef engine_getset[] = {
    {"doorbell", (getter)get_doorbell, NULL, PyDoc_STR("Kind of doorbell in use."), NULL},
    {"workers", (getter)get_workers, NULL, PyDoc_STR("Number of workers, without those that are to end."), NULL},
    {"room", (getter)get_room, NULL, PyDoc_STR("Number of workers that there can be."), NULL},
    {"broken", (getter)get_broken, NULL, PyDoc_STR("The exception that broke the pool, or None."), NULL},
    {"closed", (getter)get_closed, NULL, PyDoc_STR("True after close() or terminate()."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot engine_slots[] = {
    {Py_tp_doc, (void *)engine_doc},
    {Py_tp_new, engine_new},
    {Py_tp_dealloc, engine_dealloc},
    {Py_tp_traverse, engine_traverse},
    {Py_tp_methods, engine_methods},
    {Py_tp_getset, engine_getset},
    {0, NULL},
};

PyType_Spec engine_spec = {
    .name = "shoal._ext.Engine",
    .basicsize = sizeof(struct engine),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = engine_slots,
};

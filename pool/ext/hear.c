/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * hear.c - what workers say, in the parent.
 *
 * The drain takes the messages out of the result rings, where they lie among the results, and puts them in a queue; so
 * what a task has said is in the queue before its result is delivered. When nothing is half done any more
 * (engine_after_drain), one thread hands the queue to the Python layer, which runs handlers of the user's. Handlers may
 * use the pool; what comes meanwhile waits for its turn, and so does what other threads drain.
 *
 * A message of several records is put together first. If its worker dies in the middle, the part is dropped.
 */
#include "say.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#define FINISH_NS INT64_C(5000000000)

static void enqueue(struct engine *engine, struct said *said)
{
    said->next = NULL;
    *engine->said_end = said;
    engine->said_end = &said->next;
}

int hear_record(struct engine *engine, unsigned index, const struct record *record, const uint8_t *payload,
                uint64_t payload_bytes)
{
    struct worker *worker = &engine->workers[index];
    struct said *begun = worker->saying;
    uint64_t before = begun == NULL ? 0 : begun->bytes;
    if (record->stream_bytes != payload_bytes || before + payload_bytes > SAY_BYTES_MAX)
        return -EBADMSG;
    struct said *said = PyMem_RawRealloc(begun, sizeof *said + (size_t)(before + payload_bytes));
    if (said == NULL)
        return 0; /* better less said than a worker less */
    memcpy(said->data + before, payload, (size_t)payload_bytes);
    said->bytes = (size_t)(before + payload_bytes);
    said->worker = index;
    worker->saying = record->flags & RECORD_MORE ? said : NULL;
    if (worker->saying == NULL)
        enqueue(engine, said);
    return 0;
}

void hear_end(struct worker *worker)
{
    PyMem_RawFree(worker->saying);
    worker->saying = NULL;
}

void hear_forget(struct engine *engine)
{
    for (unsigned i = 0; engine->workers != NULL && i < engine->worker_count; i++)
        hear_end(&engine->workers[i]);
    while (engine->said != NULL) {
        struct said *said = engine->said;
        engine->said = said->next;
        PyMem_RawFree(said);
    }
    engine->said_end = &engine->said;
}

static void deliver_one(struct engine *engine, const struct said *said)
{
    PyObject *hear = engine->state->hear;
    PyObject *heard = hear == NULL ? Py_NewRef(Py_None)
                                   : PyObject_CallFunction(hear, "y#I", (const char *)said->data,
                                                           (Py_ssize_t)said->bytes, said->worker);
    if (heard == NULL && PyErr_ExceptionMatches(PyExc_KeyboardInterrupt)) {
        PyErr_Clear();
        PyErr_SetInterrupt(); /* it is for whoever called us: raised when signals are looked at next */
    } else if (heard == NULL) {
        report_unraisable(hear);
    }
    Py_XDECREF(heard);
}

void hear_deliver(struct engine *engine)
{
    if (engine->said == NULL || engine->hearing || engine->epoch != engine->state->fork_epoch)
        return;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    engine->hearing = true;
    engine->hearing_thread = PyThread_get_thread_ident();
    while (engine->said != NULL) {
        struct said *said = engine->said;
        engine->said = said->next;
        if (engine->said == NULL)
            engine->said_end = &engine->said;
        deliver_one(engine, said);
        PyMem_RawFree(said);
    }
    engine->hearing = false;
    PyErr_Restore(type, value, traceback);
}

void hear_finish(struct engine *engine)
{
    int64_t deadline = shoal_now_ns() + FINISH_NS; /* it may wait for a lock that we hold */
    hear_deliver(engine);
    while (engine->hearing && engine->hearing_thread != PyThread_get_thread_ident() && shoal_now_ns() < deadline) {
        Py_BEGIN_ALLOW_THREADS
        struct timespec pause = {.tv_nsec = 200000};
        nanosleep(&pause, NULL);
        Py_END_ALLOW_THREADS
    }
}

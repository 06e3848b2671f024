/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * group_count.c - how much of a map-like call is done, for those who watch it.
 *
 * Short results of a batch travel many in a record, which is published when it is full: a chunk of slow tasks would
 * seem to stand still until its end. But the worker notes each of them (worker_result.c), and what is noted can be
 * counted where it lies. While the worker goes on that is a look: if the record was published meanwhile, it counts for
 * nothing, and the next look has it. So a count may be late, and now and then lower than the last one, but never too
 * high.
 */
#include <string.h>

#include "engine.h"
#include "group.h"

/* Values of this group that the worker has noted and not published. */
static uint64_t noted_by(const struct engine *engine, const struct worker *worker, const struct owner *owner)
{
    const void *bytes;
    uint64_t size;
    struct record record;
    if (worker->damaged || shoal_ring_salvage(worker->results, &bytes, &size) < 0 || size < sizeof record)
        return 0;
    memcpy(&record, bytes, sizeof record);
    if (record.kind != RECORD_RUN || record.slot >= ENGINE_SLOTS)
        return 0;
    const struct entry *entry = &engine->entries[record.slot];
    if (entry->owner != (PyObject *)owner || entry->generation != record.generation)
        return 0;
    uint64_t count = 0, most = entry->task.item_count - entry->next_item;
    const uint8_t *at = (const uint8_t *)bytes + sizeof record, *end = (const uint8_t *)bytes + size;
    while (at < end && count < most && (at = plain_skip(at, end)) != NULL)
        count++;
    return shoal_ring_used(worker->results) == 0 ? count : 0;
}

PyObject *group_counts(struct shoal_group *self, PyObject *Py_UNUSED(unused))
{
    struct engine *engine = self->owner.engine;
    uint64_t count = 0;
    if (engine != NULL && !engine->dead && engine->epoch == engine->state->fork_epoch && !self->owner.done) {
        engine_drain_aside(engine);
        for (unsigned i = 0; i < engine->worker_count && !self->cancelled; i++)
            count += noted_by(engine, &engine->workers[i], &self->owner);
    }
    return Py_BuildValue("(KO)", self->arrived + count, self->owner.done ? Py_True : Py_False);
}

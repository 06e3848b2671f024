/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * meter.c - where a worker's time goes.
 *
 * The problem: a look at the clock takes 20 to 60 ns, and a task may take less. Four for each would be a tenth of a
 * tiny task; looking at few of them would miss the one long task among many short ones.
 *
 * The rule: the time between two looks ("marks") is always known, whatever lay between them. There is a mark when a
 * task has been handed in, when a wait has ended, and at each phase of the items (calls, elements) that are timed: all
 * of them where they take 20 us or more, else one in that time, at random distances, so that no pattern of tasks is hit
 * or missed. What lies between marks otherwise is split by the moving averages of the timed ones. If it is much longer
 * than they say, the excess is user code, and may be one of the longest tasks.
 *
 * So: the phases add up to the time that passed, exactly; no long task is missed; only the split of short ones is an
 * estimate. Items of a batch between two marks belong to one function, and a single call has a mark at its end, so the
 * names of long tasks are right.
 *
 * The clock is the CPU's counter where that is steady (8 ns), put right by CLOCK_MONOTONIC now and then, when we have
 * nothing to do. What ticks are worth is known after a millisecond; until then the clock is asked.
 *
 * Costs: one mark for each task that is handed in, and one for each wait; two branches for an element of a batch. The
 * figures are published when we have nothing to do, and with the timed items. SHOAL_METERS=off switches it off, so that
 * this can be measured.
 */
#include <string.h>

#include "worker.h"

#define TIMED_EVERY_NS 20000u
#define UNTIMED_MAX 400u
#define BETWEEN_TICKS 20000u
#define CALIBRATE_FIRST_NS 1000000
#define CALIBRATE_EVERY_NS 1000000000

/* ---- the clock ---- */

/* A look at both clocks that nothing came between, or at least one that little did. Returns the time. */
static int64_t calibrate(struct meter *meter)
{
    uint64_t ticks, after;
    int64_t now;
    int tries = 0;
    do {
        ticks = shoal_ticks(true);
        now = shoal_now_ns();
        after = shoal_ticks(true);
    } while (after - ticks > BETWEEN_TICKS && ++tries < 8);
    if (meter->first_ns == 0) {
        meter->first_ticks = ticks;
        meter->first_ns = now;
    }
    if (ticks > meter->first_ticks && now - meter->first_ns >= CALIBRATE_FIRST_NS)
        meter->scale = (uint64_t)(4294967296.0 * (double)(now - meter->first_ns) /
                                  (double)(ticks - meter->first_ticks));
    meter->base_ticks = ticks;
    meter->base_ns = now;
    return now;
}

static int64_t time_of(struct meter *meter, uint64_t ticks)
{
    uint64_t since = ticks - meter->base_ticks;
    /* not of a moment more than a few seconds ago, nor of one that has been undone (another machine has resumed us) */
    if (meter->scale > 0 && since < UINT64_C(1) << 32)
        return meter->base_ns + (int64_t)(since * meter->scale >> 32);
    return calibrate(meter);
}

static int64_t look(struct meter *meter)
{
    return meter->steady ? time_of(meter, shoal_ticks(true)) : shoal_now_ns();
}

static void advance(struct meter *meter, int64_t now, enum meter_word phase)
{
    uint64_t took = now > meter->mark_ns ? (uint64_t)(now - meter->mark_ns) : 0;
    meter->word[phase] += took;
    meter->lap[phase] += took;
    meter->mark_ns = now;
}

/* ---- the longest ---- */

/* Of a function within functions its own name. */
static void copy_text(char *place, size_t room, const char *text)
{
    static const char within[] = "<locals>.";
    for (const char *at; (at = strstr(text, within)) != NULL;)
        text = at + sizeof within - 1;
    size_t bytes = strlen(text);
    if (bytes > room) {
        bytes = room;
        while (bytes > 0 && ((unsigned char)text[bytes] & 0xc0) == 0x80) /* not in the middle of a character */
            bytes--;
    }
    memset(place, 0, room);
    memcpy(place, text, bytes);
}

void meter_name_text(const struct meter *meter, char *place, size_t room)
{
    const char *text = meter->c_name;
    if (meter->name != NULL)
        text = PyUnicode_Check(meter->name) ? PyUnicode_AsUTF8(meter->name) : ((PyTypeObject *)meter->name)->tp_name;
    if (text == NULL)
        PyErr_Clear();
    copy_text(place, room, text == NULL ? "?" : text);
}

void meter_name(struct meter *meter, PyObject *function)
{
    PyObject *before = meter->name;
    if (PyMethod_Check(function))
        function = PyMethod_GET_FUNCTION(function);
    meter->c_name = NULL;
    if (PyFunction_Check(function)) {
        meter->name = Py_NewRef(((PyFunctionObject *)function)->func_qualname);
    } else if (PyCFunction_Check(function)) {
        meter->name = NULL;
        meter->c_name = ((PyCFunctionObject *)function)->m_ml->ml_name;
    } else {
        meter->name = Py_NewRef(PyType_Check(function) ? function : (PyObject *)Py_TYPE(function));
    }
    Py_XDECREF(before);
}

/* It has been found to take so long: among the longest? The name is the one that was noted. */
static void note_long(struct meter *meter, uint64_t run_ns, uint64_t begin_ns)
{
    unsigned at = METER_LONG_TASKS;
    while (at > 0 && run_ns > meter->longest[at - 1].run_ns)
        at--;
    if (at == METER_LONG_TASKS)
        return;
    memmove(meter->longest + at + 1, meter->longest + at, (METER_LONG_TASKS - 1 - at) * sizeof *meter->longest);
    meter->longest[at].run_ns = run_ns;
    meter->longest[at].begin_ns = begin_ns;
    meter_name_text(meter, meter->longest[at].name, METER_NAME_BYTES);
    meter->longest_changed = true;
}

/* ---- marks ---- */

/* What was not timed since the mark ends now. */
static void account(struct meter *meter, int64_t now)
{
    uint64_t took = now > meter->mark_ns ? (uint64_t)(now - meter->mark_ns) : 0;
    uint64_t items = meter->items, expected = items * meter->item_ns;
    if (items == 0) {
        meter->word[METER_WAIT] += took;
    } else {
        if (took > 8 * expected + TIMED_EVERY_NS) {
            uint64_t excess = took - expected;
            meter->word[METER_RUN] += excess;
            note_long(meter, excess + meter->average[METER_RUN], (uint64_t)meter->mark_ns);
            took = expected;
        }
        meter->untimed_ns += took;
        meter->untimed_items += items;
        meter->items = 0;
    }
    meter->mark_ns = now;
}

static void split_untimed(struct meter *meter)
{
    if (meter->untimed_items == 0)
        return;
    uint64_t left = meter->untimed_ns;
    if (meter->item_ns > 0) {
        double part = (double)left / (double)meter->item_ns;
        uint64_t unpickle = (uint64_t)(part * (double)meter->average[METER_UNPICKLE]);
        uint64_t pickle = (uint64_t)(part * (double)meter->average[METER_PICKLE]);
        unpickle = unpickle < left ? unpickle : left;
        left -= unpickle;
        pickle = pickle < left ? pickle : left;
        left -= pickle;
        meter->word[METER_UNPICKLE] += unpickle;
        meter->word[METER_PICKLE] += pickle;
    }
    meter->word[METER_RUN] += left;
    meter->word[METER_SERVED] += meter->untimed_items;
    meter->untimed_ns = meter->untimed_items = 0;
}

void meter_time(struct engine *engine)
{
    struct meter *meter = &engine->side->meter;
    if (meter->off) {
        meter->left = UINT32_MAX;
        return;
    }
    memset(meter->lap, 0, sizeof meter->lap);
    account(meter, look(meter));
    meter->timing = true;
}

void meter_lap(struct engine *engine, enum meter_word phase)
{
    struct meter *meter = &engine->side->meter;
    advance(meter, look(meter), phase);
}

void meter_name_inner(struct meter *meter, PyObject *function)
{
    PyObject *inner = NULL;
    if (!PyFunction_Check(function) && strcmp(Py_TYPE(function)->tp_name, "functools.partial") == 0) {
        inner = PyObject_GetAttrString(function, "func");
        if (inner == NULL)
            PyErr_Clear();
    }
    meter_name(meter, inner != NULL ? inner : function);
    Py_XDECREF(inner);
}

void meter_batch_opened(struct engine *engine, PyObject *function)
{
    struct meter *meter = &engine->side->meter;
    const struct shoal_task *task = &engine->side->task;
    uint32_t items = task->item_count - task->reserved;
    if (meter->timing) {
        advance(meter, look(meter), METER_UNPICKLE);
        meter->lap[METER_UNPICKLE] /= items > 0 ? items : 1;
    }
    if (function != NULL && (items > 1 || !meter->timing))
        meter_name_inner(meter, function);
}

void meter_ran(struct engine *engine, PyObject *function)
{
    struct meter *meter = &engine->side->meter;
    uint64_t begin = (uint64_t)meter->mark_ns;
    advance(meter, look(meter), METER_RUN);
    if (meter->lap[METER_RUN] <= meter->longest[METER_LONG_TASKS - 1].run_ns)
        return;
    PyObject *type, *value, *traceback; /* what the function raised */
    PyErr_Fetch(&type, &value, &traceback);
    meter_name_inner(meter, function);
    note_long(meter, meter->lap[METER_RUN], begin);
    PyErr_Restore(type, value, traceback);
}

/* How many are not timed before the next one that is. */
static uint32_t choose_distance(struct meter *meter, uint64_t item_ns)
{
    uint64_t mean = item_ns == 0 ? UNTIMED_MAX : TIMED_EVERY_NS / item_ns;
    if (mean < 2)
        return 0;
    mean = mean < UNTIMED_MAX ? mean : UNTIMED_MAX;
    meter->random ^= meter->random << 13;
    meter->random ^= meter->random >> 7;
    meter->random ^= meter->random << 17;
    return (uint32_t)(mean / 2 + meter->random % mean);
}

void meter_finish(struct engine *engine)
{
    static const enum meter_word phases[] = {METER_UNPICKLE, METER_RUN, METER_PICKLE};
    struct meter *meter = &engine->side->meter;
    advance(meter, look(meter), METER_PICKLE);
    meter->timing = false;
    split_untimed(meter); /* by the averages as they were then */
    uint64_t item_ns = 0;
    for (int i = 0; i < 3; i++) {
        uint64_t *average = &meter->average[phases[i]];
        *average = *average == 0 ? meter->lap[phases[i]] : (7 * *average + meter->lap[phases[i]]) / 8;
        item_ns += *average;
    }
    meter->word[METER_SERVED]++;
    meter->item_ns = item_ns;
    meter->left = choose_distance(meter, item_ns);
    meter_publish(engine);
}

void meter_task_ended(struct engine *engine)
{
    struct meter *meter = &engine->side->meter;
    if (meter->items > 0 && !meter->off)
        account(meter, meter->handed_in != 0 ? time_of(meter, meter->handed_in) : look(meter));
    meter->handed_in = 0;
}

/* ---- between tasks ---- */

int64_t meter_wait_begins(struct engine *engine)
{
    struct meter *meter = &engine->side->meter;
    if (meter->off)
        return shoal_now_ns();
    if (meter->steady && meter->mark_ns - meter->base_ns > (meter->scale > 0 ? CALIBRATE_EVERY_NS : 0)) {
        account(meter, calibrate(meter));
    }
    meter_publish(engine);
    return meter->mark_ns;
}

void meter_wait_ended(struct engine *engine)
{
    struct meter *meter = &engine->side->meter;
    if (!meter->off)
        account(meter, look(meter));
}

int64_t meter_stall_begins(struct meter *meter)
{
    return meter->off ? 0 : look(meter);
}

void meter_stall_ended(struct meter *meter, int64_t begun_ns)
{
    int64_t took = meter->off ? 0 : look(meter) - begun_ns;
    if (took <= 0)
        return;
    meter->word[METER_PICKLE] += (uint64_t)took;
    meter->mark_ns += took; /* it says nothing about the items around it */
}

/* ---- shared memory ---- */

void meter_publish(struct engine *engine)
{
    struct worker_side *side = engine->side;
    struct meter *meter = &side->meter;
    unsigned place = 1 + side->index;
    split_untimed(meter);
    meter->word[METER_MARK] = (uint64_t)meter->mark_ns;
    if (meter->longest_changed) {
        uint64_t words[METER_LONG_TASKS * METER_LONG_WORDS];
        memcpy(words, meter->longest, sizeof words);
        meter->word[METER_SEQUENCE] |= 1;
        shoal_taskqueue_meter_set(engine->queue, place, METER_SEQUENCE, &meter->word[METER_SEQUENCE], 1);
        shoal_taskqueue_meter_set(engine->queue, place, METER_LONGEST, words, sizeof words / sizeof *words);
        meter->word[METER_SEQUENCE]++;
        meter->longest_changed = false;
    }
    shoal_taskqueue_meter_set(engine->queue, place, 0, meter->word, METER_DROPPED);
}

void meter_open(struct engine *engine)
{
    struct worker_side *side = engine->side;
    struct meter *meter = &side->meter;
    const char *asked = getenv("SHOAL_METERS");
    meter->off = asked != NULL && strcmp(asked, "off") == 0;
    uint64_t words[METER_LONG_TASKS * METER_LONG_WORDS];
    shoal_taskqueue_meter_read(engine->queue, 1 + side->index, 0, meter->word, METER_COUNTERS);
    shoal_taskqueue_meter_read(engine->queue, 1 + side->index, METER_LONGEST, words, sizeof words / sizeof *words);
    memcpy(meter->longest, words, sizeof words);
    meter->word[METER_VERSION] = METER_FORMAT;
    meter->word[METER_SEQUENCE] = (meter->word[METER_SEQUENCE] + 1) & ~UINT64_C(1); /* our predecessor died over it */
    meter->longest_changed = true;
    meter->mark_ns = shoal_now_ns();
    meter->random = (uint64_t)meter->mark_ns | 1;
    uint64_t steady = 0;
    shoal_taskqueue_meter_read(engine->queue, 0, PARENT_STEADY, &steady, 1);
    meter->steady = steady == 1;
}

void meter_ready(struct engine *engine)
{
    struct meter *meter = &engine->side->meter;
    int64_t now = shoal_now_ns(), forked = (int64_t)meter->word[METER_FORKED];
    if (forked > 0 && forked < now)
        meter->word[METER_START] += (uint64_t)(now - forked);
    meter->mark_ns = now;
    meter_publish(engine);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * taskqueue.c - the task queue's place in memory, and whether it is sound.
 *
 * The problem: N processes take tasks from one; each may be killed at any instruction, and may scribble over what it
 * can write. Nobody else may lose a task, run one twice, or get stuck.
 *
 * The protocol, over all files:
 *  - The slot's word is the truth (lib/layout.h draws it). Every step is one compare-and-swap of the whole word, and
 *    the first names the worker. So at each instruction a task is FREE, READY, or belongs to a worker whose death will
 *    be noticed. There is nothing that a dead worker could hold.
 *  - The index ring says in which order READY slots come. Its entries and its tail are the owner process's; the head is
 *    moved by whoever comes next. An entry that names another generation, or a slot that is not READY, is skipped.
 *  - Who sleeps is said three times: bits (to find sleepers quickly), the worker's stance (the truth: a waker takes a
 *    sleeper by one CAS), and its bell (the system call). Publishing and falling asleep are Dekker's pair, twice over:
 *    idle bit and stance against tail, bell's announcement against the ringer's look.
 *
 * Guarantees: no task is lost, and none is run by two workers at a time. While a READY task is in the index ring,
 * some worker is awake and has yet to look, or has been woken, unless a waker was killed half way; shoal_taskqueue_bury
 * wakes everybody for that case, and sleepers look by themselves every second.
 * Costs: publish and wake 30 ns, claim and start 30 ns, when nobody sleeps and nobody competes.
 * Does not: protect the words and hints against a worker that scribbles over them. Such a task then runs not at all
 * until shoal_taskqueue_rescan, or twice; the owner process finds every word checked against its own ledger.
 */
#include "taskqueue.h"

#include "sys.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS_MAX 65536u
#define WORKERS_MAX 1023u
#define SPIN_NS_DEFAULT 50000

static_assert(WORKERS_MAX + 1 <= SHOAL__QUEUE_IDLE_WORDS * 64, "a bit for each worker");

/* Where the parts begin, from the queue's offset on. */
struct places {
    uint64_t descriptors, entries, common, slots, workers, bells, meters, end;
};

static struct places places_of(uint32_t slot_count, uint32_t worker_count)
{
    uint64_t page = (uint64_t)shoal__sys_page_size();
    struct places at;
    at.descriptors = sizeof(struct shoal__queue_owner);
    at.entries = at.descriptors + slot_count * sizeof(struct shoal__queue_descriptor);
    at.common = (at.entries + 2ull * slot_count * sizeof(shoal__a64) + page - 1) / page * page;
    at.slots = at.common + sizeof(struct shoal__queue_common);
    at.workers = at.slots + slot_count * sizeof(struct shoal__queue_slot);
    at.bells = at.workers + worker_count * sizeof(struct shoal__queue_worker);
    at.meters = at.bells + (worker_count + 1ull) * SHOAL_BELL_BYTES;
    at.end = (at.meters + (worker_count + 1ull) * sizeof(struct shoal__queue_meter) + page - 1) / page * page;
    return at;
}

static bool config_valid(const struct shoal_taskqueue_config *config)
{
    return config->slot_count >= 2 && config->slot_count <= SLOTS_MAX &&
           (config->slot_count & (config->slot_count - 1)) == 0 && config->worker_count >= 1 &&
           config->worker_count <= WORKERS_MAX && config->doorbell >= SHOAL_DOORBELL_URING &&
           config->doorbell <= SHOAL_DOORBELL_SEMAPHORE;
}

uint64_t shoal_taskqueue_footprint(const struct shoal_taskqueue_config *config)
{
    return config_valid(config) ? places_of(config->slot_count, config->worker_count).end : 0;
}

static int ledger_create(struct shoal_taskqueue *queue)
{
    queue->generations = calloc(queue->slot_count, sizeof *queue->generations);
    queue->statuses = calloc(queue->slot_count, sizeof *queue->statuses);
    queue->free_slots = calloc(queue->slot_count, sizeof *queue->free_slots);
    queue->marks = calloc(queue->slot_count, sizeof *queue->marks);
    queue->bells = calloc(queue->worker_count + 1, sizeof(struct shoal_doorbell *));
    queue->minds = aligned_alloc(SHOAL__CACHE_LINE, queue->worker_count * sizeof *queue->minds);
    if (queue->generations == NULL || queue->statuses == NULL || queue->free_slots == NULL || queue->marks == NULL ||
        queue->bells == NULL || queue->minds == NULL)
        return -ENOMEM;
    memset(queue->minds, 0, queue->worker_count * sizeof *queue->minds);
    /* Lowest slot on top: few slots in use means few cache lines in use. */
    for (uint32_t i = 0; i < queue->slot_count; i++)
        queue->free_slots[i] = queue->slot_count - 1 - i;
    queue->free_count = queue->slot_count;
    return 0;
}

static int bells_create(struct shoal_taskqueue *queue, uint8_t *memory, enum shoal_doorbell_kind kind)
{
    for (uint32_t i = 0; i <= queue->worker_count; i++) {
        int status = shoal_doorbell_create(memory + (uint64_t)i * SHOAL_BELL_BYTES, kind, &queue->bells[i]);
        if (status < 0)
            return status;
    }
    return 0;
}

static int bells_attach(struct shoal_taskqueue *queue, uint8_t *memory, const int *bell_fds)
{
    for (uint32_t i = 0; i <= queue->worker_count; i++) {
        int status = shoal_doorbell_attach(memory + (uint64_t)i * SHOAL_BELL_BYTES, bell_fds == NULL ? -1 : bell_fds[i],
                                           &queue->bells[i]);
        if (status < 0)
            return status;
    }
    return 0;
}

/* Fill it with an empty queue. */
static void lay_out(struct shoal_taskqueue *queue, const struct places *at)
{
    memset(queue->owner, 0, at->end);
    queue->owner->slot_count = queue->slot_count;
    queue->owner->worker_count = queue->worker_count;
    shoal__store_relaxed(&queue->owner->active, queue->worker_count);
    shoal__store_relaxed(&queue->owner->cpu, SHOAL__QUEUE_NO_CPU);
    for (uint32_t i = 0; i < queue->worker_count; i++)
        shoal__store_relaxed(&queue->workers[i].cpu, SHOAL__QUEUE_NO_CPU);
    queue->owner->magic = SHOAL__QUEUE_MAGIC;
}

/* A handle on the memory at `offset`, whose content is not looked at; *ret_at: its parts. */
static int handle_make(struct shoal_region *region, uint64_t offset, const struct shoal_taskqueue_config *config,
                       struct places *ret_at, struct shoal_taskqueue **ret_queue)
{
    if (!config_valid(config) || offset % (uint64_t)shoal__sys_page_size() != 0)
        return -EINVAL;
    struct places at = places_of(config->slot_count, config->worker_count);
    uint8_t *start = shoal_region_at(region, offset, at.end);
    if (start == NULL)
        return -EINVAL;
    struct shoal_taskqueue *queue = calloc(1, sizeof *queue);
    if (queue == NULL)
        return -ENOMEM;
    queue->region = region;
    queue->offset = offset;
    queue->owner_bytes = at.common;
    queue->slot_count = config->slot_count;
    queue->worker_count = config->worker_count;
    queue->entry_count = 2ull * config->slot_count;
    int cpu_count = shoal__sys_usable_cpus();
    queue->cpu_count = cpu_count > 0 ? (uint32_t)cpu_count : config->worker_count; /* more than a thousand of them */
    queue->spin_ns = config->spin_ns < 0 ? SPIN_NS_DEFAULT : config->spin_ns;
    queue->owner = (void *)start;
    queue->descriptors = (void *)(start + at.descriptors);
    queue->entries = (void *)(start + at.entries);
    queue->common = (void *)(start + at.common);
    queue->slots = (void *)(start + at.slots);
    queue->workers = (void *)(start + at.workers);
    queue->meters = (void *)(start + at.meters);
    int status = ledger_create(queue);
    if (status < 0) {
        shoal_taskqueue_free(queue);
        return status;
    }
    queue->turn.steady = shoal_ticks_steady();
    for (uint32_t i = 0; i < queue->worker_count; i++)
        queue->minds[i].turn.steady = queue->turn.steady;
    *ret_at = at;
    *ret_queue = queue;
    return 0;
}

int shoal_taskqueue_create(struct shoal_region *region, uint64_t offset, const struct shoal_taskqueue_config *config,
                           struct shoal_taskqueue **ret_queue)
{
    struct places at;
    struct shoal_taskqueue *queue;
    int status = handle_make(region, offset, config, &at, &queue);
    if (status < 0)
        return status;
    lay_out(queue, &at);
    status = bells_create(queue, (uint8_t *)queue->owner + at.bells, config->doorbell);
    if (status < 0) {
        shoal_taskqueue_free(queue);
        return status;
    }
    *ret_queue = queue;
    return 0;
}

int shoal_taskqueue_attach(struct shoal_region *region, uint64_t offset, const struct shoal_taskqueue_config *config,
                           const int *bell_fds, struct shoal_taskqueue **ret_queue)
{
    struct places at;
    struct shoal_taskqueue *queue;
    int status = handle_make(region, offset, config, &at, &queue);
    if (status < 0)
        return status;
    if (queue->owner->magic != SHOAL__QUEUE_MAGIC || queue->owner->slot_count != queue->slot_count ||
        queue->owner->worker_count != queue->worker_count)
        status = -EPROTO;
    else
        status = bells_attach(queue, (uint8_t *)queue->owner + at.bells, bell_fds);
    if (status < 0) {
        shoal_taskqueue_free(queue);
        return status;
    }
    *ret_queue = queue;
    return 0;
}

void shoal_taskqueue_free(struct shoal_taskqueue *queue)
{
    if (queue == NULL)
        return;
    for (uint32_t i = 0; queue->bells != NULL && i <= queue->worker_count; i++)
        shoal_doorbell_free(queue->bells[i]);
    free(queue->bells);
    free(queue->generations);
    free(queue->statuses);
    free(queue->free_slots);
    free(queue->marks);
    free(queue->minds);
    free(queue);
}

int shoal_taskqueue_protect(struct shoal_taskqueue *queue)
{
    return shoal_region_protect(queue->region, queue->offset, queue->owner_bytes, false);
}

struct shoal_doorbell *shoal_taskqueue_owner_bell(struct shoal_taskqueue *queue)
{
    return queue->bells[0];
}

struct shoal_doorbell *shoal_taskqueue_worker_bell(struct shoal_taskqueue *queue, unsigned worker)
{
    return worker < queue->worker_count ? queue->bells[1 + worker] : NULL;
}

/* ---- soundness ---- */

/* Is this word possible for the slot, by the ledger? */
static bool word_sound(const struct shoal_taskqueue *queue, uint32_t slot, uint64_t word)
{
    uint32_t owner = shoal__word_owner(word);
    if (shoal__word_generation(word) != queue->generations[slot])
        return false;
    bool published = queue->statuses[slot] == SHOAL__SLOT_PUBLISHED;
    switch (shoal__word_state(word)) {
    case SHOAL_TASK_FREE:
        return !published && owner == 0;
    case SHOAL_TASK_READY:
        return published && owner == 0;
    case SHOAL_TASK_CLAIMED:
    case SHOAL_TASK_STARTED:
        return published && owner >= 1 && owner <= queue->worker_count;
    default:
        return false;
    }
}

int shoal_taskqueue_state(const struct shoal_taskqueue *queue, uint32_t slot, enum shoal_task_state *ret_state,
                          unsigned *ret_worker, uint32_t *ret_generation)
{
    if (slot >= queue->slot_count)
        return -EINVAL;
    uint64_t word = shoal__load_acquire(&queue->slots[slot].word); /* SYNC: task-word */
    if (!word_sound(queue, slot, word))
        return -EBADMSG;
    if (ret_state != NULL)
        *ret_state = shoal__word_state(word);
    if (ret_worker != NULL)
        *ret_worker = shoal__word_owner(word) - 1;
    if (ret_generation != NULL)
        *ret_generation = shoal__word_generation(word);
    return 0;
}

static bool hints_sound(const struct shoal_taskqueue *queue)
{
    if (shoal__load_relaxed(&queue->common->spinner) > queue->worker_count ||
        shoal__load_relaxed(&queue->common->lookout) > queue->worker_count)
        return false;
    for (uint32_t i = 0; i < SHOAL__QUEUE_IDLE_WORDS; i++) {
        uint64_t bits = shoal__load_relaxed(&queue->common->idle[i]);
        uint32_t first = i * 64;
        uint32_t valid = queue->worker_count > first ? queue->worker_count - first : 0;
        if (valid < 64 && bits >> valid != 0)
            return false;
    }
    for (uint32_t i = 0; i < queue->worker_count; i++)
        if (shoal__load_relaxed(&queue->workers[i].stance) > SHOAL__WOKEN)
            return false;
    return true;
}

int shoal_taskqueue_check(const struct shoal_taskqueue *queue)
{
    if (queue->owner->magic != SHOAL__QUEUE_MAGIC || queue->owner->slot_count != queue->slot_count ||
        queue->owner->worker_count != queue->worker_count ||
        shoal__load_relaxed(&queue->owner->tail) != queue->tail || !hints_sound(queue))
        return -EUCLEAN;
    /* The head before the words: it does not pass the entry of a slot while that is READY. */
    uint64_t head = shoal__load_acquire(&queue->common->head);
    if (queue->tail - head > queue->entry_count)
        return -EUCLEAN;
    shoal__queue_mark(queue, head);
    uint32_t free_count = 0;
    for (uint32_t slot = 0; slot < queue->slot_count; slot++) {
        uint64_t word = shoal__load_acquire(&queue->slots[slot].word);
        free_count += queue->statuses[slot] == SHOAL__SLOT_FREE;
        if (!word_sound(queue, slot, word) ||
            (shoal__word_state(word) == SHOAL_TASK_READY && queue->marks[slot] == 0))
            return -EUCLEAN;
    }
    return free_count == queue->free_count ? 0 : -EUCLEAN;
}

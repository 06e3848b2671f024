/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * taskqueue_owner.c - the owner process's side: slots and the index ring. taskqueue.c says how all of it works.
 *
 * The index ring has twice as many places as there are slots. Entries become stale without leaving it (a revoked task,
 * a task that was requeued), so it can be full although few tasks are READY; then the live ones are moved to its end,
 * in order, and the head behind them. Workers may claim meanwhile: a live entry is copied up before its old place is
 * written over, so it always stands somewhere at or after the head, and standing twice does no harm.
 */
#include "taskqueue.h"

#include <errno.h>
#include <string.h>

#define HEAD_TRIES 4096 /* a worker that scribbles could make our compare-and-swap fail for ever */

static_assert(sizeof(struct shoal_task) == sizeof(((struct shoal__queue_descriptor *)0)->field), "a task is its words");

/* ---- index ring ---- */

static shoal__a64 *entry_at(const struct shoal_taskqueue *queue, uint64_t position)
{
    return &queue->entries[position & (queue->entry_count - 1)];
}

static bool entry_live(const struct shoal_taskqueue *queue, uint64_t entry)
{
    uint32_t slot = (uint32_t)entry, generation = (uint32_t)(entry >> 32);
    return slot < queue->slot_count && queue->statuses[slot] == SHOAL__SLOT_PUBLISHED &&
           queue->generations[slot] == generation &&
           shoal__word_ready(shoal__load_acquire(&queue->slots[slot].word), generation);
}

uint64_t shoal__queue_head(struct shoal_taskqueue *queue, bool *ret_damaged)
{
    uint64_t head = shoal__load_acquire(&queue->common->head);
    *ret_damaged = queue->tail - head > queue->entry_count;
    if (!*ret_damaged)
        return head;
    shoal__store_release(&queue->common->head, queue->tail);
    return queue->tail;
}

/* Move the head forward to `position`, unless workers have moved it further. */
static void head_forward(struct shoal_taskqueue *queue, uint64_t position)
{
    uint64_t head = shoal__load_relaxed(&queue->common->head);
    for (int tries = 0; tries < HEAD_TRIES; tries++) {
        if (queue->tail - head <= queue->tail - position)
            return;
        if (shoal__cas_acqrel(&queue->common->head, &head, position))
            return;
    }
    shoal__store_release(&queue->common->head, position);
}

/* Throw out what is stale; the live entries end up before the tail, in order. */
static void compact(struct shoal_taskqueue *queue, uint64_t head)
{
    uint64_t to = queue->tail;
    for (uint64_t from = queue->tail; from != head;) {
        uint64_t entry = shoal__load_relaxed(entry_at(queue, --from));
        /* Release: who sees a place written over also sees where its entry went. */
        if (entry_live(queue, entry))
            shoal__store_release(entry_at(queue, --to), entry);
    }
    head_forward(queue, to);
}

bool shoal__queue_append(struct shoal_taskqueue *queue, uint32_t slot)
{
    bool damaged;
    uint64_t head = shoal__queue_head(queue, &damaged);
    if (queue->tail - head >= queue->entry_count)
        compact(queue, head);
    shoal__store_release(entry_at(queue, queue->tail), shoal__entry(queue->generations[slot], slot));
    queue->tail++;
    shoal__store_release(&queue->owner->tail, queue->tail); /* SYNC: queue-tail */
    return !damaged;
}

static void push(struct shoal_taskqueue *queue, uint32_t slot)
{
    if (!shoal__queue_append(queue, slot))
        shoal__queue_rescan(queue);
}

/* ---- slots ---- */

int shoal_taskqueue_acquire(struct shoal_taskqueue *queue)
{
    if (queue->free_count == 0)
        return -EAGAIN;
    uint32_t slot = queue->free_slots[--queue->free_count];
    queue->statuses[slot] = SHOAL__SLOT_ACQUIRED;
    return (int)slot;
}

static void give_back(struct shoal_taskqueue *queue, uint32_t slot)
{
    queue->statuses[slot] = SHOAL__SLOT_FREE;
    queue->free_slots[queue->free_count++] = slot;
}

void shoal_taskqueue_unacquire(struct shoal_taskqueue *queue, uint32_t slot)
{
    if (slot < queue->slot_count && queue->statuses[slot] == SHOAL__SLOT_ACQUIRED)
        give_back(queue, slot);
}

uint32_t shoal_taskqueue_free_slots(const struct shoal_taskqueue *queue)
{
    return queue->free_count;
}

/* The slot is FREE in its word: describe the task, make it READY with a new generation, and announce it. */
static void make_ready(struct shoal_taskqueue *queue, uint32_t slot, const struct shoal_task *task, uint32_t attempt)
{
    struct shoal__queue_descriptor *descriptor = &queue->descriptors[slot];
    uint64_t fields[sizeof descriptor->field / sizeof *descriptor->field];
    memcpy(fields, task, sizeof fields);
    /*
     * A worker from whom the slot was taken may still be copying the last description. Release: if it sees a new field
     * it also sees that the word is not the one that it claimed (taskqueue_worker.c).
     */
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        shoal__store_release(&descriptor->field[i], fields[i]);
    uint32_t generation = ++queue->generations[slot]; /* wraps: no entry lives for 2^32 uses of its slot */
    queue->statuses[slot] = SHOAL__SLOT_PUBLISHED;
    /* SYNC: task-word */
    shoal__store_release(&queue->slots[slot].word, shoal__word(generation, 0, attempt, SHOAL_TASK_READY));
    push(queue, slot);
}

int shoal_taskqueue_publish(struct shoal_taskqueue *queue, uint32_t slot, const struct shoal_task *task,
                            uint32_t *ret_generation)
{
    if (slot >= queue->slot_count || queue->statuses[slot] != SHOAL__SLOT_ACQUIRED)
        return -EINVAL;
    make_ready(queue, slot, task, 0);
    if (ret_generation != NULL)
        *ret_generation = queue->generations[slot];
    return 0;
}

int shoal_taskqueue_revoke(struct shoal_taskqueue *queue, uint32_t slot)
{
    if (slot >= queue->slot_count || queue->statuses[slot] != SHOAL__SLOT_PUBLISHED)
        return -EINVAL;
    uint32_t generation = queue->generations[slot];
    uint64_t word = shoal__load_acquire(&queue->slots[slot].word);
    if (!shoal__word_ready(word, generation) ||
        !shoal__cas_acqrel(&queue->slots[slot].word, &word, shoal__word(generation, 0, 0, SHOAL_TASK_FREE)))
        return -EBUSY;
    give_back(queue, slot);
    return 0;
}

/* Whatever the word says, the slot is FREE now, and no worker's compare-and-swap can succeed any more. */
static uint64_t take_back(struct shoal_taskqueue *queue, uint32_t slot)
{
    /* SYNC: task-word */
    return shoal__exchange_acqrel(&queue->slots[slot].word,
                                  shoal__word(queue->generations[slot], 0, 0, SHOAL_TASK_FREE));
}

int shoal_taskqueue_finish(struct shoal_taskqueue *queue, uint32_t slot)
{
    if (slot >= queue->slot_count || queue->statuses[slot] != SHOAL__SLOT_PUBLISHED)
        return -EINVAL;
    take_back(queue, slot);
    give_back(queue, slot);
    return 0;
}

int shoal_taskqueue_requeue(struct shoal_taskqueue *queue, uint32_t slot, const struct shoal_task *task,
                            uint32_t *ret_generation)
{
    if (slot >= queue->slot_count || queue->statuses[slot] != SHOAL__SLOT_PUBLISHED)
        return -EINVAL;
    uint64_t word = take_back(queue, slot);
    uint32_t attempt = shoal__word_attempt(word);
    make_ready(queue, slot, task, attempt < 0xff ? attempt + 1 : attempt);
    if (ret_generation != NULL)
        *ret_generation = queue->generations[slot];
    return 0;
}

/* ---- hints ---- */

void shoal_taskqueue_owner_here(struct shoal_taskqueue *queue)
{
    uint32_t cpu = shoal_cpu();
    /* Relaxed: a worker that sees it late spins a little too long, or not at all. */
    if (shoal__load_relaxed(&queue->owner->cpu) != cpu)
        shoal__store_relaxed(&queue->owner->cpu, cpu);
}

int shoal_taskqueue_worker_cpu(const struct shoal_taskqueue *queue, unsigned worker)
{
    if (worker >= queue->worker_count)
        return -1;
    uint32_t cpu = shoal__load_relaxed(&queue->workers[worker].cpu);
    return cpu <= INT32_MAX ? (int)cpu : -1;
}

uint32_t shoal_taskqueue_backlog(const struct shoal_taskqueue *queue)
{
    uint64_t backlog = shoal__queue_backlog(queue);
    return backlog <= queue->slot_count ? (uint32_t)backlog : queue->slot_count;
}

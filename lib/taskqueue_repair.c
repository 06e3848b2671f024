/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * taskqueue_repair.c - after a worker's death, or when hints were scribbled over.
 *
 * A worker's death by itself loses nothing: its tasks are named in their words, and each of its unfinished steps is one
 * that the next to come does anew. What must be undone is what others were told: that it would come (stance, spinner),
 * or look (lookout), that it slept (idle bit), and a sleeper that it had taken to wake and did not ring. The last is
 * why everybody is woken.
 *
 * The index ring can lose entries only through a head that was scribbled over; the words tell which.
 */
#include "taskqueue.h"

#include <errno.h>
#include <string.h>

#define RESCAN_TRIES 4 /* somebody scribbles all the time: whoever looks after the queue rescans it later */

void shoal__queue_mark(const struct shoal_taskqueue *queue, uint64_t head)
{
    memset(queue->marks, 0, queue->slot_count);
    for (uint64_t position = head; position != queue->tail; position++) {
        uint64_t entry = shoal__load_relaxed(&queue->entries[position & (queue->entry_count - 1)]);
        uint32_t slot = (uint32_t)entry;
        if (slot < queue->slot_count && queue->generations[slot] == (uint32_t)(entry >> 32))
            queue->marks[slot] = 1;
    }
}

/* One look at all slots. True if no entry was lost meanwhile. */
static bool rescan_once(struct shoal_taskqueue *queue, int *pushed)
{
    bool damaged, whole = true;
    /* The head before the words: it does not pass the entry of a slot while that is READY. */
    shoal__queue_mark(queue, shoal__queue_head(queue, &damaged));
    for (uint32_t slot = 0; slot < queue->slot_count; slot++) {
        if (queue->statuses[slot] != SHOAL__SLOT_PUBLISHED || queue->marks[slot] != 0)
            continue;
        uint64_t word = shoal__load_acquire(&queue->slots[slot].word);
        if (!shoal__word_ready(word, queue->generations[slot]))
            continue;
        whole &= shoal__queue_append(queue, slot);
        ++*pushed;
    }
    return whole;
}

int shoal__queue_rescan(struct shoal_taskqueue *queue)
{
    int pushed = 0;
    for (int tries = 0; tries < RESCAN_TRIES && !rescan_once(queue, &pushed); tries++)
        ;
    return pushed;
}

int shoal_taskqueue_rescan(struct shoal_taskqueue *queue)
{
    int pushed = shoal__queue_rescan(queue);
    shoal__fence_seqcst(); /* entries before the look at who sleeps */
    shoal__queue_wake(queue, queue->worker_count, -1);
    return pushed;
}

int shoal_taskqueue_bury(struct shoal_taskqueue *queue, unsigned worker)
{
    if (worker >= queue->worker_count)
        return -EINVAL;
    uint32_t mark = worker + 1;
    shoal__store_seqcst(&queue->workers[worker].stance, SHOAL__AWAKE);
    shoal__watch_forget(queue, worker);
    shoal__and_seqcst(&queue->common->idle[worker / 64], ~shoal__idle_bit(worker));
    shoal__cas_seqcst(&queue->common->spinner, &mark, 0);
    shoal__lookout_end(queue, worker);
    shoal__queue_rescan(queue);
    shoal_taskqueue_wake_all(queue);
    return 0;
}

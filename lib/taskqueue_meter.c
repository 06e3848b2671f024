/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * taskqueue_meter.c - figures that each process writes for who looks on.
 *
 * The problem: how much a worker has done and where its time went is to be known at any moment, by the owner process or
 * by another program, without a word to the worker, and also after it was killed.
 *
 * The protocol: each has a few cache lines of 64-bit words that nobody else writes. Every store and load is relaxed:
 * each figure is whole by itself, and nothing is decided by them. Calls are seen in order, so who needs several words
 * of one moment keeps a sequence number among them (pool/ext/meter.h does for its texts).
 *
 * Costs: a store for each word. Does not: protect them against a worker that scribbles; figures are not believed.
 */
#include "taskqueue.h"

#include <errno.h>

static_assert(sizeof(struct shoal__queue_meter) == SHOAL_METER_WORDS * sizeof(shoal__a64), "the header says how many");

static bool words_there(const struct shoal_taskqueue *queue, unsigned meter, unsigned first, unsigned count)
{
    return meter <= queue->worker_count && first <= SHOAL_METER_WORDS && count <= SHOAL_METER_WORDS - first;
}

int shoal_taskqueue_meter_set(struct shoal_taskqueue *queue, unsigned meter, unsigned first, const uint64_t *words,
                              unsigned count)
{
    if (!words_there(queue, meter, first, count))
        return -EINVAL;
    shoal__a64 *place = queue->meters[meter].word + first;
    shoal__fence_release(); /* SYNC: meter */
    for (unsigned i = 0; i < count; i++)
        shoal__store_relaxed(&place[i], words[i]); /* seen late: it is a figure */
    return 0;
}

int shoal_taskqueue_meter_read(const struct shoal_taskqueue *queue, unsigned meter, unsigned first, uint64_t *ret_words,
                               unsigned count)
{
    if (!words_there(queue, meter, first, count))
        return -EINVAL;
    const shoal__a64 *place = queue->meters[meter].word + first;
    for (unsigned i = 0; i < count; i++)
        ret_words[i] = shoal__load_relaxed(&place[i]);
    shoal__fence_acquire(); /* SYNC: meter */
    return 0;
}

uint64_t shoal_taskqueue_meter_offset(const struct shoal_taskqueue *queue)
{
    return queue->offset + (uint64_t)((const uint8_t *)queue->meters - (const uint8_t *)queue->owner);
}

void shoal_taskqueue_set_notice(struct shoal_taskqueue *queue, uint64_t notice)
{
    shoal__store_release(&queue->owner->notice, notice); /* SYNC: notice */
}

uint64_t shoal_taskqueue_notice(const struct shoal_taskqueue *queue)
{
    return shoal__load_acquire(&queue->owner->notice); /* SYNC: notice */
}

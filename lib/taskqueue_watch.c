/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * taskqueue_watch.c - ending what a worker runs, so that exactly one side gives the outcome.
 *
 * The problem: a worker is to be stopped or killed because of one task (or one item of a batch). By the time that it
 * happens, the worker may have gone on to the next, which is innocent; and the outcome may have been handed in.
 *
 * The protocol: one word in the worker's line.
 *
 *      63              3 2      0
 *     +-----------------+--------+
 *     |      beat       | phase  |     the beat grows with each thing that is begun
 *     +-----------------+--------+
 *
 *      ENDED --begin(worker)--> RUNS --ask(owner process)--> STOP --> STOP_ALL --> KILL
 *        ^                        |                            |          |
 *        +--------- end (worker) -+----------------------------+----------+
 *
 * Asking is a swap of the word as it was looked at, so it hits the beat that was meant or nothing. The worker ends a
 * beat by a swap, too, before it hands its outcome in: after that nobody kills it for this one. If the owner process
 * was first with KILL, the worker hands in nothing and waits for its end.
 *
 * Guarantees: no outcome twice, none lost, nobody else hit. STOP and STOP_ALL are requests: a worker that ends is late
 * with them at no harm. Costs: two swaps or stores of a line that the worker has anyway, per task. Does not: hold
 * against a worker that scribbles over its own line: it is stopped late, or never. Model: tests/model/watch.pml.
 */
#include <shoal/killpoint.h>

#include "taskqueue.h"

#include <errno.h>

#define PHASE_BITS 3
#define PHASE_MASK 7u

int shoal_taskqueue_watch(const struct shoal_taskqueue *queue, unsigned worker, struct shoal_watch *ret_watch)
{
    if (worker >= queue->worker_count)
        return -EINVAL;
    struct shoal__queue_worker *line = &queue->workers[worker];
    uint64_t word = shoal__load_acquire(&line->watch); /* SYNC: watch */
    uint64_t running = shoal__load_acquire(&line->running);
    uint64_t since_ns = shoal__load_acquire(&line->since_ns); /* both before the second look at the word */
    if (shoal__load_relaxed(&line->watch) != word || (word & PHASE_MASK) > SHOAL_WATCH_KILL)
        return -EAGAIN;
    *ret_watch = (struct shoal_watch) {
        .beat = word >> PHASE_BITS,
        .phase = (enum shoal_watch_phase)(word & PHASE_MASK),
        .slot = (uint32_t)running,
        .generation = (uint32_t)(running >> 32),
        .since_ns = (int64_t)since_ns,
    };
    return 0;
}

int shoal_taskqueue_watch_ask(struct shoal_taskqueue *queue, unsigned worker, uint64_t beat,
                              enum shoal_watch_phase phase)
{
    if (worker >= queue->worker_count)
        return -EINVAL;
    shoal__a64 *place = &queue->workers[worker].watch;
    uint64_t word = shoal__load_relaxed(place); /* the swap below is what counts */
    for (int tries = 0; tries < SHOAL_WATCH_KILL; tries++) { /* a word has no more phases than that */
        uint64_t now = word & PHASE_MASK;
        if (word >> PHASE_BITS != beat || now == SHOAL_WATCH_ENDED || now >= (uint64_t)phase)
            return -ESTALE;
        if (shoal__cas_acqrel(place, &word, beat << PHASE_BITS | (uint64_t)phase)) /* SYNC: watch */
            return 0;
    }
    return -ESTALE;
}

void shoal_taskqueue_watch_begin(struct shoal_taskqueue *queue, unsigned worker, const struct shoal_claim *claim,
                                 int64_t since_ns)
{
    struct shoal__queue_worker *line = &queue->workers[worker];
    /* Relaxed: while ENDED, nobody but us writes it. */
    uint64_t beat = (shoal__load_relaxed(&line->watch) >> PHASE_BITS) + 1;
    shoal__store_relaxed(&line->running, (uint64_t)claim->generation << 32 | claim->slot);
    shoal__store_relaxed(&line->since_ns, (uint64_t)since_ns);
    shoal__store_release(&line->watch, beat << PHASE_BITS | SHOAL_WATCH_RUNS); /* SYNC: watch */
    SHOAL_KILL_POINT("watch: begun");
}

int shoal_taskqueue_watch_end(struct shoal_taskqueue *queue, unsigned worker)
{
    shoal__a64 *place = &queue->workers[worker].watch;
    uint64_t word = shoal__load_relaxed(place); /* the swap below is what counts */
    SHOAL_KILL_POINT("watch: to be ended");
    do {
        if ((word & PHASE_MASK) >= SHOAL_WATCH_KILL)
            return -ECANCELED;
    } while (!shoal__cas_acqrel(place, &word, word & ~(uint64_t)PHASE_MASK)); /* SYNC: watch */
    SHOAL_KILL_POINT("watch: ended");
    return (int)(word & PHASE_MASK);
}

void shoal__watch_forget(struct shoal_taskqueue *queue, unsigned worker)
{
    shoal__a64 *place = &queue->workers[worker].watch;
    shoal__store_release(place, shoal__load_relaxed(place) & ~(uint64_t)PHASE_MASK); /* SYNC: watch */
}

enum shoal_watch_phase shoal_taskqueue_watch_phase(const struct shoal_taskqueue *queue, unsigned worker)
{
    /* Relaxed: seen late, it is seen at the next look, or the signal that follows it brings it. */
    return (enum shoal_watch_phase)(shoal__load_relaxed(&queue->workers[worker].watch) & PHASE_MASK);
}

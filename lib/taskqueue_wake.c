/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * taskqueue_wake.c - who sleeps, who comes, whom to wake. Used by the owner process and by workers.
 *
 * The problem: a wake costs its caller some microseconds and the sleeper sixty; waking nobody is a hang. So count the
 * workers who will look at the index ring anyway, and wake only for what goes beyond them.
 *
 * Why counting on them is safe: a worker that stops coming (it has claimed, or goes to sleep) first says so, then does
 * a full fence, then looks at the index ring again, and wakes another if there is more than it can take. The caller
 * here has published before its own full fence. So either we see that it does not come, or it sees what we published.
 *
 * The warmest sleeper is woken first: the one that went to sleep last; the lookout (taskqueue_lookout.c) last of all.
 */
#include "taskqueue.h"

#include <errno.h>
#include <limits.h>

static enum shoal__stance stance_of(const struct shoal_taskqueue *queue, unsigned worker)
{
    uint32_t stance = shoal__load_relaxed(&queue->workers[worker].stance);
    return stance <= SHOAL__WOKEN ? (enum shoal__stance)stance : SHOAL__AWAKE;
}

/* Idle bits of one word, with those that name no worker cleared. */
static uint64_t idle_bits(const struct shoal_taskqueue *queue, uint32_t index)
{
    uint64_t bits = shoal__load_relaxed(&queue->common->idle[index]);
    uint32_t active = shoal__queue_active(queue), first = index * 64;
    uint32_t valid = active > first ? active - first : 0; /* there were more when the caller looked */
    return valid < 64 ? bits & ((1ull << valid) - 1) : bits;
}

static bool anybody_idle(const struct shoal_taskqueue *queue)
{
    for (uint32_t i = 0; i < shoal__idle_words(queue); i++)
        if (idle_bits(queue, i) != 0)
            return true;
    return false;
}

/* Workers who will look at the index ring anyway; counts no further than `enough`. */
static uint64_t count_coming(const struct shoal_taskqueue *queue, uint64_t enough, int self)
{
    uint64_t coming = 0;
    uint32_t active = shoal__queue_active(queue);
    for (uint32_t i = 0; i < active && coming < enough; i++) {
        enum shoal__stance stance = stance_of(queue, i);
        coming += (int)i != self && (stance == SHOAL__COMING || stance == SHOAL__WOKEN);
    }
    return coming;
}

/* The sleeper that went to sleep last, or -1. The lookout only if it is the only one. */
static int warmest_sleeper(const struct shoal_taskqueue *queue)
{
    int warmest = -1;
    uint32_t lookout = shoal__load_relaxed(&queue->common->lookout);
    uint64_t latest_ns = 0;
    for (uint32_t i = 0; i < shoal__idle_words(queue); i++)
        for (uint64_t bits = idle_bits(queue, i); bits != 0; bits &= bits - 1) {
            unsigned worker = i * 64 + (unsigned)__builtin_ctzll(bits);
            uint64_t rest_ns = worker + 1 == lookout ? 0 : shoal__load_relaxed(&queue->workers[worker].rest_ns);
            if (stance_of(queue, worker) == SHOAL__SLEEPING && (warmest < 0 || rest_ns > latest_ns)) {
                warmest = (int)worker;
                latest_ns = rest_ns;
            }
        }
    return warmest;
}

/* Take a sleeper: only one waker succeeds, and only while it sleeps. 1 if it was ours to ring. */
static int wake_sleeper(struct shoal_taskqueue *queue, unsigned worker)
{
    uint32_t expected = SHOAL__SLEEPING;
    if (!shoal__cas_seqcst(&queue->workers[worker].stance, &expected, SHOAL__WOKEN))
        return 0;
    shoal_doorbell_ring(queue->bells[1 + worker], SHOAL_LAZY);
    return 1;
}

bool shoal__queue_wake_one(struct shoal_taskqueue *queue, int self)
{
    int sleeper = warmest_sleeper(queue);
    return sleeper >= 0 && sleeper != self && wake_sleeper(queue, (unsigned)sleeper) > 0;
}

int shoal__queue_wake(struct shoal_taskqueue *queue, uint32_t limit, int self)
{
    uint64_t backlog = shoal__queue_backlog(queue);
    if (backlog == 0 || !anybody_idle(queue))
        return 0;
    /* The usual case, one task and one worker that waits for it, without a look at every worker's line. */
    uint32_t spinner = shoal__load_relaxed(&queue->common->spinner);
    if (backlog == 1 && spinner != 0 && spinner <= queue->worker_count && (int)spinner - 1 != self)
        return 0;
    uint64_t need = shoal__lookout_limit(queue, backlog, limit);
    if (need == 0)
        return 0;
    uint64_t left = backlog - count_coming(queue, backlog, self);
    need = left < need ? left : need;
    int woken = 0;
    /* At most one try per worker: stances that are scribbled over must not keep us here. */
    for (uint32_t tries = 0; (uint64_t)woken < need && tries < queue->worker_count; tries++) {
        int sleeper = warmest_sleeper(queue);
        if (sleeper < 0)
            break;
        woken += wake_sleeper(queue, (unsigned)sleeper);
    }
    return woken;
}

int shoal_taskqueue_wake(struct shoal_taskqueue *queue)
{
    shoal__fence_seqcst(); /* what was published before the look at who sleeps */
    return shoal__queue_wake(queue, queue->worker_count, -1);
}

int shoal_taskqueue_wake_all(struct shoal_taskqueue *queue)
{
    int woken = 0;
    shoal__fence_seqcst();
    uint32_t active = shoal__queue_active(queue);
    for (uint32_t worker = 0; worker < active; worker++) {
        uint32_t expected = SHOAL__SLEEPING;
        bool sleeps = shoal__cas_seqcst(&queue->workers[worker].stance, &expected, SHOAL__WOKEN);
        woken += sleeps || expected == SHOAL__WOKEN;
        /* Even if it is not announced: whoever took the announcement may have died before it rang. */
        shoal_doorbell_ring(queue->bells[1 + worker], SHOAL_AWAKE);
    }
    return woken;
}

int shoal_taskqueue_wake_worker(struct shoal_taskqueue *queue, unsigned worker)
{
    if (worker >= queue->worker_count)
        return -EINVAL;
    return shoal_doorbell_ring(queue->bells[1 + worker], SHOAL_LAZY);
}

int shoal_taskqueue_set_active(struct shoal_taskqueue *queue, unsigned workers)
{
    if (workers < 1 || workers > queue->worker_count)
        return -EINVAL;
    shoal__store_seqcst(&queue->owner->active, workers); /* before anything is done for, or about, the others */
    return 0;
}

uint32_t shoal_taskqueue_idle(const struct shoal_taskqueue *queue)
{
    uint32_t idle = 0;
    for (uint32_t i = 0; i < shoal__idle_words(queue); i++)
        idle += (uint32_t)__builtin_popcountll(idle_bits(queue, i));
    return idle;
}

int shoal_taskqueue_spinner(const struct shoal_taskqueue *queue)
{
    uint32_t spinner = shoal__load_relaxed(&queue->common->spinner);
    return spinner <= queue->worker_count ? (int)spinner - 1 : -1;
}

static bool is_elsewhere(const struct shoal_taskqueue *queue, unsigned worker)
{
    uint32_t there = shoal__load_relaxed(&queue->workers[worker].cpu);
    return there != SHOAL__QUEUE_NO_CPU && there != shoal_cpu();
}

bool shoal_taskqueue_worker_elsewhere(const struct shoal_taskqueue *queue)
{
    uint32_t active = shoal__queue_active(queue);
    for (uint32_t i = 0; i < active; i++)
        if (stance_of(queue, i) != SHOAL__SLEEPING && is_elsewhere(queue, i))
            return true;
    return false;
}

bool shoal_taskqueue_taker_elsewhere(const struct shoal_taskqueue *queue)
{
    int taker = shoal_taskqueue_spinner(queue);
    if (taker < 0)
        taker = warmest_sleeper(queue);
    return taker < 0 ? shoal_taskqueue_worker_elsewhere(queue) : is_elsewhere(queue, (unsigned)taker);
}

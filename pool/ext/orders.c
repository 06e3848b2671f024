/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * orders.c - what the parent tells a worker: here is memory for your result, look which handles are live.
 *
 * An order goes into the worker's order ring and wakes it. The ring is never full, because a worker waits for the
 * answer to what it has asked for; if it is, the worker has written over it.
 */
#include "engine.h"

#include <errno.h>
#include <string.h>

#include <shoal/killpoint.h>

/* ---- leases: memory that a worker may fill with a result ---- */

#define LEASE_PATIENCE_NS 200000000

void engine_free_lease(struct engine *engine, struct worker *worker)
{
    if (worker->has_lease)
        shoal_arena_release(engine->home->arena, worker->lease);
    worker->has_lease = false;
}

/* A worker has written over the memory that it shares with us: it ends, and engine_bury_dead says why. */
void engine_kill_damaged(struct engine *engine, struct worker *worker)
{
    worker->damaged = true;
    engine->deaths_pending = true;
    if (worker->peer.pidfd >= 0)
        shoal_peer_signal(&worker->peer, SIGKILL);
}

static void send_order(struct engine *engine, unsigned index, const struct order *order)
{
    struct worker *worker = &engine->workers[index];
    void *place;
    uint64_t room;
    if (shoal_ring_reserve(worker->orders, sizeof *order, &place, &room) < 0) {
        engine_kill_damaged(engine, worker); /* never full: it has written over the reader's position */
        return;
    }
    memcpy(place, order, sizeof *order);
    shoal_ring_commit(worker->orders, sizeof *order);
    shoal_taskqueue_wake_worker(engine->queue, index);
}

void engine_order_sweep(struct engine *engine, unsigned index)
{
    struct worker *worker = &engine->workers[index];
    /* Many of them unread are as good as one more, and what is left of the ring is for orders that must not be lost. */
    if (worker->peer.pidfd >= 0 && worker->orders != NULL && !worker->damaged &&
        shoal_ring_used(worker->orders) < ORDER_RING_BYTES / 4) {
        struct order order = {.kind = ORDER_SWEEP, .size_bytes = ++worker->sweeps_asked};
        send_order(engine, index, &order);
    }
}

bool engine_sweeps(struct engine *engine)
{
    /* Who looked before it came to a task that was under way then still has what that task was given. */
    if (engine->sweep_again && engine->in_flight == 0) {
        engine->sweep_again = false;
        for (unsigned i = 0; i < engine->worker_count; i++)
            engine_order_sweep(engine, i);
    }
    for (unsigned i = 0; i < engine->worker_count; i++) {
        if (engine->workers[i].sweeps_asked != engine->workers[i].sweeps_done)
            return true;
    }
    return false;
}

/* Is there a running task whose end will give memory back? Asked only when the budget is reached. */
static bool some_task_gives_back(const struct engine *engine)
{
    for (uint32_t slot = 0; slot < ENGINE_SLOTS; slot++) {
        const struct entry *entry = &engine->entries[slot];
        enum shoal_task_state state;
        unsigned worker;
        uint32_t generation;
        if (entry->owner == NULL || entry->block == HOME_NO_BLOCK ||
            shoal_taskqueue_state(engine->queue, slot, &state, &worker, &generation) < 0)
            continue;
        if (worker < engine->worker_count && engine->workers[worker].wanted_bytes == 0)
            return true;
    }
    return false;
}

static void grant(struct engine *engine, unsigned index)
{
    struct worker *worker = &engine->workers[index];
    struct order order = {.kind = ORDER_GRANT, .size_bytes = worker->wanted_bytes,
                          .limit_bytes = engine->home->budget_bytes};
    order.error = shoal_arena_alloc(engine->home->arena, worker->wanted_bytes, &order.offset);
    SHOAL_PARENT_POINT("grant: allocated", shoal_peer_signal(&worker->peer, SIGKILL));
    if (order.error == -EDQUOT) {
        /* Results that nobody has fetched fill the budget. A running task may give something back; but it may also be
         * waiting for the very thread that waits for this result. So the budget yields after a while, and at once if
         * there is no such task; the machine's memory does not. */
        if (some_task_gives_back(engine) && shoal_now_ns() - worker->wanted_since_ns < LEASE_PATIENCE_NS)
            return;
        order.error = shoal_arena_alloc_beyond(engine->home->arena, worker->wanted_bytes, &order.offset);
    }
    progress_tend(engine, worker->wanted_bytes);
    worker->wanted_bytes = 0;
    if (order.error >= 0) {
        engine_free_lease(engine, worker);
        worker->lease = order.offset;
        worker->lease_bytes = order.size_bytes;
        worker->has_lease = true;
    }
    send_order(engine, index, &order);
}

void engine_grant_leases(struct engine *engine)
{
    engine->leases_wanted = false;
    for (unsigned i = 0; i < engine->worker_count; i++) {
        if (engine->workers[i].wanted_bytes == 0)
            continue;
        /* Without a pidfd it is not watched yet: its start is under way in another thread. */
        if (engine->workers[i].peer.pidfd >= 0)
            grant(engine, i);
        engine->leases_wanted |= engine->workers[i].wanted_bytes != 0;
    }
}

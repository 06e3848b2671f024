/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * worker_orders.c - what the parent tells a worker, and to wait for it in the middle of a task.
 *
 * Orders come through a ring of their own; they are read between two tasks, and by who waits for one of them.
 */
#include <string.h>
#include <unistd.h>

#include <shoal/killpoint.h>

#include "worker.h"

#define LEASE_KNOWN_BYTES (UINT64_C(4) << 20) /* of larger ones the faults would be too dear, if they come */

bool worker_parent_gone(const struct worker_side *side)
{
    return side->pool_process.pidfd >= 0 ? shoal_peer_alive(&side->pool_process) == 0 : getppid() != side->parent;
}

/*
 * A lease of many pages: map them all at once, rather than by a fault each. Those that were leased to us a moment ago
 * are mapped, unless they were given back to the system since, which is done when nobody works.
 */
static void map_pages(struct engine *engine, uint64_t offset, uint64_t whole)
{
    struct worker_side *side = engine->side;
    if (whole < 65536)
        return;
    for (unsigned i = 0; i < LEASES_KNOWN; i++) {
        if (side->mapped[i].offset == offset && side->mapped[i].bytes >= whole)
            return;
    }
    shoal_region_populate(engine->home->region, offset, whole, true);
    if (whole <= LEASE_KNOWN_BYTES)
        side->mapped[side->mapped_next++ % LEASES_KNOWN] = (struct lease_pages){.offset = offset, .bytes = whole};
}

void worker_read_orders(struct engine *engine)
{
    struct worker_side *side = engine->side;
    const void *bytes;
    uint64_t size;
    while (shoal_ring_peek(side->own->orders, &bytes, &size) == 0) {
        struct order order = {0};
        memcpy(&order, bytes, size < sizeof order ? size : sizeof order);
        shoal_ring_pop(side->own->orders);
        if (order.kind == ORDER_STOP) {
            side->stop = true;
        } else if (order.kind == ORDER_RETIRE) {
            side->retire = true;
            SHOAL_KILL_POINT("resize: told to end");
        } else if (order.kind == ORDER_SWEEP) {
            side->sweep_asked = order.size_bytes;
            SHOAL_KILL_POINT("sweep: asked");
        } else if (order.kind == ORDER_GRANT) {
            side->lease_waiting = false;
            side->lease_error = order.error;
            side->lease_limit = order.limit_bytes;
            side->lease_there = order.error >= 0;
            if (!side->lease_there)
                continue;
            side->lease = order.offset;
            side->lease_bytes = order.size_bytes;
            SHOAL_KILL_POINT("lease: granted");
            uint64_t whole = (order.size_bytes + 4095) & ~UINT64_C(4095);
            int error = shoal_region_protect(engine->home->region, order.offset, whole, true);
            if (error < 0) { /* too many mappings for one process; the next grant takes this one back */
                side->lease_there = false;
                side->lease_error = error;
                continue;
            }
            map_pages(engine, order.offset, whole);
        }
    }
}

static void wait_for_parent(struct engine *engine, bool (*there)(void *), void *arg)
{
    struct worker_side *side = engine->side;
    struct shoal_doorbell *bell = shoal_taskqueue_worker_bell(engine->queue, side->index);
    shoal_doorbell_ring(shoal_taskqueue_owner_bell(engine->queue), SHOAL_LAZY);
    bool arrived;
    Py_BEGIN_ALLOW_THREADS
    arrived = shoal_taskqueue_linger(engine->queue, side->index, there, arg);
    Py_END_ALLOW_THREADS
    if (arrived)
        return;
    uint32_t ticket = shoal_doorbell_announce(bell, SHOAL_URGENT);
    if (!there(arg)) {
        Py_BEGIN_ALLOW_THREADS
        shoal_waiter_wait(side->waiter, bell, ticket, shoal_now_ns() + LOOK_FOR_PARENT_NS, NULL);
        Py_END_ALLOW_THREADS
    }
    shoal_doorbell_retract(bell);
    if (worker_parent_gone(side))
        _exit(1);
}

void worker_wait_for_parent(struct engine *engine, bool (*there)(void *), void *arg)
{
    int64_t begun = meter_stall_begins(&engine->side->meter);
    wait_for_parent(engine, there, arg);
    meter_stall_ended(&engine->side->meter, begun);
}

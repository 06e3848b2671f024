/* SPDX-License-Identifier: BSD-3-Clause */
/* taskqueue.c - what one task costs, without its user code: each step, and the way to a worker process and back. */
#include "bench.h"

#include <errno.h>
#include <sys/mman.h>

#define SLOTS 128u
#define STEPS 2000000u

struct shared {
    _Alignas(64) uint32_t finished[SLOTS];
    uint32_t quit;
};

struct pool {
    struct shoal_taskqueue *queue;
    struct shoal_waiter *waiter;
    struct shared *shared;
    enum shoal_doorbell_kind kind;
    unsigned workers;
    uint32_t generations[SLOTS];
    uint32_t slots[SLOTS]; /* under way, oldest first */
    uint64_t published, collected;
};

static void pool_create(struct pool *pool, int64_t spin_ns)
{
    *pool = (struct pool) { 0 };
    MUST(shoal_doorbell_choose(&pool->kind));
    struct shoal_taskqueue_config config = {
        .slot_count = SLOTS, .worker_count = 2, .doorbell = pool->kind, .spin_ns = spin_ns
    };
    struct shoal_region *region = region_of(shoal_taskqueue_footprint(&config));
    MUST(shoal_taskqueue_create(region, SHOAL_REGION_HEADER_BYTES, &config, &pool->queue));
    MUST(shoal_waiter_create(pool->kind, &pool->waiter));
    pool->shared = mmap(NULL, sizeof *pool->shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (pool->shared == MAP_FAILED)
        exit(1);
}

/* ---- every step, one process ---- */

static void steps(void)
{
    static struct shoal_claim claims[SLOTS];
    static uint32_t slots[SLOTS];
    struct shoal_task task = { .tag = 1 };
    struct pool pool;
    int64_t publish_ns = 0, claim_ns = 0, start_ns = 0, finish_ns = 0;
    pool_create(&pool, 0);
    for (uint64_t round = 0; round < STEPS / SLOTS; round++) {
        int64_t t0 = shoal_now_ns();
        for (uint32_t i = 0; i < SLOTS; i++) {
            slots[i] = (uint32_t)MUST(shoal_taskqueue_acquire(pool.queue));
            MUST(shoal_taskqueue_publish(pool.queue, slots[i], &task, NULL));
            MUST(shoal_taskqueue_wake(pool.queue));
        }
        int64_t t1 = shoal_now_ns();
        for (uint32_t i = 0; i < SLOTS; i++)
            MUST(shoal_taskqueue_claim(pool.queue, 0, &task, &claims[i]));
        int64_t t2 = shoal_now_ns();
        for (uint32_t i = 0; i < SLOTS; i++)
            MUST(shoal_taskqueue_start(pool.queue, 0, &claims[i]));
        int64_t t3 = shoal_now_ns();
        for (uint32_t i = 0; i < SLOTS; i++)
            MUST(shoal_taskqueue_finish(pool.queue, claims[i].slot));
        int64_t t4 = shoal_now_ns();
        publish_ns += t1 - t0;
        claim_ns += t2 - t1;
        start_ns += t3 - t2;
        finish_ns += t4 - t3;
    }
    const uint64_t count = STEPS / SLOTS * SLOTS;
    report("taskqueue_publish_wake", shoal_now_ns() - publish_ns, count);
    report("taskqueue_claim", shoal_now_ns() - claim_ns, count);
    report("taskqueue_start", shoal_now_ns() - start_ns, count);
    report("taskqueue_finish", shoal_now_ns() - finish_ns, count);
}

/* ---- to a worker and back ---- */

static bool quit_asked(void *argument)
{
    struct pool *pool = argument;
    return __atomic_load_n(&pool->shared->quit, __ATOMIC_ACQUIRE) != 0;
}

static void work(struct pool *pool, unsigned worker)
{
    struct shoal_task task;
    struct shoal_claim claim;
    shoal_waiter_abandon(pool->waiter);
    MUST(shoal_waiter_create(pool->kind, &pool->waiter));
    MUST(shoal_taskqueue_protect(pool->queue));
    for (;;) {
        int status = shoal_taskqueue_claim(pool->queue, worker, &task, &claim);
        if (status == 0) {
            MUST(shoal_taskqueue_start(pool->queue, worker, &claim));
            shoal_taskqueue_returning(pool->queue, worker);
            __atomic_store_n(&pool->shared->finished[claim.slot], claim.generation, __ATOMIC_RELEASE);
            MUST(shoal_doorbell_ring(shoal_taskqueue_owner_bell(pool->queue), SHOAL_URGENT));
        } else if (quit_asked(pool)) {
            _exit(0);
        } else {
            MUST(shoal_taskqueue_wait(pool->queue, worker, pool->waiter, -1, NULL, quit_asked, pool));
        }
    }
}

static void publish(struct pool *pool)
{
    struct shoal_task task = { .tag = pool->published };
    uint32_t slot = (uint32_t)MUST(shoal_taskqueue_acquire(pool->queue));
    MUST(shoal_taskqueue_publish(pool->queue, slot, &task, &pool->generations[slot]));
    pool->slots[pool->published++ % SLOTS] = slot;
    MUST(shoal_taskqueue_wake(pool->queue));
}

static bool oldest_finished(struct pool *pool)
{
    uint32_t slot = pool->slots[pool->collected % SLOTS];
    return __atomic_load_n(&pool->shared->finished[slot], __ATOMIC_ACQUIRE) == pool->generations[slot];
}

/* To spin on the CPU that the worker needs would only hold it up. */
static bool worker_elsewhere(const struct pool *pool)
{
    for (unsigned worker = 0; worker < pool->workers; worker++)
        if (shoal_taskqueue_worker_cpu(pool->queue, worker) != (int)shoal_cpu())
            return true;
    return false;
}

/* Spin for spin_ns, then sleep, as a pool's waiting thread does. */
static void collect(struct pool *pool, int64_t spin_ns)
{
    struct shoal_doorbell *bell = shoal_taskqueue_owner_bell(pool->queue);
    int64_t end_ns = shoal_now_ns() + spin_ns;
    shoal_taskqueue_owner_here(pool->queue);
    while (!oldest_finished(pool)) {
        if (worker_elsewhere(pool) && shoal_now_ns() < end_ns)
            continue;
        uint32_t ticket = shoal_doorbell_announce(bell, SHOAL_URGENT);
        if (!oldest_finished(pool))
            MUST(shoal_waiter_wait(pool->waiter, bell, ticket, -1, NULL));
        shoal_doorbell_retract(bell);
    }
    MUST(shoal_taskqueue_finish(pool->queue, pool->slots[pool->collected++ % SLOTS]));
}

static void there_and_back(const char *row, unsigned workers, uint32_t depth, int64_t spin_ns, uint64_t count)
{
    struct pool pool;
    pid_t pids[2];
    pool_create(&pool, spin_ns);
    pool.workers = workers;
    for (unsigned i = 0; i < workers; i++)
        if ((pids[i] = fork()) == 0)
            work(&pool, i);
    int64_t begin_ns = 0;
    for (uint64_t i = 0; i < count + 1000; i++) {
        if (i == 1000) /* warm by then */
            begin_ns = shoal_now_ns();
        while (pool.published - pool.collected < depth)
            publish(&pool);
        collect(&pool, spin_ns < 0 ? 50000 : spin_ns);
    }
    report(row, begin_ns, count);
    __atomic_store_n(&pool.shared->quit, 1, __ATOMIC_RELEASE);
    shoal_taskqueue_wake_all(pool.queue);
    for (unsigned i = 0; i < workers; i++)
        reap(pids[i]);
}

int main(void)
{
    steps();
    there_and_back("taskqueue_round_trip_1_worker", 1, 1, -1, 200000);
    there_and_back("taskqueue_round_trip_2_workers", 2, 1, -1, 200000);
    there_and_back("taskqueue_64_under_way_1_worker", 1, 64, -1, 500000);
    there_and_back("taskqueue_round_trip_asleep", 1, 1, 0, 5000);
    return 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * taskqueue.h - inside of the task queue: what its files share.
 *
 *     taskqueue.c         layout, creation, the whole structure checked
 *     taskqueue_owner.c   slots: acquire, publish, revoke, requeue, finish; the index ring
 *     taskqueue_repair.c  after a death or a scribble: bury, rescan
 *     taskqueue_wake.c    who sleeps, who comes, whom to wake (owner process and workers)
 *     taskqueue_lookout.c who need not be woken while tasks are short (owner process and workers)
 *     taskqueue_turn.c    taking turns on one CPU (owner process and workers)
 *     taskqueue_watch.c   what a worker runs, and ending it: exactly one side gives the outcome
 *     taskqueue_meter.c   figures that each process writes for who looks on
 *     taskqueue_worker.c  claim, start, spin, sleep
 */
#ifndef SHOAL_LIB_TASKQUEUE_H
#define SHOAL_LIB_TASKQUEUE_H

#include <shoal/taskqueue.h>

#include "layout.h"

/*
 * What a worker is about to do, in its own line. Itself writes it, except for one step by whoever wakes it:
 *
 *      AWAKE ---------> COMING ------> SLEEPING --(a waker)--> WOKEN
 *        ^                |                |                     |
 *        +--- claimed ----+--- woke up ----+---------------------+
 *
 * COMING and WOKEN: it will look at the index ring before it sleeps or runs user code, so a task can be left to it. A
 * worker that stops being one of these does a full fence and looks once more.
 */
enum shoal__stance { SHOAL__AWAKE = 0, SHOAL__COMING, SHOAL__SLEEPING, SHOAL__WOKEN };

/* The owner process's ledger about one slot. */
enum shoal__slot_status { SHOAL__SLOT_FREE = 0, SHOAL__SLOT_ACQUIRED, SHOAL__SLOT_PUBLISHED };

/* Whether yielding the CPU to the other side has been worth it: taskqueue_turn.c. */
struct shoal__turn {
    int64_t owed_ns;       /* time that it has cost, less what it has saved */
    int64_t not_before_ns; /* then it is tried again */
    uint64_t base_ticks;   /* shoal_ticks() at base_ns: what they are worth */
    int64_t base_ns;
    uint32_t count;
    bool steady; /* shoal_ticks_steady() */
};

/* What a worker remembers of itself, in private memory; two cache lines, as workers may be threads. */
struct shoal__queue_mind {
    uint32_t failed_spins; /* in a row */
    uint32_t skipped_spins;
    uint32_t late_looks; /* work that nobody had woken us for: should stay 0 while nobody dies or scribbles */
    bool coming;         /* our stance is COMING */
    struct shoal__turn turn;
    uint64_t seen_head; /* of the index ring, when it last went to sleep, or woke for a tick: taskqueue_lookout.c */
    int64_t seen_ns;
    uint8_t slow_ticks; /* in a row */
    bool crowded;       /* there was more work than for those who came, since it last went to sleep */
    uint8_t pad[54];
};
static_assert(sizeof(struct shoal__queue_mind) == 2 * SHOAL__CACHE_LINE, "no false sharing between threads");

struct shoal_taskqueue {
    struct shoal_region *region;
    uint64_t offset;
    uint64_t owner_bytes; /* of part one, whole pages */
    uint32_t slot_count;
    uint32_t worker_count; /* how many there may be */
    uint64_t entry_count; /* twice slot_count */
    uint32_t cpu_count;   /* on which this process may run */
    int64_t spin_ns;

    struct shoal__queue_owner *owner; /* part one */
    struct shoal__queue_descriptor *descriptors;
    shoal__a64 *entries;
    struct shoal__queue_common *common; /* part two */
    struct shoal__queue_slot *slots;
    struct shoal__queue_worker *workers;
    struct shoal__queue_meter *meters; /* [0] the owner's, [1 + worker] */
    struct shoal_doorbell **bells; /* [0] the owner's, [1 + worker] */

    struct shoal__queue_mind *minds; /* worker_count of them */
    struct shoal__turn turn;         /* the owner process's */

    /* The owner process's ledger: never read from shared memory. */
    uint64_t tail;
    uint32_t *generations;
    uint8_t *statuses; /* enum shoal__slot_status */
    uint32_t *free_slots;
    uint32_t free_count;
    uint8_t *marks; /* scratch of rescan and check */
};

/* How many workers there are. Relaxed: who sees it late wakes one too few, and the owner process sees to that. */
static inline uint32_t shoal__queue_active(const struct shoal_taskqueue *queue)
{
    uint32_t active = shoal__load_relaxed(&queue->owner->active);
    return active <= queue->worker_count ? active : queue->worker_count;
}

/* ---- words ---- */

static inline uint64_t shoal__word(uint32_t generation, uint32_t owner, uint32_t attempt, enum shoal_task_state state)
{
    return (uint64_t)generation << 32 | (uint64_t)(owner & 0xffff) << 16 | (attempt & 0xff) << 8 | (uint32_t)state;
}

static inline uint32_t shoal__word_generation(uint64_t word)
{
    return (uint32_t)(word >> 32);
}

static inline uint32_t shoal__word_owner(uint64_t word)
{
    return (uint32_t)(word >> 16) & 0xffff;
}

static inline uint32_t shoal__word_attempt(uint64_t word)
{
    return (uint32_t)(word >> 8) & 0xff;
}

static inline enum shoal_task_state shoal__word_state(uint64_t word)
{
    return (enum shoal_task_state)(word & 0xff);
}

static inline bool shoal__word_ready(uint64_t word, uint32_t generation)
{
    return shoal__word_generation(word) == generation && shoal__word_owner(word) == 0 &&
           shoal__word_state(word) == SHOAL_TASK_READY;
}

static inline uint64_t shoal__entry(uint32_t generation, uint32_t slot)
{
    return (uint64_t)generation << 32 | slot;
}

/* ---- hints ---- */

static inline uint32_t shoal__idle_words(const struct shoal_taskqueue *queue)
{
    return (shoal__queue_active(queue) + 63) / 64;
}

static inline uint64_t shoal__idle_bit(unsigned worker)
{
    return 1ull << (worker % 64);
}

/* Entries between head and tail, 0 if the head is out of range. Head first: an honest pair never comes out negative. */
static inline uint64_t shoal__queue_backlog(const struct shoal_taskqueue *queue)
{
    uint64_t head = shoal__load_acquire(&queue->common->head);
    /* SYNC: queue-tail. The entries up to it are visible. */
    uint64_t backlog = shoal__load_acquire(&queue->owner->tail) - head;
    return backlog <= queue->entry_count ? backlog : 0;
}

/*
 * Wake up to `limit` sleepers, as far as there are more entries than workers who are coming (`self` not counted; -1:
 * the owner process). The caller has done a full fence since its last step. Returns how many.
 */
int shoal__queue_wake(struct shoal_taskqueue *queue, uint32_t limit, int self);
/* Wake a sleeper that is not `self`; false if there is none. */
bool shoal__queue_wake_one(struct shoal_taskqueue *queue, int self);

/* How many of `limit` sleepers are to be woken for a backlog of so many. The caller has done a full fence before. */
uint64_t shoal__lookout_limit(struct shoal_taskqueue *queue, uint64_t backlog, uint64_t limit);
/* The worker is about to sleep and has said so: is it the lookout from now on? */
bool shoal__lookout_begin(struct shoal_taskqueue *queue, unsigned worker, int64_t now_ns);
int64_t shoal__lookout_until(int64_t now_ns); /* so long it sleeps */
/* A tick is over: does it sleep on? */
bool shoal__lookout_stays(struct shoal_taskqueue *queue, unsigned worker, int64_t now_ns);
/* It does not sleep any more. A full fence and a look at the index ring follow. */
void shoal__lookout_end(struct shoal_taskqueue *queue, unsigned worker);

/* The worker is dead: whatever was asked of it is not asked of its successor. */
void shoal__watch_forget(struct shoal_taskqueue *queue, unsigned worker);

/* Yield the CPU until ready() says so, a few times at most; not while that costs more than it saves. */
bool shoal__turn_give(struct shoal__turn *turn, bool (*ready)(void *), void *arg);
/* A turn that ended at `end_ns` took so long. */
void shoal__turn_account(struct shoal__turn *turn, int64_t end_ns, int64_t took_ns);

/* ---- owner process ---- */

/* The head, put right if it is out of range (then lost entries are to be pushed again: *ret_damaged). */
uint64_t shoal__queue_head(struct shoal_taskqueue *queue, bool *ret_damaged);
/*
 * Push an entry for a READY slot. Makes room by throwing stale entries out. False if the head was out of range: it is
 * put right, but entries before this one are lost, and to be pushed again.
 */
bool shoal__queue_append(struct shoal_taskqueue *queue, uint32_t slot);
/* Push every READY slot again that no entry from the head on names. Returns how many were pushed. */
int shoal__queue_rescan(struct shoal_taskqueue *queue);
/* Mark (marks[slot] = 1) what the entries in [head, tail) name that is of the current generation. */
void shoal__queue_mark(const struct shoal_taskqueue *queue, uint64_t head);

#endif

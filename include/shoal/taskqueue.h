/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * taskqueue.h - one owner publishes tasks, many workers claim them; any of them may die at any instruction.
 *
 * The problem: with a lock, a ticket or a counter in shared memory, a process that is killed while it holds it stops
 * everybody else.
 *
 * The answer: a table of slots, each headed by one 64-bit word that is the truth; everything else (index ring, idle
 * bits, who spins) is a hint that whoever comes next may help forward, and whose loss costs a scan.
 *
 *      63            32 31        16 15         8 7         0
 *     +----------------+------------+------------+-----------+
 *     |  generation    |   owner    |  attempt   |   state   |
 *     +----------------+------------+------------+-----------+
 *
 *      FREE --publish(owner process)--> READY --claim(worker)--> CLAIMED --start(worker)--> STARTED
 *        ^                                |                         |                          |
 *        +--------- revoke ---------------+      (dead) requeue ----+                          |
 *        +--------- finish (owner process: after the result, or after the death) --------------+
 *
 * Each step is one compare-and-swap on the whole word; the first names the worker as the owner. User code may run only
 * after `start` succeeded. Index ring entries name (generation, slot): a stale entry is skipped.
 *
 * Workers that find nothing: the newest idle one spins for a while (only if the owner process last ran on another CPU),
 * the others announce themselves in the idle bits and sleep on their own bell. Publishing wakes no more workers than
 * there are unclaimed tasks less those who come for them; a worker that claims and sees more work than that wakes the
 * next.
 *
 * The owner process: one thread at a time (the caller serialises). A worker index: one thread of one process.
 */
#ifndef SHOAL_TASKQUEUE_H
#define SHOAL_TASKQUEUE_H

#include <shoal/doorbell.h>
#include <shoal/region.h>

SHOAL_BEGIN_DECLS

struct shoal_taskqueue;

enum shoal_task_state { SHOAL_TASK_FREE = 0, SHOAL_TASK_READY, SHOAL_TASK_CLAIMED, SHOAL_TASK_STARTED };

/* What a task is, for the worker. Written by the owner process before READY; the queue does not interpret it. */
struct shoal_task {
    uint64_t stream_offset; /* where its stream lies: meaning given by flags */
    uint64_t stream_bytes;
    uint64_t block_offset; /* arena block that belongs to it, if any */
    uint64_t tag;
    uint32_t flags;
    uint32_t first_item; /* of a batch: where to begin (not 0 after a death in the middle) */
    uint32_t item_count;
    uint32_t reserved;
};

/* A claim: identifies (slot, generation, attempt) in everything the worker says about the task. */
struct shoal_claim {
    uint32_t slot;
    uint32_t generation;
    uint64_t word; /* the slot's word as claimed or started */
};

struct shoal_taskqueue_config {
    uint32_t slot_count;   /* power of two, 2 .. 65536 */
    uint32_t worker_count; /* 1 .. 1023, the most there will be; all bells are made at creation, to be found */
    enum shoal_doorbell_kind doorbell; /* not AUTO: choose first */
    int64_t spin_ns;       /* how long the newest idle worker spins; < 0: the default (50 us); 0: never */
};

SHOAL_API uint64_t shoal_taskqueue_footprint(const struct shoal_taskqueue_config *config);

/*
 * Owner process: lay the queue out at a reserved, page-aligned offset. The handle is inherited by forked workers, who
 * use the same handle with the worker functions (threads on one mapping may too: that is how it is tested).
 */
SHOAL_API int shoal_taskqueue_create(struct shoal_region *region, uint64_t offset,
                                     const struct shoal_taskqueue_config *config, struct shoal_taskqueue **ret_queue);
SHOAL_API void shoal_taskqueue_free(struct shoal_taskqueue *queue);

/*
 * Worker that inherited no handle: see a queue that the owner process has laid out at `offset` with the same `config`.
 * bell_fds: what shoal_doorbell_fd() says there of the owner's bell and then of each worker's, as they were received
 * here; they stay the caller's; NULL if there are none. The handle is for the worker functions only. -EPROTO: there is
 * no such queue.
 */
SHOAL_API int shoal_taskqueue_attach(struct shoal_region *region, uint64_t offset,
                                     const struct shoal_taskqueue_config *config, const int *bell_fds,
                                     struct shoal_taskqueue **ret_queue);

/* In a worker: what only the owner process writes becomes read-only in this process. */
SHOAL_API int shoal_taskqueue_protect(struct shoal_taskqueue *queue);

/* ---- owner process ---- */

/* Take a free slot: its index, or -EAGAIN. */
SHOAL_API int shoal_taskqueue_acquire(struct shoal_taskqueue *queue);
/* Give back a slot that was acquired and not published. */
SHOAL_API void shoal_taskqueue_unacquire(struct shoal_taskqueue *queue, uint32_t slot);
SHOAL_API uint32_t shoal_taskqueue_free_slots(const struct shoal_taskqueue *queue);

/* FREE -> READY, and announce it in the index ring. Returns 0; *ret_generation identifies this use of the slot. */
SHOAL_API int shoal_taskqueue_publish(struct shoal_taskqueue *queue, uint32_t slot, const struct shoal_task *task,
                                      uint32_t *ret_generation);

/* After one or more publishes: wake idle workers if the backlog needs them. Returns how many were woken. */
SHOAL_API int shoal_taskqueue_wake(struct shoal_taskqueue *queue);
/*
 * So many workers there are from now on, the first ones: 1 .. worker_count, which is how many there are at creation.
 * Say so before the first of those that come is started, and after the last of those that go was buried. -EINVAL.
 */
SHOAL_API int shoal_taskqueue_set_active(struct shoal_taskqueue *queue, unsigned workers);
/* Wake every idle worker once (after a death; at the end). */
SHOAL_API int shoal_taskqueue_wake_all(struct shoal_taskqueue *queue);
/* Ring one worker's bell, whatever it sleeps for (space in its ring, a lease). */
SHOAL_API int shoal_taskqueue_wake_worker(struct shoal_taskqueue *queue, unsigned worker);

/* READY -> FREE, slot free for reuse. 0, or -EBUSY if a worker has it. */
SHOAL_API int shoal_taskqueue_revoke(struct shoal_taskqueue *queue, uint32_t slot);

/*
 * What the slot's word says now; each ret_ may be NULL. *ret_worker is UINT_MAX while nobody has it. A word that is not
 * possible by the owner's ledger (scribbled over) gives -EBADMSG.
 */
SHOAL_API int shoal_taskqueue_state(const struct shoal_taskqueue *queue, uint32_t slot,
                                    enum shoal_task_state *ret_state, unsigned *ret_worker, uint32_t *ret_generation);

/* The owner process knows the outcome: any state -> FREE, slot free for reuse. */
SHOAL_API int shoal_taskqueue_finish(struct shoal_taskqueue *queue, uint32_t slot);

/*
 * CLAIMED or STARTED by a worker that is dead -> READY again with a new generation and `task` (a batch may begin
 * later). A slot that is READY is published anew as well; a worker that lives loses its claim (its start fails).
 */
SHOAL_API int shoal_taskqueue_requeue(struct shoal_taskqueue *queue, uint32_t slot, const struct shoal_task *task,
                                      uint32_t *ret_generation);

/* A worker is dead (proof, not a hint): clear its idle bit and spin mark, push lost index entries again, wake all. */
SHOAL_API int shoal_taskqueue_bury(struct shoal_taskqueue *queue, unsigned worker);

/* Push READY slots again that the index ring does not name any more (hints scribbled over); wakes. Returns how many. */
SHOAL_API int shoal_taskqueue_rescan(struct shoal_taskqueue *queue);

/* The bell on which the owner process sleeps; workers ring it after publishing a result. */
SHOAL_API struct shoal_doorbell *shoal_taskqueue_owner_bell(struct shoal_taskqueue *queue);
/* The bell of a worker, on which it may also wait for other things between two tasks. NULL: no such worker. */
SHOAL_API struct shoal_doorbell *shoal_taskqueue_worker_bell(struct shoal_taskqueue *queue, unsigned worker);

/* The owner process says on which CPU it runs now (one relaxed store; for the rule who spins). */
SHOAL_API void shoal_taskqueue_owner_here(struct shoal_taskqueue *queue);
/* The CPU that `worker` was last seen on, or -1. */
SHOAL_API int shoal_taskqueue_worker_cpu(const struct shoal_taskqueue *queue, unsigned worker);
/* Whether the worker that is likely to take the next task was last seen on another CPU than ours. */
SHOAL_API bool shoal_taskqueue_taker_elsewhere(const struct shoal_taskqueue *queue);
/* Whether the owner process was last seen on another CPU than ours (worker). */
SHOAL_API bool shoal_taskqueue_owner_elsewhere(const struct shoal_taskqueue *queue);
/* Whether a worker that does not sleep was last seen on another CPU than ours: only then can spinning help. */
SHOAL_API bool shoal_taskqueue_worker_elsewhere(const struct shoal_taskqueue *queue);
/*
 * The owner process waits, and no worker that does not sleep is elsewhere: yield the CPU instead of sleeping, a few
 * times at most, until ready(arg); not at all for a while if that let strangers run. Returns whether it is ready. One
 * thread at a time.
 */
SHOAL_API bool shoal_taskqueue_give_way(struct shoal_taskqueue *queue, bool (*ready)(void *), void *arg);
/* Unclaimed tasks (a hint), idle workers, and the worker that spins or -1. */
SHOAL_API uint32_t shoal_taskqueue_backlog(const struct shoal_taskqueue *queue);
SHOAL_API uint32_t shoal_taskqueue_idle(const struct shoal_taskqueue *queue);
SHOAL_API int shoal_taskqueue_spinner(const struct shoal_taskqueue *queue);

/* 0 if the whole structure is valid (every word, index entries, hints in range), -EUCLEAN if not. */
SHOAL_API int shoal_taskqueue_check(const struct shoal_taskqueue *queue);

/* ---- what a worker runs, and ending it: taskqueue_watch.c ---- */

enum shoal_watch_phase {
    SHOAL_WATCH_ENDED = 0, /* nothing, or its outcome is being handed in */
    SHOAL_WATCH_RUNS,
    SHOAL_WATCH_STOP,     /* asked to end what it runs */
    SHOAL_WATCH_STOP_ALL, /* and not to begin what is left of the task */
    SHOAL_WATCH_KILL,     /* the owner process gives the outcome: the worker hands nothing in any more */
};

struct shoal_watch {
    uint64_t beat; /* which of all that this worker index has run */
    enum shoal_watch_phase phase;
    uint32_t slot, generation;
    int64_t since_ns; /* 0: not asked for */
};

/* Owner process: what `worker` is at. Not believed: it is the worker's word. -EAGAIN: it changed while we looked. */
SHOAL_API int shoal_taskqueue_watch(const struct shoal_taskqueue *queue, unsigned worker,
                                    struct shoal_watch *ret_watch);
/* Owner process: move `beat` on to a later phase (STOP, STOP_ALL, KILL). -ESTALE: that has ended. */
SHOAL_API int shoal_taskqueue_watch_ask(struct shoal_taskqueue *queue, unsigned worker, uint64_t beat,
                                        enum shoal_watch_phase phase);

/* Worker: from here on it runs (a part of) this task. */
SHOAL_API void shoal_taskqueue_watch_begin(struct shoal_taskqueue *queue, unsigned worker,
                                           const struct shoal_claim *claim, int64_t since_ns);
/*
 * Worker: right before an outcome is handed in. Returns the phase that has ended; -ECANCELED: nothing must be handed
 * in, we are about to be killed.
 */
SHOAL_API int shoal_taskqueue_watch_end(struct shoal_taskqueue *queue, unsigned worker);
/* Worker: the phase of what it runs. */
SHOAL_API enum shoal_watch_phase shoal_taskqueue_watch_phase(const struct shoal_taskqueue *queue, unsigned worker);

/* ---- figures for who looks on: taskqueue_meter.c ---- */

#define SHOAL_METER_WORDS 64u /* of each meter; what they mean is the user's affair */

/* Words [first, first + count) of a meter, by the one process that it belongs to: meter 0 is the owner process's,
 * meter 1 + i is worker i's (whoever that is now: it goes on with what its predecessor left). Relaxed stores. -EINVAL:
 * there are no such words. */
SHOAL_API int shoal_taskqueue_meter_set(struct shoal_taskqueue *queue, unsigned meter, unsigned first,
                                        const uint64_t *words, unsigned count);
/* The same words as they are now, by anybody; each is whole, but they may be of different moments. Not believed: they
 * are what a worker says. */
SHOAL_API int shoal_taskqueue_meter_read(const struct shoal_taskqueue *queue, unsigned meter, unsigned first,
                                         uint64_t *ret_words, unsigned count);
/* Where meter 0 lies in the region; the others follow. */
SHOAL_API uint64_t shoal_taskqueue_meter_offset(const struct shoal_taskqueue *queue);

/* Owner process: a word that all workers can read, and nobody else can write; 0 at first. What stands in memory before
 * it is set, who reads it sees. */
SHOAL_API void shoal_taskqueue_set_notice(struct shoal_taskqueue *queue, uint64_t notice);
SHOAL_API uint64_t shoal_taskqueue_notice(const struct shoal_taskqueue *queue);

/* ---- worker ---- */

/* Claim the oldest READY task: 0, *ret_task (a copy) and *ret_claim; -EAGAIN if there is none. */
SHOAL_API int shoal_taskqueue_claim(struct shoal_taskqueue *queue, unsigned worker, struct shoal_task *ret_task,
                                    struct shoal_claim *ret_claim);
/* CLAIMED -> STARTED: from here on user code runs. -ESTALE if it was taken away. */
SHOAL_API int shoal_taskqueue_start(struct shoal_taskqueue *queue, unsigned worker, struct shoal_claim *claim);

/*
 * Right before a result is handed in, when nothing can block any more: we shall call claim next. The owner process,
 * which publishes the next task at that result, then wakes nobody else for it. Two relaxed stores at most; optional.
 */
SHOAL_API void shoal_taskqueue_returning(struct shoal_taskqueue *queue, unsigned worker);

/* We shall not claim any more, although we said that we should: if a task was left to us, another is woken for it. */
SHOAL_API void shoal_taskqueue_leave(struct shoal_taskqueue *queue, unsigned worker);

/*
 * In the middle of a task, before sleeping for something that the owner process is to give: spin if that runs on
 * another CPU, or else yield ours to it, until ready(arg); not for longer than a wake costs. Returns whether it is
 * ready.
 */
SHOAL_API bool shoal_taskqueue_linger(struct shoal_taskqueue *queue, unsigned worker, bool (*ready)(void *), void *arg);

/*
 * Nothing to do: spin if it is our turn, then announce, look again, sleep on our bell. Returns > 0 when there may be
 * work or the bell was rang for another reason, 0 at the deadline, -EINTR on a signal. `extra` (may be NULL) is asked
 * after the announcement whether something else is to be done (it returns true), so that such a wake is not lost. After
 * a return > 0, claim (once at least) before anything that can take long: a task may have been left to us.
 */
SHOAL_API int shoal_taskqueue_wait(struct shoal_taskqueue *queue, unsigned worker, struct shoal_waiter *waiter,
                                   int64_t deadline_ns, const sigset_t *mask, bool (*extra)(void *), void *extra_arg);

SHOAL_END_DECLS
#endif

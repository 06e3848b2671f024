/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * engine.h - one pool: the parent's ledger, its workers, and what both sides share.
 *
 * Shared memory of an engine (one arena block, mapped before the workers fork or given to them by descriptor):
 *
 *     task queue            slots, index ring, bells (<shoal/taskqueue.h>)
 *     task ring             streams, mapped twice; the parent writes, workers read in place
 *     per worker: results   a <shoal/ring.h>, written by the worker, read by the parent
 *                 orders    a small one the other way: grants of memory, stop
 *
 * The parent's ledger is private: struct entry (one for each slot in use), struct pending (no slot yet). Nothing in
 * shared memory is believed that does not fit the ledger.
 *
 * Files: engine.c its making; engine_end.c its end; engine_inherit.c what goes by number; engine_type.c the type;
 * submit.c encode and publish; submit_memory.c wait for room; drain.c read the result rings; orders.c the other way;
 * wait.c sleep until something is done; limits.c a task that takes too long or is not wanted any more; recover.c a
 * worker has died; lost.c what is told of it; start.c another one comes; resize.c more of them, or fewer; meters.c
 * what all of it says about itself; hear.c what workers say; progress.c the thread behind it all; worker.c the loop in
 * the child; worker_result.c how it answers; worker_say.c what it says besides; worker_stop.c how it is stopped;
 * worker_memory.c one that has grown too large; worker_input.c what it was sent, and worker_common.c what several calls
 * share of that; worker_orders.c what it is told; attach.c a child that inherited nothing; fork.c what any fork means;
 * thread.c our own threads; group*.c calls for many elements; inbox*.c outcomes that an event loop awaits; trace*.c and
 * worker_trace.c every task's life.
 */
#ifndef SHOAL_EXT_ENGINE_H
#define SHOAL_EXT_ENGINE_H

#include "message.h"
#include "owner.h"
#include "trace.h"

#include <pthread.h>

#define ENGINE_SLOTS 2048u
#define TASK_RING_BYTES (UINT64_C(1) << 20)
#define RESULT_RING_BYTES (UINT64_C(1) << 18)
#define ORDER_RING_BYTES (UINT64_C(1) << 12)
#define STREAM_IN_RING_MAX (UINT64_C(128) << 10) /* longer ones go to blocks: a few could fill the ring */
#define CLAIMS_MAX 8u /* a task whose arguments kill this many workers while they are read is given up */

#define STOP_SIGNAL (SIGRTMAX - 7) /* to a worker: stop what you run, if it is what you are asked to (limits.c) */

/* struct shoal_task.flags */
#define TASK_IN_RING 1u /* stream_offset is a position in the task ring, else an offset in the region */
#define TASK_BATCH 2u
#define TASK_STAR 4u    /* each item is a tuple of arguments */
#define TASK_APART 8u   /* of a call: function and arguments have a section each */
#define TASK_LIMITED 16u /* each item has a limit of time: the worker says when it begins */
#define TASK_COMMON 64u /* of a STAR batch: a section after the function's has the first arguments of all items */
#define TASK_ABORTS 32u /* its first error ends the call: the parent wants to know at once */

/* What a worker writes into its result ring. */
enum record_kind {
    RECORD_HELLO = 1, /* the worker is up and has run its initializer */
    RECORD_VALUE,
    RECORD_RUN,         /* several values of a batch, none of them its last; payload: plain values (plain.h) */
    RECORD_ERROR,       /* payload: what the Python layer's encode_error made of it */
    RECORD_SETUP_ERROR, /* the initializer failed; same payload; the worker ends */
    RECORD_LEASE,       /* wants block_bytes of memory */
    RECORD_RELEASE,     /* no view of block_offset is left here */
    RECORD_KEPT,        /* more blocks that the worker still holds, before the task's last result */
    RECORD_BYE,         /* has served its number of tasks and ends */
    RECORD_SWEPT,       /* has looked which handles are live, after the sweep order number block_bytes */
    RECORD_SAID,        /* say.h; payload: a message, or a part of it */
    RECORD_DROPPED,     /* the rest of a batch that nobody wants was not run */
};

#define RECORD_FINAL 1u    /* of this task */
#define RECORD_IN_BLOCK 2u /* the stream lies in the block, at stream_offset */
#define RECORD_MORE 4u     /* of this message follows with the next */

struct record {
    uint32_t kind;
    uint32_t flags;
    uint32_t slot;
    uint32_t generation;
    uint32_t item;
    uint32_t buffer_count;
    uint64_t stream_bytes;  /* follows this struct, or lies in the block */
    uint64_t stream_offset;
    uint64_t block_offset;  /* the lease that was used, or HOME_NO_BLOCK */
    uint64_t block_bytes;   /* of it */
    uint64_t adopted;       /* the task's own block, which comes back, or HOME_NO_BLOCK */
    uint32_t kept_count;    /* offsets of blocks that the worker still holds: uint64_t each, behind the inline stream */
    uint32_t run_items;  /* RUN: how many */
};
_Static_assert(sizeof(struct record) == 72, "record is shared between processes");

enum order_kind {
    ORDER_GRANT = 1,
    ORDER_STOP,  /* end when there is nothing left to do */
    ORDER_SWEEP,
    ORDER_RETIRE /* end after the task at hand */
};

struct order {
    uint32_t kind;
    int32_t error; /* GRANT: 0 or -errno */
    uint64_t offset;
    uint64_t size_bytes; /* SWEEP: its number */
    uint64_t limit_bytes;
};

/* A task whose stream is written, waiting for a slot, a place in the ring, or its turn. */
struct pending {
    struct pending *next;
    PyObject *owner;
    uint8_t *stream; /* heap; NULL if it lies in the block */
    uint64_t stream_offset, stream_bytes;
    uint64_t block;
    struct block_list shared;
    uint32_t flags, item_count, first_item, buffer_count;
    uint64_t submitted; /* ticks, while a trace runs */
};

struct entry {
    PyObject *owner; /* NULL: not in use */
    struct shoal_task task;
    uint64_t block;
    struct block_list shared;
    uint32_t generation;
    uint32_t next_item; /* of a batch: the next result that may come */
    uint64_t result_bytes; /* of the results that came */
    /* trace.c */
    uint32_t life, traced; /* its number in the trace, from 1; which trace */
    uint32_t outcome;      /* enum trace_outcome, so far */
    uint32_t claims;    /* how often a worker died while it had the task claimed */
    uint8_t *kept;      /* lost.c: the beginning of a stream that the task ring has no more, or NULL */
    /* limits.c */
    bool unwanted;      /* cancelled while it ran: whatever comes is dropped */
    uint64_t stop_beat; /* what its worker was asked to stop */
    int64_t kill_ns;    /* when it is killed if it has not; 0: it was not asked */
    PyObject *stop_error; /* of one that is being killed for its timeout, or NULL */
};

struct ring_record { /* of the task ring, oldest first */
    uint32_t slot, generation;
    uint64_t end;
};

struct task_ring {
    uint8_t *base;
    uint64_t offset; /* in the region */
    uint64_t head, tail;
    struct ring_record *records;
    uint32_t first, count;
    bool busy; /* somebody is writing after the tail */
};

struct worker {
    struct shoal_ring *results, *orders;
    struct shoal_peer peer; /* pidfd -1: no process */
    bool stillborn;         /* it was dead before it could be watched; its pidfd is an eventfd, readable */
    int status_fd;          /* not our child: who forked it says here how it ended; -1 otherwise */
    uint64_t lease, lease_bytes;
    uint64_t wanted_bytes; /* asked for and not granted yet */
    int64_t wanted_since_ns;
    uint64_t incarnation;  /* token for watchers: which process of this index */
    uint64_t rings;        /* where its rings lie in the region, or HOME_NO_BLOCK: it has none yet */
    bool rings_apart;      /* in a block of their own: resize has added this worker */
    unsigned holder;       /* who it is for the arena: no two workers of this process share a number */
    uint64_t sweeps_asked, sweeps_done; /* numbers of the last ones */
    uint64_t seen_bytes;   /* of memory, when it was last looked at; 0: it is not */
    struct said *saying;   /* hear.c: a message of which more is to come, or NULL */
    bool ready, leaving, stopped, damaged;
    bool retired; /* told to end after its task, for another or for none: see resize.c */
    bool has_lease;
    uint64_t restarts, done, failed, lost; /* outcomes of this index, whoever it was */
};

struct engine {
    PyObject_HEAD
    struct module_state *state;
    PyObject *module;
    struct home *home;
    struct engine *next;
    uint64_t epoch;
    PyObject *start; /* callable(engine, index) -> pid, or (pid, status_fd) if it is not our child */
    pid_t served_pid; /* in a worker that was not forked from its pool's process: that process; else 0 */
    PyObject *task_error; /* what makes a task's exception; the module's, if none was given; or NULL */
    int forking_index; /* the worker that forking_thread is forking right now, else -1 */
    unsigned long forking_thread;
    bool sweep_again;    /* handles were dropped while tasks were under way: look once more when they have ended */
    PyObject *inherited; /* inherited.h or imported.h; or NULL: the workers have nothing of __main__ */
    struct shoal_inheritance inheritance; /* as the pickler wants to know it */
    PyObject *broken; /* exception, or NULL */
    PyObject *terminated; /* exception given to terminate, or NULL */
    PyObject *abandoned;  /* exception given to abandon, or NULL: no worker is replaced any more */
    bool open, closed, dead; /* dead: no workers, no shared memory any more */
    unsigned worker_count;  /* with those that resize has told to end, and that have not */
    unsigned worker_target; /* what resize was last asked for */
    unsigned worker_max;    /* what the shared tables have room for */
    unsigned worker_most;   /* so many there have been at a time */
    uint32_t max_tasks;
    enum shoal_doorbell_kind doorbell;
    struct shoal_taskqueue *queue;
    uint64_t control, control_bytes;
    struct task_ring tasks;
    struct worker *workers;
    struct entry *entries;
    struct pending *backlog, **backlog_end;
    unsigned engaged;    /* submitters that have the engine in hand, and are not at submitting yet, or are */
    unsigned submitting; /* submissions under way, whose stream may lie in the task ring */
    bool finish_later;   /* terminated by user code inside of engine_bury_dead, which reaps and destroys at its end */
    bool unmap_later;    /* the pool ended under them: the last one unmaps */
    uint32_t in_flight, backlog_count;
    uint64_t task_result_bytes; /* what a task's results take, on a moving average */
    struct shoal_encoder *encoder;
    bool encoder_busy;
    struct shoal_decoder *decoder;
    bool decoder_busy;
    struct shoal_lifeline lifeline;
    /* drain.c */
    bool draining, deaths_pending, burying;
    bool leases_wanted; /* a worker waits for memory: look again soon */
    unsigned long burying_thread;
    PyObject **trash; /* references to drop when nothing is half done */
    size_t trash_count, trash_capacity;
    struct owner *finished; /* done and watched: callbacks to run, linked */
    struct owner **finished_end;
    uint32_t watched; /* owners whose callbacks are to run soon */
    /* hear.c */
    struct said *said, **said_end; /* not handed over yet, in order */
    bool hearing;
    unsigned long hearing_thread;
    /* wait.c, progress.c */
    struct waiting *waiting; /* threads that wait while another one drains */
    bool someone_drains;
    uint64_t takes; /* drains that brought something */
    uint64_t drains;         /* grows with each drain: the progress thread sees that callers are at work */
    struct thread_waiter *waiters;
    uint64_t announcements;  /* the last announcement on the bell: only its maker retracts it */
    unsigned inside;         /* threads that look at the shared memory without the GIL */
    unsigned failed_spins;
    struct inbox *inboxes, *attending; /* inbox.h: event loops that await; the one that sleeps on the bell, or NULL */
    uint32_t bridged;                  /* awaited outcomes that the progress thread has to collect */
    bool progress_runs, progress_stop, progress_idle, progress_attends;
    bool progress_tends;  /* started to give memory back: it begins idle */
    bool progress_timed;  /* there may be memory to give back: it looks now and then */
    bool progress_called; /* it is needed: not idle any more */
    bool progress_in_callbacks; /* user code runs in the progress thread: nobody waits for it then */
    unsigned long progress_thread;
    int64_t progress_until_ns; /* it sleeps at most until then; INT64_MAX: for ever; INT64_MIN: it is awake */
    PyObject *idle_call; /* called when nothing was asked for in idle_after_ns; or NULL */
    int64_t idle_after_ns;
    int progress_fd; /* eventfd: wakes the progress thread */
    struct shoal_group *groups; /* unfinished lazy groups, for close and join */
    int64_t looked_ns; /* engine_look_closer */
    int64_t limits_ns; /* limits_look is to be called by then; INT64_MAX: nothing has a limit */
    bool function_failed; /* the last batch that did not pickle: its function is to blame, not an item */
    uint64_t failed_starts; /* in a row, without a worker that came up, by their own doing */
    uint64_t killed_starts; /* the same, but killed by others */
    int64_t killed_since_ns, start_after_ns;
    PyObject *ended; /* dict: pid -> exit code of workers that are gone, or None; or NULL */
    struct arrival setup_error; /* of the initializer, not decoded yet; kind NONE if there is none */
    uint64_t submitted, completed, lost, restarts;
    uint64_t failed;       /* of those that completed */
    struct trace *trace;   /* trace.c; or NULL */
    bool tracing;
    uint64_t *meters_kept; /* of a pool that has ended: all words of its meters, or NULL */
    /* worker's side */
    struct worker_side *side;
};

/* True if this process may use the engine; else raises. Also raises if it is broken, terminated or closed. */
int engine_check(struct engine *engine);
int engine_check_process(struct engine *engine);
int engine_check_quietly(struct engine *engine); /* the same answer, without touching the exception that is set */
/* An exception instance for why nothing can be submitted or will come any more; new reference. */
PyObject *engine_reason(struct engine *engine);

/* submit.c */
int engine_submit_call(struct engine *engine, struct owner *owner, PyObject *function, PyObject *args,
                       PyObject *kwargs); /* args: a tuple; kwargs: NULL or not */
struct batch {
    PyObject *function;
    PyObject *common; /* tuple of the first arguments of all items, which are not in them; or NULL */
    PyObject *const *items;
    uint32_t count, first_item;
    bool star;
};
/* 1: it would have to wait. BATCH_TOO_LARGE: the function alone has function_max bytes that would be copied. */
#define BATCH_TOO_LARGE 2
int engine_submit_batch(struct engine *engine, struct owner *owner, const struct batch *batch, bool may_wait,
                        uint64_t function_max);
void engine_feed(struct engine *engine);       /* publish what is pending, as far as there is room */
void engine_reclaim_ring(struct engine *engine);
int engine_revoke(struct engine *engine, struct owner *owner); /* 1: taken back, 0: too late */
void block_list_release(struct engine *engine, struct block_list *list);
void pending_free(struct engine *engine, struct pending *pending);
void entry_finish(struct engine *engine, uint32_t slot); /* frees the slot and all that it held */

/* submit_memory.c */
#define BACKLOG_FREE_BYTES (UINT64_C(1) << 20) /* never worth waiting for */
bool memory_may_come(int error);
int memory_await_block(struct engine *engine, uint64_t bytes, uint64_t *ret_offset); /* 0, or -1 with an exception */
/* Before anything is written: does what waits, to be sent or to be fetched, leave room for more? 1: it has to wait. */
int memory_await_room(struct engine *engine, bool may_wait);
/* A result has come, or somebody has it now (or nobody wants it): bytes on the heap, bytes of a block. */
void memory_unread(struct engine *engine, uint64_t heap_bytes, uint64_t block_bytes);
void memory_read(struct engine *engine, uint64_t heap_bytes, uint64_t block_bytes);
void memory_task_took(struct engine *engine, uint64_t result_bytes);

/* drain.c */
int engine_drain(struct engine *engine); /* how many results came; never blocks, runs no user code */
int engine_drain_aside(struct engine *engine); /* the same by one who does not see to the rest: callbacks, deaths */
void engine_drain_dead(struct engine *engine, unsigned index); /* all that this worker has left behind */
void engine_after_drain(struct engine *engine); /* drop trash, run callbacks: user code */
void engine_discard_later(struct engine *engine, PyObject *object); /* steals */
void engine_finished(struct engine *engine, struct owner *owner);

/* orders.c */
void engine_kill_damaged(struct engine *engine, struct worker *worker); /* it wrote over the memory that we share */
void engine_grant_leases(struct engine *engine);
void engine_order_sweep(struct engine *engine, unsigned index); /* a hint: there are handles that are not live */
bool engine_sweeps(struct engine *engine); /* some worker has not answered yet, or is asked once more */
void engine_free_lease(struct engine *engine, struct worker *worker);

/* wait.c */
typedef bool (*engine_predicate)(void *arg);
/* One look of somebody who waits: results, deaths, limits, room for others, and what follows from them. */
void engine_take_all(struct engine *engine);
/* 1 when the predicate holds, 0 at the deadline (CLOCK_MONOTONIC ns, -1 none), -1 with an exception. */
int engine_wait(struct engine *engine, engine_predicate done, void *arg, int64_t deadline_ns);
/* Sleep on the bell (urgency SHOAL_AWAKE: only on descriptors) until something happens; the GIL is released meanwhile.
 * extra_fd (or -1) wakes as well. takes: engine->takes when the caller looked whether it has to sleep. 0, or -1 with an
 * exception (a signal handler raised). */
#define ENGINE_ANY_TAKES UINT64_MAX
int engine_sleep(struct engine *engine, enum shoal_urgency urgency, int extra_fd, int64_t deadline_ns, uint64_t takes);
bool engine_has_arrivals(const struct engine *engine); /* something that was not drained */
void engine_await_nobody_inside(struct engine *engine);
void engine_free_waiters(struct engine *engine);
void engine_wake_waiting(struct engine *engine); /* those whose predicate holds now */
void engine_news(struct engine *engine);         /* outcomes came from elsewhere: also wake the one who sleeps */
int timeout_to_deadline(PyObject *timeout, int64_t *ret_deadline_ns);

/* start.c */
int engine_start_worker(struct engine *engine, unsigned index);
/* Have `several` fork all of them: 0, or -1 with an exception. */
int engine_start_several(struct engine *engine, PyObject *several);
void engine_start_failed(struct engine *engine, const struct shoal_peer_exit *end); /* it died before it came up */
void engine_start_succeeded(struct engine *engine);
bool engine_starts_in_vain(struct engine *engine); /* enough have failed: the pool is broken */
bool engine_may_start(struct engine *engine);      /* now; else deaths_pending is set */

/* recover.c */
void engine_close_process(struct worker *worker); /* what we have to watch it with */
PyObject *engine_exit_code(struct engine *engine, PyObject *pid);
void engine_bury_dead(struct engine *engine); /* look at every worker's pidfd, recover, replace */
/* Now and then, with work in flight: is the table that workers can write sound, does nobody sleep who should not? */
#define LOOK_CLOSER_NS INT64_C(1000000000)
void engine_look_closer(struct engine *engine);
void engine_fail_all(struct engine *engine, PyObject *error);
void engine_break(struct engine *engine, PyObject *error); /* borrows */
bool engine_all_done(struct engine *engine);
void engine_order(struct engine *engine, unsigned index, uint32_t kind); /* tell a living worker one of ORDER_* */
void engine_stop_workers(struct engine *engine); /* tell those that have nothing left to do */
void engine_kill_workers(struct engine *engine);
bool engine_workers_gone(struct engine *engine);

/* resize.c */
PyObject *engine_resize(struct engine *engine, PyObject *workers);
int resize_make_rings(struct engine *engine, unsigned index); /* if it has none. 0, or -1 with an exception */
int resize_choose_holders(struct engine *engine, unsigned first, unsigned end); /* for these workers; the same */
void resize_retire(struct engine *engine, unsigned index); /* this one is to end after its task */
bool resize_dismisses(struct engine *engine, unsigned index); /* it has ended: is no other to take its place? */
void resize_settle(struct engine *engine); /* forget those that were to end, and have */

/* progress.c */
void progress_nudge(struct engine *engine); /* something may need the parent while nobody waits */
void progress_attend(struct engine *engine);
#define PROGRESS_TENDS_BYTES (UINT64_C(1) << 20)
void progress_tend(struct engine *engine, uint64_t bytes); /* arena memory was taken: when idle, give it back */
void progress_yield(struct engine *engine); /* a caller is about to sleep on the bell */
void progress_stop(struct engine *engine); /* and close its descriptor, here or when the thread leaves user code */

void progress_look_by(struct engine *engine, int64_t at_ns); /* it looks at the limits then, at the latest */

/* limits.c */
void limits_note(struct engine *engine, const struct owner *owner); /* a task of it was published */
void limits_look(struct engine *engine);                            /* at `limits_ns` */
/* Nobody wants it any more: its worker is asked to stop, and killed if it does not. False: no worker has it. */
bool limits_drop(struct engine *engine, uint32_t slot);
/* The same for all that `owner` has; what no worker has is taken back. No user code. */
void limits_drop_all(struct engine *engine, struct owner *owner);
/* A worker died over what it was asked to stop: the error for that item, new reference; NULL: it was another thing. */
PyObject *limits_error(struct engine *engine, uint32_t slot, const struct shoal_watch *watch);

/* meters.c */
void meters_open(struct engine *engine);
void meters_forking(struct engine *engine, unsigned index);
/* So many items have ended, of this worker. */
void meters_count(struct engine *engine, struct worker *worker, bool failed, uint64_t items);
void meters_submitted(struct engine *engine);
void meters_drained(struct engine *engine); /* results have come */
void meters_keep(struct engine *engine); /* the pool ends: the last values */
PyObject *engine_meters(struct engine *engine, PyObject *unused);

/* engine_end.c */
/* Reap all workers, killed or told to stop. 1 gone, 0 deadline, -1 exception. */
int engine_reap_workers(struct engine *engine, int64_t deadline_ns);
bool engine_buries_here(const struct engine *engine); /* we are inside of this thread's engine_bury_dead */
void engine_destroy(struct engine *engine); /* workers gone: free everything shared */
void engine_unmap(struct engine *engine);   /* the second half of it */
void engines_memory_freed(struct module_state *state, uint64_t bytes);

/* engine.c, engine_end.c: methods and slots of the type, which engine_type.c lists */
void engine_init(struct engine *engine, struct module_state *state, uint64_t epoch); /* of one just allocated */
PyObject *engine_new(PyTypeObject *type, PyObject *args, PyObject *kwargs);
void engine_dealloc(struct engine *engine);
int engine_traverse(struct engine *engine, visitproc visit, void *arg);
PyObject *engine_start(struct engine *engine, PyObject *args);
PyObject *engine_forking(struct engine *engine, PyObject *index);
PyObject *engine_inherit(struct engine *engine, PyObject *args);
PyObject *engine_inherited_object(struct engine *engine, PyObject *number);
/* NULL, or for outgoing.inheritance. */
static inline const struct shoal_inheritance *engine_inheritance(const struct engine *engine)
{
    return engine->inherited == NULL ? NULL : &engine->inheritance;
}
void engine_set_heir(struct engine *engine, struct shoal_decoder *decoder);
void engine_inherit_in_worker(struct engine *engine); /* in one that was forked */
void engine_inherit_fork(struct engine *engine);      /* another worker is about to be forked */
PyObject *engine_dumps(struct engine *engine, PyObject *args);
PyObject *engine_loads(struct engine *engine, PyObject *data);
PyObject *engine_terminate(struct engine *engine, PyObject *error);
PyObject *engine_fail(struct engine *engine, PyObject *error);
PyObject *engine_abandon(struct engine *engine, PyObject *args);
PyObject *engine_close(struct engine *engine, PyObject *unused);
PyObject *engine_close_if_idle(struct engine *engine, PyObject *unused);
PyObject *engine_when_idle(struct engine *engine, PyObject *args); /* progress.c */
PyObject *engine_join(struct engine *engine, PyObject *args, PyObject *kwargs);

/* The parts of the block of an engine with this task queue, from its start on. */
struct engine_places {
    uint64_t tasks, rings, end;
    uint64_t worker_bytes; /* of the rings of each worker: results, then orders */
};
struct shoal_taskqueue_config engine_config(const struct engine *engine);
struct engine_places engine_places(const struct shoal_taskqueue_config *config);

/* engine_type.c: as the method submit(); args: a tuple; kwargs: NULL or not. 0, or -1 with an exception */
struct item;
int engine_submit_item(struct engine *engine, struct item *item, PyObject *function, PyObject *args, PyObject *kwargs);

/* attach.c */
PyObject *engine_handover(struct engine *engine, PyObject *index);

/* worker.c */
PyObject *engine_work(struct engine *engine, PyObject *args);
void worker_block_gone(struct engine *engine, struct block *block);

#endif

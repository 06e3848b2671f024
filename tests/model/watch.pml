/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * watch.pml - a task is stopped, killed or cancelled at the moment at which it ends: a model of lib/taskqueue_watch.c, of
 * the parent's use of it (pool/ext/limits.c, recover_slot in recover.c), and of the worker's (worker_stop.c, the order
 * of steps in worker.c and worker_result.c).
 *
 * Promises, with the worker dying at any step: each item has exactly one outcome and runs at most once; a timeout is
 * the outcome only of an item that was asked to stop, and of each that its worker was killed for; what is to end an
 * item is never raised in another one, and nobody is killed for an item that has handed in its outcome. That the parent
 * ends at all says that no item gets lost.
 *
 * Task 0 is a batch of two items with a time for each, task 1 a single call. Any item's time may be up at any moment.
 * With CANCELS, the caller may cancel task 0 while it runs: then its items end at once, and whatever comes is dropped.
 * One worker, since each has a word of its own; when it is dead, another one goes on.
 *
 * Memory: each access is one step, in program order, as acquire and release ask for. On a machine where the number of
 * the task (`running`) can be seen before the swap that ended the beat before it, the parent's own swap fails: an atomic
 * operation that follows what it has read of after another one comes after that one.
 *
 * Seeded bugs, each found by test_watch.py: every BUG_* below.
 */
#ifndef CRASHES
#define CRASHES 1
#endif
#ifndef ASKS
#define ASKS 2 /* how often the parent finds that a time is up */
#endif
#ifndef CANCELS
#define CANCELS 0
#endif
#define ITEMS 3
#define task_of(item) (item < 2 -> 0 : 1)

/* enum shoal_watch_phase */
#define ENDED 0
#define RUNS 1
#define STOP 2
#define STOP_ALL 3
#define KILL 4

/* outcomes, and kinds of records */
#define NONE 0
#define VALUE 1
#define LOST 2
#define TIMEOUT 3
#define CANCELLED 4
#define DROPPED 5

/* ---- shared memory ---- */

byte beat, phase; /* one word: read and changed in one step */
byte running;     /* task + 1 */
byte record_item[ITEMS], record_kind[ITEMS], head, tail; /* results, room for all */
byte first;       /* the descriptor: from which item on */

/* ---- processes, and what came of it ---- */

bool alive = true, gone, signalled;
byte crashes, current; /* item + 1 that the worker is at, from the begin to the end of its beat */
byte outcome[ITEMS], ran[ITEMS];
bool asked[ITEMS], killed[ITEMS];

/* ---- worker ---- */

/* the signal's handler: _stop() and module_stop_wanted() */
inline handle(item)
{
    atomic {
        signalled = false;
        if
#ifdef BUG_HANDLER_DOES_NOT_LOOK
        :: !raised -> raised = true; assert(asked[item])
#else
        :: !raised && (phase == STOP || phase == STOP_ALL) -> raised = true; assert(asked[item])
#endif
        :: else
        fi
    }
}

inline publish(item, what)
{
    atomic { record_item[tail] = item; record_kind[tail] = what };
    tail++ /* shoal_ring_commit */
}

proctype worker()
{
    byte item, seen, number;
    bool raised, drop;

begin:
    {
        item = first;
        do
        :: item < ITEMS ->
            /* shoal_taskqueue_watch_begin */
            number = beat;
            running = task_of(item) + 1;
#ifdef BUG_BEAT_STANDS_STILL
            atomic { beat = number; phase = RUNS; current = item + 1 };
#else
            atomic { beat = number + 1; phase = RUNS; current = item + 1 };
#endif
            atomic { number = 0; ran[item]++; assert(ran[item] <= 1) };
            do
            :: signalled -> handle(item)
            :: break
            od;
#ifdef BUG_HANDED_IN_BEFORE_THE_SWAP
            publish(item, (raised -> TIMEOUT : VALUE));
#endif
            /* shoal_taskqueue_watch_end */
#ifdef BUG_ENDED_BY_A_STORE
            seen = phase;
            atomic { phase = ENDED; current = 0 };
#else
            seen = phase;
            do
            :: seen == KILL -> !alive /* pause(): SIGKILL is on its way */
            :: else ->
                atomic {
                    if
                    :: phase == seen -> phase = ENDED; current = 0; break
                    :: else -> seen = phase
                    fi
                }
            od;
#endif
            drop = (seen == STOP_ALL);
#ifndef BUG_HANDED_IN_BEFORE_THE_SWAP
            publish(item, (raised -> TIMEOUT : VALUE));
#endif
            atomic { raised = false; seen = 0; item++ };
            if
            :: drop && task_of(item - 1) == 0 && item == 1 -> publish(item, DROPPED); item++
            :: else
            fi;
            drop = false
        :: else -> break
        od;
end_idle:
        false
    } unless {
        !alive
    };
    atomic { item = 0; seen = 0; number = 0; raised = false; drop = false; signalled = false; gone = true };
end_dead:
    !gone;
    goto begin
}

proctype killer()
{
end_killer:
    do
    :: crashes < CRASHES -> atomic { crashes++; alive = false }
    od
}

/* ---- the parent ---- */

byte next;        /* of the items, in the order in which they were sent */
byte stop_beat;   /* of the entry at hand; 0: not asked */
bool unwanted;    /* task 0 */

inline settle(item, what)
{
    atomic {
        assert(outcome[item] == NONE);
        outcome[item] = what;
        assert(what != VALUE || ran[item] == 1);
        assert(what != TIMEOUT || asked[item]);
        assert(!killed[item] || what == TIMEOUT)
    }
}

inline end_item(what)
{
    if
    :: unwanted && task_of(next) == 0 /* it has its outcome */
    :: else -> settle(next, what)
    fi;
    atomic { next++; stop_beat = 0 }
}

inline drain()
{
    do
    :: head != tail ->
        assert(record_item[head] == next);
        assert(record_kind[head] != DROPPED || unwanted);
        end_item(record_kind[head]);
        head++
    :: else -> break
    od
}

/* shoal_taskqueue_watch_ask; `hit`: it was in time */
inline ask(number, what)
{
    atomic {
        hit = false;
#ifdef BUG_ASKED_BY_A_STORE
        if
        :: true -> phase = what; hit = true
#else
        if
        :: beat == number && phase != ENDED && phase < what -> phase = what; hit = true
#endif
        :: else
        fi;
        if
        :: hit && current != 0 && what != KILL -> asked[current - 1] = true
        :: else
        fi
    }
}

/* look_at(): of what is under way, what the parent takes for the item `next` */
inline look()
{
    atomic { seen_beat = beat; seen_phase = phase };
    seen_running = running;
    if
    :: atomic { beat != seen_beat || phase != seen_phase -> seen_phase = ENDED } /* -EAGAIN: later */
    :: else
    fi;
    if
    :: next < ITEMS && seen_phase != ENDED && seen_running == task_of(next) + 1 ->
        if
        :: stop_beat != seen_beat ->
            ask(seen_beat, (unwanted && task_of(next) == 0 -> STOP_ALL : STOP));
            if
            :: hit -> stop_beat = seen_beat; signalled = alive
            :: else
            fi
        :: stop_beat == seen_beat -> /* its grace time is over, too: kill_over() */
#ifdef BUG_KILLED_WITHOUT_A_SWAP
            hit = true;
#else
            ask(seen_beat, KILL);
#endif
            if
            :: hit ->
                atomic {
                    if
                    :: current != 0 && !(unwanted && task_of(next) == 0) -> killed[current - 1] = true
                    :: else
                    fi
                };
                atomic { assert(!alive || (current != 0 && asked[current - 1])); alive = false }
            :: else
            fi
        fi
    :: else
    fi;
    atomic { seen_beat = 0; seen_phase = 0; seen_running = 0; hit = false }
}

/* recover_worker() */
inline recover()
{
#ifndef BUG_RECOVERED_BEFORE_DRAINED
    drain();
#endif
#ifdef BUG_FORGOTTEN_BEFORE_LOOKED_AT
    phase = ENDED;
#endif
    atomic { seen_phase = phase; seen_running = running; phase = ENDED };
    if
    :: next < ITEMS && unwanted && task_of(next) == 0 -> next = 2
    :: next < ITEMS && !(unwanted && task_of(next) == 0) ->
        if
        :: seen_running == task_of(next) + 1 && seen_phase >= STOP -> end_item(TIMEOUT)
        :: else ->
            if
            :: ran[next] > 0 -> end_item(LOST)
            :: else /* CLAIMED: for another one */
            fi
        fi
    :: else
    fi;
#ifdef BUG_RECOVERED_BEFORE_DRAINED
    drain();
#endif
    atomic { seen_phase = 0; seen_running = 0; stop_beat = 0; current = 0; first = next; gone = false; alive = true }
}

init
{
    byte seen_beat, seen_phase, seen_running, asks, cancels;
    bool hit;

    atomic { run worker(); run killer() };
    do
    :: next == ITEMS -> break
    :: head != tail -> drain()
    :: asks < 2 * ASKS -> asks++; look()
    :: unwanted && stop_beat == 0 && asks >= 2 * ASKS -> look() /* what is cancelled is asked in any case */
    :: cancels < CANCELS && next < 2 && current != 0 ->
        atomic {
            cancels++;
            unwanted = true;
            stop_beat = 0;
            if :: outcome[0] == NONE -> outcome[0] = CANCELLED :: else fi;
            if :: outcome[1] == NONE -> outcome[1] = CANCELLED :: else fi
        }
    :: gone -> recover()
    od;
    assert(outcome[0] != NONE && outcome[1] != NONE && outcome[2] != NONE)
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * inbox.pml - an event loop sleeps in its own epoll and hears of results: a model of pool/ext/inbox.c (attend, collect,
 * attend again; take over, rest), of what it shares the bell with (engine_wait and engine_sleep in wait.c, the loop in
 * progress.c), of lib/doorbell.c, and of the ring that writes a descriptor when a wait on the bell has completed
 * (lib/waiter_uring.c, shoal_waiter_arm and _collect).
 *
 * Promise: no event loop and no thread sleeps while a result of its own is there, although workers may die at any step,
 * threads that wait come and leave, and none of the time-outs of the C code (BEHIND_NS, SHOAL__BELT_NS, SIGNAL_LOOK_NS)
 * is there to help. And nothing is delivered twice.
 *
 * How it is checked: a result that nobody collects leaves its process asleep for ever, which is a state in which nobody
 * can move and which is no end (invalid end state).
 *
 * Two loops (LOOPS=1: one), a thread that waits for one call (THREAD), the progress thread, one worker or two. In the parent
 * the GIL is held from step to step, and released by sleeps, between turns of a loop, and where user code runs. Workers
 * and the kernel do their steps in between.
 *
 * Memory: each access is one step, in program order; the fences of doorbell.c ask for that, and wake.pml looks at what
 * comes late.
 *
 * Left out: slots and streams (claim.pml, results.pml); the kinds of doorbell without a ring of the kernel, which have
 * the progress thread do it; a loop that moves to another thread, which drops its ring.
 *
 * Seeded bugs, each found by test_inbox.py: every BUG_* below.
 */
#ifndef LOOPS
#define LOOPS 1
#endif
#ifndef CALLS
#define CALLS 2 /* of each loop */
#endif
#ifndef THREAD
#define THREAD 0
#endif
#ifndef PATIENT
#define PATIENT 0 /* 1: the thread waits for a call that ends after all others, and does not leave before */
#endif
#ifndef CRASHES
#define CRASHES 0
#endif
#ifndef WORKERS
#define WORKERS 1
#endif
#define OWNERS 3 /* loop 0, loop 1, the thread */
#define THE_THREAD 2
#define PROGRESS 3
#define NOBODY 4

/* enum shoal_urgency */
#define AWAKE 0
#define LAZY 1
#define URGENT 2

/* ---- shared memory ---- */

byte urgency, rings;                /* the bell's word */
byte queued[OWNERS];                /* tasks that wait, by whose they are */
byte published[2 * OWNERS];         /* results in the worker's ring, by whose they are */

/* ---- the kernel ---- */

bool in_futex[LOOPS + 1];           /* a wait of this loop's ring is in the futex's queue */
bool completed[LOOPS + 1];          /* it has ended, and is not collected */
bool to_write[LOOPS + 1];           /* the ring is about to write the descriptor for that */
bool readable[LOOPS + 1];           /* the loop's eventfd */
bool thread_in_futex, progress_in_futex, nudged;
bool alive[2], gone[2]; /* the pidfd says so */

/* ---- the parent; guarded by the GIL ---- */

bool gil, someone_drains;
byte attending = NOBODY, last_announcer = NOBODY; /* announcements: whose is the last one */
bool notified[LOOPS + 1], waits[LOOPS + 1];       /* waits: uring->bell is set */
byte arrived[OWNERS], outstanding[OWNERS];
byte left_to_submit[OWNERS];
bool progress_attends;

byte at[2], crashes;   /* at: whose task plus one a worker has begun */

#define take_gil() atomic { !gil -> gil = true }
#define drop_gil() gil = false

#define notify(i) \
    atomic { \
        if \
        :: !notified[i] -> notified[i] = true; readable[i] = true \
        :: else \
        fi \
    }
#define loop_attends(i) (attending == i && last_announcer == i)
#define any_attends (attending != NOBODY && last_announcer == attending)
#define THREAD_MAY_END (!PATIENT || left_to_submit[0] + left_to_submit[1] + outstanding[0] + outstanding[1] == 0)
#define something_published (published[0] + published[1] + published[2] + published[3] + published[4] + published[5] > 0)

/* ---- doorbell.c ---- */

inline ring_bell(at_least)
{
    if
    :: atomic { urgency >= at_least && urgency > AWAKE -> urgency = AWAKE; rings++ };
        /* the system call wakes all who wait on the word; its maker may have died before it */
        atomic {
            thread_in_futex = false;
            progress_in_futex = false;
            if :: in_futex[0] -> in_futex[0] = false; completed[0] = true; to_write[0] = true :: else fi;
#if LOOPS > 1
            if :: in_futex[1] -> in_futex[1] = false; completed[1] = true; to_write[1] = true :: else fi
#endif
        }
    :: atomic { urgency < at_least || urgency == AWAKE -> skip }
    fi
}

proctype kernel()
{
end_kernel:
    do
    :: atomic { to_write[0] -> to_write[0] = false; readable[0] = true }
#if LOOPS > 1
    :: atomic { to_write[1] -> to_write[1] = false; readable[1] = true }
#endif
    od
}

/* ---- workers ---- */

proctype worker(byte w)
{
end_idle:
    {
        if
        :: atomic { queued[0] > 0 -> queued[0]--; at[w] = 1 }
#if LOOPS > 1
        :: atomic { queued[1] > 0 -> queued[1]--; at[w] = 2 }
#endif
#if THREAD
        :: atomic { queued[2] > 0 && THREAD_MAY_END -> queued[2]--; at[w] = 3 }
#endif
        fi;
        atomic { published[w * OWNERS + at[w] - 1]++; at[w] = 0 };
        ring_bell(URGENT);
        if
        :: queued[0] + queued[1] + queued[2] > 0
        :: queued[0] + queued[1] + queued[2] == 0 -> ring_bell(LAZY) /* out of work */
        fi;
        goto end_idle
    } unless {
        !alive[w]
    };
    gone[w] = true;
end_dead:
    alive[w];
    goto end_idle
}

proctype killer()
{
end_killer:
    do
    :: crashes < CRASHES ->
        atomic {
            crashes++;
            if
            :: alive[0] -> alive[0] = false
            :: true
            fi
        }
    od
}

/* ---- the parent ---- */

/* inbox_arrived, or the item of the thread */
#define arrive(o, count, self) \
    if \
    :: count > 0 -> \
        arrived[o] = arrived[o] + count; \
        if \
        :: o < LOOPS && o != self -> notify(o) \
        :: else \
        fi \
    :: else \
    fi

#ifdef BUG_ARRIVES_SILENTLY
#define take(w, o, self) arrived[o] = arrived[o] + published[w * OWNERS + o]; published[w * OWNERS + o] = 0
#else
#define take(w, o, self) arrive(o, published[w * OWNERS + o], self); published[w * OWNERS + o] = 0
#endif

/* engine_drain, ring by ring. `self`: the loop that looks afterwards. */
inline drain(self)
{
    d_step { take(0, 0, self); take(0, 1, self); take(0, 2, self) };
    d_step { take(1, 0, self); take(1, 1, self); take(1, 2, self) };
#if THREAD
    if
    :: someone_drains && self != THE_THREAD && arrived[THE_THREAD] > 0 -> ring_bell(LAZY) /* engine_news */
    :: else
    fi
#endif
}

/* engine_bury_dead: by whom it may be; what the worker had handed in has been read */
inline bury(self)
{
    if
    :: gone[0] ->
        drain(self);
        atomic {
            gone[0] = false;
            if
            :: at[0] > 0 ->
                lost = at[0] - 1;
                at[0] = 0;
#ifdef BUG_BURIED_SILENTLY
                arrived[lost]++
#else
                arrive(lost, 1, self)
#endif
            :: else
            fi;
            lost = 0;
#ifndef BUG_BURIED_WITH_A_RING
            if /* inboxes_worker_died: it may have died between the change of the bell's word and the system call */
            :: any_attends -> notify(attending)
            :: else
            fi;
#endif
            alive[0] = true
        };
#if THREAD
        if
        :: someone_drains && self != THE_THREAD && arrived[THE_THREAD] > 0 -> ring_bell(LAZY)
        :: else
        fi
#endif
    :: else
    fi
}

/* inboxes_take_over */
inline take_over()
{
    atomic {
        if
        :: any_attends || someone_drains
        :: else ->
            if
            :: outstanding[0] > 0 -> notify(0)
#if LOOPS > 1
            :: outstanding[0] == 0 && outstanding[1] > 0 -> notify(1)
#endif
            :: else
            fi
        fi
    }
}

inline stop_attending(i)
{
    atomic {
        if
#ifdef BUG_RETRACTS_WHAT_ANOTHER_ANNOUNCED
        :: attending == i -> urgency = AWAKE
#else
        :: loop_attends(i) -> urgency = AWAKE
#endif
        :: else
        fi;
        if
        :: attending == i -> attending = NOBODY
        :: else
        fi
    }
}

/* inbox_attend */
inline attend(i)
{
    if
    :: someone_drains || (attending != i && any_attends)
    :: else ->
        atomic {
            if :: progress_attends -> nudged = true :: else fi; /* progress_yield */
            last_announcer = i;
            attending = i;
            urgency = URGENT;
            ticket = rings
        };
#ifndef BUG_DOES_NOT_LOOK_AFTER_IT_ANNOUNCED
        atomic { if :: published[0] + published[1] + published[2] > 0 -> rang = true :: else fi };
        atomic { if :: published[3] + published[4] + published[5] > 0 -> rang = true :: else fi };
#endif
        atomic {
            if
            :: !rang && !waits[i] -> /* a futex wait compares when it is queued */
                waits[i] = true;
                if
                :: rings == ticket && urgency == URGENT -> in_futex[i] = true
                :: else -> completed[i] = true; to_write[i] = true
                fi
            :: else /* one of an earlier turn is still under way */
            fi
        };
        atomic {
            if
            :: rang || rings != ticket || urgency != URGENT -> notify(i)
            :: else
            fi;
            rang = false;
            ticket = 0
        }
    fi
}

inline clear_notice(i)
{
    atomic { readable[i] = false; notified[i] = false }
}

/* shoal_waiter_collect */
inline reap(i)
{
    atomic {
        if
        :: completed[i] ->
            completed[i] = false;
#ifndef BUG_NOT_ARMED_ANEW
            waits[i] = false
#endif
        :: else
        fi
    }
}

proctype loop(byte i)
{
    byte ticket, lost;
    bool rang;

    do
    :: left_to_submit[i] > 0 ->
        atomic { !gil -> gil = true; left_to_submit[i]--; outstanding[i]++; queued[i]++ }; /* inbox_submit */
        if
        :: loop_attends(i)
        :: else -> attend(i)
        fi;
        drop_gil()
    :: readable[i] -> /* inbox_collect */
        take_gil();
        stop_attending(i);
#ifndef BUG_NOTICE_CLEARED_AFTERWARDS
        clear_notice(i);
#endif
        reap(i);
#ifdef BUG_NOTICE_CLEARED_AFTERWARDS
        clear_notice(i);
#endif
        drain(i);
        if
        :: gone[0] -> bury(i) /* if it has heard of it */
        :: true
        fi;
        atomic {
            assert(arrived[i] <= outstanding[i]);
            outstanding[i] = outstanding[i] - arrived[i];
            arrived[i] = 0;
            drop_gil() /* user code of who awaited them */
        };
        take_gil();
        if
        :: arrived[i] > 0 -> notify(i)
#ifdef BUG_ATTENDS_ONCE
        :: else
#else
        :: arrived[i] == 0 && outstanding[i] > 0 -> attend(i)
        :: else
#endif
        fi;
        drop_gil()
    :: left_to_submit[i] == 0 && outstanding[i] == 0 -> /* inbox_rest */
        take_gil();
        stop_attending(i);
#ifndef BUG_RESTS_SILENTLY
        take_over();
#endif
        drop_gil();
        break
    od
}

/* engine_wait for one call, until it has an outcome, or for a while. */
proctype thread()
{
    byte lost, ticket;

    take_gil();
    queued[THE_THREAD]++;
    do
    :: drain(THE_THREAD);
        bury(THE_THREAD);
        if
        :: arrived[THE_THREAD] > 0 -> break
        :: else
        fi;
        atomic {
            someone_drains = true;
            if :: progress_attends -> nudged = true :: else fi;
            last_announcer = THE_THREAD;
            urgency = URGENT;
            ticket = rings
        };
        if
        :: something_published
        :: else ->
            atomic {
                drop_gil();
                if
                :: rings == ticket && urgency == URGENT -> thread_in_futex = true
                :: else
                fi
            };
            if
            :: !thread_in_futex
            :: gone[0] -> thread_in_futex = false /* its waiter watches the workers */
#if !PATIENT
            :: thread_in_futex = false; goto leaves /* its time is up, or Ctrl-C */
#endif
            fi;
            take_gil()
        fi;
        atomic {
            if
            :: last_announcer == THE_THREAD -> urgency = AWAKE
            :: else
            fi;
            someone_drains = false;
            ticket = 0
        }
    od;
    goto hands_over;
leaves:
    atomic {
        !gil -> gil = true;
        if
        :: last_announcer == THE_THREAD -> urgency = AWAKE
        :: else
        fi;
        someone_drains = false;
        ticket = 0
    };
hands_over:
#ifndef BUG_LEAVES_SILENTLY
    take_over();
#endif
    drop_gil()
}

/* progress.c: as long as anything is under way. */
proctype progress()
{
    byte lost, ticket;
end_progress:
    do
    :: atomic { !gil -> gil = true; nudged = false };
        if
        :: !someone_drains -> drain(PROGRESS); bury(PROGRESS)
        :: else
        fi;
        if
        :: someone_drains || any_attends -> /* behind another; and parked, which ends by itself, does no more */
            drop_gil();
end_behind: if
            :: nudged
            :: gone[0]
            fi
        :: else -> /* sleeps on the bell, lazily */
            atomic { progress_attends = true; last_announcer = PROGRESS; urgency = LAZY; ticket = rings };
            if
            :: something_published
            :: else ->
                atomic {
                    drop_gil();
                    if
                    :: rings == ticket && urgency == LAZY -> progress_in_futex = true
                    :: else
                    fi
                };
end_lazy:       if
                :: !progress_in_futex
                :: nudged -> progress_in_futex = false
                :: gone[0] -> progress_in_futex = false
                fi;
                take_gil()
            fi;
            atomic {
                if
                :: last_announcer == PROGRESS -> urgency = AWAKE
                :: else
                fi;
                progress_attends = false;
                ticket = 0;
                drop_gil()
            }
        fi
    od
}

init
{
    atomic {
        alive[0] = true;
        alive[1] = true;
        left_to_submit[0] = CALLS;
#if LOOPS > 1
        left_to_submit[1] = CALLS;
        run loop(1);
#endif
        run loop(0);
#if THREAD
        run thread();
#endif
        run kernel();
        run progress();
        run worker(0);
#if WORKERS > 1
        run worker(1);
#endif
        run killer()
    }
}

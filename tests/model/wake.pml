/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * wake.pml - who sleeps, who comes, whom to wake: a model of lib/taskqueue_wake.c, lib/taskqueue_lookout.c, the sleeping
 * half of lib/taskqueue_worker.c, lib/doorbell.c, and shoal_taskqueue_bury with the requeue behind it
 * (pool/ext/recover.c).
 *
 * Promise: no worker sleeps while a task is queued, although any worker may die at any step, and although none of the
 * time-outs of the C code (SHOAL__BELT_NS, REST_NS, LOOK_CLOSER_NS) is there to help. The lookout's tick is: so while
 * there is one, any wake may be left out, and the lookout sleeps on only if something was claimed since its last tick.
 * (In C a few times more: these are ticks that come later.)
 *
 * How it is checked: user code does not end while a task is queued and somebody sleeps. So a wake that is lost is a
 * state in which nobody can move, which the checker reports (invalid end state).
 *
 * Memory: a plain store to `stance`, `spinner` or `tail` stays in a buffer of its own until its process does a full
 * fence or a release store, or it trickles out at any moment before; read-modify-writes of other words do not order it.
 * Loads are done in order; that is what the acquire orders and the fences of the C code ask for.
 *
 * Left out: slots and entries (claim.pml), streams and results (results.pml), spinning as a matter of time: a worker
 * that spins may look any number of times. That a waker reads the sleeper's bits in one step, as its guess is confirmed
 * by a compare-and-swap.
 *
 * Seeded bugs, each found by test_wake.py: every BUG_* below.
 */
#ifndef WORKERS
#define WORKERS 2
#endif
#ifndef TASKS
#define TASKS 2
#endif
#ifndef CRASHES
#define CRASHES 1
#endif
#ifndef LATE
#define LATE 0 /* 1: stores may come late */
#endif
#ifndef LOOKOUT
#define LOOKOUT 0 /* 1: a worker may sleep as the lookout */
#endif
#define PARENT WORKERS /* as the `self` of a waker */

/* enum shoal__stance */
#define AWAKE 0
#define COMING 1
#define SLEEPING 2
#define WOKEN 3

/* enum shoal_urgency, as the ringer's at_least */
#define ANYWAY 0
#define IF_ANNOUNCED 1

/* ---- shared memory ---- */

byte tail, head;       /* of the index ring */
byte spinner;          /* worker plus one */
bool idle[WORKERS];
byte stance[WORKERS];
byte lookout;          /* worker plus one */
bool announced[WORKERS]; /* the urgency in the bell's word */
bool rung[WORKERS];      /* the bell's word is not the sleeper's ticket any more */

/* ---- the kernel ---- */

bool asleep[WORKERS];  /* in the futex's queue */
bool alive[WORKERS];   /* may do another step */
bool gone[WORKERS];    /* the pidfd says so */

/* ---- stores that others do not see yet ---- */

bool tail_late;
byte tail_value;       /* the parent's own tail */
bool stance_late[WORKERS], spinner_late[WORKERS];
byte stance_value[WORKERS], spinner_value[WORKERS];

/* ---- what the parent knows ---- */

byte holds[WORKERS];   /* 0 nothing, 1 CLAIMED, 2 STARTED: in the slot's word */
byte finished, crashes;

#define NOBODY_SLEEPS (!(asleep[0] && alive[0]) && !(asleep[1] && alive[1]) && \
                       (WORKERS < 3 || !(asleep[WORKERS - 1] && alive[WORKERS - 1])))
#define USER_CODE_MAY_END (head == tail || NOBODY_SLEEPS)

#define flush_stance(w) if :: stance_late[w] -> stance[w] = stance_value[w]; stance_late[w] = false; stance_value[w] = 0; :: else fi
#define flush_spinner(w) if :: spinner_late[w] -> spinner = spinner_value[w]; spinner_late[w] = false; spinner_value[w] = 0; :: else fi
#define flush_tail() if :: tail_late -> tail = tail_value; tail_late = false; :: else fi
#define my_spinner(w) (spinner_late[w] -> spinner_value[w] : spinner)

/* At once, or later. */
#define store_stance(w, value) \
    atomic { \
        if \
        :: stance[w] = value; stance_late[w] = false; stance_value[w] = 0 \
        :: LATE -> stance_value[w] = value; stance_late[w] = true \
        fi \
    }
#define store_spinner(w, value) \
    atomic { \
        if \
        :: spinner = value; spinner_late[w] = false; spinner_value[w] = 0 \
        :: LATE -> spinner_value[w] = value; spinner_late[w] = true \
        fi \
    }
#define arrive(w) flush_stance(w); flush_spinner(w)
#define fence(w) atomic { arrive(w) }

/* ---- doorbell.c ---- */

/* shoal_doorbell_ring: looking and swapping are one step, as a swap that fails looks again. */
inline ring(who, at_least)
{
    if
    :: atomic { announced[who] || at_least == ANYWAY -> announced[who] = false; rung[who] = true };
       asleep[who] = false /* the system call; its maker may have died before it */
    :: atomic { !announced[who] && at_least == IF_ANNOUNCED -> skip }
    fi
}

/* ---- taskqueue_wake.c ---- */

/* shoal__queue_wake. Locals of the caller: backlog, coming, other, limit. */
inline queue_wake(self)
{
    backlog = tail - head;
    if
    :: backlog == 0 || !(idle[0] || idle[1] || idle[WORKERS - 1]) -> skip
    :: else ->
        if
        :: backlog == 1 && spinner != 0 && spinner != self + 1 -> skip
        :: atomic { lookout != 0 && stance[lookout - 1] == SLEEPING -> skip } /* somebody is spared */
        :: !(backlog == 1 && spinner != 0 && spinner != self + 1) ->
            do
            :: atomic { other < WORKERS && coming < backlog ->
                    if
                    :: other != self && (stance[other] == COMING || stance[other] == WOKEN) -> coming++
                    :: else
                    fi;
                    other++
                }
            :: atomic { else -> break }
            od;
            atomic {
                limit = (backlog - coming < limit -> backlog - coming : limit);
                coming = 0;
                other = 0 /* tries */
            };
            do
            :: limit > 0 && other < WORKERS ->
                other++;
                if
                :: atomic { idle[0] && stance[0] == SLEEPING -> stance[0] = WOKEN }; limit--; ring(0, IF_ANNOUNCED)
                :: atomic { idle[1] && stance[1] == SLEEPING -> stance[1] = WOKEN }; limit--; ring(1, IF_ANNOUNCED)
#if WORKERS > 2
                :: atomic { idle[2] && stance[2] == SLEEPING -> stance[2] = WOKEN }; limit--; ring(2, IF_ANNOUNCED)
#endif
                :: else -> break
                fi
            :: else -> break
            od
        fi
    fi;
    atomic { backlog = 0; coming = 0; other = 0; limit = 0 }
}

/* ---- taskqueue_worker.c ---- */

/* shoal_taskqueue_returning */
inline returning(w)
{
    atomic {
        if
        :: !comes -> comes = true; store_stance(w, COMING)
        :: else
        fi
    };
    atomic {
        if
        :: my_spinner(w) != w + 1 -> store_spinner(w, w + 1)
        :: else
        fi
    }
}

inline spinner_clear(w)
{
    if
    :: my_spinner(w) == w + 1 -> store_spinner(w, 0) /* another's name may have come in between */
    :: else
    fi
}

/* stop_coming: `work` says whether there is work that somebody may have left to us */
inline stop_coming(w)
{
    atomic { comes = false; store_stance(w, AWAKE) };
    spinner_clear(w);
#ifndef BUG_NO_FENCE_AFTER_COMING
    fence(w);
#endif
#ifdef BUG_NO_LOOK_AFTER_COMING
    work = false
#else
    work = (tail != head)
#endif
}

/* shoal__lookout_end */
inline lookout_end(w)
{
    atomic {
        if
        :: lookout == w + 1 -> lookout = 0
        :: else
        fi;
        watches = false;
        seen = 0
    }
}

inline pass_on(w)
{
    stop_coming(w);
    if
    :: work -> work = false; limit = 1; queue_wake(w)
    :: else
    fi
}

proctype worker(byte w)
{
    byte seen, backlog, coming, other, limit;
    bool comes, work, watches;

claim:
    {
        /* shoal_taskqueue_claim; take() and the step of the head are one here */
        if
        :: atomic { tail == head -> goto wait }
        :: atomic { tail != head -> seen = head }
        fi;
        if
        :: atomic { head == seen -> head++; holds[w] = 1; seen = 0 }
        :: atomic { head != seen -> seen = 0; goto claim }
        fi;
#ifndef BUG_NO_PASS_ON
        if
        :: comes -> pass_on(w)
        :: else
        fi;
#else
        atomic { comes = false; store_stance(w, AWAKE) }; spinner_clear(w);
#endif
        holds[w] = 2; /* shoal_taskqueue_start */
        USER_CODE_MAY_END;
        returning(w);
        atomic { flush_stance(w); flush_spinner(w); holds[w] = 0; finished++ }; /* a release store: the result's */
        if
        :: goto claim
#ifdef LEAVES
        :: true -> /* has served its number of tasks: exit functions may take for ever */
#ifndef BUG_LEAVES_SILENTLY
            pass_on(w);
#endif
            USER_CODE_MAY_END;
            atomic { arrive(w); alive[w] = false };
            goto end_of_life
#endif
        fi;

wait:   /* shoal_taskqueue_wait */
        returning(w);
        if
        :: atomic { head != tail -> goto claim } /* spin(): any number of looks, here at least none */
        :: true
        fi;
        /* rest() */
        idle[w] = true;
        atomic { comes = false; store_stance(w, SLEEPING) };
        spinner_clear(w);
        if /* shoal__lookout_begin */
        :: atomic {
                LOOKOUT && (lookout == 0 || stance[lookout - 1] != SLEEPING) ->
                lookout = w + 1; watches = true; seen = head
            }
        :: true
        fi;
        atomic { announced[w] = true; rung[w] = false };
#ifndef BUG_NO_FENCE_AFTER_ANNOUNCE
        fence(w);
#endif
        work = (stance_late[w] -> stance_value[w] : stance[w]) != SLEEPING;
#ifdef BUG_NO_LOOK_AT_STANCE
        work = false;
#endif
        if
#ifndef BUG_NO_LOOK_BEFORE_SLEEP
        :: work || tail != head -> skip
        :: !work && tail == head ->
#else
        :: true ->
#endif
lies_down:
            atomic {
                arrive(w); /* a system call */
                if
                :: rung[w]
                :: else -> asleep[w] = true
                fi
            };
end_sleeps: if
            :: !asleep[w]
#ifndef BUG_LOOKOUT_DOES_NOT_LOOK
            :: atomic { watches && asleep[w] -> asleep[w] = false }; /* a tick is over */
                if /* shoal__lookout_stays */
                :: true
                :: atomic { seen != head && lookout == w + 1 -> seen = head };
                    if /* send_others */
                    :: true
                    :: atomic { w != 0 && idle[0] && stance[0] == SLEEPING -> stance[0] = WOKEN };
                        ring(0, IF_ANNOUNCED)
                    :: atomic { w != 1 && idle[1] && stance[1] == SLEEPING -> stance[1] = WOKEN };
                        ring(1, IF_ANNOUNCED)
                    fi;
                    goto lies_down
                fi
#endif
            fi
        fi;
        atomic { work = false; announced[w] = false; rung[w] = false };
        idle[w] = false;
        lookout_end(w);
        stop_coming(w);
        if
        :: work -> work = false; returning(w); goto claim
        :: else -> goto claim
        fi
    } unless {
        !alive[w] /* killed; its stores that are on their way arrive */
    };
end_of_life:
    atomic {
        asleep[w] = false;
        gone[w] = true;
        seen = 0; backlog = 0; coming = 0; other = 0; limit = 0; comes = false; work = false; watches = false
    };
end_dead:
    alive[w];
    goto claim
}

/* Any worker, at any step. */
proctype killer()
{
    byte w;
end_killer:
    do
    :: crashes < CRASHES ->
        atomic {
            crashes++;
            if
            :: alive[0] -> alive[0] = false
            :: CRASHES > 1 && alive[1] -> alive[1] = false /* the first of them is any of them */
#if WORKERS > 2
            :: CRASHES > 2 && alive[2] -> alive[2] = false
#endif
            :: true /* nobody */
            fi
        }
    od
}

#ifdef TRICKLE
/* What a processor does by itself, at any moment. */
proctype memory()
{
end_memory:
    do
    :: atomic { tail_late -> flush_tail() }
    :: atomic { stance_late[0] -> flush_stance(0) }
    :: atomic { stance_late[1] -> flush_stance(1) }
    :: atomic { spinner_late[0] -> flush_spinner(0) }
    :: atomic { spinner_late[1] -> flush_spinner(1) }
#if WORKERS > 2
    :: atomic { stance_late[2] -> flush_stance(2) }
    :: atomic { spinner_late[2] -> flush_spinner(2) }
#endif
    od
}
#endif

/* ---- the owner process ---- */

byte left = WORKERS; /* processes, or to be replaced */
#define push() \
    atomic { \
        tail_value++; \
        if \
        :: tail = tail_value; tail_late = false \
        :: LATE -> tail_late = true \
        fi \
    }

/* shoal_taskqueue_wake */
inline wake()
{
#ifndef BUG_NO_FENCE_AFTER_PUBLISH
    atomic { flush_tail() };
#endif
    limit = WORKERS;
    queue_wake(PARENT)
}

/* shoal_taskqueue_wake_all */
inline wake_all()
{
    atomic { flush_tail() };
    other = 0;
    do
    :: other < WORKERS ->
        atomic {
            if
            :: stance[other] == SLEEPING -> stance[other] = WOKEN
            :: else
            fi
        };
        ring(other, ANYWAY);
        other++
    :: else -> break
    od;
    other = 0
}

/* recover_worker: what it stored is there now; shoal_taskqueue_bury, recover_slots, and a new process that may or may not come up */
inline recover(w)
{
    atomic {
        arrive(w);
        stance[w] = AWAKE;
        idle[w] = false;
        if
        :: spinner == w + 1 -> spinner = 0
        :: else
        fi;
#ifndef BUG_BURY_LEAVES_THE_LOOKOUT
        if
        :: lookout == w + 1 -> lookout = 0
        :: else
        fi
#endif
    };
#ifndef BUG_BURY_WAKES_NOBODY
    wake_all();
#endif
    if
    :: holds[w] == 1 -> holds[w] = 0; push();
#ifndef BUG_REQUEUE_WAKES_NOBODY
        wake()
#endif
    :: holds[w] == 2 -> holds[w] = 0; finished++ /* WorkerLost */
    :: else
    fi;
    if
    :: alive[w] = true
    :: left-- /* could not fork: the others have to do */
    fi
}


proctype parent()
{
    byte published, backlog, coming, other, limit;
    do
    :: published < TASKS ->
        push();
        published++;
        if
        :: wake()
        :: published < TASKS -> skip /* engine_feed publishes several before it wakes */
        fi
    :: atomic { gone[0] -> gone[0] = false }; recover(0)
    :: atomic { gone[1] -> gone[1] = false }; recover(1)
#if WORKERS > 2
    :: atomic { gone[2] -> gone[2] = false }; recover(2)
#endif
    :: finished == TASKS -> break
    :: left == 0 -> break
    od;
    assert(finished == TASKS || left == 0)
}

init
{
    atomic {
        alive[0] = true;
        alive[1] = true;
#if WORKERS > 2
        alive[2] = true;
#endif
        run parent();
        run worker(0);
        run worker(1);
#if WORKERS > 2
        run worker(2);
#endif
#ifdef TRICKLE
        run memory();
#endif
        run killer()
    }
}

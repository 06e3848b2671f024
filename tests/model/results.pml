/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * results.pml - who waits for whom between a worker that answers and the parent: a model of ring_publish, ring_reserve
 * and lease in pool/ext/worker_result.c, worker_wait_for_parent in worker_orders.c, engine_drain_worker, grant and
 * engine_sleep in drain.c and wait.c, with lib/doorbell.c below them.
 *
 * Promises, with any worker dying at any step and without any time-out: the parent does not sleep over a result, a wish
 * for memory or a death; a worker does not sleep over room in its ring or an answer; each published result arrives
 * once; no block of memory stays with the dead.
 *
 * Memory: as in wake.pml. A plain or release store (the tails and heads of the rings) may come late, in its order, at
 * the latest with the next full fence of its process; a ring of a bell and an announcement are such fences.
 *
 * Seeded bugs, each found by test_results.py: every BUG_* below.
 */
#define WORKERS 2
#ifndef RESULTS
#define RESULTS 2 /* of each worker */
#endif
#ifndef CRASHES
#define CRASHES 1
#endif
#ifndef LATE
#define LATE 0
#endif
#ifndef ROOM
#define ROOM 1 /* records in a ring */
#endif

#define RESULT 1
#define LEASE 2

/* ---- shared memory ---- */

byte kind[WORKERS];                  /* of the record at the ring's tail - 1; the ring holds one */
byte tail[WORKERS], head[WORKERS];   /* of the results */
byte granted[WORKERS], read[WORKERS]; /* tail and head of the orders, each a grant */
bool parent_announced, parent_rung;
bool announced[WORKERS], rung[WORKERS];

/* ---- stores that others do not see yet ---- */

byte own_tail[WORKERS];              /* the worker's own */
byte own_head[WORKERS], own_granted[WORKERS]; /* the parent's own */

/* ---- the kernel ---- */

bool parent_asleep, asleep[WORKERS];
bool alive[WORKERS], gone[WORKERS];
byte crashes;

/* ---- the parent's ledger ---- */

bool wanted[WORKERS], has_lease[WORKERS];
byte arrived[WORKERS], blocks;

#define worker_fence(w) tail[w] = own_tail[w]
#define parent_fence() \
    head[0] = own_head[0]; head[1] = own_head[1]; granted[0] = own_granted[0]; granted[1] = own_granted[1]

/* shoal_doorbell_ring on the parent's bell, by worker w */
inline ring_parent(w)
{
#ifndef BUG_NO_FENCE_BEFORE_RING
    atomic { worker_fence(w) };
#endif
    if
    :: atomic { parent_announced -> parent_announced = false; parent_rung = true };
       parent_asleep = false /* the system call */
    :: atomic { !parent_announced -> skip }
    fi
}

inline ring_worker(w)
{
#ifndef BUG_NO_FENCE_BEFORE_WORKER_IS_RUNG
    atomic { parent_fence() };
#endif
    if
    :: atomic { announced[w] -> announced[w] = false; rung[w] = true };
       asleep[w] = false
    :: atomic { !announced[w] -> skip }
    fi
}

#define room_there(w) (own_tail[w] - head[w] < ROOM)
#define order_there(w) (granted[w] != read[w])

/* worker_wait_for_parent. To look before the announcement can be seen is what a missing fence would allow. */
#ifdef BUG_WORKER_LOOKS_BEFORE_IT_ANNOUNCES
#define EARLY_LOOK(there) seen = (there);
#else
#define EARLY_LOOK(there)
#endif
#define wait_for_parent(w, there) \
    ring_parent(w); \
    EARLY_LOOK(there) \
    ANNOUNCE(w); \
    if \
    :: atomic { LOOK(there) -> skip } \
    :: atomic { else -> if :: rung[w] :: else -> asleep[w] = true fi }; \
       !asleep[w] \
    fi; \
    atomic { announced[w] = false; rung[w] = false }

#define ANNOUNCE(w) atomic { announced[w] = true; rung[w] = false; worker_fence(w) }
#if defined(BUG_WORKER_LOOKS_BEFORE_IT_ANNOUNCES)
#define LOOK(there) seen
#elif defined(BUG_WORKER_DOES_NOT_LOOK_AGAIN)
#define LOOK(there) false
#else
#define LOOK(there) there
#endif

/* ring_reserve */
#define reserve(w) \
    do \
    :: room_there(w) -> break \
    :: else -> wait_for_parent(w, room_there(w)) \
    od

/* shoal_ring_commit */
inline commit(w, what)
{
    atomic {
        kind[w] = what;
        own_tail[w]++;
        if
        :: tail[w] = own_tail[w]
        :: LATE -> skip
        fi
    }
}

proctype worker(byte w)
{
    byte sent;
    bool lease;
#ifdef BUG_WORKER_LOOKS_BEFORE_IT_ANNOUNCES
    bool seen;
#endif
work:
    {
        do
        :: sent < RESULTS ->
            if
            :: true /* small */
            :: !lease -> /* lease() */
                reserve(w);
                commit(w, LEASE);
                ring_parent(w);
                do
                :: atomic { order_there(w) -> read[w]++; lease = true; break }
                :: else -> wait_for_parent(w, order_there(w))
                od
            fi;
            reserve(w);
            atomic { sent++; lease = false }; /* the record hands the block over, if there is one */
            commit(w, RESULT);
            ring_parent(w)
        :: else -> break
        od;
end_idle:
        false
    } unless {
        !alive[w]
    };
    /* What it stored before it died arrives. */
    atomic {
        worker_fence(w);
        asleep[w] = false; sent = 0; lease = false;
        gone[w] = true;
#ifndef BUG_DEATHS_ARE_NOT_WATCHED
        parent_asleep = false /* its pidfd is readable */
#endif
    }
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
            :: CRASHES > 1 && alive[1] -> alive[1] = false /* one is like the other */
            :: true /* nobody */
            fi
        }
    od
}

/* ---- the parent ---- */

/* engine_drain_worker, and grant */
inline drain(w)
{
    do
    :: own_head[w] != tail[w] ->
        atomic {
            if
            :: kind[w] == LEASE -> assert(!wanted[w]); wanted[w] = true
            :: kind[w] == RESULT ->
                arrived[w]++;
                if
                :: has_lease[w] -> has_lease[w] = false; blocks-- /* take_lease; the reader drops it at once */
                :: else
                fi
            fi
        };
        atomic {
            own_head[w]++; /* shoal_ring_pop */
            if
            :: head[w] = own_head[w]
            :: LATE -> skip
            fi
        };
        freed = true
    :: else -> break
    od;
    if
    :: freed -> freed = false;
#ifndef BUG_ROOM_WAKES_NOBODY
        ring_worker(w)
#endif
    :: else
    fi;
    if
    :: wanted[w] ->
        atomic {
            wanted[w] = false;
            has_lease[w] = true;
            blocks++;
            own_granted[w]++;
            if
            :: granted[w] = own_granted[w]
            :: LATE -> skip
            fi
        };
#ifndef BUG_GRANT_WAKES_NOBODY
        ring_worker(w)
#endif
    :: else
    fi
}

/* recover_worker, without a replacement */
inline recover(w)
{
    drain(w);
    atomic {
        buried[w] = true;
        wanted[w] = false;
#ifndef BUG_LEASE_STAYS_WITH_THE_DEAD
        if
        :: has_lease[w] -> has_lease[w] = false; blocks--
        :: else
        fi
#endif
    }
}

#define done(w) (buried[w] || arrived[w] == RESULTS)

proctype parent()
{
    bool freed, buried[WORKERS];
#ifdef BUG_PARENT_LOOKS_BEFORE_IT_ANNOUNCES
    bool something;
#endif
    do
    :: done(0) && done(1) -> break
    :: else ->
        drain(0);
        drain(1);
        if
        :: atomic { gone[0] && !buried[0] -> skip }; recover(0)
        :: else
        fi;
        if
        :: atomic { gone[1] && !buried[1] -> skip }; recover(1)
        :: else
        fi;
        if
        :: done(0) && done(1) -> break
        :: else
        fi;
        /* engine_sleep */
#ifdef BUG_PARENT_LOOKS_BEFORE_IT_ANNOUNCES
        something = (own_head[0] != tail[0] || own_head[1] != tail[1]);
#endif
        atomic { parent_announced = true; parent_rung = false; parent_fence() };
        if
#ifdef BUG_PARENT_LOOKS_BEFORE_IT_ANNOUNCES
        :: something -> something = false
#elif !defined(BUG_PARENT_DOES_NOT_LOOK_AGAIN)
        :: own_head[0] != tail[0] || own_head[1] != tail[1] -> skip
#endif
        :: else ->
            atomic {
                if
                :: parent_rung
#ifndef BUG_DEATHS_ARE_NOT_WATCHED
                :: !parent_rung && ((gone[0] && !buried[0]) || (gone[1] && !buried[1]))
#endif
                :: else -> parent_asleep = true
                fi
            };
            !parent_asleep
        fi;
        atomic { parent_announced = false; parent_rung = false }
    od;
    atomic {
        assert(arrived[0] <= RESULTS && arrived[1] <= RESULTS);
        assert(blocks == has_lease[0] + has_lease[1]);
        assert(!(buried[0] && has_lease[0]) && !(buried[1] && has_lease[1]))
    }
}

init
{
    atomic {
        alive[0] = true;
        alive[1] = true;
        run parent();
        run worker(0);
        run worker(1);
        run killer()
    }
}

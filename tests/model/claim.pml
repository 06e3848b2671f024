/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * claim.pml - claim, start, answer, recover: a model of the slots and the index ring (lib/taskqueue_owner.c, claim and
 * start in lib/taskqueue_worker.c), of publishing a result (lib/ring.c), and of the parent's ledger (pool/ext/drain.c,
 * recover.c).
 *
 * Promises, with any worker dying at any step: each item has exactly one outcome; its user code runs at most once; a
 * value is reported only for what ran, a cancellation only for what did not; in the end every slot is FREE and nothing
 * belongs to the dead. That the parent ends at all says that no task gets lost.
 *
 * Task 0 is a batch of two items, the others are single calls. The parent may take a task back as long as it is READY.
 * ENTRIES may be as few as SLOTS, so that the index ring is compacted again and again. What shoal_taskqueue_bury would
 * push again (rescan) is left out: nothing may get lost that it would have to find.
 *
 * Memory: each access is one step, in program order, as acquire and release ask for. Sleeping is wake.pml's.
 *
 * Seeded bugs, each found by test_claim.py: every BUG_* below.
 */
#ifndef WORKERS
#define WORKERS 2
#endif
#ifndef SLOTS
#define SLOTS 2
#endif
#ifndef ENTRIES
#define ENTRIES 4
#endif
#ifndef TASKS
#define TASKS 2
#endif
#ifndef CRASHES
#define CRASHES 1
#endif
#ifndef REVOKES
#define REVOKES 1
#endif
#define RECORDS 2 /* in a result ring */
#define ITEMS (TASKS + 1)

/* enum shoal_task_state */
#define FREE 0
#define READY 1
#define CLAIMED 2
#define STARTED 3

/* outcomes */
#define NONE 0
#define VALUE 1
#define LOST 2
#define CANCELLED 3

#define items_of(task) (task == 0 -> 2 : 1)
#define first_of(task) (task == 0 -> 0 : task + 1)

/* ---- shared memory ---- */

byte head, tail;
byte entry_generation[ENTRIES], entry_slot[ENTRIES];
byte generation[SLOTS], owner[SLOTS], state[SLOTS]; /* one word: read and changed in one step */
byte told_task[SLOTS], told_next[SLOTS];            /* the descriptor, a field at a time */

typedef record { byte slot; byte generation; byte item };
typedef ring { record at[RECORDS]; byte head; byte tail };
ring results[WORKERS];

/* ---- processes, and what came of it ---- */

bool alive[WORKERS], gone[WORKERS];
byte crashes;
byte outcome[ITEMS], ran[ITEMS];

/* ---- worker: taskqueue_worker.c, worker.c, worker_result.c ---- */

proctype worker(byte w)
{
    byte seen, slot, number, task, next;
    bool taken;

end_claim: /* an idle worker is no deadlock; a parent that waits for ever is */
    {
        atomic { head != tail -> seen = head }; /* the tail may have been read before; it only grows */
        atomic { slot = entry_slot[seen % ENTRIES]; number = entry_generation[seen % ENTRIES] };
#ifdef BUG_HEAD_BEFORE_CLAIM
        atomic { if :: head == seen -> head++ :: else fi };
#endif
#ifdef BUG_CLAIM_IN_TWO_STEPS
        taken = (generation[slot] == number && owner[slot] == 0 && state[slot] == READY);
        if
        :: taken -> owner[slot] = w + 1; state[slot] = CLAIMED
        :: else
        fi;
#else
        atomic {
            if
            :: generation[slot] == number && owner[slot] == 0 && state[slot] == READY ->
                owner[slot] = w + 1; state[slot] = CLAIMED; taken = true
            :: else
            fi
        };
#endif
#ifndef BUG_HEAD_BEFORE_CLAIM
        atomic { if :: head == seen -> head++ :: else fi; seen = 0 };
#endif
        if
        :: atomic { !taken -> slot = 0; number = 0; seen = 0; goto end_claim }
        :: atomic { taken -> taken = false; seen = 0 }
        fi;
        /* describe() */
        task = told_task[slot];
        next = told_next[slot];
        /* shoal_taskqueue_start; nobody takes a claim away from the living */
        atomic {
            assert(generation[slot] == number && owner[slot] == w + 1 && state[slot] == CLAIMED);
            state[slot] = STARTED
        };
        do
        :: next < items_of(task) ->
            atomic {
                ran[first_of(task) + next]++;
                assert(ran[first_of(task) + next] <= 1)
            };
            results[w].tail - results[w].head < RECORDS; /* ring_reserve waits for room */
#ifdef BUG_COMMIT_BEFORE_RECORD
            results[w].tail++;
#endif
            atomic {
#ifdef BUG_COMMIT_BEFORE_RECORD
                results[w].at[(results[w].tail - 1) % RECORDS].slot = slot;
                results[w].at[(results[w].tail - 1) % RECORDS].generation = number;
                results[w].at[(results[w].tail - 1) % RECORDS].item = first_of(task) + next;
#else
                results[w].at[results[w].tail % RECORDS].slot = slot;
                results[w].at[results[w].tail % RECORDS].generation = number;
                results[w].at[results[w].tail % RECORDS].item = first_of(task) + next;
#endif
            };
#ifdef BUG_COMMIT_BEFORE_RECORD
            next++
#else
            atomic { next++; results[w].tail++ } /* shoal_ring_commit */
#endif
        :: atomic { else -> slot = 0; number = 0; task = 0; next = 0; goto end_claim }
        od
    } unless {
        !alive[w]
    };
    atomic { seen = 0; slot = 0; number = 0; task = 0; next = 0; taken = false; gone[w] = true };
end_dead:
    alive[w];
    goto end_claim
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
            :: CRASHES > 1 && alive[1] -> alive[1] = false /* the first of them is any of them */
#if WORKERS > 2
            :: CRASHES > 2 && alive[2] -> alive[2] = false
#endif
            :: true /* nobody */
            fi
        }
    od
}

/* ---- the parent ---- */

bool used[SLOTS];                                        /* struct entry's owner is set */
byte own_generation[SLOTS], own_task[SLOTS], own_next[SLOTS];
byte in_flight;

inline settle(item, what)
{
    atomic {
        assert(outcome[item] == NONE);
        outcome[item] = what;
        assert(what != VALUE || ran[item] == 1);
        assert(what != CANCELLED || ran[item] == 0)
    }
}

/* taskqueue_owner.c: compact() */
inline compact()
{
    from = tail;
    to = tail;
    before = head;
#ifdef BUG_COMPACT_MOVES_HEAD_FIRST
    atomic { if :: head < tail - 1 -> head = tail - 1 :: else fi };
#endif
    do
    :: from != before ->
        from--;
        atomic {
            if
            :: used[entry_slot[from % ENTRIES]] &&
               own_generation[entry_slot[from % ENTRIES]] == entry_generation[from % ENTRIES] &&
               owner[entry_slot[from % ENTRIES]] == 0 && state[entry_slot[from % ENTRIES]] == READY ->
                to--;
                live = true
            :: else
            fi
        };
        if
        :: atomic { live ->
               live = false;
               entry_slot[to % ENTRIES] = entry_slot[from % ENTRIES];
               entry_generation[to % ENTRIES] = entry_generation[from % ENTRIES] }
        :: else
        fi
    :: else -> break
    od;
    atomic { if :: head < to -> head = to :: else fi; from = 0; to = 0; before = 0 }
}

/* make_ready() and shoal__queue_append() */
inline make_ready(s)
{
    told_task[s] = own_task[s];
    told_next[s] = own_next[s];
    atomic {
        own_generation[s]++;
        generation[s] = own_generation[s];
        owner[s] = 0;
        state[s] = READY
    };
    if
    :: tail - head >= ENTRIES -> compact()
    :: else
    fi;
#ifdef BUG_TAIL_BEFORE_ENTRY
    tail++;
    atomic { entry_slot[(tail - 1) % ENTRIES] = s; entry_generation[(tail - 1) % ENTRIES] = own_generation[s] }
#else
    atomic { entry_slot[tail % ENTRIES] = s; entry_generation[tail % ENTRIES] = own_generation[s] };
    tail++
#endif
}

/* entry_finish(): whatever the word says, FREE */
inline finish(s)
{
    atomic {
        owner[s] = 0;
        state[s] = FREE;
        used[s] = false;
        own_task[s] = 0;
        own_next[s] = 0;
        in_flight--
    }
}

/* engine_drain_worker(), take_result() */
inline drain(w)
{
    do
    :: results[w].head != results[w].tail ->
        atomic {
            slot = results[w].at[results[w].head % RECORDS].slot;
            /* an honest worker's record always fits the ledger */
            assert(used[slot] && own_generation[slot] == results[w].at[results[w].head % RECORDS].generation);
            assert(generation[slot] == own_generation[slot] && owner[slot] == w + 1 && state[slot] == STARTED);
            assert(results[w].at[results[w].head % RECORDS].item == first_of(own_task[slot]) + own_next[slot])
        };
        settle(first_of(own_task[slot]) + own_next[slot], VALUE);
        own_next[slot]++;
        if
        :: own_next[slot] == items_of(own_task[slot]) -> finish(slot)
        :: else
        fi;
        atomic { slot = 0; results[w].head++ }
    :: else -> break
    od
}

/* recover_slot() */
inline recover_slot(s, w)
{
    if
    :: used[s] && owner[s] == w + 1 && state[s] == CLAIMED ->
        atomic { owner[s] = 0; state[s] = FREE };
        make_ready(s)
    :: used[s] && owner[s] == w + 1 && state[s] == STARTED ->
#ifdef BUG_STARTED_IS_TRIED_AGAIN
        make_ready(s)
#else
        settle(first_of(own_task[s]) + own_next[s], LOST);
#ifndef BUG_LOST_ITEM_IS_TRIED_AGAIN
        own_next[s]++;
#endif
        if
        :: own_next[s] < items_of(own_task[s]) ->
            atomic { owner[s] = 0; state[s] = FREE };
            make_ready(s)
        :: else -> finish(s)
        fi
#endif
    :: else
    fi
}

/* recover_worker(): what it had published counts; then what it owned */
inline recover(w)
{
#ifndef BUG_RECOVERED_BEFORE_DRAINED
    drain(w);
#endif
    other = 0;
    do
    :: other < SLOTS -> recover_slot(other, w); other++
    :: else -> break
    od;
#ifdef BUG_RECOVERED_BEFORE_DRAINED
    drain(w);
#endif
    atomic { other = 0; results[w].head = 0; results[w].tail = 0; alive[w] = true }
}

inline revoke(s)
{
#ifdef BUG_REVOKE_IN_TWO_STEPS
    if
    :: used[s] && owner[s] == 0 && state[s] == READY -> owner[s] = 0; state[s] = FREE; taken = true
    :: else
    fi;
#else
    atomic {
        if
        :: used[s] && owner[s] == 0 && state[s] == READY -> state[s] = FREE; taken = true
        :: else
        fi
    };
#endif
    if
    :: taken ->
        taken = false;
        do
        :: own_next[s] < items_of(own_task[s]) ->
            settle(first_of(own_task[s]) + own_next[s], CANCELLED);
            own_next[s]++
        :: else -> break
        od;
        finish(s)
    :: else
    fi
}

proctype parent()
{
    byte published, revoked, slot, other, from, to, before;
    bool live, taken;
    do
    :: published < TASKS && in_flight < SLOTS ->
        atomic {
            if
            :: !used[0] -> slot = 0
            :: else -> slot = 1
            fi;
            used[slot] = true;
            own_task[slot] = published;
            own_next[slot] = 0;
            in_flight++;
            published++
        };
        make_ready(slot);
        slot = 0
    :: results[0].head != results[0].tail -> drain(0)
    :: results[1].head != results[1].tail -> drain(1)
    :: atomic { gone[0] -> gone[0] = false }; recover(0)
    :: atomic { gone[1] -> gone[1] = false }; recover(1)
#if WORKERS > 2
    :: results[2].head != results[2].tail -> drain(2)
    :: atomic { gone[2] -> gone[2] = false }; recover(2)
#endif
    :: revoked < REVOKES && in_flight > 0 ->
        revoked++;
        if
        :: true -> revoke(0)
        :: true -> revoke(1)
        fi
    :: published == TASKS && in_flight == 0 -> break
    od;
    atomic {
        assert(!used[0] && !used[1] && state[0] == FREE && state[1] == FREE && owner[0] == 0 && owner[1] == 0);
        assert(outcome[0] != NONE && outcome[1] != NONE && outcome[2] != NONE && outcome[ITEMS - 1] != NONE)
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
#if WORKERS > 2
        alive[2] = true;
        run worker(2);
#endif
        run killer()
    }
}

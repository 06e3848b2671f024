/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * taskqueue_worker.c - a worker's side: claim, start, wait. taskqueue.c says how all of it works, taskqueue_wake.c why
 * nobody sleeps while there is work.
 *
 * A worker that will look for work says so (stance COMING, and its name in `spinner`) from the moment it hands in a
 * result until it has claimed a task or sleeps; the owner process, which publishes the next task at that result, then
 * wakes nobody for it. After a claim it takes the word back, and passes the turn on if there is more work.
 *
 * Spinning: only the newest of those who come (whoever wrote `spinner` last), only while the owner process runs on
 * another CPU, for spin_ns; if that failed several times in a row, only now and then. If it runs on our CPU, we give
 * way (taskqueue_turn.c).
 */
#include <shoal/killpoint.h>

#include "taskqueue.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#define LOOK_EVERY 16       /* rounds of a spin between looks at clock, CPU and spinner */
#define FAILED_SPINS_MAX 4  /* after so many, ... */
#define SPIN_EVERY 8        /* ... only each 8th time */
#define REST_NS 1000000000ll /* a sleeper looks by itself this often */

static void publish_cpu(struct shoal_taskqueue *queue, unsigned worker)
{
    uint32_t cpu = shoal_cpu();
    if (shoal__load_relaxed(&queue->workers[worker].cpu) != cpu)
        shoal__store_relaxed(&queue->workers[worker].cpu, cpu);
}

void shoal_taskqueue_returning(struct shoal_taskqueue *queue, unsigned worker)
{
    if (worker >= queue->worker_count)
        return;
    SHOAL_KILL_POINT("returning: to be said");
    /* Relaxed: who sees it late wakes one worker too many. */
    if (!queue->minds[worker].coming) {
        queue->minds[worker].coming = true;
        shoal__store_relaxed(&queue->workers[worker].stance, SHOAL__COMING);
    }
    if (shoal__load_relaxed(&queue->common->spinner) != worker + 1)
        shoal__store_relaxed(&queue->common->spinner, worker + 1);
}

static void spinner_clear(struct shoal_taskqueue *queue, unsigned worker)
{
    /* Not atomic: the name of another who came in between may be wiped out, which costs a wake too many. */
    if (shoal__load_relaxed(&queue->common->spinner) == worker + 1)
        shoal__store_relaxed(&queue->common->spinner, 0);
}

/* We do not come any more. True if there is work that somebody may have left to us. */
static bool stop_coming(struct shoal_taskqueue *queue, unsigned worker)
{
    queue->minds[worker].coming = false;
    shoal__store_relaxed(&queue->workers[worker].stance, SHOAL__AWAKE);
    spinner_clear(queue, worker);
    shoal__fence_seqcst(); /* that we said so before the look at the index ring */
    return shoal__queue_backlog(queue) > 0;
}

/* The same, and if there is work that we shall not take, somebody else is to. */
static void pass_on(struct shoal_taskqueue *queue, unsigned worker)
{
    if (!stop_coming(queue, worker))
        return;
    queue->minds[worker].crowded = true;
    shoal__queue_wake(queue, 1, (int)worker);
}

void shoal_taskqueue_leave(struct shoal_taskqueue *queue, unsigned worker)
{
    if (worker < queue->worker_count)
        pass_on(queue, worker);
}

/* ---- claim ---- */

/* READY -> CLAIMED, if the slot still is what the entry says. */
static bool take(struct shoal_taskqueue *queue, unsigned worker, uint64_t entry, struct shoal_claim *ret_claim)
{
    uint32_t slot = (uint32_t)entry, generation = (uint32_t)(entry >> 32);
    if (slot >= queue->slot_count)
        return false;
    shoal__a64 *place = &queue->slots[slot].word;
    uint64_t word = shoal__load_relaxed(place); /* the swap below is what counts */
    if (!shoal__word_ready(word, generation))
        return false;
    uint64_t claimed = shoal__word(generation, worker + 1, shoal__word_attempt(word), SHOAL_TASK_CLAIMED);
    if (!shoal__cas_acqrel(place, &word, claimed)) /* SYNC: task-word */
        return false;
    SHOAL_KILL_POINT("claim: swapped");
    *ret_claim = (struct shoal_claim) { .slot = slot, .generation = generation, .word = claimed };
    return true;
}

/* Copy the description; false if the task was taken away meanwhile (then the copy may be of two tasks). */
static bool describe(const struct shoal_taskqueue *queue, const struct shoal_claim *claim, struct shoal_task *ret_task)
{
    const struct shoal__queue_descriptor *descriptor = &queue->descriptors[claim->slot];
    uint64_t fields[sizeof descriptor->field / sizeof *descriptor->field];
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        fields[i] = shoal__load_acquire(&descriptor->field[i]); /* before the look at the word */
    if (shoal__load_relaxed(&queue->slots[claim->slot].word) != claim->word)
        return false;
    memcpy(ret_task, fields, sizeof fields);
    return true;
}

int shoal_taskqueue_claim(struct shoal_taskqueue *queue, unsigned worker, struct shoal_task *ret_task,
                          struct shoal_claim *ret_claim)
{
    if (worker >= queue->worker_count)
        return -EINVAL;
    for (;;) {
        uint64_t head = shoal__load_acquire(&queue->common->head);
        uint64_t tail = shoal__load_acquire(&queue->owner->tail); /* SYNC: queue-tail */
        if (tail == head || tail - head > queue->entry_count)
            return -EAGAIN;
        uint64_t entry = shoal__load_acquire(&queue->entries[head & (queue->entry_count - 1)]);
        struct shoal_claim claim;
        bool taken = take(queue, worker, entry, &claim);
        /* Ours, another's, or stale: the head goes on, by whoever is first. Failing means that somebody was. */
        shoal__cas_acqrel(&queue->common->head, &head, head + 1);
        if (!taken || !describe(queue, &claim, ret_task))
            continue;
        *ret_claim = claim;
        SHOAL_KILL_POINT("claim: described");
        publish_cpu(queue, worker); /* where the task runs: the owner process does not spin against it */
        if (queue->minds[worker].coming)
            pass_on(queue, worker);
        SHOAL_KILL_POINT("claim: passed on");
        return 0;
    }
}

int shoal_taskqueue_start(struct shoal_taskqueue *queue, unsigned worker, struct shoal_claim *claim)
{
    if (worker >= queue->worker_count || claim->slot >= queue->slot_count)
        return -EINVAL;
    uint64_t word = claim->word;
    if (shoal__word_state(word) != SHOAL_TASK_CLAIMED || shoal__word_owner(word) != worker + 1)
        return -EINVAL;
    uint64_t started = shoal__word(claim->generation, worker + 1, shoal__word_attempt(word), SHOAL_TASK_STARTED);
    if (!shoal__cas_acqrel(&queue->slots[claim->slot].word, &word, started)) /* SYNC: task-word */
        return -ESTALE;
    claim->word = started;
    SHOAL_KILL_POINT("start: swapped");
    return 0;
}

/* ---- wait ---- */

bool shoal_taskqueue_owner_elsewhere(const struct shoal_taskqueue *queue)
{
    return shoal__load_relaxed(&queue->owner->cpu) != shoal_cpu();
}

static bool may_spin(struct shoal__queue_mind *mind)
{
    if (mind->failed_spins >= FAILED_SPINS_MAX && ++mind->skipped_spins % SPIN_EVERY != 0)
        return false;
    return true;
}

/* Are we still the one to spin? If nobody's name stands there (wiped out by chance), ours does again. */
static bool our_turn(struct shoal_taskqueue *queue, unsigned worker)
{
    uint32_t spinner = shoal__load_relaxed(&queue->common->spinner);
    if (spinner == 0)
        shoal__store_relaxed(&queue->common->spinner, worker + 1);
    return spinner == 0 || spinner == worker + 1;
}

struct extra {
    bool (*ask)(void *);
    void *arg;
};

static bool extra_wanted(struct extra extra)
{
    return extra.ask != NULL && extra.ask(extra.arg);
}

enum spin_end { SPIN_NOTHING, SPIN_WORK, SPIN_EXTRA };

struct look {
    struct shoal_taskqueue *queue;
    unsigned worker;
    struct extra extra;
    enum spin_end found;
};

/* Something to do, or another has come who does it. */
static bool look(void *arg)
{
    struct look *self = arg;
    if (shoal__queue_backlog(self->queue) > 0)
        self->found = SPIN_WORK;
    else if (extra_wanted(self->extra))
        self->found = SPIN_EXTRA;
    return self->found != SPIN_NOTHING || !our_turn(self->queue, self->worker);
}

static enum spin_end give_way(struct shoal_taskqueue *queue, unsigned worker, struct extra extra)
{
    struct look self = { .queue = queue, .worker = worker, .extra = extra, .found = SPIN_NOTHING };
    shoal__turn_give(&queue->minds[worker].turn, look, &self);
    return self.found;
}

static enum spin_end spin(struct shoal_taskqueue *queue, unsigned worker, int64_t deadline_ns, struct extra extra)
{
    struct shoal__queue_mind *mind = &queue->minds[worker];
    uint64_t seen = shoal__load_relaxed(&queue->owner->tail); /* before the look: what comes later changes it */
    if (shoal__queue_backlog(queue) > 0)
        return SPIN_WORK;
    if (extra_wanted(extra))
        return SPIN_EXTRA;
    if (queue->spin_ns == 0)
        return SPIN_NOTHING;
    if (!shoal_taskqueue_owner_elsewhere(queue))
        return give_way(queue, worker, extra);
    if (!may_spin(mind))
        return SPIN_NOTHING;
    int64_t end_ns = shoal_now_ns() + queue->spin_ns;
    if (deadline_ns >= 0 && deadline_ns < end_ns)
        end_ns = deadline_ns;
    for (unsigned round = 1;; round++) {
        /* Only the tail: the head's line is busy with those who claim. */
        uint64_t tail = shoal__load_relaxed(&queue->owner->tail);
        if (tail != seen && shoal__queue_backlog(queue) > 0) {
            mind->failed_spins = 0;
            return SPIN_WORK;
        }
        seen = tail;
        if (round % LOOK_EVERY == 0) {
            if (extra_wanted(extra))
                return SPIN_EXTRA;
            if (!our_turn(queue, worker) || !shoal_taskqueue_owner_elsewhere(queue))
                return SPIN_NOTHING;
            if (shoal_now_ns() >= end_ns) {
                mind->failed_spins++;
                return SPIN_NOTHING;
            }
        }
        shoal__cpu_relax();
    }
}

bool shoal_taskqueue_linger(struct shoal_taskqueue *queue, unsigned worker, bool (*ready)(void *), void *arg)
{
    if (worker >= queue->worker_count || queue->spin_ns == 0 || ready(arg))
        return worker < queue->worker_count && ready(arg);
    if (!shoal_taskqueue_owner_elsewhere(queue))
        return shoal__turn_give(&queue->minds[worker].turn, ready, arg);
    int64_t end_ns = shoal_now_ns() + queue->spin_ns;
    for (unsigned round = 1; !ready(arg); round++) {
        if (round % LOOK_EVERY == 0 && (!shoal_taskqueue_owner_elsewhere(queue) || shoal_now_ns() >= end_ns))
            return false;
        shoal__cpu_relax();
    }
    return true;
}

/* Until it is woken; as the lookout, for a tick at a time, until it stops being that. Returns as shoal_waiter_wait. */
static int sleep_through(struct shoal_taskqueue *queue, unsigned worker, struct shoal_waiter *waiter, uint32_t ticket,
                         int64_t deadline_ns, const sigset_t *mask, bool watches)
{
    for (;;) {
        int64_t now_ns = shoal_now_ns();
        int64_t until_ns = watches ? shoal__lookout_until(now_ns) : now_ns + REST_NS;
        if (deadline_ns >= 0 && deadline_ns < until_ns)
            until_ns = deadline_ns;
        int status = shoal_waiter_wait(waiter, queue->bells[1 + worker], ticket, until_ns, mask);
        if (status != 0 || !watches || until_ns == deadline_ns || !shoal__lookout_stays(queue, worker, shoal_now_ns()))
            return status;
    }
}

/* Sleep once. Returns > 0 woken or work, 0 deadline, -errno; *ret_work: there is work. */
static int rest(struct shoal_taskqueue *queue, unsigned worker, struct shoal_waiter *waiter, int64_t deadline_ns,
                const sigset_t *mask, struct extra extra, bool *ret_work)
{
    struct shoal__queue_worker *line = &queue->workers[worker];
    struct shoal_doorbell *bell = queue->bells[1 + worker];
    int64_t now_ns = shoal_now_ns();
    shoal__store_relaxed(&line->rest_ns, (uint64_t)now_ns);
    shoal__or_seqcst(&queue->common->idle[worker / 64], shoal__idle_bit(worker));
    queue->minds[worker].coming = false;
    shoal__store_relaxed(&line->stance, SHOAL__SLEEPING);
    spinner_clear(queue, worker);
    bool watches = shoal__lookout_begin(queue, worker, now_ns);
    uint32_t ticket = shoal_doorbell_announce(bell, SHOAL_URGENT); /* full fence: all of the above before these looks */
    int status = 1;
    SHOAL_KILL_POINT("rest: announced");
    bool woken = shoal__load_relaxed(&line->stance) != SHOAL__SLEEPING;
    if (!woken && shoal__queue_backlog(queue) == 0 && !extra_wanted(extra))
        status = sleep_through(queue, worker, waiter, ticket, deadline_ns, mask, watches);
    SHOAL_KILL_POINT("rest: over");
    shoal_doorbell_retract(bell);
    shoal__and_seqcst(&queue->common->idle[worker / 64], ~shoal__idle_bit(worker));
    shoal__lookout_end(queue, worker);
    *ret_work = stop_coming(queue, worker);
    queue->minds[worker].late_looks += status == 0 && *ret_work && !watches;
    return status;
}

int shoal_taskqueue_wait(struct shoal_taskqueue *queue, unsigned worker, struct shoal_waiter *waiter,
                         int64_t deadline_ns, const sigset_t *mask, bool (*extra_ask)(void *), void *extra_arg)
{
    struct extra extra = { .ask = extra_ask, .arg = extra_arg };
    if (worker >= queue->worker_count)
        return -EINVAL;
    publish_cpu(queue, worker);
    shoal_taskqueue_returning(queue, worker);
    switch (spin(queue, worker, deadline_ns, extra)) {
    case SPIN_WORK:
        return 1;
    case SPIN_EXTRA:
        pass_on(queue, worker); /* whatever it is, it is not a claim */
        return 1;
    case SPIN_NOTHING:
        break;
    }
    for (;;) {
        bool work;
        int status = rest(queue, worker, waiter, deadline_ns, mask, extra, &work);
        if (status < 0) {
            if (work)
                pass_on(queue, worker); /* the caller has something else to see to first */
            return status;
        }
        if (work) {
            shoal_taskqueue_returning(queue, worker);
            return 1;
        }
        if (status > 0)
            return 1;
        if (deadline_ns >= 0 && shoal_now_ns() >= deadline_ns)
            return 0;
    }
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_taskqueue_many.c - many workers and many tasks at once: each task runs exactly once, and nobody sleeps while
 * there is work. Workers are processes, threads on one mapping (for the thread sanitizer), or processes that are
 * killed.
 */
#include <shoal/taskqueue.h>

#include "doorbell.h"
#include "support.h"
#include "taskqueue.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define OFFSET 4096u
#define SLOTS 64u
#define WORKERS 4u
#define TASKS_MAX 1000000u

/* What workers tell the owner, as a pool would in its result rings. */
struct results {
    shoal__a32 runs[TASKS_MAX];     /* by tag: how often user code ran */
    shoal__a32 finished[SLOTS];     /* by slot: generation whose result is there */
    shoal__a32 quit;                /* workers end when there is nothing to do */
    shoal__a32 damaged;             /* a description that was not of one task */
    shoal__a64 belt_catches;        /* rings that were lost */
    shoal__a64 late_looks;          /* wakes that were left out */
};

struct fixture {
    struct shoal_region *region;
    struct shoal_taskqueue *queue;
    struct shoal_waiter *waiter;
    struct results *results;
    enum shoal_doorbell_kind kind;
    uint64_t tags[SLOTS];        /* by slot: what the owner published */
    uint32_t generations[SLOTS]; /* by slot; 0: nothing is published */
    uint64_t lost;               /* tasks that died with their worker */
    uint64_t kills;
    unsigned task_rounds; /* how long user code takes, at most */
};

static bool set_up(struct fixture *f, int64_t spin_ns)
{
    *f = (struct fixture) { 0 };
    if (!ASSERT_OK(shoal_doorbell_choose(&f->kind)))
        return false;
    struct shoal_taskqueue_config config = {
        .slot_count = SLOTS, .worker_count = WORKERS, .doorbell = f->kind, .spin_ns = spin_ns
    };
    uint64_t footprint = shoal_taskqueue_footprint(&config);
    f->results = mmap(NULL, sizeof *f->results, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return f->results != MAP_FAILED && ASSERT_OK(shoal_region_create(OFFSET + footprint, &f->region)) &&
           ASSERT_OK(shoal_region_reserve(f->region, OFFSET, footprint)) &&
           ASSERT_OK(shoal_taskqueue_create(f->region, OFFSET, &config, &f->queue)) &&
           ASSERT_OK(shoal_waiter_create(f->kind, &f->waiter));
}

static void tear_down(struct fixture *f)
{
    shoal_waiter_free(f->waiter);
    shoal_taskqueue_free(f->queue);
    shoal_region_free(f->region);
    munmap(f->results, sizeof *f->results);
}

/* ---- worker ---- */

static void run_task(struct fixture *f, unsigned worker, const struct shoal_task *task, struct shoal_claim *claim)
{
    if (shoal_taskqueue_start(f->queue, worker, claim) < 0)
        return;
    shoal__add_seqcst(&f->results->runs[task->tag % TASKS_MAX], 1);
    for (volatile uint64_t i = f->task_rounds > 0 ? task->tag * 7919 % f->task_rounds : 0; i > 0; i--)
        ;
    if (task->stream_bytes != ~task->tag || task->item_count != (uint32_t)task->tag)
        shoal__add_seqcst(&f->results->damaged, 1);
    shoal_taskqueue_returning(f->queue, worker);
    shoal__store_release(&f->results->finished[claim->slot], claim->generation);
    shoal_doorbell_ring(shoal_taskqueue_owner_bell(f->queue), SHOAL_URGENT);
}

static bool quit_asked(void *argument)
{
    struct fixture *f = argument;
    return shoal__load_acquire(&f->results->quit) != 0;
}

static int work(struct fixture *f, unsigned worker)
{
    struct shoal_waiter *waiter;
    struct shoal_task task;
    struct shoal_claim claim;
    int status = shoal_waiter_create(f->kind, &waiter);
    while (status >= 0) {
        status = shoal_taskqueue_claim(f->queue, worker, &task, &claim);
        if (status == 0)
            run_task(f, worker, &task, &claim);
        else if (status == -EAGAIN && quit_asked(f))
            break;
        else if (status == -EAGAIN)
            status = shoal_taskqueue_wait(f->queue, worker, waiter, -1, NULL, quit_asked, f);
    }
    shoal__add_seqcst(&f->results->belt_catches, waiter->belt_catches);
    shoal__add_seqcst(&f->results->late_looks, f->queue->minds[worker].late_looks);
    shoal_waiter_free(waiter);
    return status == -EAGAIN ? 0 : 1;
}

struct worker {
    struct fixture *f;
    unsigned index;
    pid_t pid;
    int pidfd;
    pthread_t thread;
};

static int work_in_process(void *argument)
{
    struct worker *worker = argument;
    shoal_waiter_abandon(worker->f->waiter);
    return shoal_taskqueue_protect(worker->f->queue) < 0 ? 2 : work(worker->f, worker->index);
}

static void *work_in_thread(void *argument)
{
    struct worker *worker = argument;
    return (void *)(intptr_t)work(worker->f, worker->index);
}

static void spawn(struct fixture *f, struct worker *worker, unsigned index)
{
    *worker = (struct worker) { .f = f, .index = index };
    worker->pid = test_fork(work_in_process, worker);
    worker->pidfd = (int)syscall(SYS_pidfd_open, worker->pid, 0);
    ASSERT_OK(shoal_waiter_watch(f->waiter, worker->pidfd, index));
}

/* ---- owner ---- */

static struct shoal_task task_of(uint64_t tag)
{
    return (struct shoal_task) { .tag = tag, .stream_bytes = ~tag, .item_count = (uint32_t)tag };
}

/* Publish up to `want` tasks from *next_tag on, as far as there are slots. */
static void feed(struct fixture *f, uint64_t *next_tag, uint64_t end, uint32_t want)
{
    for (; want > 0 && *next_tag < end; want--) {
        int slot = shoal_taskqueue_acquire(f->queue);
        if (slot < 0)
            break;
        struct shoal_task task = task_of(*next_tag);
        ASSERT_OK(shoal_taskqueue_publish(f->queue, (uint32_t)slot, &task, &f->generations[slot]));
        f->tags[slot] = (*next_tag)++;
    }
    ASSERT_EQ(shoal_taskqueue_wake(f->queue) >= 0, true);
}

/* Take the results that are there; how many. */
static uint64_t collect(struct fixture *f)
{
    uint64_t collected = 0;
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        if (f->generations[slot] == 0 || shoal__load_acquire(&f->results->finished[slot]) != f->generations[slot])
            continue;
        f->generations[slot] = 0;
        ASSERT_OK(shoal_taskqueue_finish(f->queue, slot));
        collected++;
    }
    return collected;
}

/* Sleep until a result may be there (or a worker has died). */
static uint64_t collect_some(struct fixture *f, int *ret_bits)
{
    *ret_bits = 0;
    uint64_t collected = collect(f);
    if (collected > 0)
        return collected;
    shoal_taskqueue_owner_here(f->queue);
    uint32_t ticket = shoal_doorbell_announce(shoal_taskqueue_owner_bell(f->queue), SHOAL_URGENT);
    collected = collect(f);
    if (collected == 0) {
        *ret_bits = shoal_waiter_wait(f->waiter, shoal_taskqueue_owner_bell(f->queue), ticket, -1, NULL);
        ASSERT_EQ(*ret_bits > 0, true);
    }
    shoal_doorbell_retract(shoal_taskqueue_owner_bell(f->queue));
    return collected;
}

/* All tags in [0, count), never more than `depth` of them under way. */
static void drive(struct fixture *f, uint64_t count, uint32_t depth)
{
    uint64_t next = 0, done = 0;
    int bits;
    while (done < count) {
        feed(f, &next, count, depth - (uint32_t)(next - done));
        done += collect_some(f, &bits);
    }
    for (uint64_t tag = 0; tag < count; tag++)
        if (shoal__load_acquire(&f->results->runs[tag]) != 1)
            if (!ASSERT_EQ(shoal__load_acquire(&f->results->runs[tag]), 1))
                break;
    ASSERT_EQ(shoal__load_acquire(&f->results->damaged), 0);
    ASSERT_OK(shoal_taskqueue_check(f->queue));
}

static void send_home(struct fixture *f)
{
    shoal__store_release(&f->results->quit, 1);
    shoal_taskqueue_wake_all(f->queue);
}

static void processes(uint64_t count, uint32_t depth, int64_t spin_ns)
{
    struct fixture f;
    struct worker workers[WORKERS];
    if (!set_up(&f, spin_ns))
        return;
    for (unsigned i = 0; i < WORKERS; i++)
        spawn(&f, &workers[i], i);
    drive(&f, count, depth);
    send_home(&f);
    for (unsigned i = 0; i < WORKERS; i++) {
        ASSERT_EQ(test_wait(workers[i].pid), 0);
        close(workers[i].pidfd);
    }
    ASSERT_EQ(shoal__load_acquire(&f.results->late_looks), 0);
    if (f.kind != SHOAL_DOORBELL_SEMAPHORE) /* there, a slice may end in the moment of a ring */
        ASSERT_EQ(f.waiter->belt_catches + shoal__load_acquire(&f.results->belt_catches), 0);
    tear_down(&f);
}

static void every_task_runs_once_with_many_under_way(void)
{
    processes(100000, SLOTS, -1);
}

static void every_task_runs_once_with_few_under_way(void)
{
    processes(20000, 3, -1);
}

static void nobody_sleeps_while_there_is_work(void)
{
    processes(5000, 1, 0); /* every task finds everybody asleep, or about to be */
    processes(5000, 2, 0);
    processes(5000, WORKERS, 1000);
}

static void threads_run_every_task_once(void)
{
    struct fixture f;
    struct worker workers[WORKERS];
    void *result;
    if (!set_up(&f, -1))
        return;
    for (unsigned i = 0; i < WORKERS; i++) {
        workers[i] = (struct worker) { .f = &f, .index = i };
        ASSERT_OK(pthread_create(&workers[i].thread, NULL, work_in_thread, &workers[i]));
    }
    drive(&f, 20000, SLOTS);
    memset(f.results->runs, 0, sizeof f.results->runs);
    drive(&f, 2000, 1);
    send_home(&f);
    for (unsigned i = 0; i < WORKERS; i++) {
        pthread_join(workers[i].thread, &result);
        ASSERT_EQ((intptr_t)result, 0);
    }
    tear_down(&f);
}

/* Take back and publish anew, at random, while workers claim: each task ends once, run or revoked. */
static void tasks_are_revoked_while_threads_claim(void)
{
    struct fixture f;
    struct worker workers[WORKERS];
    uint64_t next = 0, done = 0, revoked = 0, count = 20000;
    int bits;
    if (!set_up(&f, -1))
        return;
    for (unsigned i = 0; i < WORKERS; i++) {
        workers[i] = (struct worker) { .f = &f, .index = i };
        ASSERT_OK(pthread_create(&workers[i].thread, NULL, work_in_thread, &workers[i]));
    }
    while (done + revoked < count) {
        feed(&f, &next, count, SLOTS);
        for (uint32_t slot = (uint32_t)next % 5; slot < SLOTS; slot += 5)
            if (f.generations[slot] != 0 && shoal_taskqueue_revoke(f.queue, slot) == 0) {
                ASSERT_EQ(shoal__load_acquire(&f.results->runs[f.tags[slot]]), 0);
                f.generations[slot] = 0;
                f.tags[slot] = 0;
                revoked++;
            }
        if (done + revoked < count && next - done - revoked > 0)
            done += collect_some(&f, &bits);
    }
    send_home(&f);
    for (unsigned i = 0; i < WORKERS; i++)
        pthread_join(workers[i].thread, NULL);
    uint64_t runs = 0;
    for (uint64_t tag = 0; tag < count; tag++) {
        uint32_t times = shoal__load_acquire(&f.results->runs[tag]);
        runs += times;
        if (times > 1)
            ASSERT_EQ(times, 1);
    }
    ASSERT_EQ(runs, done);
    ASSERT_EQ(shoal__load_acquire(&f.results->damaged), 0);
    ASSERT_OK(shoal_taskqueue_check(f.queue));
    tear_down(&f);
}

/* ---- death ---- */

/* What a pool does after a death: count what was announced, requeue what was not started, lose what was. */
static uint64_t bury(struct fixture *f, struct worker *worker)
{
    ASSERT_EQ(test_wait(worker->pid), -SIGKILL);
    ASSERT_OK(shoal_waiter_unwatch(f->waiter, worker->index));
    close(worker->pidfd);
    uint64_t ended = collect(f);
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        enum shoal_task_state state;
        unsigned owner;
        if (f->generations[slot] == 0)
            continue;
        ASSERT_OK(shoal_taskqueue_state(f->queue, slot, &state, &owner, NULL));
        if (owner != worker->index)
            continue;
        /* It may have finished after collect() had looked, had it been another's; the dead one's result was there. */
        uint64_t tag = f->tags[slot];
        if (state == SHOAL_TASK_CLAIMED) {
            ASSERT_EQ(shoal__load_acquire(&f->results->runs[tag]), 0);
            struct shoal_task task = task_of(tag);
            ASSERT_OK(shoal_taskqueue_requeue(f->queue, slot, &task, &f->generations[slot]));
        } else if (state == SHOAL_TASK_STARTED) {
            ASSERT_OK(shoal_taskqueue_finish(f->queue, slot));
            f->generations[slot] = 0;
            f->lost++;
            ended++;
        }
    }
    ASSERT_OK(shoal_taskqueue_bury(f->queue, worker->index));
    ASSERT_OK(shoal_taskqueue_check(f->queue));
    return ended;
}

#define KILLS 300u

/* On a machine with much else to do they may all hit workers that have begun nothing: then a few more. */
static bool still_killing(const struct fixture *f)
{
    return f->kills < KILLS || (f->lost == 0 && f->kills < 10 * KILLS);
}

static void every_task_ends_once_whoever_is_killed(void)
{
    struct fixture f;
    struct worker workers[WORKERS];
    uint64_t next = 0, done = 0, tokens[WORKERS];
    unsigned seed = 12345;
    int bits;
    if (!set_up(&f, 20000))
        return;
    f.task_rounds = 5000;
    for (unsigned i = 0; i < WORKERS; i++)
        spawn(&f, &workers[i], i);
    while (still_killing(&f) || done < next) {
        if (!ASSERT_EQ(next < TASKS_MAX, true))
            break;
        feed(&f, &next, still_killing(&f) ? TASKS_MAX : next, SLOTS);
        if (still_killing(&f) && rand_r(&seed) % 4 == 0) {
            kill(workers[rand_r(&seed) % WORKERS].pid, SIGKILL);
            f.kills++;
        }
        if (!still_killing(&f) && done == next)
            break;
        done += collect_some(&f, &bits);
        int dead = (bits & SHOAL_WAIT_FD) != 0 ? shoal_waiter_ready(f.waiter, tokens, WORKERS) : 0;
        for (int i = 0; i < dead; i++) {
            done += bury(&f, &workers[tokens[i]]);
            spawn(&f, &workers[tokens[i]], (unsigned)tokens[i]);
        }
    }
    send_home(&f);
    for (unsigned i = 0; i < WORKERS; i++) {
        int ended = test_wait(workers[i].pid);
        ASSERT_EQ(ended == 0 || ended == -SIGKILL, true);
        close(workers[i].pidfd);
    }
    uint64_t never = 0;
    for (uint64_t tag = 0; tag < next; tag++) {
        uint32_t runs = shoal__load_acquire(&f.results->runs[tag]);
        never += runs == 0; /* started, and killed before it did anything */
        if (runs > 1 && !ASSERT_EQ(runs, 1))
            break;
    }
    ASSERT_EQ(done, next);
    ASSERT_EQ(never <= f.lost, true);
    ASSERT_EQ(f.lost > 0 && f.lost <= f.kills, true); /* or the kills hit nothing */
    ASSERT_OK(shoal_taskqueue_check(f.queue));
    ASSERT_EQ(shoal_taskqueue_free_slots(f.queue), SLOTS);
    tear_down(&f);
}

int main(void)
{
    static const struct test tests[] = {
        { "every task runs once with many under way", every_task_runs_once_with_many_under_way },
        { "every task runs once with few under way", every_task_runs_once_with_few_under_way },
        { "nobody sleeps while there is work", nobody_sleeps_while_there_is_work },
        { "threads run every task once", threads_run_every_task_once },
        { "tasks are revoked while threads claim", tasks_are_revoked_while_threads_claim },
        { "every task ends once whoever is killed", every_task_ends_once_whoever_is_killed },
    };
    return test_main("taskqueue_many", tests, TEST_COUNT(tests));
}

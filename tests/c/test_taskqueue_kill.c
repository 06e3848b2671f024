/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_taskqueue_kill.c - a worker is killed after every single instruction of what workers do.
 *
 * A child does one scenario under ptrace, one instruction at a time; after k of them it gets SIGKILL, for each k. The
 * parent (owner process, and a second worker in the same process) then looks: the structure is sound; every task has
 * one outcome (its result is there, or it was started and is lost, or another worker runs it); a sleeper has been
 * woken.
 */
#include <shoal/taskqueue.h>

#include "support.h"
#include "taskqueue.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#define OFFSET 4096u
#define SLOTS 4u
#define VICTIM 0u
#define SURVIVOR 1u
#define SLEEPER 2u
/* In one scenario, unless $SHOAL_TEST_THOROUGH is set; beyond, every n-th point is tried. Most of a sanitizer's
 * instructions are its own, and another build has died at those of ours. */
#ifdef __SANITIZE_ADDRESS__
#define STEPS_MAX 50000u
#else
#define STEPS_MAX 250000u
#endif

struct results {
    shoal__a32 runs[SLOTS];     /* by tag */
    shoal__a32 finished[SLOTS]; /* by slot: generation */
    shoal__a32 over;            /* the scenario is done */
};

struct fixture {
    struct shoal_region *region;
    struct shoal_taskqueue *queue;
    struct results *results;
    enum shoal_doorbell_kind kind;
    uint32_t generations[SLOTS]; /* by slot; 0: nothing is published */
    uint64_t tags[SLOTS];
};

static bool set_up(struct fixture *f)
{
    *f = (struct fixture) { 0 };
    if (!ASSERT_OK(shoal_doorbell_choose(&f->kind)))
        return false;
    struct shoal_taskqueue_config config = {
        .slot_count = SLOTS, .worker_count = 3, .doorbell = f->kind, .spin_ns = 0
    };
    uint64_t footprint = shoal_taskqueue_footprint(&config);
    f->results = mmap(NULL, sizeof *f->results, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return f->results != MAP_FAILED && ASSERT_OK(shoal_region_create(OFFSET + footprint, &f->region)) &&
           ASSERT_OK(shoal_region_reserve(f->region, OFFSET, footprint)) &&
           ASSERT_OK(shoal_taskqueue_create(f->region, OFFSET, &config, &f->queue));
}

static void tear_down(struct fixture *f)
{
    shoal_taskqueue_free(f->queue);
    shoal_region_free(f->region);
    munmap(f->results, sizeof *f->results);
}

static void publish(struct fixture *f, uint64_t tag)
{
    int slot = shoal_taskqueue_acquire(f->queue);
    struct shoal_task task = { .tag = tag };
    ASSERT_OK(shoal_taskqueue_publish(f->queue, (uint32_t)slot, &task, &f->generations[slot]));
    f->tags[slot] = tag;
}

/* ---- what the victim does ---- */

static void run_one(struct fixture *f, unsigned worker)
{
    struct shoal_task task;
    struct shoal_claim claim;
    if (shoal_taskqueue_claim(f->queue, worker, &task, &claim) < 0 ||
        shoal_taskqueue_start(f->queue, worker, &claim) < 0)
        return;
    shoal__add_seqcst(&f->results->runs[task.tag], 1);
    shoal_taskqueue_returning(f->queue, worker);
    shoal__store_release(&f->results->finished[claim.slot], claim.generation);
    shoal_doorbell_ring(shoal_taskqueue_owner_bell(f->queue), SHOAL_URGENT);
}

static void claim_start_finish(struct fixture *f, struct shoal_waiter *waiter)
{
    (void)waiter;
    run_one(f, VICTIM);
}

/* Two tasks: it takes one and wakes the sleeper for the other. */
static void claim_and_wake_the_next(struct fixture *f, struct shoal_waiter *waiter)
{
    (void)waiter;
    shoal_taskqueue_returning(f->queue, VICTIM);
    run_one(f, VICTIM);
}

static void fall_asleep_and_wake_up(struct fixture *f, struct shoal_waiter *waiter)
{
    shoal_taskqueue_wait(f->queue, VICTIM, waiter, shoal_now_ns() + 1000, NULL, NULL, NULL);
    run_one(f, VICTIM);
}

struct scenario {
    uint64_t task_count;
    void (*act)(struct fixture *f, struct shoal_waiter *waiter);
};

/* ---- killing it ---- */

static pid_t start_victim(struct fixture *f, const struct scenario *scenario)
{
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    struct shoal_waiter *waiter;
    alarm(60);
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0 || shoal_waiter_create(f->kind, &waiter) < 0)
        _exit(77);
    raise(SIGSTOP);
    scenario->act(f, waiter);
    shoal__store_release(&f->results->over, 1);
    _exit(0);
}

/* Let the victim do `steps` instructions and kill it. Returns how many it did before it was done, -1: no ptrace. */
static int64_t step_and_kill(struct fixture *f, const struct scenario *scenario, uint64_t steps)
{
    int status;
    uint64_t done = 0;
    pid_t pid = start_victim(f, scenario);
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status))
        return -1;
    while (done < steps && shoal__load_acquire(&f->results->over) == 0) {
        if (ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) < 0 || waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status))
            break;
        done++;
    }
    kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) == pid && !WIFSIGNALED(status) && !WIFEXITED(status))
        ;
    return (int64_t)done;
}

/* ---- what the others find ---- */

static void prepare(struct fixture *f, const struct scenario *scenario)
{
    memset(f->results, 0, sizeof *f->results);
    for (uint64_t tag = 0; tag < scenario->task_count; tag++)
        publish(f, tag);
    struct shoal__queue_worker *sleeper = &f->queue->workers[SLEEPER];
    shoal__or_seqcst(&f->queue->common->idle[0], shoal__idle_bit(SLEEPER));
    shoal__store_release(&sleeper->stance, SHOAL__SLEEPING);
    shoal_doorbell_announce(shoal_taskqueue_worker_bell(f->queue, SLEEPER), SHOAL_URGENT);
    shoal_doorbell_announce(shoal_taskqueue_owner_bell(f->queue), SHOAL_URGENT);
}

/* Count the tasks that end, and put everything back. */
static uint64_t bury(struct fixture *f)
{
    uint64_t ended = 0;
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        enum shoal_task_state state;
        unsigned owner;
        if (f->generations[slot] == 0)
            continue;
        ASSERT_OK(shoal_taskqueue_state(f->queue, slot, &state, &owner, NULL));
        bool finished = shoal__load_acquire(&f->results->finished[slot]) == f->generations[slot];
        uint32_t runs = shoal__load_acquire(&f->results->runs[f->tags[slot]]);
        if (state == SHOAL_TASK_STARTED) { /* its result, or lost: one outcome either way */
            ASSERT_EQ(owner, VICTIM);
            ASSERT_EQ(runs == 1 || (runs == 0 && !finished), true);
            ASSERT_OK(shoal_taskqueue_finish(f->queue, slot));
            f->generations[slot] = 0;
            ended++;
            continue;
        }
        ASSERT_EQ(runs, 0);
        ASSERT_EQ(finished, false);
        if (state == SHOAL_TASK_CLAIMED) {
            struct shoal_task task = { .tag = f->tags[slot] };
            ASSERT_EQ(owner, VICTIM);
            ASSERT_OK(shoal_taskqueue_requeue(f->queue, slot, &task, &f->generations[slot]));
        }
    }
    ASSERT_OK(shoal_taskqueue_bury(f->queue, VICTIM));
    return ended;
}

/* The second worker runs what is left; how many that were. */
static uint64_t survive(struct fixture *f)
{
    uint64_t ran = 0;
    while (shoal_taskqueue_backlog(f->queue) > 0) {
        uint32_t before = shoal_taskqueue_backlog(f->queue);
        run_one(f, SURVIVOR);
        if (shoal_taskqueue_backlog(f->queue) >= before)
            break;
    }
    for (uint32_t slot = 0; slot < SLOTS; slot++)
        if (f->generations[slot] != 0 && shoal__load_acquire(&f->results->finished[slot]) == f->generations[slot]) {
            ASSERT_EQ(shoal__load_acquire(&f->results->runs[f->tags[slot]]), 1);
            ASSERT_OK(shoal_taskqueue_finish(f->queue, slot));
            f->generations[slot] = 0;
            ran++;
        }
    return ran;
}

/* Kill after `steps` instructions and look. False at the first thing that is wrong. */
static bool try_point(struct fixture *f, const struct scenario *scenario, uint64_t steps, int64_t *ret_done)
{
    unsigned failures = CU_get_number_of_failures();
    prepare(f, scenario);
    *ret_done = step_and_kill(f, scenario, steps);
    if (*ret_done < 0)
        return false;
    ASSERT_OK(shoal_taskqueue_check(f->queue));
    uint64_t ended = bury(f);
    ASSERT_OK(shoal_taskqueue_check(f->queue));
    ASSERT_EQ(shoal_doorbell_sleeps(shoal_taskqueue_worker_bell(f->queue, SLEEPER)), false);
    ended += survive(f);
    ASSERT_EQ(ended, scenario->task_count);
    ASSERT_EQ(shoal_taskqueue_free_slots(f->queue), SLOTS);
    ASSERT_OK(shoal_taskqueue_bury(f->queue, SLEEPER));
    ASSERT_OK(shoal_taskqueue_bury(f->queue, SURVIVOR));
    memset(f->queue->minds, 0, 3 * sizeof *f->queue->minds);
    ASSERT_OK(shoal_taskqueue_check(f->queue));
    if (CU_get_number_of_failures() == failures)
        return true;
    printf("# killed after %llu instructions\n", (unsigned long long)steps);
    return false;
}

static void kill_everywhere(const struct scenario *scenario)
{
    struct fixture f;
    int64_t all, done;
    if (!set_up(&f))
        return;
    if (!try_point(&f, scenario, UINT64_MAX, &all)) {
        if (all < 0)
            test_skip("ptrace is not allowed here");
        tear_down(&f);
        return;
    }
    uint64_t total = (uint64_t)all;
    uint64_t stride = getenv("SHOAL_TEST_THOROUGH") != NULL ? 1 : 1 + total * total / 2 / STEPS_MAX;
    CU_ASSERT(total > 100);
    for (uint64_t steps = (uint64_t)f.kind % stride; steps < total; steps += stride)
        if (!try_point(&f, scenario, steps, &done))
            break;
    printf("# %llu instructions, each %llu\n", (unsigned long long)total, (unsigned long long)stride);
    tear_down(&f);
}

static void a_death_while_it_runs_a_task_loses_that_task_at_most(void)
{
    kill_everywhere(&(struct scenario) { .task_count = 2, .act = claim_start_finish });
}

static void a_death_while_it_wakes_another_leaves_nobody_asleep(void)
{
    kill_everywhere(&(struct scenario) { .task_count = 3, .act = claim_and_wake_the_next });
}

static void a_death_while_it_falls_asleep_leaves_nothing_behind(void)
{
    kill_everywhere(&(struct scenario) { .task_count = 0, .act = fall_asleep_and_wake_up });
}

int main(void)
{
    static const struct test tests[] = {
        { "a death while it runs a task loses that task at most",
          a_death_while_it_runs_a_task_loses_that_task_at_most },
        { "a death while it wakes another leaves nobody asleep", a_death_while_it_wakes_another_leaves_nobody_asleep },
        { "a death while it falls asleep leaves nothing behind", a_death_while_it_falls_asleep_leaves_nothing_behind },
    };
    return test_main("taskqueue_kill", tests, TEST_COUNT(tests));
}

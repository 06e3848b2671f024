/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * taskqueue_lookout.c - who need not be woken while tasks are short. Used by the owner process and by workers.
 *
 * The problem: a wake takes some 5 us from its caller, and 50 pass until the sleeper is there. Where tasks take one,
 * those who are awake have done them by then; the newcomers find nothing, and keep the CPUs, of which there may be
 * fewer than workers, from those who have something to do. But nobody knows of a task beforehand how long it takes: a
 * wake that is left out must be made up for if it takes long, or waits for others.
 *
 * The protocol: a worker that goes to sleep while tasks are short, and more of them than it could take, sleeps as the
 * lookout: for a tick at a time. As long as there is one, whoever publishes or claims leaves tasks to those who are
 * awake:
 *  - as many as these have claimed lately in the time that a wake takes (`pace`), if one is awake, or on its way;
 *  - all, if as many are awake as there are CPUs.
 * At each tick the lookout looks at what was claimed since the last. Short tasks, and no more than `pace` of them
 * waiting: it sleeps on. Short, but more, and a CPU left for somebody, or not that short: another is woken. Tasks that
 * are not short, or strangers who have the CPUs: as many are woken as are awake; at the third such tick in a row it is
 * no lookout any more, comes itself, and from then on everybody is woken as ever. If nobody was spared since the last
 * tick, it sleeps like the others.
 *
 * Why nothing is lost: the lookout is one who will look, like those who come (taskqueue_wake.c). It stops being that
 * before a full fence and a look at the index ring; who spares somebody has published before the full fence that comes
 * before its look at `lookout`. With tasks waiting that nobody claims it sleeps on for SLOW_TICKS_MAX ticks at most.
 *
 * Costs: a sleep that ends every TICK_NS while short tasks come in bursts; tasks that take long after many that did not
 * have all workers after SLOW_TICKS_MAX ticks. Where no more tasks are queued than workers come, nobody is lookout.
 */
#include "taskqueue.h"

#define TICK_NS 1000000
#define SHORT_NS 10000   /* tasks are, if on the average so many ns pass from one claim to the next */
#define WAKE_NS 100000   /* what those who are awake do meanwhile is left to them */
#define PACE_CROWDED 50u /* below, tasks are long enough for one too many to do no harm, and some may block */
#define CLAIMS_MIN 32u   /* fewer say nothing about how long tasks take */
#define SLOW_TICKS_MAX 3u

static bool valid(const struct shoal_taskqueue *queue, uint32_t lookout)
{
    return lookout != 0 && lookout <= shoal__queue_active(queue) &&
           shoal__load_relaxed(&queue->workers[lookout - 1].stance) == SHOAL__SLEEPING;
}

/* Who does not sleep, those who are being woken left out. A worker that has died counts: the lookout finds out. */
static uint32_t count_up(const struct shoal_taskqueue *queue)
{
    uint32_t active = shoal__queue_active(queue), idle = shoal_taskqueue_idle(queue);
    return active > idle ? active - idle : 0; /* it may be another number by now */
}

/* With those who are being woken, as far as there are CPUs. */
static uint32_t count_awake(const struct shoal_taskqueue *queue)
{
    uint32_t awake = count_up(queue), active = shoal__queue_active(queue);
    for (uint32_t i = 0; i < active && awake < queue->cpu_count; i++)
        awake += shoal__load_relaxed(&queue->workers[i].stance) == SHOAL__WOKEN;
    return awake;
}

static void spare(struct shoal_taskqueue *queue)
{
    if (shoal__load_relaxed(&queue->common->spared) == 0)
        shoal__store_relaxed(&queue->common->spared, 1);
}

uint64_t shoal__lookout_limit(struct shoal_taskqueue *queue, uint64_t backlog, uint64_t limit)
{
    if (!valid(queue, shoal__load_relaxed(&queue->common->lookout)))
        return limit;
    bool few = backlog <= shoal__load_relaxed(&queue->common->pace);
    uint32_t awake = few && count_up(queue) > 0 ? queue->cpu_count : count_awake(queue);
    uint64_t allowed = awake == 0 ? 1 : few || awake >= queue->cpu_count ? 0 : queue->cpu_count - awake;
    if (allowed >= limit)
        return limit;
    spare(queue);
    return allowed;
}

/* `claimed` tasks in `took_ns`, as a number of tasks in WAKE_NS; 0: too few to tell, or not short. */
static uint32_t pace_of(const struct shoal_taskqueue *queue, uint64_t claimed, int64_t took_ns)
{
    if (claimed < CLAIMS_MIN || claimed > UINT32_MAX || took_ns > (int64_t)claimed * SHORT_NS)
        return 0;
    uint64_t pace = claimed * WAKE_NS / (uint64_t)(took_ns > 0 ? took_ns : 1);
    return pace < queue->slot_count ? (uint32_t)pace : queue->slot_count;
}

bool shoal__lookout_begin(struct shoal_taskqueue *queue, unsigned worker, int64_t now_ns)
{
    struct shoal__queue_mind *mind = &queue->minds[worker];
    uint64_t head = shoal__load_relaxed(&queue->common->head);
    uint64_t claimed = head - mind->seen_head;
    int64_t took_ns = now_ns - mind->seen_ns;
    if (claimed < CLAIMS_MIN && took_ns < TICK_NS) /* not yet: the more there are the better one can tell */
        return false;
    mind->seen_head = head;
    mind->seen_ns = now_ns;
    uint32_t pace = pace_of(queue, claimed, took_ns), before = shoal__load_relaxed(&queue->common->lookout);
    bool crowded = mind->crowded;
    mind->crowded = false;
    if (pace == 0 || !crowded || valid(queue, before) ||
        !shoal__cas_seqcst(&queue->common->lookout, &before, worker + 1))
        return false;
    shoal__store_relaxed(&queue->common->pace, pace);
    shoal__store_relaxed(&queue->common->spared, 1); /* at the first tick it is too early to say that nobody was */
    mind->slow_ticks = 0;
    return true;
}

int64_t shoal__lookout_until(int64_t now_ns)
{
    return now_ns + TICK_NS;
}

/* Wake others, up to `limit`. False if there is nobody. */
static bool send_others(struct shoal_taskqueue *queue, unsigned worker, uint32_t limit)
{
    uint32_t sent = 0;
    while (sent < limit && shoal__queue_wake_one(queue, (int)worker))
        sent++;
    return sent > 0;
}

bool shoal__lookout_stays(struct shoal_taskqueue *queue, unsigned worker, int64_t now_ns)
{
    struct shoal__queue_mind *mind = &queue->minds[worker];
    uint64_t head = shoal__load_relaxed(&queue->common->head);
    uint32_t pace = pace_of(queue, head - mind->seen_head, now_ns - mind->seen_ns);
    mind->seen_head = head;
    mind->seen_ns = now_ns;
    if (shoal__load_relaxed(&queue->common->spared) == 0 || shoal__load_relaxed(&queue->common->lookout) != worker + 1)
        return false;
    shoal__store_relaxed(&queue->common->spared, 0);
    uint64_t backlog = shoal__queue_backlog(queue);
    uint32_t awake = count_awake(queue);
    if (pace == 0) {
        /* Tasks that take long, or strangers who have the CPUs. */
        if (backlog == 0 || ++mind->slow_ticks >= SLOW_TICKS_MAX)
            return false;
        spare(queue);
        return send_others(queue, worker, awake > 0 ? awake : 1);
    }
    mind->slow_ticks = 0;
    shoal__store_relaxed(&queue->common->pace, pace);
    uint32_t more = awake < queue->cpu_count ? queue->cpu_count - awake : pace < PACE_CROWDED ? 1 : 0;
    return backlog <= pace || more == 0 || send_others(queue, worker, more);
}

void shoal__lookout_end(struct shoal_taskqueue *queue, unsigned worker)
{
    uint32_t mark = worker + 1;
    if (shoal__load_relaxed(&queue->common->lookout) == mark)
        shoal__cas_seqcst(&queue->common->lookout, &mark, 0);
}

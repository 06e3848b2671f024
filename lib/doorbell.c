/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * doorbell.c - bells: announce, ring, retract.
 *
 * The problem: a wake costs a system call, and most of the time nobody sleeps; a wake that is lost is a hang; a ringer
 * may be killed between any two instructions.
 *
 * The protocol: the bell's word holds the sleeper's urgency and the count of rings (lib/layout.h draws it).
 *
 *     sleeper                                       ringer
 *     announce: word |= urgency, ticket = word      publish its work
 *     full fence                                    full fence
 *     look for work                                 load word; no urgency there (or not enough): done
 *     sleep while word == ticket                    CAS word -> {rings + 1, awake}; only who wins makes the system call
 *     retract: urgency = 0                          wake everybody who waits on the word
 *
 * One of the two loads sees the other side's store (Dekker). The ringer takes the announcement and changes the word in
 * one step, so a sleeper whose announcement was taken never finds its ticket unchanged; that the taken announcement may
 * be a later one than the ringer saw does no harm, for the same reason.
 *
 * Guarantees: a ring that follows an announcement ends that sleep. If the ringer is killed between its CAS and its
 * system call, the word has changed already and the sleeper finds out within SHOAL__BELT_NS. Spurious wakes happen.
 * Costs: ring when nobody sleeps: a fence and a load. Does not: have two sleepers on one bell at a time.
 */
#include <shoal/killpoint.h>

#include "doorbell.h"

#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#define DRAIN_MAX 1024 /* posts taken back in one go: bounded, the count may be scribbled over */

static_assert(sizeof(struct shoal__bell) == SHOAL_BELL_BYTES, "public size of a bell");
static_assert(sizeof(sem_t) <= sizeof(((struct shoal__bell *)0)->semaphore), "a sem_t fits into a bell");
static_assert(SHOAL_URGENT <= SHOAL__BELL_URGENCY, "urgency fits into the word");

static const char *const kind_names[] = { "auto", "uring", "uring-eventfd", "semaphore" };

const char *shoal_doorbell_kind_name(enum shoal_doorbell_kind kind)
{
    return (unsigned)kind < sizeof kind_names / sizeof *kind_names ? kind_names[kind] : NULL;
}

static bool kind_valid(uint32_t kind)
{
    return kind >= SHOAL_DOORBELL_URING && kind <= SHOAL_DOORBELL_SEMAPHORE;
}

static sem_t *semaphore_of(struct shoal_doorbell *bell)
{
    return (sem_t *)(void *)bell->shared->semaphore;
}

static int handle_make(struct shoal__bell *shared, enum shoal_doorbell_kind kind, bool made_here,
                       struct shoal_doorbell **ret_bell)
{
    struct shoal_doorbell *bell = malloc(sizeof *bell);
    if (bell == NULL)
        return -ENOMEM;
    *bell = (struct shoal_doorbell) { .shared = shared, .kind = kind, .event_fd = -1, .made_here = made_here };
    *ret_bell = bell;
    return 0;
}

int shoal_doorbell_create(void *memory, enum shoal_doorbell_kind kind, struct shoal_doorbell **ret_bell)
{
    struct shoal__bell *shared = memory;
    struct shoal_doorbell *bell;
    if (memory == NULL || (uintptr_t)memory % SHOAL__CACHE_LINE != 0 || !kind_valid(kind))
        return -EINVAL;
    int status = handle_make(shared, kind, true, &bell);
    if (status < 0)
        return status;
    memset(memory, 0, sizeof *shared);
    shared->kind = (uint32_t)kind;
    if (kind == SHOAL_DOORBELL_SEMAPHORE) {
        status = shoal__sys_sem_init(semaphore_of(bell), 0);
    } else if (kind == SHOAL_DOORBELL_URING_EVENTFD) {
        /* Non-blocking: a read SQE still waits, and a write never does. */
        status = shoal__sys_eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        bell->event_fd = status;
    }
    if (status < 0) {
        free(bell);
        return status;
    }
    shared->magic = SHOAL__BELL_MAGIC;
    *ret_bell = bell;
    return 0;
}

int shoal_doorbell_attach(void *memory, int event_fd, struct shoal_doorbell **ret_bell)
{
    struct shoal__bell *shared = memory;
    struct shoal_doorbell *bell;
    if (memory == NULL || (uintptr_t)memory % SHOAL__CACHE_LINE != 0)
        return -EINVAL;
    uint32_t kind = *(const volatile uint32_t *)&shared->kind;
    if (*(const volatile uint32_t *)&shared->magic != SHOAL__BELL_MAGIC || !kind_valid(kind))
        return -EPROTO;
    if (kind == SHOAL_DOORBELL_URING_EVENTFD && event_fd < 0)
        return -ENOTSUP;
    int status = handle_make(shared, (enum shoal_doorbell_kind)kind, false, &bell);
    if (status < 0)
        return status;
    if (kind == SHOAL_DOORBELL_URING_EVENTFD) {
        status = shoal__sys_fcntl(event_fd, F_DUPFD_CLOEXEC, 0);
        bell->event_fd = status;
    }
    if (status < 0) {
        free(bell);
        return status;
    }
    *ret_bell = bell;
    return 0;
}

int shoal_doorbell_fd(const struct shoal_doorbell *bell)
{
    return bell->event_fd;
}

void shoal_doorbell_free(struct shoal_doorbell *bell)
{
    if (bell == NULL)
        return;
    if (bell->event_fd >= 0)
        shoal__sys_close(bell->event_fd);
    free(bell);
}

uint32_t shoal_doorbell_announce(struct shoal_doorbell *bell, enum shoal_urgency urgency)
{
    shoal__a32 *word = &bell->shared->word;
    uint32_t seen = shoal__load_relaxed(word), ticket;
    do
        ticket = (seen & ~SHOAL__BELL_URGENCY) | ((uint32_t)urgency & SHOAL__BELL_URGENCY);
    while (!shoal__cas_seqcst(word, &seen, ticket));
    shoal__fence_seqcst(); /* our announcement before our second look for work */
    return ticket;
}

void shoal_doorbell_retract(struct shoal_doorbell *bell)
{
    shoal__and_seqcst(&bell->shared->word, ~SHOAL__BELL_URGENCY);
}

static int wake(struct shoal_doorbell *bell)
{
    int status = 0;
    SHOAL_KILL_POINT("ring: word changed");
    switch (bell->kind) {
    case SHOAL_DOORBELL_URING:
        /* Everybody: a wait that an earlier sleep left behind in an io_uring must not swallow the one wake. */
        status = shoal__sys_futex_wake(&bell->shared->word, INT_MAX);
        break;
    case SHOAL_DOORBELL_URING_EVENTFD: {
        const uint64_t one = 1;
        status = (int)shoal__sys_write(bell->event_fd, &one, sizeof one);
        if (status == -EAGAIN) /* full: it is readable, that is all we want */
            status = 0;
        break;
    }
    case SHOAL_DOORBELL_SEMAPHORE:
        status = shoal__sys_sem_post(semaphore_of(bell));
        if (status == -EOVERFLOW) /* as above */
            status = 0;
        break;
    default:
        return -EINVAL;
    }
    return status < 0 ? status : 1;
}

int shoal_doorbell_ring(struct shoal_doorbell *bell, enum shoal_urgency at_least)
{
    shoal__a32 *word = &bell->shared->word;
    shoal__fence_seqcst(); /* our work before the look at the announcement */
    uint32_t seen = shoal__load_relaxed(word);
    for (;;) {
        if ((seen & SHOAL__BELL_URGENCY) < (uint32_t)at_least)
            return 0;
        uint32_t rung = (seen & ~SHOAL__BELL_URGENCY) + SHOAL__BELL_COUNT;
        /* SYNC: bell-word */
        if (shoal__cas_seqcst(word, &seen, rung))
            return wake(bell);
    }
}

bool shoal_doorbell_sleeps(const struct shoal_doorbell *bell)
{
    return (shoal__load_relaxed(&bell->shared->word) & SHOAL__BELL_URGENCY) != 0;
}

void shoal__bell_drain(struct shoal_doorbell *bell)
{
    uint64_t count;
    if (bell->kind == SHOAL_DOORBELL_URING_EVENTFD)
        (void)shoal__sys_read(bell->event_fd, &count, sizeof count); /* -EAGAIN: nothing there */
    else if (bell->kind == SHOAL_DOORBELL_SEMAPHORE)
        for (int taken = 0; taken < DRAIN_MAX && shoal__sys_sem_trywait(semaphore_of(bell)) == 0; taken++)
            ;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * doorbell_probe.c - which kind of doorbell works in this process?
 *
 * A version number does not say it: a seccomp filter, a sysctl, a memory limit or an old kernel each forbid something
 * else.
 * So every kind is tried by doing once what it will have to do: a wake through a bell on which a wait is under way, and
 * a watched descriptor that becomes readable. Costs some 30 us per kind; nothing is left behind.
 */
#include "doorbell.h"

#include "sys.h"

#include <shoal/shoal.h>

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#define PROBE_WAIT_NS 1000000000ll /* a wake that takes longer does not work */

struct reason {
    char *text;
    size_t bytes;
};

/* Note what failed; returns the error. */
static int failed(struct reason reason, int error, const char *what, const char *hint)
{
    if (reason.text != NULL && reason.bytes > 0)
        snprintf(reason.text, reason.bytes, *hint != '\0' ? "%s: %s (%s)" : "%s: %s%s", what, shoal_strerror(error),
                 hint);
    return error;
}

static const char *setup_hint(int error)
{
    switch (error) {
    case -EPERM:
    case -EACCES:
        return "kernel.io_uring_disabled or a seccomp filter";
    case -ENOSYS:
        return "the kernel has no io_uring, or a seccomp filter hides it";
    case -ENOMEM:
        return "RLIMIT_MEMLOCK";
    case -EOPNOTSUPP:
        return "needs Linux 5.11";
    default:
        return "";
    }
}

/* A wait under way on the bell is completed by ringing it. */
static int try_uring_bell(struct shoal_waiter *waiter, struct shoal_doorbell *bell, struct reason reason)
{
    bool futex = bell->kind == SHOAL_DOORBELL_URING;
    const char *what = futex ? "io_uring FUTEX_WAIT" : "io_uring POLL_ADD";
    const char *hint = futex ? "needs Linux 6.7" : "";
    int status = shoal__uring_ensure(waiter);
    if (status < 0)
        return failed(reason, status, "io_uring_setup", setup_hint(status));
    uint32_t ticket = shoal_doorbell_announce(bell, SHOAL_URGENT);
    status = shoal__uring_arm(waiter, bell, ticket);
    if (status >= 0)
        status = shoal_doorbell_ring(bell, SHOAL_URGENT);
    if (status >= 0)
        status = shoal__uring_sleep(waiter, bell, ticket, shoal_now_ns() + PROBE_WAIT_NS, NULL);
    if (status < 0)
        return failed(reason, status, what, hint);
    return (status & SHOAL_WAIT_RANG) != 0 ? 0 : failed(reason, -ETIMEDOUT, what, "the wake did not arrive");
}

static int try_semaphore_bell(struct shoal_waiter *waiter, struct shoal_doorbell *bell, struct reason reason)
{
    uint32_t ticket = shoal_doorbell_announce(bell, SHOAL_URGENT);
    int status = shoal_doorbell_ring(bell, SHOAL_URGENT);
    if (status >= 0)
        status = shoal_waiter_wait(waiter, bell, ticket, shoal_now_ns() + PROBE_WAIT_NS, NULL);
    if (status >= 0) /* the post itself, too: the word alone does not end a sleep */
        status = shoal__sys_sem_clockwait((sem_t *)(void *)bell->shared->semaphore, shoal_now_ns() + PROBE_WAIT_NS);
    return status < 0 ? failed(reason, status, "sem_clockwait", "") : 0;
}

/* A descriptor that becomes readable while it is watched ends a sleep. */
static int try_descriptor(struct shoal_waiter *waiter, struct reason reason)
{
    const uint64_t one = 1;
    int fd = shoal__sys_eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (fd < 0)
        return failed(reason, fd, "eventfd", "");
    const char *what = waiter->kind == SHOAL_DOORBELL_SEMAPHORE ? "ppoll" : "io_uring POLL_ADD";
    int status = shoal_waiter_watch(waiter, fd, 1);
    if (status >= 0)
        status = shoal_waiter_wait(waiter, NULL, 0, 0, NULL);
    if (status == 0) {
        status = (int)shoal__sys_write(fd, &one, sizeof one);
        if (status >= 0)
            status = shoal_waiter_wait(waiter, NULL, 0, shoal_now_ns() + PROBE_WAIT_NS, NULL);
    }
    shoal__sys_close(fd);
    if (status < 0)
        return failed(reason, status, what, "");
    return status == SHOAL_WAIT_FD ? 0 : failed(reason, -ETIMEDOUT, what, "the event did not arrive");
}

int shoal_doorbell_probe(enum shoal_doorbell_kind kind, char *reason_text, size_t reason_bytes)
{
    struct reason reason = { .text = reason_text, .bytes = reason_bytes };
    struct shoal_waiter *waiter = NULL;
    struct shoal_doorbell *bell = NULL;
    void *memory = NULL;
    int status = shoal_waiter_create(kind, &waiter);
    if (status < 0)
        return failed(reason, status, "no such kind of doorbell", "");
    status = shoal__sys_mmap(NULL, SHOAL__PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0,
                             &memory);
    if (status < 0) {
        failed(reason, status, "mmap", "");
        goto done;
    }
    status = shoal_doorbell_create(memory, kind, &bell);
    if (status < 0) {
        failed(reason, status, "no bell", "");
        goto done;
    }
    status = kind == SHOAL_DOORBELL_SEMAPHORE ? try_semaphore_bell(waiter, bell, reason)
                                              : try_uring_bell(waiter, bell, reason);
    if (status >= 0)
        status = try_descriptor(waiter, reason);
done:
    shoal_waiter_free(waiter);
    shoal_doorbell_free(bell);
    if (memory != NULL)
        shoal__sys_munmap(memory, SHOAL__PAGE_BYTES);
    return status < 0 ? status : 0;
}

int shoal_doorbell_choose(enum shoal_doorbell_kind *ret_kind)
{
    const char *wanted = getenv("SHOAL_DOORBELL");
    bool any = wanted == NULL || *wanted == '\0' || strcmp(wanted, shoal_doorbell_kind_name(SHOAL_DOORBELL_AUTO)) == 0;
    int status = -EINVAL;
    for (enum shoal_doorbell_kind kind = SHOAL_DOORBELL_URING; kind <= SHOAL_DOORBELL_SEMAPHORE; kind++) {
        if (!any && strcmp(wanted, shoal_doorbell_kind_name(kind)) != 0)
            continue;
        status = shoal_doorbell_probe(kind, NULL, 0);
        if (status >= 0) {
            *ret_kind = kind;
            return 0;
        }
    }
    return status;
}

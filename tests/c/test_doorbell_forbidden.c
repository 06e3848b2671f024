/* SPDX-License-Identifier: BSD-3-Clause */
/* test_doorbell_forbidden.c - choosing a doorbell where something is forbidden. In children: it cannot be undone. */
#include <shoal/doorbell.h>

#include "support.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CANNOT 77 /* a child's exit code: it could not be forbidden here */

/* io_uring_setup fails with `error` from now on, as under the default profile of container runtimes. */
static bool forbid_uring(int error)
{
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ((unsigned)error & SECCOMP_RET_DATA)),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = { .len = sizeof program / sizeof *program, .filter = program };
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

static void run_child(int (*body)(void *), void *argument)
{
    int ended = test_wait(test_fork(body, argument));
    if (ended == CANNOT)
        test_skip("it cannot be forbidden on this machine");
    else
        ASSERT_EQ(ended, 0);
}

/* The number of the first thing that is wrong, or 0. */
static int choose_where_forbidden(void *argument)
{
    int error = *(int *)argument;
    char reason[200] = "";
    enum shoal_doorbell_kind kind = SHOAL_DOORBELL_AUTO;
    if (!forbid_uring(error))
        return CANNOT;
    if (shoal_doorbell_probe(SHOAL_DOORBELL_URING, reason, sizeof reason) != -error)
        return 1;
    if (strstr(reason, "io_uring_setup") == NULL || strstr(reason, "seccomp") == NULL)
        return 2;
    if (shoal_doorbell_probe(SHOAL_DOORBELL_URING_EVENTFD, NULL, 0) != -error)
        return 3;
    unsetenv("SHOAL_DOORBELL");
    if (shoal_doorbell_choose(&kind) != 0 || kind != SHOAL_DOORBELL_SEMAPHORE)
        return 4;
    setenv("SHOAL_DOORBELL", "semaphore", 1);
    if (shoal_doorbell_choose(&kind) != 0 || kind != SHOAL_DOORBELL_SEMAPHORE)
        return 5;
    kind = SHOAL_DOORBELL_AUTO;
    setenv("SHOAL_DOORBELL", "uring", 1);
    if (shoal_doorbell_choose(&kind) != -error || kind != SHOAL_DOORBELL_AUTO)
        return 6;
    char little[4];
    if (shoal_doorbell_probe(SHOAL_DOORBELL_URING, little, sizeof little) != -error || strlen(little) != 3)
        return 7;
    return 0;
}

static void without_io_uring_the_semaphore_is_chosen_and_the_reason_said(void)
{
    run_child(choose_where_forbidden, &(int) { EPERM });
    run_child(choose_where_forbidden, &(int) { ENOSYS });
}

static int sleep_without_locked_memory(void *unused)
{
    (void)unused;
    char reason[200] = "";
    const struct rlimit none = { 0, 0 };
    enum shoal_doorbell_kind kind;
    struct shoal_doorbell *bell;
    struct shoal_waiter *waiter;
    if (setrlimit(RLIMIT_MEMLOCK, &none) != 0 || (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0)))
        return CANNOT;
    unsetenv("SHOAL_DOORBELL");
    int status = shoal_doorbell_probe(SHOAL_DOORBELL_URING, reason, sizeof reason);
    if (status == 0)
        return CANNOT; /* this kernel does not charge rings */
    if (status == -ENOMEM && strstr(reason, "RLIMIT_MEMLOCK") == NULL)
        return 1;
    if (shoal_doorbell_choose(&kind) != 0)
        return 2;
    void *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || shoal_doorbell_create(memory, kind, &bell) < 0 ||
        shoal_waiter_create(kind, &waiter) < 0)
        return 3;
    uint32_t ticket = shoal_doorbell_announce(bell, SHOAL_URGENT);
    if (shoal_waiter_wait(waiter, bell, ticket, shoal_now_ns() + 1000000, NULL) != 0)
        return 4;
    if (shoal_doorbell_ring(bell, SHOAL_URGENT) != 1 ||
        shoal_waiter_wait(waiter, bell, ticket, -1, NULL) != SHOAL_WAIT_RANG)
        return 5;
    return 0;
}

static void without_locked_memory_there_still_is_a_doorbell(void)
{
    run_child(sleep_without_locked_memory, NULL);
}

static int make_bells_without_descriptors(void *unused)
{
    (void)unused;
    const struct rlimit few = { 3, 3 };
    struct shoal_doorbell *bell = NULL;
    if (shoal_doorbell_probe(SHOAL_DOORBELL_URING, NULL, 0) != 0)
        return CANNOT; /* it would fail for another reason first */
    void *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || setrlimit(RLIMIT_NOFILE, &few) != 0)
        return CANNOT;
    if (shoal_doorbell_create(memory, SHOAL_DOORBELL_URING_EVENTFD, &bell) != -EMFILE || bell != NULL)
        return 1;
    if (shoal_doorbell_probe(SHOAL_DOORBELL_URING, NULL, 0) != -EMFILE)
        return 2;
    return shoal_doorbell_create(memory, SHOAL_DOORBELL_SEMAPHORE, &bell) != 0 ? 3 : 0;
}

static void too_few_descriptors_are_an_error(void)
{
    run_child(make_bells_without_descriptors, NULL);
}

static int choose_nonsense(void *unused)
{
    (void)unused;
    enum shoal_doorbell_kind kind = SHOAL_DOORBELL_AUTO;
    const char *const names[] = { "bell", "URING", "uring-", "uring,semaphore" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        setenv("SHOAL_DOORBELL", names[i], 1);
        if (shoal_doorbell_choose(&kind) != -EINVAL || kind != SHOAL_DOORBELL_AUTO)
            return 1;
    }
    const char *const any[] = { "", "auto" };
    for (size_t i = 0; i < sizeof any / sizeof *any; i++) {
        setenv("SHOAL_DOORBELL", any[i], 1);
        if (shoal_doorbell_choose(&kind) != 0 || kind == SHOAL_DOORBELL_AUTO)
            return 2;
    }
    return 0;
}

static void a_name_of_no_kind_is_refused(void)
{
    run_child(choose_nonsense, NULL);
}

static int choose_what_works(void *unused)
{
    (void)unused;
    enum shoal_doorbell_kind kind = SHOAL_DOORBELL_AUTO;
    unsetenv("SHOAL_DOORBELL");
    if (shoal_doorbell_choose(&kind) != 0)
        return 1;
    for (int better = SHOAL_DOORBELL_URING; better < (int)kind; better++)
        if (shoal_doorbell_probe((enum shoal_doorbell_kind)better, NULL, 0) == 0)
            return 2;
    return shoal_doorbell_probe(kind, NULL, 0) == 0 ? 0 : 3;
}

static void the_best_kind_that_works_here_is_chosen(void)
{
    run_child(choose_what_works, NULL);
}

int main(void)
{
    static const struct test tests[] = {
        { "without io_uring the semaphore is chosen and the reason said",
          without_io_uring_the_semaphore_is_chosen_and_the_reason_said },
        { "without locked memory there still is a doorbell", without_locked_memory_there_still_is_a_doorbell },
        { "the best kind that works here is chosen", the_best_kind_that_works_here_is_chosen },
        { "too few descriptors are an error", too_few_descriptors_are_an_error },
        { "a name of no kind is refused", a_name_of_no_kind_is_refused },
    };
    return test_main("doorbell_forbidden", tests, TEST_COUNT(tests));
}

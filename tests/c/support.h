/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * support.h - what all C tests share: main, watchdog, children, counting of what is left over, failing system calls.
 *
 * A test program is a list of tests and `return test_main("region", tests, TEST_COUNT(tests));`. It prints TAP and
 * returns 0 if all passed. Each test has a watchdog: after SHOAL_TEST_TIMEOUT seconds (default 60) a backtrace is
 * printed and the program ends with status 124.
 *
 * Link: support.c, the convenience library, CUnit, and -Wl,--wrap=shoal__sys_<call> for each call in TEST_FAULTS.
 */
#ifndef SHOAL_TESTS_SUPPORT_H
#define SHOAL_TESTS_SUPPORT_H

#include <CUnit/CUnit.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct test {
    const char *promise; /* what is promised, as a sentence */
    void (*body)(void);
};

#define TEST_COUNT(tests) (sizeof(tests) / sizeof((tests)[0]))

int test_main(const char *suite, const struct test *tests, size_t test_count);

/* In a test: it cannot be run here. Counts as skipped; return right afterwards. */
void test_skip(const char *reason);

/* Both sides of a comparison are printed when it fails. */
#define ASSERT_EQ(actual, expected) test_compare(__FILE__, __LINE__, #actual, (int64_t)(actual), (int64_t)(expected))
#define ASSERT_OK(call) test_compare(__FILE__, __LINE__, #call, (int64_t)(call), 0)
/* The same, and leaves the test when it fails (the rest would make no sense). */
#define REQUIRE_EQ(actual, expected)                                                                                   \
    do {                                                                                                               \
        if (!ASSERT_EQ(actual, expected))                                                                              \
            return;                                                                                                    \
    } while (0)
#define REQUIRE_OK(call) REQUIRE_EQ(call, 0)
bool test_compare(const char *file, int line, const char *what, int64_t actual, int64_t expected);

/* ---- children ---- */

/* Fork a child that runs body(arg), ends with its return value (0 .. 255), and has a watchdog of its own. */
pid_t test_fork(int (*body)(void *), void *arg);
/* Wait for a child: its exit code, or minus the signal that ended it. */
int test_wait(pid_t pid);

/* ---- what is left over ---- */

struct test_footprint {
    int fds;
    int mappings; /* shared ones of ours: memfd or POSIX shared memory */
    int names;    /* under /dev/shm, that start with test_name() */
    int children;
};

void test_footprint_take(struct test_footprint *ret_footprint);
/* Asserts that nothing has been added since. */
void test_footprint_same(const struct test_footprint *before);

/* A name for shared memory that no other run uses: "/shoal-test-PID-suffix" (static storage, one at a time). */
const char *test_name(const char *suffix);

/* ---- failing system calls ---- */

#define TEST_FAULTS(X)                                                                                                 \
    X(memfd_create)                                                                                                    \
    X(ftruncate)                                                                                                       \
    X(fallocate)                                                                                                       \
    X(fcntl)                                                                                                           \
    X(mmap)                                                                                                            \
    X(mremap)                                                                                                          \
    X(madvise)                                                                                                         \
    X(pagemap_finds_own)                                                                                               \
    X(shm_open)                                                                                                        \
    X(pipe2)                                                                                                           \
    X(eventfd)                                                                                                         \
    X(pidfd_open)                                                                                                      \
    X(waitid_pidfd)                                                                                                    \
    X(open)                                                                                                            \
    X(geteuid)

#define TEST_FAULT_ENUM(name) TEST_FAULT_##name,
enum test_fault { TEST_FAULTS(TEST_FAULT_ENUM) TEST_FAULT_COUNT };

/* Let `after` calls pass, then make `times` calls (-1: all) return `value` (-errno; for geteuid the user id). */
void test_fault(enum test_fault call, int after, int times, int value);
/* Every call works again; called before each test. */
void test_fault_clear(void);
/* Calls of this kind since the last clear. */
int test_fault_calls(enum test_fault call);

/* Files that shoal__sys_open() finds instead of the real one with the same path; path NULL: remove all. */
void test_replace_file(const char *path, const char *content);

#endif

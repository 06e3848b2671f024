/* SPDX-License-Identifier: BSD-3-Clause */
#include "support.h"

#include "sys.h"

#include <dirent.h>
#include <errno.h>
#include <execinfo.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- main and watchdog ---- */

static const char *skip_reason;
static int number, failed, skipped;

static unsigned timeout_s(void)
{
    const char *text = getenv("SHOAL_TEST_TIMEOUT");
    int value = text ? atoi(text) : 0;
    return value > 0 ? (unsigned)value : 60;
}

static void on_alarm(int signal)
{
    static const char text[] = "\nwatchdog: the test hangs here\n";
    void *frames[64];
    int depth = backtrace(frames, 64);
    (void)signal;
    if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
        _exit(125);
    backtrace_symbols_fd(frames, depth, STDERR_FILENO);
    _exit(124);
}

static void on_test_start(const CU_pTest test, const CU_pSuite suite)
{
    (void)test;
    (void)suite;
    skip_reason = NULL;
    test_fault_clear();
    test_replace_file(NULL, NULL);
    alarm(timeout_s());
}

static void on_test_complete(const CU_pTest test, const CU_pSuite suite, const CU_pFailureRecord failures)
{
    (void)suite;
    alarm(0);
    number++;
    for (CU_pFailureRecord record = failures; record; record = record->pNext)
        printf("# %s:%u: %s\n", record->strFileName, record->uiLineNumber, record->strCondition);
    if (failures)
        failed++;
    else if (skip_reason)
        skipped++;
    printf("%s %d - %s%s%s\n", failures ? "not ok" : "ok", number, test->pName, skip_reason ? " # SKIP " : "",
           skip_reason ? skip_reason : "");
    fflush(stdout);
}

int test_main(const char *suite_name, const struct test *tests, size_t test_count)
{
    void *frame;
    struct sigaction action = { .sa_handler = on_alarm };

    backtrace(&frame, 1); /* loads what it needs now, not in the signal handler */
    sigaction(SIGALRM, &action, NULL);
    if (CU_initialize_registry() != CUE_SUCCESS)
        return 2;
    CU_pSuite suite = CU_add_suite(suite_name, NULL, NULL);
    if (!suite)
        return 2;
    for (size_t i = 0; i < test_count; i++)
        if (!CU_add_test(suite, tests[i].promise, tests[i].body))
            return 2;
    CU_set_test_start_handler(on_test_start);
    CU_set_test_complete_handler(on_test_complete);
    printf("1..%zu\n", test_count);
    fflush(stdout);
    CU_run_all_tests();
    CU_cleanup_registry();
    printf("# %s: %d passed, %d failed, %d skipped\n", suite_name, number - failed - skipped, failed, skipped);
    return failed || (size_t)number != test_count ? 1 : 0;
}

void test_skip(const char *reason)
{
    skip_reason = reason;
}

bool test_compare(const char *file, int line, const char *what, int64_t actual, int64_t expected)
{
    char text[512];
    snprintf(text, sizeof(text), "%s is %lld%s%s%s, expected %lld", what, (long long)actual,
             actual < 0 && actual > -4096 ? " (" : "", actual < 0 && actual > -4096 ? strerror((int)-actual) : "",
             actual < 0 && actual > -4096 ? ")" : "", (long long)expected);
    return CU_assertImplementation(actual == expected, (unsigned)line, text, file, "", CU_FALSE);
}

/* ---- children ---- */

pid_t test_fork(int (*body)(void *), void *arg)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    alarm(timeout_s()); /* not inherited */
    _exit(body(arg) & 0xff);
}

int test_wait(pid_t pid)
{
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -errno - 1000;
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

/* ---- what is left over ---- */

static int count_entries(const char *directory, const char *prefix)
{
    DIR *stream = opendir(directory);
    int count = 0;
    if (!stream)
        return 0;
    for (struct dirent *entry; (entry = readdir(stream));)
        count += entry->d_name[0] != '.' && strncmp(entry->d_name, prefix, strlen(prefix)) == 0;
    closedir(stream);
    return count;
}

static int count_lines(const char *path, const char *needle)
{
    FILE *file = fopen(path, "re");
    char line[1024];
    int count = 0;
    if (!file)
        return 0;
    while (fgets(line, sizeof(line), file))
        count += strstr(line, needle) != NULL;
    fclose(file);
    return count;
}

static int count_children(void)
{
    char path[64];
    char text[4096];
    int count = 0;
    snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    size_t length = fread(text, 1, sizeof(text) - 1, file);
    for (size_t i = 0; i < length; i++)
        count += text[i] == ' ';
    fclose(file);
    return count;
}

void test_footprint_take(struct test_footprint *ret_footprint)
{
    *ret_footprint = (struct test_footprint){
        .fds = count_entries("/proc/self/fd", ""),
        .mappings = count_lines("/proc/self/maps", "/memfd:") + count_lines("/proc/self/maps", "/dev/shm/"),
        .names = count_entries("/dev/shm", test_name("") + 1),
        .children = count_children(),
    };
}

void test_footprint_same(const struct test_footprint *before)
{
    struct test_footprint now;
    test_footprint_take(&now);
    ASSERT_EQ(now.fds, before->fds);
    ASSERT_EQ(now.mappings, before->mappings);
    ASSERT_EQ(now.names, before->names);
    ASSERT_EQ(now.children, before->children);
}

const char *test_name(const char *suffix)
{
    static char name[128];
    static pid_t maker; /* children use the name of the process that forked them */
    if (!maker)
        maker = getpid();
    snprintf(name, sizeof(name), "/shoal-test-%d-%s", (int)maker, suffix);
    return name;
}

/* ---- failing system calls ---- */

static struct {
    int calls, after, times, value;
} faults[TEST_FAULT_COUNT];

void test_fault(enum test_fault call, int after, int times, int value)
{
    faults[call].calls = 0;
    faults[call].after = after;
    faults[call].times = times;
    faults[call].value = value;
}

void test_fault_clear(void)
{
    memset(faults, 0, sizeof(faults));
}

int test_fault_calls(enum test_fault call)
{
    return faults[call].calls;
}

/* True if this call is to fail. */
static bool strikes(enum test_fault call)
{
    int index = faults[call].calls++;
    int into = index - faults[call].after;
    return into >= 0 && (faults[call].times < 0 || into < faults[call].times);
}

#define REPLACED_MAX 16

static char *replaced_paths[REPLACED_MAX];
static char *replaced_contents[REPLACED_MAX];

void test_replace_file(const char *path, const char *content)
{
    for (size_t i = 0; i < REPLACED_MAX; i++) {
        bool drop = !path || (replaced_paths[i] && strcmp(replaced_paths[i], path) == 0);
        if (drop) {
            free(replaced_paths[i]);
            free(replaced_contents[i]);
            replaced_paths[i] = replaced_contents[i] = NULL;
        }
    }
    for (size_t i = 0; path && i < REPLACED_MAX; i++) {
        if (!replaced_paths[i]) {
            replaced_paths[i] = strdup(path);
            replaced_contents[i] = strdup(content);
            return;
        }
    }
    if (path)
        abort(); /* enlarge REPLACED_MAX */
}

static int open_replacement(const char *path)
{
    for (size_t i = 0; i < REPLACED_MAX; i++) {
        if (!replaced_paths[i] || strcmp(replaced_paths[i], path) != 0)
            continue;
        int fd = memfd_create("replacement", MFD_CLOEXEC);
        size_t length = strlen(replaced_contents[i]);
        if (fd < 0 || write(fd, replaced_contents[i], length) != (ssize_t)length)
            abort();
        lseek(fd, 0, SEEK_SET);
        return fd;
    }
    return -1;
}

#define WRAP(name, parameters, arguments)                                                                              \
    int __real_shoal__sys_##name parameters;                                                                           \
    int __wrap_shoal__sys_##name parameters;                                                                           \
    int __wrap_shoal__sys_##name parameters                                                                            \
    {                                                                                                                  \
        return strikes(TEST_FAULT_##name) ? faults[TEST_FAULT_##name].value : __real_shoal__sys_##name arguments;      \
    }

WRAP(memfd_create, (const char *name, unsigned flags), (name, flags))
WRAP(ftruncate, (int fd, uint64_t size), (fd, size))
WRAP(fallocate, (int fd, int mode, uint64_t offset, uint64_t length), (fd, mode, offset, length))
WRAP(fcntl, (int fd, int command, long argument), (fd, command, argument))
WRAP(mmap, (void *address, size_t length, int protection, int flags, int fd, uint64_t offset, void **ret),
     (address, length, protection, flags, fd, offset, ret))
WRAP(madvise, (void *address, size_t length, int advice), (address, length, advice))
WRAP(mremap, (void *address, size_t length, int flags, void *to), (address, length, flags, to))
WRAP(pagemap_finds_own, (int fd, const void *address, uint64_t length), (fd, address, length))
WRAP(shm_open, (const char *name, int flags, mode_t mode), (name, flags, mode))
WRAP(pipe2, (int fds[2], int flags), (fds, flags))
WRAP(eventfd, (unsigned initial, int flags), (initial, flags))
WRAP(pidfd_open, (pid_t pid, unsigned flags), (pid, flags))
WRAP(waitid_pidfd, (int pidfd, siginfo_t *ret_info, struct rusage *ret_usage), (pidfd, ret_info, ret_usage))

uid_t __real_shoal__sys_geteuid(void);
uid_t __wrap_shoal__sys_geteuid(void);
uid_t __wrap_shoal__sys_geteuid(void)
{
    return strikes(TEST_FAULT_geteuid) ? (uid_t)faults[TEST_FAULT_geteuid].value : __real_shoal__sys_geteuid();
}

int __real_shoal__sys_open(const char *path, int flags);
int __wrap_shoal__sys_open(const char *path, int flags);
int __wrap_shoal__sys_open(const char *path, int flags)
{
    int fd = open_replacement(path);
    if (strikes(TEST_FAULT_open)) {
        if (fd >= 0)
            close(fd);
        return faults[TEST_FAULT_open].value;
    }
    return fd >= 0 ? fd : __real_shoal__sys_open(path, flags);
}

/* SPDX-License-Identifier: BSD-3-Clause */
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#define SHOAL__P_PIDFD 3 /* idtype of waitid(2); glibc 2.36 has it as P_PIDFD */

#define NS_PER_S 1000000000ll

static int result(long returned)
{
    return returned < 0 ? -errno : (int)returned;
}

static struct timespec timespec_of(int64_t ns)
{
    return (struct timespec){ .tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S) };
}

/* ---- files and memory ---- */

int shoal__sys_memfd_create(const char *name, unsigned flags)
{
    return result(memfd_create(name, flags));
}

int shoal__sys_ftruncate(int fd, uint64_t size_bytes)
{
    if (size_bytes > INT64_MAX)
        return -EFBIG;
    return result(ftruncate(fd, (off_t)size_bytes));
}

int shoal__sys_fallocate(int fd, int mode, uint64_t offset, uint64_t length_bytes)
{
    if (offset > INT64_MAX || length_bytes > INT64_MAX)
        return -EFBIG;
    return result(fallocate(fd, mode, (off_t)offset, (off_t)length_bytes));
}

int shoal__sys_fstat(int fd, struct stat *ret_stat)
{
    return result(fstat(fd, ret_stat));
}

int shoal__sys_fcntl(int fd, int command, long argument)
{
    return result(fcntl(fd, command, argument));
}

int shoal__sys_mmap(void *address, size_t length_bytes, int protection, int flags, int fd, uint64_t offset,
                    void **ret_address)
{
    if (offset > INT64_MAX)
        return -EOVERFLOW;
    void *mapped = mmap(address, length_bytes, protection, flags, fd, (off_t)offset);
    if (mapped == MAP_FAILED)
        return -errno;
    *ret_address = mapped;
    return 0;
}

int shoal__sys_munmap(void *address, size_t length_bytes)
{
    return result(munmap(address, length_bytes));
}

int shoal__sys_mremap(void *address, size_t length_bytes, int flags, void *to)
{
    return mremap(address, length_bytes, length_bytes, flags, to) == MAP_FAILED ? -errno : 0;
}

int shoal__sys_mprotect(void *address, size_t length_bytes, int protection)
{
    return result(mprotect(address, length_bytes, protection));
}

int shoal__sys_madvise(void *address, size_t length_bytes, int advice)
{
    return result(madvise(address, length_bytes, advice));
}

uint64_t shoal__sys_page_faults(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage); /* cannot fail */
    return (uint64_t)usage.ru_minflt + (uint64_t)usage.ru_majflt;
}

/* From <linux/fs.h>, which before Linux 6.7 does not have it. */
struct pagemap_region {
    uint64_t start, end, categories;
};
struct pagemap_scan {
    uint64_t size, flags, start, end, walk_end, regions, region_count, max_pages;
    uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define PAGEMAP_SCAN_CALL _IOWR('f', 16, struct pagemap_scan)
#define PAGEMAP_FILE (1u << 2)
#define PAGEMAP_PRESENT (1u << 3)
#define PAGEMAP_SWAPPED (1u << 4)

int shoal__sys_pagemap_finds_own(int pagemap_fd, const void *address, uint64_t length_bytes)
{
    struct pagemap_region found;
    struct pagemap_scan scan = {
        .size = sizeof(scan),
        .start = (uintptr_t)address,
        .end = (uintptr_t)address + length_bytes,
        .regions = (uintptr_t)&found,
        .region_count = 1,
        .max_pages = 1,
        .category_inverted = PAGEMAP_FILE,
        .category_mask = PAGEMAP_FILE,
        .category_anyof_mask = PAGEMAP_PRESENT | PAGEMAP_SWAPPED,
        .return_mask = PAGEMAP_PRESENT,
    };
    return result(ioctl(pagemap_fd, PAGEMAP_SCAN_CALL, &scan));
}

int shoal__sys_shm_open(const char *name, int flags, mode_t mode)
{
    return result(shm_open(name, flags, mode));
}

int shoal__sys_shm_unlink(const char *name)
{
    return result(shm_unlink(name));
}

int shoal__sys_open(const char *path, int flags)
{
    return result(open(path, flags, 0));
}

ssize_t shoal__sys_read(int fd, void *buffer, size_t byte_count)
{
    ssize_t got = read(fd, buffer, byte_count);
    return got < 0 ? -errno : got;
}

ssize_t shoal__sys_pread(int fd, void *buffer, size_t byte_count, uint64_t offset)
{
    if (offset > INT64_MAX)
        return -EOVERFLOW;
    ssize_t got = pread(fd, buffer, byte_count, (off_t)offset);
    return got < 0 ? -errno : got;
}

ssize_t shoal__sys_write(int fd, const void *buffer, size_t byte_count)
{
    ssize_t put = write(fd, buffer, byte_count);
    return put < 0 ? -errno : put;
}

int shoal__sys_close(int fd)
{
    return result(close(fd));
}

int shoal__sys_flock(int fd, int operation)
{
    return result(flock(fd, operation));
}

long shoal__sys_page_size(void)
{
    return sysconf(_SC_PAGESIZE);
}

/* ---- waiting ---- */

int shoal__sys_pipe2(int ret_fds[2], int flags)
{
    return result(pipe2(ret_fds, flags));
}

int shoal__sys_eventfd(unsigned initial, int flags)
{
    return result(eventfd(initial, flags));
}

int shoal__sys_poll(struct pollfd *fds, size_t fd_count, int timeout_ms)
{
    return result(poll(fds, (nfds_t)fd_count, timeout_ms));
}

int shoal__sys_ppoll(struct pollfd *fds, size_t fd_count, int64_t deadline_ns, const sigset_t *mask)
{
    struct timespec timeout;
    if (deadline_ns >= 0) {
        int64_t left_ns = deadline_ns - shoal__sys_monotonic_ns();
        timeout = timespec_of(left_ns > 0 ? left_ns : 0);
    }
    return result(ppoll(fds, (nfds_t)fd_count, deadline_ns >= 0 ? &timeout : NULL, mask));
}

int shoal__sys_futex_wait(shoal__a32 *word, uint32_t expected, int64_t deadline_ns)
{
    struct timespec deadline = timespec_of(deadline_ns >= 0 ? deadline_ns : 0);
    return result(syscall(SYS_futex, word, FUTEX_WAIT_BITSET, expected, deadline_ns >= 0 ? &deadline : NULL, NULL,
                          FUTEX_BITSET_MATCH_ANY));
}

int shoal__sys_futex_wake(shoal__a32 *word, int max_waiters)
{
    return result(syscall(SYS_futex, word, FUTEX_WAKE, max_waiters, NULL, NULL, 0));
}

int shoal__sys_sem_init(sem_t *semaphore, unsigned value)
{
    return result(sem_init(semaphore, 1, value));
}

int shoal__sys_sem_post(sem_t *semaphore)
{
    return result(sem_post(semaphore));
}

int shoal__sys_sem_trywait(sem_t *semaphore)
{
    return result(sem_trywait(semaphore));
}

int shoal__sys_sem_clockwait(sem_t *semaphore, int64_t deadline_ns)
{
    if (deadline_ns < 0)
        return result(sem_wait(semaphore));
#ifdef HAVE_SEM_CLOCKWAIT
    struct timespec deadline = timespec_of(deadline_ns);
    return result(sem_clockwait(semaphore, CLOCK_MONOTONIC, &deadline));
#else
    /* By the wall clock: if that is set, the sleep is shorter or longer; who sleeps looks at the time anew. */
    struct timespec wall;
    clock_gettime(CLOCK_REALTIME, &wall);
    int64_t wall_ns = (int64_t)wall.tv_sec * NS_PER_S + wall.tv_nsec;
    struct timespec deadline = timespec_of(wall_ns + deadline_ns - shoal__sys_monotonic_ns());
    return result(sem_timedwait(semaphore, &deadline));
#endif
}

int shoal__sys_sem_destroy(sem_t *semaphore)
{
    return result(sem_destroy(semaphore));
}

/* ---- processes ---- */

int shoal__sys_pidfd_open(pid_t pid, unsigned flags)
{
    return result(syscall(SYS_pidfd_open, pid, flags));
}

int shoal__sys_pidfd_send_signal(int pidfd, int signal)
{
    return result(syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0));
}

/* glibc's waitid() has no place for what the process used; the system call has. */
int shoal__sys_waitid_pidfd(int pidfd, siginfo_t *ret_info, struct rusage *ret_usage)
{
    siginfo_t info = { 0 };
    struct rusage usage = { 0 };
    int status = result(syscall(SYS_waitid, SHOAL__P_PIDFD, pidfd, &info, WEXITED | WNOHANG, &usage));
    if (status >= 0) {
        *ret_info = info;
        *ret_usage = usage;
    }
    return status;
}

int shoal__sys_kill(pid_t pid, int signal)
{
    return result(kill(pid, signal));
}

pid_t shoal__sys_getpid(void)
{
    return getpid();
}

pid_t shoal__sys_getppid(void)
{
    return getppid();
}

pid_t shoal__sys_gettid(void)
{
    return (pid_t)syscall(SYS_gettid);
}

uid_t shoal__sys_geteuid(void)
{
    return geteuid();
}

/* ---- clock and CPU ---- */

int64_t shoal__sys_monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
}

void shoal__sys_yield(void)
{
    sched_yield(); /* cannot fail on Linux */
}

int shoal__sys_getcpu(void)
{
    return result(sched_getcpu());
}

int shoal__sys_usable_cpus(void)
{
    cpu_set_t set;
    int status = result(sched_getaffinity(0, sizeof set, &set));
    return status < 0 ? status : CPU_COUNT(&set);
}

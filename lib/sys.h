/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * sys.h - every system call of the library, and nothing else.
 *
 * Each function does one call and returns what it returned (>= 0), or -errno. None retries, none allocates, none keeps
 * state: what to do about -EINTR is the caller's to know. One place, so that a test can make any of them fail: it links
 * the library with `-Wl,--wrap=shoal__sys_<name>` (tests/c/support.h).
 *
 * Times are CLOCK_MONOTONIC nanoseconds; a deadline of -1 means none.
 */
#ifndef SHOAL_LIB_SYS_H
#define SHOAL_LIB_SYS_H

#include "atomic.h"

#include <poll.h>
#include <semaphore.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/types.h>

/* ---- files and memory ---- */
int shoal__sys_memfd_create(const char *name, unsigned flags);
int shoal__sys_ftruncate(int fd, uint64_t size_bytes);
int shoal__sys_fallocate(int fd, int mode, uint64_t offset, uint64_t length_bytes);
int shoal__sys_fstat(int fd, struct stat *ret_stat);
int shoal__sys_fcntl(int fd, int command, long argument);
int shoal__sys_mmap(void *address, size_t length_bytes, int protection, int flags, int fd, uint64_t offset,
                    void **ret_address);
int shoal__sys_munmap(void *address, size_t length_bytes);
int shoal__sys_mremap(void *address, size_t length_bytes, int flags, void *to);
int shoal__sys_mprotect(void *address, size_t length_bytes, int protection);
int shoal__sys_madvise(void *address, size_t length_bytes, int advice);
/* Page faults of this process so far, in all its threads, those on behalf of system calls included. */
uint64_t shoal__sys_page_faults(void);
/* Is there in this range, whole pages of a private mapping of a file, a page that is not the file's? 1, 0, or -errno:
 * -ENOTTY before Linux 6.7. pagemap_fd: /proc/self/pagemap. */
int shoal__sys_pagemap_finds_own(int pagemap_fd, const void *address, uint64_t length_bytes);
int shoal__sys_shm_open(const char *name, int flags, mode_t mode);
int shoal__sys_shm_unlink(const char *name);
int shoal__sys_open(const char *path, int flags);
ssize_t shoal__sys_read(int fd, void *buffer, size_t byte_count);
ssize_t shoal__sys_pread(int fd, void *buffer, size_t byte_count, uint64_t offset);
ssize_t shoal__sys_write(int fd, const void *buffer, size_t byte_count);
int shoal__sys_close(int fd);
int shoal__sys_flock(int fd, int operation);
long shoal__sys_page_size(void);

/* ---- waiting ---- */
int shoal__sys_pipe2(int ret_fds[2], int flags);
int shoal__sys_eventfd(unsigned initial, int flags);
int shoal__sys_poll(struct pollfd *fds, size_t fd_count, int timeout_ms);
int shoal__sys_ppoll(struct pollfd *fds, size_t fd_count, int64_t deadline_ns, const sigset_t *mask);
/* -EAGAIN: *word was not `expected`. -ETIMEDOUT, -EINTR. Shared between processes. */
int shoal__sys_futex_wait(shoal__a32 *word, uint32_t expected, int64_t deadline_ns);
/* How many were woken. */
int shoal__sys_futex_wake(shoal__a32 *word, int max_waiters);
int shoal__sys_sem_init(sem_t *semaphore, unsigned value);
int shoal__sys_sem_post(sem_t *semaphore);
int shoal__sys_sem_trywait(sem_t *semaphore);
int shoal__sys_sem_clockwait(sem_t *semaphore, int64_t deadline_ns);
int shoal__sys_sem_destroy(sem_t *semaphore);

/* ---- processes ---- */
int shoal__sys_pidfd_open(pid_t pid, unsigned flags);
int shoal__sys_pidfd_send_signal(int pidfd, int signal);
/* WEXITED | WNOHANG. ret_info->si_pid is 0 if the child lives. */
int shoal__sys_waitid_pidfd(int pidfd, siginfo_t *ret_info, struct rusage *ret_usage);
int shoal__sys_kill(pid_t pid, int signal);
pid_t shoal__sys_getpid(void);
pid_t shoal__sys_getppid(void);
pid_t shoal__sys_gettid(void);
uid_t shoal__sys_geteuid(void);

/* ---- clock and CPU ---- */
int64_t shoal__sys_monotonic_ns(void);
void shoal__sys_yield(void);
int shoal__sys_getcpu(void);
/* On how many CPUs this thread may run. */
int shoal__sys_usable_cpus(void);

#endif

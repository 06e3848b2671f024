/* SPDX-License-Identifier: BSD-3-Clause */
/* execinfo.h - musl has none: there the watchdog of the C tests (tests/c/support.c) names no place. */
#ifndef SHOAL_TESTS_MUSL_EXECINFO_H
#define SHOAL_TESTS_MUSL_EXECINFO_H

static inline int backtrace(void **frames, int count)
{
    (void)frames;
    (void)count;
    return 0;
}

static inline void backtrace_symbols_fd(void *const *frames, int count, int fd)
{
    (void)frames;
    (void)count;
    (void)fd;
}

#endif

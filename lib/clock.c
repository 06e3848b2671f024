/* SPDX-License-Identifier: BSD-3-Clause */
/* clock.c - what time it is, and on which CPU we run. */
#include <shoal/doorbell.h>

#include "sys.h"

#include <fcntl.h>
#include <string.h>

#if defined(__has_include)
#if __has_include(<sys/rseq.h>) && (defined(__x86_64__) || defined(__aarch64__))
#include <sys/rseq.h>
#define HAVE_RSEQ_AREA 1
#endif
#endif

int64_t shoal_now_ns(void)
{
    return shoal__sys_monotonic_ns();
}

bool shoal_ticks_steady(void)
{
#if defined(__x86_64__) || defined(__aarch64__)
    char name[32] = "";
    int fd = shoal__sys_open("/sys/devices/system/clocksource/clocksource0/current_clocksource", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t bytes = shoal__sys_read(fd, name, sizeof name - 1);
    shoal__sys_close(fd);
    return bytes > 0 && (strcmp(name, "tsc\n") == 0 || strcmp(name, "arch_sys_counter\n") == 0);
#else
    return false;
#endif
}

uint64_t shoal_ticks(bool steady)
{
#if defined(__x86_64__)
    if (steady)
        return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    uint64_t ticks;
    if (steady) {
        __asm__ volatile("mrs %0, cntvct_el0" : "=r"(ticks));
        return ticks;
    }
#endif
    (void)steady;
    return (uint64_t)shoal_now_ns();
}

#ifdef HAVE_RSEQ_AREA
static const char *thread_pointer(void)
{
#if defined(__x86_64__)
    const char *pointer; /* clang 14 has no __builtin_thread_pointer for this target */
    __asm__("movq %%fs:0, %0" : "=r"(pointer));
    return pointer;
#else
    return __builtin_thread_pointer();
#endif
}
#endif

unsigned shoal_cpu(void)
{
#ifdef HAVE_RSEQ_AREA
    /* glibc registered the area for each thread (2.35); the kernel keeps cpu_id up to date in it. */
    if (__rseq_size > 0) {
        const struct rseq *area = (const void *)(thread_pointer() + __rseq_offset);
        uint32_t cpu = *(const volatile uint32_t *)&area->cpu_id;
        if (cpu <= INT32_MAX) /* negative: not registered */
            return cpu;
    }
#endif
    int cpu = shoal__sys_getcpu();
    return cpu >= 0 ? (unsigned)cpu : 0;
}

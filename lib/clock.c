/* SPDX-License-Identifier: BSD-3-Clause */
/* clock.c - what time it is, and on which CPU we run. */
#include <shoal/doorbell.h>

#include "sys.h"

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

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * atomic.h - the only place that includes <stdatomic.h>. The memory order is in the operation's name.
 *
 * Each release and the acquire that it pairs with carry the same "SYNC: <label>" comment where they stand.
 */
#ifndef SHOAL_LIB_ATOMIC_H
#define SHOAL_LIB_ATOMIC_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

typedef _Atomic uint32_t shoal__a32;
typedef _Atomic uint64_t shoal__a64;

_Static_assert(sizeof(shoal__a32) == 4 && sizeof(shoal__a64) == 8, "atomics must have the size of their value");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "64-bit atomics must be lock-free: they are shared between processes");

#define shoal__load_relaxed(p) atomic_load_explicit((p), memory_order_relaxed)
#define shoal__load_acquire(p) atomic_load_explicit((p), memory_order_acquire)
#define shoal__load_seqcst(p) atomic_load_explicit((p), memory_order_seq_cst)
#define shoal__store_relaxed(p, v) atomic_store_explicit((p), (v), memory_order_relaxed)
#define shoal__store_release(p, v) atomic_store_explicit((p), (v), memory_order_release)
#define shoal__store_seqcst(p, v) atomic_store_explicit((p), (v), memory_order_seq_cst)
#define shoal__exchange_acqrel(p, v) atomic_exchange_explicit((p), (v), memory_order_acq_rel)
#define shoal__add_relaxed(p, v) atomic_fetch_add_explicit((p), (v), memory_order_relaxed)
#define shoal__add_seqcst(p, v) atomic_fetch_add_explicit((p), (v), memory_order_seq_cst)
#define shoal__or_seqcst(p, v) atomic_fetch_or_explicit((p), (v), memory_order_seq_cst)
#define shoal__and_seqcst(p, v) atomic_fetch_and_explicit((p), (v), memory_order_seq_cst)
#define shoal__cas_acqrel(p, expected, desired)                                                                       \
    atomic_compare_exchange_strong_explicit((p), (expected), (desired), memory_order_acq_rel, memory_order_acquire)
#define shoal__cas_seqcst(p, expected, desired)                                                                       \
    atomic_compare_exchange_strong_explicit((p), (expected), (desired), memory_order_seq_cst, memory_order_seq_cst)
#define shoal__fence_seqcst() atomic_thread_fence(memory_order_seq_cst)
#define shoal__fence_release() atomic_thread_fence(memory_order_release)
#define shoal__fence_acquire() atomic_thread_fence(memory_order_acquire)

static inline void shoal__cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield" ::: "memory");
#endif
}

#endif

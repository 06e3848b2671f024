/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * uring_ops.h - what the running kernel may know and the header of liburing 2.3 does not.
 *
 * Numbers of the kernel's ABI (linux/io_uring.h, linux/futex.h), which never change. Whether the kernel has them is
 * found out by doing it (doorbell_probe.c), never from a version.
 */
#ifndef SHOAL_LIB_URING_OPS_H
#define SHOAL_LIB_URING_OPS_H

#include "atomic.h"

#include <liburing.h>
#include <string.h>

enum {
    SHOAL__IORING_OP_WAITID = 50,     /* Linux 6.7 */
    SHOAL__IORING_OP_FUTEX_WAIT = 51, /* Linux 6.7 */
    SHOAL__IORING_OP_FUTEX_WAKE = 52, /* Linux 6.7 */
    SHOAL__IORING_OP_FUTEX_WAITV = 53 /* Linux 6.7 */
};

#define SHOAL__FUTEX2_SIZE_U32 0x02u /* without the private bit (0x80): shared between processes */
#define SHOAL__FUTEX_ALL_BITS 0xffffffffu

/* Completes with 0 when `word` is woken, with -EAGAIN if it is not `expected` when the kernel looks. */
static inline void shoal__uring_prep_futex_wait(struct io_uring_sqe *sqe, shoal__a32 *word, uint32_t expected)
{
    memset(sqe, 0, sizeof *sqe);
    sqe->opcode = SHOAL__IORING_OP_FUTEX_WAIT;
    sqe->fd = (int)SHOAL__FUTEX2_SIZE_U32;
    sqe->addr = (uint64_t)(uintptr_t)word;
    sqe->off = expected;                /* addr2: value */
    sqe->addr3 = SHOAL__FUTEX_ALL_BITS; /* mask */
}

#endif

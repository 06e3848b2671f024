/* SPDX-License-Identifier: BSD-3-Clause */
/* peer.h - telling one process from a later one with the same pid, where no pidfd was handed over (channel.c). */
#ifndef SHOAL_LIB_PEER_H
#define SHOAL_LIB_PEER_H

#include <shoal/peer.h>

#include <stdint.h>

/* When the process was started, in clock ticks since boot (field 22 of /proc/PID/stat). -ESRCH if there is none. */
int shoal__peer_start_time(pid_t pid, uint64_t *ret_ticks);

/* Open the process with this pid if it is the one that was started then. -ESRCH if that one is gone. */
int shoal__peer_open_started(pid_t pid, uint64_t start_ticks, struct shoal_peer *ret_peer);

/* A number for the pid namespace of this process: pids of two processes can be compared only if it is the same. */
int shoal__peer_namespace(uint64_t *ret_namespace);

#endif

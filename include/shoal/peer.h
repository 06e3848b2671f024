/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * peer.h - is the other process still there?
 *
 * A pid can be reused; a pidfd cannot. It becomes readable when the process is dead, and that is the proof that it
 * does not write any more. A *lifeline* is the other direction: a pipe whose write end only the parent keeps; the
 * kernel sends SIGKILL to the child when the last write end closes (O_ASYNC with F_SETSIG), even if the child is busy
 * in user code. PR_SET_PDEATHSIG is not used: it fires when the *thread* that forked ends.
 */
#ifndef SHOAL_PEER_H
#define SHOAL_PEER_H

#include <shoal/export.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

SHOAL_BEGIN_DECLS

struct shoal_peer {
    pid_t pid;
    int pidfd; /* readable when the process is dead; -1 when closed */
};

struct shoal_peer_exit {
    bool known;    /* false: somebody else reaped it, only the death is certain */
    int signal;    /* that killed it, or 0 */
    int exit_code; /* if it ended by itself */
    uint64_t peak_bytes; /* the most memory that it had resident, its children's excluded; 0: not known */
};

/* Take hold of a child that has not been reaped, or of any process that is known to live. -ESRCH, -EMFILE. */
SHOAL_API int shoal_peer_open(pid_t pid, struct shoal_peer *ret_peer);
SHOAL_API void shoal_peer_close(struct shoal_peer *peer);

/* 1 alive, 0 dead (proof), -errno. */
SHOAL_API int shoal_peer_alive(const struct shoal_peer *peer);

/* Send a signal through the pidfd: never hits a reused pid. -ESRCH if dead. */
SHOAL_API int shoal_peer_signal(const struct shoal_peer *peer, int signal);

/* If dead, reap it (a child of ours) and say how it ended: 1 and *ret_exit; 0 if it lives. Works if others reaped. */
SHOAL_API int shoal_peer_reap(const struct shoal_peer *peer, struct shoal_peer_exit *ret_exit);

/* Wait until it is dead or deadline_ns (CLOCK_MONOTONIC; -1 none): 1 dead, 0 deadline, -EINTR. */
SHOAL_API int shoal_peer_wait(const struct shoal_peer *peer, int64_t deadline_ns);

struct shoal_lifeline {
    int read_fd;  /* children arm this */
    int write_fd; /* the parent's alone; every child closes it first */
};

SHOAL_API int shoal_lifeline_create(struct shoal_lifeline *ret_line);
/*
 * In the child: close the write end, ask for SIGKILL at the parent's death; kills at once if it is dead already. One
 * line serves any number of children. Needs /proc (-ENOENT without it). The line dies with its last write end: a
 * child that neither arms nor closes it keeps the others alive.
 */
SHOAL_API int shoal_lifeline_arm(struct shoal_lifeline *line);
SHOAL_API void shoal_lifeline_close(struct shoal_lifeline *line);

SHOAL_END_DECLS
#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * peer.c - watching another process through its pidfd.
 *
 * The problem: a pid says nothing once the process is dead and another has its number; and the user's own code may reap
 * our children (waitpid(-1), SIGCHLD ignored), so that wait says "no such child" about one that we watch.
 *
 * The protocol: the pidfd is the truth. It is readable exactly when the process is dead. waitid(P_PIDFD) only adds
 * how it ended, if nobody else has asked before.
 *
 * A thread group leader that ended while its other threads run is not dead, for the kernel and for us.
 */
#include "peer.h"

#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

int shoal_peer_open(pid_t pid, struct shoal_peer *ret_peer)
{
    int pidfd = shoal__sys_pidfd_open(pid, 0); /* close-on-exec by itself */
    if (pidfd < 0)
        return pidfd;
    *ret_peer = (struct shoal_peer){ .pid = pid, .pidfd = pidfd };
    return 0;
}

void shoal_peer_close(struct shoal_peer *peer)
{
    if (peer->pidfd >= 0)
        shoal__sys_close(peer->pidfd);
    peer->pidfd = -1;
}

int shoal_peer_wait(const struct shoal_peer *peer, int64_t deadline_ns)
{
    struct pollfd fd = { .fd = peer->pidfd, .events = POLLIN };
    if (peer->pidfd < 0)
        return -EBADF; /* poll would ignore it and wait for ever */
    int status = shoal__sys_ppoll(&fd, 1, deadline_ns, NULL);
    if (status <= 0)
        return status;
    return (fd.revents & POLLNVAL) ? -EBADF : 1;
}

int shoal_peer_alive(const struct shoal_peer *peer)
{
    int dead = shoal_peer_wait(peer, 0);
    return dead < 0 ? dead : !dead;
}

int shoal_peer_signal(const struct shoal_peer *peer, int signal)
{
    return shoal__sys_pidfd_send_signal(peer->pidfd, signal);
}

int shoal_peer_reap(const struct shoal_peer *peer, struct shoal_peer_exit *ret_exit)
{
    siginfo_t info;
    struct rusage usage;
    int status = shoal__sys_waitid_pidfd(peer->pidfd, &info, &usage);
    if (status == -ECHILD) {
        int alive = shoal_peer_alive(peer);
        if (alive != 0)
            return alive < 0 ? alive : 0;
        *ret_exit = (struct shoal_peer_exit){ .known = false };
        return 1;
    }
    if (status < 0)
        return status;
    if (info.si_pid == 0)
        return 0;
    bool exited = info.si_code == CLD_EXITED;
    *ret_exit = (struct shoal_peer_exit){
        .known = true,
        .signal = exited ? 0 : info.si_status,
        .exit_code = exited ? info.si_status : 0,
        .peak_bytes = usage.ru_maxrss > 0 ? (uint64_t)usage.ru_maxrss * 1024 : 0,
    };
    return 1;
}

/* ---- processes that are known by number only ---- */

int shoal__peer_start_time(pid_t pid, uint64_t *ret_ticks)
{
    char path[32], text[1024];
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    int fd = shoal__sys_open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fd == -ENOENT ? -ESRCH : fd;
    ssize_t got = shoal__sys_read(fd, text, sizeof(text) - 1);
    shoal__sys_close(fd);
    if (got < 0)
        return (int)got;
    text[got] = '\0';
    /* "pid (name) S ...": the name may hold blanks and brackets; fields are counted after its last bracket. */
    char *at = strrchr(text, ')');
    for (int field = 2; at && field < 22; field++)
        at = strchr(at + 1, ' ');
    unsigned long long ticks;
    if (!at || sscanf(at, "%llu", &ticks) != 1)
        return -EPROTO;
    *ret_ticks = ticks;
    return 0;
}

int shoal__peer_open_started(pid_t pid, uint64_t start_ticks, struct shoal_peer *ret_peer)
{
    struct shoal_peer peer;
    uint64_t now_ticks;
    if (pid <= 0)
        return -ESRCH;
    int status = shoal_peer_open(pid, &peer);
    if (status < 0)
        return status;
    /* Asked after the pidfd was taken: if the time matches and the process lives, the pidfd is that process. */
    status = shoal__peer_start_time(pid, &now_ticks);
    if (status == 0 && (now_ticks != start_ticks || shoal_peer_alive(&peer) != 1))
        status = -ESRCH;
    if (status < 0) {
        shoal_peer_close(&peer);
        return status;
    }
    *ret_peer = peer;
    return 0;
}

int shoal__peer_namespace(uint64_t *ret_namespace)
{
    struct stat info;
    int fd = shoal__sys_open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fd;
    int status = shoal__sys_fstat(fd, &info);
    shoal__sys_close(fd);
    if (status == 0)
        *ret_namespace = (uint64_t)info.st_ino;
    return status;
}

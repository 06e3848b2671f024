/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lifeline.c - a child that dies with its parent, whatever it is busy with.
 *
 * The problem: PR_SET_PDEATHSIG fires when the *thread* that forked ends, so it kills the workers of a pool that was
 * made in a thread; and a child that computes does not look at anything.
 *
 * The protocol: a pipe. The parent keeps the write end and never writes; children close theirs. When the parent is
 * gone, its last descriptor of the write end is closed by the kernel, the read end hangs up, and the kernel sends the
 * signal of F_SETSIG, here SIGKILL, to whoever asked with O_ASYNC. After asking, the child looks whether the parent
 * is gone already.
 *
 * Owner, signal and O_ASYNC belong to the open pipe end, which all who inherited the descriptor share: the last child
 * to ask would be the only one to be killed (seen). So each child first opens the end anew through /proc/self/fd,
 * which gives it an open end of its own, of the same pipe; one pipe serves any number of children.
 *
 * What it does not do: a process that inherited the write end and lives on keeps the line alive (a program the parent
 * executes does not: the ends are close-on-exec; a child that the user's code forks must be given up on purpose).
 */
#include <shoal/peer.h>

#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

int shoal_lifeline_create(struct shoal_lifeline *ret_line)
{
    int fds[2];
    int status = shoal__sys_pipe2(fds, O_CLOEXEC);
    if (status < 0)
        return status;
    *ret_line = (struct shoal_lifeline){ .read_fd = fds[0], .write_fd = fds[1] };
    return 0;
}

/* From here on this open end, and this process alone, gets SIGKILL when the last write end is closed. */
static int ask_for_kill(int fd)
{
    int flags = shoal__sys_fcntl(fd, F_GETFL, 0);
    if (flags < 0)
        return flags;
    int status = shoal__sys_fcntl(fd, F_SETOWN, shoal__sys_getpid());
    if (status == 0)
        status = shoal__sys_fcntl(fd, F_SETSIG, SIGKILL);
    if (status == 0)
        status = shoal__sys_fcntl(fd, F_SETFL, flags | O_ASYNC);
    return status;
}

static bool hung_up(int fd)
{
    struct pollfd end = { .fd = fd, .events = POLLIN };
    return shoal__sys_poll(&end, 1, 0) == 1 && (end.revents & POLLHUP) != 0;
}

int shoal_lifeline_arm(struct shoal_lifeline *line)
{
    char path[32];
    if (line->read_fd < 0)
        return -EBADF;
    if (line->write_fd >= 0)
        shoal__sys_close(line->write_fd);
    line->write_fd = -1;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", line->read_fd);
    int own = shoal__sys_open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (own < 0)
        return own;
    int status = ask_for_kill(own);
    if (status < 0) {
        shoal__sys_close(own);
        return status;
    }
    shoal__sys_close(line->read_fd);
    line->read_fd = own;
    if (hung_up(own)) /* it died before we asked */
        shoal__sys_kill(shoal__sys_getpid(), SIGKILL);
    return 0;
}

void shoal_lifeline_close(struct shoal_lifeline *line)
{
    if (line->read_fd >= 0)
        shoal__sys_close(line->read_fd);
    if (line->write_fd >= 0)
        shoal__sys_close(line->write_fd);
    line->read_fd = line->write_fd = -1;
}

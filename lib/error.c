/* SPDX-License-Identifier: BSD-3-Clause */
/* error.c - the version, and errors as sentences. */
#include <shoal/shoal.h>

#include <errno.h>
#include <stddef.h>

const char *shoal_version(void)
{
    return SHOAL_VERSION;
}

/* What the errors mean here, which is often narrower than strerror(3) says. */
static const struct {
    int error;
    const char *sentence;
} sentences[] = {
    { 0, "no error" },
    { EPERM, "not permitted: another user owns it, others may write it, or the system forbids the call" },
    { EACCES, "permission denied" },
    { ENOENT, "there is nothing under this name or offset" },
    { ESRCH, "the process does not exist any more" },
    { ECHILD, "not a child of this process" },
    { EINTR, "interrupted by a signal" },
    { EIO, "input/output error" },
    { EBADF, "bad file descriptor" },
    { EAGAIN, "not now: nothing there, no room, or its maker has not finished it" },
    { ENOMEM, "not enough memory on this machine or in its memory cgroup" },
    { EFAULT, "memory could not be provided" },
    { EBUSY, "somebody else has it" },
    { EEXIST, "it exists already" },
    { EINVAL, "an argument is out of range" },
    { ENFILE, "the system has no file descriptor left" },
    { EMFILE, "this process has no file descriptor left (RLIMIT_NOFILE)" },
    { EFBIG, "too large for a file" },
    { ENOSPC, "no room in the shared memory" },
    { EPIPE, "the other side has closed or is dead" },
    { ERANGE, "result out of range" },
    { ENAMETOOLONG, "the name is too long" },
    { ENOSYS, "this kernel does not have the system call" },
    { ENOTSUP, "not supported for this kind" },
    { EPROTO, "not a Shoal structure, or one of another version, layout or size" },
    { EBADMSG, "damaged: the shared memory holds something that nobody can have written in good order" },
    { EMSGSIZE, "larger than the ring can ever hold" },
    { EOVERFLOW, "number too large" },
    { ETIMEDOUT, "the deadline has passed" },
    { ESTALE, "it has been taken away meanwhile" },
    { EUCLEAN, "the structure is not consistent" },
    { EDQUOT, "the memory budget is used up; freeing blocks helps" },
    { E2BIG, "larger than the whole memory budget" },
    { ENODATA, "the system does not say" },
    { EOWNERDEAD, "its owner is dead" },
    { ENOLCK, "no lock available" },
};

const char *shoal_strerror(int error)
{
    int negative = error < 0 ? error : -error; /* this way round INT_MIN does not overflow */
    for (size_t i = 0; i < sizeof(sentences) / sizeof(sentences[0]); i++)
        if (-sentences[i].error == negative)
            return sentences[i].sentence;
    return "unknown error";
}

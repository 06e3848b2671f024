/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lost.h - what is told of a worker that is gone: see lost.c.
 */
#ifndef SHOAL_EXT_LOST_H
#define SHOAL_EXT_LOST_H

#include "engine.h"

#define LOST_NO_SLOT UINT32_MAX

/* The WorkerLost for what is next in `slot`: new reference. Runs Python code, none of the user's; NULL: no memory. */
PyObject *lost_error(struct engine *engine, unsigned index, pid_t pid, const struct shoal_peer_exit *end,
                     const char *what, uint32_t slot);

/* The task ring is about to forget the stream of a call that a worker has started. */
void lost_keep(struct engine *engine, uint32_t slot);

#endif

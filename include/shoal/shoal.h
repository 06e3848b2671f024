/* SPDX-License-Identifier: BSD-3-Clause */
/* shoal.h - everything. Each header can be read, and included, alone. */
#ifndef SHOAL_SHOAL_H
#define SHOAL_SHOAL_H

#include <shoal/arena.h>
#include <shoal/channel.h>
#include <shoal/doorbell.h>
#include <shoal/peer.h>
#include <shoal/region.h>
#include <shoal/ring.h>
#include <shoal/shadow.h>
#include <shoal/taskqueue.h>

#define SHOAL_VERSION_MAJOR 0
#define SHOAL_VERSION_MINOR 1
#define SHOAL_VERSION_PATCH 0
#define SHOAL_VERSION "0.1.0"

SHOAL_BEGIN_DECLS
/* Version of the library at run time, as in SHOAL_VERSION. */
SHOAL_API const char *shoal_version(void);
/* A sentence for an error (-errno) from any function of this library. Never NULL, static storage, thread-safe. */
SHOAL_API const char *shoal_strerror(int error);
SHOAL_END_DECLS
#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * killpoint.h - named places at which a test lets a process die. Not installed; nothing unless the build was configured
 * with --enable-kill-points.
 *
 *     SHOAL_KILL_AT     the name of a place, e.g. "claim: swapped"
 *     SHOAL_KILL_WHEN   at which arrival there, counted over all processes: 1, 2, ...
 *     SHOAL_KILL_LOG    a file that gets a byte for each arrival: the count, and what the test sees
 *     SHOAL_KILL_SPARE  the pid of the parent, whose arrivals at places that workers share with it do not count
 *
 * A place in a worker: SHOAL_KILL_POINT(name) kills the process that arrives. A place in the parent: it asks
 * shoal__kill_point_hit, and kills a worker, or interrupts itself.
 */
#ifndef SHOAL_KILLPOINT_H
#define SHOAL_KILLPOINT_H

#ifdef SHOAL_KILL_POINTS

#include <signal.h>
#include <stdbool.h>

/* Is this the arrival that was asked for? `in_parent`: a place that only the parent passes. */
bool shoal__kill_point_hit(const char *name, bool in_parent);

#define SHOAL_KILL_POINT(name) ((void)(shoal__kill_point_hit(name, false) && raise(SIGKILL)))
#define SHOAL_PARENT_POINT(name, action) ((void)(shoal__kill_point_hit(name, true) && (action)))

#else

#define SHOAL_KILL_POINT(name) ((void)0)
#define SHOAL_PARENT_POINT(name, action) ((void)0)

#endif
#endif

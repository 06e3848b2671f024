/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * killpoint.c - see <shoal/killpoint.h>. Everything is read from the environment at each arrival: a pool sees what its
 * test has set just before, without a variable that forked processes would have to share.
 */
#include <shoal/killpoint.h>

#ifdef SHOAL_KILL_POINTS

#include "sys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool shoal__kill_point_hit(const char *name, bool in_parent)
{
    const char *wanted = getenv("SHOAL_KILL_AT"), *when = getenv("SHOAL_KILL_WHEN");
    const char *log = getenv("SHOAL_KILL_LOG"), *spare = getenv("SHOAL_KILL_SPARE");
    if (wanted == NULL || when == NULL || log == NULL || spare == NULL || strcmp(wanted, name) != 0 ||
        (atol(spare) == (long)shoal__sys_getpid()) != in_parent)
        return false;
    FILE *file = fopen(log, "a");
    if (file == NULL)
        return false;
    fputc('.', file);
    fflush(file); /* one write; where it ended is how many there were, whoever else writes */
    long count = ftell(file);
    fclose(file);
    return count == atol(when);
}

#else

typedef int shoal__killpoint_is_not_compiled_in;

#endif

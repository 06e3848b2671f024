/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * intervals.h - a set of ranges that is asked which of them contains another.
 *
 * A process may have tens of thousands of Blocks, and each buffer that it sends or receives is looked up, so a list
 * will not do. The ranges may overlap and be equal. It is a treap (a search tree by start that is a heap by random
 * numbers), in which each node also knows the greatest end below it: adding, removing and asking take logarithmic
 * time, and none of them takes memory.
 */
#ifndef SHOAL_EXT_INTERVALS_H
#define SHOAL_EXT_INTERVALS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct interval {
    struct interval *left, *right;
    uint64_t start, end;
    uint64_t greatest_end; /* of this node and those below it */
    uint32_t priority;
};

/* start and end are set by the caller. */
void interval_add(struct interval **root, struct interval *node);
void interval_remove(struct interval **root, struct interval *node);
/* One that contains [start, end), or NULL. */
struct interval *interval_containing(struct interval *root, uint64_t start, uint64_t end);
/* Calls visit for all that begin at `start`. */
void interval_each_at(struct interval *root, uint64_t start, void (*visit)(struct interval *node, void *arg),
                      void *arg);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * deep_stack.h - a stack for saving that is as deep as the object.
 *
 * The problem: saving is recursive, a thread's stack is small, and the interpreter's recursion limit is about 1000. The
 * data may be nested 100,000 levels deep, and user code (__reduce__, persistent_id, ...) may run at any of them, which
 * needs a stack of its own that is worth that name.
 *
 * How: a dump uses a little of the thread's own stack (OWN_STACK_SIZE). Where saving gets below that, it goes on upon a
 * segment: memory that was mapped for it, of which the kernel gives only those pages that are touched. When the segment
 * is used up, the next one follows. The switch is a call with another stack pointer; returning is returning. Each
 * segment has a part that saving leaves alone, for the user code that it calls: that may recurse to the interpreter's
 * own limits and finds at least as much stack as a thread has. Below is a guard page.
 *
 *        thread's stack            segment                 segment
 *       |     ...     |        |  saving      |        |  saving      |
 *       | dumps()     |   .--->|  saving      |   .--->|  user code   |
 *       | saving      |   |    |    ...       |   |    |   ...        |
 *       | saving   ---+---'    |  saving   ---+---'    |              |
 *       |-- limit ----|        |-- limit -----|        |-- limit -----|
 *       |   ...       |        | for user code|        | for user code|
 *
 * A dump that user code starts on the same thread goes on where the outer one has its limit: nested dumps do not add up
 * on the thread's own stack either. The interpreter's counters are not touched: depth of data is not depth of calls;
 * user code has at each level the whole recursion limit less the Python frames that are really there.
 *
 * The bound is memory: all segments of a dump may take 1 GiB, or a fourth of the memory that is free if that is less.
 * That is for 2 to 6 million levels (150 to 530 bytes for one). Beyond that, and where no memory is to be had, it is
 * PicklingError. So a __reduce__ that makes new objects for ever has an end.
 *
 * Cost: one comparison for each object with parts. A dump that stays above its limit maps nothing.
 *
 * Not covered: code that copies stacks (greenlet) must not switch away from within user code called at such a depth.
 */
#ifndef SHOAL_PICKLE_DEEP_STACK_H
#define SHOAL_PICKLE_DEEP_STACK_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

struct shoal_segment;
struct shoal_pickle_state;

/* The stack of one dump under way. All of it is touched by its own thread only, `next` and the list under the GIL. */
struct shoal_deep_stack {
    uintptr_t limit;               /* a frame below this address must not go on saving here */
    struct shoal_segment *current; /* the one in use, or NULL: the thread's own stack, or the outer dump's segment */
    struct shoal_segment *spare;   /* left by what has returned, for the next time */
    size_t used;                   /* of segments, by this dump and those it runs in: bytes */
    size_t peak;                   /* the most that was used */
    unsigned long thread;
    struct shoal_deep_stack *next; /* in state->deep_stacks: dumps under way, the latest first */
};

/* Around each dump. `enter` cannot fail. */
void shoal__deep_enter(struct shoal_deep_stack *stack, struct shoal_pickle_state *state);
void shoal__deep_leave(struct shoal_deep_stack *stack, struct shoal_pickle_state *state);

static inline int shoal__deep_is_reached(const struct shoal_deep_stack *stack)
{
    return (uintptr_t)__builtin_frame_address(0) < stack->limit;
}

/* work(context), on the next segment; what it returns, or -1 with PicklingError if there is no memory for one. */
int shoal__deep_call(struct shoal_deep_stack *stack, struct shoal_pickle_state *state, int (*work)(void *context),
                     void *context);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
#include "deep_stack.h"

#include "state.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ADDRESS_SANITIZER 1
#endif
#endif
#ifdef ADDRESS_SANITIZER
#include <sanitizer/common_interface_defs.h>
#endif

/* To try what other processors get: touch this file, make -C build CPPFLAGS=-DSHOAL_PORTABLE_STACK_SWITCH pool/_ext.la,
 * then tests/py/test_pickle_deep.py. */
#if !defined(__x86_64__) || defined(SHOAL_PORTABLE_STACK_SWITCH)
#define PORTABLE_SWITCH 1
#include <ucontext.h>
#endif

#define MIB ((size_t)1 << 20)
#define OWN_STACK_SIZE (64 * (size_t)1024) /* of the thread's own stack, for one dump and all within it */
#define SAVING_SIZE (48 * MIB)             /* of a segment, for saving */
#define USER_SIZE_MIN (16 * MIB)           /* of a segment, for user code that is called from its lower end */
#define USER_SIZE_MAX (256 * MIB)
/* What all segments together may take for saving. 2 to 6 million levels, each of which has objects, memo entries and a
 * part of the stream besides; a fourth of what is free where that is less. */
#define BUDGET_MAX (1024 * MIB)
#define BUDGET_SHARE 4

/* Lies at the upper end of its own mapping. */
struct shoal_segment {
    uint8_t *mapping; /* guard page, room for user code, room for saving, this */
    size_t size;
    uintptr_t limit;
    struct shoal_segment *below; /* the one that was in use before */
};

/* ---- memory ---- */

static int complain(struct shoal_pickle_state *state, const char *why, size_t bytes)
{
    PyErr_Format(state->shared.pickling_error,
                 "cannot pickle objects that are nested so deeply: %s (%zu MiB of stack are in use). If the nesting "
                 "has no end, as with a __reduce__ that makes a new object each time, that is the error; otherwise "
                 "pickle the parts one by one",
                 why, bytes / MIB);
    return -1;
}

/* User code gets what a thread's stack would be: whoever has raised that limit and the interpreter's counts on it. */
static size_t user_size(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_STACK, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur > USER_SIZE_MAX)
        return USER_SIZE_MAX;
    return limit.rlim_cur < USER_SIZE_MIN ? USER_SIZE_MIN : (size_t)limit.rlim_cur / MIB * MIB;
}

static struct shoal_segment *segment_new(void)
{
    size_t reserved = user_size(), size = reserved + SAVING_SIZE;
    uint8_t *mapping = mmap(NULL, size, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (mapping == MAP_FAILED)
        return NULL;
    if (mprotect(mapping, (size_t)sysconf(_SC_PAGESIZE), PROT_NONE) < 0) {
        munmap(mapping, size);
        return NULL;
    }
    madvise(mapping, size, MADV_NOHUGEPAGE); /* a few kilobytes are no reason for 2 MiB */
    struct shoal_segment *segment = (struct shoal_segment *)(mapping + size) - 1;
    *segment = (struct shoal_segment){.mapping = mapping, .size = size, .limit = (uintptr_t)mapping + reserved};
    return segment;
}

static void segment_free(struct shoal_segment *segment)
{
    if (segment)
        munmap(segment->mapping, segment->size);
}

static size_t budget(struct shoal_pickle_state *state, size_t used)
{
    uint64_t free_bytes;
    if (!state->memory_available || state->memory_available(&free_bytes) < 0)
        return BUDGET_MAX;
    size_t share = ((size_t)free_bytes + used) / BUDGET_SHARE;
    return share < BUDGET_MAX ? share : BUDGET_MAX;
}

/* A segment for what comes next: 0, or -1 with PicklingError. */
static int segment_take(struct shoal_deep_stack *stack, struct shoal_pickle_state *state)
{
    struct shoal_segment *next = stack->spare;
    if (!next) {
        if (stack->used > 0 && stack->used + SAVING_SIZE > budget(state, stack->used))
            return complain(state, "the limit is 1 GiB of stack, or a fourth of the free memory", stack->used);
        next = segment_new();
        if (!next)
            return complain(state, "there is no memory for more stack", stack->used);
    }
    stack->spare = NULL;
    next->below = stack->current;
    stack->current = next;
    stack->used += SAVING_SIZE;
    stack->peak = stack->used > stack->peak ? stack->used : stack->peak;
    return 0;
}

static void segment_give_back(struct shoal_deep_stack *stack)
{
    struct shoal_segment *segment = stack->current;
    stack->current = segment->below;
    stack->used -= SAVING_SIZE;
    segment_free(stack->spare); /* one is enough to go down and up at the same place */
    stack->spare = segment;
}

/* ---- the switch ---- */

struct call {
    int (*work)(void *context);
    void *context;
    int result;
    struct shoal_segment *segment;
#ifdef ADDRESS_SANITIZER
    const void *from_bottom;
    size_t from_size;
#endif
#ifdef PORTABLE_SWITCH
    ucontext_t here;
#endif
};

/* The first function on the new stack. */
static void arrive(void *argument)
{
    struct call *call = argument;
#ifdef ADDRESS_SANITIZER
    __sanitizer_finish_switch_fiber(NULL, &call->from_bottom, &call->from_size);
#endif
    call->result = call->work(call->context);
#ifdef ADDRESS_SANITIZER
    __sanitizer_start_switch_fiber(NULL, call->from_bottom, call->from_size);
#endif
}

#ifdef PORTABLE_SWITCH
static void arrive_from_halves(unsigned high, unsigned low)
{
    arrive((void *)((uintptr_t)high << 16 << 16 | low)); /* makecontext passes ints only */
}

static void switch_to(struct call *call)
{
    ucontext_t there;
    getcontext(&there);
    there.uc_stack.ss_sp = call->segment->mapping;
    there.uc_stack.ss_size = (size_t)((uint8_t *)call->segment - call->segment->mapping);
    there.uc_link = &call->here;
    uintptr_t argument = (uintptr_t)call;
    makecontext(&there, (void (*)(void))(void (*)(unsigned, unsigned))arrive_from_halves, 2,
                (unsigned)(argument >> 16 >> 16), (unsigned)argument);
    swapcontext(&call->here, &there);
}
#else
/* An ordinary call, but that the stack pointer is another one meanwhile. It has a frame pointer, so that debuggers and
 * profilers find the way back. */
static void switch_to(struct call *call)
{
    uintptr_t top = (uintptr_t)call->segment & ~(uintptr_t)63;
    void *argument = call;
    __asm__ volatile("movq %%rsp, %%rbx\n\t"
                     "movq %[top], %%rsp\n\t"
                     "callq *%[arrive]\n\t"
                     "movq %%rbx, %%rsp"
                     : "+D"(argument)
                     : [top] "r"(top), [arrive] "r"(arrive), "r"(__builtin_frame_address(0))
                     : "rax", "rbx", "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "xmm0", "xmm1", "xmm2", "xmm3",
                       "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14",
                       "xmm15", "memory", "cc");
}
#endif

int shoal__deep_call(struct shoal_deep_stack *stack, struct shoal_pickle_state *state, int (*work)(void *context),
                     void *context)
{
    if (segment_take(stack, state) < 0)
        return -1;
    struct call call = {.work = work, .context = context, .segment = stack->current};
    uintptr_t limit = stack->limit;
    stack->limit = call.segment->limit;
#ifdef ADDRESS_SANITIZER
    void *fake_stack;
    __sanitizer_start_switch_fiber(&fake_stack, call.segment->mapping,
                                   (size_t)((uint8_t *)call.segment - call.segment->mapping));
#endif
    switch_to(&call);
#ifdef ADDRESS_SANITIZER
    __sanitizer_finish_switch_fiber(fake_stack, NULL, NULL);
#endif
    stack->limit = limit;
    segment_give_back(stack);
    if (call.result < 0 && !stack->current && PyErr_ExceptionMatches(PyExc_MemoryError)) {
        PyErr_Clear(); /* whether the stack or what hangs on each level came first to the end is all the same */
        return complain(state, "there is no memory for more", stack->peak);
    }
    return call.result;
}

/* ---- dumps under way ---- */

void shoal__deep_enter(struct shoal_deep_stack *stack, struct shoal_pickle_state *state)
{
    unsigned long thread = PyThread_get_thread_ident();
    struct shoal_deep_stack *outer = state->deep_stacks;
    while (outer && outer->thread != thread)
        outer = outer->next;
    *stack = (struct shoal_deep_stack){
        .limit = outer ? outer->limit : (uintptr_t)__builtin_frame_address(0) - OWN_STACK_SIZE,
        .used = outer ? outer->used : 0,
        .thread = thread,
        .next = state->deep_stacks,
    };
    state->deep_stacks = stack;
}

void shoal__deep_leave(struct shoal_deep_stack *stack, struct shoal_pickle_state *state)
{
    struct shoal_deep_stack **link = &state->deep_stacks;
    while (*link != stack)
        link = &(*link)->next;
    *link = stack->next;
    segment_free(stack->spare);
    stack->spare = NULL;
}

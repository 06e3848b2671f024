/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * inbox.h - results for one event loop.
 *
 * The problem: who awaits a result sleeps in the loop's epoll, not in wait.c. A thread that waits on its behalf would
 * cost a switch, and a fight for the GIL, for each result.
 *
 * The protocol: an inbox has an eventfd that the loop watches while something of its is under way. It is written
 *   - by the kernel, through the ring of a waiter of the inbox's own, when a worker rings the pool's bell. So an inbox
 *     *attends* as a thread does that sleeps in wait.c: it announces on the bell, looks again, and leaves the loop to
 *     sleep. When the loop wakes, collect() drains for everybody, in the loop's thread;
 *   - by any thread that drains, for the first outcome that it puts into the inbox since the last collect().
 * One at a time sleeps on the bell. A thread that does (someone_drains) collects for the inboxes, too, and tells one of
 * them to attend when it leaves (inboxes_take_over); a later announcement by anybody ends the attending of an inbox.
 * While one attends, the progress thread sleeps on no bell, but looks by now and then (progress.c): for a loop that is
 * busy with something else, and for a ringer that was killed before it had rung.
 *
 * Where the bell has no descriptor (kind semaphore), or no ring can be had, the inbox is *bridged*: the progress thread
 * sleeps on the bell and drains, as it does for callbacks. That is one thread switch for each time that it wakes.
 *
 * Costs: nothing for those who have no inbox but a comparison for each outcome. With one: no system call for each task;
 * for each turn of the loop one to arm and two to collect.
 */
#ifndef SHOAL_EXT_INBOX_H
#define SHOAL_EXT_INBOX_H

#include "owner.h"

struct item;

enum inbox_name { INBOX_ITEM, INBOX_DONE, INBOX_END, INBOX_RESULT, INBOX_EXCEPTION, INBOX_NAMES };

struct inbox {
    PyObject_HEAD
    struct engine *engine; /* strong */
    struct inbox *next;    /* of the engine; not counted */
    PyObject *futures;     /* makes a future: futures(loop=loop), with an attribute _item */
    PyObject *loop;        /* strong, while it watches our descriptor */
    int fd;                /* eventfd; -1: closed */
    int polled_fd;         /* what the loop watches: that, or an epoll of that and the bell's own descriptor */
    struct shoal_waiter *waiter; /* NULL: none yet */
    bool bridged, closed;
    bool notified;   /* the descriptor was written by us since the last collect() */
    bool collecting; /* by the loop's thread, which looks into the inbox afterwards */
    bool resting;    /* a rest() is on its way */
    uint64_t announcement; /* ours on the bell, while it is the last one */
    uint32_t outstanding;  /* bound, and not completed */
    uint32_t submitted;
    struct item *first, **end; /* arrived, each with a reference of ours */
    PyObject *names[INBOX_NAMES];
    PyObject *keyword; /* ("loop",) */
};

void inbox_arrived(struct item *item);          /* done: for its inbox. No user code */
bool inbox_attends(const struct engine *engine); /* some inbox sleeps on the bell */
void inboxes_take_over(struct engine *engine);  /* nobody drains any more */
void inboxes_worker_died(struct engine *engine); /* and with it perhaps a ring that nobody has heard */
void inboxes_engine_ended(struct engine *engine);
void inboxes_forget_parents(struct engine *engine); /* in a forked child */

/* Between inbox.c and inbox_type.c. */
int inbox_open_descriptors(struct inbox *self); /* 0, or -1 with an exception */
void inbox_close_descriptors(struct inbox *self);
int inbox_watch(struct inbox *self, PyObject *loop); /* have the loop do so; 0, or -1 with an exception */
void inbox_attend(struct inbox *self);          /* until something arrives, the loop may sleep */
void inbox_stop_attending(struct inbox *self);
bool inbox_attends_itself(const struct inbox *self);
void inbox_drop_waiter(struct inbox *self);
void inbox_count(struct inbox *self, int change); /* of what is outstanding */
void inbox_unbind(struct item *item);           /* nobody awaits it any more */
void inbox_deliver(struct inbox *self);         /* some of what has arrived, to its futures. User code */
PyObject *inbox_collect(struct inbox *self, PyObject *unused);
PyObject *inbox_rest(struct inbox *self, PyObject *unused);
PyObject *inbox_close(struct inbox *self, PyObject *unused);

int inbox_item_traverse(struct item *item, visitproc visit, void *arg);
void inbox_item_clear(struct item *item);

extern PyType_Spec inbox_spec;

#endif

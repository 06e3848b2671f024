/* SPDX-License-Identifier: BSD-3-Clause */
/* inbox.c - results for one event loop: see inbox.h. All of it is guarded by the GIL. */
#include "inbox.h"

#include <errno.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <shoal/killpoint.h>

#include "engine.h"
#include "item.h"

#define AT_ONCE_MAX 1000u /* outcomes in one turn of the loop: others have their turns, too */

static void notify(struct inbox *self)
{
    if (self->notified || self->fd < 0)
        return;
    uint64_t one = 1;
    ssize_t ignored = write(self->fd, &one, sizeof one);
    (void)ignored; /* a full counter is a wake as well */
    self->notified = true;
}

static void clear_notice(struct inbox *self)
{
    uint64_t count;
    ssize_t ignored = self->fd < 0 ? 0 : read(self->fd, &count, sizeof count);
    struct epoll_event events[2];
    if (self->polled_fd != self->fd) /* the bell is edge-triggered: looked at is dealt with */
        ignored = epoll_wait(self->polled_fd, events, 2, 0);
    (void)ignored;
    self->notified = false;
}

void inbox_close_descriptors(struct inbox *self)
{
    if (self->polled_fd >= 0 && self->polled_fd != self->fd)
        close(self->polled_fd);
    if (self->fd >= 0)
        close(self->fd);
    self->fd = self->polled_fd = -1;
}

int inbox_open_descriptors(struct inbox *self)
{
    int bell_fd = shoal_doorbell_fd(shoal_taskqueue_owner_bell(self->engine->queue));
    self->fd = self->polled_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (self->fd >= 0 && bell_fd >= 0) {
        struct epoll_event bell = {.events = EPOLLIN | EPOLLET}, ours = {.events = EPOLLIN};
        self->polled_fd = epoll_create1(EPOLL_CLOEXEC);
        if (self->polled_fd >= 0 && epoll_ctl(self->polled_fd, EPOLL_CTL_ADD, bell_fd, &bell) == 0 &&
            epoll_ctl(self->polled_fd, EPOLL_CTL_ADD, self->fd, &ours) == 0)
            return 0;
    } else if (self->fd >= 0) {
        return 0;
    }
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

void inbox_count(struct inbox *self, int change)
{
    self->outstanding += (uint32_t)change;
    if (self->bridged)
        self->engine->bridged += (uint32_t)change;
}

void inbox_arrived(struct item *item)
{
    struct inbox *self = item->inbox;
    if (self->closed) { /* nobody awaits it */
        inbox_count(self, -1);
        engine_discard_later(self->engine, item->future);
        engine_discard_later(self->engine, (PyObject *)self);
        item->future = NULL;
        item->inbox = NULL;
        return;
    }
    Py_INCREF(item);
    item->next_arrived = NULL;
    *self->end = item;
    self->end = &item->next_arrived;
    if (!self->collecting)
        notify(self);
}

/* ---- attending ---- */

#ifdef SHOAL_KILL_POINTS
/* The one whose results we look at next: there is one, or it is being replaced. */
static bool kill_working(struct engine *engine)
{
    for (unsigned i = 0; i < engine->worker_count; i++) {
        if (engine->workers[i].peer.pidfd >= 0)
            return shoal_peer_signal(&engine->workers[i].peer, SIGKILL) >= 0;
    }
    return false;
}
#endif

bool inbox_attends_itself(const struct inbox *self)
{
    return self->engine->attending == self && self->announcement == self->engine->announcements;
}

bool inbox_attends(const struct engine *engine)
{
    return engine->attending != NULL && inbox_attends_itself(engine->attending);
}

void inbox_drop_waiter(struct inbox *self)
{
    if (self->waiter == NULL)
        return;
    if (self->engine->epoch == self->engine->state->fork_epoch)
        shoal_waiter_free(self->waiter);
    else
        shoal_waiter_abandon(self->waiter);
    self->waiter = NULL;
}

static void bridge(struct inbox *self)
{
    inbox_drop_waiter(self);
    if (!self->bridged)
        self->engine->bridged += self->outstanding;
    self->bridged = true;
    progress_attend(self->engine);
}

static int make_waiter(struct inbox *self)
{
    if (self->engine->doorbell == SHOAL_DOORBELL_SEMAPHORE)
        return -ENOTSUP;
    int error = shoal_waiter_create(self->engine->doorbell, &self->waiter);
    if (error >= 0)
        error = shoal_waiter_notify(self->waiter, self->fd);
    if (error < 0)
        inbox_drop_waiter(self);
    return error;
}

void inbox_stop_attending(struct inbox *self)
{
    struct engine *engine = self->engine;
    if (engine->attending != self)
        return;
    if (inbox_attends_itself(self) && !engine->dead)
        shoal_doorbell_retract(shoal_taskqueue_owner_bell(engine->queue));
    engine->attending = NULL;
}

void inbox_attend(struct inbox *self)
{
    struct engine *engine = self->engine;
    if (engine->dead || engine->someone_drains || (engine->attending != self && inbox_attends(engine)))
        return;
    bool polls_bell = self->polled_fd != self->fd;
    if (self->bridged || (!polls_bell && self->waiter == NULL && make_waiter(self) < 0)) {
        bridge(self);
        return;
    }
    progress_yield(engine);
    struct shoal_doorbell *bell = shoal_taskqueue_owner_bell(engine->queue);
    self->announcement = ++engine->announcements;
    engine->attending = self;
    uint32_t ticket = shoal_doorbell_announce(bell, SHOAL_URGENT);
    SHOAL_PARENT_POINT("inbox: announced", kill_working(engine));
    int happened = SHOAL_WAIT_RANG;
    if (!engine_has_arrivals(engine))
        happened = polls_bell ? 0 : shoal_waiter_arm(self->waiter, bell, ticket);
    SHOAL_PARENT_POINT("inbox: armed", kill_working(engine));
    if (happened > 0) {
        notify(self);
    } else if (happened < 0) { /* the loop has moved to another thread, or the kernel refuses */
        inbox_stop_attending(self);
        inbox_drop_waiter(self);
        if (happened != -EEXIST)
            bridge(self);
        notify(self);
    }
}

void inboxes_take_over(struct engine *engine)
{
    if (inbox_attends(engine) || engine->someone_drains)
        return;
    for (struct inbox *inbox = engine->inboxes; inbox != NULL; inbox = inbox->next) {
        if (inbox->outstanding > 0 && !inbox->bridged && !inbox->closed) {
            notify(inbox);
            return;
        }
    }
}

void inboxes_worker_died(struct engine *engine)
{
    if (inbox_attends(engine))
        notify(engine->attending);
}

void inboxes_engine_ended(struct engine *engine)
{
    engine->attending = NULL;
    for (struct inbox *inbox = engine->inboxes; inbox != NULL; inbox = inbox->next) {
        inbox_drop_waiter(inbox);
        if (inbox->loop == NULL) /* else the loop has still to stop watching: rest() */
            inbox_close_descriptors(inbox);
        else if (inbox->outstanding == 0)
            notify(inbox);
    }
}

void inboxes_forget_parents(struct engine *engine)
{
    engine->attending = NULL;
    for (struct inbox *inbox = engine->inboxes; inbox != NULL; inbox = inbox->next) {
        inbox_drop_waiter(inbox);
        inbox_close_descriptors(inbox);
        inbox->closed = true;
    }
}

/* ---- what has arrived ---- */

static struct item *take_first(struct inbox *self)
{
    struct item *item = self->first;
    if (item == NULL)
        return NULL;
    self->first = item->next_arrived;
    if (self->first == NULL)
        self->end = &self->first;
    return item;
}

void inbox_unbind(struct item *item)
{
    struct inbox *inbox = item->inbox;
    PyObject *future = item->future;
    item->inbox = NULL;
    item->future = NULL;
    if (inbox == NULL)
        return;
    inbox_count(inbox, -1);
    if (future != NULL && PyObject_SetAttr(future, inbox->names[INBOX_ITEM], Py_None) < 0)
        PyErr_Clear();
    Py_XDECREF(future);
    Py_DECREF((PyObject *)inbox);
}

/* Not what the future would do: TypeError for StopIteration. Steals error. */
static PyObject *fit_for_a_future(PyObject *error)
{
    if (error == NULL || !PyErr_GivenExceptionMatches(error, PyExc_StopIteration))
        return error;
    PyObject *stand_in = PyObject_CallFunction(PyExc_RuntimeError, "s", "the task raised StopIteration");
    if (stand_in != NULL)
        PyException_SetCause(stand_in, error);
    else
        Py_DECREF(error);
    return stand_in;
}

/* New reference, or NULL with an exception: the future was at fault. */
static PyObject *complete(struct inbox *self, struct item *item, PyObject *future)
{
    PyObject *done = PyObject_CallMethodNoArgs(future, self->names[INBOX_DONE]);
    if (done != Py_False)
        return done; /* cancelled meanwhile */
    Py_DECREF(done);
    if (item->cancelled)
        return PyObject_CallMethodNoArgs(future, self->names[INBOX_END]);
    enum inbox_name how = INBOX_RESULT;
    PyObject *value = item_value(item);
    if (value == NULL) {
        how = INBOX_EXCEPTION;
        value = fit_for_a_future(owner_fetch_exception());
    }
    PyObject *result = value == NULL ? NULL : PyObject_CallMethodOneArg(future, self->names[how], value);
    Py_XDECREF(value);
    return result;
}

void inbox_deliver(struct inbox *self)
{
    struct item *item;
    for (unsigned taken = 0; taken < AT_ONCE_MAX && (item = take_first(self)) != NULL; taken++) {
        PyObject *future = Py_XNewRef(item->future);
        inbox_unbind(item);
        PyObject *result = future == NULL || self->closed ? Py_NewRef(Py_None) : complete(self, item, future);
        if (result == NULL)
            report_unraisable(future);
        Py_XDECREF(result);
        Py_XDECREF(future);
        Py_DECREF(item);
    }
}

PyObject *inbox_collect(struct inbox *self, PyObject *Py_UNUSED(ignored))
{
    struct engine *engine = self->engine;
    if (self->closed || engine->epoch != engine->state->fork_epoch)
        Py_RETURN_NONE;
    Py_INCREF(self);
    inbox_stop_attending(self);
    clear_notice(self); /* first: what happens from now on makes it readable again */
    SHOAL_PARENT_POINT("inbox: notice cleared", kill_working(engine));
    if (self->waiter != NULL && shoal_waiter_collect(self->waiter) < 0)
        inbox_drop_waiter(self);
    if (!engine->dead) {
        self->collecting = true;
        engine_take_all(engine);
        self->collecting = false;
    }
    SHOAL_PARENT_POINT("inbox: collected", kill_working(engine));
    inbox_deliver(self);
    if (self->first != NULL)
        notify(self);
    else if (self->outstanding > 0)
        inbox_attend(self);
    PyObject *result = NULL;
    if (self->outstanding == 0 && !self->resting && self->loop != NULL) {
        PyObject *rest = PyObject_GetAttrString((PyObject *)self, "rest");
        result = rest == NULL ? NULL : PyObject_CallMethod(self->loop, "call_soon", "O", rest);
        self->resting = result != NULL;
        Py_XDECREF(rest);
    } else {
        result = Py_NewRef(Py_None);
    }
    Py_DECREF(self);
    return result;
}

/* ---- the loop's descriptor ---- */

int inbox_watch(struct inbox *self, PyObject *loop)
{
    PyObject *collect = PyObject_GetAttrString((PyObject *)self, "collect");
    PyObject *added = collect == NULL ? NULL : PyObject_CallMethod(loop, "add_reader", "iO", self->polled_fd, collect);
    Py_XDECREF(collect);
    if (added == NULL)
        return -1;
    Py_DECREF(added);
    self->loop = Py_NewRef(loop);
    return 0;
}

static PyObject *unwatch(struct inbox *self)
{
    PyObject *loop = self->loop;
    if (loop == NULL)
        Py_RETURN_NONE;
    self->loop = NULL;
    PyObject *closed = PyObject_CallMethod(loop, "is_closed", NULL);
    PyObject *result = Py_XNewRef(closed);
    if (closed == Py_False)
        Py_SETREF(result, PyObject_CallMethod(loop, "remove_reader", "i", self->polled_fd));
    Py_XDECREF(closed);
    Py_DECREF(loop);
    return result;
}

PyObject *inbox_rest(struct inbox *self, PyObject *Py_UNUSED(ignored))
{
    self->resting = false;
    if (self->outstanding > 0 || self->closed)
        Py_RETURN_NONE;
    if (!self->engine->dead) {
        inbox_stop_attending(self);
        inboxes_take_over(self->engine);
    }
    PyObject *result = unwatch(self);
    if (self->engine->dead)
        inbox_close_descriptors(self);
    return result;
}

PyObject *inbox_close(struct inbox *self, PyObject *Py_UNUSED(ignored))
{
    if (self->closed)
        Py_RETURN_NONE;
    self->closed = true;
    bool ours = self->engine->epoch == self->engine->state->fork_epoch;
    if (ours)
        inbox_stop_attending(self);
    inbox_drop_waiter(self);
    PyObject *result = unwatch(self);
    inbox_close_descriptors(self);
    if (ours)
        inboxes_take_over(self->engine);
    while (self->first != NULL)
        inbox_deliver(self);
    return result;
}

/* SPDX-License-Identifier: BSD-3-Clause */
#include "support.h"

#include "peer.h"
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static int sleep_for_ever(void *arg)
{
    (void)arg;
    while (pause() < 0) /* always */
        ;
    return 0;
}

static int end_with(void *arg)
{
    return *(int *)arg;
}

static void a_peer_is_alive_until_it_is_dead(void)
{
    struct test_footprint before;
    struct shoal_peer peer;
    struct shoal_peer_exit end = { .exit_code = 77 };
    test_footprint_take(&before);
    REQUIRE_OK(shoal_peer_open(test_fork(sleep_for_ever, NULL), &peer));
    ASSERT_EQ(fcntl(peer.pidfd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    ASSERT_EQ(shoal_peer_alive(&peer), 1);
    ASSERT_EQ(shoal_peer_reap(&peer, &end), 0);
    ASSERT_EQ(end.exit_code, 77);
    ASSERT_EQ(shoal_peer_wait(&peer, 1), 0);
    ASSERT_OK(shoal_peer_signal(&peer, SIGTERM));
    ASSERT_EQ(shoal_peer_wait(&peer, -1), 1);
    ASSERT_EQ(shoal_peer_alive(&peer), 0);
    ASSERT_EQ(shoal_peer_reap(&peer, &end), 1);
    ASSERT_EQ(end.known, true);
    ASSERT_EQ(end.signal, SIGTERM);
    ASSERT_EQ(end.exit_code, 0);
    ASSERT_EQ(end.peak_bytes > 0, true);
    ASSERT_EQ(shoal_peer_signal(&peer, SIGTERM), -ESRCH);
    shoal_peer_close(&peer);
    shoal_peer_close(&peer);
    ASSERT_EQ(shoal_peer_alive(&peer), -EBADF);
    test_footprint_same(&before);
}

static void the_exit_code_is_reported(void)
{
    int code = 42;
    struct shoal_peer peer;
    struct shoal_peer_exit end;
    REQUIRE_OK(shoal_peer_open(test_fork(end_with, &code), &peer));
    ASSERT_EQ(shoal_peer_wait(&peer, -1), 1);
    ASSERT_EQ(shoal_peer_reap(&peer, &end), 1);
    ASSERT_EQ(end.known, true);
    ASSERT_EQ(end.exit_code, 42);
    ASSERT_EQ(end.signal, 0);
    shoal_peer_close(&peer);
}

static void death_is_certain_when_somebody_else_reaped(void)
{
    int code = 3;
    struct shoal_peer peer;
    struct shoal_peer_exit end = { .known = true };
    pid_t pid = test_fork(end_with, &code);
    REQUIRE_OK(shoal_peer_open(pid, &peer));
    ASSERT_EQ(test_wait(pid), 3); /* as user code with waitpid(-1) does */
    ASSERT_EQ(shoal_peer_reap(&peer, &end), 1);
    ASSERT_EQ(end.known, false);
    ASSERT_EQ(shoal_peer_alive(&peer), 0);
    shoal_peer_close(&peer);
}

static void a_live_process_that_is_no_child_is_not_reaped(void)
{
    struct shoal_peer peer;
    struct shoal_peer_exit end;
    REQUIRE_OK(shoal_peer_open(getppid(), &peer));
    ASSERT_EQ(shoal_peer_reap(&peer, &end), 0);
    ASSERT_EQ(shoal_peer_alive(&peer), 1);
    shoal_peer_close(&peer);
}

static void errors_of_the_system_are_passed_on(void)
{
    struct shoal_peer peer = { .pid = 1, .pidfd = 77 };
    struct shoal_lifeline line = { .read_fd = 77 };
    int code = 0;
    pid_t pid = test_fork(end_with, &code);
    test_wait(pid);
    ASSERT_EQ(shoal_peer_open(pid, &peer), -ESRCH);
    test_fault(TEST_FAULT_pidfd_open, 0, 1, -EMFILE);
    ASSERT_EQ(shoal_peer_open(getpid(), &peer), -EMFILE);
    ASSERT_EQ(peer.pidfd, 77);
    test_fault(TEST_FAULT_pipe2, 0, 1, -EMFILE);
    ASSERT_EQ(shoal_lifeline_create(&line), -EMFILE);
    ASSERT_EQ(line.read_fd, 77);
}

static void on_signal(int signal)
{
    (void)signal;
}

static void waiting_is_ended_by_a_signal(void)
{
    struct shoal_peer peer;
    struct sigaction action = { .sa_handler = on_signal }, old;
    sigset_t blocked, unblocked;
    pid_t pid = test_fork(sleep_for_ever, NULL);
    REQUIRE_OK(shoal_peer_open(pid, &peer));
    sigaction(SIGUSR1, &action, &old);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR1);
    sigprocmask(SIG_BLOCK, &blocked, &unblocked);
    kill(getpid(), SIGUSR1); /* pending: the wait lets it through through the mask that follows */
    struct pollfd fd = { .fd = peer.pidfd, .events = POLLIN };
    ASSERT_EQ(shoal__sys_ppoll(&fd, 1, -1, &unblocked), -EINTR);
    sigprocmask(SIG_SETMASK, &unblocked, NULL);
    sigaction(SIGUSR1, &old, NULL);
    kill(pid, SIGKILL);
    ASSERT_EQ(test_wait(pid), -SIGKILL);
    shoal_peer_close(&peer);
}

/* ---- start times ---- */

static void a_reused_pid_is_not_taken_for_the_process(void)
{
    struct shoal_peer peer;
    uint64_t ticks;
    pid_t pid = test_fork(sleep_for_ever, NULL);
    REQUIRE_OK(shoal__peer_start_time(pid, &ticks));
    ASSERT_EQ(shoal__peer_open_started(pid, ticks + 1, &peer), -ESRCH);
    ASSERT_EQ(shoal__peer_open_started(0, 0, &peer), -ESRCH);
    ASSERT_EQ(shoal__peer_open_started(-1, 0, &peer), -ESRCH);
    REQUIRE_OK(shoal__peer_open_started(pid, ticks, &peer));
    kill(pid, SIGKILL);
    ASSERT_EQ(shoal_peer_wait(&peer, -1), 1);
    shoal_peer_close(&peer);
    ASSERT_EQ(shoal__peer_open_started(pid, ticks, &peer), -ESRCH); /* a zombie is dead */
    ASSERT_EQ(test_wait(pid), -SIGKILL);
    ASSERT_EQ(shoal__peer_start_time(pid, &ticks), -ESRCH);
}

static void the_start_time_is_found_behind_an_awkward_name(void)
{
    uint64_t ticks = 7;
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)getpid());
    test_replace_file(path, "9 (a) b (c) 1 2 3) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21\n");
    ASSERT_OK(shoal__peer_start_time(getpid(), &ticks));
    ASSERT_EQ(ticks, 4711);
    test_replace_file(NULL, NULL);
    test_replace_file(path, "9 (a) S 1 2 3");
    ASSERT_EQ(shoal__peer_start_time(getpid(), &ticks), -EPROTO);
    test_replace_file(NULL, NULL);
    test_replace_file(path, "");
    ASSERT_EQ(shoal__peer_start_time(getpid(), &ticks), -EPROTO);
    ASSERT_EQ(ticks, 4711);
}

/* ---- lifeline ---- */

#define CHILDREN 3

struct family {
    int report[2]; /* children write their pid here, and keep it open: end of file means that all are dead */
    bool from_thread;
};

static int busy_child(struct family *family, struct shoal_lifeline *line)
{
    if (shoal_lifeline_arm(line) != 0)
        return 1;
    pid_t pid = getpid();
    if (write(family->report[1], &pid, sizeof(pid)) < 0)
        return 2;
    for (volatile unsigned long turns = 0;; turns++)
        ;
}

static void *fork_one(void *arg)
{
    void **both = arg;
    struct family *family = both[0];
    pid_t pid = fork();
    if (pid == 0) {
        alarm(60);
        _exit(busy_child(family, both[1]));
    }
    return NULL;
}

/* A parent that forks busy children and then waits to be killed. */
static int parent(void *arg)
{
    struct family *family = arg;
    struct shoal_lifeline line;
    void *both[] = { family, &line };
    close(family->report[0]);
    if (shoal_lifeline_create(&line) != 0)
        return 1;
    for (int i = 0; i < CHILDREN; i++) {
        pthread_t thread;
        if (!family->from_thread)
            fork_one(both);
        else if (pthread_create(&thread, NULL, fork_one, both) != 0 || pthread_join(thread, NULL) != 0)
            return 2;
    }
    return sleep_for_ever(NULL);
}

/* Reads the children's pids; returns how many reported. */
static int read_pids(int fd, pid_t *ret_pids)
{
    int count = 0;
    while (count < CHILDREN && read(fd, &ret_pids[count], sizeof(pid_t)) == sizeof(pid_t))
        count++;
    return count;
}

static void check_family(struct family *family)
{
    pid_t pids[CHILDREN], none;
    ASSERT_EQ(pipe2(family->report, O_CLOEXEC), 0);
    pid_t pid = test_fork(parent, family);
    close(family->report[1]);
    REQUIRE_EQ(read_pids(family->report[0], pids), CHILDREN);
    for (int i = 0; i < CHILDREN; i++)
        ASSERT_EQ(kill(pids[i], 0), 0); /* the forking threads have ended, the children live */
    struct pollfd quiet = { .fd = family->report[0], .events = POLLIN };
    ASSERT_EQ(poll(&quiet, 1, 0), 0);
    kill(pid, SIGKILL);
    ASSERT_EQ(test_wait(pid), -SIGKILL);
    ASSERT_EQ(read(family->report[0], &none, sizeof(none)), 0); /* all children are dead, or the watchdog barks */
    close(family->report[0]);
}

static void busy_children_die_with_their_parent(void)
{
    struct family family = { .from_thread = false };
    check_family(&family);
}

static void children_forked_by_a_thread_outlive_it_and_die_with_the_process(void)
{
    struct family family = { .from_thread = true };
    check_family(&family);
}

static int arm_late(void *arg)
{
    struct shoal_lifeline *line = arg;
    int status = shoal_lifeline_arm(line); /* the write end is closed everywhere but here */
    return status == 0 ? 0 : 1;
}

static void arming_after_the_parents_death_kills_at_once(void)
{
    struct test_footprint before;
    struct shoal_lifeline line;
    test_footprint_take(&before);
    REQUIRE_OK(shoal_lifeline_create(&line));
    close(line.write_fd);
    line.write_fd = -1;
    ASSERT_EQ(test_wait(test_fork(arm_late, &line)), -SIGKILL);
    shoal_lifeline_close(&line);
    shoal_lifeline_close(&line);
    ASSERT_EQ(shoal_lifeline_arm(&line), -EBADF);
    test_footprint_same(&before);
}

static void arming_that_fails_leaves_no_descriptor(void)
{
    struct test_footprint before;
    test_footprint_take(&before);
    for (int call = 0; call < 5; call++) { /* open, then the four fcntls */
        struct shoal_lifeline line;
        REQUIRE_OK(shoal_lifeline_create(&line));
        test_fault(call == 0 ? TEST_FAULT_open : TEST_FAULT_fcntl, call == 0 ? 0 : call - 1, 1, -EMFILE);
        ASSERT_EQ(shoal_lifeline_arm(&line), -EMFILE);
        test_fault_clear();
        shoal_lifeline_close(&line);
        test_footprint_same(&before);
    }
}

static void arming_while_the_parent_lives_changes_nothing(void)
{
    struct shoal_lifeline line;
    REQUIRE_OK(shoal_lifeline_create(&line));
    ASSERT_EQ(test_wait(test_fork(arm_late, &line)), 0);
    shoal_lifeline_close(&line);
}

static const struct test tests[] = {
    { "a peer is alive until it is dead, and then says how it ended", a_peer_is_alive_until_it_is_dead },
    { "the exit code of a peer is reported", the_exit_code_is_reported },
    { "death is certain, its kind unknown, when somebody else reaped", death_is_certain_when_somebody_else_reaped },
    { "a live process that is no child of ours is not reaped", a_live_process_that_is_no_child_is_not_reaped },
    { "errors of the system are passed on, outputs untouched", errors_of_the_system_are_passed_on },
    { "a signal ends a wait, also one that was pending before it", waiting_is_ended_by_a_signal },
    { "a process with a reused pid is not taken for the one we knew", a_reused_pid_is_not_taken_for_the_process },
    { "the start time is found behind any process name", the_start_time_is_found_behind_an_awkward_name },
    { "all busy children die when their parent is killed", busy_children_die_with_their_parent },
    { "children outlive the thread that forked them and die with the process",
      children_forked_by_a_thread_outlive_it_and_die_with_the_process },
    { "arming after the parent's death kills at once", arming_after_the_parents_death_kills_at_once },
    { "arming that fails says so and leaves no descriptor", arming_that_fails_leaves_no_descriptor },
    { "arming while the parent lives changes nothing", arming_while_the_parent_lives_changes_nothing },
};

int main(void)
{
    return test_main("peer", tests, TEST_COUNT(tests));
}

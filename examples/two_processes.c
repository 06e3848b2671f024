/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * two_processes.c - two unrelated programs find each other by name and exchange messages and a large payload.
 *
 *     two_processes serve  /some-name        in one terminal
 *     two_processes client /some-name        in another
 *     two_processes                          starts both for you
 *
 * The client fills 64 MiB at the place in shared memory where the server reads them: they are written once and never
 * copied. The server answers with their checksum. The name is gone as soon as the two have met.
 */
#include <shoal/shoal.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAYLOAD_BYTES (64ull << 20)
#define ROUND_TRIPS 10000
#define PATIENCE_NS 10000000000ll /* for the other one to appear, and for each answer */

static int fail(const char *what, int error)
{
    fprintf(stderr, "%s: %s\n", what, shoal_strerror(error));
    return 1;
}

static int64_t in_time(void)
{
    return shoal_now_ns() + PATIENCE_NS;
}

static double ms_since(int64_t start_ns)
{
    return (double)(shoal_now_ns() - start_ns) / 1e6;
}

/* Four sums at once, so that memory and not the adding is what we wait for. */
static uint64_t checksum(const void *bytes, uint64_t byte_count)
{
    const uint64_t *words = bytes;
    uint64_t sums[4] = { 1, 2, 3, 4 };
    for (uint64_t i = 0; i + 4 <= byte_count / 8; i += 4)
        for (int lane = 0; lane < 4; lane++)
            sums[lane] = (sums[lane] ^ words[i + (uint64_t)lane]) * 0x100000001b3ull;
    return sums[0] ^ sums[1] ^ sums[2] ^ sums[3];
}

/* ---- server: side A ---- */

/* Answers until the client has closed. 0 or -errno. */
static int serve_messages(struct shoal_channel *channel)
{
    for (;;) {
        struct shoal_message message;
        int status = shoal_channel_receive(channel, -1, &message);
        if (status < 0)
            return status == -EPIPE ? 0 : status;
        uint64_t answer = message.byte_count;
        if (message.payload) {
            int64_t start_ns = shoal_now_ns();
            answer = checksum(message.payload, message.payload_bytes);
            printf("server: read %" PRIu64 " MiB in place at %p in %.1f ms: \"%.*s\"\n", message.payload_bytes >> 20,
                   message.payload, ms_since(start_ns), (int)message.byte_count, (const char *)message.bytes);
            status = shoal_channel_release(channel, message.payload_id);
        }
        shoal_channel_done(channel);
        if (status == 0)
            status = shoal_channel_send(channel, &answer, sizeof(answer), 0, in_time());
        if (status < 0)
            return status;
    }
}

static int serve(const char *name)
{
    const struct shoal_channel_config config = { .payload_bytes = PAYLOAD_BYTES };
    struct shoal_channel *channel;
    int status = shoal_channel_create(name, &config, &channel);
    if (status < 0)
        return fail("server: cannot make the channel", status);
    printf("server: waiting under the name %s\n", name);
    fflush(stdout);
    status = shoal_channel_accept(channel, in_time());
    if (status == 0) {
        printf("server: the client is there, the name is gone\n");
        status = serve_messages(channel);
    }
    shoal_channel_free(channel);
    if (status < 0)
        return fail("server", status);
    printf("server: the client has closed\n");
    return 0;
}

/* ---- client: side B ---- */

/* The server may not have made the channel yet, or not have finished it. */
static int open_patiently(const char *name, struct shoal_channel **ret_channel)
{
    int64_t deadline_ns = in_time();
    int status;
    while ((status = shoal_channel_open(name, ret_channel)) == -ENOENT || status == -EAGAIN) {
        if (shoal_now_ns() > deadline_ns)
            return status;
        usleep(1000);
    }
    return status;
}

static int ask(struct shoal_channel *channel, const void *bytes, uint64_t byte_count, uint64_t payload_id,
               uint64_t *ret_answer)
{
    struct shoal_message message;
    int status = shoal_channel_send(channel, bytes, byte_count, payload_id, in_time());
    if (status == 0)
        status = shoal_channel_receive(channel, in_time(), &message);
    if (status == 0 && message.byte_count != sizeof(*ret_answer))
        status = -EBADMSG;
    if (status < 0)
        return status;
    memcpy(ret_answer, message.bytes, sizeof(*ret_answer));
    shoal_channel_done(channel);
    return 0;
}

static int exchange_small(struct shoal_channel *channel)
{
    int64_t start_ns = shoal_now_ns();
    uint64_t answer;
    for (int i = 0; i < ROUND_TRIPS; i++) {
        int status = ask(channel, "hello", 6, 0, &answer);
        if (status < 0 || answer != 6)
            return status < 0 ? status : -EBADMSG;
    }
    printf("client: %d round trips, %.2f us each\n", ROUND_TRIPS, ms_since(start_ns) * 1e3 / ROUND_TRIPS);
    return 0;
}

static int exchange_large(struct shoal_channel *channel, int round)
{
    char text[64];
    void *payload;
    uint64_t id, answer;
    int64_t start_ns = shoal_now_ns();
    int status = shoal_channel_alloc_wait(channel, PAYLOAD_BYTES, in_time(), &payload, &id);
    if (status < 0)
        return status;
    uint64_t *words = payload;
    for (uint64_t i = 0; i < PAYLOAD_BYTES / 8; i++)
        words[i] = i + (uint64_t)round;
    double filled_ms = ms_since(start_ns);
    uint64_t expected = checksum(payload, PAYLOAD_BYTES);
    int length = snprintf(text, sizeof(text), "payload number %d", round);
    start_ns = shoal_now_ns();
    status = ask(channel, text, (uint64_t)length, id, &answer);
    if (status < 0)
        return status;
    printf("client: filled %llu MiB in place at %p in %.1f ms; sent, read and answered in %.1f ms: checksum %s\n",
           PAYLOAD_BYTES >> 20, payload, filled_ms, ms_since(start_ns), answer == expected ? "agrees" : "DIFFERS");
    return answer == expected ? 0 : -EBADMSG;
}

static int client(const char *name)
{
    struct shoal_channel *channel;
    int status = open_patiently(name, &channel);
    if (status < 0)
        return fail("client: cannot open the channel", status);
    status = exchange_small(channel);
    for (int round = 1; round <= 3 && status == 0; round++) /* the first one meets pages that nobody has touched */
        status = exchange_large(channel, round);
    shoal_channel_free(channel);
    return status < 0 ? fail("client", status) : 0;
}

/* ---- both ---- */

static pid_t start(const char *program, const char *role, const char *name)
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    execl(program, program, role, name, (char *)NULL);
    perror(program);
    _exit(127);
}

static int start_both(void)
{
    char name[64];
    int failed = 0;
    snprintf(name, sizeof(name), "/shoal-example-%d", (int)getpid());
    const pid_t pids[] = { start("/proc/self/exe", "serve", name), start("/proc/self/exe", "client", name) };
    for (int i = 0; i < 2; i++) {
        int status;
        if (pids[i] < 0 || waitpid(pids[i], &status, 0) < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
            failed = 1;
    }
    return failed;
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc == 1)
        return start_both();
    if (argc == 3 && strcmp(argv[1], "serve") == 0)
        return serve(argv[2]);
    if (argc == 3 && strcmp(argv[1], "client") == 0)
        return client(argv[2]);
    fprintf(stderr, "usage: %s [serve NAME | client NAME]\n", argv[0]);
    return 2;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* doorbell.c - what it costs to ring when nobody sleeps, and a round trip in which both sides sleep. */
#include "bench.h"

#include <string.h>
#include <sys/mman.h>

#define RINGS 5000000u
#define ROUND_TRIPS 5000u

struct shared {
    _Alignas(64) uint8_t bells[2][SHOAL_BELL_BYTES];
    _Alignas(64) volatile uint64_t counts[2]; /* the bells' calls order them */
};

struct game {
    struct shared *shared;
    struct shoal_doorbell *bells[2];
    struct shoal_waiter *waiter;
};

static void await(struct game *game, int side, uint64_t number)
{
    while (game->shared->counts[side] < number) {
        uint32_t ticket = shoal_doorbell_announce(game->bells[side], SHOAL_URGENT);
        if (game->shared->counts[side] < number)
            MUST(shoal_waiter_wait(game->waiter, game->bells[side], ticket, -1, NULL));
        shoal_doorbell_retract(game->bells[side]);
    }
}

static void send(struct game *game, int side, uint64_t number)
{
    game->shared->counts[side] = number;
    MUST(shoal_doorbell_ring(game->bells[side], SHOAL_URGENT));
}

/* watching: this side sleeps in io_uring (or whatever the kind has), not on the bell alone. */
static void ping_pong(enum shoal_doorbell_kind kind, const char *row, bool watching)
{
    struct game game = { 0 };
    int fds[2];
    game.shared = mmap(NULL, sizeof *game.shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (game.shared == MAP_FAILED || pipe(fds) != 0)
        exit(1);
    for (int side = 0; side < 2; side++)
        MUST(shoal_doorbell_create(game.shared->bells[side], kind, &game.bells[side]));
    pid_t pid = fork();
    MUST(shoal_waiter_create(kind, &game.waiter));
    if (pid != 0 && watching)
        MUST(shoal_waiter_watch(game.waiter, fds[0], 1));
    int64_t begin_ns = shoal_now_ns();
    for (uint64_t number = 1; number <= ROUND_TRIPS; number++) {
        if (pid == 0) {
            await(&game, 1, number);
            send(&game, 0, number);
        } else {
            send(&game, 1, number);
            await(&game, 0, number);
        }
    }
    if (pid == 0)
        _exit(0);
    report(row, begin_ns, ROUND_TRIPS);
    reap(pid);
    shoal_waiter_free(game.waiter);
    for (int side = 0; side < 2; side++)
        shoal_doorbell_free(game.bells[side]);
    close(fds[0]);
    close(fds[1]);
}

static void ring_nobody(enum shoal_doorbell_kind kind, const char *row)
{
    static _Alignas(64) uint8_t memory[SHOAL_BELL_BYTES];
    struct shoal_doorbell *bell;
    MUST(shoal_doorbell_create(memory, kind, &bell));
    int64_t begin_ns = shoal_now_ns();
    for (uint64_t i = 0; i < RINGS; i++)
        MUST(shoal_doorbell_ring(bell, SHOAL_URGENT));
    report(row, begin_ns, RINGS);
    shoal_doorbell_free(bell);
}

int main(void)
{
    char row[80], reason[200];
    for (enum shoal_doorbell_kind kind = SHOAL_DOORBELL_URING; kind <= SHOAL_DOORBELL_SEMAPHORE; kind++) {
        const char *name = shoal_doorbell_kind_name(kind);
        if (shoal_doorbell_probe(kind, reason, sizeof reason) < 0) {
            fprintf(stderr, "%s does not work here: %s\n", name, reason);
            continue;
        }
        snprintf(row, sizeof row, "doorbell_%s_ring_nobody", name);
        ring_nobody(kind, row);
        snprintf(row, sizeof row, "doorbell_%s_round_trip_asleep", name);
        ping_pong(kind, row, false);
        snprintf(row, sizeof row, "doorbell_%s_round_trip_asleep_watching", name);
        ping_pong(kind, row, true);
    }
    return 0;
}

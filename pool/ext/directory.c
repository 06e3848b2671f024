/* SPDX-License-Identifier: BSD-3-Clause */
/* directory.c - see directory.h. */
#include "directory.h"

struct directory {
    volatile uint64_t magic, version;
    struct {
        volatile uint64_t meters, workers;
    } pools[(DIRECTORY_BYTES - 16) / 16];
};
_Static_assert(sizeof(struct directory) == DIRECTORY_BYTES, "it is a page");

#define POOLS_MAX ((DIRECTORY_BYTES - 16) / 16)

static struct directory *directory_of(struct home *home)
{
    return shoal_region_at(home->region, SHOAL_REGION_HEADER_BYTES, DIRECTORY_BYTES);
}

void directory_add(struct home *home, uint64_t meters, uint32_t workers)
{
    struct directory *directory = directory_of(home);
    directory->version = DIRECTORY_VERSION;
    directory->magic = DIRECTORY_MAGIC;
    for (unsigned i = 0; i < POOLS_MAX; i++) {
        if (directory->pools[i].meters == 0) {
            directory->pools[i].workers = workers;
            directory->pools[i].meters = meters;
            return;
        }
    }
}

void directory_remove(struct home *home, uint64_t meters)
{
    struct directory *directory = directory_of(home);
    for (unsigned i = 0; i < POOLS_MAX; i++) {
        if (directory->pools[i].meters == meters)
            directory->pools[i].meters = 0;
    }
}

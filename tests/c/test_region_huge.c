/* SPDX-License-Identifier: BSD-3-Clause */
#include "support.h"

#include <shoal/shoal.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define PAGE 4096u
#define MIB (1ull << 20)

static uint64_t backed_bytes(const struct shoal_region *region)
{
    struct stat info;
    return fstat(shoal_region_fd(region), &info) == 0 ? (uint64_t)info.st_blocks * 512 : UINT64_MAX;
}

/* Of the mapping at this address: how much of it has pages of 2 MiB. */
static uint64_t huge_bytes(const void *address)
{
    char line[512], wanted[32];
    uint64_t kib = 0;
    bool found = false;
    snprintf(wanted, sizeof(wanted), "%lx-", (unsigned long)(uintptr_t)address);
    FILE *file = fopen("/proc/self/smaps", "re");
    while (file && fgets(line, sizeof(line), file)) {
        if (strchr(line, '-') && strstr(line, " rw-s "))
            found = strncmp(line, wanted, strlen(wanted)) == 0;
        if (found && sscanf(line, "ShmemPmdMapped: %" SCNu64, &kib) == 1)
            break;
    }
    if (file)
        fclose(file);
    return kib * 1024;
}

static void region_ranges_get_large_pages_where_the_system_has_them(void)
{
    struct shoal_region *region;
    REQUIRE_OK(shoal_region_create(64 * MIB, &region));
    ASSERT_EQ((uintptr_t)shoal_region_base(region) % (2 * MIB), 0);
    ASSERT_OK(shoal_region_reserve(region, MIB, 8 * MIB)); /* three whole units in it */
    ASSERT_EQ(backed_bytes(region), PAGE + 8 * MIB);
    uint64_t huge = huge_bytes(shoal_region_base(region));
    uint8_t *bytes = shoal_region_at(region, MIB, 8 * MIB);
    for (uint64_t i = 0; i < 8 * MIB; i += PAGE)
        ASSERT_EQ(bytes[i], 0);
    ASSERT_OK(shoal_region_discard(region, MIB, 8 * MIB));
    ASSERT_EQ(backed_bytes(region), PAGE);
    shoal_region_free(region);
    if (huge != 6 * MIB)
        test_skip("no large pages to be had");
}

static void region_ranges_are_backed_all_the_same_without_large_pages(void)
{
    const int errors[] = {-EINVAL, -ENOMEM, -EINTR};
    for (size_t i = 0; i < 3; i++) {
        struct shoal_region *region;
        REQUIRE_OK(shoal_region_create(64 * MIB, &region));
        test_fault(TEST_FAULT_madvise, 0, 1, errors[i]);
        ASSERT_OK(shoal_region_reserve(region, 0, 32 * MIB));
        ASSERT_EQ(test_fault_calls(TEST_FAULT_madvise), 1); /* and is left alone for a while */
        ASSERT_EQ(backed_bytes(region), 32 * MIB);
        test_fault_clear();
        shoal_region_free(region);
    }
}

int main(void)
{
    static const struct test tests[] = {
        { "ranges get large pages where the system has them", region_ranges_get_large_pages_where_the_system_has_them },
        { "ranges are backed all the same without large pages",
          region_ranges_are_backed_all_the_same_without_large_pages },
    };
    return test_main("region_huge", tests, TEST_COUNT(tests));
}

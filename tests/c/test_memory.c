/* SPDX-License-Identifier: BSD-3-Clause */
#include "support.h"

#include "region.h"

#include <errno.h>

#define MIB (1ull << 20)
#define MEMINFO "MemTotal:       16000000 kB\nMemFree:  1 kB\nMemAvailable:   1048576 kB\nBuffers: 9 kB\n" /* 1 GiB */
#define V2_MOUNT "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
#define V1_MOUNT                                                                                                       \
    "31 24 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"                                              \
    "32 24 0:28 / /sys/fs/cgroup/memory rw shared:1 - cgroup cgroup rw,memory\n"

static void place(const char *own, const char *mounts)
{
    test_replace_file("/proc/meminfo", MEMINFO);
    test_replace_file("/proc/self/cgroup", own);
    test_replace_file("/proc/self/mountinfo", mounts);
}

static uint64_t available(void)
{
    uint64_t bytes = 0;
    ASSERT_OK(shoal_memory_available(&bytes));
    return bytes;
}

static void the_real_machine_has_memory(void)
{
    CU_ASSERT_TRUE(available() > MIB);
}

static void without_cgroups_the_machine_decides(void)
{
    place("", "");
    ASSERT_EQ(available(), 1024 * MIB);
    place("0::/\n", "24 1 8:1 / / rw - ext4 /dev/sda1 rw\n");
    ASSERT_EQ(available(), 1024 * MIB);
}

static void a_v2_limit_counts_with_its_inactive_cache(void)
{
    place("0::/job\n", V2_MOUNT);
    test_replace_file("/sys/fs/cgroup/job/memory.max", "104857600\n");
    test_replace_file("/sys/fs/cgroup/job/memory.current", "62914560\n");
    ASSERT_EQ(available(), 40 * MIB);
    test_replace_file("/sys/fs/cgroup/job/memory.stat",
                      "anon 3\ninactive_anon 5\ninactive_file 10485760\nactive_file 7\n");
    ASSERT_EQ(available(), 50 * MIB);
}

static void every_ancestor_counts(void)
{
    place("0::/a/b/c\n", V2_MOUNT);
    test_replace_file("/sys/fs/cgroup/a/b/c/memory.max", "max\n");
    test_replace_file("/sys/fs/cgroup/a/b/c/memory.current", "1\n");
    test_replace_file("/sys/fs/cgroup/a/memory.max", "20971520\n");
    test_replace_file("/sys/fs/cgroup/a/memory.current", "10485760\n");
    ASSERT_EQ(available(), 10 * MIB);
    test_replace_file("/sys/fs/cgroup/memory.max", "5242880");
    test_replace_file("/sys/fs/cgroup/memory.current", "0");
    ASSERT_EQ(available(), 5 * MIB);
}

static void a_v1_limit_counts(void)
{
    place("5:cpu,cpuacct:/x\n4:blkio,memory:/docker/abc\n0::/ignored\n", V1_MOUNT);
    test_replace_file("/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "52428800\n");
    test_replace_file("/sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes", "20971520\n");
    test_replace_file("/sys/fs/cgroup/memory/docker/abc/memory.stat", "inactive_file 1\ntotal_inactive_file 1048576\n");
    ASSERT_EQ(available(), 31 * MIB);
    test_replace_file("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"); /* none */
    test_replace_file("/sys/fs/cgroup/memory/memory.usage_in_bytes", "1\n");
    ASSERT_EQ(available(), 31 * MIB);
}

static void a_container_that_sees_only_its_own_part_is_understood(void)
{
    place("4:memory:/docker/abc\n", "32 24 0:28 /docker/abc /mnt/with\\040blank ro - cgroup cgroup rw,memory\n");
    test_replace_file("/mnt/with blank/memory.limit_in_bytes", "3145728\n");
    test_replace_file("/mnt/with blank/memory.usage_in_bytes", "1048576\n");
    ASSERT_EQ(available(), 2 * MIB);
}

static void usage_above_the_limit_leaves_nothing(void)
{
    place("0::/\n", V2_MOUNT);
    test_replace_file("/sys/fs/cgroup/memory.max", "1048576\n");
    test_replace_file("/sys/fs/cgroup/memory.current", "2097152\n");
    ASSERT_EQ(available(), 0);
    ASSERT_EQ(shoal__memory_check(1), -ENOMEM);
}

static void a_path_outside_the_namespace_is_judged_by_the_mount(void)
{
    place("0::/../other\n", V2_MOUNT);
    test_replace_file("/sys/fs/cgroup/memory.max", "2097152\n");
    test_replace_file("/sys/fs/cgroup/memory.current", "1048576\n");
    ASSERT_EQ(available(), MIB);
}

static void nonsense_is_no_limit(void)
{
    static const char *const owns[] = { "0::", ":::", "0:", "garbage\n\n", "4:memory", "0::no-slash\n" };
    static const char *const mounts[] = { " - ", "a - cgroup2", "1 2 3 - cgroup2 c rw", "- - - -\n",
                                          "1 2 3 / / x - cgroup" };
    for (size_t i = 0; i < sizeof(owns) / sizeof(owns[0]); i++) {
        for (size_t j = 0; j < sizeof(mounts) / sizeof(mounts[0]); j++) {
            test_replace_file(NULL, NULL);
            place(owns[i], mounts[j]);
            ASSERT_EQ(available(), 1024 * MIB);
        }
    }
    static const char *const numbers[] = { "", "max", "-5", "99999999999999999999999", "0x10", "\n12" };
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        test_replace_file(NULL, NULL);
        place("0::/\n", V2_MOUNT);
        test_replace_file("/sys/fs/cgroup/memory.max", numbers[i]);
        test_replace_file("/sys/fs/cgroup/memory.current", "0\n");
        ASSERT_EQ(available(), 1024 * MIB);
    }
}

static void a_machine_that_does_not_say_is_an_error_and_forbids_nothing(void)
{
    uint64_t bytes = 5;
    test_fault(TEST_FAULT_open, 0, -1, -EACCES);
    ASSERT_EQ(shoal_memory_available(&bytes), -ENODATA);
    ASSERT_EQ(bytes, 5);
    ASSERT_EQ(shoal__memory_check(1ull << 40), 0);
}

static void a_limit_refuses_a_reservation_instead_of_a_kill(void)
{
    struct shoal_region *region;
    REQUIRE_OK(shoal_region_create(64 * MIB, &region));
    place("0::/\n", V2_MOUNT);
    test_replace_file("/sys/fs/cgroup/memory.max", "10485760\n");
    test_replace_file("/sys/fs/cgroup/memory.current", "2097152\n");
    ASSERT_EQ(shoal_region_reserve(region, MIB, 8 * MIB), -ENOMEM); /* 8 are left, but an eighth stays free */
    ASSERT_EQ(shoal_region_reserve(region, MIB, 7 * MIB), 0);
    shoal_region_free(region);
}

static const struct test tests[] = {
    { "the real machine has memory", the_real_machine_has_memory },
    { "without cgroups MemAvailable decides", without_cgroups_the_machine_decides },
    { "a v2 limit counts, inactive file cache is available", a_v2_limit_counts_with_its_inactive_cache },
    { "the limit of every ancestor counts", every_ancestor_counts },
    { "a v1 limit counts", a_v1_limit_counts },
    { "a container that sees only its own part is understood", a_container_that_sees_only_its_own_part_is_understood },
    { "usage above the limit leaves nothing", usage_above_the_limit_leaves_nothing },
    { "a path outside the namespace is judged by the mount", a_path_outside_the_namespace_is_judged_by_the_mount },
    { "what cannot be parsed is no limit", nonsense_is_no_limit },
    { "a machine that does not say is an error, and forbids nothing",
      a_machine_that_does_not_say_is_an_error_and_forbids_nothing },
    { "a cgroup's limit refuses a reservation", a_limit_refuses_a_reservation_instead_of_a_kill },
};

int main(void)
{
    return test_main("memory", tests, TEST_COUNT(tests));
}

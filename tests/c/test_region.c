/* SPDX-License-Identifier: BSD-3-Clause */
#include "layout.h"
#include "support.h"

#include <shoal/shoal.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096u
#define MIB (1ull << 20)

static uint64_t backed_bytes(const struct shoal_region *region)
{
    struct stat info;
    return fstat(shoal_region_fd(region), &info) == 0 ? (uint64_t)info.st_blocks * 512 : UINT64_MAX;
}

/* ---- anonymous ---- */

static void region_is_sparse_until_reserved(void)
{
    struct test_footprint before;
    struct shoal_region *region;
    test_footprint_take(&before);
    REQUIRE_OK(shoal_region_create(1ull << 36, &region)); /* 64 GiB: far more than there is */
    ASSERT_EQ(shoal_region_size(region), 1ull << 36);
    ASSERT_EQ(backed_bytes(region), PAGE);
    ASSERT_OK(shoal_region_reserve(region, MIB, 2 * MIB));
    ASSERT_EQ(backed_bytes(region), PAGE + 2 * MIB);
    memset(shoal_region_at(region, MIB, 2 * MIB), 7, 2 * MIB);
    ASSERT_OK(shoal_region_discard(region, MIB, MIB));
    ASSERT_EQ(backed_bytes(region), PAGE + MIB);
    ASSERT_EQ(*(uint8_t *)shoal_region_at(region, 2 * MIB, 1), 7);
    ASSERT_OK(shoal_region_reserve(region, MIB, MIB));
    ASSERT_EQ(*(uint8_t *)shoal_region_at(region, MIB, 1), 0);
    shoal_region_free(region);
    test_footprint_same(&before);
}

static void region_size_is_rounded_to_pages_and_never_zero(void)
{
    struct shoal_region *region;
    ASSERT_EQ(shoal_region_create(0, &region), -EINVAL);
    ASSERT_EQ(shoal_region_create(UINT64_MAX, &region), -EINVAL);
    REQUIRE_OK(shoal_region_create(PAGE + 1, &region));
    ASSERT_EQ(shoal_region_size(region), 2 * PAGE);
    shoal_region_free(region);
    shoal_region_free(NULL);
}

static void region_cannot_be_truncated_by_anybody(void)
{
    struct shoal_region *region;
    REQUIRE_OK(shoal_region_create(16 * PAGE, &region));
    ASSERT_EQ(ftruncate(shoal_region_fd(region), PAGE), -1);
    ASSERT_EQ(errno, EPERM);
    ASSERT_EQ(ftruncate(shoal_region_fd(region), 32 * PAGE), -1);
    ASSERT_EQ(errno, EPERM);
    ASSERT_EQ(fcntl(shoal_region_fd(region), F_ADD_SEALS, F_SEAL_WRITE), -1);
    ASSERT_EQ(fcntl(shoal_region_fd(region), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    shoal_region_free(region);
}

static void region_places_outside_are_refused(void)
{
    struct shoal_region *region;
    uint64_t offset = 77;
    void *mirror;
    REQUIRE_OK(shoal_region_create(16 * PAGE, &region));
    uint8_t *base = shoal_region_base(region);
    CU_ASSERT_PTR_EQUAL(shoal_region_at(region, 0, 16 * PAGE), base);
    CU_ASSERT_PTR_EQUAL(shoal_region_at(region, 16 * PAGE, 0), base + 16 * PAGE);
    CU_ASSERT_PTR_NULL(shoal_region_at(region, 16 * PAGE, 1));
    CU_ASSERT_PTR_NULL(shoal_region_at(region, 1, 16 * PAGE));
    CU_ASSERT_PTR_NULL(shoal_region_at(region, UINT64_MAX, 2));
    CU_ASSERT_PTR_NULL(shoal_region_at(region, 2, UINT64_MAX));
    CU_ASSERT_TRUE(shoal_region_contains(region, base + 5, 16 * PAGE - 5, &offset));
    ASSERT_EQ(offset, 5);
    CU_ASSERT_FALSE(shoal_region_contains(region, base - 1, 2, &offset));
    CU_ASSERT_FALSE(shoal_region_contains(region, base + 5, 16 * PAGE, &offset));
    CU_ASSERT_FALSE(shoal_region_contains(region, NULL, 1, &offset));
    ASSERT_EQ(offset, 5);
    ASSERT_EQ(shoal_region_reserve(region, 1, PAGE), -EINVAL);
    ASSERT_EQ(shoal_region_reserve(region, PAGE, 16 * PAGE), -EINVAL);
    ASSERT_EQ(shoal_region_reserve(region, 0ull - PAGE, 2 * PAGE), -EINVAL);
    ASSERT_EQ(shoal_region_discard(region, 0, PAGE), -EINVAL); /* the header stays */
    ASSERT_EQ(shoal_region_populate(region, PAGE, 1, true), -EINVAL);
    ASSERT_EQ(shoal_region_protect(region, 16 * PAGE, PAGE, false), -EINVAL);
    ASSERT_EQ(shoal_region_mirror(region, PAGE, 0, &mirror), -EINVAL);
    ASSERT_EQ(shoal_region_mirror(region, 8 * PAGE, 16 * PAGE, &mirror), -EINVAL);
    shoal_region_free(region);
}

static void region_mirror_makes_a_wrapping_record_contiguous(void)
{
    struct test_footprint before;
    struct shoal_region *region;
    void *address;
    test_footprint_take(&before);
    REQUIRE_OK(shoal_region_create(16 * PAGE, &region));
    ASSERT_OK(shoal_region_reserve(region, 4 * PAGE, 4 * PAGE));
    REQUIRE_OK(shoal_region_mirror(region, 4 * PAGE, 4 * PAGE, &address));
    uint8_t *mirror = address, *plain = shoal_region_at(region, 4 * PAGE, 4 * PAGE);
    memcpy(mirror + 4 * PAGE - 3, "wrapped", 7);
    ASSERT_EQ(memcmp(plain + 4 * PAGE - 3, "wra", 3), 0);
    ASSERT_EQ(memcmp(plain, "pped", 4), 0);
    ASSERT_OK(shoal_region_unmirror(address, 4 * PAGE));
    shoal_region_free(region);
    test_footprint_same(&before);
}

static int write_to(void *place)
{
    *(volatile uint8_t *)place = 9;
    return 0;
}

static int allowed(void *place)
{
    signal(SIGSEGV, SIG_DFL); /* not the sanitizer's report */
    return write_to(place);
}

static int protected_writer(void *arg)
{
    struct shoal_region *region = arg;
    if (shoal_region_protect(region, PAGE, PAGE, false) != 0)
        return 1;
    return allowed(shoal_region_at(region, PAGE, 1));
}

static void region_protection_is_this_process_only(void)
{
    struct shoal_region *region;
    void *mirror;
    REQUIRE_OK(shoal_region_create(16 * PAGE, &region));
    ASSERT_OK(shoal_region_reserve(region, PAGE, PAGE));
    ASSERT_EQ(test_wait(test_fork(protected_writer, region)), -SIGSEGV);
    write_to(shoal_region_at(region, PAGE, 1));
    ASSERT_EQ(*(uint8_t *)shoal_region_at(region, PAGE, 1), 9);
    REQUIRE_OK(shoal_region_mirror(region, PAGE, PAGE, &mirror));
    ASSERT_OK(shoal_region_protect_mirror(mirror, PAGE, false));
    ASSERT_EQ(test_wait(test_fork(allowed, (uint8_t *)mirror + PAGE)), -SIGSEGV);
    ASSERT_OK(shoal_region_protect_mirror(mirror, PAGE, true));
    ASSERT_EQ(test_wait(test_fork(allowed, (uint8_t *)mirror + PAGE)), 0);
    ASSERT_OK(shoal_region_unmirror(mirror, PAGE));
    shoal_region_free(region);
}

static int read_in_child(void *arg)
{
    struct shoal_region *region = arg;
    uint8_t *place = shoal_region_at(region, PAGE, 2);
    place[1] = (uint8_t)(place[0] + 1);
    shoal_region_free(region);
    return 0;
}

static void region_handle_works_in_a_forked_child(void)
{
    struct shoal_region *region;
    REQUIRE_OK(shoal_region_create(16 * PAGE, &region));
    ASSERT_OK(shoal_region_reserve(region, PAGE, PAGE));
    ASSERT_OK(shoal_region_populate(region, PAGE, PAGE, true));
    uint8_t *place = shoal_region_at(region, PAGE, 2);
    place[0] = 41;
    ASSERT_EQ(test_wait(test_fork(read_in_child, region)), 0);
    ASSERT_EQ(place[1], 42);
    shoal_region_free(region);
}

static void region_opened_by_descriptor_shows_the_same_bytes_elsewhere(void)
{
    struct shoal_region *region, *again;
    REQUIRE_OK(shoal_region_create(16 * PAGE, &region));
    ASSERT_OK(shoal_region_reserve(region, PAGE, PAGE));
    REQUIRE_OK(shoal_region_open_fd(shoal_region_fd(region), &again));
    CU_ASSERT_PTR_NOT_EQUAL(shoal_region_base(region), shoal_region_base(again));
    CU_ASSERT_NOT_EQUAL(shoal_region_fd(region), shoal_region_fd(again));
    strcpy(shoal_region_at(region, PAGE, 8), "hello");
    CU_ASSERT_STRING_EQUAL(shoal_region_at(again, PAGE, 8), "hello");
    shoal_region_free(region);
    CU_ASSERT_STRING_EQUAL(shoal_region_at(again, PAGE, 8), "hello");
    shoal_region_free(again);
}

static void region_descriptor_without_seals_is_refused(void)
{
    struct shoal_region *region;
    int fd = memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    ASSERT_EQ(ftruncate(fd, 16 * PAGE), 0);
    ASSERT_EQ(shoal_region_open_fd(fd, &region), -EPERM);
    ASSERT_EQ(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), 0);
    ASSERT_EQ(shoal_region_open_fd(fd, &region), -EAGAIN); /* sealed, but nothing is in it */
    close(fd);
    ASSERT_EQ(shoal_region_open_fd(fd, &region), -EBADF);
}

/* ---- what the system refuses ---- */

static void creates_with_fault(enum test_fault call, int after, int error)
{
    struct test_footprint before;
    struct shoal_region *region = NULL;
    test_footprint_take(&before);
    test_fault(call, after, -1, error);
    ASSERT_EQ(shoal_region_create(16 * PAGE, &region), error);
    CU_ASSERT_PTR_NULL(region);
    test_fault_clear();
    test_footprint_same(&before);
}

static void creation_fails_cleanly_at_every_call(void)
{
    creates_with_fault(TEST_FAULT_memfd_create, 0, -EMFILE);
    creates_with_fault(TEST_FAULT_memfd_create, 0, -ENOSYS);
    creates_with_fault(TEST_FAULT_ftruncate, 0, -ENOMEM);
    creates_with_fault(TEST_FAULT_fallocate, 0, -ENOSPC);
    creates_with_fault(TEST_FAULT_fcntl, 0, -EPERM);
    creates_with_fault(TEST_FAULT_mmap, 0, -ENOMEM);
}

static void creation_works_on_kernels_that_do_not_know_noexec_seals(void)
{
    struct shoal_region *region;
    test_fault(TEST_FAULT_memfd_create, 0, 1, -EINVAL);
    REQUIRE_OK(shoal_region_create(16 * PAGE, &region));
    ASSERT_EQ(test_fault_calls(TEST_FAULT_memfd_create), 2);
    shoal_region_free(region);
}

static void mirror_failing_half_way_unmaps_the_first_half(void)
{
    struct test_footprint before;
    struct shoal_region *region;
    void *address = NULL;
    REQUIRE_OK(shoal_region_create(16 * PAGE, &region));
    test_footprint_take(&before);
    for (int call = 0; call < 3; call++) {
        test_fault(TEST_FAULT_mmap, call, 1, -ENOMEM);
        ASSERT_EQ(shoal_region_mirror(region, PAGE, PAGE, &address), -ENOMEM);
        test_footprint_same(&before);
    }
    CU_ASSERT_PTR_NULL(address);
    shoal_region_free(region);
}

static void reserving_survives_signals(void)
{
    struct shoal_region *region;
    REQUIRE_OK(shoal_region_create(16 * PAGE, &region));
    test_fault(TEST_FAULT_fallocate, 0, 3, -EINTR);
    ASSERT_OK(shoal_region_reserve(region, PAGE, 4 * PAGE));
    ASSERT_EQ(test_fault_calls(TEST_FAULT_fallocate), 4);
    ASSERT_EQ(backed_bytes(region), 5 * PAGE);
    shoal_region_free(region);
}

static void reserving_more_than_the_machine_has_is_an_error_not_a_kill(void)
{
    struct shoal_region *region;
    REQUIRE_OK(shoal_region_create(1ull << 40, &region));
    ASSERT_EQ(shoal_region_reserve(region, PAGE, (1ull << 40) - PAGE), -ENOMEM);
    ASSERT_EQ(backed_bytes(region), PAGE);
    shoal_region_free(region);
    ASSERT_EQ(shoal_region_create_named(test_name("huge"), 1ull << 40, &region), -ENOMEM);
}

static const struct test tests[] = {
    { "a region takes no memory until it is reserved, and gives it back when discarded",
      region_is_sparse_until_reserved },
    { "a size is rounded up to pages; none and too much are refused", region_size_is_rounded_to_pages_and_never_zero },
    { "an anonymous region cannot be truncated, grown or sealed further", region_cannot_be_truncated_by_anybody },
    { "places that are not wholly inside are refused, without overflow", region_places_outside_are_refused },
    { "a mirrored range is contiguous across its end", region_mirror_makes_a_wrapping_record_contiguous },
    { "read-only in one process leaves the others writing", region_protection_is_this_process_only },
    { "a handle works in a forked child, which may free it", region_handle_works_in_a_forked_child },
    { "a region opened by descriptor is independent of the first handle",
      region_opened_by_descriptor_shows_the_same_bytes_elsewhere },
    { "a descriptor without seals is refused", region_descriptor_without_seals_is_refused },
    { "creation fails cleanly whichever system call fails", creation_fails_cleanly_at_every_call },
    { "creation works without MFD_NOEXEC_SEAL", creation_works_on_kernels_that_do_not_know_noexec_seals },
    { "a mirror that fails half way leaves no mapping", mirror_failing_half_way_unmaps_the_first_half },
    { "reserving goes on after signals", reserving_survives_signals },
    { "reserving too much is an error and backs nothing", reserving_more_than_the_machine_has_is_an_error_not_a_kill },
};

int main(void)
{
    return test_main("region", tests, TEST_COUNT(tests));
}

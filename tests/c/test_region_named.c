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

static int opens_and_answers(void *arg)
{
    struct shoal_region *region;
    (void)arg;
    int status = shoal_region_open_named(test_name("meet"), &region);
    if (status < 0)
        return -status;
    strcpy(shoal_region_at(region, 2 * PAGE, 16), "answer");
    shoal_region_free(region);
    return 0;
}

static void named_region_is_found_and_leaves_nothing(void)
{
    struct test_footprint before;
    struct shoal_region *region;
    test_footprint_take(&before);
    REQUIRE_OK(shoal_region_create_named(test_name("meet"), 16 * PAGE, &region));
    ASSERT_EQ(backed_bytes(region), 16 * PAGE);
    struct stat info;
    ASSERT_EQ(fstat(shoal_region_fd(region), &info), 0);
    ASSERT_EQ(info.st_mode & 07777, 0600);
    ASSERT_EQ(test_wait(test_fork(opens_and_answers, NULL)), 0);
    CU_ASSERT_STRING_EQUAL(shoal_region_at(region, 2 * PAGE, 16), "answer");
    ASSERT_OK(shoal_region_unlink(region));
    ASSERT_OK(shoal_region_unlink(region)); /* a second time is nothing to do */
    ASSERT_EQ(test_wait(test_fork(opens_and_answers, NULL)), ENOENT);
    shoal_region_free(region);
    test_footprint_same(&before);
}

static void named_region_is_never_taken_over(void)
{
    struct shoal_region *region, *second;
    REQUIRE_OK(shoal_region_create_named(test_name("taken"), 16 * PAGE, &region));
    ASSERT_EQ(shoal_region_create_named(test_name("taken"), 16 * PAGE, &second), -EEXIST);
    ASSERT_OK(shoal_region_unlink(region));
    shoal_region_free(region);
    REQUIRE_OK(shoal_region_create_named(test_name("taken"), 16 * PAGE, &region));
    ASSERT_EQ(shm_unlink(test_name("taken")), 0);
    /* Somebody else has the name now: the first maker must leave it alone. */
    REQUIRE_OK(shoal_region_create_named(test_name("taken"), 16 * PAGE, &second));
    ASSERT_OK(shoal_region_unlink(region));
    shoal_region_free(region);
    REQUIRE_OK(shoal_region_open_named(test_name("taken"), &region));
    ASSERT_OK(shoal_region_unlink(region)); /* did not make it: nothing happens */
    shoal_region_free(region);
    REQUIRE_OK(shoal_region_open_named(test_name("taken"), &region));
    shoal_region_free(region);
    ASSERT_OK(shoal_region_unlink(second));
    shoal_region_free(second);
}

static void names_that_are_no_names_are_refused(void)
{
    struct shoal_region *region;
    char long_name[300];
    memset(long_name, 'x', sizeof(long_name) - 1);
    long_name[0] = '/';
    long_name[sizeof(long_name) - 1] = '\0';
    ASSERT_EQ(shoal_region_create_named("", PAGE, &region), -EINVAL);
    ASSERT_EQ(shoal_region_create_named("/", PAGE, &region), -EINVAL);
    ASSERT_EQ(shoal_region_create_named("no-slash", PAGE, &region), -EINVAL);
    ASSERT_EQ(shoal_region_create_named("/a/b", PAGE, &region), -EINVAL);
    ASSERT_EQ(shoal_region_create_named(long_name, PAGE, &region), -ENAMETOOLONG);
    ASSERT_EQ(shoal_region_open_named("/../etc/passwd", &region), -EINVAL);
    ASSERT_EQ(shoal_region_open_named(test_name("nobody"), &region), -ENOENT);
}

/* A file under the name, of this size and with this header. Returns its descriptor. */
static int plant(const char *name, mode_t mode, uint64_t size, const struct shoal__region_header *header)
{
    int fd = shm_open(name, O_CREAT | O_EXCL | O_RDWR, 0600);
    if (fd < 0 || fchmod(fd, mode) != 0 || ftruncate(fd, (off_t)size) != 0)
        abort();
    if (size >= PAGE && (fallocate(fd, 0, 0, (off_t)size) != 0 || pwrite(fd, header, sizeof(*header), 0) < 0))
        abort();
    return fd;
}

static const struct shoal__region_header good_header = {
    .magic = SHOAL__REGION_MAGIC,
    .version = SHOAL__LAYOUT_VERSION,
    .named = 1,
    .fingerprint = SHOAL__LAYOUT_FINGERPRINT,
    .size_bytes = 4 * PAGE,
    .ready = 1,
};

static void opens_planted(mode_t mode, uint64_t size, const struct shoal__region_header *header, int expected)
{
    const char *name = test_name("planted");
    struct shoal_region *region = NULL;
    int fd = plant(name, mode, size, header);
    ASSERT_EQ(shoal_region_open_named(name, &region), expected);
    if (expected == 0)
        shoal_region_free(region);
    shm_unlink(name);
    close(fd);
}

static void foreign_and_damaged_files_under_a_name_are_refused(void)
{
    struct test_footprint before;
    struct shoal__region_header header = good_header;
    test_footprint_take(&before);
    opens_planted(0600, 4 * PAGE, &header, 0);
    opens_planted(0620, 4 * PAGE, &header, -EPERM);
    opens_planted(0604, 4 * PAGE, &header, -EPERM);
    opens_planted(0600, 0, &header, -EAGAIN);
    opens_planted(0600, 100, &header, -EPROTO);
    opens_planted(0600, 4 * PAGE + 8, &header, -EPROTO);
    opens_planted(0600, 8 * PAGE, &header, -EPROTO); /* larger than its header says */
    opens_planted(0600, 3 * PAGE, &header, -EPROTO); /* smaller */
    header.ready = 0;
    opens_planted(0600, 4 * PAGE, &header, -EAGAIN);
    header = good_header;
    header.magic = 0;
    opens_planted(0600, 4 * PAGE, &header, -EAGAIN);
    header.magic = good_header.magic ^ 1;
    opens_planted(0600, 4 * PAGE, &header, -EPROTO);
    header = good_header;
    header.version++;
    opens_planted(0600, 4 * PAGE, &header, -EPROTO);
    header = good_header;
    header.fingerprint ^= 1;
    opens_planted(0600, 4 * PAGE, &header, -EPROTO);
    header = good_header;
    header.size_bytes = UINT64_MAX;
    opens_planted(0600, 4 * PAGE, &header, -EPROTO);
    test_fault(TEST_FAULT_geteuid, 0, -1, (int)geteuid() + 1);
    opens_planted(0600, 4 * PAGE, &good_header, -EPERM);
    test_footprint_same(&before);
}

static void a_file_that_is_not_backed_is_refused(void)
{
    const char *name = test_name("holes");
    struct shoal_region *region;
    int fd = plant(name, 0600, 4 * PAGE, &good_header);
    ASSERT_EQ(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 2 * PAGE, PAGE), 0);
    ASSERT_EQ(shoal_region_open_named(name, &region), -EPROTO);
    shm_unlink(name);
    close(fd);
}

static void a_symbolic_link_under_a_name_is_not_followed(void)
{
    char path[256];
    struct shoal_region *region, *other;
    snprintf(path, sizeof(path), "/dev/shm%s", test_name("link"));
    char target[256];
    snprintf(target, sizeof(target), "/dev/shm%s", test_name("target"));
    REQUIRE_OK(shoal_region_create_named(test_name("target"), 4 * PAGE, &region));
    ASSERT_EQ(symlink(target, path), 0);
    ASSERT_EQ(shoal_region_open_named(test_name("link"), &other), -EPROTO);
    ASSERT_EQ(shoal_region_create_named(test_name("link"), 4 * PAGE, &other), -EEXIST);
    unlink(path);
    ASSERT_OK(shoal_region_unlink(region));
    shoal_region_free(region);
}

static void named_creation_fails_without_leaving_the_name(void)
{
    struct test_footprint before;
    struct shoal_region *region = NULL;
    test_footprint_take(&before);
    const enum test_fault calls[] = { TEST_FAULT_shm_open, TEST_FAULT_ftruncate, TEST_FAULT_fallocate,
                                      TEST_FAULT_mmap };
    const int errors[] = { -EMFILE, -EFBIG, -ENOSPC, -ENOMEM };
    for (size_t i = 0; i < 4; i++) {
        test_fault(calls[i], 0, -1, errors[i]);
        ASSERT_EQ(shoal_region_create_named(test_name("fails"), 16 * PAGE, &region), errors[i]);
        test_fault_clear();
        test_footprint_same(&before);
    }
    CU_ASSERT_PTR_NULL(region);
}

static const struct test tests[] = {
    { "a named region is found by name, is private to the user, and leaves nothing",
      named_region_is_found_and_leaves_nothing },
    { "a name is never taken over, and only its own maker removes it", named_region_is_never_taken_over },
    { "malformed names are refused", names_that_are_no_names_are_refused },
    { "files of strangers, of wrong size, version or layout are refused",
      foreign_and_damaged_files_under_a_name_are_refused },
    { "a named file with holes is refused", a_file_that_is_not_backed_is_refused },
    { "a symbolic link under a name is not followed", a_symbolic_link_under_a_name_is_not_followed },
    { "failed creation of a named region removes its name", named_creation_fails_without_leaving_the_name },
};

int main(void)
{
    return test_main("region_named", tests, TEST_COUNT(tests));
}

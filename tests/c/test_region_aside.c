/* SPDX-License-Identifier: BSD-3-Clause */
#include "atomic.h"
#include "support.h"

#include <shoal/shoal.h>

#include <errno.h>
#include <pthread.h>
#include <string.h>

#define PAGE 4096u
#define MIB (1ull << 20)
#define BYTES (5 * MIB)

static struct shoal_region *region;
static uint8_t *here, *others; /* a range of the region, and what everybody else sees of it */

/* All sevens, from the second page on. */
static int begin(void)
{
    void *mirror = NULL;
    int status = shoal_region_create(16 * MIB, &region);
    if (status == 0)
        status = shoal_region_reserve(region, PAGE, BYTES + PAGE);
    if (status == 0)
        status = shoal_region_mirror(region, PAGE, BYTES, &mirror);
    if (status == 0) {
        here = shoal_region_at(region, PAGE, BYTES);
        others = mirror;
        memset(here, 7, BYTES + PAGE);
    }
    return status;
}

static void end(void)
{
    ASSERT_OK(shoal_region_unmirror(others, BYTES));
    shoal_region_free(region);
}

static bool are_all(const uint8_t *bytes, uint64_t count, uint8_t value)
{
    return bytes[0] == value && memcmp(bytes, bytes + 1, count - 1) == 0;
}

/* What all of this file is about, whichever of its ways is taken. */
static void check_rounds(void)
{
    for (uint8_t round = 1; round < 4; round++) {
        ASSERT_OK(shoal_region_set_aside(region, PAGE, BYTES));
        ASSERT_EQ(are_all(here, BYTES, 7), true);
        memset(here + MIB, round, 2 * MIB);
        here[BYTES] = round; /* the page behind it is the region's */
        ASSERT_EQ(are_all(others, BYTES, 7), true);
        ASSERT_EQ(are_all(here + MIB, 2 * MIB, round), true);
        ASSERT_OK(shoal_region_take_back(region, PAGE, BYTES));
        ASSERT_EQ(are_all(here, BYTES, 7), true);
        ASSERT_EQ(here[BYTES], round);
        here[0] = here[BYTES - 1] = 9;
        ASSERT_EQ(others[0] == 9 && others[BYTES - 1] == 9, true);
        here[0] = here[BYTES - 1] = 7;
    }
}

static void what_is_written_meanwhile_nobody_else_sees(void)
{
    struct test_footprint before;
    test_footprint_take(&before);
    REQUIRE_OK(begin());
    check_rounds();
    ASSERT_EQ(test_fault_calls(TEST_FAULT_mremap), 6);
    end();
    test_footprint_same(&before);
}

static void so_it_is_where_page_tables_cannot_be_moved(void)
{
    REQUIRE_OK(begin());
    test_fault(TEST_FAULT_mremap, 0, -1, -EINVAL);
    check_rounds();
    test_fault(TEST_FAULT_mremap, 1, -1, -ENOMEM); /* there, but not back */
    ASSERT_OK(shoal_region_set_aside(region, PAGE, BYTES));
    here[0] = 1;
    ASSERT_OK(shoal_region_take_back(region, PAGE, BYTES));
    ASSERT_EQ(here[0], 7);
    end();
}

static void so_it_is_where_there_is_no_room_for_a_second_mapping(void)
{
    REQUIRE_OK(begin());
    test_fault(TEST_FAULT_mmap, 0, 1, -ENOMEM);
    check_rounds();
    ASSERT_EQ(test_fault_calls(TEST_FAULT_mremap), 0);
    end();
}

static void one_that_fails_changes_nothing(void)
{
    REQUIRE_OK(begin());
    ASSERT_OK(shoal_region_set_aside(region, PAGE, PAGE)); /* makes the second mapping */
    ASSERT_OK(shoal_region_take_back(region, PAGE, PAGE));
    test_fault(TEST_FAULT_mmap, 0, -1, -ENOMEM);
    ASSERT_EQ(shoal_region_set_aside(region, PAGE, BYTES), -ENOMEM);
    test_fault_clear();
    here[5] = 3;
    ASSERT_EQ(others[5], 3);
    ASSERT_EQ(shoal_region_set_aside(region, PAGE, 0), -EINVAL);
    ASSERT_EQ(shoal_region_set_aside(region, PAGE + 1, PAGE), -EINVAL);
    ASSERT_EQ(shoal_region_set_aside(region, 16 * MIB, PAGE), -EINVAL);
    ASSERT_EQ(shoal_region_take_back(region, 16 * MIB, PAGE), -EINVAL);
    end();
}

static void it_is_known_whether_it_was_written(void)
{
    REQUIRE_OK(begin());
    for (int without_scan = 0; without_scan < 2; without_scan++) {
        test_fault(TEST_FAULT_pagemap_finds_own, 0, without_scan ? -1 : 0, -ENOTTY);
        ASSERT_OK(shoal_region_set_aside(region, PAGE, BYTES));
        ASSERT_EQ(shoal_region_is_unwritten(region, PAGE, BYTES), 1);
        ASSERT_EQ(are_all(here, BYTES, 7), true);
        ASSERT_EQ(shoal_region_is_unwritten(region, PAGE, BYTES), 1);
        here[3 * MIB + 100] = 7; /* the same value, but written */
        ASSERT_EQ(shoal_region_is_unwritten(region, PAGE, BYTES), 0);
        ASSERT_EQ(shoal_region_is_unwritten(region, PAGE + 10, 3 * MIB - 10), 1);
        ASSERT_EQ(shoal_region_is_unwritten(region, PAGE + 3 * MIB + PAGE, MIB), 1);
        ASSERT_EQ(shoal_region_is_unwritten(region, PAGE + 3 * MIB + 5, 1), 0);
        ASSERT_OK(shoal_region_take_back(region, PAGE, BYTES));
    }
    ASSERT_EQ(shoal_region_is_unwritten(region, 16 * MIB, 1), -EINVAL);
    test_fault(TEST_FAULT_open, 0, -1, -EACCES);
    ASSERT_OK(shoal_region_set_aside(region, PAGE, BYTES));
    ASSERT_EQ(shoal_region_is_unwritten(region, PAGE, BYTES), -EACCES);
    ASSERT_OK(shoal_region_take_back(region, PAGE, BYTES));
    end();
}

static void a_range_that_is_written_after_a_look_is_not_taken_for_clean(void)
{
    REQUIRE_OK(begin());
    ASSERT_OK(shoal_region_set_aside(region, PAGE, BYTES));
    for (uint64_t place = 0; place < BYTES; place += 64 * PAGE) {
        uint64_t offset = PAGE + place;
        ASSERT_EQ(shoal_region_is_unwritten(region, offset, PAGE), 1);
        ASSERT_EQ(shoal_region_is_unwritten(region, offset, PAGE), 1);
        here[place] = 1;
        ASSERT_EQ(shoal_region_is_unwritten(region, offset, PAGE), 0);
    }
    ASSERT_OK(shoal_region_take_back(region, PAGE, BYTES));
    end();
}

static void the_number_of_ranges_is_bounded(void)
{
    REQUIRE_OK(begin());
    unsigned set = 0;
    int status = 0;
    while (set < 10000 && (status = shoal_region_set_aside(region, PAGE, PAGE)) == 0)
        set++;
    ASSERT_EQ(status, -EMFILE);
    for (unsigned i = 0; i < set; i++)
        ASSERT_OK(shoal_region_take_back(region, PAGE, PAGE));
    ASSERT_OK(shoal_region_set_aside(region, PAGE, PAGE));
    ASSERT_OK(shoal_region_take_back(region, PAGE, PAGE));
    end();
}

static shoal__a32 over;

/* Another thread reads and writes there all along. */
static void *use(void *wrong)
{
    volatile uint8_t *bytes = here;
    while (!shoal__load_acquire(&over)) {
        for (uint64_t place = 0; place < BYTES; place += 16 * PAGE) {
            *(int *)wrong += bytes[place] != 7;
            bytes[place + 1] = 8;
        }
    }
    return NULL;
}

static void another_thread_may_use_it_all_the_while(void)
{
    pthread_t thread;
    int wrong = 0;
    REQUIRE_OK(begin());
    shoal__store_release(&over, 0);
    REQUIRE_OK(-pthread_create(&thread, NULL, use, &wrong));
    for (int round = 0; round < 300; round++) {
        ASSERT_OK(shoal_region_set_aside(region, PAGE, BYTES));
        ASSERT_OK(shoal_region_take_back(region, PAGE, BYTES));
    }
    shoal__store_release(&over, 1);
    pthread_join(thread, NULL);
    ASSERT_EQ(wrong, 0);
    end();
}

static int child_uses_it(void *unused)
{
    (void)unused;
    if (here[0] != 1 || here[MIB] != 7)
        return 1;
    here[MIB] = 2;
    shoal_region_forget_aside(region);
    if (here[0] != 1 || here[MIB] != 2 || others[MIB] != 7)
        return 2;
    return shoal_region_share(region, PAGE, BYTES, true) < 0 || here[0] != 7 ? 3 : 0;
}

static void a_child_has_what_its_parent_had(void)
{
    REQUIRE_OK(begin());
    ASSERT_OK(shoal_region_set_aside(region, PAGE, BYTES));
    here[0] = 1;
    ASSERT_EQ(test_wait(test_fork(child_uses_it, NULL)), 0);
    ASSERT_EQ(here[0] == 1 && here[MIB] == 7 && others[0] == 7, true);
    ASSERT_OK(shoal_region_take_back(region, PAGE, BYTES));
    ASSERT_EQ(are_all(here, BYTES, 7), true);
    end();
}

int main(void)
{
    static const struct test tests[] = {
        {"what is written meanwhile nobody else sees", what_is_written_meanwhile_nobody_else_sees},
        {"so it is where page tables cannot be moved", so_it_is_where_page_tables_cannot_be_moved},
        {"so it is where there is no room for a second mapping", so_it_is_where_there_is_no_room_for_a_second_mapping},
        {"one that fails changes nothing", one_that_fails_changes_nothing},
        {"it is known whether it was written", it_is_known_whether_it_was_written},
        {"a range that is written after a look is not taken for clean",
         a_range_that_is_written_after_a_look_is_not_taken_for_clean},
        {"the number of ranges is bounded", the_number_of_ranges_is_bounded},
        {"another thread may use it all the while", another_thread_may_use_it_all_the_while},
        {"a child has what its parent had", a_child_has_what_its_parent_had},
    };
    return test_main("region_aside", tests, TEST_COUNT(tests));
}

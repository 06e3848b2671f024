/* SPDX-License-Identifier: BSD-3-Clause */
#include "support.h"

#include <shoal/shoal.h>

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define PAGE 4096u
#define MIB (1ull << 20)

static struct shoal_region *region;
static struct shoal_shadow *shadow;

/* 4 MiB from the second page on, all sevens. */
static int begin(void)
{
    int status = shoal_region_create(16 * MIB, &region);
    if (status == 0)
        status = shoal_region_reserve(region, PAGE, 4 * MIB);
    if (status == 0) {
        memset(shoal_region_at(region, PAGE, 4 * MIB), 7, 4 * MIB);
        status = shoal_shadow_create(region, &shadow);
    }
    return status;
}

static void end(void)
{
    shoal_shadow_free(shadow);
    shoal_region_free(region);
}

static uint8_t *take(uint64_t offset, uint64_t bytes)
{
    void *view = NULL;
    ASSERT_OK(shoal_shadow_take(shadow, offset, bytes, &view));
    return view;
}

static uint8_t in_region(uint64_t offset)
{
    return *(uint8_t *)shoal_region_at(region, offset, 1);
}

static void what_is_written_nobody_else_sees(void)
{
    REQUIRE_OK(begin());
    uint8_t *view = take(PAGE, MIB);
    ASSERT_EQ(view[0], 7);
    memset(view, 1, MIB);
    ASSERT_EQ(view[MIB - 1], 1);
    ASSERT_EQ(in_region(PAGE), 7);
    ASSERT_EQ(in_region(MIB), 7);
    shoal_shadow_give(shadow, view, MIB);
    end();
}

static void a_view_begins_as_the_region_is_whatever_the_last_one_wrote(void)
{
    REQUIRE_OK(begin());
    for (int round = 0; round < 3; round++) {
        uint8_t *view = take(2 * PAGE, MIB);
        ASSERT_EQ(view[0] == 7 + round && view[MIB - 1] == 7 + round, true);
        view[MIB / 2] = 99;
        shoal_shadow_give(shadow, view, MIB);
        memset(shoal_region_at(region, 2 * PAGE, MIB), 8 + round, MIB); /* the block has become another one */
    }
    end();
}

static void a_view_that_was_only_read_shows_the_next_block_at_its_place(void)
{
    REQUIRE_OK(begin());
    uint8_t *view = take(PAGE, PAGE);
    ASSERT_EQ(view[5], 7);
    shoal_shadow_give(shadow, view, PAGE);
    memset(shoal_region_at(region, PAGE, PAGE), 8, PAGE);
    view = take(PAGE, PAGE);
    ASSERT_EQ(view[5], 8);
    shoal_shadow_give(shadow, view, PAGE);
    end();
}

static void views_of_the_same_pages_do_not_see_each_other(void)
{
    REQUIRE_OK(begin());
    uint8_t *views[50];
    for (int i = 0; i < 50; i++) {
        views[i] = take(PAGE + 100u * (unsigned)i, 5000); /* each shares a page with its neighbours */
        memset(views[i], i, 5000);
    }
    for (int i = 0; i < 50; i += 2)
        shoal_shadow_give(shadow, views[i], 5000);
    for (int i = 1; i < 50; i += 2) {
        ASSERT_EQ(views[i][0], i);
        ASSERT_EQ(views[i][4999], i);
        shoal_shadow_give(shadow, views[i], 5000);
    }
    ASSERT_EQ(in_region(PAGE), 7);
    end();
}

static void it_is_known_whether_a_view_was_written(void)
{
    REQUIRE_OK(begin());
    for (int own = 0; own < 2; own++) { /* of the whole mapping, and one of its own */
        uint8_t *other = own ? take(PAGE, MIB) : NULL;
        uint8_t *view = take(PAGE, MIB);
        volatile uint8_t sum = 0;
        for (uint64_t i = 0; i < MIB; i += PAGE)
            sum += view[i]; /* page faults, but no writes */
        (void)sum;
        int known = shoal_shadow_is_clean(shadow, view, MIB);
        view[MIB / 2] = 7; /* the same value */
        ASSERT_EQ(shoal_shadow_is_clean(shadow, view, MIB), 0);
        ASSERT_EQ(shoal_shadow_is_clean(shadow, view, MIB / 2 - PAGE), known);
        if (own)
            shoal_shadow_give(shadow, other, MIB);
        shoal_shadow_give(shadow, view, MIB);
    }
    end();
}

static void a_view_that_was_not_written_can_be_taken_again_in_place(void)
{
    REQUIRE_OK(begin());
    uint8_t *view = take(PAGE, MIB), *other = take(PAGE, MIB);
    ASSERT_EQ(shoal_shadow_renew(shadow, view, MIB), 1);
    volatile uint8_t sum = 0;
    for (uint64_t i = 0; i < MIB; i += PAGE)
        sum += view[i]; /* page faults, but no writes */
    (void)sum;
    int known = shoal_shadow_is_clean(shadow, view, MIB);
    ASSERT_EQ(shoal_shadow_renew(shadow, view, MIB), known);
    ASSERT_EQ(shoal_shadow_renew(shadow, view, MIB), known);
    view[MIB / 2] = 7; /* the same value */
    ASSERT_EQ(shoal_shadow_renew(shadow, view, MIB), 0);
    ASSERT_EQ(shoal_shadow_renew(shadow, view, MIB), 0);
    shoal_shadow_give(shadow, view, MIB);
    ASSERT_EQ(shoal_shadow_renew(shadow, view, MIB), 0); /* there is none */
    ASSERT_EQ(shoal_shadow_renew(shadow, other, MIB), 0); /* it has a mapping of its own */
    shoal_shadow_give(shadow, other, MIB);
    end();
}

static void where_the_page_tables_cannot_be_read_a_view_counts_as_written(void)
{
    REQUIRE_OK(begin());
    test_fault(TEST_FAULT_open, 0, -1, -EACCES);
    uint8_t *view = take(PAGE, MIB);
    volatile uint8_t first = view[0];
    (void)first;
    ASSERT_EQ(shoal_shadow_is_clean(shadow, view, MIB), 0);
    ASSERT_EQ(shoal_shadow_renew(shadow, view, MIB), 0);
    view[0] = 1;
    shoal_shadow_give(shadow, view, MIB);
    view = take(PAGE, MIB);
    ASSERT_EQ(view[0], 7);
    shoal_shadow_give(shadow, view, MIB);
    end();
}

static void where_the_whole_cannot_be_mapped_each_view_has_its_own(void)
{
    struct test_footprint before;
    test_footprint_take(&before);
    REQUIRE_OK(shoal_region_create(16 * MIB, &region));
    REQUIRE_OK(shoal_region_reserve(region, PAGE, MIB));
    test_fault(TEST_FAULT_mmap, 0, 1, -ENOMEM);
    REQUIRE_OK(shoal_shadow_create(region, &shadow));
    uint8_t *view = take(PAGE + 10, 2 * PAGE);
    view[0] = 3;
    ASSERT_EQ(in_region(PAGE + 10), 0);
    ASSERT_EQ(shoal_shadow_may_contain(shadow, view), true);
    test_fault(TEST_FAULT_mmap, 0, 1, -ENOMEM);
    void *none = NULL;
    ASSERT_EQ(shoal_shadow_take(shadow, PAGE, PAGE, &none), -ENOMEM);
    shoal_shadow_give(shadow, view, 2 * PAGE);
    ASSERT_EQ(shoal_shadow_may_contain(shadow, view), false);
    end();
    test_footprint_same(&before);
}

static void places_outside_are_refused(void)
{
    REQUIRE_OK(begin());
    void *view = NULL;
    ASSERT_EQ(shoal_shadow_take(shadow, 16 * MIB - 1, 2, &view), -EINVAL);
    ASSERT_EQ(shoal_shadow_take(shadow, UINT64_MAX, 1, &view), -EINVAL);
    ASSERT_EQ(shoal_shadow_take(shadow, PAGE, 0, &view), -EINVAL);
    CU_ASSERT_PTR_NULL(view);
    end();
}

static void the_number_of_mappings_is_bounded(void)
{
    REQUIRE_OK(begin());
    enum { MANY = 8192 };
    uint8_t *first = take(PAGE, PAGE);
    void **views = malloc((MANY + 1) * sizeof(*views));
    int taken = 0;
    while (taken <= MANY && shoal_shadow_take(shadow, PAGE, PAGE, &views[taken]) == 0)
        taken++;
    ASSERT_EQ(taken, MANY);
    ASSERT_EQ(shoal_shadow_take(shadow, PAGE, PAGE, &views[MANY]), -EMFILE);
    while (taken-- > 0)
        shoal_shadow_give(shadow, views[taken], PAGE);
    shoal_shadow_give(shadow, first, PAGE);
    ASSERT_EQ(shoal_shadow_may_contain(shadow, views[0]), false);
    free(views);
    end();
}

/* ---- in place ---- */

static int write_to(void *place)
{
    signal(SIGSEGV, SIG_DFL); /* not the sanitizer's report */
    *(volatile uint8_t *)place = 9;
    return 0;
}

static void a_range_of_the_region_itself_can_be_private_and_shared_again(void)
{
    void *mirror;
    REQUIRE_OK(shoal_region_create(16 * PAGE, &region));
    ASSERT_OK(shoal_region_reserve(region, PAGE, 2 * PAGE));
    REQUIRE_OK(shoal_region_mirror(region, PAGE, 2 * PAGE, &mirror)); /* what the others see */
    uint8_t *place = shoal_region_at(region, PAGE, 1), *others = mirror;
    place[0] = 1;
    ASSERT_OK(shoal_region_privatize(region, PAGE, PAGE));
    ASSERT_EQ(place[0], 1);
    place[0] = 2;
    place[PAGE] = 3;
    ASSERT_EQ(others[0], 1);
    ASSERT_EQ(others[PAGE], 3);
    ASSERT_OK(shoal_region_share(region, PAGE, PAGE, false));
    ASSERT_EQ(place[0], 1);
    ASSERT_EQ(test_wait(test_fork(write_to, place)), -SIGSEGV);
    ASSERT_OK(shoal_region_share(region, PAGE, PAGE, true));
    place[0] = 4;
    ASSERT_EQ(others[0], 4);
    ASSERT_EQ(shoal_region_share(region, PAGE, 0, true), -EINVAL);
    ASSERT_EQ(shoal_region_share(region, 16 * PAGE, PAGE, true), -EINVAL);
    ASSERT_OK(shoal_region_unmirror(mirror, 2 * PAGE));
    shoal_region_free(region);
}

/* ---- after a fork ---- */

static int child_writes(void *view)
{
    uint8_t *bytes = view;
    bytes[0] = 5;
    int clean = shoal_shadow_is_clean(shadow, bytes, MIB);
    shoal_shadow_give(shadow, bytes, MIB);
    uint8_t *again = NULL;
    if (clean != 0 || shoal_shadow_take(shadow, PAGE, MIB, (void **)&again) < 0)
        return 1;
    return again[0] != 7;
}

static void a_child_goes_on_with_what_it_inherited(void)
{
    REQUIRE_OK(begin());
    uint8_t *view = take(PAGE, MIB);
    volatile uint8_t first = view[0];
    (void)first;
    ASSERT_EQ(test_wait(test_fork(child_writes, view)), 0);
    ASSERT_EQ(view[0], 7);
    shoal_shadow_give(shadow, view, MIB);
    end();
}

int main(void)
{
    static const struct test tests[] = {
        {"what is written nobody else sees", what_is_written_nobody_else_sees},
        {"a view begins as the region is, whatever the last one wrote",
         a_view_begins_as_the_region_is_whatever_the_last_one_wrote},
        {"a view that was only read shows the next block at its place",
         a_view_that_was_only_read_shows_the_next_block_at_its_place},
        {"views of the same pages do not see each other", views_of_the_same_pages_do_not_see_each_other},
        {"it is known whether a view was written", it_is_known_whether_a_view_was_written},
        {"a view that was not written can be taken again in place",
         a_view_that_was_not_written_can_be_taken_again_in_place},
        {"where the page tables cannot be read, a view counts as written",
         where_the_page_tables_cannot_be_read_a_view_counts_as_written},
        {"where the whole cannot be mapped, each view has its own mapping",
         where_the_whole_cannot_be_mapped_each_view_has_its_own},
        {"places outside are refused", places_outside_are_refused},
        {"the number of mappings is bounded", the_number_of_mappings_is_bounded},
        {"a range of the region itself can be private, and shared again",
         a_range_of_the_region_itself_can_be_private_and_shared_again},
        {"a child goes on with what it inherited", a_child_goes_on_with_what_it_inherited},
    };
    return test_main("shadow", tests, TEST_COUNT(tests));
}

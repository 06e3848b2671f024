/* SPDX-License-Identifier: BSD-3-Clause */
#include "support.h"

#include "arena.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define PAGE 4096u
#define MIB (1ull << 20)
#define REGION_BYTES (256 * MIB)
#define START (MIB + PAGE) /* odd on purpose: units of 2 MiB count from the region's start */

struct fixture {
    struct shoal_region *region;
    struct shoal_arena *arena;
    struct test_footprint before;
};

static bool set_up(struct fixture *fixture, uint64_t size_bytes, uint64_t budget_bytes)
{
    test_footprint_take(&fixture->before);
    return ASSERT_OK(shoal_region_create(REGION_BYTES, &fixture->region)) &&
           ASSERT_OK(shoal_arena_create(fixture->region, START, size_bytes, budget_bytes, &fixture->arena));
}

static void tear_down(struct fixture *fixture)
{
    ASSERT_OK(shoal_arena_check(fixture->arena));
    shoal_arena_free(fixture->arena);
    shoal_region_free(fixture->region);
    test_footprint_same(&fixture->before);
}

static uint64_t backed_bytes(const struct fixture *fixture)
{
    struct stat info;
    return fstat(shoal_region_fd(fixture->region), &info) == 0 ? (uint64_t)info.st_blocks * 512 - PAGE : UINT64_MAX;
}

static void expect_stats(const struct fixture *fixture, uint64_t used, uint64_t cached, uint64_t blocks)
{
    struct shoal_arena_stats stats;
    shoal_arena_get_stats(fixture->arena, &stats);
    ASSERT_EQ(stats.used_bytes, used);
    ASSERT_EQ(stats.cached_bytes, cached);
    ASSERT_EQ(stats.block_count, blocks);
    ASSERT_EQ(backed_bytes(fixture), used + cached);
}

static uint64_t must_alloc(struct fixture *fixture, uint64_t size_bytes)
{
    uint64_t offset = 0;
    ASSERT_OK(shoal_arena_alloc(fixture->arena, size_bytes, &offset));
    return offset;
}

/* ---- taking and giving ---- */

static void a_freed_block_is_used_again_while_it_is_warm(void)
{
    struct fixture fixture;
    if (!set_up(&fixture, 128 * MIB, 64 * MIB))
        return;
    uint64_t one = must_alloc(&fixture, 3 * MIB / 2), two = must_alloc(&fixture, 3 * MIB / 2);
    ASSERT_EQ(one % PAGE, 0);
    memset(shoal_region_at(fixture.region, one, 3 * MIB / 2), 1, 3 * MIB / 2);
    expect_stats(&fixture, 3 * MIB, 0, 2);
    ASSERT_OK(shoal_arena_release(fixture.arena, one));
    expect_stats(&fixture, 3 * MIB / 2, 3 * MIB / 2, 1);
    test_fault(TEST_FAULT_fallocate, 0, -1, -ENOSPC); /* what is backed is not backed again */
    ASSERT_EQ(must_alloc(&fixture, MIB), one);
    expect_stats(&fixture, 5 * MIB / 2, MIB / 2, 2);
    test_fault_clear();
    ASSERT_OK(shoal_arena_release(fixture.arena, two));
    ASSERT_EQ(must_alloc(&fixture, 2 * MIB), one + MIB); /* neighbours have become one */
    tear_down(&fixture);
}

static void the_newest_freed_block_comes_first(void)
{
    struct fixture fixture;
    if (!set_up(&fixture, 128 * MIB, 64 * MIB))
        return;
    uint64_t blocks[8];
    for (int i = 0; i < 8; i++)
        blocks[i] = must_alloc(&fixture, MIB);
    ASSERT_OK(shoal_arena_release(fixture.arena, blocks[5]));
    ASSERT_OK(shoal_arena_release(fixture.arena, blocks[1]));
    ASSERT_OK(shoal_arena_release(fixture.arena, blocks[3]));
    ASSERT_EQ(must_alloc(&fixture, MIB), blocks[3]);
    ASSERT_EQ(must_alloc(&fixture, MIB), blocks[1]);
    ASSERT_EQ(must_alloc(&fixture, MIB), blocks[5]);
    ASSERT_OK(shoal_arena_release(fixture.arena, blocks[2]));
    ASSERT_OK(shoal_arena_release(fixture.arena, blocks[4]));
    ASSERT_OK(shoal_arena_release(fixture.arena, blocks[6]));
    ASSERT_EQ(must_alloc(&fixture, MIB / 4), blocks[6]); /* also when it has to be cut */
    tear_down(&fixture);
}

static void small_blocks_are_backed_in_batches(void)
{
    struct fixture fixture;
    if (!set_up(&fixture, 128 * MIB, 64 * MIB))
        return;
    test_fault_clear();
    for (int i = 0; i < 64; i++)
        must_alloc(&fixture, i % 2 ? 1 : 0); /* nothing is a page, too */
    ASSERT_EQ(test_fault_calls(TEST_FAULT_fallocate), 1);
    expect_stats(&fixture, 64 * PAGE, 0, 64);
    tear_down(&fixture);
}

static void a_block_can_be_cut_down(void)
{
    struct fixture fixture;
    if (!set_up(&fixture, 128 * MIB, 64 * MIB))
        return;
    uint64_t block = must_alloc(&fixture, 4 * MIB);
    ASSERT_OK(shoal_arena_shrink(fixture.arena, block, MIB + 1));
    expect_stats(&fixture, MIB + PAGE, 3 * MIB - PAGE, 1);
    ASSERT_EQ(shoal_arena_shrink(fixture.arena, block, 2 * MIB), -EINVAL);
    ASSERT_EQ(must_alloc(&fixture, 2 * MIB), block + MIB + PAGE);
    ASSERT_OK(shoal_arena_shrink(fixture.arena, block, 0));
    expect_stats(&fixture, 2 * MIB + PAGE, 2 * MIB - PAGE, 2);
    ASSERT_EQ(shoal_arena_shrink(fixture.arena, block + PAGE, 0), -ENOENT);
    tear_down(&fixture);
}

static void a_block_is_found_by_any_place_inside(void)
{
    struct fixture fixture;
    uint64_t block = 0, bytes = 0;
    if (!set_up(&fixture, 128 * MIB, 64 * MIB))
        return;
    uint64_t gap = must_alloc(&fixture, MIB), big = must_alloc(&fixture, 3 * MIB - 5);
    ASSERT_OK(shoal_arena_find(fixture.arena, big, 3 * MIB, &block, &bytes));
    ASSERT_EQ(block, big);
    ASSERT_EQ(bytes, 3 * MIB);
    ASSERT_OK(shoal_arena_find(fixture.arena, big + 3 * MIB - 1, 1, &block, &bytes));
    ASSERT_EQ(block, big);
    ASSERT_EQ(shoal_arena_find(fixture.arena, big + 3 * MIB - 1, 2, &block, &bytes), -ENOENT);
    ASSERT_EQ(shoal_arena_find(fixture.arena, big + 1, UINT64_MAX, &block, &bytes), -ENOENT);
    ASSERT_EQ(shoal_arena_find(fixture.arena, big + 3 * MIB, 1, &block, &bytes), -ENOENT);
    ASSERT_EQ(shoal_arena_find(fixture.arena, START - 1, 1, &block, &bytes), -ENOENT);
    ASSERT_EQ(shoal_arena_find(fixture.arena, START + 128 * MIB, 0, &block, &bytes), -ENOENT);
    ASSERT_EQ(shoal_arena_find(fixture.arena, UINT64_MAX, 1, &block, &bytes), -ENOENT);
    ASSERT_OK(shoal_arena_release(fixture.arena, gap));
    ASSERT_EQ(shoal_arena_find(fixture.arena, gap, 1, &block, &bytes), -ENOENT);
    tear_down(&fixture);
}

static void places_that_are_no_block_are_refused(void)
{
    struct fixture fixture;
    struct shoal_arena *arena = NULL;
    if (!set_up(&fixture, 128 * MIB, 64 * MIB))
        return;
    uint64_t block = must_alloc(&fixture, MIB);
    const uint64_t wrong[] = { 0, START - PAGE, block + PAGE, block + 1, block + MIB, START + 128 * MIB, UINT64_MAX };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        ASSERT_EQ(shoal_arena_retain(fixture.arena, wrong[i]), -ENOENT);
        ASSERT_EQ(shoal_arena_release(fixture.arena, wrong[i]), -ENOENT);
        ASSERT_EQ(shoal_arena_hold(fixture.arena, wrong[i], 1), -ENOENT);
        ASSERT_EQ(shoal_arena_unhold(fixture.arena, wrong[i], 1), -ENOENT);
        ASSERT_EQ(shoal_arena_exclusive(fixture.arena, wrong[i], -1), -ENOENT);
        ASSERT_EQ(shoal_arena_holds(fixture.arena, wrong[i], 1), -ENOENT);
    }
    ASSERT_EQ(shoal_arena_hold(fixture.arena, block, SHOAL_ARENA_HOLDERS_MAX), -EINVAL);
    ASSERT_EQ(shoal_arena_unhold(fixture.arena, block, SHOAL_ARENA_HOLDERS_MAX), -EINVAL);
    ASSERT_EQ(shoal_arena_forget(fixture.arena, SHOAL_ARENA_HOLDERS_MAX), -EINVAL);
    ASSERT_EQ(shoal_arena_exclusive(fixture.arena, block, SHOAL_ARENA_HOLDERS_MAX), -EINVAL);
    ASSERT_EQ(shoal_arena_holds(fixture.arena, block, SHOAL_ARENA_HOLDERS_MAX), -EINVAL);
    ASSERT_EQ(shoal_arena_create(fixture.region, 0, MIB, 0, &arena), -EINVAL); /* the region's header */
    ASSERT_EQ(shoal_arena_create(fixture.region, START + 1, MIB, 0, &arena), -EINVAL);
    ASSERT_EQ(shoal_arena_create(fixture.region, START, 0, 0, &arena), -EINVAL);
    ASSERT_EQ(shoal_arena_create(fixture.region, START, REGION_BYTES, 0, &arena), -EINVAL);
    ASSERT_EQ(shoal_arena_create(fixture.region, START, MIB, PAGE - 1, &arena), -EINVAL);
    CU_ASSERT_PTR_NULL(arena);
    shoal_arena_free(NULL);
    tear_down(&fixture);
}

/* ---- holders ---- */

static void a_block_lives_until_nobody_holds_it(void)
{
    struct fixture fixture;
    if (!set_up(&fixture, 128 * MIB, 64 * MIB))
        return;
    const unsigned holders[] = { 0, 63, 64, 127, 1023 };
    uint64_t block = must_alloc(&fixture, MIB);
    ASSERT_EQ(shoal_arena_exclusive(fixture.arena, block, -1), 1);
    ASSERT_OK(shoal_arena_retain(fixture.arena, block));
    for (int i = 0; i < 5; i++) {
        ASSERT_EQ(shoal_arena_exclusive(fixture.arena, block, (int)holders[i]), 0);
        ASSERT_EQ(shoal_arena_holds(fixture.arena, block, holders[i]), 0);
        ASSERT_OK(shoal_arena_hold(fixture.arena, block, holders[i]));
        ASSERT_EQ(shoal_arena_holds(fixture.arena, block, holders[i]), 1);
        ASSERT_OK(shoal_arena_hold(fixture.arena, block, holders[i])); /* twice is once */
        ASSERT_EQ(shoal_arena_exclusive(fixture.arena, block, -1), 0);
        ASSERT_EQ(shoal_arena_exclusive(fixture.arena, block, (int)holders[i]), 0);
    }
    ASSERT_OK(shoal_arena_release(fixture.arena, block));
    ASSERT_OK(shoal_arena_release(fixture.arena, block));
    ASSERT_EQ(shoal_arena_release(fixture.arena, block), -EINVAL);
    for (int i = 0; i < 4; i++) {
        ASSERT_EQ(shoal_arena_exclusive(fixture.arena, block, 1023), 0);
        ASSERT_OK(shoal_arena_unhold(fixture.arena, block, holders[i]));
        ASSERT_OK(shoal_arena_unhold(fixture.arena, block, holders[i])); /* not holding is fine */
    }
    ASSERT_EQ(shoal_arena_exclusive(fixture.arena, block, 1023), 1);
    ASSERT_EQ(shoal_arena_exclusive(fixture.arena, block, 63), 0);
    expect_stats(&fixture, MIB, 0, 1);
    ASSERT_OK(shoal_arena_unhold(fixture.arena, block, 1023));
    expect_stats(&fixture, 0, MIB, 0);
    block = must_alloc(&fixture, MIB);
    ASSERT_OK(shoal_arena_hold(fixture.arena, block, 7));
    ASSERT_OK(shoal_arena_release(fixture.arena, block));
    ASSERT_EQ(shoal_arena_exclusive(fixture.arena, block, 7), 1);
    ASSERT_EQ(shoal_arena_exclusive(fixture.arena, block, 8), 0);
    tear_down(&fixture);
}

static void a_dead_holder_is_forgotten_exactly(void)
{
    struct fixture fixture;
    enum { COUNT = 60 };
    uint64_t blocks[COUNT];
    if (!set_up(&fixture, 128 * MIB, 64 * MIB))
        return;
    for (unsigned i = 0; i < COUNT; i++) {
        blocks[i] = must_alloc(&fixture, (1 + i % 5) * PAGE);
        if (i % 2)
            ASSERT_OK(shoal_arena_hold(fixture.arena, blocks[i], 5));
        if (i % 3 == 0)
            ASSERT_OK(shoal_arena_hold(fixture.arena, blocks[i], 500));
    }
    for (unsigned i = 0; i < COUNT; i++)
        if (i % 5)
            ASSERT_OK(shoal_arena_release(fixture.arena, blocks[i])); /* some are free at once */
    ASSERT_OK(shoal_arena_forget(fixture.arena, 5));
    ASSERT_OK(shoal_arena_check(fixture.arena));
    uint64_t left = 0;
    for (unsigned i = 0; i < COUNT; i++) {
        bool held = i % 3 == 0 || i % 5 == 0;
        left += held;
        ASSERT_EQ(shoal_arena_exclusive(fixture.arena, blocks[i], 5), held ? 0 : -ENOENT);
    }
    struct shoal_arena_stats stats;
    shoal_arena_get_stats(fixture.arena, &stats);
    ASSERT_EQ(stats.block_count, left);
    ASSERT_OK(shoal_arena_forget(fixture.arena, 500));
    shoal_arena_get_stats(fixture.arena, &stats);
    ASSERT_EQ(stats.block_count, COUNT / 5);
    tear_down(&fixture);
}

/* ---- budget and the system ---- */

static void the_budget_holds_and_says_whether_freeing_helps(void)
{
    struct fixture fixture;
    uint64_t offset = 77;
    if (!set_up(&fixture, 128 * MIB, 16 * MIB))
        return;
    ASSERT_EQ(shoal_arena_alloc(fixture.arena, 16 * MIB + 1, &offset), -E2BIG);
    ASSERT_EQ(shoal_arena_alloc(fixture.arena, UINT64_MAX, &offset), -E2BIG);
    uint64_t block = must_alloc(&fixture, 10 * MIB);
    ASSERT_EQ(shoal_arena_alloc(fixture.arena, 7 * MIB, &offset), -EDQUOT);
    ASSERT_EQ(offset, 77);
    must_alloc(&fixture, 6 * MIB);
    ASSERT_EQ(shoal_arena_alloc(fixture.arena, 1, &offset), -EDQUOT);
    expect_stats(&fixture, 16 * MIB, 0, 2);
    ASSERT_OK(shoal_arena_release(fixture.arena, block));
    must_alloc(&fixture, 7 * MIB);
    expect_stats(&fixture, 13 * MIB, 3 * MIB, 2);
    tear_down(&fixture);
}

static void cached_memory_in_the_way_of_the_budget_is_given_back(void)
{
    struct fixture fixture;
    if (!set_up(&fixture, 128 * MIB, 16 * MIB))
        return;
    uint64_t one = must_alloc(&fixture, 6 * MIB);
    must_alloc(&fixture, PAGE); /* keeps the two from becoming one */
    uint64_t two = must_alloc(&fixture, 6 * MIB);
    ASSERT_OK(shoal_arena_release(fixture.arena, one));
    ASSERT_OK(shoal_arena_release(fixture.arena, two));
    must_alloc(&fixture, 15 * MIB);
    struct shoal_arena_stats stats;
    shoal_arena_get_stats(fixture.arena, &stats);
    CU_ASSERT_TRUE(stats.used_bytes + stats.cached_bytes <= 16 * MIB);
    ASSERT_EQ(backed_bytes(&fixture), stats.used_bytes + stats.cached_bytes);
    tear_down(&fixture);
}

static void trimming_gives_memory_back_to_the_system(void)
{
    struct fixture fixture;
    if (!set_up(&fixture, 128 * MIB, 64 * MIB))
        return;
    uint64_t one = must_alloc(&fixture, 9 * MIB), two = must_alloc(&fixture, PAGE), three = must_alloc(&fixture, PAGE);
    memset(shoal_region_at(fixture.region, two, PAGE), 2, PAGE);
    ASSERT_OK(shoal_arena_release(fixture.arena, one));
    ASSERT_OK(shoal_arena_release(fixture.arena, three));
    ASSERT_OK(shoal_arena_trim(fixture.arena, 5 * MIB));
    struct shoal_arena_stats stats;
    shoal_arena_get_stats(fixture.arena, &stats);
    CU_ASSERT_TRUE(stats.cached_bytes <= 5 * MIB);
    CU_ASSERT_TRUE(stats.cached_bytes > 5 * MIB - 2 * MIB - PAGE); /* not more than a unit too much */
    ASSERT_EQ(backed_bytes(&fixture), stats.used_bytes + stats.cached_bytes);
    ASSERT_OK(shoal_arena_trim(fixture.arena, 0));
    expect_stats(&fixture, PAGE, 0, 1);
    ASSERT_EQ(*(uint8_t *)shoal_region_at(fixture.region, two + PAGE - 1, 1), 2);
    tear_down(&fixture);
}

static void a_system_without_memory_is_an_error_and_leaves_no_trace(void)
{
    struct fixture fixture;
    uint64_t offset = 77;
    if (!set_up(&fixture, 128 * MIB, 64 * MIB))
        return;
    uint64_t kept = must_alloc(&fixture, 2 * MIB);
    test_fault(TEST_FAULT_fallocate, 9, 2, -ENOSPC); /* behind 16 of 20 MiB: of a large page, and altogether */
    ASSERT_EQ(shoal_arena_alloc(fixture.arena, 20 * MIB, &offset), -ENOSPC);
    ASSERT_EQ(offset, 77);
    expect_stats(&fixture, 2 * MIB, 0, 1); /* the first half was given back */
    ASSERT_OK(shoal_arena_check(fixture.arena));
    test_fault_clear();
    must_alloc(&fixture, 20 * MIB);
    ASSERT_OK(shoal_arena_release(fixture.arena, kept));
    expect_stats(&fixture, 20 * MIB, 2 * MIB, 1);
    tear_down(&fixture);
}

static void cached_memory_is_given_back_when_the_system_has_none(void)
{
    struct fixture fixture;
    if (!set_up(&fixture, 128 * MIB, 64 * MIB))
        return;
    uint64_t one = must_alloc(&fixture, 6 * MIB);
    must_alloc(&fixture, PAGE);
    ASSERT_OK(shoal_arena_release(fixture.arena, one));
    /* of a large page, then of all; the second attempt, after giving back, works */
    test_fault(TEST_FAULT_fallocate, 0, 2, -ENOSPC);
    must_alloc(&fixture, 8 * MIB);
    struct shoal_arena_stats stats;
    shoal_arena_get_stats(fixture.arena, &stats);
    ASSERT_EQ(stats.cached_bytes, 0);
    ASSERT_EQ(backed_bytes(&fixture), stats.used_bytes);
    tear_down(&fixture);
}

static void a_memory_cgroup_is_respected_for_blocks_of_all_sizes(void)
{
    struct fixture fixture;
    uint64_t offset;
    if (!set_up(&fixture, 128 * MIB, 64 * MIB))
        return;
    test_replace_file("/proc/self/cgroup", "0::/\n");
    test_replace_file("/proc/self/mountinfo", "30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    test_replace_file("/sys/fs/cgroup/memory.max", "8388608\n");
    test_replace_file("/sys/fs/cgroup/memory.current", "8388608\n");
    ASSERT_EQ(shoal_arena_alloc(fixture.arena, 4 * MIB, &offset), -ENOMEM);
    int status = 0, count = 0;
    while (status == 0 && count < 10000) /* what is not asked for each small block is asked for their sum */
        status = shoal_arena_alloc(fixture.arena, PAGE, &offset), count++;
    ASSERT_EQ(status, -ENOMEM);
    CU_ASSERT_TRUE(count <= 2 * (int)(MIB / PAGE));
    tear_down(&fixture);
}

static void holes_too_small_for_a_block_are_told_from_a_used_up_budget(void)
{
    struct fixture fixture;
    uint64_t offset, blocks[16];
    if (!set_up(&fixture, 16 * MIB, 16 * MIB))
        return;
    for (int i = 0; i < 16; i++)
        blocks[i] = must_alloc(&fixture, MIB);
    for (int i = 0; i < 16; i += 2)
        ASSERT_OK(shoal_arena_release(fixture.arena, blocks[i]));
    ASSERT_EQ(shoal_arena_alloc(fixture.arena, 2 * MIB, &offset), -ENOSPC);
    must_alloc(&fixture, MIB);
    tear_down(&fixture);
}

static void the_default_budget_is_half_of_what_there_is(void)
{
    struct fixture fixture;
    struct shoal_arena_stats stats;
    test_replace_file("/proc/meminfo", "MemAvailable: 65536 kB\n");
    test_replace_file("/proc/self/cgroup", "");
    if (!set_up(&fixture, 128 * MIB, 0))
        return;
    shoal_arena_get_stats(fixture.arena, &stats);
    ASSERT_EQ(stats.budget_bytes, 32 * MIB);
    tear_down(&fixture);
}

/* ---- many ---- */

static void a_hundred_thousand_blocks_are_fine(void)
{
    struct fixture fixture;
    enum { COUNT = 100000 };
    uint64_t *blocks = calloc(COUNT, sizeof(*blocks));
    struct shoal_region *region;
    test_footprint_take(&fixture.before);
    REQUIRE_OK(shoal_region_create(1024 * MIB, &region));
    fixture.region = region;
    REQUIRE_OK(shoal_arena_create(region, START, 512 * MIB, 512 * MIB, &fixture.arena));
    for (int i = 0; i < COUNT; i++)
        blocks[i] = must_alloc(&fixture, 1);
    expect_stats(&fixture, (uint64_t)COUNT * PAGE, (64 - COUNT % 64) * PAGE, COUNT); /* backed by 64 */
    for (int i = 0; i < COUNT; i += 2)
        ASSERT_OK(shoal_arena_release(fixture.arena, blocks[i]));
    for (int i = 1; i < COUNT; i += 2)
        ASSERT_OK(shoal_arena_release(fixture.arena, blocks[i]));
    ASSERT_OK(shoal_arena_trim(fixture.arena, 0));
    expect_stats(&fixture, 0, 0, 0);
    free(blocks);
    tear_down(&fixture);
}

/* ---- the check itself ---- */

static void a_damaged_structure_is_noticed(void)
{
    struct fixture fixture;
    if (!set_up(&fixture, 128 * MIB, 64 * MIB))
        return;
    uint64_t one = must_alloc(&fixture, MIB);
    must_alloc(&fixture, MIB);
    ASSERT_OK(shoal_arena_release(fixture.arena, one));
    struct shoal__extent *extent = shoal__index_at(&fixture.arena->index, 0);
    fixture.arena->used_pages++;
    ASSERT_EQ(shoal_arena_check(fixture.arena), -EUCLEAN);
    fixture.arena->used_pages--;
    extent->page_count++;
    ASSERT_EQ(shoal_arena_check(fixture.arena), -EUCLEAN);
    extent->page_count--;
    extent->after->used.owner_count = 0;
    ASSERT_EQ(shoal_arena_check(fixture.arena), -EUCLEAN);
    extent->after->used.owner_count = 1;
    extent->state = SHOAL__EXTENT_COLD;
    ASSERT_EQ(shoal_arena_check(fixture.arena), -EUCLEAN);
    extent->state = SHOAL__EXTENT_WARM;
    tear_down(&fixture);
}

static const struct test tests[] = {
    { "a freed block is used again while it is warm, and merges with its neighbours",
      a_freed_block_is_used_again_while_it_is_warm },
    { "the newest freed block comes first", the_newest_freed_block_comes_first },
    { "small blocks are backed in batches", small_blocks_are_backed_in_batches },
    { "a block can be cut down, never grown", a_block_can_be_cut_down },
    { "a block is found by any place inside", a_block_is_found_by_any_place_inside },
    { "places that are no block are refused", places_that_are_no_block_are_refused },
    { "a block lives until nobody holds it", a_block_lives_until_nobody_holds_it },
    { "a dead holder is forgotten exactly", a_dead_holder_is_forgotten_exactly },
    { "the budget holds, and says whether freeing helps", the_budget_holds_and_says_whether_freeing_helps },
    { "cached memory in the way of the budget is given back", cached_memory_in_the_way_of_the_budget_is_given_back },
    { "trimming gives memory back to the system", trimming_gives_memory_back_to_the_system },
    { "a system without memory is an error and leaves no trace",
      a_system_without_memory_is_an_error_and_leaves_no_trace },
    { "cached memory is given back when the system has none", cached_memory_is_given_back_when_the_system_has_none },
    { "a memory cgroup is respected for blocks of all sizes", a_memory_cgroup_is_respected_for_blocks_of_all_sizes },
    { "holes too small for a block are told from a used-up budget",
      holes_too_small_for_a_block_are_told_from_a_used_up_budget },
    { "the default budget is half of what there is", the_default_budget_is_half_of_what_there_is },
    { "a hundred thousand blocks are fine", a_hundred_thousand_blocks_are_fine },
    { "a damaged structure is noticed", a_damaged_structure_is_noticed },
};

int main(void)
{
    return test_main("arena", tests, TEST_COUNT(tests));
}

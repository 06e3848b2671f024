/* SPDX-License-Identifier: BSD-3-Clause */
/* test_arena_model.c - 100,000 random operations on an arena, compared with a model. SHOAL_TEST_SEED: another run. */
#include "support.h"

#include <shoal/arena.h>

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#define PAGE 4096u
#define MIB (1ull << 20)
#define START (MIB + PAGE)
#define ARENA_BYTES (64 * MIB)
#define BUDGET_BYTES (32 * MIB)

#define MODEL_BLOCKS 200
#define MODEL_HOLDERS 4

struct model_block {
    uint64_t offset, pages;
    unsigned owners;
    unsigned holders; /* bit i: holder i * 300 */
    uint64_t tag;
};

struct model {
    struct shoal_region *region;
    struct shoal_arena *arena;
    struct model_block blocks[MODEL_BLOCKS];
    uint8_t owner_of_page[ARENA_BYTES / PAGE]; /* 1 + index, 0 none */
    uint64_t random;
    uint64_t used_pages, allocated, refused;
};

static unsigned draw(struct model *model, unsigned below)
{
    model->random = model->random * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)(model->random >> 33) % below;
}

static uint64_t *word_at(struct model *model, uint64_t offset)
{
    return shoal_region_at(model->region, offset, 8);
}

static void model_claim(struct model *model, struct model_block *block)
{
    uint8_t mark = (uint8_t)(1 + (block - model->blocks));
    uint64_t first = (block->offset - START) / PAGE;
    bool clear = true;
    for (uint64_t page = first; page < first + block->pages; page++) {
        clear = clear && model->owner_of_page[page] == 0;
        model->owner_of_page[page] = mark;
    }
    CU_ASSERT_TRUE(clear);
    block->tag = model->random;
    *word_at(model, block->offset) = block->tag;
    *word_at(model, block->offset + block->pages * PAGE - 8) = ~block->tag;
    model->used_pages += block->pages;
}

static void model_unclaim(struct model *model, struct model_block *block, uint64_t keep_pages)
{
    uint64_t first = (block->offset - START) / PAGE;
    for (uint64_t page = first + keep_pages; page < first + block->pages; page++)
        model->owner_of_page[page] = 0;
    model->used_pages -= block->pages - keep_pages;
    block->pages = keep_pages;
}

static void model_check_content(struct model *model, const struct model_block *block)
{
    if (*word_at(model, block->offset) != block->tag ||
        *word_at(model, block->offset + block->pages * PAGE - 8) != ~block->tag)
        CU_FAIL("a block's content was changed while it was held");
}

static void model_drop_if_unheld(struct model *model, struct model_block *block)
{
    if (block->owners || block->holders)
        return;
    model_check_content(model, block);
    model_unclaim(model, block, 0);
}

static void model_alloc(struct model *model, struct model_block *block)
{
    unsigned kind = draw(model, 10);
    uint64_t pages = 1 + (kind < 6 ? draw(model, 8) : kind < 9 ? draw(model, 300) : draw(model, 3000));
    int status = shoal_arena_alloc(model->arena, pages * PAGE - draw(model, PAGE), &block->offset);
    if (status < 0) {
        model->refused++;
        if (status == -EDQUOT)
            ASSERT_EQ(model->used_pages + pages > BUDGET_BYTES / PAGE, true);
        else
            ASSERT_EQ(status, -ENOSPC);
        return;
    }
    model->allocated++;
    block->pages = pages;
    block->owners = 1;
    block->holders = 0;
    model_claim(model, block);
}

static void model_act_on(struct model *model, struct model_block *block)
{
    struct shoal_arena *arena = model->arena;
    unsigned holder = draw(model, MODEL_HOLDERS), bit = 1u << holder;
    switch (draw(model, 9)) {
    case 0:
        ASSERT_OK(shoal_arena_retain(arena, block->offset));
        block->owners++;
        break;
    case 1:
        ASSERT_OK(shoal_arena_hold(arena, block->offset, holder * 300));
        block->holders |= bit;
        break;
    case 2:
        ASSERT_OK(shoal_arena_unhold(arena, block->offset, holder * 300));
        block->holders &= ~bit;
        break;
    case 3: {
        uint64_t keep = 1 + draw(model, (unsigned)block->pages);
        ASSERT_OK(shoal_arena_shrink(arena, block->offset, keep * PAGE));
        model_check_content(model, block);
        model_unclaim(model, block, keep);
        *word_at(model, block->offset) = block->tag;
        *word_at(model, block->offset + keep * PAGE - 8) = ~block->tag;
        break;
    }
    default:
        ASSERT_EQ(shoal_arena_release(arena, block->offset), block->owners ? 0 : -EINVAL);
        block->owners -= block->owners > 0;
    }
    if (block->pages)
        model_drop_if_unheld(model, block);
}

static void model_forget(struct model *model)
{
    unsigned holder = draw(model, MODEL_HOLDERS);
    ASSERT_OK(shoal_arena_forget(model->arena, holder * 300));
    for (int i = 0; i < MODEL_BLOCKS; i++) {
        struct model_block *block = &model->blocks[i];
        block->holders &= ~(1u << holder);
        if (block->pages)
            model_drop_if_unheld(model, block);
    }
}

static uint64_t backed_bytes(const struct model *model)
{
    struct stat info;
    return fstat(shoal_region_fd(model->region), &info) == 0 ? (uint64_t)info.st_blocks * 512 - PAGE : UINT64_MAX;
}

static void model_compare(struct model *model)
{
    struct shoal_arena_stats stats;
    uint64_t blocks = 0;
    for (int i = 0; i < MODEL_BLOCKS; i++) {
        if (!model->blocks[i].pages)
            continue;
        blocks++;
        model_check_content(model, &model->blocks[i]);
    }
    ASSERT_OK(shoal_arena_check(model->arena));
    shoal_arena_get_stats(model->arena, &stats);
    ASSERT_EQ(stats.block_count, blocks);
    ASSERT_EQ(stats.used_bytes, model->used_pages * PAGE);
    ASSERT_EQ(backed_bytes(model), stats.used_bytes + stats.cached_bytes);
}

static void random_operations_agree_with_a_model(void)
{
    struct model *model = calloc(1, sizeof(*model));
    const char *seed = getenv("SHOAL_TEST_SEED");
    model->random = seed ? strtoull(seed, NULL, 10) : 20240607;
    REQUIRE_OK(shoal_region_create(2 * ARENA_BYTES, &model->region));
    REQUIRE_OK(shoal_arena_create(model->region, START, ARENA_BYTES, BUDGET_BYTES, &model->arena));
    for (int step = 0; step < 100000; step++) {
        struct model_block *block = &model->blocks[draw(model, MODEL_BLOCKS)];
        if (draw(model, 300) == 0)
            model_forget(model);
        else if (draw(model, 2000) == 0)
            shoal_arena_trim(model->arena, draw(model, 16) * MIB);
        else if (block->pages == 0)
            model_alloc(model, block);
        else
            model_act_on(model, block);
        if (step % 1000 == 0)
            model_compare(model);
    }
    model_compare(model);
    CU_ASSERT_TRUE(model->allocated > 10000);
    CU_ASSERT_TRUE(model->refused > 10); /* the budget was met, too */
    shoal_arena_free(model->arena);
    shoal_region_free(model->region);
    free(model);
}

static const struct test tests[] = {
    { "random operations agree with a model", random_operations_agree_with_a_model },
};

int main(void)
{
    return test_main("arena_model", tests, TEST_COUNT(tests));
}

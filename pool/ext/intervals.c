/* SPDX-License-Identifier: BSD-3-Clause */
/* intervals.c - see intervals.h. The depth of all recursion is that of the tree, some twice the logarithm. */
#include "intervals.h"

/* In the order of the tree; equal starts by address, so that each node has a place of its own. */
static bool before(const struct interval *a, const struct interval *b)
{
    return a->start != b->start ? a->start < b->start : (uintptr_t)a < (uintptr_t)b;
}

static void update(struct interval *node)
{
    node->greatest_end = node->end;
    if (node->left != NULL && node->left->greatest_end > node->greatest_end)
        node->greatest_end = node->left->greatest_end;
    if (node->right != NULL && node->right->greatest_end > node->greatest_end)
        node->greatest_end = node->right->greatest_end;
}

/* Both trees as one: everything in `first` is before everything in `second`. */
static struct interval *merge(struct interval *first, struct interval *second)
{
    if (first == NULL || second == NULL)
        return first != NULL ? first : second;
    if (first->priority >= second->priority) {
        first->right = merge(first->right, second);
        update(first);
        return first;
    }
    second->left = merge(first, second->left);
    update(second);
    return second;
}

/* The tree in two: what is before `at`, and the rest. */
static void split(struct interval *tree, const struct interval *at, struct interval **ret_first,
                  struct interval **ret_second)
{
    if (tree == NULL) {
        *ret_first = *ret_second = NULL;
    } else if (before(tree, at)) {
        *ret_first = tree;
        split(tree->right, at, &tree->right, ret_second);
        update(tree);
    } else {
        *ret_second = tree;
        split(tree->left, at, ret_first, &tree->left);
        update(tree);
    }
}

/* Good enough for a heap: a mix of the node's own address, which malloc does not choose by order of start. */
static uint32_t random_of(const struct interval *node)
{
    uint64_t mixed = (uint64_t)(uintptr_t)node * UINT64_C(0x9E3779B97F4A7C15);
    mixed ^= mixed >> 29;
    return (uint32_t)(mixed * UINT64_C(0xBF58476D1CE4E5B9) >> 32);
}

void interval_add(struct interval **root, struct interval *node)
{
    struct interval *first, *second;
    node->left = node->right = NULL;
    node->priority = random_of(node);
    update(node);
    split(*root, node, &first, &second);
    *root = merge(merge(first, node), second);
}

static struct interval *without(struct interval *tree, const struct interval *node)
{
    if (tree == NULL)
        return NULL;
    if (tree == node)
        return merge(tree->left, tree->right);
    if (before(node, tree))
        tree->left = without(tree->left, node);
    else
        tree->right = without(tree->right, node);
    update(tree);
    return tree;
}

void interval_remove(struct interval **root, struct interval *node)
{
    *root = without(*root, node);
}

/*
 * If some node of the left half ends late enough, it is an answer wherever that half begins early enough; so only the
 * search to the right can be in vain, and it goes down once.
 */
struct interval *interval_containing(struct interval *root, uint64_t start, uint64_t end)
{
    if (root == NULL || root->greatest_end < end)
        return NULL;
    if (root->start > start)
        return interval_containing(root->left, start, end);
    if (root->end >= end)
        return root;
    struct interval *found = interval_containing(root->right, start, end);
    return found != NULL ? found : interval_containing(root->left, start, end);
}

void interval_each_at(struct interval *root, uint64_t start, void (*visit)(struct interval *node, void *arg), void *arg)
{
    if (root == NULL)
        return;
    if (start <= root->start)
        interval_each_at(root->left, start, visit, arg);
    if (start == root->start)
        visit(root, arg);
    if (start >= root->start)
        interval_each_at(root->right, start, visit, arg);
}

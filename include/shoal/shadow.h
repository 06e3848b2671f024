/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * shadow.h - private views of a region: as good as a copy, at the price of none.
 *
 * The problem: a process is to have bytes of a region as its own. It may write them, nobody else sees that, and most
 * of the time it only reads.
 *
 * The answer: a second, copy-on-write mapping of the region. What is read is the one copy that all share; a page that
 * is written becomes a page of this process. When the view is given back, the pages are the region's again.
 *
 * What the caller sees to: nobody writes into the range, and it stays backed, for as long as there is a view of it (a
 * page that was not written yet shows later writes).
 *
 * Not thread-safe: the caller serialises. A forked child inherits the views that exist as its own, and may go on with
 * its copy of the handle.
 */
#ifndef SHOAL_SHADOW_H
#define SHOAL_SHADOW_H

#include <shoal/export.h>
#include <shoal/region.h>

SHOAL_BEGIN_DECLS

struct shoal_shadow;

SHOAL_API int shoal_shadow_create(struct shoal_region *region, struct shoal_shadow **ret_shadow);
SHOAL_API void shoal_shadow_free(struct shoal_shadow *shadow); /* all views end */

/*
 * A view of [offset, offset + length_bytes), which no other view that was taken shares a page with. -ENOMEM, or
 * -EMFILE when this process has too many mappings: make a copy then.
 */
SHOAL_API int shoal_shadow_take(struct shoal_shadow *shadow, uint64_t offset, uint64_t length_bytes,
                                void **ret_address);

/* Give back a view, by the address and length with which it was taken. */
SHOAL_API void shoal_shadow_give(struct shoal_shadow *shadow, void *address, uint64_t length_bytes);

/*
 * Take a view again that was taken by this process and is given back at the same time, all in one: 1. What it shows is
 * the region's then; it was not written. 0: it was, or it cannot be known: give it back and take another.
 */
SHOAL_API int shoal_shadow_renew(struct shoal_shadow *shadow, const void *address, uint64_t length_bytes);

/* 1: nothing was written through this view since it was taken; 0: something was, or it cannot be known. */
SHOAL_API int shoal_shadow_is_clean(const struct shoal_shadow *shadow, const void *address, uint64_t length_bytes);

/* False: there is no view at this address. True: there may be one. */
SHOAL_API bool shoal_shadow_may_contain(const struct shoal_shadow *shadow, const void *address);

SHOAL_END_DECLS
#endif

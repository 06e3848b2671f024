/* SPDX-License-Identifier: BSD-3-Clause */
/* export.h - what is exported from the library, and C linkage for C++ callers. */
#ifndef SHOAL_EXPORT_H
#define SHOAL_EXPORT_H

#define SHOAL_API __attribute__((visibility("default")))

#ifdef __cplusplus
#define SHOAL_BEGIN_DECLS extern "C" {
#define SHOAL_END_DECLS }
#else
#define SHOAL_BEGIN_DECLS
#define SHOAL_END_DECLS
#endif

#endif

/*
 * table.h - memory for tables that are read at random.  Private.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TABLE_H
#define TABLE_H

#include <stddef.h>

/*
 * table_alloc() returns zeros, to be released by free(), or NULL: large tables lie in huge
 * pages where the system has them, which saves most misses of the page tables' cache.
 */
void *table_alloc(size_t nbytes);

/* table_reserve() is table_alloc() without the zeros: what is never written takes no memory. */
void *table_reserve(size_t nbytes);

#endif

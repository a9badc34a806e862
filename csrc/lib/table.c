/*
 * Memory for tables that are read at random.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _DEFAULT_SOURCE 1	/* posix_memalign, madvise */
#include <stdlib.h>
#include <string.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "table.h"

#define HUGE_PAGE_NBYTES ((size_t)1 << 21)

void *
table_reserve(size_t nbytes)
{
	void *table = NULL;

	if (nbytes < HUGE_PAGE_NBYTES / 2)
		return malloc(nbytes);
	if (posix_memalign(&table, HUGE_PAGE_NBYTES, nbytes) != 0)
		return NULL;
#if defined(__linux__)
	madvise(table, nbytes, MADV_HUGEPAGE);	/* may fail: then the pages are small */
#endif
	return table;
}

void *
table_alloc(size_t nbytes)
{
	void *table = table_reserve(nbytes);

	if (table != NULL)
		memset(table, 0, nbytes);
	return table;
}

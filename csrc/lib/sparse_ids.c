/*
 * The table of ids that occur in a block, and the order of their ranks.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>

#include "sparse.h"

#define RADIX_NBITS 13	/* one pass orders the counts of a block of up to 8,191 rows */
#define RADIX_SIZE (1u << RADIX_NBITS)

/* One stable counting pass over bits [shift, shift + RADIX_NBITS) of the inverted key. */
static void
radix_pass(const uint32_t *key_of, const uint32_t *from, uint32_t *to, size_t num, unsigned shift)
{
	size_t starts[RADIX_SIZE] = {0}, sum = 0;

	for (size_t i = 0; i < num; i++)
		starts[(~key_of[i] >> shift) & (RADIX_SIZE - 1)]++;
	for (unsigned digit = 0; digit < RADIX_SIZE; digit++) {
		size_t count = starts[digit];
		starts[digit] = sum;
		sum += count;
	}
	for (size_t i = 0; i < num; i++) {
		uint32_t position = from[i];
		to[starts[(~key_of[position] >> shift) & (RADIX_SIZE - 1)]++] = position;
	}
}

enum ss_status
id_table_rank(const struct id_table *table, uint32_t *order)
{
	uint32_t max = 0, *scratch = malloc((table->num_ids + 1) * sizeof(uint32_t));

	if (scratch == NULL)
		return SS_ERR_NOMEM;
	for (size_t i = 0; i < table->num_ids; i++) {
		order[i] = (uint32_t)i;
		max = table->num_rows_of[i] > max ? table->num_rows_of[i] : max;
	}
	for (unsigned shift = 0; shift < bit_length(max); shift += RADIX_NBITS) {
		radix_pass(table->num_rows_of, order, scratch, table->num_ids, shift);
		memcpy(order, scratch, table->num_ids * sizeof(uint32_t));
	}
	free(scratch);
	return SS_OK;
}

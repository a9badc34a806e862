/*
 * Rows of ids turned round: which ids occur in a block, and in which rows.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>

#include "sparse.h"

#define MAX_DIGIT_NBITS 11
#define MAX_DIGITS 3	/* of 32 bits */
#define RADIX_SIZE (1u << MAX_DIGIT_NBITS)

/* Ids are sorted by digits of equal size, the lowest first. */
struct digits {
	unsigned num;
	unsigned nbits;
	uint32_t starts[MAX_DIGITS][RADIX_SIZE];
};

static void
count_digits(const uint32_t *indices, uint64_t num, uint64_t dim, struct digits *d)
{
	unsigned nbits = bit_length(dim - 1);

	d->num = nbits <= MAX_DIGIT_NBITS ? 1 : (nbits + MAX_DIGIT_NBITS - 1) / MAX_DIGIT_NBITS;
	d->nbits = (nbits + d->num - 1) / d->num;
	memset(d->starts, 0, sizeof(d->starts));
	for (unsigned digit = 0; digit < d->num; digit++) {
		uint32_t *counts = d->starts[digit], mask = (1u << d->nbits) - 1, sum = 0;

		for (uint64_t i = 0; i < num; i++)
			counts[(indices[i] >> (digit * d->nbits)) & mask]++;
		for (uint32_t value = 0; value <= mask; value++) {
			uint32_t count = counts[value];
			counts[value] = sum;
			sum += count;
		}
	}
}

/* Pairs (id << 32 | row) in the order of ids, of rows within an id; returns which of the two they are in. */
static uint64_t *
sort_pairs(const uint32_t *indices, const uint32_t *lens, size_t num_rows, uint64_t num,
	   struct digits *d, uint64_t *pairs, uint64_t *other)
{
	uint32_t *starts = d->starts[0], mask = (1u << d->nbits) - 1;

	for (size_t r = 0; r < num_rows; r++)
		for (uint32_t i = 0; i < lens[r]; i++, indices++)
			pairs[starts[*indices & mask]++] = (uint64_t)*indices << 32 | r;
	for (unsigned digit = 1; digit < d->num; digit++) {
		unsigned shift = 32 + digit * d->nbits;
		uint64_t *swap = pairs;

		starts = d->starts[digit];
		for (uint64_t i = 0; i < num; i++)
			other[starts[(pairs[i] >> shift) & mask]++] = pairs[i];
		pairs = other;
		other = swap;
	}
	return pairs;
}

/* Splits sorted pairs into the table and the rows; without a branch, as ids change at random. */
static void
split_pairs(const uint64_t *pairs, uint64_t num, struct columns *c)
{
	uint32_t *ends = c->table.num_rows_of;
	uint32_t previous = num > 0 ? ~(uint32_t)(pairs[0] >> 32) : 0;
	size_t n = 0;

	for (uint64_t i = 0; i < num; i++) {
		uint32_t id = (uint32_t)(pairs[i] >> 32);
		n += id != previous;
		c->table.ids[n - 1] = id;
		ends[n - 1] = (uint32_t)i + 1;
		c->rows[i] = (uint32_t)pairs[i];
		previous = id;
	}
	for (size_t k = n; k-- > 1;)
		ends[k] -= ends[k - 1];
	c->table.num_ids = n;
}

int
columns_make(const uint32_t *indices, const uint32_t *lens, size_t num_rows, uint64_t dim,
	     struct columns *c)
{
	uint64_t n = sets_sum(lens, num_rows);
	struct digits *digits = malloc(sizeof(*digits));
	uint64_t *pairs = malloc((2 * n + 1) * sizeof(uint64_t));

	c->table.ids = malloc((n + 1) * sizeof(uint32_t));
	c->table.num_rows_of = malloc((n + 1) * sizeof(uint32_t));
	c->rows = malloc((n + 1) * sizeof(uint32_t));
	int ok = digits && pairs && c->table.ids && c->table.num_rows_of && c->rows;
	if (ok) {
		count_digits(indices, n, dim, digits);
		split_pairs(sort_pairs(indices, lens, num_rows, n, digits, pairs, pairs + n), n, c);
	} else {
		columns_free(c);
	}
	free(digits);
	free(pairs);
	return ok;
}

void
columns_free(struct columns *c)
{
	free(c->table.ids);
	free(c->table.num_rows_of);
	free(c->rows);
	*c = (struct columns){0};
}

uint32_t *
columns_ranks(const struct columns *c, const uint32_t *lens, size_t num_rows)
{
	const struct id_table *t = &c->table;
	uint32_t *order = malloc((t->num_ids + 1) * sizeof(uint32_t));
	uint32_t *starts = malloc((t->num_ids + 1) * sizeof(uint32_t));
	uint32_t *cursors = malloc((num_rows + 1) * sizeof(uint32_t));
	uint32_t *ranks = malloc((sets_sum(lens, num_rows) + 1) * sizeof(uint32_t));
	int ok = order && starts && cursors && ranks && id_table_rank(t, order) == SS_OK;
	uint32_t sum = 0;

	for (size_t k = 0; ok && k < t->num_ids; sum += t->num_rows_of[k++])
		starts[k] = sum;
	sum = 0;
	for (size_t r = 0; ok && r < num_rows; sum += lens[r++])
		cursors[r] = sum;
	for (size_t rank = 0; ok && rank < t->num_ids; rank++) {
		const uint32_t *rows = c->rows + starts[order[rank]];
		for (uint32_t i = 0; i < t->num_rows_of[order[rank]]; i++)
			ranks[cursors[rows[i]]++] = (uint32_t)rank;
	}
	free(order);
	free(starts);
	free(cursors);
	if (ok)
		return ranks;
	free(ranks);
	return NULL;
}

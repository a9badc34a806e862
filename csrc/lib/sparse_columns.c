/*
 * Rows of ids turned round: which ids occur in a block, and in which rows.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>

#include "sparse.h"

/* Ids are sorted by digits, the lowest first. */
#define MAX_DIGIT_NBITS 11
#define RADIX_SIZE (1u << MAX_DIGIT_NBITS)

/* counts[v] = how many indices have the digit v; then starts, and after the sort ends of their places. */
static void
count_digit(const uint32_t *indices, uint64_t num, unsigned shift, unsigned nbits, uint32_t *counts)
{
	uint32_t mask = (1u << nbits) - 1, sum = 0;

	memset(counts, 0, ((size_t)mask + 1) * sizeof(uint32_t));
	for (uint64_t i = 0; i < num; i++)
		counts[(indices[i] >> shift) & mask]++;
	for (uint32_t v = 0; v <= mask; v++) {
		uint32_t count = counts[v];
		counts[v] = sum;
		sum += count;
	}
}

/* Where sorted pairs go; without a branch, as ids change at random. */
struct splitter {
	struct columns *columns;
	uint32_t previous;
	uint32_t num;
	size_t num_ids;
};

static inline void
split_pair(struct splitter *s, uint32_t id, uint32_t row)
{
	struct columns *c = s->columns;

	s->num_ids += s->num == 0 || id != s->previous;
	c->table.ids[s->num_ids - 1] = id;
	c->rows[s->num++] = row;
	c->table.num_rows_of[s->num_ids - 1] = s->num;	/* for now the end */
	s->previous = id;
}

static void
split_finish(const struct splitter *s)
{
	uint32_t *ends = s->columns->table.num_rows_of;

	for (size_t k = s->num_ids; k-- > 1;)
		ends[k] -= ends[k - 1];
	s->columns->table.num_ids = s->num_ids;
}

/*
 * Two digits of an id in 32 bits beside its row: a pair need hold but one of them at a
 * time, as the other is told by its place.  That halves what goes through the caches.
 */
static void
sort_halves(const uint32_t *indices, const uint32_t *lens, size_t num_rows, uint64_t num, unsigned nbits,
	    unsigned row_nbits, uint32_t *pairs, struct columns *c)
{
	uint32_t low[RADIX_SIZE], high[RADIX_SIZE], mask = (1u << nbits) - 1, row_mask = (1u << row_nbits) - 1;
	uint32_t *by_low = pairs, *by_high = pairs + num, at = 0;
	struct splitter s = {.columns = c};

	count_digit(indices, num, 0, nbits, low);
	count_digit(indices, num, nbits, nbits, high);
	for (size_t r = 0; r < num_rows; r++)
		for (uint32_t i = 0; i < lens[r]; i++, indices++)
			by_low[low[*indices & mask]++] = *indices >> nbits << row_nbits | (uint32_t)r;
	for (uint32_t v = 0; v <= mask; v++)
		for (; at < low[v]; at++)
			by_high[high[by_low[at] >> row_nbits]++] = v << row_nbits | (by_low[at] & row_mask);
	at = 0;
	for (uint32_t v = 0; v <= mask; v++)
		for (; at < high[v]; at++)
			split_pair(&s, v << nbits | by_high[at] >> row_nbits, by_high[at] & row_mask);
	split_finish(&s);
}

/* The same for any id: pairs (id << 32 | row), in as many passes as there are digits. */
static void
sort_pairs(const uint32_t *indices, const uint32_t *lens, size_t num_rows, uint64_t num, unsigned nbits,
	   uint64_t *pairs, struct columns *c)
{
	uint32_t starts[RADIX_SIZE], mask = RADIX_SIZE - 1;
	uint64_t *other = pairs + num;
	struct splitter s = {.columns = c};
	uint64_t at = 0;

	for (size_t r = 0; r < num_rows; r++)
		for (uint32_t i = 0; i < lens[r]; i++, at++)
			pairs[at] = (uint64_t)indices[at] << 32 | r;
	for (unsigned shift = 0; shift < nbits; shift += MAX_DIGIT_NBITS) {
		uint64_t *swap = pairs;

		count_digit(indices, num, shift, MAX_DIGIT_NBITS, starts);
		for (uint64_t i = 0; i < num; i++)
			other[starts[(pairs[i] >> (32 + shift)) & mask]++] = pairs[i];
		pairs = other;
		other = swap;
	}
	for (uint64_t i = 0; i < num; i++)
		split_pair(&s, (uint32_t)(pairs[i] >> 32), (uint32_t)pairs[i]);
	split_finish(&s);
}

int
columns_make(const uint32_t *indices, const uint32_t *lens, size_t num_rows, uint64_t dim,
	     struct columns *c)
{
	uint64_t n = sets_sum(lens, num_rows);
	unsigned nbits = bit_length(dim - 1), row_nbits = bit_length(num_rows);
	unsigned half_nbits = nbits / 2 + nbits % 2;
	int fits = half_nbits <= MAX_DIGIT_NBITS && half_nbits + row_nbits <= 32 && row_nbits < 32;
	void *pairs = malloc((2 * n + 1) * (fits ? sizeof(uint32_t) : sizeof(uint64_t)));

	c->table.ids = malloc((n + 1) * sizeof(uint32_t));
	c->table.num_rows_of = malloc((n + 1) * sizeof(uint32_t));
	c->rows = malloc((n + 1) * sizeof(uint32_t));
	int ok = pairs && c->table.ids && c->table.num_rows_of && c->rows;
	if (!ok)
		columns_free(c);
	else if (fits)
		sort_halves(indices, lens, num_rows, n, half_nbits, row_nbits, pairs, c);
	else
		sort_pairs(indices, lens, num_rows, n, nbits, pairs, c);
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

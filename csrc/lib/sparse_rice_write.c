/*
 * Writing Rice-coded sets: the low bits of all gaps, then all unary parts.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>

#include "sparse.h"

/* The elements of [0, universe) that are not among 'set', ascending. */
static void
complement(uint64_t universe, const uint32_t *set, uint32_t len, uint32_t *out)
{
	uint64_t next = 0;

	for (size_t i = 0; i <= len; i++) {
		uint64_t stop = i < len ? set[i] : universe;
		while (next < stop)
			*out++ = (uint32_t)next++;
		next = stop + 1;
	}
}

/* Room for the largest complement that is written, or NULL if memory is short. */
static uint32_t *
complement_scratch(uint64_t universe, const uint32_t *lens, size_t num_sets)
{
	uint64_t largest = 1;

	for (size_t s = 0; s < num_sets; s++)
		if (2 * (uint64_t)lens[s] > universe && universe - lens[s] > largest)
			largest = universe - lens[s];
	return malloc(largest * sizeof(uint32_t));
}

/* What RICE writes of set s: the set or, in 'scratch', its complement. */
static const uint32_t *
written_elements(uint64_t universe, const uint32_t *set, uint32_t len, uint32_t *scratch)
{
	if (2 * (uint64_t)len <= universe)
		return set;
	complement(universe, set, len, scratch);
	return scratch;
}

/* What the gaps of a set write in unary, beyond a 1 each; less than 2^32, as they add up to an element. */
static inline uint32_t
unary_zeros(const uint32_t *x, uint64_t num, unsigned b)
{
	uint32_t sum = num > 0 ? x[0] >> b : 0;

	for (uint64_t i = 1; i < num; i++)
		sum += (x[i] - x[i - 1] - 1) >> b;
	return sum;
}

/* The bits of the low stream, and how many elements are written. */
static uint64_t
low_nbits(const struct rice_rule *rule, const uint32_t *lens, size_t num_sets, uint64_t *num_ret)
{
	uint64_t nbits = 0, num = 0;

	for (size_t s = 0; s < num_sets; s++) {
		uint64_t m = rice_num_written(rule->universe, lens[s]);
		nbits += m * rice_rule_b(rule, m);
		num += m;
	}
	*num_ret = num;
	return nbits;
}

uint64_t
rice_least_nbytes(uint64_t universe, const uint32_t *lens, size_t num_sets)
{
	struct rice_rule rule;
	uint64_t num, nbits;

	rice_rule_init(&rule, universe, num_sets);
	nbits = low_nbits(&rule, lens, num_sets, &num);
	return (nbits + 7) / 8 + (num + 7) / 8;
}

uint64_t
rice_nbytes(uint64_t universe, const uint32_t *lens, size_t num_sets, const uint32_t *elements)
{
	uint32_t *scratch = complement_scratch(universe, lens, num_sets);
	uint64_t low = 0, unary = 0;
	struct rice_rule rule;

	if (scratch == NULL)
		return UINT64_MAX;
	rice_rule_init(&rule, universe, num_sets);
	for (size_t s = 0; s < num_sets; elements += lens[s++]) {
		uint64_t m = rice_num_written(universe, lens[s]);
		const uint32_t *x = written_elements(universe, elements, lens[s], scratch);
		unsigned b = rice_rule_b(&rule, m);

		low += m * b;
		unary += m + unary_zeros(x, m, b);
	}
	free(scratch);
	if (unary > 8 * RICE_MAX_UNARY_NBYTES)
		return UINT64_MAX;
	return (low + 7) / 8 + (unary + 7) / 8;
}

/* Puts the gaps of a set into both streams. */
static inline void
put_set(const uint32_t *x, uint64_t num, unsigned b, struct bit_writer *low, struct bit_writer *unary)
{
	uint32_t previous = UINT32_MAX;

	for (uint64_t i = 0; i < num; i++) {
		uint32_t gap = x[i] - previous - 1;
		bits_put(low, gap & ((1u << b) - 1), b);
		bits_put_unary(unary, gap >> b);
		previous = x[i];
	}
}

/* The low stream comes first, but goes through scratch: its last store would touch the unary one. */
uint8_t *
rice_write(uint64_t universe, const uint32_t *lens, size_t num_sets, const uint32_t *elements,
	   uint8_t *out)
{
	struct rice_rule rule;
	uint64_t num;

	rice_rule_init(&rule, universe, num_sets);
	size_t low_nbytes = (size_t)((low_nbits(&rule, lens, num_sets, &num) + 7) / 8);
	uint32_t *scratch = complement_scratch(universe, lens, num_sets);
	uint8_t *low_out = malloc(low_nbytes + SS_SPARSE_SLACK_NBYTES);
	struct bit_writer low = {.p = low_out}, unary = {.p = out + low_nbytes};

	if (scratch != NULL && low_out != NULL) {
		for (size_t s = 0; s < num_sets; elements += lens[s++]) {
			uint64_t m = rice_num_written(universe, lens[s]);
			const uint32_t *x = written_elements(universe, elements, lens[s], scratch);
			put_set(x, m, rice_rule_b(&rule, m), &low, &unary);
		}
		memcpy(out, low_out, low_nbytes);
		out = bits_finish(&unary);
	} else {
		out = NULL;
	}
	free(scratch);
	free(low_out);
	return out;
}

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

static uint64_t
low_nbits(uint64_t universe, const uint32_t *lens, size_t num_sets)
{
	uint64_t sum = 0;

	for (size_t s = 0; s < num_sets; s++) {
		uint64_t m = rice_num_written(universe, lens[s]);
		sum += m * rice_parameter(universe, m);
	}
	return sum;
}

uint64_t
rice_nbytes(uint64_t universe, const uint32_t *lens, size_t num_sets, const uint32_t *elements)
{
	uint32_t *scratch = complement_scratch(universe, lens, num_sets);
	uint64_t unary_nbits = 0;

	if (scratch == NULL)
		return UINT64_MAX;
	for (size_t s = 0; s < num_sets; s++) {
		uint64_t m = rice_num_written(universe, lens[s]);
		const uint32_t *x = written_elements(universe, elements, lens[s], scratch);
		unsigned b = rice_parameter(universe, m);
		uint32_t previous = UINT32_MAX;

		for (uint64_t i = 0; i < m; i++) {
			unary_nbits += (x[i] - previous - 1) >> b;
			previous = x[i];
		}
		unary_nbits += m;
		elements += lens[s];
	}
	free(scratch);
	if (unary_nbits > 8 * RICE_MAX_UNARY_NBYTES)
		return UINT64_MAX;
	return (low_nbits(universe, lens, num_sets) + 7) / 8 + (unary_nbits + 7) / 8;
}

uint8_t *
rice_write(uint64_t universe, const uint32_t *lens, size_t num_sets, const uint32_t *elements,
	   uint8_t *out)
{
	uint32_t *scratch = complement_scratch(universe, lens, num_sets);

	if (scratch == NULL)
		return NULL;
	for (int unary = 0; unary <= 1; unary++) {
		const uint32_t *set = elements;
		struct bit_writer w = {.p = out};

		for (size_t s = 0; s < num_sets; s++) {
			uint64_t m = rice_num_written(universe, lens[s]);
			const uint32_t *x = written_elements(universe, set, lens[s], scratch);
			unsigned b = rice_parameter(universe, m);
			uint32_t previous = UINT32_MAX;

			for (uint64_t i = 0; i < m; i++) {
				uint32_t gap = x[i] - previous - 1;
				if (unary)
					bits_put_unary(&w, gap >> b);
				else
					bits_put(&w, gap & ((1u << b) - 1), b);
				previous = x[i];
			}
			set += lens[s];
		}
		out = bits_finish(&w);
	}
	free(scratch);
	return out;
}

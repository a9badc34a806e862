/*
 * Keys of one row to ascending distinct indices: radix sort, then a merge of equal neighbours.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "hash_internal.h"

#define MAX_DIGIT_BITS 11
#define SMALL 24	/* rows up to this are sorted by insertion */

static void
sort_small(uint32_t *keys, size_t num_keys)
{
	for (size_t i = 1; i < num_keys; i++) {
		uint32_t key = keys[i];
		size_t j = i;
		for (; j > 0 && keys[j - 1] > key; j--)
			keys[j] = keys[j - 1];
		keys[j] = key;
	}
}

/*
 * Picks the number of passes: each costs about 3 units a key and 1 a bucket.  No digit may have more
 * than MAX_DIGIT_BITS.
 */
static unsigned
choose_passes(size_t num_keys, unsigned key_bits)
{
	unsigned best = 0;
	uint64_t best_cost = UINT64_MAX;

	for (unsigned passes = (key_bits + MAX_DIGIT_BITS - 1) / MAX_DIGIT_BITS; passes <= 4; passes++) {
		unsigned digit_bits = (key_bits + passes - 1) / passes;
		uint64_t cost = passes * (3 * (uint64_t)num_keys + (1ull << digit_bits));
		if (cost < best_cost) {
			best_cost = cost;
			best = passes;
		}
	}
	return best;
}

/* sort_radix() sorts least significant digit first and returns the array, of the two, that holds the result. */
static uint32_t *
sort_radix(uint32_t *keys, uint32_t *spare, size_t num_keys, unsigned key_bits)
{
	unsigned passes = choose_passes(num_keys, key_bits);
	unsigned digit_bits = (key_bits + passes - 1) / passes;
	uint32_t mask = (1u << digit_bits) - 1;
	size_t ends[1u << MAX_DIGIT_BITS];

	for (unsigned shift = 0; shift < key_bits; shift += digit_bits) {
		size_t sum = 0;
		memset(ends, 0, sizeof(ends[0]) << digit_bits);
		for (size_t i = 0; i < num_keys; i++)
			ends[keys[i] >> shift & mask]++;
		for (uint32_t digit = 0; digit <= mask; digit++) {
			size_t count = ends[digit];
			ends[digit] = sum;
			sum += count;
		}
		for (size_t i = 0; i < num_keys; i++)
			spare[ends[keys[i] >> shift & mask]++] = keys[i];
		uint32_t *swap = keys;
		keys = spare;
		spare = swap;
	}
	return keys;
}

/* The three merges write each key where the current index stands and step on where the next one differs. */
static size_t
merge_set(const uint32_t *keys, size_t num_keys, uint32_t *indices)
{
	size_t num = 0;

	for (size_t i = 0; i < num_keys; i++) {
		indices[num] = keys[i];
		num += i + 1 == num_keys || keys[i] != keys[i + 1];
	}
	return num;
}

static size_t
merge_counts(const uint32_t *keys, size_t num_keys, uint32_t *indices, int32_t *counts)
{
	size_t num = 0;
	int32_t count = 0;

	for (size_t i = 0; i < num_keys; i++) {
		bool last = i + 1 == num_keys || keys[i] != keys[i + 1];
		indices[num] = keys[i];
		counts[num] = ++count;
		num += last;
		count = last ? 0 : count;
	}
	return num;
}

static size_t
merge_sums(const uint32_t *keys, size_t num_keys, uint32_t *indices, int32_t *counts, float *sums)
{
	size_t num = 0;
	int32_t count = 0, sum = 0;

	for (size_t i = 0; i < num_keys; i++) {
		bool last = i + 1 == num_keys || keys[i] >> 1 != keys[i + 1] >> 1;
		indices[num] = keys[i] >> 1;
		count++;
		sum += 1 - 2 * (int32_t)(keys[i] & 1);
		if (counts != NULL)
			counts[num] = count;
		sums[num] = (float)sum;
		if (last) {
			num++;
			count = sum = 0;
		}
	}
	return num;
}

size_t
hash_reduce(uint32_t *keys, uint32_t *spare, size_t num_keys, unsigned key_bits, uint32_t *indices, int32_t *counts,
	    float *sums)
{
	if (num_keys <= SMALL)
		sort_small(keys, num_keys);
	else
		keys = sort_radix(keys, spare, num_keys, key_bits);
	if (sums != NULL)
		return merge_sums(keys, num_keys, indices, counts, sums);
	if (counts != NULL)
		return merge_counts(keys, num_keys, indices, counts);
	return merge_set(keys, num_keys, indices);
}

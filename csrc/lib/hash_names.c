/*
 * Named features to rows of hashed indices.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "hash_internal.h"

#define SMALL 32	/* rows up to this are sorted by insertion */

/* Whether the offsets of a row, and those of its names, are in order and inside. */
static bool
row_is_legal(const int64_t *row_offsets, size_t row, const int64_t *name_offsets, size_t names_nbytes)
{
	int64_t begin = row_offsets[row], end = row_offsets[row + 1];

	if (begin < 0 || end < begin || end - begin > INT32_MAX)
		return false;
	for (int64_t f = begin; f < end; f++) {
		int64_t first = name_offsets[f], last = name_offsets[f + 1];
		if (first < 0 || last < first || (uint64_t)last > names_nbytes || last - first > INT32_MAX)
			return false;
	}
	return true;
}

static void
sort_small(uint64_t *keys, size_t num_keys)
{
	for (size_t i = 1; i < num_keys; i++) {
		uint64_t key = keys[i];
		size_t j = i;
		for (; j > 0 && keys[j - 1] > key; j--)
			keys[j] = keys[j - 1];
		keys[j] = key;
	}
}

/* sort_keys() sorts by the high half, stable; returns the array, of the two, that holds the result. */
static uint64_t *
sort_keys(uint64_t *keys, uint64_t *spare, size_t num_keys)
{
	enum { DIGIT_BITS = 11, NUM_DIGITS = 1 << DIGIT_BITS };
	size_t ends[NUM_DIGITS];

	if (num_keys <= SMALL) {
		sort_small(keys, num_keys);
		return keys;
	}
	for (unsigned shift = 32; shift < 64; shift += DIGIT_BITS) {
		size_t sum = 0;
		memset(ends, 0, sizeof(ends));
		for (size_t i = 0; i < num_keys; i++)
			ends[keys[i] >> shift & (NUM_DIGITS - 1)]++;
		for (size_t digit = 0; digit < NUM_DIGITS; digit++) {
			size_t count = ends[digit];
			ends[digit] = sum;
			sum += count;
		}
		for (size_t i = 0; i < num_keys; i++)
			spare[ends[keys[i] >> shift & (NUM_DIGITS - 1)]++] = keys[i];
		uint64_t *swap = keys;
		keys = spare;
		spare = swap;
	}
	return keys;
}

/* One row's features. */
struct features {
	const uint8_t *names;
	const int64_t *name_offsets;
	const double *values;
	size_t num;
};

/* A key is index << 32 | number of the feature << 1 | sign bit, so that equal indices stay in the features' order. */
static size_t
hash_features(const struct features *f, uint32_t dim, uint64_t *keys)
{
	size_t num_keys = 0;

	for (size_t i = 0; i < f->num; i++) {
		if (f->values != NULL && f->values[i] == 0)
			continue;
		size_t name_nbytes = (size_t)(f->name_offsets[i + 1] - f->name_offsets[i]);
		uint32_t hash = ss_hash_murmur3(f->names + f->name_offsets[i], name_nbytes, 0), negative = hash >> 31;
		keys[num_keys++] = (uint64_t)((negative ? 0u - hash : hash) % dim) << 32 | i << 1 | negative;
	}
	return num_keys;
}

static size_t
sum_features(const struct features *f, const uint64_t *keys, size_t num_keys, bool sign, uint32_t *indices, float *sums)
{
	size_t num = 0;
	double sum = 0;

	for (size_t k = 0; k < num_keys; k++) {
		double value = f->values == NULL ? 1 : f->values[(uint32_t)keys[k] >> 1];
		sum += sign && keys[k] & 1 ? -value : value;
		if (k + 1 < num_keys && keys[k] >> 32 == keys[k + 1] >> 32)
			continue;
		indices[num] = (uint32_t)(keys[k] >> 32);
		sums[num++] = (float)sum;
		sum = 0;
	}
	return num;
}

enum ss_status
ss_hash_names(uint32_t dim, uint32_t alternate_sign, const uint8_t *names, size_t names_nbytes,
	      const int64_t *name_offsets, const double *values, const int64_t *row_offsets, size_t num_rows,
	      uint32_t *indices, float *sums, int64_t *indptr, struct ss_hash_place *place_ret)
{
	size_t longest = 0, num = 0;

	*place_ret = (struct ss_hash_place){ 0, 0 };
	if (dim < 1 || dim > SS_HASH_MAX_DIM)
		return SS_ERR_ARGUMENT;
	for (size_t row = 0; row < num_rows; row++) {
		place_ret->row = row;
		if (row_offsets[0] != 0 || !row_is_legal(row_offsets, row, name_offsets, names_nbytes))
			return SS_ERR_RANGE;
		size_t length = (size_t)(row_offsets[row + 1] - row_offsets[row]);
		longest = length > longest ? length : longest;
	}
	uint64_t *keys = malloc((2 * longest + 1) * sizeof(*keys));
	if (keys == NULL)
		return SS_ERR_NOMEM;
	indptr[0] = 0;
	for (size_t row = 0; row < num_rows; row++) {
		int64_t begin = row_offsets[row];
		struct features f = { names, name_offsets + begin, values == NULL ? NULL : values + begin,
				      (size_t)(row_offsets[row + 1] - begin) };
		size_t num_keys = hash_features(&f, dim, keys);
		const uint64_t *sorted = sort_keys(keys, keys + longest, num_keys);
		num += sum_features(&f, sorted, num_keys, alternate_sign != 0, indices + num, sums + num);
		indptr[row + 1] = (int64_t)num;
	}
	free(keys);
	return SS_OK;
}

/*
 * Puts the indices of each row in ascending order, and checks them.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>

#include "sparse.h"

/* Copies a row; *ascending_ret tells whether it is strictly so. 0 if an index is out of range. */
static int
copy_row(const int64_t *row, size_t len, uint64_t dim, uint32_t *out, int *ascending_ret)
{
	int outside = 0, descents = 0;

	for (size_t i = 0; i < len; i++) {
		outside |= (uint64_t)row[i] >= dim;	/* negative numbers are large here */
		out[i] = (uint32_t)row[i];
	}
	for (size_t i = 1; i < len; i++)
		descents |= row[i] <= row[i - 1];
	*ascending_ret = !descents;
	return !outside;
}

static int
compare_keys(const void *left, const void *right)
{
	uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;

	return a < b ? -1 : a > b;
}

/* Sorts keys (index << 32 | place in the row); SS_ERR_DUPLICATE if an index repeats. */
static enum ss_status
sort_row(uint32_t *row, size_t len, uint64_t *keys, const uint8_t *values, size_t value_nbytes,
	 uint8_t *out_values)
{
	int repeats = 0;

	for (size_t i = 0; i < len; i++)
		keys[i] = (uint64_t)row[i] << 32 | i;
	qsort(keys, len, sizeof(*keys), compare_keys);
	for (size_t i = 0; i < len; i++) {
		row[i] = (uint32_t)(keys[i] >> 32);
		repeats |= i > 0 && row[i] == row[i - 1];
		if (value_nbytes > 0)
			memcpy(out_values + i * value_nbytes,
			       values + (uint32_t)keys[i] * value_nbytes, value_nbytes);
	}
	return repeats ? SS_ERR_DUPLICATE : SS_OK;
}

/* Checks that indptr rises from 0 to num_indices, and finds the longest row. */
static int
check_bounds(const int64_t *indptr, size_t num_rows, size_t num_indices, size_t *longest_ret,
	     size_t *error_row_ret)
{
	*longest_ret = 0;
	if (indptr[0] != 0 || indptr[num_rows] < 0 || (uint64_t)indptr[num_rows] != num_indices)
		return 0;
	for (size_t r = 0; r < num_rows; r++) {
		*error_row_ret = r;
		if (indptr[r + 1] < indptr[r] || indptr[r + 1] - indptr[r] > UINT32_MAX)
			return 0;
		if ((size_t)(indptr[r + 1] - indptr[r]) > *longest_ret)
			*longest_ret = (size_t)(indptr[r + 1] - indptr[r]);
	}
	return 1;
}

int
ss_sparse_rows_are_sorted(const uint32_t *indices, size_t num_indices, const int64_t *indptr,
			  size_t num_rows, uint64_t dim)
{
	size_t longest, error_row;
	int bad = 0;

	if (!check_bounds(indptr, num_rows, num_indices, &longest, &error_row))
		return 0;
	for (size_t r = 0; r < num_rows; r++) {
		const uint32_t *row = indices + indptr[r];
		size_t len = (size_t)(indptr[r + 1] - indptr[r]);

		for (size_t i = 1; i < len; i++)
			bad |= row[i] <= row[i - 1];
		bad |= len > 0 && row[len - 1] >= dim;
	}
	return !bad;
}

enum ss_status
ss_sparse_sort_rows(const int64_t *indices, size_t num_indices, const int64_t *indptr,
		    size_t num_rows, uint64_t dim, const void *values, size_t value_nbytes,
		    uint32_t *out_indices, void *out_values, size_t *error_row_ret)
{
	enum ss_status status = SS_OK;
	uint64_t *keys = NULL;
	size_t longest;

	*error_row_ret = 0;
	if (!check_bounds(indptr, num_rows, num_indices, &longest, error_row_ret))
		return SS_ERR_ARGUMENT;
	if (num_indices > 0 && value_nbytes > 0)
		memcpy(out_values, values, num_indices * value_nbytes);
	for (size_t r = 0; status == SS_OK && r < num_rows; r++) {
		size_t begin = (size_t)indptr[r], len = (size_t)(indptr[r + 1] - indptr[r]);
		int ascending;

		*error_row_ret = r;
		if (!copy_row(indices + begin, len, dim, out_indices + begin, &ascending)) {
			status = SS_ERR_RANGE;
		} else if (!ascending) {
			if (keys == NULL && (keys = malloc(longest * sizeof(*keys))) == NULL)
				status = SS_ERR_NOMEM;
			else
				status = sort_row(out_indices + begin, len, keys,
						  (const uint8_t *)values + begin * value_nbytes, value_nbytes,
						  (uint8_t *)out_values + begin * value_nbytes);
		}
	}
	free(keys);
	return status;
}

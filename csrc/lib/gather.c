/*
 * Batch gather: rows of many blocks into one output, with a cast.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "ss_gather.h"
#include "convert.h"

/* Rows ahead whose first cache lines are requested: gathers jump, so the hardware can't guess. */
#define PREFETCH_ROWS 4
#define PREFETCH_NBYTES 1024
#define COPY_PREFETCH_ROWS 8
#define COPY_PREFETCH_LINES 4
#define CACHE_LINE_NBYTES 64
/* Of an expanded batch, cleared at once and still in the first-level cache when cells are set. */
#define CLEAR_NBYTES ((size_t)16 * 1024)

static void
prefetch_bytes(const uint8_t *begin, size_t nbytes)
{
	if (nbytes > PREFETCH_NBYTES)
		nbytes = PREFETCH_NBYTES;
	for (size_t i = 0; i < nbytes; i += CACHE_LINE_NBYTES)
		__builtin_prefetch(begin + i);
}

/* The last of ascending 'starts' that is not above 'number'; halves are chosen without a branch. */
static const int64_t *
last_not_above(const int64_t *starts, size_t num_starts, int64_t number)
{
	for (size_t left = num_starts; left > 1;) {
		size_t half = left / 2;

		starts += starts[half] <= number ? half : 0;
		left -= half;
	}
	return starts;
}

enum ss_status
ss_locate_rows(const int64_t *starts, size_t num_slots, const int64_t *numbers, size_t num_rows,
	       uint32_t *slot, uint32_t *row, size_t *bad_ret)
{
	int64_t total = starts[num_slots];

	for (size_t i = 0; i < num_rows; i++) {
		int64_t number = numbers[i] < 0 ? numbers[i] + total : numbers[i];

		if (number < 0 || number >= total) {
			*bad_ret = i;
			return SS_ERR_RANGE;
		}
		const int64_t *begin = last_not_above(starts, num_slots, number);

		slot[i] = (uint32_t)(begin - starts);
		row[i] = (uint32_t)(number - *begin);
	}
	return SS_OK;
}

size_t
ss_number_blocks(const int64_t *begins, size_t num_blocks, const int64_t *places, size_t num_rows,
		 uint32_t *slot, uint32_t *row, int64_t *num_needed, int64_t *block,
		 int64_t *first_row, uint32_t *scratch)
{
	uint32_t *number_of = scratch;
	uint32_t num_numbered = 0;

	if (num_blocks > 0)
		memset(number_of, 0xFF, num_blocks * sizeof(*number_of));	/* UINT32_MAX: no number yet */
	for (size_t i = 0; i < num_rows; i++) {
		const int64_t *begin = last_not_above(begins, num_blocks, places[i]);
		size_t b = (size_t)(begin - begins);

		if (number_of[b] == UINT32_MAX) {
			block[num_numbered] = (int64_t)b;
			first_row[num_numbered] = (int64_t)i;
			number_of[b] = num_numbered++;
		}
		slot[i] = number_of[b];
		row[i] = (uint32_t)(places[i] - *begin);
		num_needed[i] = num_numbered;
	}
	return num_numbered;
}

int
ss_rows_are_legal(const int64_t *num_rows_of, size_t num_slots, const uint32_t *slot,
		  const uint32_t *row, size_t num_rows)
{
	for (size_t i = 0; i < num_rows; i++)
		if (slot[i] >= num_slots || (int64_t)row[i] >= num_rows_of[slot[i]])
			return 0;
	return 1;
}

/* Rows that keep their dtype: a copy each. The lines behind the first ones are the hardware's to fetch. */
static void
copy_rows(const void *const *blocks, const uint32_t *slot, const uint32_t *row, size_t num_rows,
	  size_t row_nbytes, uint8_t *out)
{
	for (size_t i = 0; i < num_rows; i++) {
		if (i + COPY_PREFETCH_ROWS < num_rows) {
			size_t ahead = i + COPY_PREFETCH_ROWS;
			const uint8_t *next = (const uint8_t *)blocks[slot[ahead]] + row[ahead] * row_nbytes;

			for (size_t line = 0; line < COPY_PREFETCH_LINES; line++)
				__builtin_prefetch(next + line * CACHE_LINE_NBYTES);
		}
		memcpy(out + i * row_nbytes, (const uint8_t *)blocks[slot[i]] + row[i] * row_nbytes, row_nbytes);
	}
}

enum ss_status
ss_gather_dense(const void *const *blocks, const int64_t *num_rows_of, size_t num_slots,
		const uint32_t *slot, const uint32_t *row, size_t num_rows,
		size_t row_num_elements, enum ss_dtype from, enum ss_dtype to, void *out)
{
	ss_convert_fn convert = ss_converter(from, to);

	if (convert == NULL)
		return SS_ERR_UNSUPPORTED;
	if (!ss_rows_are_legal(num_rows_of, num_slots, slot, row, num_rows))
		return SS_ERR_ARGUMENT;
	size_t in_nbytes = row_num_elements * ss_dtype_nbytes(from);
	size_t out_nbytes = row_num_elements * ss_dtype_nbytes(to);
	if (from == to && to != SS_BOOL) {	/* bools are made 0 or 1, whatever bytes a block has */
		copy_rows(blocks, slot, row, num_rows, in_nbytes, out);
		return SS_OK;
	}
	for (size_t i = 0; i < num_rows; i++) {
		if (i + PREFETCH_ROWS < num_rows) {
			size_t ahead = i + PREFETCH_ROWS;
			prefetch_bytes((const uint8_t *)blocks[slot[ahead]] + row[ahead] * in_nbytes, in_nbytes);
		}
		convert((const uint8_t *)blocks[slot[i]] + row[i] * in_nbytes,
			(uint8_t *)out + i * out_nbytes, row_num_elements);
	}
	return SS_OK;
}

enum ss_status
ss_gather_offsets(const int64_t *const *offsets, const int64_t *num_rows_of, size_t num_slots,
		  const uint32_t *slot, const uint32_t *row, size_t num_rows,
		  int64_t *out_offsets)
{
	if (!ss_rows_are_legal(num_rows_of, num_slots, slot, row, num_rows))
		return SS_ERR_ARGUMENT;
	out_offsets[0] = 0;
	for (size_t i = 0; i < num_rows; i++) {
		if (i + 2 * PREFETCH_ROWS < num_rows)
			__builtin_prefetch(&offsets[slot[i + 2 * PREFETCH_ROWS]][row[i + 2 * PREFETCH_ROWS]]);
		const int64_t *bounds = offsets[slot[i]] + row[i];
		out_offsets[i + 1] = out_offsets[i] + bounds[1] - bounds[0];
	}
	return SS_OK;
}

enum ss_status
ss_gather_ragged(const void *const *values, const int64_t *const *offsets,
		 const int64_t *num_rows_of, size_t num_slots, const uint32_t *slot,
		 const uint32_t *row, size_t num_rows, enum ss_dtype from, enum ss_dtype to,
		 void *out)
{
	ss_convert_fn convert = ss_converter(from, to);
	size_t in_nbytes = ss_dtype_nbytes(from), out_nbytes = ss_dtype_nbytes(to);
	uint8_t *end = out;

	if (convert == NULL)
		return SS_ERR_UNSUPPORTED;
	if (!ss_rows_are_legal(num_rows_of, num_slots, slot, row, num_rows))
		return SS_ERR_ARGUMENT;
	for (size_t i = 0; i < num_rows; i++) {
		if (i + PREFETCH_ROWS < num_rows) {
			const int64_t *ahead = offsets[slot[i + PREFETCH_ROWS]] + row[i + PREFETCH_ROWS];
			prefetch_bytes((const uint8_t *)values[slot[i + PREFETCH_ROWS]] + (size_t)ahead[0] * in_nbytes,
				       (size_t)(ahead[1] - ahead[0]) * in_nbytes);
		}
		const int64_t *bounds = offsets[slot[i]] + row[i];
		size_t length = (size_t)(bounds[1] - bounds[0]);
		convert((const uint8_t *)values[slot[i]] + (size_t)bounds[0] * in_nbytes, end, length);
		end += length * out_nbytes;
	}
	return SS_OK;
}

/* The common case, a set expanded to float32: stores only.  Returns 0 if an index is not below 'dim'. */
static int
set_ones(const uint32_t *columns, int64_t num_columns, size_t dim, float *dense)
{
	for (int64_t j = 0; j < num_columns; j++) {
		if (columns[j] >= dim)
			return 0;
		dense[columns[j]] = 1.0f;
	}
	return 1;
}

/* Any other dtype, or values: cells are filled by the cast, one at a time. */
static int
set_values(const uint32_t *columns, int64_t num_columns, const uint8_t *values, size_t value_step,
	   ss_convert_fn convert, size_t dim, uint8_t *dense, size_t cell_nbytes)
{
	for (int64_t j = 0; j < num_columns; j++) {
		if (columns[j] >= dim)
			return 0;
		convert(values + (size_t)j * value_step, dense + columns[j] * cell_nbytes, 1);
	}
	return 1;
}

enum ss_status
ss_gather_sparse(const uint32_t *const *indices, const int64_t *const *indptr,
		 const void *const *values, enum ss_dtype from, const int64_t *num_rows_of,
		 size_t num_slots, const uint32_t *slot, const uint32_t *row, size_t num_rows,
		 size_t dim, enum ss_dtype to, void *out)
{
	static const uint8_t one = 1;
	size_t in_nbytes = values ? ss_dtype_nbytes(from) : 0, out_nbytes = ss_dtype_nbytes(to);
	ss_convert_fn convert = ss_converter(values ? from : SS_UINT8, to);

	if (convert == NULL)
		return SS_ERR_UNSUPPORTED;
	if (!ss_rows_are_legal(num_rows_of, num_slots, slot, row, num_rows))
		return SS_ERR_ARGUMENT;
	size_t row_nbytes = dim * out_nbytes;
	size_t num_at_once = row_nbytes > 0 && row_nbytes < CLEAR_NBYTES ? CLEAR_NBYTES / row_nbytes : 1;
	for (size_t i = 0; i < num_rows; i++) {
		if (i % num_at_once == 0) {
			size_t num_left = num_rows - i;
			memset((uint8_t *)out + i * row_nbytes, 0, (num_left < num_at_once ? num_left : num_at_once) * row_nbytes);
		}
		/* First the row's bounds, then, when these have come, its indices. */
		size_t far = i + 4 * PREFETCH_ROWS, near = i + 2 * PREFETCH_ROWS;
		if (far < num_rows)
			__builtin_prefetch(&indptr[slot[far]][row[far]]);
		if (near < num_rows)
			prefetch_bytes((const uint8_t *)(indices[slot[near]] + indptr[slot[near]][row[near]]),
				       2 * CACHE_LINE_NBYTES);
		const int64_t *bounds = indptr[slot[i]] + row[i];
		const uint32_t *columns = indices[slot[i]] + bounds[0];
		int64_t num_columns = bounds[1] - bounds[0];
		uint8_t *dense = (uint8_t *)out + i * row_nbytes;
		const uint8_t *weights = values ? (const uint8_t *)values[slot[i]] + (size_t)bounds[0] * in_nbytes : &one;
		int legal = !values && to == SS_FLOAT32
			? set_ones(columns, num_columns, dim, (float *)(void *)dense)
			: set_values(columns, num_columns, weights, in_nbytes, convert, dim, dense, out_nbytes);
		if (!legal)
			return SS_ERR_RANGE;
	}
	return SS_OK;
}

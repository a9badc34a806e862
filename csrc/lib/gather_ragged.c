/*
 * Batch gather of ragged rows in two more forms: padded to one length, and several columns key by key.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "ss_gather.h"
#include "convert.h"

/* Rows ahead whose bounds are requested, and, half as far, whose first values are. */
#define PREFETCH_ROWS 8

/* Writes an element 'num_elements' times; with constant sizes the compiler makes vector stores of it. */
static void
fill(uint8_t *out, const void *element, size_t element_nbytes, size_t num_elements)
{
#define FILL(N) for (size_t i = 0; i < num_elements; i++) memcpy(out + (N) * i, element, (N))
	switch (element_nbytes) {
	case 1: memset(out, *(const uint8_t *)element, num_elements); break;
	case 2: FILL(2); break;
	case 4: FILL(4); break;
	default: FILL(8); break;
	}
#undef FILL
}

enum ss_status
ss_gather_padded(const void *const *values, const int64_t *const *offsets,
		 const int64_t *num_rows_of, size_t num_slots, const uint32_t *slot,
		 const uint32_t *row, size_t num_rows, enum ss_dtype from, enum ss_dtype to,
		 const struct ss_padding *padding, void *out, uint8_t *mask)
{
	ss_convert_fn convert = ss_converter(from, to);
	size_t in_nbytes = ss_dtype_nbytes(from), out_nbytes = ss_dtype_nbytes(to), width = padding->row_num_elements;
	uint8_t *dense = out;

	if (convert == NULL)
		return SS_ERR_UNSUPPORTED;
	if (!ss_rows_are_legal(num_rows_of, num_slots, slot, row, num_rows))
		return SS_ERR_ARGUMENT;
	for (size_t i = 0; i < num_rows; i++, dense += width * out_nbytes) {
		size_t far = i + PREFETCH_ROWS, near = i + PREFETCH_ROWS / 2;
		if (far < num_rows)
			__builtin_prefetch(&offsets[slot[far]][row[far]]);
		if (near < num_rows)
			__builtin_prefetch((const uint8_t *)values[slot[near]] +
					   (size_t)offsets[slot[near]][row[near]] * in_nbytes);
		const int64_t *bounds = offsets[slot[i]] + row[i];
		size_t length = (size_t)(bounds[1] - bounds[0]);
		size_t kept = length < width ? length : width;
		size_t first = (size_t)bounds[0] + (padding->keeps_end ? length - kept : 0);
		size_t place = padding->stands_left ? width - kept : 0;
		convert((const uint8_t *)values[slot[i]] + first * in_nbytes, dense + place * out_nbytes, kept);
		fill(dense + (padding->stands_left ? 0 : kept) * out_nbytes, padding->filler, out_nbytes, width - kept);
		if (mask != NULL) {
			memset(mask + i * width, 0, width);
			memset(mask + i * width + place, 1, kept);
		}
	}
	return SS_OK;
}

enum ss_status
ss_gather_keyed_offsets(const struct ss_ragged *columns, size_t num_columns, size_t num_slots,
			const uint32_t *slot, const uint32_t *row, size_t num_rows,
			int64_t *out_offsets)
{
	int64_t end = 0;

	out_offsets[0] = 0;
	for (size_t k = 0; k < num_columns; k++) {
		int64_t *of_column = out_offsets + k * num_rows;
		enum ss_status status = ss_gather_offsets(columns[k].offsets, columns[k].num_rows_of, num_slots,
							  slot, row, num_rows, of_column);
		if (status != SS_OK)
			return status;
		for (size_t i = 0; i <= num_rows; i++)
			of_column[i] += end;
		end = of_column[num_rows];
	}
	return SS_OK;
}

enum ss_status
ss_gather_keyed_values(const struct ss_ragged *columns, size_t num_columns, size_t num_slots,
		       const uint32_t *slot, const uint32_t *row, size_t num_rows,
		       const int64_t *out_offsets, enum ss_dtype to, void *out)
{
	static const uint8_t one = 1;
	size_t out_nbytes = ss_dtype_nbytes(to);
	ss_convert_fn convert = ss_converter(SS_UINT8, to);
	uint8_t filler[8];

	if (convert == NULL)
		return SS_ERR_UNSUPPORTED;
	convert(&one, filler, 1);
	for (size_t k = 0; k < num_columns; k++) {
		const int64_t *of_column = out_offsets + k * num_rows;
		uint8_t *begin = (uint8_t *)out + (size_t)of_column[0] * out_nbytes;
		enum ss_status status = SS_OK;
		if (columns[k].values == NULL)
			fill(begin, filler, out_nbytes, (size_t)(of_column[num_rows] - of_column[0]));
		else
			status = ss_gather_ragged(columns[k].values, columns[k].offsets, columns[k].num_rows_of,
						  num_slots, slot, row, num_rows, columns[k].dtype, to, begin);
		if (status != SS_OK)
			return status;
	}
	return SS_OK;
}

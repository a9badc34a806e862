/*
 * ss_gather.h - collects the rows of a batch from many decoded blocks into one output.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * A batch names its rows by two arrays: row i of the batch is row row[i] of block
 * slot[i].  The blocks of one column are given by an array of pointers, one a
 * slot, so that a batch of any number of blocks is one call.  Every function
 * checks slot[i] < num_slots and row[i] < num_rows_of[slot[i]] and returns
 * SS_ERR_ARGUMENT otherwise.  Slow twin: tests/twins/gather.py.
 *
 * Casts are those of numpy's astype(), and defined where that is not: integers wrap
 * modulo 2^n; floats become the nearest float, ties to even, infinity beyond its range;
 * a float becomes an integer towards zero, the nearest one beyond the range, 0 for a NaN;
 * anything but zero is a true bool, which is stored as 1.  float16 is IEEE 754 binary16.
 * A dtype that is none is SS_ERR_UNSUPPORTED.
 */
#ifndef SS_GATHER_H
#define SS_GATHER_H

#include "ss_status.h"

/* cffi:begin */
enum ss_dtype {
	SS_BOOL, SS_INT8, SS_UINT8, SS_INT16, SS_UINT16, SS_INT32, SS_UINT32,
	SS_INT64, SS_UINT64, SS_FLOAT16, SS_FLOAT32, SS_FLOAT64, SS_NUM_DTYPES
};

/*
 * ss_locate_rows() finds rows by their number in all blocks laid end to end: block s has the
 * numbers starts[s] up to starts[s + 1], and starts[0] is 0.  Number -1 is the last row.  It
 * writes slot[i] and row[i] of each number; no block may have more than 2^32 rows.
 * Returns SS_ERR_RANGE if a number is outside the rows: *bad_ret is then the index of the first.
 */
enum ss_status ss_locate_rows(const int64_t *starts, size_t num_slots, const int64_t *numbers,
			      size_t num_rows, uint32_t *slot, uint32_t *row, size_t *bad_ret);

/*
 * ss_number_blocks() finds the block of each row and numbers blocks in the order in which rows
 * need them.  Block b begins at begins[b], ascending, and places[i] is not below begins[0].
 * It writes slot[i], the number of row i's block; row[i], its distance from where that
 * begins (below 2^32); num_needed[i], how many blocks rows 0 .. i need; and of each
 * numbered block block[number] and first_row[number], both with room for num_blocks.
 * Returns how many blocks are numbered.  'scratch' has room for num_blocks.
 */
size_t ss_number_blocks(const int64_t *begins, size_t num_blocks, const int64_t *places, size_t num_rows,
			uint32_t *slot, uint32_t *row, int64_t *num_needed, int64_t *block,
			int64_t *first_row, uint32_t *scratch);

/*
 * ss_gather_dense() writes rows of 'row_num_elements' elements each, cast from
 * 'from' to 'to', to out[0 .. num_rows * row_num_elements).  blocks[s] points to
 * row 0 of the block in slot s.  Blocks and 'out' need no alignment and must not
 * overlap.
 */
enum ss_status ss_gather_dense(const void *const *blocks, const int64_t *num_rows_of,
			       size_t num_slots, const uint32_t *slot, const uint32_t *row,
			       size_t num_rows, size_t row_num_elements,
			       enum ss_dtype from, enum ss_dtype to, void *out);

/*
 * ss_gather_offsets() writes the offsets of a ragged batch:
 * out_offsets[0] = 0 and out_offsets[i + 1] = out_offsets[i] + length of row i.
 * offsets[s] points to num_rows_of[s] + 1 ascending offsets.
 */
enum ss_status ss_gather_offsets(const int64_t *const *offsets, const int64_t *num_rows_of,
				 size_t num_slots, const uint32_t *slot, const uint32_t *row,
				 size_t num_rows, int64_t *out_offsets);

/*
 * ss_gather_ragged() writes the values of a ragged batch, cast, to
 * out[0 .. out_offsets[num_rows]), where out_offsets is what ss_gather_offsets()
 * wrote for the same rows.  values[s] holds offsets[s][num_rows_of[s]] elements.
 */
enum ss_status ss_gather_ragged(const void *const *values, const int64_t *const *offsets,
				const int64_t *num_rows_of, size_t num_slots,
				const uint32_t *slot, const uint32_t *row, size_t num_rows,
				enum ss_dtype from, enum ss_dtype to, void *out);

struct ss_padding {
	size_t row_num_elements;	/* of each row that comes out */
	uint32_t keeps_end;		/* a longer row loses its beginning instead of its end */
	uint32_t stands_left;		/* the padding stands before a shorter row instead of behind it */
	const void *filler;		/* what it is: an element of the dtype that comes out */
};

/*
 * ss_gather_padded() writes rows of a ragged column, cast, to
 * out[num_rows][row_num_elements], each cut or filled up to that length.  'mask' may be
 * NULL; otherwise mask[num_rows][row_num_elements] becomes 1 where a value of the row
 * stands and 0 where the filler does.
 */
enum ss_status ss_gather_padded(const void *const *values, const int64_t *const *offsets,
				const int64_t *num_rows_of, size_t num_slots,
				const uint32_t *slot, const uint32_t *row, size_t num_rows,
				enum ss_dtype from, enum ss_dtype to,
				const struct ss_padding *padding, void *out, uint8_t *mask);

/* A ragged column of the blocks: 'values' and 'offsets' as above; values == NULL is a 1 for each. */
struct ss_ragged {
	const void *const *values;
	const int64_t *const *offsets;
	const int64_t *num_rows_of;
	enum ss_dtype dtype;
};

/*
 * ss_gather_keyed_offsets() and ss_gather_keyed_values() write rows of several ragged
 * columns end to end: all rows of the first, then the same rows of the second, and so
 * on.  Row i of column k has out_offsets[k * num_rows + i] and the one behind it.
 */
enum ss_status ss_gather_keyed_offsets(const struct ss_ragged *columns, size_t num_columns, size_t num_slots,
				       const uint32_t *slot, const uint32_t *row, size_t num_rows,
				       int64_t *out_offsets);
enum ss_status ss_gather_keyed_values(const struct ss_ragged *columns, size_t num_columns, size_t num_slots,
				      const uint32_t *slot, const uint32_t *row, size_t num_rows,
				      const int64_t *out_offsets, enum ss_dtype to, void *out);

/*
 * ss_gather_sparse() expands sparse rows into out[num_rows][dim]: zero, but for
 * values[s][j] at column indices[s][j] for each j of the row; 1 if 'values' is NULL.
 * An index >= dim is SS_ERR_RANGE; 'out' is then undefined.  'out' is aligned as its dtype.
 */
enum ss_status ss_gather_sparse(const uint32_t *const *indices, const int64_t *const *indptr,
				const void *const *values, enum ss_dtype from,
				const int64_t *num_rows_of, size_t num_slots,
				const uint32_t *slot, const uint32_t *row, size_t num_rows,
				size_t dim, enum ss_dtype to, void *out);
/* cffi:end */

#endif

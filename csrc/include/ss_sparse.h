/*
 * ss_sparse.h - the sparse block: many sets of indices, optionally with values.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * The format is docs/FORMAT.md, section 4.  A block is a header, an index section
 * and a values section; each section may be a zstd frame, which the caller opens:
 * this library never links libzstd.  So reading a block is
 *
 *	ss_sparse_parse()  ->  [caller: zstd]  ->  ss_sparse_decode()
 *
 * and writing one is
 *
 *	ss_sparse_plan_new()  ->  ss_sparse_plan_choose()
 *	->  ss_sparse_plan_write() of the form chosen  ->  [caller: zstd]
 *	->  ss_sparse_write_header()
 *
 * Rice coding: Golomb, "Run-length encodings", IEEE Trans. Inf. Theory 12, 1966;
 * the parameter rule follows Kiely, "Selecting the Golomb Parameter in Rice Coding",
 * JPL IPN Progress Report 42-159, 2004.  Slow twin: tests/twins/sparse.py.
 */
#ifndef SS_SPARSE_H
#define SS_SPARSE_H

#include "ss_status.h"

/* cffi:begin */
/* How sets of integers are written. */
enum ss_sparse_coder {
	SS_SPARSE_RICE,		/* gaps: low bits, then unary parts */
	SS_SPARSE_BYTES,	/* gaps as LEB128: the form zstd likes */
	SS_SPARSE_RAW16,	/* elements as uint16; universe at most 65,536 */
	SS_SPARSE_RAW32,	/* elements as uint32 */
	SS_SPARSE_BITMAP,	/* one bit for each member of the universe */
	SS_SPARSE_NUM_CODERS
};

/* Which sets are written. */
enum ss_sparse_view {
	SS_SPARSE_ROWS,		/* each row's indices */
	SS_SPARSE_REMAP,	/* each row's indices, renumbered by falling frequency */
	SS_SPARSE_COLUMNS,	/* for each index that occurs, the rows that hold it */
	SS_SPARSE_NUM_VIEWS
};

enum ss_sparse_dtype {
	SS_SPARSE_BINARY,	/* no values */
	SS_SPARSE_FLOAT32,
	SS_SPARSE_FLOAT16,
	SS_SPARSE_INT32,
	SS_SPARSE_NUM_DTYPES
};

enum ss_sparse_values_coder {
	SS_SPARSE_PLAIN,	/* little-endian, one after the other */
	SS_SPARSE_PLANES,	/* all first bytes, then all second bytes, ... */
	SS_SPARSE_PALETTE,	/* the distinct values, and which of them each is */
	SS_SPARSE_COUNTS,	/* int32 not below 0, as integers */
	SS_SPARSE_NUM_VALUES_CODERS
};

#define SS_SPARSE_MAX_HEADER_NBYTES 80
#define SS_SPARSE_MAX_ROWS 16777216	/* 2^24 */
#define SS_SPARSE_FREE_INDICES 16777216	/* a block may hold so many whatever its size, */
#define SS_SPARSE_FREE_NBYTES 67108864	/* and a section may unpack to so many bytes; */
#define SS_SPARSE_MAX_EXPANSION 8	/* beyond, at most so many a byte of the block */
#define SS_SPARSE_SLACK_NBYTES 8	/* writers may touch so many bytes past the end */

struct ss_sparse_header {
	uint64_t num_rows;
	uint64_t dim;			/* 1 to 2^32 */
	uint64_t num_indices;
	uint64_t index_offset;		/* in the block */
	uint64_t index_nbytes;		/* as stored */
	uint64_t index_raw_nbytes;	/* without zstd */
	uint64_t values_offset;
	uint64_t values_nbytes;
	uint64_t values_raw_nbytes;
	uint8_t coder;			/* enum ss_sparse_coder */
	uint8_t view;			/* enum ss_sparse_view */
	uint8_t dtype;			/* enum ss_sparse_dtype */
	uint8_t values_coder;		/* enum ss_sparse_values_coder */
	uint8_t index_zstd;		/* 1: the index section is a zstd frame */
	uint8_t values_zstd;
};

/*
 * ss_sparse_parse() reads the header of a block of block_nbytes bytes and checks
 * that its sections fill the block exactly and keep to the limits above, so that
 * what a caller allocates from *header is bounded by the size of the block.
 *
 * Returns SS_OK, or, with *error_offset_ret in the block,
 *   SS_ERR_TRUNCATED    the block ends inside the header or a section
 *   SS_ERR_CORRUPT      wrong magic, bytes after the last section, a broken field
 *   SS_ERR_UNSUPPORTED  a version, coder, view, dtype or flag unknown here
 *   SS_ERR_RANGE        a count is beyond the limits
 * Time is O(1).
 */
enum ss_status
ss_sparse_parse(const uint8_t *block, size_t block_nbytes,
		struct ss_sparse_header *header, size_t *error_offset_ret);

/*
 * ss_sparse_write_header() writes the header to 'out', of at least
 * SS_SPARSE_MAX_HEADER_NBYTES bytes, and returns its size.  The offsets in
 * *header are ignored: the index section follows the header, the values follow it.
 */
size_t ss_sparse_write_header(const struct ss_sparse_header *header, uint8_t *out);

/*
 * ss_sparse_decode() decodes the index section 'index' of header->index_raw_nbytes
 * bytes and the values section 'values' of header->values_raw_nbytes bytes (NULL
 * if there are none); zstd is already undone.  *header is as ss_sparse_parse()
 * left it.
 *
 * Writes indices[0 .. num_indices), indptr[0 .. num_rows], and, unless the dtype
 * is SS_SPARSE_BINARY, values_out[0 .. num_indices) of 4 or 2 bytes each.  Row r is
 * indices[indptr[r] .. indptr[r + 1]): distinct, below dim, and ascending, except
 * that with sort == 0 the rows of a REMAP block without values come in order of
 * falling frequency, which is faster (and leaves the table's row counts unchecked).
 *
 * Returns SS_OK, or, with *error_offset_ret in the index section (in the values
 * section if *error_in_values_ret is 1), and the outputs undefined,
 *   SS_ERR_TRUNCATED  the section ends too early
 *   SS_ERR_CORRUPT    it breaks a rule of the format
 *   SS_ERR_NOMEM      no scratch memory
 * Never reads outside the sections, whatever their bytes.  Time and scratch are
 * O(num_rows + num_indices + size of the sections).
 */
enum ss_status
ss_sparse_decode(const struct ss_sparse_header *header, const uint8_t *index,
		 const uint8_t *values, int sort, uint32_t *indices, int64_t *indptr,
		 void *values_out, size_t *error_offset_ret, int *error_in_values_ret);

typedef struct ss_sparse_plan ss_sparse_plan;	/* opaque, from _new() to _free() */

/*
 * ss_sparse_plan_new() checks the rows and prepares them for writing in any form.
 * Row r is indices[indptr[r] .. indptr[r + 1]), ascending, distinct, below dim.
 * The arrays are borrowed until ss_sparse_plan_free().
 *
 * Returns NULL with *status_ret = SS_ERR_NOMEM, SS_ERR_ARGUMENT (indptr does not
 * rise from 0, or too many rows or indices), SS_ERR_RANGE (an index not below dim)
 * or SS_ERR_DUPLICATE (a row not strictly ascending); *error_row_ret is the row.
 * Time O(num_rows + num_indices).  What follows needs scratch of at most 28 bytes an
 * index, of which up to 16 stay until ss_sparse_plan_free().
 */
ss_sparse_plan *
ss_sparse_plan_new(const uint32_t *indices, const int64_t *indptr, size_t num_rows,
		   uint64_t dim, enum ss_status *status_ret, size_t *error_row_ret);

/*
 * ss_sparse_plan_nbytes() returns the exact size of the index section in this form
 * without zstd, or UINT64_MAX if it can't be written so.
 */
uint64_t ss_sparse_plan_nbytes(ss_sparse_plan *plan, enum ss_sparse_coder coder,
			       enum ss_sparse_view view);

/*
 * ss_sparse_plan_least_nbytes() returns a size that the form is not below, without
 * looking at its elements (but at how many rows each id is in): the exact one where
 * that is known or depends on counts alone.
 */
uint64_t ss_sparse_plan_least_nbytes(ss_sparse_plan *plan, enum ss_sparse_coder coder,
				     enum ss_sparse_view view);

/* A form, its size, and that of the smallest form. */
struct ss_sparse_choice {
	uint64_t nbytes;
	uint64_t smallest_nbytes;
	uint8_t coder;
	uint8_t view;
};

/*
 * ss_sparse_plan_choose() returns the form to write the index section in, without
 * zstd: the one that is read fastest among those whose exact size is at most 1.02
 * times that of the smallest that readers accept.  Forms that a bound rules out are
 * not measured.  nbytes is UINT64_MAX if no form can be written.
 */
struct ss_sparse_choice ss_sparse_plan_choose(ss_sparse_plan *plan);

/*
 * ss_sparse_plan_write() writes the index section in this form to 'out', which has
 * room for ss_sparse_plan_nbytes() + SS_SPARSE_SLACK_NBYTES.  Only for a form that
 * has a size.  Returns the bytes written, which are as many as foretold.
 */
uint64_t ss_sparse_plan_write(ss_sparse_plan *plan, enum ss_sparse_coder coder,
			      enum ss_sparse_view view, uint8_t *out);

/* ss_sparse_plan_free() releases a plan.  NULL is a no-op. */
void ss_sparse_plan_free(ss_sparse_plan *plan);

/*
 * ss_sparse_values_nbytes() returns the exact size of num_values values of 'dtype'
 * in this coder, or UINT64_MAX if they can't be written so (COUNTS of floats or
 * negative numbers, a PALETTE of more than 65,536 values) or memory is short.
 */
uint64_t ss_sparse_values_nbytes(const void *values, size_t num_values,
				 enum ss_sparse_dtype dtype,
				 enum ss_sparse_values_coder coder);

/*
 * ss_sparse_values_write() writes what ss_sparse_values_nbytes() measured, to 'out'
 * with room for SS_SPARSE_SLACK_NBYTES more.  Returns the bytes written, or
 * UINT64_MAX when memory is short.
 */
uint64_t ss_sparse_values_write(const void *values, size_t num_values,
				enum ss_sparse_dtype dtype,
				enum ss_sparse_values_coder coder, uint8_t *out);

/*
 * ss_sparse_rows_are_sorted() returns 1 if the bounds rise from 0 to num_indices and
 * each row is strictly ascending and below dim, so that ss_sparse_sort_rows() would
 * change nothing; else 0.  Time O(num_rows + num_indices).
 */
int ss_sparse_rows_are_sorted(const uint32_t *indices, size_t num_indices, const int64_t *indptr,
			      size_t num_rows, uint64_t dim);

/*
 * ss_sparse_sort_rows() copies rows of num_rows + 1 bounds to out_indices, each
 * row in ascending order, its values (of value_nbytes 0, 2 or 4 bytes) with it.
 * Input indices are int64.
 *
 * Returns SS_OK, or, with *error_row_ret,
 *   SS_ERR_ARGUMENT   indptr does not rise from 0 to num_indices
 *   SS_ERR_RANGE      an index is negative or not below dim
 *   SS_ERR_DUPLICATE  an index comes twice in the row
 *   SS_ERR_NOMEM      no scratch memory
 * Time O(n) for rows already ascending, O(n log n) otherwise.
 */
enum ss_status
ss_sparse_sort_rows(const int64_t *indices, size_t num_indices, const int64_t *indptr,
		    size_t num_rows, uint64_t dim, const void *values, size_t value_nbytes,
		    uint32_t *out_indices, void *out_values, size_t *error_row_ret);
/* cffi:end */

#endif

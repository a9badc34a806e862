/*
 * SPDX-License-Identifier: Apache-2.0
 */
#include <math.h>

#include "../lib/convert.h"
#include "ss_gather.h"
#include "test.h"

#define NUM_SLOTS 3

/* A ragged uint16 column of some blocks, each in memory that ends where a page does, and rows of it. */
struct column {
	int64_t num_rows_of[NUM_SLOTS];
	const int64_t *offsets[NUM_SLOTS];
	const void *values[NUM_SLOTS];
	uint32_t slot[40], row[40];
	size_t num_rows;
};

static void
make_column(struct column *c, uint64_t *seed)
{
	c->num_rows = test_random(seed) % 40;
	for (int s = 0; s < NUM_SLOTS; s++) {
		size_t num_rows = 1 + test_random(seed) % 9;
		int64_t *offsets = (int64_t *)(void *)guarded_alloc((num_rows + 1) * 8);
		for (size_t r = 0; r < num_rows; r++)
			offsets[r + 1] = offsets[r] + (int64_t)(test_random(seed) % 40);
		uint16_t *values = (uint16_t *)(void *)guarded_alloc((size_t)offsets[num_rows] * 2);
		for (int64_t j = 0; j < offsets[num_rows]; j++)
			values[j] = (uint16_t)test_random(seed);
		c->num_rows_of[s] = (int64_t)num_rows;
		c->offsets[s] = offsets;
		c->values[s] = values;
	}
	for (size_t i = 0; i < c->num_rows; i++) {
		c->slot[i] = (uint32_t)(test_random(seed) % NUM_SLOTS);
		c->row[i] = (uint32_t)(test_random(seed) % (uint64_t)c->num_rows_of[c->slot[i]]);
	}
}

static void
free_column(struct column *c)
{
	for (int s = 0; s < NUM_SLOTS; s++) {
		guarded_free((uint8_t *)(uintptr_t)c->values[s], (size_t)c->offsets[s][c->num_rows_of[s]] * 2);
		guarded_free((uint8_t *)(uintptr_t)c->offsets[s], ((size_t)c->num_rows_of[s] + 1) * 8);
	}
}

static void
pads_rows_within_their_bounds(void)
{
	uint64_t seed = 1;
	int64_t filler = -7;

	for (int round = 0; round < 500; round++) {
		struct column c;
		make_column(&c, &seed);
		struct ss_padding padding = { 1 + test_random(&seed) % 50, test_random(&seed) & 1, test_random(&seed) & 1, &filler };
		size_t width = padding.row_num_elements, num = c.num_rows * width;
		int64_t *out = (int64_t *)(void *)guarded_alloc(num * 8);
		uint8_t *mask = guarded_alloc(num);

		CHECK_EQ(ss_gather_padded(c.values, c.offsets, c.num_rows_of, NUM_SLOTS, c.slot, c.row, c.num_rows, SS_UINT16, SS_INT64,
					  &padding, out, round % 2 ? mask : NULL), SS_OK);
		for (size_t i = 0; i < c.num_rows; i++) {
			const int64_t *bounds = c.offsets[c.slot[i]] + c.row[i];
			int64_t length = bounds[1] - bounds[0], spare = (int64_t)width - length;
			for (int64_t j = 0; j < (int64_t)width; j++) {
				int64_t from = j - (padding.stands_left && spare > 0 ? spare : 0) - (padding.keeps_end && spare < 0 ? spare : 0);
				int own = from >= 0 && from < length;
				int64_t expected = own ? ((const uint16_t *)c.values[c.slot[i]])[bounds[0] + from] : filler;
				CHECK_EQ(out[i * width + (size_t)j], expected);
				CHECK_EQ(mask[i * width + (size_t)j], round % 2 && own);
			}
		}
		guarded_free((uint8_t *)out, num * 8);
		guarded_free(mask, num);
		free_column(&c);
	}
}

static void
joins_columns_key_by_key(void)
{
	uint64_t seed = 2;

	for (int round = 0; round < 300; round++) {
		struct column c[2];
		make_column(&c[0], &seed);
		make_column(&c[1], &seed);
		struct ss_ragged columns[3];
		for (int k = 0; k < 3; k++)	/* the third has the rows of the first, and ones for values */
			columns[k] = (struct ss_ragged){ k == 2 ? NULL : c[k].values, c[k % 2].offsets, c[k % 2].num_rows_of, SS_UINT16 };
		for (size_t i = 0; i < c[0].num_rows; i++)	/* rows that both have */
			c[0].row[i] %= (uint32_t)c[1].num_rows_of[c[0].slot[i]];
		size_t num_rows = c[0].num_rows, offsets_nbytes = (3 * num_rows + 1) * 8;
		int64_t *offsets = (int64_t *)(void *)guarded_alloc(offsets_nbytes);

		CHECK_EQ(ss_gather_keyed_offsets(columns, 3, NUM_SLOTS, c[0].slot, c[0].row, num_rows, offsets), SS_OK);
		size_t nbytes = (size_t)offsets[3 * num_rows] * 4;
		uint32_t *out = (uint32_t *)(void *)guarded_alloc(nbytes);
		CHECK_EQ(ss_gather_keyed_values(columns, 3, NUM_SLOTS, c[0].slot, c[0].row, num_rows, offsets, SS_UINT32, out), SS_OK);
		int64_t end = 0;
		for (size_t k = 0; k < 3; k++)
			for (size_t i = 0; i < num_rows; i++) {
				const int64_t *bounds = columns[k].offsets[c[0].slot[i]] + c[0].row[i];
				CHECK_EQ(offsets[k * num_rows + i], end);
				for (int64_t j = bounds[0]; j < bounds[1]; j++, end++)
					CHECK_EQ(out[end], k == 2 ? 1 : ((const uint16_t *)columns[k].values[c[0].slot[i]])[j]);
			}
		CHECK_EQ(offsets[3 * num_rows], end);
		guarded_free((uint8_t *)out, nbytes);
		guarded_free((uint8_t *)offsets, offsets_nbytes);
		free_column(&c[0]);
		free_column(&c[1]);
	}
}

static void
refuses_rows_that_are_not_there(void)
{
	const int64_t bounds[] = { 0, 1 }, num_rows_of[] = { 1 }, *const offsets[] = { bounds };
	const uint16_t value[] = { 5 };
	const void *const values[] = { value };
	const uint32_t slots[] = { 0, 1 }, rows[] = { 1, 0 };
	const struct ss_padding padding = { 1, 0, 0, value };
	const struct ss_ragged column = { values, offsets, num_rows_of, SS_UINT16 };
	int64_t out[2];

	for (int i = 0; i < 2; i++) {
		CHECK_EQ(ss_gather_padded(values, offsets, num_rows_of, 1, slots + i, rows + i, 1, SS_UINT16, SS_INT64, &padding, out, NULL), SS_ERR_ARGUMENT);
		CHECK_EQ(ss_gather_keyed_offsets(&column, 1, 1, slots + i, rows + i, 1, out), SS_ERR_ARGUMENT);
		CHECK_EQ(ss_gather_dense(values, num_rows_of, 1, slots + i, rows + i, 1, 1, SS_UINT16, SS_INT64, out), SS_ERR_ARGUMENT);
	}
	CHECK_EQ(ss_gather_dense(values, num_rows_of, 1, slots, rows, 0, 1, SS_NUM_DTYPES, SS_INT64, out), SS_ERR_UNSUPPORTED);
}

/* What C itself leaves undefined, which UBSan would report. */
static void
casts_any_float_to_any_integer(void)
{
	const double from[] = { NAN, INFINITY, -INFINITY, 1e300, -1e300, 0x1p63, -0x1p63, 0x1p64, -0.99, 255.99, 256, -129, 3e9, 0 };
	const int64_t num_rows_of[] = { sizeof(from) / sizeof(*from) }, int8[] = { 0, 127, -128, 127, -128, 127, -128, 127, 0, 127, 127, -128, 127, 0 };
	const void *const blocks[] = { from };
	uint32_t slot[sizeof(from) / sizeof(*from)] = { 0 }, row[sizeof(from) / sizeof(*from)];
	uint64_t out[sizeof(from) / sizeof(*from)];
	size_t num = sizeof(from) / sizeof(*from);

	for (size_t i = 0; i < num; i++)
		row[i] = (uint32_t)i;
	for (enum ss_dtype to = SS_BOOL; to < SS_NUM_DTYPES; to++)
		CHECK_EQ(ss_gather_dense(blocks, num_rows_of, 1, slot, row, num, 1, SS_FLOAT64, to, out), SS_OK);
	CHECK_EQ(ss_gather_dense(blocks, num_rows_of, 1, slot, row, num, 1, SS_FLOAT64, SS_INT8, out), SS_OK);
	for (size_t i = 0; i < num; i++)
		CHECK_EQ(((int8_t *)out)[i], int8[i]);
	CHECK_EQ(ss_gather_dense(blocks, num_rows_of, 1, slot, row, num, 1, SS_FLOAT64, SS_UINT64, out), SS_OK);
	CHECK(out[0] == 0 && out[1] == UINT64_MAX && out[2] == 0 && out[3] == UINT64_MAX && out[5] == (uint64_t)1 << 63 && out[7] == UINT64_MAX && out[8] == 0);
}

/* Vectors of any length, their rest, and single elements cast alike, from any address, and touch nothing beyond. */
static void
casts_many_as_each_alone(void)
{
	static const int64_t num_rows_of[] = { 1 };
	static const uint32_t zero[] = { 0 };
	uint64_t seed = 5;

	for (enum ss_dtype from = SS_BOOL; from < SS_NUM_DTYPES; from++)
		for (enum ss_dtype to = SS_BOOL; to < SS_NUM_DTYPES; to++)
			for (size_t num = 0; num < 36; num++) {
				size_t from_nbytes = ss_dtype_nbytes(from), to_nbytes = ss_dtype_nbytes(to), shift = num % 2;
				uint8_t *in = guarded_alloc(num * from_nbytes + shift), *out = guarded_alloc(num * to_nbytes);
				for (size_t i = 0; i < num * from_nbytes; i++)
					in[i] = (uint8_t)test_random(&seed);
				const void *const blocks[] = { in };
				CHECK_EQ(ss_gather_dense(blocks, num_rows_of, 1, zero, zero, 1, num, from, to, out), SS_OK);
				for (size_t i = 0; i < num; i++) {
					const void *const one[] = { in + i * from_nbytes };
					uint8_t alone[8];
					CHECK_EQ(ss_gather_dense(one, num_rows_of, 1, zero, zero, 1, 1, from, to, alone), SS_OK);
					CHECK_EQ(memcmp(out + i * to_nbytes, alone, to_nbytes), 0);
				}
				guarded_free(in, num * from_nbytes + shift);
				guarded_free(out, num * to_nbytes);
			}
}

/* Sets with and without values, up to the last index, to rows of any size; whatever stood there before. */
static void
expands_sets_within_their_bounds(void)
{
	static const size_t dims[] = { 1, 3, 500, 4096, 5000 };
	uint64_t seed = 6;

	for (int round = 0; round < 200; round++) {
		size_t dim = dims[round % 5], num_rows = test_random(&seed) % 40, num = 2 + test_random(&seed) % 9;
		int has_values = round / 5 % 2;
		enum ss_dtype to = round / 10 % 2 ? SS_FLOAT32 : SS_UINT8;
		size_t out_nbytes = num_rows * dim * ss_dtype_nbytes(to);
		uint32_t *indices = (uint32_t *)(void *)guarded_alloc(num * 4), slot[40] = { 0 }, row[40];
		int32_t *values = (int32_t *)(void *)guarded_alloc(num * 4);
		int64_t *indptr = (int64_t *)(void *)guarded_alloc((num + 1) * 8);
		const uint32_t *of_indices[] = { indices };
		const int64_t *of_indptr[] = { indptr }, num_rows_of[] = { (int64_t)num };
		const void *of_values[] = { values };
		uint8_t *out = guarded_alloc(out_nbytes);

		for (size_t i = 0; i < num; i++) {	/* a row is empty or one index, in one block; the last is the last there is */
			indices[i] = (uint32_t)(i == 0 ? dim - 1 : test_random(&seed) % dim);
			values[i] = (int32_t)(test_random(&seed) % 100);
			indptr[i + 1] = indptr[i] + (i + 1 == num || test_random(&seed) % 3 > 0);
		}
		for (size_t i = 0; i < num_rows; i++)
			row[i] = (uint32_t)(test_random(&seed) % num);
		if (out_nbytes > 0)
			memset(out, 0x55, out_nbytes);
		CHECK_EQ(ss_gather_sparse(of_indices, of_indptr, has_values ? of_values : NULL, SS_INT32, num_rows_of, 1, slot, row,
					  num_rows, dim, to, out), SS_OK);
		for (size_t i = 0; i < num_rows; i++)
			for (size_t column = 0; column < dim; column++) {
				int64_t at = indptr[row[i]];
				int is_set = at < indptr[row[i] + 1] && indices[at] == column, wanted = is_set ? has_values ? values[at] : 1 : 0;
				if (to == SS_FLOAT32)
					CHECK_EQ(((float *)(void *)out)[i * dim + column], wanted);
				else
					CHECK_EQ(out[i * dim + column], wanted);
			}
		for (size_t i = 0; i < num_rows; i++)
			row[i] = (uint32_t)num - 1;
		indices[indptr[num - 1]] = (uint32_t)dim;	/* one too large */
		CHECK_EQ(ss_gather_sparse(of_indices, of_indptr, has_values ? of_values : NULL, SS_INT32, num_rows_of, 1, slot, row,
					  num_rows, dim, to, out), num_rows > 0 ? SS_ERR_RANGE : SS_OK);
		guarded_free((uint8_t *)indices, num * 4);
		guarded_free((uint8_t *)values, num * 4);
		guarded_free((uint8_t *)indptr, (num + 1) * 8);
		guarded_free(out, out_nbytes);
	}
}

/* Blocks of any size, none too, against a search from the front; outputs end where a page does. */
static void
numbers_blocks_in_the_order_of_need(void)
{
	uint64_t seed = 4;

	for (int round = 0; round < 300; round++) {
		size_t num_blocks = 1 + test_random(&seed) % 9, num_rows = test_random(&seed) % 30, num_numbered = 0;
		int64_t *begins = (int64_t *)(void *)guarded_alloc(num_blocks * 8);
		int64_t *places = (int64_t *)(void *)guarded_alloc(num_rows * 8);
		int64_t *num_needed = (int64_t *)(void *)guarded_alloc(num_rows * 8);
		int64_t *block = (int64_t *)(void *)guarded_alloc(num_blocks * 8);
		int64_t *first_row = (int64_t *)(void *)guarded_alloc(num_blocks * 8);
		uint32_t *slot = (uint32_t *)(void *)guarded_alloc(num_rows * 4);
		uint32_t *row = (uint32_t *)(void *)guarded_alloc(num_rows * 4);
		uint32_t *scratch = (uint32_t *)(void *)guarded_alloc(num_blocks * 4);
		for (size_t b = 1; b < num_blocks; b++)
			begins[b] = begins[b - 1] + (int64_t)(test_random(&seed) % 6);
		for (size_t i = 0; i < num_rows; i++)
			places[i] = (int64_t)(test_random(&seed) % (uint64_t)(begins[num_blocks - 1] + 4));
		size_t found = ss_number_blocks(begins, num_blocks, places, num_rows, slot, row, num_needed, block,
						first_row, scratch);
		for (size_t i = 0; i < num_rows; i++) {
			size_t b = num_blocks - 1;
			while (begins[b] > places[i])
				b--;
			if (num_numbered < found && first_row[num_numbered] == (int64_t)i)
				CHECK_EQ(block[num_numbered++], b);
			CHECK_EQ(block[slot[i]], b);
			CHECK_EQ(row[i], places[i] - begins[b]);
			CHECK_EQ(num_needed[i], num_numbered);
		}
		CHECK_EQ(found, num_numbered);
		guarded_free((uint8_t *)begins, num_blocks * 8);
		guarded_free((uint8_t *)places, num_rows * 8);
		guarded_free((uint8_t *)num_needed, num_rows * 8);
		guarded_free((uint8_t *)block, num_blocks * 8);
		guarded_free((uint8_t *)first_row, num_blocks * 8);
		guarded_free((uint8_t *)slot, num_rows * 4);
		guarded_free((uint8_t *)row, num_rows * 4);
		guarded_free((uint8_t *)scratch, num_blocks * 4);
	}
}

int
main(void)
{
	numbers_blocks_in_the_order_of_need();
	pads_rows_within_their_bounds();
	joins_columns_key_by_key();
	refuses_rows_that_are_not_there();
	casts_any_float_to_any_integer();
	casts_many_as_each_alone();
	expands_sets_within_their_bounds();
	return 0;
}

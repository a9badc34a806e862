/*
 * Writing a sparse block: the plan holds what all forms share, each form is then
 * measured and written by itself.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>

#include "sparse.h"

#define RADIX_NBITS 11
#define RADIX_SIZE (1u << RADIX_NBITS)

struct ss_sparse_plan {
	const uint32_t *indices;	/* borrowed */
	uint64_t dim;
	uint64_t num_indices;
	size_t num_rows;
	uint32_t *lens;			/* of the rows */
	/* From here on made by prepare_columns(), when a view asks for it. */
	struct id_table table;
	uint32_t *rows;			/* the row of each index, column by column */
	uint32_t *ranks;		/* REMAP's rows, made by prepare_ranks() */
	/* Remembered by lens_nbytes() and table_nbytes(), since most forms share them; 0 is unknown, else nbytes + 1. */
	uint64_t lens_nbytes[2];	/* [for zstd] */
	uint64_t table_nbytes[2];
};

static enum ss_status
check_rows(const uint32_t *indices, const int64_t *indptr, size_t num_rows, uint64_t dim,
	   uint32_t *lens, size_t *error_row_ret)
{
	for (size_t r = 0; r < num_rows; r++) {
		const uint32_t *row = indices + indptr[r];
		size_t len = (size_t)(indptr[r + 1] - indptr[r]);
		int bad = 0;

		*error_row_ret = r;
		for (size_t i = 1; i < len; i++)
			bad |= row[i] <= row[i - 1];
		if (bad)
			return SS_ERR_DUPLICATE;
		if (len > 0 && row[len - 1] >= dim)
			return SS_ERR_RANGE;
		lens[r] = (uint32_t)len;
	}
	return SS_OK;
}

static enum ss_status
check_indptr(const int64_t *indptr, size_t num_rows, size_t *error_row_ret)
{
	if (num_rows > SS_SPARSE_MAX_ROWS || indptr[0] != 0 || indptr[num_rows] > UINT32_MAX)
		return SS_ERR_ARGUMENT;
	for (size_t r = 0; r < num_rows; r++) {
		*error_row_ret = r;
		if (indptr[r + 1] < indptr[r])
			return SS_ERR_ARGUMENT;
	}
	return SS_OK;
}

ss_sparse_plan *
ss_sparse_plan_new(const uint32_t *indices, const int64_t *indptr, size_t num_rows, uint64_t dim,
		   enum ss_status *status_ret, size_t *error_row_ret)
{
	*error_row_ret = 0;
	*status_ret = check_indptr(indptr, num_rows, error_row_ret);
	if (*status_ret != SS_OK)
		return NULL;
	ss_sparse_plan *plan = calloc(1, sizeof(*plan));
	uint32_t *lens = malloc((num_rows + 1) * sizeof(uint32_t));
	if (plan == NULL || lens == NULL)
		*status_ret = SS_ERR_NOMEM;
	else
		*status_ret = check_rows(indices, indptr, num_rows, dim, lens, error_row_ret);
	if (*status_ret != SS_OK) {
		free(plan);
		free(lens);
		return NULL;
	}
	plan->indices = indices;
	plan->dim = dim;
	plan->num_indices = (uint64_t)indptr[num_rows];
	plan->num_rows = num_rows;
	plan->lens = lens;
	return plan;
}

void
ss_sparse_plan_free(ss_sparse_plan *plan)
{
	if (plan == NULL)
		return;
	free(plan->lens);
	free(plan->table.ids);
	free(plan->table.num_rows_of);
	free(plan->rows);
	free(plan->ranks);
	free(plan);
}

/* Sorts pairs (id << 32 | row) by id, keeping the order of rows; returns where they are. */
static uint64_t *
sort_pairs(uint64_t *pairs, uint64_t *scratch, uint64_t num, uint64_t dim)
{
	for (unsigned shift = 32; shift < 32 + bit_length(dim - 1); shift += RADIX_NBITS) {
		size_t starts[RADIX_SIZE] = {0}, sum = 0;
		uint64_t *swap = pairs;

		for (uint64_t i = 0; i < num; i++)
			starts[(pairs[i] >> shift) & (RADIX_SIZE - 1)]++;
		for (unsigned digit = 0; digit < RADIX_SIZE; digit++) {
			size_t count = starts[digit];
			starts[digit] = sum;
			sum += count;
		}
		for (uint64_t i = 0; i < num; i++)
			scratch[starts[(pairs[i] >> shift) & (RADIX_SIZE - 1)]++] = pairs[i];
		pairs = scratch;
		scratch = swap;
	}
	return pairs;
}

/* Splits sorted pairs into the table and the rows. */
static void
fill_table(const uint64_t *pairs, uint64_t num, struct id_table *t, uint32_t *rows)
{
	size_t n = 0;

	for (uint64_t i = 0; i < num; i++) {
		uint32_t id = (uint32_t)(pairs[i] >> 32);
		rows[i] = (uint32_t)pairs[i];
		if (i == 0 || id != t->ids[n - 1]) {
			t->ids[n] = id;
			t->num_rows_of[n++] = 0;
		}
		t->num_rows_of[n - 1]++;
	}
	t->num_ids = n;
}

/* Makes the table and the columns, once; 0 if memory is short. */
static int
prepare_columns(ss_sparse_plan *plan)
{
	uint64_t n = plan->num_indices;

	if (plan->rows != NULL)
		return 1;
	uint64_t *pairs = malloc((2 * n + 1) * sizeof(uint64_t));
	plan->table.ids = malloc((n + 1) * sizeof(uint32_t));
	plan->table.num_rows_of = malloc((n + 1) * sizeof(uint32_t));
	uint32_t *rows = malloc((n + 1) * sizeof(uint32_t));
	if (pairs == NULL || plan->table.ids == NULL || plan->table.num_rows_of == NULL || rows == NULL) {
		free(pairs);
		free(rows);
		free(plan->table.ids);
		free(plan->table.num_rows_of);
		plan->table = (struct id_table){0};
		return 0;
	}
	uint64_t at = 0;
	for (size_t r = 0; r < plan->num_rows; r++)
		for (uint32_t i = 0; i < plan->lens[r]; i++, at++)
			pairs[at] = (uint64_t)plan->indices[at] << 32 | r;
	fill_table(sort_pairs(pairs, pairs + n, n, plan->dim), n, &plan->table, rows);
	plan->rows = rows;
	free(pairs);
	return 1;
}

/* Makes the rows of ranks, once: columns in rank order, transposed. */
static int
prepare_ranks(ss_sparse_plan *plan)
{
	const struct id_table *t = &plan->table;

	if (plan->ranks != NULL)
		return 1;
	uint32_t *order = malloc((t->num_ids + 1) * sizeof(uint32_t));
	uint32_t *starts = malloc((t->num_ids + 1) * sizeof(uint32_t));
	uint32_t *cursors = malloc((plan->num_rows + 1) * sizeof(uint32_t));
	uint32_t *ranks = malloc((plan->num_indices + 1) * sizeof(uint32_t));
	int ok = order && starts && cursors && ranks && id_table_rank(t, order) == SS_OK;
	uint32_t sum = 0;

	for (size_t c = 0; ok && c < t->num_ids; sum += t->num_rows_of[c++])
		starts[c] = sum;
	sum = 0;
	for (size_t r = 0; ok && r < plan->num_rows; sum += plan->lens[r++])
		cursors[r] = sum;
	for (size_t rank = 0; ok && rank < t->num_ids; rank++) {
		const uint32_t *rows = plan->rows + starts[order[rank]];
		for (uint32_t i = 0; i < t->num_rows_of[order[rank]]; i++)
			ranks[cursors[rows[i]]++] = (uint32_t)rank;
	}
	free(order);
	free(starts);
	free(cursors);
	if (ok)
		plan->ranks = ranks;
	else
		free(ranks);
	return ok;
}

/* The sets of a view. */
struct view {
	uint64_t universe;
	const uint32_t *lens;
	size_t num_sets;
	const uint32_t *elements;
};

/* 0 if memory is short. */
static int
view_of(ss_sparse_plan *plan, enum ss_sparse_view which, struct view *view)
{
	if (which != SS_SPARSE_ROWS && !prepare_columns(plan))
		return 0;
	if (which == SS_SPARSE_REMAP && !prepare_ranks(plan))
		return 0;
	if (which == SS_SPARSE_ROWS)
		*view = (struct view){plan->dim, plan->lens, plan->num_rows, plan->indices};
	else if (which == SS_SPARSE_REMAP)
		*view = (struct view){plan->table.num_ids, plan->lens, plan->num_rows, plan->ranks};
	else
		*view = (struct view){plan->num_rows, plan->table.num_rows_of, plan->table.num_ids, plan->rows};
	return 1;
}

/* BYTES is written for zstd, so the lists before it are too. */
static struct integers_plan
choose_lens(const uint32_t *lens, size_t num, enum ss_sparse_coder coder)
{
	return integers_choose(lens, num, coder == SS_SPARSE_BYTES);
}

/* UINT64_MAX if memory is short. */
static uint64_t
lens_nbytes(ss_sparse_plan *plan, enum ss_sparse_coder coder)
{
	uint64_t *known = &plan->lens_nbytes[coder == SS_SPARSE_BYTES];

	if (*known == 0)
		*known = choose_lens(plan->lens, plan->num_rows, coder).nbytes + 1;
	return *known - 1;
}

static uint64_t
table_nbytes(ss_sparse_plan *plan, enum ss_sparse_coder coder)
{
	const struct id_table *t = &plan->table;
	uint64_t *known = &plan->table_nbytes[coder == SS_SPARSE_BYTES];

	if (*known == 0) {
		uint32_t len = (uint32_t)t->num_ids;
		uint64_t ids = rice_nbytes(plan->dim, &len, 1, t->ids);
		uint64_t num_rows_of = choose_lens(t->num_rows_of, t->num_ids, coder).nbytes;
		*known = ids == UINT64_MAX || num_rows_of == UINT64_MAX
				 ? 0 : leb128_nbytes(len) + ids + num_rows_of + 1;
	}
	return *known - 1;
}

uint64_t
ss_sparse_plan_nbytes(ss_sparse_plan *plan, enum ss_sparse_coder coder, enum ss_sparse_view which)
{
	struct view v;
	uint64_t parts[3] = {0};

	if (!view_of(plan, which, &v))
		return UINT64_MAX;
	if (which != SS_SPARSE_ROWS)
		parts[0] = table_nbytes(plan, coder);
	if (which != SS_SPARSE_COLUMNS && coder != SS_SPARSE_BITMAP)
		parts[1] = lens_nbytes(plan, coder);
	parts[2] = sets_nbytes(coder, v.universe, v.lens, v.num_sets, v.elements);
	for (int i = 0; i < 3; i++)
		if (parts[i] == UINT64_MAX)
			return UINT64_MAX;
	return parts[0] + parts[1] + parts[2];
}

static uint8_t *
write_lens(const uint32_t *lens, size_t num, enum ss_sparse_coder coder, uint8_t *out)
{
	struct integers_plan plan = choose_lens(lens, num, coder);

	return plan.nbytes == UINT64_MAX ? NULL : integers_write(&plan, lens, num, out);
}

uint64_t
ss_sparse_plan_write(ss_sparse_plan *plan, enum ss_sparse_coder coder, enum ss_sparse_view which,
		     uint8_t *out)
{
	const struct id_table *t = &plan->table;
	uint8_t *p = out;
	struct view v;

	if (!view_of(plan, which, &v))
		return UINT64_MAX;
	if (which != SS_SPARSE_ROWS) {
		uint32_t len = (uint32_t)t->num_ids;
		p = leb128_put(p, len);
		p = rice_write(plan->dim, &len, 1, t->ids, p);
		if (p != NULL)
			p = write_lens(t->num_rows_of, t->num_ids, coder, p);
	}
	if (p != NULL && which != SS_SPARSE_COLUMNS && coder != SS_SPARSE_BITMAP)
		p = write_lens(v.lens, v.num_sets, coder, p);
	if (p != NULL)
		p = sets_write(coder, v.universe, v.lens, v.num_sets, v.elements, p);
	return p == NULL ? UINT64_MAX : (uint64_t)(p - out);
}

size_t
ss_sparse_write_header(const struct ss_sparse_header *h, uint8_t *out)
{
	uint8_t *p = out;

	memcpy(p, SPARSE_MAGIC, SPARSE_MAGIC_NBYTES);
	p += SPARSE_MAGIC_NBYTES;
	*p++ = SPARSE_VERSION;
	*p++ = h->coder;
	*p++ = h->view;
	*p++ = h->dtype;
	*p++ = h->values_coder;
	*p++ = (uint8_t)((h->index_zstd ? SPARSE_FLAG_INDEX_ZSTD : 0) |
			 (h->values_zstd ? SPARSE_FLAG_VALUES_ZSTD : 0));
	p = leb128_put(p, h->num_rows);
	p = leb128_put(p, h->dim);
	p = leb128_put(p, h->num_indices);
	p = leb128_put(p, h->index_nbytes);
	if (h->index_zstd)
		p = leb128_put(p, h->index_raw_nbytes);
	if (h->dtype != SS_SPARSE_BINARY) {
		p = leb128_put(p, h->values_nbytes);
		if (h->values_zstd)
			p = leb128_put(p, h->values_raw_nbytes);
	}
	return (size_t)(p - out);
}

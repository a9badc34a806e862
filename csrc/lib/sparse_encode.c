/*
 * Writing a sparse block: the plan holds what all forms share, each form is then
 * measured and written by itself.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>

#include "sparse.h"

/* How far above the smallest form one may be that is read faster. */
#define TIE 1.02

struct ss_sparse_plan {
	const uint32_t *indices;	/* borrowed */
	uint64_t dim;
	uint64_t num_indices;
	size_t num_rows;
	uint32_t *lens;			/* of the rows */
	/* From here on made when a form asks for it. */
	struct columns columns;
	uint32_t *ranks;		/* REMAP's rows */
	uint64_t ids_nbytes;		/* of the table, in RICE */
	struct integers_plan lens_plan[2];	/* [for zstd]; nbytes 0: not made */
	struct integers_plan num_rows_of_plan[2];
	uint64_t nbytes[SS_SPARSE_NUM_VIEWS][SS_SPARSE_NUM_CODERS];	/* + 1; 0: not measured */
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
	columns_free(&plan->columns);
	free(plan->ranks);
	free(plan);
}

/* The sets of a view. */
struct view {
	uint64_t universe;
	const uint32_t *lens;
	size_t num_sets;
	const uint32_t *elements;
};

/* Does the size of a set in this coder depend on its elements? */
static int
looks_at_elements(enum ss_sparse_coder coder)
{
	return coder == SS_SPARSE_RICE || coder == SS_SPARSE_BYTES;
}

/* 0 if memory is short.  Without 'elements' those of REMAP may be NULL. */
static int
view_of(ss_sparse_plan *plan, enum ss_sparse_view which, int elements, struct view *view)
{
	struct columns *c = &plan->columns;

	if (which != SS_SPARSE_ROWS && c->rows == NULL &&
	    !columns_make(plan->indices, plan->lens, plan->num_rows, plan->dim, c))
		return 0;
	if (which == SS_SPARSE_REMAP && elements && plan->ranks == NULL) {
		plan->ranks = columns_ranks(c, plan->lens, plan->num_rows);
		if (plan->ranks == NULL)
			return 0;
	}
	if (which == SS_SPARSE_ROWS)
		*view = (struct view){plan->dim, plan->lens, plan->num_rows, plan->indices};
	else if (which == SS_SPARSE_REMAP)
		*view = (struct view){c->table.num_ids, plan->lens, plan->num_rows, plan->ranks};
	else
		*view = (struct view){plan->num_rows, c->table.num_rows_of, c->table.num_ids, c->rows};
	return 1;
}

/* The plan of a list, made once; BYTES is written for zstd, so the lists before it are too. */
static const struct integers_plan *
list_plan(struct integers_plan plans[2], const uint32_t *integers, size_t num, enum ss_sparse_coder coder)
{
	int for_zstd = coder == SS_SPARSE_BYTES;

	if (plans[for_zstd].nbytes == 0)
		plans[for_zstd] = integers_choose(integers, num, for_zstd);
	return &plans[for_zstd];
}

static const struct integers_plan *
lens_plan(ss_sparse_plan *plan, enum ss_sparse_coder coder)
{
	return list_plan(plan->lens_plan, plan->lens, plan->num_rows, coder);
}

static const struct integers_plan *
num_rows_of_plan(ss_sparse_plan *plan, enum ss_sparse_coder coder)
{
	const struct id_table *t = &plan->columns.table;

	return list_plan(plan->num_rows_of_plan, t->num_rows_of, t->num_ids, coder);
}

/* Sums of sizes, of which any may be UINT64_MAX for "can't be". */
static uint64_t
add_nbytes(uint64_t a, uint64_t b)
{
	return a == UINT64_MAX || b == UINT64_MAX ? UINT64_MAX : a + b;
}

static uint64_t
table_nbytes(ss_sparse_plan *plan, enum ss_sparse_coder coder)
{
	const struct id_table *t = &plan->columns.table;
	uint32_t len = (uint32_t)t->num_ids;

	if (plan->ids_nbytes == 0) {
		uint64_t nbytes = rice_nbytes(plan->dim, &len, 1, t->ids);
		if (nbytes == UINT64_MAX)
			return nbytes;
		plan->ids_nbytes = leb128_nbytes(len) + nbytes;
	}
	return add_nbytes(plan->ids_nbytes, num_rows_of_plan(plan, coder)->nbytes);
}

/* What stands before the sets: the table and the sizes of rows, as far as the form has them. */
static uint64_t
lists_nbytes(ss_sparse_plan *plan, enum ss_sparse_coder coder, enum ss_sparse_view which)
{
	uint64_t nbytes = which == SS_SPARSE_ROWS ? 0 : table_nbytes(plan, coder);

	if (which != SS_SPARSE_COLUMNS && coder != SS_SPARSE_BITMAP)
		nbytes = add_nbytes(nbytes, lens_plan(plan, coder)->nbytes);
	return nbytes;
}

uint64_t
ss_sparse_plan_nbytes(ss_sparse_plan *plan, enum ss_sparse_coder coder, enum ss_sparse_view which)
{
	uint64_t *known = &plan->nbytes[which][coder];
	struct view v;

	if (*known == 0) {
		if (!view_of(plan, which, looks_at_elements(coder), &v))
			return UINT64_MAX;
		*known = add_nbytes(lists_nbytes(plan, coder, which),
				    sets_nbytes(coder, v.universe, v.lens, v.num_sets, v.elements)) + 1;
	}
	return *known - 1;
}

uint64_t
ss_sparse_plan_least_nbytes(ss_sparse_plan *plan, enum ss_sparse_coder coder, enum ss_sparse_view which)
{
	uint64_t sets = coder == SS_SPARSE_BYTES ? plan->num_indices : 0;
	struct view v;

	if (plan->nbytes[which][coder] != 0 || !looks_at_elements(coder))
		return ss_sparse_plan_nbytes(plan, coder, which);
	if (!view_of(plan, which, 0, &v))
		return UINT64_MAX;
	if (coder == SS_SPARSE_RICE)
		sets = rice_least_nbytes(v.universe, v.lens, v.num_sets);
	return add_nbytes(lists_nbytes(plan, coder, which), sets);
}

/* Do readers accept a block of so many bytes with these indices?  (docs/FORMAT.md, 4.1) */
static int
is_legal(const ss_sparse_plan *plan, uint64_t nbytes)
{
	return plan->num_indices <= SS_SPARSE_FREE_INDICES ||
	       (plan->num_indices - 1) / SS_SPARSE_MAX_EXPANSION < nbytes;
}

/* By speed of reading. */
static const uint8_t BY_SPEED[][2] = {
	{SS_SPARSE_RAW32, SS_SPARSE_ROWS}, {SS_SPARSE_RAW16, SS_SPARSE_ROWS},
	{SS_SPARSE_BITMAP, SS_SPARSE_ROWS}, {SS_SPARSE_RICE, SS_SPARSE_ROWS},
	{SS_SPARSE_BYTES, SS_SPARSE_ROWS}, {SS_SPARSE_RAW32, SS_SPARSE_COLUMNS},
	{SS_SPARSE_RAW16, SS_SPARSE_COLUMNS}, {SS_SPARSE_RICE, SS_SPARSE_COLUMNS},
	{SS_SPARSE_BYTES, SS_SPARSE_COLUMNS}, {SS_SPARSE_BITMAP, SS_SPARSE_COLUMNS},
	{SS_SPARSE_RAW32, SS_SPARSE_REMAP}, {SS_SPARSE_RAW16, SS_SPARSE_REMAP},
	{SS_SPARSE_RICE, SS_SPARSE_REMAP}, {SS_SPARSE_BYTES, SS_SPARSE_REMAP},
	{SS_SPARSE_BITMAP, SS_SPARSE_REMAP},
};
#define NUM_FORMS (sizeof(BY_SPEED) / sizeof(BY_SPEED[0]))

/*
 * A form is measured only if its least size does not rule it out: above a tie with one
 * already measured, it is above a tie with the smallest.  The order of reading speed
 * happens to be a good one to measure in, too: it ends with what is dearest to measure.
 */
struct ss_sparse_choice
ss_sparse_plan_choose(ss_sparse_plan *plan)
{
	struct ss_sparse_choice choice = {.nbytes = UINT64_MAX, .smallest_nbytes = UINT64_MAX};
	uint64_t sizes[NUM_FORMS];

	for (size_t f = 0; f < NUM_FORMS; f++) {
		enum ss_sparse_coder coder = BY_SPEED[f][0];
		enum ss_sparse_view view = BY_SPEED[f][1];

		sizes[f] = ss_sparse_plan_least_nbytes(plan, coder, view);
		if ((double)sizes[f] <= TIE * (double)choice.smallest_nbytes)
			sizes[f] = ss_sparse_plan_nbytes(plan, coder, view);
		if (!is_legal(plan, sizes[f]))
			sizes[f] = UINT64_MAX;
		if (sizes[f] < choice.smallest_nbytes)
			choice.smallest_nbytes = sizes[f];
	}
	for (size_t f = NUM_FORMS; f-- > 0;) {
		if ((double)sizes[f] <= TIE * (double)choice.smallest_nbytes) {
			choice.coder = BY_SPEED[f][0];
			choice.view = BY_SPEED[f][1];
			choice.nbytes = sizes[f];
		}
	}
	return choice;
}

uint64_t
ss_sparse_plan_write(ss_sparse_plan *plan, enum ss_sparse_coder coder, enum ss_sparse_view which,
		     uint8_t *out)
{
	const struct id_table *t = &plan->columns.table;
	uint8_t *p = out;
	struct view v;

	if (!view_of(plan, which, 1, &v) || lists_nbytes(plan, coder, which) == UINT64_MAX)
		return UINT64_MAX;
	if (which != SS_SPARSE_ROWS) {
		uint32_t len = (uint32_t)t->num_ids;
		p = leb128_put(p, len);
		p = rice_write(plan->dim, &len, 1, t->ids, p);
		if (p != NULL)
			p = integers_write(num_rows_of_plan(plan, coder), t->num_rows_of, t->num_ids, p);
	}
	if (p != NULL && which != SS_SPARSE_COLUMNS && coder != SS_SPARSE_BITMAP)
		p = integers_write(lens_plan(plan, coder), v.lens, v.num_sets, p);
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

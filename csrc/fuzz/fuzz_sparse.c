/*
 * Fuzz target: any bytes decode to legal rows or to an error, and legal rows
 * survive being written in every form.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "fuzz.h"
#include "ss_sparse.h"

/* The format allows more; this keeps a run short. */
#define MAX_ROWS 65536
#define MAX_INDICES 1048576
#define MAX_REWRITTEN 2048

struct rows {
	uint32_t *indices;
	int64_t *indptr;
	void *values;
};

static struct rows
rows_new(const struct ss_sparse_header *h)
{
	struct rows rows = {
		malloc(h->num_indices * 4),
		malloc((h->num_rows + 1) * 8),
		malloc(h->num_indices * (h->dtype == SS_SPARSE_FLOAT16 ? 2 : 4)),
	};

	FUZZ_CHECK(rows.indptr != NULL);
	return rows;
}

static void
rows_free(struct rows *rows)
{
	free(rows->indices);
	free(rows->indptr);
	free(rows->values);
}

static void
check_rows(const struct ss_sparse_header *h, const struct rows *rows)
{
	FUZZ_CHECK(rows->indptr[0] == 0 && rows->indptr[h->num_rows] == (int64_t)h->num_indices);
	for (uint64_t r = 0; r < h->num_rows; r++) {
		FUZZ_CHECK(rows->indptr[r] <= rows->indptr[r + 1]);
		for (int64_t i = rows->indptr[r]; i < rows->indptr[r + 1]; i++) {
			FUZZ_CHECK(rows->indices[i] < h->dim);
			FUZZ_CHECK(i == rows->indptr[r] || rows->indices[i - 1] < rows->indices[i]);
		}
	}
}

static void
rewrite(const struct ss_sparse_header *h, const struct rows *rows, unsigned coder, unsigned view)
{
	enum ss_status status;
	size_t row, offset;
	int in_values;
	ss_sparse_plan *plan = ss_sparse_plan_new(rows->indices, rows->indptr, h->num_rows, h->dim, &status, &row);

	FUZZ_CHECK(plan != NULL);
	uint64_t nbytes = ss_sparse_plan_nbytes(plan, coder, view);
	if (nbytes < 1 << 22) {
		struct ss_sparse_header again = {
			.num_rows = h->num_rows, .dim = h->dim, .num_indices = h->num_indices,
			.index_nbytes = nbytes, .index_raw_nbytes = nbytes,
			.coder = (uint8_t)coder, .view = (uint8_t)view,
		};
		struct rows back = rows_new(&again);
		uint8_t *out = malloc(nbytes + SS_SPARSE_SLACK_NBYTES);
		FUZZ_CHECK(out != NULL && ss_sparse_plan_write(plan, coder, view, out) == nbytes);
		FUZZ_CHECK(ss_sparse_decode(&again, out, NULL, 1, back.indices, back.indptr, NULL,
					    &offset, &in_values) == SS_OK);
		FUZZ_CHECK(memcmp(back.indptr, rows->indptr, (h->num_rows + 1) * 8) == 0);
		FUZZ_CHECK(h->num_indices == 0 || memcmp(back.indices, rows->indices, h->num_indices * 4) == 0);
		free(out);
		rows_free(&back);
	}
	ss_sparse_plan_free(plan);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_nbytes)
{
	struct ss_sparse_header h;
	size_t offset;
	int in_values;

	if (ss_sparse_parse(data, data_nbytes, &h, &offset) != SS_OK) {
		FUZZ_CHECK(offset <= data_nbytes);
		return 0;
	}
	if (h.num_rows > MAX_ROWS || h.num_indices > MAX_INDICES)
		return 0;
	h.index_raw_nbytes = h.index_nbytes;	/* take a frame for what it holds */
	h.values_raw_nbytes = h.values_nbytes;
	for (int sort = 0; sort <= 1; sort++) {
		struct rows rows = rows_new(&h);
		enum ss_status status = ss_sparse_decode(&h, data + h.index_offset, data + h.values_offset, sort,
							 rows.indices, rows.indptr, rows.values, &offset, &in_values);
		FUZZ_CHECK(offset <= (in_values ? h.values_nbytes : h.index_nbytes));
		if (status == SS_OK && (sort || h.view != SS_SPARSE_REMAP))
			check_rows(&h, &rows);
		if (status == SS_OK && sort && h.num_indices <= MAX_REWRITTEN && h.num_rows <= MAX_REWRITTEN)
			for (unsigned form = 0; form < SS_SPARSE_NUM_CODERS * SS_SPARSE_NUM_VIEWS; form++)
				rewrite(&h, &rows, form % SS_SPARSE_NUM_CODERS, form / SS_SPARSE_NUM_CODERS);
		rows_free(&rows);
	}
	return 0;
}

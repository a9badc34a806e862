/*
 * SPDX-License-Identifier: Apache-2.0
 */
#include "ss_sparse.h"
#include "test.h"

#define MAX_ROWS 64

struct rows {
	uint32_t *indices;
	int64_t indptr[MAX_ROWS + 1];
	size_t num_rows;
	uint64_t dim;
};

/* Rows whose densities run from empty to full; members of large universes lie on a coarse grid. */
static struct rows
make_rows(uint64_t dim, size_t num_rows, uint64_t seed)
{
	uint64_t step = dim > 512 ? dim / 512 : 1;
	struct rows rows = {.num_rows = num_rows, .dim = dim};
	int64_t num = 0;

	rows.indices = malloc(num_rows * 520 * sizeof(uint32_t));
	CHECK(rows.indices != NULL);
	for (size_t r = 0; r < num_rows; r++) {
		for (uint64_t x = 0; x < dim && x / step < 520; x += step) {
			uint64_t jitter = test_random(&seed);
			if (test_random(&seed) % num_rows < r && x + jitter % step < dim)
				rows.indices[num++] = (uint32_t)(x + jitter % step);
		}
		rows.indptr[r + 1] = num;
	}
	return rows;
}

static uint8_t *
write_form(const struct rows *rows, unsigned coder, unsigned view, struct ss_sparse_header *h)
{
	enum ss_status status;
	size_t row;
	ss_sparse_plan *plan = ss_sparse_plan_new(rows->indices, rows->indptr, rows->num_rows, rows->dim, &status, &row);

	CHECK(plan != NULL);
	uint64_t nbytes = ss_sparse_plan_nbytes(plan, coder, view);
	uint8_t *section = NULL;
	if (nbytes < 1 << 24) {
		uint8_t *out = guarded_alloc(nbytes + SS_SPARSE_SLACK_NBYTES);
		CHECK_EQ(ss_sparse_plan_write(plan, coder, view, out), nbytes);
		section = guarded_copy(out, nbytes);
		guarded_free(out, nbytes + SS_SPARSE_SLACK_NBYTES);
	}
	*h = (struct ss_sparse_header){
		.num_rows = rows->num_rows, .dim = rows->dim,
		.num_indices = (uint64_t)rows->indptr[rows->num_rows],
		.index_nbytes = nbytes, .index_raw_nbytes = nbytes,
		.coder = (uint8_t)coder, .view = (uint8_t)view,
	};
	ss_sparse_plan_free(plan);
	return section;
}

static enum ss_status
decode_form(const struct ss_sparse_header *h, const uint8_t *section, int sort, uint8_t *indices, uint8_t *indptr)
{
	size_t offset;
	int in_values;
	enum ss_status status = ss_sparse_decode(h, section, NULL, sort, (uint32_t *)indices, (int64_t *)indptr,
						 NULL, &offset, &in_values);

	CHECK(offset <= h->index_raw_nbytes);
	return status;
}

static void
check_form(const struct rows *rows, unsigned coder, unsigned view)
{
	struct ss_sparse_header h;
	uint8_t *section = write_form(rows, coder, view, &h);

	if (section == NULL)
		return;
	size_t indices_nbytes = h.num_indices * 4, indptr_nbytes = (rows->num_rows + 1) * 8;
	uint8_t *indices = guarded_alloc(indices_nbytes), *indptr = guarded_alloc(indptr_nbytes);
	CHECK_EQ(decode_form(&h, section, 0, indices, indptr), SS_OK);
	CHECK_EQ(decode_form(&h, section, 1, indices, indptr), SS_OK);
	CHECK_EQ(memcmp(indptr, rows->indptr, indptr_nbytes), 0);
	CHECK_EQ(memcmp(indices, rows->indices, indices_nbytes), 0);
	guarded_free(section, h.index_nbytes);
	guarded_free(indices, indices_nbytes);
	guarded_free(indptr, indptr_nbytes);
}

static void
every_form_survives_between_guard_pages(void)
{
	static const uint64_t dims[] = {1, 7, 8, 64, 65, 500, 65536, 65537, 1u << 20, 1ull << 32};

	for (size_t d = 0; d < sizeof(dims) / sizeof(dims[0]); d++) {
		for (size_t num_rows = 0; num_rows <= MAX_ROWS; num_rows += 1 + num_rows) {
			struct rows rows = make_rows(dims[d], num_rows, d * 100 + num_rows);
			for (unsigned form = 0; form < SS_SPARSE_NUM_CODERS * SS_SPARSE_NUM_VIEWS; form++)
				check_form(&rows, form % SS_SPARSE_NUM_CODERS, form / SS_SPARSE_NUM_CODERS);
			free(rows.indices);
		}
	}
}

/* Bounds may only rule out what is more than 2% above the smallest. */
static void
the_choice_is_the_first_within_a_tie(void)
{
	static const uint64_t dims[] = {1, 8, 500, 65537, 1ull << 32};

	for (unsigned run = 0; run < 60; run++) {
		struct rows rows = make_rows(dims[run % 5], run % MAX_ROWS + 1, run);
		enum ss_status status;
		size_t row;
		ss_sparse_plan *all = ss_sparse_plan_new(rows.indices, rows.indptr, rows.num_rows, rows.dim, &status, &row);
		ss_sparse_plan *one = ss_sparse_plan_new(rows.indices, rows.indptr, rows.num_rows, rows.dim, &status, &row);
		uint64_t smallest = UINT64_MAX;

		CHECK(all != NULL && one != NULL);
		struct ss_sparse_choice choice = ss_sparse_plan_choose(one);
		for (unsigned form = 0; form < SS_SPARSE_NUM_CODERS * SS_SPARSE_NUM_VIEWS; form++) {
			unsigned coder = form % SS_SPARSE_NUM_CODERS, view = form / SS_SPARSE_NUM_CODERS;
			uint64_t least = ss_sparse_plan_least_nbytes(all, coder, view);
			uint64_t nbytes = ss_sparse_plan_nbytes(all, coder, view);
			CHECK(least <= nbytes);
			smallest = nbytes < smallest ? nbytes : smallest;
		}
		CHECK_EQ(choice.smallest_nbytes, smallest);
		CHECK_EQ(choice.nbytes, ss_sparse_plan_nbytes(all, choice.coder, choice.view));
		CHECK((double)choice.nbytes <= 1.02 * (double)smallest);
		ss_sparse_plan_free(all);
		ss_sparse_plan_free(one);
		free(rows.indices);
	}
}

static void
every_truncation_is_refused_without_an_overread(void)
{
	struct rows rows = make_rows(200, 12, 3);

	for (unsigned form = 0; form < SS_SPARSE_NUM_CODERS * SS_SPARSE_NUM_VIEWS; form++) {
		struct ss_sparse_header h;
		uint8_t *section = write_form(&rows, form % SS_SPARSE_NUM_CODERS, form / SS_SPARSE_NUM_CODERS, &h);
		uint8_t *indices = guarded_alloc(h.num_indices * 4), *indptr = guarded_alloc(13 * 8);
		uint64_t whole = h.index_nbytes;

		for (h.index_raw_nbytes = 0; h.index_raw_nbytes < whole; h.index_raw_nbytes++) {
			uint8_t *cut = guarded_copy(section, h.index_raw_nbytes);
			CHECK(decode_form(&h, cut, 1, indices, indptr) != SS_OK);
			guarded_free(cut, h.index_raw_nbytes);
		}
		guarded_free(section, whole);
		guarded_free(indices, h.num_indices * 4);
		guarded_free(indptr, 13 * 8);
	}
	free(rows.indices);
}

static void
garbage_is_never_an_overread_or_an_overwrite(void)
{
	struct rows rows = make_rows(300, 20, 4);
	uint64_t seed = 5;

	for (unsigned run = 0; run < 6000; run++) {
		struct ss_sparse_header h;
		uint8_t *section = write_form(&rows, run % SS_SPARSE_NUM_CODERS, run / 5 % SS_SPARSE_NUM_VIEWS, &h);
		uint8_t *indices = guarded_alloc(h.num_indices * 4), *indptr = guarded_alloc(21 * 8);

		for (unsigned change = 0; change <= run % 4; change++)
			section[test_random(&seed) % h.index_nbytes] = (uint8_t)test_random(&seed);
		if (decode_form(&h, section, 1, indices, indptr) == SS_OK)
			for (uint64_t i = 0; i < h.num_indices; i++)
				CHECK(((uint32_t *)indices)[i] < h.dim);
		guarded_free(section, h.index_nbytes);
		guarded_free(indices, h.num_indices * 4);
		guarded_free(indptr, 21 * 8);
	}
	free(rows.indices);
}

static void
values_survive_between_guard_pages(void)
{
	uint64_t seed = 6;

	for (unsigned run = 0; run < 400; run++) {
		size_t num = run % 67;
		uint32_t *numbers = (uint32_t *)guarded_alloc(num * 4);
		for (size_t i = 0; i < num; i++)
			numbers[i] = (uint32_t)test_random(&seed) >> (run % 31 + 1);
		for (unsigned coder = 0; coder < SS_SPARSE_NUM_VALUES_CODERS; coder++) {
			uint64_t nbytes = ss_sparse_values_nbytes(numbers, num, SS_SPARSE_INT32, coder);
			uint8_t *out = guarded_alloc(nbytes + SS_SPARSE_SLACK_NBYTES);
			CHECK_EQ(ss_sparse_values_write(numbers, num, SS_SPARSE_INT32, coder, out), nbytes);
			/* One row of num indices in a bitmap, so that the values are all there is to decode. */
			struct ss_sparse_header h = {
				.num_rows = 1, .dim = 72, .num_indices = num, .index_nbytes = 9, .index_raw_nbytes = 9,
				.values_nbytes = nbytes, .values_raw_nbytes = nbytes,
				.coder = SS_SPARSE_BITMAP, .dtype = SS_SPARSE_INT32, .values_coder = (uint8_t)coder,
			};
			uint8_t bitmap[9] = {0}, *section = guarded_copy(out, nbytes), *back = guarded_alloc(num * 4);
			uint32_t indices[72];
			int64_t indptr[2];
			size_t offset;
			int in_values;
			for (size_t i = 0; i < num; i++)
				bitmap[i / 8] |= (uint8_t)(1 << i % 8);
			CHECK_EQ(ss_sparse_decode(&h, bitmap, section, 1, indices, indptr, back, &offset, &in_values), SS_OK);
			CHECK_EQ(memcmp(back, numbers, num * 4), 0);
			guarded_free(out, nbytes + SS_SPARSE_SLACK_NBYTES);
			guarded_free(section, nbytes);
			guarded_free(back, num * 4);
		}
		guarded_free((uint8_t *)numbers, num * 4);
	}
}

int
main(void)
{
	every_form_survives_between_guard_pages();
	the_choice_is_the_first_within_a_tie();
	every_truncation_is_refused_without_an_overread();
	garbage_is_never_an_overread_or_an_overwrite();
	values_survive_between_guard_pages();
	return 0;
}

/*
 * Reading a sparse block: header, views.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>

#include "sparse.h"
#include "sparse_values.h"

static enum ss_status
parse_codes(struct input *in, struct ss_sparse_header *h)
{
	if (input_left(in) < SPARSE_MAGIC_NBYTES + 6)
		return SS_ERR_TRUNCATED;
	if (memcmp(in->p, SPARSE_MAGIC, SPARSE_MAGIC_NBYTES) != 0)
		return SS_ERR_CORRUPT;
	in->p += SPARSE_MAGIC_NBYTES;
	if (*in->p != SPARSE_VERSION)
		return SS_ERR_UNSUPPORTED;
	in->p++;
	h->coder = *in->p;
	if (h->coder >= SS_SPARSE_NUM_CODERS)
		return SS_ERR_UNSUPPORTED;
	in->p++;
	h->view = *in->p;
	if (h->view >= SS_SPARSE_NUM_VIEWS)
		return SS_ERR_UNSUPPORTED;
	in->p++;
	h->dtype = *in->p;
	if (h->dtype >= SS_SPARSE_NUM_DTYPES)
		return SS_ERR_UNSUPPORTED;
	in->p++;
	h->values_coder = *in->p;
	if (h->values_coder >= SS_SPARSE_NUM_VALUES_CODERS)
		return SS_ERR_UNSUPPORTED;
	in->p++;
	if (*in->p > (SPARSE_FLAG_INDEX_ZSTD | SPARSE_FLAG_VALUES_ZSTD))
		return SS_ERR_UNSUPPORTED;
	h->index_zstd = (*in->p & SPARSE_FLAG_INDEX_ZSTD) != 0;
	h->values_zstd = (*in->p & SPARSE_FLAG_VALUES_ZSTD) != 0;
	in->p++;
	return SS_OK;
}

/* A section's size, and its unpacked size if it is compressed. */
static enum ss_status
parse_section(struct input *in, int zstd, uint64_t *nbytes_ret, uint64_t *raw_nbytes_ret)
{
	enum ss_status status = leb128_take(in, 64, nbytes_ret);

	*raw_nbytes_ret = *nbytes_ret;
	return status == SS_OK && zstd ? leb128_take(in, 64, raw_nbytes_ret) : status;
}

static enum ss_status
parse_sizes(struct input *in, struct ss_sparse_header *h)
{
	enum ss_status status = leb128_take(in, 64, &h->num_rows);

	if (status == SS_OK)
		status = leb128_take(in, 64, &h->dim);
	if (status == SS_OK)
		status = leb128_take(in, 64, &h->num_indices);
	if (status == SS_OK)
		status = parse_section(in, h->index_zstd, &h->index_nbytes, &h->index_raw_nbytes);
	if (status == SS_OK && h->dtype != SS_SPARSE_BINARY)
		status = parse_section(in, h->values_zstd, &h->values_nbytes, &h->values_raw_nbytes);
	return status;
}

/* Is 'amount' above what a block of this size may ask for? */
static int
beyond(uint64_t amount, uint64_t always_legal, size_t block_nbytes)
{
	return amount > always_legal && (amount - 1) / SS_SPARSE_MAX_EXPANSION >= block_nbytes;
}

static enum ss_status
check_sizes(const struct input *in, const struct ss_sparse_header *h, size_t block_nbytes)
{
	size_t left = input_left(in);

	if (h->dim < 1 || h->dim > SPARSE_MAX_DIM || h->num_rows > SS_SPARSE_MAX_ROWS ||
	    h->num_indices > UINT32_MAX ||
	    beyond(h->num_indices, SS_SPARSE_FREE_INDICES, block_nbytes) ||
	    beyond(h->index_raw_nbytes, SS_SPARSE_FREE_NBYTES, block_nbytes) ||
	    beyond(h->values_raw_nbytes, SS_SPARSE_FREE_NBYTES, block_nbytes))
		return SS_ERR_RANGE;
	if (h->coder == SS_SPARSE_RAW16 && h->view == SS_SPARSE_ROWS && h->dim > 65536)
		return SS_ERR_CORRUPT;
	if (h->dtype == SS_SPARSE_BINARY && (h->values_coder != SS_SPARSE_PLAIN || h->values_zstd))
		return SS_ERR_CORRUPT;
	if (h->index_nbytes > left || h->values_nbytes > left - h->index_nbytes)
		return SS_ERR_TRUNCATED;
	return h->index_nbytes + h->values_nbytes == left ? SS_OK : SS_ERR_CORRUPT;
}

enum ss_status
ss_sparse_parse(const uint8_t *block, size_t block_nbytes, struct ss_sparse_header *header,
		size_t *error_offset_ret)
{
	struct input in = {block, block + block_nbytes};
	enum ss_status status;

	memset(header, 0, sizeof(*header));
	status = parse_codes(&in, header);
	if (status == SS_OK)
		status = parse_sizes(&in, header);
	if (status == SS_OK)
		status = check_sizes(&in, header, block_nbytes);
	*error_offset_ret = (size_t)(in.p - block);
	header->index_offset = *error_offset_ret;
	header->values_offset = header->index_offset + header->index_nbytes;
	return status;
}

/* Scratch of one call; freed together. */
struct scratch {
	struct id_table table;
	uint32_t *order;	/* REMAP: table position of each rank */
	uint32_t *lens;		/* of the sets as written */
	uint32_t *elements;	/* COLUMNS, sorted REMAP: the row of each index, column by column */
	uint32_t *cursors;	/* where each row's, or each id's, next element goes */
	uint32_t *starts;	/* REMAP, by rank: where its next row goes, or its id */
};

static void
scratch_free(struct scratch *s)
{
	free(s->table.ids);
	free(s->table.num_rows_of);
	free(s->order);
	free(s->lens);
	free(s->elements);
	free(s->cursors);
	free(s->starts);
}

static enum ss_status
allocate(uint32_t **array, size_t num)
{
	*array = malloc((num + 1) * sizeof(uint32_t));
	return *array == NULL ? SS_ERR_NOMEM : SS_OK;
}

/* Reads a list of sizes that must have this sum, none above 'universe'. */
static enum ss_status
read_lens(struct input *in, uint32_t *lens, size_t num, uint64_t universe, uint64_t total)
{
	enum ss_status status = integers_read(in, lens, num);
	uint64_t sum = 0;
	uint32_t max = 0;

	if (status != SS_OK)
		return status;
	for (size_t i = 0; i < num; i++) {
		sum += lens[i];
		max = lens[i] > max ? lens[i] : max;
	}
	return sum == total && max <= universe ? SS_OK : SS_ERR_CORRUPT;
}

static enum ss_status
read_table(const struct ss_sparse_header *h, struct input *in, struct id_table *table)
{
	uint64_t num_ids;
	enum ss_status status = leb128_take(in, 32, &num_ids);

	if (status != SS_OK)
		return status;
	if (num_ids > h->num_indices || num_ids > h->dim)
		return SS_ERR_CORRUPT;
	table->num_ids = (size_t)num_ids;
	status = allocate(&table->ids, table->num_ids);
	if (status == SS_OK)
		status = allocate(&table->num_rows_of, table->num_ids);
	uint32_t len = (uint32_t)num_ids;
	if (status == SS_OK)
		status = rice_read(h->dim, &len, 1, in, table->ids);
	if (status == SS_OK)
		status = read_lens(in, table->num_rows_of, table->num_ids, h->num_rows, h->num_indices);
	for (size_t i = 0; status == SS_OK && i < table->num_ids; i++)
		if (table->num_rows_of[i] == 0)
			status = SS_ERR_CORRUPT;
	return status;
}

static void
fill_indptr(const uint32_t *lens, size_t num_rows, int64_t *indptr)
{
	int64_t sum = 0;

	for (size_t r = 0; r < num_rows; r++) {
		indptr[r] = sum;
		sum += lens[r];
	}
	indptr[num_rows] = sum;
}

/* Short columns are collected into runs of so many elements, for one long loop. */
#define RUN_AVAIL 2048
#define SHORT_COLUMN 8

/* Appends ids[i] to row[i], for elements of any columns. */
static void
append_run(const uint32_t *row, const uint32_t *ids, size_t num, uint32_t *cursors, uint32_t *indices)
{
	for (size_t i = 0; i < num; i++)
		indices[cursors[row[i]]++] = ids[i];
}

/* Appends one id to each of 'num' rows. */
static void
append_column(const uint32_t *row, uint32_t id, size_t num, uint32_t *cursors, uint32_t *indices)
{
	for (size_t i = 0; i < num; i++)
		indices[cursors[row[i]]++] = id;
}

/*
 * Turns columns into rows: s->elements holds the rows of id 0, of id 1, ...  Since
 * ids ascend, so does what each row gets.
 */
static void
scatter_columns(const struct ss_sparse_header *h, const struct scratch *s, uint32_t *indices,
		int64_t *indptr)
{
	const uint32_t *row = s->elements;
	uint32_t *cursors = s->cursors, sum = 0, run[RUN_AVAIL + SHORT_COLUMN];
	size_t num = 0;

	memset(cursors, 0, h->num_rows * sizeof(uint32_t));
	for (uint64_t i = 0; i < h->num_indices; i++)
		cursors[row[i]]++;
	for (uint64_t r = 0; r < h->num_rows; r++) {
		uint32_t len = cursors[r];
		indptr[r] = cursors[r] = sum;
		sum += len;
	}
	indptr[h->num_rows] = sum;
	for (size_t c = 0; c < s->table.num_ids; c++) {
		uint32_t id = s->table.ids[c], len = s->table.num_rows_of[c];
		if (len <= SHORT_COLUMN && num < RUN_AVAIL) {
			for (unsigned i = 0; i < SHORT_COLUMN; i++)
				run[num + i] = id;	/* too many; the next column overwrites them */
			num += len;
			continue;
		}
		append_run(row, run, num, cursors, indices);
		row += num;
		num = 0;
		append_column(row, id, len, cursors, indices);
		row += len;
	}
	append_run(row, run, num, cursors, indices);
}

static enum ss_status
decode_columns(const struct ss_sparse_header *h, struct input *in, struct scratch *s,
	       uint32_t *indices, int64_t *indptr)
{
	struct id_table *t = &s->table;
	enum ss_status status = allocate(&s->elements, h->num_indices);

	if (status == SS_OK)
		status = allocate(&s->cursors, h->num_rows);
	if (status == SS_OK && h->coder == SS_SPARSE_BITMAP)
		status = allocate(&s->lens, t->num_ids);
	if (status != SS_OK)
		return status;
	uint32_t *lens = h->coder == SS_SPARSE_BITMAP ? s->lens : t->num_rows_of;
	status = sets_read(h->coder, h->num_rows, lens, t->num_ids, h->num_indices, in, s->elements);
	if (status != SS_OK)
		return status;
	if (lens != t->num_rows_of && memcmp(lens, t->num_rows_of, t->num_ids * sizeof(uint32_t)) != 0)
		return SS_ERR_CORRUPT;
	scatter_columns(h, s, indices, indptr);
	return SS_OK;
}

/* Reads the rows of a ROWS or REMAP block, which lie in [0, universe), and their indptr. */
static enum ss_status
read_rows(const struct ss_sparse_header *h, uint64_t universe, struct input *in,
	  struct scratch *s, uint32_t *elements, int64_t *indptr)
{
	enum ss_status status = allocate(&s->lens, h->num_rows);

	if (status == SS_OK && h->coder != SS_SPARSE_BITMAP)
		status = read_lens(in, s->lens, h->num_rows, universe, h->num_indices);
	if (status == SS_OK)
		status = sets_read(h->coder, universe, s->lens, h->num_rows, h->num_indices, in, elements);
	if (status == SS_OK)
		fill_indptr(s->lens, h->num_rows, indptr);
	return status;
}

/*
 * Sorts the rows of ranks in indices[] by two transpositions: into columns in the
 * order of ids, then back.  If the table's row counts are wrong, columns run into
 * each other, by num_indices at most; so there is room for that, and it is seen
 * afterwards.
 */
static enum ss_status
sort_ranks(const struct ss_sparse_header *h, struct scratch *s, uint32_t *indices, int64_t *indptr)
{
	const struct id_table *t = &s->table;
	enum ss_status status = allocate(&s->elements, 2 * h->num_indices);
	uint32_t *starts = s->starts, sum = 0;

	if (status == SS_OK)
		status = allocate(&s->cursors, t->num_ids > h->num_rows ? t->num_ids : h->num_rows);
	if (status != SS_OK)
		return status;
	for (size_t c = 0; c < t->num_ids; c++) {
		s->cursors[c] = sum;
		sum += t->num_rows_of[c];
	}
	for (size_t rank = 0; rank < t->num_ids; rank++)
		starts[rank] = s->cursors[s->order[rank]];
	for (uint64_t r = 0; r < h->num_rows; r++)
		for (int64_t i = indptr[r]; i < indptr[r + 1]; i++)
			s->elements[starts[indices[i]]++] = (uint32_t)r;
	for (size_t rank = 0; rank < t->num_ids; rank++)
		if (starts[rank] != s->cursors[s->order[rank]] + t->num_rows_of[s->order[rank]])
			return SS_ERR_CORRUPT;
	scatter_columns(h, s, indices, indptr);
	return SS_OK;
}

static enum ss_status
decode_remap(const struct ss_sparse_header *h, struct input *in, struct scratch *s, int sort,
	     uint32_t *indices, int64_t *indptr)
{
	struct id_table *t = &s->table;
	enum ss_status status = allocate(&s->order, t->num_ids);

	if (status == SS_OK)
		status = allocate(&s->starts, t->num_ids);
	if (status == SS_OK)
		status = id_table_rank(t, s->order);
	if (status == SS_OK)
		status = read_rows(h, t->num_ids, in, s, indices, indptr);
	if (status != SS_OK)
		return status;
	if (sort || h->dtype != SS_SPARSE_BINARY)
		return sort_ranks(h, s, indices, indptr);
	uint32_t *id_of_rank = s->starts;
	for (size_t rank = 0; rank < t->num_ids; rank++)
		id_of_rank[rank] = t->ids[s->order[rank]];
	for (uint64_t i = 0; i < h->num_indices; i++)
		indices[i] = id_of_rank[indices[i]];
	return SS_OK;
}

static enum ss_status
decode_index(const struct ss_sparse_header *h, struct input *in, int sort, uint32_t *indices,
	     int64_t *indptr)
{
	struct scratch s = {0};
	enum ss_status status = SS_OK;

	if (h->view != SS_SPARSE_ROWS)
		status = read_table(h, in, &s.table);
	uint64_t universe = h->view == SS_SPARSE_ROWS ? h->dim
			  : h->view == SS_SPARSE_REMAP ? s.table.num_ids : h->num_rows;
	if (status == SS_OK && h->coder == SS_SPARSE_RAW16 && universe > 65536)
		status = SS_ERR_CORRUPT;
	if (status == SS_OK) {
		if (h->view == SS_SPARSE_ROWS)
			status = read_rows(h, h->dim, in, &s, indices, indptr);
		else if (h->view == SS_SPARSE_REMAP)
			status = decode_remap(h, in, &s, sort, indices, indptr);
		else
			status = decode_columns(h, in, &s, indices, indptr);
	}
	scratch_free(&s);
	return status == SS_OK && in->p != in->end ? SS_ERR_CORRUPT : status;
}

enum ss_status
ss_sparse_decode(const struct ss_sparse_header *header, const uint8_t *index, const uint8_t *values,
		 int sort, uint32_t *indices, int64_t *indptr, void *values_out,
		 size_t *error_offset_ret, int *error_in_values_ret)
{
	struct input in = {index, index + header->index_raw_nbytes};
	enum ss_status status = decode_index(header, &in, sort, indices, indptr);

	*error_in_values_ret = 0;
	*error_offset_ret = (size_t)(in.p - index);
	if (status != SS_OK || header->dtype == SS_SPARSE_BINARY)
		return status;
	in = (struct input){values, values + header->values_raw_nbytes};
	status = values_read(header->values_coder, header->dtype, header->num_indices, &in, values_out);
	if (status == SS_OK && in.p != in.end)
		status = SS_ERR_CORRUPT;
	*error_in_values_ret = 1;
	*error_offset_ret = (size_t)(in.p - values);
	return status;
}

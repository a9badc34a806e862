/*
 * The values column of a sparse block.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>

#include "sparse_values.h"

/* Open addressing, at most half full. */
#define TABLE_NBITS 17
#define TABLE_SIZE (1u << TABLE_NBITS)

/* Distinct values as bit patterns, the most frequent first (ties: the smaller pattern). */
struct palette {
	uint32_t *entries;	/* [num_entries] */
	uint32_t *codes;	/* of each value */
	uint32_t num_entries;
};

/* The bit patterns of the values; a float16's is in the low half. */
static uint32_t
pattern_at(const void *values, size_t i, size_t value_nbytes)
{
	uint32_t pattern = 0;

	memcpy(&pattern, (const uint8_t *)values + i * value_nbytes, value_nbytes);
	return pattern;
}

struct entry {
	uint32_t pattern;
	uint32_t times;
	uint32_t code;		/* in the order of first occurrence */
};

static int
compare_entries(const void *left, const void *right)
{
	const struct entry *a = left, *b = right;

	if (a->times != b->times)
		return a->times > b->times ? -1 : 1;
	return a->pattern < b->pattern ? -1 : a->pattern > b->pattern;
}

/* Counts the distinct patterns into 'entries' and codes[]; 0 if there are too many. */
static int
tally_values(const void *values, size_t num, size_t value_nbytes, uint32_t *slots,
	     struct entry *entries, struct palette *p)
{
	p->num_entries = 0;
	for (size_t i = 0; i < num; i++) {
		uint32_t pattern = pattern_at(values, i, value_nbytes);
		uint32_t at = (pattern * 0x9E3779B1u) >> (32 - TABLE_NBITS);

		while (slots[at] != 0 && entries[slots[at] - 1].pattern != pattern)
			at = (at + 1) & (TABLE_SIZE - 1);
		if (slots[at] == 0) {
			if (p->num_entries == SPARSE_MAX_PALETTE)
				return 0;
			entries[p->num_entries] = (struct entry){pattern, 0, p->num_entries};
			slots[at] = ++p->num_entries;
		}
		entries[slots[at] - 1].times++;
		p->codes[i] = slots[at] - 1;
	}
	return 1;
}

static void
palette_free(struct palette *p)
{
	free(p->entries);
	free(p->codes);
}

/* 0 if there are too many distinct values, or memory is short. */
static int
palette_make(const void *values, size_t num, size_t value_nbytes, struct palette *p)
{
	uint32_t *slots = calloc(TABLE_SIZE, sizeof(*slots));
	struct entry *entries = malloc(SPARSE_MAX_PALETTE * sizeof(*entries));
	uint32_t *code_of = malloc(SPARSE_MAX_PALETTE * sizeof(*code_of));

	p->entries = malloc(SPARSE_MAX_PALETTE * sizeof(uint32_t));
	p->codes = malloc((num + 1) * sizeof(uint32_t));
	int ok = slots && entries && code_of && p->entries && p->codes &&
		 tally_values(values, num, value_nbytes, slots, entries, p);
	if (ok) {
		qsort(entries, p->num_entries, sizeof(*entries), compare_entries);
		for (uint32_t e = 0; e < p->num_entries; e++) {
			p->entries[e] = entries[e].pattern;
			code_of[entries[e].code] = e;
		}
		for (size_t i = 0; i < num; i++)
			p->codes[i] = code_of[p->codes[i]];
	} else {
		palette_free(p);
	}
	free(slots);
	free(entries);
	free(code_of);
	return ok;
}

static uint64_t
palette_nbytes(const void *values, size_t num, size_t value_nbytes)
{
	struct palette p;

	if (!palette_make(values, num, value_nbytes, &p))
		return UINT64_MAX;
	uint64_t codes = integers_choose(p.codes, num, 0).nbytes;
	uint64_t nbytes = leb128_nbytes(p.num_entries) + p.num_entries * value_nbytes + codes;
	palette_free(&p);
	return codes == UINT64_MAX ? codes : nbytes;
}

static uint8_t *
palette_write(const void *values, size_t num, size_t value_nbytes, uint8_t *out)
{
	struct palette p;

	if (!palette_make(values, num, value_nbytes, &p))
		return NULL;
	struct integers_plan codes = integers_choose(p.codes, num, 0);
	out = leb128_put(out, p.num_entries);
	for (uint32_t e = 0; e < p.num_entries; e++, out += value_nbytes)
		memcpy(out, &p.entries[e], value_nbytes);
	out = codes.nbytes == UINT64_MAX ? NULL : integers_write(&codes, p.codes, num, out);
	palette_free(&p);
	return out;
}

/* The codes are read into the output and replaced there, from the last on for float16. */
static enum ss_status
palette_read(size_t value_nbytes, uint64_t num, struct input *in, uint8_t *out)
{
	uint64_t num_entries;
	enum ss_status status = leb128_take(in, 32, &num_entries);

	if (status != SS_OK)
		return status;
	if (num_entries > SPARSE_MAX_PALETTE)
		return SS_ERR_CORRUPT;
	if (num_entries * value_nbytes > input_left(in))
		return SS_ERR_TRUNCATED;
	const uint8_t *entries = in->p;
	uint32_t *codes = malloc((num + 1) * sizeof(uint32_t)), max = 0;
	if (codes == NULL)
		return SS_ERR_NOMEM;
	in->p += num_entries * value_nbytes;
	status = integers_read(in, codes, num);
	for (uint64_t i = 0; status == SS_OK && i < num; i++)
		max = codes[i] > max ? codes[i] : max;
	if (status == SS_OK && num > 0 && max >= num_entries)
		status = SS_ERR_CORRUPT;
	if (status == SS_OK && value_nbytes == 2)
		for (uint64_t i = 0; i < num; i++)
			memcpy(out + 2 * i, entries + 2 * codes[i], 2);
	else if (status == SS_OK)
		for (uint64_t i = 0; i < num; i++)
			memcpy(out + 4 * i, entries + 4 * (size_t)codes[i], 4);
	free(codes);
	return status;
}

static void
split_planes(const uint8_t *values, size_t num, size_t value_nbytes, uint8_t *out)
{
	for (size_t byte = 0; byte < value_nbytes; byte++)
		for (size_t i = 0; i < num; i++)
			*out++ = values[i * value_nbytes + byte];
}

static void
join_planes(const uint8_t *planes, size_t num, size_t value_nbytes, uint8_t *out)
{
	for (size_t i = 0; i < num; i++)
		for (size_t byte = 0; byte < value_nbytes; byte++)
			out[i * value_nbytes + byte] = planes[byte * num + i];
}

/* Are these counts, which int32 and uint32 show alike? */
static int
are_counts(const void *values, size_t num, enum ss_sparse_dtype dtype)
{
	uint32_t all = 0;

	if (dtype != SS_SPARSE_INT32)
		return 0;
	for (size_t i = 0; i < num; i++)
		all |= pattern_at(values, i, 4);
	return all <= INT32_MAX;
}

uint64_t
ss_sparse_values_nbytes(const void *values, size_t num_values, enum ss_sparse_dtype dtype,
			enum ss_sparse_values_coder coder)
{
	size_t value_nbytes = sparse_value_nbytes(dtype);

	if (coder == SS_SPARSE_PALETTE)
		return palette_nbytes(values, num_values, value_nbytes);
	if (coder == SS_SPARSE_COUNTS)
		return are_counts(values, num_values, dtype)
			       ? integers_choose(values, num_values, 0).nbytes : UINT64_MAX;
	return num_values * value_nbytes;
}

uint64_t
ss_sparse_values_write(const void *values, size_t num_values, enum ss_sparse_dtype dtype,
		       enum ss_sparse_values_coder coder, uint8_t *out)
{
	size_t value_nbytes = sparse_value_nbytes(dtype);
	uint8_t *end = out + num_values * value_nbytes;
	struct integers_plan plan;

	switch (coder) {
	case SS_SPARSE_PLAIN:
		if (num_values > 0)
			memcpy(out, values, num_values * value_nbytes);
		break;
	case SS_SPARSE_PLANES:
		split_planes(values, num_values, value_nbytes, out);
		break;
	case SS_SPARSE_PALETTE:
		end = palette_write(values, num_values, value_nbytes, out);
		break;
	default:
		plan = integers_choose(values, num_values, 0);
		end = plan.nbytes == UINT64_MAX ? NULL : integers_write(&plan, values, num_values, out);
	}
	return end == NULL ? UINT64_MAX : (uint64_t)(end - out);
}

enum ss_status
values_read(unsigned coder, unsigned dtype, uint64_t num_values, struct input *in, void *out)
{
	size_t value_nbytes = sparse_value_nbytes(dtype);
	uint32_t all = 0;

	if (coder == SS_SPARSE_PALETTE)
		return palette_read(value_nbytes, num_values, in, out);
	if (coder == SS_SPARSE_COUNTS) {
		if (dtype != SS_SPARSE_INT32)
			return SS_ERR_CORRUPT;
		enum ss_status status = integers_read(in, out, num_values);
		for (uint64_t i = 0; status == SS_OK && i < num_values; i++)
			all |= pattern_at(out, i, 4);
		return status == SS_OK && all > INT32_MAX ? SS_ERR_CORRUPT : status;
	}
	if (input_left(in) / value_nbytes < num_values)
		return SS_ERR_TRUNCATED;
	if (coder == SS_SPARSE_PLANES)
		join_planes(in->p, num_values, value_nbytes, out);
	else if (num_values > 0)
		memcpy(out, in->p, num_values * value_nbytes);
	in->p += num_values * value_nbytes;
	return SS_OK;
}

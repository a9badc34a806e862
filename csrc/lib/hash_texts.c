/*
 * A batch of texts to rows of hashed n-grams.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>

#include "hash_internal.h"

static bool
options_are_legal(const struct ss_hash_options *o)
{
	return o->dim >= 1 && o->dim <= SS_HASH_MAX_DIM && o->min_n >= 1 && o->min_n <= o->max_n &&
	       o->max_n <= SS_HASH_MAX_N && o->unit <= SS_HASH_CHAR_WB && o->encoding <= SS_HASH_UTF16;
}

static size_t
code_nbytes(const struct ss_hash_options *o)
{
	return o->encoding == SS_HASH_UTF16 ? 2 : 1;
}

/* units_bound() returns how many words or characters a text of so many code units can have at most. */
static uint64_t
units_bound(const struct ss_hash_options *o, uint64_t num_codes)
{
	/* U+0130 becomes two characters, of which the second parts words; it is 2 bytes in UTF-8, but 1 code of UTF-16. */
	bool is_utf16 = o->encoding == SS_HASH_UTF16;
	uint64_t num_chars = is_utf16 ? 2 * num_codes : num_codes;

	if (o->unit == SS_HASH_WORD)	/* two characters and what parts them */
		return is_utf16 ? num_codes / 2 : (num_codes + 1) / 3;
	if (o->unit == SS_HASH_CHAR)
		return num_chars;
	return num_chars + (num_codes + 1) / 2 + 1;	/* a space before each word, one at the end */
}

static uint64_t
row_bound(const struct ss_hash_options *o, uint64_t num_codes)
{
	uint64_t units = units_bound(o, num_codes), bound;

	if (num_codes == 0)
		return 0;
	/* A word shorter than min_n gives one n-gram, itself, so no length drops out. */
	bound = o->unit == SS_HASH_CHAR_WB ? units * (o->max_n - o->min_n + 1) :
					     hash_spans_count(units, o->min_n, o->max_n);
	return bound < o->dim ? bound : o->dim;
}

enum ss_status
ss_hash_texts_bound(const struct ss_hash_options *options, size_t num_codes, const int64_t *offsets, size_t num_texts,
		    uint64_t *bound_ret, struct ss_hash_place *place_ret)
{
	uint64_t bound = HASH_ROW_SLACK;
	int64_t max_codes;

	*bound_ret = 0;
	*place_ret = (struct ss_hash_place){ 0, 0 };
	if (!options_are_legal(options))
		return SS_ERR_ARGUMENT;
	max_codes = SS_HASH_MAX_TEXT_NBYTES / (int64_t)code_nbytes(options);
	for (size_t i = 0; i < num_texts; i++) {
		int64_t begin = offsets[i], end = offsets[i + 1];
		if (begin < 0 || end < begin || (uint64_t)end > num_codes || end - begin > max_codes) {
			place_ret->row = i;
			return SS_ERR_RANGE;
		}
		uint64_t row = row_bound(options, (uint64_t)(end - begin));
		bound = bound + row < bound ? UINT64_MAX : bound + row;
	}
	*bound_ret = bound;
	return SS_OK;
}

static void
scratch_free(struct hash_scratch *s)
{
	free(s->lower);
	free(s->marks);
	free(s->packed);
	free(s->begins);
	free(s->ends);
	free(s->hashes);
	free(s->table.keys);
	free(s->table.weights);
}

/* scratch_new() makes room for texts of up to num_codes; on failure nothing is left to free. */
static bool
scratch_new(struct hash_scratch *s, const struct ss_hash_options *o, size_t num_codes)
{
	size_t lower_nbytes = HASH_LOWER_NBYTES(num_codes * code_nbytes(o));
	size_t table_slots = 2 * HASH_TABLE_MAX_KEYS + HASH_TABLE_SLACK;
	size_t units_avail = (size_t)units_bound(o, num_codes) + 2;

	*s = (struct hash_scratch){
		.lower = malloc(lower_nbytes),
		.marks = malloc((lower_nbytes / 64 + 2) * sizeof(*s->marks)),
		.packed = malloc(lower_nbytes + HASH_PAD),
		.begins = malloc(units_avail * sizeof(*s->begins)),
		.ends = malloc(units_avail * sizeof(*s->ends)),
		.table.keys = malloc(table_slots * sizeof(*s->table.keys)),
		.table.weights = malloc(table_slots * sizeof(*s->table.weights)),
	};
	if (s->lower != NULL && s->marks != NULL && s->packed != NULL && s->begins != NULL &&
	    s->ends != NULL && s->table.keys != NULL && s->table.weights != NULL)
		return true;
	scratch_free(s);
	return false;
}

static bool
hashes_reserve(struct hash_scratch *s, size_t num_hashes)
{
	if (num_hashes <= s->hashes_avail)
		return true;
	free(s->hashes);
	s->hashes_avail = 0;
	s->hashes = malloc(2 * num_hashes * sizeof(*s->hashes));
	if (s->hashes == NULL)
		return false;
	s->hashes_spare = s->hashes + num_hashes;
	s->hashes_avail = num_hashes;
	return true;
}

/* The words of packed character text, " one two ": from each space to the next one, both included. */
struct word_walk {
	const struct hash_scratch *s;
	size_t units_avail, begin, num_units;
};

static bool
next_word(struct word_walk *w)
{
	w->begin += w->num_units ? w->num_units - 1 : 0;
	if (w->begin + 1 >= w->units_avail)
		return false;
	for (w->num_units = 2; w->s->packed[w->s->begins[w->begin + w->num_units - 1]] != ' ';)
		w->num_units++;
	return true;
}

static uint32_t
clamp_n(uint32_t n, size_t num_units)
{
	return n < num_units ? n : (uint32_t)num_units;
}

/* Whether units are put end to end; single words need not be. */
static bool
words_are_packed(const struct ss_hash_options *o)
{
	return o->unit != SS_HASH_WORD || o->max_n > 1;
}

/* hash_ngrams() fills s->hashes from the packed units. */
static enum ss_status
hash_ngrams(const struct ss_hash_options *o, struct hash_scratch *s, size_t num_units, size_t *num_hashes_ret)
{
	struct word_walk walk = { .s = s, .units_avail = num_units };
	bool by_word = o->unit == SS_HASH_CHAR_WB;
	const uint8_t *units = words_are_packed(o) ? s->packed : s->lower;
	uint64_t num_hashes = by_word ? 0 : hash_spans_count(num_units, o->min_n, o->max_n);

	while (by_word && next_word(&walk))
		num_hashes += hash_spans_count(walk.num_units, clamp_n(o->min_n, walk.num_units), o->max_n);
	if (num_hashes > INT32_MAX)
		return SS_ERR_RANGE;	/* a count might not fit */
	if (!hashes_reserve(s, (size_t)num_hashes))
		return SS_ERR_NOMEM;
	*num_hashes_ret = (size_t)num_hashes;
	if (!by_word) {
		hash_spans(units, s->begins, s->ends, num_units, o->min_n, o->max_n, s->hashes);
		return SS_OK;
	}
	uint32_t *hashes = s->hashes;
	walk = (struct word_walk){ .s = s, .units_avail = num_units };
	while (next_word(&walk))
		hashes += hash_spans(s->packed, s->begins + walk.begin, s->ends + walk.begin, walk.num_units,
				     clamp_n(o->min_n, walk.num_units), o->max_n, hashes);
	return SS_OK;
}

/* hash_text() does one text up to its hashes. */
static enum ss_status
hash_text(const struct ss_hash_options *o, const uint8_t *text, size_t nbytes, struct hash_scratch *s,
	  size_t *num_hashes_ret, struct ss_hash_place *place_ret)
{
	bool by_char = o->unit != SS_HASH_WORD;
	struct hash_mode mode = { o->encoding == SS_HASH_UTF16, o->lowercase, by_char };
	size_t lower_nbytes, num_units, error;

	if (!hash_mark(text, nbytes, &mode, s, &lower_nbytes, &error)) {
		place_ret->offset = error / code_nbytes(o);
		return SS_ERR_CORRUPT;
	}
	num_units = by_char ? hash_chars(s, lower_nbytes, o->unit == SS_HASH_CHAR_WB) :
			      hash_words(s, lower_nbytes, words_are_packed(o));
	return hash_ngrams(o, s, num_units, num_hashes_ret);
}

static size_t
longest_of(const int64_t *offsets, size_t num_texts)
{
	int64_t longest = 0;

	for (size_t i = 0; i < num_texts; i++)
		longest = offsets[i + 1] - offsets[i] > longest ? offsets[i + 1] - offsets[i] : longest;
	return (size_t)longest;
}

enum ss_status
ss_hash_texts(const struct ss_hash_options *options, const uint8_t *values, size_t num_codes, const int64_t *offsets,
	      size_t num_texts, uint32_t *indices, int32_t *counts, float *sums, size_t indices_avail, int64_t *indptr,
	      struct ss_hash_place *place_ret)
{
	uint64_t bound;
	size_t num = 0, num_hashes = 0, nbytes_each = code_nbytes(options);
	struct hash_scratch s;
	enum ss_status status = ss_hash_texts_bound(options, num_codes, offsets, num_texts, &bound, place_ret);

	if (status != SS_OK)
		return status;
	if (counts != NULL && sums != NULL)
		return SS_ERR_ARGUMENT;
	if (!scratch_new(&s, options, longest_of(offsets, num_texts)))
		return SS_ERR_NOMEM;

	indptr[0] = 0;
	for (size_t i = 0; i < num_texts && status == SS_OK; i++) {
		place_ret->row = i;
		status = hash_text(options, values + (size_t)offsets[i] * nbytes_each,
				   (size_t)(offsets[i + 1] - offsets[i]) * nbytes_each, &s, &num_hashes, place_ret);
		size_t room = (num_hashes < options->dim ? num_hashes : options->dim) + HASH_ROW_SLACK;
		if (status == SS_OK && indices_avail - num < room)
			status = SS_ERR_SPACE;
		if (status == SS_OK)
			num += hash_reduce(&s, num_hashes, options->dim,
					   (struct hash_row){ indices + num, counts == NULL ? NULL : counts + num,
							      sums == NULL ? NULL : sums + num });
		indptr[i + 1] = (int64_t)num;
	}
	scratch_free(&s);
	return status;
}

/*
 * A batch of texts to rows of hashed n-grams.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>

#include "hash_internal.h"
#include "unicode_words.h"

static bool
options_are_legal(const struct ss_hash_options *o)
{
	return o->dim >= 1 && o->dim <= SS_HASH_MAX_DIM && o->min_n >= 1 && o->min_n <= o->max_n &&
	       o->max_n <= SS_HASH_MAX_N && o->unit <= SS_HASH_CHAR_WB;
}

/* units_bound() returns how many words or characters nbytes of text can have at most. */
static uint64_t
units_bound(uint32_t unit, uint64_t nbytes)
{
	if (unit == SS_HASH_WORD)	/* two characters and what parts them */
		return (nbytes + 1) / 3;
	if (unit == SS_HASH_CHAR)	/* U+0130, of 2 bytes, lowers to 2 characters */
		return nbytes;
	return nbytes + (nbytes + 1) / 2 + 1;	/* a space before each word, one at the end */
}

static uint64_t
row_bound(const struct ss_hash_options *o, uint64_t nbytes)
{
	uint64_t units = units_bound(o->unit, nbytes), bound;

	if (nbytes == 0)
		return 0;
	/* A word shorter than min_n gives one n-gram, itself, so no length drops out. */
	bound = o->unit == SS_HASH_CHAR_WB ? units * (o->max_n - o->min_n + 1) :
					     hash_spans_count(units, o->min_n, o->max_n);
	return bound < o->dim ? bound : o->dim;
}

enum ss_status
ss_hash_texts_bound(const struct ss_hash_options *options, size_t values_nbytes, const int64_t *offsets,
		    size_t num_texts, uint64_t *bound_ret, struct ss_hash_place *place_ret)
{
	uint64_t bound = 0;

	*bound_ret = 0;
	*place_ret = (struct ss_hash_place){ 0, 0 };
	if (!options_are_legal(options))
		return SS_ERR_ARGUMENT;
	for (size_t i = 0; i < num_texts; i++) {
		int64_t begin = offsets[i], end = offsets[i + 1];
		if (begin < 0 || end < begin || (uint64_t)end > values_nbytes || end - begin > SS_HASH_MAX_TEXT_NBYTES) {
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
	free(s->spans);
	free(s->keys);
}

/* scratch_new() makes room for texts of up to nbytes; on failure nothing is left to free. */
static bool
scratch_new(struct hash_scratch *s, uint32_t unit, size_t nbytes)
{
	size_t lower_nbytes = HASH_LOWER_NBYTES(nbytes);

	*s = (struct hash_scratch){
		.lower = malloc(lower_nbytes),
		.marks = malloc((lower_nbytes / 64 + 2) * sizeof(*s->marks)),
		.packed = malloc(lower_nbytes + HASH_PAD),
		.spans = malloc((size_t)(units_bound(unit, nbytes) + 2) * sizeof(*s->spans)),
	};
	if (s->lower != NULL && s->marks != NULL && s->packed != NULL && s->spans != NULL)
		return true;
	scratch_free(s);
	return false;
}

static bool
keys_reserve(struct hash_scratch *s, size_t num_keys)
{
	if (num_keys <= s->keys_avail)
		return true;
	free(s->keys);
	s->keys_avail = 0;
	s->keys = malloc(2 * num_keys * sizeof(*s->keys));
	if (s->keys == NULL)
		return false;
	s->keys_spare = s->keys + num_keys;
	s->keys_avail = num_keys;
	return true;
}

/* The words of packed character text, " one two ": from each space to the next one, both included. */
struct word_walk {
	const struct hash_scratch *s;
	size_t num_spans, begin, num_units;
};

static bool
next_word(struct word_walk *w)
{
	w->begin += w->num_units ? w->num_units - 1 : 0;
	if (w->begin + 1 >= w->num_spans)
		return false;
	for (w->num_units = 2; w->s->packed[w->s->spans[w->begin + w->num_units - 1].begin] != ' ';)
		w->num_units++;
	return true;
}

static uint32_t
clamp_n(uint32_t n, size_t num_units)
{
	return n < num_units ? n : (uint32_t)num_units;
}

/* hash_row() fills s->keys from the packed spans. */
static enum ss_status
hash_row(const struct ss_hash_options *o, struct hash_scratch *s, size_t num_spans, bool sign, size_t *num_keys_ret)
{
	struct word_walk walk = { .s = s, .num_spans = num_spans };
	bool by_word = o->unit == SS_HASH_CHAR_WB;
	uint64_t num_keys = by_word ? 0 : hash_spans_count(num_spans, o->min_n, o->max_n);

	while (by_word && next_word(&walk))
		num_keys += hash_spans_count(walk.num_units, clamp_n(o->min_n, walk.num_units), o->max_n);
	if (num_keys > INT32_MAX)
		return SS_ERR_RANGE;	/* a count might not fit */
	if (!keys_reserve(s, (size_t)num_keys))
		return SS_ERR_NOMEM;
	*num_keys_ret = (size_t)num_keys;
	if (!by_word) {
		hash_spans(s->packed, s->spans, num_spans, o->min_n, o->max_n, o->dim, sign, s->keys);
		return SS_OK;
	}
	uint32_t *keys = s->keys;
	walk = (struct word_walk){ .s = s, .num_spans = num_spans };
	while (next_word(&walk))
		keys += hash_spans(s->packed, s->spans + walk.begin, walk.num_units, clamp_n(o->min_n, walk.num_units),
				   o->max_n, o->dim, sign, keys);
	return SS_OK;
}

/* hash_text() does one text up to its keys. */
static enum ss_status
hash_text(const struct ss_hash_options *o, const uint8_t *text, size_t nbytes, bool sign, struct hash_scratch *s,
	  size_t *num_keys_ret, struct ss_hash_place *place_ret)
{
	size_t lower_nbytes, num_spans, error;
	bool by_char = o->unit != SS_HASH_WORD;

	if (!hash_mark(text, nbytes, o->lowercase, by_char ? UNICODE_SPACE : UNICODE_WORD, s, &lower_nbytes, &error)) {
		place_ret->offset = error;
		return SS_ERR_CORRUPT;
	}
	num_spans = by_char ? hash_chars(s, lower_nbytes, o->unit == SS_HASH_CHAR_WB) : hash_words(s, lower_nbytes);
	return hash_row(o, s, num_spans, sign, num_keys_ret);
}

static unsigned
bit_length(uint32_t x)
{
	return x ? 32 - (unsigned)__builtin_clz(x) : 0;
}

enum ss_status
ss_hash_texts(const struct ss_hash_options *options, const uint8_t *values, size_t values_nbytes,
	      const int64_t *offsets, size_t num_texts, uint32_t *indices, int32_t *counts, float *sums,
	      size_t indices_avail, int64_t *indptr, struct ss_hash_place *place_ret)
{
	uint64_t bound, longest = 0;
	size_t num = 0, num_keys = 0;
	struct hash_scratch s;
	enum ss_status status = ss_hash_texts_bound(options, values_nbytes, offsets, num_texts, &bound, place_ret);

	if (status != SS_OK)
		return status;
	for (size_t i = 0; i < num_texts; i++)
		longest = (uint64_t)(offsets[i + 1] - offsets[i]) > longest ? (uint64_t)(offsets[i + 1] - offsets[i]) : longest;
	if (!scratch_new(&s, options->unit, (size_t)longest))
		return SS_ERR_NOMEM;
	/* One bit at least: a sort of no bits has no passes. */
	unsigned key_bits = bit_length((options->dim - 1) | 1) + (sums != NULL);

	indptr[0] = 0;
	for (size_t i = 0; i < num_texts && status == SS_OK; i++) {
		place_ret->row = i;
		status = hash_text(options, values + offsets[i], (size_t)(offsets[i + 1] - offsets[i]), sums != NULL, &s,
				   &num_keys, place_ret);
		if (status == SS_OK && indices_avail - num < (num_keys < options->dim ? num_keys : options->dim))
			status = SS_ERR_SPACE;
		if (status == SS_OK)
			num += hash_reduce(s.keys, s.keys_spare, num_keys, key_bits, indices + num,
					   counts == NULL ? NULL : counts + num, sums == NULL ? NULL : sums + num);
		indptr[i + 1] = (int64_t)num;
	}
	scratch_free(&s);
	return status;
}

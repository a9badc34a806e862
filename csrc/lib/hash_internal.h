/*
 * hash_internal.h - the four steps of text hashing.  Private.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * One text at a time, each step linear:
 *   hash_mark()    text -> lower-cased bytes, and a bit for each byte of a word (or blank)
 *   hash_words()   -> the words end to end with one space between, and where each lies;
 *   hash_chars()   or the same for characters: then an n-gram is one range of bytes
 *   hash_spans()   -> a hash for each n-gram
 *   hash_reduce()  -> ascending distinct indices with counts
 */
#ifndef HASH_INTERNAL_H
#define HASH_INTERNAL_H

#include <stdbool.h>

#include "ss_hash.h"

#if defined(__x86_64__) && !defined(SS_PORTABLE)
#define HASH_X86_64 1
#else
#define HASH_X86_64 0
#endif

/* For each set of 8 lanes, their numbers in order (x86-64 only). */
extern uint8_t hash_packed_lanes[256][8];

/* Bytes after the last one that steps may read or overwrite: one vector and one 64-byte block. */
#define HASH_PAD 96

/*
 * Room for text in lower case as UTF-8.  From UTF-8, 2 bytes become 3 at most (U+0130, U+023A, U+023E); from
 * UTF-16, 2 bytes become 3 too.  A test holds it true for every code point.
 */
#define HASH_LOWER_NBYTES(nbytes) ((nbytes) + (nbytes) / 2 + HASH_PAD)

/* Rows of more n-grams are sorted by radix: their table would not stay in the second-level cache. */
#define HASH_TABLE_MAX_KEYS 8192

/* Slots after the last home slot, for its run to grow into. */
#define HASH_TABLE_SLACK 32

/* Open addressing in key order; see hash_reduce.c.  Empty between rows. */
struct hash_table {
	uint32_t *keys;			/* 2 * HASH_TABLE_MAX_KEYS + HASH_TABLE_SLACK each */
	int32_t *weights;
	size_t num_ready;		/* slots that have been made empty so far */
	size_t num_steps;		/* away from home slots, by all keys so far: what tests hold to be linear */
};

/* Steps that the keys of a row may take, each on average and all in addition, before the row is sorted instead. */
#define HASH_STEPS_PER_KEY 4

struct hash_scratch {
	uint8_t *lower;			/* HASH_LOWER_NBYTES(nbytes) of the longest text */
	uint64_t *marks;		/* a bit for each of those */
	uint8_t *packed;		/* words end to end, or characters */
	uint32_t *begins, *ends;	/* unit (word or character) i is packed[begins[i] .. ends[i]) */
	uint32_t *hashes, *hashes_spare;	/* hashes_avail each */
	size_t hashes_avail;
	struct hash_table table;
};

/* Where one row of ss_hash_texts() goes; at most one of counts and sums is not NULL. */
struct hash_row {
	uint32_t *indices;
	int32_t *counts;
	float *sums;
};

/* What hash_mark() does. */
struct hash_mode {
	bool is_utf16, lowercase, marks_blanks;
};

/*
 * hash_mark() lower-cases text[0 .. nbytes) (if asked) into UTF-8 at s->lower and sets bit i of s->marks if
 * byte i there is part of a word character, or of a blank if asked.  Returns false with the byte's place in
 * *error_ret if the text is not well-formed.
 */
bool hash_mark(const uint8_t *text, size_t nbytes, const struct hash_mode *mode, struct hash_scratch *s,
	       size_t *lower_nbytes_ret, size_t *error_ret);

/*
 * hash_words() packs the words of 2 characters or more and returns their number.  Single words need not stand
 * end to end: unless it 'packs', unit i is s->lower[begins[i] .. ends[i]).
 */
size_t hash_words(struct hash_scratch *s, size_t lower_nbytes, bool packs);

/*
 * hash_chars() packs the characters, each run of 2 or more blanks as one space, and returns their
 * number.  With 'words' only the blank-separated words are packed, each with a space before and after.
 */
size_t hash_chars(struct hash_scratch *s, size_t lower_nbytes, bool words);

/*
 * hash_spans() writes the hash of each n-gram of num_units units, min_n <= n <= max_n, and returns
 * their number.
 */
size_t hash_spans(const uint8_t *packed, const uint32_t *begins, const uint32_t *ends, size_t num_units,
		  uint32_t min_n, uint32_t max_n, uint32_t *hashes);

/* hash_spans_count() returns how many hashes that will be. */
uint64_t hash_spans_count(uint64_t num_units, uint32_t min_n, uint32_t max_n);

/*
 * hash_reduce() writes the row of the n-grams with s->hashes[0 .. num_hashes), which are lost, and
 * returns its number of indices: at most num_hashes and dim.  May overwrite HASH_ROW_SLACK elements
 * after them.
 */
#define HASH_ROW_SLACK 8
size_t hash_reduce(struct hash_scratch *s, size_t num_hashes, uint32_t dim, struct hash_row row);

#endif

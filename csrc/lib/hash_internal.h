/*
 * hash_internal.h - the four steps of text hashing.  Private.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * One text at a time, each step linear:
 *   hash_mark()    text -> lower-cased bytes, and a bit for each byte of a word (or blank)
 *   hash_words()   -> the words end to end with one space between, and where each lies;
 *   hash_chars()   or the same for characters: then an n-gram is one range of bytes
 *   hash_spans()   -> a key for each n-gram
 *   hash_reduce()  -> ascending distinct indices with counts
 */
#ifndef HASH_INTERNAL_H
#define HASH_INTERNAL_H

#include <stdbool.h>

#include "ss_hash.h"

/* Bytes after the last one that steps may read or overwrite: one vector and one 64-byte block. */
#define HASH_PAD 96

/* Lower-casing makes 2 bytes 3 at most (U+0130, U+023A, U+023E); the generator of the tables checks it. */
#define HASH_LOWER_NBYTES(nbytes) ((nbytes) + (nbytes) / 2 + HASH_PAD)

/* A unit (word or character) is the bytes [begin, end) of the packed text. */
struct hash_span {
	uint32_t begin;
	uint32_t end;
};

struct hash_scratch {
	uint8_t *lower;			/* HASH_LOWER_NBYTES(nbytes) */
	uint64_t *marks;		/* a bit for each of those */
	uint8_t *packed;		/* words end to end, or characters */
	struct hash_span *spans;	/* one for each word or character, 1 more for slack */
	uint32_t *keys, *keys_spare;	/* keys_avail each */
	size_t keys_avail;
};

/*
 * hash_mark() lower-cases text[0 .. nbytes) (if asked) into s->lower and sets bit i of
 * s->marks if byte i there is part of a character with a property of 'flags' (UNICODE_WORD or
 * UNICODE_SPACE).  Returns false with the place in *error_ret if the text is not UTF-8.
 */
bool hash_mark(const uint8_t *text, size_t nbytes, bool lowercase, uint32_t flags, struct hash_scratch *s,
	       size_t *lower_nbytes_ret, size_t *error_ret);

/* hash_words() packs the words of 2 characters or more and returns their number. */
size_t hash_words(struct hash_scratch *s, size_t lower_nbytes);

/*
 * hash_chars() packs the characters, each run of 2 or more blanks as one space, and returns their
 * number.  With 'words' only the blank-separated words are packed, each with a space before and after.
 */
size_t hash_chars(struct hash_scratch *s, size_t lower_nbytes, bool words);

/*
 * hash_spans() writes a key for each n-gram of num_spans units, min_n <= n <= max_n, and returns
 * their number.  A key is the index, or with 'sign' index << 1 | (hash < 0).
 */
size_t hash_spans(const uint8_t *packed, const struct hash_span *spans, size_t num_spans, uint32_t min_n,
		  uint32_t max_n, uint32_t dim, bool sign, uint32_t *keys);

/* hash_spans_count() returns how many keys that will be. */
uint64_t hash_spans_count(uint64_t num_spans, uint32_t min_n, uint32_t max_n);

/*
 * hash_reduce() sorts keys below 2^key_bits, using 'spare' of the same size, and writes each distinct
 * index once with what ss_hash_texts() says of counts and sums.  Returns the number of indices, which
 * is at most num_keys.
 */
size_t hash_reduce(uint32_t *keys, uint32_t *spare, size_t num_keys, unsigned key_bits, uint32_t *indices,
		   int32_t *counts, float *sums);

#endif

/*
 * pretok_next.h - one piece of each split pattern, character by character.  Private.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Each function returns where the piece that begins at p < end ends.  A pattern
 * is an ordered choice, so the code tries its alternatives in the pattern's order.
 */
#ifndef PRETOK_NEXT_H
#define PRETOK_NEXT_H

#include <stdbool.h>

#include "ss_pretok.h"
#include "unicode_classes.h"

static inline bool
is_letter(unsigned class)
{
	return class >= CLASS_UPPER && class <= CLASS_LETTER;
}

static inline bool
is_newline(uint8_t c)
{
	return c == '\r' || c == '\n';
}

/* [^\s\p{L}\p{N}] */
static inline bool
is_punct(unsigned class)
{
	return class == CLASS_OTHER || class == CLASS_MARK;
}

/* \p{L}* */
static inline const uint8_t *
skip_letters(const uint8_t *p, const uint8_t *end)
{
	size_t nbytes;

	while (p < end && is_letter(class_at(p, end, &nbytes)))
		p += nbytes;
	return p;
}

/* \p{N}{0,limit} */
static inline const uint8_t *
skip_numbers(const uint8_t *p, const uint8_t *end, size_t limit)
{
	size_t nbytes;

	for (; limit > 0 && p < end && class_at(p, end, &nbytes) == CLASS_NUMBER; limit--)
		p += nbytes;
	return p;
}

/* [^\s\p{L}\p{N}]* */
static inline const uint8_t *
skip_puncts(const uint8_t *p, const uint8_t *end)
{
	size_t nbytes;

	while (p < end && is_punct(class_at(p, end, &nbytes)))
		p += nbytes;
	return p;
}

/*
 * '(?i:[sdmt]|ll|ve|re), or without (?i:) if fold is false; p if there is none here.
 * U+017F, the long s (C5 BF), is an s in another case.
 */
static inline const uint8_t *
skip_contraction(const uint8_t *p, const uint8_t *end, bool fold)
{
	size_t avail = (size_t)(end - p);
	uint8_t mask = fold ? 0x20 : 0;

	if (avail < 2 || p[0] != '\'')
		return p;
	uint8_t c1 = p[1] | mask;
	if (c1 == 's' || c1 == 'd' || c1 == 'm' || c1 == 't')
		return p + 2;
	if (avail < 3)
		return p;
	uint8_t c2 = p[2] | mask;
	if ((c1 == 'l' && c2 == 'l') || (c1 == 'v' && c2 == 'e') || (c1 == 'r' && c2 == 'e') ||
	    (fold && p[1] == 0xC5 && p[2] == 0xBF))
		return p + 3;
	return p;
}

/*
 * The blanks at p, of which there is at least one:
 *   \s++$           if end_first: all, if the text ends with them
 *   \s*[\r\n]+      if newlines: up to the last newline
 *   \s+(?!\S)|\s+   all but the last one, which belongs to what follows, or the only one
 */
static inline const uint8_t *
skip_blanks(const uint8_t *p, const uint8_t *end, bool end_first, bool newlines)
{
	const uint8_t *q = p, *last = p, *after_newline = p;
	size_t nbytes;

	while (q < end && class_at(q, end, &nbytes) == CLASS_SPACE) {
		last = q;
		q += nbytes;
		if (is_newline(*last))
			after_newline = q;
	}
	if (end_first && q == end)
		return end;
	if (newlines && after_newline > p)
		return after_newline;
	return q == end || last == p ? q : last;
}

/*
 * '(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s
 */
static inline const uint8_t *
next_gpt2(const uint8_t *p, const uint8_t *end)
{
	const uint8_t *q = skip_contraction(p, end, false);
	size_t nbytes;

	if (q > p)
		return q;
	q = p + (*p == ' ' && end - p > 1);
	unsigned class = class_at(q, end, &nbytes);
	if (is_letter(class))
		return skip_letters(q + nbytes, end);
	if (class == CLASS_NUMBER)
		return skip_numbers(q + nbytes, end, SIZE_MAX);
	if (is_punct(class))
		return skip_puncts(q + nbytes, end);
	return skip_blanks(p, end, true, false);
}

/*
 * cl100k   '(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+
 *          |\s++$|\s*[\r\n]|\s+(?!\S)|\s
 * llama3   the same without \s++$
 * qwen2    as llama3, with \p{N} in place of \p{N}{1,3}
 */
static inline const uint8_t *
next_cl100k(const uint8_t *p, const uint8_t *end, size_t max_digits, bool end_first)
{
	const uint8_t *q = skip_contraction(p, end, true);
	size_t nbytes, nbytes2;

	if (q > p)
		return q;
	unsigned class = class_at(p, end, &nbytes), class2 = CLASS_SPACE;
	q = p + nbytes;
	if (is_letter(class))
		return skip_letters(q, end);
	if (class == CLASS_NUMBER)
		return skip_numbers(q, end, max_digits - 1);
	if (q < end && !is_newline(*p)) {
		class2 = class_at(q, end, &nbytes2);
		if (is_letter(class2))
			return skip_letters(q + nbytes2, end);
	}
	if (is_punct(class) || (*p == ' ' && is_punct(class2))) {
		q = skip_puncts(q, end);
		while (q < end && is_newline(*q))
			q++;
		return q;
	}
	return skip_blanks(p, end, end_first, true);
}

/*
 * The word of o200k without its optional first character, which is before p:
 *   U*L+  with U = [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}], L = [\p{Ll}\p{Lm}\p{Lo}\p{M}]
 * or p if there is none.  U* takes all it can and gives back one character at a
 * time until one is in L: that is the last such character of its run, and nothing
 * after it is in L.  *upper_end receives the end of U*.
 */
static inline const uint8_t *
skip_lower_word(const uint8_t *p, const uint8_t *end, const uint8_t **upper_end)
{
	const uint8_t *q = p, *after_both = p;
	unsigned class = CLASS_SPACE;
	size_t nbytes;

	while (q < end) {
		class = class_at(q, end, &nbytes);
		if (class != CLASS_UPPER && class != CLASS_LETTER && class != CLASS_MARK)
			break;
		q += nbytes;
		if (class != CLASS_UPPER)
			after_both = q;
	}
	*upper_end = q;
	if (q == end || class != CLASS_LOWER)
		return after_both;
	while (q < end) {
		class = class_at(q, end, &nbytes);
		if (class != CLASS_LOWER && class != CLASS_LETTER && class != CLASS_MARK)
			break;
		q += nbytes;
	}
	return q;
}

/*
 * X?U*L+C? | X?U+L*C? with X = [^\r\n\p{L}\p{N}] and C a contraction; p if there is no
 * word here.  A mark may be X or begin U*, so both are tried, X first.
 */
static inline const uint8_t *
skip_word(const uint8_t *p, const uint8_t *end)
{
	const uint8_t *q, *word = p, *upper_end, *upper_end_x = p;
	size_t nbytes;
	unsigned class = class_at(p, end, &nbytes);
	bool letter = is_letter(class);

	if (class == CLASS_NUMBER || is_newline(*p))
		return p;
	if (!letter) {
		word = p + nbytes;
		q = skip_lower_word(word, end, &upper_end_x);
		if (q > word)
			return skip_contraction(q, end, true);
		if (class != CLASS_MARK)
			return upper_end_x > word ? skip_contraction(upper_end_x, end, true) : p;
	}
	q = skip_lower_word(p, end, &upper_end);
	if (q > p)
		return skip_contraction(q, end, true);
	return skip_contraction(upper_end, end, true);
}

/* o200k: X?U*L+C?|X?U+L*C?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+ */
static inline const uint8_t *
next_o200k(const uint8_t *p, const uint8_t *end)
{
	const uint8_t *q = skip_word(p, end);
	size_t nbytes, nbytes2;

	if (q > p)
		return q;
	unsigned class = class_at(p, end, &nbytes);
	q = p + nbytes;
	if (class == CLASS_NUMBER)
		return skip_numbers(q, end, 2);
	if (is_punct(class) || (*p == ' ' && q < end && is_punct(class_at(q, end, &nbytes2)))) {
		q = skip_puncts(q, end);
		while (q < end && (is_newline(*q) || *q == '/'))
			q++;
		return q;
	}
	return skip_blanks(p, end, false, true);
}

/* next_piece() is pretok_next(), to be compiled into loops for one pattern. */
static inline const uint8_t *
next_piece(enum ss_pretok_pattern pattern, const uint8_t *p, const uint8_t *end)
{
	switch (pattern) {
	case SS_PRETOK_GPT2:
		return next_gpt2(p, end);
	case SS_PRETOK_CL100K:
		return next_cl100k(p, end, 3, true);
	case SS_PRETOK_LLAMA3:
		return next_cl100k(p, end, 3, false);
	case SS_PRETOK_QWEN2:
		return next_cl100k(p, end, 1, false);
	case SS_PRETOK_O200K:
		return next_o200k(p, end);
	default:
		return end;
	}
}

#endif

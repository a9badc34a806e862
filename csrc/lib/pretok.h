/*
 * pretok.h - splitting a text a window at a time.  Private.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef PRETOK_H
#define PRETOK_H

#include "ss_pretok.h"

#if defined(__x86_64__) && !defined(SS_PORTABLE)
#define PRETOK_X86_64 1
#else
#define PRETOK_X86_64 0
#endif

/* The least room for ends that pretok_fill() takes: a window of 64 bytes has at most as many pieces. */
#define PRETOK_MIN_ENDS 64

/*
 * A pretok_fill_fn writes the ends of the pieces of text[begin .. text_nbytes), where
 * a piece begins at 'begin' < text_nbytes, until the text ends or fewer than
 * PRETOK_MIN_ENDS of the ends_avail >= PRETOK_MIN_ENDS are left, and returns how
 * many, at least 1.  Bytes up to text[readable_nbytes), readable_nbytes >=
 * text_nbytes, may be read but have no effect.  Ends not counted may be overwritten.
 */
typedef size_t pretok_fill_fn(enum ss_pretok_pattern pattern, const uint8_t *text, size_t begin, size_t text_nbytes,
			      size_t readable_nbytes, uint32_t *ends, size_t ends_avail);

pretok_fill_fn pretok_fill_portable;
#if PRETOK_X86_64
pretok_fill_fn pretok_fill_avx2, pretok_fill_avx512;
#endif

/* pretok_fills() gives those that this machine runs, slowest first, and returns how many; all write the same ends. */
#define PRETOK_MAX_FILLS 3
size_t pretok_fills(pretok_fill_fn *fills[PRETOK_MAX_FILLS]);

static inline pretok_fill_fn *
pretok_best_fill(void)
{
	pretok_fill_fn *fills[PRETOK_MAX_FILLS];

	return fills[pretok_fills(fills) - 1];
}

/* pretok_next() returns where the piece that begins at p < end ends; the slow path of all. */
const uint8_t *pretok_next(enum ss_pretok_pattern pattern, const uint8_t *p, const uint8_t *end);

#endif

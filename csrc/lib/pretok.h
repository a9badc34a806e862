/*
 * pretok.h - splitting a text a window at a time.  Private.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef PRETOK_H
#define PRETOK_H

#include "ss_pretok.h"

/* The least room for ends that pretok_fill() takes: a window of 64 bytes has at most as many pieces. */
#define PRETOK_MIN_ENDS 64

/*
 * pretok_fill() writes the ends of the pieces of text[begin .. text_nbytes), where
 * a piece begins at 'begin' < text_nbytes, until the text ends or fewer than
 * PRETOK_MIN_ENDS of the ends_avail >= PRETOK_MIN_ENDS are left, and returns how
 * many, at least 1.  Bytes up to text[readable_nbytes), readable_nbytes >=
 * text_nbytes, may be read but have no effect.
 */
size_t pretok_fill(enum ss_pretok_pattern pattern, const uint8_t *text, size_t begin, size_t text_nbytes,
		   size_t readable_nbytes, uint32_t *ends, size_t ends_avail);

/* pretok_next() returns where the piece that begins at p < end ends; it only serves as pretok_fill()'s slow path. */
const uint8_t *pretok_next(enum ss_pretok_pattern pattern, const uint8_t *p, const uint8_t *end);

#endif

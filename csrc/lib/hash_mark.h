/*
 * hash_mark.h - what the parts of hash_mark() share.  Private.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef HASH_MARK_H
#define HASH_MARK_H

#include "hash_internal.h"
#include "unicode_words.h"

/* Bits in the order they come. */
struct bit_writer {
	uint64_t *out;
	uint64_t pending;
	unsigned num_pending;
};

/* put_bits() appends num_bits bits, 1 to 64; those above are 0. */
static inline void
put_bits(struct bit_writer *w, uint64_t bits, unsigned num_bits)
{
	w->pending |= bits << w->num_pending;
	if (w->num_pending + num_bits < 64) {
		w->num_pending += num_bits;
		return;
	}
	*w->out++ = w->pending;
	w->pending = w->num_pending ? bits >> (64 - w->num_pending) : 0;
	w->num_pending = w->num_pending + num_bits - 64;
}

/* Where a call of hash_mark() stands: input, output, and what it looks for. */
struct marker {
	const uint8_t *text, *p, *end;
	uint8_t *out;
	struct bit_writer marks;
	uint32_t flags;
	bool lowercase, is_utf16;
};

/* mark_one() takes any one character at m->p; false if there is none. */
bool mark_one(struct marker *m);

/* mark_utf8() and mark_utf16() take all characters up to m->end, or false with m->p at what is none. */
bool mark_utf8(struct marker *m);
bool mark_utf16(struct marker *m);

#if defined(__SSE2__) && !defined(SS_PORTABLE)
#include <emmintrin.h>
#define MARK_SSE2 1

/* Signed bytes x with low <= x <= high. */
static inline __m128i
in_range(__m128i x, char low, char high)
{
	return _mm_and_si128(_mm_cmpgt_epi8(x, _mm_set1_epi8((char)(low - 1))),
			     _mm_cmplt_epi8(x, _mm_set1_epi8((char)(high + 1))));
}

/* mark_ascii16() lower-cases 16 ASCII characters into m->out and returns their marks; other bytes give nothing of use. */
static inline unsigned
mark_ascii16(const struct marker *m, __m128i x)
{
	__m128i upper = in_range(x, 'A', 'Z'), folded = _mm_or_si128(x, _mm_set1_epi8(0x20)), marks;

	if (m->flags & UNICODE_WORD) {
		marks = _mm_or_si128(in_range(folded, 'a', 'z'), in_range(x, '0', '9'));
		marks = _mm_or_si128(marks, _mm_cmpeq_epi8(x, _mm_set1_epi8('_')));
	} else {
		marks = _mm_or_si128(in_range(x, '\t', '\r'), in_range(x, 0x1C, ' '));
	}
	if (m->lowercase)
		x = _mm_or_si128(x, _mm_and_si128(upper, _mm_set1_epi8(0x20)));
	_mm_storeu_si128((__m128i *)m->out, x);
	return (unsigned)_mm_movemask_epi8(marks);
}
#else
#define MARK_SSE2 0
#endif

#endif

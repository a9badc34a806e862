/*
 * Lower-casing with marks of word characters: SSE2 for ASCII, tables for the rest.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "hash_internal.h"
#include "unicode_words.h"

/* Bits in the order they come; put() takes any number from 1 to 64. */
struct bit_writer {
	uint64_t *out;
	uint64_t pending;
	unsigned num_pending;
};

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

/* What one call of hash_mark() carries along. */
struct marker {
	const uint8_t *text, *end;
	uint8_t *out;
	struct bit_writer marks;
	uint32_t flags;
	bool lowercase;
};

/*
 * A capital sigma is final (U+03C2) if a cased letter comes before it and none after, case-ignorable
 * characters left aside: Unicode 15.0, table 3-17, as str.lower() has it.  Ignorable runs are walked once from
 * each side, since a sigma is not ignorable, so all sigmas of a text together cost linear time.
 */
static bool
is_final_sigma(const uint8_t *text, const uint8_t *sigma, const uint8_t *end)
{
	const uint8_t *p = sigma;
	uint32_t c = 0, flags = UNICODE_IGNORABLE;
	size_t nbytes;

	while (p > text && flags & UNICODE_IGNORABLE) {
		do
			p--;
		while ((*p & 0xC0) == 0x80);
		utf8_decode(p, end, &c);
		flags = unicode_lookup(c)->flags;
	}
	if (!(flags & UNICODE_CASED))
		return false;
	flags = UNICODE_IGNORABLE;
	for (p = sigma + 2; p < end && flags & UNICODE_IGNORABLE; p += nbytes) {
		nbytes = utf8_decode(p, end, &c);
		if (nbytes == 0)
			break;
		flags = unicode_lookup(c)->flags;
	}
	return !(flags & UNICODE_CASED);
}

/* The two code points whose str.lower() is not one fixed code point. */
static void
mark_special(struct marker *m, const uint8_t *p, uint32_t code_point)
{
	if (code_point == 0x130) {	/* i, then a combining dot, which is not a word character */
		memcpy(m->out, "i\xCC\x87", 3);
		m->out += 3;
		put_bits(&m->marks, m->flags & UNICODE_WORD ? 1 : 0, 3);
		return;
	}
	m->out += utf8_encode(m->out, is_final_sigma(m->text, p, m->end) ? 0x3C2 : 0x3C3);
	put_bits(&m->marks, m->flags & UNICODE_WORD ? 3 : 0, 2);
}

/* Any character above U+007F at p; returns its number of bytes, or 0 if it is none. */
static size_t
mark_one(struct marker *m, const uint8_t *p)
{
	uint32_t c = 0;
	size_t nbytes = utf8_decode(p, m->end, &c), num_out = nbytes;

	if (nbytes == 0)
		return 0;
	const struct unicode_record *record = unicode_lookup(c);
	if (m->lowercase && record->flags & UNICODE_SPECIAL) {
		mark_special(m, p, c);
		return nbytes;
	}
	if (m->lowercase && record->lower_delta != 0)
		num_out = utf8_encode(m->out, (uint32_t)((int32_t)c + record->lower_delta));
	else
		memcpy(m->out, p, nbytes);
	put_bits(&m->marks, record->flags & m->flags ? (1u << num_out) - 1 : 0, (unsigned)num_out);
	m->out += num_out;
	return nbytes;
}

static inline bool
is_continuation(uint8_t c)
{
	return (c & 0xC0) == 0x80;
}

/*
 * mark_wide() takes the characters above U+007F from p on and returns where they end, or NULL at a bad byte.
 * The usual ones are done here with all state in registers, by two_bytes; the rest by mark_one().
 */
static const uint8_t *
mark_wide(struct marker *m, const uint8_t *p, const uint8_t **error_ret)
{
	const uint8_t *end = m->end;
	uint8_t *out = m->out;
	struct bit_writer marks = m->marks;
	uint32_t flags = m->flags, entry;
	bool lowercase = m->lowercase;
	size_t nbytes;

	while (p < end && *p >= 0x80) {
		if (*p >= 0xC2 && *p < 0xE0 && end - p >= 2 && is_continuation(p[1])) {
			entry = unicode_two_bytes[(p[0] & 0x1F) << 6 | (p[1] & 0x3F)];
			if (!lowercase || !(entry >> 16 & UNICODE_SPECIAL)) {
				out[0] = lowercase ? (uint8_t)entry : p[0];
				out[1] = lowercase ? (uint8_t)(entry >> 8) : p[1];
				put_bits(&marks, entry >> 16 & flags ? 3 : 0, 2);
				out += 2;
				p += 2;
				continue;
			}
		} else if ((*p & 0xF0) == 0xE0 && end - p >= 3 && is_continuation(p[1]) && is_continuation(p[2])) {
			uint32_t c = (p[0] & 0x0Fu) << 12 | (p[1] & 0x3Fu) << 6 | (p[2] & 0x3F);
			const struct unicode_record *record = unicode_lookup(c);
			/* Overlong forms and surrogates go to mark_one() too, which refuses them. */
			if (c >= 0x800 && (c & 0xF800) != 0xD800 && !(lowercase && record->lower_delta != 0)) {
				memcpy(out, p, 3);
				put_bits(&marks, record->flags & flags ? 7 : 0, 3);
				out += 3;
				p += 3;
				continue;
			}
		}
		m->out = out;
		m->marks = marks;
		nbytes = mark_one(m, p);
		if (nbytes == 0) {
			*error_ret = p;
			return NULL;
		}
		out = m->out;
		marks = m->marks;
		p += nbytes;
	}
	m->out = out;
	m->marks = marks;
	return p;
}

#if defined(__SSE2__) && !defined(SS_PORTABLE)
#include <emmintrin.h>

/* Signed bytes x with low <= x <= high. */
static inline __m128i
in_range(__m128i x, char low, char high)
{
	return _mm_and_si128(_mm_cmpgt_epi8(x, _mm_set1_epi8((char)(low - 1))),
			     _mm_cmplt_epi8(x, _mm_set1_epi8((char)(high + 1))));
}

/* ascii16() lower-cases 16 bytes into out and returns their marks; bytes from 0x80 up give nothing of use. */
static inline unsigned
ascii16(const struct marker *m, const uint8_t *p, uint8_t *out, unsigned *wide_ret)
{
	__m128i x = _mm_loadu_si128((const __m128i *)p), marks;
	__m128i upper = in_range(x, 'A', 'Z'), folded = _mm_or_si128(x, _mm_set1_epi8(0x20));

	*wide_ret = (unsigned)_mm_movemask_epi8(x);
	if (m->flags & UNICODE_WORD) {
		marks = _mm_or_si128(in_range(folded, 'a', 'z'), in_range(x, '0', '9'));
		marks = _mm_or_si128(marks, _mm_cmpeq_epi8(x, _mm_set1_epi8('_')));
	} else {
		marks = _mm_or_si128(in_range(x, '\t', '\r'), in_range(x, 0x1C, ' '));
	}
	if (m->lowercase)
		x = _mm_or_si128(x, _mm_and_si128(upper, _mm_set1_epi8(0x20)));
	_mm_storeu_si128((__m128i *)out, x);
	return (unsigned)_mm_movemask_epi8(marks);
}
#else
static inline unsigned
ascii16(const struct marker *m, const uint8_t *p, uint8_t *out, unsigned *wide_ret)
{
	unsigned marks = 0;

	*wide_ret = 0;
	for (unsigned i = 0; i < 16; i++) {
		uint8_t c = p[i];
		*wide_ret |= (unsigned)(c >> 7) << i;
		marks |= (unsigned)((unicode_lookup(c)->flags & m->flags) != 0) << i;
		out[i] = m->lowercase && c >= 'A' && c <= 'Z' ? c | 0x20 : c;
	}
	return marks;
}
#endif

/* mark_ascii() takes the ASCII characters from p on, at least one, and returns where they end. */
static const uint8_t *
mark_ascii(struct marker *m, const uint8_t *p)
{
	unsigned wide, marks, num;
	uint8_t last[16] = { 0 };

	while (m->end - p >= 16) {
		marks = ascii16(m, p, m->out, &wide);
		num = wide ? (unsigned)__builtin_ctz(wide) : 16;
		if (num == 0)
			return p;
		put_bits(&m->marks, marks & ((1u << num) - 1), num);
		m->out += num;
		p += num;
		if (wide)
			return p;
	}
	if (p == m->end)
		return p;
	num = (unsigned)(m->end - p);
	memcpy(last, p, num);
	marks = ascii16(m, last, m->out, &wide);
	if (wide)
		num = (unsigned)__builtin_ctz(wide);
	if (num > 0)
		put_bits(&m->marks, marks & ((1u << num) - 1), num);
	m->out += num;
	return p + num;
}

bool
hash_mark(const uint8_t *text, size_t nbytes, bool lowercase, uint32_t flags, struct hash_scratch *s,
	  size_t *lower_nbytes_ret, size_t *error_ret)
{
	struct marker m = {
		.text = text, .end = text + nbytes, .out = s->lower, .marks = { .out = s->marks },
		.flags = flags, .lowercase = lowercase,
	};
	const uint8_t *error = NULL;

	for (const uint8_t *p = text; p < m.end;) {
		p = mark_ascii(&m, p);
		p = mark_wide(&m, p, &error);
		if (p == NULL) {
			*error_ret = (size_t)(error - text);
			return false;
		}
	}
	*m.marks.out = m.marks.pending;
	*lower_nbytes_ret = (size_t)(m.out - s->lower);
	return true;
}

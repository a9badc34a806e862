/*
 * unicode_words.h - properties of code points, and strict UTF-8.  Private.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef UNICODE_WORDS_H
#define UNICODE_WORDS_H

#include <stddef.h>
#include <stdint.h>

enum {
	UNICODE_WORD = 1,	/* str.isalnum() or '_': \w */
	UNICODE_SPACE = 2,	/* str.isspace(): \s */
	UNICODE_CASED = 4,	/* cased and not case-ignorable */
	UNICODE_IGNORABLE = 8,	/* case-ignorable */
	UNICODE_SPECIAL = 16,	/* U+03A3 (context) or U+0130 (two code points) */
	UNICODE_TWO = 32	/* in unicode_short: two bytes */
};

struct unicode_record {
	int32_t lower_delta;	/* str.lower() of the code point, minus the code point */
	uint32_t flags;
};

/* Generated: unicode_words.c. */
extern const struct unicode_record unicode_records[];
extern const uint8_t unicode_first[], unicode_second[];

/*
 * Code points of one or two UTF-8 bytes, below U+0800: flags << 16 and the bytes of the lower case, the first
 * lowest, with UNICODE_SPECIAL also where the lower case has another number of bytes.
 */
extern const uint32_t unicode_short[2048];

/*
 * The basic plane in 2 bits a code point, 16 to a number: 0, UNICODE_WORD or UNICODE_SPACE for those of three
 * UTF-8 bytes that are their own lower case, and UNICODE_NOT_PLAIN for all others, surrogates too.
 */
extern const uint32_t unicode_plain[4096];
enum { UNICODE_NOT_PLAIN = 3 };

static inline const struct unicode_record *
unicode_lookup(uint32_t code_point)
{
	return &unicode_records[unicode_second[unicode_first[code_point >> 7] << 7 | (code_point & 127)]];
}

/*
 * utf8_decode() reads the code point at p < end into *code_point and returns its number
 * of bytes, 1 to 4; or 0 if there is none (Unicode 15.0, table 3-7).
 */
static inline size_t
utf8_decode(const uint8_t *p, const uint8_t *end, uint32_t *code_point)
{
	size_t avail = (size_t)(end - p);
	uint32_t lead = p[0], c;

	if (lead < 0x80) {
		*code_point = lead;
		return 1;
	}
	if (lead < 0xE0) {
		if (lead < 0xC2 || avail < 2 || (p[1] & 0xC0) != 0x80)
			return 0;
		*code_point = (lead & 0x1F) << 6 | (p[1] & 0x3F);
		return 2;
	}
	if (lead < 0xF0) {
		if (avail < 3 || (p[1] & 0xC0) != 0x80 || (p[2] & 0xC0) != 0x80)
			return 0;
		c = (lead & 0x0F) << 12 | (uint32_t)(p[1] & 0x3F) << 6 | (p[2] & 0x3F);
		*code_point = c;
		return c < 0x800 || (c >= 0xD800 && c < 0xE000) ? 0 : 3;
	}
	if (lead > 0xF4 || avail < 4 || (p[1] & 0xC0) != 0x80 || (p[2] & 0xC0) != 0x80 || (p[3] & 0xC0) != 0x80)
		return 0;
	c = (lead & 0x07) << 18 | (uint32_t)(p[1] & 0x3F) << 12 | (uint32_t)(p[2] & 0x3F) << 6 | (p[3] & 0x3F);
	*code_point = c;
	return c < 0x10000 || c > 0x10FFFF ? 0 : 4;
}

/* utf8_encode() writes a code point, not a surrogate, in 1 to 4 bytes at p and returns how many. */
static inline size_t
utf8_encode(uint8_t *p, uint32_t c)
{
	if (c < 0x80) {
		p[0] = (uint8_t)c;
		return 1;
	}
	if (c < 0x800) {
		p[0] = (uint8_t)(0xC0 | c >> 6);
		p[1] = (uint8_t)(0x80 | (c & 0x3F));
		return 2;
	}
	if (c < 0x10000) {
		p[0] = (uint8_t)(0xE0 | c >> 12);
		p[1] = (uint8_t)(0x80 | (c >> 6 & 0x3F));
		p[2] = (uint8_t)(0x80 | (c & 0x3F));
		return 3;
	}
	p[0] = (uint8_t)(0xF0 | c >> 18);
	p[1] = (uint8_t)(0x80 | (c >> 12 & 0x3F));
	p[2] = (uint8_t)(0x80 | (c >> 6 & 0x3F));
	p[3] = (uint8_t)(0x80 | (c & 0x3F));
	return 4;
}

/* utf16_decode() does what utf8_decode() does for a code point in 2 or 4 bytes of little-endian UTF-16. */
static inline size_t
utf16_decode(const uint8_t *p, const uint8_t *end, uint32_t *code_point)
{
	uint32_t high = p[0] | (uint32_t)p[1] << 8, low;

	*code_point = high;
	if ((high & 0xF800) != 0xD800)
		return 2;
	if (high >= 0xDC00 || end - p < 4)
		return 0;
	low = p[2] | (uint32_t)p[3] << 8;
	*code_point = 0x10000 + ((high & 0x3FF) << 10) + (low & 0x3FF);
	return (low & 0xFC00) == 0xDC00 ? 4 : 0;
}

/* utf8_nbytes() returns the length of the valid character that begins with this byte. */
static inline size_t
utf8_nbytes(uint8_t lead)
{
	return 1u + (lead >= 0xC0) + (lead >= 0xE0) + (lead >= 0xF0);
}

#endif

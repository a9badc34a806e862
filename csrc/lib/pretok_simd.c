/*
 * Splitting ASCII 64 bytes at a time, with AVX2 or AVX-512: see pretok_cuts.h.  Pieces
 * that reach out of a window, and those with other characters, take the slow path.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "pretok_cuts.h"

#if PRETOK_X86_64
#include <immintrin.h>

struct place {
	const uint8_t *text;
	size_t begin, text_nbytes, readable_nbytes;
};

static inline uint64_t
low_bits(unsigned num)
{
	return num >= 64 ? ~(uint64_t)0 : ((uint64_t)1 << num) - 1;
}

/* The ASCII characters at the beginning of the first 'left' bytes, given the set of bytes that are not ASCII. */
static inline uint64_t
valid_bits(uint64_t high, size_t left)
{
	uint64_t ascii = high == 0 ? ~(uint64_t)0 : (high & -high) - 1;

	return left >= WINDOW_NBYTES ? ascii : ascii & low_bits((unsigned)left);
}

static inline void
keep_valid(struct ascii_classes *c)
{
	c->upper &= c->valid;
	c->lower &= c->valid;
	c->digit &= c->valid;
	c->newline &= c->valid;
	c->space &= c->valid;
	c->blank &= c->valid;
	c->quote &= c->valid;
	c->slash &= c->valid;
}

/* Whether the piece at p begins with a character that is not ASCII, or with a blank and one. */
static inline bool
begins_with_others(const uint8_t *p, const uint8_t *end)
{
	return p < end && (p[0] >= 0x80 || (p[0] == ' ' && p + 1 < end && p[1] >= 0x80));
}

/* Writes the end of one piece, and of those after it in which a window would find nothing. */
static inline size_t
others_ends(enum ss_pretok_pattern pattern, struct place *at, uint32_t *ends, size_t ends_avail)
{
	const uint8_t *p = at->text + at->begin, *end = at->text + at->text_nbytes;
	size_t num = 0;

	do {
		p = next_piece(pattern, p, end);
		ends[num++] = (uint32_t)(p - at->text);
	} while (num + PRETOK_MIN_ENDS <= ends_avail && begins_with_others(p, end));
	at->begin = (size_t)(p - at->text);
	return num;
}

#define AVX2 __attribute__((target("avx2,bmi,bmi2,lzcnt,popcnt"), always_inline)) static inline

/* The bytes from 'low' to 'low' + 'span'. */
AVX2 __m256i
in_range(__m256i x, char low, char span)
{
	x = _mm256_sub_epi8(x, _mm256_set1_epi8(low));
	return _mm256_cmpeq_epi8(_mm256_min_epu8(x, _mm256_set1_epi8(span)), x);
}

AVX2 uint64_t
bits_of(__m256i a, __m256i b)
{
	return (uint32_t)_mm256_movemask_epi8(a) | (uint64_t)(uint32_t)_mm256_movemask_epi8(b) << 32;
}

AVX2 uint64_t
range_bits(__m256i a, __m256i b, char low, char span)
{
	return bits_of(in_range(a, low, span), in_range(b, low, span));
}

AVX2 uint64_t
equal_bits(__m256i a, __m256i b, char c)
{
	__m256i other = _mm256_set1_epi8(c);

	return bits_of(_mm256_cmpeq_epi8(a, other), _mm256_cmpeq_epi8(b, other));
}

AVX2 void
classify_avx2(const struct place *at, struct ascii_classes *c)
{
	uint8_t copy[WINDOW_NBYTES];
	const uint8_t *p = at->text + at->begin;

	if (at->readable_nbytes - at->begin < WINDOW_NBYTES) {
		memset(copy, 0, sizeof(copy));
		memcpy(copy, p, at->readable_nbytes - at->begin);
		p = copy;
	}
	__m256i a = _mm256_loadu_si256((const __m256i *)p), b = _mm256_loadu_si256((const __m256i *)(p + 32));
	c->valid = valid_bits(bits_of(a, b), at->text_nbytes - at->begin);
	c->upper = range_bits(a, b, 'A', 25);
	c->lower = range_bits(a, b, 'a', 25);
	c->digit = range_bits(a, b, '0', 9);
	c->newline = equal_bits(a, b, '\r') | equal_bits(a, b, '\n');
	c->space = equal_bits(a, b, ' ');
	c->blank = c->space | (range_bits(a, b, '\t', 4) & ~c->newline);
	c->quote = equal_bits(a, b, '\'');
	c->slash = equal_bits(a, b, '/');
	keep_valid(c);
}

AVX2 size_t
write_ends_avx2(uint64_t cuts, uint32_t begin, uint32_t *ends)
{
	size_t num = (size_t)__builtin_popcountll(cuts);

	for (; cuts != 0; cuts &= cuts - 1)
		*ends++ = begin + (uint32_t)__builtin_ctzll(cuts);
	return num;
}

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vbmi2,bmi,bmi2,lzcnt,popcnt"), always_inline)) static inline

AVX512 uint64_t
range_bits_512(__m512i x, char low, char span)
{
	return _mm512_cmple_epu8_mask(_mm512_sub_epi8(x, _mm512_set1_epi8(low)), _mm512_set1_epi8(span));
}

AVX512 uint64_t
equal_bits_512(__m512i x, char c)
{
	return _mm512_cmpeq_epi8_mask(x, _mm512_set1_epi8(c));
}

AVX512 void
classify_avx512(const struct place *at, struct ascii_classes *c)
{
	size_t readable = at->readable_nbytes - at->begin;
	__m512i x = _mm512_maskz_loadu_epi8(low_bits(readable < 64 ? (unsigned)readable : 64), at->text + at->begin);

	c->valid = valid_bits(_mm512_movepi8_mask(x), at->text_nbytes - at->begin);
	c->upper = range_bits_512(x, 'A', 25);
	c->lower = range_bits_512(x, 'a', 25);
	c->digit = range_bits_512(x, '0', 9);
	c->newline = equal_bits_512(x, '\r') | equal_bits_512(x, '\n');
	c->space = equal_bits_512(x, ' ');
	c->blank = c->space | (range_bits_512(x, '\t', 4) & ~c->newline);
	c->quote = equal_bits_512(x, '\'');
	c->slash = equal_bits_512(x, '/');
	keep_valid(c);
}

/* Writes past the last end, up to a multiple of 16 of them. */
AVX512 size_t
write_ends_avx512(uint64_t cuts, uint32_t begin, uint32_t *ends)
{
	static const uint8_t places[64] = {
		0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
		32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63,
	};
	size_t num = (size_t)__builtin_popcountll(cuts);
	uint8_t packed[64];
	__m512i first = _mm512_set1_epi32((int)begin);

	_mm512_storeu_si512(packed, _mm512_maskz_compress_epi8(cuts, _mm512_loadu_si512(places)));
	for (size_t i = 0; i < num; i += 16) {
		__m512i wide = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(packed + i)));
		_mm512_storeu_si512(ends + i, _mm512_add_epi32(wide, first));
	}
	return num;
}

/* The loop over windows, for each set of instructions and each pattern. */
#define FILL(NAME, INLINE, CLASSIFY, WRITE_ENDS)                                                                   \
	INLINE size_t NAME##_pattern(enum ss_pretok_pattern pattern, struct place at, uint32_t *ends, size_t ends_avail) \
	{                                                                                                          \
		const uint8_t *end = at.text + at.text_nbytes;                                                     \
		size_t num = 0;                                                                                    \
                                                                                                                   \
		while (at.begin < at.text_nbytes && num + PRETOK_MIN_ENDS <= ends_avail) {                         \
			const uint8_t *p = at.text + at.begin;                                                     \
			struct ascii_classes c;                                                                    \
			CLASSIFY(&at, &c);                                                                         \
			bool at_end = end - p <= WINDOW_NBYTES && c.valid == low_bits((unsigned)(end - p));        \
			uint64_t cuts = ascii_cuts(pattern, &c, p, end, at_end);                                   \
			num += WRITE_ENDS(cuts, (uint32_t)at.begin, ends + num);                                   \
			if (at_end) {                                                                              \
				at.begin = at.text_nbytes;                                                         \
				ends[num++] = (uint32_t)at.begin;                                                  \
			} else if (cuts != 0) {                                                                    \
				at.begin += 63 - (size_t)__builtin_clzll(cuts);                                    \
			} else {                                                                                   \
				num += others_ends(pattern, &at, ends + num, ends_avail - num);                    \
			}                                                                                          \
		}                                                                                                  \
		return num;                                                                                        \
	}

FILL(avx2, AVX2, classify_avx2, write_ends_avx2)
FILL(avx512, AVX512, classify_avx512, write_ends_avx512)

#define DISPATCH(NAME)                                                                         \
	switch (pattern) {                                                                     \
	case SS_PRETOK_GPT2:                                                                   \
		return NAME##_pattern(SS_PRETOK_GPT2, at, ends, ends_avail);                   \
	case SS_PRETOK_CL100K:                                                                 \
		return NAME##_pattern(SS_PRETOK_CL100K, at, ends, ends_avail);                 \
	case SS_PRETOK_LLAMA3:                                                                 \
		return NAME##_pattern(SS_PRETOK_LLAMA3, at, ends, ends_avail);                 \
	case SS_PRETOK_QWEN2:                                                                  \
		return NAME##_pattern(SS_PRETOK_QWEN2, at, ends, ends_avail);                  \
	case SS_PRETOK_O200K:                                                                  \
		return NAME##_pattern(SS_PRETOK_O200K, at, ends, ends_avail);                  \
	default:                                                                               \
		return pretok_fill_portable(pattern, text, begin, text_nbytes, readable_nbytes, ends, ends_avail); \
	}

__attribute__((target("avx2,bmi,bmi2,lzcnt,popcnt"))) size_t
pretok_fill_avx2(enum ss_pretok_pattern pattern, const uint8_t *text, size_t begin, size_t text_nbytes,
		 size_t readable_nbytes, uint32_t *ends, size_t ends_avail)
{
	struct place at = { text, begin, text_nbytes, readable_nbytes };

	DISPATCH(avx2)
}

__attribute__((target("avx512f,avx512bw,avx512vbmi2,bmi,bmi2,lzcnt,popcnt"))) size_t
pretok_fill_avx512(enum ss_pretok_pattern pattern, const uint8_t *text, size_t begin, size_t text_nbytes,
		   size_t readable_nbytes, uint32_t *ends, size_t ends_avail)
{
	struct place at = { text, begin, text_nbytes, readable_nbytes };

	DISPATCH(avx512)
}
#endif

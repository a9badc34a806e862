/*
 * Lower-casing with marks, from UTF-16: what a Python string that is not all ASCII is encoded to fastest.
 *
 * A code unit is a table index as it stands and where the next one begins is known, so no load waits for the
 * one before: two to three times as fast as from UTF-8.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "hash_mark.h"

#define BATCH 16	/* code units between two looks for all-ASCII ones */

/* take_ascii() takes 16 ASCII characters at a time at m->p, as long as there are. */
static void
take_ascii(struct marker *m)
{
#if MARK_SSE2
	for (; m->end - m->p >= 32; m->p += 32, m->out += 16) {
		__m128i low = _mm_loadu_si128((const __m128i *)m->p), high = _mm_loadu_si128((const __m128i *)(m->p + 16));
		__m128i wide = _mm_and_si128(_mm_or_si128(low, high), _mm_set1_epi16((short)0xFF80));
		if (_mm_movemask_epi8(_mm_cmpeq_epi16(wide, _mm_setzero_si128())) != 0xFFFF)
			return;
		put_bits(&m->marks, mark_ascii16(m, _mm_packus_epi16(low, high)), 16);
	}
#else
	(void)m;
#endif
}

#if HASH_X86_64
#include <immintrin.h>

/* take_threes() takes 8 characters of three bytes at a time, as long as all of them are plain. */
__attribute__((target("avx2,bmi2"))) static void
take_threes(struct marker *m)
{
	const __m128i zero = _mm_setzero_si128(), surrogate = _mm_set1_epi16((short)0xD800);
	const __m256i low6 = _mm256_set1_epi32(0x3F), squeeze = _mm256_broadcastsi128_si256(
		_mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1));

	for (; m->end - m->p >= 16; m->p += 16, m->out += 24) {
		__m128i codes = _mm_loadu_si128((const __m128i *)m->p);
		__m128i top = _mm_and_si128(codes, _mm_set1_epi16((short)0xF800));
		if (_mm_movemask_epi8(_mm_or_si128(_mm_cmpeq_epi16(top, zero), _mm_cmpeq_epi16(top, surrogate))))
			return;
		__m256i c = _mm256_cvtepu16_epi32(codes);
		__m256i place = _mm256_slli_epi32(_mm256_and_si256(c, _mm256_set1_epi32(15)), 1);
		__m256i kind = _mm256_i32gather_epi32((const int *)unicode_plain, _mm256_srli_epi32(c, 4), 4);
		kind = _mm256_and_si256(_mm256_srlv_epi32(kind, place), _mm256_set1_epi32(3));
		if (_mm256_movemask_epi8(_mm256_cmpeq_epi32(kind, _mm256_set1_epi32(UNICODE_NOT_PLAIN))))
			return;
		kind = _mm256_cmpeq_epi32(kind, _mm256_set1_epi32((int)m->flags));
		unsigned marked = (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(kind));
		put_bits(&m->marks, 7 * _pdep_u64(marked, 0x249249), 24);
		__m256i bytes = _mm256_or_si256(_mm256_srli_epi32(c, 12), _mm256_set1_epi32(0x8080E0));
		bytes = _mm256_or_si256(bytes, _mm256_slli_epi32(_mm256_and_si256(_mm256_srli_epi32(c, 6), low6), 8));
		bytes = _mm256_or_si256(bytes, _mm256_slli_epi32(_mm256_and_si256(c, low6), 16));
		bytes = _mm256_shuffle_epi8(bytes, squeeze);
		_mm_storeu_si128((__m128i *)m->out, _mm256_castsi256_si128(bytes));
		_mm_storeu_si128((__m128i *)(m->out + 12), _mm256_extracti128_si256(bytes, 1));
	}
}
#endif

/*
 * take_batch() takes up to BATCH characters as long as the tables answer.  Their marks, up to 3 bits each, fit one
 * number, and its length is the length of the output.  No branch depends on a character being ASCII: where words
 * end is hard to predict.
 */
static void
take_batch(struct marker *m)
{
	const uint8_t *p = m->p, *end = m->end - p > 2 * BATCH ? p + 2 * BATCH : m->end;
	const uint32_t flags = m->flags, flag_bit = flags & UNICODE_WORD ? 16 : 17;
	const bool lowercase = m->lowercase;
	uint8_t *out = m->out;
	uint64_t bits = 0;
	unsigned num_out = 0;

	for (; p < end; p += 2) {
		uint32_t c = p[0] | (uint32_t)p[1] << 8, bytes;
		if (c < 0x800) {
			uint32_t entry = unicode_short[c], two = entry >> 21 & 1, is_marked = entry >> flag_bit & 1;
			if (entry >> 16 & UNICODE_SPECIAL)
				break;
			bytes = lowercase ? entry : two ? 0x80C0 | c >> 6 | (c & 0x3F) << 8 : c;
			memcpy(out + num_out, &bytes, 4);
			bits |= (uint64_t)(is_marked << two | is_marked) << num_out;
			num_out += 1 + two;
		} else {
			uint32_t kind = unicode_plain[c >> 4] >> 2 * (c & 15) & 3;
			if (kind == UNICODE_NOT_PLAIN)
				break;
			bytes = 0x8080E0 | c >> 12 | (c << 2 & 0x3F00) | (c & 0x3F) << 16;
			memcpy(out + num_out, &bytes, 4);
			bits |= (uint64_t)(kind & flags ? 7 : 0) << num_out;
			num_out += 3;
		}
	}
	if (num_out > 0)
		put_bits(&m->marks, bits, num_out);
	m->p = p;
	m->out += num_out;
}

bool
mark_utf16(struct marker *m)
{
#if HASH_X86_64
	bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2");
#endif

	while (m->p < m->end) {
		const uint8_t *begin = m->p;
		take_ascii(m);
#if HASH_X86_64
		if (has_avx2)
			take_threes(m);
#endif
		take_batch(m);
		if (m->p == begin && !mark_one(m))
			return false;
	}
	return true;
}

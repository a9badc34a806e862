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

/*
 * For four characters, which of them have two bytes or more (low 4 bits of the index) and which three (high 4 bits):
 * where in four 32-bit lanes their bytes are, end to end.
 */
static _Alignas(16) uint8_t squeezes[256][16];

/* Filled before main() or dlopen() returns, so readers need no lock. */
__attribute__((constructor)) static void
fill_squeezes(void)
{
	for (unsigned set = 0; set < 256; set++) {
		unsigned num = 0;
		memset(squeezes[set], 0x80, 16);
		for (unsigned lane = 0; lane < 4; lane++)
			for (unsigned i = 0; i < 1 + (set >> lane & 1) + (set >> (4 + lane) & 1); i++)
				squeezes[set][num++] = (uint8_t)(4 * lane + i);
	}
}

/* What the tables say of eight characters of up to three bytes. */
struct eight {
	__m256i bytes, marked;		/* UTF-8 in lower case, a lane each; all ones where it is marked */
	unsigned twos, threes, other;	/* bit sets: two bytes or more; three bytes; not in the tables */
};

__attribute__((target("avx2,popcnt"))) static inline struct eight
look_up_eight(const struct marker *m, __m128i codes)
{
	const __m256i c = _mm256_cvtepu16_epi32(codes), low6 = _mm256_set1_epi32(0x3F), zero = _mm256_setzero_si256();
	const __m256i is_three = _mm256_cmpgt_epi32(c, _mm256_set1_epi32(0x7FF));
	struct eight e = { .threes = (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(is_three)) };
	__m256i flags = zero;

	e.bytes = zero;
	e.twos = e.threes;
	if (e.threes != 0) {
		__m256i place = _mm256_slli_epi32(_mm256_and_si256(c, _mm256_set1_epi32(15)), 1);
		__m256i kind = _mm256_i32gather_epi32((const int *)unicode_plain, _mm256_srli_epi32(c, 4), 4);
		flags = _mm256_and_si256(_mm256_and_si256(_mm256_srlv_epi32(kind, place), _mm256_set1_epi32(3)), is_three);
		__m256i other = _mm256_cmpeq_epi32(flags, _mm256_set1_epi32(UNICODE_NOT_PLAIN));
		e.other = (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(other));
		e.bytes = _mm256_or_si256(_mm256_srli_epi32(c, 12), _mm256_set1_epi32(0x8080E0));
		e.bytes = _mm256_or_si256(e.bytes, _mm256_slli_epi32(_mm256_and_si256(_mm256_srli_epi32(c, 6), low6), 8));
		e.bytes = _mm256_or_si256(e.bytes, _mm256_slli_epi32(_mm256_and_si256(c, low6), 16));
		e.bytes = _mm256_and_si256(e.bytes, is_three);
	}
	if (e.threes != 0xFF) {
		const __m256i is_short = _mm256_xor_si256(is_three, _mm256_set1_epi32(-1));
		__m256i entry = _mm256_mask_i32gather_epi32(zero, (const int *)unicode_short, c, is_short, 4);
		__m256i two = _mm256_slli_epi32(entry, 10), special = _mm256_slli_epi32(entry, 11);
		flags = _mm256_or_si256(flags, _mm256_srli_epi32(entry, 16));
		e.twos |= (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(two));
		e.other |= (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(special));
		if (!m->lowercase) {
			__m256i pair = _mm256_or_si256(_mm256_srli_epi32(c, 6), _mm256_slli_epi32(_mm256_and_si256(c, low6), 8));
			pair = _mm256_or_si256(pair, _mm256_set1_epi32(0x80C0));
			entry = _mm256_and_si256(_mm256_blendv_epi8(c, pair, _mm256_srai_epi32(two, 31)), is_short);
		}
		e.bytes = _mm256_or_si256(e.bytes, _mm256_and_si256(entry, _mm256_set1_epi32(0xFFFF)));
	}
	e.marked = _mm256_cmpgt_epi32(_mm256_and_si256(flags, _mm256_set1_epi32((int)m->flags)), zero);
	return e;
}

/* store_eight() writes the first num of the eight at m->out, and their marks; up to 28 bytes more are overwritten. */
__attribute__((target("avx2,popcnt"))) static inline void
store_eight(struct marker *m, const struct eight *e, unsigned num)
{
	const unsigned low_set = (e->twos & 15) | (e->threes & 15) << 4, high_set = e->twos >> 4 | (e->threes & 0xF0);
	const unsigned low_nbytes = 4 + (unsigned)__builtin_popcount(low_set), kept = (1u << num) - 1;
	const __m128i low = _mm_load_si128((const __m128i *)squeezes[low_set]);
	const __m128i high = _mm_load_si128((const __m128i *)squeezes[high_set]);
	unsigned nbytes = num + (unsigned)__builtin_popcount((e->twos & kept) | (e->threes & kept) << 8);

	_mm_storeu_si128((__m128i *)m->out, _mm_shuffle_epi8(_mm256_castsi256_si128(e->bytes), low));
	_mm_storeu_si128((__m128i *)(m->out + low_nbytes), _mm_shuffle_epi8(_mm256_extracti128_si256(e->bytes, 1), high));
	unsigned marks = (unsigned)_mm_movemask_epi8(_mm_shuffle_epi8(_mm256_castsi256_si128(e->marked), low));
	marks |= (unsigned)_mm_movemask_epi8(_mm_shuffle_epi8(_mm256_extracti128_si256(e->marked, 1), high)) << low_nbytes;
	put_bits(&m->marks, marks & ((1u << nbytes) - 1), nbytes);
	m->out += nbytes;
}

/* take_threes() takes 8 characters of three bytes at a time, as long as all of them are plain. */
__attribute__((target("avx2,bmi2"))) static inline void
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

/* load_last() returns the num < 8 characters before m->end, and zeros after them. */
__attribute__((target("avx2"))) static inline __m128i
load_last(const struct marker *m, unsigned num)
{
	/* A window of 16 bytes that begins at 16 - 2 * num moves the last 2 * num bytes of a vector to its front. */
	static const uint8_t moves[32] = { [0] = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
					   0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
					   0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80 };
	uint8_t few[16] = { 0 };

	if (m->end - m->text < 16) {
		memcpy(few, m->end - 2 * num, 2 * (size_t)num);
		return _mm_loadu_si128((const __m128i *)few);
	}
	__m128i move = _mm_loadu_si128((const __m128i *)(moves + 16 - 2 * num));
	return _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(m->end - 16)), move);
}

/*
 * mark_eights() takes 8 characters at a time, or as many as the text has, up to one that the tables do not answer;
 * runs of ASCII and of three bytes each go by more.
 */
__attribute__((target("avx2,bmi2,popcnt"))) static bool
mark_eights(struct marker *m)
{
	take_ascii(m);
	while (m->p < m->end) {
		unsigned num = m->end - m->p < 16 ? (unsigned)(m->end - m->p) / 2 : 8;
		__m128i codes = num < 8 ? load_last(m, num) : _mm_loadu_si128((const __m128i *)m->p);
		struct eight e = look_up_eight(m, codes);
		unsigned taken = (unsigned)__builtin_ctz(e.other | 1u << num);
		if (taken > 0)
			store_eight(m, &e, taken);
		m->p += 2 * taken;
		if (taken < num && !mark_one(m))
			return false;
		if (e.twos == 0)
			take_ascii(m);
		else if (e.threes == 0xFF)
			take_threes(m);
	}
	return true;
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
	if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2"))
		return mark_eights(m);
#endif
	while (m->p < m->end) {
		const uint8_t *begin = m->p;
		take_ascii(m);
		take_batch(m);
		if (m->p == begin && !mark_one(m))
			return false;
	}
	return true;
}

/*
 * Packed units to hashes of their n-grams.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "hash_internal.h"
#include "murmur3.h"

uint64_t
hash_spans_count(uint64_t num_units, uint32_t min_n, uint32_t max_n)
{
	uint64_t last_n = max_n < num_units ? max_n : num_units;

	if (last_n < min_n)
		return 0;
	return (last_n - min_n + 1) * (2 * num_units - min_n - last_n + 2) / 2;
}

/*
 * The n-grams that begin with one unit are prefixes of each other: the blocks of a shorter one are
 * hashed once for all of them.
 */
static inline uint32_t *
hash_prefixes(const uint8_t *packed, const uint32_t *begins, const uint32_t *ends, uint32_t min_n, uint32_t max_n,
	      uint32_t *hashes)
{
	const uint8_t *begin = packed + begins[0];
	uint32_t h = 0, done = 0;

	for (uint32_t n = min_n; n <= max_n; n++) {
		uint32_t nbytes = ends[n - 1] - begins[0];
		for (; done + 4 <= nbytes; done += 4)
			h = murmur3_block(h, murmur3_load(begin + done));
		uint32_t tail = murmur3_load(begin + done) & ((1u << 8 * (nbytes & 3)) - 1);
		*hashes++ = murmur3_finish(h, tail, nbytes);
	}
	return hashes;
}

/*
 * hash_two() hashes two units by themselves, block by block together as long as both have some: a block waits for
 * the one before it, and not for the other unit's.
 */
static inline void
hash_two(const uint8_t *packed, const uint32_t *begins, const uint32_t *ends, uint32_t *hashes)
{
	const uint8_t *a = packed + begins[0], *b = packed + begins[1];
	uint32_t a_nbytes = ends[0] - begins[0], b_nbytes = ends[1] - begins[1], h = 0, g = 0, i = 0, j;
	uint32_t both = (a_nbytes < b_nbytes ? a_nbytes : b_nbytes) & ~3u;

	for (; i < both; i += 4) {
		h = murmur3_block(h, murmur3_load(a + i));
		g = murmur3_block(g, murmur3_load(b + i));
	}
	for (j = i; i + 4 <= a_nbytes; i += 4)
		h = murmur3_block(h, murmur3_load(a + i));
	for (; j + 4 <= b_nbytes; j += 4)
		g = murmur3_block(g, murmur3_load(b + j));
	hashes[0] = murmur3_finish(h, murmur3_load(a + i) & ((1u << 8 * (a_nbytes & 3)) - 1), a_nbytes);
	hashes[1] = murmur3_finish(g, murmur3_load(b + j) & ((1u << 8 * (b_nbytes & 3)) - 1), b_nbytes);
}

#if HASH_X86_64
#include <immintrin.h>

/* Eight lanes wait for the longest of them: units of more bytes than this on average are hashed one by one. */
#define LANE_NBYTES 24

__attribute__((target("avx2"))) static inline __m256i
rotated(__m256i x, int bits)
{
	return _mm256_or_si256(_mm256_slli_epi32(x, bits), _mm256_srli_epi32(x, 32 - bits));
}

__attribute__((target("avx2"))) static inline __m256i
scrambled(__m256i k)
{
	k = _mm256_mullo_epi32(k, _mm256_set1_epi32((int)0xCC9E2D51u));
	return _mm256_mullo_epi32(rotated(k, 15), _mm256_set1_epi32(0x1B873593));
}

__attribute__((target("avx2"))) static inline __m256i
finished(__m256i h, __m256i tail, __m256i nbytes)
{
	h = _mm256_xor_si256(_mm256_xor_si256(h, scrambled(tail)), nbytes);
	h = _mm256_xor_si256(h, _mm256_srli_epi32(h, 16));
	h = _mm256_mullo_epi32(h, _mm256_set1_epi32((int)0x85EBCA6Bu));
	h = _mm256_xor_si256(h, _mm256_srli_epi32(h, 13));
	h = _mm256_mullo_epi32(h, _mm256_set1_epi32((int)0xC2B2AE35u));
	return _mm256_xor_si256(h, _mm256_srli_epi32(h, 16));
}

/* hash_prefixes() of the eight units from begins[0] on, the hashes of one n together. */
__attribute__((target("avx2"))) static uint32_t *
hash_prefixes_avx2(const uint8_t *packed, const uint32_t *begins, const uint32_t *ends, uint32_t min_n, uint32_t max_n,
		   uint32_t *hashes)
{
	const __m256i begin = _mm256_loadu_si256((const __m256i *)begins), four = _mm256_set1_epi32(4);
	const __m256i e6546b64 = _mm256_set1_epi32((int)0xE6546B64u);
	__m256i h = _mm256_setzero_si256(), done = h, at = begin;

	for (uint32_t n = min_n; n <= max_n; n++) {
		__m256i end = _mm256_loadu_si256((const __m256i *)(ends + n - 1)), nbytes = _mm256_sub_epi32(end, begin);
		__m256i k = _mm256_i32gather_epi32((const int *)packed, at, 1);
		for (;;) {
			__m256i more = _mm256_cmpgt_epi32(nbytes, _mm256_add_epi32(done, _mm256_set1_epi32(3)));
			if (_mm256_testz_si256(more, more))
				break;
			__m256i next = rotated(_mm256_xor_si256(h, scrambled(k)), 13);
			next = _mm256_add_epi32(_mm256_add_epi32(next, _mm256_slli_epi32(next, 2)), e6546b64);
			h = _mm256_blendv_epi8(h, next, more);
			done = _mm256_add_epi32(done, _mm256_and_si256(more, four));
			at = _mm256_add_epi32(begin, done);
			k = _mm256_i32gather_epi32((const int *)packed, at, 1);
		}
		__m256i tail_bits = _mm256_slli_epi32(_mm256_sub_epi32(nbytes, done), 3);
		__m256i mask = _mm256_sub_epi32(_mm256_sllv_epi32(_mm256_set1_epi32(1), tail_bits), _mm256_set1_epi32(1));
		_mm256_storeu_si256((__m256i *)hashes, finished(h, _mm256_and_si256(k, mask), nbytes));
		hashes += 8;
	}
	return hashes;
}

/* hash_eights() does as many units as it can by eights, returns their number, and advances *hashes. */
__attribute__((target("avx2"))) static size_t
hash_eights(const uint8_t *packed, const uint32_t *begins, const uint32_t *ends, size_t num_units, uint32_t min_n,
	    uint32_t max_n, uint32_t **hashes)
{
	size_t i = 0;

	for (; i + 7 + max_n <= num_units; i += 8) {
		if (ends[i + 6 + max_n] - begins[i] <= LANE_NBYTES * (7 + max_n)) {
			*hashes = hash_prefixes_avx2(packed, begins + i, ends + i, min_n, max_n, *hashes);
			continue;
		}
		for (size_t j = i; max_n == 1 && j < i + 8; j += 2, *hashes += 2)
			hash_two(packed, begins + j, ends + j, *hashes);
		for (size_t j = i; max_n > 1 && j < i + 8; j++)
			*hashes = hash_prefixes(packed, begins + j, ends + j, min_n, max_n, *hashes);
	}
	return i;
}
#endif

size_t
hash_spans(const uint8_t *packed, const uint32_t *begins, const uint32_t *ends, size_t num_units, uint32_t min_n,
	   uint32_t max_n, uint32_t *hashes)
{
	uint32_t *end = hashes;
	size_t i = 0;

#if HASH_X86_64
	if (__builtin_cpu_supports("avx2"))
		i = hash_eights(packed, begins, ends, num_units, min_n, max_n, &end);
#endif
	for (; max_n == 1 && i + 2 <= num_units; i += 2, end += 2)
		hash_two(packed, begins + i, ends + i, end);
	for (; i + min_n <= num_units; i++) {
		size_t last_n = max_n < num_units - i ? max_n : num_units - i;
		end = hash_prefixes(packed, begins + i, ends + i, min_n, (uint32_t)last_n, end);
	}
	return (size_t)(end - hashes);
}

uint32_t
ss_hash_murmur3(const uint8_t *data, size_t data_nbytes, uint32_t seed)
{
	uint32_t h = seed, tail = 0;
	size_t i = 0;

	for (; i + 4 <= data_nbytes; i += 4)
		h = murmur3_block(h, murmur3_load(data + i));
	for (unsigned shift = 0; i < data_nbytes; i++, shift += 8)
		tail |= (uint32_t)data[i] << shift;
	return murmur3_finish(h, tail, (uint32_t)data_nbytes);
}

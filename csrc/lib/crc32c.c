/*
 * CRC-32C: slicing-by-8 tables everywhere; on x86-64 three interleaved crc32q streams with
 * SSE 4.2 and PCLMULQDQ, and folding by 256 bytes with AVX-512 and VPCLMULQDQ.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "crc32c.h"

#define POLY_REFLECTED 0x82F63B78u

static uint32_t table[8][256];

/* Filled before main() or dlopen() returns, so readers need no lock. */
__attribute__((constructor)) static void
fill_table(void)
{
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t c = i;
		for (int bit = 0; bit < 8; bit++)
			c = (c >> 1) ^ (POLY_REFLECTED & (0u - (c & 1)));
		table[0][i] = c;
	}
	for (int k = 1; k < 8; k++)
		for (uint32_t i = 0; i < 256; i++)
			table[k][i] = (table[k - 1][i] >> 8) ^ table[0][table[k - 1][i] & 0xFF];
}

static uint32_t
crc_portable(uint32_t crc, const uint8_t *p, size_t n)
{
	for (; n >= 8; p += 8, n -= 8) {
		uint64_t w;
		memcpy(&w, p, 8);
		w ^= crc;
		crc = table[7][w & 0xFF] ^ table[6][(w >> 8) & 0xFF] ^
		      table[5][(w >> 16) & 0xFF] ^ table[4][(w >> 24) & 0xFF] ^
		      table[3][(w >> 32) & 0xFF] ^ table[2][(w >> 40) & 0xFF] ^
		      table[1][(w >> 48) & 0xFF] ^ table[0][w >> 56];
	}
	for (; n > 0; p++, n--)
		crc = (crc >> 8) ^ table[0][(crc ^ *p) & 0xFF];
	return crc;
}

#if defined(__x86_64__) && !defined(SS_PORTABLE)
#include <immintrin.h>

/* crc32q has a latency of 3 cycles and a throughput of 1: three streams fill it. */
#define STREAM_NBYTES 4096

/*
 * The CRC register after STREAM_NBYTES (shift1) or 2 * STREAM_NBYTES (shift2) zero
 * bytes is linear in the register before: multiply by x^(8 * nbytes - 33) mod P
 * with PCLMULQDQ and let crc32q reduce the 64-bit product (it multiplies by x^32).
 */
static uint64_t shift1_k, shift2_k;

static uint32_t
xpow_mod(uint64_t exponent)
{
	/* x^exponent mod P in the reflected representation, where x^0 is bit 31. */
	uint32_t r = 0x80000000u;
	while (exponent-- > 0)
		r = (r >> 1) ^ (POLY_REFLECTED & (0u - (r & 1)));
	return r;
}

__attribute__((constructor)) static void
fill_shifts(void)
{
	shift1_k = xpow_mod(8 * (uint64_t)STREAM_NBYTES - 33);
	shift2_k = xpow_mod(16 * (uint64_t)STREAM_NBYTES - 33);
}

__attribute__((target("sse4.2,pclmul"))) static uint64_t
shift_crc(uint64_t crc, uint64_t k)
{
	__m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)crc),
					       _mm_cvtsi64_si128((long long)k), 0);
	return _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(product));
}

__attribute__((target("sse4.2,pclmul"))) static uint32_t
crc_sse42(uint32_t crc32, const uint8_t *p, size_t n)
{
	uint64_t a = crc32, w0, w1, w2;

	for (; n >= 3 * STREAM_NBYTES; p += 3 * STREAM_NBYTES, n -= 3 * STREAM_NBYTES) {
		uint64_t b = 0, c = 0;
		for (size_t i = 0; i < STREAM_NBYTES; i += 8) {
			memcpy(&w0, p + i, 8);
			memcpy(&w1, p + STREAM_NBYTES + i, 8);
			memcpy(&w2, p + 2 * STREAM_NBYTES + i, 8);
			a = _mm_crc32_u64(a, w0);
			b = _mm_crc32_u64(b, w1);
			c = _mm_crc32_u64(c, w2);
		}
		a = shift_crc(a, shift2_k) ^ shift_crc(b, shift1_k) ^ c;
	}
	for (; n >= 8; p += 8, n -= 8) {
		memcpy(&w0, p, 8);
		a = _mm_crc32_u64(a, w0);
	}
	for (; n > 0; p++, n--)
		a = _mm_crc32_u8((uint32_t)a, *p);
	return (uint32_t)a;
}

/* 256 bytes a step: four accumulators hide the latency of a multiplication. */
#define FOLD_NBYTES 256
#define FOLD_MIN_NBYTES 1024		/* shorter input gains nothing */

/*
 * An accumulator's 128-bit lane is a polynomial, its first bit that of the highest degree.  Moving it
 * 'n' bits ahead in the message multiplies its first half by x^(n + 64) and its second by x^n;
 * the product of two reflected 64-bit numbers stands one bit low, so the powers are one less.
 */
static uint64_t fold_k[5][2];		/* by 2048, 512, 384, 256 and 128 bits: for the first half, and the second */

__attribute__((constructor)) static void
fill_folds(void)
{
	static const unsigned distances[5] = { 2048, 512, 384, 256, 128 };

	for (int i = 0; i < 5; i++) {
		fold_k[i][0] = (uint64_t)xpow_mod(distances[i] + 63) << 32;
		fold_k[i][1] = (uint64_t)xpow_mod(distances[i] - 1) << 32;
	}
}

__attribute__((target("avx512f,vpclmulqdq"))) static inline __m512i
fold(__m512i lanes, __m512i k, __m512i next)
{
	/* Truth table 0x96: the exclusive or of three. */
	return _mm512_ternarylogic_epi64(_mm512_clmulepi64_epi128(lanes, k, 0x00),
					 _mm512_clmulepi64_epi128(lanes, k, 0x11), next, 0x96);
}

__attribute__((target("avx512f,vpclmulqdq,sse4.2,pclmul"))) static uint32_t
crc_avx512(uint32_t crc, const uint8_t *p, size_t n)
{
	const __m512i by2048 = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)fold_k[0]));
	const __m512i by512 = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)fold_k[1]));
	/* Lanes 0 to 2 go to where lane 3 is; that one's factor is 0, since it is added below. */
	const __m512i to_last = _mm512_set_epi64(0, 0, (long long)fold_k[4][1], (long long)fold_k[4][0],
						 (long long)fold_k[3][1], (long long)fold_k[3][0],
						 (long long)fold_k[2][1], (long long)fold_k[2][0]);
	__m512i a = _mm512_xor_si512(_mm512_loadu_si512(p), _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)crc)));
	__m512i b = _mm512_loadu_si512(p + 64), c = _mm512_loadu_si512(p + 128), d = _mm512_loadu_si512(p + 192);

	for (p += FOLD_NBYTES, n -= FOLD_NBYTES; n >= FOLD_NBYTES; p += FOLD_NBYTES, n -= FOLD_NBYTES) {
		a = fold(a, by2048, _mm512_loadu_si512(p));
		b = fold(b, by2048, _mm512_loadu_si512(p + 64));
		c = fold(c, by2048, _mm512_loadu_si512(p + 128));
		d = fold(d, by2048, _mm512_loadu_si512(p + 192));
	}
	d = fold(fold(fold(a, by512, b), by512, c), by512, d);
	/* Lane 3 is moved by nothing, so it is added as it is; what remains is a message of 16 bytes. */
	__m512i moved = fold(d, to_last, _mm512_maskz_mov_epi64(0xC0, d));
	uint64_t lanes[8], first, second;

	_mm512_storeu_si512(lanes, moved);
	first = lanes[0] ^ lanes[2] ^ lanes[4] ^ lanes[6];
	second = lanes[1] ^ lanes[3] ^ lanes[5] ^ lanes[7];
	return crc_sse42((uint32_t)_mm_crc32_u64(_mm_crc32_u64(0, first), second), p, n);
}
#endif

enum crc32c_way
crc32c_best_way(void)
{
#if defined(__x86_64__) && !defined(SS_PORTABLE)
	if (__builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul"))
		return __builtin_cpu_supports("vpclmulqdq") && __builtin_cpu_supports("avx512f") ? CRC32C_AVX512 : CRC32C_SSE42;
#endif
	return CRC32C_PORTABLE;
}

uint32_t
crc32c_by(enum crc32c_way way, uint32_t crc, const uint8_t *data, size_t data_nbytes)
{
	crc = ~crc;
#if defined(__x86_64__) && !defined(SS_PORTABLE)
	if (way == CRC32C_AVX512 && data_nbytes >= FOLD_MIN_NBYTES)
		return ~crc_avx512(crc, data, data_nbytes);
	if (way != CRC32C_PORTABLE)
		return ~crc_sse42(crc, data, data_nbytes);
#endif
	(void)way;
	return ~crc_portable(crc, data, data_nbytes);
}

uint32_t
ss_crc32c(uint32_t crc, const uint8_t *data, size_t data_nbytes)
{
	return crc32c_by(crc32c_best_way(), crc, data, data_nbytes);
}

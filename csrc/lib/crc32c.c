/*
 * CRC-32C: slicing-by-8 tables everywhere, three interleaved crc32q streams on
 * x86-64 with SSE 4.2 and PCLMULQDQ.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "ss_crc32c.h"

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
#endif

uint32_t
ss_crc32c(uint32_t crc, const uint8_t *data, size_t data_nbytes)
{
	crc = ~crc;
#if defined(__x86_64__) && !defined(SS_PORTABLE)
	if (__builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul"))
		return ~crc_sse42(crc, data, data_nbytes);
#endif
	return ~crc_portable(crc, data, data_nbytes);
}

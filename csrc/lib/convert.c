/*
 * Casts between the dtypes of columns, one function a pair, chosen once a batch.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Each cast is one loop that the compiler vectorizes, compiled twice: for the
 * baseline and for AVX2 (wide unsigned-to-signed extension is what it buys).
 */
#include <string.h>

#include "convert.h"

typedef uint8_t ss_boolean;		/* a byte; any but 0 is true, as bytes from outside may be */
typedef int8_t ss_int8;
typedef uint8_t ss_uint8;
typedef int16_t ss_int16;
typedef uint16_t ss_uint16;
typedef int32_t ss_int32;
typedef uint32_t ss_uint32;
typedef int64_t ss_int64;
typedef uint64_t ss_uint64;
typedef struct { uint16_t bits; } ss_float16;
typedef float ss_float32;
typedef double ss_float64;

static inline float
half_to_float(ss_float16 half)
{
	uint32_t sign = (uint32_t)(half.bits & 0x8000) << 16, bits = half.bits & 0x7FFF;
	float value;

	if (bits >= 0x7C00)			/* infinity, NaN */
		bits = 0x7F800000 | (bits & 0x3FF) << 13;
	else if (bits >= 0x0400)		/* normal: rebias the exponent from 15 to 127 */
		bits = (bits << 13) + ((uint32_t)(127 - 15) << 23);
	else {					/* subnormal: bits * 2^-24 is exact in float */
		value = (float)bits * 0x1p-24f;
		memcpy(&bits, &value, 4);
	}
	bits |= sign;
	memcpy(&value, &bits, 4);
	return value;
}

/* Rounds to nearest even, straight from double so that nothing is rounded twice. */
static inline ss_float16
half_from_double(double value)
{
	uint64_t bits;
	memcpy(&bits, &value, 8);
	uint16_t sign = (uint16_t)(bits >> 48 & 0x8000);
	int exponent = (int)(bits >> 52 & 0x7FF) - 1023;
	uint64_t fraction = bits & 0xFFFFFFFFFFFFF;

	if (exponent == 1024)			/* a NaN keeps its top bits and is quiet, as F16C makes it */
		return (ss_float16){ sign | 0x7C00 | (fraction ? (uint16_t)(fraction >> 42 | 0x200) : 0) };
	if (exponent >= 16)
		return (ss_float16){ sign | 0x7C00 };
	if (exponent < -25)			/* below half of the smallest subnormal, 2^-24 */
		return (ss_float16){ sign };
	/* Significand with its hidden bit, to be cut by 'drop' bits; a carry runs into the exponent as it should. */
	uint64_t significand = fraction | (uint64_t)1 << 52;
	int drop = exponent >= -14 ? 42 : 42 + (-14 - exponent);
	uint64_t kept = significand >> drop, rest = significand & (((uint64_t)1 << drop) - 1);
	uint64_t half = (uint64_t)1 << (drop - 1);
	kept += rest > half || (rest == half && (kept & 1));
	if (exponent >= -14)
		kept += (uint64_t)(exponent + 14) << 10;	/* hidden bit counts as exponent 1 */
	return (ss_float16){ (uint16_t)(sign | kept) };
}

/*
 * Floats to integers, which C leaves undefined beyond the range: towards zero, the nearest
 * integer there is if it is beyond, 0 if it is no number.  'MIN' and 'END', the first
 * integer above the largest, are exact as double, as every float16 and float32 is.
 */
#define DEFINE_TRUNCATED(T, MIN, MAX, END)						\
	static inline T T##_truncated(double x)						\
	{										\
		return x >= (END) ? (MAX) : x >= (double)(MIN) ? (T)x : x == x ? (MIN) : 0;	\
	}

DEFINE_TRUNCATED(ss_int8, INT8_MIN, INT8_MAX, 0x1p7)
DEFINE_TRUNCATED(ss_uint8, 0, UINT8_MAX, 0x1p8)
DEFINE_TRUNCATED(ss_int16, INT16_MIN, INT16_MAX, 0x1p15)
DEFINE_TRUNCATED(ss_uint16, 0, UINT16_MAX, 0x1p16)
DEFINE_TRUNCATED(ss_int32, INT32_MIN, INT32_MAX, 0x1p31)
DEFINE_TRUNCATED(ss_uint32, 0, UINT32_MAX, 0x1p32)
DEFINE_TRUNCATED(ss_int64, INT64_MIN, INT64_MAX, 0x1p63)
DEFINE_TRUNCATED(ss_uint64, 0, UINT64_MAX, 0x1p64)

#define PLAIN(T, x) ((T)(x))
#define TRUNCATED(T, x) T##_truncated((double)(x))
#define TRUNCATED_HALF(T, x) T##_truncated((double)half_to_float(x))
#define TO_HALF(T, x) half_from_double((double)(x))
#define FROM_HALF(T, x) ((T)half_to_float(x))
#define FROM_BOOL(T, x) ((T)((x) != 0))
#define HALF_TO_BOOL(T, x) ((T)(((x).bits & 0x7FFF) != 0))
#define BOOL_TO_HALF(T, x) half_from_double((x) != 0)

#define DEFINE(ATTRIBUTE, NAME, FROM, TO, CAST)						\
	ATTRIBUTE static void NAME(const void *from, void *to, size_t num_elements)	\
	{										\
		const uint8_t *p = from;						\
		uint8_t *q = to;							\
		for (size_t i = 0; i < num_elements; i++) {				\
			FROM x;								\
			memcpy(&x, p + i * sizeof(x), sizeof(x));			\
			TO y = CAST(TO, x);						\
			memcpy(q + i * sizeof(y), &y, sizeof(y));			\
		}									\
	}

#define PAIR_PLAIN(A, S, FROM, TO) DEFINE(A, FROM##_##TO##S, ss_##FROM, ss_##TO, PLAIN)
#define PAIR_TO_HALF(A, S, FROM, TO) DEFINE(A, FROM##_##TO##S, ss_##FROM, ss_##TO, TO_HALF)
#define PAIR_FROM_HALF(A, S, FROM, TO) DEFINE(A, FROM##_##TO##S, ss_##FROM, ss_##TO, FROM_HALF)
#define PAIR_TRUNCATED(A, S, FROM, TO) DEFINE(A, FROM##_##TO##S, ss_##FROM, ss_##TO, TRUNCATED)
#define PAIR_TRUNCATED_HALF(A, S, FROM, TO) DEFINE(A, FROM##_##TO##S, ss_##FROM, ss_##TO, TRUNCATED_HALF)
#define PAIR_HALF_TO_BOOL(A, S, FROM, TO) DEFINE(A, FROM##_##TO##S, ss_##FROM, ss_##TO, HALF_TO_BOOL)
#define PAIR_BOOL(A, S, FROM, TO) DEFINE(A, FROM##_##TO##S, ss_##FROM, ss_##TO, FROM_BOOL)
#define PAIR_BOOL_TO_HALF(A, S, FROM, TO) DEFINE(A, FROM##_##TO##S, ss_##FROM, ss_##TO, BOOL_TO_HALF)

/* 'boolean' and not 'bool' in names: <stdbool.h>, if anything includes it, makes bool a macro. */
#define INTEGERS_TO(M, A, S, TO)							\
	M(A, S, int8, TO) M(A, S, uint8, TO) M(A, S, int16, TO) M(A, S, uint16, TO)	\
	M(A, S, int32, TO) M(A, S, uint32, TO) M(A, S, int64, TO) M(A, S, uint64, TO)
#define TO_INTEGERS(M, A, S, FROM)							\
	M(A, S, FROM, int8) M(A, S, FROM, uint8) M(A, S, FROM, int16) M(A, S, FROM, uint16)	\
	M(A, S, FROM, int32) M(A, S, FROM, uint32) M(A, S, FROM, int64) M(A, S, FROM, uint64)
#define FROM_BOOLEAN(M, A, S)								\
	M(A, S, boolean, boolean) M(A, S, boolean, int8) M(A, S, boolean, uint8)	\
	M(A, S, boolean, int16) M(A, S, boolean, uint16) M(A, S, boolean, int32)	\
	M(A, S, boolean, uint32) M(A, S, boolean, int64) M(A, S, boolean, uint64)	\
	M(A, S, boolean, float32) M(A, S, boolean, float64)

#define ALL_PAIRS(A, S)									\
	FROM_BOOLEAN(PAIR_BOOL, A, S) PAIR_BOOL_TO_HALF(A, S, boolean, float16)		\
	INTEGERS_TO(PAIR_BOOL, A, S, boolean) INTEGERS_TO(PAIR_PLAIN, A, S, int8)	\
	INTEGERS_TO(PAIR_PLAIN, A, S, uint8) INTEGERS_TO(PAIR_PLAIN, A, S, int16)	\
	INTEGERS_TO(PAIR_PLAIN, A, S, uint16) INTEGERS_TO(PAIR_PLAIN, A, S, int32)	\
	INTEGERS_TO(PAIR_PLAIN, A, S, uint32) INTEGERS_TO(PAIR_PLAIN, A, S, int64)	\
	INTEGERS_TO(PAIR_PLAIN, A, S, uint64) INTEGERS_TO(PAIR_PLAIN, A, S, float32)	\
	INTEGERS_TO(PAIR_PLAIN, A, S, float64) INTEGERS_TO(PAIR_TO_HALF, A, S, float16)	\
	PAIR_PLAIN(A, S, float32, float32) PAIR_PLAIN(A, S, float32, float64)		\
	PAIR_PLAIN(A, S, float64, float32) PAIR_PLAIN(A, S, float64, float64)		\
	PAIR_TO_HALF(A, S, float32, float16) PAIR_TO_HALF(A, S, float64, float16)	\
	PAIR_FROM_HALF(A, S, float16, float32) PAIR_FROM_HALF(A, S, float16, float64)	\
	TO_INTEGERS(PAIR_TRUNCATED, A, S, float32) PAIR_BOOL(A, S, float32, boolean)	\
	TO_INTEGERS(PAIR_TRUNCATED, A, S, float64) PAIR_BOOL(A, S, float64, boolean)	\
	TO_INTEGERS(PAIR_TRUNCATED_HALF, A, S, float16) PAIR_HALF_TO_BOOL(A, S, float16, boolean)

#define HALF_TO_HALF(A, S)								\
	A static void float16_float16##S(const void *from, void *to, size_t num_elements) \
	{ memcpy(to, from, 2 * num_elements); }

ALL_PAIRS(, _base) HALF_TO_HALF(, _base)

#define ROW(S, FROM)									\
	{ FROM##_boolean##S, FROM##_int8##S, FROM##_uint8##S, FROM##_int16##S,		\
	  FROM##_uint16##S, FROM##_int32##S, FROM##_uint32##S, FROM##_int64##S,		\
	  FROM##_uint64##S, FROM##_float16##S, FROM##_float32##S, FROM##_float64##S }
#define TABLE(S)									\
	static const ss_convert_fn table##S[SS_NUM_DTYPES][SS_NUM_DTYPES] = {		\
		ROW(S, boolean), ROW(S, int8), ROW(S, uint8), ROW(S, int16), ROW(S, uint16),	\
		ROW(S, int32), ROW(S, uint32), ROW(S, int64), ROW(S, uint64),		\
		ROW(S, float16), ROW(S, float32), ROW(S, float64)			\
	};

TABLE(_base)
#if defined(__x86_64__) && !defined(SS_PORTABLE)
#define AVX2 __attribute__((target("avx2,f16c")))
ALL_PAIRS(AVX2, _avx2) HALF_TO_HALF(AVX2, _avx2)
TABLE(_avx2)

#include <cpuid.h>
#include <immintrin.h>
#include <stdatomic.h>

/* The one pair that no compiler makes vectors of, though there is an instruction for eight. */
AVX2 static void
float32_to_float16_f16c(const void *from, void *to, size_t num_elements)
{
	const uint8_t *p = from;
	uint8_t *q = to;
	size_t i = 0;

	for (; i + 8 <= num_elements; i += 8) {
		__m256 eight = _mm256_loadu_ps((const float *)(const void *)(p + 4 * i));

		_mm_storeu_si128((__m128i *)(void *)(q + 2 * i),
				 _mm256_cvtps_ph(eight, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
	}
	float32_float16_avx2(p + 4 * i, q + 2 * i, num_elements - i);
}

/*
 * __builtin_cpu_supports("f16c") is not known to clang 14.  Asked once: CPUID leaves a virtual machine for
 * its host, which takes some 2 us, and there is a batch or a value of a row to convert.
 */
static int
has_avx2_and_f16c(void)
{
	static atomic_int known;		/* 0: not asked yet, 1: no, 2: yes */
	int found = atomic_load_explicit(&known, memory_order_relaxed);

	if (found == 0) {
		unsigned eax, ebx, ecx, edx;

		found = 1 + (__builtin_cpu_supports("avx2") && __get_cpuid(1, &eax, &ebx, &ecx, &edx) &&
			     (ecx & bit_F16C) != 0);
		atomic_store_explicit(&known, found, memory_order_relaxed);
	}
	return found == 2;
}
#endif

static const uint8_t nbytes_of[SS_NUM_DTYPES] = { 1, 1, 1, 2, 2, 4, 4, 8, 8, 2, 4, 8 };

size_t
ss_dtype_nbytes(enum ss_dtype dtype)
{
	return (unsigned)dtype < SS_NUM_DTYPES ? nbytes_of[dtype] : 0;
}

ss_convert_fn
ss_converter(enum ss_dtype from, enum ss_dtype to)
{
	if ((unsigned)from >= SS_NUM_DTYPES || (unsigned)to >= SS_NUM_DTYPES)
		return NULL;
#if defined(__x86_64__) && !defined(SS_PORTABLE)
	if (has_avx2_and_f16c() && from == SS_FLOAT32 && to == SS_FLOAT16)
		return float32_to_float16_f16c;
	if (has_avx2_and_f16c())
		return table_avx2[from][to];
#endif
	return table_base[from][to];
}

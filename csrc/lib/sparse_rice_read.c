/*
 * Reading Rice-coded sets, in two steps without an unpredictable branch an index:
 * the positions of the ones in the unary stream, a byte at a time by table, then
 * for each set its elements.  In a set whose unary part begins at bit 'start', the
 * one of element i at bit position p says that the high parts of the gaps so far
 * add up to p - start - i; so
 *
 *	element i = ((p - start - i) << b) + (low parts so far) + i
 *
 * and only the low parts need a running sum.  AVX2 does eight elements at once: in
 * a set the low parts of eight elements fill b whole bytes, so the same shuffle and
 * shifts fit all of them.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>

#include "sparse.h"

#define ONES_AVAIL 1024		/* 4 KiB: stays in the first-level cache */
#define MAX_ONES_A_WORD 64
#define VECTOR 8
#define MAX_VECTOR_B 25		/* b bits from any bit of a byte lie in 4 bytes */
#define MIN_VECTOR_ELEMENTS 5
#define SMALL 4
#define MAX_SMALL_B 14		/* SMALL low parts from any bit of a byte lie in 8 bytes */
#define NUM_MEMO 256

static uint8_t ones_of_byte[256][8];
static uint8_t num_ones_of_byte[256];

/* Filled before main() or dlopen() returns, so readers need no lock. */
__attribute__((constructor)) static void
fill_tables(void)
{
	for (unsigned byte = 0; byte < 256; byte++)
		for (uint8_t bit = 0; bit < 8; bit++)
			if (byte >> bit & 1)
				ones_of_byte[byte][num_ones_of_byte[byte]++] = bit;
}

struct rice_reader {
	const uint8_t *low;		/* begin of the low bits */
	const uint8_t *readable_end;	/* of all input */
	uint64_t low_pos;		/* in bits */
	const uint8_t *unary;		/* begin of the unary stream */
	const uint8_t *unary_next;	/* first byte not yet searched for ones */
	uint32_t start;			/* in bits: where the next element's unary part begins */
	size_t at;			/* ones[at .. have) are found but not used */
	size_t have;
	uint32_t ones[ONES_AVAIL + MAX_ONES_A_WORD + VECTOR];
	uint8_t memo[NUM_MEMO];		/* rice_parameter() + 1 of small sets, or 0 */
};

static inline unsigned
parameter(struct rice_reader *r, uint64_t universe, uint64_t size)
{
	if (size >= NUM_MEMO)
		return rice_parameter(universe, size);
	if (r->memo[size] == 0)
		r->memo[size] = (uint8_t)(rice_parameter(universe, size) + 1);
	return r->memo[size] - 1u;
}

/* Writes the positions of the ones of a byte, and perhaps garbage behind them. */
static inline size_t
find_ones(uint32_t base, uint8_t byte, uint32_t *out)
{
	for (int i = 0; i < 8; i++)
		out[i] = base + ones_of_byte[byte][i];
	return num_ones_of_byte[byte];
}

static inline __attribute__((always_inline)) void
refill_body(struct rice_reader *r)
{
	size_t have = r->have - r->at;
	const uint8_t *p = r->unary_next;

	memmove(r->ones, r->ones + r->at, have * sizeof(uint32_t));
	while (have <= ONES_AVAIL && r->readable_end - p >= 8) {
		uint64_t word = load64(p);
		uint32_t base = (uint32_t)((p - r->unary) * 8);
		for (unsigned i = 0; i < 8; i++)
			have += find_ones(base + 8 * i, (uint8_t)(word >> 8 * i), r->ones + have);
		p += 8;
	}
	while (have <= ONES_AVAIL && p < r->readable_end) {
		have += find_ones((uint32_t)((p - r->unary) * 8), *p, r->ones + have);
		p++;
	}
	r->unary_next = p;
	r->at = 0;
	r->have = have;
}

/*
 * Writes 'num' elements of a set from element 'first' on, where 'sum' is that of the
 * low parts before; the ones are there.  Returns the sum afterwards.
 */
static inline __attribute__((always_inline)) uint32_t
read_elements(struct rice_reader *r, unsigned b, uint32_t start, uint32_t first, uint32_t sum,
	      size_t num, uint32_t *x)
{
	const uint32_t *one = r->ones + r->at, mask = (1u << b) - 1;
	uint64_t pos = r->low_pos, end = pos + num * b;
	int near_end = (size_t)(r->readable_end - r->low) < (end >> 3) + 8;
	struct bit_reader low = {r->low, pos, (uint64_t)(r->readable_end - r->low) * 8};

	for (size_t i = 0; i < num; i++) {
		uint32_t element = first + (uint32_t)i;
		sum += near_end ? bits_take(&low, b) : (uint32_t)(load64(r->low + (pos >> 3)) >> (pos & 7)) & mask;
		x[i] = ((one[i] - start - element) << b) + sum + element;
		pos += b;
	}
	r->low_pos = end;
	return sum;
}

static void
refill_portable(struct rice_reader *r)
{
	refill_body(r);
}

static uint32_t
read_elements_portable(struct rice_reader *r, unsigned b, uint32_t start, uint32_t first,
		       uint32_t sum, size_t num, uint32_t *x, size_t avail)
{
	(void)avail;
	return read_elements(r, b, start, first, sum, num, x);
}

#if defined(__x86_64__) && !defined(SS_PORTABLE)
#include <immintrin.h>

__attribute__((target("avx2"))) static void
refill_avx2(struct rice_reader *r)
{
	refill_body(r);
}

/* As read_elements(), but may write VECTOR - 1 elements too many where 'avail' allows it. */
__attribute__((target("avx2"))) static uint32_t
read_elements_avx2(struct rice_reader *r, unsigned b, uint32_t start, uint32_t first,
		   uint32_t sum, size_t num, uint32_t *x, size_t avail)
{
	size_t steps = (num + VECTOR - 1) / VECTOR;
	unsigned phase = r->low_pos & 7, half = phase + 4 * b;
	const uint8_t *p = r->low + (r->low_pos >> 3), *q = p + (half >> 3);

	if (b > MAX_VECTOR_B || steps * VECTOR > avail ||
	    (size_t)(r->readable_end - p) < (half >> 3) + steps * b + 16)
		return read_elements(r, b, start, first, sum, num, x);
	const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
	const __m256i mask = _mm256_set1_epi32((int)((1u << b) - 1));
	__m256i bit = _mm256_add_epi32(_mm256_mullo_epi32(_mm256_set1_epi32((int)b),
							  _mm256_and_si256(lanes, _mm256_set1_epi32(3))),
				       _mm256_set_m128i(_mm_set1_epi32((int)(half & 7)), _mm_set1_epi32((int)phase)));
	__m256i shift = _mm256_and_si256(bit, _mm256_set1_epi32(7));
	__m256i shuffle = _mm256_add_epi32(_mm256_mullo_epi32(_mm256_srli_epi32(bit, 3), _mm256_set1_epi32(0x01010101)),
					   _mm256_set1_epi32(0x03020100));
	__m256i element = _mm256_add_epi32(lanes, _mm256_set1_epi32((int)first));
	__m256i start_and_element = _mm256_add_epi32(element, _mm256_set1_epi32((int)start));
	__m256i carry = _mm256_set1_epi32((int)sum);
	__m128i count = _mm_cvtsi32_si128((int)b);
	const uint32_t *one = r->ones + r->at;

	for (size_t i = 0; i < steps; i++) {
		__m256i v = _mm256_set_m128i(_mm_loadu_si128((const __m128i *)(q + i * b)),
					     _mm_loadu_si128((const __m128i *)(p + i * b)));
		v = _mm256_and_si256(_mm256_srlv_epi32(_mm256_shuffle_epi8(v, shuffle), shift), mask);
		v = _mm256_add_epi32(v, _mm256_slli_si256(v, 4));
		v = _mm256_add_epi32(v, _mm256_slli_si256(v, 8));
		__m256i across = _mm256_shuffle_epi32(_mm256_permute2x128_si256(v, v, 0x08), 0xFF);
		v = _mm256_add_epi32(_mm256_add_epi32(v, across), carry);
		carry = _mm256_permutevar8x32_epi32(v, _mm256_set1_epi32(7));
		__m256i high = _mm256_loadu_si256((const __m256i *)(one + i * VECTOR));
		high = _mm256_sll_epi32(_mm256_sub_epi32(high, start_and_element), count);
		v = _mm256_add_epi32(_mm256_add_epi32(v, high), element);
		_mm256_storeu_si256((__m256i *)(x + i * VECTOR), v);
		element = _mm256_add_epi32(element, _mm256_set1_epi32(VECTOR));
		start_and_element = _mm256_add_epi32(start_and_element, _mm256_set1_epi32(VECTOR));
	}
	r->low_pos += num * b;
	/* The sum of exactly num low parts, from the last element. */
	uint32_t last = first + (uint32_t)num - 1;
	return x[num - 1] - last - ((one[num - 1] - start - last) << b);
}
#endif

typedef void (*refill_fn)(struct rice_reader *r);
typedef uint32_t (*elements_fn)(struct rice_reader *r, unsigned b, uint32_t start, uint32_t first,
				uint32_t sum, size_t num, uint32_t *x, size_t avail);

/* Is the last of m elements, the largest, in the universe? Sums of low parts are in 'sum'. */
static inline int
last_is_inside(uint64_t universe, uint64_t m, unsigned b, uint32_t start, uint32_t last_one, uint32_t sum)
{
	uint64_t high = last_one - start - (uint32_t)(m - 1);

	return (high << b) + sum + m - 1 < universe;
}

/*
 * Reads a set of 1 to SMALL elements without a loop, so that sets of different small
 * sizes cost no mispredicted branch: SMALL elements are written, and the next set
 * overwrites what is too much.  0 if the last one is outside; -1 if it can't be
 * done here, and nothing has changed.
 */
static inline __attribute__((always_inline)) int
read_small_set(struct rice_reader *r, uint64_t universe, uint32_t m, uint32_t *x, uint64_t avail)
{
	unsigned b = parameter(r, universe, m);
	const uint8_t *p = r->low + (r->low_pos >> 3);

	if (avail < SMALL || r->have - r->at < m || b > MAX_SMALL_B || r->readable_end - p < 8)
		return -1;
	const uint32_t *one = r->ones + r->at;
	uint32_t start = r->start, mask = (1u << b) - 1, sum = 0;
	uint64_t low = load64(p) >> (r->low_pos & 7);
	for (uint32_t i = 0; i < SMALL; i++) {
		sum += (uint32_t)low & mask;
		low >>= b;
		x[i] = ((one[i] - start - i) << b) + sum + i;
	}
	uint32_t last = one[m - 1];
	sum = x[m - 1] - (m - 1) - ((last - start - (m - 1)) << b);
	r->low_pos += m * b;
	r->at += m;
	r->start = last + 1;
	return last_is_inside(universe, m, b, start, last, sum);
}

/*
 * Reads m elements to x, which has room for 'avail' >= m.  0 if the stream ends or
 * the last element leaves the universe.  Sums of low parts do not overflow, since
 * m * 2^b is below 77/80 of the universe.
 */
static inline __attribute__((always_inline)) int
read_set(struct rice_reader *r, uint64_t universe, uint64_t m, uint32_t *x, size_t avail,
	 refill_fn refill, elements_fn elements)
{
	unsigned b = parameter(r, universe, m);
	uint32_t start = r->start, sum = 0, last = 0;

	for (uint64_t i = 0; i < m;) {
		if (r->have - r->at < m - i && r->have - r->at < ONES_AVAIL / 2) {
			refill(r);
			if (r->have == 0)
				return 0;
		}
		size_t num = r->have - r->at < m - i ? r->have - r->at : (size_t)(m - i);
		if (num < MIN_VECTOR_ELEMENTS)
			sum = read_elements(r, b, start, (uint32_t)i, sum, num, x + i);
		else
			sum = elements(r, b, start, (uint32_t)i, sum, num, x + i, avail - i);
		r->at += num;
		i += num;
		last = r->ones[r->at - 1];
	}
	if (m == 0)
		return 1;
	r->start = last + 1;
	return last_is_inside(universe, m, b, start, last, sum);
}

/* Turns the universe - len absent elements, which lie at x, into the len present ones. */
static void
invert(uint64_t universe, uint32_t len, const uint32_t *absent, uint32_t *x)
{
	uint64_t m = universe - len, next = 0;

	for (uint64_t i = 0; i < m; i++) {
		while (next < absent[i])
			*x++ = (uint32_t)next++;
		next++;
	}
	while (next < universe)
		*x++ = (uint32_t)next++;
}

/* The size of the low bits of all sets; *largest_ret is the most elements a complement has. */
static uint64_t
low_nbits(struct rice_reader *r, uint64_t universe, const uint32_t *lens, size_t num_sets,
	  uint64_t *largest_ret)
{
	uint64_t sum = 0, largest = 0;

	for (size_t s = 0; s < num_sets; s++) {
		uint64_t m = rice_num_written(universe, lens[s]);
		sum += m * parameter(r, universe, m);
		if (m != lens[s] && m > largest)
			largest = m;
	}
	*largest_ret = largest;
	return sum;
}

static inline __attribute__((always_inline)) int
read_sets(struct rice_reader *r, uint64_t universe, const uint32_t *lens, size_t num_sets,
	  uint32_t *x, uint32_t *scratch, refill_fn refill, elements_fn elements)
{
	uint64_t avail = sets_sum(lens, num_sets);

	for (size_t s = 0; s < num_sets; s++) {
		uint64_t m = rice_num_written(universe, lens[s]);
		int small = m == lens[s] && m - 1 < SMALL ? read_small_set(r, universe, (uint32_t)m, x, avail) : -1;
		if (small == 0)
			return 0;
		if (small == 1) {
			/* done */
		} else if (m == lens[s]) {
			if (!read_set(r, universe, m, x, avail, refill, elements))
				return 0;
		} else {
			if (!read_set(r, universe, m, scratch, m, refill, elements))
				return 0;
			invert(universe, lens[s], scratch, x);
		}
		x += lens[s];
		avail -= lens[s];
	}
	return 1;
}

typedef int (*sets_fn)(struct rice_reader *r, uint64_t universe, const uint32_t *lens,
		       size_t num_sets, uint32_t *x, uint32_t *scratch);

static int
read_sets_portable(struct rice_reader *r, uint64_t universe, const uint32_t *lens, size_t num_sets,
		   uint32_t *x, uint32_t *scratch)
{
	return read_sets(r, universe, lens, num_sets, x, scratch, refill_portable, read_elements_portable);
}

#if defined(__x86_64__) && !defined(SS_PORTABLE)
__attribute__((target("avx2,bmi,bmi2"))) static int
read_sets_avx2(struct rice_reader *r, uint64_t universe, const uint32_t *lens, size_t num_sets,
	       uint32_t *x, uint32_t *scratch)
{
	return read_sets(r, universe, lens, num_sets, x, scratch, refill_avx2, read_elements_avx2);
}
#endif

static sets_fn
choose_read_sets(void)
{
#if defined(__x86_64__) && !defined(SS_PORTABLE)
	if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2"))
		return read_sets_avx2;
#endif
	return read_sets_portable;
}

enum ss_status
rice_read(uint64_t universe, const uint32_t *lens, size_t num_sets, struct input *in,
	  uint32_t *elements)
{
	struct rice_reader r = {.low = in->p, .readable_end = in->end};
	uint64_t largest, nbits = low_nbits(&r, universe, lens, num_sets, &largest);

	if ((nbits + 7) / 8 > input_left(in))
		return SS_ERR_TRUNCATED;
	r.unary = r.unary_next = in->p + (nbits + 7) / 8;
	if ((size_t)(in->end - r.unary) > RICE_MAX_UNARY_NBYTES)
		r.readable_end = r.unary + RICE_MAX_UNARY_NBYTES;
	uint32_t *scratch = NULL;
	if (largest > 0 && (scratch = malloc((largest + VECTOR) * sizeof(uint32_t))) == NULL)
		return SS_ERR_NOMEM;
	int ok = choose_read_sets()(&r, universe, lens, num_sets, elements, scratch);
	free(scratch);
	in->p = r.unary + ((uint64_t)r.start + 7) / 8;
	if (!ok)
		return r.have == 0 ? SS_ERR_TRUNCATED : SS_ERR_CORRUPT;
	struct bit_reader low = {r.low, nbits, (nbits + 7) / 8 * 8}, unary = {r.unary, r.start, 0};
	return bits_padding_is_zero(&low) && bits_padding_is_zero(&unary) ? SS_OK : SS_ERR_CORRUPT;
}

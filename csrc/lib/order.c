/*
 * The order of an epoch: keys, the index cipher, lanes, runs.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdbool.h>

#include "ss_order.h"

#define GOLDEN 0x9E3779B97F4A7C15u
/* Multipliers of the round function: MurmurHash3's first, and a prime next to 2^32 / golden ratio. */
#define ROUND_C1 0xCC9E2D51u
#define ROUND_C2 0x9E3779B1u

/*
 * Over 20,000 keys the differences of neighbours' images are, in standard deviations of
 * chi-square from chance: for n = 64, 170 and 200 18.6, 15.2 and 5.8 after 6 rounds, within
 * 1.3 after 8; for n = 16 still 7.4 after 8, and all 720 orders of n = 6 are 224 off.  After
 * 24 rounds these are 0.5 and 1.6.  tests/test_native_order.py holds it on fewer keys.
 */
#define ROUNDS 8
#define SMALL_ROUNDS 24
#define SMALL_ELEMENTS 64

static uint64_t
mix64(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
	x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
	return x ^ (x >> 31);
}

static inline uint64_t
absorb(uint64_t key, uint64_t word)
{
	return mix64((key ^ word) + GOLDEN);
}

uint64_t
ss_order_key(uint64_t key, const uint64_t *words, size_t num_words)
{
	for (size_t i = 0; i < num_words; i++)
		key = absorb(key, words[i]);
	return key;
}

struct cipher {
	uint64_t num_elements;
	uint32_t num_rows;	/* at most 2^31, as are the columns: num_elements < 2^62 */
	unsigned int column_bits;
	unsigned int num_rounds;
	uint32_t round_key[SMALL_ROUNDS];
};

static void
cipher_resize(struct cipher *c, uint64_t num_elements)
{
	unsigned int bits = num_elements > 1 ? 64 - (unsigned int)__builtin_clzll(num_elements - 1) : 0;

	c->num_elements = num_elements;
	c->column_bits = bits / 2;
	c->num_rows = (uint32_t)((num_elements - 1) >> c->column_bits) + 1;
	c->num_rounds = num_elements < SMALL_ELEMENTS ? SMALL_ROUNDS : ROUNDS;
}

static inline void
cipher_rekey(struct cipher *c, uint64_t key)
{
	for (unsigned int j = 0; j < c->num_rounds; j += 2) {
		uint64_t pair = mix64(key += GOLDEN);
		c->round_key[j] = (uint32_t)pair;
		c->round_key[j + 1] = (uint32_t)(pair >> 32);
	}
}

/* A 32-bit hash of 'half' scaled to [0, range): only 32 x 32 -> 64 products, as SIMD units have them. */
static inline uint32_t
round_hash(uint32_t half, uint32_t round_key, uint32_t range)
{
	uint64_t t = (uint64_t)(uint32_t)(half + round_key) * ROUND_C1;
	uint32_t hash = (uint32_t)(t ^ (t >> 32)) * ROUND_C2;
	return (uint32_t)((uint64_t)hash * range >> 32);
}

static inline uint64_t
permute_cell(const struct cipher *c, uint64_t cell)
{
	uint32_t num_columns = 1u << c->column_bits;
	uint32_t column = (uint32_t)cell & (num_columns - 1);
	uint32_t row = (uint32_t)(cell >> c->column_bits);

	for (unsigned int j = 0; j < c->num_rounds; j += 2) {
		row += round_hash(column, c->round_key[j], c->num_rows);
		row = row >= c->num_rows ? row - c->num_rows : row;
		column += round_hash(row, c->round_key[j + 1], num_columns);
		column &= num_columns - 1;
	}
	return ((uint64_t)row << c->column_bits) | column;
}

/* Elements that go through the cipher together. */
#define CHUNK 64

#if defined(__x86_64__) && !defined(SS_PORTABLE)
#include <immintrin.h>

/* Vectors in flight: a round is a chain of three multiplications, 5 cycles each. */
#define NUM_VECTORS 4

__attribute__((target("avx2"))) static inline __m256i
round_hash_avx2(__m256i half, __m256i round_key, __m256i range)
{
	__m256i t = _mm256_mul_epu32(_mm256_add_epi32(half, round_key), _mm256_set1_epi64x(ROUND_C1));
	t = _mm256_xor_si256(t, _mm256_srli_epi64(t, 32));
	t = _mm256_mul_epu32(t, _mm256_set1_epi64x(ROUND_C2));	/* only its low 32 bits are used */
	return _mm256_srli_epi64(_mm256_mul_epu32(t, range), 32);
}

/* permute_cell() of cells[0 .. count), a multiple of 4 * NUM_VECTORS: row and column are 64-bit elements. */
__attribute__((target("avx2"))) static void
permute_cells_avx2(const struct cipher *c, uint64_t *cells, size_t count)
{
	const __m256i num_rows = _mm256_set1_epi64x(c->num_rows);
	const __m256i num_columns = _mm256_set1_epi64x(1ll << c->column_bits);
	const __m256i column_mask = _mm256_set1_epi64x((1ll << c->column_bits) - 1);
	const __m128i column_bits = _mm_cvtsi32_si128((int)c->column_bits);

	for (__m256i *p = (__m256i *)cells; p < (__m256i *)(cells + count); p += NUM_VECTORS) {
		__m256i row[NUM_VECTORS], column[NUM_VECTORS];

		for (int v = 0; v < NUM_VECTORS; v++) {
			__m256i cell = _mm256_loadu_si256(p + v);
			row[v] = _mm256_srl_epi64(cell, column_bits);
			column[v] = _mm256_and_si256(cell, column_mask);
		}
		for (unsigned int j = 0; j < c->num_rounds; j += 2) {
			__m256i key = _mm256_set1_epi64x(c->round_key[j]);
			__m256i next = _mm256_set1_epi64x(c->round_key[j + 1]);
			for (int v = 0; v < NUM_VECTORS; v++) {
				__m256i r = _mm256_add_epi32(row[v], round_hash_avx2(column[v], key, num_rows));
				r = _mm256_min_epu32(r, _mm256_sub_epi32(r, num_rows));
				row[v] = r;
				r = _mm256_add_epi32(column[v], round_hash_avx2(r, next, num_columns));
				column[v] = _mm256_and_si256(r, column_mask);
			}
		}
		for (int v = 0; v < NUM_VECTORS; v++)
			_mm256_storeu_si256(p + v, _mm256_or_si256(
				_mm256_sll_epi64(row[v], column_bits), column[v]));
	}
}
#endif

static bool
have_avx2(void)
{
#if defined(__x86_64__) && !defined(SS_PORTABLE)
	return __builtin_cpu_supports("avx2");
#else
	return false;
#endif
}

/* Replaces indices[0 .. count), each below c->num_elements, by their images; [count .. CHUNK) is scratch. */
static void
cipher_chunk(const struct cipher *c, uint64_t *indices, size_t count, bool vectors)
{
	size_t done = 0;

#if defined(__x86_64__) && !defined(SS_PORTABLE)
	if (vectors && count > 2) {
		while (done < count)
			done += 4 * NUM_VECTORS;
		for (size_t i = count; i < done; i++)
			indices[i] = 0;
		permute_cells_avx2(c, indices, done);
	}
#endif
	(void)vectors;
	for (; done < count; done++)
		indices[done] = permute_cell(c, indices[done]);
	for (size_t i = 0; i < count; i++)
		while (indices[i] >= c->num_elements)
			indices[i] = permute_cell(c, indices[i]);
}

enum ss_status
ss_order_permute(uint64_t key, int64_t num_elements, const int64_t *indices,
		 size_t num_indices, int64_t *permuted)
{
	struct cipher c;
	bool vectors = have_avx2();

	if (num_elements < 1 || num_elements > SS_ORDER_MAX_SAMPLES)
		return SS_ERR_ARGUMENT;
	cipher_resize(&c, (uint64_t)num_elements);
	cipher_rekey(&c, key);
	for (size_t done = 0; done < num_indices;) {
		uint64_t chunk[CHUNK];
		size_t count = num_indices - done < CHUNK ? num_indices - done : CHUNK;

		for (size_t i = 0; i < count; i++) {
			if (indices[done + i] < 0 || indices[done + i] >= num_elements)
				return SS_ERR_RANGE;
			chunk[i] = (uint64_t)indices[done + i];
		}
		cipher_chunk(&c, chunk, count, vectors);
		for (size_t i = 0; i < count; i++)
			permuted[done + i] = (int64_t)chunk[i];
		done += count;
	}
	return SS_OK;
}

enum ss_status
ss_order_intervals(uint64_t key, int64_t num_lanes, int64_t *interval)
{
	struct cipher c;

	if (num_lanes < 1 || num_lanes > SS_ORDER_MAX_LANES)
		return SS_ERR_ARGUMENT;
	for (int64_t lane = 0; lane < num_lanes; lane++)
		interval[lane] = 0;
	/* One digit a turn: num_prefixes is the product of the factors done, num_left that of the rest. */
	for (int64_t num_prefixes = 1, num_left = num_lanes, factor; num_left > 1; num_prefixes *= factor) {
		for (factor = 2; num_left % factor != 0 && factor * factor <= num_left; factor++)
			;
		factor = num_left % factor == 0 ? factor : num_left;
		num_left /= factor;
		cipher_resize(&c, (uint64_t)factor);
		for (int64_t prefix = 0; prefix < num_prefixes; prefix++) {
			cipher_rekey(&c, absorb(absorb(key, (uint64_t)num_prefixes), (uint64_t)prefix));
			for (int64_t digit = 0; digit < factor; digit++) {	/* many lanes may share one */
				uint64_t image = (uint64_t)digit;
				cipher_chunk(&c, &image, 1, false);
				for (int64_t lane = prefix + digit * num_prefixes; lane < num_lanes; lane += factor * num_prefixes)
					interval[lane] += num_left * (int64_t)image;
			}
		}
	}
	return SS_OK;
}

static bool
epoch_holds(const struct ss_order_epoch *e)
{
	if (e->num_samples < 0 || e->num_samples > SS_ORDER_MAX_SAMPLES || e->run_length < 1 ||
	    e->num_lanes < 1 || e->num_lanes > SS_ORDER_MAX_LANES ||
	    e->run_length > SS_ORDER_MAX_SAMPLES / e->num_lanes)
		return false;
	for (int64_t lane = 0; lane < e->num_lanes; lane++)
		if (e->lane_begin[lane] < 0 || e->lane_begin[lane] > e->num_samples)
			return false;
	return true;
}

static int64_t
greatest_common_divisor(int64_t a, int64_t b)
{
	while (b != 0) {
		int64_t rest = a % b;
		a = b;
		b = rest;
	}
	return a;
}

/* Sets '*c' up for run 'run' of 'lane'. */
static void
cipher_of_run(struct cipher *c, const struct ss_order_epoch *e, int64_t lane, int64_t run)
{
	int64_t length = e->num_samples / e->num_lanes + (lane < e->num_samples % e->num_lanes) -
			 run * e->run_length;

	length = length < e->run_length ? length : e->run_length;
	if ((uint64_t)length != c->num_elements)
		cipher_resize(c, (uint64_t)length);
	cipher_rekey(c, absorb(absorb(e->key, (uint64_t)lane), (uint64_t)run));
}

/*
 * Every 'period'-th of line[0 .. num_positions), which are samples of one run: its cipher
 * is 'c', 'run_begin' its place on the line, and index, index + stride, ... the samples in it.
 */
static void
line_of_lane(const struct cipher *c, int64_t run_begin, uint64_t index, uint64_t stride,
	     size_t period, int64_t *line, size_t num_positions, bool vectors)
{
	size_t count = (num_positions - 1) / period + 1;

	for (size_t done = 0; done < count;) {
		uint64_t chunk[CHUNK];
		size_t num = count - done < CHUNK ? count - done : CHUNK;

		for (size_t i = 0; i < num; i++, index += stride)
			chunk[i] = index;
		cipher_chunk(c, chunk, num, vectors);
		for (size_t i = 0; i < num; i++)
			line[(done + i) * period] = run_begin + (int64_t)chunk[i];
		done += num;
	}
}

/*
 * Positions begin, begin + step, ..., all of which lie in run 'run'.  Every 'period'-th
 * of them is of the same lane, and 'stride' samples further in it.
 */
static void
line_of_run(const struct ss_order_epoch *e, int64_t run, int64_t begin, int64_t step,
	    size_t period, uint64_t stride, int64_t *line, size_t num_positions)
{
	struct cipher c = { .num_elements = 0 };
	bool vectors = have_avx2();
	int64_t offset = run * e->run_length;

	for (size_t first = 0; first < period && first < num_positions; first++) {
		int64_t position = begin + (int64_t)first * step;
		int64_t lane = position % e->num_lanes;

		cipher_of_run(&c, e, lane, run);
		line_of_lane(&c, e->lane_begin[lane] + offset, (uint64_t)(position / e->num_lanes - offset),
			     stride, period, line + first, num_positions - first, vectors);
	}
}

/* run_length 1: lanes without a permutation, so the runs need no loop of their own. */
static void
line_of_lanes(const struct ss_order_epoch *e, int64_t begin, int64_t step, int64_t *line, size_t num_positions)
{
	int64_t lane = begin % e->num_lanes, depth = begin / e->num_lanes;

	for (size_t i = 0; i < num_positions; i++) {
		line[i] = e->lane_begin[lane] + depth;
		lane += step % e->num_lanes;
		depth += step / e->num_lanes;
		if (lane >= e->num_lanes) {
			lane -= e->num_lanes;
			depth++;
		}
	}
}

enum ss_status
ss_order_line(const struct ss_order_epoch *e, int64_t begin, int64_t end,
	      int64_t step, int64_t *line, size_t num_positions)
{
	if (!epoch_holds(e) || begin < 0 || end < begin || end > e->num_samples || step < 1 ||
	    num_positions != (size_t)((end - begin) / step) + ((end - begin) % step != 0))
		return SS_ERR_ARGUMENT;
	if (e->run_length == 1) {
		line_of_lanes(e, begin, step, line, num_positions);
		return SS_OK;
	}

	int64_t window = e->run_length * e->num_lanes;
	int64_t common = greatest_common_divisor(step, e->num_lanes);
	for (size_t done = 0; done < num_positions;) {
		int64_t position = begin + (int64_t)done * step;
		int64_t run = position / window;
		int64_t left = (run + 1) * window - position;	/* positions of this run from here on */
		size_t count = (size_t)(left / step) + (left % step != 0);

		count = count < num_positions - done ? count : num_positions - done;
		line_of_run(e, run, position, step, (size_t)(e->num_lanes / common),
			    (uint64_t)(step / common), line + done, count);
		done += count;
	}
	return SS_OK;
}

enum ss_status
ss_order_lines(const struct ss_order_epoch *e, const int64_t *positions, size_t num_positions, int64_t *line)
{
	struct cipher c = { .num_elements = 0 };
	bool vectors = have_avx2();

	if (!epoch_holds(e))
		return SS_ERR_ARGUMENT;
	for (size_t i = 0; i < num_positions; i++)
		if (positions[i] < 0 || positions[i] >= e->num_samples)
			return SS_ERR_RANGE;
	for (size_t done = 0; done < num_positions;) {
		int64_t lane = positions[done] % e->num_lanes;
		int64_t run = positions[done] / e->num_lanes / e->run_length;
		int64_t run_begin = e->lane_begin[lane] + run * e->run_length;
		uint64_t chunk[CHUNK];
		size_t count = 0;

		/* As many neighbours as are of this run; a second chunk of it makes its key again. */
		for (; count < CHUNK && done + count < num_positions; count++) {
			int64_t position = positions[done + count];
			int64_t index = position / e->num_lanes - run * e->run_length;
			if (position % e->num_lanes != lane || index < 0 || index >= e->run_length)
				break;
			chunk[count] = (uint64_t)index;
		}
		if (e->run_length > 1) {
			cipher_of_run(&c, e, lane, run);
			cipher_chunk(&c, chunk, count, vectors);
		}
		for (size_t i = 0; i < count; i++)
			line[done + i] = run_begin + (int64_t)chunk[i];
		done += count;
	}
	return SS_OK;
}

enum ss_status
ss_order_draws(uint64_t key, const int64_t *quotas, const int64_t *available, size_t num_sources,
	       uint8_t *sources, uint16_t *ranks, size_t *num_draws_ret)
{
	uint8_t source_of[SS_ORDER_DRAWS];
	int64_t seen[256] = {0}, total = 0;
	struct cipher c = { .num_elements = 0 };
	bool vectors = have_avx2();

	*num_draws_ret = 0;
	if (num_sources < 1 || num_sources > 256)
		return SS_ERR_ARGUMENT;
	for (size_t s = 0; s < num_sources; s++) {
		if (quotas[s] < 0 || quotas[s] > SS_ORDER_DRAWS - total)
			return SS_ERR_ARGUMENT;
		for (int64_t i = 0; i < quotas[s]; i++)
			source_of[total++] = (uint8_t)s;
	}
	if (total != SS_ORDER_DRAWS)
		return SS_ERR_ARGUMENT;
	cipher_resize(&c, SS_ORDER_DRAWS);
	cipher_rekey(&c, key);
	for (uint64_t done = 0; done < SS_ORDER_DRAWS; done += CHUNK) {
		uint64_t chunk[CHUNK];

		for (uint64_t i = 0; i < CHUNK; i++)
			chunk[i] = done + i;
		cipher_chunk(&c, chunk, CHUNK, vectors);
		for (size_t i = 0; i < CHUNK; i++) {
			uint8_t source = source_of[chunk[i]];
			int64_t rank = seen[source]++;
			sources[*num_draws_ret] = source;
			ranks[*num_draws_ret] = (uint16_t)rank;
			*num_draws_ret += rank < available[source];
		}
	}
	return SS_OK;
}

/*
 * Hashes of one row to ascending distinct indices.
 *
 * A row of ordinary size goes through a table whose hash function is monotonic, the
 * leading bits of the index, and whose probe sequences are kept in order: reading
 * the table from end to end then gives the indices ascending, each once, with what
 * was counted for it.  (Ordered linear probing: Amble and Knuth, "Ordered hash
 * tables", The Computer Journal 17(2), 1974.)  Texts made to collide, and very long
 * ones, are sorted by radix instead, so that no row costs more than linear time.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "hash_internal.h"

#define EMPTY 0xFFFFFFFFu	/* larger than every index */

#define SMALL 16	/* rows up to this are sorted by insertion: a vector load of slots just stored would stall */

struct index_rule {
	uint32_t dim;
	bool is_power, is_signed;
};

static inline uint32_t
index_of(struct index_rule rule, uint32_t hash)
{
	uint32_t negative = 0u - (hash >> 31), magnitude = (hash ^ negative) - negative;

	return rule.is_power ? magnitude & (rule.dim - 1) : magnitude % rule.dim;
}

static inline int32_t
weight_of(struct index_rule rule, uint32_t hash)
{
	return rule.is_signed ? 1 - 2 * (int32_t)(hash >> 31) : 1;
}

static unsigned
bit_length(uint32_t x)
{
	return x ? 32 - (unsigned)__builtin_clz(x) : 0;
}

/* table_clear() makes the first num_slots slots empty that have never been used; used ones are left empty. */
static void
table_clear(struct hash_table *t, size_t num_slots)
{
	if (num_slots <= t->num_ready)
		return;
	memset(t->keys + t->num_ready, 0xFF, (num_slots - t->num_ready) * sizeof(*t->keys));
	memset(t->weights + t->num_ready, 0, (num_slots - t->num_ready) * sizeof(*t->weights));
	t->num_ready = num_slots;
}

/*
 * table_insert() adds a key whose home slot holds another one: behind all smaller keys, moving the larger
 * ones of its run on by one.  Returns false if that takes more than max_steps or the slots before 'end'.
 */
static bool
table_insert(struct hash_table *t, size_t slot, size_t end, size_t max_steps, uint32_t key, int32_t weight)
{
	size_t begin = slot, limit = max_steps < end - slot ? slot + max_steps : end;

	while (slot < limit && t->keys[slot] < key)
		slot++;
	for (bool done = false; slot < limit && !done; slot++) {
		uint32_t held_key = t->keys[slot];
		int32_t held_weight = t->weights[slot];
		done = held_key == key || held_key == EMPTY;
		t->keys[slot] = key;
		t->weights[slot] = done ? held_weight + weight : weight;
		key = held_key;
		weight = held_weight;
		if (done) {
			t->num_steps += slot - begin;
			return true;
		}
	}
	t->num_steps += slot - begin;
	return false;
}

/* table_fill() adds all hashes of a row; or returns false, with part of them added, if that takes too many steps. */
static inline bool
table_fill(struct hash_table *t, size_t end, unsigned shift, struct index_rule rule, const uint32_t *hashes,
	   size_t num_hashes)
{
	size_t max_steps = t->num_steps + HASH_STEPS_PER_KEY * num_hashes;

	for (size_t i = 0; i < num_hashes; i++) {
		uint32_t key = index_of(rule, hashes[i]);
		int32_t weight = weight_of(rule, hashes[i]);
		size_t slot = key >> shift;
		uint32_t held = t->keys[slot];
		if (__builtin_expect((held == key) | (held == EMPTY), 1)) {
			t->keys[slot] = key;
			t->weights[slot] += weight;
		} else if (!table_insert(t, slot, end, max_steps - t->num_steps, key, weight)) {
			return false;
		}
	}
	return true;
}

/*
 * read_portable() writes out what the slots before 'end' hold, leaves them empty, and returns the number of
 * indices.  Every slot is written where the next index goes, and an empty one does not move that place on:
 * which slots are empty is anyone's guess, so a branch would be wrong a third of the time.
 */
static size_t
read_portable(struct hash_table *t, size_t end, struct hash_row row)
{
	size_t num = 0;

	for (size_t slot = 0; slot < end; slot++) {
		row.indices[num] = t->keys[slot];
		if (row.counts != NULL)
			row.counts[num] = t->weights[slot];
		if (row.sums != NULL)
			row.sums[num] = (float)t->weights[slot];
		num += t->keys[slot] != EMPTY;
	}
	memset(t->keys, 0xFF, end * sizeof(*t->keys));
	memset(t->weights, 0, end * sizeof(*t->weights));
	return num;
}

#if HASH_X86_64
#include <immintrin.h>

uint8_t hash_packed_lanes[256][8];

/* Filled before main() or dlopen() returns, so readers need no lock. */
__attribute__((constructor)) static void
fill_packed_lanes(void)
{
	for (unsigned set = 0; set < 256; set++)
		for (unsigned lane = 0, num = 0; lane < 8; lane++)
			if (set >> lane & 1)
				hash_packed_lanes[set][num++] = (uint8_t)lane;
}

/* The same, eight slots at a time; 'end' is a multiple of 8. */
__attribute__((target("avx2,popcnt"))) static size_t
read_avx2(struct hash_table *t, size_t end, struct hash_row row)
{
	const __m256i empty = _mm256_set1_epi32(-1), zero = _mm256_setzero_si256();
	size_t num = 0;

	for (size_t slot = 0; slot < end; slot += 8) {
		__m256i *keys = (__m256i *)(t->keys + slot), *weights = (__m256i *)(t->weights + slot);
		__m256i key = _mm256_loadu_si256(keys), weight = _mm256_loadu_si256(weights);
		unsigned full = ~(unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(key, empty))) & 0xFF;
		__m256i lanes = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)hash_packed_lanes[full]));
		_mm256_storeu_si256((__m256i *)(row.indices + num), _mm256_permutevar8x32_epi32(key, lanes));
		weight = _mm256_permutevar8x32_epi32(weight, lanes);
		if (row.counts != NULL)
			_mm256_storeu_si256((__m256i *)(row.counts + num), weight);
		if (row.sums != NULL)
			_mm256_storeu_ps(row.sums + num, _mm256_cvtepi32_ps(weight));
		num += (unsigned)__builtin_popcount(full);
		_mm256_storeu_si256(keys, empty);
		_mm256_storeu_si256(weights, zero);
	}
	return num;
}
#endif

static size_t
table_read(struct hash_table *t, size_t end, struct hash_row row)
{
#if HASH_X86_64
	if (__builtin_cpu_supports("avx2"))
		return read_avx2(t, end, row);
#endif
	return read_portable(t, end, row);
}

static void
sort_small(uint32_t *keys, size_t num_keys)
{
	for (size_t i = 1; i < num_keys; i++) {
		uint32_t key = keys[i];
		size_t j = i;
		for (; j > 0 && keys[j - 1] > key; j--)
			keys[j] = keys[j - 1];
		keys[j] = key;
	}
}

/* sort_keys() sorts by radix, least significant digit first; returns the array, of the two, that holds the result. */
static uint32_t *
sort_keys(uint32_t *keys, uint32_t *spare, size_t num_keys, unsigned key_bits)
{
	enum { DIGIT_BITS = 11, NUM_DIGITS = 1 << DIGIT_BITS };
	uint32_t ends[NUM_DIGITS];

	if (num_keys <= SMALL) {
		sort_small(keys, num_keys);
		return keys;
	}
	for (unsigned shift = 0; shift < key_bits; shift += DIGIT_BITS) {
		uint32_t sum = 0;
		memset(ends, 0, sizeof(ends));
		for (size_t i = 0; i < num_keys; i++)
			ends[keys[i] >> shift & (NUM_DIGITS - 1)]++;
		for (size_t digit = 0; digit < NUM_DIGITS; digit++) {
			uint32_t count = ends[digit];
			ends[digit] = sum;
			sum += count;
		}
		for (size_t i = 0; i < num_keys; i++)
			spare[ends[keys[i] >> shift & (NUM_DIGITS - 1)]++] = keys[i];
		uint32_t *swap = keys;
		keys = spare;
		spare = swap;
	}
	return keys;
}

/* The other way: keys of index and sign bit, sorted; equal neighbours become one index. */
static size_t
reduce_by_sorting(struct hash_scratch *s, struct index_rule rule, size_t num_hashes, struct hash_row row)
{
	size_t num = 0;
	int32_t weight = 0;

	for (size_t i = 0; i < num_hashes; i++)
		s->hashes[i] = index_of(rule, s->hashes[i]) << 1 | (weight_of(rule, s->hashes[i]) < 0);
	const uint32_t *keys = sort_keys(s->hashes, s->hashes_spare, num_hashes, bit_length(rule.dim - 1) + 1);
	for (size_t i = 0; i < num_hashes; i++) {
		bool last = i + 1 == num_hashes || keys[i] >> 1 != keys[i + 1] >> 1;
		weight += 1 - 2 * (int32_t)(keys[i] & 1);
		row.indices[num] = keys[i] >> 1;
		if (row.counts != NULL)
			row.counts[num] = weight;
		if (row.sums != NULL)
			row.sums[num] = (float)weight;
		num += last;
		weight = last ? 0 : weight;
	}
	return num;
}

size_t
hash_reduce(struct hash_scratch *s, size_t num_hashes, uint32_t dim, struct hash_row row)
{
	struct index_rule rule = { dim, (dim & (dim - 1)) == 0, row.sums != NULL };
	unsigned key_bits = bit_length(dim - 1), slot_bits = bit_length((uint32_t)(2 * num_hashes - 1));
	bool fits;

	if (num_hashes == 0)
		return 0;
	if (num_hashes <= SMALL || num_hashes > HASH_TABLE_MAX_KEYS)
		return reduce_by_sorting(s, rule, num_hashes, row);
	slot_bits = slot_bits < key_bits ? slot_bits : key_bits;
	/* A run grows by one slot a key at most; 8 slots are read at a time. */
	size_t slack = num_hashes < HASH_TABLE_SLACK ? num_hashes : HASH_TABLE_SLACK;
	size_t end = (((size_t)1 << slot_bits) + slack + 7) / 8 * 8;
	table_clear(&s->table, end);
	if (rule.is_power)
		fits = table_fill(&s->table, end, key_bits - slot_bits, (struct index_rule){ dim, true, rule.is_signed },
				  s->hashes, num_hashes);
	else
		fits = table_fill(&s->table, end, key_bits - slot_bits, (struct index_rule){ dim, false, rule.is_signed },
				  s->hashes, num_hashes);
	if (fits)
		return table_read(&s->table, end, row);
	s->table.num_ready = 0;
	return reduce_by_sorting(s, rule, num_hashes, row);
}

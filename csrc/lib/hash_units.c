/*
 * Marked text to units: words or characters, packed end to end.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "hash_internal.h"
#include "unicode_words.h"

/* The marks are turned into edges (where a run begins or ends) this many 64-bit groups at a time. */
#define GROUPS 16

/*
 * find_edges() writes the positions in [64 * begin_group, 64 * end_group) where marks change, the bit before
 * the first being *carry, and returns their number; a begin and an end in turn.
 */
static size_t
find_edges_portable(const uint64_t *marks, size_t begin_group, size_t end_group, uint64_t *carry, uint32_t *edges)
{
	size_t num_edges = 0;

	for (size_t group = begin_group; group < end_group; group++) {
		uint64_t bits = marks[group] ^ (marks[group] << 1 | *carry);
		*carry = marks[group] >> 63;
		for (; bits != 0; bits &= bits - 1)
			edges[num_edges++] = (uint32_t)(64 * group) + (uint32_t)__builtin_ctzll(bits);
	}
	return num_edges;
}

#if HASH_X86_64
#include <immintrin.h>

/* The same, eight bits at a time and without a branch that depends on them, or four edges; writes up to 8 more. */
__attribute__((target("avx2,bmi,popcnt"))) static size_t
find_edges_avx2(const uint64_t *marks, size_t begin_group, size_t end_group, uint64_t *carry, uint32_t *edges)
{
	size_t num_edges = 0;

	for (size_t group = begin_group; group < end_group; group++) {
		uint64_t bits = marks[group] ^ (marks[group] << 1 | *carry);
		__m256i base = _mm256_set1_epi32((int)(64 * group));
		*carry = marks[group] >> 63;
		unsigned num = (unsigned)__builtin_popcountll(bits);
		if (num <= 4) {	/* words of some twenty bytes or more, in languages without blanks */
			for (unsigned i = 0; i < 4; i++, bits &= bits - 1)
				edges[num_edges + i] = (uint32_t)(64 * group) + (uint32_t)_tzcnt_u64(bits);
			num_edges += num;
			continue;
		}
		for (unsigned i = 0; i < 8; i++, bits >>= 8) {
			unsigned set = bits & 0xFF;
			__m256i lanes = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)hash_packed_lanes[set]));
			_mm256_storeu_si256((__m256i *)(edges + num_edges), _mm256_add_epi32(lanes, base));
			num_edges += (unsigned)__builtin_popcount(set);
			base = _mm256_add_epi32(base, _mm256_set1_epi32(8));
		}
	}
	return num_edges;
}
#endif

static size_t
find_edges(const uint64_t *marks, size_t begin_group, size_t end_group, uint64_t *carry, uint32_t *edges)
{
#if HASH_X86_64
	if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi"))
		return find_edges_avx2(marks, begin_group, end_group, carry, edges);
#endif
	return find_edges_portable(marks, begin_group, end_group, carry, edges);
}

/* What words are packed into. */
struct packer {
	const uint8_t *lower;
	uint8_t *packed;
	uint32_t *begins, *ends;
	size_t num_units;
	uint32_t position;
};

/*
 * Packs lower[begin .. end) followed by a space, if it is longer than its first character.  Copies 16 bytes
 * at a time, beyond the end: both buffers are padded.  Without a place to pack to, only notes where the word is.
 */
static inline void
pack_word(struct packer *p, uint32_t begin, uint32_t end)
{
	const uint8_t *from = p->lower + begin;
	uint32_t nbytes = end - begin;
	uint32_t keep = nbytes > utf8_nbytes(*from);

	if (p->packed == NULL) {
		p->begins[p->num_units] = begin;
		p->ends[p->num_units] = end;
		p->num_units += keep;
		return;
	}
	uint8_t *to = p->packed + p->position;
	memcpy(to, from, 16);
	for (uint32_t i = 16; i < nbytes; i += 16)
		memcpy(to + i, from + i, 16);
	to[nbytes] = ' ';
	p->begins[p->num_units] = p->position;
	p->ends[p->num_units] = p->position + nbytes;
	p->num_units += keep;
	p->position += keep ? nbytes + 1 : 0;
}

size_t
hash_words(struct hash_scratch *s, size_t lower_nbytes, bool packs)
{
	struct packer p = {
		.lower = s->lower, .packed = packs ? s->packed : NULL, .begins = s->begins, .ends = s->ends,
	};
	size_t num_groups = (lower_nbytes + 63) / 64;
	uint32_t edges[64 * GROUPS + 8], open = 0;
	uint64_t carry = 0;

	for (size_t group = 0; group < num_groups; group += GROUPS) {
		size_t end = group + GROUPS < num_groups ? group + GROUPS : num_groups, first = 0;
		bool is_open = carry != 0;
		size_t num_edges = find_edges(s->marks, group, end, &carry, edges);
		if (end == num_groups && carry)
			edges[num_edges++] = (uint32_t)(64 * end);
		if (is_open && num_edges > 0) {
			pack_word(&p, open, edges[0]);
			first = 1;
		}
		for (; first + 1 < num_edges; first += 2)
			pack_word(&p, edges[first], edges[first + 1]);
		if (first < num_edges)
			open = edges[first];
	}
	return p.num_units;
}

static inline void
pack_char(struct packer *p, const uint8_t *from, uint32_t nbytes)
{
	memcpy(p->packed + p->position, from, 4);
	p->begins[p->num_units] = p->position;
	p->ends[p->num_units++] = p->position + nbytes;
	p->position += nbytes;
}

size_t
hash_chars(struct hash_scratch *s, size_t lower_nbytes, bool words)
{
	static const uint8_t space[4] = " ";
	struct packer p = { .lower = s->lower, .packed = s->packed, .begins = s->begins, .ends = s->ends };
	size_t i = 0, blanks_begin = 0, num_blanks = words;

	for (; i <= lower_nbytes; i += utf8_nbytes(s->lower[i])) {
		bool at_end = i == lower_nbytes;
		if (!at_end && s->marks[i / 64] >> (i % 64) & 1) {
			if (num_blanks++ == 0)
				blanks_begin = i;
			continue;
		}
		if (words ? num_blanks > 0 && !(at_end && p.num_units == 0) : num_blanks > 1)
			pack_char(&p, space, 1);
		else if (!words && num_blanks == 1)
			pack_char(&p, s->lower + blanks_begin, (uint32_t)utf8_nbytes(s->lower[blanks_begin]));
		num_blanks = 0;
		if (at_end)
			break;
		pack_char(&p, s->lower + i, (uint32_t)utf8_nbytes(s->lower[i]));
	}
	if (words && p.num_units > 0 && s->packed[p.position - 1] != ' ')
		pack_char(&p, space, 1);
	return p.num_units;
}

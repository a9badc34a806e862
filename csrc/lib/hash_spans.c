/*
 * Marked text to words or characters, and those to hashed n-grams.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "hash_internal.h"
#include "murmur3.h"
#include "unicode_words.h"

/* The marks are turned into edges (where a run begins or ends) this many 64-bit groups at a time. */
#define GROUPS 16

/*
 * find_edges() writes the positions in [64 * begin_group, 64 * end_group) where marks change, the bit before
 * the first being *carry, and returns their number; a begin and an end in turn.
 */
static size_t
find_edges(const uint64_t *marks, size_t begin_group, size_t end_group, uint64_t *carry, uint32_t *edges)
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

/* What words are packed into. */
struct packer {
	const uint8_t *lower;
	uint8_t *packed;
	struct hash_span *spans;
	size_t num_spans;
	uint32_t position;
};

/*
 * Packs lower[begin .. end) followed by a space, if it is longer than its first character.  Copies 16 bytes
 * at a time, beyond the end: both buffers are padded.
 */
static inline void
pack_word(struct packer *p, uint32_t begin, uint32_t end)
{
	const uint8_t *from = p->lower + begin;
	uint8_t *to = p->packed + p->position;
	uint32_t nbytes = end - begin;
	uint32_t keep = nbytes > utf8_nbytes(*from);

	memcpy(to, from, 16);
	for (uint32_t i = 16; i < nbytes; i += 16)
		memcpy(to + i, from + i, 16);
	to[nbytes] = ' ';
	p->spans[p->num_spans] = (struct hash_span){ p->position, p->position + nbytes };
	p->num_spans += keep;
	p->position += keep ? nbytes + 1 : 0;
}

size_t
hash_words(struct hash_scratch *s, size_t lower_nbytes)
{
	struct packer p = { .lower = s->lower, .packed = s->packed, .spans = s->spans };
	size_t num_groups = (lower_nbytes + 63) / 64;
	uint32_t edges[64 * GROUPS + 1], open = 0;
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
	return p.num_spans;
}

static inline void
pack_char(struct packer *p, const uint8_t *from, uint32_t nbytes)
{
	memcpy(p->packed + p->position, from, 4);
	p->spans[p->num_spans++] = (struct hash_span){ p->position, p->position + nbytes };
	p->position += nbytes;
}

size_t
hash_chars(struct hash_scratch *s, size_t lower_nbytes, bool words)
{
	static const uint8_t space[4] = " ";
	struct packer p = { .lower = s->lower, .packed = s->packed, .spans = s->spans };
	size_t i = 0, blanks_begin = 0, num_blanks = words;

	for (; i <= lower_nbytes; i += utf8_nbytes(s->lower[i])) {
		bool at_end = i == lower_nbytes;
		if (!at_end && s->marks[i / 64] >> (i % 64) & 1) {
			if (num_blanks++ == 0)
				blanks_begin = i;
			continue;
		}
		if (words ? num_blanks > 0 && !(at_end && p.num_spans == 0) : num_blanks > 1)
			pack_char(&p, space, 1);
		else if (!words && num_blanks == 1)
			pack_char(&p, s->lower + blanks_begin, (uint32_t)utf8_nbytes(s->lower[blanks_begin]));
		num_blanks = 0;
		if (at_end)
			break;
		pack_char(&p, s->lower + i, (uint32_t)utf8_nbytes(s->lower[i]));
	}
	if (words && p.num_spans > 0 && s->packed[p.position - 1] != ' ')
		pack_char(&p, space, 1);
	return p.num_spans;
}

uint64_t
hash_spans_count(uint64_t num_spans, uint32_t min_n, uint32_t max_n)
{
	uint64_t last_n = max_n < num_spans ? max_n : num_spans;

	if (last_n < min_n)
		return 0;
	return (last_n - min_n + 1) * (2 * num_spans - min_n - last_n + 2) / 2;
}

static inline uint32_t
key_of(uint32_t hash, uint32_t dim, bool sign)
{
	uint32_t negative = hash >> 31, magnitude = negative ? 0u - hash : hash;
	uint32_t index = (dim & (dim - 1)) == 0 ? magnitude & (dim - 1) : magnitude % dim;

	return sign ? index << 1 | negative : index;
}

/*
 * The n-grams that begin with one unit are prefixes of each other: the blocks of a shorter one are
 * hashed once for all of them.
 */
static inline uint32_t *
hash_prefixes(const uint8_t *packed, const struct hash_span *spans, uint32_t min_n, uint32_t max_n, uint32_t dim,
	      bool sign, uint32_t *keys)
{
	const uint8_t *begin = packed + spans[0].begin;
	uint32_t h = 0, done = 0;

	for (uint32_t n = min_n; n <= max_n; n++) {
		uint32_t nbytes = spans[n - 1].end - spans[0].begin;
		for (; done + 4 <= nbytes; done += 4)
			h = murmur3_block(h, murmur3_load(begin + done));
		uint32_t tail = murmur3_load(begin + done) & ((1u << 8 * (nbytes & 3)) - 1);
		*keys++ = key_of(murmur3_finish(h, tail, nbytes), dim, sign);
	}
	return keys;
}

size_t
hash_spans(const uint8_t *packed, const struct hash_span *spans, size_t num_spans, uint32_t min_n, uint32_t max_n,
	   uint32_t dim, bool sign, uint32_t *keys)
{
	uint32_t *end = keys;

	for (size_t i = 0; i + min_n <= num_spans; i++) {
		size_t last_n = max_n < num_spans - i ? max_n : num_spans - i;
		end = hash_prefixes(packed, spans + i, min_n, (uint32_t)last_n, dim, sign, end);
	}
	return (size_t)(end - keys);
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

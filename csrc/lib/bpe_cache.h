/*
 * bpe_cache.h - the ids of pieces met before.  Private.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Buckets of two entries in one cache line.  A piece met for the first time takes its
 * bucket's first entry, that one moves to the second place, and what was there is lost:
 * so what a text repeats stays, and the size never changes.  Tokens are there from the
 * beginning, since a third of the new words are one.  Only pieces of at most
 * CACHE_MAX_NBYTES and CACHE_MAX_IDS are kept here; in English and code 98% are such.
 * bpe_ring.h has others.
 */
#ifndef BPE_CACHE_H
#define BPE_CACHE_H

#include <string.h>

#include "bpe.h"

#define CACHE_MAX_NBYTES 15
#define CACHE_MAX_IDS 4
#define CACHE_COUNT_SHIFT 29	/* an id takes 21 bits: the last one's upper bits say how many there are */
#define CACHE_ID_MASK ((1u << CACHE_COUNT_SHIFT) - 1)
#define CACHE_IN_RING 7		/* in place of a count: the ids stand in the ring, at the place in the first two */
#ifndef CACHE_LOG2_BUCKETS	/* builds for fuzzing make it small: quick to begin, and full at once */
#define CACHE_LOG2_BUCKETS 17
#endif
#define CACHE_NUM_BUCKETS ((size_t)1 << CACHE_LOG2_BUCKETS)

struct cache_key {
	uint64_t low, high;	/* the piece's bytes, its number of bytes in the last one; all 0 in empty entries */
};

typedef uint32_t cache_ids_vector __attribute__((vector_size(4 * CACHE_MAX_IDS)));

struct cache_entry {
	struct cache_key key;
	cache_ids_vector ids;
};

struct cache_bucket {
	struct cache_entry entries[2];
};

_Static_assert(sizeof(struct cache_bucket) == 64, "a bucket is one cache line");
_Static_assert(CACHE_MAX_NBYTES == SHORT_MAX_NBYTES, "a new piece that can be kept is merged with others");
_Static_assert(SS_BPE_IDS_SLACK >= CACHE_MAX_IDS, "an entry's ids are stored as one vector");

/* cache_key() returns the key of a piece of 1 to CACHE_MAX_NBYTES; 'avail' bytes may be read. */
static inline struct cache_key
cache_key(const uint8_t *piece, size_t nbytes, size_t avail)
{
#define ONES(n) ((n) <= 0 ? 0 : (n) >= 8 ? ~(uint64_t)0 : ((uint64_t)1 << 8 * ((n) & 7)) - 1)
#define MASKS(n) { ONES(n), ONES((n) - 8) }
	static const uint64_t masks[CACHE_MAX_NBYTES + 1][2] = {
		MASKS(0), MASKS(1), MASKS(2), MASKS(3), MASKS(4), MASKS(5), MASKS(6), MASKS(7), MASKS(8), MASKS(9),
		MASKS(10), MASKS(11), MASKS(12), MASKS(13), MASKS(14), MASKS(15),
	};
	uint8_t copy[16] = { 0 };
	struct cache_key key;

	if (avail < sizeof(copy)) {
		memcpy(copy, piece, nbytes);
		piece = copy;
	}
	memcpy(&key, piece, sizeof(key));
	key.low &= masks[nbytes][0];
	key.high &= masks[nbytes][1];
	key.high |= (uint64_t)nbytes << 56;
	return key;
#undef MASKS
#undef ONES
}

/* cache_key_is_ascii() tells whether all characters of the piece are ASCII. */
static inline bool
cache_key_is_ascii(struct cache_key key)
{
	return ((key.low | key.high) & 0x8080808080808080u) == 0;
}

static inline size_t
cache_slot(struct cache_key key)
{
	uint64_t hash = (key.low ^ (key.high << 27 | key.high >> 37)) * 0x9E3779B97F4A7C15u;

	return hash / (UINT64_MAX / CACHE_NUM_BUCKETS + 1);
}

static inline bool
cache_has(const struct cache_entry *entry, struct cache_key key)
{
	return ((entry->key.low ^ key.low) | (entry->key.high ^ key.high)) == 0;
}

/* cache_ids() writes the ids of an entry to ids[0 .. CACHE_MAX_IDS) and returns how many count. */
static inline size_t
cache_ids(const struct cache_entry *entry, uint32_t *ids)
{
	cache_ids_vector without_count = entry->ids & CACHE_ID_MASK;

	memcpy(ids, &without_count, sizeof(without_count));
	return entry->ids[CACHE_MAX_IDS - 1] >> CACHE_COUNT_SHIFT;
}

/* cache_insert() keeps the 1 to CACHE_MAX_IDS ids of a piece that its bucket does not have. */
static inline void
cache_insert(struct cache_bucket *bucket, struct cache_key key, const uint32_t *ids, size_t num_ids)
{
	struct cache_entry entry = { .key = key };

	memcpy(&entry.ids, ids, num_ids * sizeof(*ids));
	entry.ids[CACHE_MAX_IDS - 1] |= (uint32_t)num_ids << CACHE_COUNT_SHIFT;
	bucket->entries[1] = bucket->entries[0];
	bucket->entries[0] = entry;
}

/* cache_promote() makes a bucket's second entry its first. */
static inline void
cache_promote(struct cache_bucket *bucket)
{
	struct cache_entry entry = bucket->entries[1];

	bucket->entries[1] = bucket->entries[0];
	bucket->entries[0] = entry;
}

#endif

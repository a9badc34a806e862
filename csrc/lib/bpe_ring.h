/*
 * bpe_ring.h - the ids of pieces met before that bpe_cache.h has no place for.  Private.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Words of other scripts are often more tokens than an entry there holds, and where
 * nobody writes blanks a piece is a sentence.  Such pieces, of up to RING_MAX_NBYTES, stand
 * one after another in a ring of 32-bit words: sizes, ids, bytes.  What is new overwrites
 * the oldest.  Places are numbers that only grow, so one whose entry has been overwritten
 * is known by its age.  The place of a piece that fits a bucket's key stands in its bucket,
 * those of longer ones in an index by hash, in sets of four slots.
 */
#ifndef BPE_RING_H
#define BPE_RING_H

#include <string.h>

#include "bpe_cache.h"

#define RING_MAX_NBYTES 255
#define RING_NUM_WORDS (CACHE_NUM_BUCKETS * 16)
#define RING_NUM_SETS (CACHE_NUM_BUCKETS / 8)
#define RING_WAYS 4
#define RING_TAG_BITS 16
#define RING_MAX_ENTRY_WORDS (1 + RING_MAX_NBYTES + (RING_MAX_NBYTES + 3) / 4)

struct ring {
	uint32_t *words;		/* with SS_BPE_IDS_SLACK more, for loads of whole vectors */
	uint64_t (*sets)[RING_WAYS];	/* place << RING_TAG_BITS | tag */
	uint64_t head;			/* the place of the next entry: words[place % RING_NUM_WORDS] */
};

_Static_assert(CACHE_LOG2_BUCKETS < 17 ||
		       SS_BPE_CACHE_NBYTES == CACHE_NUM_BUCKETS * sizeof(struct cache_bucket) +
						      RING_NUM_WORDS * sizeof(uint32_t) +
						      RING_NUM_SETS * RING_WAYS * sizeof(uint64_t),
	       "ss_bpe.h says how large the caches are");
_Static_assert(RING_NUM_WORDS > 8 * RING_MAX_ENTRY_WORDS, "the ring holds several of the largest entries");

/* ring_hash() returns a hash of a piece of 8 bytes or more. */
static inline uint64_t
ring_hash(const uint8_t *piece, size_t nbytes)
{
	uint64_t hash = nbytes, word;

	for (size_t i = 0; i + 8 < nbytes; i += 8) {
		memcpy(&word, piece + i, sizeof(word));
		hash = (hash ^ word) * 0x9E3779B97F4A7C15u;
		hash ^= hash >> 32;
	}
	memcpy(&word, piece + nbytes - sizeof(word), sizeof(word));
	hash = (hash ^ word) * 0x9E3779B97F4A7C15u;
	return hash ^ hash >> 32;
}

static inline uint64_t *
ring_set(const struct ring *ring, uint64_t hash)
{
	return ring->sets[hash / (UINT64_MAX / RING_NUM_SETS + 1)];
}

static inline bool
ring_has(const struct ring *ring, uint64_t place)
{
	return ring->head - place <= RING_NUM_WORDS;
}

static inline uint64_t
ring_tag(uint64_t hash)
{
	return hash & ((1u << RING_TAG_BITS) - 1);
}

/* ring_prefetch() has memory fetch the entry that ring_find() will look at first. */
static inline void
ring_prefetch(const struct ring *ring, uint64_t hash)
{
	const uint64_t *set = ring_set(ring, hash);

	for (int i = 0; i < RING_WAYS; i++) {
		if ((set[i] ^ hash) << (64 - RING_TAG_BITS) == 0) {
			const uint32_t *entry = &ring->words[(set[i] >> RING_TAG_BITS) % RING_NUM_WORDS];
			__builtin_prefetch(entry);
			__builtin_prefetch(entry + 16);
		}
	}
}

static inline void
ring_copy_ids(const uint32_t *entry, uint32_t *ids)
{
	for (size_t num = entry[0] >> 16, k = 0; k < num; k += SS_BPE_IDS_SLACK)
		memcpy(ids + k, entry + 1 + k, SS_BPE_IDS_SLACK * sizeof(*ids));
}

/*
 * ring_find() writes the ids of a piece to ids[], which has room for SS_BPE_IDS_SLACK more
 * than the piece has bytes, and returns how many, or 0 if it is not there.
 */
static inline size_t
ring_find(const struct ring *ring, uint64_t hash, const uint8_t *piece, size_t nbytes, uint32_t *ids)
{
	const uint64_t *set = ring_set(ring, hash);

	for (int i = 0; i < RING_WAYS; i++) {
		if ((set[i] ^ hash) << (64 - RING_TAG_BITS) != 0 || !ring_has(ring, set[i] >> RING_TAG_BITS))
			continue;
		const uint32_t *entry = &ring->words[(set[i] >> RING_TAG_BITS) % RING_NUM_WORDS];
		size_t num = entry[0] >> 16;
		if ((entry[0] & 0xFFFF) != nbytes || memcmp(entry + 1 + num, piece, nbytes) != 0)
			continue;
		ring_copy_ids(entry, ids);
		return num;
	}
	return 0;
}

/* ring_append() keeps the ids of a piece, and nbytes of it, and returns their place. */
static inline uint64_t
ring_append(struct ring *ring, const uint8_t *piece, size_t nbytes, const uint32_t *ids, size_t num_ids)
{
	size_t num_words = 1 + num_ids + (nbytes + 3) / 4, at = ring->head % RING_NUM_WORDS;

	if (at + num_words > RING_NUM_WORDS) {	/* no entry goes over the end */
		ring->head += RING_NUM_WORDS - at;
		at = 0;
	}
	uint32_t *entry = &ring->words[at];
	entry[0] = (uint32_t)(num_ids << 16 | nbytes);
	memcpy(entry + 1, ids, num_ids * sizeof(*ids));
	if (nbytes > 0)
		memcpy(entry + 1 + num_ids, piece, nbytes);
	ring->head += num_words;
	return ring->head - num_words;
}

/* ring_insert() keeps a piece of up to RING_MAX_NBYTES that the ring does not have, to be found by its hash. */
static inline void
ring_insert(struct ring *ring, uint64_t hash, const uint8_t *piece, size_t nbytes, const uint32_t *ids, size_t num_ids)
{
	uint64_t *set = ring_set(ring, hash), *oldest = set;

	for (int i = 1; i < RING_WAYS; i++)
		if (set[i] < *oldest)
			oldest = &set[i];
	*oldest = ring_append(ring, piece, nbytes, ids, num_ids) << RING_TAG_BITS | ring_tag(hash);
}

/* ring_entry_insert() puts the ids of a piece with too many for a bucket into the ring, and their place into the bucket. */
static inline void
ring_entry_insert(struct ring *ring, struct cache_bucket *bucket, struct cache_key key, const uint32_t *ids,
		  size_t num_ids)
{
	uint64_t place = ring_append(ring, NULL, 0, ids, num_ids);

	cache_insert(bucket, key, (uint32_t[]){ (uint32_t)place, (uint32_t)(place >> 32) }, 2);
	bucket->entries[0].ids[CACHE_MAX_IDS - 1] = (uint32_t)CACHE_IN_RING << CACHE_COUNT_SHIFT;
}

/* ring_entry_ids() writes the ids whose place an entry has, and returns how many; or 0 and empties it: they are overwritten. */
static inline size_t
ring_entry_ids(const struct ring *ring, struct cache_entry *entry, uint32_t *ids)
{
	uint64_t place = entry->ids[0] | (uint64_t)entry->ids[1] << 32;

	if (!ring_has(ring, place)) {
		entry->key = (struct cache_key){ 0, 0 };
		return 0;
	}
	ring_copy_ids(&ring->words[place % RING_NUM_WORDS], ids);
	return ring->words[place % RING_NUM_WORDS] >> 16;
}

#endif

/*
 * Batches of texts to ids and back: split, look up, merge what is not known yet.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "bpe_news.h"
#include "bpe_ring.h"

/* Pieces that are looked up together: enough to hide the cache's latency, few enough for the first-level cache. */
#define BLOCK_PIECES 256

struct ss_bpe_scratch {
	const ss_bpe *bpe;
	pretok_fill_fn *fill;
	struct cache_bucket *cache;
	struct ring ring;
	struct merge_memory memory;
	struct news *news;		/* receives pieces that the caches did not have, or NULL */
};

#define LEARNED_TOGETHER 32	/* pieces that others tell of */
#define SEEDS_TOGETHER 32	/* buckets fetched ahead */

/* A long piece's memory is not kept after the call. */
#define MAX_KEPT_NBYTES (1u << 20)

/*
 * Whether a cache begins with a token.  A made one with the bytes of a late one is left out: merging
 * may make that one of them and never get to the token.
 */
static bool
is_known(const ss_bpe *bpe, uint32_t token, const uint8_t *bytes, size_t nbytes)
{
	if (nbytes > CACHE_MAX_NBYTES)
		return false;
	return bpe->whole_piece ||
	       ((nbytes == 1 || bpe->tokens[token].left != token) && !has_late_token(bpe, bytes, nbytes));
}

/* A cache begins with the pieces that are one token, those of lower rank at hand. */
static void
seed_cache(const ss_bpe *bpe, struct cache_bucket *cache)
{
	struct { struct cache_key key; uint32_t id; } seeds[SEEDS_TOGETHER];

	for (uint32_t token = bpe->num_tokens; token > 0;) {
		size_t num = 0;
		while (num < SEEDS_TOGETHER && token > 0) {
			uint32_t id = bpe->external[--token], nbytes = bpe->tokens[token].nbytes;
			const uint8_t *bytes = bpe->bytes + bpe->offsets[id];
			if (!is_known(bpe, token, bytes, nbytes))
				continue;
			seeds[num].key = cache_key(bytes, nbytes, nbytes);
			seeds[num].id = id;
			__builtin_prefetch(&cache[cache_slot(seeds[num++].key)], 1);
		}
		for (size_t i = 0; i < num; i++)
			cache_insert(&cache[cache_slot(seeds[i].key)], seeds[i].key, &seeds[i].id, 1);
	}
}

ss_bpe_scratch *
ss_bpe_scratch_new(const ss_bpe *bpe)
{
	ss_bpe_scratch *scratch = calloc(1, sizeof(*scratch));

	if (scratch == NULL)
		return NULL;
	scratch->bpe = bpe;
	scratch->fill = pretok_best_fill();
	scratch->cache = table_alloc(CACHE_NUM_BUCKETS * sizeof(*scratch->cache));
	scratch->ring.words = table_reserve((RING_NUM_WORDS + SS_BPE_IDS_SLACK) * sizeof(*scratch->ring.words));
	scratch->ring.sets = table_alloc(RING_NUM_SETS * sizeof(*scratch->ring.sets));
	scratch->ring.head = 2 * RING_NUM_WORDS;	/* empty slots are too old */
	if (scratch->cache == NULL || scratch->ring.words == NULL || scratch->ring.sets == NULL) {
		ss_bpe_scratch_free(scratch);
		return NULL;
	}
	seed_cache(bpe, scratch->cache);
	return scratch;
}

void
ss_bpe_scratch_free(ss_bpe_scratch *scratch)
{
	if (scratch == NULL)
		return;
	free(scratch->memory.data);
	free(scratch->ring.words);
	free(scratch->ring.sets);
	free(scratch->cache);
	free(scratch);
}

uint64_t
ss_bpe_scratch_steps(const ss_bpe_scratch *scratch)
{
	return scratch->memory.num_steps;
}

/* Writes the ids of one piece and returns how many, or 0 if there is no memory. */
static size_t
encode_piece(ss_bpe_scratch *scratch, const uint8_t *piece, size_t nbytes, uint32_t *ids)
{
	const ss_bpe *bpe = scratch->bpe;

	if (bpe->whole_piece) {
		const struct trie_node *node = trie_find(bpe, piece, nbytes);
		if (node != NULL && node->token != NO_TOKEN) {
			ids[0] = bpe->external[node->token & ~TRIE_FLAGS];
			return 1;
		}
	}
	size_t num = has_late_token(bpe, piece, nbytes)
			     ? merge_piece(bpe, &bpe->all, &scratch->memory, piece, nbytes, ids)
			     : backtrack_piece(bpe, &scratch->memory, piece, nbytes, ids);
	for (size_t i = 0; i < num && !bpe->same_numbers; i++)
		ids[i] = bpe->external[ids[i]];
	return num;
}

/* As encode_piece(), of a piece that is too long for buckets; 'hash' is its. */
static size_t
encode_long_piece(ss_bpe_scratch *scratch, uint64_t hash, const uint8_t *piece, size_t nbytes, uint32_t *ids)
{
	if (nbytes > RING_MAX_NBYTES)
		return encode_piece(scratch, piece, nbytes, ids);
	size_t num = ring_find(&scratch->ring, hash, piece, nbytes, ids);
	if (num == 0) {
		num = encode_piece(scratch, piece, nbytes, ids);
		if (num != 0) {
			ring_insert(&scratch->ring, hash, piece, nbytes, ids, num);
			if (scratch->news != NULL)
				news_add(scratch->news, piece, nbytes, ids, num);
		}
	}
	return num;
}

/* Where the caches may have a piece. */
struct lookup {
	union {
		struct cache_key key;
		uint64_t hash;			/* in the ring, of a piece that is too long for buckets */
	};
	struct cache_bucket *bucket;		/* NULL: too long */
};

static void
keep_ids(ss_bpe_scratch *scratch, const struct lookup *lookup, const uint32_t *ids, size_t num_ids)
{
	if (num_ids <= CACHE_MAX_IDS)
		cache_insert(lookup->bucket, lookup->key, ids, num_ids);
	else
		ring_entry_insert(&scratch->ring, lookup->bucket, lookup->key, ids, num_ids);
}

/* As keep_ids(), of a piece that this thread has found the ids of. */
static void
keep_found_ids(ss_bpe_scratch *scratch, const struct lookup *lookup, const uint8_t *piece, size_t nbytes,
	       const uint32_t *ids, size_t num_ids)
{
	keep_ids(scratch, lookup, ids, num_ids);
	if (scratch->news != NULL)
		news_add(scratch->news, piece, nbytes, ids, num_ids);
}

/* The ids of a block's pieces have a gap for each new short piece until they are filled together. */
struct block {
	struct lookup lookups[BLOCK_PIECES];
	struct short_piece gaps[BLOCK_PIECES];
	struct lookup *gap_lookups[BLOCK_PIECES];
	size_t num_gaps;
	uint8_t longs[BLOCK_PIECES];	/* the numbers of pieces that the ring may have */
};

_Static_assert(BLOCK_PIECES <= UINT8_MAX + 1, "a piece's number fits");

/* Has memory fetch the bucket of a piece, or its set in the ring; 'avail' bytes may be read. */
static inline void
look_up_soon(const ss_bpe_scratch *scratch, struct lookup *lookup, const uint8_t *piece, size_t nbytes, size_t avail)
{
	lookup->bucket = NULL;
	if (nbytes <= CACHE_MAX_NBYTES) {
		lookup->key = cache_key(piece, nbytes, avail);
		lookup->bucket = &scratch->cache[cache_slot(lookup->key)];
		__builtin_prefetch(lookup->bucket, 1);
	} else if (nbytes <= RING_MAX_NBYTES) {
		lookup->hash = ring_hash(piece, nbytes);
		__builtin_prefetch(ring_set(&scratch->ring, lookup->hash));
	}
}

static void
look_up_block_soon(ss_bpe_scratch *scratch, struct block *block, const uint8_t *text, size_t begin, const uint32_t *ends,
	     size_t num, size_t readable_nbytes)
{
	size_t num_longs = 0;

	for (size_t i = 0, at = begin; i < num; at = ends[i++]) {
		size_t nbytes = ends[i] - at;
		look_up_soon(scratch, &block->lookups[i], text + at, nbytes, readable_nbytes - at);
		if (nbytes > CACHE_MAX_NBYTES && nbytes <= RING_MAX_NBYTES)
			block->longs[num_longs++] = (uint8_t)i;
	}
	for (size_t i = 0; i < num_longs; i++)
		ring_prefetch(&scratch->ring, block->lookups[block->longs[i]].hash);
}

/*
 * Whether a new piece goes to merge_short_pieces(), which must be able to find its ids.  In other
 * scripts tokens are so short that backtracking, which rarely steps back there, is faster.
 */
static bool
is_for_merging(const ss_bpe *bpe, struct cache_key key, const uint8_t *piece, size_t nbytes)
{
	if (!cache_key_is_ascii(key))
		return false;
	if (bpe->whole_piece) {
		const struct trie_node *node = trie_find(bpe, piece, nbytes);
		if (node != NULL && node->token != NO_TOKEN)
			return false;
	}
	return !has_late_token(bpe, piece, nbytes);
}

/* Fills the gaps of ids[0 .. num_ids), moves the ids together, puts new ones in the cache, and returns how many are left. */
static size_t
fill_gaps(ss_bpe_scratch *scratch, struct block *block, uint32_t *ids, size_t num_ids)
{
	const ss_bpe *bpe = scratch->bpe;
	uint32_t *end = block->gaps[0].tokens, *begin = end, *last = ids + num_ids;

	merge_short_pieces(bpe, block->gaps, block->num_gaps, &scratch->memory.num_steps);
	for (size_t i = 0; i < block->num_gaps; i++) {
		const struct short_piece *gap = &block->gaps[i];
		const struct lookup *lookup = block->gap_lookups[i];
		size_t num = (size_t)(gap->tokens + gap->num_tokens - begin);

		for (size_t k = 0; k < gap->num_tokens && !bpe->same_numbers; k++)
			gap->tokens[k] = bpe->external[gap->tokens[k]];
		if (!cache_has(&lookup->bucket->entries[0], lookup->key))
			keep_found_ids(scratch, lookup, gap->bytes, gap->nbytes, gap->tokens, gap->num_tokens);
		memmove(end, begin, num * sizeof(*ids));
		end += num;
		begin = gap->tokens + gap->nbytes;
	}
	memmove(end, begin, (size_t)(last - begin) * sizeof(*ids));
	return (size_t)(end + (last - begin) - ids);
}

/*
 * Writes the ids of piece i of a block, which its bucket does not have, or leaves a gap for them; returns how many
 * places it takes, or 0 if there is no memory.
 */
static __attribute__((noinline)) size_t
encode_new_piece(ss_bpe_scratch *scratch, struct block *block, size_t i, const uint8_t *piece, size_t nbytes,
		 uint32_t *ids)
{
	struct lookup *lookup = &block->lookups[i];
	size_t num;

	if (lookup->bucket == NULL)
		return encode_long_piece(scratch, lookup->hash, piece, nbytes, ids);
	if (is_for_merging(scratch->bpe, lookup->key, piece, nbytes)) {
		block->gaps[block->num_gaps] = (struct short_piece){ piece, (uint32_t)nbytes, 0, ids };
		block->gap_lookups[block->num_gaps++] = lookup;
		return nbytes;
	}
	num = encode_piece(scratch, piece, nbytes, ids);
	if (num != 0)
		keep_found_ids(scratch, lookup, piece, nbytes, ids, num);
	return num;
}

/* Writes the ids of pieces that end at ends[0 .. num) and returns how many, or SIZE_MAX if there is no memory. */
static size_t
encode_block(ss_bpe_scratch *scratch, const uint8_t *text, size_t begin, const uint32_t *ends, size_t num,
	     size_t readable_nbytes, uint32_t *ids)
{
	struct block block;
	size_t num_ids = 0;

	block.num_gaps = 0;
	look_up_block_soon(scratch, &block, text, begin, ends, num, readable_nbytes);
	for (size_t i = 0, at = begin; i < num; at = ends[i++]) {
		struct cache_bucket *bucket = block.lookups[i].bucket;
		struct cache_key key = block.lookups[i].key;
		size_t new = 0;

		if (bucket != NULL && cache_has(&bucket->entries[0], key)) {
			new = cache_ids(&bucket->entries[0], ids + num_ids);
		} else if (bucket != NULL && cache_has(&bucket->entries[1], key)) {
			cache_promote(bucket);
			new = cache_ids(&bucket->entries[0], ids + num_ids);
		}
		if (new == CACHE_IN_RING)
			new = ring_entry_ids(&scratch->ring, &bucket->entries[0], ids + num_ids);
		if (new == 0)
			new = encode_new_piece(scratch, &block, i, text + at, ends[i] - at, ids + num_ids);
		if (new == 0)
			return SIZE_MAX;
		num_ids += new;
	}
	return block.num_gaps == 0 ? num_ids : fill_gaps(scratch, &block, ids, num_ids);
}

static enum ss_status
encode_text(ss_bpe_scratch *scratch, const uint8_t *text, size_t text_nbytes, size_t readable_nbytes, uint32_t *ids,
	    size_t *num_ids_ret)
{
	uint32_t ends[BLOCK_PIECES];
	size_t begin = 0, num_ids = 0;

	while (begin < text_nbytes) {
		size_t num_ends = scratch->fill(scratch->bpe->pattern, text, begin, text_nbytes, readable_nbytes, ends,
						BLOCK_PIECES);
		size_t num = encode_block(scratch, text, begin, ends, num_ends, readable_nbytes, ids + num_ids);
		if (num == SIZE_MAX)
			return SS_ERR_NOMEM;
		num_ids += num;
		begin = ends[num_ends - 1];
	}
	*num_ids_ret = num_ids;
	return SS_OK;
}

void
scratch_tell(ss_bpe_scratch *scratch, struct news *news)
{
	scratch->news = news;
}

/* Puts a piece with its ids into the caches unless they have it. */
static void
learn_piece(ss_bpe_scratch *scratch, const struct lookup *lookup, const uint32_t *entry)
{
	size_t nbytes = entry[0] & 0xFFFF, num_ids = entry[0] >> 16;
	const uint32_t *ids = entry + 1;
	const uint8_t *piece = (const uint8_t *)(ids + num_ids);
	uint32_t found[RING_MAX_NBYTES + SS_BPE_IDS_SLACK];

	if (lookup->bucket == NULL) {
		if (ring_find(&scratch->ring, lookup->hash, piece, nbytes, found) == 0)
			ring_insert(&scratch->ring, lookup->hash, piece, nbytes, ids, num_ids);
	} else if (!cache_has(&lookup->bucket->entries[0], lookup->key) &&
		   !cache_has(&lookup->bucket->entries[1], lookup->key)) {
		keep_ids(scratch, lookup, ids, num_ids);
	}
}

void
scratch_learn(ss_bpe_scratch *scratch, const struct news *news)
{
	const uint32_t *entries[LEARNED_TOGETHER], *entry = news->words, *end = entry + news->num_words;
	struct lookup lookups[LEARNED_TOGETHER];

	while (entry < end) {
		size_t num = 0;
		for (; num < LEARNED_TOGETHER && entry < end; num++) {
			size_t nbytes = entry[0] & 0xFFFF, num_ids = entry[0] >> 16;
			look_up_soon(scratch, &lookups[num], (const uint8_t *)(entry + 1 + num_ids), nbytes,
				     NEWS_SLACK_NBYTES);
			entries[num] = entry;
			entry += news_entry_words(nbytes, num_ids);
		}
		for (size_t i = 0; i < num; i++)
			learn_piece(scratch, &lookups[i], entries[i]);
	}
}

static enum ss_status
check_texts(size_t text_nbytes, const int64_t *offsets, size_t num_texts, size_t ids_avail, uint64_t *place_ret)
{
	for (size_t i = 0; i < num_texts; i++) {
		*place_ret = i;
		if (offsets[i] < 0 || offsets[i] > offsets[i + 1] || (uint64_t)offsets[i + 1] > text_nbytes ||
		    offsets[i + 1] - offsets[i] > SS_PRETOK_MAX_TEXT_NBYTES)
			return SS_ERR_RANGE;
	}
	if (num_texts > 0 && (size_t)(offsets[num_texts] - offsets[0]) + SS_BPE_IDS_SLACK > ids_avail)
		return SS_ERR_SPACE;
	return SS_OK;
}

enum ss_status
ss_bpe_encode(ss_bpe_scratch *scratch, const uint8_t *text, size_t text_nbytes, const int64_t *offsets,
	      size_t num_texts, uint32_t *ids, size_t ids_avail, int64_t *id_offsets, uint64_t *place_ret)
{
	enum ss_status status = check_texts(text_nbytes, offsets, num_texts, ids_avail, place_ret);
	size_t num_ids = 0;

	id_offsets[0] = 0;
	for (size_t i = 0; i < num_texts && status == SS_OK; i++) {
		size_t begin = (size_t)offsets[i], num = 0;

		status = encode_text(scratch, text + begin, (size_t)offsets[i + 1] - begin, text_nbytes - begin,
				     ids + num_ids, &num);
		num_ids += num;
		id_offsets[i + 1] = (int64_t)num_ids;
	}
	if (scratch->memory.nbytes > MAX_KEPT_NBYTES) {
		free(scratch->memory.data);
		scratch->memory.data = NULL;
		scratch->memory.nbytes = 0;
	}
	return status;
}

enum ss_status
ss_bpe_decoded_nbytes(const ss_bpe *bpe, const uint32_t *ids, size_t num_ids, size_t *nbytes_ret)
{
	size_t nbytes = 0;

	for (size_t i = 0; i < num_ids; i++) {
		if (ids[i] >= bpe->num_ids || bpe->kinds[ids[i]] == SS_BPE_UNUSED) {
			*nbytes_ret = i;
			return SS_ERR_RANGE;
		}
		nbytes += bpe->offsets[ids[i] + 1] - bpe->offsets[ids[i]];
	}
	*nbytes_ret = nbytes;
	return SS_OK;
}

void
ss_bpe_decode(const ss_bpe *bpe, const uint32_t *ids, size_t num_ids, uint8_t *bytes)
{
	for (size_t i = 0; i < num_ids; i++) {
		uint32_t begin = bpe->offsets[ids[i]], nbytes = bpe->offsets[ids[i] + 1] - begin;

		memcpy(bytes, bpe->bytes + begin, nbytes);
		bytes += nbytes;
	}
}

/*
 * bpe.h - the tables of a vocabulary and what reads them.  Private.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * What makes tokens.  A stretch of a text whose borders no merge has crossed evolves
 * as it would alone, so a token is only ever made of the two halves that are left
 * when its own bytes are merged: other cuts of it never come to lie side by side.
 * Mostly the merges that lead there have lower ranks than the token.  Then it is
 * 'made'; tokens are numbered by the order of their making, single bytes first, and
 * a number is a rank.  Tokens that no text can have ('unmade') get the last numbers,
 * and so do those that only come after a merge of higher rank ('late': 90 of Llama
 * 3's 128,000).  In a piece that has the bytes of no late token merging makes made
 * ones only, and backtracking finds them; other pieces are merged pair by pair.
 */
#ifndef BPE_H
#define BPE_H

#include <stdbool.h>

#include "pretok.h"
#include "ss_bpe.h"
#include "table.h"

#define NO_TOKEN UINT32_MAX

/*
 * A node of the tree of token bytes, a double array: the child of node n by byte c
 * is node base(n) ^ c, provided that its label says that c led to it.  Bases are
 * different for different nodes, so one label has one parent.
 */
struct trie_node {
	uint32_t token;		/* the token that ends here, or NO_TOKEN; flags below */
	uint32_t link;		/* base << 9 | label, label = byte + 1, or 0: node not used */
};

#define TRIE_UNMADE 0x80000000u		/* unmade or late */
#define TRIE_LATE 0x40000000u
#define TRIE_FLAGS (TRIE_UNMADE | TRIE_LATE)
#define TRIE_MAX_NODES (1u << 23)

/*
 * What a character of three UTF-8 bytes leads to, found at once: in most scripts that have no blanks
 * characters are such, and most tokens one or less.
 */
struct trie_jump {
	uint32_t token;		/* the longest made token that it begins with; its number of bytes << JUMP_NBYTES_SHIFT */
	uint32_t base;		/* of the node that it leads to, or 0: there is none, or none below it */
};

#define JUMP_NBYTES_SHIFT 24
#define NUM_JUMPS (1u << 16)

/* What merging made a token of, and its longest beginning that is made, too (NO_TOKEN for single bytes). */
struct bpe_token {
	uint32_t left, right;	/* itself, for a single byte and what is not made */
	uint32_t prefix;
	uint32_t nbytes;
	uint64_t joined;	/* bit c & 63 for each first byte c of what an ending of the token merges with */
};

/*
 * Pairs to merges, by open addressing.  Most pairs that are asked for do not merge; the filter,
 * a bit set small enough for the second-level cache, tells so of 15 in 16 of them.
 */
struct pair_table {
	uint64_t *filter;	/* bit 'hash >> filter_shift' is 1 for each pair */
	uint64_t *entries;	/* left << 42 | right << 21 | merge, or NO_PAIR */
	uint64_t mask;
	unsigned shift;		/* 64 - log2 of their number */
	unsigned filter_shift;
	uint32_t *merge_token;	/* the token that each merge makes; NULL: its number is the merge's */
};

struct ss_bpe {
	enum ss_pretok_pattern pattern;
	bool whole_piece;
	struct trie_node *trie;
	uint32_t num_nodes;
	struct trie_jump *jumps;	/* at jump_slot(), after the nodes in their memory: one table of huge pages */
	struct pair_table made;		/* the halves of made tokens */
	struct pair_table all;		/* every pair that merges, if there are late tokens */
	uint64_t *late_starts;		/* a bit for each late_hash() of a late token's first 3 bytes; NULL: no late tokens */
	struct bpe_token *tokens;
	uint32_t num_tokens;
	uint32_t byte_token[256];
	int32_t *byte_pairs;		/* merge << SHORT_PLACE_BITS of bytes a, b at [a << 8 | b], or INT32_MAX */
	uint32_t *external;		/* id of each token */
	bool same_numbers;		/* external[i] is i for all, as in most published vocabularies */
	uint8_t *kinds;			/* of each id */
	uint8_t *bytes;			/* of each id: bytes[offsets[id] .. offsets[id + 1]) */
	uint32_t *offsets;
	size_t num_ids;
};

#define PAIR_BITS 21
#define NO_PAIR UINT64_MAX
#define NO_MERGE UINT32_MAX
#define LATE_BITS 13

static inline uint64_t
pair_hash(uint64_t key)
{
	return key * 0x9E3779B97F4A7C15u;
}

static inline uint64_t
pair_key(uint32_t left, uint32_t right)
{
	return (uint64_t)left << PAIR_BITS | right;
}

/* pair_prefetch() has memory fetch what pair_find() reads. */
static inline void
pair_prefetch(const struct pair_table *pairs, uint32_t left, uint32_t right)
{
	uint64_t hash = pair_hash(pair_key(left, right));

	__builtin_prefetch(&pairs->filter[hash >> pairs->filter_shift >> 6]);
	__builtin_prefetch(&pairs->entries[hash >> pairs->shift]);
}

/* pair_find() returns the number of the merge of (left, right), or NO_MERGE. */
static inline uint32_t
pair_find(const struct pair_table *pairs, uint32_t left, uint32_t right)
{
	uint64_t key = pair_key(left, right), hash = pair_hash(key), entry;
	uint64_t bit = hash >> pairs->filter_shift;

	if (!(pairs->filter[bit / 64] >> (bit % 64) & 1))
		return NO_MERGE;
	for (uint64_t slot = hash >> pairs->shift;; slot = (slot + 1) & pairs->mask) {
		entry = pairs->entries[slot];
		if (entry >> PAIR_BITS == key)
			return (uint32_t)entry & ((1u << PAIR_BITS) - 1);
		if (entry == NO_PAIR)
			return NO_MERGE;
	}
}

/* pairs_init() makes an empty table for 'num' pairs, to be released by pairs_free(), which leaves a zeroed one. */
enum ss_status pairs_init(struct pair_table *pairs, size_t num);
void pairs_free(struct pair_table *pairs);
void pairs_insert(struct pair_table *pairs, uint32_t left, uint32_t right, uint32_t merge);

static inline uint32_t
merged_token(const struct pair_table *pairs, uint32_t merge)
{
	return pairs->merge_token == NULL ? merge : pairs->merge_token[merge];
}

/* late_hash() is of the 3 bytes at p. */
static inline unsigned
late_hash(const uint8_t *p)
{
	return ((uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2]) * 0x9E3779B1u >> (32 - LATE_BITS);
}

/* trie_step() returns the child of 'node' by the byte c, or NULL. */
static inline const struct trie_node *
trie_step(const ss_bpe *bpe, const struct trie_node *node, uint8_t c)
{
	const struct trie_node *child = &bpe->trie[(node->link >> 9) ^ c];

	return (child->link & 511) == c + 1u ? child : NULL;
}

/* has_jump() tells whether the bytes at p are a character of three, or look like one; jump_slot() is the place of its jump. */
static inline bool
has_jump(const uint8_t *p, const uint8_t *end)
{
	return end - p >= 3 && (((p[0] ^ 0xE0) & 0xF0) | ((p[1] ^ 0x80) & 0xC0) | ((p[2] ^ 0x80) & 0xC0)) == 0;
}

static inline uint32_t
jump_slot(const uint8_t *p)
{
	return (p[0] & 15u) << 12 | (p[1] & 63u) << 6 | (p[2] & 63u);
}

/* Memory that an encoding thread keeps from one piece to the next. */
struct merge_memory {
	void *data;
	size_t nbytes;
	uint64_t num_steps;
};

/* merge_reserve() returns memory->data with room for nbytes, or NULL. */
void *merge_reserve(struct merge_memory *memory, size_t nbytes);

/*
 * trie_build() makes bpe->trie of 'num' strings in ascending order without
 * repetition, each with the token that it stands for, and room for bpe->jumps.
 */
struct trie_string {
	const uint8_t *bytes;
	uint32_t nbytes;
	uint32_t token;
};
enum ss_status trie_build(ss_bpe *bpe, const struct trie_string *strings, size_t num);

/* trie_find() returns the node of a string, or NULL. */
const struct trie_node *trie_find(const ss_bpe *bpe, const uint8_t *bytes, size_t nbytes);

/*
 * make_tokens() numbers the tokens of bpe->trie, whose nodes hold ids until then,
 * and makes what in struct ss_bpe comes of ranks or merges; results[i] is the id that
 * merge i makes.  The vocabulary has been checked.
 */
enum ss_status make_tokens(ss_bpe *bpe, const struct ss_bpe_vocab *vocab, const uint32_t *results);

static inline uint32_t
id_nbytes(const ss_bpe *bpe, uint32_t id)
{
	return bpe->offsets[id + 1] - bpe->offsets[id];
}

/*
 * merge_piece() and backtrack_piece() write the tokens (not yet ids) of a piece,
 * which is not empty, to tokens[0 .. result); 0 stands for SS_ERR_NOMEM.  The
 * second needs a piece without late tokens.  'tokens' has room for a token a byte.
 */
size_t merge_piece(const ss_bpe *bpe, const struct pair_table *pairs, struct merge_memory *memory,
		   const uint8_t *piece, size_t nbytes, uint32_t *tokens);
size_t backtrack_piece(const ss_bpe *bpe, struct merge_memory *memory, const uint8_t *piece, size_t nbytes,
		       uint32_t *tokens);

/*
 * merge_short_pieces() gives each of 'num' pieces of 1 to SHORT_MAX_NBYTES without late tokens
 * what merge_piece() does with bpe->made.
 */
#define SHORT_MAX_NBYTES 15
#define SHORT_PLACE_BITS 4
struct short_piece {
	const uint8_t *bytes;
	uint32_t nbytes;
	uint32_t num_tokens;	/* result */
	uint32_t *tokens;	/* result, with room for a token a byte */
};
void merge_short_pieces(const ss_bpe *bpe, struct short_piece *pieces, size_t num, uint64_t *num_steps);

/* has_late_token() tells whether a piece has the bytes of a late token. */
bool has_late_token(const ss_bpe *bpe, const uint8_t *piece, size_t nbytes);

#endif

/*
 * Merging short pieces by rank, several at a time.
 *
 * A merge must see the two pairs that it makes before the next one can be chosen, and they
 * lie anywhere in tables larger than the second-level cache.  So pieces take turns: each
 * does one merge, has memory fetch the two pairs, and lets the others go first.
 *
 * Places never move.  A set of bits says where tokens begin, and a key, rank and place in
 * one number, stands for the pair of tokens that begins at a place: the least is next.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "bpe.h"

/* Pieces that take turns: enough to hide the wait. */
#define NUM_LANES 12

#define NUM_PLACES (1u << SHORT_PLACE_BITS)
#define NO_KEY INT32_MAX

_Static_assert(SHORT_MAX_NBYTES < NUM_PLACES, "the place of a piece's end is one, too");
_Static_assert(SS_BPE_MAX_TOKENS <= INT32_MAX >> SHORT_PLACE_BITS, "a key is an int32_t");

typedef int32_t keys_vector __attribute__((vector_size(NUM_PLACES)));

struct lane {
	int32_t keys[NUM_PLACES];	/* NO_KEY if the pair does not merge, is asked for, or begins with the last token */
	uint32_t tokens[NUM_PLACES];
	uint32_t begins;		/* bit i: a token begins at place i, and none at the piece's end, whose bit is 1 */
	int asked[2];			/* places of pairs whose keys are still to be found, or -1 */
	struct short_piece *piece;
};

static void
begin_piece(const ss_bpe *bpe, struct lane *lane, struct short_piece *piece)
{
	const uint8_t *bytes = piece->bytes;
	uint32_t n = piece->nbytes;

	for (uint32_t i = 0; i < NUM_PLACES; i++)
		lane->keys[i] = NO_KEY;
	for (uint32_t i = 0; i < n; i++)
		lane->tokens[i] = bpe->byte_token[bytes[i]];
	for (uint32_t i = 0; i + 1 < n; i++)
		lane->keys[i] = bpe->byte_pairs[bytes[i] << 8 | bytes[i + 1]] | (int32_t)i;
	lane->begins = (2u << n) - 1;
	lane->asked[0] = lane->asked[1] = -1;
	lane->piece = piece;
}

static void
end_piece(const struct lane *lane)
{
	struct short_piece *piece = lane->piece;
	uint32_t num = 0;

	for (uint32_t begins = lane->begins ^ 1u << piece->nbytes; begins != 0; begins &= begins - 1)
		piece->tokens[num++] = lane->tokens[__builtin_ctz(begins)];
	piece->num_tokens = num;
}

static inline keys_vector
lesser(keys_vector a, keys_vector b)
{
	keys_vector less = a < b;

	return (a & less) | (b & ~less);
}

static inline int32_t
least_key(const struct lane *lane)
{
	keys_vector keys[4];

	memcpy(keys, lane->keys, sizeof(keys));
	keys[0] = lesser(lesser(keys[0], keys[1]), lesser(keys[2], keys[3]));
	int32_t a = keys[0][0] < keys[0][1] ? keys[0][0] : keys[0][1];
	int32_t b = keys[0][2] < keys[0][3] ? keys[0][2] : keys[0][3];
	return a < b ? a : b;
}

static inline int
next_place(const struct lane *lane, int place)
{
	return place + 1 + __builtin_ctz(lane->begins >> (place + 1));
}

static inline void
ask(const ss_bpe *bpe, struct lane *lane, int i, int place, int next)
{
	lane->keys[place] = NO_KEY;
	lane->asked[i] = place;
	pair_prefetch(&bpe->made, lane->tokens[place], lane->tokens[next]);
}

static inline void
find_asked(const ss_bpe *bpe, struct lane *lane)
{
	for (int i = 0; i < 2; i++) {
		int place = lane->asked[i];
		if (place < 0)
			continue;
		lane->asked[i] = -1;
		uint32_t merge = pair_find(&bpe->made, lane->tokens[place], lane->tokens[next_place(lane, place)]);
		if (merge != NO_MERGE)
			lane->keys[place] = (int32_t)(merge << SHORT_PLACE_BITS | (uint32_t)place);
	}
}

/* One merge; false if there is none left. */
static inline bool
merge_once(const ss_bpe *bpe, struct lane *lane)
{
	find_asked(bpe, lane);
	int32_t key = least_key(lane);
	if (key == NO_KEY)
		return false;
	int place = key & (int32_t)(NUM_PLACES - 1), next = next_place(lane, place);
	uint32_t before = lane->begins & ((1u << place) - 1);
	lane->tokens[place] = (uint32_t)key >> SHORT_PLACE_BITS;	/* a made token's number is its merge's */
	lane->begins ^= 1u << next;
	lane->keys[place] = lane->keys[next] = NO_KEY;
	next = next_place(lane, place);
	if (next < (int)lane->piece->nbytes)
		ask(bpe, lane, 0, place, next);
	if (before != 0)
		ask(bpe, lane, 1, 31 - __builtin_clz(before), place);
	return true;
}

void
merge_short_pieces(const ss_bpe *bpe, struct short_piece *pieces, size_t num, uint64_t *num_steps)
{
	struct lane lanes[NUM_LANES];
	size_t num_lanes = num < NUM_LANES ? num : NUM_LANES, next = num_lanes;

	for (size_t i = 0; i < num_lanes; i++)
		begin_piece(bpe, &lanes[i], &pieces[i]);
	while (num_lanes > 0) {
		for (size_t i = 0; i < num_lanes; i++) {
			++*num_steps;
			if (merge_once(bpe, &lanes[i]))
				continue;
			end_piece(&lanes[i]);
			if (next < num)
				begin_piece(bpe, &lanes[i], &pieces[next++]);
			else if (i != --num_lanes)
				lanes[i] = lanes[num_lanes];
		}
	}
}

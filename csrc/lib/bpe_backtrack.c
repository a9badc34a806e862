/*
 * The same tokens as merging gives, found from left to right.
 *
 * Where merging makes made tokens only (bpe.h), a sequence of them is what merging
 * makes of its bytes if and only if that holds for every two neighbours, and a text
 * has just one such sequence (van Antwerpen and Neubeck, "So many tokens, so little time", GitHub blog,
 * 2024; the rust-gems crate 'bpe').  So: take the longest token, then the longest
 * after it that may follow it, shorter ones if it may not, and step back when none
 * may.  A place stepped back from is marked dead and never entered again, which
 * makes the time linear.
 *
 * Merging's order of pairs is undone to see whether b may follow a: of the two the
 * one that was merged last comes apart first, and at each step the pair across the
 * cut must not be one that merging would have preferred.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "bpe.h"

static bool
may_follow(const ss_bpe *bpe, uint32_t a, uint32_t b, uint64_t *num_steps)
{
	const struct bpe_token *tokens = bpe->tokens;
	uint32_t limit = UINT32_MAX;	/* a pair across the cut goes first if its rank is less */

	for (;;) {
		++*num_steps;
		if (pair_find(&bpe->made, a, b) < limit)
			return false;
		bool first = a > b && tokens[a].left != a;
		if (!first && tokens[b].left == b) {
			if (tokens[a].left == a)
				return true;
			first = true;
		}
		if (first) {
			limit = a;
			a = tokens[a].right;
		} else {
			limit = b + 1;	/* equal ranks: the pair across the cut is further left */
			b = tokens[b].left;
		}
	}
}

struct found {
	uint32_t token, nbytes;
};

/* The longest made token at the beginning of p .. end; a single byte is one. */
static inline struct found
longest_token(const ss_bpe *bpe, const uint8_t *p, const uint8_t *end, uint64_t *num_steps)
{
	const struct trie_node *node = bpe->trie;
	struct found longest = { NO_TOKEN, 0 };
	uint32_t nbytes = 0;

	while (p + nbytes < end && (node = trie_step(bpe, node, p[nbytes])) != NULL) {
		nbytes++;
		if ((int32_t)node->token >= 0)	/* neither NO_TOKEN nor TRIE_UNMADE */
			longest = (struct found){ node->token, nbytes };
	}
	*num_steps += nbytes;
	return longest;
}

/*
 * Candidates may be tried in any order, for only one sequence passes.  In a long run ("-----") the
 * longest token fails at almost every place and takes the ones before it along; what comes
 * again is better tried first.  Tokens from this length on are.
 */
#define MIN_GUESS_NBYTES 8

#define MAX_STACK_NBYTES 512

static inline bool
get_bit(const uint64_t *bits, size_t i)
{
	return bits[i / 64] >> (i % 64) & 1;
}

static inline void
flip_bit(uint64_t *bits, size_t i)
{
	bits[i / 64] ^= (uint64_t)1 << (i % 64);
}

size_t
backtrack_piece(const ss_bpe *bpe, struct merge_memory *memory, const uint8_t *piece, size_t nbytes, uint32_t *tokens)
{
	const uint8_t *end = piece + nbytes;
	uint64_t stack[2 * (MAX_STACK_NBYTES / 64 + 1)], *dead = stack, *guessed;	/* a bit a place each */
	size_t num = 0, place = 0, num_words = nbytes / 64 + 1;

	if (nbytes > MAX_STACK_NBYTES && (dead = merge_reserve(memory, 2 * num_words * sizeof(*dead))) == NULL)
		return 0;
	guessed = dead + num_words;
	memset(dead, 0, 2 * num_words * sizeof(*dead));
	struct found next = longest_token(bpe, piece, end, &memory->num_steps);
	for (;;) {
		size_t after = place + next.nbytes;
		if (!get_bit(dead, after) &&
		    (num == 0 || may_follow(bpe, tokens[num - 1], next.token, &memory->num_steps))) {
			tokens[num++] = next.token;
			place = after;
			if (place == nbytes)
				return num;
			if (next.nbytes >= MIN_GUESS_NBYTES && next.nbytes <= nbytes - place &&
			    memcmp(piece + place, piece + place - next.nbytes, next.nbytes) == 0)
				flip_bit(guessed, place);
			else
				next = longest_token(bpe, piece + place, end, &memory->num_steps);
			continue;
		}
		while (!get_bit(guessed, place) && (next.token = bpe->tokens[next.token].prefix) == NO_TOKEN) {
			if (num == 0)	/* never seen, and the paper's theorem forbids it; but files are not to be trusted */
				return merge_piece(bpe, &bpe->made, memory, piece, nbytes, tokens);
			flip_bit(dead, place);
			next.token = tokens[--num];
			place -= bpe->tokens[next.token].nbytes;
		}
		if (get_bit(guessed, place)) {
			flip_bit(guessed, place);
			next = longest_token(bpe, piece + place, end, &memory->num_steps);
		} else {
			next.nbytes = bpe->tokens[next.token].nbytes;
		}
	}
}

bool
has_late_token(const ss_bpe *bpe, const uint8_t *piece, size_t nbytes)
{
	if (bpe->late_starts == NULL)
		return false;
	for (size_t i = 0; i + 3 <= nbytes; i++) {
		unsigned hash = late_hash(piece + i);
		const struct trie_node *node = bpe->trie;

		if (!(bpe->late_starts[hash / 64] >> (hash % 64) & 1))
			continue;
		for (size_t k = i; k < nbytes && (node = trie_step(bpe, node, piece[k])) != NULL; k++)
			if (node->token != NO_TOKEN && (node->token & TRIE_LATE))
				return true;
	}
	return false;
}

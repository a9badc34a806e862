/*
 * What makes each token: see bpe.h for the reasoning.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "bpe.h"

/* Bits of the filter for each slot of the table, of which up to half are taken. */
#define FILTER_LOG2_BITS 3

enum ss_status
pairs_init(struct pair_table *pairs, size_t num)
{
	unsigned bits = 10;

	while (((size_t)1 << bits) < 2 * num)
		bits++;
	pairs->entries = table_alloc(sizeof(*pairs->entries) << bits);
	pairs->filter = table_alloc((size_t)1 << (bits + FILTER_LOG2_BITS - 3));
	if (pairs->entries == NULL || pairs->filter == NULL)
		return SS_ERR_NOMEM;
	memset(pairs->entries, 0xFF, sizeof(*pairs->entries) << bits);
	pairs->shift = 64 - bits;
	pairs->filter_shift = pairs->shift - FILTER_LOG2_BITS;
	pairs->mask = ((uint64_t)1 << bits) - 1;
	return SS_OK;
}

void
pairs_free(struct pair_table *pairs)
{
	free(pairs->filter);
	free(pairs->entries);
	free(pairs->merge_token);
	*pairs = (struct pair_table){ 0 };
}

void
pairs_insert(struct pair_table *pairs, uint32_t left, uint32_t right, uint32_t merge)
{
	uint64_t key = (uint64_t)left << PAIR_BITS | right, hash = pair_hash(key), slot = hash >> pairs->shift;
	uint64_t bit = hash >> pairs->filter_shift;

	pairs->filter[bit / 64] |= (uint64_t)1 << (bit % 64);
	while (pairs->entries[slot] != NO_PAIR)
		slot = (slot + 1) & pairs->mask;
	pairs->entries[slot] = key << PAIR_BITS | merge;
}

struct maker {
	ss_bpe *bpe;
	const struct ss_bpe_vocab *vocab;
	const uint32_t *results;
	uint32_t *internal;		/* token of each id, or NO_TOKEN */
	uint32_t *parts;		/* as long as the longest token */
	struct merge_memory memory;
};

static uint32_t
number_token(struct maker *m, uint32_t id)
{
	uint32_t token = m->bpe->num_tokens++;

	m->internal[id] = token;
	m->bpe->external[token] = id;
	m->bpe->tokens[token] = (struct bpe_token){ token, token, NO_TOKEN, id_nbytes(m->bpe, id), 0 };
	return token;
}

/* Numbers a token if merging, by what is numbered so far, makes two halves of it; those of its merge, if not -1. */
static enum ss_status
try_token(struct maker *m, uint32_t id, int64_t merge)
{
	ss_bpe *bpe = m->bpe;
	size_t num = merge_piece(bpe, &bpe->made, &m->memory, bpe->bytes + bpe->offsets[id], id_nbytes(bpe, id), m->parts);

	if (num == 0)
		return SS_ERR_NOMEM;
	if (num != 2 || (merge >= 0 && (m->internal[m->vocab->merges[2 * merge]] != m->parts[0] ||
					m->internal[m->vocab->merges[2 * merge + 1]] != m->parts[1])))
		return SS_OK;
	uint32_t token = number_token(m, id);
	bpe->tokens[token].left = m->parts[0];
	bpe->tokens[token].right = m->parts[1];
	pairs_insert(&bpe->made, m->parts[0], m->parts[1], token);
	return SS_OK;
}

static enum ss_status
make_in_order(struct maker *m)
{
	ss_bpe *bpe = m->bpe;
	enum ss_status status = pairs_init(&bpe->made, bpe->num_ids);

	for (uint32_t id = 0; id < bpe->num_ids; id++) {
		m->internal[id] = NO_TOKEN;
		if (bpe->kinds[id] == SS_BPE_TOKEN && id_nbytes(bpe, id) == 1)
			bpe->byte_token[bpe->bytes[bpe->offsets[id]]] = number_token(m, id);
	}
	if (m->vocab->merges == NULL) {
		for (uint32_t id = 0; id < bpe->num_ids && status == SS_OK; id++)
			if (bpe->kinds[id] == SS_BPE_TOKEN && m->internal[id] == NO_TOKEN)
				status = try_token(m, id, -1);
	} else {
		for (size_t i = 0; i < m->vocab->num_merges && status == SS_OK; i++)
			if (m->internal[m->results[i]] == NO_TOKEN)
				status = try_token(m, m->results[i], (int64_t)i);
	}
	return status;
}

/* Gives numbers to what is not made, and puts numbers in place of the tree's ids. */
static void
number_rest(struct maker *m)
{
	ss_bpe *bpe = m->bpe;
	uint32_t num_made = bpe->num_tokens;

	for (uint32_t id = 0; id < bpe->num_ids; id++)
		if (bpe->kinds[id] == SS_BPE_TOKEN && m->internal[id] == NO_TOKEN)
			number_token(m, id);
	for (uint32_t i = 0; i < bpe->num_nodes; i++) {
		struct trie_node *node = &bpe->trie[i];
		if (node->token != NO_TOKEN) {
			node->token = m->internal[node->token];
			node->token |= node->token >= num_made ? TRIE_UNMADE : 0;
		}
	}
}

/* Every pair whose concatenation is a token, with the token's id as merge, since ids are ranks. */
static enum ss_status
insert_cuts(struct maker *m)
{
	ss_bpe *bpe = m->bpe;
	size_t num_cuts = 0;

	for (uint32_t token = 0; token < bpe->num_tokens; token++)
		num_cuts += bpe->tokens[token].nbytes - 1;
	enum ss_status status = pairs_init(&bpe->all, num_cuts);
	for (uint32_t token = 0; token < bpe->num_tokens && status == SS_OK; token++) {
		uint32_t id = bpe->external[token], nbytes = bpe->tokens[token].nbytes;
		const uint8_t *bytes = bpe->bytes + bpe->offsets[id];
		const struct trie_node *left = bpe->trie, *right;

		bpe->all.merge_token[id] = token;
		for (uint32_t cut = 1; cut < nbytes; cut++) {
			left = trie_step(bpe, left, bytes[cut - 1]);
			if (left->token == NO_TOKEN)
				continue;
			right = trie_find(bpe, bytes + cut, nbytes - cut);
			if (right != NULL && right->token != NO_TOKEN)
				pairs_insert(&bpe->all, left->token & ~TRIE_FLAGS, right->token & ~TRIE_FLAGS, id);
		}
	}
	return status;
}

static enum ss_status
insert_merges(struct maker *m)
{
	const uint32_t *merges = m->vocab->merges;
	enum ss_status status = pairs_init(&m->bpe->all, m->vocab->num_merges);

	for (size_t i = 0; i < m->vocab->num_merges && status == SS_OK; i++) {
		pairs_insert(&m->bpe->all, m->internal[merges[2 * i]], m->internal[merges[2 * i + 1]], (uint32_t)i);
		m->bpe->all.merge_token[i] = m->internal[m->results[i]];
	}
	return status;
}

/* Whether some token that is not made might be late: any for ranks, one with a merge for merges. */
static bool
may_have_late_tokens(const struct maker *m, uint32_t num_made)
{
	if (m->vocab->merges == NULL)
		return num_made < m->bpe->num_tokens;
	for (size_t i = 0; i < m->vocab->num_merges; i++)
		if (m->internal[m->results[i]] >= num_made)
			return true;
	return false;
}

static enum ss_status
mark_late(struct maker *m, uint32_t token)
{
	ss_bpe *bpe = m->bpe;
	const uint8_t *bytes = bpe->bytes + bpe->offsets[bpe->external[token]];

	if (bpe->late_starts == NULL)
		bpe->late_starts = calloc((1u << LATE_BITS) / 64, sizeof(*bpe->late_starts));
	if (bpe->late_starts == NULL)
		return SS_ERR_NOMEM;
	/* A late token has 3 bytes at least: a pair of bytes that merges is made. */
	bpe->late_starts[late_hash(bytes) / 64] |= (uint64_t)1 << (late_hash(bytes) % 64);
	bpe->trie[trie_find(bpe, bytes, bpe->tokens[token].nbytes) - bpe->trie].token |= TRIE_LATE;
	return SS_OK;
}

static enum ss_status
find_late_tokens(struct maker *m, uint32_t num_made)
{
	ss_bpe *bpe = m->bpe;
	size_t num_ranks = m->vocab->merges == NULL ? bpe->num_ids : m->vocab->num_merges;

	if (!may_have_late_tokens(m, num_made))
		return SS_OK;
	bpe->all.merge_token = malloc((num_ranks + 1) * sizeof(*bpe->all.merge_token));
	if (bpe->all.merge_token == NULL)
		return SS_ERR_NOMEM;
	enum ss_status status = m->vocab->merges == NULL ? insert_cuts(m) : insert_merges(m);
	for (uint32_t token = num_made; token < bpe->num_tokens && status == SS_OK; token++) {
		size_t num = merge_piece(bpe, &bpe->all, &m->memory, bpe->bytes + bpe->offsets[bpe->external[token]],
					 bpe->tokens[token].nbytes, m->parts);
		if (num == 0)
			return SS_ERR_NOMEM;
		if (num == 1)
			status = mark_late(m, token);
	}
	if (status == SS_OK && bpe->late_starts == NULL) {
		pairs_free(&bpe->all);
	}
	return status;
}

static bool
find_byte_pairs(ss_bpe *bpe)
{
	bpe->byte_pairs = malloc(256 * 256 * sizeof(*bpe->byte_pairs));
	for (int i = 0; i < 256 * 256 && bpe->byte_pairs != NULL; i++) {
		uint32_t merge = pair_find(&bpe->made, bpe->byte_token[i / 256], bpe->byte_token[i % 256]);
		bpe->byte_pairs[i] = merge == NO_MERGE ? INT32_MAX : (int32_t)merge << SHORT_PLACE_BITS;
	}
	return bpe->byte_pairs != NULL;
}

/* What the 'nbytes' bytes that led to a jump and one more, c, lead to. */
static struct trie_jump
longer_jump(const ss_bpe *bpe, struct trie_jump jump, uint32_t nbytes, uint8_t c)
{
	const struct trie_node *child = &bpe->trie[jump.base ^ c];

	if (jump.base == 0 || (child->link & 511) != c + 1u)
		return (struct trie_jump){ jump.token, 0 };
	jump.base = child->link >> 9;
	if ((int32_t)child->token >= 0)
		jump.token = child->token | (nbytes + 1) << JUMP_NBYTES_SHIFT;
	return jump;
}

/* Each jump has a token, for single bytes are made. */
static void
find_jumps(ss_bpe *bpe)
{
	const struct trie_jump root = { 0, bpe->trie->link >> 9 };

	for (uint32_t i = 0; i < NUM_JUMPS / 64; i++) {
		struct trie_jump jump = longer_jump(bpe, root, 0, (uint8_t)(0xE0 | i >> 6));
		jump = longer_jump(bpe, jump, 1, 0x80 | (i & 63));
		for (uint32_t k = 0; k < 64; k++)
			bpe->jumps[64 * i + k] = longer_jump(bpe, jump, 2, (uint8_t)(0x80 | k));
	}
}

/*
 * An ending of a token is its right half, and the right half of that: what stands at its border while
 * its making is undone, the token itself apart.
 */
static bool
find_joined(ss_bpe *bpe)
{
	uint64_t *whole = calloc(bpe->num_tokens, sizeof(*whole));	/* what 'joined' is for endings, for the token itself */

	if (whole == NULL)
		return false;
	for (uint32_t token = 0; token < bpe->num_tokens; token++) {
		const struct bpe_token *t = &bpe->tokens[token];
		if (t->left != token)
			whole[t->left] |= (uint64_t)1 << (bpe->bytes[bpe->offsets[bpe->external[t->right]]] & 63);
	}
	for (uint32_t token = 0; token < bpe->num_tokens; token++) {
		uint32_t right = bpe->tokens[token].right;	/* of a lower number */
		if (right != token)
			bpe->tokens[token].joined = whole[right] | bpe->tokens[right].joined;
	}
	free(whole);
	return true;
}

static void
find_prefixes(ss_bpe *bpe)
{
	for (uint32_t token = 0; token < bpe->num_tokens; token++) {
		const uint8_t *bytes = bpe->bytes + bpe->offsets[bpe->external[token]];
		const struct trie_node *node = bpe->trie;

		for (uint32_t i = 0; i + 1 < bpe->tokens[token].nbytes; i++) {
			node = trie_step(bpe, node, bytes[i]);
			if ((int32_t)node->token >= 0)
				bpe->tokens[token].prefix = node->token;
		}
	}
}

enum ss_status
make_tokens(ss_bpe *bpe, const struct ss_bpe_vocab *vocab, const uint32_t *results)
{
	struct maker m = { .bpe = bpe, .vocab = vocab, .results = results };
	size_t longest = 1;

	for (uint32_t id = 0; id < bpe->num_ids; id++)
		if (id_nbytes(bpe, id) > longest)
			longest = id_nbytes(bpe, id);
	m.internal = malloc((bpe->num_ids + 1) * sizeof(*m.internal));
	m.parts = malloc(longest * sizeof(*m.parts));
	bpe->external = malloc((bpe->num_ids + 1) * sizeof(*bpe->external));
	bpe->tokens = table_alloc((bpe->num_ids + 1) * sizeof(*bpe->tokens));
	enum ss_status status = SS_ERR_NOMEM;
	if (m.internal != NULL && m.parts != NULL && bpe->external != NULL && bpe->tokens != NULL)
		status = make_in_order(&m);
	if (status == SS_OK) {
		uint32_t num_made = bpe->num_tokens;
		number_rest(&m);
		bpe->whole_piece &= num_made < bpe->num_tokens;	/* what is made is found without */
		bpe->same_numbers = true;
		for (uint32_t token = 0; token < bpe->num_tokens; token++)
			bpe->same_numbers &= bpe->external[token] == token;
		status = find_late_tokens(&m, num_made);
		find_prefixes(bpe);
		find_jumps(bpe);
		if (status == SS_OK && !(find_byte_pairs(bpe) && find_joined(bpe)))
			status = SS_ERR_NOMEM;
	}
	free(m.internal);
	free(m.parts);
	free(m.memory.data);
	return status;
}

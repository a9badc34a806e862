/*
 * From a vocabulary to the tables of bpe.h: checks, the tree of token bytes, and what
 * merges make; bpe_make.c does the rest.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "bpe.h"

static bool
copy_vocab(ss_bpe *bpe, const struct ss_bpe_vocab *vocab)
{
	size_t nbytes = (size_t)vocab->offsets[vocab->num_ids];

	bpe->num_ids = vocab->num_ids;
	bpe->kinds = malloc(vocab->num_ids + 1);
	bpe->bytes = malloc(nbytes + 1);
	bpe->offsets = malloc((vocab->num_ids + 1) * sizeof(*bpe->offsets));
	if (bpe->kinds == NULL || bpe->bytes == NULL || bpe->offsets == NULL)
		return false;
	memcpy(bpe->kinds, vocab->kinds, vocab->num_ids);
	memcpy(bpe->bytes, vocab->bytes, nbytes);
	for (size_t i = 0; i <= vocab->num_ids; i++)
		bpe->offsets[i] = (uint32_t)vocab->offsets[i];
	return true;
}

static enum ss_status
check_vocab(const struct ss_bpe_vocab *vocab, uint64_t *place)
{
	if (vocab->pattern >= SS_PRETOK_NUM_PATTERNS)
		return SS_ERR_ARGUMENT;
	if (vocab->num_ids > SS_BPE_MAX_TOKENS || vocab->num_merges > SS_BPE_MAX_TOKENS || vocab->offsets[0] != 0)
		return SS_ERR_RANGE;
	for (size_t i = 0; i < vocab->num_ids; i++) {
		*place = i;
		if (vocab->offsets[i] > vocab->offsets[i + 1] || vocab->offsets[i + 1] > UINT32_MAX)
			return SS_ERR_RANGE;
		if (vocab->kinds[i] == SS_BPE_TOKEN && vocab->offsets[i] == vocab->offsets[i + 1])
			return SS_ERR_CORRUPT;
	}
	for (size_t i = 0; i < 2 * vocab->num_merges; i++) {
		uint32_t id = vocab->merges[i];
		*place = vocab->num_ids + i / 2;
		if (id >= vocab->num_ids || vocab->kinds[id] != SS_BPE_TOKEN)
			return SS_ERR_CORRUPT;
	}
	return SS_OK;
}

static int
compare_strings(const void *a, const void *b)
{
	const struct trie_string *s = a, *t = b;
	size_t shorter = s->nbytes < t->nbytes ? s->nbytes : t->nbytes;
	int order = memcmp(s->bytes, t->bytes, shorter);

	return order != 0 ? order : (s->nbytes > t->nbytes) - (s->nbytes < t->nbytes);
}

/* The tree of all tokens; its nodes hold ids for now. */
static enum ss_status
build_tree(ss_bpe *bpe, struct trie_string *strings, uint64_t *place)
{
	size_t num = 0;

	for (uint32_t id = 0; id < bpe->num_ids; id++)
		if (bpe->kinds[id] == SS_BPE_TOKEN)
			strings[num++] = (struct trie_string){ bpe->bytes + bpe->offsets[id], id_nbytes(bpe, id), id };
	qsort(strings, num, sizeof(*strings), compare_strings);
	for (size_t i = 1; i < num; i++) {
		if (compare_strings(&strings[i - 1], &strings[i]) == 0) {
			uint32_t a = strings[i - 1].token, b = strings[i].token;
			*place = a > b ? a : b;
			return SS_ERR_DUPLICATE;
		}
	}
	for (size_t byte = 0, i = 0; byte < 256; byte++, i++) {
		while (i < num && (strings[i].nbytes != 1 || strings[i].bytes[0] != byte))
			i++;
		*place = byte;
		if (i >= num)
			return SS_ERR_TRUNCATED;
	}
	return trie_build(bpe, strings, num);
}

/* The id that each merge makes. */
static enum ss_status
resolve_merges(const ss_bpe *bpe, const struct ss_bpe_vocab *vocab, uint32_t *results, uint64_t *place)
{
	struct pair_table seen = { 0 };
	enum ss_status status = pairs_init(&seen, vocab->num_merges);

	for (size_t i = 0; i < vocab->num_merges && status == SS_OK; i++) {
		uint32_t left = vocab->merges[2 * i], right = vocab->merges[2 * i + 1];
		const struct trie_node *node = trie_find(bpe, bpe->bytes + bpe->offsets[left], id_nbytes(bpe, left));

		*place = bpe->num_ids + i;
		for (uint32_t k = bpe->offsets[right]; k < bpe->offsets[right + 1] && node != NULL; k++)
			node = trie_step(bpe, node, bpe->bytes[k]);
		if (node == NULL || node->token == NO_TOKEN)
			status = SS_ERR_CORRUPT;
		else if (pair_find(&seen, left, right) != NO_MERGE)
			status = SS_ERR_DUPLICATE;
		else
			results[i] = node->token;
		pairs_insert(&seen, left, right, (uint32_t)i);
	}
	pairs_free(&seen);
	return status;
}

static enum ss_status
make(ss_bpe *bpe, const struct ss_bpe_vocab *vocab, uint64_t *place)
{
	enum ss_status status = check_vocab(vocab, place);

	if (status != SS_OK)
		return status;
	bpe->pattern = (enum ss_pretok_pattern)vocab->pattern;
	bpe->whole_piece = vocab->whole_piece != 0;
	if (!copy_vocab(bpe, vocab))
		return SS_ERR_NOMEM;
	struct trie_string *strings = malloc((vocab->num_ids + 1) * sizeof(*strings));
	uint32_t *results = malloc((vocab->num_merges + 1) * sizeof(*results));
	status = strings == NULL || results == NULL ? SS_ERR_NOMEM : build_tree(bpe, strings, place);
	if (status == SS_OK)
		status = resolve_merges(bpe, vocab, results, place);
	if (status == SS_OK)
		status = make_tokens(bpe, vocab, results);
	free(strings);
	free(results);
	return status;
}

enum ss_status
ss_bpe_new(const struct ss_bpe_vocab *vocab, ss_bpe **bpe_ret, uint64_t *place_ret)
{
	ss_bpe *bpe = calloc(1, sizeof(*bpe));
	enum ss_status status = bpe == NULL ? SS_ERR_NOMEM : make(bpe, vocab, place_ret);

	if (status != SS_OK) {
		ss_bpe_free(bpe);
		bpe = NULL;
	}
	*bpe_ret = bpe;
	return status;
}

void
ss_bpe_free(ss_bpe *bpe)
{
	if (bpe == NULL)
		return;
	free(bpe->trie);
	pairs_free(&bpe->made);
	pairs_free(&bpe->all);
	free(bpe->late_starts);
	free(bpe->tokens);
	free(bpe->external);
	free(bpe->byte_pairs);
	free(bpe->kinds);
	free(bpe->bytes);
	free(bpe->offsets);
	free(bpe);
}

uint32_t
ss_bpe_token_id(const ss_bpe *bpe, const uint8_t *token, size_t token_nbytes)
{
	const struct trie_node *node = trie_find(bpe, token, token_nbytes);

	if (node == NULL || node->token == NO_TOKEN)
		return UINT32_MAX;
	return bpe->external[node->token & ~TRIE_FLAGS];
}

void
ss_bpe_halves(const ss_bpe *bpe, uint32_t *halves)
{
	for (size_t i = 0; i < 2 * bpe->num_ids; i++)
		halves[i] = UINT32_MAX;
	for (uint32_t token = 0; token < bpe->num_tokens; token++) {
		const struct bpe_token *t = &bpe->tokens[token];
		if (t->left != token) {
			halves[2 * bpe->external[token]] = bpe->external[t->left];
			halves[2 * bpe->external[token] + 1] = bpe->external[t->right];
		}
	}
}

/*
 * Batches of texts to ids and back: split, look up, merge what is not known yet.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "bpe.h"

#define ENDS_AVAIL 512

struct ss_bpe_scratch {
	const ss_bpe *bpe;
	pretok_fill_fn *fill;
	struct merge_memory memory;
};

/* A long piece's memory is not kept after the call. */
#define MAX_KEPT_NBYTES (1u << 20)

ss_bpe_scratch *
ss_bpe_scratch_new(const ss_bpe *bpe)
{
	ss_bpe_scratch *scratch = calloc(1, sizeof(*scratch));

	if (scratch != NULL) {
		scratch->bpe = bpe;
		scratch->fill = pretok_best_fill();
	}
	return scratch;
}

void
ss_bpe_scratch_free(ss_bpe_scratch *scratch)
{
	if (scratch == NULL)
		return;
	free(scratch->memory.data);
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
	for (size_t i = 0; i < num; i++)
		ids[i] = bpe->external[ids[i]];
	return num;
}

static enum ss_status
encode_text(ss_bpe_scratch *scratch, const uint8_t *text, size_t text_nbytes, size_t readable_nbytes, uint32_t *ids,
	    size_t *num_ids_ret)
{
	uint32_t ends[ENDS_AVAIL];
	size_t begin = 0, num_ids = 0;

	while (begin < text_nbytes) {
		size_t num_ends = scratch->fill(scratch->bpe->pattern, text, begin, text_nbytes, readable_nbytes, ends,
						ENDS_AVAIL);
		for (size_t i = 0; i < num_ends; i++) {
			size_t num = encode_piece(scratch, text + begin, ends[i] - begin, ids + num_ids);
			if (num == 0)
				return SS_ERR_NOMEM;
			num_ids += num;
			begin = ends[i];
		}
	}
	*num_ids_ret = num_ids;
	return SS_OK;
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

/*
 * ss_bpe_train.h - learns the merges of a byte-pair vocabulary from text.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Sennrich, Haddow and Birch, "Neural Machine Translation of Rare Words with
 * Subword Units", ACL 2016, algorithm 1, with the merges of the BpeTrainer of
 * Hugging Face's tokenizers 0.23: the pair that occurs most often is merged next,
 * the one with the smaller ids on ties, in each piece from left to right.
 *
 * Every merge makes a new token: a stretch of text whose borders no merge has crossed
 * evolves as it would alone, so two pairs never make the same bytes.  For the same
 * reason ids are ranks, and a token's own bytes are encoded as that token.
 *
 * A trainer is used by one thread at a time.  Slow twin: tests/twins/bpe_train.py.
 */
#ifndef SS_BPE_TRAIN_H
#define SS_BPE_TRAIN_H

#include "ss_status.h"

/* cffi:begin */
typedef struct ss_bpe_trainer ss_bpe_trainer;	/* opaque */

struct ss_bpe_merge {
	uint32_t left, right;	/* ids; merge i makes id 256 + i of them */
};

/*
 * ss_bpe_trainer_new() returns a trainer that splits texts by an enum
 * ss_pretok_pattern.  Single bytes have ids 0 to 255: id i is byte alphabet[i], of
 * which each occurs once.  NULL: no memory, or the pattern is none.
 */
ss_bpe_trainer *ss_bpe_trainer_new(unsigned pattern, const uint8_t *alphabet);
void ss_bpe_trainer_free(ss_bpe_trainer *trainer);	/* NULL is a no-op */

/*
 * ss_bpe_trainer_feed() counts the pieces of texts; text i is
 * text[offsets[i] .. offsets[i + 1]).  All have been counted, or, unless SS_OK is
 * returned, those before *place_ret and perhaps some pieces of that one:
 *   SS_ERR_RANGE     text *place_ret is longer than SS_PRETOK_MAX_TEXT_NBYTES, or
 *                    its offsets descend or leave text[0 .. text_nbytes)
 *   SS_ERR_SPACE     the different pieces have more than 4 GiB together
 *   SS_ERR_NOMEM
 *   SS_ERR_ARGUMENT  merging has begun
 *
 * Time is linear in the bytes; memory is up to 1.5 bytes for each byte of the different
 * pieces of two bytes or more, and 52 for each such piece.
 */
enum ss_status ss_bpe_trainer_feed(ss_bpe_trainer *trainer, const uint8_t *text, size_t text_nbytes,
				   const int64_t *offsets, size_t num_texts, uint64_t *place_ret);

/* ss_bpe_trainer_num_pieces() returns how many different pieces of two bytes or more were fed. */
uint64_t ss_bpe_trainer_num_pieces(const ss_bpe_trainer *trainer);

/*
 * ss_bpe_trainer_merge() does up to max_merges more merges, fewer if there are
 * max_tokens tokens or no pair is left, which *is_done_ret tells.  The merges done
 * by all calls together are *num_merges_ret.  Returns SS_OK, or
 *   SS_ERR_NOMEM     the trainer can only be freed then
 *
 * A merge takes time in proportion to the occurrences of its pair and a logarithm,
 * all merges together O(n log n) for n bytes of different pieces.  Memory is up to 30
 * bytes for each of these, and 100 for each pair that ever stood side by side.
 */
enum ss_status ss_bpe_trainer_merge(ss_bpe_trainer *trainer, size_t max_tokens, size_t max_merges,
				    size_t *num_merges_ret, int *is_done_ret);

/* ss_bpe_trainer_merges() copies the merges done, in their order, to merges[0 .. their number). */
void ss_bpe_trainer_merges(const ss_bpe_trainer *trainer, struct ss_bpe_merge *merges);
/* cffi:end */

#endif

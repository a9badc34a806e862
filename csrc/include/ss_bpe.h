/*
 * ss_bpe.h - byte-level byte-pair encoding: texts to token ids and back.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Sennrich, Haddow and Birch, "Neural Machine Translation of Rare Words with
 * Subword Units", ACL 2016, algorithm 1, on bytes: a text is cut into pieces by a
 * split pattern (ss_pretok.h), and in each piece the adjacent pair of lowest rank
 * merges first, the leftmost on ties.  Two kinds of vocabulary:
 *   ranks   any pair whose concatenation is a token merges, the token's id is its
 *           rank: tiktoken
 *   merges  a pair merges if it is in a list, its place there is its rank: GPT-2's
 *           vocab.bpe, Hugging Face's tokenizer.json
 * Ids are those of tiktoken 0.14 and tokenizers 0.23.  Not supported: dropout,
 * unknown tokens (all 256 single bytes must be tokens), prefixes and suffixes of
 * words.  Special tokens are the caller's: they only serve ss_bpe_decode().
 * Slow twin: tests/twins/bpe.py.
 */
#ifndef SS_BPE_H
#define SS_BPE_H

#include "ss_status.h"

/* cffi:begin */
typedef struct ss_bpe ss_bpe;			/* opaque: a vocabulary, never modified after ss_bpe_new() */
typedef struct ss_bpe_scratch ss_bpe_scratch;	/* opaque: one thread's memory for encoding with one ss_bpe */
typedef struct ss_bpe_job ss_bpe_job;		/* opaque: threads that encode one batch together */

enum ss_bpe_kind {
	SS_BPE_UNUSED = 0,	/* no token has this id */
	SS_BPE_TOKEN,		/* takes part in encoding */
	SS_BPE_SPECIAL		/* only decoded */
};

#define SS_BPE_MAX_TOKENS 2097151	/* ids and ranks are packed three to 64 bits */
#define SS_BPE_IDS_SLACK 4		/* ids written past the last one, for stores of whole vectors */
#define SS_BPE_CACHE_NBYTES 17301504	/* of the caches of one ss_bpe_scratch: 16.5 MiB */

struct ss_bpe_vocab {
	const uint8_t *kinds;		/* enum ss_bpe_kind of each id */
	const uint8_t *bytes;		/* token i is bytes[offsets[i] .. offsets[i + 1]) */
	const int64_t *offsets;
	size_t num_ids;
	const uint32_t *merges;		/* pairs of ids by rank, or NULL: ids are ranks */
	size_t num_merges;
	uint32_t pattern;		/* enum ss_pretok_pattern */
	uint32_t whole_piece;		/* not 0: a piece that is a token is that token, even if merging makes another
					   sequence of it (tiktoken; Hugging Face's ignore_merges) */
};

/*
 * ss_bpe_new() builds the tables of a vocabulary, which is only read during the call.
 *
 * Returns SS_OK and a handle in *bpe_ret, to be released by ss_bpe_free(), or NULL and
 *   SS_ERR_ARGUMENT   pattern is not an enum ss_pretok_pattern
 *   SS_ERR_RANGE      more than SS_BPE_MAX_TOKENS ids or merges, offsets that descend,
 *                     or tokens of more than 2^23 different beginnings
 *   SS_ERR_CORRUPT    *place_ret names a token that is empty, or a merge (num_ids + its
 *                     place in the list) of an id without token, or whose result is none
 *   SS_ERR_DUPLICATE  the bytes of token *place_ret are those of an earlier one, or
 *                     the merge that it names came before
 *   SS_ERR_TRUNCATED  the single byte *place_ret is not a token
 *   SS_ERR_NOMEM
 *
 * Time is linear in the vocabulary but for a factor of log(token length): about
 * 0.1 s for 100,000 tokens.  The handle takes about 100 bytes a token.
 */
enum ss_status ss_bpe_new(const struct ss_bpe_vocab *vocab, ss_bpe **bpe_ret, uint64_t *place_ret);

/* ss_bpe_free() releases a vocabulary, after all its scratches.  NULL is a no-op. */
void ss_bpe_free(ss_bpe *bpe);

/*
 * ss_bpe_token_id() returns the id of the token with exactly these bytes, specials
 * apart, or UINT32_MAX.
 */
uint32_t ss_bpe_token_id(const ss_bpe *bpe, const uint8_t *token, size_t token_nbytes);

/*
 * ss_bpe_halves() writes the ids of the two tokens that merging makes each id of into
 * halves[2 * id], halves[2 * id + 1]: UINT32_MAX for single bytes, specials, unused
 * ids, and tokens whose making takes more than the merges of lower rank, or that
 * merging never makes.  'halves' has room for 2 * num_ids.
 */
void ss_bpe_halves(const ss_bpe *bpe, uint32_t *halves);

/*
 * ss_bpe_scratch_new() returns memory to encode with 'bpe', or NULL if there is
 * none.  It holds a cache of pieces met before, of SS_BPE_CACHE_NBYTES, which only
 * saves time and begins with the vocabulary: 4 ms for 100,000 tokens.  One call at a
 * time may use it.
 */
ss_bpe_scratch *ss_bpe_scratch_new(const ss_bpe *bpe);
void ss_bpe_scratch_free(ss_bpe_scratch *scratch);

/*
 * ss_bpe_scratch_steps() returns how many steps encoding with this scratch has
 * taken so far to find ids that its cache did not have: bytes walked in the tree of
 * tokens, pairs looked up, merges, entries moved in the heap.  Tests hold it linear.
 */
uint64_t ss_bpe_scratch_steps(const ss_bpe_scratch *scratch);

/*
 * ss_bpe_encode() encodes num_texts texts; text i is the bytes [offsets[i],
 * offsets[i + 1]) of text[0 .. text_nbytes), any bytes.
 *
 * Writes id_offsets[0 .. num_texts]: text i is ids[id_offsets[i] .. id_offsets[i + 1]),
 * with id_offsets[0] = 0.  ids has room for ids_avail, which must be at least the
 * bytes of all texts + SS_BPE_IDS_SLACK, since an id stands for one byte or more.
 *
 * Returns SS_OK, or, with the outputs undefined,
 *   SS_ERR_RANGE  the offsets of text *place_ret descend or leave the buffer, or it has
 *                 more than SS_PRETOK_MAX_TEXT_NBYTES
 *   SS_ERR_SPACE  ids_avail is too small
 *   SS_ERR_NOMEM  no memory for a long piece: n/4 bytes for n, or 36 n if the
 *                 vocabulary needs the slow engine (docs/ARCHITECTURE.md, "Text")
 *
 * Reads nothing outside 'text'.  Threads may share the vocabulary, each with a
 * scratch of its own.  Time is O(n) in the bytes, O(n log n) with the slow engine.
 */
enum ss_status
ss_bpe_encode(ss_bpe_scratch *scratch, const uint8_t *text, size_t text_nbytes, const int64_t *offsets,
	      size_t num_texts, uint32_t *ids, size_t ids_avail, int64_t *id_offsets, uint64_t *place_ret);

/*
 * ss_bpe_job_new() starts num_scratches - 1 threads, each with one of 'scratches', or fewer if the
 * system has no more, that encode what ss_bpe_job_add() gives them; or returns NULL if there is no memory.
 * The ids of all chunks are written to 'ids', as long as they fit.
 *
 * One thread, the caller, uses the job: it adds chunks, at most max_chunks; calls ss_bpe_job_run(), which
 * encodes with scratches[0] until all are done; moves ids if some did not fit; and calls ss_bpe_job_free(), which
 * may come at any time and waits for chunks that are being encoded.  Texts, offsets, outputs and scratches belong to
 * the job until ss_bpe_job_run() has returned, or ss_bpe_job_free().
 */
ss_bpe_job *
ss_bpe_job_new(ss_bpe_scratch *const *scratches, size_t num_scratches, size_t max_chunks, uint32_t *ids, size_t ids_avail);
void ss_bpe_job_free(ss_bpe_job *job);

/*
 * ss_bpe_job_add() adds a chunk: texts as ss_bpe_encode() takes them, but id_offsets[0 .. num_texts] count from
 * the first chunk's first id.  Returns SS_OK, or SS_ERR_SPACE if this is one chunk too many.
 */
enum ss_status
ss_bpe_job_add(ss_bpe_job *job, const uint8_t *text, size_t text_nbytes, const int64_t *offsets, size_t num_texts,
	       int64_t *id_offsets);

/*
 * ss_bpe_job_run() returns what ss_bpe_encode() does; *place_ret is a text of chunk *chunk_ret.  *num_ids_ret is how many ids
 * there are: if more than there is room, ss_bpe_job_move() copies what has been written to larger 'ids', and writes the rest.
 */
enum ss_status ss_bpe_job_run(ss_bpe_job *job, size_t *num_ids_ret, size_t *chunk_ret, uint64_t *place_ret);
void ss_bpe_job_move(ss_bpe_job *job, uint32_t *ids, size_t ids_avail);

/*
 * ss_bpe_decoded_nbytes() gives in *nbytes_ret how many bytes ids[0 .. num_ids) stand
 * for; ss_bpe_decode() writes that many to 'bytes', whose room it trusts to be them.
 *
 * ss_bpe_decoded_nbytes() returns SS_OK or
 *   SS_ERR_RANGE  ids[*nbytes_ret] is not a token's
 */
enum ss_status
ss_bpe_decoded_nbytes(const ss_bpe *bpe, const uint32_t *ids, size_t num_ids, size_t *nbytes_ret);
void ss_bpe_decode(const ss_bpe *bpe, const uint32_t *ids, size_t num_ids, uint8_t *bytes);
/* cffi:end */

#endif

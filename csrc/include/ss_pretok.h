/*
 * ss_pretok.h - the split patterns of byte-level BPE tokenizers, by hand.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * A tokenizer's pattern cuts text into pieces, and no token crosses a cut.  The
 * patterns here are those of tiktoken 0.14 (gpt2, cl100k, o200k), Llama 3 and
 * Qwen 2; shardstream/tokenizers/patterns.py has them verbatim.  Character classes
 * are Unicode 16.0's, the version of tiktoken 0.14 and of tokenizers 0.23.  They
 * match every character, so the pieces of a text are the text.  Other patterns are
 * not supported here.  Slow twin: tests/twins/bpe.py, the patterns run by the
 * 'regex' package.
 */
#ifndef SS_PRETOK_H
#define SS_PRETOK_H

#include "ss_status.h"

/* cffi:begin */
enum ss_pretok_pattern {
	SS_PRETOK_WHOLE = 0,	/* no split: a text is one piece */
	SS_PRETOK_GPT2,		/* gpt2, r50k, p50k */
	SS_PRETOK_CL100K,	/* cl100k, as tiktoken has it since October 2024 */
	SS_PRETOK_LLAMA3,	/* the older form of cl100k */
	SS_PRETOK_QWEN2,	/* the same with one digit a piece */
	SS_PRETOK_O200K,	/* o200k */
	SS_PRETOK_NUM_PATTERNS
};

#define SS_PRETOK_MAX_TEXT_NBYTES 1073741824	/* 1 GiB, so that positions fit 32 bits */

/*
 * ss_pretok_split() writes where the pieces of text[0 .. text_nbytes) end into
 * ends[0 .. *num_ends_ret), ascending; the last one is text_nbytes.  An empty text
 * has no piece.  A byte that is not part of valid UTF-8 counts as one character
 * that is neither letter, number nor blank.
 *
 * Returns SS_OK, or, with *num_ends_ret = 0,
 *   SS_ERR_ARGUMENT  'pattern' is not an enum ss_pretok_pattern
 *   SS_ERR_RANGE     text_nbytes > SS_PRETOK_MAX_TEXT_NBYTES
 *   SS_ERR_SPACE     ends_avail < text_nbytes, which always suffices
 *
 * Never reads outside 'text'.  Keeps nothing, so threads may share it.  Time is
 * linear in text_nbytes, for any text.
 */
enum ss_status
ss_pretok_split(unsigned pattern, const uint8_t *text, size_t text_nbytes, uint32_t *ends, size_t ends_avail,
		size_t *num_ends_ret);
/* cffi:end */

#endif

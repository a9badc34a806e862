/*
 * bpe_news.h - what one thread of a job tells the others.  Private.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Threads have caches of their own, so that looking a piece up takes no lock and no line
 * goes from core to core.  But then each would find the ids of each new piece again: so a
 * thread writes down what it finds while it encodes a chunk, and puts what others have
 * written into its caches before the next.  What does not fit is not told; it only saves time.
 */
#ifndef BPE_NEWS_H
#define BPE_NEWS_H

#include <string.h>

#include "bpe.h"

#define NEWS_MAX_WORDS ((size_t)1 << 14)
#define NEWS_SLACK_NBYTES 16	/* that cache_key() may read after the last piece */

/* Pieces one after another: their number of ids << 16 | bytes, ids, bytes. */
struct news {
	size_t num_words;
	struct news *next;	/* what follows is the job's: of those that are free */
	const void *teller;
	size_t num_unheard;	/* threads that have not yet come to it, the teller among them */
	uint32_t words[NEWS_MAX_WORDS + NEWS_SLACK_NBYTES / sizeof(uint32_t)];
};

static inline size_t
news_entry_words(size_t nbytes, size_t num_ids)
{
	return 1 + num_ids + (nbytes + 3) / 4;
}

/* news_add() writes down a piece of fewer than 2^16 bytes, if there is room. */
static inline void
news_add(struct news *news, const uint8_t *piece, size_t nbytes, const uint32_t *ids, size_t num_ids)
{
	size_t num_words = news_entry_words(nbytes, num_ids);
	uint32_t *entry = news->words + news->num_words;

	if (num_words > NEWS_MAX_WORDS - news->num_words)
		return;
	entry[0] = (uint32_t)(num_ids << 16 | nbytes);
	memcpy(entry + 1, ids, num_ids * sizeof(*ids));
	memcpy(entry + 1 + num_ids, piece, nbytes);
	news->num_words += num_words;
}

/* scratch_tell() has a scratch write down what it finds, until it is told NULL. */
void scratch_tell(ss_bpe_scratch *scratch, struct news *news);

/* scratch_learn() puts what another scratch of the same vocabulary has found into the caches of this one. */
void scratch_learn(ss_bpe_scratch *scratch, const struct news *news);

#endif

/*
 * bpe_train.h - what counting pieces and merging their pairs share.  Private.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * The different pieces lie end to end in 'bytes', with a byte that is none of
 * theirs before each and after the last.  A position is an index there.
 */
#ifndef BPE_TRAIN_H
#define BPE_TRAIN_H

#include <stdbool.h>

#include "pretok.h"
#include "ss_bpe_train.h"

struct train_piece {
	uint64_t count;
	uint32_t begin;		/* position of its first byte */
	uint32_t nbytes;
	uint32_t hash;
};

struct train_merging;

struct ss_bpe_trainer {
	enum ss_pretok_pattern pattern;
	pretok_fill_fn *fill;
	uint8_t byte_id[256];
	uint8_t *bytes;
	size_t num_bytes, bytes_avail;
	struct train_piece *pieces;
	size_t num_pieces, pieces_avail;
	uint32_t *slots;		/* number of a piece + 1, by hash; 0: free */
	size_t num_slots;		/* a power of two */
	struct train_merging *merging;	/* NULL until it begins */
};

#define TRAIN_MAX_POSITIONS (UINT32_MAX - 1)

/*
 * train_grow() makes room for 'wanted' elements of element_nbytes each where there
 * are *avail, at least half as many more than that if any; false: no memory.
 */
bool train_grow(void *array, size_t *avail, size_t wanted, size_t element_nbytes);

/* train_hash() is of any bytes. */
static inline uint64_t
train_mix(uint64_t hash, uint64_t word)
{
	hash = (hash ^ word) * 0x9E3779B97F4A7C15u;
	return hash ^ hash >> 32;
}

uint64_t train_hash(const uint8_t *bytes, size_t nbytes);

/* train_free_merging() takes NULL, too. */
void train_free_merging(struct train_merging *merging);

#endif

/*
 * ss_sequences.h - which documents share a sequence of fixed length.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Best-fit decreasing, as Ding et al. pack documents in "Fewer Truncations Improve
 * Language Modeling", ICML 2024, arXiv:2404.10830: pieces are taken longest first,
 * in their order where equally long, each into the sequence with the least room
 * that it fits into.  Of several with the same room it is the one that got a piece
 * last; if there is none, a new one begins.  Slow twin: tests/twins/sequences.py.
 */
#ifndef SS_SEQUENCES_H
#define SS_SEQUENCES_H

#include "ss_status.h"

/* cffi:begin */
#define SS_SEQUENCES_MAX_LENGTH 0x1000000

/*
 * ss_best_fit() writes to sequence[i] the number of the sequence that piece i, of
 * lengths[i] tokens, goes into; sequences are numbered from 0 in the order in which they
 * begin, and *num_sequences_ret receives how many there are.
 *
 * Returns SS_OK, or
 *   SS_ERR_ARGUMENT  max_length is not in [1, SS_SEQUENCES_MAX_LENGTH], or there are
 *                    2^32 - 1 pieces or more
 *   SS_ERR_RANGE     a piece is empty or longer than max_length
 *   SS_ERR_NOMEM
 *
 * O(n log max_length) time; 12 bytes a piece and 10 for each unit of max_length, rounded
 * up to a power of two.
 */
enum ss_status ss_best_fit(const int64_t *lengths, size_t num_pieces, int64_t max_length, uint32_t *sequence,
			   size_t *num_sequences_ret);
/* cffi:end */

#endif

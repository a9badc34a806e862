/*
 * ss_order.h - which sample stands at which position of an epoch.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Everything here is integer arithmetic that docs/FORMAT.md section 7 states in full:
 * an order is part of a training run's state, so it never changes under its name.
 *
 *   key      64 bits from (seed, epoch, purpose, lane, run), absorbed one word at a time
 *            with the finalizer of splitmix64 (Steele, Lea and Flood, "Fast Splittable
 *            Pseudorandom Number Generators", OOPSLA 2014).
 *   cipher   a bijection on [0, n): an alternating Feistel network on a grid of 2^k
 *            columns and ceil(n / 2^k) rows, where k is half the bit length of n - 1,
 *            with cycle walking over the few cells past n (Black and Rogaway, "Ciphers
 *            with Arbitrary Finite Domains", CT-RSA 2002).  Fewer than 2^k of the cells
 *            are past n, so a walk is rare; a power of two would walk up to half the time.
 *
 * Not cryptography: it spreads, it does not hide.  Slow twin: tests/twins/order.py.
 */
#ifndef SS_ORDER_H
#define SS_ORDER_H

#include "ss_status.h"

/* cffi:begin */
#define SS_ORDER_MAX_SAMPLES 0x3FFFFFFFFFFFFFFF	/* positions stay below 2^62 */
#define SS_ORDER_MAX_LANES 0x100000

/*
 * ss_order_key() returns the key of words[0 .. num_words): for (seed, epoch) it is the
 * prefix that ss_order_line() continues with (purpose, lane, run).  Absorbing is
 * sequential: the key of a longer tuple is ss_order_key(key of its head, its tail).
 * 'key' is 0 at the beginning.
 */
uint64_t ss_order_key(uint64_t key, const uint64_t *words, size_t num_words);

/*
 * ss_order_permute() writes to permuted[i] the image of indices[i] under the cipher of
 * 'key' on [0, num_elements), for i in [0, num_indices).  The two may be the same array.
 *
 * Returns SS_OK, or
 *   SS_ERR_ARGUMENT  num_elements is not in [1, 2^62)
 *   SS_ERR_RANGE     an index is not in [0, num_elements); 'permuted' is then undefined
 *
 * O(1) memory; about 10 ns an element.
 */
enum ss_status ss_order_permute(uint64_t key, int64_t num_elements, const int64_t *indices,
				size_t num_indices, int64_t *permuted);

/*
 * ss_order_intervals() writes to interval[l], for each lane l in [0, num_lanes), which of
 * the num_lanes equal intervals of the epoch line is lane l: a bijection.  The digits
 * of l in the mixed radix of num_lanes' prime factors, smallest factor first, are
 * shuffled by 'key' within each prefix and written in reverse, so that
 *   - any consecutive lanes are spread evenly over the whole line, and
 *   - lanes that are equal modulo 2, 4, 8, ... (the lanes of one reader among that many)
 *     are neighbours on it.
 *
 * Returns SS_OK, or SS_ERR_ARGUMENT: num_lanes is not in [1, SS_ORDER_MAX_LANES].
 */
enum ss_status ss_order_intervals(uint64_t key, int64_t num_lanes, int64_t *interval);

/* The order of one epoch.  lane_begin[l] is the line index at which lane l begins; it is borrowed. */
struct ss_order_epoch {
	uint64_t key;			/* of (seed, epoch, purpose), to be continued by (lane, run) */
	int64_t num_samples;		/* at most SS_ORDER_MAX_SAMPLES */
	int64_t num_lanes;		/* from 1 to SS_ORDER_MAX_LANES */
	int64_t run_length;		/* samples of one lane that are permuted together; 1: nothing is */
	const int64_t *lane_begin;	/* [num_lanes], each in [0, num_samples] */
};

/*
 * ss_order_line() writes the epoch-line indices of the positions begin, begin + step, ...
 * that are below 'end' to line[0 .. num_positions), in this order of positions.
 *
 * Returns SS_OK, or SS_ERR_ARGUMENT: the struct's ranges do not hold, not
 * 0 <= begin <= end <= num_samples, step < 1, or num_positions is not
 * ceil((end - begin) / step).  Writes nothing then.
 *
 * Time: about 5 ns a position, plus about 20 ns for each run of a lane that is touched
 * (lane by lane inside, so a key is made once per lane and run).  O(1) memory.
 */
enum ss_status ss_order_line(const struct ss_order_epoch *epoch, int64_t begin, int64_t end,
			     int64_t step, int64_t *line, size_t num_positions);

/*
 * ss_order_lines() writes to line[i] the epoch-line index of positions[i], for any positions
 * in [0, num_samples).  Neighbours in 'positions' that are of the same run of the same lane
 * share its key: lane by lane it costs what ss_order_line() does, else about 60 ns a position.
 *
 * Returns SS_OK, or
 *   SS_ERR_ARGUMENT  the struct's ranges do not hold
 *   SS_ERR_RANGE     a position is not in [0, num_samples); 'line' is then undefined
 */
enum ss_status ss_order_lines(const struct ss_order_epoch *epoch, const int64_t *positions,
			      size_t num_positions, int64_t *line);

#define SS_ORDER_DRAWS 1024	/* draws of a mixture that are permuted together */

/*
 * ss_order_draws() writes which source each of a block's SS_ORDER_DRAWS draws is from, and
 * the how manieth of this source in the block it is.  Source s has quotas[s] draws, which
 * lie next to each other before the cipher of 'key' permutes all; of them those with rank
 * below available[s] are kept, the others passed over.
 *
 * 'sources' and 'ranks' have room for SS_ORDER_DRAWS; *num_draws_ret receives how many were kept.
 *
 * Returns SS_OK, or SS_ERR_ARGUMENT: num_sources is not in [1, 256], or the quotas, none
 * negative, do not add up to SS_ORDER_DRAWS.
 */
enum ss_status ss_order_draws(uint64_t key, const int64_t *quotas, const int64_t *available,
			      size_t num_sources, uint8_t *sources, uint16_t *ranks,
			      size_t *num_draws_ret);
/* cffi:end */

#endif

/*
 * sparse_values.h - reading the values section of a sparse block.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SS_SPARSE_VALUES_H
#define SS_SPARSE_VALUES_H

#include "sparse.h"

static inline size_t
sparse_value_nbytes(unsigned dtype)
{
	return dtype == SS_SPARSE_FLOAT16 ? 2 : 4;
}

/* Reads num_values values of 'dtype' (not BINARY) to 'out'. */
enum ss_status values_read(unsigned coder, unsigned dtype, uint64_t num_values, struct input *in,
			   void *out);

#endif

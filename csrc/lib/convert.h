/*
 * convert.h - casts of runs of elements, and what gathers share (private to the library).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SS_CONVERT_H
#define SS_CONVERT_H

#include "ss_gather.h"

/* Casts num_elements elements; neither pointer needs alignment; no overlap. */
typedef void (*ss_convert_fn)(const void *from, void *to, size_t num_elements);

/* ss_converter() returns the cast for this machine, or NULL if there is none. */
ss_convert_fn ss_converter(enum ss_dtype from, enum ss_dtype to);

/* ss_dtype_nbytes() returns the size of one element; 0 for an unknown dtype. */
size_t ss_dtype_nbytes(enum ss_dtype dtype);

/* ss_rows_are_legal() returns whether each slot[i] < num_slots and row[i] < num_rows_of[slot[i]]. */
int ss_rows_are_legal(const int64_t *num_rows_of, size_t num_slots, const uint32_t *slot,
		      const uint32_t *row, size_t num_rows);

#endif

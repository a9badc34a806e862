/*
 * convert.h - casts of runs of elements (private to the library).
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

#endif

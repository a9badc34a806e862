/*
 * Standardizing rows of numbers: see ss_transform.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "convert.h"
#include "ss_transform.h"

/* Elements at a time: they and their means and factors fit the first cache. */
#define TILE 512

#define DEFINE(ATTRIBUTE, NAME)									\
	ATTRIBUTE static void NAME(const double *x, const double *mean, const double *factor,	\
				   size_t num, float *out)					\
	{											\
		for (size_t i = 0; i < num; i++)						\
			out[i] = (float)((x[i] - mean[i]) * factor[i]);				\
	}

typedef void (*standardize_fn)(const double *, const double *, const double *, size_t, float *);

DEFINE(, standardize_base)
#if defined(__x86_64__) && !defined(SS_PORTABLE)
DEFINE(__attribute__((target("avx2"))), standardize_avx2)
#endif

static standardize_fn
standardizer(void)
{
#if defined(__x86_64__) && !defined(SS_PORTABLE)
	if (__builtin_cpu_supports("avx2"))
		return standardize_avx2;
#endif
	return standardize_base;
}

enum ss_status
ss_standardize(const void *values, enum ss_dtype dtype, size_t num_rows, size_t row_num_elements, const double *mean,
	       const double *factor, float *out)
{
	double tile[TILE], means[TILE], factors[TILE];
	size_t nbytes = ss_dtype_nbytes(dtype), num = num_rows * row_num_elements, period = row_num_elements;
	const uint8_t *from = values;
	standardize_fn standardize = standardizer();

	if (nbytes == 0)
		return SS_ERR_ARGUMENT;
	if (num == 0)
		return SS_OK;
	ss_convert_fn convert = ss_converter(dtype, SS_FLOAT64);
	if (period <= TILE) {	/* as many whole rows at a time as fit */
		period = TILE / row_num_elements * row_num_elements;
		for (size_t i = 0; i < period; i++) {
			means[i] = mean[i % row_num_elements];
			factors[i] = factor[i % row_num_elements];
		}
		mean = means;
		factor = factors;
	}
	for (size_t begin = 0, column = 0; begin < num; column %= period) {
		size_t n = period - column < TILE ? period - column : TILE;

		n = num - begin < n ? num - begin : n;
		convert(from + begin * nbytes, tile, n);
		standardize(tile, mean + column, factor + column, n, out + begin);
		begin += n;
		column += n;
	}
	return SS_OK;
}

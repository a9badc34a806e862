/*
 * Splitting a text into pieces: see ss_pretok.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "pretok.h"
#include "pretok_next.h"

const uint8_t *
pretok_next(enum ss_pretok_pattern pattern, const uint8_t *p, const uint8_t *end)
{
	return next_piece(pattern, p, end);
}

size_t
pretok_fill_portable(enum ss_pretok_pattern pattern, const uint8_t *text, size_t begin, size_t text_nbytes,
		     size_t readable_nbytes, uint32_t *ends, size_t ends_avail)
{
	size_t num_ends = 0;

	(void)readable_nbytes;
	while (begin < text_nbytes && num_ends + PRETOK_MIN_ENDS <= ends_avail) {
		begin = (size_t)(pretok_next(pattern, text + begin, text + text_nbytes) - text);
		ends[num_ends++] = (uint32_t)begin;
	}
	return num_ends;
}

size_t
pretok_fills(pretok_fill_fn *fills[PRETOK_MAX_FILLS])
{
	size_t num = 0;

	fills[num++] = pretok_fill_portable;
#if PRETOK_X86_64
	/* What else they use, such as lzcnt, comes with these. */
	if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2"))
		fills[num++] = pretok_fill_avx2;
	if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vbmi2"))
		fills[num++] = pretok_fill_avx512;
#endif
	return num;
}

enum ss_status
ss_pretok_split(unsigned pattern, const uint8_t *text, size_t text_nbytes, uint32_t *ends, size_t ends_avail,
		size_t *num_ends_ret)
{
	pretok_fill_fn *fill = pretok_best_fill();
	size_t begin = 0, num_ends = 0;

	*num_ends_ret = 0;
	if (pattern >= SS_PRETOK_NUM_PATTERNS)
		return SS_ERR_ARGUMENT;
	if (text_nbytes > SS_PRETOK_MAX_TEXT_NBYTES)
		return SS_ERR_RANGE;
	if (ends_avail < text_nbytes)
		return SS_ERR_SPACE;
	while (begin < text_nbytes) {
		uint32_t window[2 * PRETOK_MIN_ENDS];
		size_t num = fill((enum ss_pretok_pattern)pattern, text, begin, text_nbytes, text_nbytes, window,
				  2 * PRETOK_MIN_ENDS);

		for (size_t i = 0; i < num; i++)
			ends[num_ends++] = window[i];
		begin = window[num - 1];
	}
	*num_ends_ret = num_ends;
	return SS_OK;
}

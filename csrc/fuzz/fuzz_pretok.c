/*
 * Any bytes, under every split pattern: the pieces tile the text, and are those that
 * the slow path finds one by one, by each set of instructions and at each room for ends.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "../lib/pretok.h"
#include "fuzz.h"

static void
check_fill(pretok_fill_fn *fill, enum ss_pretok_pattern pattern, const uint8_t *data, size_t data_nbytes, size_t ends_avail)
{
	uint32_t ends[2 * PRETOK_MIN_ENDS];
	size_t begin = 0;

	while (begin < data_nbytes) {
		size_t num = fill(pattern, data, begin, data_nbytes, data_nbytes, ends, ends_avail);

		FUZZ_CHECK(num > 0 && num <= ends_avail);
		for (size_t i = 0; i < num; i++) {
			const uint8_t *end = pretok_next(pattern, data + begin, data + data_nbytes);
			FUZZ_CHECK(end > data + begin && (size_t)(end - data) == ends[i]);
			begin = ends[i];
		}
	}
	FUZZ_CHECK(begin == data_nbytes);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_nbytes)
{
	pretok_fill_fn *fills[PRETOK_MAX_FILLS];
	size_t num_fills = pretok_fills(fills);

	for (unsigned pattern = 0; pattern < SS_PRETOK_NUM_PATTERNS; pattern++) {
		for (size_t i = 0; i < num_fills; i++)
			for (size_t avail = PRETOK_MIN_ENDS; avail <= 2 * PRETOK_MIN_ENDS; avail += 21)
				check_fill(fills[i], (enum ss_pretok_pattern)pattern, data, data_nbytes, avail);
	}
	return 0;
}

/*
 * Any bytes, under every split pattern: the pieces tile the text, and are those that
 * the slow path finds one by one.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "../lib/pretok.h"
#include "fuzz.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_nbytes)
{
	uint32_t *ends = malloc(data_nbytes * sizeof(*ends) + 1);

	FUZZ_CHECK(ends != NULL);
	for (unsigned pattern = 0; pattern < SS_PRETOK_NUM_PATTERNS; pattern++) {
		size_t num, begin = 0;

		FUZZ_CHECK(ss_pretok_split(pattern, data, data_nbytes, ends, data_nbytes, &num) == SS_OK);
		for (size_t i = 0; i < num; i++) {
			const uint8_t *end = pretok_next((enum ss_pretok_pattern)pattern, data + begin, data + data_nbytes);
			FUZZ_CHECK(end > data + begin && (size_t)(end - data) == ends[i]);
			begin = ends[i];
		}
		FUZZ_CHECK(begin == data_nbytes);
	}
	free(ends);
	return 0;
}

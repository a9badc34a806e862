/*
 * SPDX-License-Identifier: Apache-2.0
 */
#include "ss_sequences.h"
#include "test.h"

static void
fits_pieces_where_they_leave_the_least_room(void)
{
	const int64_t lengths[] = { 3, 7, 2, 5, 4, 10, 1 };
	const uint32_t expected[] = { 1, 1, 3, 2, 2, 0, 2 };	/* 10 | 7 3 | 5 4 1 | 2 */
	uint32_t sequence[7];
	size_t num;

	CHECK_EQ(ss_best_fit(lengths, 7, 10, sequence, &num), SS_OK);
	CHECK_EQ(num, 4);
	for (size_t i = 0; i < 7; i++)
		CHECK_EQ(sequence[i], expected[i]);
}

/* Random pieces in buffers that end where the page does: nothing overflows, and no two sequences could be one. */
static void
wastes_no_whole_sequence(void)
{
	uint64_t seed = 5;

	for (int round = 0; round < 300; round++) {
		size_t num_pieces = test_random(&seed) % 300, num;
		int64_t max_length = 1 + (int64_t)(test_random(&seed) % (round % 2 ? 20 : 3000)), used[300] = { 0 };
		int64_t *lengths = (int64_t *)(void *)guarded_alloc(num_pieces * 8), small = max_length, smaller = max_length;
		uint32_t *sequence = (uint32_t *)(void *)guarded_alloc(num_pieces * 4);

		for (size_t i = 0; i < num_pieces; i++)
			lengths[i] = 1 + (int64_t)(test_random(&seed) % (uint64_t)max_length);
		CHECK_EQ(ss_best_fit(lengths, num_pieces, max_length, sequence, &num), SS_OK);
		for (size_t i = 0; i < num_pieces; i++) {
			CHECK(sequence[i] < num);
			used[sequence[i]] += lengths[i];
		}
		for (size_t s = 0; s < num; s++) {
			CHECK(used[s] > 0 && used[s] <= max_length);
			if (used[s] < smaller) {
				small = smaller;
				smaller = used[s];
			} else if (used[s] < small) {
				small = used[s];
			}
		}
		CHECK(num < 2 || small + smaller > max_length);
		guarded_free((uint8_t *)lengths, num_pieces * 8);
		guarded_free((uint8_t *)sequence, num_pieces * 4);
	}
}

static void
refuses_what_the_contract_excludes(void)
{
	uint32_t sequence[1];
	size_t num = 9;

	CHECK_EQ(ss_best_fit((const int64_t[]){ 1 }, 1, 0, sequence, &num), SS_ERR_ARGUMENT);
	CHECK_EQ(num, 0);
	CHECK_EQ(ss_best_fit((const int64_t[]){ 1 }, 1, SS_SEQUENCES_MAX_LENGTH + 1, sequence, &num), SS_ERR_ARGUMENT);
	CHECK_EQ(ss_best_fit((const int64_t[]){ 0 }, 1, 5, sequence, &num), SS_ERR_RANGE);
	CHECK_EQ(ss_best_fit((const int64_t[]){ 6 }, 1, 5, sequence, &num), SS_ERR_RANGE);
	CHECK_EQ(ss_best_fit(NULL, 0, 5, sequence, &num), SS_OK);
	CHECK_EQ(num, 0);
}

int
main(void)
{
	fits_pieces_where_they_leave_the_least_room();
	wastes_no_whole_sequence();
	refuses_what_the_contract_excludes();
	return 0;
}

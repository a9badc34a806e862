/*
 * SPDX-License-Identifier: Apache-2.0
 */
#include "ss_bpe_train.h"
#include "ss_pretok.h"
#include "test.h"

static uint8_t alphabet[256];

static ss_bpe_trainer *
fed(unsigned pattern, const void *text, size_t nbytes)
{
	const int64_t offsets[2] = { 0, (int64_t)nbytes };
	ss_bpe_trainer *trainer = ss_bpe_trainer_new(pattern, alphabet);
	uint64_t place;

	CHECK(trainer != NULL);
	CHECK_EQ(ss_bpe_trainer_feed(trainer, text, nbytes, offsets, 1, &place), SS_OK);
	return trainer;
}

static void
check_merges(ss_bpe_trainer *trainer, size_t max_tokens, const struct ss_bpe_merge *expected, size_t num)
{
	struct ss_bpe_merge merges[16];
	size_t num_merges;
	int is_done;

	do
		CHECK_EQ(ss_bpe_trainer_merge(trainer, max_tokens, 2, &num_merges, &is_done), SS_OK);
	while (!is_done);
	CHECK_EQ(num_merges, num);
	ss_bpe_trainer_merges(trainer, merges);
	for (size_t i = 0; i < num; i++) {
		CHECK_EQ(merges[i].left, expected[i].left);
		CHECK_EQ(merges[i].right, expected[i].right);
	}
	ss_bpe_trainer_free(trainer);
}

static void
merges_the_most_frequent_pair_and_the_smaller_on_ties(void)
{
	/* ab 3, bc 2, then (ab)c 2 before the ties x-y, y-z: x < y */
	check_merges(fed(SS_PRETOK_GPT2, "abc\nabc\nab\nxyz", 14), 260,
		     (const struct ss_bpe_merge[]){ { 'a', 'b' }, { 256, 'c' }, { 'x', 'y' }, { 258, 'z' } }, 4);
	/* Overlaps are merged from the left: aaaaa is aa aa a. */
	check_merges(fed(SS_PRETOK_WHOLE, "aaaaa", 5), 300,
		     (const struct ss_bpe_merge[]){ { 'a', 'a' }, { 256, 'a' }, { 256, 257 } }, 3);
}

static void
ends_with_the_texts_or_the_tokens(void)
{
	check_merges(fed(SS_PRETOK_WHOLE, "", 0), 300, NULL, 0);
	check_merges(fed(SS_PRETOK_WHOLE, "a", 1), 300, NULL, 0);
	check_merges(fed(SS_PRETOK_WHOLE, "abcd", 4), 256, NULL, 0);
	check_merges(fed(SS_PRETOK_WHOLE, "abcd", 4), 257, (const struct ss_bpe_merge[]){ { 'a', 'b' } }, 1);
}

static void
orders_ids_by_the_alphabet(void)
{
	for (unsigned i = 0; i < 256; i++)
		alphabet[i] = (uint8_t)(255 - i);
	check_merges(fed(SS_PRETOK_WHOLE, "xyz", 3), 257, (const struct ss_bpe_merge[]){ { 255 - 'y', 255 - 'z' } }, 1);
	for (unsigned i = 0; i < 256; i++)
		alphabet[i] = (uint8_t)i;
}

/* Random texts that end where the page does, among them thousands of different pieces, so that all tables grow. */
static void
reads_nothing_else_and_grows(void)
{
	ss_bpe_trainer *trainer = ss_bpe_trainer_new(SS_PRETOK_O200K, alphabet);
	uint64_t seed = 3, place;
	size_t num_merges;
	int is_done;

	for (size_t round = 0; round < 3000; round++) {
		size_t nbytes = test_random(&seed) % 100;
		uint8_t *text = guarded_alloc(nbytes);
		const int64_t offsets[3] = { 0, (int64_t)nbytes / 2, (int64_t)nbytes };
		for (size_t i = 0; i < nbytes; i++)
			text[i] = (uint8_t)(test_random(&seed) % 16 ? 'a' + test_random(&seed) % 26 : test_random(&seed));
		CHECK_EQ(ss_bpe_trainer_feed(trainer, text, nbytes, offsets, 2, &place), SS_OK);
		guarded_free(text, nbytes);
	}
	CHECK(ss_bpe_trainer_num_pieces(trainer) > 5000);
	CHECK_EQ(ss_bpe_trainer_merge(trainer, SIZE_MAX, SIZE_MAX, &num_merges, &is_done), SS_OK);
	CHECK(num_merges > 5000 && is_done);
	CHECK_EQ(ss_bpe_trainer_feed(trainer, alphabet, 0, &(const int64_t){ 0 }, 0, &place), SS_ERR_ARGUMENT);
	ss_bpe_trainer_free(trainer);
}

static void
refuses_what_the_contract_excludes(void)
{
	const int64_t descend[] = { 2, 1 }, leave[] = { 0, 1, 4 };
	ss_bpe_trainer *trainer = ss_bpe_trainer_new(SS_PRETOK_WHOLE, alphabet);
	uint64_t place;

	CHECK_EQ(ss_bpe_trainer_feed(trainer, (const uint8_t *)"abc", 3, descend, 1, &place), SS_ERR_RANGE);
	CHECK_EQ(place, 0);
	CHECK_EQ(ss_bpe_trainer_feed(trainer, (const uint8_t *)"abc", 3, leave, 2, &place), SS_ERR_RANGE);
	CHECK_EQ(place, 1);
	ss_bpe_trainer_free(trainer);
	CHECK(ss_bpe_trainer_new(SS_PRETOK_NUM_PATTERNS, alphabet) == NULL);
	ss_bpe_trainer_free(NULL);
}

int
main(void)
{
	for (unsigned i = 0; i < 256; i++)
		alphabet[i] = (uint8_t)i;
	merges_the_most_frequent_pair_and_the_smaller_on_ties();
	ends_with_the_texts_or_the_tokens();
	orders_ids_by_the_alphabet();
	reads_nothing_else_and_grows();
	refuses_what_the_contract_excludes();
	return 0;
}

/*
 * SPDX-License-Identifier: Apache-2.0
 */
#include "ss_order.h"
#include "test.h"

static int64_t *
guarded_int64(size_t num)
{
	return (int64_t *)(void *)guarded_alloc(num * sizeof(int64_t));
}

/* Whether values[0 .. num) are a permutation of [0, num). */
static int
is_bijection(const int64_t *values, int64_t num)
{
	uint8_t *seen = calloc((size_t)num + 1, 1);
	int good = 1;

	for (int64_t i = 0; i < num && good; i++) {
		good = values[i] >= 0 && values[i] < num && !seen[values[i]];
		if (good)
			seen[values[i]] = 1;
	}
	free(seen);
	return good;
}

/* The first output of splitmix64 seeded with 0 is a published number. */
static void
key_is_a_chain_of_splitmix64(void)
{
	const uint64_t words[] = {0, 1, 2};

	CHECK(ss_order_key(0, words, 1) == 0xE220A8397B1DCDAFu);
	CHECK(ss_order_key(0, NULL, 0) == 0);
	CHECK(ss_order_key(ss_order_key(0, words, 1), words + 1, 2) == ss_order_key(0, words, 3));
}

static void
cipher_permutes_in_place_and_stays_in_bounds(void)
{
	for (int64_t n = 1; n < 300; n++) {
		int64_t *indices = guarded_int64((size_t)n);

		for (int64_t i = 0; i < n; i++)
			indices[i] = i;
		CHECK_EQ(ss_order_permute((uint64_t)n, n, indices, (size_t)n, indices), SS_OK);
		CHECK(is_bijection(indices, n));
		guarded_free((uint8_t *)indices, (size_t)n * sizeof(*indices));
	}
}

static void
cipher_of_the_largest_domain_takes_its_ends(void)
{
	int64_t indices[3] = {0, SS_ORDER_MAX_SAMPLES - 1, SS_ORDER_MAX_SAMPLES / 2}, images[3];

	CHECK_EQ(ss_order_permute(1, SS_ORDER_MAX_SAMPLES, indices, 3, images), SS_OK);
	for (int i = 0; i < 3; i++)
		CHECK(images[i] >= 0 && images[i] < SS_ORDER_MAX_SAMPLES);
	CHECK_EQ(ss_order_permute(1, 0, indices, 1, images), SS_ERR_ARGUMENT);
	CHECK_EQ(ss_order_permute(1, (int64_t)SS_ORDER_MAX_SAMPLES + 1, indices, 1, images), SS_ERR_ARGUMENT);
	CHECK_EQ(ss_order_permute(1, 3, indices, 2, images), SS_ERR_RANGE);
}

static void
intervals_are_bijections(void)
{
	for (int64_t num_lanes = 1; num_lanes < 200; num_lanes++) {
		int64_t *interval = guarded_int64((size_t)num_lanes);

		CHECK_EQ(ss_order_intervals(7, num_lanes, interval), SS_OK);
		CHECK(is_bijection(interval, num_lanes));
		guarded_free((uint8_t *)interval, (size_t)num_lanes * sizeof(*interval));
	}
	CHECK_EQ(ss_order_intervals(7, 0, NULL), SS_ERR_ARGUMENT);
	CHECK_EQ(ss_order_intervals(7, SS_ORDER_MAX_LANES + 1, NULL), SS_ERR_ARGUMENT);
}

/* Lanes, runs and samples of all relative sizes; the last runs of long and short lanes differ. */
static void
line_is_a_bijection_for_every_shape(void)
{
	uint64_t seed = 3;

	for (int turn = 0; turn < 2000; turn++) {
		int64_t num_samples = (int64_t)(test_random(&seed) % 1000);
		int64_t num_lanes = 1 + (int64_t)(test_random(&seed) % 100);
		int64_t *lane_begin = guarded_int64((size_t)num_lanes), *line = guarded_int64((size_t)num_samples);
		struct ss_order_epoch epoch = {
			.key = test_random(&seed), .num_samples = num_samples, .num_lanes = num_lanes,
			.run_length = 1 + (int64_t)(test_random(&seed) % 100), .lane_begin = lane_begin,
		};

		for (int64_t lane = 0, begin = 0; lane < num_lanes; lane++) {
			lane_begin[lane] = begin;
			begin += num_samples / num_lanes + (lane < num_samples % num_lanes);
		}
		CHECK_EQ(ss_order_line(&epoch, 0, num_samples, 1, line, (size_t)num_samples), SS_OK);
		CHECK(is_bijection(line, num_samples));
		for (int64_t i = 0; i < num_samples; i++)
			line[i] = i;
		CHECK_EQ(ss_order_lines(&epoch, line, (size_t)num_samples, line), SS_OK);
		CHECK(is_bijection(line, num_samples));
		guarded_free((uint8_t *)line, (size_t)num_samples * sizeof(*line));
		guarded_free((uint8_t *)lane_begin, (size_t)num_lanes * sizeof(*lane_begin));
	}
}

static void
line_takes_the_largest_epoch_and_any_step(void)
{
	int64_t lane_begin[3] = {0, SS_ORDER_MAX_SAMPLES / 3, 2 * (SS_ORDER_MAX_SAMPLES / 3)}, line[4];
	struct ss_order_epoch epoch = {
		.key = 1, .num_samples = SS_ORDER_MAX_SAMPLES, .num_lanes = 3,
		.run_length = SS_ORDER_MAX_SAMPLES / 3, .lane_begin = lane_begin,
	};
	int64_t end = SS_ORDER_MAX_SAMPLES;

	CHECK_EQ(ss_order_line(&epoch, end - 4, end, 1, line, 4), SS_OK);
	for (int i = 0; i < 4; i++)
		CHECK(line[i] >= 0 && line[i] < end);
	CHECK_EQ(ss_order_line(&epoch, 0, end, end / 3, line, 3), SS_OK);
	CHECK_EQ(ss_order_line(&epoch, 5, end, end, line, 1), SS_OK);
	CHECK_EQ(ss_order_line(&epoch, 5, end, end, line, 2), SS_ERR_ARGUMENT);
	epoch.run_length++;
	CHECK_EQ(ss_order_line(&epoch, 0, 1, 1, line, 1), SS_ERR_ARGUMENT);
	epoch.run_length = 1;
	CHECK_EQ(ss_order_line(&epoch, end - 2, end, 1, line, 2), SS_OK);
	CHECK_EQ(ss_order_line(&epoch, 0, end, end - 1, line, 2), SS_OK);
}

static void
draws_keep_what_is_available(void)
{
	const int64_t quotas[3] = {700, 0, 324}, available[3] = {650, 9, 0};
	uint8_t *sources = guarded_alloc(SS_ORDER_DRAWS);
	uint16_t *ranks = (uint16_t *)(void *)guarded_alloc(SS_ORDER_DRAWS * sizeof(*ranks));
	size_t num_draws;

	CHECK_EQ(ss_order_draws(1, quotas, quotas, 3, sources, ranks, &num_draws), SS_OK);
	CHECK_EQ(num_draws, SS_ORDER_DRAWS);
	CHECK_EQ(ss_order_draws(1, quotas, available, 3, sources, ranks, &num_draws), SS_OK);
	CHECK_EQ(num_draws, 650);
	for (size_t i = 0; i < num_draws; i++)
		CHECK(sources[i] == 0 && ranks[i] == i);
	CHECK_EQ(ss_order_draws(1, quotas, available, 2, sources, ranks, &num_draws), SS_ERR_ARGUMENT);
	CHECK_EQ(num_draws, 0);
	guarded_free((uint8_t *)ranks, SS_ORDER_DRAWS * sizeof(*ranks));
	guarded_free(sources, SS_ORDER_DRAWS);
}

int
main(void)
{
	key_is_a_chain_of_splitmix64();
	cipher_permutes_in_place_and_stays_in_bounds();
	cipher_of_the_largest_domain_takes_its_ends();
	intervals_are_bijections();
	line_is_a_bijection_for_every_shape();
	line_takes_the_largest_epoch_and_any_step();
	draws_keep_what_is_available();
	return 0;
}

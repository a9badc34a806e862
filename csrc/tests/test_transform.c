/*
 * SPDX-License-Identifier: Apache-2.0
 */
#include "ss_order.h"
#include "ss_transform.h"
#include "test.h"

static void
standardizes_rows_of_any_length(void)
{
	uint64_t seed = 1;

	for (int round = 0; round < 400; round++) {
		size_t num_rows = test_random(&seed) % 50, n = 1 + test_random(&seed) % (round % 2 ? 20 : 1500), num = num_rows * n;
		uint8_t *values = guarded_alloc(num);
		double *mean = (double *)(void *)guarded_alloc(n * 8), *factor = (double *)(void *)guarded_alloc(n * 8);
		float *out = (float *)(void *)guarded_alloc(num * 4);

		for (size_t i = 0; i < n; i++) {
			mean[i] = (double)(test_random(&seed) % 100);
			factor[i] = 1.0 / (double)(1 + test_random(&seed) % 7);
		}
		for (size_t i = 0; i < num; i++)
			values[i] = (uint8_t)test_random(&seed);
		CHECK_EQ(ss_standardize(values, SS_UINT8, num_rows, n, mean, factor, out), SS_OK);
		for (size_t i = 0; i < num; i++) {
			float expected = (float)(((double)values[i] - mean[i % n]) * factor[i % n]);
			CHECK(memcmp(&out[i], &expected, 4) == 0);
		}
		guarded_free(values, num);
		guarded_free((uint8_t *)mean, n * 8);
		guarded_free((uint8_t *)factor, n * 8);
		guarded_free((uint8_t *)out, num * 4);
	}
	CHECK_EQ(ss_standardize(NULL, SS_NUM_DTYPES, 0, 1, NULL, NULL, NULL), SS_ERR_ARGUMENT);
	CHECK_EQ(ss_standardize(NULL, SS_INT8, 3, 0, NULL, NULL, NULL), SS_OK);
}

static uint8_t
pixel_at(const uint8_t *image, int64_t height, int64_t width, int64_t y, int64_t x, unsigned num_channels, unsigned c)
{
	return y < 0 || y >= height || x < 0 || x >= width ? 0 : image[(y * width + x) * num_channels + c];
}

/* One image in a buffer that ends where the page does, pixel by pixel. */
static void
check_image(uint64_t *seed, unsigned num_channels)
{
	float scale[SS_IMAGES_MAX_CHANNELS], shift[SS_IMAGES_MAX_CHANNELS];
	int64_t height = 1 + (int64_t)(test_random(seed) % 40), width = 1 + (int64_t)(test_random(seed) % 600);
	struct ss_images o = { .padding = (int64_t)(test_random(seed) % 9), .num_channels = num_channels,
			       .crops_at_random = test_random(seed) & 1, .flips_at_random = test_random(seed) & 1,
			       .key = test_random(seed), .scale = scale, .shift = shift };
	size_t nbytes = (size_t)(height * width) * num_channels;
	int64_t position = (int64_t)(test_random(seed) % 1000);
	uint8_t *image = guarded_alloc(nbytes);
	uint64_t place;

	o.height = height + 2 * o.padding;	/* half of the crops are all there is, up to the image's last byte */
	o.width = width + 2 * o.padding;
	if (test_random(seed) & 1) {
		o.height = 1 + (int64_t)(test_random(seed) % (uint64_t)o.height);
		o.width = 1 + (int64_t)(test_random(seed) % (uint64_t)o.width);
	}
	for (unsigned c = 0; c < num_channels; c++) {
		scale[c] = 1.0f / (float)(1 + c);
		shift[c] = -0.5f * (float)c;
	}
	for (size_t i = 0; i < nbytes; i++)
		image[i] = (uint8_t)test_random(seed);
	size_t out_nbytes = (size_t)(o.height * o.width) * num_channels * 4;
	float *out = (float *)(void *)guarded_alloc(out_nbytes);
	CHECK_EQ(ss_images_transform(&o, (const uint8_t *const[]){ image }, &height, &width, &position, 1, out, &place), SS_OK);
	uint64_t word = (uint64_t)position, r = ss_order_key(o.key, &word, 1), one = 1;
	int64_t rows = height + 2 * o.padding - o.height, columns = width + 2 * o.padding - o.width;
	int64_t top = o.crops_at_random ? (int64_t)((r >> 32) * (uint64_t)(rows + 1) >> 32) : rows / 2;
	int64_t left = o.crops_at_random ? (int64_t)((r & UINT32_MAX) * (uint64_t)(columns + 1) >> 32) : columns / 2;
	int flipped = o.flips_at_random && ss_order_key(r, &one, 1) >> 63;
	for (unsigned c = 0; c < num_channels; c++)
		for (int64_t y = 0; y < o.height; y++)
			for (int64_t x = 0; x < o.width; x++) {
				int64_t from = left + (flipped ? o.width - 1 - x : x) - o.padding;
				float pixel = pixel_at(image, height, width, top + y - o.padding, from, num_channels, c);
				float product = pixel * scale[c], expected = product + shift[c];
				CHECK(memcmp(&out[((int64_t)c * o.height + y) * o.width + x], &expected, 4) == 0);
			}
	guarded_free(image, nbytes);
	guarded_free((uint8_t *)out, out_nbytes);
}

static void
refuses_what_the_contract_excludes(void)
{
	const float ones[SS_IMAGES_MAX_CHANNELS + 1] = { 0 };
	const uint8_t pixels[12] = { 0 }, *const images[2] = { pixels, pixels };
	const struct ss_images good = { .height = 2, .width = 2, .num_channels = 3, .scale = ones, .shift = ones };
	struct ss_images o = good;
	float out[24];
	uint64_t place;

	CHECK_EQ(ss_images_transform(&o, images, (int64_t[]){ 2, 2 }, (int64_t[]){ 2, 2 }, NULL, 2, out, &place), SS_OK);
	CHECK_EQ(ss_images_transform(&o, images, (int64_t[]){ 2, 1 }, (int64_t[]){ 2, 2 }, NULL, 2, out, &place), SS_ERR_RANGE);
	CHECK_EQ(place, 1);
	CHECK_EQ(ss_images_transform(&o, images, (int64_t[]){ 0, 1 }, (int64_t[]){ 2, 2 }, NULL, 2, out, &place), SS_ERR_RANGE);
	CHECK_EQ(place, 0);
	o.num_channels = SS_IMAGES_MAX_CHANNELS + 1;
	CHECK_EQ(ss_images_transform(&o, NULL, NULL, NULL, NULL, 0, out, &place), SS_ERR_ARGUMENT);
	o = good;
	o.width = 0;
	CHECK_EQ(ss_images_transform(&o, NULL, NULL, NULL, NULL, 0, out, &place), SS_ERR_ARGUMENT);
	o = good;
	o.padding = -1;
	CHECK_EQ(ss_images_transform(&o, NULL, NULL, NULL, NULL, 0, out, &place), SS_ERR_ARGUMENT);
}

int
main(void)
{
	uint64_t seed = 2;

	standardizes_rows_of_any_length();
	for (int round = 0; round < 300; round++)
		check_image(&seed, round % 2 ? 3 : 1 + (unsigned)(test_random(&seed) % SS_IMAGES_MAX_CHANNELS));
	refuses_what_the_contract_excludes();
	return 0;
}

/*
 * ss_transform.h - rows of numbers and images, made ready for a model.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * What comes out is the same on every machine, to the last bit: products and sums are
 * rounded one by one.  Slow twin: tests/twins/transforms.py.
 */
#ifndef SS_TRANSFORM_H
#define SS_TRANSFORM_H

#include "ss_gather.h"

/* cffi:begin */
/*
 * ss_standardize() writes (values[i] - mean[j]) * factor[j], computed in double, to out[i],
 * for i in [0, num_rows * row_num_elements) and j = i mod row_num_elements.
 *
 * Returns SS_OK, or SS_ERR_ARGUMENT: 'dtype' is none.
 */
enum ss_status ss_standardize(const void *values, enum ss_dtype dtype, size_t num_rows, size_t row_num_elements,
			      const double *mean, const double *factor, float *out);

#define SS_IMAGES_MAX_CHANNELS 16
#define SS_IMAGES_MAX_SIZE 0x1000000	/* height or width */

struct ss_images {
	int64_t height, width;		/* of what comes out */
	int64_t padding;		/* rows and columns of zeros around each image before it is cropped */
	uint32_t num_channels;
	uint32_t crops_at_random;	/* 0: from the middle, rounded up and left */
	uint32_t flips_at_random;	/* left to right, every second image */
	uint64_t key;			/* of seed and epoch; see ss_order_key() */
	const float *scale, *shift;	/* [num_channels] */
};

/*
 * ss_images_transform() writes float pixels by channel, row and column,
 * out[num_images][num_channels][height][width]: pixel * scale + shift of a crop of each
 * image, which is uint8 images[i][heights[i]][widths[i]][num_channels].
 *
 * Where image i is cropped and whether it is flipped depends on 'key' and positions[i]
 * only: r = ss_order_key(key, position); the top is the upper half of r times
 * (height + 2 * padding - crop height + 1) div 2^32, the left likewise the lower half;
 * it is flipped if the top bit of ss_order_key(r, 1) is set.  'positions' may be NULL if
 * nothing is random.
 *
 * Returns SS_OK, or
 *   SS_ERR_ARGUMENT  num_channels is not in [1, SS_IMAGES_MAX_CHANNELS], a size is
 *                    not in [1, SS_IMAGES_MAX_SIZE], or padding not in [0, it]
 *   SS_ERR_RANGE     image *place_ret is smaller than the crop, padding counted, or larger
 *                    than SS_IMAGES_MAX_SIZE
 */
enum ss_status ss_images_transform(const struct ss_images *options, const uint8_t *const *images,
				   const int64_t *heights, const int64_t *widths, const int64_t *positions,
				   size_t num_images, float *out, uint64_t *place_ret);
/* cffi:end */

#endif

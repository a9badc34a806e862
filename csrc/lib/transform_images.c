/*
 * Crops of images as float planes: see ss_transform.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * A row goes through two steps, some hundred pixels at a time: its channels are
 * taken apart, and turned round if the image is flipped; then each is converted.
 */
#include <stdbool.h>
#include <string.h>

#include "ss_order.h"
#include "ss_transform.h"

#define RUN 256		/* pixels at a time */

struct run {
	uint8_t channels[SS_IMAGES_MAX_CHANNELS][RUN];
};

static void
split_any(const uint8_t *pixels, size_t num, unsigned num_channels, struct run *run)
{
	for (unsigned c = 0; c < num_channels; c++)
		for (size_t i = 0; i < num; i++)
			run->channels[c][i] = pixels[i * num_channels + c];
}

static void
split_base(const uint8_t *pixels, size_t num, unsigned num_channels, struct run *run)
{
	if (num_channels == 1)
		memcpy(run->channels[0], pixels, num);
	else
		split_any(pixels, num, num_channels, run);
}

/* Turns a row round. */
static void
turn_base(uint8_t *bytes, size_t num)
{
	for (size_t i = 0, k = num; i + 1 < k; i++) {
		uint8_t byte = bytes[i];
		bytes[i] = bytes[--k];
		bytes[k] = byte;
	}
}

#define DEFINE_CONVERT(ATTRIBUTE, NAME)								\
	ATTRIBUTE static void NAME(const uint8_t *pixels, size_t num, float scale, float shift,	\
				   float *out)							\
	{											\
		for (size_t i = 0; i < num; i++)						\
			out[i] = (float)pixels[i] * scale + shift;				\
	}

typedef void (*turn_fn)(uint8_t *, size_t);
typedef void (*split_fn)(const uint8_t *, size_t, unsigned, struct run *);
typedef void (*convert_fn)(const uint8_t *, size_t, float, float, float *);

DEFINE_CONVERT(, convert_base)

#if defined(__x86_64__) && !defined(SS_PORTABLE)
#include <immintrin.h>

#define AVX2 __attribute__((target("avx2")))

DEFINE_CONVERT(AVX2, convert_avx2)

/* For channel c of 16 pixels: the byte of vector v that goes to pixel i, or -1 if it is another's. */
#define AT(c, v, i) ((char)((3 * (i) + (c)) / 16 == (v) ? (3 * (i) + (c)) % 16 : -1))
#define MASK(c, v)										\
	_mm_setr_epi8(AT(c, v, 0), AT(c, v, 1), AT(c, v, 2), AT(c, v, 3), AT(c, v, 4), AT(c, v, 5),	\
		      AT(c, v, 6), AT(c, v, 7), AT(c, v, 8), AT(c, v, 9), AT(c, v, 10), AT(c, v, 11),	\
		      AT(c, v, 12), AT(c, v, 13), AT(c, v, 14), AT(c, v, 15))
#define CHANNEL(c)										\
	_mm_or_si128(_mm_or_si128(_mm_shuffle_epi8(v0, MASK(c, 0)), _mm_shuffle_epi8(v1, MASK(c, 1))), \
		     _mm_shuffle_epi8(v2, MASK(c, 2)))

AVX2 static void
split_avx2(const uint8_t *pixels, size_t num, unsigned num_channels, struct run *run)
{
	size_t i = 0;

	if (num_channels != 3) {
		split_base(pixels, num, num_channels, run);
		return;
	}
	for (; i + 16 <= num; i += 16) {
		const __m128i *p = (const __m128i *)(const void *)(pixels + 3 * i);
		__m128i v0 = _mm_loadu_si128(p), v1 = _mm_loadu_si128(p + 1), v2 = _mm_loadu_si128(p + 2);

		_mm_storeu_si128((__m128i *)(void *)(run->channels[0] + i), CHANNEL(0));
		_mm_storeu_si128((__m128i *)(void *)(run->channels[1] + i), CHANNEL(1));
		_mm_storeu_si128((__m128i *)(void *)(run->channels[2] + i), CHANNEL(2));
	}
	for (; i < num; i++)
		for (unsigned c = 0; c < 3; c++)
			run->channels[c][i] = pixels[3 * i + c];
}

AVX2 static void
turn_avx2(uint8_t *bytes, size_t num)
{
	const __m128i mask = _mm_setr_epi8(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);

	for (; num >= 32; bytes += 16, num -= 32) {
		__m128i *first = (__m128i *)(void *)bytes, *last = (__m128i *)(void *)(bytes + num - 16);
		__m128i a = _mm_loadu_si128(first), b = _mm_loadu_si128(last);

		_mm_storeu_si128(first, _mm_shuffle_epi8(b, mask));
		_mm_storeu_si128(last, _mm_shuffle_epi8(a, mask));
	}
	turn_base(bytes, num);
}
#endif

/* What is the same for all rows of a batch. */
struct painter {
	const struct ss_images *options;
	split_fn split;
	turn_fn turn;
	convert_fn convert;
};

static struct painter
painter_of(const struct ss_images *options)
{
#if defined(__x86_64__) && !defined(SS_PORTABLE)
	if (__builtin_cpu_supports("avx2"))
		return (struct painter){ options, split_avx2, turn_avx2, convert_avx2 };
#endif
	return (struct painter){ options, split_base, turn_base, convert_base };
}

/* Writes 'num' pixels to out[0 .. num) of each plane, from right to left if flipped. */
static void
paint(const struct painter *painter, const uint8_t *pixels, size_t num, bool flipped, float *out)
{
	const struct ss_images *options = painter->options;
	unsigned num_channels = options->num_channels;
	size_t plane = (size_t)(options->height * options->width);
	struct run run;

	for (size_t begin = 0; begin < num; begin += RUN) {
		size_t n = num - begin < RUN ? num - begin : RUN, from = flipped ? num - begin - n : begin;

		painter->split(pixels + from * num_channels, n, num_channels, &run);
		for (unsigned c = 0; c < num_channels; c++) {
			if (flipped)
				painter->turn(run.channels[c], n);
			painter->convert(run.channels[c], n, options->scale[c], options->shift[c],
					 out + c * plane + begin);
		}
	}
}

/* Writes 'num' zero pixels to each plane. */
static void
paint_zeros(const struct ss_images *options, size_t num, float *out)
{
	for (unsigned c = 0; c < options->num_channels; c++) {
		float zero = 0.0f * options->scale[c] + options->shift[c];
		for (size_t i = 0; i < num; i++)
			out[c * (size_t)(options->height * options->width) + i] = zero;
	}
}

/* Where a crop begins in its image, below 0 inside the padding. */
struct crop {
	int64_t top, left;
	bool flipped;
};

static struct crop
crop_of(const struct ss_images *o, int64_t height, int64_t width, int64_t position)
{
	int64_t rows = height + 2 * o->padding - o->height, columns = width + 2 * o->padding - o->width;
	struct crop crop = { rows / 2 - o->padding, columns / 2 - o->padding, false };

	if (o->crops_at_random || o->flips_at_random) {
		uint64_t word = (uint64_t)position, one = 1, r = ss_order_key(o->key, &word, 1);
		if (o->crops_at_random) {
			crop.top = (int64_t)((r >> 32) * (uint64_t)(rows + 1) >> 32) - o->padding;
			crop.left = (int64_t)((r & UINT32_MAX) * (uint64_t)(columns + 1) >> 32) - o->padding;
		}
		crop.flipped = o->flips_at_random && ss_order_key(r, &one, 1) >> 63;
	}
	return crop;
}

static void
paint_image(const struct painter *painter, const uint8_t *image, int64_t height, int64_t width, struct crop crop,
	    float *out)
{
	const struct ss_images *o = painter->options;
	int64_t begin = crop.left < 0 ? -crop.left : 0;	/* columns of the crop that are the image's */
	int64_t end = width - crop.left < o->width ? width - crop.left : o->width;

	if (begin > end)	/* the crop lies in the padding */
		begin = end = 0;
	int64_t at = crop.flipped ? o->width - end : begin, after = at + end - begin;
	for (int64_t row = 0; row < o->height; row++, out += o->width) {
		int64_t from = crop.top + row;
		if (from < 0 || from >= height || begin == end) {
			paint_zeros(o, (size_t)o->width, out);
			continue;
		}
		paint_zeros(o, (size_t)at, out);
		paint(painter, image + (from * width + crop.left + begin) * o->num_channels, (size_t)(end - begin),
		      crop.flipped, out + at);
		paint_zeros(o, (size_t)(o->width - after), out + after);
	}
}

static bool
is_size(int64_t size)
{
	return size >= 1 && size <= SS_IMAGES_MAX_SIZE;
}

enum ss_status
ss_images_transform(const struct ss_images *options, const uint8_t *const *images, const int64_t *heights,
		    const int64_t *widths, const int64_t *positions, size_t num_images, float *out, uint64_t *place_ret)
{
	const struct ss_images *o = options;
	struct painter painter = painter_of(options);

	if (o->num_channels < 1 || o->num_channels > SS_IMAGES_MAX_CHANNELS || !is_size(o->height) ||
	    !is_size(o->width) || o->padding < 0 || o->padding > SS_IMAGES_MAX_SIZE)
		return SS_ERR_ARGUMENT;
	for (size_t i = 0; i < num_images; i++) {
		*place_ret = i;
		if (!is_size(heights[i]) || !is_size(widths[i]) || heights[i] + 2 * o->padding < o->height ||
		    widths[i] + 2 * o->padding < o->width)
			return SS_ERR_RANGE;
	}
	for (size_t i = 0; i < num_images; i++) {
		struct crop crop = crop_of(o, heights[i], widths[i], positions == NULL ? 0 : positions[i]);

		paint_image(&painter, images[i], heights[i], widths[i], crop, out);
		out += (size_t)(o->height * o->width) * o->num_channels;
	}
	return SS_OK;
}

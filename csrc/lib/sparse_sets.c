/*
 * Sets of integers in each coder; RICE is in sparse_rice.c.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sparse.h"

uint64_t
sets_sum(const uint32_t *lens, size_t num_sets)
{
	uint64_t sum = 0;

	for (size_t s = 0; s < num_sets; s++)
		sum += lens[s];
	return sum;
}

static uint64_t
bytes_nbytes(const uint32_t *lens, size_t num_sets, const uint32_t *x)
{
	uint64_t nbytes = 0;

	for (size_t s = 0; s < num_sets; x += lens[s++]) {
		if (lens[s] == 0)
			continue;
		/* How many gaps need a second byte, a third and so on: sums that a compiler makes with SIMD. */
		uint32_t second = x[0] >= 1u << 7, third = x[0] >= 1u << 14;
		uint32_t fourth = x[0] >= 1u << 21, fifth = x[0] >= 1u << 28;
		for (uint32_t i = 1; i < lens[s]; i++) {
			uint32_t gap = x[i] - x[i - 1] - 1;
			second += gap >= 1u << 7;
			third += gap >= 1u << 14;
			fourth += gap >= 1u << 21;
			fifth += gap >= 1u << 28;
		}
		nbytes += (uint64_t)lens[s] + second + third + fourth + fifth;
	}
	return nbytes;
}

static uint8_t *
bytes_write(const uint32_t *lens, size_t num_sets, const uint32_t *x, uint8_t *out)
{
	for (size_t s = 0; s < num_sets; s++) {
		uint32_t previous = UINT32_MAX;
		for (uint32_t i = 0; i < lens[s]; i++, x++) {
			out = leb128_put(out, *x - previous - 1);
			previous = *x;
		}
	}
	return out;
}

static enum ss_status
bytes_read(uint64_t universe, const uint32_t *lens, size_t num_sets, struct input *in, uint32_t *x)
{
	for (size_t s = 0; s < num_sets; s++) {
		uint64_t next = 0, gap;
		for (uint32_t i = 0; i < lens[s]; i++) {
			enum ss_status status = leb128_take(in, 32, &gap);
			if (status != SS_OK)
				return status;
			next += gap;
			if (next >= universe)
				return SS_ERR_CORRUPT;
			*x++ = (uint32_t)next++;
		}
	}
	return SS_OK;
}

static uint8_t *
raw16_write(uint64_t total, const uint32_t *x, uint8_t *out)
{
	for (uint64_t i = 0; i < total; i++) {
		uint16_t element = (uint16_t)x[i];
		memcpy(out + 2 * i, &element, 2);
	}
	return out + 2 * total;
}

/* Both widths: elements must rise within a set and stay below the universe. */
static enum ss_status
raw_read(unsigned width, uint64_t universe, const uint32_t *lens, size_t num_sets, uint64_t total,
	 struct input *in, uint32_t *x)
{
	const uint8_t *begin = in->p;

	if (input_left(in) / width < total)
		return SS_ERR_TRUNCATED;
	in->p += total * width;
	if (width == 4) {
		memcpy(x, begin, total * 4);
	} else {
		for (uint64_t i = 0; i < total; i++) {
			uint16_t element;
			memcpy(&element, begin + 2 * i, 2);
			x[i] = element;
		}
	}
	for (size_t s = 0; s < num_sets; x += lens[s++]) {
		int bad = lens[s] > 0 && x[lens[s] - 1] >= universe;
		for (uint32_t i = 1; i < lens[s]; i++)
			bad |= x[i] <= x[i - 1];
		if (bad)
			return SS_ERR_CORRUPT;
	}
	return SS_OK;
}

static uint8_t *
bitmap_write(uint64_t universe, const uint32_t *lens, size_t num_sets, const uint32_t *x,
	     uint8_t *out)
{
	size_t stride = (size_t)((universe + 7) / 8);

	memset(out, 0, stride * num_sets);
	for (size_t s = 0; s < num_sets; s++, out += stride)
		for (uint32_t i = 0; i < lens[s]; i++, x++)
			out[*x >> 3] |= (uint8_t)(1u << (*x & 7));
	return out;
}

/* Writes the positions of the bits of one set to x, which has room for 'avail'. */
static int
bitmap_read_set(const uint8_t *bitmap, size_t nbytes, uint64_t avail, uint32_t *x,
		uint32_t *len_ret)
{
	uint64_t len = 0;

	for (size_t at = 0; at < nbytes; at += 8) {
		uint64_t w = 0;
		memcpy(&w, bitmap + at, nbytes - at < 8 ? nbytes - at : 8);
		if (avail - len < (unsigned)__builtin_popcountll(w))
			return 0;
		for (; w != 0; w &= w - 1)
			x[len++] = (uint32_t)(at * 8) + (uint32_t)__builtin_ctzll(w);
	}
	*len_ret = (uint32_t)len;
	return 1;
}

static enum ss_status
bitmap_read(uint64_t universe, uint32_t *lens, size_t num_sets, uint64_t total, struct input *in,
	    uint32_t *x)
{
	size_t stride = (size_t)((universe + 7) / 8);
	unsigned used = universe & 7;

	if (stride > 0 && input_left(in) / stride < num_sets)
		return SS_ERR_TRUNCATED;
	for (size_t s = 0; s < num_sets; s++, in->p += stride) {
		if (used != 0 && in->p[stride - 1] >> used != 0)
			return SS_ERR_CORRUPT;
		if (!bitmap_read_set(in->p, stride, total, x, &lens[s]))
			return SS_ERR_CORRUPT;
		x += lens[s];
		total -= lens[s];
	}
	return total == 0 ? SS_OK : SS_ERR_CORRUPT;
}

uint64_t
sets_nbytes(enum ss_sparse_coder coder, uint64_t universe, const uint32_t *lens, size_t num_sets,
	    const uint32_t *elements)
{
	switch (coder) {
	case SS_SPARSE_RICE:
		return rice_nbytes(universe, lens, num_sets, elements);
	case SS_SPARSE_BYTES:
		return bytes_nbytes(lens, num_sets, elements);
	case SS_SPARSE_RAW16:
		return universe > 65536 ? UINT64_MAX : 2 * sets_sum(lens, num_sets);
	case SS_SPARSE_RAW32:
		return 4 * sets_sum(lens, num_sets);
	case SS_SPARSE_BITMAP:
		return num_sets * ((universe + 7) / 8);	/* num_sets and universe are below 2^33 / 8 */
	default:
		return UINT64_MAX;
	}
}

uint8_t *
sets_write(enum ss_sparse_coder coder, uint64_t universe, const uint32_t *lens, size_t num_sets,
	   const uint32_t *elements, uint8_t *out)
{
	uint64_t total;

	switch (coder) {
	case SS_SPARSE_RICE:
		return rice_write(universe, lens, num_sets, elements, out);
	case SS_SPARSE_BYTES:
		return bytes_write(lens, num_sets, elements, out);
	case SS_SPARSE_RAW16:
		return raw16_write(sets_sum(lens, num_sets), elements, out);
	case SS_SPARSE_RAW32:
		total = sets_sum(lens, num_sets);
		if (total > 0)
			memcpy(out, elements, total * 4);
		return out + total * 4;
	default:
		return bitmap_write(universe, lens, num_sets, elements, out);
	}
}

enum ss_status
sets_read(enum ss_sparse_coder coder, uint64_t universe, uint32_t *lens, size_t num_sets,
	  uint64_t total, struct input *in, uint32_t *elements)
{
	switch (coder) {
	case SS_SPARSE_RICE:
		return rice_read(universe, lens, num_sets, in, elements);
	case SS_SPARSE_BYTES:
		return bytes_read(universe, lens, num_sets, in, elements);
	case SS_SPARSE_RAW16:
		return raw_read(2, universe, lens, num_sets, total, in, elements);
	case SS_SPARSE_RAW32:
		return raw_read(4, universe, lens, num_sets, total, in, elements);
	default:
		return bitmap_read(universe, lens, num_sets, total, in, elements);
	}
}

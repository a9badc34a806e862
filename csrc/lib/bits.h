/*
 * bits.h - bit streams (least significant bit first) and LEB128 integers.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Readers never touch a byte outside their range and report its end; writers
 * trust their caller with the room, and may store up to 7 bytes past their end.
 */
#ifndef SS_BITS_H
#define SS_BITS_H

#include <string.h>

#include "ss_status.h"

/* bits_peek() shows at least so many bits. */
#define PEEK_NBITS 57

/* What is left of an input. */
struct input {
	const uint8_t *p;
	const uint8_t *end;
};

/* Positions count bits from 'data'. */
struct bit_reader {
	const uint8_t *data;
	uint64_t pos;
	uint64_t end;	/* a multiple of 8 */
};

struct bit_writer {
	uint8_t *p;
	uint64_t pending;
	unsigned num_pending;	/* below 8 between calls */
};

static inline size_t
input_left(const struct input *in)
{
	return (size_t)(in->end - in->p);
}

/* Number of bits up to the highest 1, as Python's int.bit_length(). */
static inline unsigned
bit_length(uint64_t x)
{
	return x == 0 ? 0 : 64 - (unsigned)__builtin_clzll(x);
}

static inline uint64_t
load64(const uint8_t *p)
{
	uint64_t w;

	memcpy(&w, p, 8);
	return w;
}

/* The next PEEK_NBITS bits at least; zeros stand beyond the end. */
static inline uint64_t
bits_peek(const struct bit_reader *r)
{
	uint64_t byte = r->pos >> 3, avail = (r->end >> 3) - byte, w = 0;

	if (avail >= 8)
		return load64(r->data + byte) >> (r->pos & 7);
	if (avail > 0)
		memcpy(&w, r->data + byte, avail);
	return w >> (r->pos & 7);
}

/* The next num_bits <= 32 bits, which the caller knows to be there. */
static inline uint32_t
bits_take(struct bit_reader *r, unsigned num_bits)
{
	uint64_t w = bits_peek(r);

	r->pos += num_bits;
	return (uint32_t)(w & ((1ull << num_bits) - 1));
}

/* Counts the zeros before the next 1 and takes both; 0 at the end of input. */
static inline int
bits_take_unary(struct bit_reader *r, uint64_t *zeros_ret)
{
	uint64_t begin = r->pos, w;

	while ((w = bits_peek(r)) == 0) {
		if (r->end - r->pos <= PEEK_NBITS)
			return 0;
		r->pos += PEEK_NBITS;
	}
	r->pos += (unsigned)__builtin_ctzll(w);
	*zeros_ret = r->pos - begin;
	r->pos++;
	return 1;
}

/* Are the bits from pos to the next byte boundary zero, as padding must be? */
static inline int
bits_padding_is_zero(const struct bit_reader *r)
{
	unsigned used = r->pos & 7;

	return used == 0 || (r->data[r->pos >> 3] >> used) == 0;
}

/* Up to 56 bits. */
static inline void
bits_put(struct bit_writer *w, uint64_t value, unsigned num_bits)
{
	w->pending |= value << w->num_pending;
	w->num_pending += num_bits;
	memcpy(w->p, &w->pending, 8);
	w->p += w->num_pending >> 3;
	w->pending >>= w->num_pending & ~7u;
	w->num_pending &= 7;
}

static inline void
bits_put_unary(struct bit_writer *w, uint64_t zeros)
{
	for (; zeros >= 48; zeros -= 48)
		bits_put(w, 0, 48);
	bits_put(w, 1ull << zeros, (unsigned)zeros + 1);
}

/* Fills the last byte with zeros and returns the end. */
static inline uint8_t *
bits_finish(struct bit_writer *w)
{
	return w->num_pending > 0 ? w->p + 1 : w->p;
}

static inline unsigned
leb128_nbytes(uint64_t value)
{
	return (bit_length(value | 1) + 6) / 7;
}

static inline uint8_t *
leb128_put(uint8_t *p, uint64_t value)
{
	for (; value >= 0x80; value >>= 7)
		*p++ = (uint8_t)(value | 0x80);
	*p++ = (uint8_t)value;
	return p;
}

/*
 * Reads a LEB128 integer below 2^num_bits.  Only the shortest form is legal, so
 * that a value has one encoding.
 */
static inline enum ss_status
leb128_take(struct input *in, unsigned num_bits, uint64_t *value_ret)
{
	uint64_t value = 0;

	for (unsigned shift = 0; shift < num_bits; shift += 7) {
		if (in->p == in->end)
			return SS_ERR_TRUNCATED;
		uint64_t byte = *in->p++;
		if (bit_length(byte & 0x7F) + shift > num_bits)
			return SS_ERR_CORRUPT;
		value |= (byte & 0x7F) << shift;
		if (byte < 0x80) {
			*value_ret = value;
			return byte == 0 && shift > 0 ? SS_ERR_CORRUPT : SS_OK;
		}
	}
	return SS_ERR_CORRUPT;
}

#endif

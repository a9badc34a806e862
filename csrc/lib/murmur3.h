/*
 * murmur3.h - the pieces of MurmurHash3_x86_32.  Private.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MURMUR3_H
#define MURMUR3_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint32_t
murmur3_load(const uint8_t *p)
{
	uint32_t k;
	memcpy(&k, p, 4);
	return k;
}

static inline uint32_t
murmur3_scramble(uint32_t k)
{
	k *= 0xCC9E2D51u;
	k = k << 15 | k >> 17;
	return k * 0x1B873593u;
}

static inline uint32_t
murmur3_block(uint32_t h, uint32_t k)
{
	h ^= murmur3_scramble(k);
	h = h << 13 | h >> 19;
	return h * 5 + 0xE6546B64u;
}

/* murmur3_finish() takes the 0 to 3 bytes after the last block, low byte first, and the whole length. */
static inline uint32_t
murmur3_finish(uint32_t h, uint32_t tail, uint32_t nbytes)
{
	h ^= murmur3_scramble(tail);
	h ^= nbytes;
	h ^= h >> 16;
	h *= 0x85EBCA6Bu;
	h ^= h >> 13;
	h *= 0xC2B2AE35u;
	return h ^ h >> 16;
}

#endif

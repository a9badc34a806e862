/*
 * What a member's name says: its kind, key and field, and whether it begins a sample.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "tar_format.h"
#include "tar_name.h"

static enum ss_tar_kind
kind_of(uint8_t type, const uint8_t *name, size_t nbytes, size_t *key_nbytes_ret)
{
	int is_file = type == TYPE_FILE || type == TYPE_CONTIGUOUS ||
		      (type == TYPE_V7_FILE && (nbytes == 0 || name[nbytes - 1] != '/'));
	const uint8_t *slash = memchr(name, '/', nbytes), *dot;
	size_t first_nbytes = slash == NULL ? nbytes : (size_t)(slash - name), base = 0;

	*key_nbytes_ret = 0;
	if (!is_file)
		return SS_TAR_OTHER;
	if (first_nbytes >= 4 && memcmp(name, "__", 2) == 0 && memcmp(name + first_nbytes - 2, "__", 2) == 0)
		return SS_TAR_META;
	for (; slash != NULL; slash = memchr(name + base, '/', nbytes - base))
		base = (size_t)(slash - name) + 1;
	dot = memchr(name + base, '.', nbytes - base);
	if (dot == NULL || dot == name + base)
		return SS_TAR_NO_FIELD;
	*key_nbytes_ret = (size_t)(dot - name);
	return SS_TAR_FIELD;
}

/* One step is a bijection of the state for a given word, so distinct texts of up to 8 bytes never collide. */
static uint64_t
hash_step(uint64_t state, uint64_t word, uint64_t multiplier)
{
	state = (state ^ word) * multiplier;
	return state ^ (state >> 32);
}

static uint64_t
load_word(const uint8_t *data, size_t nbytes)
{
	uint64_t word = 0;
	uint32_t half;
	size_t i = 0;

	if (nbytes >= 8) {
		memcpy(&word, data, 8);
		return word;
	}
	if (nbytes >= 4) {
		memcpy(&half, data, 4);
		word = half;
		i = 4;
	}
	for (; i < nbytes; i++)
		word |= (uint64_t)data[i] << (8 * i);
	return word;
}

static void
hash_key(const uint8_t *key, size_t nbytes, uint64_t hash[2])
{
	uint64_t a = nbytes, b = ~(uint64_t)nbytes;

	for (size_t i = 0; i < nbytes; i += 8) {
		uint64_t word = load_word(key + i, nbytes - i);
		a = hash_step(a, word, 0x9E3779B97F4A7C15u);
		b = hash_step(b, word, 0xC2B2AE3D27D4EB4Fu);
	}
	hash[0] = a;
	hash[1] = b;
}

/* Sets 0x20 in each byte that is an ASCII capital letter: SWAR, all eight bytes at once. */
static uint64_t
lower_ascii(uint64_t word)
{
	const uint64_t ones = 0x0101010101010101u, high = 0x80 * ones;
	uint64_t low7 = word & ~high;
	uint64_t from_a = low7 + (0x80 - 'A') * ones, beyond_z = low7 + (0x80 - 'Z' - 1) * ones;

	return word | ((from_a & ~beyond_z & ~word & high) >> 2);
}

static uint64_t
hash_field(const uint8_t *field, size_t nbytes)
{
	uint64_t hash = nbytes;

	for (size_t i = 0; i < nbytes; i += 8)
		hash = hash_step(hash, lower_ascii(load_word(field + i, nbytes - i)), 0x9E3779B97F4A7C15u);
	return hash;
}

void
ss_tar_split_name(struct ss_tar_scanner *scanner, uint8_t type, const uint8_t *name, size_t name_nbytes,
		  struct ss_tar_member *member)
{
	size_t key_nbytes;

	member->kind = kind_of(type, name, name_nbytes, &key_nbytes);
	member->name_nbytes = name_nbytes;
	member->key_nbytes = key_nbytes;
	if (member->kind != SS_TAR_FIELD)
		return;
	member->field_hash = hash_field(name + key_nbytes + 1, name_nbytes - key_nbytes - 1);
	if (scanner->has_last_key && scanner->last_key_nbytes == key_nbytes &&
	    memcmp(scanner->last_key, name, key_nbytes) == 0)
		return;
	member->starts_sample = 1;
	hash_key(name, key_nbytes, member->key_hash);
	memcpy(scanner->last_key, name, key_nbytes);
	scanner->last_key_nbytes = (uint32_t)key_nbytes;
	scanner->has_last_key = 1;
}

/*
 * test.h - what every C test uses: checks that say where they failed, and
 * buffers whose first byte out of bounds is a fault.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * A test file is a main() that calls static functions named after their claims
 * and returns 0; the first failed check ends it with status 1.
 */
#ifndef SS_TEST_H
#define SS_TEST_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define CHECK(condition) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
			exit(1); \
		} \
	} while (0)

/* CHECK_EQ() compares two integers and shows both. */
#define CHECK_EQ(got, expected) \
	do { \
		long long got_ = (long long)(got), expected_ = (long long)(expected); \
		if (got_ != expected_) { \
			fprintf(stderr, "%s:%d: %s is %lld, not %lld\n", __FILE__, __LINE__, \
				#got, got_, expected_); \
			exit(1); \
		} \
	} while (0)

static inline size_t
guarded_map_nbytes(size_t nbytes)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	return (nbytes + page - 1) / page * page + page;
}

/*
 * guarded_alloc() returns nbytes zero bytes that end exactly where an inaccessible
 * page begins, also for nbytes = 0.  Release with guarded_free() and the same size.
 */
static inline uint8_t *
guarded_alloc(size_t nbytes)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), map_nbytes = guarded_map_nbytes(nbytes);
	uint8_t *map = mmap(NULL, map_nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(map != MAP_FAILED);
	CHECK_EQ(mprotect(map + map_nbytes - page, page, PROT_NONE), 0);
	return map + map_nbytes - page - nbytes;
}

static inline void
guarded_free(uint8_t *data, size_t nbytes)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), map_nbytes = guarded_map_nbytes(nbytes);

	CHECK_EQ(munmap(data + nbytes + page - map_nbytes, map_nbytes), 0);
}

/* guarded_copy() is guarded_alloc() filled with a copy of data[0 .. nbytes). */
static inline uint8_t *
guarded_copy(const void *data, size_t nbytes)
{
	uint8_t *copy = guarded_alloc(nbytes);

	if (nbytes > 0)
		memcpy(copy, data, nbytes);
	return copy;
}

/* test_random() returns the next number of splitmix64, seeded by *state. */
static inline uint64_t
test_random(uint64_t *state)
{
	uint64_t z = (*state += 0x9E3779B97F4A7C15u);

	z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
	z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
	return z ^ (z >> 31);
}

#endif

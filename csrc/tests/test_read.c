/*
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>

#include "ss_crc32c.h"
#include "ss_read.h"
#include "test.h"

#define FILE_NBYTES 700001	/* more than two steps */
#define NUM_MEMBERS 5

static uint8_t content[FILE_NBYTES];

/* Returns a file without a name that holds 'content'. */
static int
make_file(void)
{
	char name[] = "/tmp/ss_read_XXXXXX";
	int file = mkstemp(name);
	uint64_t seed = 1;

	CHECK(file >= 0);
	unlink(name);
	for (size_t i = 0; i < sizeof(content); i++)
		content[i] = (uint8_t)test_random(&seed);
	CHECK_EQ(write(file, content, sizeof(content)), sizeof(content));
	return file;
}

/* Cuts a range into members, some of no bytes, with bytes of none before, between and behind them. */
static void
make_members(size_t offset, size_t nbytes, struct ss_member *members, uint64_t *seed)
{
	size_t at = 0;

	for (int i = 0; i < NUM_MEMBERS; i++) {
		size_t left = nbytes - at;
		at += test_random(seed) % 3 ? 0 : test_random(seed) % (left / 4 + 1);
		members[i].begin = (int64_t)at;
		members[i].nbytes = (int64_t)(test_random(seed) % 5 ? test_random(seed) % ((nbytes - at) / 2 + 1) : 0);
		members[i].crc32c = ss_crc32c(0, content + offset + at, (size_t)members[i].nbytes);
		at += (size_t)members[i].nbytes;
	}
}

static void
reads_and_checks_any_members(int file)
{
	uint64_t seed = 2;

	for (int round = 0; round < 300; round++) {
		size_t offset = test_random(&seed) % FILE_NBYTES;
		size_t nbytes = test_random(&seed) % (FILE_NBYTES - offset + 1);
		struct ss_member members[NUM_MEMBERS];
		uint8_t *out = guarded_alloc(nbytes);

		make_members(offset, nbytes, members, &seed);
		struct ss_read found = ss_read_checked(file, (int64_t)offset, out, nbytes, members, NUM_MEMBERS);
		CHECK_EQ(found.num_bytes, nbytes);
		CHECK_EQ(found.error, 0);
		CHECK(found.is_checked);
		CHECK_EQ(memcmp(out, content + offset, nbytes), 0);

		members[test_random(&seed) % NUM_MEMBERS].crc32c ^= 1;
		memset(out, 0, nbytes);
		found = ss_read_checked(file, (int64_t)offset, out, nbytes, members, NUM_MEMBERS);
		CHECK(!found.is_checked);
		CHECK_EQ(memcmp(out, content + offset, nbytes), 0);	/* all of it, for who says what is wrong */
		guarded_free(out, nbytes);
	}
}

static void
never_takes_illegal_members(int file)
{
	struct ss_member illegal[][2] = {
		{ { 10, 10, 0 }, { 15, 0, 0 } },	/* overlap */
		{ { 10, 0, 0 }, { 5, 0, 0 } },		/* descend */
		{ { 0, 0, 0 }, { 90, 11, 0 } },		/* reach beyond */
		{ { 0, 0, 0 }, { 101, 0, 0 } },
		{ { -1, 1, 0 }, { 0, 0, 0 } },
		{ { 0, -1, 0 }, { 0, 0, 0 } },
		{ { 0, 0, 0 }, { 1, INT64_MAX, 0 } },
		{ { 0, 0, 0 }, { 0, 0, 1LL << 32 } },	/* of no bytes, but with a checksum */
		{ { 0, 0, 0 }, { 0, 0, 1 } },
	};
	uint8_t *out = guarded_alloc(100);

	for (size_t i = 0; i < sizeof(illegal) / sizeof(illegal[0]); i++) {
		for (int j = 0; j < 2; j++)
			if (illegal[i][j].begin >= 0 && illegal[i][j].nbytes > 0 && illegal[i][j].nbytes <= 100 - illegal[i][j].begin)
				illegal[i][j].crc32c = ss_crc32c(0, content + illegal[i][j].begin, (size_t)illegal[i][j].nbytes);
		CHECK(!ss_read_checked(file, 0, out, 100, illegal[i], 2).is_checked);
	}
	guarded_free(out, 100);
}

static void
tells_where_a_file_ends_and_what_failed(int file)
{
	uint8_t *out = guarded_alloc(100);
	struct ss_read found = ss_read_checked(file, FILE_NBYTES - 30, out, 100, NULL, 0);

	CHECK_EQ(found.num_bytes, 30);
	CHECK_EQ(found.error, 0);
	CHECK(!found.is_checked);
	found = ss_read_checked(file, FILE_NBYTES + 10, out, 0, NULL, 0);
	CHECK_EQ(found.num_bytes, 0);
	CHECK(found.is_checked);
	found = ss_read_checked(-1, 0, out, 100, NULL, 0);
	CHECK_EQ(found.error, EBADF);
	CHECK(!found.is_checked);
	guarded_free(out, 100);
}

int
main(void)
{
	int file = make_file();

	reads_and_checks_any_members(file);
	never_takes_illegal_members(file);
	tells_where_a_file_ends_and_what_failed(file);
	close(file);
	return 0;
}

/*
 * A range of a file into memory, and the checksums of what is in it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _DEFAULT_SOURCE 1	/* pread */
#include <errno.h>
#include <time.h>
#include <unistd.h>

#include "ss_crc32c.h"
#include "ss_read.h"

#define STEP_NBYTES ((size_t)256 * 1024)	/* so little that it is in the second-level cache when it is checked */

static double
seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static int
are_legal(const struct ss_member *members, size_t num_members, size_t nbytes)
{
	int64_t least = 0;

	for (size_t i = 0; i < num_members; i++) {
		if (members[i].begin < least || members[i].nbytes < 0 || members[i].begin > (int64_t)nbytes ||
		    members[i].nbytes > (int64_t)nbytes - members[i].begin)
			return 0;
		least = members[i].begin + members[i].nbytes;
	}
	return 1;
}

/* How far the members have been checked: those before 'next', and of that one what has come; 'crc' is the CRC of it. */
struct progress {
	size_t next;
	uint32_t crc;
};

/* Goes on with bytes [begin, end), which have come.  Returns 0 if a member is not what it should be. */
static int
check(const uint8_t *data, int64_t begin, int64_t end, const struct ss_member *members, size_t num_members,
      struct progress *done)
{
	for (; done->next < num_members; done->next++, done->crc = 0) {
		const struct ss_member *member = &members[done->next];
		int64_t member_end = member->begin + member->nbytes;
		int64_t from = member->begin > begin ? member->begin : begin;
		int64_t to = member_end < end ? member_end : end;

		if (from < to)
			done->crc = ss_crc32c(done->crc, data + from, (size_t)(to - from));
		if (member_end > end)
			return 1;
		if ((int64_t)done->crc != member->crc32c)
			return 0;
	}
	return 1;
}

struct ss_read
ss_read_checked(int file, int64_t offset, uint8_t *out, size_t nbytes, const struct ss_member *members,
		size_t num_members)
{
	struct ss_read found = { 0 };
	struct progress done = { 0 };
	int is_right = are_legal(members, num_members, nbytes);

	for (;;) {
		size_t begin = found.num_bytes, step = nbytes - begin < STEP_NBYTES ? nbytes - begin : STEP_NBYTES;
		ssize_t count = step == 0 ? 0 : pread(file, out + begin, step, offset + (int64_t)begin);

		if (count < 0 && errno == EINTR)
			continue;
		if (count < 0)
			found.error = errno;
		if (count < 0 || (count == 0 && step > 0))
			return found;
		found.num_bytes += (size_t)count;
		double begun = seconds();
		is_right = is_right && check(out, (int64_t)begin, (int64_t)found.num_bytes, members, num_members, &done);
		found.check_s += seconds() - begun;
		if (found.num_bytes == nbytes) {
			found.is_checked = is_right;
			return found;
		}
	}
}

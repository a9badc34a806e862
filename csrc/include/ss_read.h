/*
 * ss_read.h - a range of a file into memory, and the checksums of what is in it.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * What reading a local block costs, in one call.
 */
#ifndef SS_READ_H
#define SS_READ_H

#include "ss_status.h"

/* cffi:begin */
struct ss_member {
	int64_t begin, nbytes;		/* within what is read */
	int64_t crc32c;
};

struct ss_read {
	size_t num_bytes;		/* read; fewer than asked for if the file ends before, or on an error */
	int error;			/* errno of a read that failed, else 0 */
	int is_checked;			/* whether all bytes came, and each member's have its checksum */
	double check_s;			/* seconds that checksums took */
};

/*
 * ss_read_checked() reads bytes [offset, offset + nbytes) of a file into 'out', and compares
 * each member's CRC-32C while its bytes are still in the cache.  Members ascend and don't
 * overlap; others are never right.  Sets errno.
 */
struct ss_read ss_read_checked(int file, int64_t offset, uint8_t *out, size_t nbytes,
			       const struct ss_member *members, size_t num_members);
/* cffi:end */

#endif

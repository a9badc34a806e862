/*
 * ss_tar.h - the members of a tar archive, whole or in pieces.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Reads ustar with its prefix field, pax extended and global headers (path and
 * size), GNU long names and base-256 sizes, and V7 headers: IEEE Std 1003.1-2017,
 * pax, "ustar Interchange Format" and "pax Header File Format"; GNU tar manual,
 * "Basic Tar Format".  Sparse files (GNU 'S', GNU.sparse.* records) and members
 * continued from another volume are SS_ERR_UNSUPPORTED, since what is stored is not
 * the file.  hdrcharset is not looked at: names are the bytes that stand there.
 *
 * Names are split as WebDataset does it: key and field are what stands before and
 * after the FIRST dot of the basename (docs/FORMAT.md, "The files layout").
 * Slow twin: scan() in tests/twins/tar.py.
 */
#ifndef SS_TAR_H
#define SS_TAR_H

#include "ss_status.h"

/* cffi:begin */
#define SS_TAR_BLOCK_NBYTES 512
#define SS_TAR_MAX_NAME_NBYTES 4096	/* Linux' PATH_MAX */
#define SS_TAR_MAX_PREFIX_NBYTES 1048576	/* extended headers of one member, all together */

enum ss_tar_kind {
	SS_TAR_FIELD = 0,	/* a regular file with a key and a field */
	SS_TAR_NO_FIELD,	/* a regular file without: no dot, or the basename begins with one */
	SS_TAR_META,		/* a regular file named __x__ or in a folder of that name */
	SS_TAR_OTHER		/* a folder, link, device or a type unknown here */
};

/* How far ss_tar_scan() came; see there. */
enum ss_tar_stop {
	SS_TAR_STOP_INPUT = 0,
	SS_TAR_STOP_SPACE,
	SS_TAR_STOP_END_BLOCKS,
	SS_TAR_STOP_NO_END_BLOCKS
};

/* What was wrong at scanner->error_offset. */
enum ss_tar_problem {
	SS_TAR_FINE = 0,
	SS_TAR_CUT_HEADER,	/* the input ends inside a header or its extended headers */
	SS_TAR_CUT_DATA,	/* the input ends inside a payload or its padding */
	SS_TAR_NOT_A_HEADER,	/* the checksum field holds no number */
	SS_TAR_BAD_CHECKSUM,	/* the header's bytes do not add up to its checksum */
	SS_TAR_BAD_SIZE,	/* the size is no number, is negative, or goes beyond 2^62 bytes */
	SS_TAR_BAD_PAX,		/* a pax record is not "<nbytes> <key>=<value>\n" */
	SS_TAR_NO_MEMBER,	/* extended headers with no member after them */
	SS_TAR_AFTER_END,	/* a byte that is not zero follows the end blocks */
	SS_TAR_LONG_NAME,	/* a name longer than SS_TAR_MAX_NAME_NBYTES */
	SS_TAR_LONG_PREFIX,	/* extended headers longer than SS_TAR_MAX_PREFIX_NBYTES */
	SS_TAR_SPARSE,		/* a GNU sparse file */
	SS_TAR_CONTINUED	/* a file continued from another volume */
};

struct ss_tar_member {	/* ten 64-bit words, so that a table of them is a matrix too */
	uint64_t begin;		/* offset of its first header, extended headers included */
	uint64_t data_begin;	/* offset of its payload */
	uint64_t data_nbytes;	/* 0 for links and folders, whatever their header says */
	uint64_t name_begin;	/* its name is names[name_begin .. name_begin + name_nbytes) */
	uint64_t name_nbytes;
	uint64_t key_nbytes;	/* the key is the name's begin, the field follows after one dot */
	uint64_t key_hash[2];	/* of the key, where starts_sample is 1; otherwise 0 */
	uint64_t field_hash;	/* of the field in ASCII lower case, for SS_TAR_FIELD; otherwise 0 */
	uint32_t kind;		/* enum ss_tar_kind */
	uint32_t starts_sample;	/* 1: an SS_TAR_FIELD whose key is not that of the one before it */
};

/*
 * A scan of one archive, from ss_tar_scanner_init() on.  Holds no pointers: copying
 * it copies the scan's state.
 */
struct ss_tar_scanner {
	uint64_t offset;	/* where the next header group stands */
	uint64_t num_members;	/* members filled, in the caller's array */
	uint64_t names_nbytes;	/* bytes filled of the caller's names */
	uint64_t error_offset;	/* where the problem is, when an error was returned */
	int32_t problem;	/* enum ss_tar_problem */
	int32_t stop;		/* enum ss_tar_stop, when SS_OK was returned */
	uint64_t global_size;	/* the rest belongs to the scanner */
	uint32_t global_path_nbytes;
	uint32_t last_key_nbytes;
	uint8_t has_global_size, has_global_path, has_last_key, has_ended;
	uint8_t global_path[4096];
	uint8_t last_key[4096];
};

/* ss_tar_scanner_init() begins a scan at the header group that stands at 'offset'. */
void ss_tar_scanner_init(struct ss_tar_scanner *scanner, uint64_t offset);

/*
 * ss_tar_scan() goes on with a scan over the bytes buffer[0 .. buffer_nbytes), which
 * stand at 'base_offset' of the archive, and appends each member it meets to
 * members[scanner->num_members ..] and its name to names[scanner->names_nbytes ..],
 * which have room for members_avail members and names_avail bytes.  All offsets are
 * those of the archive.  A member counts as met when its header is in the buffer;
 * its payload need not be.  'is_last' says that the archive, or the part of it that
 * is scanned, ends with this buffer.
 *
 * Returns SS_OK, and scanner->stop is then
 *   SS_TAR_STOP_INPUT          (never if is_last) call again with a buffer that begins at
 *                              or before scanner->offset and ends later than this one;
 *                              SS_TAR_MAX_PREFIX_NBYTES + 1024 bytes always suffice
 *   SS_TAR_STOP_SPACE          call again with the same buffer and larger outputs, or
 *                              with num_members and names_nbytes set back to 0
 *   SS_TAR_STOP_END_BLOCKS     a zero block was met and nothing but zeros follows; unless
 *                              is_last, call again so that what follows is checked too
 *   SS_TAR_STOP_NO_END_BLOCKS  the input ends where a header would begin
 * or, with scanner->problem and scanner->error_offset set,
 *   SS_ERR_TRUNCATED           is_last, and the input ends inside a member
 *   SS_ERR_CHECKSUM            a header's checksum is wrong
 *   SS_ERR_CORRUPT             these bytes are not a tar archive
 *   SS_ERR_UNSUPPORTED         see the head of this file, and the two limits above
 *   SS_ERR_ARGUMENT            the buffer begins after scanner->offset
 * The members met before an error are in the outputs and are sound.
 *
 * Never reads outside 'buffer' nor writes outside the outputs, whatever the bytes.
 * Time is O(number of headers + bytes of extended headers); payloads are not read.
 * About 10 million members/s when they are 512 bytes and in memory.
 */
enum ss_status ss_tar_scan(struct ss_tar_scanner *scanner, const uint8_t *buffer, size_t buffer_nbytes,
			   uint64_t base_offset, int is_last, struct ss_tar_member *members,
			   size_t members_avail, uint8_t *names, size_t names_avail);
/* cffi:end */

#endif

/*
 * tar_format.h - where the fields of a tar header stand, and what they may hold.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * IEEE Std 1003.1-2017, pax, "ustar Interchange Format"; GNU tar manual, "Basic Tar
 * Format".  A header is one block of 512 bytes; text fields end at their first NUL
 * or at their full width.
 */
#ifndef SS_TAR_FORMAT_H
#define SS_TAR_FORMAT_H

#define BLOCK_NBYTES 512u

#define NAME_OFFSET 0
#define NAME_NBYTES 100
#define SIZE_OFFSET 124
#define SIZE_NBYTES 12
#define CHECKSUM_OFFSET 148	/* octal sum of the header's bytes, these 8 taken as spaces */
#define CHECKSUM_NBYTES 8
#define TYPE_OFFSET 156
#define MAGIC_OFFSET 257
#define PREFIX_OFFSET 345	/* only with the magic below; GNU headers keep times there */
#define PREFIX_NBYTES 155

#define USTAR_MAGIC "ustar"	/* with its NUL: 6 bytes; GNU's goes on with a space */
#define USTAR_MAGIC_NBYTES 6

enum {
	TYPE_V7_FILE = '\0',	/* a folder, if the name ends with a slash */
	TYPE_FILE = '0',
	TYPE_HARD_LINK = '1',	/* '1' to '6' have no payload, whatever their size field says */
	TYPE_FIFO = '6',
	TYPE_CONTIGUOUS = '7',
	TYPE_PAX = 'x',		/* records for the next member */
	TYPE_PAX_SOLARIS = 'X',
	TYPE_PAX_GLOBAL = 'g',	/* records for all later members */
	TYPE_GNU_LONG_NAME = 'L',	/* the payload is the next member's name */
	TYPE_GNU_LONG_LINK = 'K',
	TYPE_GNU_SPARSE = 'S',
	TYPE_GNU_CONTINUED = 'M'
};

#endif

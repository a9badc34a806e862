/*
 * tar_name.h - between tar.c and tar_name.c.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SS_TAR_NAME_H
#define SS_TAR_NAME_H

#include "ss_tar.h"

/*
 * ss_tar_split_name() fills name_nbytes, key_nbytes, kind, starts_sample and the hashes
 * of a zeroed 'member' from its header's type and its name, at most
 * SS_TAR_MAX_NAME_NBYTES long, and notes the key in 'scanner' for the next member.
 */
void ss_tar_split_name(struct ss_tar_scanner *scanner, uint8_t type, const uint8_t *name, size_t name_nbytes,
		       struct ss_tar_member *member);

#endif

/*
 * crc32c.h - CRC-32C by each of the ways that machines have.  Private.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef CRC32C_H
#define CRC32C_H

#include "ss_crc32c.h"

/* From the slowest; a machine that has one has all before it. */
enum crc32c_way { CRC32C_PORTABLE, CRC32C_SSE42, CRC32C_AVX512 };

/* crc32c_best_way() returns the fastest that this machine has. */
enum crc32c_way crc32c_best_way(void);

/* crc32c_by() returns what ss_crc32c() does, by no faster way than 'way', which this machine must have. */
uint32_t crc32c_by(enum crc32c_way way, uint32_t crc, const uint8_t *data, size_t data_nbytes);

#endif

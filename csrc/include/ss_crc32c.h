/*
 * ss_crc32c.h - CRC-32C, the checksum of every block.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Polynomial 0x1EDC6F41 (Castagnoli), reflected, initial value and final xor
 * 0xFFFFFFFF: RFC 3720 appendix B.4, as in iSCSI, ext4 and Parquet.
 * Slow twin: crc32c_reference() in tests/twins/crc32c.py.
 */
#ifndef SS_CRC32C_H
#define SS_CRC32C_H

#include "ss_status.h"

/* cffi:begin */
/*
 * ss_crc32c() returns the CRC-32C of the bytes data[0 .. data_nbytes) appended to
 * a message whose CRC-32C so far is 'crc' (0 for none).  'data' may be NULL if
 * data_nbytes is 0.  The instruction set is chosen at run time; all give the same.
 */
uint32_t ss_crc32c(uint32_t crc, const uint8_t *data, size_t data_nbytes);
/* cffi:end */

#endif

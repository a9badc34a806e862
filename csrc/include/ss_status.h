/*
 * ss_status.h - what every function of the library returns.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SS_STATUS_H
#define SS_STATUS_H

#include <stddef.h>
#include <stdint.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "shardstream's formats and its C core are little-endian; this machine is not"
#endif

/* cffi:begin */
enum ss_status {
	SS_OK = 0,
	SS_ERR_NOMEM,		/* an allocation failed */
	SS_ERR_SPACE,		/* an output buffer is too small */
	SS_ERR_ARGUMENT,	/* the caller broke the function's contract */
	SS_ERR_TRUNCATED,	/* the input ends too early */
	SS_ERR_CHECKSUM,	/* a checksum does not match its bytes */
	SS_ERR_CORRUPT,		/* the input breaks its format's rules */
	SS_ERR_UNSUPPORTED,	/* the input is of a kind or version unknown here */
	SS_ERR_RANGE,		/* a value is outside its legal range */
	SS_ERR_DUPLICATE	/* a value that must be unique came twice */
};
/* cffi:end */

#endif

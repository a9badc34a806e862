/*
 * fuzz.h - what a fuzz target is.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_<x>.c defines this one function, as libFuzzer wants it; seeds stand in
 * corpus/<x>/.  It returns 0, or ends the process when something is wrong.
 */
#ifndef SS_FUZZ_H
#define SS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* FUZZ_CHECK() holds what must be true of any input. */
#define FUZZ_CHECK(condition) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
			abort(); \
		} \
	} while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_nbytes);

#endif

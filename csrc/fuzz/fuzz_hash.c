/*
 * ss_hash_texts() on any bytes as text: a value or a located error, rows ascending and
 * distinct, and the same rows when the text is hashed twice as a batch of two.
 *
 * The first 4 bytes choose the options, the encoding, and whether occurrences or signs are summed.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdbool.h>

#include "fuzz.h"
#include "ss_hash.h"

static void
check_rows(const struct ss_hash_options *options, const uint32_t *indices, const int64_t *indptr)
{
	for (size_t row = 0; row < 2; row++)
		for (int64_t i = indptr[row]; i < indptr[row + 1]; i++)
			FUZZ_CHECK(indices[i] < options->dim && (i == indptr[row] || indices[i - 1] < indices[i]));
	FUZZ_CHECK(indptr[2] == 2 * indptr[1]);
	for (int64_t i = 0; i < indptr[1]; i++)
		FUZZ_CHECK(indices[i] == indices[indptr[1] + i]);
}

static void
hash_twice(const struct ss_hash_options *options, bool sign, const uint8_t *text, size_t num_codes)
{
	int64_t offsets[3] = { 0, (int64_t)num_codes, 2 * (int64_t)num_codes }, indptr[3];
	size_t nbytes = options->encoding == SS_HASH_UTF16 ? 2 * num_codes : num_codes;
	struct ss_hash_place place;
	uint64_t bound;
	uint8_t *values = malloc(2 * nbytes + 1);

	FUZZ_CHECK(values != NULL);
	for (size_t i = 0; i < 2 * nbytes; i++)
		values[i] = text[i % nbytes];
	FUZZ_CHECK(ss_hash_texts_bound(options, 2 * num_codes, offsets, 2, &bound, &place) == SS_OK);
	uint32_t *indices = malloc((size_t)bound * 4 + 1);
	int32_t *counts = malloc((size_t)bound * 4 + 1);
	float *sums = malloc((size_t)bound * 4 + 1);
	FUZZ_CHECK(indices != NULL && counts != NULL && sums != NULL);
	enum ss_status status = ss_hash_texts(options, values, 2 * num_codes, offsets, 2, indices,
					      sign ? NULL : counts, sign ? sums : NULL, (size_t)bound, indptr, &place);
	if (status == SS_OK)
		check_rows(options, indices, indptr);
	else
		FUZZ_CHECK(status == SS_ERR_CORRUPT && place.row == 0 && place.offset < num_codes);
	free(values);
	free(indices);
	free(counts);
	free(sums);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_nbytes)
{
	if (data_nbytes < 5)
		return 0;
	struct ss_hash_options options = {
		.dim = data[0] % 2 ? 1u << data[0] % 31 : 1 + data[0] * 8191u,
		.min_n = 1 + data[1] % 4,
		.max_n = 1 + data[1] % 4 + data[1] / 64,
		.unit = data[2] % 3,
		.lowercase = data[3] % 2,
		.encoding = data[3] / 4 % 2,
	};
	size_t num_codes = options.encoding == SS_HASH_UTF16 ? (data_nbytes - 4) / 2 : data_nbytes - 4;
	if (num_codes > 0)
		hash_twice(&options, data[3] / 2 % 2, data + 4, num_codes);
	return 0;
}

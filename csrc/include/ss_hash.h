/*
 * ss_hash.h - feature hashing: texts and feature names to sparse index sets.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Indices and values are scikit-learn's: HashingVectorizer(norm=None) for texts,
 * FeatureHasher for named features.  A feature's hash h is MurmurHash3_x86_32 of
 * its UTF-8 with seed 0 (Appleby, public domain), read as int32; its index is
 * |h| mod dim with |-2^31| = 2^31, and its sign, if signs are used, is that of h.
 * Letter case and word characters are Python's str.lower(), str.isalnum() and
 * str.isspace() of the Unicode version of ss_hash_unicode_version(), whatever
 * interpreter runs: features that are stored must not change with it.
 * Not supported: stop words, accent stripping, other token patterns.
 * Slow twin: tests/twins/hashing.py.
 */
#ifndef SS_HASH_H
#define SS_HASH_H

#include "ss_status.h"

/* cffi:begin */
/* What an n-gram is made of; scikit-learn's 'analyzer'. */
enum ss_hash_unit {
	SS_HASH_WORD = 0,	/* words, the matches of (?u)\b\w\w+\b, joined by one space */
	SS_HASH_CHAR,		/* characters, after runs of 2 or more blanks became one space */
	SS_HASH_CHAR_WB		/* characters of one blank-separated word with a space at both ends */
};

#define SS_HASH_MAX_DIM 2147483647	/* scikit-learn's limit: an index fits int32 */
#define SS_HASH_MAX_N 65535
#define SS_HASH_MAX_TEXT_NBYTES 1073741824	/* 1 GiB, so that positions fit 32 bits after lower-casing */

/* What a text's codes are. */
enum ss_hash_encoding {
	SS_HASH_UTF8 = 0,	/* bytes */
	SS_HASH_UTF16		/* two bytes each, little-endian, at any alignment */
};

struct ss_hash_options {
	uint32_t dim;		/* 1 .. SS_HASH_MAX_DIM */
	uint32_t min_n;		/* shortest and longest n-gram, */
	uint32_t max_n;		/* 1 <= min_n <= max_n <= SS_HASH_MAX_N */
	uint32_t unit;		/* enum ss_hash_unit */
	uint32_t lowercase;	/* not 0: str.lower() first */
	uint32_t encoding;	/* enum ss_hash_encoding */
};

/* Where a batch is wrong: a row, and a code of it if the row is not well-formed. */
struct ss_hash_place {
	uint64_t row;
	uint64_t offset;
};

/* ss_hash_unicode_version() returns the tables' version as major << 16 | minor << 8 | patch. */
uint32_t ss_hash_unicode_version(void);

/*
 * ss_hash_murmur3() returns MurmurHash3_x86_32 of data[0 .. data_nbytes), at most
 * 2^31 - 1 bytes, with the given seed.
 */
uint32_t ss_hash_murmur3(const uint8_t *data, size_t data_nbytes, uint32_t seed);

/*
 * ss_hash_texts_bound() puts into *bound_ret how much room for indices
 * ss_hash_texts() wants for these texts, whatever their bytes are (UINT64_MAX if that does
 * not fit), and checks all that ss_hash_texts() asks of options and offsets.
 *
 * Reads offsets[0 .. num_texts]: text i is the codes [offsets[i], offsets[i + 1]) of a
 * buffer of num_codes.
 *
 * Returns SS_OK, or
 *   SS_ERR_ARGUMENT  an option is out of its range
 *   SS_ERR_RANGE     text place->row has offsets that descend or leave the buffer,
 *                    or more than SS_HASH_MAX_TEXT_NBYTES
 */
enum ss_status
ss_hash_texts_bound(const struct ss_hash_options *options, size_t num_codes, const int64_t *offsets, size_t num_texts,
		    uint64_t *bound_ret, struct ss_hash_place *place_ret);

/*
 * ss_hash_texts() hashes the n-grams of num_texts texts, laid out as above, into rows of
 * ascending distinct indices: row i is indices[indptr[i] .. indptr[i + 1]).
 *
 * Writes indptr[0 .. num_texts], and for each index its number of occurrences into
 * counts, or the sum of their signs into sums; one of the two, or both, are NULL.
 * An index whose signs cancel stays, with the sum 0, as in scikit-learn.  sums are exact
 * up to 2^24.  All three have room for indices_avail elements, and what they hold after
 * the last index is undefined.
 *
 * Returns SS_OK, or what ss_hash_texts_bound() returns, or
 *   SS_ERR_CORRUPT   text place->row is not well-formed from code place->offset of it
 *                    on (no overlong form, lone surrogate or more than U+10FFFF is)
 *   SS_ERR_RANGE     also if text place->row has more than 2^31 - 1 n-grams
 *   SS_ERR_SPACE     indices_avail is too small; never if it is the bound or more
 *   SS_ERR_NOMEM     no scratch memory: about 4 bytes per byte of the longest text
 *                    and 8 per n-gram in it
 * The outputs are undefined on error.
 *
 * Keeps nothing, so threads may share the inputs.  Time is linear in the bytes and
 * in the bytes of all n-grams of length max_n, for any text.
 */
enum ss_status
ss_hash_texts(const struct ss_hash_options *options, const uint8_t *values, size_t num_codes, const int64_t *offsets,
	      size_t num_texts, uint32_t *indices, int32_t *counts, float *sums, size_t indices_avail, int64_t *indptr,
	      struct ss_hash_place *place_ret);

/*
 * ss_hash_names() hashes named features into rows of ascending distinct indices, as scikit-learn's
 * FeatureHasher does with pairs of name and value.
 *
 * Feature f has the name names[name_offsets[f] .. name_offsets[f + 1]) of a buffer of names_nbytes and the
 * value values[f] (1 if values is NULL); a feature of value 0 is left out.  Row r has the features
 * [row_offsets[r], row_offsets[r + 1]), where row_offsets[0] is 0.
 *
 * Writes indptr[0 .. num_rows] and for each index the sum, in double precision and in the features' order, of
 * their values, with the sign of their hash if alternate_sign is not 0.  A sum of 0 stays.  indices and sums
 * have room for row_offsets[num_rows] elements.
 *
 * Returns SS_OK, or
 *   SS_ERR_ARGUMENT  dim is not in 1 .. SS_HASH_MAX_DIM
 *   SS_ERR_RANGE     row place->row has offsets that descend or leave the buffer, or a name or a
 *                    number of features of 2^31 or more
 *   SS_ERR_NOMEM     no scratch memory: 16 bytes a feature of the longest row
 *
 * Names may be any bytes.  Time is linear in the bytes of all names.
 */
enum ss_status
ss_hash_names(uint32_t dim, uint32_t alternate_sign, const uint8_t *names, size_t names_nbytes,
	      const int64_t *name_offsets, const double *values, const int64_t *row_offsets, size_t num_rows,
	      uint32_t *indices, float *sums, int64_t *indptr, struct ss_hash_place *place_ret);
/* cffi:end */

#endif

/*
 * SPDX-License-Identifier: Apache-2.0
 */
#include "../lib/hash_internal.h"
#include "../lib/unicode_words.h"
#include "test.h"

#define DIM (1u << 20)

/* What ss_hash_texts() gives for one text. */
struct row {
	enum ss_status status;
	struct ss_hash_place place;
	size_t num;
	uint32_t indices[4096];
	int32_t counts[4096];
};

static struct ss_hash_options
words(uint32_t min_n, uint32_t max_n)
{
	return (struct ss_hash_options){ .dim = DIM, .min_n = min_n, .max_n = max_n, .unit = SS_HASH_WORD, .lowercase = 1 };
}

static uint32_t
index_of(const char *feature, uint32_t dim)
{
	uint32_t h = ss_hash_murmur3((const uint8_t *)feature, strlen(feature), 0);
	return (h >> 31 ? 0u - h : h) % dim;
}

/* Hashes a text that ends where an inaccessible page begins, into outputs of exactly the bound that do so too. */
static struct row
hash_guarded(const struct ss_hash_options *options, const void *text, size_t nbytes)
{
	static struct row row;
	size_t num_codes = options->encoding == SS_HASH_UTF16 ? nbytes / 2 : nbytes;
	int64_t offsets[2] = { 0, (int64_t)num_codes }, indptr[2] = { 0, 0 };
	uint8_t *values = guarded_copy(text, nbytes);
	uint64_t bound;

	row.status = ss_hash_texts_bound(options, num_codes, offsets, 1, &bound, &row.place);
	CHECK_EQ(row.status, SS_OK);
	size_t avail = (size_t)bound, out_nbytes = avail * 4;
	uint32_t *indices = (uint32_t *)(void *)guarded_alloc(out_nbytes);
	int32_t *counts = (int32_t *)(void *)guarded_alloc(out_nbytes);
	float *sums = (float *)(void *)guarded_alloc(out_nbytes);
	row.status = ss_hash_texts(options, values, num_codes, offsets, 1, indices, counts, NULL, avail, indptr,
				   &row.place);
	row.num = row.status == SS_OK ? (size_t)indptr[1] : 0;
	CHECK(row.num <= avail && row.num <= 4096);
	CHECK_EQ(ss_hash_texts(options, values, num_codes, offsets, 1, indices, NULL, sums, avail, indptr, &row.place),
		 row.status);
	CHECK(row.status != SS_OK || row.num == (size_t)indptr[1]);
	for (size_t i = 0; i < row.num; i++) {
		row.indices[i] = indices[i];
		row.counts[i] = counts[i];
		CHECK(indices[i] < options->dim && (i == 0 || indices[i - 1] < indices[i]));
		CHECK(counts[i] > 0 && sums[i] <= (float)counts[i] && sums[i] >= -(float)counts[i]);
	}
	guarded_free((uint8_t *)indices, out_nbytes);
	guarded_free((uint8_t *)counts, out_nbytes);
	guarded_free((uint8_t *)sums, out_nbytes);
	guarded_free(values, nbytes);
	return row;
}

static int32_t
count_of(const struct row *row, const char *feature)
{
	for (size_t i = 0; i < row->num; i++)
		if (row->indices[i] == index_of(feature, DIM))
			return row->counts[i];
	return 0;
}

static void
counts_lower_cased_words_and_pairs(void)
{
	const char *text = "The cat, the CAT; a dog_1\n\xC3\x84pfel x";
	struct ss_hash_options options = words(1, 2);
	struct row row = hash_guarded(&options, text, strlen(text));

	CHECK_EQ(row.num, 8);
	CHECK_EQ(count_of(&row, "the"), 2);
	CHECK_EQ(count_of(&row, "cat"), 2);
	CHECK_EQ(count_of(&row, "dog_1"), 1);
	CHECK_EQ(count_of(&row, "\xC3\xA4pfel"), 1);
	CHECK_EQ(count_of(&row, "the cat"), 2);
	CHECK_EQ(count_of(&row, "cat the"), 1);
	CHECK_EQ(count_of(&row, "cat dog_1"), 1);
	CHECK_EQ(count_of(&row, "dog_1 \xC3\xA4pfel"), 1);
}

/* Words of any length wherever they stand in the groups of 64 bytes that are marked together. */
static void
finds_words_wherever_they_stand(void)
{
	struct ss_hash_options options = words(1, 1);
	char text[400];

	for (size_t begin = 0; begin < 130; begin++)
		for (size_t nbytes = 2; nbytes < 150; nbytes += nbytes < 6 ? 1 : 31) {
			char word[160] = "";

			memset(text, ' ', begin);
			memset(text + begin, 'w', nbytes);
			memset(word, 'w', nbytes);
			memcpy(text + begin + nbytes, " end", 4);
			struct row row = hash_guarded(&options, text, begin + nbytes + 4);
			CHECK_EQ(row.num, 2);
			CHECK_EQ(count_of(&row, word), 1);
			CHECK_EQ(count_of(&row, "end"), 1);
		}
}

/* Every length around blocks of 16 and 64 bytes, with a word, a pair of words, and wide characters at the end. */
static void
reads_no_byte_beyond_a_text_of_any_length(void)
{
	static const char *const ends[] = { "", " ", "a", " ab", "\xC3\x84", "\xE4\xB8\xAD", "\xF0\x9F\x98\x80", "\xCE\xA3" };
	char text[256];

	for (uint32_t unit = SS_HASH_WORD; unit <= SS_HASH_CHAR_WB; unit++) {
		struct ss_hash_options options = words(1, 3);
		options.unit = unit;
		for (size_t nbytes = 0; nbytes < 200; nbytes++) {
			for (size_t e = 0; e < sizeof(ends) / sizeof(ends[0]); e++) {
				for (size_t i = 0; i < nbytes; i++)
					text[i] = i % 7 == 6 ? ' ' : (char)('A' + i % 26);
				memcpy(text + nbytes, ends[e], strlen(ends[e]));
				CHECK_EQ(hash_guarded(&options, text, nbytes + strlen(ends[e])).status, SS_OK);
			}
		}
	}
}

/* The same text in both encodings, of every length around a batch of 8 and 16 codes, ends at a guard page. */
static void
utf16_gives_the_rows_of_utf8(void)
{
	static const uint16_t codes[] = { 'A', 0x416, ' ', 0x4E2D, 0x65E5, 0x672C, 0x3042, 'b', 0xC4, 0x3A3, 0x2C, 0x130, 0x23A };
	enum { NUM = sizeof(codes) / sizeof(codes[0]) };
	uint8_t utf8[256], utf16[160];

	for (size_t run = 1; run < 10; run++) {
		size_t nbytes = 0;
		for (size_t i = 0; i < 80; i++) {
			uint16_t c = codes[i / run % NUM];
			struct ss_hash_options options = words(1, 2);
			utf16[2 * i] = (uint8_t)c;
			utf16[2 * i + 1] = (uint8_t)(c >> 8);
			nbytes += utf8_encode(utf8 + nbytes, c);
			struct row expected = hash_guarded(&options, utf8, nbytes);
			options.encoding = SS_HASH_UTF16;
			struct row row = hash_guarded(&options, utf16, 2 * (i + 1));
			CHECK_EQ(row.num, expected.num);
			CHECK_EQ(memcmp(row.indices, expected.indices, 4 * row.num), 0);
			CHECK_EQ(memcmp(row.counts, expected.counts, 4 * row.num), 0);
		}
	}
}

static void
names_the_first_byte_that_is_not_utf8(void)
{
	static const char *const bad[] = {
		"\x80", "\xC0\x80", "\xC1\xBF", "\xC3", "\xC3(", "\xE0\x80\x80", "\xE4\xB8", "\xED\xA0\x80", "\xED\xBF\xBF",
		"\xF0\x80\x80\x80", "\xF0\x9F\x98", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF",
	};
	char text[128];

	for (size_t b = 0; b < sizeof(bad) / sizeof(bad[0]); b++) {
		for (size_t nbytes = 0; nbytes < 70; nbytes++) {
			struct ss_hash_options options = words(1, 1);
			memset(text, 'a', nbytes);
			memcpy(text + nbytes, bad[b], strlen(bad[b]));
			struct row row = hash_guarded(&options, text, nbytes + strlen(bad[b]));
			CHECK_EQ(row.status, SS_ERR_CORRUPT);
			CHECK_EQ(row.place.row, 0);
			CHECK_EQ(row.place.offset, nbytes);
		}
	}
}

static void
refuses_what_breaks_its_contract(void)
{
	struct ss_hash_options good = words(1, 1), bad;
	struct ss_hash_place place;
	int64_t offsets[3] = { 0, 2, 1 };
	uint64_t bound;

	bad = good, bad.dim = 0;
	CHECK_EQ(ss_hash_texts_bound(&bad, 2, offsets, 1, &bound, &place), SS_ERR_ARGUMENT);
	bad = good, bad.dim = 0x80000000u;
	CHECK_EQ(ss_hash_texts_bound(&bad, 2, offsets, 1, &bound, &place), SS_ERR_ARGUMENT);
	bad = good, bad.min_n = 2;
	CHECK_EQ(ss_hash_texts_bound(&bad, 2, offsets, 1, &bound, &place), SS_ERR_ARGUMENT);
	bad = good, bad.unit = 3;
	CHECK_EQ(ss_hash_texts_bound(&bad, 2, offsets, 1, &bound, &place), SS_ERR_ARGUMENT);
	CHECK_EQ(ss_hash_texts_bound(&good, 2, offsets, 2, &bound, &place), SS_ERR_RANGE);
	CHECK_EQ(place.row, 1);
	CHECK_EQ(ss_hash_texts_bound(&good, 1, offsets, 1, &bound, &place), SS_ERR_RANGE);
}

static void
says_when_the_outputs_are_too_small(void)
{
	struct ss_hash_options options = words(1, 1);
	struct ss_hash_place place;
	int64_t offsets[2] = { 0, 8 }, indptr[2];
	uint32_t *indices = (uint32_t *)(void *)guarded_alloc(8);

	CHECK_EQ(ss_hash_texts(&options, (const uint8_t *)"ab cd ef", 8, offsets, 1, indices, NULL, NULL, 2, indptr, &place),
		 SS_ERR_SPACE);
	CHECK_EQ(ss_hash_texts(&options, (const uint8_t *)"ab ab cd", 8, offsets, 1, indices, NULL, NULL, 2, indptr, &place),
		 SS_ERR_SPACE);
	guarded_free((uint8_t *)indices, 8);
}

#define NUM_HASHES 8000

/* hash_reduce() of hashes that the caller chooses, and the steps it took. */
static size_t
reduce(uint32_t (*hash_of)(size_t), uint32_t *indices, int32_t *counts, size_t *num_steps_ret)
{
	static uint32_t hashes[2 * NUM_HASHES], keys[2 * HASH_TABLE_MAX_KEYS + HASH_TABLE_SLACK];
	static int32_t weights[2 * HASH_TABLE_MAX_KEYS + HASH_TABLE_SLACK];
	struct hash_scratch s = { .hashes = hashes, .hashes_spare = hashes + NUM_HASHES, .hashes_avail = NUM_HASHES };
	struct hash_row row = { indices, counts, NULL };

	s.table = (struct hash_table){ .keys = keys, .weights = weights };
	for (size_t i = 0; i < NUM_HASHES; i++)
		hashes[i] = hash_of(i);
	size_t num = hash_reduce(&s, NUM_HASHES, DIM, row);
	*num_steps_ret = s.table.num_steps;
	return num;
}

static uint32_t
of_one_home_slot(size_t i)
{
	return (uint32_t)(i * 7919 % NUM_HASHES);
}

static uint32_t
of_one_index(size_t i)
{
	return (uint32_t)(i % 2 * DIM + 5);
}

static uint32_t
of_any(size_t i)
{
	uint64_t state = i;
	return (uint32_t)test_random(&state);
}

/* Distinct indices in a small part of the range would make a run of thousands of slots. */
static void
hashes_made_to_collide_cost_linear_steps(void)
{
	static uint32_t indices[NUM_HASHES + HASH_ROW_SLACK];
	static int32_t counts[NUM_HASHES + HASH_ROW_SLACK];
	size_t num_steps;

	CHECK_EQ(reduce(of_one_home_slot, indices, counts, &num_steps), NUM_HASHES);
	CHECK(num_steps <= 8 * NUM_HASHES);
	for (size_t i = 0; i < NUM_HASHES; i++)
		CHECK(indices[i] == i && counts[i] == 1);
	CHECK_EQ(reduce(of_one_index, indices, counts, &num_steps), 1);
	CHECK(indices[0] == 5 && counts[0] == NUM_HASHES && num_steps == 0);
	CHECK(reduce(of_any, indices, counts, &num_steps) > NUM_HASHES * 9 / 10);
	CHECK(num_steps > 0 && num_steps < NUM_HASHES);
}

/* 100 features on 3 indices, so that the row is long enough for the radix sort; names end at a guard page. */
static void
sums_named_features_by_index(void)
{
	enum { NUM = 100 };
	char text[3] = "";
	uint8_t *names = guarded_alloc(2 * NUM);
	int64_t name_offsets[NUM + 1], row_offsets[] = { 0, 2, NUM }, indptr[3];
	double values[NUM], expected[3] = { 0, 0, 0 };
	uint32_t *indices = (uint32_t *)(void *)guarded_alloc(4 * NUM);
	float *sums = (float *)(void *)guarded_alloc(4 * NUM);
	struct ss_hash_place place;

	for (int i = 0; i < NUM; i++) {
		text[0] = (char)('0' + i / 10);
		text[1] = (char)('0' + i % 10);
		memcpy(names + 2 * i, text, 2);
		name_offsets[i] = 2 * i;
		values[i] = i % 10;
		if (i >= 2)
			expected[index_of(text, 3)] += values[i];
	}
	name_offsets[NUM] = 2 * NUM;
	CHECK_EQ(ss_hash_names(3, 0, names, 2 * NUM, name_offsets, values, row_offsets, 2, indices, sums, indptr, &place), SS_OK);
	CHECK_EQ(indptr[1], 1);	/* the first of two features has the value 0 */
	CHECK_EQ(indptr[2], 4);
	for (uint32_t i = 0; i < 3; i++)
		CHECK(indices[1 + i] == i && (double)sums[1 + i] == expected[i]);
	name_offsets[50] = 2 * NUM + 1;
	CHECK_EQ(ss_hash_names(3, 0, names, 2 * NUM, name_offsets, values, row_offsets, 2, indices, sums, indptr, &place),
		 SS_ERR_RANGE);
	CHECK_EQ(place.row, 1);
	CHECK_EQ(ss_hash_names(0, 0, names, 2 * NUM, name_offsets, values, row_offsets, 2, indices, sums, indptr, &place),
		 SS_ERR_ARGUMENT);
	guarded_free(names, 2 * NUM);
	guarded_free((uint8_t *)indices, 4 * NUM);
	guarded_free((uint8_t *)sums, 4 * NUM);
}

int
main(void)
{
	sums_named_features_by_index();
	hashes_made_to_collide_cost_linear_steps();
	counts_lower_cased_words_and_pairs();
	finds_words_wherever_they_stand();
	reads_no_byte_beyond_a_text_of_any_length();
	utf16_gives_the_rows_of_utf8();
	names_the_first_byte_that_is_not_utf8();
	refuses_what_breaks_its_contract();
	says_when_the_outputs_are_too_small();
	return 0;
}

/*
 * SPDX-License-Identifier: Apache-2.0
 */
#include "ss_pretok.h"
#include "test.h"

static const char *const parts[] = {
	"a", "B", "the ", "don't", "'LL", " ", "  ", "\n", "\r\n", "\t", "1", "234", ".", "...\n", " (", "/", "'",
	"\xC3\xA9", "\xC5\xBF", "\xE4\xB8\xAD", "\xCC\x81", "\xF0\x9F\x99\x82", "\xEF\xBC\x8C", "\xC2\xA0",
	"\xFF", "\xC3", "\xE4\xB8", "\xF0\x9F", "\xED\xA0\x80", "\xF5\x80\x80\x80",
};

static size_t
random_text(uint64_t *seed, uint8_t *text, size_t text_avail)
{
	size_t nbytes = 0, num_parts = test_random(seed) % 60;

	for (size_t i = 0; i < num_parts; i++) {
		const char *part = parts[test_random(seed) % (sizeof(parts) / sizeof(parts[0]))];
		if (nbytes + strlen(part) > text_avail)
			break;
		memcpy(text + nbytes, part, strlen(part));
		nbytes += strlen(part);
	}
	return nbytes;
}

/* Texts that end where the page does, cut anywhere, also inside characters. */
static void
pieces_tile_any_text_and_nothing_else_is_read(void)
{
	uint8_t buffer[400];
	uint32_t ends[400];
	uint64_t seed = 1;

	for (int round = 0; round < 20000; round++) {
		size_t nbytes = random_text(&seed, buffer, sizeof(buffer)), num = 0;
		unsigned pattern = (unsigned)(test_random(&seed) % SS_PRETOK_NUM_PATTERNS);
		if (nbytes > 0)
			nbytes -= test_random(&seed) % 2;
		uint8_t *text = guarded_copy(buffer, nbytes);

		CHECK_EQ(ss_pretok_split(pattern, text, nbytes, ends, nbytes, &num), SS_OK);
		for (size_t i = 0; i < num; i++)
			CHECK(ends[i] > (i > 0 ? ends[i - 1] : 0));
		CHECK_EQ(num > 0 ? ends[num - 1] : 0, nbytes);
		guarded_free(text, nbytes);
	}
}

static void
check_ends(unsigned pattern, const char *text, const uint32_t *expected, size_t num_expected)
{
	uint32_t ends[100];
	size_t num;

	CHECK_EQ(ss_pretok_split(pattern, (const uint8_t *)text, strlen(text), ends, 100, &num), SS_OK);
	CHECK_EQ(num, num_expected);
	for (size_t i = 0; i < num; i++)
		CHECK_EQ(ends[i], expected[i]);
}

static void
cuts_the_examples_of_the_patterns(void)
{
	check_ends(SS_PRETOK_GPT2, "it's 2024  ok", (const uint32_t[]){2, 4, 9, 10, 13}, 5);
	check_ends(SS_PRETOK_CL100K, "(it'S) 2024\n\n x", (const uint32_t[]){3, 5, 6, 7, 10, 11, 13, 15}, 8);
	check_ends(SS_PRETOK_QWEN2, "a12", (const uint32_t[]){1, 2, 3}, 3);
	check_ends(SS_PRETOK_O200K, "iPhone's HTTPServer./\n/x", (const uint32_t[]){1, 8, 19, 23, 24}, 5);
	check_ends(SS_PRETOK_LLAMA3, "foo\n  ", (const uint32_t[]){3, 4, 6}, 3);
	check_ends(SS_PRETOK_CL100K, "foo\n  ", (const uint32_t[]){3, 6}, 2);
	check_ends(SS_PRETOK_WHOLE, "a b", (const uint32_t[]){3}, 1);
}

static void
refuses_what_the_contract_excludes(void)
{
	uint32_t ends[4];
	size_t num = 9;

	CHECK_EQ(ss_pretok_split(SS_PRETOK_NUM_PATTERNS, (const uint8_t *)"a", 1, ends, 4, &num), SS_ERR_ARGUMENT);
	CHECK_EQ(num, 0);
	CHECK_EQ(ss_pretok_split(SS_PRETOK_GPT2, (const uint8_t *)"abc", 3, ends, 2, &num), SS_ERR_SPACE);
	CHECK_EQ(ss_pretok_split(SS_PRETOK_GPT2, NULL, SS_PRETOK_MAX_TEXT_NBYTES + (size_t)1, ends, 4, &num), SS_ERR_RANGE);
	CHECK_EQ(ss_pretok_split(SS_PRETOK_GPT2, NULL, 0, ends, 0, &num), SS_OK);
	CHECK_EQ(num, 0);
}

int
main(void)
{
	pieces_tile_any_text_and_nothing_else_is_read();
	cuts_the_examples_of_the_patterns();
	refuses_what_the_contract_excludes();
	return 0;
}

/*
 * A vocabulary and a text from any bytes: encoding gives the ids that merging pair by
 * pair gives, and decoding gives the text back.
 *
 * Byte 0 chooses the number of tokens, byte 1 whether ids are ranks, in which order,
 * whole pieces, and the letters; two bytes a token name its halves among the tokens before it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "fuzz.h"
#include "ss_bpe.h"
#include "ss_pretok.h"

#define MAX_EXTRA 64
#define MAX_TOKEN_NBYTES 24
#define MAX_TEXT_NBYTES 96
#define NUM_LETTERS 4

/* A few letters, so that merges meet: one byte a character, or bytes that together are characters of three. */
static const uint8_t alphabets[2][NUM_LETTERS] = { { 'a', 'b', 'c', 'd' }, { 0xE3, 0xE4, 0x81, 0xBF } };

struct token {
	uint8_t bytes[MAX_TOKEN_NBYTES];
	size_t nbytes;
};

struct vocab {
	struct token tokens[256 + MAX_EXTRA];	/* by id */
	size_t num_tokens;
	uint32_t merges[2 * MAX_EXTRA];
	size_t num_merges;
	int by_rank, whole_piece;
	const uint8_t *letters;
};

static size_t
find_token(const struct vocab *v, const uint8_t *bytes, size_t nbytes)
{
	for (size_t id = 0; id < v->num_tokens; id++)
		if (v->tokens[id].nbytes == nbytes && memcmp(v->tokens[id].bytes, bytes, nbytes) == 0)
			return id;
	return SIZE_MAX;
}

static size_t
join(const struct vocab *v, size_t left, size_t right, uint8_t *bytes)
{
	memcpy(bytes, v->tokens[left].bytes, v->tokens[left].nbytes);
	memcpy(bytes + v->tokens[left].nbytes, v->tokens[right].bytes, v->tokens[right].nbytes);
	return v->tokens[left].nbytes + v->tokens[right].nbytes;
}

/* A letter, or a token made of them. */
static size_t
choose(const struct vocab *v, uint8_t choice)
{
	size_t i = choice % (NUM_LETTERS + v->num_tokens - 256);

	return i < NUM_LETTERS ? v->letters[i] : 256 - NUM_LETTERS + i;
}

static void
add_merge(struct vocab *v, uint8_t a, uint8_t b)
{
	size_t left = choose(v, a), right = choose(v, b);
	struct token token;

	if (v->tokens[left].nbytes + v->tokens[right].nbytes > MAX_TOKEN_NBYTES)
		return;
	for (size_t i = 0; i < v->num_merges; i++)
		if (v->merges[2 * i] == left && v->merges[2 * i + 1] == right)
			return;
	token.nbytes = join(v, left, right, token.bytes);
	if (find_token(v, token.bytes, token.nbytes) == SIZE_MAX)
		v->tokens[v->num_tokens++] = token;
	v->merges[2 * v->num_merges] = (uint32_t)left;
	v->merges[2 * v->num_merges++ + 1] = (uint32_t)right;
}

/* Turns the order of the tokens around: then halves have higher ranks than what they make. */
static void
reverse_ranks(struct vocab *v)
{
	for (size_t i = 256, k = v->num_tokens - 1; i < k; i++, k--) {
		struct token token = v->tokens[i];
		v->tokens[i] = v->tokens[k];
		v->tokens[k] = token;
	}
}

/* The rank of a pair, or SIZE_MAX, and the token it makes. */
static size_t
rank_of(const struct vocab *v, size_t left, size_t right, size_t *made)
{
	uint8_t bytes[2 * MAX_TOKEN_NBYTES];

	*made = find_token(v, bytes, join(v, left, right, bytes));
	if (v->by_rank)
		return *made;
	for (size_t i = 0; i < v->num_merges; i++)
		if (v->merges[2 * i] == left && v->merges[2 * i + 1] == right)
			return i;
	return SIZE_MAX;
}

static size_t
merge_slowly(const struct vocab *v, const uint8_t *text, size_t n, size_t *ids)
{
	if (v->whole_piece && n > 0 && n <= MAX_TOKEN_NBYTES && (ids[0] = find_token(v, text, n)) != SIZE_MAX)
		return 1;
	for (size_t i = 0; i < n; i++)
		ids[i] = text[i];
	for (;; n--) {
		size_t best = SIZE_MAX, place = 0, best_made = 0, made;
		for (size_t i = 0; i + 1 < n; i++) {
			size_t rank = rank_of(v, ids[i], ids[i + 1], &made);
			if (rank < best) {
				best = rank;
				place = i;
				best_made = made;
			}
		}
		if (best == SIZE_MAX)
			return n;
		ids[place] = best_made;
		memmove(ids + place + 1, ids + place + 2, (n - place - 2) * sizeof(*ids));
	}
}

static ss_bpe *
new_bpe(const struct vocab *v)
{
	uint8_t kinds[256 + MAX_EXTRA], bytes[sizeof(v->tokens)];
	int64_t offsets[257 + MAX_EXTRA] = { 0 };
	struct ss_bpe_vocab vocab = { kinds, bytes, offsets, v->num_tokens, v->by_rank ? NULL : v->merges, v->num_merges,
				      SS_PRETOK_WHOLE, (uint32_t)v->whole_piece };
	uint64_t place;
	ss_bpe *bpe;

	if (v->by_rank)
		vocab.num_merges = 0;
	for (size_t id = 0; id < v->num_tokens; id++) {
		kinds[id] = SS_BPE_TOKEN;
		memcpy(bytes + offsets[id], v->tokens[id].bytes, v->tokens[id].nbytes);
		offsets[id + 1] = offsets[id] + (int64_t)v->tokens[id].nbytes;
	}
	FUZZ_CHECK(ss_bpe_new(&vocab, &bpe, &place) == SS_OK);
	return bpe;
}

static void
check_text(const struct vocab *v, const uint8_t *text, size_t nbytes)
{
	ss_bpe *bpe = new_bpe(v);
	ss_bpe_scratch *scratch = ss_bpe_scratch_new(bpe);
	uint32_t ids[MAX_TEXT_NBYTES + SS_BPE_IDS_SLACK];
	size_t expected[MAX_TEXT_NBYTES + 1], num = merge_slowly(v, text, nbytes, expected), decoded_nbytes;
	int64_t offsets[2] = { 0, (int64_t)nbytes }, id_offsets[2];
	uint8_t decoded[MAX_TEXT_NBYTES];
	uint64_t place;

	for (int round = 0; round < 2; round++) {
		FUZZ_CHECK(ss_bpe_encode(scratch, text, nbytes, offsets, 1, ids, nbytes + SS_BPE_IDS_SLACK, id_offsets,
					 &place) == SS_OK);
		FUZZ_CHECK((size_t)id_offsets[1] == num);
		for (size_t i = 0; i < num; i++)
			FUZZ_CHECK(ids[i] == expected[i]);
	}
	FUZZ_CHECK(ss_bpe_decoded_nbytes(bpe, ids, num, &decoded_nbytes) == SS_OK && decoded_nbytes == nbytes);
	ss_bpe_decode(bpe, ids, num, decoded);
	FUZZ_CHECK(memcmp(decoded, text, nbytes) == 0);
	ss_bpe_scratch_free(scratch);
	ss_bpe_free(bpe);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_nbytes)
{
	static struct vocab v;
	uint8_t text[MAX_TEXT_NBYTES];

	if (data_nbytes < 2 || data_nbytes < 2 + 2 * (size_t)(data[0] % MAX_EXTRA))
		return 0;
	v.num_tokens = 256;
	v.num_merges = 0;
	v.by_rank = data[1] & 1;
	v.whole_piece = data[1] >> 1 & 1;
	v.letters = alphabets[data[1] >> 4 & 1];
	for (size_t id = 0; id < 256; id++)
		v.tokens[id] = (struct token){ .bytes = { (uint8_t)id }, .nbytes = 1 };
	for (size_t i = 0; i < data[0] % MAX_EXTRA; i++)
		add_merge(&v, data[2 + 2 * i], data[3 + 2 * i]);
	if (v.by_rank && (data[1] >> 2 & 1))
		reverse_ranks(&v);
	size_t begin = 2 + 2 * (size_t)(data[0] % MAX_EXTRA), nbytes = data_nbytes - begin;
	if (nbytes > MAX_TEXT_NBYTES)
		nbytes = MAX_TEXT_NBYTES;
	for (size_t i = 0; i < nbytes; i++)
		text[i] = data[1] & 8 ? data[begin + i] : v.letters[data[begin + i] % NUM_LETTERS];
	check_text(&v, text, nbytes);
	return 0;
}

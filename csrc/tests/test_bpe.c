/*
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdbool.h>

#include "../lib/bpe_news.h"
#include "ss_bpe.h"
#include "ss_pretok.h"
#include "test.h"

#define NUM_EXTRA 6
#define NUM_IDS (256 + NUM_EXTRA + 2)
#define END_ID (NUM_IDS - 1)

/* Bytes, then tokens by rank, an unused id, and a special token. */
static const char *const extra[NUM_EXTRA] = { "ab", "abc", "he", "ll", "hell", "hello" };

struct tokens {
	uint8_t kinds[NUM_IDS], bytes[512];
	int64_t offsets[NUM_IDS + 1];
	struct ss_bpe_vocab vocab;
};

static void
add_token(struct tokens *t, size_t id, uint8_t kind, const void *bytes, size_t nbytes)
{
	t->kinds[id] = kind;
	memcpy(t->bytes + t->offsets[id], bytes, nbytes);
	t->offsets[id + 1] = t->offsets[id] + (int64_t)nbytes;
}

static void
begin_tokens(struct tokens *t)
{
	memset(t, 0, sizeof(*t));
	for (size_t id = 0; id < 256; id++)
		add_token(t, id, SS_BPE_TOKEN, &(uint8_t){ (uint8_t)id }, 1);
	for (size_t i = 0; i < NUM_EXTRA; i++)
		add_token(t, 256 + i, SS_BPE_TOKEN, extra[i], strlen(extra[i]));
	add_token(t, END_ID - 1, SS_BPE_UNUSED, "", 0);
	add_token(t, END_ID, SS_BPE_SPECIAL, "<end>", 5);
	t->vocab = (struct ss_bpe_vocab){ t->kinds, t->bytes, t->offsets, NUM_IDS, NULL, 0, SS_PRETOK_O200K, 0 };
}

static ss_bpe *
new_bpe(void)
{
	struct tokens t;
	uint64_t place;
	ss_bpe *bpe;

	begin_tokens(&t);
	CHECK_EQ(ss_bpe_new(&t.vocab, &bpe, &place), SS_OK);
	return bpe;
}

static void
encodes_and_decodes_a_batch(void)
{
	static const uint32_t expected[] = { 261, 32, 257, 256, 259, 33 };	/* hello| |abc | ab|ll|! */
	const int64_t offsets[] = { 0, 9, 9, 14 };
	int64_t id_offsets[4];
	ss_bpe *bpe = new_bpe();
	ss_bpe_scratch *scratch = ss_bpe_scratch_new(bpe);
	uint32_t ids[14 + SS_BPE_IDS_SLACK];
	uint8_t bytes[20];
	uint64_t place;
	size_t nbytes;

	CHECK_EQ(ss_bpe_encode(scratch, (const uint8_t *)"hello abcabll!", 14, offsets, 3, ids, sizeof(ids) / 4, id_offsets,
			       &place), SS_OK);
	CHECK_EQ(id_offsets[0], 0);
	CHECK_EQ(id_offsets[1], 3);
	CHECK_EQ(id_offsets[2], 3);
	CHECK_EQ(id_offsets[3], 6);
	for (size_t i = 0; i < 6; i++)
		CHECK_EQ(ids[i], expected[i]);
	ids[6] = END_ID;
	CHECK_EQ(ss_bpe_decoded_nbytes(bpe, ids, 7, &nbytes), SS_OK);
	CHECK_EQ(nbytes, 19);
	ss_bpe_decode(bpe, ids, 7, bytes);
	CHECK(memcmp(bytes, "hello abcabll!<end>", 19) == 0);
	ids[3] = END_ID - 1;
	CHECK_EQ(ss_bpe_decoded_nbytes(bpe, ids, 7, &nbytes), SS_ERR_RANGE);
	CHECK_EQ(nbytes, 3);
	CHECK(ss_bpe_scratch_steps(scratch) > 0);
	ss_bpe_scratch_free(scratch);
	ss_bpe_free(bpe);
}

/* Random bytes of every length that end where the page does, with ids that do, too. */
static void
any_bytes_come_back_and_nothing_else_is_touched(void)
{
	ss_bpe *bpe = new_bpe();
	ss_bpe_scratch *scratch = ss_bpe_scratch_new(bpe);
	uint64_t seed = 7, place;

	for (size_t nbytes = 0; nbytes < 600; nbytes++) {
		size_t ids_nbytes = (nbytes + SS_BPE_IDS_SLACK) * sizeof(uint32_t), decoded_nbytes;
		uint8_t *text = guarded_alloc(nbytes), *decoded = guarded_alloc(nbytes);
		uint32_t *ids = (uint32_t *)(void *)guarded_alloc(ids_nbytes);
		int64_t id_offsets[2], offsets[2] = { 0, (int64_t)nbytes };
		for (size_t i = 0; i < nbytes; i++) {
			uint64_t r = test_random(&seed);
			text[i] = r % 8 ? (uint8_t)"abchelo "[(r >> 8) % 8] : (uint8_t)(r >> 16);
		}
		CHECK_EQ(ss_bpe_encode(scratch, text, nbytes, offsets, 1, ids, nbytes + SS_BPE_IDS_SLACK, id_offsets,
				       &place), SS_OK);
		CHECK_EQ(ss_bpe_decoded_nbytes(bpe, ids, (size_t)id_offsets[1], &decoded_nbytes), SS_OK);
		CHECK_EQ(decoded_nbytes, nbytes);
		ss_bpe_decode(bpe, ids, (size_t)id_offsets[1], decoded);
		CHECK(nbytes == 0 || memcmp(text, decoded, nbytes) == 0);
		guarded_free(text, nbytes);
		guarded_free(decoded, nbytes);
		guarded_free((uint8_t *)ids, ids_nbytes);
	}
	ss_bpe_scratch_free(scratch);
	ss_bpe_free(bpe);
}

static size_t
steps_of(ss_bpe_scratch *scratch, const char *text, uint32_t *ids)
{
	const int64_t offsets[2] = { 0, (int64_t)strlen(text) };
	uint64_t place, before = ss_bpe_scratch_steps(scratch);
	int64_t id_offsets[2];

	CHECK_EQ(ss_bpe_encode(scratch, (const uint8_t *)text, strlen(text), offsets, 1, ids, strlen(text) + SS_BPE_IDS_SLACK,
			       id_offsets, &place), SS_OK);
	return ss_bpe_scratch_steps(scratch) - before;
}

/* Up to 255 bytes, whatever their ids; single tokens before they are met. */
static void
remembers_pieces(void)
{
	static const struct { const char *text; uint32_t num_ids, ids[12]; } pieces[] = {
		{ "hello", 1, { 261 } },
		{ "heabc", 2, { 258, 257 } },
		{ "abcabcabcabcabc", 5, { 257, 257, 257, 257, 257 } },
		{ "hellohellohellox", 4, { 261, 261, 261, 'x' } },
		{ "hellohexellohell", 7, { 261, 258, 'x', 'e', 259, 'o', 260 } },
		{ "hellohexllohehell", 7, { 261, 258, 'x', 259, 'o', 258, 260 } },
		{ "hellohellohellohellohellohello", 6, { 261, 261, 261, 261, 261, 261 } },
		{ "hellohellohellohellohellohellox", 7, { 261, 261, 261, 261, 261, 261, 'x' } },
		{ "abcabcabcabcabcabcabcabcabc", 9, { 257, 257, 257, 257, 257, 257, 257, 257, 257 } },
	};
	char longest[257];
	ss_bpe *bpe = new_bpe();
	ss_bpe_scratch *scratch = ss_bpe_scratch_new(bpe);
	uint32_t ids[256 + SS_BPE_IDS_SLACK];

	for (int round = 0; round < 2; round++) {
		for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
			bool found = steps_of(scratch, pieces[i].text, ids) == 0;
			CHECK_EQ(found, round == 1 || pieces[i].num_ids == 1);
			CHECK(memcmp(ids, pieces[i].ids, pieces[i].num_ids * sizeof(*ids)) == 0);
		}
		for (size_t nbytes = 255; nbytes <= 256; nbytes++) {
			memset(longest, 'x', nbytes);
			longest[nbytes] = '\0';
			CHECK_EQ(steps_of(scratch, longest, ids) == 0, round == 1 && nbytes == 255);
			CHECK_EQ(ids[nbytes - 1], 'x');
		}
	}
	ss_bpe_scratch_free(scratch);
	ss_bpe_free(bpe);
}

/* What one scratch has found another need not find; news end where their room does. */
static void
learns_what_others_have_found(void)
{
	static struct news news;
	static const char *const pieces[] = { "heabc", "hellohellohellox", "abcabcabcabcabc", "hexllo", "hellohellohellohellohellox" };
	ss_bpe *bpe = new_bpe();
	ss_bpe_scratch *teller = ss_bpe_scratch_new(bpe), *hearer = ss_bpe_scratch_new(bpe);
	uint32_t ids[256 + SS_BPE_IDS_SLACK], expected[256 + SS_BPE_IDS_SLACK];
	char text[256];
	uint64_t seed = 7;

	news.num_words = 0;
	scratch_tell(teller, &news);
	for (size_t i = 0; i < 5; i++)
		CHECK(steps_of(teller, pieces[i], ids) != 0);
	steps_of(teller, "hello", ids);
	scratch_learn(hearer, &news);
	scratch_learn(hearer, &news);
	for (size_t i = 0; i < 5; i++) {
		steps_of(teller, pieces[i], expected);
		CHECK_EQ(steps_of(hearer, pieces[i], ids), 0);
		CHECK(memcmp(ids, expected, sizeof(*ids)) == 0);
	}
	for (size_t i = 0; i < 200; i++) {
		for (size_t k = 0; k < 200; k++)
			text[k] = (char)('a' + test_random(&seed) % 3);
		text[200] = '\0';
		steps_of(teller, text, ids);
		CHECK(news.num_words <= NEWS_MAX_WORDS);
	}
	size_t full = news.num_words;
	CHECK(full > NEWS_MAX_WORDS - 300);
	scratch_tell(teller, NULL);
	CHECK(steps_of(teller, "hehehehex", ids) != 0);
	CHECK_EQ(news.num_words, full);
	ss_bpe_scratch_free(hearer);
	ss_bpe_scratch_free(teller);
	ss_bpe_free(bpe);
}

/* More pieces than the caches hold, of all lengths, some again and again: always the ids of caches that know nothing. */
static void
forgets_pieces_and_nothing_else(void)
{
	static char seen[256][301];
	ss_bpe *bpe = new_bpe();
	ss_bpe_scratch *scratch = ss_bpe_scratch_new(bpe), *fresh = NULL;
	uint32_t ids[300 + SS_BPE_IDS_SLACK], expected[300 + SS_BPE_IDS_SLACK];
	uint64_t seed = 5;

	for (int i = 0; i < 4000; i++) {
		char *text = seen[i % 3 ? (int)(test_random(&seed) % 256) : i / 3 % 256];
		if (i % 3 == 0 || text[0] == '\0') {
			uint64_t r = test_random(&seed);
			size_t nbytes = 1 + r % (r >> 32 & 1 ? 300 : 16);
			for (size_t k = 0; k < nbytes; k++)
				text[k] = "abchelo\xE4"[test_random(&seed) % 8];
			text[nbytes] = '\0';
		}
		if (i % 16 == 0) {
			ss_bpe_scratch_free(fresh);
			fresh = ss_bpe_scratch_new(bpe);
		}
		memset(ids, 0, sizeof(ids));
		memset(expected, 0, sizeof(expected));
		steps_of(scratch, text, ids);
		steps_of(fresh, text, expected);
		size_t nbytes = 0, num = 0;
		while (nbytes < strlen(text)) {
			size_t more;
			CHECK_EQ(ids[num], expected[num]);
			CHECK_EQ(ss_bpe_decoded_nbytes(bpe, &ids[num++], 1, &more), SS_OK);
			nbytes += more;
		}
	}
	ss_bpe_scratch_free(fresh);
	ss_bpe_scratch_free(scratch);
	ss_bpe_free(bpe);
}

/* "ab" comes late for the merge of rank 0, which then goes before that of "cd": "abcd" is made, and yet never met. */
static void
merges_by_the_list_what_is_a_token(void)
{
	static const char *const made[] = { "ab", "abc", "cd", "abcd" };
	static const uint32_t merges[] = { 256, 'c', 'a', 'b', 'c', 'd', 256, 258 };
	uint64_t place;
	struct tokens t;
	ss_bpe *bpe;

	for (uint32_t whole_piece = 0; whole_piece < 2; whole_piece++) {
		uint32_t ids[4 + SS_BPE_IDS_SLACK];
		begin_tokens(&t);
		for (size_t i = 0; i < 4; i++)
			add_token(&t, 256 + i, SS_BPE_TOKEN, made[i], strlen(made[i]));
		t.vocab = (struct ss_bpe_vocab){ t.kinds, t.bytes, t.offsets, 260, merges, 4, SS_PRETOK_O200K, whole_piece };
		CHECK_EQ(ss_bpe_new(&t.vocab, &bpe, &place), SS_OK);
		ss_bpe_scratch *scratch = ss_bpe_scratch_new(bpe);
		steps_of(scratch, "abcd", ids);
		CHECK_EQ(ids[0], whole_piece ? 259 : 257);
		CHECK(whole_piece || ids[1] == 'd');
		ss_bpe_scratch_free(scratch);
		ss_bpe_free(bpe);
	}
}

#define NUM_JOINED 160
#define MAX_JOINED_NBYTES 32
#define MAX_PIECE_NBYTES 600

/* Tokens of a few letters, by rank: each is two others joined, so that they nest, overlap, and are long soon. */
struct joined {
	uint8_t kinds[256 + NUM_JOINED], bytes[256 + NUM_JOINED * MAX_JOINED_NBYTES];
	int64_t offsets[256 + NUM_JOINED + 1];
	size_t num_ids, num_letters;
};

/* A letter, or a token made of them; writes its bytes and returns how many. */
static size_t
copy_joined(const struct joined *v, uint64_t *seed, uint8_t *bytes)
{
	size_t i = test_random(seed) % (v->num_letters + v->num_ids - 256), id = i < v->num_letters ? 'a' + i : 256 - v->num_letters + i;
	size_t nbytes = (size_t)(v->offsets[id + 1] - v->offsets[id]);

	memcpy(bytes, v->bytes + v->offsets[id], nbytes);
	return nbytes;
}

static ss_bpe *
new_joined(struct joined *v, uint64_t *seed)
{
	struct ss_bpe_vocab vocab = { v->kinds, v->bytes, v->offsets, 0, NULL, 0, SS_PRETOK_WHOLE, 0 };
	uint64_t place;
	ss_bpe *bpe;

	v->num_letters = 2 + test_random(seed) % 3;
	memset(v->kinds, SS_BPE_TOKEN, sizeof(v->kinds));
	for (size_t id = 0; id < 256; id++) {
		v->bytes[id] = (uint8_t)id;
		v->offsets[id + 1] = (int64_t)id + 1;
	}
	v->num_ids = 256;
	for (size_t i = 0; i < 2 * NUM_JOINED && v->num_ids < 256 + NUM_JOINED; i++) {
		uint8_t token[2 * MAX_JOINED_NBYTES];
		size_t nbytes = copy_joined(v, seed, token);
		nbytes += copy_joined(v, seed, token + nbytes);
		bool is_new = nbytes <= MAX_JOINED_NBYTES;
		for (size_t id = 256; id < v->num_ids && is_new; id++)
			is_new = v->offsets[id + 1] - v->offsets[id] != (int64_t)nbytes ||
				 memcmp(v->bytes + v->offsets[id], token, nbytes) != 0;
		if (!is_new)
			continue;
		memcpy(v->bytes + v->offsets[v->num_ids], token, nbytes);
		v->offsets[v->num_ids + 1] = v->offsets[v->num_ids] + (int64_t)nbytes;
		v->num_ids++;
	}
	vocab.num_ids = v->num_ids;
	CHECK_EQ(ss_bpe_new(&vocab, &bpe, &place), SS_OK);
	return bpe;
}

/* Tokens, each up to four times, whose last copy may be cut: backtracking tries again what has just been there. */
static size_t
make_piece(const struct joined *v, uint64_t *seed, uint8_t *piece)
{
	size_t nbytes = 0, num_tokens = 1 + test_random(seed) % 4;

	for (size_t i = 0; i < num_tokens; i++) {
		size_t token_nbytes = copy_joined(v, seed, piece + nbytes), num_copies = 1 + test_random(seed) % 4;
		for (size_t k = 1; k < num_copies; k++)
			memcpy(piece + nbytes + k * token_nbytes, piece + nbytes, token_nbytes);
		nbytes += num_copies * token_nbytes;
		if (test_random(seed) % 2)
			nbytes -= test_random(seed) % token_nbytes;
	}
	return nbytes;
}

/* In few steps, too: where no sequence passes pieces are merged after all, which would hide that one is refused. */
static void
backtracking_gives_what_merging_does(void)
{
	static struct joined v;
	struct merge_memory memory = { 0 };
	size_t num_bytes = 0, num_steps = 0;
	uint8_t piece[MAX_PIECE_NBYTES];
	uint32_t tokens[MAX_PIECE_NBYTES], expected[MAX_PIECE_NBYTES];
	uint64_t seed = 11;

	for (int i = 0; i < 40; i++) {
		ss_bpe *bpe = new_joined(&v, &seed);
		for (int k = 0; k < 150; k++) {
			size_t nbytes = make_piece(&v, &seed, piece);
			size_t num = merge_piece(bpe, &bpe->made, &memory, piece, nbytes, expected);
			memory.num_steps = 0;
			CHECK_EQ(backtrack_piece(bpe, &memory, piece, nbytes, tokens), num);
			CHECK(memcmp(tokens, expected, num * sizeof(*tokens)) == 0);
			num_bytes += nbytes;
			num_steps += memory.num_steps;
		}
		ss_bpe_free(bpe);
	}
	CHECK(num_steps < 7 * num_bytes);
	free(memory.data);
}

static void
knows_tokens_and_their_halves(void)
{
	ss_bpe *bpe = new_bpe();
	uint32_t halves[2 * NUM_IDS];

	CHECK_EQ(ss_bpe_token_id(bpe, (const uint8_t *)"hell", 4), 260);
	CHECK_EQ(ss_bpe_token_id(bpe, (const uint8_t *)"hel", 3), UINT32_MAX);
	CHECK_EQ(ss_bpe_token_id(bpe, (const uint8_t *)"<end>", 5), UINT32_MAX);
	CHECK_EQ(ss_bpe_token_id(bpe, NULL, 0), UINT32_MAX);
	ss_bpe_halves(bpe, halves);
	CHECK_EQ(halves[2 * 260], 258);
	CHECK_EQ(halves[2 * 260 + 1], 259);
	CHECK_EQ(halves[2 * 'a'], UINT32_MAX);
	CHECK_EQ(halves[2 * END_ID], UINT32_MAX);
	ss_bpe_free(bpe);
}

static void
refuses_broken_vocabularies(void)
{
	static const uint32_t no_result[] = { 'a', 'b', 'b', 'a' }, no_token[] = { 'a', END_ID }, twice[] = { 'a', 'b', 'a', 'b' };
	const struct { const uint32_t *merges; size_t num; enum ss_status status; uint64_t place; } lists[] = {
		{ no_result, 2, SS_ERR_CORRUPT, NUM_IDS + 1 },
		{ no_token, 1, SS_ERR_CORRUPT, NUM_IDS },
		{ twice, 2, SS_ERR_DUPLICATE, NUM_IDS + 1 },
	};
	struct tokens t;
	uint64_t place;
	ss_bpe *bpe;

	for (size_t i = 0; i < 3; i++) {
		begin_tokens(&t);
		t.vocab.merges = lists[i].merges;
		t.vocab.num_merges = lists[i].num;
		CHECK_EQ(ss_bpe_new(&t.vocab, &bpe, &place), lists[i].status);
		CHECK_EQ(place, lists[i].place);
		CHECK(bpe == NULL);
	}
	begin_tokens(&t);
	t.kinds['x'] = SS_BPE_SPECIAL;
	CHECK_EQ(ss_bpe_new(&t.vocab, &bpe, &place), SS_ERR_TRUNCATED);
	CHECK_EQ(place, 'x');
	begin_tokens(&t);
	t.vocab.pattern = SS_PRETOK_NUM_PATTERNS;
	CHECK_EQ(ss_bpe_new(&t.vocab, &bpe, &place), SS_ERR_ARGUMENT);
	begin_tokens(&t);
	t.kinds[END_ID - 1] = SS_BPE_TOKEN;
	CHECK_EQ(ss_bpe_new(&t.vocab, &bpe, &place), SS_ERR_CORRUPT);
	CHECK_EQ(place, END_ID - 1);
	ss_bpe_free(NULL);
}

static void
refuses_wrong_batches(void)
{
	ss_bpe *bpe = new_bpe();
	ss_bpe_scratch *scratch = ss_bpe_scratch_new(bpe);
	const int64_t descend[] = { 2, 1 }, leave[] = { 0, 1, 4 }, fit[] = { 0, 3 };
	int64_t id_offsets[3];
	uint32_t ids[16];
	uint64_t place;

	CHECK_EQ(ss_bpe_encode(scratch, (const uint8_t *)"abc", 3, descend, 1, ids, 16, id_offsets, &place), SS_ERR_RANGE);
	CHECK_EQ(ss_bpe_encode(scratch, (const uint8_t *)"abc", 3, leave, 2, ids, 16, id_offsets, &place), SS_ERR_RANGE);
	CHECK_EQ(place, 1);
	CHECK_EQ(ss_bpe_encode(scratch, (const uint8_t *)"abc", 3, fit, 1, ids, 6, id_offsets, &place), SS_ERR_SPACE);
	CHECK_EQ(ss_bpe_encode(scratch, NULL, 0, fit, 0, ids, 0, id_offsets, &place), SS_OK);
	ss_bpe_scratch_free(scratch);
	ss_bpe_free(bpe);
}

#define NUM_CHUNKS 40
#define CHUNK_TEXTS 7
#define CHUNK_NBYTES 700

struct chunk {
	uint8_t text[CHUNK_NBYTES];
	int64_t offsets[CHUNK_TEXTS + 1], id_offsets[CHUNK_TEXTS + 1];
};

static void
make_chunks(struct chunk *chunks)
{
	uint64_t seed = 3;

	for (size_t i = 0; i < NUM_CHUNKS; i++) {
		for (size_t k = 0; k < CHUNK_NBYTES; k++)
			chunks[i].text[k] = (uint8_t)"abchelo "[test_random(&seed) % 8];
		for (size_t k = 0; k <= CHUNK_TEXTS; k++)
			chunks[i].offsets[k] = (int64_t)(k * CHUNK_NBYTES / CHUNK_TEXTS);
	}
}

static ss_bpe_job *
new_job(ss_bpe_scratch **scratches, size_t num_scratches, struct chunk *chunks, size_t num_chunks, uint32_t *ids, size_t ids_avail)
{
	ss_bpe_job *job = ss_bpe_job_new(scratches, num_scratches, NUM_CHUNKS, ids, ids_avail);

	for (size_t i = 0; i < num_chunks; i++)
		CHECK_EQ(ss_bpe_job_add(job, chunks[i].text, CHUNK_NBYTES, chunks[i].offsets, CHUNK_TEXTS, chunks[i].id_offsets),
			 SS_OK);
	return job;
}

/* Whatever the number of threads, and where the ids do not fit at first: what one chunk after another gives. */
static void
jobs_encode_as_one_thread_does(void)
{
	static struct chunk chunks[NUM_CHUNKS];
	static uint32_t expected[NUM_CHUNKS * CHUNK_NBYTES + SS_BPE_IDS_SLACK], ids[NUM_CHUNKS * CHUNK_NBYTES];
	static const size_t rooms[] = { 0, 1000, NUM_CHUNKS * CHUNK_NBYTES };
	int64_t id_offsets[NUM_CHUNKS][CHUNK_TEXTS + 1];
	ss_bpe *bpe = new_bpe();
	ss_bpe_scratch *scratches[4];
	size_t num_expected = 0, num, bad_chunk;
	uint64_t place;

	make_chunks(chunks);
	for (size_t i = 0; i < 4; i++)
		scratches[i] = ss_bpe_scratch_new(bpe);
	for (size_t i = 0; i < NUM_CHUNKS; i++) {
		CHECK_EQ(ss_bpe_encode(scratches[0], chunks[i].text, CHUNK_NBYTES, chunks[i].offsets, CHUNK_TEXTS,
				       expected + num_expected, CHUNK_NBYTES + SS_BPE_IDS_SLACK, id_offsets[i], &place), SS_OK);
		for (size_t k = 0; k <= CHUNK_TEXTS; k++)
			id_offsets[i][k] += (int64_t)num_expected;
		num_expected = (size_t)id_offsets[i][CHUNK_TEXTS];
	}
	for (size_t trial = 0; trial < 12; trial++) {
		ss_bpe_job *job = new_job(scratches, 1 + trial % 4, chunks, NUM_CHUNKS, ids, rooms[trial / 4]);
		CHECK_EQ(ss_bpe_job_add(job, NULL, 0, chunks[0].offsets, 0, NULL), SS_ERR_SPACE);
		CHECK_EQ(ss_bpe_job_run(job, &num, &bad_chunk, &place), SS_OK);
		CHECK_EQ(num, num_expected);
		uint32_t *larger = (uint32_t *)(void *)guarded_alloc(num * sizeof(*ids)), *all = num > rooms[trial / 4] ? larger : ids;
		if (all == larger)
			ss_bpe_job_move(job, larger, num);
		CHECK(memcmp(all, expected, num * sizeof(*ids)) == 0);
		for (size_t i = 0; i < NUM_CHUNKS; i++)
			CHECK(memcmp(chunks[i].id_offsets, id_offsets[i], sizeof(id_offsets[i])) == 0);
		ss_bpe_job_free(job);
		guarded_free((uint8_t *)larger, num * sizeof(*ids));
	}
	for (size_t i = 0; i < 4; i++)
		ss_bpe_scratch_free(scratches[i]);
	ss_bpe_free(bpe);
}

static void
jobs_name_the_first_wrong_text_and_end_at_any_time(void)
{
	static struct chunk chunks[NUM_CHUNKS];
	static uint32_t ids[NUM_CHUNKS * CHUNK_NBYTES];
	ss_bpe *bpe = new_bpe();
	ss_bpe_scratch *scratches[3];
	size_t num, bad_chunk;
	uint64_t place;

	make_chunks(chunks);
	for (size_t i = 0; i < 3; i++)
		scratches[i] = ss_bpe_scratch_new(bpe);
	for (size_t num_chunks = 0; num_chunks <= NUM_CHUNKS; num_chunks += 5)
		ss_bpe_job_free(new_job(scratches, 3, chunks, num_chunks, ids, sizeof(ids) / sizeof(ids[0])));
	ss_bpe_job_free(NULL);
	chunks[17].offsets[3] = 0;
	chunks[18].offsets[2] = 0;
	chunks[21].offsets[CHUNK_TEXTS] = -1;
	ss_bpe_job *job = new_job(scratches, 3, chunks, NUM_CHUNKS, ids, sizeof(ids) / sizeof(ids[0]));
	CHECK_EQ(ss_bpe_job_run(job, &num, &bad_chunk, &place), SS_ERR_RANGE);
	CHECK_EQ(bad_chunk, 17);
	CHECK_EQ(place, 2);
	ss_bpe_job_free(job);
	for (size_t i = 0; i < 3; i++)
		ss_bpe_scratch_free(scratches[i]);
	ss_bpe_free(bpe);
}

int
main(void)
{
	encodes_and_decodes_a_batch();
	any_bytes_come_back_and_nothing_else_is_touched();
	remembers_pieces();
	learns_what_others_have_found();
	forgets_pieces_and_nothing_else();
	merges_by_the_list_what_is_a_token();
	backtracking_gives_what_merging_does();
	knows_tokens_and_their_halves();
	refuses_broken_vocabularies();
	refuses_wrong_batches();
	jobs_encode_as_one_thread_does();
	jobs_name_the_first_wrong_text_and_end_at_any_time();
	return 0;
}

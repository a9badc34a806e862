/*
 * Texts from any bytes: training merges what counting all pairs anew for each merge
 * merges.
 *
 * Byte 0 chooses how many different letters the texts have; a byte 255 ends a text.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "fuzz.h"
#include "ss_bpe_train.h"
#include "ss_pretok.h"

#define MAX_NBYTES 200
#define MAX_MERGES 40

/* The texts as ids, with -1 after each. */
struct words {
	int32_t ids[2 * MAX_NBYTES];
	size_t num;
};

static long
count_pair(const struct words *w, int32_t left, int32_t right)
{
	long count = 0;

	for (size_t i = 0; i + 1 < w->num; i++)
		count += w->ids[i] == left && w->ids[i + 1] == right;
	return count;
}

/* Returns whether there is a pair. */
static int
best_pair(const struct words *w, struct ss_bpe_merge *best)
{
	long best_count = 0;

	for (size_t i = 0; i + 1 < w->num; i++) {
		int32_t left = w->ids[i], right = w->ids[i + 1];
		long count = left < 0 || right < 0 ? 0 : count_pair(w, left, right);

		if (count > best_count ||
		    (count == best_count && count > 0 && (left < (int32_t)best->left ||
		     (left == (int32_t)best->left && right < (int32_t)best->right)))) {
			best_count = count;
			*best = (struct ss_bpe_merge){ (uint32_t)left, (uint32_t)right };
		}
	}
	return best_count > 0;
}

static void
merge_words(struct words *w, struct ss_bpe_merge pair, int32_t made)
{
	size_t num = 0;

	for (size_t i = 0; i < w->num; i++) {
		if (i + 1 < w->num && w->ids[i] == (int32_t)pair.left && w->ids[i + 1] == (int32_t)pair.right) {
			w->ids[num++] = made;
			i++;
		} else {
			w->ids[num++] = w->ids[i];
		}
	}
	w->num = num;
}

static void
feed(ss_bpe_trainer *trainer, struct words *w, const uint8_t *data, size_t nbytes)
{
	uint8_t text[MAX_NBYTES];
	int64_t offsets[MAX_NBYTES + 2] = { 0 };
	size_t text_nbytes = 0, num_texts = 1;
	uint64_t place;

	w->num = 0;
	for (size_t i = 1; i < nbytes && i < MAX_NBYTES; i++) {
		if (data[i] == 255) {
			offsets[num_texts + 1] = offsets[num_texts];
			num_texts++;
			w->ids[w->num++] = -1;
			continue;
		}
		text[text_nbytes] = (uint8_t)('a' + data[i] % (1 + data[0] % 8));
		w->ids[w->num++] = text[text_nbytes++];
		offsets[num_texts] = (int64_t)text_nbytes;
	}
	FUZZ_CHECK(ss_bpe_trainer_feed(trainer, text, text_nbytes, offsets, num_texts, &place) == SS_OK);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_nbytes)
{
	static struct words w;
	uint8_t alphabet[256];
	struct ss_bpe_merge got[MAX_MERGES], expected;
	size_t num_merges, num = 0;
	int is_done;

	if (data_nbytes < 1)
		return 0;
	for (unsigned i = 0; i < 256; i++)
		alphabet[i] = (uint8_t)i;
	ss_bpe_trainer *trainer = ss_bpe_trainer_new(SS_PRETOK_WHOLE, alphabet);
	FUZZ_CHECK(trainer != NULL);
	feed(trainer, &w, data, data_nbytes);
	do
		FUZZ_CHECK(ss_bpe_trainer_merge(trainer, 256 + MAX_MERGES, 3, &num_merges, &is_done) == SS_OK);
	while (!is_done);
	ss_bpe_trainer_merges(trainer, got);
	for (; num < MAX_MERGES && best_pair(&w, &expected); num++) {
		FUZZ_CHECK(num < num_merges && got[num].left == expected.left && got[num].right == expected.right);
		merge_words(&w, expected, (int32_t)(256 + num));
	}
	FUZZ_CHECK(num == num_merges);
	ss_bpe_trainer_free(trainer);
	return 0;
}

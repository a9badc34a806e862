/*
 * Training, second half: the most frequent pair, again and again.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * At each position where a token begins stands its id, and at its last byte where it
 * began.  A pair has a list of the places where it came up, ascending; some of them are
 * out of date, which the ids there tell.
 */
#include <stdlib.h>
#include <string.h>

#include "bpe_train.h"

#define BORDER UINT32_MAX	/* between pieces */
#define INSIDE (UINT32_MAX - 1)	/* of a token, not at its beginning */
#define NONE UINT32_MAX

/*
 * A pair, and where it came up.  All its places were found by one merge: a pair of two
 * bytes by the first look at the texts, any other by the merge that made the younger of
 * its tokens.
 */
struct pair {
	uint64_t key;		/* left << 32 | right */
	int64_t count;
	size_t begin;		/* places[begin .. begin + num) */
	uint32_t num;
};

/* A pair that waits for its turn, with the count it had when it was put here. */
struct waiting {
	int64_t count;
	uint64_t key;
	uint32_t pair;
};

struct found {
	uint32_t pair, place;
};

struct train_merging {
	uint32_t *ids;			/* by position */
	uint32_t *begins;		/* of the token that ends at a position */
	uint32_t *piece_of;
	struct pair *pairs;
	size_t num_pairs, pairs_avail;
	uint32_t *pair_slots;		/* number of a pair + 1 */
	size_t num_pair_slots;
	uint32_t *places;
	size_t num_places, places_avail;
	struct waiting *heap;
	size_t num_waiting, heap_avail;
	uint32_t *token_nbytes;
	size_t num_tokens, tokens_avail;
	struct ss_bpe_merge *merges;
	size_t merges_avail;
	struct found *found;		/* by the merge at work */
	size_t num_found, found_avail;
	uint32_t *new_pairs;		/* of the merge at work */
	size_t num_new_pairs, new_pairs_avail;
	bool is_done;
};

void
train_free_merging(struct train_merging *m)
{
	if (m == NULL)
		return;
	free(m->ids);
	free(m->begins);
	free(m->piece_of);
	free(m->pairs);
	free(m->pair_slots);
	free(m->places);
	free(m->heap);
	free(m->token_nbytes);
	free(m->merges);
	free(m->found);
	free(m->new_pairs);
	free(m);
}

/* ---- which pair is next ------------------------------------------------------------- */

static bool
is_before(const struct waiting *a, const struct waiting *b)
{
	if (a->count != b->count)
		return a->count > b->count;
	return a->key < b->key;
}

static bool
heap_push(struct train_merging *m, struct waiting new)
{
	size_t i = m->num_waiting;

	if (!train_grow(&m->heap, &m->heap_avail, i + 1, sizeof(*m->heap)))
		return false;
	for (; i > 0 && is_before(&new, &m->heap[(i - 1) / 2]); i = (i - 1) / 2)
		m->heap[i] = m->heap[(i - 1) / 2];
	m->heap[i] = new;
	m->num_waiting++;
	return true;
}

/* Puts 'new' in the place of the first one. */
static void
heap_replace(struct train_merging *m, struct waiting new)
{
	size_t i = 0, child;

	while ((child = 2 * i + 1) < m->num_waiting) {
		child += child + 1 < m->num_waiting && is_before(&m->heap[child + 1], &m->heap[child]);
		if (!is_before(&m->heap[child], &new))
			break;
		m->heap[i] = m->heap[child];
		i = child;
	}
	m->heap[i] = new;
}

static struct waiting
heap_pop(struct train_merging *m)
{
	struct waiting first = m->heap[0], last = m->heap[--m->num_waiting];

	if (m->num_waiting > 0)
		heap_replace(m, last);
	return first;
}

/* ---- pairs -------------------------------------------------------------------------- */

static bool
grow_pair_slots(struct train_merging *m)
{
	size_t num_slots = m->num_pair_slots == 0 ? 1 << 17 : 2 * m->num_pair_slots;
	uint32_t *slots = calloc(num_slots, sizeof(*slots));

	if (slots == NULL)
		return false;
	for (size_t i = 0; i < m->num_pairs; i++) {
		size_t slot = train_mix(0, m->pairs[i].key) & (num_slots - 1);
		while (slots[slot] != 0)
			slot = (slot + 1) & (num_slots - 1);
		slots[slot] = (uint32_t)(i + 1);
	}
	free(m->pair_slots);
	m->pair_slots = slots;
	m->num_pair_slots = num_slots;
	return true;
}

/* The number of a pair, which is made if it is new; NONE: no memory. */
static uint32_t
pair_of(struct train_merging *m, uint32_t left, uint32_t right)
{
	uint64_t key = (uint64_t)left << 32 | right;
	size_t mask = m->num_pair_slots - 1, slot = train_mix(0, key) & mask;

	for (; m->pair_slots[slot] != 0; slot = (slot + 1) & mask)
		if (m->pairs[m->pair_slots[slot] - 1].key == key)
			return m->pair_slots[slot] - 1;
	if (m->num_pairs >= NONE - 1 || !train_grow(&m->pairs, &m->pairs_avail, m->num_pairs + 1, sizeof(*m->pairs)))
		return NONE;
	m->pairs[m->num_pairs] = (struct pair){ .key = key };
	m->pair_slots[slot] = (uint32_t)++m->num_pairs;
	if (2 * m->num_pairs > m->num_pair_slots && !grow_pair_slots(m))
		return NONE;
	return (uint32_t)m->num_pairs - 1;
}

/* Counts the occurrences of a pair up, and notes the place. */
static bool
find(struct train_merging *m, uint32_t left, uint32_t right, uint32_t place, int64_t count)
{
	uint32_t pair = pair_of(m, left, right);

	if (pair == NONE || !train_grow(&m->found, &m->found_avail, m->num_found + 1, sizeof(*m->found)))
		return false;
	if (m->pairs[pair].num == 0) {
		if (!train_grow(&m->new_pairs, &m->new_pairs_avail, m->num_new_pairs + 1, sizeof(*m->new_pairs)))
			return false;
		m->new_pairs[m->num_new_pairs++] = pair;
	}
	m->pairs[pair].count += count;
	m->pairs[pair].num++;
	m->found[m->num_found++] = (struct found){ pair, place };
	return true;
}

static bool
lose(struct train_merging *m, uint32_t left, uint32_t right, int64_t count)
{
	uint32_t pair = pair_of(m, left, right);

	if (pair == NONE)
		return false;
	m->pairs[pair].count -= count;
	return true;
}

/* Puts the places of each new pair together, and lets it wait. */
static bool
sort_found(struct train_merging *m)
{
	if (!train_grow(&m->places, &m->places_avail, m->num_places + m->num_found, sizeof(*m->places)))
		return false;
	for (size_t i = 0; i < m->num_new_pairs; i++) {
		struct pair *pair = &m->pairs[m->new_pairs[i]];

		pair->begin = m->num_places;
		m->num_places += pair->num;
		pair->num = 0;
		if (pair->count > 0 && !heap_push(m, (struct waiting){ pair->count, pair->key, m->new_pairs[i] }))
			return false;
	}
	for (size_t i = 0; i < m->num_found; i++) {
		struct pair *pair = &m->pairs[m->found[i].pair];
		m->places[pair->begin + pair->num++] = m->found[i].place;
	}
	m->num_found = m->num_new_pairs = 0;
	return true;
}

/* ---- merging ------------------------------------------------------------------------ */

static bool
lay_out(const ss_bpe_trainer *trainer)
{
	struct train_merging *m = trainer->merging;
	size_t n = trainer->num_bytes;

	m->ids = malloc(n * sizeof(*m->ids));
	m->begins = malloc(n * sizeof(*m->begins));
	m->piece_of = malloc(n * sizeof(*m->piece_of));
	if (m->ids == NULL || m->begins == NULL || m->piece_of == NULL || !grow_pair_slots(m) ||
	    !train_grow(&m->token_nbytes, &m->tokens_avail, 256, sizeof(*m->token_nbytes)))
		return false;
	while (m->num_tokens < 256)
		m->token_nbytes[m->num_tokens++] = 1;
	m->ids[0] = BORDER;
	for (size_t i = 0; i < trainer->num_pieces; i++) {
		const struct train_piece *piece = &trainer->pieces[i];
		uint32_t end = piece->begin + piece->nbytes;

		m->ids[end] = BORDER;
		for (uint32_t p = piece->begin; p < end; p++) {
			m->ids[p] = trainer->byte_id[trainer->bytes[p]];
			m->begins[p] = p;
			m->piece_of[p] = (uint32_t)i;
			if (p > piece->begin && !find(m, m->ids[p - 1], m->ids[p], p - 1, (int64_t)piece->count))
				return false;
		}
	}
	return sort_found(m);
}

/* Merges the pair at one place if it is still there. */
static bool
merge_at(const ss_bpe_trainer *trainer, uint32_t left, uint32_t right, uint32_t made, uint32_t place)
{
	struct train_merging *m = trainer->merging;
	uint32_t *ids = m->ids, second = place + m->token_nbytes[left];

	if (ids[place] != left || ids[second] != right)
		return true;
	uint32_t next = second + m->token_nbytes[right];
	int64_t count = (int64_t)trainer->pieces[m->piece_of[place]].count;
	ids[place] = made;
	ids[second] = INSIDE;
	m->begins[next - 1] = place;
	if (ids[place - 1] != BORDER) {
		uint32_t before = m->begins[place - 1];
		if (!lose(m, ids[before], left, count) || !find(m, ids[before], made, before, count))
			return false;
	}
	if (ids[next] != BORDER)
		if (!lose(m, right, ids[next], count) || !find(m, made, ids[next], place, count))
			return false;
	return true;
}

static bool
merge_pair(const ss_bpe_trainer *trainer, uint32_t pair)
{
	struct train_merging *m = trainer->merging;
	size_t begin = m->pairs[pair].begin, num = m->pairs[pair].num;
	uint32_t left = (uint32_t)(m->pairs[pair].key >> 32), right = (uint32_t)m->pairs[pair].key;
	uint32_t made = (uint32_t)m->num_tokens;

	if (!train_grow(&m->token_nbytes, &m->tokens_avail, m->num_tokens + 1, sizeof(*m->token_nbytes)) ||
	    !train_grow(&m->merges, &m->merges_avail, m->num_tokens - 255, sizeof(*m->merges)))
		return false;
	m->token_nbytes[made] = m->token_nbytes[left] + m->token_nbytes[right];
	m->merges[made - 256] = (struct ss_bpe_merge){ left, right };
	m->num_tokens++;
	for (size_t i = begin; i < begin + num; i++)
		if (!merge_at(trainer, left, right, made, m->places[i]))
			return false;
	return sort_found(m);
}

/* Does the next merge; false: no memory.  Sets m->is_done if there is none. */
static bool
merge_next(const ss_bpe_trainer *trainer)
{
	struct train_merging *m = trainer->merging;

	while (m->num_waiting > 0) {
		struct waiting first = m->heap[0];

		first.count = m->pairs[first.pair].count;
		if (first.count != m->heap[0].count) {	/* it waits with what it has now */
			heap_replace(m, first);
			continue;
		}
		if (first.count < 1)
			break;
		heap_pop(m);
		return merge_pair(trainer, first.pair);
	}
	m->is_done = true;
	return true;
}

enum ss_status
ss_bpe_trainer_merge(ss_bpe_trainer *trainer, size_t max_tokens, size_t max_merges, size_t *num_merges_ret,
		     int *is_done_ret)
{
	if (trainer->merging == NULL) {
		trainer->merging = calloc(1, sizeof(*trainer->merging));
		if (trainer->merging == NULL || !lay_out(trainer))
			return SS_ERR_NOMEM;
	}
	struct train_merging *m = trainer->merging;
	for (size_t i = 0; i < max_merges && !m->is_done; i++) {
		if (m->num_tokens >= max_tokens || m->num_tokens >= INSIDE)
			m->is_done = true;
		else if (!merge_next(trainer))
			return SS_ERR_NOMEM;
	}
	*num_merges_ret = m->num_tokens - 256;
	*is_done_ret = m->is_done;
	return SS_OK;
}

void
ss_bpe_trainer_merges(const ss_bpe_trainer *trainer, struct ss_bpe_merge *merges)
{
	const struct train_merging *m = trainer->merging;

	if (m != NULL && m->num_tokens > 256)
		memcpy(merges, m->merges, (m->num_tokens - 256) * sizeof(*merges));
}

/*
 * Merging by rank, for any vocabulary: a scan for short pieces, a heap for long ones.
 *
 * Both merge the adjacent pair of lowest rank, the leftmost on ties.  The scan looks
 * for it among all pairs every time, O(n^2) steps on a few cache lines.  The heap
 * holds every pair that ever was adjacent, O(n log n), and drops those that are no
 * longer when it meets them.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>

#include "bpe.h"

/* Up to here the scan is faster than the heap; it needs no memory of its own. */
#define MAX_SCAN_NBYTES 48

void *
merge_reserve(struct merge_memory *memory, size_t nbytes)
{
	if (memory->nbytes < nbytes) {
		free(memory->data);
		memory->data = malloc(nbytes);
		memory->nbytes = memory->data == NULL ? 0 : nbytes;
	}
	return memory->data;
}

static size_t
scan_piece(const ss_bpe *bpe, const struct pair_table *pairs, struct merge_memory *memory, const uint8_t *piece,
	   size_t n, uint32_t *tokens)
{
	uint32_t merges[MAX_SCAN_NBYTES];	/* merges[i] is that of tokens i and i + 1 */

	for (size_t i = 0; i < n; i++)
		tokens[i] = bpe->byte_token[piece[i]];
	for (size_t i = 0; i + 1 < n; i++)
		merges[i] = pair_find(pairs, tokens[i], tokens[i + 1]);
	for (; n > 1; n--) {
		size_t best = 0;
		for (size_t i = 1; i + 1 < n; i++)
			if (merges[i] < merges[best])
				best = i;
		memory->num_steps += n;
		if (merges[best] == NO_MERGE)
			break;
		tokens[best] = merged_token(pairs, merges[best]);
		for (size_t i = best + 1; i + 1 < n; i++) {
			tokens[i] = tokens[i + 1];
			merges[i - 1] = merges[i];
		}
		if (best > 0)
			merges[best - 1] = pair_find(pairs, tokens[best - 1], tokens[best]);
		if (best + 2 < n)
			merges[best] = pair_find(pairs, tokens[best], tokens[best + 1]);
	}
	return n;
}

/* A heap of rank << 32 | place, lowest first. */
static void
sift_down(uint64_t *heap, size_t num, size_t i, uint64_t *num_steps)
{
	uint64_t entry = heap[i];

	for (size_t child; (child = 2 * i + 1) < num; i = child) {
		++*num_steps;
		if (child + 1 < num && heap[child + 1] < heap[child])
			child++;
		if (entry <= heap[child])
			break;
		heap[i] = heap[child];
	}
	heap[i] = entry;
}

static void
push(uint64_t *heap, size_t *num, uint64_t entry, uint64_t *num_steps)
{
	size_t i = (*num)++;

	for (; i > 0 && heap[(i - 1) / 2] > entry; i = (i - 1) / 2) {
		++*num_steps;
		heap[i] = heap[(i - 1) / 2];
	}
	heap[i] = entry;
}

#define NO_PLACE UINT32_MAX

/* The tokens as a linked list over the places of their first bytes. */
struct word {
	const struct pair_table *pairs;
	uint32_t *token, *next, *prev;	/* token[i] is NO_TOKEN where none begins */
	uint64_t *heap;
	size_t num_entries;
	uint64_t *num_steps;
};

static void
push_pair(struct word *w, uint32_t left, uint32_t right)
{
	uint32_t merge = pair_find(w->pairs, w->token[left], w->token[right]);

	if (merge != NO_MERGE)
		push(w->heap, &w->num_entries, (uint64_t)merge << 32 | left, w->num_steps);
}

static void
merge_at(struct word *w, uint32_t left, uint32_t new_token)
{
	uint32_t right = w->next[left], after = w->next[right], before = w->prev[left];

	w->token[left] = new_token;
	w->token[right] = NO_TOKEN;
	w->next[left] = after;
	if (after != NO_PLACE) {
		w->prev[after] = left;
		push_pair(w, left, after);
	}
	if (before != NO_PLACE)
		push_pair(w, before, left);
}

static void
init_word(struct word *w, const ss_bpe *bpe, const uint8_t *piece, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		w->token[i] = bpe->byte_token[piece[i]];
		w->next[i] = i + 1 < n ? i + 1 : NO_PLACE;
		w->prev[i] = i > 0 ? i - 1 : NO_PLACE;
	}
	for (uint32_t i = 0; i + 1 < n; i++) {
		uint32_t merge = pair_find(w->pairs, w->token[i], w->token[i + 1]);
		if (merge != NO_MERGE)
			w->heap[w->num_entries++] = (uint64_t)merge << 32 | i;
	}
	for (size_t i = w->num_entries / 2; i-- > 0;)
		sift_down(w->heap, w->num_entries, i, w->num_steps);
}

static size_t
heap_piece(const ss_bpe *bpe, const struct pair_table *pairs, struct merge_memory *memory, const uint8_t *piece,
	   size_t n, uint32_t *tokens)
{
	/* n - 1 pairs at first and two more by each of n - 1 merges; one entry has left by then. */
	size_t max_entries = 3 * n, num = 0;
	uint64_t *heap = merge_reserve(memory, max_entries * sizeof(*heap) + 3 * n * sizeof(uint32_t));

	if (heap == NULL)
		return 0;
	uint32_t *lists = (uint32_t *)(heap + max_entries);
	struct word w = { pairs, lists, lists + n, lists + 2 * n, heap, 0, &memory->num_steps };
	init_word(&w, bpe, piece, (uint32_t)n);
	while (w.num_entries > 0) {
		uint32_t place = (uint32_t)heap[0], merge = (uint32_t)(heap[0] >> 32);
		heap[0] = heap[--w.num_entries];
		if (w.num_entries > 0)
			sift_down(heap, w.num_entries, 0, w.num_steps);
		if (w.token[place] == NO_TOKEN || w.next[place] == NO_PLACE)
			continue;
		if (pair_find(pairs, w.token[place], w.token[w.next[place]]) == merge)
			merge_at(&w, place, merged_token(pairs, merge));
	}
	for (uint32_t i = 0; i != NO_PLACE; i = w.next[i])
		tokens[num++] = w.token[i];
	return num;
}

size_t
merge_piece(const ss_bpe *bpe, const struct pair_table *pairs, struct merge_memory *memory, const uint8_t *piece,
	    size_t nbytes, uint32_t *tokens)
{
	if (nbytes <= MAX_SCAN_NBYTES)
		return scan_piece(bpe, pairs, memory, piece, nbytes, tokens);
	return heap_piece(bpe, pairs, memory, piece, nbytes, tokens);
}

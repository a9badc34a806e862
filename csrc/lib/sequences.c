/*
 * Best-fit decreasing: see ss_sequences.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdbool.h>
#include <stdlib.h>

#include "ss_sequences.h"

#define NONE UINT32_MAX

struct rooms {
	uint32_t *last;		/* by room: the sequence that got a piece last, or NONE */
	uint32_t *before;	/* by sequence: the one before it of the same room */
	uint8_t *any;		/* a tree over rooms: whether there is a sequence below; leaves from 'width' on */
	size_t width;		/* a power of two, above the largest room */
};

static void
set_any(struct rooms *rooms, size_t room, bool is_any)
{
	for (size_t node = rooms->width + room; node > 0; node /= 2) {
		if (!is_any && node < rooms->width && (rooms->any[2 * node] || rooms->any[2 * node + 1]))
			break;
		rooms->any[node] = is_any;
	}
}

/* The least room from 'room' on that a sequence has, or SIZE_MAX. */
static size_t
least_room(const struct rooms *rooms, size_t room)
{
	size_t node = rooms->width + room;

	while (!rooms->any[node]) {
		while (node & 1)	/* up from right children */
			node /= 2;
		if (node == 0)
			return SIZE_MAX;
		node++;			/* to the right sibling of a left child */
	}
	while (node < rooms->width)
		node = 2 * node + !rooms->any[2 * node];
	return node - rooms->width;
}

static void
put(struct rooms *rooms, size_t room, uint32_t sequence)
{
	rooms->before[sequence] = rooms->last[room];
	rooms->last[room] = sequence;
	if (rooms->before[sequence] == NONE)
		set_any(rooms, room, true);
}

static uint32_t
take(struct rooms *rooms, size_t room)
{
	uint32_t sequence = rooms->last[room];

	rooms->last[room] = rooms->before[sequence];
	if (rooms->last[room] == NONE)
		set_any(rooms, room, false);
	return sequence;
}

/* Piece numbers by descending length, in their order where equal; 'starts' has room for max_length + 1. */
static void
sort_pieces(const int64_t *lengths, size_t num_pieces, size_t max_length, uint32_t *starts, uint32_t *sorted)
{
	uint32_t begin = 0;

	for (size_t i = 0; i <= max_length; i++)
		starts[i] = 0;
	for (size_t i = 0; i < num_pieces; i++)
		starts[lengths[i]]++;
	for (size_t length = max_length; length > 0; length--) {
		uint32_t num = starts[length];
		starts[length] = begin;
		begin += num;
	}
	for (size_t i = 0; i < num_pieces; i++)
		sorted[starts[lengths[i]]++] = (uint32_t)i;
}

static size_t
fit(struct rooms *rooms, const int64_t *lengths, const uint32_t *sorted, size_t num_pieces, size_t max_length,
    uint32_t *sequence)
{
	uint32_t num_sequences = 0;

	for (size_t i = 0; i < num_pieces; i++) {
		size_t length = (size_t)lengths[sorted[i]], room = least_room(rooms, length);
		uint32_t chosen = room == SIZE_MAX ? num_sequences++ : take(rooms, room);

		sequence[sorted[i]] = chosen;
		put(rooms, (room == SIZE_MAX ? max_length : room) - length, chosen);
	}
	return num_sequences;
}

enum ss_status
ss_best_fit(const int64_t *lengths, size_t num_pieces, int64_t max_length, uint32_t *sequence,
	    size_t *num_sequences_ret)
{
	struct rooms rooms = { .width = 1 };
	uint32_t *sorted;
	enum ss_status status = SS_ERR_NOMEM;

	*num_sequences_ret = 0;
	if (max_length < 1 || max_length > SS_SEQUENCES_MAX_LENGTH || num_pieces >= NONE)
		return SS_ERR_ARGUMENT;
	for (size_t i = 0; i < num_pieces; i++)
		if (lengths[i] < 1 || lengths[i] > max_length)
			return SS_ERR_RANGE;
	while (rooms.width <= (size_t)max_length)
		rooms.width *= 2;
	rooms.last = malloc(rooms.width * sizeof(*rooms.last));
	rooms.before = malloc((num_pieces + 1) * sizeof(*rooms.before));
	rooms.any = calloc(2 * rooms.width, 1);
	sorted = malloc((num_pieces + 1) * sizeof(*sorted));
	if (rooms.last != NULL && rooms.before != NULL && rooms.any != NULL && sorted != NULL) {
		sort_pieces(lengths, num_pieces, (size_t)max_length, rooms.last, sorted);
		for (size_t i = 0; i < rooms.width; i++)
			rooms.last[i] = NONE;
		*num_sequences_ret = fit(&rooms, lengths, sorted, num_pieces, (size_t)max_length, sequence);
		status = SS_OK;
	}
	free(rooms.last);
	free(rooms.before);
	free(rooms.any);
	free(sorted);
	return status;
}

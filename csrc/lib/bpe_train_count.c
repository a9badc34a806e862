/*
 * Training, first half: the different pieces of all texts, and how often each came.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "bpe_train.h"

#define ENDS_AVAIL 512
#define FIRST_SLOTS 4096

bool
train_grow(void *array, size_t *avail, size_t wanted, size_t element_nbytes)
{
	void *old, *new;

	if (wanted <= *avail)
		return true;
	if (wanted < *avail + *avail / 2)
		wanted = *avail + *avail / 2;
	memcpy(&old, array, sizeof(old));	/* 'array' points to a pointer of any type */
	new = realloc(old, wanted * element_nbytes);
	if (new == NULL)
		return false;
	memcpy(array, &new, sizeof(new));
	*avail = wanted;
	return true;
}

uint64_t
train_hash(const uint8_t *bytes, size_t nbytes)
{
	uint64_t hash = nbytes, word = 0;

	for (; nbytes >= 8; bytes += 8, nbytes -= 8) {
		memcpy(&word, bytes, 8);
		hash = train_mix(hash, word);
	}
	word = 0;
	memcpy(&word, bytes, nbytes);
	return train_mix(train_mix(hash, word), 0);
}

ss_bpe_trainer *
ss_bpe_trainer_new(unsigned pattern, const uint8_t *alphabet)
{
	ss_bpe_trainer *trainer = pattern < SS_PRETOK_NUM_PATTERNS ? calloc(1, sizeof(*trainer)) : NULL;

	if (trainer == NULL)
		return NULL;
	trainer->pattern = (enum ss_pretok_pattern)pattern;
	trainer->fill = pretok_best_fill();
	for (unsigned id = 0; id < 256; id++)
		trainer->byte_id[alphabet[id]] = (uint8_t)id;
	trainer->slots = calloc(FIRST_SLOTS, sizeof(*trainer->slots));
	trainer->num_slots = FIRST_SLOTS;
	if (trainer->slots == NULL || !train_grow(&trainer->bytes, &trainer->bytes_avail, FIRST_SLOTS, 1)) {
		ss_bpe_trainer_free(trainer);
		return NULL;
	}
	trainer->bytes[trainer->num_bytes++] = 0;
	return trainer;
}

void
ss_bpe_trainer_free(ss_bpe_trainer *trainer)
{
	if (trainer == NULL)
		return;
	train_free_merging(trainer->merging);
	free(trainer->bytes);
	free(trainer->pieces);
	free(trainer->slots);
	free(trainer);
}

uint64_t
ss_bpe_trainer_num_pieces(const ss_bpe_trainer *trainer)
{
	return trainer->num_pieces;
}

/* The slots for twice as many pieces. */
static bool
double_slots(ss_bpe_trainer *trainer)
{
	size_t num_slots = 2 * trainer->num_slots;
	uint32_t *slots = calloc(num_slots, sizeof(*slots));

	if (slots == NULL)
		return false;
	for (size_t i = 0; i < trainer->num_pieces; i++) {
		size_t slot = trainer->pieces[i].hash & (num_slots - 1);
		while (slots[slot] != 0)
			slot = (slot + 1) & (num_slots - 1);
		slots[slot] = (uint32_t)(i + 1);
	}
	free(trainer->slots);
	trainer->slots = slots;
	trainer->num_slots = num_slots;
	return true;
}

static enum ss_status
add_piece(ss_bpe_trainer *trainer, const uint8_t *piece, size_t nbytes, uint32_t hash)
{
	if (trainer->num_bytes + nbytes + 1 > TRAIN_MAX_POSITIONS)
		return SS_ERR_SPACE;
	if (!train_grow(&trainer->bytes, &trainer->bytes_avail, trainer->num_bytes + nbytes + 1, 1) ||
	    !train_grow(&trainer->pieces, &trainer->pieces_avail, trainer->num_pieces + 1, sizeof(*trainer->pieces)))
		return SS_ERR_NOMEM;
	trainer->pieces[trainer->num_pieces++] =
		(struct train_piece){ 1, (uint32_t)trainer->num_bytes, (uint32_t)nbytes, hash };
	memcpy(trainer->bytes + trainer->num_bytes, piece, nbytes);
	trainer->num_bytes += nbytes;
	trainer->bytes[trainer->num_bytes++] = 0;
	if (2 * trainer->num_pieces > trainer->num_slots && !double_slots(trainer))
		return SS_ERR_NOMEM;
	return SS_OK;
}

static enum ss_status
count_piece(ss_bpe_trainer *trainer, const uint8_t *piece, size_t nbytes)
{
	uint32_t hash = (uint32_t)train_hash(piece, nbytes);
	size_t mask = trainer->num_slots - 1, slot = hash & mask;

	for (; trainer->slots[slot] != 0; slot = (slot + 1) & mask) {
		struct train_piece *known = &trainer->pieces[trainer->slots[slot] - 1];
		if (known->hash == hash && known->nbytes == nbytes &&
		    memcmp(trainer->bytes + known->begin, piece, nbytes) == 0) {
			known->count++;
			return SS_OK;
		}
	}
	trainer->slots[slot] = (uint32_t)(trainer->num_pieces + 1);
	enum ss_status status = add_piece(trainer, piece, nbytes, hash);
	if (status != SS_OK && trainer->slots[slot] > trainer->num_pieces)
		trainer->slots[slot] = 0;
	return status;
}

static enum ss_status
feed_text(ss_bpe_trainer *trainer, const uint8_t *text, size_t text_nbytes, size_t readable_nbytes)
{
	uint32_t ends[ENDS_AVAIL];
	size_t begin = 0;
	enum ss_status status = SS_OK;

	while (begin < text_nbytes) {
		size_t num = trainer->fill(trainer->pattern, text, begin, text_nbytes, readable_nbytes, ends,
					   ENDS_AVAIL);
		for (size_t i = 0; i < num && status == SS_OK; i++) {
			if (ends[i] - begin > 1)	/* a single byte has no pair */
				status = count_piece(trainer, text + begin, ends[i] - begin);
			begin = ends[i];
		}
		if (status != SS_OK)
			break;
	}
	return status;
}

enum ss_status
ss_bpe_trainer_feed(ss_bpe_trainer *trainer, const uint8_t *text, size_t text_nbytes, const int64_t *offsets,
		    size_t num_texts, uint64_t *place_ret)
{
	if (trainer->merging != NULL)
		return SS_ERR_ARGUMENT;
	for (size_t i = 0; i < num_texts; i++) {
		*place_ret = i;
		if (offsets[i] < 0 || offsets[i] > offsets[i + 1] || (uint64_t)offsets[i + 1] > text_nbytes ||
		    offsets[i + 1] - offsets[i] > SS_PRETOK_MAX_TEXT_NBYTES)
			return SS_ERR_RANGE;
		size_t begin = (size_t)offsets[i];
		enum ss_status status =
			feed_text(trainer, text + begin, (size_t)offsets[i + 1] - begin, text_nbytes - begin);
		if (status != SS_OK)
			return status;
	}
	return SS_OK;
}

/*
 * Several threads that encode the chunks of one batch: see ss_bpe.h.
 *
 * Threads of our own, not the caller's: a chunk of Python's costs two hand-overs of its lock,
 * each as long as a tenth of the encoding.  Where a chunk's ids belong is known once those
 * before it are encoded; then the thread that encoded it, whose core has them at hand, moves them.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "bpe_news.h"

#define MAX_NEWS 32	/* that some thread has not learned yet; more are not told */

/* Ids of one chunk, until they are moved. */
struct ids_buffer {
	struct ids_buffer *next;	/* of the same worker */
	size_t chunk;
	size_t ids_avail;
	uint32_t ids[];
};

struct chunk {
	const uint8_t *text;
	size_t text_nbytes;
	const int64_t *offsets;
	size_t num_texts;
	int64_t *id_offsets;
	bool is_encoded;
	size_t begin;			/* of its ids in job->ids, once it is placed */
};

struct worker {
	struct ss_bpe_job *job;
	ss_bpe_scratch *scratch;
	struct news *news;		/* that its scratch writes; NULL: there is nobody else, or no memory */
	size_t num_heard;		/* of job->num_told */
	struct ids_buffer *encoded, **encoded_end;	/* by the numbers of their chunks */
	struct ids_buffer *free_buffers;
	pthread_t thread;
};

struct ss_bpe_job {
	pthread_mutex_t lock;		/* of what follows, but where it says otherwise */
	pthread_cond_t changed;		/* a chunk was added, or none will be */
	struct chunk *chunks;
	size_t num_chunks, num_taken;
	size_t num_placed, num_ids;	/* the first chunks, whose ids have places in 'ids', and these */
	size_t max_chunks, num_scratches;	/* constant */
	bool is_complete;
	enum ss_status status;
	size_t bad_chunk;
	uint64_t bad_place;
	struct news *told[MAX_NEWS];	/* the i-th at i % MAX_NEWS, until all have heard it */
	size_t num_told;
	struct news *free_news;
	uint32_t *ids;			/* constant while threads run; those of a chunk belong to who encoded it */
	size_t ids_avail;
	size_t num_threads;		/* of the caller, as are the workers; the first is itself */
	struct worker *workers;
};

static struct ids_buffer *
take_buffer(struct worker *worker, size_t ids_avail)
{
	struct ids_buffer *buffer = worker->free_buffers;

	if (buffer != NULL) {
		worker->free_buffers = buffer->next;
		if (buffer->ids_avail >= ids_avail)
			return buffer;
		free(buffer);
	}
	buffer = malloc(sizeof(*buffer) + ids_avail * sizeof(buffer->ids[0]));
	if (buffer != NULL)
		buffer->ids_avail = ids_avail;
	return buffer;
}

static void
fail(struct ss_bpe_job *job, enum ss_status status, size_t chunk, uint64_t place)
{
	if (job->status != SS_OK && job->bad_chunk < chunk)
		return;
	job->status = status;
	job->bad_chunk = chunk;
	job->bad_place = place;
}

/* Gives the ids of encoded chunks places while those of all chunks before have some and there is room.  Holds the lock. */
static void
place_ids(struct ss_bpe_job *job)
{
	for (; job->num_placed < job->num_taken && job->chunks[job->num_placed].is_encoded; job->num_placed++) {
		struct chunk *chunk = &job->chunks[job->num_placed];
		size_t num = (size_t)chunk->id_offsets[chunk->num_texts];
		if (num > job->ids_avail - job->num_ids)
			break;
		chunk->begin = job->num_ids;
		job->num_ids += num;
	}
}

/* Moves the ids that a worker has encoded to their places, if they have some.  Holds the lock but while it moves. */
static void
move_ids(struct worker *worker)
{
	struct ss_bpe_job *job = worker->job;

	while (worker->encoded != NULL && worker->encoded->chunk < job->num_placed) {
		struct ids_buffer *buffer = worker->encoded;
		const struct chunk *chunk = &job->chunks[buffer->chunk];
		pthread_mutex_unlock(&job->lock);
		memcpy(job->ids + chunk->begin, buffer->ids, (size_t)chunk->id_offsets[chunk->num_texts] * sizeof(*job->ids));
		for (size_t i = 0; i <= chunk->num_texts; i++)
			chunk->id_offsets[i] += (int64_t)chunk->begin;
		worker->encoded = buffer->next;
		if (buffer->next == NULL)
			worker->encoded_end = &worker->encoded;
		buffer->next = worker->free_buffers;
		worker->free_buffers = buffer;
		pthread_mutex_lock(&job->lock);
	}
}

/* Gives a worker's scratch room for news, if there is somebody to tell. */
static void
begin_news(struct worker *worker)
{
	struct ss_bpe_job *job = worker->job;
	struct news *news = job->free_news;

	if (news != NULL)
		job->free_news = news->next;
	else if (job->num_scratches > 1)
		news = malloc(sizeof(*news));
	if (news != NULL)
		news->num_words = 0;
	worker->news = news;
	scratch_tell(worker->scratch, news);
}

static void
tell_news(struct worker *worker)
{
	struct ss_bpe_job *job = worker->job;
	struct news **place = &job->told[job->num_told % MAX_NEWS], *news = worker->news;

	if (news == NULL || news->num_words == 0)
		return;
	if (*place != NULL) {	/* somebody is far behind */
		news->num_words = 0;
		return;
	}
	news->teller = worker;
	news->num_unheard = job->num_scratches;
	*place = news;
	job->num_told++;
	begin_news(worker);
}

/* Has a worker learn what others have told since the last time.  Holds the lock but while it learns. */
static void
hear_news(struct worker *worker)
{
	struct ss_bpe_job *job = worker->job;

	for (; worker->num_heard < job->num_told; worker->num_heard++) {
		struct news **place = &job->told[worker->num_heard % MAX_NEWS], *news = *place;
		if (news->teller != worker) {
			pthread_mutex_unlock(&job->lock);
			scratch_learn(worker->scratch, news);
			pthread_mutex_lock(&job->lock);
		}
		if (--news->num_unheard == 0) {
			*place = NULL;
			news->next = job->free_news;
			job->free_news = news;
		}
	}
}

/* Encodes one chunk that has been taken.  Holds the lock but while it encodes. */
static void
encode_chunk(struct worker *worker, size_t number)
{
	struct ss_bpe_job *job = worker->job;
	struct chunk chunk = job->chunks[number];
	int64_t nbytes = chunk.offsets[chunk.num_texts] - chunk.offsets[0];	/* wrong, if ss_bpe_encode() will find it so */
	size_t needed = nbytes >= 0 && (uint64_t)nbytes <= chunk.text_nbytes ? (size_t)nbytes : 0;
	struct ids_buffer *buffer;
	enum ss_status status = SS_ERR_NOMEM;
	uint64_t place = 0;

	pthread_mutex_unlock(&job->lock);
	buffer = take_buffer(worker, needed + SS_BPE_IDS_SLACK);
	if (buffer != NULL)
		status = ss_bpe_encode(worker->scratch, chunk.text, chunk.text_nbytes, chunk.offsets, chunk.num_texts,
				       buffer->ids, buffer->ids_avail, chunk.id_offsets, &place);
	pthread_mutex_lock(&job->lock);
	if (status == SS_OK) {
		buffer->chunk = number;
		buffer->next = NULL;
		*worker->encoded_end = buffer;
		worker->encoded_end = &buffer->next;
		job->chunks[number].is_encoded = true;
		place_ids(job);
		tell_news(worker);
		move_ids(worker);
	} else {
		free(buffer);
		fail(job, status, number, place);
	}
}

static void *
work(void *argument)
{
	struct worker *worker = argument;
	struct ss_bpe_job *job = worker->job;

	pthread_mutex_lock(&job->lock);
	begin_news(worker);
	for (;;) {
		hear_news(worker);
		while (job->num_taken == job->num_chunks && !job->is_complete)
			pthread_cond_wait(&job->changed, &job->lock);
		if (job->num_taken == job->num_chunks || job->status != SS_OK)
			break;
		encode_chunk(worker, job->num_taken++);
	}
	scratch_tell(worker->scratch, NULL);
	pthread_mutex_unlock(&job->lock);
	return NULL;
}

ss_bpe_job *
ss_bpe_job_new(ss_bpe_scratch *const *scratches, size_t num_scratches, size_t max_chunks, uint32_t *ids, size_t ids_avail)
{
	struct ss_bpe_job *job = calloc(1, sizeof(*job));

	if (job == NULL)
		return NULL;
	job->chunks = calloc(max_chunks, sizeof(*job->chunks));
	job->workers = calloc(num_scratches, sizeof(*job->workers));
	if (job->chunks == NULL || job->workers == NULL) {
		free(job->chunks);
		free(job->workers);
		free(job);
		return NULL;
	}
	pthread_mutex_init(&job->lock, NULL);
	pthread_cond_init(&job->changed, NULL);
	job->max_chunks = max_chunks;
	job->num_scratches = num_scratches;
	job->ids = ids;
	job->ids_avail = ids_avail;
	for (size_t i = 0; i < num_scratches; i++) {
		struct worker *worker = &job->workers[i];
		*worker = (struct worker){ .job = job, .scratch = scratches[i], .encoded_end = &worker->encoded };
	}
	for (job->num_threads = 1; job->num_threads < num_scratches; job->num_threads++) {
		struct worker *worker = &job->workers[job->num_threads];
		if (pthread_create(&worker->thread, NULL, work, worker) != 0)
			break;	/* those that there are do the work */
	}
	return job;
}

enum ss_status
ss_bpe_job_add(ss_bpe_job *job, const uint8_t *text, size_t text_nbytes, const int64_t *offsets, size_t num_texts,
	       int64_t *id_offsets)
{
	enum ss_status status = SS_OK;

	pthread_mutex_lock(&job->lock);
	if (job->num_chunks == job->max_chunks)
		status = SS_ERR_SPACE;
	else
		job->chunks[job->num_chunks++] = (struct chunk){ text, text_nbytes, offsets, num_texts, id_offsets, false, 0 };
	pthread_cond_signal(&job->changed);
	pthread_mutex_unlock(&job->lock);
	return status;
}

/* Ends what runs: after the last chunk, or, if not is_wanted, after those that are being encoded. */
static void
end_threads(struct ss_bpe_job *job, bool is_wanted)
{
	pthread_mutex_lock(&job->lock);
	job->is_complete = true;
	if (!is_wanted)
		job->num_chunks = job->num_taken;
	pthread_cond_broadcast(&job->changed);
	pthread_mutex_unlock(&job->lock);
	if (is_wanted)
		work(&job->workers[0]);
	for (; job->num_threads > 1; job->num_threads--)
		pthread_join(job->workers[job->num_threads - 1].thread, NULL);
}

/* Moves what threads have left, all of which have ended. */
static void
move_rest(struct ss_bpe_job *job)
{
	pthread_mutex_lock(&job->lock);
	place_ids(job);
	for (size_t i = 0; i < job->num_scratches; i++)
		move_ids(&job->workers[i]);
	pthread_mutex_unlock(&job->lock);
}

enum ss_status
ss_bpe_job_run(ss_bpe_job *job, size_t *num_ids_ret, size_t *chunk_ret, uint64_t *place_ret)
{
	end_threads(job, true);
	move_rest(job);
	*num_ids_ret = job->num_ids;
	for (size_t i = job->num_placed; i < job->num_chunks && job->status == SS_OK; i++)
		*num_ids_ret += (size_t)job->chunks[i].id_offsets[job->chunks[i].num_texts];
	*chunk_ret = job->bad_chunk;
	*place_ret = job->bad_place;
	return job->status;
}

void
ss_bpe_job_move(ss_bpe_job *job, uint32_t *ids, size_t ids_avail)
{
	if (job->num_ids > 0)
		memcpy(ids, job->ids, job->num_ids * sizeof(*ids));
	job->ids = ids;
	job->ids_avail = ids_avail;
	move_rest(job);
}

static void
free_buffers(struct ids_buffer *buffers)
{
	for (struct ids_buffer *buffer = buffers, *next; buffer != NULL; buffer = next) {
		next = buffer->next;
		free(buffer);
	}
}

void
ss_bpe_job_free(ss_bpe_job *job)
{
	if (job == NULL)
		return;
	end_threads(job, false);
	for (size_t i = 0; i < job->num_scratches; i++) {
		free_buffers(job->workers[i].encoded);
		free_buffers(job->workers[i].free_buffers);
		free(job->workers[i].news);
	}
	for (size_t i = 0; i < MAX_NEWS; i++)
		free(job->told[i]);
	for (struct news *news = job->free_news, *next; news != NULL; news = next) {
		next = news->next;
		free(news);
	}
	pthread_cond_destroy(&job->changed);
	pthread_mutex_destroy(&job->lock);
	free(job->workers);
	free(job->chunks);
	free(job);
}

/*
 * Replays a corpus through a fuzz target, then a fixed number of seeded mutations
 * of its files: the same inputs on every run, so that a failure repeats.
 *
 *     fuzz_<x> CORPUS_FOLDER        the short pass
 *     fuzz_<x> FILE                 one input, to look at a failure
 *
 * A failing input is written beside the program, as fuzz_<x>.crash.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dirent.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuzz.h"

#define RUNS_PER_TARGET 20000
#define MAX_INPUT_NBYTES 65536	/* seeds are small; a long one would only be slow */
#define MAX_FILES 1024

struct input {
	char path[512];
	uint8_t *data;
	size_t nbytes;
};

static uint64_t random_state;

/* splitmix64 */
static uint64_t
next_random(void)
{
	uint64_t z = (random_state += 0x9E3779B97F4A7C15u);

	z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
	z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
	return z ^ (z >> 31);
}

static size_t
random_below(size_t limit)
{
	return limit == 0 ? 0 : (size_t)(next_random() % limit);
}

static struct input
read_input(const char *path)
{
	struct input input = {.data = malloc(MAX_INPUT_NBYTES)};
	FILE *file = fopen(path, "rb");

	if (file == NULL || input.data == NULL) {
		perror(path);
		exit(2);
	}
	snprintf(input.path, sizeof(input.path), "%s", path);
	input.nbytes = fread(input.data, 1, MAX_INPUT_NBYTES, file);
	fclose(file);
	return input;
}

static int
compare_paths(const void *a, const void *b)
{
	return strcmp(((const struct input *)a)->path, ((const struct input *)b)->path);
}

/* Files in name order, since a folder's own order differs from machine to machine. */
static size_t
read_corpus(const char *folder, struct input *inputs)
{
	DIR *dir = opendir(folder);
	size_t num_inputs = 0;

	if (dir == NULL) {
		perror(folder);
		exit(2);
	}
	for (struct dirent *entry; (entry = readdir(dir)) != NULL && num_inputs < MAX_FILES;) {
		char path[512];
		if (entry->d_name[0] == '.')
			continue;
		if (snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name) >= (int)sizeof(path))
			continue;
		inputs[num_inputs++] = read_input(path);
	}
	closedir(dir);
	qsort(inputs, num_inputs, sizeof(inputs[0]), compare_paths);
	return num_inputs;
}

/* An exact-size heap copy, so that AddressSanitizer sees the first byte read too many. */
static void
run_one(const uint8_t *data, size_t nbytes)
{
	uint8_t *copy = malloc(nbytes > 0 ? nbytes : 1);

	if (copy == NULL)
		exit(2);
	if (nbytes > 0)
		memcpy(copy, data, nbytes);
	LLVMFuzzerTestOneInput(copy, nbytes);
	free(copy);
}

/* Copies a random piece of 'from' over, or into, data[0 .. nbytes); returns the new size. */
static size_t
splice(uint8_t *data, size_t nbytes, const struct input *from)
{
	size_t at = random_below(nbytes + 1), begin = random_below(from->nbytes);
	size_t piece = 1 + random_below(from->nbytes - begin);
	size_t end = at + piece > MAX_INPUT_NBYTES ? MAX_INPUT_NBYTES : at + piece;

	if (from->nbytes == 0)
		return nbytes;
	if (next_random() % 2 && nbytes + piece <= MAX_INPUT_NBYTES) {
		memmove(data + at + piece, data + at, nbytes - at);
		memcpy(data + at, from->data + begin, piece);
		return nbytes + piece;
	}
	memcpy(data + at, from->data + begin, end - at);
	return end > nbytes ? end : nbytes;
}

static size_t
mutate(uint8_t *data, size_t nbytes, const struct input *other)
{
	static const uint8_t edges[] = {0x00, 0x01, 0x20, 0x2F, 0x30, 0x37, 0x7F, 0x80, 0xFE, 0xFF};
	size_t at = random_below(nbytes);

	switch (nbytes == 0 ? 5 : next_random() % 7) {
	case 0:
		data[at] ^= (uint8_t)(1u << (next_random() % 8));
		return nbytes;
	case 1:
		data[at] = edges[random_below(sizeof(edges))];
		return nbytes;
	case 2:
		data[at] = (uint8_t)next_random();
		return nbytes;
	case 3:
		return at;
	case 4:
		memset(data + at, edges[random_below(sizeof(edges))], 1 + random_below(nbytes - at < 16 ? nbytes - at : 16));
		return nbytes;
	default:
		return splice(data, nbytes, other);
	}
}

static char crash_path[512];
static const char *current_path;
static uint64_t current_run;
static const uint8_t *current_data;
static size_t current_nbytes;

static void
report_crash(void)
{
	FILE *file = fopen(crash_path, "wb");

	fprintf(stderr, "driver: failed on %s, mutation %llu; the input is in %s\n", current_path,
		(unsigned long long)current_run, crash_path);
	if (file != NULL) {
		fwrite(current_data, 1, current_nbytes, file);
		fclose(file);
	}
}

static void
on_abort(int signal_number)
{
	report_crash();
	signal(signal_number, SIG_DFL);
	raise(signal_number);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__clang__)
void __sanitizer_set_death_callback(void (*callback)(void));
#else
#define __sanitizer_set_death_callback(callback) ((void)0)
#endif

static void
run_corpus(const struct input *inputs, size_t num_inputs)
{
	uint8_t *data = malloc(MAX_INPUT_NBYTES);
	uint64_t runs = RUNS_PER_TARGET / num_inputs;

	if (data == NULL)
		exit(2);
	current_data = data;
	for (size_t i = 0; i < num_inputs; i++) {
		current_path = inputs[i].path;
		random_state = i;
		for (current_run = 0; current_run <= runs; current_run++) {
			size_t nbytes = inputs[i].nbytes;
			memcpy(data, inputs[i].data, nbytes);
			for (uint64_t steps = current_run == 0 ? 0 : 1 + next_random() % 4; steps > 0; steps--)
				nbytes = mutate(data, nbytes, &inputs[random_below(num_inputs)]);
			current_nbytes = nbytes;
			run_one(data, nbytes);
		}
	}
	free(data);
}

int
main(int argc, char **argv)
{
	static struct input inputs[MAX_FILES];
	struct stat info;

	if (argc != 2 || stat(argv[1], &info) != 0) {
		fprintf(stderr, "usage: %s CORPUS_FOLDER | FILE\n", argv[0]);
		return 2;
	}
	if (!S_ISDIR(info.st_mode)) {
		inputs[0] = read_input(argv[1]);
		run_one(inputs[0].data, inputs[0].nbytes);
		free(inputs[0].data);
		return 0;
	}
	size_t num_inputs = read_corpus(argv[1], inputs);
	if (num_inputs == 0) {
		fprintf(stderr, "%s: no seeds in %s\n", argv[0], argv[1]);
		return 2;
	}
	snprintf(crash_path, sizeof(crash_path), "%s.crash", argv[0]);
	signal(SIGABRT, on_abort);
	__sanitizer_set_death_callback(report_crash);
	run_corpus(inputs, num_inputs);
	for (size_t i = 0; i < num_inputs; i++)
		free(inputs[i].data);
	return 0;
}

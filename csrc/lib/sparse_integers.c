/*
 * Lists of small integers (row lengths, frequencies, counts, palette codes) in the
 * mode that makes them shortest.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>

#include "sparse.h"

/* Values up to this far above the minimum are measured by histogram, in one pass. */
#define HISTOGRAM_SIZE 4096
#define MAX_PARAMETER 31

/* Distinct values above the minimum, and how often each comes. */
struct tally {
	const uint32_t *values;		/* NULL: value i stands at i */
	const uint32_t *times;		/* NULL: each once */
	size_t num;
	uint32_t min;
};

static uint64_t
rice_nbits(const struct tally *t, unsigned b)
{
	uint64_t unary = 0;

	for (size_t i = 0; i < t->num; i++) {
		uint64_t v = t->values ? t->values[i] - t->min : (uint32_t)i;
		unary += (v >> b) * (t->times ? t->times[i] : 1);
	}
	return unary;
}

static uint64_t
expgolomb_nbits(const struct tally *t, unsigned b)
{
	uint64_t more = 0;

	for (size_t i = 0; i < t->num; i++) {
		uint64_t v = t->values ? t->values[i] - t->min : (uint32_t)i;
		more += (uint64_t)(bit_length((v >> b) + 1) - 1) * (t->times ? t->times[i] : 1);
	}
	return more;
}

/* Takes a cheaper RICE or EXPGOLOMB into *best; each of its streams ends on a byte. */
static void
choose_parameter(struct integers_plan *best, const struct tally *t, size_t num, unsigned width)
{
	unsigned header = 1 + leb128_nbytes(best->min) + 1;

	for (unsigned b = 0; b < width && b <= MAX_PARAMETER; b++) {
		uint64_t low = ((uint64_t)num * b + 7) / 8;
		uint64_t rice = header + low + (rice_nbits(t, b) + num + 7) / 8;
		uint64_t more = expgolomb_nbits(t, b);
		uint64_t expgolomb = header + (more + num + 7) / 8 + (more + (uint64_t)num * b + 7) / 8;

		if (rice < best->nbytes) {
			best->nbytes = rice;
			best->mode = INTEGERS_RICE;
			best->parameter = (uint8_t)b;
		}
		if (expgolomb < best->nbytes) {
			best->nbytes = expgolomb;
			best->mode = INTEGERS_EXPGOLOMB;
			best->parameter = (uint8_t)b;
		}
	}
}

static uint64_t
bytes_nbytes(const struct tally *t)
{
	uint64_t nbytes = 1;

	for (size_t i = 0; i < t->num; i++) {
		uint32_t v = t->values ? t->values[i] : t->min + (uint32_t)i;
		nbytes += (uint64_t)leb128_nbytes(v) * (t->times ? t->times[i] : 1);
	}
	return nbytes;
}

/* Where the integers differ from their minimum, and by how much more than 1. */
struct exceptions {
	uint32_t *positions;
	uint32_t *excess;
	uint32_t num;
};

static int
find_exceptions(const uint32_t *integers, size_t num, uint32_t min, struct exceptions *e)
{
	e->num = 0;
	e->positions = calloc(2 * (num + 1), sizeof(uint32_t));
	if (e->positions == NULL)
		return 0;
	e->excess = e->positions + num + 1;
	for (size_t i = 0; i < num; i++) {	/* no branch: exceptions come at random */
		e->positions[e->num] = (uint32_t)i;
		e->excess[e->num] = integers[i] - min - 1;
		e->num += integers[i] != min;
	}
	return 1;
}

static struct integers_plan choose_flat(const uint32_t *integers, size_t num);

static void
choose_sparse(struct integers_plan *best, const uint32_t *integers, size_t num)
{
	struct exceptions e;

	if (!find_exceptions(integers, num, best->min, &e)) {
		best->nbytes = UINT64_MAX;
		return;
	}
	if (e.num <= num / 2) {
		uint64_t nbytes = 1 + leb128_nbytes(best->min) + leb128_nbytes(e.num) +
				  rice_nbytes(num, &e.num, 1, e.positions) +
				  choose_flat(e.excess, e.num).nbytes;
		if (nbytes < best->nbytes) {
			best->nbytes = nbytes;
			best->mode = INTEGERS_SPARSE;
		}
	}
	free(e.positions);
}

/* The best mode but SPARSE. */
static struct integers_plan
choose_flat(const uint32_t *integers, size_t num)
{
	struct integers_plan best = {.min = UINT32_MAX, .mode = INTEGERS_PACKED};
	uint32_t histogram[HISTOGRAM_SIZE], odd[HISTOGRAM_SIZE], max = 0;
	struct tally t = {integers, NULL, num, 0};

	if (num == 0)
		return (struct integers_plan){.nbytes = 0};
	for (size_t i = 0; i < num; i++) {
		best.min = integers[i] < best.min ? integers[i] : best.min;
		max = integers[i] > max ? integers[i] : max;
	}
	unsigned width = bit_length(max - best.min);
	best.parameter = (uint8_t)width;
	best.nbytes = 1 + leb128_nbytes(best.min) + 1 + ((uint64_t)num * width + 7) / 8;
	t.min = best.min;
	if (max - best.min < HISTOGRAM_SIZE) {
		size_t size = (size_t)(max - best.min) + 1;
		memset(histogram, 0, size * sizeof(uint32_t));
		memset(odd, 0, size * sizeof(uint32_t));
		/* Neighbours are often equal, and an addition to a place waits for the last one to it. */
		for (size_t i = 0; i < num; i++)
			(i & 1 ? odd : histogram)[integers[i] - best.min]++;
		for (size_t v = 0; v < size; v++)
			histogram[v] += odd[v];
		t = (struct tally){NULL, histogram, (size_t)(max - best.min) + 1, best.min};
	}
	choose_parameter(&best, &t, num, width);
	uint64_t bytes = bytes_nbytes(&t);
	if (bytes < best.nbytes) {
		best.nbytes = bytes;
		best.mode = INTEGERS_BYTES;
	}
	return best;
}

static int
are_equal(const uint32_t *integers, size_t num)
{
	uint32_t differ = 0;

	for (size_t i = 1; i < num; i++)
		differ |= integers[i] ^ integers[0];
	return differ == 0;
}

struct integers_plan
integers_choose(const uint32_t *integers, size_t num, int for_zstd)
{
	struct integers_plan best;

	if (for_zstd && !are_equal(integers, num)) {
		best = (struct integers_plan){.mode = INTEGERS_BYTES};
		best.nbytes = bytes_nbytes(&(struct tally){.values = integers, .num = num});
		return best;
	}
	best = choose_flat(integers, num);
	if (num > 0 && !(best.mode == INTEGERS_PACKED && best.parameter == 0) && !for_zstd)
		choose_sparse(&best, integers, num);
	return best;
}

static uint8_t *
write_rice(uint32_t min, unsigned b, const uint32_t *integers, size_t num, uint8_t *out)
{
	struct bit_writer low = {.p = out}, unary;

	for (size_t i = 0; i < num; i++)
		bits_put(&low, (integers[i] - min) & ((1u << b) - 1), b);
	unary = (struct bit_writer){.p = bits_finish(&low)};
	for (size_t i = 0; i < num; i++)
		bits_put_unary(&unary, (integers[i] - min) >> b);
	return bits_finish(&unary);
}

static uint8_t *
write_expgolomb(uint32_t min, unsigned b, const uint32_t *integers, size_t num, uint8_t *out)
{
	struct bit_writer unary = {.p = out}, tail;

	for (size_t i = 0; i < num; i++)
		bits_put_unary(&unary, bit_length(((uint64_t)(integers[i] - min) >> b) + 1) - 1);
	tail = (struct bit_writer){.p = bits_finish(&unary)};
	for (size_t i = 0; i < num; i++) {
		uint64_t y = integers[i] - min + (1ull << b);
		unsigned top = bit_length(y) - 1;
		bits_put(&tail, y & ((1ull << top) - 1), top);
	}
	return bits_finish(&tail);
}

static uint8_t *
write_sparse(uint32_t min, const uint32_t *integers, size_t num, uint8_t *out)
{
	struct exceptions e;

	if (!find_exceptions(integers, num, min, &e))
		return NULL;
	struct integers_plan excess = choose_flat(e.excess, e.num);
	out = leb128_put(out, e.num);
	out = rice_write(num, &e.num, 1, e.positions, out);
	if (out != NULL)
		out = integers_write(&excess, e.excess, e.num, out);
	free(e.positions);
	return out;
}

uint8_t *
integers_write(const struct integers_plan *plan, const uint32_t *integers, size_t num, uint8_t *out)
{
	if (num == 0)
		return out;
	*out++ = plan->mode;
	if (plan->mode == INTEGERS_BYTES) {
		for (size_t i = 0; i < num; i++)
			out = leb128_put(out, integers[i]);
		return out;
	}
	out = leb128_put(out, plan->min);
	if (plan->mode == INTEGERS_SPARSE)
		return write_sparse(plan->min, integers, num, out);
	*out++ = plan->parameter;
	if (plan->mode == INTEGERS_RICE)
		return write_rice(plan->min, plan->parameter, integers, num, out);
	if (plan->mode == INTEGERS_EXPGOLOMB)
		return write_expgolomb(plan->min, plan->parameter, integers, num, out);
	struct bit_writer w = {.p = out};
	for (size_t i = 0; i < num; i++)
		bits_put(&w, integers[i] - plan->min, plan->parameter);
	return bits_finish(&w);
}

static enum ss_status
read_packed(struct input *in, uint64_t min, unsigned width, uint32_t *integers, size_t num)
{
	uint64_t nbytes = ((uint64_t)num * width + 7) / 8, max = 0;

	if (nbytes > input_left(in))
		return SS_ERR_TRUNCATED;
	struct bit_reader r = {in->p, 0, nbytes * 8};
	in->p += nbytes;
	for (size_t i = 0; i < num; i++) {
		uint64_t v = min + bits_take(&r, width);
		max = v > max ? v : max;
		integers[i] = (uint32_t)v;
	}
	return max <= UINT32_MAX && bits_padding_is_zero(&r) ? SS_OK : SS_ERR_CORRUPT;
}

static enum ss_status
read_rice(struct input *in, uint64_t min, unsigned b, uint32_t *integers, size_t num)
{
	uint64_t nbytes = ((uint64_t)num * b + 7) / 8;

	if (nbytes > input_left(in))
		return SS_ERR_TRUNCATED;
	struct bit_reader low = {in->p, 0, nbytes * 8};
	struct bit_reader unary = {in->p + nbytes, 0, (input_left(in) - nbytes) * 8};
	for (size_t i = 0; i < num; i++) {
		uint64_t q, v;
		if (!bits_take_unary(&unary, &q))
			return SS_ERR_TRUNCATED;
		v = min + (q << b) + bits_take(&low, b);
		if (q > UINT32_MAX >> b || v > UINT32_MAX)
			return SS_ERR_CORRUPT;
		integers[i] = (uint32_t)v;
	}
	in->p = unary.data + (unary.pos + 7) / 8;
	return bits_padding_is_zero(&low) && bits_padding_is_zero(&unary) ? SS_OK : SS_ERR_CORRUPT;
}

static enum ss_status
read_expgolomb(struct input *in, uint64_t min, unsigned b, uint32_t *integers, size_t num)
{
	struct bit_reader unary = {in->p, 0, input_left(in) * 8}, tail;
	uint64_t tail_nbits = 0;

	for (size_t i = 0; i < num; i++) {
		uint64_t q;
		if (!bits_take_unary(&unary, &q))
			return SS_ERR_TRUNCATED;
		if (q + b > 32)
			return SS_ERR_CORRUPT;
		integers[i] = (uint32_t)q + b;
		tail_nbits += q + b;
	}
	in->p = unary.data + (unary.pos + 7) / 8;
	if ((tail_nbits + 7) / 8 > input_left(in))
		return SS_ERR_TRUNCATED;
	tail = (struct bit_reader){in->p, 0, (tail_nbits + 7) / 8 * 8};
	in->p += (tail_nbits + 7) / 8;
	for (size_t i = 0; i < num; i++) {
		unsigned top = integers[i];
		uint64_t v = min + (1ull << top) - (1ull << b) + bits_take(&tail, top);
		if (v > UINT32_MAX)
			return SS_ERR_CORRUPT;
		integers[i] = (uint32_t)v;
	}
	return bits_padding_is_zero(&unary) && bits_padding_is_zero(&tail) ? SS_OK : SS_ERR_CORRUPT;
}

static enum ss_status
read_bytes(struct input *in, uint32_t *integers, size_t num)
{
	for (size_t i = 0; i < num; i++) {
		uint64_t v;
		enum ss_status status = leb128_take(in, 32, &v);
		if (status != SS_OK)
			return status;
		integers[i] = (uint32_t)v;
	}
	return SS_OK;
}

static enum ss_status read_mode(struct input *in, unsigned mode, uint64_t min, uint32_t *integers,
				size_t num);

static enum ss_status
read_sparse(struct input *in, uint64_t min, uint32_t *integers, size_t num)
{
	uint64_t num_exceptions, mode = 0, nested_min = 0;
	enum ss_status status = leb128_take(in, 32, &num_exceptions);

	if (status != SS_OK)
		return status;
	if (num_exceptions > num)
		return SS_ERR_CORRUPT;
	uint32_t len = (uint32_t)num_exceptions;
	uint32_t *positions = malloc((2 * (size_t)len + 1) * sizeof(uint32_t));
	if (positions == NULL)
		return SS_ERR_NOMEM;
	uint32_t *excess = positions + len;
	status = rice_read(num, &len, 1, in, positions);
	if (status == SS_OK && len > 0) {
		mode = input_left(in) > 0 ? *in->p++ : INTEGERS_NUM_MODES;
		status = mode >= INTEGERS_SPARSE ? SS_ERR_CORRUPT : SS_OK;
		if (status == SS_OK && mode != INTEGERS_BYTES)
			status = leb128_take(in, 32, &nested_min);
		if (status == SS_OK)
			status = read_mode(in, (unsigned)mode, nested_min, excess, len);
	}
	for (size_t i = 0; i < num; i++)
		integers[i] = (uint32_t)min;
	for (uint32_t i = 0; status == SS_OK && i < len; i++) {
		uint64_t v = min + 1 + excess[i];
		if (v > UINT32_MAX)
			status = SS_ERR_CORRUPT;
		integers[positions[i]] = (uint32_t)v;
	}
	free(positions);
	return status;
}

static enum ss_status
read_mode(struct input *in, unsigned mode, uint64_t min, uint32_t *integers, size_t num)
{
	if (mode == INTEGERS_BYTES)
		return read_bytes(in, integers, num);
	if (mode == INTEGERS_SPARSE)
		return read_sparse(in, min, integers, num);
	if (input_left(in) == 0)
		return SS_ERR_TRUNCATED;
	unsigned parameter = *in->p++;
	if (parameter > (mode == INTEGERS_PACKED ? 32 : MAX_PARAMETER))
		return SS_ERR_CORRUPT;
	if (mode == INTEGERS_PACKED)
		return read_packed(in, min, parameter, integers, num);
	if (mode == INTEGERS_RICE)
		return read_rice(in, min, parameter, integers, num);
	return read_expgolomb(in, min, parameter, integers, num);
}

enum ss_status
integers_read(struct input *in, uint32_t *integers, size_t num)
{
	uint64_t min = 0;
	enum ss_status status = SS_OK;

	if (num == 0)
		return SS_OK;
	if (input_left(in) == 0)
		return SS_ERR_TRUNCATED;
	unsigned mode = *in->p++;
	if (mode >= INTEGERS_NUM_MODES)
		return SS_ERR_CORRUPT;
	if (mode != INTEGERS_BYTES)
		status = leb128_take(in, 32, &min);
	return status != SS_OK ? status : read_mode(in, mode, min, integers, num);
}

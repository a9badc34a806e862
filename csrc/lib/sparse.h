/*
 * sparse.h - the parts of the sparse codec (docs/FORMAT.md, section 4), bottom up:
 * sets of integers, lists of integers, tables of ids.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * A "universe" is the number of values an element can have: elements lie in
 * [0, universe).  Sets come concatenated, each ascending, with their sizes in
 * lens[0 .. num_sets), none above the universe.  _nbytes() functions give exact
 * sizes; _write() functions return the end of what they wrote and need
 * SS_SPARSE_SLACK_NBYTES of room behind it; _read() functions advance *in, on an
 * error to the place where it was seen.
 */
#ifndef SS_SPARSE_INTERNAL_H
#define SS_SPARSE_INTERNAL_H

#include "bits.h"
#include "ss_sparse.h"

/* Format numbers. */
#define SPARSE_MAGIC "SPRS"
#define SPARSE_MAGIC_NBYTES 4
#define SPARSE_VERSION 1
#define SPARSE_FLAG_INDEX_ZSTD 1
#define SPARSE_FLAG_VALUES_ZSTD 2
#define SPARSE_MAX_DIM (1ull << 32)
#define SPARSE_MAX_PALETTE 65536
#define RICE_MAX_UNARY_NBYTES ((1ull << 29) - 1)	/* so that readers count its bits in 32 */

enum integers_mode {
	INTEGERS_PACKED,	/* a fixed number of bits each */
	INTEGERS_RICE,
	INTEGERS_EXPGOLOMB,
	INTEGERS_BYTES,		/* LEB128 */
	INTEGERS_SPARSE,	/* the positions that differ from the minimum, then by how much */
	INTEGERS_NUM_MODES
};

/*
 * The Rice parameter for sets of 'size' elements: the b that makes 2^b the median
 * gap of a uniform set, in integers so that every reader gets the same.  77/80 is
 * 2 ln(golden ratio) (Kiely 2004, theorem 1), (2u - s) / 2(s + 1) the mean gap + 1/2.
 */
static inline unsigned
rice_parameter(uint64_t universe, uint64_t size)
{
	uint64_t x = 77 * (2 * universe - size) / (160 * (size + 1));

	return x < 2 ? 0 : bit_length(x) - 1;
}

/* The same looked up for small sets, where the division would cost more than the elements. */
#define RICE_NUM_SMALL 64
struct rice_rule {
	uint64_t universe;
	uint64_t num_small;
	uint8_t small[RICE_NUM_SMALL];
};

static inline void
rice_rule_init(struct rice_rule *rule, uint64_t universe, size_t num_sets)
{
	rule->universe = universe;
	rule->num_small = num_sets < RICE_NUM_SMALL ? 0 : RICE_NUM_SMALL;
	for (unsigned size = 0; size < rule->num_small; size++)
		rule->small[size] = size <= universe ? (uint8_t)rice_parameter(universe, size) : 0;
}

static inline unsigned
rice_rule_b(const struct rice_rule *rule, uint64_t size)
{
	return size < rule->num_small ? rule->small[size] : rice_parameter(rule->universe, size);
}

/* How many elements RICE writes of a set: those absent, if they are fewer. */
static inline uint64_t
rice_num_written(uint64_t universe, uint64_t size)
{
	return 2 * size > universe ? universe - size : size;
}

uint64_t sets_sum(const uint32_t *lens, size_t num_sets);

/* UINT64_MAX if memory is short or the coder can't write these sets. */
uint64_t sets_nbytes(enum ss_sparse_coder coder, uint64_t universe, const uint32_t *lens,
		     size_t num_sets, const uint32_t *elements);
/* NULL if memory is short. */
uint8_t *sets_write(enum ss_sparse_coder coder, uint64_t universe, const uint32_t *lens,
		    size_t num_sets, const uint32_t *elements, uint8_t *out);
/* Reads the sets; for BITMAP lens[] is an output and 'total' must be their sum. */
enum ss_status sets_read(enum ss_sparse_coder coder, uint64_t universe, uint32_t *lens,
			 size_t num_sets, uint64_t total, struct input *in, uint32_t *elements);

uint64_t rice_nbytes(uint64_t universe, const uint32_t *lens, size_t num_sets,
		     const uint32_t *elements);
/* What sets of these sizes take at least, whatever their elements. */
uint64_t rice_least_nbytes(uint64_t universe, const uint32_t *lens, size_t num_sets);
uint8_t *rice_write(uint64_t universe, const uint32_t *lens, size_t num_sets,
		    const uint32_t *elements, uint8_t *out);
enum ss_status rice_read(uint64_t universe, const uint32_t *lens, size_t num_sets,
			 struct input *in, uint32_t *elements);

/* How a list of integers is best written, and the exact size of that. */
struct integers_plan {
	uint64_t nbytes;	/* UINT64_MAX: memory is short */
	uint32_t min;
	uint8_t mode;
	uint8_t parameter;	/* width of PACKED, b of RICE and EXPGOLOMB */
};

/* Chooses among the modes; 'for_zstd' takes BYTES, whatever its size. */
struct integers_plan integers_choose(const uint32_t *integers, size_t num, int for_zstd);
uint8_t *integers_write(const struct integers_plan *plan, const uint32_t *integers,
			size_t num, uint8_t *out);
enum ss_status integers_read(struct input *in, uint32_t *integers, size_t num);

/* The ids that occur in a block, ascending, and in how many rows each does. */
struct id_table {
	uint32_t *ids;
	uint32_t *num_rows_of;
	size_t num_ids;
};

/* order[rank] = position in the table: by falling num_rows_of, then rising id. */
enum ss_status id_table_rank(const struct id_table *table, uint32_t *order);

/* Rows turned round: the table of ids, and of each id in turn the rows that hold it. */
struct columns {
	struct id_table table;
	uint32_t *rows;		/* NULL until columns_make() */
};

/* 0 if memory is short; columns_free() is then still allowed. */
int columns_make(const uint32_t *indices, const uint32_t *lens, size_t num_rows, uint64_t dim,
		 struct columns *columns);
void columns_free(struct columns *columns);
/* The rows with each id replaced by its rank; NULL if memory is short. */
uint32_t *columns_ranks(const struct columns *columns, const uint32_t *lens, size_t num_rows);

#endif

/*
 * pretok_cuts.h - where a window of ASCII is cut, 64 characters at once.  Private.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * A window begins where a piece does, so what is before it has no say.  The classes of
 * its characters are bit sets, bit i for character i, and the patterns become shifts and
 * sums of them: "x << 1" holds the places after an x, and adding a bit to the run of
 * ones that it begins clears the run and sets the place after it.
 *
 * What follows the window is not known, unless the text ends there.  A cut that could
 * depend on it is left out; the next window begins at this one's last cut and decides it.
 * Slow twin: pretok_next.h, held equal by csrc/tests/test_pretok.c and fuzz_pretok.c.
 */
#ifndef PRETOK_CUTS_H
#define PRETOK_CUTS_H

#include "pretok.h"
#include "pretok_next.h"

#define WINDOW_NBYTES 64

struct ascii_classes {
	uint64_t valid;		/* the characters of the window */
	uint64_t upper, lower, digit;
	uint64_t newline;	/* \r \n */
	uint64_t space;		/* ' ' */
	uint64_t blank;		/* \s but \r \n */
	uint64_t quote;		/* ' */
	uint64_t slash;
};

/* The places of run of 'set' from each of 'seeds', which are among them, to its end: Parabix's MatchStar. */
static inline uint64_t
runs_from(uint64_t seeds, uint64_t set)
{
	return (((seeds + set) ^ set) | seeds) & set;
}

static inline uint64_t
highest_bit(uint64_t set)
{
	return (uint64_t)1 << (63 - __builtin_clzll(set));
}

/*
 * Those of 'begins', where runs of blanks begin after a line end, where a piece does: no
 * line end follows the run, which then would be one piece up to it.  'at_end' tells that
 * a run that reaches the window's end is followed by none.
 */
static inline uint64_t
last_lines(uint64_t begins, const struct ascii_classes *c, bool at_end)
{
	uint64_t sum = c->blank + begins, ends = sum & ~c->blank;
	bool reaches_end = sum < begins || (ends & ~c->valid) != 0;

	for (uint64_t bad = ends & c->newline; bad != 0; bad &= bad - 1)
		begins &= ~highest_bit(begins & ((bad & -bad) - 1));
	if (reaches_end && !at_end)
		begins &= ~highest_bit(begins);
	return begins;
}

/* Each third digit of a run, from its first. */
static inline uint64_t
every_third(uint64_t begins, uint64_t digit)
{
	uint64_t cuts = begins, three = digit & digit << 1 & digit << 2;

	while ((begins = begins << 3 & three) != 0)
		cuts |= begins;
	return cuts;
}

/* cl100k and gpt2: a contraction is a piece by itself where a piece begins at its quote. */
static inline uint64_t
cut_contractions(uint64_t cuts, uint64_t quotes, const uint8_t *p, const uint8_t *end, uint64_t letter, bool fold)
{
	for (; quotes != 0; quotes &= quotes - 1) {
		unsigned i = (unsigned)__builtin_ctzll(quotes);
		unsigned after = i + (unsigned)(skip_contraction(p + i, end, fold) - (p + i));

		if (after == i)
			continue;
		cuts &= ~((uint64_t)2 << i);
		if (after < WINDOW_NBYTES)
			cuts |= (uint64_t)1 << after & letter;
	}
	return cuts;
}

/* o200k: a contraction after a word belongs to it, once. */
static inline uint64_t
join_contractions(uint64_t cuts, uint64_t quotes, const uint8_t *p, const uint8_t *end, uint64_t letter)
{
	for (unsigned last = 0; quotes != 0; quotes &= quotes - 1) {
		unsigned i = (unsigned)__builtin_ctzll(quotes);
		unsigned after = i + (unsigned)(skip_contraction(p + i, end, true) - (p + i));

		if (after == i || i == last)
			continue;
		uint64_t up_to_after = after < WINDOW_NBYTES ? ((uint64_t)1 << after) - 1 : ~(uint64_t)0;
		cuts &= ~(up_to_after & ~(uint64_t)0 << i);
		if (after < WINDOW_NBYTES)
			cuts |= (uint64_t)1 << after & letter;
		last = after;
	}
	return cuts;
}

static inline uint64_t
gpt2_cuts(const struct ascii_classes *c, const uint8_t *p, const uint8_t *end)
{
	uint64_t letter = c->upper | c->lower, space = c->blank | c->newline;
	uint64_t other = c->valid & ~(letter | c->digit | space);
	uint64_t after_space = c->space << 1;
	uint64_t others = other & ~(other << 1) & ~after_space;
	uint64_t cuts = (letter & ~(letter << 1) & ~after_space) | (c->digit & ~(c->digit << 1) & ~after_space) | others |
			(space & ~(space << 1)) | (space & (c->valid & ~space) >> 1);

	return cut_contractions(cuts, c->quote & others & letter >> 1, p, end, letter, false);
}

/* cl100k, llama3, qwen2 and o200k, without what sets o200k apart in words. */
static inline uint64_t
common_cuts(enum ss_pretok_pattern pattern, const struct ascii_classes *c, bool at_end, uint64_t *others_ret)
{
	uint64_t letter = c->upper | c->lower, space = c->blank | c->newline;
	uint64_t other = c->valid & ~(letter | c->digit | space);
	/* Line ends that the piece of other characters before them takes, for o200k slashes after them, too. */
	uint64_t taken = runs_from(c->newline & other << 1,
				   c->newline | (pattern == SS_PRETOK_O200K ? c->slash : 0));

	other &= ~taken;
	space &= ~taken;
	uint64_t others = other & ~(other << 1) & ~(c->space << 1);
	uint64_t letters = letter & ~(letter << 1) & ~(c->blank << 1) & ~(others << 1);
	uint64_t lines = c->blank & (c->newline & ~taken) << 1, digits = c->digit;
	if (lines != 0)
		lines = last_lines(lines, c, at_end && pattern != SS_PRETOK_CL100K);
	if (pattern != SS_PRETOK_QWEN2)
		digits = every_third(digits & ~(digits << 1), digits);
	*others_ret = others;
	return letters | others | digits | lines | (space & ~(space << 1)) |
	       (c->blank & (c->valid & ~(c->blank | c->newline)) >> 1);
}

/*
 * ascii_cuts() returns where pieces begin in the window p[0 .. number of valid bits), but for the
 * first; 'end' is the text's end, and at_end tells that the window ends there.
 */
static inline __attribute__((always_inline)) uint64_t
ascii_cuts(enum ss_pretok_pattern pattern, const struct ascii_classes *c, const uint8_t *p, const uint8_t *end, bool at_end)
{
	uint64_t letter = c->upper | c->lower, others, cuts;

	if (pattern == SS_PRETOK_GPT2)
		return gpt2_cuts(c, p, end) & c->valid & ~(uint64_t)1;
	cuts = common_cuts(pattern, c, at_end, &others);
	if (pattern != SS_PRETOK_O200K) {
		cuts = cut_contractions(cuts, c->quote & others & letter >> 1, p, end, letter, true);
		return cuts & c->valid & ~(uint64_t)1;
	}
	cuts |= c->upper & c->lower << 1;
	uint64_t after_word = c->quote & letter << 1, last = c->valid & ~(c->valid >> 1);
	cuts = join_contractions(cuts, after_word & letter >> 1, p, end, letter);
	if (!at_end)
		cuts &= ~(after_word & last);	/* a contraction, perhaps */
	return cuts & c->valid & ~(uint64_t)1;
}

#endif

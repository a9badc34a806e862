/*
 * Lower-casing with marks of word characters: what has rules of its own, and the whole.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "hash_mark.h"

static size_t
decode(const struct marker *m, const uint8_t *p, uint32_t *code_point)
{
	return m->is_utf16 ? utf16_decode(p, m->end, code_point) : utf8_decode(p, m->end, code_point);
}

/* before() returns where the character begins that ends at p; all up to p is known to be well-formed. */
static const uint8_t *
before(const struct marker *m, const uint8_t *p)
{
	if (m->is_utf16)
		return p - ((p[-1] & 0xFC) == 0xDC ? 4 : 2);
	do
		p--;
	while ((*p & 0xC0) == 0x80);
	return p;
}

/*
 * A capital sigma is final (U+03C2) if a cased letter comes before it and none after, case-ignorable
 * characters left aside: Unicode 15.0, table 3-17, as str.lower() has it.  Ignorable runs are walked once from
 * each side, since a sigma is not ignorable, so all sigmas of a text together cost linear time.
 */
static bool
is_final_sigma(const struct marker *m)
{
	const uint8_t *p = m->p;
	uint32_t c = 0, flags = UNICODE_IGNORABLE;
	size_t nbytes;

	while (p > m->text && flags & UNICODE_IGNORABLE) {
		p = before(m, p);
		decode(m, p, &c);
		flags = unicode_lookup(c)->flags;
	}
	if (!(flags & UNICODE_CASED))
		return false;
	flags = UNICODE_IGNORABLE;
	for (p = m->p + 2; p < m->end && flags & UNICODE_IGNORABLE; p += nbytes) {
		nbytes = decode(m, p, &c);
		if (nbytes == 0)
			break;
		flags = unicode_lookup(c)->flags;
	}
	return !(flags & UNICODE_CASED);
}

bool
mark_one(struct marker *m)
{
	uint32_t c = 0;
	size_t nbytes = decode(m, m->p, &c), num_out;

	if (nbytes == 0)
		return false;
	const struct unicode_record *record = unicode_lookup(c);
	uint64_t is_marked = (record->flags & m->flags) != 0;
	if (m->lowercase && c == 0x130) {	/* i, then a combining dot, which is not a word character */
		memcpy(m->out, "i\xCC\x87", 3);
		num_out = 3;
		put_bits(&m->marks, is_marked, 3);
	} else {
		if (m->lowercase)
			c = (uint32_t)((int32_t)c + record->lower_delta);
		if (m->lowercase && c == 0x3A3)
			c = is_final_sigma(m) ? 0x3C2 : 0x3C3;
		num_out = utf8_encode(m->out, c);
		put_bits(&m->marks, is_marked * ((1u << num_out) - 1), (unsigned)num_out);
	}
	m->out += num_out;
	m->p += nbytes;
	return true;
}

bool
hash_mark(const uint8_t *text, size_t nbytes, const struct hash_mode *mode, struct hash_scratch *s,
	  size_t *lower_nbytes_ret, size_t *error_ret)
{
	struct marker m = {
		.text = text, .p = text, .end = text + nbytes, .out = s->lower, .marks = { .out = s->marks },
		.flags = mode->marks_blanks ? UNICODE_SPACE : UNICODE_WORD, .lowercase = mode->lowercase,
		.is_utf16 = mode->is_utf16,
	};

	if (!(m.is_utf16 ? mark_utf16(&m) : mark_utf8(&m))) {
		*error_ret = (size_t)(m.p - text);
		return false;
	}
	*m.marks.out = m.marks.pending;
	*lower_nbytes_ret = (size_t)(m.out - s->lower);
	return true;
}

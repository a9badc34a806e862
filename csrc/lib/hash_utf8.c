/*
 * Lower-casing with marks, from UTF-8: ASCII by 16 bytes, the rest one look-up a character.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "hash_mark.h"

/* take_ascii() takes the ASCII characters at m->p by vectors, if there are any. */
static void
take_ascii(struct marker *m)
{
#if MARK_SSE2
	uint8_t last[16] = { 0 };
	unsigned wide = 0, num = 16;

	while (m->p < m->end && wide == 0) {
		const uint8_t *from = m->p;
		if (m->end - m->p < 16) {
			num = (unsigned)(m->end - m->p);
			memcpy(last, m->p, num);
			from = last;
		}
		__m128i x = _mm_loadu_si128((const __m128i *)from);
		wide = (unsigned)_mm_movemask_epi8(x);
		if (wide != 0)
			num = (unsigned)__builtin_ctz(wide);
		if (num == 0)
			return;
		put_bits(&m->marks, mark_ascii16(m, x) & ((1u << num) - 1), num);
		m->out += num;
		m->p += num;
	}
#else
	for (; m->p < m->end && *m->p < 0x80; m->p++) {
		uint32_t entry = unicode_short[*m->p];
		*m->out++ = m->lowercase ? (uint8_t)entry : *m->p;
		put_bits(&m->marks, (entry >> 16 & m->flags) != 0, 1);
	}
#endif
}

/*
 * take_wide() takes characters above U+007F at m->p, and single ASCII ones between them, as long as the tables
 * answer and their marks fit one number, whose length is the length of the output.
 */
static void
take_wide(struct marker *m)
{
	const uint8_t *p = m->p, *end = m->end;
	const uint32_t flags = m->flags;
	const bool lowercase = m->lowercase;
	uint8_t *out = m->out;
	uint64_t bits = 0;
	unsigned num_out = 0;

	while (end - p >= 4 && num_out <= 60) {
		uint32_t next, entry;
		memcpy(&next, p, 4);
		if ((next & 0xC0C0F0) == 0x8080E0) {
			uint32_t c = (next & 0x0F) << 12 | (next >> 2 & 0xFC0) | (next >> 16 & 0x3F);
			uint32_t kind = unicode_plain[c >> 4] >> 2 * (c & 15) & 3;
			if (kind == UNICODE_NOT_PLAIN)
				break;
			memcpy(out + num_out, &next, 4);
			bits |= (uint64_t)(kind & flags ? 7 : 0) << num_out;
			num_out += 3;
			p += 3;
		} else if ((next & 0xC0E0) == 0x80C0 && (next & 0x1E)) {	/* not overlong */
			entry = unicode_short[(next & 0x1F) << 6 | (next >> 8 & 0x3F)];
			if (entry >> 16 & UNICODE_SPECIAL)
				break;
			next = lowercase ? entry : next;
			memcpy(out + num_out, &next, 2);
			bits |= (uint64_t)(entry >> 16 & flags ? 3 : 0) << num_out;
			num_out += 2;
			p += 2;
		} else if ((next & 0x8080) == 0x8000) {
			entry = unicode_short[next & 0x7F];
			out[num_out] = lowercase ? (uint8_t)entry : (uint8_t)next;
			bits |= (uint64_t)(entry >> 16 & flags ? 1 : 0) << num_out;
			num_out += 1;
			p += 1;
		} else {
			break;
		}
	}
	if (num_out > 0)
		put_bits(&m->marks, bits, num_out);
	m->p = p;
	m->out += num_out;
}

bool
mark_utf8(struct marker *m)
{
	while (m->p < m->end) {
		const uint8_t *begin = m->p;
		take_wide(m);
		take_ascii(m);
		if (m->p == begin && !mark_one(m))
			return false;
	}
	return true;
}

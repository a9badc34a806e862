/*
 * unicode_classes.h - the class of a character, as split patterns see it.  Private.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef UNICODE_CLASSES_H
#define UNICODE_CLASSES_H

#include "unicode_words.h"

enum unicode_class {
	CLASS_OTHER = 0,	/* punctuation, symbols, controls, unassigned, and bytes that are not UTF-8 */
	CLASS_UPPER,		/* Lu, Lt */
	CLASS_LOWER,		/* Ll */
	CLASS_LETTER,		/* Lm, Lo: letters without case */
	CLASS_MARK,		/* M */
	CLASS_NUMBER,		/* N */
	CLASS_SPACE		/* White_Space */
};

/* Generated: unicode_classes.c. */
extern const uint8_t unicode_class_first[], unicode_class_second[];

/* unicode_class_of() returns the enum unicode_class of a code point. */
static inline unsigned
unicode_class_of(uint32_t code_point)
{
	return unicode_class_second[unicode_class_first[code_point >> 7] << 7 | (code_point & 127)];
}

/*
 * class_at() returns the class of the character at p < end and its number of bytes.
 * A byte that begins no valid UTF-8 sequence is one character of CLASS_OTHER.
 */
static inline unsigned
class_at(const uint8_t *p, const uint8_t *end, size_t *nbytes)
{
	uint32_t code_point;

	if (*p < 0x80) {
		*nbytes = 1;
		return unicode_class_second[*p];
	}
	*nbytes = utf8_decode(p, end, &code_point);
	if (*nbytes != 0)
		return unicode_class_of(code_point);
	*nbytes = 1;
	return CLASS_OTHER;
}

#endif

/*
 * The tar scanner.  A "header group" is the extended headers of a member and its own
 * header; it is parsed whole or not at all, so a scan stops and goes on only between
 * groups and keeps no half-read state.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "ss_tar.h"
#include "tar_format.h"
#include "tar_name.h"

_Static_assert(SS_TAR_BLOCK_NBYTES == BLOCK_NBYTES, "one block size");
_Static_assert(sizeof(struct ss_tar_member) == 10 * sizeof(uint64_t), "no padding");
_Static_assert(sizeof(((struct ss_tar_scanner *)0)->global_path) == SS_TAR_MAX_NAME_NBYTES, "room for any name");
_Static_assert(sizeof(((struct ss_tar_scanner *)0)->last_key) == SS_TAR_MAX_NAME_NBYTES, "room for any key");

/* Payloads and offsets below this keep every sum of two of them, and padding, inside 63 bits. */
#define MAX_NBYTES ((uint64_t)1 << 62)

struct text {
	const uint8_t *begin;
	size_t nbytes;
};

/* The input, and where a group is being read. */
struct input {
	const uint8_t *buffer;
	uint64_t begin, end;	/* the archive offsets that the buffer covers */
};

/* What the extended headers of one group say. */
struct extended {
	struct text path;
	uint64_t size;
	int has_path, has_size;
};

typedef uint32_t (*sum_function)(const uint8_t *block);

static uint32_t
sum_portable(const uint8_t *block)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < BLOCK_NBYTES; i++)
		sum += block[i];
	return sum;
}

#if defined(__x86_64__) && !defined(SS_PORTABLE)
#include <immintrin.h>

__attribute__((target("avx2"))) static uint32_t
sum_avx2(const uint8_t *block)
{
	__m256i even = _mm256_setzero_si256(), odd = _mm256_setzero_si256(), zero = _mm256_setzero_si256();

	for (size_t i = 0; i < BLOCK_NBYTES; i += 64) {
		even = _mm256_add_epi64(even, _mm256_sad_epu8(_mm256_loadu_si256((const void *)(block + i)), zero));
		odd = _mm256_add_epi64(odd, _mm256_sad_epu8(_mm256_loadu_si256((const void *)(block + i + 32)), zero));
	}
	even = _mm256_add_epi64(even, odd);
	__m128i sum = _mm_add_epi64(_mm256_castsi256_si128(even), _mm256_extracti128_si256(even, 1));
	return (uint32_t)(_mm_cvtsi128_si64(sum) + _mm_extract_epi64(sum, 1));
}

static sum_function
choose_sum(void)
{
	return __builtin_cpu_supports("avx2") ? sum_avx2 : sum_portable;
}
#else
static sum_function
choose_sum(void)
{
	return sum_portable;
}
#endif

static enum ss_status
fail(struct ss_tar_scanner *scanner, enum ss_status status, enum ss_tar_problem problem, uint64_t offset)
{
	scanner->problem = problem;
	scanner->error_offset = offset;
	return status;
}

static uint64_t
padded(uint64_t nbytes)
{
	return (nbytes + BLOCK_NBYTES - 1) / BLOCK_NBYTES * BLOCK_NBYTES;
}

static struct text
text_field(const uint8_t *field, size_t width)
{
	const uint8_t *nul = memchr(field, 0, width);

	return (struct text){field, nul == NULL ? width : (size_t)(nul - field)};
}

/* GNU base-256: the top bit set, then a big-endian number.  Returns 0 if not in [0, MAX_NBYTES]. */
static int
parse_base256(const uint8_t *field, size_t width, uint64_t *value_ret)
{
	uint64_t value = field[0] & 0x7F;

	for (size_t i = 1; i < width; i++) {
		if (value > MAX_NBYTES >> 8)
			return 0;
		value = value << 8 | field[i];
	}
	*value_ret = value;
	return value <= MAX_NBYTES;
}

/*
 * Spaces, octal digits, then spaces up to a NUL or the field's end: the number of
 * digits, or -1 for anything else.  At most 12 digits, so the value has 36 bits.
 */
static int
parse_octal(const uint8_t *field, size_t width, uint64_t *value_ret)
{
	uint64_t value = 0;
	size_t i = 0, begin;

	while (i < width && field[i] == ' ')
		i++;
	for (begin = i; i < width && field[i] >= '0' && field[i] <= '7'; i++)
		value = value << 3 | (uint64_t)(field[i] - '0');
	int num_digits = (int)(i - begin);
	while (i < width && field[i] == ' ')
		i++;
	*value_ret = value;
	return i == width || field[i] == 0 ? num_digits : -1;
}

/* The size field; an empty one is 0.  Returns 0 if it is not a number in [0, MAX_NBYTES]. */
static int
parse_size(const uint8_t *header, uint64_t *size_ret)
{
	const uint8_t *field = header + SIZE_OFFSET;

	if (field[0] & 0x80)
		return parse_base256(field, SIZE_NBYTES, size_ret);
	return parse_octal(field, SIZE_NBYTES, size_ret) >= 0;
}

/* Decimal digits up to the end of 'text'.  Returns 0 if there is none, another byte, or too large a number. */
static int
parse_decimal(struct text text, uint64_t *value_ret)
{
	uint64_t value = 0;

	for (size_t i = 0; i < text.nbytes; i++) {
		if (text.begin[i] < '0' || text.begin[i] > '9')
			return 0;
		value = value * 10 + (uint64_t)(text.begin[i] - '0');
		if (value > MAX_NBYTES)
			return 0;
	}
	*value_ret = value;
	return text.nbytes > 0;
}

/*
 * Compares a header's sum with the one it states.  Some V7 systems summed signed
 * chars; that sum is accepted too, as everybody does.
 */
static enum ss_tar_problem
check_header(const uint8_t *header, uint32_t sum)
{
	uint64_t stored;

	if (parse_octal(header + CHECKSUM_OFFSET, CHECKSUM_NBYTES, &stored) < 1)
		return SS_TAR_NOT_A_HEADER;
	for (size_t i = 0; i < CHECKSUM_NBYTES; i++)
		sum += (uint32_t)(' ' - header[CHECKSUM_OFFSET + i]);
	if (sum == stored)
		return SS_TAR_FINE;
	for (size_t i = 0; i < BLOCK_NBYTES; i++)
		if (header[i] >= 0x80)	/* never in the checksum field: its octal digits were parsed */
			sum -= 256;
	return sum == stored ? SS_TAR_FINE : SS_TAR_BAD_CHECKSUM;
}

static int
text_equals(struct text text, const char *literal)
{
	return text.nbytes == strlen(literal) && memcmp(text.begin, literal, text.nbytes) == 0;
}

static int
text_begins(struct text text, const char *literal)
{
	return text.nbytes >= strlen(literal) && memcmp(text.begin, literal, strlen(literal)) == 0;
}

/*
 * Reads the record "<nbytes> <key>=<value>\n" at the begin of 'records'; <nbytes>
 * counts all of it.  Returns its size, or 0 if it is not such a record.
 */
static size_t
parse_record(struct text records, struct text *key_ret, struct text *value_ret)
{
	const uint8_t *space = memchr(records.begin, ' ', records.nbytes < 20 ? records.nbytes : 20), *equals;
	uint64_t nbytes;

	if (space == NULL || !parse_decimal((struct text){records.begin, (size_t)(space - records.begin)}, &nbytes))
		return 0;
	size_t head = (size_t)(space - records.begin) + 1;
	if (nbytes > records.nbytes || nbytes < head + 3 || records.begin[nbytes - 1] != '\n')
		return 0;
	equals = memchr(records.begin + head, '=', (size_t)nbytes - head - 1);
	if (equals == NULL || equals == records.begin + head)
		return 0;
	*key_ret = (struct text){records.begin + head, (size_t)(equals - records.begin) - head};
	*value_ret = (struct text){equals + 1, (size_t)(records.begin + nbytes - 1 - (equals + 1))};
	return (size_t)nbytes;
}

/* Takes path and size out of a pax payload at archive offset 'offset'; the last record of a key counts. */
static enum ss_status
parse_pax(struct ss_tar_scanner *scanner, struct text records, uint64_t offset, struct extended *found)
{
	while (records.nbytes > 0 && records.begin[0] != 0) {
		struct text key, value;
		size_t nbytes = parse_record(records, &key, &value);
		if (nbytes == 0)
			return fail(scanner, SS_ERR_CORRUPT, SS_TAR_BAD_PAX, offset);
		if (text_equals(key, "path")) {
			while (value.nbytes > 0 && value.begin[value.nbytes - 1] == '/')
				value.nbytes--;
			found->path = value;
			found->has_path = 1;
		} else if (text_equals(key, "size")) {
			if (!parse_decimal(value, &found->size))
				return fail(scanner, SS_ERR_CORRUPT, SS_TAR_BAD_SIZE, offset);
			found->has_size = 1;
		} else if (text_begins(key, "GNU.sparse.")) {
			return fail(scanner, SS_ERR_UNSUPPORTED, SS_TAR_SPARSE, offset);
		}
		records.begin += nbytes;
		records.nbytes -= nbytes;
		offset += nbytes;
	}
	return SS_OK;
}

static enum ss_status
take_global(struct ss_tar_scanner *scanner, const struct extended *found, uint64_t offset)
{
	if (found->has_path) {
		if (found->path.nbytes > SS_TAR_MAX_NAME_NBYTES)
			return fail(scanner, SS_ERR_UNSUPPORTED, SS_TAR_LONG_NAME, offset);
		memcpy(scanner->global_path, found->path.begin, found->path.nbytes);
		scanner->global_path_nbytes = (uint32_t)found->path.nbytes;
		scanner->has_global_path = 1;
	}
	if (found->has_size) {
		scanner->global_size = found->size;
		scanner->has_global_size = 1;
	}
	return SS_OK;
}

/* Reads one extended header; of two that name the same thing the first counts, as in Python's tarfile. */
static enum ss_status
parse_extended(struct ss_tar_scanner *scanner, uint8_t type, struct text payload, uint64_t offset,
	       struct extended *extended)
{
	struct extended found = {{NULL, 0}, 0, 0, 0};

	if (type == TYPE_GNU_LONG_LINK)
		return SS_OK;
	if (type == TYPE_GNU_LONG_NAME) {
		found.path = text_field(payload.begin, payload.nbytes);
		found.has_path = 1;
	} else {
		enum ss_status status = parse_pax(scanner, payload, offset, &found);
		if (status != SS_OK)
			return status;
	}
	if (type == TYPE_PAX_GLOBAL)
		return take_global(scanner, &found, offset);
	if (found.has_path && !extended->has_path) {
		extended->path = found.path;
		extended->has_path = 1;
	}
	if (found.has_size && !extended->has_size) {
		extended->size = found.size;
		extended->has_size = 1;
	}
	return SS_OK;
}

static int
is_extended(uint8_t type)
{
	return type == TYPE_PAX || type == TYPE_PAX_SOLARIS || type == TYPE_PAX_GLOBAL ||
	       type == TYPE_GNU_LONG_NAME || type == TYPE_GNU_LONG_LINK;
}

/* The two parts of a member's name; the first, a ustar prefix without its slash, is mostly empty. */
static void
find_name(const struct ss_tar_scanner *scanner, const uint8_t *header, const struct extended *extended,
	  struct text *prefix_ret, struct text *tail_ret)
{
	*prefix_ret = (struct text){header, 0};
	if (extended->has_path) {
		*tail_ret = extended->path;
	} else if (scanner->has_global_path) {
		*tail_ret = (struct text){scanner->global_path, scanner->global_path_nbytes};
	} else {
		*tail_ret = text_field(header + NAME_OFFSET, NAME_NBYTES);
		if (header[PREFIX_OFFSET] != 0 && memcmp(header + MAGIC_OFFSET, USTAR_MAGIC, USTAR_MAGIC_NBYTES) == 0)
			*prefix_ret = text_field(header + PREFIX_OFFSET, PREFIX_NBYTES);
	}
}

/* How reading a group ended. */
enum group_end {
	GROUP_MEMBER,	/* one member was appended, scanner->offset is behind it */
	GROUP_ZERO,	/* a zero block stands at scanner->offset */
	GROUP_NOTHING,	/* the input ends, and no member was announced */
	GROUP_CUT,	/* the group goes on beyond the input */
	GROUP_SPACE	/* the outputs are full */
};

struct outputs {
	struct ss_tar_member *members;
	size_t members_avail;
	uint8_t *names;
	size_t names_avail;
};

/* The payload's size: the extended headers' word goes before the header's, and some types have none. */
static uint64_t
payload_nbytes(const struct ss_tar_scanner *scanner, uint8_t type, uint32_t kind, uint64_t size,
	       const struct extended *extended)
{
	int is_v7_folder = type == TYPE_V7_FILE && kind == SS_TAR_OTHER;

	if ((type >= TYPE_HARD_LINK && type <= TYPE_FIFO) || is_v7_folder)
		return 0;
	if (extended->has_size)
		return extended->size;
	return scanner->has_global_size ? scanner->global_size : size;
}

/* Appends the member whose own header stands at 'at'. */
static enum ss_status
append_member(struct ss_tar_scanner *scanner, const uint8_t *header, uint64_t at, uint64_t size,
	      const struct extended *extended, const struct outputs *out, enum group_end *end_ret)
{
	uint8_t type = header[TYPE_OFFSET];
	struct text prefix, tail;

	if (type == TYPE_GNU_SPARSE)
		return fail(scanner, SS_ERR_UNSUPPORTED, SS_TAR_SPARSE, at);
	if (type == TYPE_GNU_CONTINUED)
		return fail(scanner, SS_ERR_UNSUPPORTED, SS_TAR_CONTINUED, at);
	find_name(scanner, header, extended, &prefix, &tail);
	if (tail.nbytes > SS_TAR_MAX_NAME_NBYTES)
		return fail(scanner, SS_ERR_UNSUPPORTED, SS_TAR_LONG_NAME, at);
	size_t name_nbytes = (prefix.nbytes > 0 ? prefix.nbytes + 1 : 0) + tail.nbytes;
	if (scanner->num_members >= out->members_avail || name_nbytes > out->names_avail - scanner->names_nbytes) {
		*end_ret = GROUP_SPACE;
		return SS_OK;
	}
	uint8_t *name = out->names + scanner->names_nbytes;
	if (prefix.nbytes > 0) {
		memcpy(name, prefix.begin, prefix.nbytes);
		name[prefix.nbytes] = '/';
	}
	if (tail.nbytes > 0)
		memcpy(name + name_nbytes - tail.nbytes, tail.begin, tail.nbytes);

	struct ss_tar_member *member = &out->members[scanner->num_members++];
	memset(member, 0, sizeof(*member));
	member->begin = scanner->offset;
	member->data_begin = at + BLOCK_NBYTES;
	member->name_begin = scanner->names_nbytes;
	ss_tar_split_name(scanner, type, name, name_nbytes, member);
	member->data_nbytes = payload_nbytes(scanner, type, member->kind, size, extended);
	scanner->names_nbytes += name_nbytes;
	scanner->offset = member->data_begin + padded(member->data_nbytes);
	*end_ret = GROUP_MEMBER;
	return SS_OK;
}

/*
 * Small members mostly come in runs of one size, so the header that many of them ahead
 * is at a known place.  Without this the scan of an archive that is in memory but not in
 * cache waits for each header: 6 million/s instead of 13 to 15 at 512-byte members.  Issued
 * later, after the name's work, half of that gain is lost.
 */
#define PREFETCH_MEMBERS 8
#define PREFETCH_MAX_STRIDE 65536	/* beyond that a guess seldom hits and the wait is amortised */

/* always_inline: gcc 12 takes a function that only prefetches for one without effect, and drops the call. */
__attribute__((always_inline)) static inline void
prefetch_ahead(const struct input *input, uint64_t at, uint64_t stride)
{
	if (stride > PREFETCH_MAX_STRIDE || at > input->end || input->end - at < PREFETCH_MEMBERS * stride + BLOCK_NBYTES)
		return;
	for (size_t i = 0; i < BLOCK_NBYTES; i += 64)
		__builtin_prefetch(input->buffer + (at - input->begin) + PREFETCH_MEMBERS * stride + i);
}

/* Reads the group at scanner->offset, which is in the input or at its end. */
static enum ss_status
scan_group(struct ss_tar_scanner *scanner, const struct input *input, sum_function sum_of, const struct outputs *out,
	   enum group_end *end_ret)
{
	struct extended extended = {{NULL, 0}, 0, 0, 0};
	uint64_t at = scanner->offset, size;
	int is_announced = 0;	/* by an extended header that is for one member */

	for (;;) {
		if (at == input->end && !is_announced) {
			*end_ret = GROUP_NOTHING;
			return SS_OK;
		}
		if (input->end - at < BLOCK_NBYTES)
			break;
		const uint8_t *header = input->buffer + (at - input->begin);
		uint32_t sum = sum_of(header);
		if (sum == 0 && is_announced)
			return fail(scanner, SS_ERR_CORRUPT, SS_TAR_NO_MEMBER, at);
		if (sum == 0) {
			scanner->offset = at;
			*end_ret = GROUP_ZERO;
			return SS_OK;
		}
		enum ss_tar_problem problem = check_header(header, sum);
		if (problem != SS_TAR_FINE)
			return fail(scanner, problem == SS_TAR_BAD_CHECKSUM ? SS_ERR_CHECKSUM : SS_ERR_CORRUPT,
				    problem, at);
		if (!parse_size(header, &size))
			return fail(scanner, SS_ERR_CORRUPT, SS_TAR_BAD_SIZE, at);
		prefetch_ahead(input, at, BLOCK_NBYTES + padded(size));
		uint8_t type = header[TYPE_OFFSET];
		if (!is_extended(type))
			return append_member(scanner, header, at, size, &extended, out, end_ret);
		uint64_t data = at + BLOCK_NBYTES, next = data + padded(size);
		if (next - scanner->offset > SS_TAR_MAX_PREFIX_NBYTES)
			return fail(scanner, SS_ERR_UNSUPPORTED, SS_TAR_LONG_PREFIX, at);
		if (next > input->end)
			break;
		struct text payload = {input->buffer + (data - input->begin), (size_t)size};
		enum ss_status status = parse_extended(scanner, type, payload, data, &extended);
		if (status != SS_OK)
			return status;
		is_announced |= type != TYPE_PAX_GLOBAL;
		at = next;
	}
	scanner->error_offset = at;	/* where it would be cut, if this is all there is */
	*end_ret = GROUP_CUT;
	return SS_OK;
}

/* Checks that all bytes from scanner->offset on are zeros. */
static enum ss_status
check_zeros(struct ss_tar_scanner *scanner, const struct input *input)
{
	const uint8_t *p = input->buffer + (scanner->offset - input->begin), *end = input->buffer + (input->end - input->begin);
	uint64_t word;

	for (; end - p >= 8; p += 8) {
		memcpy(&word, p, 8);
		if (word != 0)
			break;
	}
	while (p < end && *p == 0)
		p++;
	if (p < end)
		return fail(scanner, SS_ERR_CORRUPT, SS_TAR_AFTER_END, input->begin + (uint64_t)(p - input->buffer));
	scanner->offset = input->end;
	scanner->stop = SS_TAR_STOP_END_BLOCKS;
	return SS_OK;
}

/* Scans members until something else comes; says what in 'end_ret'. */
static enum ss_status
scan_members(struct ss_tar_scanner *scanner, const struct input *input, const struct outputs *out,
	     enum group_end *end_ret)
{
	sum_function sum_of = choose_sum();

	*end_ret = GROUP_MEMBER;
	while (*end_ret == GROUP_MEMBER && scanner->offset <= input->end) {
		enum ss_status status = scan_group(scanner, input, sum_of, out, end_ret);
		if (status != SS_OK)
			return status;
	}
	return SS_OK;
}

/* Turns the end of scan_members() into what the caller is told. */
static enum ss_status
stop(struct ss_tar_scanner *scanner, const struct input *input, int is_last, enum group_end end)
{
	if (end == GROUP_ZERO) {
		scanner->has_ended = 1;
		return check_zeros(scanner, input);
	}
	if (end == GROUP_SPACE) {
		scanner->stop = SS_TAR_STOP_SPACE;
		return SS_OK;
	}
	if (!is_last) {
		scanner->stop = SS_TAR_STOP_INPUT;
		return SS_OK;
	}
	if (end == GROUP_CUT)
		return fail(scanner, SS_ERR_TRUNCATED, SS_TAR_CUT_HEADER, scanner->error_offset);
	if (end == GROUP_MEMBER)
		return fail(scanner, SS_ERR_TRUNCATED, SS_TAR_CUT_DATA, input->end);
	scanner->offset = input->end;
	scanner->stop = SS_TAR_STOP_NO_END_BLOCKS;
	return SS_OK;
}

void
ss_tar_scanner_init(struct ss_tar_scanner *scanner, uint64_t offset)
{
	memset(scanner, 0, sizeof(*scanner));
	scanner->offset = offset;
}

enum ss_status
ss_tar_scan(struct ss_tar_scanner *scanner, const uint8_t *buffer, size_t buffer_nbytes, uint64_t base_offset,
	    int is_last, struct ss_tar_member *members, size_t members_avail, uint8_t *names, size_t names_avail)
{
	struct input input = {buffer, base_offset, base_offset + buffer_nbytes};
	struct outputs out = {members, members_avail, names, names_avail};
	enum group_end end;

	scanner->problem = SS_TAR_FINE;
	if (base_offset > MAX_NBYTES || buffer_nbytes > MAX_NBYTES || scanner->offset < base_offset ||
	    scanner->num_members > members_avail || scanner->names_nbytes > names_avail)
		return SS_ERR_ARGUMENT;
	if (scanner->has_ended)
		return scanner->offset <= input.end ? check_zeros(scanner, &input) : SS_ERR_ARGUMENT;
	enum ss_status status = scan_members(scanner, &input, &out, &end);
	return status == SS_OK ? stop(scanner, &input, is_last, end) : status;
}

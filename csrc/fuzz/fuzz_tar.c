/*
 * Any bytes through the tar scanner: it ends, stays in bounds, and what it reports is
 * consistent; scanned in two pieces it reports the same.
 *
 * Input: one byte of flags, then the archive.  A mutated header would nearly always
 * stop at its checksum, so flag 1 repairs the checksum of each 512-byte block that
 * claims to be a header.  The other bits choose where the input is cut in two.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "fuzz.h"
#include "ss_tar.h"

#define MAX_MEMBERS 256
#define MAX_NAMES 16384

struct outcome {
	enum ss_status status;
	struct ss_tar_scanner scanner;
	uint64_t num_members, digest;
};

static struct ss_tar_member members[MAX_MEMBERS];
static uint8_t names[MAX_NAMES];

static void
repair_checksums(uint8_t *archive, size_t nbytes)
{
	for (size_t at = 0; at + 512 <= nbytes; at += 512) {
		unsigned sum = 0;
		char text[8];
		if (memcmp(archive + at + 257, "ustar", 5) != 0)
			continue;
		memset(archive + at + 148, ' ', 8);
		for (size_t i = 0; i < 512; i++)
			sum += archive[at + i];
		snprintf(text, sizeof(text), "%06o", sum);
		memcpy(archive + at + 148, text, 7);
	}
}

static void
take_members(struct outcome *outcome, uint64_t end)
{
	struct ss_tar_scanner *scanner = &outcome->scanner;

	for (uint64_t i = 0; i < scanner->num_members; i++) {
		const struct ss_tar_member *m = &members[i];
		FUZZ_CHECK(m->begin < m->data_begin && m->data_begin <= end && m->begin % 512 == m->data_begin % 512);
		FUZZ_CHECK(m->name_nbytes <= SS_TAR_MAX_NAME_NBYTES && m->key_nbytes <= m->name_nbytes);
		FUZZ_CHECK(m->name_begin + m->name_nbytes <= scanner->names_nbytes);
		FUZZ_CHECK(m->kind != SS_TAR_FIELD || names[m->name_begin + m->key_nbytes] == '.');
		outcome->digest = outcome->digest * 31 + (m->begin ^ m->data_nbytes << 20 ^ m->field_hash ^ m->key_hash[0]);
	}
	outcome->num_members += scanner->num_members;
	scanner->num_members = scanner->names_nbytes = 0;
}

static void
scan_piece(struct outcome *outcome, const uint8_t *data, size_t nbytes, uint64_t base, int is_last)
{
	uint64_t rounds = 0;

	do {
		FUZZ_CHECK(rounds++ <= nbytes / 512);
		outcome->status = ss_tar_scan(&outcome->scanner, data, nbytes, base, is_last, members, MAX_MEMBERS,
					      names, MAX_NAMES);
		take_members(outcome, base + nbytes);
	} while (outcome->status == SS_OK && outcome->scanner.stop == SS_TAR_STOP_SPACE);
	FUZZ_CHECK(outcome->status == SS_OK || outcome->scanner.error_offset <= base + nbytes);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_nbytes)
{
	static struct outcome whole, pieces;
	uint8_t flags = data_nbytes > 0 ? data[0] : 0;
	size_t nbytes = data_nbytes > 0 ? data_nbytes - 1 : 0;
	uint8_t *archive = malloc(nbytes > 0 ? nbytes : 1);

	FUZZ_CHECK(archive != NULL);
	if (nbytes > 0)
		memcpy(archive, data + 1, nbytes);
	if (flags & 1)
		repair_checksums(archive, nbytes);

	memset(&whole, 0, sizeof(whole));
	memset(&pieces, 0, sizeof(pieces));
	scan_piece(&whole, archive, nbytes, 0, 1);
	size_t cut = nbytes * (size_t)(flags >> 1) / 128;
	scan_piece(&pieces, archive, cut, 0, 0);
	if (pieces.status == SS_OK) {
		uint64_t begin = pieces.scanner.offset < cut ? pieces.scanner.offset : cut;
		scan_piece(&pieces, archive + begin, nbytes - begin, begin, 1);
	}
	FUZZ_CHECK(whole.status == pieces.status && whole.scanner.problem == pieces.scanner.problem);
	FUZZ_CHECK(whole.num_members == pieces.num_members && whole.digest == pieces.digest);
	free(archive);
	return 0;
}

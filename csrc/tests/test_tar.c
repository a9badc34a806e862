/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * The Python tests hold the scanner equal to its twin; these look at what only C
 * can see: reads beside the buffer, writes beside the outputs, and outputs of any size.
 */
#include "ss_tar.h"
#include "test.h"

#define MAX_MEMBERS 64
#define MAX_NAMES 65536

static struct ss_tar_scanner scanner;
static struct ss_tar_member members[MAX_MEMBERS];
static uint8_t names[MAX_NAMES];

/* Appends a header (and its payload of spaces, padded) to 'archive'; returns the new size. */
static size_t
append(uint8_t *archive, size_t nbytes, const char *name, char type, const char *payload)
{
	uint8_t *header = archive + nbytes;
	size_t payload_nbytes = strlen(payload);
	unsigned sum = 0;

	memset(header, 0, 512);
	memcpy(header, name, strlen(name));
	snprintf((char *)header + 124, 12, "%011o", (unsigned)payload_nbytes);
	memset(header + 148, ' ', 8);
	header[156] = (uint8_t)type;
	memcpy(header + 257, "ustar\0" "00", 8);
	for (int i = 0; i < 512; i++)
		sum += header[i];
	snprintf((char *)header + 148, 8, "%06o", sum);
	memset(header + 512, 0, (payload_nbytes + 511) / 512 * 512);
	memcpy(header + 512, payload, payload_nbytes);
	return nbytes + 512 + (payload_nbytes + 511) / 512 * 512;
}

/* One of everything: long names of both kinds, a folder, a global header, fields and a name without. */
static size_t
make_archive(uint8_t *archive)
{
	size_t nbytes = 0;

	nbytes = append(archive, nbytes, "pax", 'g', "13 comment=x\n");
	nbytes = append(archive, nbytes, "a.jpg", '0', "payload");
	nbytes = append(archive, nbytes, "a.cls", '0', "7");
	nbytes = append(archive, nbytes, "d/", '5', "");
	nbytes = append(archive, nbytes, "long", 'L', "d/a-long-name.txt");
	nbytes = append(archive, nbytes, "d/a-lon", '0', "text");
	nbytes = append(archive, nbytes, "pax", 'x', "17 path=d/b.json\n");
	nbytes = append(archive, nbytes, "d/b", '0', "{}");
	nbytes = append(archive, nbytes, "README", '0', "");
	memset(archive + nbytes, 0, 1024);
	return nbytes + 1024;
}

static void
reads_the_members_of_a_sound_archive(void)
{
	static uint8_t archive[16384];
	size_t nbytes = make_archive(archive);

	ss_tar_scanner_init(&scanner, 0);
	CHECK_EQ(ss_tar_scan(&scanner, archive, nbytes, 0, 1, members, MAX_MEMBERS, names, MAX_NAMES), SS_OK);
	CHECK_EQ(scanner.stop, SS_TAR_STOP_END_BLOCKS);
	CHECK_EQ(scanner.num_members, 6);
	CHECK(memcmp(names, "a.jpga.clsd/d/a-long-name.txtd/b.jsonREADME", scanner.names_nbytes) == 0);
	CHECK_EQ(members[0].begin, 0);
	CHECK_EQ(members[0].data_begin, 1536);
	CHECK_EQ(members[0].key_nbytes, 1);
	CHECK_EQ(members[0].starts_sample, 1);
	CHECK_EQ(members[1].starts_sample, 0);
	CHECK_EQ(members[2].kind, SS_TAR_OTHER);
	CHECK_EQ(members[3].key_nbytes, 13);
	CHECK_EQ(members[5].kind, SS_TAR_NO_FIELD);
}

/* At every length, with each byte before and after out of bounds: scanned as part and as whole. */
static void
reads_nothing_outside_the_buffer(void)
{
	static uint8_t archive[16384];
	size_t nbytes = make_archive(archive);

	for (size_t cut = 0; cut <= nbytes; cut += cut < 2600 || cut % 512 > 505 ? 1 : 7) {
		uint8_t *copy = guarded_copy(archive, cut);
		for (int is_last = 0; is_last < 2; is_last++) {
			ss_tar_scanner_init(&scanner, 0);
			enum ss_status status = ss_tar_scan(&scanner, copy, cut, 0, is_last, members, MAX_MEMBERS,
							    names, MAX_NAMES);
			CHECK(status == SS_OK || (is_last && status == SS_ERR_TRUNCATED));
			CHECK(status == SS_OK || scanner.error_offset <= cut);
		}
		guarded_free(copy, cut);
	}
}

/* Outputs that are full stop the scan, which goes on with new ones, and never spills. */
static void
resumes_when_outputs_are_full(void)
{
	static uint8_t archive[16384];
	size_t nbytes = make_archive(archive), num_members = 0;
	struct ss_tar_member *one = (void *)guarded_alloc(sizeof(*one));
	uint8_t *few = guarded_alloc(17);

	ss_tar_scanner_init(&scanner, 0);
	do {
		scanner.num_members = scanner.names_nbytes = 0;
		CHECK_EQ(ss_tar_scan(&scanner, archive, nbytes, 0, 1, one, 1, few, 17), SS_OK);
		num_members += scanner.num_members;
	} while (scanner.stop == SS_TAR_STOP_SPACE);
	CHECK_EQ(num_members, 6);
	CHECK_EQ(scanner.stop, SS_TAR_STOP_END_BLOCKS);

	ss_tar_scanner_init(&scanner, 0);
	CHECK_EQ(ss_tar_scan(&scanner, archive, nbytes, 0, 1, one, 1, few, 4), SS_OK);
	CHECK_EQ(scanner.stop, SS_TAR_STOP_SPACE);
	CHECK_EQ(scanner.num_members, 0);
	guarded_free((uint8_t *)one, sizeof(*one));
	guarded_free(few, 17);
}

/* The last, too, where ustar has padding; only what follows the end of the checksum itself says nothing. */
static void
counts_every_byte_of_a_header(void)
{
	static uint8_t archive[16384];
	size_t nbytes = append(archive, 0, "a.jpg", '0', "payload");

	memset(archive + nbytes, 0, 1024);
	for (size_t i = 0; i < 512; i++) {
		archive[i] += 3;
		ss_tar_scanner_init(&scanner, 0);
		enum ss_status status = ss_tar_scan(&scanner, archive, nbytes + 1024, 0, 1, members, MAX_MEMBERS, names, MAX_NAMES);
		CHECK_EQ(status == SS_OK, i == 155);
		archive[i] -= 3;
	}
}

static void
refuses_a_buffer_that_leaves_a_gap(void)
{
	uint8_t block[512] = {0};

	ss_tar_scanner_init(&scanner, 512);
	CHECK_EQ(ss_tar_scan(&scanner, block, 512, 1024, 0, members, MAX_MEMBERS, names, MAX_NAMES), SS_ERR_ARGUMENT);
	CHECK_EQ(ss_tar_scan(&scanner, block, 512, UINT64_MAX, 0, members, MAX_MEMBERS, names, MAX_NAMES),
		 SS_ERR_ARGUMENT);
}

int
main(void)
{
	reads_the_members_of_a_sound_archive();
	reads_nothing_outside_the_buffer();
	resumes_when_outputs_are_full();
	counts_every_byte_of_a_header();
	refuses_a_buffer_that_leaves_a_gap();
	return 0;
}

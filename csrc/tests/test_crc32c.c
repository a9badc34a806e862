/*
 * SPDX-License-Identifier: Apache-2.0
 */
#include "../lib/crc32c.h"
#include "test.h"

/* The definition, one bit at a time. */
static uint32_t
crc_bitwise(const uint8_t *data, size_t nbytes)
{
	uint32_t crc = 0xFFFFFFFFu;

	for (size_t i = 0; i < nbytes; i++) {
		crc ^= data[i];
		for (int bit = 0; bit < 8; bit++)
			crc = (crc >> 1) ^ (0x82F63B78u & (0u - (crc & 1)));
	}
	return ~crc;
}

static void
gives_the_vectors_of_rfc3720(enum crc32c_way way)
{
	uint8_t data[32];

	memset(data, 0, sizeof(data));
	CHECK_EQ(crc32c_by(way, 0, data, sizeof(data)), 0x8A9136AAu);
	memset(data, 0xFF, sizeof(data));
	CHECK_EQ(crc32c_by(way, 0, data, sizeof(data)), 0x62A8AB43u);
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)i;
	CHECK_EQ(crc32c_by(way, 0, data, sizeof(data)), 0x46DD794Eu);
	CHECK_EQ(crc32c_by(way, 0, (const uint8_t *)"123456789", 9), 0xE3069283u);
	CHECK_EQ(crc32c_by(way, 0, NULL, 0), 0);
}

/* Lengths around the 3 x 4,096 bytes of one interleaved step, and from 1,024 on around 256, at every alignment. */
static void
equals_the_definition_up_to_the_last_byte(enum crc32c_way way)
{
	static const size_t sizes[] = {0, 1, 7, 8, 9, 63, 1016, 1024, 1272, 1280, 1290, 1536, 4096, 12287, 12288, 12289, 24576, 24583, 40000};
	uint64_t seed = 1;

	for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
		for (size_t shift = 0; shift < 8; shift++) {
			size_t nbytes = sizes[s] + shift;
			uint8_t *data = guarded_alloc(nbytes);
			for (size_t i = 0; i < nbytes; i++)
				data[i] = (uint8_t)test_random(&seed);
			CHECK_EQ(crc32c_by(way, 0, data, nbytes), crc_bitwise(data, nbytes));
			guarded_free(data, nbytes);
		}
	}
}

static void
continues_from_any_cut(enum crc32c_way way)
{
	uint8_t data[20000];
	uint64_t seed = 2;

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)test_random(&seed);
	uint32_t whole = crc32c_by(way, 0, data, sizeof(data));
	for (size_t cut = 0; cut <= sizeof(data); cut += 997)
		CHECK_EQ(crc32c_by(way, crc32c_by(way, 0, data, cut), data + cut, sizeof(data) - cut), whole);
}

int
main(void)
{
	/* Each that this machine has, since the slower ones are the only ones of others. */
	for (enum crc32c_way way = CRC32C_PORTABLE; way <= crc32c_best_way(); way++) {
		gives_the_vectors_of_rfc3720(way);
		equals_the_definition_up_to_the_last_byte(way);
		continues_from_any_cut(way);
	}
	CHECK_EQ(ss_crc32c(0, (const uint8_t *)"123456789", 9), 0xE3069283u);
	return 0;
}

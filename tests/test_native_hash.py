import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardstream._native import hash as native
from shardstream.errors import ConfigError, TextError
from tests.twins import hashing as twin


def hash_codes(values: np.ndarray, offsets, first_row=0, **options):
    options = {"dim": 2**20, "ngrams": (1, 1), "unit": "word", "lowercase": True, "weights": "counts"} | options
    hasher = native.TextHasher(**options)
    rows = hasher.rows(offsets, values.dtype, first_row)
    hasher.append(rows, values, offsets)
    return rows.finish()


def hash_bytes(texts: list[bytes], **options):
    return hash_codes(np.frombuffer(b"".join(texts), np.uint8), np.cumsum([0, *map(len, texts)]), **options)


# Appleby's reference implementation; the same values stand in many ports' test suites.
VECTORS = [
    (b"", 0, 0),
    (b"", 1, 0x514E28B7),
    (b"\xff\xff\xff\xff", 0, 0x76293B50),
    (b"!Ce\x87", 0, 0xF55B516B),
    (b"!Ce", 0, 0x7E4A8634),
    (b"!C", 0, 0xA0F7B07A),
    (b"!", 0, 0x72661CF4),
    (b"Hello, world!", 1234, 0xFAF6CDB3),
]


@pytest.mark.parametrize(("data", "seed", "expected"), VECTORS)
def test_murmur3_gives_the_published_vectors(data, seed, expected):
    """MurmurHash3_x86_32 is Appleby's, in C and in the twin."""
    assert native.murmur3(data, seed) == twin.murmur3(data, seed) == expected


@given(st.binary(max_size=70), st.integers(0, 2**32 - 1))
def test_murmur3_equals_its_twin(data, seed):
    """Any bytes hash as the twin says."""
    assert native.murmur3(data, seed) == twin.murmur3(data, seed)


@given(
    st.lists(st.binary(max_size=12) | st.text(max_size=8).map(lambda t: t.encode("utf-8", "surrogatepass")), max_size=4)
)
def test_accepts_exactly_what_python_decodes(texts):
    """Bytes are refused where Python's strict UTF-8 refuses them, at the byte it names, or else hashed as its text."""
    bad = []
    for row, text in enumerate(texts):
        try:
            text.decode()
        except UnicodeDecodeError as error:
            bad.append((row, error.start))
    if bad:
        with pytest.raises(TextError, match=rf"texts\[{bad[0][0]}\] is not UTF-8 at byte {bad[0][1]}\.") as caught:
            hash_bytes(texts)
        assert caught.value.index == bad[0][0]
    else:
        expected = twin.hash_texts([text.decode() for text in texts], 2**20, (1, 1))
        for got, want in zip(hash_bytes(texts), expected, strict=True):
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("unit", native.UNITS)
@settings(max_examples=50)
@given(
    st.lists(st.text(alphabet="aZ09_ .\n\t\u0130\u03a3\u00e9\u4e2d\U0001f600'", max_size=40), max_size=4),
    st.integers(1, 4),
    st.integers(0, 3),
)
def test_rows_fit_the_bound_and_equal_the_twin(unit, texts, low, more):
    """The outputs, allocated by the bound, hold every row; indices and counts are the twin's."""
    got = hash_bytes([text.encode() for text in texts], dim=1009, ngrams=(low, low + more), unit=unit)
    for one, other in zip(got, twin.hash_texts(texts, 1009, (low, low + more), analyzer=unit), strict=True):
        np.testing.assert_array_equal(one, other)


@given(
    st.lists(st.lists(st.integers(0, 0xFFFF) | st.sampled_from([0x41, 0x3A3, 0xD83D, 0xDE00]), max_size=12), max_size=4)
)
def test_utf16_is_accepted_and_hashed_as_python_decodes_it(texts):
    """UTF-16 with a lone surrogate is refused at it, and else gives the rows of the same text in UTF-8."""
    codes, offsets = np.array([code for text in texts for code in text], "<u2"), np.cumsum([0, *map(len, texts)])
    try:
        decoded = [np.array(text, "<u2").tobytes().decode("utf-16-le") for text in texts]
    except UnicodeDecodeError:
        with pytest.raises(TextError):
            hash_codes(codes, offsets)
        return
    for got, want in zip(hash_codes(codes, offsets), hash_bytes([text.encode() for text in decoded]), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("offsets", [[0, 3, 2], [-1, 2], [0, 6], [0, 2**62], [4, 2]], ids=str)
def test_offsets_that_leave_the_buffer_are_located(offsets):
    """Offsets that descend or point outside are an error, not a read."""
    with pytest.raises(TextError) as caught:
        hash_codes(np.zeros(5, np.uint8), np.array(offsets), first_row=10)
    assert caught.value.index == 10 + len(offsets) - 2


@pytest.mark.parametrize(
    "option", [{"dim": 0}, {"dim": 2**31}, {"ngrams": (0, 1)}, {"ngrams": (2, 1)}, {"ngrams": (1, 65536)}], ids=str
)
def test_options_out_of_range_are_refused(option):
    """The C side checks its options itself."""
    with pytest.raises(ConfigError):
        hash_bytes([b"a text"], **option)


def test_unicode_version_reads_as_unicodedata_writes_it():
    """The version is three numbers with dots."""
    assert [part.isdigit() for part in native.unicode_version().split(".")] == [True, True, True]


@pytest.mark.parametrize(
    ("name_offsets", "row_offsets"),
    [
        ([0, 3, 2], [0, 1, 2]),
        ([0, 2, 9], [0, 1, 2]),
        ([-1, 2, 3], [0, 1, 2]),
        ([0, 2, 3], [0, 2, 1]),
        ([0, 2, 3], [1, 1, 2]),
    ],
    ids=str,
)
def test_offsets_of_names_that_leave_their_buffers_are_refused(name_offsets, row_offsets):
    """Offsets that descend or point outside are an error, not a read."""
    with pytest.raises(TextError):
        native.hash_names(
            np.zeros(3, np.uint8), np.array(name_offsets), None, np.array(row_offsets), dim=8, signed=False
        )


def test_names_need_as_many_offsets_and_values_as_features():
    """Arrays that are too short for the rows are refused before C sees them."""
    for name_offsets, values in (([0, 1], None), ([0, 1, 2], np.ones(1))):
        with pytest.raises(ConfigError):
            native.hash_names(
                np.zeros(3, np.uint8), np.array(name_offsets), values, np.array([0, 2]), dim=8, signed=False
            )

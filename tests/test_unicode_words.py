"""The generated Unicode tables are what the interpreter's own ``str`` says."""

import importlib.util
import re
import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pytest

from shardstream._native import hash as native
from tests.twins import hashing as twin

CSRC = Path(__file__).resolve().parents[1] / "csrc"
SAME_UNICODE = native.unicode_version() == unicodedata.unidata_version
CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def generator():
    spec = importlib.util.spec_from_file_location("gen_unicode_words", CSRC / "gen/gen_unicode_words.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def comparable() -> list[str]:
    """Every character; on an interpreter with other Unicode data, those assigned in both versions."""
    chars = list(map(chr, CODE_POINTS))
    if SAME_UNICODE:
        return chars
    first, second, records = committed_tables()
    known = [c for c in chars if records[second[first[ord(c) >> 7] << 7 | ord(c) & 127]] != (0, 0)]
    both = [c for c in known if unicodedata.category(c) != "Cn"]
    warnings.warn(
        f"tables are Unicode {native.unicode_version()}, the interpreter's {unicodedata.unidata_version}: compared "
        f"{len(both)} characters with properties in the tables that the interpreter has assigned too",
        stacklevel=1,
    )
    return both


def committed_tables():
    text = (CSRC / "lib/unicode_words.c").read_text()
    arrays = [re.findall(r"-?\d+", body) for body in re.findall(r"\[\d+\] = \{\n(.*?)\n\};", text, re.DOTALL)]
    records, first, second = (list(map(int, array)) for array in arrays)
    return first, second, list(zip(records[::2], records[1::2], strict=True))


@pytest.mark.skipif(not SAME_UNICODE, reason="the interpreter has other Unicode data than the committed tables")
def test_committed_tables_are_fresh():
    """The generator, run here, writes the committed file byte for byte."""
    assert generator().generate() == (CSRC / "lib/unicode_words.c").read_text()


def test_lowering_keeps_word_and_blank_properties(comparable):
    """A character and its lower case are both of a word or both not: C marks by the first and keeps the second."""
    for char in comparable:
        if len(lower := char.lower()) == 1:
            assert (lower.isalnum(), lower.isspace()) == (char.isalnum(), char.isspace())


def test_lowering_makes_two_bytes_three_at_most(comparable):
    """HASH_LOWER_NBYTES, the room for a lower-cased text, holds for every character."""
    assert all(2 * len(c.lower().encode()) <= 3 * len(c.encode()) for c in comparable)


CONTEXTS = {
    "between letters": "q{}w ",
    "alone": "{} ",
    "doubled": "{0}{0} ",
    "before a sigma": "{}\u03a3 ",
    "between a letter and a sigma": "A{}\u03a3 ",
    "between a sigma and a letter": "A\u03a3{}b ",
}


@pytest.mark.parametrize("context", CONTEXTS.values(), ids=CONTEXTS)
def test_every_character_is_hashed_as_python_and_murmur_say(comparable, context):
    """Each code point, in contexts that show its word property, lower case and effect on a final sigma."""
    texts = ["".join(context.format(c) for c in comparable[i : i + 512]) for i in range(0, len(comparable), 512)]
    hasher = native.TextHasher(native.MAX_DIM, (1, 1), "word", True, None)
    by_encoding = []
    for encoding, dtype in (("utf-8", np.uint8), ("utf-16-le", np.dtype("<u2"))):
        pieces = [text.encode(encoding) for text in texts]
        offsets = np.cumsum([0, *map(len, pieces)]) // np.dtype(dtype).itemsize
        rows = hasher.rows(offsets, dtype)
        hasher.append(rows, np.frombuffer(b"".join(pieces), dtype), offsets)
        by_encoding.append(rows.finish())
    (indices, indptr, _), from_utf16 = by_encoding
    np.testing.assert_array_equal(indices, from_utf16[0])
    np.testing.assert_array_equal(indptr, from_utf16[1])
    for row, text in enumerate(texts):
        words = set(twin.WORD.findall(text.lower()))
        expected = sorted({twin.signed_index(word, native.MAX_DIM)[0] for word in words})
        assert indices[indptr[row] : indptr[row + 1]].tolist() == expected, f"in {texts[row]!r}"

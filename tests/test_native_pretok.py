import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardstream._native import pretok
from shardstream.tokenizers import patterns
from tests import texts
from tests.twins import bpe as twin

NATIVE = [name for name in pretok.PATTERNS if name != "whole"]


def pieces(pattern: str, text: bytes) -> list[bytes]:
    ends = pretok.split(pattern, text).tolist()
    return [text[begin:end] for begin, end in zip([0, *ends], ends)]


def expected(pattern: str, text: str) -> list[bytes]:
    return [piece.encode("utf-8", "surrogateescape") for piece in twin.split(pattern, text)]


@pytest.mark.parametrize("pattern", NATIVE)
@given(st.text(st.sampled_from(texts.ALPHABET) | st.characters(codec="utf-8"), max_size=90))
def test_pieces_are_the_matches_of_the_pattern(pattern, text):
    """The hand-written scanner cuts any text where the regular expression does."""
    assert pieces(pattern, text.encode()) == expected(pattern, text)


@pytest.mark.parametrize("pattern", NATIVE)
def test_pieces_of_adversarial_texts_are_the_matches(pattern):
    """Seeded texts dense in contractions, blanks, line ends, case changes, marks and digits, end to end."""
    for text in texts.adversarial(seed=1, num=1500):
        assert pieces(pattern, text.encode()) == expected(pattern, text), repr(text)


@pytest.mark.parametrize("pattern", NATIVE)
def test_every_code_point_is_cut_as_the_pattern_says(pattern):
    """Each character that a Unicode version has assigned, between letters, digits and blanks."""
    for text in texts.code_points("a{0}1{0} {0}", every=32):
        assert pieces(pattern, text.encode()) == expected(pattern, text)


@pytest.mark.parametrize("pattern", NATIVE)
@given(st.binary(max_size=60) | st.lists(st.sampled_from([b"\xff", b"\xc3", b"\xe4\xb8", b"\xf0\x9f\x98", b"\xed\xa0\x80",
       b"\xf5\x80\x80\x80", b"\xf4\x90\x80\x80", b"\xe0\x80\x80", b"\xc0\xaf", b"a", b" ", b"\n", b"1", b"\xe4\xb8\xad"]), max_size=40).map(b"".join))  # fmt: skip
def test_bytes_that_are_not_utf8_count_as_punctuation(pattern, text):
    """A byte that Python's decoder refuses is cut like a character that is neither letter, number nor blank."""
    assert pieces(pattern, text) == expected(pattern, text.decode("utf-8", "surrogateescape"))


@pytest.mark.parametrize("pattern", NATIVE)
def test_cuts_at_every_length_around_a_window(pattern):
    """No piece depends on where a text ends or on what a window of 64 bytes shows of it."""
    base = "Hello don't  \n  x=12345 (foo)bar...\n\n/usr  iPhone'll 99,  \t end'S 'tis \u4e2d\u6587 na\u00efve  " * 3
    for begin in range(70):
        for length in (1, 5, 62, 63, 64, 65, 66, 127, 128, 129, 200):
            text = base[begin : begin + length]
            assert pieces(pattern, text.encode()) == expected(pattern, text), repr(text)


@settings(max_examples=200)
@given(st.sampled_from(sorted(set(patterns.NATIVE) - {patterns.WHOLE})), st.text(st.sampled_from(texts.ALPHABET), max_size=50))
def test_forms_of_a_pattern_cut_alike(form, text):
    """Each published form of a pattern that C takes for the same is the same on this text."""
    form_pieces = [m.group() for m in twin.regex.finditer(form.replace("++$", r"++\Z").replace(r"\z", r"\Z"), text)]
    assert form_pieces == twin.split(patterns.NATIVE[form], text)


@pytest.mark.parametrize("pattern", pretok.PATTERNS)
def test_nothing_has_no_pieces(pattern):
    """An empty text is cut into nothing, and a text of one byte is its own piece."""
    assert pieces(pattern, b"") == []
    assert pieces(pattern, b"\n") == [b"\n"]
    assert pretok.split(pattern, b"ab").dtype == np.uint32

"""Documents to sequences: every token once, lengths right, the same for the same documents."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardstream._native import sequences as native
from shardstream.errors import ConfigError
from shardstream.tokenizers import sequences
from tests.twins import sequences as twin

LENGTHS = st.lists(st.integers(0, 40), max_size=30)
METHODS = pytest.mark.parametrize("method", ["concatenate", "best_fit"])


def rows_of(column) -> list[list[int]]:
    values, offsets = column
    assert offsets[0] == 0 and offsets[-1] == len(values)
    return [values[begin:end].tolist() for begin, end in zip(offsets, offsets[1:])]


def documents_of(lengths: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return documents of these lengths in which no token comes twice."""
    return np.arange(100, 100 + sum(lengths), dtype=np.uint32), np.cumsum([0, *lengths])


@METHODS
@settings(max_examples=300, deadline=None)
@given(LENGTHS, st.integers(1, 24))
def test_sequences_are_the_twin_s(method, lengths, length):
    """Tokens, positions and borders are those of putting piece after piece into place."""
    values, offsets = documents_of(lengths)
    layout = sequences.METHODS[method](np.array(lengths, np.int64), length)
    got = sequences.arrange(values, offsets, layout)
    documents = [values[begin:end].tolist() for begin, end in zip(offsets, offsets[1:])]
    expected = twin.arrange(documents, getattr(twin, method)(lengths, length))
    assert list(zip(*map(rows_of, got), strict=True)) == expected


@METHODS
@settings(max_examples=300, deadline=None)
@given(LENGTHS, st.integers(1, 24))
def test_every_token_comes_once(method, lengths, length):
    """No token is lost or doubled, no sequence is empty or too long, positions count from 0 within borders."""
    values, offsets = documents_of(lengths)
    got = sequences.arrange(values, offsets, sequences.METHODS[method](np.array(lengths, np.int64), length))
    assert sorted(got.ids[0].tolist()) == values.tolist()
    for ids, positions, borders in zip(*map(rows_of, got), strict=True):
        assert 1 <= len(ids) <= length and borders[0] == 0 and borders[-1] == len(ids)
        assert positions == [i - max(b for b in borders[:-1] if b <= i) for i in range(len(ids))]


@settings(max_examples=200, deadline=None)
@given(LENGTHS, st.integers(1, 24))
def test_concatenated_sequences_are_full(lengths, length):
    """All but the last have exactly ``length`` tokens, in the documents' order."""
    values, offsets = documents_of(lengths)
    got = sequences.arrange(values, offsets, sequences.concatenate(np.array(lengths, np.int64), length))
    assert got.ids[0].tolist() == values.tolist()
    assert (np.diff(got.ids[1])[:-1] == length).all()


@settings(max_examples=200, deadline=None)
@given(LENGTHS, st.integers(1, 24))
def test_best_fit_cuts_long_documents_only(lengths, length):
    """A document that fits into a sequence stays whole, and no two sequences are small enough to be one."""
    values, offsets = documents_of(lengths)
    layout = sequences.best_fit(np.array(lengths, np.int64), length)
    assert len(layout.document) == sum(-(-n // length) for n in lengths)
    sizes = sorted(np.diff(sequences.arrange(values, offsets, layout).ids[1]).tolist())
    assert len(sizes) < 2 or sizes[0] + sizes[1] > length


def test_best_fit_fills_sequences_of_real_lengths():
    """Documents of log-normal length leave less than 1% of room, and thousands of them take C one call."""
    lengths = np.random.default_rng(0).lognormal(5.5, 1, 20_000).astype(np.int64) + 1
    layout = sequences.best_fit(lengths, 2048)
    assert len(layout.offsets) - 1 < 1.01 * lengths.sum() / 2048


def test_lengths_outside_their_range_are_errors():
    """C refuses what would leave its tables."""
    for lengths, length in (([1], 0), ([1], native.MAX_LENGTH + 1), ([0], 5), ([6], 5), ([-1], 5)):
        with pytest.raises(ConfigError, match="from 1 to"):
            native.best_fit(np.array(lengths, np.int64), length)

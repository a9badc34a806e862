"""The parts of a packing job by themselves: patterns, passages, splits, columns, conversion to fields."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardstream.packing.batch import Batch, take, value_of
from shardstream.packing.encode import encode
from shardstream.packing.fields import Classes, FieldMap
from shardstream.packing.patterns import compile_exclude, compile_glob, compile_include, split_glob
from shardstream.packing.splits import fraction, split_of
from shardstream.packing.steps.passages import cut
from shardstream.schema import Bytes, Dense, Ragged, Sparse, Text

# -- patterns -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pattern, matched, unmatched",
    [
        ("*.txt", ["a.txt", "x/y/a.txt"], ["a.txt.gz", "txt", "x.txt/y"]),
        ("a/*.txt", ["a/1.txt"], ["1.txt", "a/b/1.txt", "b/a/1.txt"]),
        ("a/**/*.txt", ["a/1.txt", "a/b/c/1.txt"], ["b/1.txt"]),
        ("**/test_?.py", ["test_1.py", "x/test_2.py"], ["test_12.py"]),
        ("[ab]*", ["a1", "x/b2"], ["c3"]),
        ("[!ab]*", ["c3", "x/c"], ["a1"]),
        ("a+b.(c)", ["a+b.(c)"], ["aab.(c)"]),
    ],
)
def test_include_pattern(pattern, matched, unmatched):
    """A pattern without a slash is about names anywhere, one with a slash about whole paths."""
    expression = compile_include([pattern])
    assert all(expression.fullmatch(path) for path in matched)
    assert not any(expression.fullmatch(path) for path in unmatched)


def test_glob_is_about_the_whole_path_even_without_a_slash():
    """``folder/*.txt`` names files right in the folder."""
    assert compile_glob("*.txt").fullmatch("a.txt") and not compile_glob("*.txt").fullmatch("b/a.txt")


def test_exclude_of_nothing_excludes_nothing():
    """An empty list of patterns matches no path, not every path."""
    assert not compile_exclude([]).fullmatch("a") and not compile_exclude([]).fullmatch("")


@pytest.mark.parametrize(
    "url, parts",
    [
        ("a/b", ("a/b", None)),
        ("a/b/*.txt", ("a/b", "*.txt")),
        ("/a/**/x.txt", ("/a", "**/x.txt")),
        ("s3://bucket/a?/x", ("s3://bucket", "a?/x")),
        ("*.txt", (".", "*.txt")),
        ("/*.txt", ("/", "*.txt")),
    ],
)
def test_glob_is_split_before_its_first_wildcard(url, parts):
    """The folder to list ends where the first wildcard begins."""
    assert split_glob(url) == parts


# -- passages -------------------------------------------------------------------------------------

texts = st.text(alphabet=st.sampled_from("ab \n\r\té\U0001f600"), max_size=200)


@given(texts, st.integers(1, 50))
@settings(max_examples=100)
def test_passages_join_to_the_text(text, chars):
    """Nothing is lost, repeated or reordered by cutting, and no passage is empty or too long."""
    pieces = list(cut(text, chars))
    assert "".join(pieces) == text and all(0 < len(piece) <= chars for piece in pieces)


@given(texts, st.integers(1, 50))
@settings(max_examples=100)
def test_passage_is_cut_inside_a_line_only_if_the_line_is_too_long(text, chars):
    """A passage that does not end a line holds no line end before, so no shorter cut at one was possible."""
    pieces = list(cut(text, chars))
    assert all(piece.endswith("\n") or "\n" not in piece for piece in pieces[:-1])


def test_long_line_is_cut_after_a_space():
    """Words stay whole where a space allows."""
    assert list(cut("aaa bbb ccc", 5)) == ["aaa ", "bbb ", "ccc"]


# -- splits ---------------------------------------------------------------------------------------


PINNED = [0.234792, 0.226609, 0.494352, 0.558093]


def test_split_of_a_key_never_changes():
    """The split is part of what a dataset is: these keys are pinned."""
    assert [round(fraction(key, 0), 6) for key in ("", "a", "asyncio/events.py", "ключ")] == PINNED


@given(st.text(), st.integers(-(2**63), 2**63 - 1))
def test_fraction_is_in_the_unit_interval(key, seed):
    """Every text, lone surrogates included, has a fraction in [0, 1)."""
    assert 0 <= fraction(key, seed) < 1


def test_shares_are_kept_over_many_keys():
    """Of 20,000 keys each split gets its share within four standard deviations."""
    parts = {"a": 0.7, "b": 0.2, "c": 0.1}
    names = [split_of(f"file-{number}.txt", parts, 3) for number in range(20_000)]
    for name, share in parts.items():
        assert abs(names.count(name) - 20_000 * share) < 4 * (20_000 * share * (1 - share)) ** 0.5


def test_split_of_shares_that_end_just_below_one_is_the_last():
    """A fraction above the sum of shares, which float rounding allows, falls into the last split."""
    assert split_of("a", {"x": 1e-12, "y": 1e-12}, 0) == "y"


# -- columns --------------------------------------------------------------------------------------

rows_of_sets = st.lists(st.lists(st.integers(0, 9), max_size=4), min_size=1, max_size=8)


@given(rows_of_sets, st.data())
def test_take_of_a_ragged_column_is_take_of_its_rows(rows, data):
    """Offsets, values and what goes with them are gathered as a list of rows would be."""
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=10))
    values = np.array([value for row in rows for value in row], np.int64)
    offsets = np.cumsum([0, *map(len, rows)])
    taken = take((values, offsets, values * 0.5), chosen)
    assert len(taken[1]) == len(chosen) + 1
    for number, row in enumerate(chosen):
        indices, weights = value_of(taken, number)
        assert indices.tolist() == rows[row] and weights.tolist() == [0.5 * value for value in rows[row]]


def test_batch_of_unlike_records_has_none_where_a_value_is_missing():
    """The columns are all that any record has."""
    batch = Batch.of_records([{"key": "1", "a": 1}, {"key": "2", "b": 2}])
    assert batch.columns == {"key": ["1", "2"], "a": [1, None], "b": [None, 2]}


# -- fields ---------------------------------------------------------------------------------------


def encoded(kind, values, classes=None):
    """Return ``(column, keys that are left, messages of the rejects)`` of one field."""
    batch = Batch({"key": [str(number) for number in range(len(values))], "v": values})
    columns, batch, _ = encode([FieldMap("f", "v", kind, classes)], batch)
    return columns["f"], batch.columns["key"], [str(reject) for reject in batch.rejects]


@pytest.mark.parametrize(
    "kind, good, bad, message",
    [
        (Dense("int64"), 3, 1.5, "1.5 does not fit int64. [key 1, field f]"),
        (Dense("int64"), 3, "4", "'4' is not a number. [key 1, field f]"),
        (Dense("uint8"), 255, 256, "256 does not fit uint8. [key 1, field f]"),
        (Dense("int8"), 0, -129, "-129 does not fit int8. [key 1, field f]"),
        (Dense("int64"), 3, None, "the record has no such value. [key 1, field f]"),
        (Dense("float32", (2,)), [1, 2], [1, 2, 3], "its shape is (3,), not (2,). [key 1, field f]"),
        (Ragged("int32"), [1, 2, 3], [[1]], "its shape is (1, 1), not (None,). [key 1, field f]"),
        (Sparse(10), [9, 0], [10], "an index is outside [0, 10). [key 1, field f]"),
        (Sparse(10), [], [-1], "an index is outside [0, 10). [key 1, field f]"),
        (Sparse(10), [1], [3, 4, 3], "an index stands twice. [key 1, field f]"),
        (Sparse(10, values="float32"), ([1], [0.5]), ([1, 2], [0.5]), "its shape is (1,), not (2,). [key 1, field f]"),
        (Text(), "a", b"a", "b'a' is not text. [key 1, field f]"),
        (Bytes(), b"a", "a", "'a' is not bytes. [key 1, field f]"),
    ],
)
def test_bad_value_costs_its_own_row_only(kind, good, bad, message):
    """A value that does not fit is a reject that names key and field; the rows beside it are kept."""
    _, keys, messages = encoded(kind, [good, bad, good])
    assert keys == ["0", "2"] and messages == [message]


def test_sparse_rows_are_sorted_with_their_values():
    """Indices may come in any order; values go along."""
    indices, offsets, values = encoded(Sparse(10, values="float32"), [([7, 2], [0.7, 0.2]), ([], [])])[0]
    assert (
        indices.tolist() == [2, 7]
        and offsets.tolist() == [0, 2, 2]
        and values.tolist() == [np.float32(0.2), np.float32(0.7)]
    )


def test_no_rows_keep_their_dtype():
    """When every row is rejected the column is empty, of the field's dtype and shape."""
    column, keys, _ = encoded(Dense("float32", (2,)), [None, "x"])
    assert column.shape == (0, 2) and column.dtype == np.float32 and keys == []


def test_rejects_of_one_field_leave_the_row_out_of_all():
    """Fields stay aligned when different rows fail in different fields."""
    batch = Batch(
        {"key": ["0", "1", "2", "3"], "a": [0, None, 2, 3], "b": (np.arange(4), np.arange(5)), "c": ["x", "y", 5, "w"]}
    )
    fields = [FieldMap("a", "a", Dense("int64")), FieldMap("b", "b", Ragged("int64")), FieldMap("c", "c", Text())]
    columns, batch, _ = encode(fields, batch)
    assert columns["a"].tolist() == [0, 3] and columns["b"][0].tolist() == [0, 3] and columns["c"] == ["x", "w"]
    assert [reject.key for reject in batch.rejects] == ["1", "2"]


def test_labels_become_numbers():
    """A label is its place among the names; others are ``other`` if there is one."""
    column, _, messages = encoded(Dense("int64"), ["b", "a", "z"], Classes(["a", "b", "rest"], other="rest"))
    assert column.tolist() == [1, 0, 2] and messages == []


def test_unknown_label_is_a_reject():
    """Without ``other`` a label that is not among the names is a mistake of its record."""
    column, keys, messages = encoded(Dense("int64"), ["a", "z"], Classes(["a"]))
    assert keys == ["0"] and re.search("the label 'z' is none of the classes", messages[0])


def test_dropped_label_is_no_mistake():
    """A label that the rule leaves out is counted, not rejected."""
    batch = Batch({"key": ["0", "1"], "v": ["a", "rare"]})
    columns, batch, dropped = encode(
        [FieldMap("f", "v", Dense("int64"), Classes(["a"], dropped=frozenset({"rare"})))], batch
    )
    assert columns["f"].tolist() == [0] and dropped == 1 and batch.rejects == []

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction import FeatureHasher as SklearnHasher

from shardstream.errors import ConfigError, TextError
from shardstream.text import CategoryHasher
from tests.twins import hashing as twin

# Multiples of 1/8 below 2**20: sums are exact in float32 in any order, and scikit-learn adds in another one.
numbers = st.integers(-(2**20), 2**20).map(lambda n: n / 8) | st.integers(-5, 5) | st.booleans()
names = st.text(alphabet="abc=\u00e9\U0001f600", max_size=4)
values = numbers | names
dims = st.sampled_from([1, 2, 3, 1000, 2**20, 2**31 - 1])
dict_rows = st.lists(st.dictionaries(names, values, max_size=60), min_size=1, max_size=4)


def assert_rows_equal(got, expected):
    for one, other, name in zip(got, expected, ("indices", "indptr", "values"), strict=True):
        np.testing.assert_array_equal(one, other, err_msg=name)


def by_sklearn(rows, dim, input_type, signed):
    found = SklearnHasher(dim, input_type=input_type, alternate_sign=signed).transform(rows)
    return found.indices, found.indptr, found.data


@given(dict_rows, dims, st.booleans())
def test_dicts_equal_scikit_learn_and_the_twin(rows, dim, signed):
    """Rows of dicts give FeatureHasher's indices and values."""
    got = CategoryHasher(dim, signed=signed).transform(rows)
    assert_rows_equal(got, by_sklearn(rows, dim, "dict", signed))
    assert_rows_equal(got, twin.hash_features([row.items() for row in rows], dim, signed))


@given(
    st.lists(st.lists(st.tuples(names | st.binary(max_size=3), numbers), max_size=60), min_size=1, max_size=4),
    dims,
    st.booleans(),
)
def test_pairs_equal_scikit_learn(rows, dim, signed):
    """Pairs, whose names may repeat and be bytes, give FeatureHasher's."""
    assert_rows_equal(CategoryHasher(dim, "pair", signed).transform(rows), by_sklearn(rows, dim, "pair", signed))


@given(st.lists(st.lists(names, max_size=40), min_size=1, max_size=4), dims, st.booleans())
def test_strings_equal_scikit_learn(rows, dim, signed):
    """Names alone count 1 each, as in FeatureHasher."""
    assert_rows_equal(CategoryHasher(dim, "string", signed).transform(rows), by_sklearn(rows, dim, "string", signed))


def test_long_rows_are_summed_in_the_order_of_their_features():
    """A row of thousands of features on few indices adds them up from first to last, in double precision."""
    rows = [[(f"n{i}", 0.1 * i) for i in range(5000)], [("one", 1)]]
    assert_rows_equal(CategoryHasher(7, "pair", True).transform(rows), twin.hash_features(rows, 7, True))


def test_names_of_any_type_make_categories():
    """With a string as value the name is formatted, as in scikit-learn: 3 and "a" make "3=a"."""
    rows = [{3: "a", b"x": "y", None: ""}]
    assert_rows_equal(CategoryHasher(2**20).transform(rows), by_sklearn(rows, 2**20, "dict", False))


def test_zeros_are_left_out_before_their_name_is_looked_at():
    """A value of 0 leaves its feature out, whatever its name is, as in scikit-learn."""
    assert CategoryHasher(8).transform([{"a": 0, None: 0.0, "b": False}])[0].tolist() == []


@pytest.mark.parametrize(
    ("input_type", "row"),
    [
        ("dict", {"a": None}),
        ("dict", {"a": b"bytes"}),
        ("dict", {None: 1}),
        ("dict", {"a": 1j}),
        ("dict", {"a": 10**400}),
        ("dict", [("a", 1)]),
        ("dict", "text"),
        ("dict", {"\ud800": 1}),
        ("pair", [("a", 1, 2)]),
        ("pair", ["abc"]),
        ("pair", "ab"),
        ("pair", 3),
        ("string", "text"),
        ("string", ["a", 3]),
        ("string", None),
    ],
    ids=str,
)
def test_what_is_no_row_is_located(input_type, row):
    """A malformed row is a TextError with its number; nothing is returned."""
    good = {"dict": {"a": 1}, "pair": [("a", 1)], "string": ["a"]}[input_type]
    with pytest.raises(TextError, match=r"rows\[1\]") as caught:
        CategoryHasher(8, input_type).transform([good, row, good])
    assert caught.value.index == 1


@pytest.mark.parametrize("arguments", [(0,), (2**31,), (8.0,), (8, "dicts"), (8, "dict", "no")], ids=str)
def test_illegal_settings_are_refused_at_once(arguments):
    """The constructor raises."""
    with pytest.raises(ConfigError):
        CategoryHasher(*arguments)


@pytest.mark.parametrize("rows", [{"a": 1}, "ab", None, 3], ids=str)
def test_one_row_is_not_a_batch(rows):
    """A single dict, whose names would be taken for rows, is refused; so is what is no sequence."""
    with pytest.raises(ConfigError, match="rows must be a sequence of rows"):
        CategoryHasher(8).transform(rows)


def test_empty_batches_keep_their_dtypes():
    """No row, and rows without features, are legal."""
    indices, indptr, values = CategoryHasher(8).transform([])
    assert (indices.dtype, indptr.tolist(), values.dtype) == (np.uint32, [0], np.float32)
    assert CategoryHasher(8).transform([{}, {}])[1].tolist() == [0, 0, 0]


def test_pickles_and_compares_by_content():
    """A hasher travels to worker processes."""
    assert pickle.loads(pickle.dumps(CategoryHasher(8, "pair"))) == CategoryHasher(8, "pair")

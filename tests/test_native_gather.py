import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from shardstream._native.gather import DTYPES, DenseBlocks, RaggedBlocks, RowNumbers, Rows
from shardstream.errors import CodecError, ConfigError
from tests.twins import gather as twin

CASTS = [(a, b) for a in DTYPES for b in DTYPES if not (a.startswith("float") and not b.startswith("float"))]


@st.composite
def dense_case(draw):
    source, target = draw(st.sampled_from(CASTS))
    shape = draw(st.sampled_from([(), (1,), (3,), (17,), (2, 5)]))
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    blocks = [draw(hnp.arrays(source, (n, *shape))) for n in sizes]
    picks = draw(st.lists(st.tuples(st.integers(0, len(sizes) - 1), st.integers(0, 4)), max_size=12))
    slot = np.array([s for s, _ in picks], np.uint32)
    row = np.array([r % sizes[s] for s, r in picks], np.uint32)
    return blocks, slot, row, target


def same(got, expected):
    """Bitwise equality, except that any NaN equals any NaN."""
    return got.dtype == expected.dtype and np.array_equal(got, expected, equal_nan=got.dtype.kind == "f")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 4), max_size=9), st.lists(st.integers(-40, 40), max_size=12))
def test_rows_are_found_by_their_number(sizes, numbers):
    """Any number, from the front or the end, is the row that counting through the blocks finds, or an IndexError that names it."""
    found, total = RowNumbers(sizes), sum(sizes)
    outside = [number for number in numbers if not -total <= number < total]
    if outside:
        with pytest.raises(IndexError, match=f"row {outside[0]} is outside the {total} rows"):
            found.find(np.array(numbers, np.int64))
        return
    rows = found.find(np.array(numbers, np.int64))
    assert list(zip(rows.slot.tolist(), rows.row.tolist())) == [twin.locate(sizes, number) for number in numbers]
    part = rows.part(len(numbers) // 2, len(numbers))
    assert part.row.tolist() == rows.row[len(numbers) // 2 :].tolist()


def test_numbers_near_the_limits_of_int64_are_outside():
    """The smallest and the largest numbers there are don't wrap around into the rows."""
    for number in (np.iinfo(np.int64).min, np.iinfo(np.int64).max):
        with pytest.raises(IndexError, match=str(number)):
            RowNumbers([5, 7]).find(np.array([0, number]))


@settings(max_examples=300, deadline=None)
@given(dense_case())
def test_dense_gather_equals_numpy(case):
    """Any rows of any blocks under any legal cast are what numpy's astype gives."""
    blocks, slot, row, target = case
    out = np.empty((len(slot), *blocks[0].shape[1:]), target)
    DenseBlocks.of(blocks).gather(Rows(slot, row), out)
    if len(slot):
        with np.errstate(all="ignore"):
            assert same(out, twin.gather_dense(blocks, slot, row, target))


@pytest.mark.parametrize("source, target", [("float16", "float32"), ("float32", "float16"), ("float64", "float16")])
def test_float16_casts_are_exact(source, target):
    """Every half bit pattern widens exactly; values around every rounding edge narrow as numpy does."""
    halves = np.arange(65536, dtype=np.uint16).view(np.float16)
    if source == "float16":
        column = halves
    else:
        edges = halves[np.isfinite(halves)].astype(source)
        extra = np.array([65519.99, 65520, 1e30, np.inf, -np.inf, np.nan, 2e-8, 2.98e-8, 3e-8], source)
        column = np.concatenate([edges, np.nextafter(edges, np.inf, dtype=source), np.nextafter(edges, -np.inf, dtype=source),
                                 (edges[:-1] + edges[1:]) / 2, extra])  # fmt: skip
    out = np.empty(len(column), target)
    DenseBlocks.of([column]).gather(Rows(np.zeros(len(column), np.uint32), np.arange(len(column), dtype=np.uint32)), out)
    with np.errstate(all="ignore"):
        assert same(out, column.astype(target))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(st.lists(st.integers(0, 65535), max_size=6), min_size=1, max_size=5), min_size=1, max_size=4), st.data())
def test_ragged_gather_equals_twin(blocks, data):
    """Offsets and values of ragged rows, empty rows included, are those of the twin."""
    offsets = [np.cumsum([0, *(len(row) for row in block)]) for block in blocks]
    values = [np.array([v for row in block for v in row], np.uint16) for block in blocks]
    picks = data.draw(st.lists(st.tuples(st.integers(0, len(blocks) - 1), st.integers(0, 4)), max_size=12))
    slot = np.array([s for s, _ in picks], np.uint32)
    row = np.array([r % len(blocks[s]) for s, r in picks], np.uint32)
    column, rows = RaggedBlocks.of(offsets, values), Rows(slot, row)
    got_offsets = column.gather_offsets(rows)
    got = np.empty(got_offsets[-1], np.int64)
    column.gather_values(rows, got)
    expected_offsets, expected = twin.gather_ragged(offsets, values, slot, row, np.int64)
    assert got_offsets.tolist() == expected_offsets.tolist() and got.tolist() == expected.tolist()


@settings(max_examples=150, deadline=None)
@given(st.data(), st.sampled_from([None, "float32", "float16", "int32"]), st.sampled_from(["float32", "float64", "float16"]))
def test_sparse_expansion_equals_twin(data, weights, target):
    """Expanded rows hold values (or 1) at the indices and 0 elsewhere, also in a dirty output."""
    dim = data.draw(st.integers(1, 70))
    blocks = data.draw(st.lists(st.lists(st.sets(st.integers(0, dim - 1)), min_size=1, max_size=4), min_size=1, max_size=3))
    indptr = [np.cumsum([0, *(len(row) for row in block)]) for block in blocks]
    indices = [np.array([i for row in block for i in sorted(row)], np.uint32) for block in blocks]
    values = None if weights is None else [np.arange(1, len(i) + 1).astype(weights) for i in indices]
    slot = np.array([s for s, block in enumerate(blocks) for _ in block], np.uint32)
    row = np.array([r for block in blocks for r in range(len(block))], np.uint32)
    if weights == "int32" and target == "float16":
        values = [array % 2048 for array in values]
    out = np.full((len(slot), dim), 7, target)
    RaggedBlocks.of(indptr, indices, *([values] if values else [])).gather_expanded(Rows(slot, row), dim, out)
    assert same(out, twin.gather_sparse(indptr, indices, values, slot, row, dim, target))


def test_rows_outside_a_block_are_refused():
    """A slot or row beyond what is there is an error, not a read."""
    column = DenseBlocks.of([np.zeros((2, 3), np.float32)])
    for slot, row in [(0, 2), (1, 0)]:
        with pytest.raises(IndexError):
            column.gather(Rows(np.array([slot], np.uint32), np.array([row], np.uint32)), np.empty((1, 3), np.float32))


def test_index_beyond_dim_is_refused():
    """An index that is not below dim is an error, not a write."""
    column = RaggedBlocks.of([np.array([0, 1])], [np.array([5], np.uint32)])
    with pytest.raises(CodecError):
        column.gather_expanded(Rows(np.zeros(1, np.uint32), np.zeros(1, np.uint32)), 5, np.empty((1, 5), np.float32))


def test_float_to_integer_is_refused():
    """A float column asked for as integers is a clear error."""
    with pytest.raises(ConfigError, match="float"):
        DenseBlocks.of([np.zeros(2, np.float32)]).gather(Rows(*[np.zeros(1, np.uint32)] * 2), np.empty(1, np.int64))

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from shardstream._native.gather import DTYPES, DenseBlocks, KeyedBlocks, NeededBlocks, RaggedBlocks, RowNumbers, Rows
from shardstream.errors import CodecError
from tests.twins import gather as twin

CASTS = [(a, b) for a in DTYPES for b in DTYPES]


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


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.data())
def test_blocks_are_numbered_as_they_are_needed(sizes, data):
    """Blocks of no rows among them, and what lies before all blocks is refused."""
    begins = np.cumsum([2**50, *sizes])[:-1]
    places = data.draw(st.lists(st.integers(2**50, 2**50 + sum(sizes) + 3), max_size=30))
    needed = NeededBlocks(begins, np.array(places, np.int64))
    found, firsts = twin.number_blocks(begins.tolist(), places)
    assert list(zip(needed.rows.slot.tolist(), needed.rows.row.tolist(), needed.num_needed.tolist(), strict=True)) == found
    assert list(zip(needed.blocks.tolist(), needed.first_rows.tolist(), strict=True)) == firsts
    for bad in (begins, np.empty(0, np.int64)):
        with pytest.raises(ValueError, match="before all blocks"):
            NeededBlocks(bad, np.array([2**50, 2**50 - 1]))


def test_numbers_near_the_limits_of_int64_are_outside():
    """The smallest and the largest numbers there are don't wrap around into the rows."""
    for number in (np.iinfo(np.int64).min, np.iinfo(np.int64).max):
        with pytest.raises(IndexError, match=str(number)):
            RowNumbers([5, 7]).find(np.array([0, number]))


@settings(max_examples=300, deadline=None)
@given(dense_case())
def test_dense_gather_equals_numpy(case):
    """Any rows of any blocks under any cast are what the twin's are."""
    blocks, slot, row, target = case
    out = np.empty((len(slot), *blocks[0].shape[1:]), target)
    DenseBlocks.of(blocks).gather(Rows(slot, row), out)
    if len(slot):
        with np.errstate(all="ignore"):
            assert same(out, twin.gather_dense(blocks, slot, row, target))


def cast_all(column, target):
    """Return all elements of a column, cast by a gather of its rows in order: as one wide row, so that the loops make vectors of them, and one by one, which
    gives the same.
    """
    out, one_by_one = np.empty((1, *column.shape), target), np.empty(column.shape, target)
    DenseBlocks.of([column[None]]).gather(Rows(np.zeros(1, np.uint32), np.zeros(1, np.uint32)), out)
    DenseBlocks.of([column]).gather(Rows(np.zeros(len(column), np.uint32), np.arange(len(column), dtype=np.uint32)), one_by_one)
    assert same(out[0], one_by_one)
    return out[0]


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
    with np.errstate(all="ignore"):
        assert same(cast_all(column, target), column.astype(target))


def edges_of(dtype):
    """Return values of a dtype where casts go wrong: its own limits and those of all others, with neighbours; zeros, NaN and infinities."""
    limits = [0, 1, *(limit for name in DTYPES if name[0] in "iu" for limit in (int(np.iinfo(name).min), int(np.iinfo(name).max)))]
    if np.dtype(dtype).kind != "f":
        low, high = (0, 1) if dtype == "bool" else (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
        return np.array([v for limit in limits for v in (limit - 1, limit, limit + 1, limit // 2) if low <= v <= high], dtype)
    with np.errstate(all="ignore"):
        ends = np.array([*map(float, limits), *(float(end) for name in ("float16", "float32", "float64") for end in (
            np.finfo(name).max, np.finfo(name).tiny, np.finfo(name).smallest_subnormal))]).astype(dtype)  # fmt: skip
        ends = np.concatenate([ends, -ends, ends + 1, ends - 1, ends + ends.dtype.type(0.5), 2 * ends, ends / 2, [np.nan, np.inf, -np.inf, -0.0]]).astype(dtype)
        return np.concatenate([ends, np.nextafter(ends, np.inf, dtype=dtype), np.nextafter(ends, -np.inf, dtype=dtype)])


@pytest.mark.parametrize("source", DTYPES)
def test_casts_at_the_edges_of_every_dtype(source):
    """Where a dtype ends, subnormals, NaN and infinities become what the twin says; all that numpy defines is numpy's."""
    column = edges_of(source)
    for target in DTYPES:
        with np.errstate(all="ignore"):
            got, numpys = cast_all(column, target), column.astype(target)
            assert same(got, twin.cast(column, target)), target
            fits = np.ones(len(column), bool)
            if source.startswith("float") and target[0] in "iu":
                whole = np.trunc(column.astype("float64"))  # exact, as is any comparison with a power of two
                info = np.iinfo(target)
                fits = (whole >= float(info.min)) & (whole < float(int(info.max) + 1))
        assert same(got[fits], numpys[fits]), target


def test_a_bool_of_any_byte_is_true():
    """A bool is any byte but 0, as others' files may have it, and comes out as 1 of every dtype."""
    column = np.array([0, 1, 2, 128, 255], np.uint8).view(bool)
    for target in DTYPES:
        assert cast_all(column, target).view("u1" if target == "bool" else target).tolist() == [0, 1, 1, 1, 1]


@pytest.mark.parametrize("source, target", [("uint16", "int64"), ("float32", "float32"), ("float64", "uint8"), ("bool", "bool")])
def test_blocks_of_any_strides(source, target):
    """Blocks that are transposed, reversed, broadcast or far apart in memory give the rows they show; so do no row and one."""
    table = np.arange(7 * 400_000).reshape(7, 400_000).astype(source)
    for block in (table[:, ::100_000], table[::-1, :5], table[::3, 7:1:-2], table[:, :3].T, np.broadcast_to(table[:1, :4], (6, 4)),
                  np.lib.stride_tricks.as_strided(table, (5, 2), (table.strides[0] + table.itemsize, 0))):  # fmt: skip
        for rows in ([], [len(block) - 1], [*range(len(block)), 0]):
            out = np.empty((len(rows), *block.shape[1:]), target)
            DenseBlocks.of([block]).gather(Rows(np.zeros(len(rows), np.uint32), np.array(rows, np.uint32)), out)
            assert same(out, twin.cast(np.ascontiguousarray(block)[rows], target))


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


@st.composite
def ragged_case(draw, dtype):
    """Offsets and values of some blocks of random lengths."""
    lengths = draw(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=5), min_size=1, max_size=4))
    offsets = [np.cumsum([0, *block]) for block in lengths]
    return offsets, [draw(hnp.arrays(dtype, int(bounds[-1]))) for bounds in offsets]


def picked_rows(data, offsets):
    picks = data.draw(st.lists(st.tuples(st.integers(0, len(offsets) - 1), st.integers(0, 4)), max_size=12))
    slot = np.array([s for s, _ in picks], np.uint32)
    return slot, np.array([r % (len(offsets[s]) - 1) for s, r in picks], np.uint32)


@settings(max_examples=200, deadline=None)
@given(st.data(), st.sampled_from(CASTS), st.integers(1, 12), st.sampled_from(["start", "end"]), st.sampled_from(["right", "left"]), st.booleans())
def test_padded_gather_equals_twin(data, cast, length, keep, pad, has_mask):
    """Rows of any lengths, cut or filled up at either side, under any cast, and their mask, are the twin's, also in a dirty output."""
    source, target = cast
    offsets, values = data.draw(ragged_case(source))
    slot, row = picked_rows(data, offsets)
    filler = data.draw(hnp.arrays(target, 1))
    out, mask = np.ones((len(slot), length), target), np.ones((len(slot), length), bool) if has_mask else None
    RaggedBlocks.of(offsets, values).gather_padded(Rows(slot, row), out, filler, keep == "end", pad == "left", mask)
    with np.errstate(all="ignore"):
        expected, expected_mask = twin.gather_padded(offsets, values, slot, row, target, length, filler[0], keep, pad)
    assert same(out, expected) and (mask is None or np.array_equal(mask, expected_mask))


@settings(max_examples=150, deadline=None)
@given(st.data(), st.lists(st.tuples(st.sampled_from(["uint8", "uint16", "uint32", "int64"]), st.sampled_from([None, "float32", "int32"])), min_size=1, max_size=4))
def test_keyed_gather_equals_twin(data, kinds):
    """Ids and weights of several columns stand key by key, row by row; a column without weights has ones."""
    first, _ = data.draw(ragged_case("uint8"))
    slot, row = picked_rows(data, first)
    columns, ids, weights = [], [], []
    for dtype, weight in kinds:
        offsets = [np.cumsum([0, *data.draw(st.lists(st.integers(0, 6), min_size=len(b) - 1, max_size=len(b) - 1))]) for b in first]
        values = [data.draw(hnp.arrays(dtype, int(bounds[-1]))) for bounds in offsets]
        own = None if weight is None else [data.draw(hnp.arrays(weight, int(bounds[-1]))) for bounds in offsets]
        columns.append(RaggedBlocks.of(offsets, values, *([] if own is None else [own])))
        ids.append((offsets, values))
        weights.append((offsets, own))
    keyed, rows = KeyedBlocks(columns, len(first)), Rows(slot, row)
    got = keyed.gather_offsets(rows)
    for which, (dtype, expected) in enumerate([(np.int64, ids), (np.float32, weights)]):
        out = np.full(got[-1], 7, dtype)
        keyed.gather_values(rows, got, out, which)
        offsets, values = twin.gather_keyed(expected, slot, row, dtype)
        assert got.tolist() == offsets.tolist() and same(out, values)


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
    ragged = RaggedBlocks.of([np.array([0, 1, 2])], [np.zeros(2, np.uint16)])
    for slot, row in [(0, 2), (1, 0)]:
        rows = Rows(np.array([slot], np.uint32), np.array([row], np.uint32))
        with pytest.raises(IndexError):
            column.gather(rows, np.empty((1, 3), np.float32))
        with pytest.raises(IndexError):
            ragged.gather_padded(rows, np.empty((1, 3), np.uint16), np.zeros(1, np.uint16))
        with pytest.raises(IndexError):
            KeyedBlocks([ragged], 1).gather_offsets(rows)


@pytest.mark.parametrize("values, target", [(None, "float32"), (None, "float16"), ("float32", "float32"), ("int32", "float64")])
def test_index_beyond_dim_is_refused(values, target):
    """An index that is not below dim is an error, not a write, whichever loop expands the set."""
    indices = np.array([5], np.uint32)
    column = RaggedBlocks.of([np.array([0, 1])], [indices], *([] if values is None else [[np.ones(1, values)]]))
    with pytest.raises(CodecError):
        column.gather_expanded(Rows(np.zeros(1, np.uint32), np.zeros(1, np.uint32)), 5, np.empty((1, 5), target))

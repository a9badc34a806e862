"""Parts of a batch joined from slots are the batch that one process makes, whatever the rows hold."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import shardstream as ss
from shardstream.buffers import BufferPool
from shardstream.collate import collate_rows
from shardstream.handover import MIN_SLOT_NBYTES, Packer, Slot
from shardstream.merge import Part, merge
from tests.columns import assert_same


@pytest.fixture(scope="module")
def slots():
    """Eight slots, used by all examples as a worker uses its own."""
    slots = [Slot.create() for _ in range(8)]
    yield slots
    for slot in slots:
        slot.close()


def hand_over(slot: Slot, columns: dict, num_rows: int, kept=None, origins: dict | None = None, packer: Packer | None = None) -> Part:
    """Return what the loader gets of a worker's columns; it maps the slot by itself."""
    if packer is None:
        packer = Packer()
        packer.begin(slot)
    wires = {name: packer.pack(column, (origins or {}).get(name)) for name, column in columns.items()}
    packer.finish()
    return Part(slot, wires, num_rows, None if kept is None else np.array(kept, np.int64))


NUMBERS = st.integers(-(2**40), 2**40) | st.booleans() | st.floats(width=32) | st.floats(width=32).map(np.float32) | st.integers(0, 255).map(np.uint8)
ARRAYS = st.tuples(st.sampled_from(["int64", "float32", "bool"]), st.sampled_from([(), (2,), (3,), (0,), (2, 2)])).map(
    lambda spec: np.arange(np.prod(spec[1], dtype=int)).astype(spec[0]).reshape(spec[1]))  # fmt: skip
TENSORS = st.tuples(st.sampled_from([torch.int64, torch.float32, torch.bfloat16]), st.sampled_from([(), (1,), (2,), (0,), (2, 2)])).map(
    lambda spec: torch.arange(int(np.prod(spec[1]))).to(spec[0]).reshape(spec[1]))  # fmt: skip
VALUES = {
    "numbers": NUMBERS, "integers": st.integers(-5, 5), "texts": st.text(max_size=5), "bytes": st.binary(max_size=5), "arrays": ARRAYS,
    "images": st.just(np.ones((2, 3), np.uint8)), "lengths": st.integers(0, 3).map(lambda n: torch.arange(n)), "tensors": TENSORS,
    "anything": NUMBERS | ARRAYS | TENSORS | st.none() | st.text(max_size=3) | st.dictionaries(st.text(max_size=2), ARRAYS, max_size=2),
}  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data(), num_workers=st.integers(1, 4), first=st.integers(0, 3), num_positions=st.integers(1, 9))
def test_parts_collate_as_the_whole(slots, data, num_workers, first, num_positions):
    """Rows of any kind, some of them dropped, some without a field: collated in parts and joined, or all at once, the
    batch is one.
    """
    first %= num_workers
    kinds = data.draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=2, unique=True))
    rows = [data.draw(st.none() | st.fixed_dictionaries({}, optional={kind: VALUES[kind] for kind in kinds}) if data.draw(st.booleans())
                      else st.fixed_dictionaries({kind: VALUES[kind] for kind in kinds})) for _ in range(num_positions)]  # fmt: skip
    left = [row for row in rows if row is not None]
    parts, packer = [], Packer()
    for worker in range(num_workers):
        mine = rows[(worker - first) % num_workers :: num_workers]
        kept = [i for i, row in enumerate(mine) if row is not None]
        packer.begin(slots[worker])
        columns, origins = collate_rows([mine[i] for i in kept], True, packer.empty)
        parts.append(hand_over(slots[worker], columns, len(kept), kept, origins, packer))
    merged = merge(parts, first, num_positions, BufferPool())
    whole = collate_rows(left)[0] if left else {}
    assert merged.num_rows == len(left) and set(merged.columns) == set(whole)
    assert merged.kept is None or merged.kept.tolist() == [i for i, row in enumerate(rows) if row is not None]
    assert_same({name: merged.columns[name] for name in whole}, whole)


@pytest.mark.parametrize("nbytes", [MIN_SLOT_NBYTES // 2, 2 * MIN_SLOT_NBYTES])
def test_rows_are_copied_once(nbytes):
    """Tensors, of equal lengths or not, and arrays are collated in the slot: from the second time on there is nothing more to copy,
    and no more of it is used than they take.
    """
    slot, packer = Slot.create(), Packer()
    row = torch.arange(nbytes // 3 // 8 // 4)
    samples = [{"even": row + i, "odd": row[: len(row) - i], "array": row.numpy() * i} for i in range(4)]
    for is_grown in (nbytes < MIN_SLOT_NBYTES, True):
        packer.begin(slot)
        columns, origins = collate_rows(samples, True, packer.empty)
        part = hand_over(slot, columns, 4, None, origins, packer)
        copied = [array.nbytes for _, array in packer._outside]
        assert copied == [5 * 8] if is_grown else sum(copied) > nbytes - MIN_SLOT_NBYTES  # offsets
        assert_same(merge([part], 0, 4, BufferPool()).columns, collate_rows(samples)[0])
    assert slot.nbytes <= max(MIN_SLOT_NBYTES, 5 * nbytes // 4 + 4096)
    slot.close()


def test_what_torch_alone_stacks(slots):
    """Gradients, subclasses and dtypes that numpy lacks stay torch's business, and rows of them collate all the same."""
    for row in (torch.ones(3, requires_grad=True), torch.nn.Parameter(torch.ones(3)),
                torch.nn.Parameter(torch.ones(3), requires_grad=False), torch.ones(3, dtype=torch.bfloat16)):  # fmt: skip
        asked: list = []
        column = collate_rows([{"x": row}, {"x": row * 1}], empty=lambda *what: asked.append(what))[0]["x"]
        assert column.shape == (2, 3) and column.dtype == row.dtype and column.requires_grad == row.requires_grad and not asked
    mixed = collate_rows([{"x": torch.ones(3)}, {"x": torch.ones(3, dtype=torch.float64)}])[0]["x"]
    assert mixed.dtype == torch.float64 and collate_rows([{"x": torch.ones(2).to_sparse()}] * 2)[1] == {"x": "items"}


def test_rows_of_the_other_byte_order_collate():
    """To tensors, which have the machine's own."""
    column = collate_rows([{"x": np.array([i, 2], ">i4")} for i in range(3)])[0]["x"]
    assert column.dtype == torch.int32 and column.tolist() == [[0, 2], [1, 2], [2, 2]]


def jagged(lengths: list[int], begin: int, weights: bool) -> ss.Jagged:
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    values = torch.arange(begin, begin + int(offsets[-1]))
    return ss.Jagged(values, offsets, values / 2 if weights else None)


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("kind", ["jagged", "csr", "rows", "keyed"])
def test_columns_of_batches_join(slots, kind, weights):
    """Jagged, CSR, keyed columns and lists of rows interleave row by row, with weights where they have them, also of unequal parts."""

    def column(lengths, begin):
        value = jagged(lengths, begin, weights)
        if kind == "csr":
            values = value.weights if weights else torch.ones(len(value.values))
            return torch.sparse_csr_tensor(value.offsets, value.values, values, size=(len(lengths), 50))
        if kind == "rows":
            rows = [value.values[a:b] for a, b in zip(value.offsets, value.offsets[1:])]
            return [(row, row / 2) for row in rows] if weights else rows
        return ss.KeyedJagged.of({"one": value, "two": jagged(lengths[::-1], begin + 20, weights)}) if kind == "keyed" else value

    parts = [hand_over(slots[0], {"c": column([1, 0, 3], 0)}, 3), hand_over(slots[1], {"c": column([2, 1], 10)}, 2)]
    got = merge(parts, 0, 5, BufferPool()).columns["c"]
    order = [0, 10, 11, 12, 1, 2, 3]
    if kind == "rows":
        assert [(row[0] if weights else row).tolist() for row in got] == [[0], [10, 11], [], [12], [1, 2, 3]]
    elif kind == "keyed":
        values = [*order, 20, 21, 22, 30, 31, 32, 23]
        assert got.keys == ["one", "two"] and got.values.tolist() == values and got.offsets.tolist() == [0, 1, 3, 3, 4, 7, 10, 11, 11, 13, 14]
        assert (got.weights is None) if not weights else got.weights.tolist() == [v / 2 for v in values]
    elif kind == "jagged":
        assert got.values.tolist() == order and got.offsets.tolist() == [0, 1, 3, 3, 4, 7]
        assert (got.weights is None) if not weights else got.weights.tolist() == [v / 2 for v in order]
    else:
        assert got.shape == (5, 50) and got.col_indices().tolist() == order and got.crow_indices().tolist() == [0, 1, 3, 3, 4, 7]


def test_arrays_of_any_dtype_join(slots):
    """A batched transform's numpy arrays come as numpy arrays, whatever their dtype."""
    for dtype in ("datetime64[s]", "complex128", ">i4", "U3", [("a", "i2"), ("b", "f8")], object):
        whole = np.arange(5).astype(dtype) if not isinstance(dtype, list) else np.array([(i, i / 2) for i in range(5)], dtype)
        parts = [hand_over(slots[w], {"a": whole[w::2]}, len(whole[w::2])) for w in range(2)]
        assert_same(merge(parts, 0, 5, BufferPool()).columns["a"], whole)


def test_whatever_texts_python_has_join(slots):
    """Half a surrogate pair, too, which UTF-8 has no bytes for."""
    texts = ["\ud800", "", "a\udfff", "\U0001f600", "\0"]
    parts = [hand_over(slots[w], {"t": texts[w::2]}, len(texts[w::2])) for w in range(2)]
    assert merge(parts, 0, 5, BufferPool()).columns["t"] == texts


def test_arrays_in_a_slot_begin_at_multiples_of_64_bytes(slots):
    """Those that were made there and those that are copied."""
    packer = Packer()
    packer.begin(slots[0])
    made = [packer.empty((length,), np.uint8) for length in (1, 63, 64, 65)]
    wires = [packer.pack(column) for column in [*made, np.ones(3, np.uint8), ["a", "bcd"], np.ones(5)]]
    packer.finish()
    assert all(where.offset % 64 == 0 for wire in wires for where in wire.arrays)


def test_what_is_merged_does_not_depend_on_the_slots(slots):
    """Slots may be written again once a batch is made: nothing in it refers to them."""
    columns = {"t": torch.arange(4.0), "s": ["a", "b", "c", "d"], "o": [np.arange(3), None, {"x": torch.ones(2)}, 5],
               "j": jagged([1, 2, 0, 4], 0, True)}  # fmt: skip
    merged = merge([hand_over(slots[0], columns, 4)], 0, 4, BufferPool()).columns
    slots[0].memory[:] = 0xFF
    assert_same(merged, columns)


def test_slots_grow_on_both_sides(slots):
    """A part larger than its slot makes the slot grow, and the reader's own map of it with it."""
    writer = Slot.create()
    reader = Slot(__import__("os").dup(writer.fd))
    packer = Packer()
    for nbytes in (10, MIN_SLOT_NBYTES + 1, 5 * MIN_SLOT_NBYTES, 3):
        data = np.random.default_rng(0).integers(0, 255, nbytes, np.uint8)
        packer.begin(writer)
        inside = packer.empty((nbytes,), np.uint8)
        inside[:] = data
        wires = {"inside": packer.pack(inside), "copied": packer.pack(data)}
        packer.finish()
        got = merge([Part(reader, wires, nbytes)], 0, nbytes, BufferPool()).columns
        assert np.array_equal(got["inside"], data) and np.array_equal(got["copied"], data)
    writer.close()
    reader.close()


def test_batched_columns_must_be_of_one_form(slots):
    """Columns that depend on which rows came together can't be joined: the error says so and names the field."""
    parts = [hand_over(slots[w], {"padded": torch.zeros(2, 3 + w)}, 2) for w in range(2)]
    with pytest.raises(ss.TransformError, match="same form") as caught:
        merge(parts, 0, 4, BufferPool())
    assert caught.value.field == "padded"


def test_what_does_not_pickle_is_an_error(slots):
    """An object that can't leave the worker is a TransformError."""
    with pytest.raises(ss.TransformError, match="hand over"):
        hand_over(slots[0], {"f": [lambda: 0]}, 1)
    with pytest.raises(ss.TransformError, match="layout"):
        hand_over(slots[0], {"f": torch.eye(2).to_sparse()}, 2)


def test_arrays_are_not_pickled(slots):
    """Arrays inside arbitrary objects travel beside the pickle, each in its own place of the slot."""
    part = hand_over(slots[0], {"o": [{"image": np.ones((100, 100))}, {"image": torch.ones(50, 50)}]}, 2)
    pickled, *beside = part.wires["o"].arrays
    assert pickled.shape[0] < 1000 and [array.shape[0] for array in beside] == [80_000, 10_000]

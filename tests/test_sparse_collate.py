"""``sparse_collate``: index sets of a batch, expanded."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import shardstream as ss

SETS = st.lists(st.sets(st.integers(0, 19), max_size=12).map(list), min_size=1, max_size=12)


def twin(sets: list, dim: int, values: list | None = None) -> torch.Tensor:
    """The same one element at a time."""
    out = torch.zeros(len(sets), dim)
    for row, indices in enumerate(sets):
        for place, index in enumerate(indices):
            out[row, index] = 1 if values is None else values[row][place]
    return out


@given(sets=SETS)
@settings(max_examples=60, deadline=None)
def test_sets_expand_in_every_form(sets):
    """Dense, CSR, jagged and lists of indices hold the same sets, in whatever order they were given."""
    wanted = twin(sets, 20)
    samples = [(indices, row) for row, indices in enumerate(sets)]
    dense, targets = ss.sparse_collate(20)(samples)
    assert dense.dtype == torch.float32 and torch.equal(dense, wanted) and targets.tolist() == list(range(len(sets)))
    csr, _ = ss.sparse_collate(20, form="csr")(samples)
    assert csr.layout == torch.sparse_csr and torch.equal(csr.to_dense(), wanted)
    jagged, _ = ss.sparse_collate(20, form="jagged")(samples)
    bag = torch.nn.EmbeddingBag.from_pretrained(torch.eye(20), mode="sum", include_last_offset=True)
    assert torch.equal(bag(jagged.values, jagged.offsets), wanted)
    rows, _ = ss.sparse_collate(20, form="indices")(samples)
    assert [row.tolist() for row in rows] == [sorted(indices) for indices in sets]


@given(sets=SETS)
@settings(max_examples=40, deadline=None)
def test_values_move_with_their_index(sets):
    values = [[float(index) / 4 for index in indices] for indices in sets]
    samples = [((np.array(indices, np.int32), np.array(value)), 0) for indices, value in zip(sets, values)]
    dense, _ = ss.sparse_collate(20, dtype="float64")(samples)
    assert dense.dtype == torch.float64 and torch.equal(dense, twin(sets, 20, values).double())


def test_several_fields_of_dicts():
    """A dict of dimensions expands these fields and stacks the others."""
    collate = ss.sparse_collate({"words": 8, "pairs": 4})
    batch = collate([{"words": [1], "pairs": torch.tensor([3]), "y": 1, "name": "a"}, {"words": [], "pairs": torch.tensor([], dtype=torch.int64), "y": 0, "name": "b"}])
    assert batch["words"].tolist() == twin([[1], []], 8).tolist() and batch["pairs"].tolist() == [[0, 0, 0, 1], [0, 0, 0, 0]]
    assert batch["y"].tolist() == [1, 0] and batch["name"] == ["a", "b"]
    features, targets = collate([({"words": [7], "pairs": [0]}, 5)])
    assert features["words"][0, 7] == 1 and targets.tolist() == [5]


def test_it_takes_what_streams_deliver(tmp_path):
    """Samples of a stream or map-style dataset with ``sparse="indices"`` collate to what ``sparse="dense"`` gives."""
    with ss.ShardWriter(str(tmp_path), schema=ss.Schema(x=ss.Sparse(32), v=ss.Sparse(8, "float32"), y=ss.Dense("int64"))) as writer:
        for row in range(6):
            writer.write({"x": range(row), "v": ([row], [row / 2]), "y": row})
    (wanted,) = ss.ShardStream(str(tmp_path), batch_size=6)
    batch = ss.sparse_collate({"x": 32, "v": 8})(list(ss.ShardStream(str(tmp_path), sparse="indices")))
    assert all(torch.equal(batch[name], wanted[name]) for name in wanted)


def test_it_pickles():
    collate = pickle.loads(pickle.dumps(ss.sparse_collate(4)))
    assert collate([([1], 0)])[0].tolist() == [[0, 1, 0, 0]]


@pytest.mark.parametrize("samples, message, key", [
    ([([0], 0), ([4], 0)], r"outside \[0, 4\)", 1),
    ([([-1], 0)], r"outside \[0, 4\)", 0),
    ([([2**40], 0)], r"outside \[0, 4\)", 0),
    ([([0], 0), ([1, 1], 0)], "repeated", 1),
    ([([0.5], 0)], "1-D array of integers", 0),
    ([([[0]], 0)], "1-D array of integers", 0),
    ([(([0], [1.0]), 0), ([1], 0)], "some samples have values", 1),
    ([(([0, 1], [1.0]), 0)], "values for", 0),
    ([[0]], "must be", None),
    ([], "without samples", None),
    ([([0], 0), ([[1], [2, 3]], 0)], "neither indices nor values", 1),
    ([(([1], ["a"]), 0)], "values must be numbers", 0),
])  # fmt: skip
def test_what_is_no_set_is_named(samples, message, key):
    """The error says what is wrong, and the row of the batch."""
    with pytest.raises(ss.SampleError, match=message) as caught:
        ss.sparse_collate(4)(samples)
    assert caught.value.key == key


@pytest.mark.parametrize("other", [{"x": [1]}, {"x": [1], "y": 0, "z": 0}, 5])
def test_samples_of_other_fields_are_named(other):
    with pytest.raises(ss.SampleError, match="the batch's first") as caught:
        ss.sparse_collate({"x": 9})([{"x": [1], "y": 0}, other])
    assert caught.value.key == 1


def test_arguments_are_checked_at_once():
    with pytest.raises(ss.SchemaError, match="dim"):
        ss.sparse_collate(0)
    with pytest.raises(ss.ConfigError, match="form"):
        ss.sparse_collate(4, form="bits")
    with pytest.raises(ss.ConfigError, match="dtype"):
        ss.sparse_collate(4, dtype="nope")
    with pytest.raises(ss.ConfigError, match="names no field"):
        ss.sparse_collate({})
    with pytest.raises(ss.ConfigError, match="dict of field"):
        ss.sparse_collate(4)([{"x": [1]}])
    with pytest.raises(ss.SampleError) as caught:
        ss.sparse_collate({"x": 4})([{"z": [1]}])
    assert caught.value.field == "x"

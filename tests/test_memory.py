"""``MemoryDataset``: features transformed once, pairs by number."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import torch
from torch.utils.data import DataLoader

import shardstream as ss
from shardstream.collate import take_rows

JAGGED = ss.Jagged(torch.arange(6), torch.tensor([0, 1, 1, 6]), torch.arange(6) / 2)


def test_items_are_pairs_of_feature_and_target():
    ds = ss.MemoryDataset(np.arange(12).reshape(4, 3), [0, 1, 0, 1])
    assert len(ds) == 4 and ds[1][0].tolist() == [3, 4, 5] and ds[1][1] == 1
    assert ds[-1][0].tolist() == [9, 10, 11]
    features, targets = ds[1:3]
    assert features.tolist() == [[3, 4, 5], [6, 7, 8]] and targets == [1, 0]
    features, targets = ds[[3, 0]]
    assert features.tolist() == [[9, 10, 11], [0, 1, 2]] and targets == [1, 0]
    assert [target for _, target in ds.__getitems__([2, 3])] == [0, 1]


@pytest.mark.parametrize("features", [
    [[1], [], [5, 6]], np.arange(6).reshape(3, 2), torch.arange(6).reshape(3, 2), scipy.sparse.csr_matrix(np.eye(3)), JAGGED,
    {"a": np.arange(3), "b": [["x"], ["y"], ["z"]]},
], ids=["list", "array", "tensor", "scipy", "jagged", "dict"])  # fmt: skip
def test_containers_keep_their_kind(features):
    """A choice of rows stays in the container it came in, and has the rows that single items have."""
    ds = ss.MemoryDataset(features, torch.arange(3))
    chosen, targets = ds[[2, 0, 2]]
    assert type(chosen) is type(features) and targets.tolist() == [2, 0, 2]
    again = ss.MemoryDataset(chosen, targets)
    for place, row in enumerate([2, 0, 2]):
        assert str(again[place]) == str(ds[row]).replace(", grad_fn", "")
    assert len(ds[:0][1]) == 0 and type(ds[:0][0]) is type(features)


def test_features_are_transformed_once_at_construction():
    calls = []

    def square(feature):
        calls.append(feature)
        return feature * feature

    ds = ss.MemoryDataset([1, 2, 3], [0, 1, 0], transform=square)
    assert [ds[i][0] for i in (2, 2, 0)] == [9, 9, 1] and calls == [1, 2, 3]
    batched = ss.MemoryDataset(np.array([1, 2, 3]), [0, 1, 0], transform=ss.batched(lambda features: features**2))
    assert batched[:][0].tolist() == [1, 4, 9]


def test_a_stream_transform_serves_a_dict_of_columns():
    """With columns by name a transform gets a sample's dict, and may drop it with its target."""

    def transform(sample):
        return None if int(sample["n"]) == 2 else {"twice": sample["n"] * 2, "word": sample["word"]}

    ds = ss.MemoryDataset({"n": torch.tensor([1, 2, 3]), "word": ["a", "b", "c"]}, ["x", "y", "z"], transform=transform)
    assert len(ds) == 2 and ds[1][0]["twice"] == 6 and ds[1][0]["word"] == "c" and ds[1][1] == "z"
    assert len(ss.MemoryDataset([1, 2], [0, 0], transform=lambda feature: None)) == 0


def test_empty_and_unequal():
    assert len(ss.MemoryDataset([], [])) == 0
    with pytest.raises(ss.ConfigError, match="2 features and 1 targets"):
        ss.MemoryDataset([1, 2], [0])
    with pytest.raises(ss.ConfigError, match="differ"):
        ss.MemoryDataset({"a": [1], "b": [1, 2]}, [0])
    with pytest.raises(IndexError, match="outside the 2 rows"):
        ss.MemoryDataset([1, 2], [0, 1])[2]


@pytest.mark.parametrize("column", [5, None, {1, 2}, {}, np.array(5), (i for i in range(2))], ids=lambda column: type(column).__name__)
def test_what_has_no_rows_is_refused(column):
    with pytest.raises(ss.ConfigError, match="no rows to choose|differ in their number"):
        ss.MemoryDataset(column, [0, 1])
    with pytest.raises(ss.ConfigError, match="no rows to choose|differ in their number"):
        ss.MemoryDataset([0, 1], column)


class Labelled:
    """Values with labels of their own, in the way of a pandas Series."""

    class Positions:
        def __init__(self, series):
            self._series = series

        def __getitem__(self, rows):
            labels, values = self._series.labels, self._series.values
            return values[rows] if np.ndim(rows) == 0 else Labelled([values[row] for row in rows],
                                                                    [labels[row] for row in rows])  # fmt: skip

    def __init__(self, values, labels):
        self.values, self.labels, self.iloc = values, labels, Labelled.Positions(self)

    def __len__(self):
        return len(self.values)

    def __getitem__(self, label):
        return self.values[self.labels.index(label)]


def test_a_column_with_labels_is_taken_by_position():
    """Rows are numbers, whatever label a row has; a choice of rows is of the column's kind."""
    ds = ss.MemoryDataset(Labelled([10, 11, 12], [2, 1, 0]), [0, 1, 2], transform=None)
    assert [ds[number][0] for number in (0, 1, -1)] == [10, 11, 12]
    features, targets = ds[[2, 0]]
    assert type(features) is Labelled and features.values == [12, 10] and targets == [2, 0]
    assert ss.MemoryDataset(Labelled([1, 2], [1, 0]), [0, 1], transform=lambda value: value * 10)[0][0] == 10


def test_an_error_in_a_transform_names_the_row():
    with pytest.raises(ss.TransformError, match="ZeroDivisionError") as caught:
        ss.MemoryDataset([1, 0], [0, 1], transform=lambda feature: 1 / feature)
    assert caught.value.key == 1
    with pytest.raises(ss.TransformError, match="must return 2 features"):
        ss.MemoryDataset([1, 0], [0, 1], transform=ss.batched(lambda features: features[:1]))


def test_it_feeds_a_dataloader():
    ds = ss.MemoryDataset([[3, 17], [5], [17, 600]], [0, 1, 0])
    x, y = next(iter(DataLoader(ds, batch_size=3, collate_fn=ss.sparse_collate(1024))))
    assert x.shape == (3, 1024) and x.sum() == 5 and x[2, 600] == 1 and y.tolist() == [0, 1, 0]


@pytest.mark.parametrize("rows", [[], [0], [2, 2, 0, 1]])
def test_taking_rows_of_a_jagged_equals_doing_it_one_by_one(rows):
    taken = take_rows(JAGGED, np.array(rows, np.int64))
    bounds = JAGGED.offsets.tolist()
    for part, name in ((taken.values, "values"), (taken.weights, "weights")):
        wanted = [value for row in rows for value in getattr(JAGGED, name)[bounds[row] : bounds[row + 1]].tolist()]
        assert part.tolist() == wanted
    assert taken.offsets.tolist() == np.cumsum([0, *(bounds[row + 1] - bounds[row] for row in rows)]).tolist()


def test_a_placed_transform_is_refused():
    """Rows of a map-style dataset have no epoch and no position."""
    with pytest.raises(ss.ConfigError, match="@ss.placed"):
        ss.MemoryDataset([1], [0], transform=ss.placed(lambda feature, place: feature))

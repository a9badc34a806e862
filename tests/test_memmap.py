"""``MemmapWriter`` and ``MemmapDataset``: columns on the disk by row, complete parts or none."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

import shardstream as ss
from shardstream import upkeep
from shardstream.adopt import index_shards
from shardstream.memmap.layout import list_parts
from shardstream.verify import verify
from tests.tiers import SCHEMA, assert_is_sample, assert_same, samples

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[str, list[dict]]:
    """A dataset of several parts, written one by one, and its samples."""
    folder, rows = str(tmp_path_factory.mktemp("memmap") / "rows"), samples(1000)
    with ss.MemmapWriter(folder, SCHEMA, part_nbytes="20kB") as writer:
        for number, row in enumerate(rows):
            writer.write(row)
            if number % 300 == 299:
                writer._append()  # blocks are 1 MiB; the test's parts are smaller
    assert len(list_parts(folder)) > 2
    return folder, rows


def write(folder, rows: list[dict], **options) -> str:
    with ss.MemmapWriter(str(folder), SCHEMA, **options) as writer:
        for row in rows:
            writer.write(row)
    return str(folder)


def test_every_row_comes_back_by_its_number(written):
    """Single samples, from the front and from the end, are those that were written, in their order."""
    folder, rows = written
    ds = ss.MemmapDataset(folder, sparse="indices")
    assert len(ds) == len(rows)
    for number in [*range(0, 1000, 37), 999]:
        assert_is_sample(ds[number], rows[number])
        assert_is_sample(ds[number - 1000], rows[number])
    assert_is_sample(ds[torch.tensor(5)], rows[5])


@pytest.mark.parametrize("form", ["dense", "csr", "jagged", "indices"])
def test_batches_are_those_of_a_stream_over_the_same_rows(written, tmp_path, form):
    """Every form of every column is the one that ``ShardStream`` delivers, dtype for dtype."""
    folder, rows = written
    with ss.ShardWriter(str(tmp_path / "shards"), schema=SCHEMA) as writer:
        for row in rows[:64]:
            writer.write(row)
    (batch,) = ss.ShardStream(str(tmp_path / "shards"), batch_size=64, sparse=form)
    assert_same(ss.MemmapDataset(folder, sparse=form)[:64], batch)


@given(rows=st.lists(st.integers(-1000, 999), max_size=40))
@settings(max_examples=40, deadline=None)
def test_a_batch_is_its_samples_in_the_order_asked(written, rows):
    """``ds[rows]`` across parts, with repeats and negative numbers, has the rows that ``ds[i]`` gives one by one."""
    folder, _ = written
    ds = ss.MemmapDataset(folder, fields=["tokens", "y"])
    batch = ds[rows]
    assert batch["y"].tolist() == [row % 1000 for row in rows]
    assert [r.tolist() for r in torch.tensor_split(batch["tokens"].values, batch["tokens"].offsets[1:-1])][: len(rows)] == [
        ds[row]["tokens"].tolist() for row in rows]  # fmt: skip


def test_slices_arrays_and_tensors_choose_rows(written):
    ds = ss.MemmapDataset(written[0], fields=["y"])
    assert ds[990:]["y"].tolist() == list(range(990, 1000))
    assert ds[10:0:-3]["y"].tolist() == [10, 7, 4, 1]
    assert ds[np.array([3, 1], np.uint8)]["y"].tolist() == ds[torch.tensor([3, 1])]["y"].tolist() == ds[range(3, 0, -2)]["y"].tolist() == [3, 1]
    assert ds[[]]["y"].shape == (0,)


@pytest.mark.parametrize("rows", [1000, -1001, [0, 1000], [2**32], [2**63 - 1], [-(2**63)], 10**30, [0, -(10**30)]])
def test_rows_outside_are_an_index_error(written, rows):
    with pytest.raises(IndexError, match="outside the 1000 rows"):
        ss.MemmapDataset(written[0])[rows]


@pytest.mark.parametrize("rows", [1.0, "y", [0.5], [[1]], [True, False]])
def test_rows_of_another_type_are_a_type_error(written, rows):
    """A boolean mask is refused, since numpy would take it for a choice and torch for numbers."""
    with pytest.raises(TypeError):
        ss.MemmapDataset(written[0])[rows]


def test_a_dataloader_with_workers_sees_every_row_once(written):
    """The dataset pickles without its data, and each worker maps the files itself."""
    ds = ss.MemmapDataset(written[0], sparse="jagged")
    assert len(ds) and len(pickle.dumps(ds)) < 2000
    loader = DataLoader(ds, sampler=BatchSampler(RandomSampler(ds), 256, False), batch_size=None, num_workers=1)
    assert sorted(y for batch in loader for y in batch["y"].tolist()) == list(range(1000))


def test_a_plain_dataloader_collates_the_samples_of_a_batch(written):
    """``DataLoader(ds, batch_size=...)`` calls ``__getitems__`` and its own collate function."""
    ds = ss.MemmapDataset(written[0], fields=["img", "y"])
    (batch,) = DataLoader(ds, batch_size=1000)
    assert batch["y"].tolist() == list(range(1000)) and batch["img"].shape == (1000, 2, 3)


def test_transforms_of_rows_and_of_columns(written):
    folder, _ = written

    def halve(sample):
        return {"y": sample["y"] / 2}

    by_row = ss.MemmapDataset(folder, fields=["y"], transform=halve)
    by_column = ss.MemmapDataset(folder, fields=["y"], transform=ss.batched(lambda columns: {"y": columns["y"] / 2}))
    for ds in (by_row, by_column):
        assert ds[[3, 4]]["y"].tolist() == [1.5, 2.0] and float(ds[3]["y"]) == 1.5


@pytest.mark.parametrize("result", [None, 3])
def test_a_transform_cannot_drop_a_row(written, result):
    ds = ss.MemmapDataset(written[0], transform=lambda sample: result)
    with pytest.raises(ss.TransformError, match="can be dropped") as caught:
        ds[[5, 7]]
    assert caught.value.key == 5


def test_an_error_in_a_transform_names_the_row(written):
    with pytest.raises(ss.TransformError, match="ZeroDivisionError") as caught:
        ss.MemmapDataset(written[0], transform=lambda sample: 1 / 0)[:2]
    assert caught.value.key == 0


def test_nothing_of_an_unclean_end_is_shown(tmp_path, caplog):
    """An exception drops the unfinished part and says so; committed parts stay, and the next writer adds to them."""
    rows = samples(30)
    write(tmp_path, rows[:10])
    with pytest.raises(RuntimeError), ss.MemmapWriter(str(tmp_path), SCHEMA) as writer:
        writer.write(rows[10])
        raise RuntimeError
    assert "1 samples of the unfinished part were dropped" in caplog.text
    assert len(ss.MemmapDataset(str(tmp_path))) == 10 and sorted(os.listdir(tmp_path)) == [*list_parts(str(tmp_path)), "schema.json"]
    write(tmp_path, rows[10:])
    ds = ss.MemmapDataset(str(tmp_path), sparse="indices")
    assert_is_sample(ds[29], rows[29])


def test_a_sample_that_does_not_fit_changes_nothing(tmp_path):
    rows = samples(3)
    with ss.MemmapWriter(str(tmp_path), SCHEMA) as writer:
        writer.write(rows[0])
        with pytest.raises(ss.SampleError):
            writer.write({**rows[1], "y": "no number"})
        writer.write(rows[2])
    assert ss.MemmapDataset(str(tmp_path), fields=["y"])[:]["y"].tolist() == [0, 2]


def test_arrays_may_be_used_again_after_write_batch(tmp_path):
    """What waits in the writer is a copy."""
    y = np.zeros(4, np.int64)
    with ss.MemmapWriter(str(tmp_path), ss.Schema(y=ss.Dense("int64"))) as writer:
        for number in range(3):
            y[:] = number
            writer.write_batch({"y": y})
    assert ss.MemmapDataset(str(tmp_path))[:]["y"].tolist() == [0] * 4 + [1] * 4 + [2] * 4


KILLED = """
import sys, numpy as np, shardstream as ss
with ss.MemmapWriter(sys.argv[1], ss.Schema(y=ss.Dense("int64"), t=ss.Ragged("int64")), part_nbytes="200kB") as writer:
    for n in range(10**9):
        writer.write_batch({"y": np.arange(n * 1000, n * 1000 + 1000), "t": (np.arange(1000), np.arange(1001))})
        print(writer.num_samples_committed, flush=True)
"""


def test_a_killed_writer_leaves_whole_parts(tmp_path):
    """SIGKILL at any moment: what is there is a prefix of what was written, and the next writer removes the rest."""
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE,
                               text=True)  # fmt: skip
    committed = 0
    while committed < 40_000:
        committed = int(process.stdout.readline())
    time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    committed = max([committed, *(int(line) for line in process.stdout.read().split())])
    process.wait()
    ds = ss.MemmapDataset(str(tmp_path))
    assert len(ds) >= committed and ds[:]["y"].tolist() == list(range(len(ds)))
    assert ds[len(ds) - 1]["t"].tolist() == [999]
    with ss.MemmapWriter(str(tmp_path), ss.Schema(y=ss.Dense("int64"), t=ss.Ragged("int64"))) as writer:
        writer.write({"y": len(ds), "t": [1, 2]})
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]
    assert ss.MemmapDataset(str(tmp_path))[-1]["t"].tolist() == [1, 2]


def test_a_writer_at_work_is_left_alone_by_others(tmp_path):
    """An unfinished part is removed only if nobody holds its lock."""
    schema = ss.Schema(y=ss.Dense("int64"))
    first = ss.MemmapWriter(str(tmp_path), schema)
    first.write({"y": 1})
    first._append()
    with ss.MemmapWriter(str(tmp_path), schema) as second:
        second.write({"y": 2})
    first.close()
    assert sorted(ss.MemmapDataset(str(tmp_path))[:]["y"].tolist()) == [1, 2]


def test_another_schema_is_refused(tmp_path):
    write(tmp_path, samples(1))
    with pytest.raises(ss.SchemaError, match="has the schema"):
        ss.MemmapWriter(str(tmp_path), ss.Schema(y=ss.Dense("int32")))


@pytest.mark.parametrize("options, message", [
    ({"fields": "y"}, "not a list of names"), ({"fields": 5}, "not a list of names"), ({"sparse": 5}, "neither one of"),
    ({"dtypes": "float32"}, "not a dict of field"),
], ids=str)  # fmt: skip
def test_arguments_of_another_kind_are_refused(written, options, message):
    with pytest.raises(ss.ConfigError, match=message):
        ss.MemmapDataset(written[0], **options)[0]


def test_folders_that_cannot_be_are_refused(tmp_path):
    """No folder can be made there, or what should be a file is a folder: an error of ours, not the system's alone."""
    (tmp_path / "file").write_text("")
    (tmp_path / "odd/schema.json").mkdir(parents=True)
    for place in ("file", "file/below"):
        with pytest.raises(ss.StorageError, match="can't be written to"):
            ss.MemmapWriter(str(tmp_path / place), SCHEMA)
    with pytest.raises(ss.DatasetError, match="can't be read"):
        ss.MemmapDataset(str(tmp_path / "odd"))[0]
    with pytest.raises(ss.DatasetNotFoundError):
        _ = ss.MemmapDataset(str(tmp_path / "nowhere")).num_parts


def test_missing_empty_and_remote_folders(tmp_path):
    with pytest.raises(ss.DatasetNotFoundError, match="no schema.json"):
        len(ss.MemmapDataset(str(tmp_path / "none")))
    write(tmp_path / "empty", [])
    with pytest.raises(ss.EmptyDatasetError):
        len(ss.MemmapDataset(str(tmp_path / "empty")))
    with pytest.raises(ss.ConfigError, match="not a local folder"):
        ss.MemmapWriter("s3://bucket/rows", SCHEMA)
    with pytest.raises(ss.ConfigError, match="the dataset has"):
        len(ss.MemmapDataset(write(tmp_path / "one", samples(1)), fields=["nope"]))


def damaged(folder: Path, name: str, change) -> str:
    """Write two rows, and change the bytes of one file of their part."""
    (part,) = list_parts(write(folder, samples(12)))
    path = folder / part / name
    data = bytearray(path.read_bytes())
    path.write_bytes(bytes(change(data)))
    return str(folder)


def last_offset(value: int):
    def change(data: bytearray) -> bytearray:
        data[-16:-8] = value.to_bytes(8, "little", signed=True)
        return data

    return change


@pytest.mark.parametrize("name, change, error", [
    ("y.npy", lambda data: data[:-1], "can't be mapped"),
    ("y.npy", lambda data: b"", "can't be mapped"),
    ("y.npy", lambda data: data[:10], "can't be mapped"),
    ("y.npy", lambda data: data.replace(b"<i8", b"<u8"), "not int64"),
    ("y.npy", lambda data: data.replace(b"(12,)", b"(11,)"), "not int64"),
    ("tokens.offsets.npy", last_offset(-1), "never descend"),
    ("tokens.offsets.npy", last_offset(2**62), "never descend"),
    ("x.indptr.npy", last_offset(10**6), "never descend"),
    ("part.json", lambda data: data.replace(b'"num_samples":12', b'"num_samples":13'), "x.indptr.npy holds 13 elements, not 14"),
    ("part.json", lambda data: data.replace(b'"num_samples":12', b'"num_samples":-1'), "does not describe"),
    ("part.json", lambda data: data.replace(b'"format":1', b'"format":2'), "upgrade"),
    ("part.json", lambda data: b"[" * 10**5, "not what its format says"),
])  # fmt: skip
def test_damaged_files_are_named(tmp_path, name, change, error):
    """A part that is not what its record and the schema say is an error that names a file of it."""
    folder = damaged(tmp_path / "d", name, change)
    with pytest.raises(ss.DatasetError, match=error) as caught:
        ss.MemmapDataset(folder)[:]
    assert folder in str(caught.value)


@pytest.mark.parametrize("form", ["dense", "csr", "jagged", "indices"])
def test_an_index_beyond_dim_is_found_when_it_is_read(tmp_path, form):
    """Whatever the form, no tensor with an index outside its dimension comes out."""
    folder = damaged(tmp_path / "d", "x.indices.npy", lambda data: data[:-4] + b"\xff\xff\xff\xff")
    with pytest.raises(ss.ShardstreamError, match="dim"):
        ss.MemmapDataset(folder, fields=["x"], sparse=form)[:]


def test_numpy_alone_reads_the_files(written):
    """A part is plain .npy files and JSON: no shardstream is needed to read one."""
    folder, rows = written
    part = Path(folder) / list_parts(folder)[0]
    offsets, values = np.load(part / "tokens.offsets.npy"), np.load(part / "tokens.values.npy")
    assert values[offsets[6] : offsets[7]].tolist() == rows[6]["tokens"].tolist()
    assert json.loads((part / "part.json").read_text())["num_samples"] == len(np.load(part / "y.npy"))


def test_dask_sees_the_virtual_concatenation(written):
    """``as_dask()`` is all rows of every part in one array, with offsets of the whole, and reads nothing by itself."""
    folder, rows = written
    arrays = ss.MemmapDataset(folder).as_dask()
    assert len(arrays["img"].chunks[0]) == len(list_parts(folder))
    y, offsets, values = arrays["y"].compute(), arrays["tokens.offsets"].compute(), arrays["tokens.values"].compute()
    assert y.tolist() == list(range(1000)) and len(offsets) == 1001 and offsets[-1] == len(values)
    for number in (0, 6, 500, 999):
        assert values[offsets[number] : offsets[number + 1]].tolist() == rows[number]["tokens"].tolist()
    assert arrays["img"][[3, 999]].compute().tolist() == [rows[3]["img"].tolist(), rows[999]["img"].tolist()]
    assert list(ss.MemmapDataset(folder, fields=["y"]).as_dask()) == ["y"]
    assert len(pickle.dumps(arrays["img"])) < 20_000


def test_a_placed_transform_is_refused(written):
    """Rows of a map-style dataset have no epoch and no position."""
    with pytest.raises(ss.ConfigError, match="@ss.placed"):
        ss.MemmapDataset(written[0], transform=ss.placed(lambda sample, place: sample))


@pytest.mark.parametrize("row", [True, np.True_, np.array(True), torch.tensor(True)])
def test_a_bool_is_no_row_number(written, row):
    """Whose ever it is: what looks like a mask of one row is not the first or second row."""
    for dataset in (ss.MemmapDataset(written[0]), ss.MemoryDataset(np.arange(5), np.arange(5))):
        with pytest.raises(TypeError, match="not 0-D of bool"):
            dataset[row]


def test_integers_of_any_kind_choose_a_row():
    """numpy's and torch's, also without axes, and Python's in an array of objects."""
    dataset = ss.MemoryDataset(np.arange(5), np.arange(5))
    assert [dataset[row][0] for row in (2, np.int8(2), np.uint64(2), np.array(2), torch.tensor(2))] == [2] * 5
    assert dataset[np.array([1, -1], object)][0].tolist() == [1, 4]
    with pytest.raises(IndexError, match=f"row {2**70}"):
        dataset[np.array([1, 2**70], object)]


@pytest.mark.parametrize("place", [None, 5, "", b"x", ["a"]])
def test_what_is_no_place_is_refused_at_construction(place):
    """A place must be a text or a path, of a folder one of this machine."""
    schema = ss.Schema(y=ss.Dense("int64"))
    for opens in (ss.ShardDataset, ss.MemmapDataset, lambda place: ss.MemmapWriter(place, schema)):
        with pytest.raises(ss.ConfigError, match="must be a non-empty text or path"):
            opens(place)
    with pytest.raises(ss.ConfigError, match="not a local folder"):
        ss.MemmapDataset("s3://bucket/words")


def test_mapped_columns_are_no_shards(written):
    """What reads shards or a log says what stands there instead."""
    for read in (verify, lambda url: next(iter(ss.ShardStream(url))), lambda url: next(iter(ss.ShardStream([url]))), ss.Dataset, upkeep.gc,
                 upkeep.compact, index_shards, lambda url: next(iter(ss.ShardStream(url, follow=True)))):  # fmt: skip
        with pytest.raises(ss.DatasetNotFoundError, match="memory-mapped columns.*MemmapDataset reads them.*shardstream convert"):
            read(written[0])

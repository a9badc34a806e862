"""What writers promise: everything or nothing becomes visible, and bad samples are named at the call."""

import errno
import json
import tarfile
import threading
import time

import numpy as np
import pytest

import shardstream as ss
from shardstream.shardfile import ShardFile

SCHEMA = ss.Schema(x=ss.Sparse(100), w=ss.Sparse(50, "float32"), tokens=ss.Ragged("uint16"), img=ss.Dense("uint8", (2, 3)),
                   text=ss.Text(), raw=ss.Bytes(), y=ss.Dense("int64"))  # fmt: skip


def sample(i: int) -> dict:
    return {"x": [i % 100, (i + 7) % 100], "w": ([3, i % 3], [0.5, 1.5]), "tokens": np.arange(i % 5, dtype=np.uint16),
            "img": np.full((2, 3), i % 256, np.uint8), "text": f"Nr. {i} ⊂", "raw": bytes([i % 256]) * (i % 4), "y": i}  # fmt: skip


def ys(url, **options) -> list[int]:
    return [int(one["y"]) for one in ss.ShardStream(str(url), **options)]


def test_what_is_written_is_read(tmp_path):
    """Every kind of field comes back as it was written, sample by sample."""
    with ss.ShardWriter(str(tmp_path / "d"), schema=SCHEMA) as writer:
        for i in range(300):
            writer.write(sample(i))
    for i, got in enumerate(ss.ShardStream(str(tmp_path / "d"), sparse="indices")):
        wrote = sample(i)
        assert got["x"].tolist() == sorted(wrote["x"]) and got["text"] == wrote["text"] and got["raw"] == wrote["raw"]
        pairs = sorted(zip(*wrote["w"], strict=True))
        assert list(zip(got["w"][0].tolist(), got["w"][1].tolist(), strict=True)) == pairs
        assert got["tokens"].tolist() == wrote["tokens"].tolist() and got["y"] == i
        assert np.array_equal(got["img"].numpy(), wrote["img"])
    assert i == 299


def test_batches_and_samples_write_the_same_shard(tmp_path):
    """write_batch of many rows and write of each give the same members, byte for byte."""
    rows = [sample(i) for i in range(10_000)]
    with ss.ShardWriter(str(tmp_path / "a"), schema=SCHEMA) as writer:
        for row in rows:
            writer.write(row)
    with ss.ShardWriter(str(tmp_path / "b"), schema=SCHEMA) as writer:
        for begin in range(0, len(rows), 777):
            part = rows[begin : begin + 777]
            indptr = np.arange(len(part) + 1) * 2
            writer.write_batch({
                "x": (np.concatenate([r["x"] for r in part]), indptr),
                "w": (np.concatenate([r["w"][0] for r in part]), indptr, np.concatenate([r["w"][1] for r in part])),
                "tokens": (np.concatenate([r["tokens"] for r in part]), np.cumsum([0, *(len(r["tokens"]) for r in part)])),
                "img": np.stack([r["img"] for r in part]), "text": [r["text"] for r in part], "raw": [r["raw"] for r in part],
                "y": np.array([r["y"] for r in part]),
            })  # fmt: skip
    contents = []
    for folder in "ab":
        [path] = (tmp_path / folder).glob("*.tar")
        with tarfile.open(path) as tar:
            contents.append({m.name: tar.extractfile(m).read() for m in tar if not m.name.startswith("__")})
    assert contents[0] == contents[1] and len(contents[0]) > 9


@pytest.mark.parametrize("change, field", [
    ({"y": "one"}, "y"), ({"y": 1.5}, "y"), ({"y": 2**63}, "y"), ({"y": [1, 2]}, "y"),
    ({"img": np.zeros((3, 2), np.uint8)}, "img"), ({"img": np.full((2, 3), 256)}, "img"), ({"img": np.full((2, 3), -1)}, "img"),
    ({"x": [5, 5]}, "x"), ({"x": [100]}, "x"), ({"x": [-1]}, "x"), ({"x": [[1]]}, "x"), ({"x": 3}, "x"), ({"x": [0.5]}, "x"),
    ({"w": [1, 2]}, "w"), ({"w": ([1, 2], [1.0])}, "w"), ({"w": ([4, 4], [1.0, 2.0])}, "w"),
    ({"tokens": [70_000]}, "tokens"), ({"tokens": [[1]]}, "tokens"),
    ({"text": b"bytes"}, "text"), ({"text": "\ud800"}, "text"), ({"raw": "str"}, "raw"), ({"extra": 1}, "extra"),
])  # fmt: skip
def test_bad_samples_are_named_and_not_written(tmp_path, change, field):
    """A sample that does not fit is a SampleError that names the field; the samples around it are written."""
    with ss.ShardWriter(str(tmp_path / "d"), schema=SCHEMA) as writer:
        writer.write(sample(1))
        with pytest.raises(ss.SampleError) as caught:
            writer.write({**sample(2), **change})
        assert caught.value.field == field
        writer.write(sample(3))
    assert ys(tmp_path / "d") == [1, 3]


def test_missing_field_is_named(tmp_path):
    """A sample without one of the fields is a SampleError that names it."""
    with ss.ShardWriter(str(tmp_path / "d"), schema=SCHEMA) as writer:
        writer.write(sample(0))
        with pytest.raises(ss.SampleError, match="missing.*tokens"):
            writer.write({name: value for name, value in sample(1).items() if name != "tokens"})


def test_bad_rows_of_a_batch_are_named(tmp_path):
    """In write_batch the error names the row within the call, and nothing of the call is written."""
    schema = ss.Schema(x=ss.Sparse(10), t=ss.Text())
    with ss.ShardWriter(str(tmp_path / "d"), schema=schema) as writer:
        writer.write({"x": [1], "t": "a"})
        with pytest.raises(ss.SampleError) as caught:
            writer.write_batch({"x": (np.array([1, 2, 3, 3]), np.array([0, 1, 2, 4])), "t": ["a", "b", "c"]})
        assert caught.value.field == "x" and caught.value.key == 2
        with pytest.raises(ss.SampleError, match="number of samples"):
            writer.write_batch({"x": (np.array([1]), np.array([0, 1])), "t": ["a", "b"]})
        with pytest.raises(ss.SampleError, match="inside a UTF-8 character"):
            data = np.frombuffer("é".encode(), np.uint8)
            writer.write_batch({"x": (np.array([1, 2]), np.array([0, 1, 2])), "t": (data, np.array([0, 1, 2]))})
    assert ss.Dataset(str(tmp_path / "d")).num_samples == 1


def test_unsorted_indices_are_sorted(tmp_path):
    """Indices in any order are stored ascending, with their values."""
    with ss.ShardWriter(str(tmp_path / "d"), schema=ss.Schema(w=ss.Sparse(2**32, "float32"))) as writer:
        writer.write({"w": ([2**32 - 1, 0, 17], [3.0, 1.0, 2.0])})
    [got] = ss.ShardStream(str(tmp_path / "d"), sparse="indices")
    assert got["w"][0].tolist() == [0, 17, 2**32 - 1] and got["w"][1].tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt()])
def test_an_exception_publishes_nothing(tmp_path, caplog, error):
    """An exception inside the block (Ctrl-C too) leaves no entry, no shard and no temporary file, and says so."""
    with pytest.raises(type(error)):
        with ss.ShardWriter(str(tmp_path / "d"), schema=ss.Schema(y=ss.Dense("int64")), shard_nbytes="50kB") as writer:
            writer.write_batch({"y": np.arange(100_000)})
            raise error
    assert "nothing was committed, 100000 samples dropped" in caplog.text
    assert not [path for path in (tmp_path / "d").rglob("*") if path.is_file()]
    with pytest.raises(ss.DatasetNotFoundError):
        ss.Dataset(str(tmp_path / "d"))


def test_arrays_may_be_used_again_after_the_call(tmp_path):
    """What was written is what stood in the arrays (and the source) at the call, whatever the caller does to them
    after.
    """
    array, values, data, source = np.zeros((2, 3), np.uint8), np.zeros(4, np.uint16), bytearray(2), {"at": 0}
    schema = ss.Schema(img=SCHEMA["img"], tokens=SCHEMA["tokens"], raw=SCHEMA["raw"])
    with ss.ShardWriter(str(tmp_path / "d"), schema=schema, producer="p") as writer:
        for i in range(4):
            array[:], values[:], data[:], source["at"] = i, i, bytes([i, i]), i
            writer.write({"img": array, "tokens": values, "raw": data}, source)
        batch = {"img": np.full((1, 2, 3), 4, np.uint8), "tokens": (np.full(4, 4, np.uint16), [0, 4]),
                 "raw": (np.full(2, 4, np.uint8), np.array([0, 2]))}  # fmt: skip
        writer.write_batch(batch, source)
        batch["img"][:], batch["tokens"][0][:], batch["raw"][0][:], source["at"] = 9, 9, 9, 9
    for i, got in enumerate(ss.ShardStream(str(tmp_path / "d"))):
        assert (got["img"] == i).all() and got["tokens"].tolist() == [i] * 4 and got["raw"] == bytes([i, i])
    assert ss.ShardWriter.last_source(str(tmp_path / "d"), "p") == {"at": 3}


@pytest.mark.parametrize("when", ["write", "close"])
def test_a_full_disk_is_the_writers_end(tmp_path, monkeypatch, when):
    """After a failure in the middle of a shard nothing more is taken or committed, whatever the caller catches."""
    write, num_written = ShardFile._write, 0

    def fail_once(self, data):
        nonlocal num_written
        num_written += 1
        if num_written == 8:
            self._file.write(data[:1])
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, data)

    monkeypatch.setattr(ShardFile, "_write", fail_once)
    writer = ss.ShardWriter(str(tmp_path / "d"), schema=ss.Schema(y=ss.Dense("int64")))
    rows = {"y": np.arange(8192 if when == "write" else 10)}
    with pytest.raises(ss.StorageError, match="No space left"):
        for _ in range(3):
            writer.write_batch(rows)
        writer.close()
    if when == "write":
        for attempt in (lambda: writer.write({"y": 1}), writer.close):
            with pytest.raises(ss.StorageError, match="can't go on"):
                attempt()
    assert not [path for path in (tmp_path / "d").rglob("*") if path.is_file()]


@pytest.mark.parametrize("source", [float("nan"), b"bytes", {1, 2}, "x" * 2000])
def test_a_source_that_is_no_json_is_refused_at_the_call(tmp_path, source):
    """A source that the log could not give back is a SampleError of the call, before its rows are taken."""
    with ss.ShardWriter(str(tmp_path / "d"), schema=ss.Schema(y=ss.Dense("int64")), producer="p") as writer:
        with pytest.raises(ss.SampleError, match="source"):
            writer.write({"y": 1}, source)
        writer.write({"y": 2}, "fine")
    assert ys(tmp_path / "d") == [2]


def test_an_empty_dataset_is_an_error(tmp_path):
    """A writer that got no samples says so at the close and creates nothing."""
    with pytest.raises(ss.EmptyDatasetError):
        ss.ShardWriter(str(tmp_path / "d"), schema=SCHEMA).close()
    assert not list(tmp_path.rglob("*.json"))


def test_all_shards_commit_in_one_entry(tmp_path):
    """Without producer= and max_latency= a job is one append entry, after many shards."""
    with ss.ShardWriter(str(tmp_path / "d"), schema=ss.Schema(y=ss.Dense("int64")), shard_nbytes="100kB") as writer:
        for begin in range(0, 200_000, 1000):
            writer.write_batch({"y": np.arange(begin, begin + 1000)})
        assert not (tmp_path / "d" / "_log").exists()
    entries = sorted((tmp_path / "d" / "_log").glob("*.json"))
    assert len(entries) == 2 and len(json.loads(entries[1].read_text())["add"]) > 10
    assert ys(tmp_path / "d") == list(range(200_000))


def test_appending_keeps_what_is_there(tmp_path):
    """A second writer adds a version; another schema is refused before anything is written."""
    for begin in (0, 10):
        with ss.ShardWriter(str(tmp_path / "d"), schema=ss.Schema(y=ss.Dense("int64"))) as writer:
            writer.write_batch({"y": np.arange(begin, begin + 10)})
    assert ys(tmp_path / "d") == list(range(20))
    assert ys(tmp_path / "d", version=1) == list(range(10))
    with pytest.raises(ss.SchemaError):
        ss.ShardWriter(str(tmp_path / "d"), schema=ss.Schema(y=ss.Dense("int32")))


def test_producer_commits_each_full_shard_with_its_source(tmp_path):
    """With producer= each full shard is visible at once; a restart goes on from last_source."""
    url, schema = str(tmp_path / "d"), ss.Schema(y=ss.Dense("int64"))
    writer = ss.ShardWriter(url, schema=schema, producer="p", shard_nbytes="20kB")
    assert writer.last_source is None
    for i in range(0, 40_000, 1000):
        writer.write_batch({"y": np.arange(i, i + 1000)}, source={"next": i + 1000})
    writer._uploads.wait()
    committed = ss.ShardWriter.last_source(url, "p")["next"]
    assert 0 < committed < 40_000 and ys(url) == list(range(committed))
    successor = ss.ShardWriter(url, schema=schema, producer="p")
    assert successor.last_source == {"next": committed}
    with pytest.raises(ss.ProducerFenced):
        writer.close()
    successor.write_batch({"y": np.arange(committed, 40_000)}, source={"next": 40_000})
    successor.close()
    assert ys(url) == list(range(40_000))


def test_max_latency_commits_while_idle(tmp_path):
    """A sample becomes visible within max_latency although the caller does nothing more."""
    url = str(tmp_path / "d")
    with ss.ShardWriter(url, schema=ss.Schema(y=ss.Dense("int64")), max_latency="50ms") as writer:
        writer.write({"y": 7})
        for _ in range(400):
            time.sleep(0.02)
            if ss.Dataset(url).num_samples:
                break
        assert ys(url) == [7]
        writer.write({"y": 8})
    assert ys(url) == [7, 8]


def test_rows_of_one_call_commit_together(tmp_path):
    """Whatever the shard size, no version shows part of a write_batch call."""
    url = str(tmp_path / "d")
    with ss.ShardWriter(url, schema=ss.Schema(y=ss.Dense("int64")), producer="p", shard_nbytes="100kB") as writer:
        for call in range(8):
            writer.write_batch({"y": np.full(13_000, call)}, source=call)
    for version in range(ss.Dataset(url).version + 1):
        assert ss.Dataset(url, version=version).num_samples % 13_000 == 0


def test_a_failing_store_is_raised_at_the_next_call(tmp_path, monkeypatch):
    """An error of the uploading thread reaches the caller, typed, and nothing is committed."""
    writer = ss.ShardWriter(str(tmp_path / "d"), schema=ss.Schema(y=ss.Dense("int64")), shard_nbytes="10kB")

    def fail(name, path):
        raise OSError("disk on fire")

    monkeypatch.setattr(writer._store, "put_file", fail)
    with pytest.raises(ss.StorageError, match="disk on fire"), writer:
        for _ in range(100):
            writer.write_batch({"y": np.arange(10_000)})
    assert not (tmp_path / "d" / "_log").exists()
    assert not [thread for thread in threading.enumerate() if thread.name == "shardstream-upload"]
    assert not [path for path in (tmp_path / "d").rglob("*") if path.is_file()]


@pytest.mark.parametrize("key", ["a.b", "", "../a", "/a", "__x__/a", "d/.x"])
def test_files_layout_refuses_bad_keys(tmp_path, key):
    """Keys that would not come back as the same key are SampleErrors at the call."""
    with ss.ShardWriter(str(tmp_path / "d")) as writer:
        writer.write({"__key__": "ok", "cls": 1})
        with pytest.raises(ss.SampleError):
            writer.write({"__key__": key, "cls": 1})


def test_files_layout_refuses_a_repeated_key(tmp_path):
    """The same key twice in a shard is refused: readers could not tell the samples apart."""
    with ss.ShardWriter(str(tmp_path / "d")) as writer:
        writer.write({"__key__": "a", "cls": 1})
        with pytest.raises(ss.SampleError, match="before"):
            writer.write({"__key__": "a", "cls": 2})


def test_compressed_datasets_read_the_same(tmp_path):
    """compression="zstd" changes the bytes and nothing else."""
    for compression in (None, "zstd"):
        with ss.ShardWriter(str(tmp_path / str(compression)), schema=SCHEMA, compression=compression) as writer:
            for i in range(2000):
                writer.write(sample(i))
    plain, small = (list(ss.ShardStream(str(tmp_path / name), fields=["tokens", "text", "img"])) for name in ("None", "zstd"))
    assert all(a["text"] == b["text"] and a["tokens"].tolist() == b["tokens"].tolist() for a, b in zip(plain, small, strict=True))
    assert ss.Dataset(str(tmp_path / "zstd")).nbytes < 0.7 * ss.Dataset(str(tmp_path / "None")).nbytes


@pytest.mark.parametrize("name", ["x.tar", "a*", "b?", "c{0..3}", "d[1]", "e.tar.gz"])
def test_urls_that_readers_take_for_shards_are_refused(tmp_path, name):
    """What could be written but never be opened as a dataset is refused before anything is written."""
    with pytest.raises(ss.ConfigError, match="read as shards"):
        ss.ShardWriter(str(tmp_path / name), schema=SCHEMA)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("field, element", [(ss.Bytes(), b"\0"), (ss.Ragged("uint16"), np.zeros(1, "uint16"))])
def test_a_sample_too_large_to_decompress_is_refused_at_the_write(tmp_path, monkeypatch, field, element):
    """What readers would refuse (2 GiB in one zstd member, here 10 MB) is an error at write(); what is just below reads
    back.
    """
    monkeypatch.setattr("shardstream.codecs.columns.MAX_MEMBER_NBYTES", 10_000_000)
    repeated = (lambda count: element * count) if isinstance(element, bytes) else (lambda count: np.zeros(count // 2, "uint16"))
    with ss.ShardWriter(str(tmp_path / "d"), schema=ss.Schema(a=field), compression="zstd") as writer:
        with pytest.raises(ss.SampleError, match="can be read back.*field a"):
            writer.write({"a": repeated(8_000_000)})
        writer.write({"a": repeated(1_040_000)})  # stays in the block that the next one closes
        writer.write({"a": repeated(7_900_000)})
    assert len(list(ss.ShardStream(str(tmp_path / "d")))) == 2


def test_rows_too_large_to_decompress_are_refused_whatever_their_number(tmp_path, monkeypatch):
    """A dense field whose rows are all too large takes none; uncompressed there is no such limit."""
    monkeypatch.setattr("shardstream.codecs.columns.MAX_MEMBER_NBYTES", 4_000_000)
    schema, batch = ss.Schema(a=ss.Dense("uint8", (2_000_000,))), {"a": np.zeros((2, 2_000_000), "uint8")}
    with pytest.raises(ss.SampleError, match="can be read back"), ss.ShardWriter(str(tmp_path / "d"), schema, compression="zstd") as writer:
        writer.write_batch(batch)
    with ss.ShardWriter(str(tmp_path / "d"), schema) as writer:
        writer.write_batch(batch)
    assert len(list(ss.ShardStream(str(tmp_path / "d")))) == 2

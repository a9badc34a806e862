"""Both directions with the real webdataset package: it reads our shards, we read its."""

import importlib.util
import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset as wds

import shardstream as ss

EXAMPLE = Path(__file__).parents[1] / "examples" / "webdataset_unbatch.py"
SCHEMA = ss.Schema(x=ss.Sparse(100), w=ss.Sparse(100, "float32"), t=ss.Ragged("uint16"), s=ss.Text(), b=ss.Bytes(),
                   y=ss.Dense("int64"))  # fmt: skip


def unbatch(schema):
    spec = importlib.util.spec_from_file_location("webdataset_unbatch", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.unbatch(schema)


def test_webdataset_reads_our_files_layout(tmp_path):
    """Plain webdataset gives the samples of our files layout, decoded, and sees nothing of our own members."""
    rows = [{"__key__": f"d.x/{i:04d}", "cls": i, "txt": f"⊂{i}", "json": {"i": i}, "npy": np.arange(i % 5), "bin": bytes([i % 256])}
            for i in range(200)]  # fmt: skip
    with ss.ShardWriter(str(tmp_path / "d"), shard_nbytes="100kB") as writer:
        for row in rows:
            writer.write(row)
    urls = ss.Dataset(str(tmp_path / "d")).shards
    got = list(wds.WebDataset(urls, shardshuffle=False, empty_check=False).decode())
    assert len(urls) > 1 and len(got) == 200
    for row, sample in zip(rows, got, strict=True):
        assert {name for name in sample if name not in ("__url__", "__local_path__")} == set(row)
        assert sample["cls"] == row["cls"] and sample["txt"] == row["txt"] and sample["json"] == row["json"]
        assert np.array_equal(sample["npy"], row["npy"]) and sample["bin"] == row["bin"]


def test_webdataset_reads_our_blocks(tmp_path):
    """Through the documented stage webdataset gives the rows of a blocks-layout dataset."""
    with ss.ShardWriter(str(tmp_path / "d"), schema=SCHEMA, shard_nbytes="50kB") as writer:
        for i in range(3000):
            writer.write({"x": [i % 100], "w": ([i % 100, 5 + i % 90], [1.0, 2.0]) if i % 100 != 5 + i % 90 else ([1], [1.0]),
                          "t": np.arange(i % 4), "s": f"⊂{i}", "b": b"\xff" * (i % 3), "y": i})  # fmt: skip
    dataset = ss.Dataset(str(tmp_path / "d"))
    rows = list(wds.DataPipeline(wds.SimpleShardList(dataset.shards), wds.tarfile_to_samples(), unbatch(dataset.schema)))
    assert len(dataset.shards) > 1 and [int(row["y"]) for row in rows] == list(range(3000))
    for i, row in enumerate(rows):
        assert row["x"].tolist() == [i % 100] and row["t"].tolist() == list(range(i % 4))
        assert row["s"] == f"⊂{i}" and row["b"] == b"\xff" * (i % 3)
    decoded = next(iter(wds.WebDataset(dataset.shards, shardshuffle=False).decode()))
    assert decoded["y.npy"][:3].tolist() == [0, 1, 2] and isinstance(decoded["x.sparse"], bytes)
    assert not [name for name in decoded if "shardstream" in name]


def write_wds(pattern, num_samples):
    with wds.ShardWriter(pattern, maxcount=100, verbose=0) as sink:
        for i in range(num_samples):
            sink.write({"__key__": f"{i:06d}", "cls": i, "txt": f"text {i}", "npy": np.full(3, i), "json": [i], "jpg.gz": b"\1\2"})


def test_we_read_webdatasets_shards(tmp_path, monkeypatch):
    """Shards of wds.ShardWriter, given in every way, stream with webdataset's own values, shuffled and resumable."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_wds(str(tmp_path / "s-%03d.tar"), 350)
    urls = sorted(str(path) for path in tmp_path.glob("*.tar"))
    theirs = list(wds.WebDataset(urls, shardshuffle=False).decode())
    for given in (urls, str(tmp_path / "s-{000..003}.tar"), str(tmp_path / "*.tar"), str(tmp_path)):
        ours = list(ss.ShardStream(given))
        assert len(ours) == len(theirs) == 350
        for a, b in zip(ours, theirs, strict=True):
            assert a["__key__"] == b["__key__"] and a["cls"] == b["cls"] and a["txt"] == b["txt"] and a["json"] == b["json"]
            assert np.array_equal(a["npy"], b["npy"])
    stream = ss.ShardStream(urls, batch_size=32, shuffle=True, fields=["cls", "txt"])
    iterator = iter(stream)
    seen = [next(iterator) for _ in range(5)]
    resumed = ss.ShardStream(urls, batch_size=32, shuffle=True, fields=["cls", "txt"])
    resumed.load_state_dict(stream.state_dict())
    seen += list(resumed)
    assert sorted(torch.cat([batch["cls"] for batch in seen]).tolist()) == list(range(350))
    assert isinstance(seen[0]["txt"], list) and seen[0]["cls"].dtype == torch.int64


def test_counting_is_remembered(tmp_path, monkeypatch, caplog):
    """A foreign shard is counted once, with a line that names the command; a changed one is counted again."""
    import logging

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_wds(str(tmp_path / "s-%03d.tar"), 50)
    url = str(tmp_path / "s-000.tar")
    with caplog.at_level(logging.INFO, logger="shardstream"):
        assert len(ss.ShardStream([url])) == 50
        assert "shardstream index" in caplog.text
        caplog.clear()
        assert len(ss.ShardStream([url])) == 50
        assert "shardstream index" not in caplog.text
        write_wds(str(tmp_path / "s-%03d.tar"), 60)
        assert len(ss.ShardStream([url])) == 60


def test_unsafe_fields_need_leave(tmp_path, monkeypatch):
    """A pickled field is refused with the option's name, and decoded when it is given."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with wds.TarWriter(str(tmp_path / "a.tar")) as sink:
        sink.write({"__key__": "k", "pyd": {"a": 1}})
    with pytest.raises(ss.UnsafeFieldError, match="allow_unsafe"):
        list(ss.ShardStream(str(tmp_path / "a.tar")))
    assert next(iter(ss.ShardStream(str(tmp_path / "a.tar"), allow_unsafe=True)))["pyd"] == {"a": 1}


@pytest.mark.parametrize("damage", ["truncated", "flipped header", "interleaved"])
def test_damaged_foreign_shards_are_errors(tmp_path, monkeypatch, damage):
    """Where webdataset loses samples in silence, we name the shard and the offset."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "a.tar"
    names = ["a.txt", "a.cls", "b.txt", "b.cls"] if damage != "interleaved" else ["a.txt", "b.txt", "a.cls", "b.cls"]
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 5
            tar.addfile(member, io.BytesIO(b"12345"))
    data = bytearray(path.read_bytes())
    if damage == "truncated":
        data = data[: 3 * 1024 + 100]
    elif damage == "flipped header":
        data[2 * 1024 + 3] ^= 1
    path.write_bytes(data)
    with pytest.raises(ss.ShardError) as caught:
        list(ss.ShardStream([str(path)]))
    assert caught.value.shard == str(path) and (caught.value.offset is not None or damage == "interleaved")


@pytest.mark.parametrize("compression", ["gz", "bz2", "xz"])
def test_compressed_foreign_shards(tmp_path, monkeypatch, compression):
    """A tar compressed as a whole streams as one block."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / f"a.tar.{compression}"
    with tarfile.open(path, f"w:{compression}") as tar:
        for i in range(30):
            member = tarfile.TarInfo(f"{i:03d}.cls")
            data = str(i).encode()
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    assert sorted(one["cls"] for one in ss.ShardStream([str(path)], shuffle=True)) == list(range(30))


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("batch_size", [None, 4])
def test_samples_that_cannot_be_decoded_are_skipped_if_asked(tmp_path, batch_size, num_workers):
    """on_error="skip" leaves out a sample with a broken or missing field, and counts and names it; a pickle is an error
    all the same.
    """
    path = str(tmp_path / "a.tar")
    with wds.TarWriter(path) as writer:
        for i in range(20):
            writer.write({"__key__": f"k{i}", "json": b"no" if i % 6 == 1 else b"{}", "id": str(i), **({} if i == 9 else {"txt": "t"})})
    options = {"batch_size": batch_size, "fields": ["json", "id", "txt"]}
    with pytest.raises(ss.CodecError, match="key k1"):
        list(ss.StreamLoader(ss.ShardStream(path, **options), num_workers, multiprocessing_context="fork"))
    stream = ss.ShardStream(path, on_error="skip", read=ss.ReadPolicy(max_skipped=5), **options)
    got = [batch["id"] for batch in ss.StreamLoader(stream, num_workers, multiprocessing_context="fork")]
    good = [i for i in range(20) if i % 6 != 1 and i != 9]
    assert [int(i) for one in got for i in (one if batch_size else [one])] == good and len(got) == (5 if batch_size else len(good))
    assert stream.report.num_skipped == 5 and sorted(error[error.index("key k") :].split(",")[0] for error in stream.report.errors) == [
        "key k1", "key k13", "key k19", "key k7", "key k9"]  # fmt: skip
    with pytest.raises(ss.ShardstreamError, match="skipped exceed max_skipped=4"):
        list(ss.ShardStream(path, on_error="skip", read=ss.ReadPolicy(max_skipped=4), **options))
    with wds.TarWriter(path) as writer:
        writer.write({"__key__": "k", "pyd": pickle.dumps(1)})
    with pytest.raises(ss.UnsafeFieldError, match="allow_unsafe"):
        list(ss.ShardStream(path, on_error="skip", read=ss.ReadPolicy(max_skipped=4)))

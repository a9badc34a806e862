"""Streams over lists of shards: other people's WebDataset tars, and our own without their log."""

import logging

import numpy as np
import pytest
import webdataset

import shardstream as ss
from shardstream.codecs import foreign
from shardstream.storage import Fetcher, Store
from tests.test_codecs_files import by_webdataset

NUM = 230


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four tars and one compressed, as webdataset's own writer makes them, of 50 samples each but the last."""
    folder = tmp_path_factory.mktemp("wds")
    for suffix, numbers in ((".tar", range(200)), (".tar.gz", range(200, NUM))):
        with webdataset.ShardWriter(
            str(folder / f"p-%03d{suffix}"), maxcount=50, verbose=0, start_shard=numbers[0] // 50
        ) as writer:
            for i in numbers:
                writer.write(
                    {
                        "__key__": f"dir.x/{i:05d}",
                        "cls": i,
                        "txt": f"tëxt {i}",
                        "w.npy": np.full(i % 4, i),
                        "jpg": bytes([i]) * 50,
                    }
                )
    return folder


def seen(stream) -> list:
    """Return what a stream of samples gives, in comparable form."""
    return [(one["__key__"], int(one["cls"]), one["txt"], one["w.npy"].tolist(), bytes(one["jpg"])) for one in stream]


def expected(folder) -> list:
    return seen(sample for path in sorted(folder.iterdir()) for sample in by_webdataset(path))


def places(folder) -> dict:
    return {
        "folder": str(folder),
        "glob": str(folder / "p-*.tar*"),
        "braces": str(folder / "p-00{0..3}.tar"),
        "list": [str(path) for path in sorted(folder.iterdir())],
    }


@pytest.mark.parametrize("how", ["folder", "glob", "braces", "list"])
def test_foreign_shards_stream_webdatasets_samples(folder, how):
    """In order, each way to name the shards gives webdataset's samples with webdataset's values."""
    whole = expected(folder)
    assert seen(ss.ShardStream(places(folder)[how])) == (whole[:200] if how == "braces" else whole)


def test_shuffled_foreign_shards_give_each_sample_once(folder):
    """Shuffled epochs of foreign shards, plain and compressed, hold every sample once, in batches."""
    stream = ss.ShardStream(str(folder), shuffle=True, batch_size=32, fields=["cls"])
    first, second = ([y for batch in stream for y in batch["cls"].tolist()] for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(NUM)) and first != second


def test_counting_happens_once_for_all_streams(folder, caplog):
    """The first stream says in one line what it reads and the command for it; the next reads no byte of it."""
    caplog.set_level(logging.INFO, "shardstream")
    urls = places(folder)["list"]
    ss.ShardStream(urls)
    caplog.clear()
    ss.ShardStream(urls)
    assert not [record for record in caplog.records if "counting" in record.message]


def test_a_state_of_foreign_shards_resumes(folder):
    """A position taken in mid-epoch goes on with exactly the samples that were not delivered."""
    stream = ss.ShardStream(str(folder), shuffle=True, batch_size=10, fields=["cls"])
    batches = iter(stream)
    before = [y for _ in range(7) for y in next(batches)["cls"].tolist()]
    resumed = ss.ShardStream(str(folder), shuffle=True, batch_size=10, fields=["cls"])
    resumed.load_state_dict(stream.state_dict())
    assert sorted(before + [y for batch in resumed for y in batch["cls"].tolist()]) == list(range(NUM))


def write_own(url, schema) -> None:
    with ss.ShardWriter(url, schema=schema, shard_nbytes="20kB") as writer:
        for i in range(40):
            writer.write(
                {"__key__": f"{i:05d}", "cls": i, "txt": f"t{i}", "json": [i] * 99} if schema is None else {"y": i}
            )


@pytest.mark.parametrize("schema", [None, ss.Schema(y=ss.Dense("int32"))])
def test_our_own_shards_open_without_their_log(tmp_path, schema):
    """Named one by one, our shards are read by the index they carry: no byte is counted, and the data are the same."""
    write_own(str(tmp_path / "d"), schema)
    dataset = ss.Dataset(str(tmp_path / "d"))
    shards = foreign.open_shards(dataset.shards, Fetcher(), cache=foreign.IndexCache(tmp_path / "cache"))
    assert [one.schema for one in shards] == [schema] * len(shards) and not (tmp_path / "cache").exists()
    assert sum(int(one.index.num_samples.sum()) for one in shards) == 40
    assert foreign.index_shard(Fetcher(), dataset.shards[0]).encode() == shards[0].index.encode()
    name = "cls" if schema is None else "y"
    assert [int(one[name]) for one in ss.ShardStream(dataset.shards)] == list(range(40))


def test_webdataset_reads_our_files_shards(tmp_path):
    """Plain webdataset sees our samples with their values, and none of our own members."""
    write_own(str(tmp_path / "d"), None)
    samples = [one for url in ss.Dataset(str(tmp_path / "d")).shards for one in by_webdataset(url)]
    assert samples == [{"__key__": f"{i:05d}", "cls": i, "json": [i] * 99, "txt": f"t{i}"} for i in range(40)]


def test_our_own_and_foreign_files_shards_mix(folder, tmp_path):
    """A list may hold both kinds, as long as all are of the files layout."""
    write_own(str(tmp_path / "d"), None)
    urls = [str(folder / "p-000.tar"), *ss.Dataset(str(tmp_path / "d")).shards]
    assert [int(one["cls"]) for one in ss.ShardStream(urls, fields=["cls"])] == [*range(50), *range(40)]


def test_an_own_shard_without_its_end_is_an_error(tmp_path):
    """A shard of ours that lost its index is truncated, not a foreign tar with fewer samples."""
    write_own(str(tmp_path / "d"), None)
    data = open(ss.Dataset(str(tmp_path / "d")).shards[0], "rb").read()
    for cut in (600, 1024, 4096, len(data) - 10240):
        path = tmp_path / f"{cut}.tar"
        path.write_bytes(data[:cut])
        with pytest.raises(ss.ShardError, match="truncated|ends"):
            foreign.index_shard(Fetcher(), str(path))


def test_foreign_shards_stream_from_s3(s3, folder, caplog):
    """From a bucket: the samples of the files, counted once by etag, and anew after one is overwritten."""
    store = Store(s3.url)
    for path in sorted(folder.iterdir()):
        store.put_bytes(path.name, path.read_bytes())
    assert seen(ss.ShardStream(f"{s3.url}/*.tar*")) == expected(folder)
    caplog.clear()
    assert len(list(ss.ShardStream(f"{s3.url}/p-00{{0..3}}.tar", fields=["cls"]))) == 200 and not caplog.records
    store.put_bytes("p-000.tar", (folder / "p-001.tar").read_bytes())
    assert [int(one["cls"]) for one in ss.ShardStream(f"{s3.url}/p-000.tar", fields=["cls"])] == list(range(50, 100))
    assert "counting the samples of 1 shard reads" in caplog.text

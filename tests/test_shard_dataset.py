"""``ShardDataset``: one shard by row number, local, remote or foreign."""

from __future__ import annotations

import pickle
import tarfile

import pytest
import torch
from torch.utils.data import DataLoader

import shardstream as ss
from tests.tiers import SCHEMA, assert_is_sample, assert_same, samples


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> tuple[str, list[dict]]:
    """A dataset of several shards of several blocks, and its samples."""
    folder, rows = str(tmp_path_factory.mktemp("shards")), samples(3000)
    schema = ss.Schema(**SCHEMA, wide=ss.Dense("uint8", (2000,)))  # 1 MiB blocks close after some 500 rows
    with ss.ShardWriter(folder, schema=schema, shard_nbytes="2MB") as writer:
        for row in rows:
            writer.write({**row, "wide": torch.full((2000,), row["y"] % 256, dtype=torch.uint8)})
    return folder, rows


def test_training_shard_by_shard_sees_every_sample_once(dataset):
    """The loop over ``ss.Dataset(url).shards`` with a shuffling DataLoader each is an epoch."""
    folder, rows = dataset
    urls = ss.Dataset(folder).shards
    assert len(urls) > 2
    seen = []
    for url in urls:
        for batch in DataLoader(ss.ShardDataset(url, fields=["img", "y"]), batch_size=256, shuffle=True):
            assert batch["img"].shape[1:] == (2, 3)
            seen += batch["y"].tolist()
    assert sorted(seen) == list(range(len(rows)))


def test_samples_and_batches_are_those_of_a_stream(dataset):
    folder, rows = dataset
    url = ss.Dataset(folder).shards[0]
    ds = ss.ShardDataset(url, fields=list(SCHEMA), sparse="indices")
    assert_is_sample(ds[7], rows[7])
    assert_is_sample(ds[len(ds) - 1], rows[len(ds) - 1])
    (batch,) = ss.ShardStream([url], batch_size=len(ds), sparse="csr")
    assert_same(ss.ShardDataset(url, sparse="csr")[:], batch)
    assert_same(pickle.loads(pickle.dumps(ds))[3], ds[3])


@pytest.fixture
def foreign(tmp_path) -> str:
    """A WebDataset shard that somebody else wrote."""
    (tmp_path / "a.txt").write_text("first")
    (tmp_path / "b.txt").write_text("second")
    (tmp_path / "c.cls").write_text("7")
    with tarfile.open(tmp_path / "foreign.tar", "w") as tar:
        for name, member in (("a.txt", "001.txt"), ("c.cls", "001.cls"), ("b.txt", "002.txt"), ("c.cls", "002.cls")):
            tar.add(tmp_path / name, member)
    return str(tmp_path / "foreign.tar")


def test_a_webdataset_shard_by_row(foreign):
    """Samples of the files layout are decoded as a stream decodes them."""
    ds = ss.ShardDataset(foreign)
    assert len(ds) == 2 and ds[1] == {"__key__": "002", "txt": "second", "cls": 7}
    assert ds[[1, 0]]["txt"] == ["second", "first"] and ds[[1, 0]]["cls"].tolist() == [7, 7]
    assert [sample["__key__"] for sample in ss.ShardStream([foreign])] == [ds[0]["__key__"], ds[1]["__key__"]]
    assert ss.ShardDataset(foreign, fields=["cls"], transform=lambda s: {"n": s["cls"] + 1})[:]["n"].tolist() == [8, 8]


def test_a_shard_on_s3(s3):
    with ss.ShardWriter(f"{s3.url}/rows", schema=SCHEMA, storage_options=s3.storage_options) as writer:
        for row in samples(50):
            writer.write(row)
    (url,) = ss.Dataset(f"{s3.url}/rows", storage_options=s3.storage_options).shards
    assert_is_sample(ss.ShardDataset(url, sparse="indices", storage_options=s3.storage_options)[49], samples(50)[49])


def test_what_is_not_one_shard_is_an_error(dataset, tmp_path):
    folder, _ = dataset
    with pytest.raises(ss.ConfigError, match="has one"):
        len(ss.ShardDataset(f"{folder}/*.tar"))
    with pytest.raises(ss.ShardstreamError):
        len(ss.ShardDataset(str(tmp_path / "none.tar")))
    with pytest.raises(ss.ConfigError, match="the dataset has"):
        len(ss.ShardDataset(ss.Dataset(folder).shards[0], fields=["nope"]))

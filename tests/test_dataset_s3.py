"""The main path on S3: what is written there is read there, by environment alone or by options."""

import numpy as np
import pytest

import shardstream as ss

SCHEMA = ss.Schema(x=ss.Sparse(1000), t=ss.Ragged("uint16"), y=ss.Dense("int64"))


def write(url, num_samples=3000, **options):
    with ss.ShardWriter(url, schema=SCHEMA, shard_nbytes="20kB", **options) as writer:
        for begin in range(0, num_samples, 500):
            y = np.arange(begin, begin + 500)
            indices = np.stack([y % 1000, (y + 13) % 1000], 1).ravel()
            writer.write_batch({"x": (indices, np.arange(501) * 2), "t": (y.astype(np.uint16), np.arange(501)), "y": y})


def test_write_and_stream(s3):
    """Shards put to S3 stream back shuffled, every sample once, equal to what was written."""
    write(s3.url)
    dataset = ss.Dataset(s3.url)
    assert dataset.num_samples == 3000 and len(dataset.shards) > 1 and all(url.startswith("s3://") for url in dataset.shards)
    seen = []
    for batch in ss.ShardStream(s3.url, batch_size=128, shuffle=True, sparse="indices"):
        for x, y in zip(batch["x"], batch["y"].tolist(), strict=True):
            assert x.tolist() == sorted([y % 1000, (y + 13) % 1000])
        assert batch["t"].values.tolist() == batch["y"].tolist()
        seen += batch["y"].tolist()
    assert sorted(seen) == list(range(3000))


def test_options_instead_of_environment(s3, monkeypatch):
    """Endpoint and credentials given as storage_options work without any environment, and stay out of errors and
    pickles.
    """
    import pickle

    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    write(s3.url, 500, storage_options=s3.storage_options)
    stream = ss.ShardStream(s3.url, storage_options=s3.storage_options)
    assert sum(1 for _ in stream) == 500
    with pytest.raises(ss.DatasetNotFoundError) as caught:
        ss.Dataset(s3.url + "/nothing", storage_options=s3.storage_options)
    assert s3.storage_options["secret"] not in str(caught.value)
    copy = pickle.loads(pickle.dumps(ss.ShardStream(s3.url, storage_options=s3.storage_options)))
    assert sum(1 for _ in copy) == 500


def test_an_exception_publishes_nothing_on_s3(s3):
    """A job that fails leaves no entry, and no shard either."""
    with pytest.raises(RuntimeError), ss.ShardWriter(s3.url, schema=SCHEMA, shard_nbytes="2kB") as writer:
        for y in range(2000):
            writer.write({"x": [y % 1000], "t": [1], "y": y})
        raise RuntimeError("boom")
    with pytest.raises(ss.DatasetNotFoundError):
        ss.Dataset(s3.url)
    from shardstream.storage import Store

    assert Store(s3.url).list() == []


def test_a_missing_shard_is_named(s3):
    """A shard that somebody deleted is an error that names it, or skipped and counted within the budget."""
    from shardstream.storage import Store

    write(s3.url)
    gone = ss.Dataset(s3.url).shards[1]
    Store(s3.url).delete([gone.rsplit("/", 1)[1]])
    with pytest.raises(ss.ShardNotFoundError, match=gone.rsplit("/", 1)[1]):
        list(ss.ShardStream(s3.url, batch_size=100))
    stream = ss.ShardStream(s3.url, batch_size=100, on_error="skip", read=ss.ReadPolicy(max_skipped=3000))
    num_read = sum(len(batch["y"]) for batch in stream)
    assert 0 < num_read < 3000 and num_read + stream.report.num_skipped == 3000
    stream = ss.ShardStream(s3.url, batch_size=100, on_error="skip", read=ss.ReadPolicy(max_skipped=10))
    with pytest.raises(ss.ShardNotFoundError, match="max_skipped=10"):
        list(stream)


@pytest.mark.parametrize("num_workers", [2])
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_after_the_parent_has_read(s3, num_workers, context):
    """Worker processes read S3 although their parent did before: clients are made per process."""
    import torch

    write(s3.url)
    stream = ss.ShardStream(s3.url, batch_size=100, fields=["y"])
    next(iter(ss.ShardStream(s3.url, fields=["y"])))
    loader = torch.utils.data.DataLoader(stream, batch_size=None, num_workers=num_workers,
                                         multiprocessing_context=context)  # fmt: skip
    assert sorted(y for batch in loader for y in batch["y"].tolist()) == list(range(3000))


def test_the_dataset_is_plain_tar(s3, tmp_path):
    """A shard fetched from S3 with another client opens with tarfile."""
    import tarfile

    import fsspec

    write(s3.url, 500)
    data = fsspec.filesystem("s3").cat_file(ss.Dataset(s3.url).shards[0])
    (tmp_path / "shard.tar").write_bytes(data)
    names = tarfile.open(tmp_path / "shard.tar").getnames()
    assert names[0] == "__shardstream__/shard.json" and names[-1] == "__shardstream__/index.json" and "000000.x.sparse" in names


def test_second_epoch_from_the_cache(proxied, tmp_path):
    """With a cache that holds the dataset, the second epoch reads no shard from the network, and is the same samples.
    """
    write(proxied.url, storage_options=proxied.storage_options)
    stream = ss.ShardStream(proxied.url, batch_size=100, shuffle=True, cache_dir=tmp_path, cache_limit="50MB",
                            storage_options=proxied.storage_options)  # fmt: skip
    seen = [sorted(y for batch in stream for y in batch["y"].tolist())]
    proxied.proxy.plan()
    stream.set_epoch(1)
    seen.append(sorted(y for batch in stream for y in batch["y"].tolist()))
    assert seen == [list(range(3000))] * 2
    assert proxied.proxy.stats()["requests"] == {}
    with pytest.raises(ss.ConfigError, match="cache_dir"):
        ss.ShardStream(proxied.url, cache_limit="1GB")


def test_an_epoch_through_a_bad_link(proxied):
    """Through a link where a fifth of all requests fail in some way, spoilt bytes among them, an epoch is exact."""
    write(proxied.url, storage_options=proxied.storage_options)
    proxied.proxy.plan(faults=["reset", "lost", "500", "503", "truncate", "corrupt"], share=0.2, seed=11)
    retry = ss.RetryPolicy(first_delay_s=0.005, max_delay_s=0.05, max_attempts=12)
    stream = ss.ShardStream(proxied.url, batch_size=100, shuffle=True, read=ss.ReadPolicy(retry=retry),
                            storage_options=proxied.storage_options)  # fmt: skip
    assert sorted(y for batch in stream for y in batch["y"].tolist()) == list(range(3000))
    assert sum(proxied.proxy.stats()["faults"].values()) > 2


@pytest.mark.parametrize("num_commits", [1, 10])
def test_opening_and_first_batch_cost_two_rounds_each(proxied, num_commits):
    """Opening a dataset is 2 rounds of requests, its first batch 2 more, whatever the log's length: all of them GETs,
    no listing.
    """
    for _ in range(num_commits):
        write(proxied.url, 1000, storage_options=proxied.storage_options)
    stream = ss.ShardStream(proxied.url, batch_size=100, shuffle=True, lanes=4, storage_options=proxied.storage_options)
    proxied.proxy.plan(quiet_s=0.5)
    assert len(stream) == 10 * num_commits
    opening = proxied.proxy.stats()
    assert opening["rounds"] == (1 if num_commits == 1 else 2)
    assert set(opening["requests"]) == {"GET"} and opening["requests"]["GET"] <= 14
    proxied.proxy.plan(quiet_s=0.5)
    batches = iter(stream)
    next(batches)
    first = proxied.proxy.stats()
    proxied.proxy.plan()
    assert first["rounds"] <= 2
    rest = proxied.proxy.stats()
    assert 100 + sum(len(batch["y"]) for batch in batches) == 1000 * num_commits
    for stats in (opening, first, rest, proxied.proxy.stats()):
        assert stats["listings"] == 0 and set(stats["requests"]) <= {"GET"}

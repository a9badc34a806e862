"""Shards on their way up: parts, checksums, what is left of uploads that failed, stores that ignore conditions."""

import socket
import threading
import time

import numpy as np
import pytest

import shardstream as ss
from shardstream.config import RetryPolicy
from shardstream.errors import StorageError, StorageRefused
from shardstream.storage import Store, uploads
from shardstream.storage.clients import filesystem
from tests import tiny_s3

QUICK = RetryPolicy(first_delay_s=0.01, max_delay_s=0.05)
PART = 5 << 20  # S3's smallest
SCHEMA = ss.Schema(y=ss.Dense("int64"))


@pytest.fixture
def large(tmp_path, monkeypatch):
    """A file that goes up in three parts."""
    monkeypatch.setattr(uploads, "MULTIPART_NBYTES", 1 << 20)
    monkeypatch.setattr(uploads, "PART_NBYTES", PART)
    data = np.random.default_rng(3).integers(0, 256, 12 << 20, np.uint8).tobytes()
    (tmp_path / "large").write_bytes(data)
    return tmp_path / "large", data


def unfinished(store: Store) -> int:
    """Return how many uploads in parts the store has begun below a prefix and not ended."""
    bucket, _, prefix = store.url.partition("://")[2].partition("/")
    return len(filesystem("s3", store.storage_options).call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix).get("Uploads", []))


def test_parts_arrive_whole(proxied, large):
    """Above the limit a file goes up in parts, one request each and two around them, and arrives whole."""
    path, data = large
    store = Store(proxied.url, proxied.storage_options, QUICK)
    proxied.proxy.plan()
    store.put_file("large.tar", path)
    assert proxied.proxy.stats()["requests"] == {"POST": 2, "PUT": 3}
    assert store.read("large.tar") == data and unfinished(store) == 0


def test_parts_are_repeated_by_themselves(proxied, large):
    """A part whose request fails is sent again, and no other part with it; so are the first and last request."""
    path, data = large
    store = Store(proxied.url, proxied.storage_options, QUICK)
    proxied.proxy.plan(faults=["reset", "500", "lost"], count=4, share=0.5, seed=2, methods=["PUT"])
    store.put_file("large.tar", path)
    stats = proxied.proxy.stats()
    assert stats["requests"] == {"POST": 2, "PUT": 3 + sum(stats["faults"].values())} and stats["faults"]
    proxied.proxy.plan(faults=["500"], count=1, methods=["POST"])
    store.put_file("large.tar", path)
    proxied.proxy.plan()
    assert store.read("large.tar") == data and unfinished(store) == 0


def test_a_lost_reply_to_the_last_request(proxied, large, monkeypatch):
    """The upload is complete although the answer that says so was lost, and the request repeated finds none to
    complete.
    """
    path, data = large
    store = Store(proxied.url, proxied.storage_options, QUICK)
    complete = uploads._Upload._complete

    def lose_the_reply(self, *arguments):
        proxied.proxy.plan(faults=["lost"], count=1, methods=["POST"])
        complete(self, *arguments)

    monkeypatch.setattr(uploads._Upload, "_complete", lose_the_reply)
    store.put_file("large.tar", path)
    assert proxied.proxy.stats()["faults"] == {"lost": 1}
    assert store.read("large.tar") == data


def test_an_upload_that_fails_leaves_nothing(proxied, large):
    """Where a part fails for good nothing stands under the name, and no parts are left."""
    store = Store(proxied.url, proxied.storage_options, RetryPolicy(max_attempts=2, first_delay_s=0.01))
    proxied.proxy.plan(faults=["500"], methods=["PUT"])
    with pytest.raises(StorageError):
        store.put_file("large.tar", large[0])
    proxied.proxy.plan()
    assert store.list() == [] and unfinished(store) == 0


def test_orphan_parts_are_aborted(s3):
    """What a killed writer left of its uploads goes, once it is old enough by the store's clock; other prefixes keep
    theirs.
    """
    store, beside = Store(s3.url, s3.storage_options), Store(s3.url + "-beside", s3.storage_options)
    client = filesystem("s3", s3.storage_options)
    for place in (store, store, beside):
        bucket, _, key = place.join("orphan.tar").partition("://")[2].partition("/")
        client.call_s3("create_multipart_upload", Bucket=bucket, Key=key)
    assert store.abort_uploads(older_than_s=3600) == 0
    assert (unfinished(store), store.abort_uploads(older_than_s=-60),
            unfinished(Store(s3.url + "/", s3.storage_options))) == (3, 2, 1)  # fmt: skip
    assert beside.abort_uploads(older_than_s=-60) == 1
    assert Store("/nowhere").abort_uploads(0) == 0


# -- stores that can do less --------------------------------------------------------------------


def write(url, options, **settings):
    with ss.ShardWriter(url, schema=SCHEMA, storage_options=options, **settings) as writer:
        writer.write_batch({"y": np.arange(100)})


def test_a_checksum_is_sent(tmp_path):
    """Each shard's PUT bears its CRC-32C, which the store checks; a store that knows none gets the shard without."""
    for takes_checksums in (True, False):
        with tiny_s3.running(takes_checksums=takes_checksums) as (server, options):
            write("s3://bucket/data", options)
            assert len(server.checksums) == takes_checksums
            assert sum(len(batch["y"]) for batch in ss.ShardStream("s3://bucket/data", batch_size=30, storage_options=options)) == 100


def test_a_store_that_ignores_conditions_is_found():
    """The first commit's own PUT, sent again, must be refused: else an error says what is wrong and what to do."""
    with tiny_s3.running(conditional=False) as (server, options):
        with pytest.raises(StorageRefused, match="single_writer=True") as caught:
            write("s3://bucket/data", options)
        assert "ignores conditional PUTs" in str(caught.value) and "tiny-secret" not in str(caught.value)
        write("s3://bucket/other", options, single_writer=True)
        assert ss.Dataset("s3://bucket/other", storage_options=options).num_samples == 100
    with tiny_s3.running() as (server, options):
        write("s3://bucket/data", options)
        assert ss.Dataset("s3://bucket/data", storage_options=options).num_samples == 100


GIVEN_UP = ss.RetryPolicy(deadline_s=0.7, first_delay_s=0.01, max_delay_s=0.1)


@pytest.mark.parametrize("options", [{}, {"producer": "p"}], ids=["one commit", "producer"])
def test_a_writer_gives_up_a_server_that_never_answers(options):
    """Its ``retry`` holds from the first request on: a server that accepts connections and says nothing is an error at construction."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = {"endpoint_url": f"http://127.0.0.1:{silent.getsockname()[1]}", "key": "k", "secret": "s"}
        began = time.monotonic()
        with pytest.raises(StorageError, match="check the endpoint|no answer in time"):
            ss.ShardWriter("s3://bucket/data", schema=SCHEMA, storage_options=place, retry=GIVEN_UP, **options)
        assert time.monotonic() - began < 30  # by default 120


@pytest.mark.parametrize("hushed, message", [(".tar", r"writing s3://bucket/data/.*\.tar failed"), ("_log/", "could not be written in")])
def test_a_writer_gives_up_a_server_that_falls_silent(hushed, message):
    """The same when shards or log entries are no longer taken: the close raises, and nothing is visible."""
    goes_on = threading.Event()

    def do_PUT(self):
        if hushed in self.path:
            goes_on.wait(60)
        else:
            tiny_s3.TinyS3.do_PUT(self)

    with tiny_s3.running(do_PUT=do_PUT) as (server, options):
        try:
            began = time.monotonic()
            writer = ss.ShardWriter("s3://bucket/data", schema=SCHEMA, storage_options=options, retry=GIVEN_UP)
            writer.write({"y": 1})
            with pytest.raises(StorageError, match=message):
                writer.close()
            assert time.monotonic() - began < 30
            assert not any("_log/" in path for path in server.objects)
        finally:
            goes_on.set()


@pytest.mark.parametrize("retry", [None, 5, {"deadline_s": 1.0}], ids=str)
def test_a_writer_s_retry_is_a_policy(tmp_path, retry):
    with pytest.raises(ss.ConfigError, match="retry=.* must be an ss.RetryPolicy"):
        ss.ShardWriter(str(tmp_path / "d"), schema=SCHEMA, retry=retry)
    assert not (tmp_path / "d").exists()

"""Stores on the S3 server keep the contract of ``store_suite``; how S3's own answers are told apart."""

import socket

import pytest

import shardstream as ss
from shardstream.config import RetryPolicy
from shardstream.errors import ShardError, ShardNotFoundError, StorageError, StorageRefused
from shardstream.storage import Fetcher, Store, expand_urls
from tests.store_suite import StoreSuite

ONCE = RetryPolicy(max_attempts=1)


class TestS3Store(StoreSuite):
    @pytest.fixture
    def store(self, s3):
        return Store(s3.url, s3.storage_options)


def test_endpoint_and_credentials_from_the_environment(s3):
    """Without storage_options the environment says where S3 is and who we are, as for AWS's own tools."""
    Store(s3.url).put_bytes("a", b"1")
    assert Store(s3.url, s3.storage_options).read("a") == b"1"


def test_wrong_secret_is_refused(s3):
    """A refusal of credentials is StorageRefused that speaks of credentials, and does not repeat them."""
    store = Store(s3.url, {**s3.storage_options, "secret": "wrong-secret"})
    if not s3.is_real:
        pytest.skip("moto's server checks no signatures")
    for request in (lambda: store.read("a"), lambda: store.put_if_absent("a", b"1"), lambda: store.put_bytes("a", b"1")):
        with pytest.raises(StorageRefused, match="credentials") as caught:
            request()
        assert "wrong-secret" not in str(caught.value)


def test_missing_bucket_is_refused(s3):
    """Writing to a bucket that does not exist is StorageRefused; reading from one finds nothing."""
    store = Store("s3://no-such-bucket-here/x", s3.storage_options)
    for request in (lambda: store.put_if_absent("a", b"1"), lambda: store.put_bytes("a", b"1")):
        with pytest.raises(StorageRefused, match="does not exist"):
            request()
    with pytest.raises(FileNotFoundError):
        store.read("a")


def test_no_server_is_unknown(s3):
    """Where nothing answers, put_if_absent does not claim to know the outcome."""
    store = Store(s3.url, {**s3.storage_options, "endpoint_url": "http://127.0.0.1:9"}, ONCE)
    with pytest.raises(StorageError) as caught:
        store.put_if_absent("a", b"1")
    assert not isinstance(caught.value, StorageRefused)


def test_fetcher_tells_missing_and_truncated(s3):
    """A missing object is ShardNotFoundError, a range beyond the end ShardError at the end's offset."""
    Store(s3.url, s3.storage_options).put_bytes("s.tar", b"x" * 100)
    fetcher = Fetcher(s3.storage_options)
    with pytest.raises(ShardNotFoundError):
        fetcher.read(f"{s3.url}/none.tar", 0, 10)
    for begin in (50, 150):
        with pytest.raises(ShardError, match="truncated"):
            fetcher.read(f"{s3.url}/s.tar", begin, 200)


def test_expand_urls_lists_and_globs(s3):
    """Folders and globs expand to the shards there, sorted; braces without looking."""
    store = Store(s3.url, s3.storage_options)
    for name in ("b.tar", "a.tar", "c.tgz", "readme.txt"):
        store.put_bytes(name, b"")
    assert expand_urls(s3.url, s3.storage_options) == [f"{s3.url}/{name}" for name in ("a.tar", "b.tar", "c.tgz")]
    assert expand_urls(f"{s3.url}/*.tar", s3.storage_options) == [f"{s3.url}/a.tar", f"{s3.url}/b.tar"]
    assert expand_urls("s3://none/{00..02}.tar") == [f"s3://none/0{number}.tar" for number in range(3)]


def test_a_wrong_address_says_what_to_check(s3):
    """A bucket that is not there, a pattern without a shard, nothing at the endpoint, no answer, an option of no such name: each is told with what to look at."""
    quick = ss.ReadPolicy(retry=ss.RetryPolicy(deadline_s=1.0, first_delay_s=0.01, max_delay_s=0.1))

    def fails(url, **options) -> str:
        with pytest.raises((StorageError, ss.DatasetNotFoundError)) as caught:
            next(iter(ss.ShardStream(url, storage_options={**s3.storage_options, **options}, read=quick)))
        return str(caught.value)

    assert "there is no bucket 'no-such-bucket'" in fails("s3://no-such-bucket/data")
    assert "no shard matches s3://no-such-bucket/*.tar" in fails("s3://no-such-bucket/*.tar")
    assert "neither a dataset nor a shard" in fails(f"{s3.url}-typo")
    assert "check the endpoint" in fails(s3.url, endpoint_url="http://127.0.0.1:9")
    assert "check the names in storage_options" in fails(s3.url, secrte="x")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        text = fails(s3.url, endpoint_url=f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert "no answer in time; check the endpoint" in text or "imeout on endpoint" in text

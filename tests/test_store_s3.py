"""Stores on the S3 server keep the contract of ``store_suite``; how S3's own answers are told apart."""

import pytest

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

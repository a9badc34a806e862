"""Stores on local disk and in memory keep the contract of ``store_suite``; details of each."""

import os
import pickle
import subprocess
import sys

import pytest

from shardstream import ShardStream
from shardstream.errors import ConfigError, ShardError, ShardNotFoundError, StorageRefused
from shardstream.storage import Fetcher, Store
from shardstream.storage.urls import redact
from tests.store_suite import StoreSuite


@pytest.mark.parametrize("url", [None, 3, "", "a\0b", "s4://bucket/name"])
def test_what_is_no_url_is_a_config_error(url):
    """A URL of no kind that is known here is said to be so, when it is first used at the latest."""
    with pytest.raises(ConfigError):
        Store(url).list()


class TestLocalStore(StoreSuite):
    @pytest.fixture
    def store(self, tmp_path):
        return Store(tmp_path / "dataset")

    def test_put_file_moves(self, store, tmp_path):
        """A local store moves the file instead of copying it."""
        (tmp_path / "finished").write_bytes(b"data")
        inode = os.stat(tmp_path / "finished").st_ino
        store.put_file("s.tar", tmp_path / "finished")
        assert not (tmp_path / "finished").exists()
        assert os.stat(store.join("s.tar")).st_ino == inode

    def test_unfinished_files_are_not_listed(self, store):
        """A temporary file that a crash left behind is no object."""
        store.put_bytes("a", b"1")
        with open(f"{store.url}/.tmp-1-left", "wb") as file:
            file.write(b"half")
        assert store.list() == [("a", 1)]

    def test_nothing_temporary_is_left(self, store):
        """Every kind of put cleans up after itself, also when the name was taken."""
        store.put_bytes("a", b"1")
        store.put_if_absent("b", b"1")
        store.put_if_absent("b", b"2")
        assert sorted(os.listdir(store.url)) == ["a", "b"]

    def test_full_disk_or_forbidden_folder_is_refused(self, tmp_path):
        """A lasting local error is StorageRefused, which says that nothing was written."""
        (tmp_path / "file").write_bytes(b"")
        store = Store(tmp_path / "file" / "dataset")
        with pytest.raises(StorageRefused):
            store.put_if_absent("a", b"1")


class TestMemoryStore(StoreSuite):
    @pytest.fixture
    def store(self, request):
        store = Store(f"memory://{request.node.name}/dataset")
        yield store
        store.delete([name for name, _ in store.list()])


@pytest.mark.parametrize("given, expected", [
    ("file:///data/set/", "/data/set"), ("/data//set/.", "/data/set"), ("s3://bucket/a/", "s3://bucket/a"),
    ("S3://bucket/a", "s3://bucket/a"), ("memory://x", "memory://x"),
])  # fmt: skip
def test_urls_are_normalised(given, expected):
    """A store's URL is an absolute path or keeps its scheme, without a slash at the end."""
    assert Store(given).url == expected


def test_fetcher_tells_a_missing_shard(tmp_path):
    """An absent object is ShardNotFoundError that names it."""
    with pytest.raises(ShardNotFoundError) as caught:
        Fetcher().read(str(tmp_path / "none.tar"), 0, 10)
    assert caught.value.shard == str(tmp_path / "none.tar")


def test_fetcher_tells_a_truncated_shard(tmp_path):
    """A range that the object does not hold is ShardError with the offset at which it ends."""
    (tmp_path / "s.tar").write_bytes(b"x" * 100)
    with pytest.raises(ShardError) as caught:
        Fetcher().read(str(tmp_path / "s.tar"), 50, 200)
    assert caught.value.offset == 100


def test_fetcher_closes_descriptors(tmp_path):
    """However many shards are read, few stay open."""
    fetcher, before = Fetcher(), len(os.listdir("/proc/self/fd"))
    for number in range(300):
        (tmp_path / f"{number}.tar").write_bytes(b"x" * 10)
        fetcher.read(str(tmp_path / f"{number}.tar"), 0, 10)
    assert len(os.listdir("/proc/self/fd")) - before <= 129
    del fetcher
    assert len(os.listdir("/proc/self/fd")) <= before + 1


def test_pickles_hold_no_secrets():
    """Credentials stay out of a pickle: here it is whole again, in another process what is public of it."""
    options = {"key": "AKIAVISIBLE", "secret": "hunter2",
               "client_kwargs": {"aws_session_token": "tttt", "region_name": "x"}}  # fmt: skip
    for thing in (Store("s3://b/p", options), Fetcher(options), ShardStream("s3://b/p", storage_options=options)):
        data = pickle.dumps(thing)
        assert not any(secret in data for secret in (b"AKIAVISIBLE", b"hunter2", b"tttt"))
        assert getattr(pickle.loads(data), "recipe", pickle.loads(data)).storage_options == options
    told = f"import pickle; print(pickle.loads({pickle.dumps(Store('s3://b/p', options))!r}).storage_options)"
    found = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "{'client_kwargs': {'region_name': 'x'}}"


def test_messages_hold_no_credentials_of_urls():
    """User information and query, where credentials travel, are left out of messages."""
    assert redact("https://user:pw@host/a/b.tar?X-Amz-Signature=abc") == "https://host/a/b.tar"

"""Clients after fork, forkserver and spawn: children of a process that has read go on reading, and none hangs."""

import multiprocessing
import pickle
import threading

import pytest

from shardstream.storage import Fetcher, Store, ranges

DATA = bytes(range(256)) * 400


def read_in_child(store: Store, fetcher: Fetcher, results) -> None:
    data = fetcher.read(store.join("s.tar"), 100, 90_000).tobytes()
    results.put((data == DATA[100:90_000], store.read("s.tar") == DATA, store.put_if_absent("s.tar", b"")))


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
@pytest.mark.parametrize("place", ["local", pytest.param("s3fs", marks=pytest.mark.s3), pytest.param("obstore", marks=pytest.mark.s3)])
def test_children_read_after_their_parent_has(method, place, tmp_path, request, monkeypatch):
    """A child started after the parent has read, by four threads at once, reads the same through the inherited objects."""
    if place == "local":
        url, options = str(tmp_path), None
    else:
        s3 = request.getfixturevalue("s3")
        url, options = s3.url, s3.storage_options
        if place == "s3fs":
            monkeypatch.setattr(ranges, "obstore_is_installed", lambda: False)
        elif not ranges.obstore_is_installed():
            pytest.skip("the extra obstore is not installed")
        monkeypatch.setattr(ranges, "_obstore_clients", {})
    store, fetcher = Store(url, options), Fetcher(options)
    store.put_bytes("s.tar", DATA)
    threads = [threading.Thread(target=fetcher.read, args=(store.join("s.tar"), 0, 1000)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    context = multiprocessing.get_context(method)
    results = context.SimpleQueue()
    child = context.Process(target=read_in_child, args=(store, fetcher, results))
    child.start()
    child.join(60)
    assert child.exitcode == 0, "the child hangs or failed"
    assert results.get() == (True, True, False)
    assert fetcher.read(store.join("s.tar"), 0, 10).tobytes() == DATA[:10]


def test_pickles_are_small_and_touch_no_network():
    """A Store or Fetcher is made and pickled without a client, in a few hundred bytes."""
    options = {"endpoint_url": "http://127.0.0.1:9", "key": "k", "secret": "s"}
    for thing in (Store("s3://bucket/data", options), Fetcher(options)):
        assert len(pickle.dumps(thing)) < 700


def test_secrets_go_to_children_only():
    """Options with credentials reach a child process, though a plain pickle has none of them."""
    store = Store("s3://bucket/data", {"secret": "hunter2"})
    assert b"hunter2" not in pickle.dumps(store)
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    child = context.Process(target=_tell_options, args=(store, results))
    child.start()
    child.join(60)
    assert results.get() == {"secret": "hunter2"}


def _tell_options(store: Store, results) -> None:
    results.put(store.storage_options)

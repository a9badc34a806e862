"""A dataset's log on the S3 server: the requests that it costs, counted as they are sent."""

from contextlib import contextmanager

import pytest

from shardstream.log import Log
from shardstream.storage import Fetcher, Store, ranges
from shardstream.storage.clients import filesystem
from tests.synthetic_log import record


@contextmanager
def sent(storage_options):
    """Yield the list of requests that this process's client sends from now on, as ``"GET name"``."""
    client, requests = filesystem("s3", storage_options), []

    def note(request, **_):
        requests.append(f"{request.method} {request.url.partition('?')[0].rpartition('/')[2]}")

    client.connect()
    client.s3.meta.events.register("before-send.s3", note)
    try:
        yield requests
    finally:
        client.s3.meta.events.unregister("before-send.s3", note)


@pytest.fixture
def log(s3):
    log = Log(Store(s3.url, s3.storage_options))
    log.create(None)
    return log


def test_opening_costs_what_is_promised(log):
    """Opening a dataset of 70 commits costs at most 14 requests, all GETs: no listing, no HEAD."""
    for _ in range(70):
        log.append([record()])
    with sent(log.store.storage_options) as requests:
        snapshot = Log(log.store).snapshot()
    assert (snapshot.version, len(snapshot.shards)) == (70, 70)
    assert len(requests) <= 14 and all(request.startswith("GET ") for request in requests)


def test_a_commit_costs_one_put(log):
    """A commit by a writer that is up to date is one PUT; every fourth puts a fold and the hint besides."""
    for _ in range(4):
        log.append([record()])
    with sent(log.store.storage_options) as requests:
        log.append([record()])
    assert requests == ["PUT 00000000000000000005.json"]
    log.append([record()])
    log.append([record()])
    with sent(log.store.storage_options) as requests:
        log.append([record()])
    assert requests == ["PUT 00000000000000000008.json", "PUT 00000000000000000008.tail", "PUT newest"]


def test_a_poll_costs_one_get(log):
    """Looking for the next entry is one GET."""
    with sent(log.store.storage_options) as requests:
        assert log.entry(1) is None
    assert requests == ["GET 00000000000000000001.json"]


def test_spoilt_entries_and_folds(proxied):
    """Entries spoilt on their way are asked for again, spoilt folds and hints done without; the snapshot is the same.
    """
    log = Log(Store(proxied.url, proxied.storage_options))
    log.create(None)
    for _ in range(10):
        log.append([record()])
    expected = log.snapshot().shards.sids.tolist()
    for seed in range(5):
        proxied.proxy.plan(faults=["corrupt"], share=0.4, seed=seed)
        assert Log(log.store).snapshot().shards.sids.tolist() == expected


@pytest.mark.parametrize("client", ["s3fs", "obstore"])
def test_store_calls_cost_one_request_each(proxied, tmp_path, client, monkeypatch):
    """Each call of Store and Fetcher is one request, whatever its object's size and whichever client reads ranges."""
    if client == "s3fs":
        monkeypatch.setattr(ranges, "obstore_is_installed", lambda: False)
    monkeypatch.setattr(ranges, "_obstore_clients", {})
    store, fetcher = Store(proxied.url, proxied.storage_options), Fetcher(proxied.storage_options)
    (tmp_path / "big").write_bytes(bytes(60 << 20))
    calls = {
        "put_file": ("PUT", lambda: store.put_file("big.tar", tmp_path / "big")),
        "put_bytes": ("PUT", lambda: store.put_bytes("a", b"1")),
        "put_if_absent": ("PUT", lambda: store.put_if_absent("a", b"1")),
        "read": ("GET", lambda: store.read("a")),
        "fetch": ("GET", lambda: fetcher.read(store.join("big.tar"), 1 << 20, 16 << 20)),
        "size": ("HEAD", lambda: store.size("a")),
        "list": ("GET", store.list),
        "delete": ("DELETE", lambda: store.delete(["a"])),
    }
    for name, (method, call) in calls.items():
        proxied.proxy.plan()
        call()
        assert (name, proxied.proxy.stats()["requests"]) == (name, {method: 1})

"""Reading ranges through a proxy that resets, truncates, spoils, delays and refuses: right bytes, or the right error.

Both clients are held to it: s3fs, and obstore where the extra is installed.
"""

import random
import threading
import time
import traceback

import numpy as np
import pytest

from shardstream._native.crc32c import crc32c
from shardstream.config import RetryPolicy
from shardstream.errors import ChecksumError, ShardError, ShardNotFoundError, StorageError, StorageRefused
from shardstream.storage import Fetcher, Store, ranges
from shardstream.storage.pace import MAX_IN_FLIGHT
from shardstream.storage.retry import MAX_WRONG, attempt

QUICK = RetryPolicy(first_delay_s=0.01, max_delay_s=0.1, deadline_s=30.0, request_s=2.0)
PASSING = ["reset", "lost", "500", "503", "truncate"]
DATA = np.random.default_rng(0).integers(0, 256, 3 << 20, np.uint8)


@pytest.fixture(params=["s3fs", "obstore"])
def client(request, monkeypatch):
    if request.param == "s3fs":
        monkeypatch.setattr(ranges, "obstore_is_installed", lambda: False)
    elif not ranges.obstore_is_installed():
        pytest.skip("the extra obstore is not installed")
    monkeypatch.setattr(ranges, "_obstore_clients", {})
    return request.param


@pytest.fixture
def shard(proxied):
    """The URL of an object that holds DATA, readable through ``proxied``."""
    Store(proxied.url, proxied.storage_options).put_bytes("s.tar", DATA.tobytes())
    return f"{proxied.url}/s.tar"


def verified(begin: int, end: int):
    """Return a verify function for DATA[begin:end]."""
    expected = crc32c(DATA[begin:end])

    def verify(data):
        if crc32c(data) != expected:
            raise ChecksumError("stored bytes do not match.", offset=begin)

    return verify


@pytest.mark.parametrize("fault", PASSING)
def test_each_passing_fault_is_overcome(client, proxied, shard, fault):
    """A fault or two in a row cost further requests, and change nothing else."""
    fetcher = Fetcher(proxied.storage_options, QUICK)
    proxied.proxy.plan(faults=[fault], count=2)
    assert (fetcher.read(shard, 1000, 500_000) == DATA[1000:500_000]).all()
    stats = proxied.proxy.stats()
    assert stats["faults"] == {fault: 2} and stats["requests"] == {"GET": 3}


def test_wrong_bytes_are_asked_for_again(client, proxied, shard):
    """A reply that fails its checksum is fetched again; one that always fails is a ChecksumError."""
    fetcher = Fetcher(proxied.storage_options, QUICK)
    proxied.proxy.plan(faults=["corrupt"], count=2)
    assert (fetcher.read(shard, 0, 100_000, verify=verified(0, 100_000)) == DATA[:100_000]).all()
    proxied.proxy.plan(faults=["corrupt"])
    with pytest.raises(ChecksumError):
        fetcher.read(shard, 0, 100_000, verify=verified(0, 100_000))
    assert proxied.proxy.stats()["requests"] == {"GET": MAX_WRONG}


def test_a_server_that_never_answers_is_given_up(client, proxied, shard):
    """Stalls end in StorageError when the deadline is over, not later."""
    policy = RetryPolicy(first_delay_s=0.01, deadline_s=2.0, request_s=0.8)
    proxied.proxy.plan(faults=["stall"], stall_s=20)
    began = time.monotonic()
    with pytest.raises(StorageError):
        Fetcher(proxied.storage_options, policy).read(shard, 0, 1000)
    assert time.monotonic() - began < 10


def test_a_slow_reply_is_overtaken(client, proxied, shard):
    """A reply that trickles is overtaken by a second request, long before it would have ended."""
    fetcher = Fetcher(proxied.storage_options, RetryPolicy(request_s=20.0))
    for _ in range(10):
        fetcher.read(shard, 0, 100_000)
    proxied.proxy.plan(faults=["trickle"], count=1, trickle_nbytes_per_s=10_000)
    began = time.monotonic()
    assert (fetcher.read(shard, 0, 100_000) == DATA[:100_000]).all()
    assert time.monotonic() - began < 8
    assert proxied.proxy.stats()["requests"] == {"GET": 2}


def test_slow_down_shrinks_what_is_in_flight(client, proxied, shard):
    """Asked to slow down, a fetcher has fewer requests in flight; after many good answers it has more again."""
    fetcher = Fetcher(proxied.storage_options, RetryPolicy(first_delay_s=0.001, max_delay_s=0.01, max_attempts=20))
    proxied.proxy.plan(faults=["503"], count=4)
    fetcher.read(shard, 0, 10)
    slowed = fetcher._process.pace.limit
    assert slowed < MAX_IN_FLIGHT / 8
    for _ in range(30):
        fetcher.read(shard, 0, 10)
    assert fetcher._process.pace.limit > slowed + 3


def test_expired_credentials_are_named(client, proxied, shard):
    """Expired credentials are a clear error at once, and no secret stands in it or in its traceback."""
    proxied.proxy.plan(faults=["expired"])
    with pytest.raises(StorageRefused, match="credentials have expired") as caught:
        Fetcher(proxied.storage_options, QUICK).read(shard, 0, 10)
    text = "".join(traceback.format_exception(caught.value))
    assert proxied.storage_options["secret"] not in text and "Signature=" not in text
    assert proxied.proxy.stats()["requests"] == {"GET": 1}


def test_missing_and_truncated_objects(client, proxied, shard):
    """A missing object is told after one request, one that ends early after two, with the offset at which it ends."""
    fetcher = Fetcher(proxied.storage_options, QUICK)
    proxied.proxy.plan()
    with pytest.raises(ShardNotFoundError, match=r"none\.tar"):
        fetcher.read(f"{proxied.url}/none.tar", 0, 10)
    assert proxied.proxy.stats()["requests"] == {"GET": 1}
    with pytest.raises(ShardError, match="truncated") as caught:
        fetcher.read(shard, 100, len(DATA) + 1)
    assert caught.value.offset == len(DATA)


def test_many_threads_through_a_bad_link(client, proxied, shard):
    """Sixteen threads read 400 ranges through a link where a fifth of the requests fail in some way: all are right."""
    fetcher = Fetcher(proxied.storage_options,
                      RetryPolicy(first_delay_s=0.005, max_delay_s=0.05, max_attempts=12, request_s=5.0))  # fmt: skip
    proxied.proxy.plan(faults=[*PASSING, "corrupt"], share=0.2, seed=7)
    generator, wrong = random.Random(1), []
    spans = [(begin, begin + generator.randrange(1, 60_000)) for begin in (generator.randrange(0, 3_000_000) for _ in range(400))]

    def work(part):
        for begin, end in part:
            if not (fetcher.read(shard, begin, end, verify=verified(begin, end)) == DATA[begin:end]).all():
                wrong.append((begin, end))

    threads = [threading.Thread(target=work, args=(spans[number::16],)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    stats = proxied.proxy.stats()
    assert stats["requests"]["GET"] >= 400 + 0.8 * sum(stats["faults"].values())
    assert stats["most_in_flight"] <= MAX_IN_FLIGHT


def test_writes_through_a_bad_link(proxied):
    """Whole objects and conditional creation survive what passes; the log's rule settles the rest."""
    from shardstream.log import Log
    from tests.synthetic_log import record

    log = Log(Store(proxied.url, proxied.storage_options, RetryPolicy(first_delay_s=0.01, max_delay_s=0.05, max_attempts=12)))
    log.create(None)
    proxied.proxy.plan(faults=["reset", "lost", "500", "503", "409"], share=0.3, seed=3)
    versions = [log.append([record()]) for _ in range(40)]
    faults = proxied.proxy.stats()["faults"]
    proxied.proxy.plan()
    assert versions == list(range(1, 41))
    assert Log(log.store).snapshot().shards.entry.tolist() == versions
    assert {"lost", "409"} <= set(faults)


def test_the_faster_client_is_recommended_once(proxied, shard, monkeypatch, caplog):
    """Where obstore is not installed a line says how to have it; once."""
    monkeypatch.setattr(ranges, "obstore_is_installed", lambda: False)
    monkeypatch.setattr(ranges, "_has_recommended", False)
    for _ in range(2):
        monkeypatch.setattr(ranges, "_obstore_clients", {})
        Fetcher(proxied.storage_options).read(shard, 0, 10)
    assert [record.getMessage() for record in caplog.records if "shardstream[obstore]" in record.getMessage()] != []
    assert sum("obstore" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize("cause, is_tried_again", [
    (ConnectionRefusedError(111, "refused"), True), (TimeoutError(), True), (FileNotFoundError(2, "absent"), False), (OSError("unknown"), False),
    (None, False),
])  # fmt: skip
def test_a_lost_connection_that_a_client_calls_a_missing_file_is_tried_again(cause, is_tried_again):
    """fsspec's HTTP client raises FileNotFoundError from whatever failed; only what is absent is said to be so."""
    tries = []

    def operation(timeout_s: float) -> str:
        tries.append(timeout_s)
        if len(tries) == 1:
            raise FileNotFoundError("http://127.0.0.1/x.tar") from cause
        return "found"

    if is_tried_again:
        assert attempt(RetryPolicy(first_delay_s=0.001), "reading", operation) == "found" and len(tries) == 2
    else:
        with pytest.raises(FileNotFoundError, match="absent"):
            attempt(RetryPolicy(first_delay_s=0.001), "reading", operation)
        assert len(tries) == 1

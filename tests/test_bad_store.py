"""A store that misbehaves costs time, never data: the right samples or the right error. ``make soak-s3`` does the same
for longer.
"""

import logging
import time

import numpy as np
import pytest

import shardstream as ss
from shardstream.errors import ChecksumError, ShardNotFoundError, StorageError, StorageRefused
from shardstream.storage import Store, retry
from tests import bad_store

NUM_SAMPLES = 2500


@pytest.fixture
def many_requests():
    with bad_store.small_blocks():
        yield


def stream(proxied, **options):
    options = {"lanes": 8, "window": 800, "read": ss.ReadPolicy(retry=bad_store.QUICK), **options}
    return ss.ShardStream(proxied.url, batch_size=100, shuffle=True, storage_options=proxied.storage_options, **options)


def test_every_fault_at_once(proxied, many_requests):
    """An epoch with a fifth of all requests faulty in every listed way: every sample once, each the right one."""
    bad_store.write(proxied.url, NUM_SAMPLES, storage_options=proxied.storage_options)
    proxied.proxy.plan(faults=bad_store.FAULTS, share=0.2, seed=2, methods=["GET"], stall_s=0.2,
                       trickle_nbytes_per_s=20_000)  # fmt: skip
    bad_store.check_epoch(stream(proxied), NUM_SAMPLES)
    stats = proxied.proxy.stats()
    assert len(stats["faults"]) >= 5 and set(stats["requests"]) == {"GET"}


def test_an_outage_in_mid_epoch(proxied, many_requests, caplog, monkeypatch):
    """A server that is gone for some seconds and comes back delays an epoch, and the log says what is waited for."""
    bad_store.write(proxied.url, NUM_SAMPLES, storage_options=proxied.storage_options)
    # default retries; too little memory to have all in hand
    one = stream(proxied, read=ss.ReadPolicy(memory_limit="160kB"))
    batches = iter(one)
    found = bad_store.check_batch(next(batches))
    monkeypatch.setattr(retry, "TELL_AFTER_S", 0.5)
    monkeypatch.setattr(retry, "_told", -1e9)
    proxied.proxy.down(3.0)
    began = time.monotonic()
    with caplog.at_level(logging.WARNING, "shardstream"):
        for batch in batches:
            found += bad_store.check_batch(batch)
    assert time.monotonic() - began > 2, "the outage was not noticed, so it proves nothing"
    assert sorted(found) == list(range(NUM_SAMPLES))
    told = [record.getMessage() for record in caplog.records if "tried again" in record.getMessage()]
    assert len(told) == 1 and "reading s3://" in told[0]


def test_credentials_that_expire_in_mid_epoch(proxied, many_requests):
    """Credentials that expire end the epoch by an error that says so, at once; with new ones it goes on where it was.
    """
    bad_store.write(proxied.url, NUM_SAMPLES, storage_options=proxied.storage_options)
    one = stream(proxied, read=ss.ReadPolicy(memory_limit="160kB", retry=bad_store.QUICK))
    found, batches = [], iter(one)
    found += bad_store.check_batch(next(batches))
    proxied.proxy.plan(faults=["expired"], methods=["GET"])
    with pytest.raises(StorageRefused, match="expired: renew them") as caught:
        for batch in batches:
            found += bad_store.check_batch(batch)
    assert proxied.storage_options["secret"] not in str(caught.value)
    proxied.proxy.plan()
    state = one.state_dict()
    again = stream(proxied)
    again.load_state_dict(state)
    found += [y for batch in again for y in bad_store.check_batch(batch)]
    assert sorted(found) == list(range(NUM_SAMPLES))


def test_missing_and_replaced_objects(proxied, many_requests):
    """A shard that is gone is named with the log entry that has it; one that was replaced fails its checksums; a budget
    counts both.
    """
    for begin in range(2):
        bad_store.write(proxied.url, NUM_SAMPLES // 2, storage_options=proxied.storage_options)
    store = Store(proxied.url, proxied.storage_options)
    shards = ss.Dataset(proxied.url, storage_options=proxied.storage_options).shards
    gone, replaced = (url.rpartition("/")[2] for url in (shards[-1], shards[0]))
    data = store.read(replaced)
    store.delete([gone])
    with pytest.raises(ShardNotFoundError, match="entry 2") as caught:
        list(stream(proxied))
    assert caught.value.shard.endswith(gone)
    store.put_bytes(replaced, data[:5000] + np.random.default_rng(0).bytes(len(data) - 5000))
    quick = ss.RetryPolicy(first_delay_s=0.001, max_delay_s=0.01)
    skipping = stream(proxied, on_error="skip", read=ss.ReadPolicy(retry=quick, max_skipped=NUM_SAMPLES))
    num_read = sum(len(bad_store.check_batch(batch)) for batch in skipping)
    assert num_read + skipping.report.num_skipped == NUM_SAMPLES and 0 < num_read < NUM_SAMPLES
    assert any(gone in message for message in skipping.report.errors) and any(replaced in message for message in skipping.report.errors)
    with pytest.raises((ChecksumError, ShardNotFoundError), match="exceed max_skipped=10"):
        list(stream(proxied, on_error="skip", read=ss.ReadPolicy(retry=quick, max_skipped=10)))


@pytest.mark.parametrize("place, options", [("", {}), ("", {"follow": True}), ("/*.tar", {}), ("/x.tar", {})], ids=str)
def test_opening_keeps_the_given_retries(proxied, place, options):
    """What a stream asks for before its first block is repeated by its own ``RetryPolicy`` too, each request so many
    times.
    """
    proxied.proxy.plan(faults=["500"])
    once = ss.ReadPolicy(retry=ss.RetryPolicy(max_attempts=2, first_delay_s=0.01))
    with pytest.raises(StorageError, match="InternalError|500"):
        list(ss.ShardStream(proxied.url + place, storage_options=proxied.storage_options, read=once, **options))
    assert sum(proxied.proxy.stats()["requests"].values()) <= 2 * 14

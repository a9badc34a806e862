"""Writers that commit as they go: exactly once whatever is killed when, fenced, and never in silence."""

import itertools
import threading
import time

import numpy as np
import pytest

import shardstream as ss
from shardstream.log import Log
from shardstream.storage import Store
from shardstream.writer import QUEUED_SHARDS

SCHEMA = ss.Schema(y=ss.Dense("int64"), t=ss.Bytes())
NUM = 40


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the process runs any more."""


class Machine:
    """Lets the process die at one of the steps that it makes in the store: before it, or after it was done."""

    STEPS = ("put_bytes", "put_if_absent", "put_file")

    def __init__(self, monkeypatch, step: int, is_done: bool):
        self.num_steps, self.is_dead = 0, False
        for name in self.STEPS:
            monkeypatch.setattr(Store, name, self._mortal(getattr(Store, name), step, is_done))

    def _mortal(self, plain, step: int, is_done: bool):
        def call(*arguments, **options):
            if self.is_dead:
                raise Killed
            self.num_steps += 1
            if self.num_steps == step:
                self.is_dead = True
                if is_done:
                    plain(*arguments, **options)
                raise Killed
            return plain(*arguments, **options)

        return call


def produce(url: str, count: int = NUM) -> None:
    """Be a producer: write what is not written yet, some rows at a time, each with its number as the source."""
    writer = ss.ShardWriter(url, schema=SCHEMA, producer="p", shard_nbytes="3kB")
    for i in range(0 if writer.last_source is None else writer.last_source["next"], count, 4):
        rows = range(i, min(i + 4, count))
        writer.write_batch({"y": np.array(rows), "t": [bytes(200)] * len(rows)}, source={"next": rows.stop})
        if i % 12 == 0:
            writer.flush()
    writer.close()


def written(url: str) -> list[int]:
    return sorted(int(sample["y"]) for sample in ss.ShardStream(url))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_producer_killed_at_any_step_writes_each_record_once(tmp_path, monkeypatch):
    """Whichever request is the last one, and whether it was done: after a restart each record is there once."""
    num_places = 0
    for step in itertools.count(1):
        for is_done in (False, True):
            url = str(tmp_path / f"{step}-{is_done}")
            with monkeypatch.context() as patch:
                machine = Machine(patch, step, is_done)
                thread = threading.Thread(target=_until_killed, args=(url,), daemon=True)
                thread.start()
                while thread.is_alive() and not machine.is_dead:
                    thread.join(0.002)
                thread.join(0.05)  # what waits for a thread that is dead would wait for ever
            if not machine.is_dead:
                assert num_places > 20
                return
            num_places += 1
            produce(url)
            assert written(url) == list(range(NUM)), (step, is_done)


def _until_killed(url: str) -> None:
    try:
        produce(url)
    except (Killed, ss.ShardstreamError):
        pass


@pytest.mark.parametrize("latency", [None, "20ms"])
def test_a_zombie_is_fenced(tmp_path, latency):
    """A producer that was only asleep when its successor claimed fails at its next commit, and publishes nothing."""
    url = str(tmp_path / "d")
    zombie = ss.ShardWriter(url, schema=SCHEMA, producer="p", max_latency=latency)
    zombie.write({"y": 0, "t": b""}, source=1)
    zombie.flush()
    successor = ss.ShardWriter(url, schema=SCHEMA, producer="p")
    assert successor.last_source == 1
    with pytest.raises(ss.ProducerFenced):
        for _ in range(500):  # with max_latency the timer's own commit is refused, and the next call raises it
            zombie.write({"y": 99, "t": b""}, source=99)
            if latency is None:
                zombie.flush()
            time.sleep(0.01)
    with pytest.raises(ss.ProducerFenced):
        zombie.close()
    successor.write({"y": 1, "t": b""}, source=2)
    successor.close()
    assert written(url) == [0, 1] and ss.ShardWriter.last_source(url, "p") == 2
    assert len(list((tmp_path / "d").glob("*.tar"))) == 2, "the zombie's shards are taken away"


def test_an_error_while_idle_is_raised_at_the_next_call(tmp_path, monkeypatch):
    """The timer's commit fails while the caller does nothing: the next call says so, and nothing more is taken."""
    writer = ss.ShardWriter(str(tmp_path / "d"), schema=SCHEMA, max_latency="10ms")
    failed = threading.Event()

    def put_file(store, name, path):
        failed.set()
        raise ss.StorageError("the store is gone.")

    monkeypatch.setattr(Store, "put_file", put_file)
    writer.write({"y": 0, "t": b""})
    assert failed.wait(30)
    with pytest.raises(ss.StorageError, match="the store is gone"):
        for _ in range(1000):
            writer.write({"y": 1, "t": b""})
            time.sleep(0.005)
    with pytest.raises(ss.StorageError, match="the store is gone"):
        writer.flush()
    with pytest.raises(ss.StorageError, match="the store is gone"):
        writer.close()


def test_a_slow_store_holds_the_caller_back(tmp_path, monkeypatch):
    """Ticks that the store can't keep up with pile up neither shards nor rows: write() waits."""
    url, plain, may_put = str(tmp_path / "d"), Store.put_file, threading.Event()
    monkeypatch.setattr(Store, "put_file", lambda store, name, path: may_put.wait(60) and plain(store, name, path))
    writer = ss.ShardWriter(url, schema=SCHEMA, max_latency="5ms")
    num, at_rest = 0, threading.Event()

    def write() -> None:
        nonlocal num
        while num < 2000:
            writer.write({"y": num, "t": bytes(10)})
            num += 1
            time.sleep(0.001)
        at_rest.set()

    thread = threading.Thread(target=write)
    thread.start()
    before = -1
    while num != before:  # until the caller stands still
        before = num
        time.sleep(0.3)
    # One shard is being put, some wait, one can't be handed over.
    assert num < 2000 and len(list((tmp_path / "d").glob(".*.tar.tmp"))) <= 1 + QUEUED_SHARDS + 1
    may_put.set()
    thread.join(60)
    writer.close()
    assert at_rest.is_set() and written(url) == list(range(2000))


def test_rows_without_a_source_do_not_hide_the_one_before(tmp_path):
    """A commit bears the newest source of its rows, also when later rows of it have none."""
    url = str(tmp_path / "d")
    with ss.ShardWriter(url, schema=SCHEMA, producer="p") as writer:
        writer.write({"y": 0, "t": b""}, source={"at": 1})
        writer.write({"y": 1, "t": b""})
    assert Log(Store(url)).entry(2).source == {"at": 1} == ss.ShardWriter.last_source(url, "p")


def test_a_source_without_a_producer_is_refused_at_the_call(tmp_path):
    """Not at the close, when it would cost all that was written."""
    for name, options in [("plain", {}), ("online", {"max_latency": 1})]:
        with ss.ShardWriter(str(tmp_path / name), schema=SCHEMA, **options) as writer:
            with pytest.raises(ss.SampleError, match="producer="):
                writer.write({"y": 0, "t": b""}, source=1)
            writer.write({"y": 0, "t": b""})
        assert writer.num_samples_committed == 1

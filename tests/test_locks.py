"""Forked children find locks free that threads of their parent held at the fork."""

import contextlib
import os
import queue
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader

import shardstream as ss
from shardstream.locks import ForkSafeLock, lazy


def test_a_forked_child_can_take_a_lock_that_was_held():
    """A thread that holds it is not in the child; in the parent it goes on holding it."""
    lock, is_held, may_end = ForkSafeLock(), threading.Event(), threading.Event()

    def hold():
        with lock:
            is_held.set()
            may_end.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    is_held.wait(60)
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        with lock:
            os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert lock._lock.locked()
    may_end.set()
    thread.join()
    with lock:
        pass


def test_workers_of_torchs_loader_read_whatever_was_locked_when_they_were_forked(tmp_path):
    """A stream that was read here has a reader, whose lock may be held just when a worker is forked."""
    with ss.ShardWriter(str(tmp_path), schema=ss.Schema(y=ss.Dense("int64"))) as writer:
        writer.write_batch({"y": np.arange(1000)})
    stream = ss.ShardStream(str(tmp_path), batch_size=100)
    assert len(next(iter(stream))["y"]) == 100
    loader = DataLoader(stream, batch_size=None, num_workers=1, multiprocessing_context="fork", timeout=60)
    with stream._reader._lock:
        batches = iter(loader)  # forks
    assert [y for batch in batches for y in batch["y"].tolist()] == list(range(100, 1000))


class Slow:
    """Has a value that takes until it ``may_end``, where that is given."""

    def __init__(self, may_end: threading.Event | None = None):
        self.may_end, self.begun = may_end, threading.Semaphore(0)

    @lazy
    def value(self) -> object:
        """What it is."""
        self.begun.release()
        if self.may_end is not None:
            self.may_end.wait(60)
        return object()


def test_a_forked_child_computes_what_a_thread_was_computing_at_the_fork():
    """Of the same object and of another of its class, whose lock ``functools.cached_property`` would hold on Python 3.11."""
    slow = Slow(threading.Event())
    thread = threading.Thread(target=lambda: slow.value)
    thread.start()
    assert slow.begun.acquire(timeout=60)
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        slow.may_end = None
        os._exit(7 if Slow().value is not None and slow.value is slow.value else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    slow.may_end.set()
    thread.join()


def test_what_is_lazy_is_computed_once_and_the_same_to_all():
    """Threads that meet at the first use get one object; later ones compute nothing; the docstring stays."""
    slow = Slow(threading.Event())
    got: list[object] = []
    threads = [threading.Thread(target=lambda: got.append(slow.value)) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert all(slow.begun.acquire(timeout=60) for _ in threads)  # without a lock all compute
    slow.may_end.set()
    for thread in threads:
        thread.join()
    assert len(got) == 4 and set(got) == {slow.value} == {vars(slow)["value"]}
    assert not slow.begun.acquire(blocking=False)
    assert Slow.value.__doc__ == "What it is."


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of generators interrupted as they are closed
def test_ctrl_c_leaves_nothing_held(tmp_path):
    """Wherever a loop is interrupted as a function of ours returns, or Python code of the standard library that has taken a lock for us,
    it ends with all its threads, and the next epoch is whole.
    """
    with ss.ShardWriter(str(tmp_path), schema=ss.Schema(y=ss.Dense("int64", (64,)))) as writer:
        for begin in range(0, 160, 20):
            writer.write_batch({"y": np.full((20, 64), np.arange(begin, begin + 20)[:, None])})
            writer._close_block()
    of_ours, of_conditions = str(Path(ss.__file__).parent), threading.Condition.__enter__.__code__
    returns: list[tuple] = []  # functions, and where they ended, or of those that took a lock the number

    def interrupt_at(number: int) -> ss.ShardStream:
        """Iterate a new stream in this thread until so many functions have returned, then raise KeyboardInterrupt."""

        def look(frame, event, _):
            is_ours = frame.f_code.co_filename.startswith(of_ours)
            if is_ours and frame.f_code.co_name == "close":
                return None  # not a second time while the first is obeyed
            takes_for_us = frame.f_code is of_conditions and frame.f_back.f_code.co_filename.startswith((of_ours, queue.__file__))
            if event == "return" and (is_ours or takes_for_us):
                returns.append((frame.f_code, len(returns) if takes_for_us else frame.f_lineno))
                if len(returns) == number:
                    raise KeyboardInterrupt
            return look

        returns.clear()
        stream = ss.ShardStream(str(tmp_path), batch_size=20, shuffle=True, lanes=2, window=40, read=ss.ReadPolicy(memory_limit="100kB"))
        len(stream)
        sys.settrace(look)
        with contextlib.suppress(KeyboardInterrupt):
            for batch in stream:
                del batch
        sys.settrace(None)
        return stream

    def interrupt_everywhere() -> None:
        interrupt_at(0)
        for number in dict(zip(returns, range(1, len(returns) + 1))).values():  # at the last return from each place
            stream = interrupt_at(number)
            stream.set_epoch(1)
            assert sorted(row for batch in stream for row in batch["y"][:, 0].tolist()) == list(range(160))
            numbers.append(number)
        numbers.append(0)

    numbers: list[int] = []
    thread = threading.Thread(target=interrupt_everywhere, daemon=True)
    thread.start()
    thread.join(60)
    assert len(numbers) > 100 and numbers[-1] == 0

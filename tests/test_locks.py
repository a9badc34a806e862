"""Forked children find locks free that threads of their parent held at the fork."""

import os
import signal
import threading

import numpy as np
from torch.utils.data import DataLoader

import shardstream as ss
from shardstream.locks import ForkSafeLock


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

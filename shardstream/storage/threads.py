"""Calls on daemon threads: for blocking clients, whose calls may have to be given up.

concurrent.futures' own pool joins its threads when the interpreter ends, so a request that hangs
would keep the process alive; these do not.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

MAX_THREADS = 64


class DaemonThreads:
    """Runs calls on up to ``MAX_THREADS`` threads, started as needed and kept."""

    def __init__(self):
        self._calls: queue.SimpleQueue = queue.SimpleQueue()
        self._num_idle = self._num_started = 0  # idle: threads that no call waiting in the queue is meant for
        self._lock = threading.Lock()

    def submit(self, call: Callable[[], Any]) -> Future:
        """Return the future of ``call()``."""
        future: Future = Future()
        with self._lock:
            needs_thread = self._num_idle <= 0 and self._num_started < MAX_THREADS
            self._num_started += needs_thread
            self._num_idle -= not needs_thread  # below zero: calls that wait for a thread
        self._calls.put((future, call))
        if needs_thread:
            threading.Thread(target=self._work, name="shardstream-request", daemon=True).start()
        return future

    def _work(self) -> None:
        while True:
            future, call = self._calls.get()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except BaseException as error:  # noqa: BLE001 (it is the future's to raise)
                    future.set_exception(error)
            del future, call  # or this thread would hold the result until its next call
            with self._lock:
                self._num_idle += 1


_shared: tuple[int, DaemonThreads] | None = None


def threads() -> DaemonThreads:
    """Return this process's threads; a forked child has its own."""
    global _shared
    if _shared is None or _shared[0] != os.getpid():
        _shared = os.getpid(), DaemonThreads()
    return _shared[1]

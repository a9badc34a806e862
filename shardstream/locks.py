"""``ForkSafeLock``: a lock that a forked child finds free, whoever held it at the fork.

Workers of torch's own ``DataLoader`` are forks of a process in which our threads read, and the thread that held a lock
is not there to let go of it.
"""

from __future__ import annotations

import os
import threading
import weakref


class ForkSafeLock:
    """As ``threading.Lock``, for use in ``with``. What it guards must be usable wherever the fork left it."""

    def __init__(self):
        self._lock = threading.Lock()
        _locks.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_) -> None:
        self._lock.release()


_locks: weakref.WeakSet[ForkSafeLock] = weakref.WeakSet()


def _renew() -> None:
    for lock in list(_locks):
        lock._lock = threading.Lock()


os.register_at_fork(after_in_child=_renew)

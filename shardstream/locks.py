"""``ForkSafeLock``: a lock that a forked child finds free, whoever held it at the fork; and ``lazy``, which needs none.

Workers of torch's own ``DataLoader`` are forks of a process in which our threads read, and the thread that held a lock
is not there to let go of it.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")

class ForkSafeLock:
    """As ``threading.Lock``, for use in ``with``. What it guards must be usable wherever the fork left it."""

    def __init__(self):
        self._lock = threading.Lock()
        _locks.add(self)

    # The lock's own methods: Ctrl-C in the middle of ours would leave it held.
    __enter__ = property(lambda self: self._lock.__enter__)
    __exit__ = property(lambda self: self._lock.__exit__)


_locks: weakref.WeakSet[ForkSafeLock] = weakref.WeakSet()


def _renew() -> None:
    for lock in list(_locks):
        lock._lock = threading.Lock()


os.register_at_fork(after_in_child=_renew)


class lazy(Generic[Value]):
    """As ``functools.cached_property``, which up to Python 3.11 computes under a lock of the class that a fork leaves held.

    Two threads may both compute what is not there yet; both get the object of the first. So it must be a function of the instance.
    """

    def __init__(self, compute: Callable[[Any], Value]):
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Value:
        if instance is None:
            return self
        return instance.__dict__.setdefault(self._name, self._compute(instance))

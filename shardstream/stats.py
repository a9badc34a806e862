"""Where the time and the bytes of reading went: ``Stats``, counters that threads share.

One addition a block, a batch or a wait, without a lock: they are noted as they come, and summed when there are many.
"""

from __future__ import annotations

from collections import deque

from shardstream.locks import ForkSafeLock

SECONDS = ("fetch", "verify", "decode", "wait_for_blocks", "gather", "transform", "wait_for_slot", "hand_over",
           "wait_for_workers", "wait_for_consumer")  # fmt: skip
MAX_NOTED = 256  # additions that wait to be summed
COUNTS = ("num_batches", "num_rows", "num_blocks", "num_bytes_read", "num_bytes_cached", "num_cache_hits")


class Stats:
    """Sums by name, of ``SECONDS`` and ``COUNTS``.

    ``watch``, if set, is called with each addition of this process, in the thread that makes it (``bench/trace.py``).
    """

    watch = None

    def __init__(self):
        self._noted: deque[dict[str, float]] = deque()  # appending to one is atomic
        self._lock = ForkSafeLock()  # of what follows
        self._sums: dict[str, float] = dict.fromkeys((*SECONDS, *COUNTS), 0)

    def __reduce__(self) -> tuple:
        return Stats, ()  # what is pickled or copied counts from 0: sums stay where they were made

    def add(self, **amounts: float) -> None:
        """Add to the sums of these names."""
        if Stats.watch is not None:
            Stats.watch(amounts)
        self._noted.append(amounts)
        if len(self._noted) > MAX_NOTED:
            with self._lock:
                self._sum()

    def _sum(self) -> None:
        """Add up what was noted; the lock is held."""
        for _ in range(len(self._noted)):
            for name, amount in self._noted.popleft().items():
                self._sums[name] += amount

    def take(self) -> dict[str, float]:
        """Return the sums that are not 0, and begin again at 0."""
        with self._lock:
            self._sum()
            taken = {name: amount for name, amount in self._sums.items() if amount}
            self._sums.update(dict.fromkeys(taken, 0))
        return taken

    def sums(self) -> dict[str, float]:
        """Return all sums."""
        with self._lock:
            self._sum()
            return dict(self._sums)

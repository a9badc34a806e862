"""Where the time and the bytes of reading went: ``Stats``, counters that threads share.

One addition a block, a batch or a wait, under a lock: 1.1 us of CPU time for one name, 1.8 us for five.
"""

from __future__ import annotations

import threading

SECONDS = ("fetch", "verify", "decode", "wait_for_blocks", "gather", "transform", "wait_for_slot", "hand_over", "wait_for_workers", "wait_for_consumer")
COUNTS = ("num_batches", "num_rows", "num_blocks", "num_bytes_read", "num_bytes_cached", "num_cache_hits")


class Stats:
    """Sums by name, of ``SECONDS`` and ``COUNTS``.

    ``watch``, if set, is called with each addition of this process, in the thread that makes it (``bench/trace.py``).
    """

    watch = None

    def __init__(self):
        self._lock = threading.Lock()
        self._sums: dict[str, float] = dict.fromkeys((*SECONDS, *COUNTS), 0)

    def __reduce__(self) -> tuple:
        return Stats, ()  # what is pickled or copied counts from 0: sums stay where they were made

    def add(self, **amounts: float) -> None:
        """Add to the sums of these names."""
        if Stats.watch is not None:
            Stats.watch(amounts)
        with self._lock:
            for name, amount in amounts.items():
                self._sums[name] += amount

    def take(self) -> dict[str, float]:
        """Return the sums that are not 0, and begin again at 0."""
        with self._lock:
            taken = {name: amount for name, amount in self._sums.items() if amount}
            self._sums.update(dict.fromkeys(taken, 0))
        return taken

    def sums(self) -> dict[str, float]:
        """Return all sums."""
        with self._lock:
            return dict(self._sums)

"""Where the time and the bytes of reading went: ``Stats``, counters that threads share.

One addition a block, a batch or a wait, without a lock: each thread has sums of its own.
"""

from __future__ import annotations

from threading import get_ident

SECONDS = ("fetch", "verify", "decode", "wait_for_blocks", "gather", "transform", "wait_for_slot", "hand_over",
           "wait_for_workers", "wait_for_consumer")  # fmt: skip
COUNTS = ("num_batches", "num_rows", "num_blocks", "num_bytes_read", "num_bytes_cached", "num_cache_hits")


class Stats:
    """Sums by name, of ``SECONDS`` and ``COUNTS``.

    ``watch``, if set, is called with each addition of this process, in the thread that makes it (``bench/trace.py``).
    """

    watch = None

    def __init__(self):
        self._of_thread: dict[int, dict[str, float]] = {}  # only its thread changes one; a thread to come may get the number, and the sums
        self._taken = _zeros()

    def __reduce__(self) -> tuple:
        return Stats, ()  # what is pickled or copied counts from 0: sums stay where they were made

    def add(self, **amounts: float) -> None:
        """Add to the sums of these names."""
        if Stats.watch is not None:
            Stats.watch(amounts)
        try:
            sums = self._of_thread[get_ident()]
        except KeyError:
            sums = self._of_thread[get_ident()] = _zeros()
        for name, amount in amounts.items():
            sums[name] += amount

    def take(self) -> dict[str, float]:
        """Return what was added since the last call of this, which one thread makes; without what is 0."""
        before, self._taken = self._taken, self.sums()
        return {name: amount - before[name] for name, amount in self._taken.items() if amount != before[name]}

    def sums(self) -> dict[str, float]:
        """Return all sums."""
        total = _zeros()
        for sums in list(self._of_thread.values()):
            for name, amount in sums.items():
                total[name] += amount
        return total


def _zeros() -> dict[str, float]:
    return dict.fromkeys((*SECONDS, *COUNTS), 0)

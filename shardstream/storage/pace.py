"""How many requests are in flight, and when a slow one gets a second chance.

Three controls. How many are useful follows from what is measured, as in BBR (N. Cardwell et al., CACM 2017): the best
rate times the time of a request is what must be in flight to have that rate; twice as much is allowed, so that
the rate can be seen to grow while it does. A store's answers take times that differ several times over, so the time is the
median of the round that was quickest (the least one would keep few in flight for good), and 16 are always allowed.
Asked to slow down (503, 429), a process halves the
number of requests in flight, and with each that succeeds allows a fraction of one more: additive
increase, multiplicative decrease (D. Chiu and R. Jain, 1989). A request that takes several times the median
is probably stuck on one connection or one disk of the store: a second one is sent, and the first to answer
wins (J. Dean and L. Barroso, "The Tail at Scale", CACM 2013); few are, so that a store that is slow
as a whole is not loaded twice.
"""

from __future__ import annotations

import math
import statistics
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from time import monotonic
from typing import Any

MAX_IN_FLIGHT, MIN_IN_FLIGHT = 32, 16  # the latter also before anything is measured
NUM_MEASURED, ROUNDS_KEPT = 16, 8  # answers that make a round of measuring, and rounds whose best counts
SLOW_DOWN = {429, 503}
NUM_RECENT, MIN_RECENT = 64, 8  # requests that the median is taken of, and how many it needs
HEDGE_FLOOR_S = 0.25
HEDGED_SHARE, HEDGED_FREE = 0.05, 4  # second requests, of all: at most this share, besides the first few


class Pace:
    """The requests of one process to one store; threads share it."""

    def __init__(self):
        self.limit = float(MAX_IN_FLIGHT)  #: by what the store asks for
        self.useful = MIN_IN_FLIGHT  #: by what is measured
        self.num_in_flight = 0
        self.num_requests = self.num_hedged = 0
        self._recent: deque[float] = deque(maxlen=NUM_RECENT)
        self._round = _Round()
        self._rounds: deque[_Round] = deque(maxlen=ROUNDS_KEPT)
        self._changed = threading.Condition()

    @contextmanager
    def slot(self):
        """Wait until one more request may be in flight; hold its place."""
        with self._changed:
            if self.num_in_flight >= self.in_flight_limit:
                self._round.was_full = True
                self._changed.wait_for(lambda: self.num_in_flight < self.in_flight_limit)
            self.num_in_flight += 1
            self.num_requests += 1
        try:
            yield
        finally:
            with self._changed:
                self.num_in_flight -= 1
                if self.num_in_flight < self.in_flight_limit:
                    self._changed.notify()

    @property
    def in_flight_limit(self) -> int:
        """How many requests may be in flight now."""
        return max(1, min(int(self.limit), self.useful))

    def succeeded(self, seconds: float, nbytes: int) -> None:
        """Note a request that was answered: one more may be in flight after ``limit`` of them."""
        with self._changed:
            limit = self.in_flight_limit
            self._recent.append(seconds)
            self.limit = min(float(MAX_IN_FLIGHT), self.limit + 1.0 / self.limit)
            self._round.answers.append((seconds, nbytes))
            if len(self._round.answers) == NUM_MEASURED:
                if self._round.was_full:  # else the rate is the consumer's, not the store's
                    self._measure(self._round)
                self._round = _Round()
            self._changed.notify(max(0, self.in_flight_limit - limit))  # who holds a slot now wakes another when it gives it back

    def _measure(self, full: _Round) -> None:
        full.end()
        self._rounds.append(full)
        alike = [each for each in self._rounds if each.mean_nbytes <= 2 * full.mean_nbytes <= 4 * each.mean_nbytes]
        wanted = 2.0 * max(each.rate for each in alike) * min(each.typical_s for each in alike)
        self.useful = min(MAX_IN_FLIGHT, max(MIN_IN_FLIGHT, math.ceil(wanted)))

    def slow_down(self) -> None:
        """Note that the store asked for fewer requests."""
        with self._changed:
            self.limit = max(1.0, self.limit / 2)

    def hedge_after_s(self, factor: float) -> float | None:
        """Return how long to wait before a second request, None when there must not be one."""
        with self._changed:
            if not factor or len(self._recent) < MIN_RECENT:
                return None
            if self.num_hedged >= HEDGED_FREE + HEDGED_SHARE * self.num_requests:
                return None
            return max(HEDGE_FLOOR_S, factor * statistics.median(self._recent))

    def count_hedged(self) -> None:
        with self._changed:
            self.num_hedged += 1


class _Round:
    """``NUM_MEASURED`` answers in a row: their rate, and the time that a typical one took."""

    def __init__(self):
        self.began = monotonic()
        self.answers: list[tuple[float, int]] = []
        self.was_full = False  # whether a request had to wait for a slot

    def end(self) -> None:
        self.rate = len(self.answers) / max(monotonic() - self.began, 1e-6)
        self.mean_nbytes = sum(nbytes for _, nbytes in self.answers) / len(self.answers)
        self.typical_s = statistics.median(seconds for seconds, nbytes in self.answers if 2 * nbytes >= self.mean_nbytes)


def first_of(start: Callable[[], Future], pace: Pace, factor: float, timeout_s: float) -> Any:
    """Return the result of ``start()``, or of a second one begun when the first is late; the other is given up.

    Raises:
        TimeoutError: neither was done after ``timeout_s``.
        Exception: what the last one to fail raised.
    """
    end = monotonic() + timeout_s
    after_s = pace.hedge_after_s(factor)
    first = start()
    pending = {first}
    try:
        try:
            result = first.result(timeout_s if after_s is None else min(after_s, timeout_s))
            pending.clear()
            return result
        except FutureTimeout:
            if first.done():  # and this is its own error
                raise
        if monotonic() < end:
            pace.count_hedged()
            pending.add(start())
        while True:
            done, pending = wait(pending, max(0.0, end - monotonic()), FIRST_COMPLETED)
            if not done:
                raise TimeoutError(f"no answer in {timeout_s:.0f} s")
            good = next((future for future in done if future.exception() is None), None)
            if good is not None or not pending:
                return (good or done.pop()).result()
    finally:
        for future in pending:
            future.cancel()

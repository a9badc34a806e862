"""How many requests are in flight, when a second one is sent, how long is waited before the next try: counted, on a clock of the test's own."""

import random
import threading
from concurrent.futures import Future
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from shardstream.config import RetryPolicy
from shardstream.errors import ChecksumError, ShardError, StorageError
from shardstream.storage import Fetcher, fetch, ranges, retry
from shardstream.storage import pace as paces
from shardstream.storage.pace import (
    HEDGE_FLOOR_S,
    HEDGED_FREE,
    HEDGED_SHARE,
    MAX_IN_FLIGHT,
    MIN_IN_FLIGHT,
    MIN_RECENT,
    NUM_MEASURED,
    Pace,
    first_of,
)
from shardstream.storage.retry import MAX_WRONG, attempt, backoff_s


class Clock:
    """Seconds that pass only when told to; stands for the time module, too."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(paces, "monotonic", clock.monotonic)
    monkeypatch.setattr(retry, "time", clock)
    return clock


class Holders:
    """Threads that take a slot each and hold it until let go."""

    def __init__(self, pace: Pace, count: int):
        self.num_held, self.most, self._let_go, self._changed = 0, 0, 0, threading.Condition()
        self._threads = [threading.Thread(target=self._hold, args=(pace,), daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _hold(self, pace: Pace) -> None:
        with pace.slot():
            with self._changed:
                self.num_held += 1
                self.most = max(self.most, self.num_held)
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._let_go > 0)
                self._let_go -= 1
                self.num_held -= 1
                self._changed.notify_all()

    def reach(self, num_held: int) -> bool:
        """Wait until so many hold a slot; return whether that came to be, and no more came within a moment."""
        with self._changed:
            return self._changed.wait_for(lambda: self.num_held >= num_held, 20) and not self._changed.wait_for(lambda: self.num_held > num_held, 0.1)

    def let_go(self, count: int) -> None:
        with self._changed:
            self._let_go += count
            self._changed.notify_all()

    def end(self, count: int) -> None:
        self.let_go(count)
        for thread in self._threads:
            thread.join(20)


def measured(pace: Pace, clock: Clock, seconds: float, per_s: float, nbytes: int = 1 << 20, is_full: bool = True) -> None:
    """A round of answers that took so long each and came at such a rate."""
    pace._round = paces._Round()
    pace._round.was_full = is_full
    clock.now += NUM_MEASURED / per_s
    for _ in range(NUM_MEASURED):
        pace.succeeded(seconds, nbytes)


def test_no_more_are_in_flight_than_allowed():
    """Of many threads as many hold a slot as are allowed, and the next gets in when one leaves."""
    pace = Pace()
    holders = Holders(pace, MIN_IN_FLIGHT + 5)
    assert holders.reach(MIN_IN_FLIGHT)
    holders.let_go(3)
    assert holders.reach(MIN_IN_FLIGHT) and holders.most == MIN_IN_FLIGHT
    holders.end(MIN_IN_FLIGHT + 2)
    assert pace.num_in_flight == 0 and pace.num_requests == MIN_IN_FLIGHT + 5


def test_slowing_down_halves_and_good_answers_restore():
    """Each 503 halves what may be in flight, down to one; a round trip of good answers at that limit allows one more."""
    pace, limits = Pace(), []
    for _ in range(7):
        pace.slow_down()
        limits.append(pace.in_flight_limit)
    assert limits == [16, 8, 4, 2, 1, 1, 1]
    holders = Holders(pace, 3)
    assert holders.reach(1)
    pace.succeeded(0.1, 10)  # one more may be in flight now, and who waits learns of it, though nobody has left
    assert holders.reach(2)
    holders.end(3)
    for _ in range(2000):
        pace.succeeded(0.1, 10)
    assert pace.limit == MAX_IN_FLIGHT


def test_what_is_useful_follows_from_rate_and_latency(clock):
    """Twice the best rate times the quickest round's latency, within 16 and 32; what the consumer's own pace was counts for nothing."""
    pace = Pace()
    measured(pace, clock, 0.1, per_s=99)
    assert pace.useful == 20
    measured(pace, clock, 0.1, per_s=129, is_full=False)
    assert pace.useful == 20
    measured(pace, clock, 0.1, per_s=129)
    assert pace.useful == 26
    measured(pace, clock, 0.4, per_s=119)  # a queue at the store makes answers late, no more of them useful
    assert pace.useful == 26
    for seconds, useful in ((5.0, MAX_IN_FLIGHT), (0.001, MIN_IN_FLIGHT)):
        other = Pace()
        measured(other, clock, seconds, per_s=99)
        assert other.useful == other.in_flight_limit == useful


def test_a_second_request_is_rare_and_late():
    """None before there is a median; then after a multiple of it, never at once; and few of all requests."""
    pace = Pace()
    for _ in range(MIN_RECENT):
        assert pace.hedge_after_s(5.0) is None
        pace.succeeded(0.3, 10)
    assert pace.hedge_after_s(5.0) == pytest.approx(1.5) and pace.hedge_after_s(0) is None
    quick = Pace()
    for _ in range(MIN_RECENT):
        quick.succeeded(0.001, 10)
    assert quick.hedge_after_s(5.0) == HEDGE_FLOOR_S
    num_hedged = 0
    for _ in range(1000):
        with pace.slot():
            if pace.hedge_after_s(5.0) is not None:
                pace.count_hedged()
                num_hedged += 1
    assert HEDGED_FREE < num_hedged <= HEDGED_FREE + HEDGED_SHARE * 1000 + 1


def hedging(*futures: Future):
    """Return a pace that hedges at once, the function that begins requests, and those it has begun."""
    pace, begun, left = Pace(), [], list(futures)
    pace.hedge_after_s = lambda factor: 0.01

    def start() -> Future:
        begun.append(left.pop(0))
        return begun[-1]

    return pace, start, begun


def done(result=None, error: Exception | None = None) -> Future:
    future: Future = Future()
    future.set_exception(error) if error is not None else future.set_result(result)
    return future


def test_the_first_good_answer_counts():
    """Whichever of two requests answers first is taken, an error waits for the other, and what is pending is given up."""
    slow = Future()
    pace, start, begun = hedging(slow, done(7))
    assert first_of(start, pace, 5.0, 10.0) == 7 and slow.cancelled() and pace.num_hedged == 1
    slow = Future()
    pace, start, begun = hedging(slow, done(error=OSError("reset")))
    threading.Timer(0.1, slow.set_result, (8,)).start()
    assert first_of(start, pace, 5.0, 10.0) == 8
    pace, start, begun = hedging(done(9))
    assert first_of(start, pace, 5.0, 10.0) == 9 and len(begun) == 1
    slow, other = Future(), Future()
    pace, start, begun = hedging(slow, other)
    with pytest.raises(TimeoutError):
        first_of(start, pace, 5.0, 0.05)
    assert slow.cancelled() and other.cancelled()


def test_waits_double_and_are_drawn():
    """The wait before try n is uniform in [0, 2 * mean], the mean doubling up to the longest wait: no two clients come back together."""
    policy = RetryPolicy(first_delay_s=0.1, max_delay_s=5.0)
    random.seed(1)
    for tried, mean in ((1, 0.1), (2, 0.2), (5, 1.6)):
        drawn = [backoff_s(policy, tried) for _ in range(2000)]
        assert 0 <= min(drawn) < 0.01 * mean and 1.9 * mean < max(drawn) <= 2 * mean
        assert sum(drawn) / 2000 == pytest.approx(mean, rel=0.1) and len(set(drawn)) > 1900
    assert max(backoff_s(policy, tried) for tried in range(1, 100)) == 5.0


@pytest.mark.parametrize("policy, num_tries", [
    (RetryPolicy(max_attempts=4), 4),
    (RetryPolicy(max_attempts=10**6, deadline_s=10.0, first_delay_s=0.1, max_delay_s=0.1), None),
    (RetryPolicy(deadline_s=0.0), 1),
])  # fmt: skip
def test_tries_end(clock, policy, num_tries):
    """A request that keeps failing ends after its tries or at its deadline, whichever comes first; a try knows what time is left."""
    left, began = [], clock.now

    def operation(timeout_s: float) -> None:
        left.append(timeout_s)
        clock.now += 0.01
        raise ConnectionResetError("reset")

    with pytest.raises(StorageError, match="reading x failed: ConnectionResetError: reset"):
        attempt(policy, "reading x", operation)
    assert clock.now - began <= policy.deadline_s + 0.01 and max(left) <= max(policy.deadline_s, 0.001)
    assert len(left) == num_tries if num_tries else len(left) > 50 and clock.now - began > 9


def test_an_upload_has_the_time_that_its_bytes_take(clock):
    """What is sent lengthens the deadline by a second a megabyte."""
    began = clock.now

    def operation(timeout_s: float) -> None:
        clock.now += 10
        raise ConnectionResetError("reset")

    with pytest.raises(StorageError):
        attempt(RetryPolicy(deadline_s=20.0), "writing x", operation, nbytes=100_000_000)
    assert 100 < clock.now - began <= 130


def test_wrong_bytes_are_believed_in_the_end(clock):
    """Bytes that are wrong ``MAX_WRONG`` times are the store's, however much time is left."""
    tries = []

    def operation(timeout_s: float) -> None:
        tries.append(timeout_s)
        raise ChecksumError("wrong")

    with pytest.raises(ChecksumError):
        attempt(RetryPolicy(), "reading x", operation, passing=ChecksumError)
    assert len(tries) == MAX_WRONG


@pytest.mark.parametrize("status, passes", [*((status, True) for status in (408, 409, 425, 429, 500, 502, 503, 504)),
                                            *((status, False) for status in (400, 401, 403, 404, 405, 410, 412, 416, 501))])  # fmt: skip
def test_which_answers_may_pass(status, passes):
    """Too many requests, conflicts and the server's own failures are asked again, refusals are not; a client's words for it change nothing."""
    assert retry.may_pass(ranges.HttpError("answered", status, None)) is passes
    wrapped = OSError("unlucky")
    wrapped.__cause__ = ranges.HttpError("answered", status, None)
    assert retry.may_pass(wrapped) is passes


def test_one_try_has_a_time_of_its_own(monkeypatch):
    """A range may take ``request_s`` a try, the rest of the deadline if that is less."""
    given = []

    def start_get(url: str, begin: int, end: int, storage_options: dict | None, timeout_s: float) -> Future:
        given.append(timeout_s)
        return done(np.zeros(end - begin, np.uint8))

    monkeypatch.setattr(fetch, "start_get", start_get)
    Fetcher(retry=RetryPolicy(request_s=3.0)).read("s3://bucket/s.tar", 0, 10)
    Fetcher(retry=RetryPolicy(request_s=3.0, deadline_s=2.0)).read("s3://bucket/s.tar", 0, 10)
    assert given[0] == 3.0 and 1.0 < given[1] <= 2.0


def test_a_body_cut_off_is_not_the_objects_end(monkeypatch):
    """Fewer bytes than asked for, once, are a lost connection; twice, the object ends there."""
    replies = [5, 10, 5, 5]
    monkeypatch.setattr(fetch, "start_get", lambda *request: done(np.zeros(replies.pop(0), np.uint8)))
    fetcher = Fetcher(retry=RetryPolicy(first_delay_s=0.001))
    assert len(fetcher.read("s3://bucket/s.tar", 0, 10)) == 10 and len(replies) == 2
    with pytest.raises(ShardError, match="truncated") as caught:
        fetcher.read("s3://bucket/s.tar", 0, 10)
    assert caught.value.offset == 5 and replies == []


def test_the_policy_is_frozen():
    """What a stream was given cannot change under it."""
    with pytest.raises(FrozenInstanceError):
        RetryPolicy().deadline_s = 1.0

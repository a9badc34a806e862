"""A dataset that grows, as a reader meets it: its log in segments of shards, read as entries come (``Follower``).

``order/follow.py`` is the arithmetic over segments, ``log/feed.py`` reads the entries. Here stands what lies between:
which entries make a segment (``Segmenter``, pure), the thread that polls the log (``Follower``), and the shards of the
segments that a process reads at the moment (``GrowingSource``).
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from shardstream.codecs.shard import ShardIndex
from shardstream.config import RetryPolicy, parse_seconds
from shardstream.errors import ConfigError, DatasetNotFoundError, ShardNotFoundError
from shardstream.locks import lazy
from shardstream.log import Log, ShardTable, Step
from shardstream.log.travel import canonical
from shardstream.order.state import Following, State
from shardstream.source import Source, logged_index, source_of_snapshot
from shardstream.storage import Fetcher, Store
from shardstream.storage.urls import names_shards

POLL_S, IDLE_POLL_S = 0.2, 1.0  # between two looks at the log; the wait doubles up to the second
IDLE_AFTER_S = 5.0  # without an entry
MAX_SEGMENTS = 1024  # known ahead of the position; a run that is further behind reads its log as it goes
SEGMENTS_AT_ONCE = 256  # read as one task: so there is always a next one known when it ends
CLOSE_S = 1.0  # for a look at the log that is under way


@dataclass(frozen=True)
class FollowOptions:
    """How a stream follows a dataset.

    Attributes:
        start: None (the newest version, then what comes), "beginning" (every entry by itself), "end" (only what comes),
            or a version: that version, then what came after it.
        until: Version after which the stream ends.
        group: Entries that add shards which make one segment.
        idle_timeout_s: Seconds without a whole batch after which the stream ends.
    """

    start: int | str | None = None
    until: int | None = None
    group: int = 1
    idle_timeout_s: float | None = None

    @classmethod
    def checked(cls, follow, start, until, follow_group, idle_timeout) -> FollowOptions | None:
        """Return the options, None of a stream that does not follow, or raise ConfigError."""
        if not isinstance(follow, bool):
            raise ConfigError(f"follow={follow!r} must be True or False.")
        if not follow:
            if (start, until, follow_group, idle_timeout) != (None, None, 1, None):
                raise ConfigError("start=, until=, follow_group= and idle_timeout= need follow=True.")
            return None
        if until is not None and (isinstance(until, bool) or not isinstance(until, int) or until < 0):
            raise ConfigError(f"until={until!r} must be the number of a version.")
        if isinstance(follow_group, bool) or not isinstance(follow_group, int) or follow_group < 1:
            raise ConfigError(f"follow_group={follow_group!r} must be an integer of at least 1.")
        if start is not None and start not in ("beginning", "end"):
            start = canonical(start)
        return cls(start, until, follow_group,
                   None if idle_timeout is None else parse_seconds(idle_timeout, "idle_timeout"))  # fmt: skip


    @property
    def starts_at_a_number(self) -> bool:
        """Whether processes that look at the log at different times begin at the same version."""
        return self.start == "beginning" or isinstance(self.start, int)

    def following(self, version: int) -> Following:
        """Return where a run stands that begins at ``version``."""
        return Following(version if self.start in ("beginning", "end") else None, 0, self.group)


def start_of(log: Log, options: FollowOptions, newest: Source) -> Source:
    """Return the version at which a run begins."""
    if options.start in (None, "end"):
        return newest
    # where nothing was there yet; gc may have given up version 0, and all of its shards still stand
    if options.start == "beginning":
        return replace(newest, version=0, num_samples=newest.num_samples[:0], nbytes=0)
    return source_of_snapshot(log.snapshot(options.start))


def followed_log(url: str | list[str], storage_options: dict | None, retry: RetryPolicy = RetryPolicy()) -> Log:
    """Return the log of the dataset at ``url``, which must be one; lists and folders of shards have none."""
    if not isinstance(url, str) or names_shards(url):
        raise ConfigError(f"follow=True needs the URL of a dataset; {url!r} names shards, and a list of "
                          "them does not grow.")  # fmt: skip
    return Log(Store(url, storage_options, retry))


@dataclass(frozen=True, eq=False)
class Segment:
    """Shards that are shuffled together.

    Attributes:
        after: The version behind which it begins; None if it is the whole dataset at ``version``.
        version: At which it ends.
        base: Cumulative position of its first sample.
        first_shard: Ordinal of its first shard, counted through this process's segments.
        time: When its last entry was committed, seconds since 1970.
        shards: What it has.
    """

    after: int | None
    version: int
    base: int
    first_shard: int
    time: float
    shards: ShardTable

    @lazy
    def end(self) -> int:
        """One past the cumulative position of its last sample."""
        return self.base + int(self.shards.num_samples.sum())


class Segmenter:
    """Entries in the order of the log to segments; pure, so every process makes the same.

    Args:
        url: Of the dataset.
        options: ``group`` and ``until``.
        after, base: The version behind which the first segment begins, and its cumulative position.
        first_end: The version at which the first segment ends, whatever the group, as a state that was saved says.
        next_shard: Ordinal of the first shard to come.
    """

    def __init__(self, url: str, options: FollowOptions, after: int, base: int, first_end: int | None = None,
                 next_shard: int = 0):  # fmt: skip
        self._url, self._options, self._after, self._first_end = url, options, after, first_end
        self.end, self.next_shard = base, next_shard
        self._tables: list[ShardTable] = []
        self.num_waiting = 0  #: samples of the group that is not whole yet
        self.is_over = False  #: nothing will come any more

    def begin_with(self, version: int, time_s: float, shards: ShardTable) -> Segment:
        """Return the segment of a whole version of the dataset, before all others."""
        return self._segment(None, version, time_s, shards)

    def add(self, step: Step) -> Segment | None:
        """Take in the next entry; return the segment that it completes."""
        entry = step.entry
        if entry.kind == "append" and len(step.added):
            self._tables.append(step.added)
            self.num_waiting += int(step.added.num_samples.sum())
        self.is_over = entry.kind == "end" or entry.version == self._options.until
        if self._first_end is not None:
            is_whole = entry.version == self._first_end
        else:
            is_whole = self.is_over or len(self._tables) == self._options.group
        if not self._tables or not is_whole:
            return None
        self._first_end = None
        segment = self._segment(self._after, entry.version, entry.time,
                                ShardTable.concatenate(self._tables).based(self._url))  # fmt: skip
        self._after, self._tables, self.num_waiting = entry.version, [], 0
        return segment if segment.end > segment.base else None

    def _segment(self, after: int | None, version: int, time_s: float, shards: ShardTable) -> Segment:
        segment = Segment(after, version, self.end, self.next_shard, time_s, shards)
        self.end = segment.end
        self.next_shard += len(shards)
        return segment


class GrowingSource:
    """The shards of the segments being read, to a BlockReader what a Source is; each process has its own.

    It travels to worker processes empty: which segments are read comes with each task.
    """

    def __init__(self, newest: Source):
        self.id, self.version, self.schema, self.time = newest.id, newest.version, newest.schema, newest.time
        self._held: tuple[Segment, ...] = ()

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_held": ()}

    def hold(self, segments: Sequence[Segment]) -> None:
        """Read these segments, and no others, from now on."""
        self._held = tuple(segments)

    @property
    def mean_sample_nbytes(self) -> float:
        num_samples = sum(segment.end - segment.base for segment in self._held)
        return sum(int(segment.shards.nbytes.sum()) for segment in self._held) / max(1, num_samples)

    @property
    def is_remote(self) -> bool:
        return "://" in self._held[0].shards.url(0)

    def explain_missing(self, shard: int, error: ShardNotFoundError) -> None:
        """Leave the error as it is: the follower explains it, which knows how to go on."""

    def _find(self, shard: int) -> tuple[ShardTable, int]:
        place = bisect_right(self._held, shard, key=lambda segment: segment.first_shard) - 1
        return self._held[place].shards, shard - self._held[place].first_shard

    def count(self, shard: int) -> int:
        table, row = self._find(shard)
        return int(table.num_samples[row])

    def url(self, shard: int) -> str:
        table, row = self._find(shard)
        return table.url(row)

    def load_index(self, shard: int, fetcher: Fetcher) -> ShardIndex:
        return logged_index(*self._find(shard), fetcher)


class Known(NamedTuple):
    """What a follower knows: the samples below cumulative position ``end``; whether the log has no more, and whether to
    stop.
    """

    end: int
    is_over: bool
    is_stopped: bool


class Follower:
    """Follows a dataset's log from a state on, in a thread of its own; a context manager.

    Args:
        log: Of the dataset.
        state: Where the run stands.
        options: ``until``; the group is the state's.
        next_shard: Ordinal of the first shard: none of an earlier follower's, since readers know shards by it.

    Raises:
        DatasetNotFoundError: The version that the run begins with has expired.
        ConfigError: ``until`` is a version that the run has passed.
    """

    def __init__(self, log: Log, state: State, options: FollowOptions, next_shard: int = 0):
        follow, version = state.follow, state.version
        if options.until is not None and options.until < version:
            raise ConfigError(f"until={options.until} has passed: the run stands at version {version}.")
        self._log, self._dataset, self._until = log, state.dataset, options.until
        options = FollowOptions(until=options.until, group=follow.group)
        self._segments: list[Segment] = []
        is_partial = follow.after is not None and follow.after < version
        after = follow.after if is_partial else version
        self._segmenter = Segmenter(log.store.url, options, after, follow.base, version if is_partial else None,
                                    next_shard)  # fmt: skip
        if follow.after is None or 0 < follow.after == version:
            self._begin_at(version, whole=follow.after is None)
        self._feed = log.feed(state.dataset, after)
        self._counter = log.feed(state.dataset, after)
        self._counted_from = self._num_counted = 0
        self._counting = threading.Lock()  # held while the counter reads, by whichever thread asks
        self._changed = threading.Condition()
        self._wanted, self._is_stopped, self._is_closed = 0, False, False
        self._has_caught_up = False  # has read the log to its end once
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="shardstream-follow", daemon=True)

    def _begin_at(self, version: int, whole: bool) -> None:
        snapshot = self._log.snapshot(version if whole else None)
        if whole and snapshot.num_samples:
            self._segments.append(self._segmenter.begin_with(version, snapshot.time, snapshot.shards))
        ended = snapshot.ended is not None and snapshot.ended <= version
        self._segmenter.is_over = ended or version == self._until

    def __enter__(self) -> Follower:
        self._thread.start()
        return self

    def __exit__(self, *exception) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join(CLOSE_S)

    # -- for the stream ---------------------------------------------------------------------------

    def wait(self, end: int, timeout_s: float | None) -> Known:
        """Wait until the samples below cumulative position ``end`` are known, all are, or it is time to stop.

        Raises what went wrong with reading the log, once what was known before is used up.
        """
        with self._changed:
            self._wanted = end
            self._changed.notify_all()

            def is_done() -> bool:
                return self._segmenter.end >= end or self._segmenter.is_over or self._is_stopped or self._error is not None

            self._changed.wait_for(lambda: is_done() or self._has_caught_up)  # what stands already is no waiting
            done = self._changed.wait_for(is_done, timeout_s)
            if self._segmenter.end < end and self._error is not None:
                raise self._error
            place = max(SEGMENTS_AT_ONCE - 1, bisect_left(self._segments, end, key=lambda segment: segment.end))
            known = self._segments[place].end if place < len(self._segments) else self._segmenter.end
            is_over = self._segmenter.is_over and known == self._segmenter.end
            return Known(known, is_over, self._is_stopped or not done)

    def stop(self) -> None:
        """End the waiting, now and later."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()

    @property
    def is_stopped(self) -> bool:
        return self._is_stopped

    @property
    def next_shard(self) -> int:
        """Ordinal that no shard has yet."""
        return self._segmenter.next_shard

    def segments(self, begin: int, end: int) -> tuple[Segment, ...]:
        """Return the segments that have positions in ``[begin, end)``."""
        with self._changed:
            return tuple(segment for segment in self._segments if segment.end > begin and segment.base < end)

    def last_consumed(self, position: int) -> Segment | None:
        """Return the segment of the sample before ``position``; None if this follower does not know it."""
        with self._changed:
            place = bisect_left(self._segments, position, key=lambda segment: segment.end)
            found = self._segments[place] if place < len(self._segments) else None
            return found if found is not None and found.base < position else None

    def forget(self, position: int) -> None:
        """Drop the segments that end before ``position``, but for that of the sample before it."""
        with self._changed:
            del self._segments[: bisect_left(self._segments, position, key=lambda segment: segment.end)]
            self._changed.notify_all()

    def num_committed(self) -> int:
        """Return the cumulative samples that the log has; what is too far ahead to be known is counted now, by reading
        it.
        """
        with self._changed:
            known, version = self._segmenter.end + self._segmenter.num_waiting, self._feed.version
            if self._segmenter.is_over or len(self._segments) < MAX_SEGMENTS:
                return known
        with self._counting:
            if self._counter.version <= version:
                self._counter, self._num_counted = self._log.feed(self._dataset, version), 0
                self._counted_from = known
            while steps := self._counter.read():
                self._num_counted += sum(int(step.added.num_samples.sum()) for step in steps
                                         if step.entry.kind == "append" and (self._until is None or step.entry.version <= self._until))  # fmt: skip
            return self._counted_from + self._num_counted

    def explain(self, error: ShardNotFoundError, position: int) -> None:
        """Add to the error of a missing shard why it is missing, if gc has given it up."""
        segment = next((segment for segment in self.segments(position, self._segmenter.end) if error.shard in segment.shards.urls), None)
        if segment is None:
            return
        try:
            self._log.snapshot(segment.version)
        except DatasetNotFoundError as found:
            error.message += (f" {found.message} This run had not come to it: start one without this state, at a version that is kept "
                              "(start=) or with start='end', and let gc keep versions for longer than a run may be behind.")  # fmt: skip

    # -- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        newest, wait_s = time.monotonic(), POLL_S
        try:
            while self._may_read():
                steps = self._feed.read()
                with self._changed:
                    for step in steps:
                        if not self._segmenter.is_over and (segment := self._segmenter.add(step)) is not None:
                            self._segments.append(segment)
                    self._changed.notify_all()
                    if steps:
                        newest, wait_s = time.monotonic(), POLL_S
                    elif time.monotonic() - newest > IDLE_AFTER_S:
                        wait_s = min(2 * wait_s, IDLE_POLL_S)
                    if not self._feed.is_behind:
                        self._has_caught_up = True
                        self._changed.notify_all()
                        self._changed.wait_for(lambda: self._is_closed, wait_s)
        except BaseException as error:  # raised by the stream, when it has used up what came before
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _may_read(self) -> bool:
        """Wait until there is room for more segments; False when there is nothing more to read, or nobody who wants it.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or len(self._segments) < MAX_SEGMENTS or self._segmenter.end < self._wanted)
            return not self._is_closed and not self._segmenter.is_over

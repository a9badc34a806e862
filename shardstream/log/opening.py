"""From a log in a store to its state, in two rounds of requests.

Round one: the hint ``_log/newest`` and entries 0 to 2 (a small dataset is done here). Round two:
the pieces (:mod:`shardstream.log.folds`) that make the version hinted at, and the entries above it
until one is absent. That is at most 4 + 6 + 4 = 14 requests, whatever the log's length. A lost hint costs
a search, a lost fold a few entries more; neither can change the answer, since what counts is
only that entries have no gap: the newest is the one whose successor is absent.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shardstream.errors import ConfigError, DatasetNotFoundError
from shardstream.log import entries, folds, travel
from shardstream.log.entries import Entry
from shardstream.log.state import State, Step, fold
from shardstream.storage.urls import not_found

HINT = f"{entries.FOLDER}/newest"  # the newest fold's number; 0 from entry 2 on, while there is none
HINT_ALL = f"{entries.FOLDER}/newest.all"  # the newest <n>.all: the spare of the hint
HINT_EXPIRED = f"{entries.FOLDER}/expired"  # the number of the newest expire entry, put before anything is deleted
MAX_READ_NBYTES = folds.MAX_FOLD_NBYTES + 1
NUM_AHEAD = folds.FINE  # entries read above the newest fold: one of them is absent when the hint is fresh
MAX_AHEAD = 16
NUM_PROBES = 16  # entries looked at together when one of a certain time is searched for

ReadMany = Callable[[Sequence[str]], list[bytes | None]]


class _Gap(Exception):
    """An entry that a version needs is absent, so there is no such version."""


@dataclass(frozen=True)
class Head:
    """The state after entry n, and the entries since the last multiple of 1,024, from which folds are made."""

    state: State
    recent: tuple[Step, ...]

    def after(self, steps: Sequence[Step]) -> Head:
        """Return the head with the entries that follow it."""
        state = fold(self.state, steps)
        base = state.version // folds.ALL * folds.ALL
        if base > self.state.version // folds.ALL * folds.ALL:
            state = state.compacted()
        return Head(state, tuple(step for step in (*self.recent, *steps) if step.entry.version > base))


class Opening:
    """One opening of a log: remembers what was fetched, what was absent, and which folds were lost.

    ``read_many(names)`` returns each object's bytes, or None for an absent one, in one round.
    ``where`` names the dataset in errors.
    """

    def __init__(self, read_many: ReadMany, where: str):
        self._read_many = read_many
        self._where = where
        self._objects: dict[str, bytes | None] = {}
        self._decoded: dict[str, State | list[Step]] = {}
        self._lost: set[str] = set()

    def newest(self) -> Head:
        """Return the head of the log as it is now.

        Raises:
            DatasetNotFoundError: there is no entry 0.
            DatasetError: an entry is malformed or of a newer format.
        """
        self._fetch([HINT, *(entries.name(version) for version in range(3))])
        self._first()
        present = next((version for version in (1, 2) if not self._exists(version)), 3) - 1
        if present < 2:
            return self._make(present)
        hint = self._number(HINT)
        if hint is None or hint % folds.FINE:
            hint = self._searched()
        try:
            return self._make(self._last_entry(hint))
        except _Gap:  # the hint is ahead of the log, or of another log
            return self._make(self._last_entry(0))

    def at(self, version: int) -> Head:
        """Return the head as it was after entry ``version``: one round of at most 8 requests; one more after a gc.

        Raises:
            DatasetNotFoundError: no such version, or it has expired.
        """
        self._fetch([entries.name(0), HINT_EXPIRED, *(name for _, _, name in folds.cover(version))])
        self._first()
        try:
            head = self._make(version)
        except _Gap as error:
            raise DatasetNotFoundError(f"the dataset at {self._where} has no version {version}.") from error
        if (number := self._number(HINT_EXPIRED)) is not None and self._fetched(number):
            expiry = self.entry(number)
            if expiry.kind == "expire" and version < expiry.below and version not in expiry.keep:
                raise self._expired(version, expiry.below)
        return head

    def named(self, name: str) -> Head:
        """Return the head that a tag names, or the one that was the newest at a time (:func:`travel.canonical`).

        Costs :meth:`newest` and the pieces of the version; a time also some rounds of 16 requests.

        Raises:
            DatasetNotFoundError: no such tag, the dataset began later, or the version has expired.
            ConfigError: the time has not come yet, so the version would be another one later.
        """
        newest, time_s = self.newest(), travel.moment(name)
        version = self._tagged(newest.state, name) if time_s is None else self._newest_at(newest.state, time_s)
        if newest.state.expired(version):
            raise self._expired(version, newest.state.expired_below)
        return newest if version == newest.state.version else self._make(version)

    def follow(self, head: Head) -> Head:
        """Return the newest head, knowing an older one: one request when nothing came since."""
        self._fetch([entries.name(head.state.version + 1)])
        if not self._exists(head.state.version + 1):
            return head
        newest = self._last_entry(head.state.version)
        if newest - head.state.version > MAX_AHEAD:
            return self._make(newest)
        return head.after([Step.of(self.entry(version)) for version in range(head.state.version + 1, newest + 1)])

    # -- finding the newest entry ------------------------------------------------------------

    def _last_entry(self, start: int) -> int:
        """Return the newest entry's number, from a ``start`` that is probably little below it.

        Reads windows of 4 and 16 entries ahead; after that, ``start`` was far off and it gallops.
        """
        self._fetch([name for _, _, name in folds.cover(start)] + _names(start + 1, NUM_AHEAD))
        width = NUM_AHEAD
        while True:
            self._fetch(_names(start + 1, width))
            for version in range(start + 1, start + width + 1):
                if not self._exists(version):
                    return version - 1
            start += width
            if width == MAX_AHEAD:
                start = self._galloped(start)
            width = min(width * 4, MAX_AHEAD)

    def _galloped(self, low: int) -> int:
        """Return an existing entry at most ``MAX_AHEAD`` below the newest: doubling steps, then halving."""
        step = MAX_AHEAD
        while self._fetched(low + step):
            low, step = low + step, step * 2
        while step > MAX_AHEAD:
            step //= 2
            if self._fetched(low + step):
                low += step
        return low

    def _fetched(self, version: int) -> bool:
        self._fetch([entries.name(version)])
        return self._exists(version)

    def _searched(self) -> int:
        """Return the newest fold's number when the hint is lost: from its spare, by halving over the tails."""
        self._fetch([HINT_ALL])
        base = self._number(HINT_ALL) or 0
        base -= base % folds.ALL
        for unit, above in ((folds.COARSE, folds.ALL), (folds.FINE, folds.COARSE)):
            low, high = 0, above // unit
            while high - low > 1:
                middle = (low + high) // 2
                name = entries.name(base + middle * unit, "tail")
                self._fetch([name])
                low, high = (low, middle) if self._objects[name] is None else (middle, high)
            base += low * unit
        return base

    # -- versions by name --------------------------------------------------------------------

    def _expired(self, version: int, below: int) -> DatasetNotFoundError:
        return DatasetNotFoundError(
            f"version {version} of the dataset at {self._where} has expired: gc gave up the versions below {below} that "
            "had no tag, and their shards may be gone."
        )

    def _tagged(self, state: State, name: str) -> int:
        if name not in state.tags:
            near = difflib.get_close_matches(name, state.tags, 1)
            there = f"did you mean {near[0]!r}?" if near else f"its tags are {sorted(state.tags)[:10]}." if state.tags else "it has none."
            raise DatasetNotFoundError(f"the dataset at {self._where} has no tag {name!r}; {there}")
        return state.tags[name]

    def _newest_at(self, newest: State, time_s: float) -> int:
        """Return the version that was the newest at a time."""
        if time_s > max(time.time(), newest.time):
            raise ConfigError(f"version={travel.iso(time_s)!r} is still to come, so it does not name a version yet.")
        if time_s < self._first().time:
            raise DatasetNotFoundError(f"the dataset at {self._where} began at "
                                       f"{travel.iso(self._first().time)}, after {travel.iso(time_s)}.")  # fmt: skip
        return self.last_version(newest, lambda versions: [self.entry(version).time <= time_s for version in versions])

    def last_version(self, newest: State, holds: Callable[[Sequence[int]], list[bool]]) -> int:
        """Return the last version of which a condition holds that holds of 0 and, once it fails, fails for good.

        ``holds(versions)`` is asked for up to 16 versions a round, whose entries have then been fetched.
        """
        low, high = 0, newest.version + 1
        while high - low > 1:
            step = max(1, -(-(high - low) // (NUM_PROBES + 1)))
            probes = list(range(low + step, high, step))
            self._fetch([entries.name(version) for version in probes])
            answers = holds(probes)
            passed = answers.index(False) if False in answers else len(probes)
            low, high = ([low, *probes][passed], [*probes, high][passed])
        return low

    # -- making a version --------------------------------------------------------------------

    def _make(self, version: int) -> Head:
        """Return the head at ``version`` from the best pieces that are whole; raises :class:`_Gap`."""
        while True:
            pieces = folds.cover(version, self._lost)
            self._fetch([name for _, _, name in pieces])
            lost = {name for begin, end, name in pieces if not self._decode(begin, end, name)}
            if not lost:
                break
            self._lost |= lost
        state, steps = None, []
        for _, _, name in pieces:
            decoded = self._decoded[name]
            if isinstance(decoded, State):
                state = decoded
            else:
                steps.extend(decoded)
        base = version // folds.ALL * folds.ALL
        return Head(fold(state, steps), tuple(step for step in steps if step.entry.version > base))

    def _decode(self, begin: int, end: int, name: str) -> bool:
        """Decode a fetched piece; False for a fold that is lost."""
        if name in self._decoded:
            return True
        data = self._objects[name]
        if name == entries.name(end):
            self._decoded[name] = [Step.of(self.entry(end))]
            return True
        if data is None:
            return False
        try:
            decoded = folds.decode_all(data, end) if begin < 0 else folds.decode_tail(data, begin, end)
        except folds.Lost:
            return False
        if (decoded if isinstance(decoded, State) else decoded[0].entry).dataset != self._first().dataset:
            return False  # left over from a dataset that stood here before
        self._decoded[name] = decoded
        return True

    # -- objects -----------------------------------------------------------------------------

    def _fetch(self, names: Sequence[str]) -> None:
        """Fetch the objects not yet known, in one round."""
        unknown = [name for name in dict.fromkeys(names) if name not in self._objects]
        if unknown:
            self._objects.update(zip(unknown, self._read_many(unknown), strict=True))

    def _exists(self, version: int) -> bool:
        return self._objects[entries.name(version)] is not None

    def entry(self, version: int) -> Entry:
        """Return an entry that has been fetched."""
        data = self._objects[entries.name(version)]
        if data is None:
            raise _Gap(version)
        return entries.decode(data, version)

    def _first(self) -> Entry:
        """Return entry 0, which says whether there is a dataset at all, and which."""
        if not self._exists(0):
            raise not_found(self._where, "no dataset")
        return self.entry(0)

    def _number(self, name: str) -> int | None:
        """Return the number in a fetched hint, None when it is absent or not one."""
        data = self._objects[name] or b""
        return int(data) if 0 < len(data) <= 20 and data.isdigit() else None


def beside(head: Head) -> list[tuple[str, bytes]]:
    """Return the ``(name, bytes)`` that the writer of the newest entry puts after it, in this order: fold, then hints.
    """
    state = head.state
    if state.version == 2:
        return [(HINT, b"0")]  # so that its absence means that it was lost
    if state.version == 0 or state.version % folds.FINE:
        return []
    begin, name = folds.piece(state.version)
    if begin < 0:
        data = folds.encode_all(state)
    else:
        data = folds.encode_tail(state.dataset, begin, [step for step in head.recent if step.entry.version > begin])
    if len(data) > folds.MAX_FOLD_NBYTES:
        return []
    number = b"%d" % state.version
    return [(name, data), (HINT, number), *([(HINT_ALL, number)] if begin < 0 else [])]


def _names(begin: int, count: int) -> list[str]:
    return [entries.name(version) for version in range(begin, begin + count)]

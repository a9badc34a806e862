"""The order over a dataset that grows: segments end to end, one cumulative position.

The first segment is the dataset at the version where the run starts (none with ``start="end"``); each entry
that adds shards, or each group of ``follow_group``, is a segment of its own. Cumulative position ``c`` is
position ``c - base`` of the segment that holds it, in lane ``c mod lanes``; so a reader keeps its lanes, a batch
may cross segments, and nothing depends on when an entry was seen.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from shardstream.errors import ConfigError
from shardstream.order.epoch import Chunk, EpochOrder, chunk_positions, normalize_seed


class Segment(NamedTuple):
    """Shards that are shuffled together.

    Attributes:
        version: At which the segment ends.
        base: Cumulative position of the first of its samples.
        first_shard: Ordinal of the first of its shards; they are numbered through all segments.
        order: Of the segment alone.
    """

    version: int
    base: int
    first_shard: int
    order: EpochOrder


class FollowOrder:
    """The segments known so far; append-only, and independent of when each was appended.

    To who reads, it is an order of one epoch: ``line`` and ``locate`` take cumulative positions, and a segment's
    samples lie on the line from its ``base`` on.

    Args:
        seed, lanes, window, shuffle: As of an EpochOrder. A segment's order is that of epoch ``version``, the
            version at which it ends.
        base: Cumulative position of the first segment appended: 0, or a saved one.
        first_shard: Ordinal of the first shard of the first segment appended.
    """

    def __init__(self, *, seed: int, lanes: int, window: int, shuffle: bool, base: int = 0, first_shard: int = 0):
        self._arguments = {"seed": seed, "lanes": lanes, "window": window, "shuffle": shuffle}
        self.seed, self.epoch, self.lanes, self.window = normalize_seed(seed), 0, lanes, window
        self.segments: list[Segment] = []
        self.num_samples, self._num_shards = base, first_shard

    def append(self, version: int, shard_num_samples) -> Segment:
        """Add the segment that ends at ``version``; its shards in the log's order. Returns it.

        Raises ConfigError if ``version`` is not above that of the segment before.
        """
        if self.segments and version <= self.segments[-1].version:
            raise ConfigError(f"version={version} must be above {self.segments[-1].version}, the last segment's.")
        order = EpochOrder(shard_num_samples, epoch=version, phase=self.num_samples % self.lanes, **self._arguments)
        self.segments.append(Segment(version, self.num_samples, self._num_shards, order))
        self.num_samples += order.num_samples
        self._num_shards += order.shard_num_samples.size
        return self.segments[-1]

    def forget(self, position: int) -> None:
        """Drop the segments that end at or before ``position``: a run of any length keeps only what it still reads."""
        self.segments = [segment for segment in self.segments if segment.base + segment.order.num_samples > position]

    def parts(self, positions: range) -> Iterator[tuple[Segment, range]]:
        """Yield ``(segment, its own positions)`` for ascending cumulative ``positions``.

        Raises IndexError if some are not there yet, or forgotten. The own positions go to
        ``segment.order.line`` and ``schedule.blocks``.
        """
        bases = [segment.base for segment in self.segments]
        while positions:
            index = bisect_right(bases, positions.start) - 1
            if index < 0 or positions[-1] >= self.num_samples:
                known = min(bases, default=self.num_samples)
                raise IndexError(f"positions {positions} are not all in [{known}, {self.num_samples}).")
            segment = self.segments[index]
            end = segment.base + segment.order.num_samples
            num = len(range(positions.start, min(positions.stop, end), positions.step))
            own, positions = positions[:num], positions[num:]
            yield segment, range(own.start - segment.base, own[-1] + 1 - segment.base, own.step)

    def chunks(self, positions: range, max_positions: int) -> Iterator[Chunk]:
        """Yield what ascending ``positions`` read: whole runs of a segment, or as many small segments as one window has
        samples.
        """
        size = self.window * max(1, max_positions // self.window)
        chunk: range | None = None
        for segment, own in self.parts(positions):
            for _, piece in chunk_positions(own, size, segment.order.num_samples):
                piece = range(piece.start + segment.base, piece.stop + segment.base, piece.step)
                if chunk is not None and piece.stop - chunk.start > size:
                    yield self._chunk(chunk)
                    chunk = None
                chunk = piece if chunk is None else range(chunk.start, piece.stop, piece.step)
        if chunk is not None:
            yield self._chunk(chunk)

    def _chunk(self, positions: range) -> Chunk:
        return Chunk(0, positions, *self.locate(self.line(positions.start, positions.stop, positions.step)))

    def line(self, begin: int, end: int, step: int = 1) -> np.ndarray:
        """Return int64: the line indices of the cumulative positions ``begin, begin + step, ...`` below ``end``."""
        parts = [segment.base + segment.order.line(own.start, own.stop, own.step)
                 for segment, own in self.parts(range(begin, end, step))]  # fmt: skip
        return np.concatenate([np.empty(0, np.int64), *parts])

    def locate(self, line_indices) -> tuple[np.ndarray, np.ndarray]:
        """Return ``(shard ordinal, row)``, both int64, of each line index."""
        line_indices = np.asarray(line_indices, np.int64)
        shard, row = np.empty_like(line_indices), np.empty_like(line_indices)
        # side="right" steps over empty segments, which begin where the next one does.
        places = np.searchsorted([segment.base for segment in self.segments], line_indices, side="right") - 1
        bounds = [0, *(np.flatnonzero(np.diff(places)) + 1).tolist(), len(places)]
        for begin, end in zip(bounds, bounds[1:]):
            if begin < end:
                segment, mine = self.segments[places[begin]], slice(begin, end)
                shard[mine], row[mine] = segment.order.locate(line_indices[mine] - segment.base)
                shard[mine] += segment.first_shard
        return shard, row

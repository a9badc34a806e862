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

from shardstream.errors import ConfigError
from shardstream.order.epoch import EpochOrder


class Segment(NamedTuple):
    """Shards that are shuffled together, and the cumulative position of the first of their samples."""

    version: int
    base: int
    order: EpochOrder


class FollowOrder:
    """The segments known so far; append-only, and independent of when each was appended.

    Args:
        seed, lanes, window, shuffle: As of an EpochOrder. A segment's order is that of epoch ``version``, the
            version at which it ends.
        base: Cumulative position of the first segment appended: 0, or a saved one.
    """

    def __init__(self, *, seed: int, lanes: int, window: int, shuffle: bool, base: int = 0):
        self._arguments = {"seed": seed, "lanes": lanes, "window": window, "shuffle": shuffle}
        self.lanes = lanes
        self.segments: list[Segment] = []
        self.num_samples = base

    def append(self, version: int, shard_num_samples) -> Segment:
        """Add the segment that ends at ``version``; its shards in the log's order. Returns it.

        Raises ConfigError if ``version`` is not above that of the segment before.
        """
        if self.segments and version <= self.segments[-1].version:
            raise ConfigError(f"version={version} must be above {self.segments[-1].version}, the last segment's.")
        order = EpochOrder(shard_num_samples, epoch=version, phase=self.num_samples % self.lanes, **self._arguments)
        self.segments.append(Segment(version, self.num_samples, order))
        self.num_samples += order.num_samples
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

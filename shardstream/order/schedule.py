"""Which block a reader needs, from which position until which: what to fetch next, what to drop.

A reader owns the positions of a ``range`` (``BatchPlan.all_positions``). It goes through the blocks of its
lanes in line order, all lanes at once; where inside a run a sample comes is the cipher's business, so a
block is needed from the first position of the first run that touches it to the end of the last.

The generators hold one entry a lane. They ask for a shard's blocks when a lane gets there, so an epoch
over a million shards starts at once; ``shards`` runs ahead of ``blocks`` to fetch the shards' indices.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from shardstream.order.epoch import EpochOrder


class Need(NamedTuple):
    """A block, or a whole shard, that a reader needs during ``[first_position, end_position)``.

    ``[line_begin, line_end)`` is all of it on the epoch line, also what belongs to other lanes. ``shard`` is
    the ordinal in the log; ``block`` is -1 for a whole shard. One that reaches into a second lane of the same
    reader comes once for each: the two may lie a whole epoch apart.
    """

    first_position: int
    end_position: int
    shard: int
    block: int
    line_begin: int
    line_end: int


BlockStarts = Callable[[int], np.ndarray]


def lanes_of(positions: range, lanes: int) -> dict[int, range]:
    """Return ``{lane: its positions among these}``, in the order of first touch."""
    period = lanes // math.gcd(positions.step, lanes)
    return {positions[i] % lanes: positions[i::period] for i in range(min(period, len(positions)))}


def readers_per_block(lanes: int, num_readers: int) -> int:
    """Return how many readers share one lane, and so fetch each of its blocks: 1 if lanes divide evenly.

    A block across the border of two lanes adds one reader.
    """
    return num_readers // math.gcd(num_readers, lanes)


def shards(order: EpochOrder, positions: range) -> Iterator[Need]:
    """Yield the shards that the owner of ``positions`` touches, by first need."""
    return _needs(order, positions, None)


def blocks(order: EpochOrder, positions: range, block_starts: BlockStarts) -> Iterator[Need]:
    """Yield the blocks that the owner of ``positions`` needs, by first need.

    Args:
        positions: Ascending. From ``num_samples`` on they stand for the epoch's start (``drop_last="pad"``).
        block_starts: From a shard's ordinal to int64[num_blocks + 1], the first row of each of its blocks and
            the shard's number of samples. Called when a lane reaches the shard.
    """
    return _needs(order, positions, block_starts)


def _needs(order: EpochOrder, positions: range, block_starts: BlockStarts | None) -> Iterator[Need]:
    num_inside = len(range(positions.start, min(positions.stop, order.num_samples), positions.step))
    lanes = lanes_of(positions[:num_inside], order.lanes)
    # merge() keeps the lanes' order among needs of one position, and starts all lanes at its first step.
    yield from heapq.merge(*(_lane_needs(order, lane, owned, block_starts) for lane, owned in lanes.items()),
                           key=lambda need: need.first_position)  # fmt: skip
    yield from _filling_needs(order, positions[num_inside:], block_starts)


def _lane_needs(order: EpochOrder, lane: int, owned: range, block_starts: BlockStarts | None) -> Iterator[Need]:
    """Yield what one lane needs: all runs from that of its first position to that of its last."""
    begin, _ = order.run_span(owned[0] // order.window, lane)
    _, end = order.run_span(owned[-1] // order.window, lane)
    lane_begin = int(order.lane_begin[lane])
    for shard, block, line_begin, line_end in spans(order, begin, end, block_starts):
        run = (max(line_begin, begin) - lane_begin) // order.run_length
        end_run = (min(line_end, end) - 1 - lane_begin) // order.run_length + 1
        first_position, end_position = run * order.window, end_run * order.window
        # Readers that share a lane without runs (shuffle=False) know which blocks hold nothing of theirs.
        if order.run_length == 1 and not _overlap(owned, first_position, end_position):
            continue
        yield Need(max(first_position, owned[0]), min(end_position, owned[-1] + 1), shard, block, line_begin, line_end)


def _overlap(owned: range, begin: int, end: int) -> bool:
    """Return whether one of ``owned`` lies in ``[begin, end)``."""
    index = max(0, -((owned.start - begin) // owned.step))
    return index < len(owned) and owned[index] < end


def _filling_needs(order: EpochOrder, filling: range, block_starts: BlockStarts | None) -> Iterator[Need]:
    """Yield what the positions from ``num_samples`` on need: single samples, each looked up."""
    needs: dict[tuple[int, int], Need] = {}
    for position, index in zip(filling, order.wrapped_line(filling).tolist(), strict=True):
        for shard, block, line_begin, line_end in spans(order, index, index + 1, block_starts):
            first_position = needs[shard, block].first_position if (shard, block) in needs else position
            needs[shard, block] = Need(first_position, position + 1, shard, block, line_begin, line_end)
    yield from needs.values()


def spans(
    order: EpochOrder, begin: int, end: int, block_starts: BlockStarts | None
) -> Iterator[tuple[int, int, int, int]]:
    """Yield ``(shard, block, line_begin, line_end)`` of all that overlaps ``[begin, end)`` of the line."""
    starts = order.shard_starts
    place = int(np.searchsorted(starts, begin, side="right")) - 1
    while begin < end:
        shard_begin, shard_end = int(starts[place]), int(starts[place + 1])
        shard = int(order.shard_permutation[place])
        place += 1
        if shard_begin == shard_end:
            continue
        if block_starts is None:
            yield shard, -1, shard_begin, shard_end
        else:
            yield from _spans_of_blocks(shard, shard_begin, begin, end, block_starts(shard))
        begin = shard_end


def _spans_of_blocks(shard: int, shard_begin: int, begin: int, end: int, starts) -> Iterator[tuple[int, int, int, int]]:
    first = int(np.searchsorted(starts, begin - shard_begin, side="right")) - 1
    for block in range(first, len(starts) - 1):
        line_begin, line_end = shard_begin + int(starts[block]), shard_begin + int(starts[block + 1])
        if line_begin >= end:
            return
        if line_begin < line_end:
            yield shard, block, line_begin, line_end

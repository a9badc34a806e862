"""Samples and blocks of a mixture: ``MixOrder``'s draws brought to its sources' epochs, shards and blocks.

A source's repetition ``i`` is an EpochOrder of its own; the caller gives it as a function of
``(source, repetition)``, with ``phase=mix.phase(source, repetition)`` and the source's ``epoch + i``.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from shardstream.order.epoch import EpochOrder
from shardstream.order.mix import MixOrder
from shardstream.order.schedule import lanes_of, spans

Orders = Callable[[int, int], EpochOrder]


class MixNeed(NamedTuple):
    """A ``schedule.Need`` of one source's repetition; positions are the mixture's, the line is the source's."""

    first_position: int
    end_position: int
    source: int
    repetition: int
    shard: int
    block: int
    line_begin: int
    line_end: int


def lines(mix: MixOrder, orders: Orders, positions: range) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ``(source, repetition, line)``, all int64: what stands at each of the mixture's ``positions``.

    ``line`` is the index on the epoch line of ``orders(source, repetition)``. One C call for each of these in
    the range; about 100 ns a position when a call spans many positions of each lane.
    """
    source, repetition, line = (np.empty(len(positions), np.int64) for _ in range(3))
    for one, turn, places, local in draws_by_epoch(mix, positions):
        source[places], repetition[places], line[places] = one, turn, orders(one, turn).lines(local)
    return source, repetition, line


def draws_by_epoch(mix: MixOrder, positions: range) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
    """Yield ``(source, repetition, places, local)``, repetitions ascending: what ``positions`` draw from each epoch.

    ``local`` are positions of that epoch, ``places`` says which of ``positions`` draw them. Both are lane by lane,
    since looking up what stands there is several times faster when neighbours are of one run.
    """
    source, course = np.empty(len(positions), np.int64), np.empty(len(positions), np.int64)
    lanes = lanes_of(positions, mix.lanes)
    places = np.concatenate(
        [np.arange(first, len(positions), len(lanes)) for first in range(len(lanes))] or [[]]
    ).astype(np.int64)
    done = 0
    for lane, owned in lanes.items():
        part = slice(done, done + len(owned))
        source[part], course[part] = mix.lane_draws(lane, owned)
        done = part.stop
    for one in range(mix.num_sources):
        of_source = np.flatnonzero(source == one)
        turns, local = np.divmod(course[of_source], mix.source_num_samples[one] or 1)
        for turn in np.unique(turns).tolist():
            mine = turns == turn
            yield one, turn, places[of_source[mine]], local[mine]


def shards(mix: MixOrder, orders: Orders, positions: range) -> Iterator[MixNeed]:
    """Yield the shards that the owner of ``positions`` touches, by first need; ``block`` is -1."""
    return _needs(mix, orders, positions, None)


def blocks(mix: MixOrder, orders: Orders, positions: range,
           block_starts: Callable[[int, int], np.ndarray]) -> Iterator[MixNeed]:  # fmt: skip
    """Yield the blocks that the owner of ``positions`` needs, by first need.

    ``block_starts(source, shard)`` is as in ``schedule.blocks``. Memory is one entry for each lane and source.
    """
    return _needs(mix, orders, positions, block_starts)


def _needs(mix: MixOrder, orders: Orders, positions: range, block_starts) -> Iterator[MixNeed]:
    parts = [
        _lane_needs(mix, orders, source, lane, owned, block_starts)
        for lane, owned in lanes_of(positions, mix.lanes).items()
        for source in range(mix.num_sources)
    ]
    yield from heapq.merge(*parts, key=lambda need: need.first_position)


def _lane_needs(mix: MixOrder, orders: Orders, source: int, lane: int, owned: range, block_starts) -> Iterator[MixNeed]:
    """Yield what one lane needs of one source: the runs of its draws there, in all repetitions."""
    begin = int(mix.counts(lane, owned[0] // mix.lanes)[source])
    end = int(mix.counts(lane, owned[-1] // mix.lanes + 1)[source])
    num_samples, offset = mix.source_num_samples[source], mix.course_offset(source, lane)
    while begin < end:
        repetition, first = divmod(offset + begin * mix.lanes, num_samples)
        draws = range(begin, min(end, begin - (first - num_samples) // mix.lanes))
        yield from _run_needs(mix, orders(source, repetition), (source, repetition), lane, owned, draws, block_starts)
        begin = draws.stop


def _run_needs(mix: MixOrder, order: EpochOrder, which: tuple[int, int], lane: int, owned: range, draws: range,
               block_starts) -> Iterator[MixNeed]:  # fmt: skip
    """Yield what a lane needs for ``draws`` of one repetition of a source."""
    source, repetition = which
    offset = mix.course_offset(source, lane) - repetition * order.num_samples
    local_lane, depth = (offset + draws[0] * mix.lanes) % mix.lanes, (offset + draws[0] * mix.lanes) // mix.lanes
    first_draw = draws[0] - depth  # of this repetition in this lane
    lane_begin, length = int(order.lane_begin[local_lane]), order.lane_length(local_lane)
    begin, _ = order.run_span(depth // order.run_length, local_lane)
    _, end = order.run_span((depth + len(draws) - 1) // order.run_length, local_lane)
    starts = None if block_starts is None else lambda shard: block_starts(source, shard)
    for shard, block, line_begin, line_end in spans(order, begin, end, starts):
        run = (max(line_begin, begin) - lane_begin) // order.run_length
        end_run = (min(line_end, end) - 1 - lane_begin) // order.run_length + 1
        first = max(first_draw + run * order.run_length, draws[0])
        last = min(first_draw + min(end_run * order.run_length, length) - 1, draws[-1])
        first_position = max(mix.position_of(source, lane, first), owned[0])
        end_position = min(mix.position_of(source, lane, last), owned[-1]) + 1
        yield MixNeed(first_position, end_position, source, repetition, shard, block, line_begin, line_end)

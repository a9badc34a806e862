"""Rows of a mixture in the order of its positions, chunk by chunk, for ``window.WindowReader`` (``MixRows``).

Sources draw at their own pace, so a chunk of the mixture does not consist of whole runs of any of them. Each lane is
in one run of each source; the rows of that run are named with every chunk until the lane has gone on to the next,
so that the blocks of a run are read once, when it begins, however rarely its source is drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from shardstream.order.epoch import Chunk, EpochOrder, chunk_positions
from shardstream.order.mix import MixOrder
from shardstream.order.mix_schedule import Orders, draws_by_epoch
from shardstream.order.mix_state import MixState
from shardstream.order.schedule import spans

# a shard of a mixture is known as source * 2^25 + its ordinal in the source; 6 bits more are of sources
SHARD_BITS = 25
Run = tuple[int, int, int, int]  # source, repetition, number of the run, lane of the source


class MixRows:
    """What stands at each position of an epoch of a mixture: to a WindowReader what an EpochOrder is.

    Args:
        mix: The draws.
        orders: From ``(source, repetition)`` to the order of that epoch of the source. It may be asked for a repetition
            again at any time, and gives equal orders then.

    All that is asked of a source is this: a number of samples, and for each of its epochs an order with ``lines``,
    ``locate``, ``run_span`` and the sources' common lanes.
    """

    def __init__(self, mix: MixOrder, orders: Orders):
        self._mix, self._orders = mix, orders
        self.seed, self.epoch, self.num_samples, self.lanes = mix.seed, mix.epoch, mix.num_samples, mix.lanes
        self.window = max(orders(source, 0).window for source in range(mix.num_sources))

    def chunks(self, positions: range, max_positions: int) -> Iterator[Chunk]:
        """Yield what ascending ``positions`` read, about ``max_positions`` of the job a chunk.

        Positions from ``num_samples`` on begin the epoch again (``drop_last="pad"``).
        """
        size = self.lanes * max(1, max_positions // self.lanes)
        running: dict[tuple[int, int], Run] = {}  # by source and lane of the mixture: the run it is in
        rows_of_run: dict[Run, list[tuple[int, int, int]]] = {}
        for epoch_begin, own in chunk_positions(positions, size, self.num_samples):
            shard, row, touched = np.empty(len(own), np.int64), np.empty(len(own), np.int64), dict.fromkeys(running.values())
            for source, repetition, places, local in draws_by_epoch(self._mix, own):
                order = self._orders(source, repetition)
                ordinals, row[places] = order.locate(order.lines(local))
                shard[places] = source << SHARD_BITS | ordinals
                phase = self._mix.phase(source, repetition)
                for code in np.unique(local // order.window * self.lanes + local % self.lanes).tolist():
                    number, lane = divmod(code, self.lanes)
                    touched[source, repetition, number, lane] = None
                    running[source, (lane + phase) % self.lanes] = source, repetition, number, lane
            rows_of_run = {run: rows_of_run.get(run) or self._rows_of(run) for run in touched}
            yield Chunk(epoch_begin, own, shard, row,
                        spans=[span for of_run in rows_of_run.values() for span in of_run])  # fmt: skip

    def _rows_of(self, run: Run) -> list[tuple[int, int, int]]:
        """Return ``(shard, first row, end row)`` of all that a run permutes."""
        source, repetition, number, lane = run
        order = self._orders(source, repetition)
        begin, end = order.run_span(number, lane)
        return [(source << SHARD_BITS | shard, max(begin, line_begin) - line_begin, min(end, line_end) - line_begin)
                for shard, _, line_begin, line_end in spans(order, begin, end, None)]  # fmt: skip


def mix_order(state: MixState, num_samples: Sequence[int]) -> MixOrder:
    """Return the draws of a state's epoch over sources with so many samples each."""
    return MixOrder(num_samples, seed=state.seed, epoch=state.epoch, lanes=state.lanes, pieces=state.pieces,
                    stop=state.stop)  # fmt: skip


def mix_rows(state: MixState, shard_num_samples: Sequence[np.ndarray]) -> MixRows:
    """Return the rows of a state's epoch over sources with shards of these sizes."""
    mix = mix_order(state, [int(counts.sum()) for counts in shard_num_samples])

    @lru_cache(maxsize=4 * len(state.sources))  # lanes may be in neighbouring repetitions of a small source
    def order(source: int, repetition: int) -> EpochOrder:
        one = state.sources[source]
        return EpochOrder(shard_num_samples[source], seed=one.seed, epoch=one.epoch + repetition, lanes=state.lanes, window=one.window,
                          shuffle=one.shuffle, phase=mix.phase(source, repetition))  # fmt: skip

    return MixRows(mix, order)

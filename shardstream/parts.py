"""Which blocks come by one request: a block that is needed, and those behind it in its lane (``PartPlanner``).

A lane goes through its interval of the epoch line once, so what follows a needed block in its shard is needed next,
however small the blocks are. A *part* is such neighbours together, up to ``memory_limit / (4 * lanes)`` bytes and
8 MiB: with a part in use and the next one on its way, all lanes hold half of the limit. Where a block is as large as
that, it is a part alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from shardstream.order.epoch import EpochOrder
from shardstream.reader import BlockReader
from shardstream.storage.fetch import MAX_GAP_NBYTES

MAX_PART_NBYTES = 8 * 2**20


class PartPlanner:
    """Finds the blocks that follow one in its lane.

    Args:
        reader: Knows the blocks.
        order: The epoch's order.
        num_lanes: Lanes that this reader owns.
        memory_limit_nbytes: Bound of block data held.
    """

    def __init__(self, reader: BlockReader, order: EpochOrder, num_lanes: int, memory_limit_nbytes: int):
        self._reader, self._order = reader, order
        self.nbytes = min(memory_limit_nbytes // (4 * max(1, num_lanes)), MAX_PART_NBYTES)

    def followers(self, shard: int, block: int, nbytes: int, row_end: int) -> Iterator[tuple[int, int]]:
        """Yield ``(block, nbytes of memory)`` of the neighbours that fit a part beside a block of ``nbytes``.

        ``row_end`` is the shard's first row that is not of the lane.
        """
        _, starts = self._reader.index(shard)
        _, end = self._reader.span(shard, block)
        for follower in range(block + 1, len(starts) - 1):
            if starts[follower] >= row_end:
                return
            size = self._reader.estimate_nbytes(shard, follower)
            begin, next_end = self._reader.span(shard, follower)
            if nbytes + size > self.nbytes or not 0 <= begin - end <= MAX_GAP_NBYTES:
                return
            yield follower, size
            nbytes, end = nbytes + size, next_end

    def last_position(self, shard_begin: int, lane: int, shard: int, block: int) -> int:
        """Return a position of the pass by which a block will have been needed, if it is at all.

        ``shard_begin`` is where the shard begins on the epoch line.
        """
        _, starts = self._reader.index(shard)
        last = min(shard_begin + int(starts[block + 1]),
                   int(self._order.lane_begin[lane]) + self._order.lane_length(lane)) - 1  # fmt: skip
        return ((last - int(self._order.lane_begin[lane])) // self._order.run_length + 1) * self._order.window

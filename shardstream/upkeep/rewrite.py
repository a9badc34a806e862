"""Shards rewritten: their samples, or some of them, in order, in new shards of the dataset (``Rewriter``).

Memory stays small: some blocks that were read ahead, and the block that is being filled.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from shardstream.codecs import rows
from shardstream.codecs.shard import MAX_BLOCK_NBYTES, MAX_BLOCK_SAMPLES
from shardstream.errors import StorageError
from shardstream.log import new_id
from shardstream.publish import PutShard, put_shard, temporary_path
from shardstream.reader import Block, BlockReader
from shardstream.shardfile import OpenBlock, ShardFile, block_ends
from shardstream.storage import Store
from shardstream.upkeep.ids import Runs, cut_runs, joined, runs_of

BLOCKS_AHEAD = 8  # read by as many threads while others are written


class Rewriter:
    """Writes samples of live shards into new ones and puts them; what is put is ``shards`` until :meth:`taken`.

    At the end of its ``with`` block it takes away what nobody has taken.

    Args:
        store: The dataset's.
        reader: Of the version whose shards are rewritten, all fields.
        shard_nbytes: A shard is full from this size on.
    """

    def __init__(self, store: Store, reader: BlockReader, shard_nbytes: int):
        self._store, self.reader, self._shard_nbytes = store, reader, shard_nbytes
        self._schema = reader.source.schema
        self._shard: ShardFile | None = None
        self._block, self._runs = OpenBlock(), []
        self.shards: list[PutShard] = []

    def __enter__(self) -> Rewriter:
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self.discard()

    @property
    def nbytes(self) -> int:
        """About the size of the shard being written."""
        return (0 if self._shard is None else self._shard.nbytes) + self._block.nbytes

    def add(self, shard: int, number: int, block: Block, dropped: np.ndarray | None = None) -> bool:
        """Append the samples of a block of a shard, but those of the shard's ascending rows ``dropped``.

        Returns whether it is the shard's last block.
        """
        index, starts = self.reader.index(shard)
        begin, end = int(starts[number]), int(starts[number + 1])
        runs = cut_runs(runs_of(self.reader.source, shard, index), begin, end)
        compression = "zstd" if any(column.endswith(".zst") for column in index.columns) else None
        gone = [] if dropped is None else (dropped[(dropped >= begin) & (dropped < end)] - begin).tolist()
        for low, high in zip([0, *(row + 1 for row in gone)], [*gone, end - begin]):
            if low < high:
                self._append(block, low, high, cut_runs(runs, low, high), compression)
        return number == index.num_blocks - 1

    def finish(self) -> None:
        """Finish the shard being written and put it."""
        self._close_block()
        if self._shard is not None:
            finished = self._shard.finish(joined(self._runs))
            self._shard, self._runs = None, []
            self._block.keys.clear()
            try:
                self.shards.append(put_shard(self._store, finished))
            except BaseException:
                if os.path.exists(finished.path):
                    os.unlink(finished.path)
                raise

    def taken(self) -> list[PutShard]:
        """Return the shards put so far, which are the caller's from now on."""
        taken, self.shards = self.shards, []
        return taken

    def discard(self) -> None:
        """Take away what was written and not :meth:`taken`; best effort, since gc takes the rest."""
        if self._shard is not None:
            self._shard.discard()
            self._shard = None
        self._block, self._runs = OpenBlock(), []
        try:
            self._store.delete(shard.name for shard in self.taken())
        except StorageError:
            pass

    # -- inside ----------------------------------------------------------------------------

    def _append(self, block: Block, begin: int, end: int, runs: Runs, compression: str | None) -> None:
        if self._schema is None:
            self._append_files(block.columns["__samples__"], begin, end, runs)
            return
        parts = {name: rows.rows_of_column(column, begin, end) for name, column in block.columns.items()}
        nbytes = np.sum([rows.row_nbytes(part) for part in parts.values()], axis=0)
        self._begin_shard(compression)
        at = 0
        for stop in [*block_ends(nbytes, self._block.nbytes, self._block.num_samples), end - begin]:
            if at < stop:
                rest = {name: rows.copy_part(rows.slice_part(part, at, stop)) for name, part in parts.items()}
                self._block.add(rest, stop - at, int(nbytes[at:stop].sum()))
            if self._block.nbytes >= MAX_BLOCK_NBYTES or self._block.num_samples >= MAX_BLOCK_SAMPLES:
                self._close_block()
            at = stop
        self._runs += runs

    def _append_files(self, samples, begin: int, end: int, runs: Runs) -> None:
        singly = ((sid, first + i, 1) for sid, first, count in runs for i in range(count))
        for row, run in zip(range(begin, end), singly, strict=True):
            key, fields = samples[row]
            if key in self._block.keys:  # a key may come once in a shard
                self.finish()
            self._begin_shard(None)
            members = [(f"{key}.{field}", bytes(data)) for field, data in fields.items()]
            self._block.add_files(key, members, sum(512 + -(-len(data) // 512) * 512 for _, data in members))
            self._runs.append(run)
            if self._block.nbytes >= MAX_BLOCK_NBYTES or self._block.num_samples >= MAX_BLOCK_SAMPLES:
                self._close_block()
        self._runs = joined(self._runs)

    def _begin_shard(self, compression: str | None) -> None:
        if self._shard is not None and self._shard.nbytes >= self._shard_nbytes:
            self.finish()
        if self._shard is None:
            sid = new_id()
            self._shard = ShardFile(temporary_path(self._store, sid), sid, self._schema, compression)

    def _close_block(self) -> None:
        if self._block.num_samples:
            self._block.write_to(self._shard, self._schema)


def read_ahead(reader: BlockReader, shards: Sequence[int]) -> Iterator[tuple[int, int, Block]]:
    """Yield ``(shard, number, block)`` of all blocks of some shards in order, a few of them read before they are asked
    for.
    """
    with ThreadPoolExecutor(BLOCKS_AHEAD, "shardstream-rewrite") as pool:
        waiting: deque = deque()
        for shard, num_blocks in _num_blocks(reader, shards, pool):
            for number in range(num_blocks):
                waiting.append((shard, number, pool.submit(reader.read, shard, number)))
                if len(waiting) >= BLOCKS_AHEAD:
                    yield _read(*waiting.popleft())
        while waiting:
            yield _read(*waiting.popleft())


def _read(shard: int, number: int, block: Future) -> tuple[int, int, Block]:
    return shard, number, block.result()


def _num_blocks(reader: BlockReader, shards: Sequence[int], pool: ThreadPoolExecutor) -> Iterator[tuple[int, int]]:
    indexes = deque(pool.submit(reader.index, shard) for shard in shards[:BLOCKS_AHEAD])
    for position, shard in enumerate(shards):
        index, _ = indexes.popleft().result()
        if position + BLOCKS_AHEAD < len(shards):
            indexes.append(pool.submit(reader.index, shards[position + BLOCKS_AHEAD]))
        yield shard, index.num_blocks

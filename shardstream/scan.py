"""All blocks of a source in the order of its rows, read ahead by threads: for what goes through a dataset once."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from shardstream.errors import ShardstreamError
from shardstream.reader import Block, BlockReader

THREADS = 8
BLOCKS_AHEAD = 16

Found = tuple[int, int, Block | ShardstreamError]


def scan(reader: BlockReader) -> Iterator[Found]:
    """Yield ``(shard, block, what it holds or the error it failed with)``; block -1 is a shard whose index can't be
    read.

    Memory is that of ``BLOCKS_AHEAD`` blocks.
    """
    ahead: deque[tuple[int, int, Future]] = deque()
    with ThreadPoolExecutor(THREADS, thread_name_prefix="shardstream-scan") as pool:
        try:
            for shard in range(reader.source.num_shards):
                try:
                    index, _ = reader.index(shard)
                except ShardstreamError as error:
                    yield from _finished(ahead, 0)
                    yield shard, -1, error
                    continue
                for block in range(index.num_blocks):
                    ahead.append((shard, block, pool.submit(reader.read, shard, block)))
                    yield from _finished(ahead, BLOCKS_AHEAD)
            yield from _finished(ahead, 0)
        finally:
            for _, _, future in ahead:
                future.cancel()


def blocks(reader: BlockReader) -> Iterator[tuple[int, int, Block]]:
    """Yield ``(shard, block, what it holds)``; the first error is raised."""
    for shard, block, found in scan(reader):
        if not isinstance(found, Block):
            raise found
        yield shard, block, found


def _finished(ahead: deque, num_left: int) -> Iterator[Found]:
    while len(ahead) > num_left:
        shard, block, future = ahead.popleft()
        try:
            yield shard, block, future.result()
        except ShardstreamError as error:
            yield shard, block, error

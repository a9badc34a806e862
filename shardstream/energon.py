"""Megatron-Energon's index of a tar shard: where each sample begins (``write_index``).

``<shard>.idx`` holds uint64 numbers, little-endian: the offset of each sample's first header, then the offset at
which the last member ends (as ``TarIndexWriter`` of Megatron-Energon 7 writes it).
"""

from __future__ import annotations

import numpy as np

from shardstream._native import tar
from shardstream.codecs.compression import detect
from shardstream.codecs.foreign import OpenShard
from shardstream.errors import ShardError
from shardstream.storage import Fetcher, Store

PIECE_NBYTES = 4 * 2**20


def sample_offsets(url: str, nbytes: int, fetcher: Fetcher) -> np.ndarray:
    """Return the uint64 numbers of Energon's index of a shard, which is read through once in pieces."""
    scanner, starts, end, position = tar.Scanner(0, url), [], 0, 0
    while True:
        piece = fetcher.read(url, position, min(position + PIECE_NBYTES, nbytes))
        if position == 0 and detect(piece[:16]) is not None:
            raise ShardError("the shard is compressed; Energon's index is of offsets in a plain tar.", shard=url)
        table = scanner.feed(piece, position, position + len(piece) == nbytes)
        members = table.members
        starts.append(members["begin"][(members["kind"] == tar.FIELD) & (members["starts_sample"] == 1)])
        if len(members):
            end = int(members["data_begin"][-1]) + -(-int(members["data_nbytes"][-1]) // tar.BLOCK_NBYTES) * tar.BLOCK_NBYTES
        if table.end != tar.MORE_INPUT:
            return np.concatenate([*starts, np.array([end], np.uint64)]).astype("<u8")
        position = scanner.offset


def write_index(shard: OpenShard, storage_options: dict | None = None) -> str:
    """Put ``<shard>.idx`` beside a shard and return its URL; a shard that was read before is read once more."""
    fetcher = Fetcher(storage_options)
    folder, _, name = shard.url.rpartition("/")
    store = Store(folder or "/", storage_options)
    store.put_bytes(f"{name}.idx", sample_offsets(shard.url, shard.nbytes, fetcher).tobytes())
    return store.join(f"{name}.idx")

"""What this machine can do at most: copies in memory, reads from the page cache, GETs from the store."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from shardstream.source import Source
from shardstream.storage import Fetcher
from shardstream.storage.urls import is_local

COPY_NBYTES, PASSES = 64 * 2**20, 3
PIECE_NBYTES = 8 * 2**20
MAX_NBYTES = 128 * 2**20  # read from disk or store
CONNECTIONS = 16


def memcpy_rate() -> float:
    """Return bytes a second of copying 64 MiB from memory to memory, the best of three."""
    source, target = np.ones(COPY_NBYTES, np.uint8), np.ones(COPY_NBYTES, np.uint8)
    return COPY_NBYTES / min(_seconds(lambda: np.copyto(target, source)) for _ in range(PASSES))


def read_rate(source: Source, storage_options: dict | None = None) -> tuple[str, float]:
    """Return what was read and its bytes a second: a local shard again (the page cache), or parallel GETs of 8 MiB."""
    shard = int(np.argmax(source.num_samples))
    url = source.url(shard)
    fetcher = Fetcher(storage_options)
    if is_local(url):
        nbytes = min(os.path.getsize(url), MAX_NBYTES)
        buffer = np.empty(nbytes, np.uint8)
        fetcher.read(url, 0, nbytes, lambda _: buffer)
        return "page cache", nbytes / min(_seconds(lambda: fetcher.read(url, 0, nbytes, lambda _: buffer)) for _ in range(PASSES))
    pieces = []
    for number in range(min(source.num_shards, CONNECTIONS)):
        size, _ = fetcher.identify(source.url(number))
        pieces += [(source.url(number), begin, min(begin + PIECE_NBYTES, size)) for begin in range(0, size, PIECE_NBYTES)]
    pieces = pieces[: MAX_NBYTES // PIECE_NBYTES]
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        fetcher.read(*pieces[0][:2], min(pieces[0][2], 4096))  # connections are made before the clock starts
        seconds = _seconds(lambda: list(pool.map(lambda piece: fetcher.read(*piece), pieces)))
    return f"{min(CONNECTIONS, len(pieces))} parallel GETs", sum(end - begin for _, begin, end in pieces) / seconds


def _seconds(call) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin

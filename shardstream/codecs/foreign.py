"""Shards named one by one: our own, or any WebDataset tar, which is counted once (docs/FORMAT.md, section 6).

``open_shards`` gives each its :class:`ShardIndex`: our own shards carry it, a foreign one's is made by reading
it through, and is remembered. Storage comes in as a fetcher; nothing here holds more than some pieces of
``PIECE_NBYTES`` a thread, and 24 bytes a sample.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from shardstream._native import tar
from shardstream._native.crc32c import crc32c
from shardstream.codecs import compression
from shardstream.codecs.counting import BlockCounter
from shardstream.codecs.shard import SHARD_MEMBER, ShardIndex, ShardInfo, find_index
from shardstream.errors import ChecksumError, ShardError
from shardstream.progress import byte_bar
from shardstream.schema import Schema
from shardstream.storage.urls import redact

logger = logging.getLogger("shardstream")

PIECE_NBYTES = 4 * 2**20
HEAD_NBYTES = 2**16  # holds shard.json of a schema with hundreds of fields
MAX_SHARD_JSON_NBYTES = 2**26
NUM_COUNTING = 8  # threads that read shards through; each holds a few pieces
NUM_LOOKING = 32  # threads that wait for small answers
RULES = 1  # which rules an index was made by; another number forgets what is remembered

Progress = Callable[[int], None]  # takes how many bytes were read since the last call; threads call it


class Fetches(Protocol):
    """What is asked of storage (``storage.Fetcher``)."""

    def identify(self, url: str) -> tuple[int, str | None]: ...

    def read(self, url: str, begin: int, end: int) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class OpenShard:
    """One shard of a list: where it is, its size, its schema (None: files layout) and its blocks."""

    url: str
    nbytes: int
    schema: Schema | None
    index: ShardIndex


def open_shards(
    urls: Sequence[str], fetcher: Fetches, progress: Progress | None = None, cache: IndexCache | None = None
) -> list[OpenShard]:
    """Return each shard with its index.

    Costs one request a shard to look at it, one for a foreign one not seen before (and then all its bytes), two
    for one of our own. Counting is announced by one logged line, and shown by a bar on a terminal unless
    ``progress`` takes its place.

    Raises:
        ShardNotFoundError: There is no such object.
        ShardError: A shard is damaged, no tar archive, or not as WebDataset wants it.
    """
    cache = IndexCache() if cache is None else cache
    with ThreadPoolExecutor(NUM_LOOKING, thread_name_prefix="shardstream-look") as pool:
        found = list(pool.map(fetcher.identify, urls))
        shards = list(pool.map(lambda url, identity: _look(fetcher, url, *identity, cache), urls, found))
    unknown = [i for i, shard in enumerate(shards) if shard is None]
    if unknown:
        todo = [(urls[i], *found[i]) for i in unknown]
        for i, shard in zip(unknown, _count_all(todo, fetcher, progress, cache), strict=True):
            shards[i] = shard
    return shards


class _Stopped(Exception):
    """Ends a counting thread after another has failed; nobody sees it."""


def _count_all(
    todo: list[tuple[str, int, str | None]], fetcher: Fetches, progress: Progress | None, cache: IndexCache
) -> list[OpenShard]:
    """Return the counted shards of ``(url, nbytes, tag)`` each, and tell the user what that takes."""
    nbytes, stop = sum(size for _, size, _ in todo), threading.Event()
    what = f"{len(todo)} shards" if len(todo) > 1 else "1 shard"
    logger.warning(
        f"counting the samples of {what} reads {_size_text(nbytes)} once (remembered in {cache.folder}); "
        f"`shardstream index {redact(todo[0][0])}` does it ahead of time"
    )

    def count(url: str, size: int, tag: str | None) -> OpenShard:
        index = _index_foreign(fetcher, url, size, step)
        cache.put(url, size, tag, index)
        return OpenShard(url, size, None, index)

    def step(num_read: int) -> None:
        if stop.is_set():
            raise _Stopped
        show(num_read)

    with byte_bar("counting", nbytes) if progress is None else contextlib.nullcontext(progress) as show:
        with ThreadPoolExecutor(NUM_COUNTING, thread_name_prefix="shardstream-count") as pool:
            try:
                return list(pool.map(lambda one: count(*one), todo))
            except BaseException:  # an interrupt too: the threads end at their next piece, not at their shard's end
                stop.set()
                raise


def _look(fetcher: Fetches, url: str, nbytes: int, tag: str | None, cache: IndexCache) -> OpenShard | None:
    """Return a shard that is our own or remembered; None for one that must be counted."""
    index = cache.get(url, nbytes, tag)
    if index is not None:
        return OpenShard(url, nbytes, None, index)
    head = fetcher.read(url, 0, min(nbytes, HEAD_NBYTES))
    return _open_own(fetcher, url, nbytes, head) if is_own(head) else None


def _size_text(nbytes: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if nbytes >= size:
            return f"{nbytes / size:.1f} {unit}"
    return f"{nbytes} bytes"


# -- our own shards -------------------------------------------------------------------------------


def is_own(head) -> bool:
    """Return whether an object's first 512 bytes are those of a shard that this library wrote."""
    head = bytes(head[: tar.BLOCK_NBYTES])
    return head[:100].rstrip(b"\0") == SHARD_MEMBER.encode() and head[257:262] == b"ustar"


def _open_own(fetcher: Fetches, url: str, nbytes: int, head: np.ndarray) -> OpenShard:
    """Return one of our own shards, by what stands at its two ends."""
    shard = redact(url)
    if len(head) < tar.BLOCK_NBYTES:
        raise ShardError("the shard is truncated within its first header.", shard=shard, offset=len(head))
    member = tar.Scanner(0, shard).feed(head[: tar.BLOCK_NBYTES], 0, False).members[0]
    begin, end = int(member["data_begin"]), int(member["data_begin"]) + int(member["data_nbytes"])
    if end > min(nbytes, MAX_SHARD_JSON_NBYTES):
        raise ShardError(
            f"the shard is truncated: it has {nbytes} bytes, and {SHARD_MEMBER} alone ends at {end}.",
            shard=shard,
            offset=begin,
        )
    text = (head[begin:end] if end <= len(head) else fetcher.read(url, begin, end)).tobytes()
    info = ShardInfo.decode(text, shard)
    index = _own_index(fetcher, url, nbytes)
    if index.sid != info.sid or index.shard_crc32c != crc32c(text) or index.layout != info.layout:
        raise ChecksumError(
            f"{SHARD_MEMBER} is not the one that the shard's index was written with.", shard=shard, offset=begin
        )
    return OpenShard(url, nbytes, None if info.schema is None else Schema.from_json(info.schema), index)


def _own_index(fetcher: Fetches, url: str, nbytes: int) -> ShardIndex:
    """Return the index at a shard's end, found from its last 64 kB or as much more as it takes."""
    tail_nbytes = HEAD_NBYTES
    while True:
        begin = max(0, (nbytes - tail_nbytes) // tar.BLOCK_NBYTES * tar.BLOCK_NBYTES)
        tail = fetcher.read(url, begin, nbytes).tobytes()
        if found := find_index(tail, begin):
            offset, size = found
            return ShardIndex.decode(tail[offset - begin : offset - begin + size], redact(url), nbytes)
        if begin == 0 or tail_nbytes >= MAX_SHARD_JSON_NBYTES:
            raise ShardError("the shard has no index at its end: it is truncated.", shard=redact(url), offset=nbytes)
        tail_nbytes *= 8


# -- foreign shards -------------------------------------------------------------------------------


def index_shard(fetcher: Fetches, url: str, progress: Progress | None = None) -> ShardIndex:
    """Return the index of a WebDataset tar, read through once, or the one that a shard of our own carries.

    A tar compressed as a whole (gzip, bzip2, xz, zstd) is one block. Memory stays within some pieces of 4 MiB,
    24 bytes a sample, and a decoder's window.

    Raises:
        ShardError: As :func:`open_shards`.
    """
    nbytes, _ = fetcher.identify(url)
    head = fetcher.read(url, 0, min(nbytes, HEAD_NBYTES))
    if is_own(head):
        return _open_own(fetcher, url, nbytes, head).index
    return _index_foreign(fetcher, url, nbytes, progress or (lambda nbytes: None))


def _index_foreign(fetcher: Fetches, url: str, nbytes: int, progress: Progress) -> ShardIndex:
    shard = redact(url)
    if nbytes == 0:
        raise ShardError("the shard is empty: not even a tar archive's end blocks are there.", shard=shard, offset=0)
    end = min(nbytes, PIECE_NBYTES)
    piece = fetcher.read(url, 0, end)
    progress(end)
    if kind := compression.detect(piece):
        return _index_compressed(fetcher, url, nbytes, kind, piece, progress)
    counter = BlockCounter(shard)
    counter.feed(piece, 0, end == nbytes)
    while end < nbytes:
        begin, end = counter.position, min(nbytes, counter.position + PIECE_NBYTES)
        counter.feed(fetcher.read(url, begin, end), begin, end == nbytes)
        progress(end - begin)
    index = counter.finish(
        lambda offset: _key_in(fetcher.read(url, offset, min(nbytes, offset + 2 * tar.MAX_PREFIX_NBYTES)), offset)
    )
    _warn_of_missing_end(counter, shard, nbytes)
    return index


def _index_compressed(
    fetcher: Fetches, url: str, nbytes: int, kind: str, first: np.ndarray, progress: Progress
) -> ShardIndex:
    """Return the index of a compressed tar, one block over the whole object, whose first piece was read."""
    shard, crc = redact(url), 0

    def compressed() -> Iterator[np.ndarray]:
        nonlocal crc
        crc = crc32c(first)
        yield first
        for begin in range(len(first), nbytes, PIECE_NBYTES):
            piece = fetcher.read(url, begin, min(nbytes, begin + PIECE_NBYTES))
            crc = crc32c(piece, crc)
            progress(len(piece))
            yield piece

    counter, rest, end = BlockCounter(shard, with_blocks=False), b"", 0
    for piece in compression.decompressed(compressed(), kind, shard=shard):
        if end == 0 and is_own(piece):
            raise ShardError(
                "this is a shard of our own, compressed as a whole; decompress it, its index is of the plain file.",
                shard=shard,
            )
        begin, end = end - len(rest), end + len(piece)
        piece = rest + piece
        counter.feed(piece, begin, False)
        rest = piece[counter.position - begin :]
    counter.feed(rest, end - len(rest), True)

    def key_at(offset: int) -> str | None:
        """Read the object again, up to there: only for the message of an error."""
        window, end = b"", 0
        for piece in compression.decompressed(compressed(), kind, shard=shard):
            window, end = (window + piece)[-2 * tar.MAX_PREFIX_NBYTES - compression.PIECE_NBYTES :], end + len(piece)
            if end >= offset + compression.PIECE_NBYTES:
                break
        return _key_in(window[offset - (end - len(window)) :], offset)

    counter.finish(key_at)
    _warn_of_missing_end(counter, shard, end)
    blocks = min(counter.num_samples, 1)
    extents = np.array([[[0, nbytes]]], np.int64)[:blocks]
    return ShardIndex(
        "files",
        ("",),
        np.array([counter.num_samples], np.int64)[:blocks],
        extents,
        np.array([[crc]], np.uint32)[:blocks],
    )


def _key_in(data, offset: int) -> str | None:
    """Return the key of the member whose first header begins ``data``, which stands at ``offset``."""
    table = tar.Scanner(offset).feed(data, offset, False)
    return table.key(0) if len(table) else None


def _warn_of_missing_end(counter: BlockCounter, shard: str, nbytes: int) -> None:
    if counter.end == tar.NO_END_BLOCKS:
        logger.warning(
            "%s has no end blocks at byte %d: its %d samples are whole, but more may have been cut off behind them.",
            shard,
            nbytes,
            counter.num_samples,
        )


# -- what was counted before ----------------------------------------------------------------------


class IndexCache:
    """Indexes of foreign shards, remembered on this machine by URL, size and etag (or time of change).

    One file of ``index.json``'s format each, in ``$XDG_CACHE_HOME/shardstream/indexes``. They are put by a rename
    and checked by their CRC when read, so other processes may use the folder, and a damaged file is as good as
    none. A folder that can't be written is not an error: shards are then counted each time.
    """

    def __init__(self, folder: str | os.PathLike | None = None):
        if folder is None:
            base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
            folder = os.path.join(base, "shardstream", "indexes")
        self.folder = Path(folder)

    def _path(self, url: str, nbytes: int, tag: str) -> Path:
        name = hashlib.sha256(
            "\0".join((url, str(nbytes), tag, str(RULES))).encode("utf-8", "surrogateescape")
        ).hexdigest()
        return self.folder / name[:2] / f"{name}.json"

    def get(self, url: str, nbytes: int, tag: str | None) -> ShardIndex | None:
        """Return what was put for exactly this object, or None."""
        if tag is None:
            return None
        try:
            return ShardIndex.decode(self._path(url, nbytes, tag).read_bytes(), redact(url), nbytes)
        except (OSError, ShardError):
            return None

    def put(self, url: str, nbytes: int, tag: str | None, index: ShardIndex) -> None:
        """Remember an index; without a tag that would tell another object of this size, nothing is kept."""
        if tag is None:
            return
        path = self._path(url, nbytes, tag)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(index.encode())
                os.replace(temporary, path)
            except BaseException:
                os.unlink(temporary)
                raise
        except OSError as error:
            logger.info("the index of %s is not remembered: %s", redact(url), error)

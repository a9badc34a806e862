"""Every byte of a dataset read once and compared with what is said of it (``verify``)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from shardstream.codecs.columns import decode_strings
from shardstream.codecs.foreign import open_shards
from shardstream.errors import CodecError, SchemaError, ShardstreamError
from shardstream.progress import byte_bar
from shardstream.reader import Block, BlockReader
from shardstream.scan import THREADS, scan
from shardstream.schema import Bytes, Schema, Text
from shardstream.source import Source, open_source
from shardstream.storage import Fetcher

MAX_ERRORS = 1000  # kept; all are counted


@dataclass
class Verified:
    """What was read, and what is wrong with it.

    Attributes:
        version: Of the dataset; None for a list of shards.
        num_samples: In blocks that are as they should be.
        nbytes: Bytes of the blocks read.
        num_bad: Shards and blocks that are not.
        errors: One for each of them, up to ``MAX_ERRORS``; each names its place.
    """

    version: int | None
    num_shards: int = 0
    num_blocks: int = 0
    num_samples: int = 0
    nbytes: int = 0
    num_bad: int = 0
    errors: list[ShardstreamError] = field(default_factory=list)

    def add(self, error: ShardstreamError) -> None:
        """Count what is bad, and keep the error if there are not too many."""
        self.num_bad += 1
        if len(self.errors) < MAX_ERRORS:
            self.errors.append(error)


def verify(url_or_urls, version: int | str | None = None, storage_options: dict | None = None) -> Verified:
    """Read all shards of a dataset, or of a list, and return what is wrong with them.

    Checked are the log (by opening it), each shard's index and schema against it, each block's CRC-32C, that each
    column decodes to as many rows as the index counts, and that texts are UTF-8. Blocks are read by several
    threads; memory is that of some blocks.

    Raises:
        DatasetError, DatasetNotFoundError: The log itself can't be read.
    """
    source = open_source(url_or_urls, version, storage_options)
    fetcher = Fetcher(storage_options)
    reader, done = BlockReader(source, None, fetcher), Verified(source.version, source.num_shards)
    unopened: set[int] = set()  # whose heads need no second error
    with byte_bar("verifying", source.nbytes) as advance:
        for shard, number, found in scan(reader):
            if isinstance(found, Block):
                found = _wrong_content(source, shard, number, found) or found
            if not isinstance(found, Block):
                done.add(found)
                unopened |= {shard} if number < 0 else set()
                continue
            begin, end = reader.span(shard, number)
            advance(end - begin)
            done.num_blocks += 1
            done.num_samples += found.num_samples
            done.nbytes += end - begin
    if source.schema is not None:  # shards of the files layout may be anybody's
        urls = [source.url(shard) for shard in range(source.num_shards) if shard not in unopened]
        with ThreadPoolExecutor(THREADS, thread_name_prefix="shardstream-verify") as pool:
            for error in pool.map(lambda url: _wrong_head(url, source.schema, fetcher), urls):
                if error is not None:
                    done.add(error)
    return done


def _wrong_head(url: str, schema: Schema, fetcher: Fetcher) -> ShardstreamError | None:
    """Return an error if a shard's first member is damaged, or its schema is not the dataset's."""
    try:
        (head,) = open_shards([url], fetcher)
    except ShardstreamError as error:
        return error
    if head.schema is None or not _fits(head.schema, schema):
        return SchemaError("the shard's own schema is not the dataset's.", shard=url)
    return None


def _fits(older: Schema, schema: Schema) -> bool:
    """Return whether a shard of one schema can be read under another, which may have more fields with a default."""
    return all(name in schema and schema[name] == kind for name, kind in older.items()) and all(
        name in older or kind.default is not None for name, kind in schema.items())  # fmt: skip


def _wrong_content(source: Source, shard: int, number: int, block: Block) -> ShardstreamError | None:
    """Return what reading rows one by one would run into, though the bytes are those that were written."""
    try:
        if source.schema is None:
            for _ in block.columns["__samples__"]:
                pass  # each parses its members' names
            return None
        for name, kind in source.schema.items():
            if isinstance(kind, (Text, Bytes)):
                decode_strings(kind, *block.columns[name])
    except (CodecError, ShardstreamError) as error:
        error.shard, error.block = error.shard or source.url(shard), number
        return error
    return None

"""Positions to delivered rows: the part of a stream that one process (or worker) does (``RowMaker``).

Blocks come from ``window.WindowReader``, become columns in ``assemble.BatchAssembler``, lose rows that could not
be read, and pass through the user's transform. Batches, ranks and epochs are ``stream.py``'s.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch

from shardstream._native.gather import Rows
from shardstream.assemble import BatchAssembler, SharedBatch
from shardstream.buffers import BufferPool
from shardstream.codecs import files
from shardstream.collate import collate_rows, column_length, split_rows, take_rows
from shardstream.config import ReadPolicy, checked_options, parse_nbytes
from shardstream.errors import CodecError, SampleError, ShardstreamError, TransformError
from shardstream.following import GrowingSource, Segment
from shardstream.forms import Forms
from shardstream.joined import JoinedReader, JoinedSource
from shardstream.order.batches import BatchPlan
from shardstream.order.epoch import EpochOrder
from shardstream.order.follow import FollowOrder
from shardstream.order.mix_rows import MixRows, mix_rows
from shardstream.order.mix_state import MixState
from shardstream.order.state import State
from shardstream.reader import Block, BlockReader
from shardstream.source import Source
from shardstream.storage import Cache, Fetcher
from shardstream.storage.secrets import pickled_options
from shardstream.transforms.marks import Place, row_errors
from shardstream.window import HeldChunk, Key, WindowReader

LOCAL_THREADS, REMOTE_THREADS = 2, 32  # remote: as many as requests may be in flight
ERRORS_KEPT = 100
PAD, SAMPLES = "__pad__", "__samples__"
NO_ROWS = Rows(np.empty(0, np.uint32), np.empty(0, np.uint32))


@dataclass(frozen=True)
class Recipe:
    """What to deliver of each row, and how to read it; the same in every process of a job."""

    fields: list[str] | None = None
    forms: Forms = Forms()
    transform: Callable | None = None
    on_error: str = "raise"
    allow_unsafe: bool = False
    read: ReadPolicy = field(default_factory=ReadPolicy)
    storage_options: dict | None = None
    pad: bool = False  # deliver the bool column __pad__
    as_samples: bool = False  # rows that are dicts already stay so, as the one column SAMPLES
    cache: Cache | None = None  # where remote blocks are kept

    def __post_init__(self):
        checked_options(self.storage_options)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "storage_options": pickled_options(self.storage_options)}

    def reader(self, source: Source | GrowingSource) -> BlockReader:
        """Return a reader of what the recipe needs; to be made in the process that reads."""
        return BlockReader(source, self.fields, Fetcher(self.storage_options, self.read.retry, self.cache))


@dataclass(frozen=True)
class Task:
    """The rest of an epoch on one rank: what a process needs, beside the recipe, to make its rows; small when pickled.

    Of a dataset that is followed it is what can be read now: ``segments`` are those that the plan's positions are in.
    """

    state: State | MixState
    plan: BatchPlan
    rank: int
    segments: tuple[Segment, ...] = ()

    def order(self, source: Source | GrowingSource | JoinedSource) -> EpochOrder | FollowOrder | MixRows:
        """Return the epoch's order over the shards of ``source``, which holds the task's segments from now on."""
        state = self.state
        if isinstance(state, MixState):
            return mix_rows(state, [one.num_samples for one in source.sources])
        if self.segments:
            source.hold(self.segments)
            first = self.segments[0]
            order = FollowOrder(seed=state.seed, lanes=state.lanes, window=state.window, shuffle=state.shuffle, base=first.base,
                                first_shard=first.first_shard)  # fmt: skip
            for segment in self.segments:
                order.append(segment.version, segment.shards.num_samples)
            return order
        return EpochOrder(source.num_samples, seed=state.seed, epoch=state.epoch, lanes=state.lanes, window=state.window,
                          shuffle=state.shuffle)  # fmt: skip

    def positions(self, worker: int = 0, num_workers: int = 1) -> range:
        """Return all positions of one worker of the rank."""
        return self.plan.all_positions(self.rank, worker, num_workers)

    def num_rows(self, worker: int = 0, num_workers: int = 1) -> Iterator[int]:
        """Return an iterator over how many of these each batch has."""
        return self.plan.nums_positions(self.rank, worker, num_workers)


@dataclass
class Report:
    """What a stream has lost so far; counts are of this rank.

    Attributes:
        num_skipped: Samples in blocks that could not be read, with a field that can't be decoded, or that ``transform``
            could not use (``on_error="skip"``).
        num_dropped: Samples for which ``transform`` returned None.
        errors: Messages of what was skipped, the first 100.
    """

    num_skipped: int = 0
    num_dropped: int = 0
    errors: list[str] = field(default_factory=list)

    def add(self, loss: Loss, max_skipped: int) -> None:
        """Count what a portion has lost; raise its first error if more than ``max_skipped`` samples are now skipped."""
        if not loss.num_skipped and not loss.num_dropped and not loss.errors:
            return
        self.num_skipped += loss.num_skipped
        self.num_dropped += loss.num_dropped
        for message in map(str, loss.errors):
            if len(self.errors) < ERRORS_KEPT and message not in self.errors:
                self.errors.append(message)
        if loss.num_skipped and self.num_skipped > max_skipped:
            error = loss.errors[0]
            error.message += f" (and {self.num_skipped} samples skipped exceed max_skipped={max_skipped})"
            raise error


@dataclass
class Loss:
    """What was lost of the rows of one portion."""

    num_skipped: int = 0
    num_dropped: int = 0
    errors: list[ShardstreamError] = field(default_factory=list)


@dataclass
class Portion:
    """What became of consecutive positions of one maker: a batch, or a worker's part of it.

    Attributes:
        columns: Of the rows that are left. Without rows it may have no columns.
        num_rows: Rows that are left.
        kept: int64, which of the positions these are, ascending; None: all of them.
        origins: Of columns that were collated from rows (``collate.py``); None for all others.
        loss: The rest.
    """

    columns: dict[str, Any]
    num_rows: int
    kept: np.ndarray | None = None
    origins: dict[str, str] | None = None
    loss: Loss = field(default_factory=Loss)

    def give_columns(self) -> dict[str, Any]:
        """Return the columns, and forget them."""
        columns, self.columns = self.columns, {}
        return columns

    def leave(self, left: np.ndarray | None, skipped: Sequence[ShardstreamError] = ()) -> None:
        """Note which of the rows a transform has left: int64, ascending; None for all. ``skipped`` is why some others
        could not be used.
        """
        if left is not None:
            self.loss.num_dropped += self.num_rows - len(left) - len(skipped)
            self.loss.num_skipped += len(skipped)
            self.loss.errors += skipped[:ERRORS_KEPT]
            self.kept = left if self.kept is None else self.kept[left]
            self.num_rows = len(left)


class _Piece(NamedTuple):
    """Rows of one chunk.

    Attributes:
        keys: The chunk's blocks.
        rows: Those that could be read.
        places: Of each row asked for, whether it could be read; None if the chunk had no unreadable block.
        content: Columns, or in the files layout samples, of ``rows``.
    """

    keys: list[Key]
    rows: Rows
    places: np.ndarray | None
    content: dict[str, Any] | list[dict[str, Any]]


class RowMaker:
    """Makes the rows of one ascending range of positions of an epoch.

    Args:
        reader: Reads the blocks; kept from epoch to epoch for its indexes and its memory.
        order: The epoch's order.
        positions: Those to make, in order; from ``order.num_samples`` on they are padding from the epoch's start.
        recipe: What to deliver.
        pool: Where the memory of what is delivered comes from; the reader's for batches by default.
        is_part: Other makers' rows will be joined to these (``merge.py``).
    """

    def __init__(self, reader: BlockReader | JoinedReader, order: EpochOrder | FollowOrder | MixRows, positions: range, recipe: Recipe,
                 pool: BufferPool | None = None, is_part: bool = False):  # fmt: skip
        self._source, self._order, self._recipe, self._stats = reader.source, order, recipe, reader.stats
        self._assembler = None
        self._transform_is_batched = getattr(recipe.transform, "shardstream_batched", False)
        pool = pool or reader.batches
        gathered = pool if recipe.transform is None else reader.batches  # what a transform is given it may keep
        self._empty = (gathered if self._transform_is_batched else pool).empty  # for what is collated
        if reader.source.schema is not None:
            self._assembler = BatchAssembler(reader.source.schema, reader.fields, recipe.forms, gathered, reader.outside)
        self._window = WindowReader(
            reader, order, positions.start, positions.step, positions.stop,
            parse_nbytes(recipe.read.memory_limit, "memory_limit"),
            recipe.read.threads or (REMOTE_THREADS if reader.source.is_remote else LOCAL_THREADS))  # fmt: skip
        self._transform_is_placed = getattr(recipe.transform, "shardstream_placed", False)
        self._is_plain = self._assembler is not None and recipe.transform is None and not recipe.pad  # rows go out as they come
        self._positions, self._num_made, self._is_part = positions, 0, is_part

    def make(self, num_rows: int) -> Portion:
        """Return what becomes of the next ``num_rows`` positions."""
        begin, self._num_made, loss = self._num_made, self._num_made + num_rows, Loss()
        pieces, whole, gather_s, kept, num_left = [], None, 0.0, None, num_rows
        while num_left:
            chunk, rows = self._window.take(num_left)
            begun, num_left = time.perf_counter(), num_left - rows.num_rows
            if num_left and whole is None and self._assembler is not None:
                whole = self._assembler.shared_batch(num_rows)
            pieces.append(self._piece(chunk, rows, loss, whole))
            gather_s += time.perf_counter() - begun
            del chunk  # for its blocks make room for those of the next one, which may be waited for now
        gathered = time.perf_counter()
        if loss.num_skipped:
            places = [np.ones(piece.rows.num_rows, bool) if piece.places is None else piece.places for piece in pieces]
            kept = np.concatenate(places).nonzero()[0]
        portion = Portion({}, num_rows if kept is None else len(kept), kept, None, loss)
        if self._assembler is not None:
            if len(pieces) == 1:
                portion.columns = pieces[0].content
            else:
                portion.columns = whole.joined([piece.content for piece in pieces]) if pieces else self._assembler.table(0).gather(NO_ROWS)
        if not self._is_plain:
            self._change(portion, pieces, begin)
        self._stats.add(gather=gather_s, transform=time.perf_counter() - gathered, num_rows=portion.num_rows)
        return portion

    def _change(self, portion: Portion, pieces: list[_Piece], begin: int) -> None:
        """Make of the rows that were read what is to be delivered; the first position is number ``begin`` of the maker's."""
        positions = is_pad = samples = None
        if self._recipe.pad or self._transform_is_placed:
            places = self._positions[begin : self._num_made]
            positions = np.arange(places.start, places.stop, places.step, np.int64)
            is_pad = positions >= self._order.num_samples if self._recipe.pad else None
            positions = positions if portion.kept is None else positions[portion.kept]
        if self._assembler is None:
            samples = [sample for piece in pieces for sample in piece.content]
        if self._recipe.transform is not None and not self._transform_is_batched:
            samples = self._transform_rows(portion, samples, pieces, positions)
        if samples is not None:
            self._set_columns(portion, samples, is_pad)
        if self._transform_is_batched and portion.num_rows:
            self._transform_columns(portion, positions, pieces, begin)
        if is_pad is not None and portion.columns and SAMPLES not in portion.columns:
            portion.columns[PAD] = torch.from_numpy(is_pad if portion.kept is None else is_pad[portion.kept])
            if portion.origins is not None:
                portion.origins[PAD] = "numbers"

    def _piece(self, chunk: HeldChunk, rows: Rows, loss: Loss, whole: SharedBatch | None) -> _Piece:
        """Return what becomes of some rows of one chunk, whose blocks may then go; they are the next ones of ``whole``, if that is given."""
        is_readable = None
        if chunk.num_failed:
            is_readable = self._readable(chunk, rows, loss)
            rows = rows if is_readable.all() else Rows(rows.slot[is_readable], rows.row[is_readable])
        if self._assembler is None:
            return self._decoded(chunk, rows, is_readable, loss)
        if chunk.table is None:
            chunk.table = self._assembler.table(len(chunk.keys))
        if chunk.table.num_added < len(chunk.blocks):
            for block in chunk.blocks[chunk.table.num_added :]:
                chunk.table.add(block)
        content = chunk.table.gather(rows) if whole is None else chunk.table.gather_part(rows, whole)
        return _Piece(chunk.keys, rows, is_readable, content)

    def _set_columns(self, portion: Portion, samples: list[dict[str, Any]], is_pad: np.ndarray | None) -> None:
        """Make the samples that are left the portion's columns: collated, or as they are."""
        if not self._recipe.as_samples or self._transform_is_batched:
            portion.columns, portion.origins = collate_rows(samples, self._is_part and not self._transform_is_batched, self._empty)
            return
        if is_pad is not None:
            flags = is_pad if portion.kept is None else is_pad[portion.kept]
            samples = [{**sample, PAD: torch.tensor(bool(flag))} for sample, flag in zip(samples, flags)]
        portion.columns, portion.origins = {SAMPLES: samples}, {SAMPLES: "items"}

    def close(self) -> None:
        self._window.close()

    def __enter__(self) -> RowMaker:
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def _readable(self, chunk: HeldChunk, rows: Rows, loss: Loss) -> np.ndarray:
        """Return of each row whether its block is readable; raise the first error unless skipping is allowed."""
        failed = [slot for slot in np.unique(rows.slot).tolist() if not isinstance(chunk.blocks[slot], Block)]
        if failed and self._recipe.on_error == "raise":
            raise chunk.blocks[failed[0]]
        is_readable = ~np.isin(rows.slot, failed)
        loss.num_skipped += int((~is_readable).sum())
        loss.errors += [chunk.blocks[slot] for slot in failed[:ERRORS_KEPT]]
        return is_readable

    def _decoded(self, chunk: HeldChunk, rows: Rows, is_readable: np.ndarray | None, loss: Loss) -> _Piece:
        """Return samples of the files layout, each field decoded as WebDataset decodes it; raise for one that can't be
        unless skipping is allowed.
        """
        samples, failed = [], []
        for number, (slot, row) in enumerate(zip(rows.slot.tolist(), rows.row.tolist())):
            key, members = chunk.blocks[slot].columns["__samples__"][row]
            try:
                samples.append(files.decode_sample(key, members, self._recipe.fields, self._recipe.allow_unsafe))
            except ShardstreamError as error:
                shard, error.block = chunk.keys[slot]
                error.shard = self._source.url(shard)
                # pickle is the user's to allow
                if self._recipe.on_error == "raise" or not isinstance(error, (CodecError, SampleError)):
                    raise
                failed.append(number)
                loss.errors += [error][: ERRORS_KEPT - len(loss.errors)]
        if not failed:
            return _Piece(chunk.keys, rows, is_readable, samples)
        loss.num_skipped += len(failed)
        left = np.setdiff1d(np.arange(rows.num_rows), failed)
        places = np.ones(rows.num_rows, bool) if is_readable is None else is_readable
        places[places.nonzero()[0][failed]] = False
        return _Piece(chunk.keys, Rows(rows.slot[left], rows.row[left]), places, samples)

    # -- the user's transform ---------------------------------------------------------------------

    def _transformed(self, rows: dict[str, Any], position: int | np.ndarray | None) -> Any:
        """Return what the transform makes of a sample or of columns, given what its marks ask for."""
        if self._transform_is_placed:
            return self._recipe.transform(rows, Place(self._order.seed, self._order.epoch, position))
        return self._recipe.transform(rows)

    def _transform_rows(self, portion: Portion, samples: list[dict[str, Any]] | None, pieces: list[_Piece],
                        positions: np.ndarray | None) -> list[dict[str, Any]]:  # fmt: skip
        """Call the transform on each sample; return those that are left, and note in ``portion`` which these are."""
        made, left, skipped = [], [], []
        for i, sample in enumerate(split_rows(portion.columns, portion.num_rows) if samples is None else samples):
            key = sample.get("__key__")
            try:
                sample = self._transformed(sample, None if positions is None else int(positions[i]))
            except Exception as error:
                failed = _transform_error(error, self._row_place(pieces, i, key))
                if self._recipe.on_error == "raise" or not isinstance(error, SampleError):
                    raise failed from error
                skipped.append(failed)
                continue
            if sample is None:
                continue
            if not isinstance(sample, dict):
                raise TransformError(f"transform must return a dict or None, not {type(sample).__name__}.",
                                     **self._row_place(pieces, i, key))  # fmt: skip
            made.append(sample)
            left.append(i)
        portion.leave(None if len(left) == portion.num_rows else np.array(left, np.int64), skipped)
        return made

    def _transform_columns(self, portion: Portion, positions: np.ndarray | None, pieces: list[_Piece],
                           begin: int) -> None:  # fmt: skip
        """Put the columns that a batched transform returns into ``portion``, and note which rows are left."""

        def refused(message: str, **places: Any) -> TransformError:
            asked, piece = self._positions[begin : self._num_made], next(piece for piece in pieces if piece.rows.num_rows)
            key = piece.content[0].get("__key__") if self._assembler is None else int(piece.rows.row[0])
            return TransformError(f"{message} (It was given {portion.num_rows} rows, of positions {asked[0]} to {asked[-1]} of epoch "
                                  f"{self._order.epoch}. The first of them is this one.)", key=key, **places, **self._place(pieces, 0))  # fmt: skip

        columns = self._transformed_columns(portion, positions, pieces, refused)
        if not portion.num_rows:  # none that it can use
            portion.columns, portion.origins = {}, None
            return
        left, num_rows = None, portion.num_rows
        if isinstance(columns, tuple) and len(columns) == 2:
            columns, mask = columns
            mask = np.asarray(mask)
            if mask.dtype != np.bool_ or mask.shape != (num_rows,):
                raise refused(f"a batched transform's second result must be {num_rows} bools, which rows are left.")
            left = mask.nonzero()[0]
            num_rows = len(left)
        if not isinstance(columns, dict):
            raise refused(f"a batched transform must return a dict of columns, not {type(columns).__name__}.")
        for name, column in columns.items():
            if column_length(column) != num_rows:
                raise refused(f"a batched transform must return tensors, arrays, ss.Jagged or lists of {num_rows} rows; to drop rows it returns "
                              "(columns, bools that say which of the rows it was given are left).", field=name)  # fmt: skip
        portion.columns, portion.origins = columns, None
        portion.leave(left)

    def _transformed_columns(self, portion: Portion, positions: np.ndarray | None, pieces: list[_Piece],
                             refused: Callable[[str], TransformError]) -> Any:  # fmt: skip
        """Return what a batched transform makes of the rows, without those that it can't use if these are to be
        skipped; None without rows.
        """
        number = np.arange(portion.num_rows)  # of each row among those of the pieces
        while portion.num_rows:
            try:
                return self._transformed(portion.columns, positions)
            except Exception as error:
                bad, keys = row_errors(error, portion.num_rows), portion.columns.get("__key__")
                failed = [_transform_error(one, self._row_place(pieces, int(number[row]), None if keys is None else keys[row]))
                          for row, one in bad.items()]  # fmt: skip
                if self._recipe.on_error == "raise" or not bad:
                    raise (failed or [refused(f"transform raised {type(error).__name__}: {error}")])[0] from error
            left = np.setdiff1d(np.arange(portion.num_rows), list(bad))
            portion.columns = {name: take_rows(column, left) for name, column in portion.columns.items()}
            number, positions = number[left], None if positions is None else positions[left]
            portion.leave(left, failed)
        return None

    def _place(self, pieces: list[_Piece], i: int) -> dict[str, Any]:
        """Return where row ``i`` of those that were read stands."""
        for piece in pieces:
            if i < piece.rows.num_rows:
                shard, block = piece.keys[int(piece.rows.slot[i])]
                return {"shard": self._source.url(shard), "block": block}
            i -= piece.rows.num_rows
        return {}

    def _row_place(self, pieces: list[_Piece], i: int, key: str | None) -> dict[str, Any]:
        """Return the same and which row it is: its key in the files layout, else its number in the block."""
        rows = [row for piece in pieces for row in piece.rows.row.tolist()]
        return {**self._place(pieces, i), "key": rows[i] if key is None else key}


def _transform_error(error: Exception, place: dict[str, Any]) -> TransformError:
    """Return what a stream raises, or counts, for what a transform has raised."""
    text = error.message if isinstance(error, ShardstreamError) else error
    field = error.field if isinstance(error, ShardstreamError) else None
    return TransformError(f"transform raised {type(error).__name__}: {text}", field=field, **place)

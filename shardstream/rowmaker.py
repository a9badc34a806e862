"""Positions to delivered rows: the part of a stream that one process (or worker) does (``RowMaker``).

Blocks come from ``window.WindowReader``, become columns in ``assemble.BatchAssembler``, lose rows that could not
be read, and pass through the user's transform. Batches, ranks and epochs are ``stream.py``'s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from shardstream.assemble import BatchAssembler, Jagged, collate_rows, split_rows
from shardstream.config import ReadPolicy, parse_nbytes
from shardstream.errors import SampleError, ShardstreamError, TransformError
from shardstream.order.epoch import EpochOrder
from shardstream.reader import Block, BlockReader
from shardstream.window import WindowReader

LOCAL_THREADS, REMOTE_THREADS = 2, 16
ERRORS_KEPT = 100
PAD = "__pad__"


@dataclass(frozen=True)
class Recipe:
    """What to deliver of each row, and how to read it; the same in every process of a job."""

    fields: list[str] | None = None
    sparse: str | dict[str, str] = "dense"
    dtypes: dict[str, Any] | None = None
    transform: Callable | None = None
    on_error: str = "raise"
    allow_unsafe: bool = False
    read: ReadPolicy = field(default_factory=ReadPolicy)
    storage_options: dict | None = None
    pad: bool = False  # deliver the bool column __pad__


@dataclass
class Report:
    """What a stream has lost so far; counts are of this rank.

    Attributes:
        num_skipped: Samples in blocks that could not be read (``on_error="skip"``).
        num_dropped: Samples for which ``transform`` returned None.
        errors: Messages of the unreadable blocks, the first 100.
    """

    num_skipped: int = 0
    num_dropped: int = 0
    errors: list[str] = field(default_factory=list)


class RowMaker:
    """Makes the rows of one ascending range of positions of an epoch.

    Args:
        reader: Reads the blocks; kept from epoch to epoch for its indexes and its memory.
        order: The epoch's order.
        positions: Those to make, in order; from ``order.num_samples`` on they are padding from the epoch's start.
        recipe: What to deliver.
        report: Losses are counted here.
    """

    def __init__(self, reader: BlockReader, order: EpochOrder, positions: range, recipe: Recipe, report: Report):
        self._reader, self._source, self._order, self._recipe, self.report = reader, reader.source, order, recipe, report
        self._assembler = None
        if reader.source.schema is not None:
            self._assembler = BatchAssembler(reader.source.schema, reader.fields, recipe.sparse, recipe.dtypes, reader.pool)
        self._window = WindowReader(
            reader, order, positions.start, positions.step, positions.stop,
            parse_nbytes(recipe.read.memory_limit, "memory_limit"),
            recipe.read.threads or (REMOTE_THREADS if "://" in reader.source.url(0) else LOCAL_THREADS))  # fmt: skip
        self._positions, self._num_made = positions, 0
        self._last: dict[str, Any] | None = None  # what a batch without rows should look like

    def make(self, num_rows: int) -> tuple[dict[str, Any], int]:
        """Return the columns of the next ``num_rows`` positions, and how many rows they still have."""
        slot, row = self._window.take(num_rows)
        is_pad = None
        if self._recipe.pad:
            first = self._positions.start + self._num_made * self._positions.step
            is_pad = np.arange(num_rows) * self._positions.step + first >= self._order.num_samples
        self._num_made += num_rows
        if self._window.table.num_failed:
            kept = self._readable(slot)
            slot, row, is_pad = slot[kept], row[kept], None if is_pad is None else is_pad[kept]
        if self._assembler is None:
            batch, num_left = self._make_files(slot, row)
        else:
            batch, num_left = self._assembler.assemble(self._window.table.blocks, self._window.table.generation, slot, row), len(slot)
        if is_pad is not None:
            batch[PAD] = torch.from_numpy(is_pad)
        if self._recipe.transform is not None:
            batch, num_left = self._transformed(batch, num_left, slot, row)
        if num_left:
            self._last = batch
        elif self._last is not None:
            batch = empty_like(self._last)
        return batch, num_left

    def close(self) -> None:
        self._window.close()

    def __enter__(self) -> RowMaker:
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def _readable(self, slot: np.ndarray) -> np.ndarray:
        """Return which rows have a readable block; raise the first error unless skipping is allowed."""
        blocks = self._window.table.blocks
        failed = [s for s in np.unique(slot).tolist() if not isinstance(blocks[s], Block)]
        kept = ~np.isin(slot, failed)
        for s in failed:
            if self._recipe.on_error == "raise":
                raise blocks[s]
            if len(self.report.errors) < ERRORS_KEPT and str(blocks[s]) not in self.report.errors:
                self.report.errors.append(str(blocks[s]))
        self.report.num_skipped += int((~kept).sum())
        if failed and self.report.num_skipped > self._recipe.read.max_skipped:
            error = blocks[failed[0]]
            error.message += f" (and {self.report.num_skipped} samples skipped exceed max_skipped={self._recipe.read.max_skipped})"
            raise error
        return kept

    def _make_files(self, slot: np.ndarray, row: np.ndarray) -> tuple[dict[str, Any], int]:
        """Return the batch of samples of the files layout, each field decoded as WebDataset decodes it."""
        from shardstream.codecs import files

        samples = []
        for s, r in zip(slot.tolist(), row.tolist()):
            key, members = self._window.table.blocks[s].columns["__samples__"][r]
            wanted = members if self._recipe.fields is None else self._recipe.fields
            sample = {"__key__": key}
            for name in wanted:
                if name not in members:
                    raise SampleError(f"the sample has the fields {sorted(members)}, not {name!r}.", key=key, field=name, **self._place(s))
                try:
                    sample[name] = files.decode_field(name, members[name], self._recipe.allow_unsafe)
                except ShardstreamError as error:
                    error.key, error.field = key, name
                    error.shard, error.block = self._place(s)["shard"], self._place(s)["block"]
                    raise
            samples.append(sample)
        return collate_rows(samples), len(samples)

    def _transformed(self, batch: dict[str, Any], num_rows: int, slot: np.ndarray, row: np.ndarray) -> tuple[dict[str, Any], int]:
        transform = self._recipe.transform
        if getattr(transform, "shardstream_batched", False):
            try:
                batch = transform(batch)
            except Exception as error:
                raise TransformError(f"transform raised {type(error).__name__}: {error}", **self._place(int(slot[0]))) from error
            num_left = num_rows_of(batch)
            self.report.num_dropped += num_rows - num_left
            return batch, num_left
        is_pad = batch.pop(PAD, None)
        samples, kept = [], []
        for i, sample in enumerate(split_rows(batch, num_rows)):
            try:
                sample = transform(sample)
            except Exception as error:
                raise TransformError(f"transform raised {type(error).__name__}: {error}", key=_key(sample, int(row[i])),
                                     **self._place(int(slot[i]))) from error  # fmt: skip
            if sample is not None:
                samples.append(sample)
                kept.append(i)
        self.report.num_dropped += num_rows - len(samples)
        batch = collate_rows(samples)
        if is_pad is not None:
            batch[PAD] = is_pad[kept]
        return batch, len(samples)

    def _place(self, slot: int) -> dict[str, Any]:
        shard, block = self._window.table.keys[slot]
        return {"shard": self._source.url(shard), "block": block}


def _key(sample: dict[str, Any], row: int) -> Any:
    return sample.get("__key__", row) if isinstance(sample, dict) else row


def empty_like(batch: dict[str, Any]) -> dict[str, Any]:
    """Return the columns of ``batch`` with no rows, of the same kinds and dtypes."""
    empty = {}
    for name, column in batch.items():
        if isinstance(column, Jagged):
            weights = None if column.weights is None else column.weights[:0]
            empty[name] = Jagged(column.values[:0], column.offsets[:1], weights)
        elif isinstance(column, torch.Tensor) and column.layout == torch.sparse_csr:
            empty[name] = torch.sparse_csr_tensor(column.crow_indices()[:1], column.col_indices()[:0], column.values()[:0],
                                                  size=(0, column.shape[1]))  # fmt: skip
        else:
            empty[name] = column[:0]
    return empty


def num_rows_of(batch: dict[str, Any]) -> int:
    """Return the rows of a batch of columns."""
    for column in batch.values():
        return len(column.offsets) - 1 if isinstance(column, Jagged) else len(column)
    return 0

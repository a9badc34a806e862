"""Held blocks and chosen rows to a batch of tensors (``BatchAssembler``).

===================  ===========================================================================
field                in a batch of B rows
===================  ===========================================================================
Dense                tensor ``(B, *shape)``; unsigned integers beyond uint8 come as int64
Ragged, "jagged"     :class:`Jagged`: values, int64 offsets ``(B + 1,)``
Ragged, Padded       tensor ``(B, length)``, and perhaps its mask
Sparse, "dense"      float32 tensor ``(B, dim)``, 1 (or the value) at each index
Sparse, "csr"        ``torch.sparse_csr`` tensor ``(B, dim)``
Sparse, "jagged"     :class:`Jagged`: int64 indices, offsets, weights (None for a set), as
                     ``torch.nn.EmbeddingBag(include_last_offset=True)`` takes them
Sparse, "indices"    list of B index tensors, or of B ``(indices, values)``
Sparse and Ragged,   :class:`KeyedJagged`: the ids of several fields, key by key, as TorchRec's
keyed                KeyedJaggedTensor takes them
Text, Bytes          list of B ``str`` or ``bytes``
===================  ===========================================================================

``dtypes`` replaces the dtype of a dense field's elements, a ragged field's values or a sparse field's values. Casts are numpy's, and
defined where those are not: integers wrap; a float becomes an integer towards zero, the nearest one beyond its range, 0 if it is NaN.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch

from shardstream._native.gather import DenseBlocks, KeyedBlocks, RaggedBlocks, Rows
from shardstream.buffers import BufferPool, keep_freed_memory
from shardstream.codecs.columns import decode_strings, decode_views
from shardstream.collate import Jagged, KeyedJagged, concatenate, rows_of
from shardstream.errors import ConfigError, ShardstreamError
from shardstream.forms import Forms, Padded
from shardstream.reader import Block
from shardstream.schema import Bytes, Dense, Field, Ragged, Schema, Sparse, Text

LONG_STRING_NBYTES = 4096


class BatchAssembler:
    """Gathers rows of held blocks into tensors, one C call a column.

    Args:
        schema: Fields of the blocks.
        fields: Those to deliver.
        forms: What each comes out as.
        pool: Where the tensors' memory comes from, and goes when nobody holds them any more.
        outside: Where to note bytes of strings, which no pool can lend: by column, those of the two newest batches, since the
            loop holds one while the next is made.
    """

    def __init__(self, schema: Schema, fields: list[str], forms: Forms, pool: BufferPool, outside: dict[str, int] | None = None):
        self._pool, forms, outside = pool, forms.of(schema, fields), {} if outside is None else outside
        of_field = {**forms.sparse, **forms.ragged}
        self._columns = []
        for name in fields:
            if not any(name in members for members in forms.keyed.values()):
                self._columns.append(_column(name, schema[name], of_field.get(name), forms.dtypes.get(name), pool, outside))
        for name, members in forms.keyed.items():
            self._columns.append(_KeyedColumn(name, {member: schema[member] for member in members}, pool))

    def table(self, num_blocks: int) -> Table:
        """Return a table for this many blocks, which come one by one."""
        return Table(self._columns, num_blocks)

    def shared_batch(self, num_rows: int) -> SharedBatch:
        """Return a batch of up to this many rows, which come from several tables."""
        return SharedBatch(self._columns, num_rows, self._pool)

    def table_of(self, blocks: list[Block]) -> Table:
        """Return a table of blocks that are all there."""
        table = self.table(len(blocks))
        for block in blocks:
            table.add(block)
        return table


class Table:
    """Blocks of which batches are made, by their number in the order in which they were added."""

    def __init__(self, columns: list[_Column], num_blocks: int):
        self._columns = [(column, column.blocks(num_blocks)) for column in columns]
        self.num_added = 0

    def add(self, block: Block | ShardstreamError) -> None:
        """Add the next block; an error takes its number, and has no rows."""
        if isinstance(block, Block):
            for column, blocks in self._columns:
                column.set(blocks, self.num_added, block.columns)
        self.num_added += 1

    def gather(self, rows: Rows) -> dict[str, Any]:
        """Return the batch whose row ``i`` is row ``rows.row[i]`` of block ``rows.slot[i]``."""
        batch: dict[str, Any] = {}
        for column, blocks in self._columns:
            column.gather_to(batch, blocks, rows)
        return batch

    def gather_part(self, rows: Rows, whole: SharedBatch) -> dict[str, Any]:
        """Return the same as the next rows of ``whole``, where those that are all of one size stand at once."""
        part: dict[str, Any] = {}
        for column, blocks in self._columns:
            if isinstance(column, _EvenColumn):
                column.put(part, column.filled(whole.take(column, rows.num_rows), blocks, rows))
            else:
                column.gather_to(part, blocks, rows)
        whole.num_rows += rows.num_rows
        return part


class SharedBatch:
    """A batch whose rows come from several tables.

    Rows that are all of one size are written where they belong; a batch that was joined of parts would be written twice.
    """

    def __init__(self, columns: list[_Column], num_rows: int, pool: BufferPool):
        self._outputs = {column: column.outputs(num_rows) for column in columns if isinstance(column, _EvenColumn)}
        self._pool = pool
        self.num_rows = 0  # so far

    def take(self, column: _EvenColumn, num_rows: int) -> list[np.ndarray]:
        """Return where the next rows of a column belong."""
        return [output[self.num_rows : self.num_rows + num_rows] for output in self._outputs[column]]

    def joined(self, parts: list[dict[str, Any]]) -> dict[str, Any]:
        """Return all rows, given what :meth:`Table.gather_part` returned."""
        batch: dict[str, Any] = {}
        for column, outputs in self._outputs.items():
            column.put(batch, [output[: self.num_rows] for output in outputs])
        others = concatenate([{name: column for name, column in part.items() if name not in batch} for part in parts], self._pool)
        return {name: batch[name] if name in batch else others[name] for name in parts[0]}


def _column(name: str, field: Field, form: str | Padded | None, dtype: str | None, pool: BufferPool, outside: dict[str, int]) -> _Column:
    if isinstance(field, Dense):
        return _DenseColumn(name, field, dtype, pool)
    if isinstance(field, Ragged):
        return _RaggedColumn(name, field, dtype, pool) if form == "jagged" else _PaddedColumn(name, field, form, dtype, pool)
    if isinstance(field, Sparse):
        kind = {"dense": _ExpandedColumn, "csr": _CsrColumn, "jagged": _JaggedColumn, "indices": _IndicesColumn}[form]
        return kind(name, field, dtype, pool)
    return _StringColumn(name, field, pool, outside)


def _default_dtype(stored: str) -> str:
    return "int64" if stored in ("uint16", "uint32", "uint64") else stored


# -- one class a form: which blocks it takes, and what it makes of rows of them -----------------------


class _Column(ABC):
    """One column of batches, made of the blocks' column of the same name."""

    def __init__(self, name: str):
        self.name = name

    @abstractmethod
    def blocks(self, num_blocks: int) -> Any:
        """Return empty slots for this many blocks."""

    @abstractmethod
    def set(self, blocks: Any, slot: int, columns: dict[str, Any]) -> None:
        """Put the column of a block, given all its ``columns`` decoded, into a slot."""

    def gather(self, blocks: Any, rows: Rows) -> Any:
        """Return the column of these rows."""
        raise NotImplementedError

    def gather_to(self, batch: dict[str, Any], blocks: Any, rows: Rows) -> None:
        """Put the column of these rows, and any that comes with it, into a batch."""
        batch[self.name] = self.gather(blocks, rows)


class _EvenColumn(_Column):
    """A column whose rows are all of one size."""

    @abstractmethod
    def outputs(self, num_rows: int) -> list[np.ndarray]:
        """Return new arrays for the column of this many rows, and for any that comes with it."""

    @abstractmethod
    def filled(self, outputs: list[np.ndarray], blocks: Any, rows: Rows) -> list[np.ndarray]:
        """Return ``outputs``, with these rows in them."""

    def _room(self, num_rows: int, length: int, dtype: np.dtype, advice: str) -> np.ndarray:
        """Return a new array of rows whose length a user has named, however large."""
        try:
            return self._empty((num_rows, length), dtype)
        except (OSError, MemoryError) as error:
            raise ConfigError(f"{num_rows} dense rows of {length} take {num_rows * length * dtype.itemsize / 1e9:,.1f} GB, which can't be had: "
                              f"{advice}.", field=self.name) from error  # fmt: skip

    def put(self, batch: dict[str, Any], outputs: list[np.ndarray]) -> None:
        """Put what stands in ``outputs`` into a batch."""
        batch[self.name] = torch.from_numpy(outputs[0])

    def gather_to(self, batch: dict[str, Any], blocks: Any, rows: Rows) -> None:
        self.put(batch, self.filled(self.outputs(rows.num_rows), blocks, rows))


class _DenseColumn(_EvenColumn):
    def __init__(self, name: str, field: Dense, dtype: str | None, pool: BufferPool):
        super().__init__(name)
        self._empty, self._field = pool.empty, field
        self._dtype = np.dtype(dtype or _default_dtype(field.dtype))

    def blocks(self, num_blocks: int) -> DenseBlocks:
        return DenseBlocks(num_blocks, self._field.dtype, self._field.shape)

    def set(self, blocks: DenseBlocks, slot: int, columns: dict[str, Any]) -> None:
        blocks.set(slot, columns[self.name])

    def outputs(self, num_rows: int) -> list[np.ndarray]:
        return [self._empty((num_rows, *self._field.shape), self._dtype)]

    def filled(self, outputs: list[np.ndarray], blocks: DenseBlocks, rows: Rows) -> list[np.ndarray]:
        blocks.gather(rows, outputs[0])
        return outputs


class _RaggedColumn(_Column):
    def __init__(self, name: str, field: Ragged, dtype: str | None, pool: BufferPool):
        super().__init__(name)
        self._empty, self._stored = pool.empty, field.dtype
        self._dtype = np.dtype(dtype or _default_dtype(field.dtype))

    def blocks(self, num_blocks: int) -> RaggedBlocks:
        return RaggedBlocks(num_blocks, self._stored)

    def set(self, blocks: RaggedBlocks, slot: int, columns: dict[str, Any]) -> None:
        values, offsets = columns[self.name]
        blocks.set(slot, offsets, values)

    def _values(self, blocks: RaggedBlocks, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        offsets = blocks.gather_offsets(rows)
        values = self._empty((int(offsets[-1]),), self._dtype)
        blocks.gather_values(rows, values)
        return values, offsets

    def gather(self, blocks: RaggedBlocks, rows: Rows) -> Jagged:
        return Jagged(*map(torch.from_numpy, self._values(blocks, rows)))


class _PaddedColumn(_EvenColumn, _RaggedColumn):
    def __init__(self, name: str, field: Ragged, padded: Padded, dtype: str | None, pool: BufferPool):
        super().__init__(name, field, dtype, pool)
        self._padded, self._filler = padded, padded.filler(self._dtype, name)

    def outputs(self, num_rows: int) -> list[np.ndarray]:
        dtypes = [self._dtype] if self._padded.mask is None else [self._dtype, np.dtype(np.bool_)]
        return [self._room(num_rows, self._padded.length, dtype, "pad to a smaller length, or not at all") for dtype in dtypes]

    def filled(self, outputs: list[np.ndarray], blocks: RaggedBlocks, rows: Rows) -> list[np.ndarray]:
        out, *mask = outputs
        blocks.gather_padded(rows, out, self._filler, self._padded.keep == "end", self._padded.pad == "left", *mask)
        return outputs

    def put(self, batch: dict[str, Any], outputs: list[np.ndarray]) -> None:
        for name, output in zip((self.name, self._padded.mask), outputs):
            batch[name] = torch.from_numpy(output)


class _StringColumn(_RaggedColumn):
    def __init__(self, name: str, field: Text | Bytes, pool: BufferPool, outside: dict[str, int]):
        super().__init__(name, Ragged("uint8"), None, pool)
        self._field, self._outside, self._newest_nbytes = field, outside, 0
        keep_freed_memory()

    def gather(self, blocks: RaggedBlocks, rows: Rows) -> list:
        offsets = blocks.gather_offsets(rows)
        nbytes = int(offsets[-1])
        self._outside[self.name], self._newest_nbytes = self._newest_nbytes + nbytes, nbytes
        if nbytes < LONG_STRING_NBYTES * rows.num_rows:
            return decode_strings(self._field, *self._values(blocks, rows))
        # Long ones are copied once, each from its block, since the copy is what they cost.
        return decode_views(self._field, [
            memoryview(values)[bounds[row] : bounds[row + 1]]
            for row, (bounds, values) in zip(rows.row.tolist(), map(blocks.arrays, rows.slot.tolist()))])  # fmt: skip


class _SparseColumn(_Column):
    """What the four forms of a sparse field share: blocks of indices and, if there are any, values."""

    def __init__(self, name: str, field: Sparse, dtype: str | None, pool: BufferPool):
        super().__init__(name)
        self._empty = pool.empty
        self._dim, self._stored, self._dtype = field.dim, field.values, np.dtype(dtype or "float32")

    def blocks(self, num_blocks: int) -> RaggedBlocks:
        return RaggedBlocks(num_blocks, np.uint32, *(() if self._stored is None else (self._stored,)))

    def set(self, blocks: RaggedBlocks, slot: int, columns: dict[str, Any]) -> None:
        indices, indptr, values = columns[self.name]
        blocks.set(slot, indptr, indices, *(() if self._stored is None else (values,)))

    def _jagged(self, blocks: RaggedBlocks, rows: Rows) -> Jagged:
        offsets = blocks.gather_offsets(rows)
        indices, weights = self._empty((int(offsets[-1]),), np.int64), None
        blocks.gather_values(rows, indices)
        if self._stored is not None:
            out = self._empty(indices.shape, self._dtype)
            blocks.gather_values(rows, out, which=1)
            weights = torch.from_numpy(out)
        return Jagged(torch.from_numpy(indices), torch.from_numpy(offsets), weights)


class _JaggedColumn(_SparseColumn):
    def gather(self, blocks: RaggedBlocks, rows: Rows) -> Jagged:
        return self._jagged(blocks, rows)


class _IndicesColumn(_SparseColumn):
    def gather(self, blocks: RaggedBlocks, rows: Rows) -> list:
        return rows_of(self._jagged(blocks, rows))


class _CsrColumn(_SparseColumn):
    def gather(self, blocks: RaggedBlocks, rows: Rows) -> torch.Tensor:
        jagged = self._jagged(blocks, rows)
        values = torch.ones(len(jagged.values), dtype=getattr(torch, self._dtype.name)) if jagged.weights is None else jagged.weights
        # Invariants hold by construction.
        return torch.sparse_csr_tensor(jagged.offsets, jagged.values, values, size=(rows.num_rows, self._dim),
                                       check_invariants=False)  # fmt: skip


class _ExpandedColumn(_EvenColumn, _SparseColumn):
    def outputs(self, num_rows: int) -> list[np.ndarray]:
        return [self._room(num_rows, self._dim, self._dtype, 'ask for sparse="csr", "jagged" or "indices"')]

    def filled(self, outputs: list[np.ndarray], blocks: RaggedBlocks, rows: Rows) -> list[np.ndarray]:
        blocks.gather_expanded(rows, self._dim, outputs[0])
        return outputs


class _KeyedColumn(_Column):
    """Ids of several fields, and weights if one of them has values: then those of a field without are 1."""

    def __init__(self, name: str, fields: dict[str, Ragged | Sparse], pool: BufferPool):
        super().__init__(name)
        self._empty, self._keys = pool.empty, list(fields)
        self._parts = [_column(member, field, "jagged", None, pool, {}) for member, field in fields.items()]
        self._has_weights = any(isinstance(field, Sparse) and field.values is not None for field in fields.values())

    def blocks(self, num_blocks: int) -> KeyedBlocks:
        return KeyedBlocks([part.blocks(num_blocks) for part in self._parts], num_blocks)

    def set(self, blocks: KeyedBlocks, slot: int, columns: dict[str, Any]) -> None:
        for part, of_part in zip(self._parts, blocks.columns):
            part.set(of_part, slot, columns)

    def gather(self, blocks: KeyedBlocks, rows: Rows) -> KeyedJagged:
        offsets = blocks.gather_offsets(rows)
        values, weights = self._empty((int(offsets[-1]),), np.int64), None
        blocks.gather_values(rows, offsets, values)
        if self._has_weights:
            out = self._empty(values.shape, np.float32)
            blocks.gather_values(rows, offsets, out, which=1)
            weights = torch.from_numpy(out)
        return KeyedJagged(list(self._keys), torch.from_numpy(values), torch.from_numpy(offsets), weights)

"""Held blocks and chosen rows to a batch of tensors (``BatchAssembler``).

===================  ===========================================================================
field                in a batch of B rows
===================  ===========================================================================
Dense                tensor ``(B, *shape)``; unsigned integers beyond uint8 come as int64
Ragged               :class:`Jagged`: values, int64 offsets ``(B + 1,)``
Sparse, "dense"      float32 tensor ``(B, dim)``, 1 (or the value) at each index
Sparse, "csr"        ``torch.sparse_csr`` tensor ``(B, dim)``
Sparse, "jagged"     :class:`Jagged`: int64 indices, offsets, weights (None for a set), as
                     ``torch.nn.EmbeddingBag(include_last_offset=True)`` takes them
Sparse, "indices"    list of B index tensors, or of B ``(indices, values)``
Text, Bytes          list of B ``str`` or ``bytes``
===================  ===========================================================================

``dtypes`` replaces the dtype of a dense field's elements, a ragged field's values or a sparse field's values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from shardstream._native.gather import DenseBlocks, RaggedBlocks, Rows
from shardstream.buffers import BufferPool
from shardstream.codecs.columns import decode_strings, decode_views
from shardstream.collate import Jagged, rows_of
from shardstream.errors import ConfigError, ShardstreamError
from shardstream.reader import Block
from shardstream.schema import DENSE_DTYPES, Bytes, Dense, Field, Ragged, Schema, Sparse, Text

LONG_STRING_NBYTES = 4096
SPARSE_FORMS = ("dense", "csr", "jagged", "indices")


class BatchAssembler:
    """Gathers rows of held blocks into tensors, one C call a column.

    Args:
        schema: Fields of the blocks.
        fields: Those to deliver.
        sparse: Form of sparse fields: one of ``SPARSE_FORMS``, or a dict by field.
        dtypes: Dict of field to dtype name; other fields keep theirs.
        pool: Where the tensors' memory comes from, and goes when nobody holds them any more.
    """

    def __init__(self, schema: Schema, fields: list[str], sparse: str | dict[str, str], dtypes: dict[str, Any] | None,
                 pool: BufferPool):  # fmt: skip
        forms = _sparse_forms(schema, fields, sparse)
        dtypes = _dtype_names(schema, fields, dtypes)
        self._columns = {name: _column(schema[name], forms.get(name), dtypes.get(name), pool) for name in fields}

    def table(self, num_blocks: int) -> Table:
        """Return a table for this many blocks, which come one by one."""
        return Table(self._columns, num_blocks)

    def table_of(self, blocks: list[Block]) -> Table:
        """Return a table of blocks that are all there."""
        table = self.table(len(blocks))
        for block in blocks:
            table.add(block)
        return table


class Table:
    """Blocks of which batches are made, by their number in the order in which they were added."""

    def __init__(self, columns: dict[str, Any], num_blocks: int):
        self._columns = [(name, column, column.blocks(num_blocks)) for name, column in columns.items()]
        self.num_added = 0

    def add(self, block: Block | ShardstreamError) -> None:
        """Add the next block; an error takes its number, and has no rows."""
        if isinstance(block, Block):
            for name, column, blocks in self._columns:
                column.set(blocks, self.num_added, block.columns[name])
        self.num_added += 1

    def gather(self, rows: Rows) -> dict[str, Any]:
        """Return the batch whose row ``i`` is row ``rows.row[i]`` of block ``rows.slot[i]``."""
        return {name: column.gather(blocks, rows) for name, column, blocks in self._columns}


def _sparse_forms(schema: Schema, fields: list[str], sparse: str | dict[str, str]) -> dict[str, str]:
    names = [name for name in fields if isinstance(schema[name], Sparse)]
    if not isinstance(sparse, (str, dict)):
        raise ConfigError(f"sparse={sparse!r} is neither one of {', '.join(SPARSE_FORMS)} nor a dict of them by field.")
    forms = {name: sparse for name in names} if isinstance(sparse, str) else {**dict.fromkeys(names, "dense"), **sparse}
    for name, form in forms.items():
        if name not in names:
            raise ConfigError(f"sparse= names {name!r}, which is not a sparse field; those are {names}.", field=name)
        if form not in SPARSE_FORMS:
            raise ConfigError(f"sparse={form!r} is not one of {', '.join(SPARSE_FORMS)}.", field=name)
    if isinstance(sparse, str) and sparse not in SPARSE_FORMS:
        raise ConfigError(f"sparse={sparse!r} is not one of {', '.join(SPARSE_FORMS)}.")
    return forms


def _dtype_names(schema: Schema, fields: list[str], dtypes: dict[str, Any] | None) -> dict[str, str]:
    names = {}
    if not isinstance(dtypes, dict | None):
        raise ConfigError(f"dtypes={dtypes!r} is not a dict of field to dtype.")
    for field, dtype in (dtypes or {}).items():
        if field not in fields or isinstance(schema[field], (Text, Bytes)):
            raise ConfigError(f"dtypes= names {field!r}; fields with a dtype are "
                              f"{[f for f in fields if not isinstance(schema[f], (Text, Bytes))]}.", field=field)  # fmt: skip
        try:
            name = str(dtype).removeprefix("torch.") if isinstance(dtype, torch.dtype) else np.dtype(dtype).name
        except TypeError as error:
            raise ConfigError(f"dtypes= gives {dtype!r}, which is not a dtype.", field=field) from error
        stored = schema[field].values or "float32" if isinstance(schema[field], Sparse) else schema[field].dtype
        if name not in DENSE_DTYPES or (stored.startswith("float") and not name.startswith("float")):
            raise ConfigError(f"a {stored} column can't come out as {name}.", field=field)
        names[field] = name
    return names


def _column(field: Field, form: str | None, dtype: str | None, pool: BufferPool):
    if isinstance(field, Dense):
        return _DenseColumn(field, dtype, pool)
    if isinstance(field, Ragged):
        return _RaggedColumn(field, dtype, pool)
    if isinstance(field, Sparse):
        kind = {"dense": _ExpandedColumn, "csr": _CsrColumn, "jagged": _JaggedColumn, "indices": _IndicesColumn}[form]
        return kind(field, dtype, pool)
    return _StringColumn(field, pool)


def _default_dtype(stored: str) -> str:
    return "int64" if stored in ("uint16", "uint32", "uint64") else stored


# -- one class a form: which blocks it takes, and what it makes of rows of them -----------------------


class _DenseColumn:
    def __init__(self, field: Dense, dtype: str | None, pool: BufferPool):
        self._empty, self._field = pool.empty, field
        self._dtype = np.dtype(dtype or _default_dtype(field.dtype))

    def blocks(self, num_blocks: int) -> DenseBlocks:
        return DenseBlocks(num_blocks, self._field.dtype, self._field.shape)

    def set(self, blocks: DenseBlocks, slot: int, content: np.ndarray) -> None:
        blocks.set(slot, content)

    def gather(self, blocks: DenseBlocks, rows: Rows) -> torch.Tensor:
        out = self._empty((rows.num_rows, *blocks.row_shape), self._dtype)
        blocks.gather(rows, out)
        return torch.from_numpy(out)


class _RaggedColumn:
    def __init__(self, field: Ragged, dtype: str | None, pool: BufferPool):
        self._empty, self._stored = pool.empty, field.dtype
        self._dtype = np.dtype(dtype or _default_dtype(field.dtype))

    def blocks(self, num_blocks: int) -> RaggedBlocks:
        return RaggedBlocks(num_blocks, self._stored)

    def set(self, blocks: RaggedBlocks, slot: int, content: tuple) -> None:
        values, offsets = content
        blocks.set(slot, offsets, values)

    def _values(self, blocks: RaggedBlocks, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        offsets = blocks.gather_offsets(rows)
        values = self._empty((int(offsets[-1]),), self._dtype)
        blocks.gather_values(rows, values)
        return values, offsets

    def gather(self, blocks: RaggedBlocks, rows: Rows) -> Jagged:
        return Jagged(*map(torch.from_numpy, self._values(blocks, rows)))


class _StringColumn(_RaggedColumn):
    def __init__(self, field: Text | Bytes, pool: BufferPool):
        super().__init__(Ragged("uint8"), None, pool)
        self._field = field

    def gather(self, blocks: RaggedBlocks, rows: Rows) -> list:
        offsets = blocks.gather_offsets(rows)
        if offsets[-1] < LONG_STRING_NBYTES * rows.num_rows:
            return decode_strings(self._field, *self._values(blocks, rows))
        # Long ones are copied once, each from its block, since the copy is what they cost.
        return decode_views(self._field, [
            memoryview(values)[bounds[row] : bounds[row + 1]]
            for row, (bounds, values) in zip(rows.row.tolist(), map(blocks.arrays, rows.slot.tolist()))])  # fmt: skip


class _SparseColumn:
    """What the four forms of a sparse field share: blocks of indices and, if there are any, values."""

    def __init__(self, field: Sparse, dtype: str | None, pool: BufferPool):
        self._empty = pool.empty
        self._dim, self._stored, self._dtype = field.dim, field.values, np.dtype(dtype or "float32")

    def blocks(self, num_blocks: int) -> RaggedBlocks:
        return RaggedBlocks(num_blocks, np.uint32, *(() if self._stored is None else (self._stored,)))

    def set(self, blocks: RaggedBlocks, slot: int, content: tuple) -> None:
        indices, indptr, values = content
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


class _ExpandedColumn(_SparseColumn):
    def gather(self, blocks: RaggedBlocks, rows: Rows) -> torch.Tensor:
        out = self._empty((rows.num_rows, self._dim), self._dtype)
        blocks.gather_expanded(rows, self._dim, out)
        return torch.from_numpy(out)

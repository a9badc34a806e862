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
from shardstream.codecs.columns import decode_strings
from shardstream.collate import Jagged, rows_of
from shardstream.errors import ConfigError
from shardstream.reader import Block
from shardstream.schema import DENSE_DTYPES, Bytes, Dense, Field, Ragged, Schema, Sparse, Text

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
        self._generation = -1

    def assemble(self, blocks: list, generation: int, slot: np.ndarray, row: np.ndarray) -> dict[str, Any]:
        """Return the batch whose row ``i`` is row ``row[i]`` of ``blocks[slot[i]]``.

        ``generation`` changes whenever ``blocks`` does; the pointers to them are collected once for each.
        """
        if generation != self._generation:
            for name, column in self._columns.items():
                column.load([block.columns[name] if isinstance(block, Block) else None for block in blocks or [None]])
            self._generation = generation
        rows = Rows(slot, row)
        return {name: column.gather(rows) for name, column in self._columns.items()}


def _sparse_forms(schema: Schema, fields: list[str], sparse: str | dict[str, str]) -> dict[str, str]:
    names = [name for name in fields if isinstance(schema[name], Sparse)]
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


class _DenseColumn:
    def __init__(self, field: Dense, dtype: str | None, pool: BufferPool):
        self._empty = pool.empty
        self._dtype = dtype or _default_dtype(field.dtype)
        self._nothing = np.empty((0, *field.shape), field.dtype)

    def load(self, contents: list) -> None:
        self._blocks = DenseBlocks([self._nothing if content is None else content for content in contents])

    def gather(self, rows: Rows) -> torch.Tensor:
        out = self._empty((rows.num_rows, *self._blocks.row_shape), self._dtype)
        self._blocks.gather(rows, out)
        return torch.from_numpy(out)


class _RaggedColumn:
    def __init__(self, field: Ragged, dtype: str | None, pool: BufferPool):
        self._empty = pool.empty
        self._dtype = dtype or _default_dtype(field.dtype)
        self._nothing = np.empty(0, field.dtype), np.zeros(1, np.int64)

    def load(self, contents: list) -> None:
        contents = [self._nothing if content is None else content for content in contents]
        self._blocks = RaggedBlocks([offsets for _, offsets in contents], [values for values, _ in contents])

    def gather(self, rows: Rows) -> Jagged:
        offsets = self._blocks.gather_offsets(rows)
        values = self._empty((int(offsets[-1]),), self._dtype)
        self._blocks.gather_values(rows, values)
        return Jagged(torch.from_numpy(values), torch.from_numpy(offsets))


class _StringColumn(_RaggedColumn):
    def __init__(self, field: Text | Bytes, pool: BufferPool):
        super().__init__(Ragged("uint8"), None, pool)
        self._field = field

    def gather(self, rows: Rows) -> list:
        jagged = super().gather(rows)
        return decode_strings(self._field, jagged.values.numpy(), jagged.offsets.numpy())


class _SparseColumn:
    """What the four forms of a sparse field share: blocks of (indices, indptr, values or None)."""

    def __init__(self, field: Sparse, dtype: str | None, pool: BufferPool):
        self._empty = pool.empty
        self._dim, self._has_values, self._dtype = field.dim, field.values is not None, dtype or "float32"
        nothing = None if field.values is None else np.empty(0, field.values)
        self._nothing = np.empty(0, np.uint32), np.zeros(1, np.int64), nothing

    def load(self, contents: list) -> None:
        contents = [self._nothing if content is None else content for content in contents]
        values = [[content[2] for content in contents]] if self._has_values else []
        self._blocks = RaggedBlocks([content[1] for content in contents], [content[0] for content in contents], *values)

    def _jagged(self, rows: Rows) -> Jagged:
        offsets = self._blocks.gather_offsets(rows)
        indices = self._empty((int(offsets[-1]),), np.int64)
        self._blocks.gather_values(rows, indices)
        weights = None
        if self._has_values:
            out = self._empty((int(offsets[-1]),), self._dtype)
            self._blocks.gather_values(rows, out, which=1)
            weights = torch.from_numpy(out)
        return Jagged(torch.from_numpy(indices), torch.from_numpy(offsets), weights)


class _JaggedColumn(_SparseColumn):
    def gather(self, rows: Rows) -> Jagged:
        return self._jagged(rows)


class _IndicesColumn(_SparseColumn):
    def gather(self, rows: Rows) -> list:
        return rows_of(self._jagged(rows))


class _CsrColumn(_SparseColumn):
    def gather(self, rows: Rows) -> torch.Tensor:
        jagged = self._jagged(rows)
        values = torch.ones(len(jagged.values), dtype=getattr(torch, self._dtype)) if jagged.weights is None else jagged.weights
        # Invariants hold by construction.
        return torch.sparse_csr_tensor(jagged.offsets, jagged.values, values, size=(rows.num_rows, self._dim),
                                       check_invariants=False)  # fmt: skip


class _ExpandedColumn(_SparseColumn):
    def gather(self, rows: Rows) -> torch.Tensor:
        out = self._empty((rows.num_rows, self._dim), self._dtype)
        self._blocks.gather_expanded(rows, self._dim, out)
        return torch.from_numpy(out)

"""Rows of memory-mapped columns by number: ``MemmapDataset``."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from shardstream.access import RowAccess
from shardstream.collate import Jagged, KeyedJagged
from shardstream.errors import DatasetError, EmptyDatasetError
from shardstream.forms import Forms, Padded
from shardstream.memmap import virtual
from shardstream.memmap.layout import PartRecord, checked_folder, list_parts, map_piece, pieces, read_part, read_schema
from shardstream.reader import Block, checked_fields
from shardstream.schema import Dense, Schema, Sparse


class MemmapDataset(RowAccess):
    """The samples below a folder that :class:`MemmapWriter` wrote, by number: map-style, and as large as the disk.

    ``ds[rows]`` gathers a batch straight from the mapped files, one C call a column; the system's page cache is
    the only memory it takes. With ``DataLoader`` that is
    ``DataLoader(ds, sampler=BatchSampler(RandomSampler(ds), 256, False), batch_size=None)``.

    Args:
        folder: Local: a path or a ``file://`` URL.
        fields: Names to deliver; no other file is mapped.
        sparse: Form of sparse fields, or a dict by field: "dense", "csr", "jagged" or "indices".
        dtypes: Dict of field to dtype; uint16, uint32 and uint64 come as int64 by default.
        transform: Function of one sample; or, marked ``@ss.batched``, of the columns of any number of rows. It is
            called at each access and can't drop rows.
        ragged, keyed: Forms of ragged fields, and fields that come as one column, as of :class:`ShardStream`.

    The parts are those that were committed at the first use; a new dataset sees later ones. The first use of a part
    reads its offsets once, 8 bytes a row and field, to check them. A file that is cut while it is mapped ends the
    process (SIGBUS): committed parts must not be changed.

    Raises:
        ConfigError: ``folder`` is no local path, or another argument not legal.
        DatasetNotFoundError: At the first use: there is no dataset in ``folder``.
        EmptyDatasetError: It has no committed part.
        DatasetError: A file is missing or is not what its part says.
    """

    def __init__(self, folder: str | os.PathLike, fields: list[str] | None = None, sparse: str | dict[str, str] = "dense",
                 dtypes: dict[str, Any] | None = None, transform: Callable | None = None,
                 *, ragged: str | Padded | dict[str, str | Padded] = "jagged", keyed: dict[str, list[str]] | None = None):  # fmt: skip
        super().__init__(Forms(sparse, ragged, keyed, dtypes), transform)
        self.folder, self._wanted = checked_folder(folder), fields

    @property
    def schema(self) -> Schema:
        """Fields of the samples."""
        return read_schema(self.folder)

    @property
    def num_parts(self) -> int:
        """Parts that are committed now."""
        read_schema(self.folder)  # that there is a dataset
        return len(list_parts(self.folder))

    def mapped(self) -> tuple[Schema, list[Block]]:
        """Return the schema of the fields, and the parts' columns as they are mapped (``codecs/columns.py``)."""
        self._load()
        schema = self.schema
        return Schema(**{name: schema[name] for name in self._fields}), list(self._blocks)

    def as_dask(self) -> dict[str, Any]:
        """Return the virtual concatenation of all parts as dask arrays, a chunk a part; nothing is read.

        A dense field is one array, ``"y"``; a ragged, text or bytes field two, ``"tokens.values"`` and
        ``"tokens.offsets"``; a sparse field ``"x.indices"``, ``"x.indptr"`` and perhaps ``"x.values"``. Offsets and
        indptr are those of the concatenation. Needs the ``dask`` extra.
        """
        schema, parts = self._parts()
        fields = checked_fields(schema, self._wanted)
        return virtual.concatenation(self.folder, schema, fields, parts)

    def _parts(self) -> tuple[Schema, dict[str, PartRecord]]:
        schema = read_schema(self.folder)
        parts = {part: read_part(self.folder, part, schema) for part in list_parts(self.folder)}
        if not parts:
            raise EmptyDatasetError(f"no part of the dataset at {self.folder!r} is committed yet.")
        return schema, parts

    def _open(self) -> tuple[Schema, list[str], list[Block]]:
        schema, parts = self._parts()
        fields = checked_fields(schema, self._wanted)
        self._dims = {name: schema[name].dim for name in fields if isinstance(schema[name], Sparse)}
        return schema, fields, [self._block(part, record, schema, fields) for part, record in parts.items()]

    def _block(self, part: str, record: PartRecord, schema: Schema, fields: list[str]) -> Block:
        columns = {}
        for name in fields:
            specs = pieces(name, schema[name])
            arrays = [map_piece(self.folder, part, piece, record.num_elements[piece.file]) for piece in specs]
            num_values = None
            for piece, array in zip(specs, arrays):
                if piece.kind == "offsets":
                    num_values = _checked_offsets(array, os.path.join(self.folder, part, piece.file))
            for piece, array in zip(specs, arrays):
                expected = {"rows": record.num_samples, "offsets": record.num_samples + 1,
                            "values": num_values}[piece.kind]  # fmt: skip
                if len(array) != expected:
                    raise DatasetError(f"{os.path.join(self.folder, part, piece.file)} holds "
                                       f"{len(array)} elements, not {expected}.")  # fmt: skip
            if isinstance(schema[name], Dense):
                columns[name] = arrays[0]
            elif isinstance(schema[name], Sparse):
                columns[name] = (arrays[0], arrays[1], arrays[2] if len(arrays) == 3 else None)
            else:
                columns[name] = tuple(arrays)
        return Block(columns, record.num_samples, 0)

    def _columns(self, numbers: np.ndarray) -> dict[str, Any]:
        columns = self._table.gather(self._numbers.find(numbers))
        of_keys = [column.to_dict() for column in columns.values() if isinstance(column, KeyedJagged)]
        by_field = {name: column for part in (*of_keys, columns) for name, column in part.items()}
        for name, dim in self._dims.items():
            _check_indices(name, by_field[name], dim)
        return columns

    def __repr__(self) -> str:
        return f"MemmapDataset({self.folder!r})"


def _checked_offsets(offsets: np.ndarray, path: str) -> int:
    """Return the last offset, once it is known that they rise from 0."""
    if not len(offsets) or offsets[0] != 0 or (offsets[1:] < offsets[:-1]).any():
        raise DatasetError(f"{path}: offsets must begin with 0 and never descend.")
    return int(offsets[-1])


def _check_indices(field: str, column: Any, dim: int) -> None:
    """Raise if a set that was gathered has an index beyond ``dim``; the dense form was checked while it was made."""
    if isinstance(column, Jagged):
        indices = column.values
    elif isinstance(column, list):
        sets = [row[0] if isinstance(row, tuple) else row for row in column]
        indices = torch.cat(sets) if sets else torch.empty(0)
    elif column.layout == torch.sparse_csr:
        indices = column.col_indices()
    else:
        return
    if len(indices) and int(indices.max()) >= dim:
        raise DatasetError(f"a stored index, {int(indices.max())}, is not below dim={dim}.", field=field)

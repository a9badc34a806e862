"""Memory-mapped parts as dask arrays: a chunk is one part's file, opened by whoever computes it."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from shardstream.errors import ConfigError
from shardstream.memmap.layout import PartRecord, PieceSpec, map_piece, pieces
from shardstream.schema import Schema


def concatenation(folder: str, schema: Schema, fields: list[str], parts: dict[str, PartRecord]) -> dict[str, Any]:
    """Return dask arrays by file name without ``.npy``; see :meth:`MemmapDataset.as_dask`."""
    try:
        import dask.array as da
    except ImportError as error:
        raise ConfigError("as_dask() needs dask: pip install 'shardstream[dask]'.") from error
    folder = os.path.abspath(folder)
    arrays = {}
    for name in fields:
        specs = pieces(name, schema[name])
        bases, base = [], 0  # elements of values before each part
        for record in parts.values():
            bases.append(base)
            base += record.num_elements[specs[0].file]
        for piece in specs:
            chunks = [
                da.from_array(_Chunk(folder, part, piece, record.num_elements[piece.file], base, first=number == 0), chunks=-1,
                              name=f"shardstream-{part}-{piece.file}-{base}", asarray=False, meta=np.empty((0, *piece.shape), piece.dtype))
                for number, ((part, record), base) in enumerate(zip(parts.items(), bases))
            ]  # fmt: skip
            arrays[piece.file.removesuffix(".npy")] = da.concatenate(chunks)
    return arrays


class _Chunk:
    """One file as what ``dask.array.from_array`` takes; small when pickled."""

    def __init__(self, folder: str, part: str, piece: PieceSpec, num_elements: int, base: int, first: bool):
        self._where, self._num_elements = (folder, part, piece), num_elements
        self._base, self._skip = base, int(piece.kind == "offsets" and not first)
        self.shape = (num_elements - self._skip, *piece.shape)
        self.dtype, self.ndim = np.dtype(piece.dtype), 1 + len(piece.shape)

    def __getitem__(self, key: Any) -> np.ndarray:
        array = map_piece(*self._where, self._num_elements)[self._skip :][key]
        return array + self._base if self._where[2].kind == "offsets" else array

"""Single samples of any dataset as plain values, for people to look at (``Looker``); no torch, one block read a look.

======================  =======================================
field                   value
======================  =======================================
Dense                   numpy array, 0-d for a number
Ragged                  1-D numpy array
Sparse                  :class:`IndexSet`
Text, Bytes             ``str``, ``bytes``
files layout            as webdataset decodes it; images: bytes
======================  =======================================
"""

from __future__ import annotations

import io
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np

from shardstream.codecs import files
from shardstream.codecs.columns import decode_strings
from shardstream.errors import CodecError, ConfigError
from shardstream.reader import Block, BlockReader
from shardstream.schema import Bytes, Dense, Field, Ragged, Sparse, Text
from shardstream.source import Source, open_source
from shardstream.storage import Fetcher
from shardstream.upkeep.ids import ID, Runs, id_of, place_of, runs_of

BLOCKS_KEPT = 8
MAX_IMAGE_PIXELS = 2**26  # a small file can claim any size
IMAGE_SIGNS = ((b"\xff\xd8\xff", "JPEG"), (b"\x89PNG\r\n\x1a\n", "PNG"), (b"GIF8", "GIF"), (b"BM", "BMP"))


FORMATS = [*(kind for _, kind in IMAGE_SIGNS), "WEBP"]  # pillow knows more: parsers that nobody asked for


@dataclass(frozen=True)
class IndexSet:
    """A sparse set: its ascending indices, their values or None, and its dimension."""

    indices: np.ndarray
    values: np.ndarray | None
    dim: int


@dataclass(frozen=True)
class Sample:
    """One sample: its row in the dataset's order, its id ``<sid>:<row>`` (of a foreign shard, its key), and its fields.
    """

    row: int
    id: str
    fields: dict[str, Any]


class Looker:
    """Samples of a dataset or of shards by row number or by id.

    Args:
        url_or_urls, version, storage_options: As of :class:`ShardStream`.
        fields: Names to show; by default all.
    """

    def __init__(self, url_or_urls, version: int | str | None = None, fields: list[str] | None = None,
                 storage_options: dict | None = None):  # fmt: skip
        self.source: Source = open_source(url_or_urls, version, storage_options)
        self._reader = BlockReader(self.source, fields, Fetcher(storage_options))
        self._wanted = fields
        self._starts = np.concatenate([[0], np.cumsum(self.source.num_samples)])
        self._blocks: OrderedDict[tuple[int, int], Block] = OrderedDict()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def sample(self, row: int) -> Sample:
        """Return the sample of a row; -1 is the last.

        Raises:
            ConfigError: There is no such row.
            ShardError, CodecError: Its block is damaged; the error names it.
        """
        if not -len(self) <= row < len(self):
            raise ConfigError(f"there is no row {row}; the dataset has {len(self):,} samples, from row 0.")
        row %= len(self)
        shard = int(np.searchsorted(self._starts, row, "right")) - 1
        return self._sample(shard, row - int(self._starts[shard]))

    def row_of(self, sample_id: str) -> int:
        """Return the row of the sample ``<sid>:<row>``, as ``ss.upkeep.ids`` and :attr:`Sample.id` name it.

        If its shard was merged since, the indexes of all shards are looked through.

        Raises:
            ConfigError: It is no id, or no live shard has it.
        """
        match = ID.match(sample_id)
        if match is None:
            raise ConfigError(f"{sample_id!r} is neither a row number, last, nor an id <sid>:<row>.")
        shards = range(self.source.num_shards)
        for shard in sorted(shards, key=lambda shard: match[1] not in self.source.url(shard)):
            row = place_of(self._runs(shard), match[1], int(match[2]))
            if row is not None:
                return int(self._starts[shard]) + row
        raise ConfigError(f"no shard of version {self.source.version} has the sample {sample_id}.")

    def block(self, shard: int, number: int) -> Block:
        """Return a block; the last few are kept."""
        key = shard, number
        if key not in self._blocks:
            self._blocks[key] = self._reader.read(shard, number)
            if len(self._blocks) > BLOCKS_KEPT:
                self._blocks.popitem(last=False)
        return self._blocks[key]

    def num_blocks(self, shard: int) -> int:
        return self._reader.index(shard)[0].num_blocks

    def _runs(self, shard: int) -> Runs:
        return runs_of(self.source, shard, self._reader.index(shard)[0])

    def _sample(self, shard: int, row: int) -> Sample:
        _, starts = self._reader.index(shard)
        number = int(np.searchsorted(starts, row, "right")) - 1
        block, place = self.block(shard, number), row - int(starts[number])
        total = int(self._starts[shard]) + row
        if self.source.schema is None:
            key, members = block.columns["__samples__"][place]
            fields = files.decode_sample(key, members, self._wanted)
            del fields["__key__"]
            return Sample(total, id_of(self._runs(shard), row) or key, fields)
        fields = {name: value_of(self.source.schema[name], block.columns[name], place) for name in self._reader.fields}
        return Sample(total, id_of(self._runs(shard), row), fields)


def value_of(field: Field, column: Any, row: int) -> Any:
    """Return one row of a column in its decoded form (``codecs/columns.py``) as a plain value."""
    if isinstance(field, Dense):
        return np.asarray(column[row])
    bounds = column[1][row : row + 2].astype(np.int64)
    part = column[0][bounds[0] : bounds[1]]
    if isinstance(field, Sparse):
        return IndexSet(part, None if column[2] is None else column[2][bounds[0] : bounds[1]], field.dim)
    if isinstance(field, Ragged):
        return part
    assert isinstance(field, (Text, Bytes))
    return decode_strings(field, part, bounds - bounds[0])[0]


def image_kind(value: Any) -> str | None:
    """Return what kind of image a value is, by its first bytes or its shape; None if it is none."""
    if isinstance(value, bytes):
        found = [kind for sign, kind in IMAGE_SIGNS if value.startswith(sign)]
        return "WebP" if value[:4] == b"RIFF" and value[8:12] == b"WEBP" else found[0] if found else None
    return "array" if isinstance(value, np.ndarray) and _pixels(value) is not None else None


def to_png(value: Any) -> bytes:
    """Return an image as the bytes of a PNG file: of encoded bytes, or a uint8 array (H, W), (H, W, C) or (C, H, W).

    Raises:
        ConfigError: pillow is not installed.
        CodecError: The bytes are a damaged image, or claim more than 64 megapixels.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ConfigError("images need pillow: pip install 'shardstream[image]'.") from error
    out = io.BytesIO()
    try:
        image = Image.fromarray(_pixels(value)) if isinstance(value, np.ndarray) else Image.open(io.BytesIO(value), formats=FORMATS)
        if image.width * image.height > MAX_IMAGE_PIXELS:
            raise CodecError(f"an image of {image.width} x {image.height} pixels is not shown.")
        (image if image.mode in ("L", "RGB", "RGBA") else image.convert("RGBA")).save(out, "PNG")
    except CodecError:
        raise
    except Exception as error:  # whatever pillow's many parsers raise
        raise CodecError(f"not an image that can be decoded: {error}") from error
    return out.getvalue()


def _pixels(value: np.ndarray) -> np.ndarray | None:
    """Return an array as pillow takes it; None if it does not look like pixels."""
    if value.dtype != np.uint8 or value.ndim not in (2, 3) or min(value.shape) == 0:
        return None
    if value.ndim == 3 and value.shape[2] not in (1, 3, 4) and value.shape[0] in (1, 3, 4):
        value = np.moveaxis(value, 0, 2)
    if value.ndim == 2:
        return np.ascontiguousarray(value) if min(value.shape) >= 4 else None
    if value.shape[2] not in (1, 3, 4) or min(value.shape[:2]) < 4:
        return None
    return np.ascontiguousarray(value[:, :, 0] if value.shape[2] == 1 else value)

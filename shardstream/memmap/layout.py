"""The files of a memory-mapped dataset (docs/FORMAT.md, section 9).

A folder holds ``schema.json`` and a folder a part, named by a UUIDv7, whose order is that of the rows. While rows that
are to appear together are written it holds ``unfinished.json`` instead, which is renamed at the end. A part is
complete: it appears by renaming, with ``part.json`` and one plain ``.npy`` a column or piece of one:

=====================  =====================================================================
field                  files
=====================  =====================================================================
Dense                  ``<name>.npy``, ``(num_samples, *shape)``
Ragged, Text, Bytes    ``<name>.values.npy``, ``<name>.offsets.npy`` int64 ``(num_samples + 1,)``
Sparse                 ``<name>.indices.npy`` uint32, ``<name>.indptr.npy`` int64, and with
                       values ``<name>.values.npy``
=====================  =====================================================================
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import msgspec
import numpy as np

from shardstream.errors import DatasetError, DatasetNotFoundError
from shardstream.log import new_id
from shardstream.log.ids import UUID
from shardstream.schema import Dense, Field, Ragged, Schema, Sparse
from shardstream.storage import local
from shardstream.storage.urls import MAPPED_FILES, local_folder

__all__ = ["PieceSpec", "checked_folder", "encode_schema", "list_parts", "new_id", "pieces", "read_part", "read_schema",
           "write_schema"]  # fmt: skip

FORMAT = 1
SCHEMA_FILE, UNFINISHED_FILE = MAPPED_FILES
PART_FILE = "part.json"
UNFINISHED = "a conversion that is under way or was killed; run the same shardstream convert again, or delete the folder."
MAX_PART_SAMPLES = 2**32 - 1  # rows are named by uint32 within a part


class _SchemaRecord(msgspec.Struct):
    format: int
    schema: list[dict]


class PartRecord(msgspec.Struct):
    """What ``part.json`` says: its rows, and the elements of each file."""

    format: int
    num_samples: int
    num_elements: dict[str, int]


@dataclass(frozen=True)
class PieceSpec:
    """One file of a column: its name, dtype, the shape of an element, and whether it holds offsets or a row a sample.

    Attributes:
        kind: "rows" (one element a sample), "offsets" (one more) or "values" (as many as the last offset).
    """

    file: str
    dtype: str
    shape: tuple[int, ...]
    kind: str


def pieces(name: str, field: Field) -> list[PieceSpec]:
    """Return the files of a column, in the order of its decoded form (``codecs/columns.py``)."""
    if isinstance(field, Dense):
        return [PieceSpec(f"{name}.npy", field.dtype, field.shape, "rows")]
    if isinstance(field, Sparse):
        values = [] if field.values is None else [PieceSpec(f"{name}.values.npy", field.values, (), "values")]
        return [PieceSpec(f"{name}.indices.npy", "uint32", (), "values"),
                PieceSpec(f"{name}.indptr.npy", "int64", (), "offsets"), *values]  # fmt: skip
    dtype = field.dtype if isinstance(field, Ragged) else "uint8"
    return [PieceSpec(f"{name}.values.npy", dtype, (), "values"),
            PieceSpec(f"{name}.offsets.npy", "int64", (), "offsets")]  # fmt: skip


def checked_folder(folder: str | os.PathLike) -> str:
    """Return a folder's absolute path; ConfigError if it is none of this machine."""
    return local_folder(folder, "a folder", "which memory mapping needs; ss.ShardWriter writes to URLs, ss.ShardStream reads them")


def encode_schema(schema: Schema) -> bytes:
    """Return the bytes of ``schema.json``."""
    return msgspec.json.encode(_SchemaRecord(FORMAT, schema.to_json()))


def write_schema(folder: str, schema: Schema) -> Schema:
    """Give a folder its schema if it has none; return the one that stands there then."""
    if os.path.exists(os.path.join(folder, UNFINISHED_FILE)):
        raise DatasetError(f"{folder!r} holds {UNFINISHED}")
    local.write_if_absent(os.path.join(folder, SCHEMA_FILE), encode_schema(schema))
    return read_schema(folder)


def read_schema(folder: str) -> Schema:
    """Return the schema of the dataset in ``folder``.

    Raises:
        DatasetNotFoundError: There is none.
        DatasetError: ``schema.json`` is malformed or of a newer format.
    """
    path = os.path.join(folder, SCHEMA_FILE)
    try:
        with open(path, "rb") as file:
            record = _decode(file.read(), _SchemaRecord, path)
    except (FileNotFoundError, NotADirectoryError) as error:
        there = UNFINISHED if os.path.exists(os.path.join(folder, UNFINISHED_FILE)) else f"no {SCHEMA_FILE}."
        raise DatasetNotFoundError(f"there is no memory-mapped dataset at {folder!r}: it holds {there}") from error
    except OSError as error:
        raise DatasetError(f"{path} can't be read: {error.strerror}.") from error
    return Schema.from_json(record.schema)


def list_parts(folder: str) -> list[str]:
    """Return the names of the complete parts, in row order."""
    return sorted(name for name in os.listdir(folder) if UUID.match(name))


def read_part(folder: str, part: str, schema: Schema) -> PartRecord:
    """Return the record of a part.

    Raises:
        DatasetError: It is malformed, of a newer format, or of another schema.
    """
    path = os.path.join(folder, part, PART_FILE)
    try:
        with open(path, "rb") as file:
            record = _decode(file.read(), PartRecord, path)
    except OSError as error:
        raise DatasetError(f"{path} can't be read: {error.strerror}.") from error
    expected = {piece.file for name, field in schema.items() for piece in pieces(name, field)}
    counts = [record.num_samples, *record.num_elements.values()]
    if set(record.num_elements) != expected or min(counts) < 0 or not 0 < record.num_samples <= MAX_PART_SAMPLES:
        raise DatasetError(f"{path} does not describe a part of this schema.")
    return record


def encode_part(num_samples: int, num_elements: dict[str, int]) -> bytes:
    """Return the bytes of ``part.json``."""
    return msgspec.json.encode(PartRecord(FORMAT, num_samples, num_elements))


def map_piece(folder: str, part: str, piece: PieceSpec, num_elements: int) -> np.ndarray:
    """Return a file of a part as a read-only memory-mapped array.

    Raises:
        DatasetError: It is missing, cut, or not of the dtype and shape that schema and record say.
    """
    path = os.path.join(folder, part, piece.file)
    shape = (num_elements, *piece.shape)
    if num_elements == 0:
        return np.empty(shape, piece.dtype)  # nothing can be mapped of it
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DatasetError(f"{path} can't be mapped: {error}") from error
    if array.dtype != np.dtype(piece.dtype).newbyteorder("<") or array.shape != shape or not array.flags.c_contiguous:
        raise DatasetError(f"{path} holds {array.dtype}{list(array.shape)}, not {piece.dtype}{list(shape)}.")
    return array


def _decode(data: bytes, kind: type, path: str):
    try:
        record = msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DatasetError(f"{path} is not what its format says: {error}") from error
    if record.format > FORMAT:
        raise DatasetError(f"{path} has format {record.format}; this version reads up to {FORMAT}: "
                           "upgrade shardstream.")  # fmt: skip
    return record

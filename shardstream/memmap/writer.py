"""Samples in, parts of memory-mapped columns out: ``MemmapWriter``."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, BinaryIO

import numpy as np

from shardstream.codecs import rows
from shardstream.codecs.columns import npy_header
from shardstream.codecs.shard import MAX_BLOCK_NBYTES, MAX_BLOCK_SAMPLES
from shardstream.config import parse_nbytes
from shardstream.errors import ConfigError, SchemaError, ShardstreamError, StorageError
from shardstream.memmap.layout import (
    MAX_PART_SAMPLES,
    PART_FILE,
    SCHEMA_FILE,
    UNFINISHED_FILE,
    PieceSpec,
    checked_folder,
    encode_part,
    encode_schema,
    list_parts,
    new_id,
    pieces,
    write_schema,
)
from shardstream.schema import Schema
from shardstream.storage import local

logger = logging.getLogger("shardstream")


class MemmapWriter:
    """Writes samples as columns that :class:`MemmapDataset` maps: the tier of what fits on the disk.

    Samples and batches are checked as :class:`ShardWriter` does. A part of about ``part_nbytes`` is committed by
    renaming its folder once its files are on disk, so after a kill there are whole parts, and
    ``len(ss.MemmapDataset(folder))`` tells with which row to go on. Several writers may add to one folder.

    Args:
        folder: Local, a path or a ``file://`` URL; created if it is missing.
        schema: Of the samples.
        part_nbytes: Size at which a part is committed.

    Raises:
        SchemaError: The folder's dataset has another schema.
        SampleError: At ``write`` or ``write_batch``: a sample does not fit; nothing of that call is written.
        StorageError: The disk failed or is full; the part that was being written is given up.

    Example:
        >>> with ss.MemmapWriter("/tmp/words", ss.Schema(x=ss.Sparse(1024), y=ss.Dense("int64"))) as writer:
        ...     writer.write({"x": [3, 17, 600], "y": 1})
    """

    def __init__(self, folder: str | os.PathLike, schema: Schema, part_nbytes: int | str = "1GB"):
        if not isinstance(schema, Schema):
            raise SchemaError(f"schema must be an ss.Schema, not {type(schema).__name__}.")
        self.folder, self.schema = checked_folder(folder), schema
        self._part_nbytes = parse_nbytes(part_nbytes, "part_nbytes")
        try:
            self._claim()
            _remove_abandoned(self.folder)
        except OSError as error:
            if isinstance(error, ShardstreamError):
                raise
            raise StorageError(f"{self.folder} can't be written to: {error.strerror}.") from error
        self.num_samples = 0  #: samples taken
        self.num_samples_committed = 0  #: samples in committed parts
        self._part: _Part | None = None
        self._waiting: list[dict] = []
        self._waiting_samples = self._waiting_nbytes = 0
        self._closed = False

    def _claim(self) -> None:
        """Make the folder this schema's."""
        if (standing := write_schema(self.folder, self.schema)) != self.schema:
            raise SchemaError(f"the dataset at {self.folder!r} has the schema {standing!r}.")

    def write(self, sample: Mapping[str, Any]) -> None:
        """Write one sample."""
        self._take(rows.check_sample(self.schema, sample), 1)

    def write_batch(self, batch: Mapping[str, Any]) -> None:
        """Write many samples given as columns, in the forms that :meth:`ShardWriter.write_batch` takes."""
        parts, num_samples = rows.check_batch(self.schema, batch)
        if num_samples:
            self._take(parts, num_samples)

    def close(self) -> None:
        """Commit the last part. A second call does nothing."""
        if not self._closed:
            self._closed = True
            self._guarded(self._commit)

    def __enter__(self) -> MemmapWriter:
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if kind is None:
            self.close()
        elif not self._closed:
            self._closed = True
            self._discard()
            logger.error("%s", f"{self.folder}: {self.num_samples - self.num_samples_committed} samples of the unfinished part were "
                               f"dropped after {kind.__name__}; {self.num_samples_committed} are committed.")  # fmt: skip

    def _take(self, parts: dict, num_samples: int) -> None:
        if self._closed:
            raise ConfigError("this writer is closed.")
        # Copied: what waits must not change when the caller uses its arrays again.
        self._waiting.append({name: rows.copy_part(part) for name, part in parts.items()})
        self._waiting_samples += num_samples
        self._waiting_nbytes += sum(int(rows.row_nbytes(part).sum()) for part in parts.values())
        self.num_samples += num_samples
        if self._waiting_nbytes >= MAX_BLOCK_NBYTES or self._waiting_samples >= MAX_BLOCK_SAMPLES:
            self._guarded(self._append)

    def _guarded(self, step) -> None:
        """Do a step that writes; give the part up, and the writer with it, if that fails."""
        try:
            step()
        except BaseException as error:
            self._closed = True
            self._discard()
            if isinstance(error, OSError) and not isinstance(error, ShardstreamError):
                raise StorageError(f"writing below {self.folder} failed: {error.strerror}; the unfinished part was dropped, and "
                                   f"{self.num_samples_committed} samples are committed.") from error  # fmt: skip
            raise

    def _append(self) -> None:
        """Move what waits to the open part's files, and commit the part if it is full."""
        columns = {name: rows.concatenate([parts[name] for parts in self._waiting]) for name in self.schema}
        if self._part is not None and self._part.num_samples + self._waiting_samples > MAX_PART_SAMPLES:
            self._finish_part()
        self._part = self._part or _Part(self.folder, self.schema)
        self._part.append(columns, self._waiting_samples)
        self._waiting, self._waiting_samples, self._waiting_nbytes = [], 0, 0
        if self._part.nbytes >= self._part_nbytes:
            self._finish_part()

    def _commit(self) -> None:
        if self._waiting:
            self._append()
        if self._part is not None:
            self._finish_part()

    def _finish_part(self) -> None:
        self._part.commit()
        self.num_samples_committed += self._part.num_samples
        self._part = None

    def _discard(self) -> None:
        self._waiting = []
        if self._part is not None:
            self._part.discard()
            self._part = None


class WholeWriter(MemmapWriter):
    """A writer to a new folder, whose rows appear together when it is closed; of a killed one nothing can be opened.

    Raises:
        ConfigError: A dataset stands in the folder, or another such writer is at work there.
    """

    def _claim(self) -> None:
        self._path, schema_path = (os.path.join(self.folder, name) for name in (UNFINISHED_FILE, SCHEMA_FILE))
        os.makedirs(self.folder, exist_ok=True)
        self._lock = self._locked()
        try:
            if os.path.exists(schema_path):
                with suppress(FileNotFoundError):
                    os.unlink(self._path)
                raise ConfigError(f"{self.folder!r} holds a dataset already; name another folder.")
            self._remove_parts()  # of one that was killed: with no schema there, nobody else has written any
            data = encode_schema(self.schema)
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, data, 0)
            os.fsync(self._lock)
            local.fsync_folder(self.folder)
        except BaseException:
            os.close(self._lock)
            raise

    def _locked(self) -> int:
        """Return a descriptor of the file that stands for unfinished rows, with its lock."""
        while True:
            lock = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(lock), os.stat(self._path)):
                    return lock
            except BlockingIOError as error:
                os.close(lock)
                raise ConfigError(f"another conversion to {self.folder!r} is under way.") from error
            except FileNotFoundError:
                pass
            os.close(lock)  # whoever had it renamed or removed it between the two calls

    def close(self) -> None:
        """Commit all parts, and show them. A second call does nothing."""
        if not self._closed:
            super().close()
            self._guarded(lambda: os.rename(self._path, os.path.join(self.folder, SCHEMA_FILE)))
            os.close(self._lock)
            local.fsync_folder(self.folder)

    def _discard(self) -> None:
        super()._discard()
        if os.path.exists(self._path):  # else Ctrl-C came when all was shown
            self._remove_parts()
            os.unlink(self._path)
            self.num_samples_committed = 0
        os.close(self._lock)

    def _remove_parts(self) -> None:
        for part in list_parts(self.folder):
            shutil.rmtree(os.path.join(self.folder, part), ignore_errors=True)


class _Part:
    """A part being written, in a hidden folder whose lock says that its writer lives."""

    def __init__(self, folder: str, schema: Schema):
        self._folder = folder
        self._pieces = {name: pieces(name, field) for name, field in schema.items()}
        self._name, self._path, self._lock = _locked_folder(folder)
        self._files: dict[str, BinaryIO] = {}
        self._num_elements: dict[str, int] = {}
        self.num_samples = self.nbytes = 0
        for specs in self._pieces.values():
            for piece in specs:
                # closed by commit() or discard()
                self._files[piece.file] = open(os.path.join(self._path, piece.file), "xb")
                self._files[piece.file].write(_header(piece, 0))
                self._num_elements[piece.file] = 0
                if piece.kind == "offsets":
                    self._write(piece, np.zeros(1, np.int64))

    def append(self, columns: dict, num_samples: int) -> None:
        """Add columns in their decoded form; offsets become those of the part."""
        for name, column in columns.items():
            specs = self._pieces[name]
            base = self._num_elements[specs[0].file]  # values before these
            for piece, array in zip(specs, (column,) if isinstance(column, np.ndarray) else column):
                self._write(piece, array[1:] + base if piece.kind == "offsets" else array)
        self.num_samples += num_samples

    def commit(self) -> None:
        """Put every file on disk and show the part."""
        for specs in self._pieces.values():
            for piece in specs:
                file = self._files[piece.file]
                file.seek(0)
                file.write(_header(piece, self._num_elements[piece.file]))
                file.flush()
                os.fsync(file.fileno())
                file.close()
        local.write(os.path.join(self._path, PART_FILE), encode_part(self.num_samples, self._num_elements))
        os.rename(self._path, os.path.join(self._folder, self._name))
        local.fsync_folder(self._folder)
        os.close(self._lock)

    def discard(self) -> None:
        for file in self._files.values():
            file.close()
        shutil.rmtree(self._path, ignore_errors=True)
        os.close(self._lock)

    def _write(self, piece: PieceSpec, array: np.ndarray) -> None:
        data = np.ascontiguousarray(array, np.dtype(piece.dtype).newbyteorder("<"))
        self._files[piece.file].write(data)
        self._num_elements[piece.file] += len(data)
        self.nbytes += data.nbytes


def _locked_folder(folder: str) -> tuple[str, str, int]:
    """Return a new part's name, its hidden folder, and a descriptor that holds the folder's lock."""
    while True:
        name = new_id()
        path = os.path.join(folder, f".{name}")
        os.mkdir(path)
        lock = os.open(path, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.fstat(lock).st_nlink:  # else another writer took it for abandoned before it was locked
            return name, path, lock
        os.close(lock)


def _header(piece: PieceSpec, num_elements: int) -> bytes:
    """Return the .npy header; numpy leaves room in it for any number of rows, so its length is always the same."""
    return npy_header(np.dtype(piece.dtype).newbyteorder("<").str, (num_elements, *piece.shape))


def _remove_abandoned(folder: str) -> None:
    """Remove unfinished parts of writers that are gone: those whose lock is free."""
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if not name.startswith(".") or name.startswith(local.TEMPORARY) or not os.path.isdir(path):
            continue
        try:
            lock = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
        except BlockingIOError:
            pass  # its writer is at work
        finally:
            os.close(lock)

"""Files on local disk that appear whole or not at all, and survive a power cut once reported.

The recipe of T. Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014: write a
temporary file in the same folder, fsync it, give it its name, fsync the folder.
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from shardstream.errors import StorageError, StorageRefused

TEMPORARY = ".tmp-"  # files of this prefix are unfinished; listings leave them out


def fsync_folder(folder: str) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _temporary(path: str, data: bytes, durable: bool = True) -> Iterator[str]:
    """Yield the name of a new, synced file with ``data`` beside ``path``; removed if still there."""
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    temporary = os.path.join(folder, f"{TEMPORARY}{os.getpid()}-{uuid.uuid4().hex}")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        yield temporary
    finally:
        try:
            os.unlink(temporary)
        except FileNotFoundError:
            pass


def write(path: str, data: bytes, durable: bool = True) -> None:
    """Write or replace a file atomically; ``durable=False`` skips the fsyncs."""
    with _temporary(path, data, durable) as temporary:
        os.replace(temporary, path)
    if durable:
        fsync_folder(os.path.dirname(path))


def write_if_absent(path: str, data: bytes) -> bool:
    """Create a file with ``data``; False, and nothing changed, when the name is taken.

    ``os.link`` fails if the name exists and shows the file only when complete; opening the final
    name with ``O_EXCL`` and writing then would show half a file to readers.
    """
    with _temporary(path, data) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno in (errno.EPERM, errno.ENOTSUP, errno.EMLINK):
                raise StorageRefused(f"{path}: this file system has no hard links, which commits need.") from error
            raise
    try:
        fsync_folder(os.path.dirname(path))
    except OSError as error:
        raise StorageError(f"{path} was created, but it is not known whether it would survive a power cut.") from error
    return True


def move_in(source: str, path: str) -> None:
    """Move a finished file to ``path``, by renaming on one file system, else by a synced copy."""
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    if os.stat(source).st_dev == os.stat(folder).st_dev:
        with open(source, "rb") as file:
            os.fsync(file.fileno())
        os.replace(source, path)
    else:
        temporary = os.path.join(folder, f"{TEMPORARY}{os.getpid()}-{uuid.uuid4().hex}")
        try:
            with open(source, "rb") as file, open(temporary, "xb") as copy:
                shutil.copyfileobj(file, copy, 1 << 20)
                copy.flush()
                os.fsync(copy.fileno())
            os.replace(temporary, path)
        except BaseException:
            if os.path.exists(temporary):
                os.unlink(temporary)
            raise
        os.unlink(source)
    fsync_folder(folder)

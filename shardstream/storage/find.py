"""Files below a folder or prefix, and their bytes: the input of packing jobs."""

from __future__ import annotations

import io
import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO
from urllib.parse import urlsplit

from shardstream.errors import StorageError
from shardstream.storage.clients import filesystem, run
from shardstream.storage.fetch import Fetcher
from shardstream.storage.retry import DEFAULT_RETRY, attempt
from shardstream.storage.store import Store
from shardstream.storage.urls import is_local, normalise, protocol, redact

NEVER = re.compile("(?!)")
REMOTE_THREADS = 16
REMOTE_RANGE_NBYTES = 4 << 20
LOCAL_BUFFER_NBYTES = 1 << 20


@dataclass(frozen=True)
class FoundFile:
    """A file: its URL, its path below the folder that was searched, its size, and what changes with its contents.

    ``stamp`` is the time of the last change, or what the store has in place of it.
    """

    url: str
    name: str
    nbytes: int
    stamp: str = ""

    @property
    def place(self) -> str:
        """The URL as messages and data show it: without user information and query, where credentials travel."""
        return redact(self.url)


def find_files(url: str, storage_options: dict | None = None, exclude: re.Pattern = NEVER) -> list[FoundFile]:
    """Return the files at any depth below a folder or prefix, sorted by name; of a file's URL, that file. Over HTTP
    there are only files.

    Folders and files whose path below ``url`` matches ``exclude`` are left out with all they hold.
    Links to files count as files; links to folders are not followed, so the search ends.

    Raises:
        FileNotFoundError: there is nothing at ``url``.
        StorageError: a folder cannot be listed.
    """
    url = normalise(url)
    found = _find_local(url, exclude) if is_local(url) else _find_remote(url, storage_options, exclude)
    return sorted(found, key=lambda file: file.name)


def read_files(files: Sequence[FoundFile], storage_options: dict | None = None) -> Iterator[bytes]:
    """Give the contents of files in order; remote ones are read ahead, 16 at a time, one request each."""
    if all(is_local(file.url) for file in files):
        yield from (_read_local(file.url) for file in files)
        return
    with ThreadPoolExecutor(min(REMOTE_THREADS, len(files)), thread_name_prefix="shardstream-files") as pool:
        yield from pool.map(lambda file: _read_remote(file.url, storage_options), files)


def open_file(file: FoundFile, storage_options: dict | None = None) -> BinaryIO:
    """Return a file's bytes as a seekable stream; a remote one is read by ranges of 4 MiB, each with retries."""
    if not is_local(file.url):
        return io.BufferedReader(_RemoteFile(file, storage_options), REMOTE_RANGE_NBYTES)
    try:
        return open(file.url, "rb", buffering=LOCAL_BUFFER_NBYTES)
    except OSError as error:
        raise StorageError(f"reading {file.url} failed: {error.strerror}") from error


def write_file(url: str, data: bytes, storage_options: dict | None = None) -> None:
    """Write or replace a file, local or remote, whole."""
    folder, _, name = normalise(url).rpartition("/")
    Store(folder or "/", storage_options).put_bytes(name, data)


class _RemoteFile(io.RawIOBase):
    """A remote file of known size, a request for each read."""

    def __init__(self, file: FoundFile, storage_options: dict | None):
        self._file, self._storage_options, self._position = file, storage_options, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._file.nbytes}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer) -> int:
        end = min(self._position + len(buffer), self._file.nbytes)
        if end <= self._position:
            return 0
        client = filesystem(protocol(self._file.url), self._storage_options)
        data = attempt(
            DEFAULT_RETRY,
            f"reading {redact(self._file.url)}",
            lambda timeout_s: run(client, "cat_file", self._file.url, start=self._position, end=end, timeout_s=timeout_s),
        )
        if len(data) != end - self._position:  # less is not the end of the file, and more is not what was asked for
            raise StorageError(f"reading {redact(self._file.url)} at byte {self._position} failed: asked for {end - self._position} bytes the "
                               f"server sent {len(data)}; the file was changed, or the server ignores ranges.")  # fmt: skip
        buffer[: len(data)] = data
        self._position = end
        return len(data)


def _find_local(root: str, exclude: re.Pattern) -> list[FoundFile]:
    if not os.path.isdir(root):
        return [_local_file(root, os.path.basename(root))]
    found = []

    def stop(error: OSError) -> None:
        raise StorageError(f"listing {error.filename} failed: {error.strerror}") from error

    for folder, folders, names in os.walk(root, onerror=stop):
        below = "" if folder == root else os.path.relpath(folder, root).replace(os.sep, "/") + "/"
        folders[:] = [name for name in folders if not exclude.fullmatch(below + name)]
        for name in names:
            path = os.path.join(folder, name)
            if not exclude.fullmatch(below + name) and os.path.isfile(path):  # no pipes, sockets, dangling links
                found.append(_local_file(path, below + name))
    return found


def _local_file(path: str, name: str) -> FoundFile:
    status = os.stat(path)
    return FoundFile(path, name, status.st_size, str(status.st_mtime_ns))


def _find_remote(url: str, storage_options: dict | None, exclude: re.Pattern) -> list[FoundFile]:
    if protocol(url) in ("http", "https"):  # there is no listing: a URL is that of a file
        nbytes, stamp = Fetcher(storage_options).identify(url)
        name = posixpath.basename(urlsplit(url).path) or "index"
        return [] if exclude.fullmatch(name) else [FoundFile(url, name, nbytes, stamp or "")]
    client = filesystem(protocol(url), storage_options)

    def request(timeout_s: float) -> list[dict]:
        client.invalidate_cache()
        return list(run(client, "find", url, detail=True, timeout_s=timeout_s).values())

    items = attempt(DEFAULT_RETRY, f"listing {redact(url)}", request)
    found, root = [], client._strip_protocol(url).rstrip("/")  # the way the items are named: "memory://a" is "/a"
    for item in items:
        full = normalise(client.unstrip_protocol(item["name"]))
        name = item["name"].removeprefix(root).lstrip("/") or full.rpartition("/")[2]
        parts = name.split("/")
        if not any(exclude.fullmatch("/".join(parts[:depth])) for depth in range(1, len(parts) + 1)):
            stamp = next((str(item[known]) for known in ("ETag", "LastModified", "mtime") if item.get(known)), "")
            found.append(FoundFile(full, name, int(item["size"] or 0), stamp))
    if not items:
        raise FileNotFoundError(f"there is nothing at {redact(url)}.")
    return found


def _read_local(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except OSError as error:
        raise StorageError(f"reading {path} failed: {error.strerror}") from error


def _read_remote(url: str, storage_options: dict | None) -> bytes:
    client = filesystem(protocol(url), storage_options)
    return attempt(
        DEFAULT_RETRY, f"reading {redact(url)}", lambda timeout_s: run(client, "cat_file", url, timeout_s=timeout_s)
    )

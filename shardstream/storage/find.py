"""Files below a folder or prefix, and their bytes: the input of packing jobs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from shardstream.errors import StorageError
from shardstream.storage.clients import filesystem, run
from shardstream.storage.retry import DEFAULT_RETRY, attempt
from shardstream.storage.urls import is_local, normalise, protocol, redact

NEVER = re.compile("(?!)")
REMOTE_THREADS = 16


@dataclass(frozen=True)
class FoundFile:
    """A file: its URL, its path below the folder that was searched, and its size."""

    url: str
    name: str
    nbytes: int


def find_files(url: str, storage_options: dict | None = None, exclude: re.Pattern = NEVER) -> list[FoundFile]:
    """Return the files at any depth below a folder or prefix, sorted by name; of a file's URL, that file.

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


def _find_local(root: str, exclude: re.Pattern) -> list[FoundFile]:
    if not os.path.isdir(root):
        return [FoundFile(root, os.path.basename(root), os.stat(root).st_size)]
    found = []

    def stop(error: OSError) -> None:
        raise StorageError(f"listing {error.filename} failed: {error.strerror}") from error

    for folder, folders, names in os.walk(root, onerror=stop):
        below = "" if folder == root else os.path.relpath(folder, root).replace(os.sep, "/") + "/"
        folders[:] = [name for name in folders if not exclude.fullmatch(below + name)]
        for name in names:
            path = os.path.join(folder, name)
            if not exclude.fullmatch(below + name) and os.path.isfile(path):  # no pipes, sockets, dangling links
                found.append(FoundFile(path, below + name, os.stat(path).st_size))
    return found


def _find_remote(url: str, storage_options: dict | None, exclude: re.Pattern) -> list[FoundFile]:
    client = filesystem(protocol(url), storage_options)

    def request(timeout_s: float) -> list[dict]:
        client.invalidate_cache()
        return list(run(client, "find", url, detail=True, timeout_s=timeout_s).values())

    items = attempt(DEFAULT_RETRY, f"listing {redact(url)}", request)
    found = []
    for item in items:
        full = normalise(client.unstrip_protocol(item["name"]))
        name = full.removeprefix(url).lstrip("/") or full.rpartition("/")[2]
        parts = name.split("/")
        if not any(exclude.fullmatch("/".join(parts[:depth])) for depth in range(1, len(parts) + 1)):
            found.append(FoundFile(full, name, int(item["size"] or 0)))
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

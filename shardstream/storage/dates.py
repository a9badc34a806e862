"""When objects were written, by the clock of the store that has them: what gc judges age by, since hosts' clocks
differ.
"""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shardstream.errors import StorageError
from shardstream.storage import local
from shardstream.storage.clients import filesystem, run
from shardstream.storage.retry import attempt
from shardstream.storage.store import Store
from shardstream.storage.urls import protocol, redact

KEYS = ("LastModified", "last_modified", "mtime", "updated", "created")  # by whichever fsspec client


@dataclass(frozen=True)
class Dated:
    """An object: its name within its folder, its size, and when it was written, in seconds since 1970."""

    name: str
    nbytes: int
    modified_s: float


def dated(store: Store, folder: str = "") -> list[Dated]:
    """Return all objects in a folder of a store, one level, sorted by name; on local disk unfinished files, too."""
    url = store.join(folder) if folder else store.url
    if store.is_local:
        return sorted(_scanned(url), key=lambda each: each.name)
    client = filesystem(protocol(store.url), store.storage_options)

    def request(timeout_s: float) -> list[dict]:
        client.invalidate_cache()
        return run(client, "ls", url, detail=True, timeout_s=timeout_s)

    try:
        items = attempt(store.retry, f"listing {redact(url)}", request)
    except FileNotFoundError:
        return []
    found = [item for item in items if item["type"] == "file"]
    return sorted((Dated(item["name"].rpartition("/")[2], int(item["size"] or 0), _seconds(item, url)) for item in found),
                  key=lambda each: each.name)  # fmt: skip


def modified_s(store: Store, name: str) -> float:
    """Return when an object was written, in seconds since 1970; FileNotFoundError when there is none."""
    url = store.join(name)
    if store.is_local:
        return os.stat(url).st_mtime
    client = filesystem(protocol(store.url), store.storage_options)
    info = attempt(store.retry, f"looking at {redact(url)}", lambda timeout_s: run(client, "info", url, timeout_s=timeout_s))
    return _seconds(info, url)


def now_s(store: Store) -> float:
    """Return what the store's clock shows: the date of an object that is put, looked at, and deleted."""
    name = f"{local.TEMPORARY}clock-{uuid.uuid4().hex}"
    store.put_bytes(name, b"", durable=False)
    try:
        return modified_s(store, name)
    finally:
        store.delete([name])


def _scanned(folder: str) -> list[Dated]:
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                    if entry.is_file(follow_symlinks=False):
                        found.append(Dated(entry.name, status.st_size, status.st_mtime))
                except FileNotFoundError:  # renamed or removed meanwhile
                    pass
    except FileNotFoundError:
        pass
    return found


def _seconds(info: dict[str, Any], url: str) -> float:
    value = next((info[key] for key in KEYS if info.get(key) is not None), None)
    if isinstance(value, str):
        value = datetime.fromisoformat(value.replace("Z", "+00:00"))
    if value is None:
        raise StorageError(f"{redact(url)}: this store does not say when its objects were written.")
    return value.timestamp() if isinstance(value, datetime) else float(value)

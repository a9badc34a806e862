"""URLs of datasets and shards as one text each, and the patterns that stand for many.

A local place is an absolute path without ``file://``; anything else keeps its scheme. The
result never ends in a slash, so a name is joined with one.
"""

from __future__ import annotations

import functools
import itertools
import os
import posixpath
import re
from collections.abc import Iterable, Mapping
from typing import Any

from braceexpand import UnbalancedBracesError, braceexpand

from shardstream.config import RetryPolicy
from shardstream.errors import ConfigError, DatasetNotFoundError
from shardstream.storage.clients import filesystem, run
from shardstream.storage.retry import DEFAULT_RETRY, attempt, code_of

SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://")
SHARD_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tzst")
MAPPED_FILES = ("schema.json", "unfinished.json")  # one of which a folder of memory-mapped columns has (memmap/layout.py)
MAX_EXPANDED_URLS = 10_000_000  # "{0..10**12}" is a mistake, and would not fit memory


@functools.lru_cache(maxsize=1024)  # asked for each block that is read
def protocol(url: str) -> str:
    """Return the scheme of a URL, ``"file"`` for a local path."""
    match = SCHEME.match(url)
    return match[1].lower() if match else "file"


def is_local(url: str) -> bool:
    """Return whether a URL names a local path."""
    return protocol(url) in ("file", "local")


def normalise(url: str | os.PathLike) -> str:
    """Return the one way in which this library writes a URL (see above)."""
    text = os.fspath(url) if isinstance(url, (str, os.PathLike)) else None
    if not isinstance(text, str) or not text or "\0" in text:
        raise ConfigError(f"a URL must be a non-empty text or path, not {url!r}.")
    if is_local(text):
        return os.path.abspath(os.path.expanduser(SCHEME.sub("", text, count=1)))
    head = SCHEME.match(text)[0]
    return head.lower() + text[len(head) :].rstrip("/")


def local_folder(folder: str | os.PathLike, name: str, why: str) -> str:
    """Return a folder's absolute path, also of its ``file://`` URL; ConfigError if it is none of this machine.

    Args:
        name: Of the argument, for messages.
        why: Completes the message "... is not a local folder, ".
    """
    if not isinstance(folder, (str, os.PathLike)) or not isinstance(path := os.fspath(folder), str) or not path:
        raise ConfigError(f"{name} must be a non-empty text or path, not {folder!r:.100}.")
    if not is_local(path):
        raise ConfigError(f"{redact(path)!r} is not a local folder, {why}.")
    return normalise(path)


def is_mapped(place: str | os.PathLike) -> bool:
    """Return whether a place is a folder that :class:`MemmapWriter` wrote, or a conversion began to write."""
    folder = normalise(place)
    return is_local(folder) and any(os.path.isfile(os.path.join(folder, name)) for name in MAPPED_FILES)


def not_found(url: str, what: str) -> DatasetNotFoundError:
    """Return the error for who looked for ``what`` at a normalised URL, which says what stands there instead."""
    if not is_mapped(url):
        return DatasetNotFoundError(f"there is {what} at {redact(url)}.")
    return DatasetNotFoundError(f"{url} holds memory-mapped columns, which have no log and no shards: ss.MemmapDataset reads them, and "
                                f"`shardstream convert {url} TARGET` makes a dataset of them.")  # fmt: skip


def checked_urls(urls: Any) -> str | list[str]:
    """Return one URL as a text, several as a list of texts; ConfigError that says what to give if these are neither."""
    if isinstance(urls, (str, os.PathLike)):
        normalise(urls)
        return os.fspath(urls)
    advice = "give the URL of a dataset, or shards: a URL, a list of them, a glob, a brace pattern or a folder"
    try:
        if isinstance(urls, (bytes, bytearray, Mapping, set, frozenset)):  # a set has another order in each process
            raise TypeError
        items = iter(urls)
    except TypeError:
        here = "; here, its .url" if isinstance(getattr(urls, "url", None), str) else ""
        raise ConfigError(f"{urls!r:.100} is not a URL: {advice}{here}.") from None
    checked = []
    for url in items:
        if not isinstance(url, (str, os.PathLike)):
            raise ConfigError(f"item {len(checked)} of a {type(urls).__name__} of URLs is {url!r:.100}, not a URL: {advice}.")
        checked.append(os.fspath(url))
    return checked


def names_shards(url: str) -> bool:
    """Return whether a URL is read as shards, one or a pattern of many, and so can't be a dataset's."""
    return any(sign in url for sign in "*?{[") or url.endswith((".tar", ".tgz", ".tar.gz", ".tar.zst", ".tar.bz2", ".tar.xz"))


def redact(url: str) -> str:
    """Return a URL fit for messages: without user information and query, where credentials travel."""
    if is_local(url):
        return url
    head, _, rest = url.partition("://")
    place = rest.split("?", 1)[0]
    host, slash, path = place.partition("/")
    return f"{head}://{host.rpartition('@')[2]}{slash}{path}"


def expand_urls(urls: str | os.PathLike | Iterable, storage_options: dict | None = None, retry: RetryPolicy = DEFAULT_RETRY) -> list[str]:
    """Return the shard URLs that a URL, pattern, folder or list of these stands for.

    ``{000..012}`` and ``{a,b}`` expand in the order written, ``*``, ``?`` and ``[...]`` and folders
    (their ``*.tar``, ``*.tar.gz``, ``*.tgz``, ...) in sorted order; a list in its own order. Patterns
    and folders cost a listing each, plain URLs nothing.

    Raises:
        ConfigError: what is no URL, unbalanced braces, or more than ``MAX_EXPANDED_URLS`` names.
        DatasetNotFoundError: a pattern or folder without a shard in it.
    """
    urls = checked_urls(urls)
    if isinstance(urls, str):
        urls = [urls]
    found: list[str] = []
    for pattern in urls:
        for url in _braces(normalise(pattern)):
            found.extend(_shards_at(url, storage_options, retry))
            if len(found) > MAX_EXPANDED_URLS:
                raise ConfigError(f"{redact(str(pattern))} stands for more than {MAX_EXPANDED_URLS:,} shards.")
    return found


def _braces(pattern: str) -> list[str]:
    if "{" not in pattern:
        return [pattern]
    try:
        expanded = list(itertools.islice(braceexpand(pattern), MAX_EXPANDED_URLS + 1))
    except UnbalancedBracesError as error:
        raise ConfigError(f"{redact(pattern)}: unbalanced braces; write {{000..012}} or {{a,b}}.") from error
    if len(expanded) > MAX_EXPANDED_URLS:
        raise ConfigError(f"{redact(pattern)} stands for more than {MAX_EXPANDED_URLS:,} shards.")
    return expanded


def _shards_at(url: str, storage_options: dict | None, retry: RetryPolicy) -> list[str]:
    if protocol(url) in ("http", "https"):
        return [url]  # '?' and '[' are part of a query there, and there is no listing
    if any(mark in posixpath.basename(url) or mark in url for mark in "*?["):
        names = _listed(url, storage_options, retry, pattern=True)
    elif url.endswith(SHARD_ENDINGS):
        return [url]
    else:
        names = [name for name in _listed(url, storage_options, retry, pattern=False) if name.endswith(SHARD_ENDINGS)]
    if not names:
        if any(mark in url for mark in "*?["):
            raise DatasetNotFoundError(f"no shard matches {redact(url)}.")
        raise not_found(url, "neither a dataset nor a shard")
    return sorted(names)


def _listed(url: str, storage_options: dict | None, retry: RetryPolicy, pattern: bool) -> list[str]:
    """Return the URLs of the files that a glob matches or that a folder holds, one level deep."""
    client = filesystem(protocol(url), storage_options)

    def request(timeout_s: float) -> list[str]:
        client.invalidate_cache()
        if pattern:
            return list(run(client, "glob", url, timeout_s=timeout_s))
        return [item["name"] for item in run(client, "ls", url, timeout_s=timeout_s, detail=True) if item["type"] == "file"]

    try:
        paths = attempt(retry, f"listing {redact(url)}", request)
    except (FileNotFoundError, NotADirectoryError) as error:
        if code_of(error) == "NoSuchBucket":
            raise DatasetNotFoundError(f"there is no bucket {url.split('/')[2]!r} at this endpoint, so nothing at {redact(url)}.") from error
        return []
    return [normalise(client.unstrip_protocol(path)) for path in paths]

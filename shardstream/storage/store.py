"""One dataset's folder or object-store prefix: whole objects in and out, and put-if-absent.

Local paths take :mod:`shardstream.storage.local`, everything else fsspec. A Store is cheap,
picklable, and touches no network until it is used; threads may share it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from shardstream.config import RetryPolicy, checked_options
from shardstream.errors import ChecksumError, ConfigError, ShardstreamError
from shardstream.storage import local, uploads
from shardstream.storage.clients import filesystem, run
from shardstream.storage.retry import attempt, explained, status_of
from shardstream.storage.secrets import pickled_options
from shardstream.storage.urls import is_local, normalise, protocol, redact

MAX_PARALLEL = 32
Verify = Callable[[str, bytes], None]
_memory_lock = threading.Lock()


class Store:
    """The objects below one URL, by names relative to it (``"_log/newest"``).

    Attributes:
        url: As :func:`shardstream.storage.urls.normalise` writes it.
        is_local: Whether it is a folder of this machine.
    """

    def __init__(self, url: str | os.PathLike, storage_options: dict | None = None, retry: RetryPolicy = RetryPolicy()):
        self.url = normalise(url)
        self.is_local = is_local(self.url)
        self.storage_options = checked_options(storage_options)
        self.retry = retry

    def __repr__(self) -> str:
        return f"Store({redact(self.url)!r})"

    def __getstate__(self) -> dict:
        return {**self.__dict__, "storage_options": pickled_options(self.storage_options)}

    def join(self, name: str) -> str:
        """Return the URL of an object here."""
        if not name or name.startswith("/") or "\0" in name or ".." in name.split("/"):
            raise ConfigError(f"{name!r} is not a name inside a dataset.")
        return f"{self.url}/{name}"

    # -- reading ---------------------------------------------------------------------------

    def read(self, name: str, begin: int = 0, end: int | None = None, verify: Verify | None = None) -> bytes:
        """Return an object's bytes from ``begin`` up to ``end``, or as many as there are: one request.

        ``verify(name, bytes)`` raises :class:`ChecksumError` on bytes that are not what they should be; remote ones
        are then asked for again.

        Raises:
            FileNotFoundError: there is no such object.
            ChecksumError: ``verify`` refused every reply.
            StorageError: it could not be read.
        """
        url = self.join(name)
        if self.is_local:
            data = self._locally(f"reading {url}", lambda: _read_file(url, begin, end))
            if verify is not None:
                verify(name, data)
            return data
        client = self._client()

        def request(timeout_s: float) -> bytes:
            try:
                data = run(client, "cat_file", url, start=begin, end=end, timeout_s=timeout_s)
            except OSError as error:
                if status_of(error) != 416:
                    raise
                data = b""  # the range begins at or after the object's end
            if verify is not None:
                verify(name, data)
            return data

        return attempt(self.retry, f"reading {redact(url)}", request, passing=ChecksumError)

    def read_many(self, names: Sequence[str], max_nbytes: int | None = None,
                  verify: Verify | None = None) -> list[bytes | None]:  # fmt: skip
        """Return several objects' bytes, at most ``max_nbytes`` of each, ``None`` for the absent.

        One round: the requests are in flight together, one each.
        """

        def read(name: str) -> bytes | None:
            try:
                return self.read(name, 0, max_nbytes, verify)
            except FileNotFoundError:
                return None

        if self.is_local or len(names) <= 1:
            return [read(name) for name in names]
        self._client()  # made once, before threads ask for it
        with ThreadPoolExecutor(min(len(names), MAX_PARALLEL)) as pool:
            return list(pool.map(read, names))

    def size(self, name: str) -> int:
        """Return an object's size in bytes; FileNotFoundError when there is none."""
        url = self.join(name)
        if self.is_local:
            return self._locally(f"looking at {url}", lambda: os.stat(url).st_size)
        client = self._client()
        request = lambda timeout_s: int(run(client, "info", url, timeout_s=timeout_s)["size"])  # noqa: E731
        return attempt(self.retry, f"looking at {redact(url)}", request)

    def list(self, folder: str = "") -> list[tuple[str, int]]:
        """Return ``(name, nbytes)`` of the objects in a folder here, one level, sorted; names within the folder."""
        url = self.join(folder) if folder else self.url
        if self.is_local:
            return self._locally(f"listing {url}", lambda: _list_folder(url))
        client = self._client()

        def request(timeout_s: float) -> list[tuple[str, int]]:
            client.invalidate_cache()
            items = run(client, "ls", url, detail=True, timeout_s=timeout_s)
            return sorted((item["name"].rstrip("/").rpartition("/")[2], int(item["size"] or 0))
                          for item in items if item["type"] == "file")  # fmt: skip

        try:
            return attempt(self.retry, f"listing {redact(url)}", request)
        except FileNotFoundError:
            return []  # an object store knows no empty folders

    # -- writing ---------------------------------------------------------------------------

    def put_bytes(self, name: str, data: bytes, durable: bool = True) -> None:
        """Write an object, or replace it, whole. ``durable=False`` lets a local power cut lose it."""
        url = self.join(name)
        if self.is_local:
            self._locally(f"writing {url}", lambda: local.write(url, data, durable))
            return
        client = self._client()
        self._put(url, lambda timeout_s: run(client, "pipe_file", url, data, timeout_s=timeout_s))

    def put_file(self, name: str, local_path: str | os.PathLike) -> None:
        """Put a finished local file under ``name``: one PUT, in parts above 1 GB.

        A local store moves the file (rename on one file system); elsewhere it stays where it was.
        """
        url, source = self.join(name), os.fspath(local_path)
        if self.is_local:
            self._locally(f"writing {url}", lambda: local.move_in(source, url))
            return
        client = self._client()
        if self._is_s3:
            try:
                uploads.put_file(client, url, source, self.retry)
            except FileNotFoundError as error:  # of a PUT, 404 speaks of the bucket
                raise explained(error, f"writing {redact(url)}") from error
            return
        self._put(url, lambda timeout_s: run(client, "put_file", source, url, timeout_s=timeout_s), os.path.getsize(source))

    def abort_uploads(self, older_than_s: float, dry_run: bool = False) -> int:
        """Abort, or only count, unfinished uploads of parts that began so long ago; returns how many. Only S3 has any.
        """
        return uploads.abort_uploads(self._client(), self.url, self.retry, older_than_s, dry_run) if self._is_s3 else 0

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """Create an object in one try, never replacing one.

        Returns:
            True: this call created it. False: something stands there, which after a lost reply to
            an earlier call may be the caller's own.

        Raises:
            StorageRefused: the store will not do it; nothing was created by this call.
            StorageError: not known whether it was created; read it to find out.
        """
        url = self.join(name)
        what = f"creating {redact(url)}"
        if self.is_local:
            return self._locally(what, lambda: local.write_if_absent(url, data))
        client = self._client()
        try:
            if protocol(self.url) == "memory":
                with _memory_lock:  # fsspec's looks first and then creates
                    run(client, "pipe_file", url, data, mode="create", timeout_s=self.retry.deadline_s)
            else:
                run(client, "pipe_file", url, data, mode="create", timeout_s=self.retry.deadline_s)
        except FileExistsError:
            return False
        except Exception as error:
            if status_of(error) == 412:
                return False
            raise explained(error, what) from error
        return True

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; those absent already are fine."""
        urls = [self.join(name) for name in names]
        if self.is_local:
            for url in urls:
                self._locally(f"deleting {url}", lambda url=url: _unlink(url))
            return
        client = self._client()
        for url in urls:
            try:
                attempt(self.retry, f"deleting {redact(url)}",
                        lambda timeout_s, url=url: run(client, "rm_file", url, timeout_s=timeout_s))  # fmt: skip
            except FileNotFoundError:
                pass

    # -- inside ----------------------------------------------------------------------------

    @property
    def _is_s3(self) -> bool:
        return protocol(self.url) in ("s3", "s3a")

    def _client(self):
        return filesystem(protocol(self.url), self.storage_options)

    def _put(self, url: str, request, nbytes: int = 0) -> None:
        what = f"writing {redact(url)}"
        try:
            attempt(self.retry, what, request, nbytes=nbytes)
        except FileNotFoundError as error:  # of a PUT, 404 speaks of the bucket
            raise explained(error, what) from error

    @staticmethod
    def _locally(what: str, operation):
        try:
            return operation()
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{what} failed: it is absent.") from error
        except ShardstreamError:
            raise
        except OSError as error:
            raise explained(error, what) from error


def _read_file(path: str, begin: int, end: int | None) -> bytes:
    with open(path, "rb", buffering=0) as file:
        if begin:
            file.seek(begin)
        pieces, left = [], -1 if end is None else end - begin
        while left and (piece := file.read(left)):
            pieces.append(piece)
            left -= len(piece) if left > 0 else 0
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _list_folder(path: str) -> list[tuple[str, int]]:
    try:
        with os.scandir(path) as entries:
            return sorted((entry.name, entry.stat().st_size) for entry in entries
                          if entry.is_file() and not entry.name.startswith(local.TEMPORARY))  # fmt: skip
    except FileNotFoundError:
        return []


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass

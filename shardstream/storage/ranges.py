"""Ranged GETs of remote objects, begun as futures so that a slow one can be overtaken or given up.

fsspec serves every protocol. For S3, obstore (the extra of that name) takes its place where it can:
three times the bytes a CPU second, since its work is in Rust and without the GIL. It cannot where its
runtime was inherited by ``fork``, which hangs; where ``storage_options`` say what it does not know; for
keys that it would escape another way; and for buckets of another region, to which only botocore
follows. Endpoint, region and credentials are those that botocore finds, for both.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import multiprocessing
import os
import re
from concurrent.futures import Future
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np

from shardstream.locks import ForkSafeLock
from shardstream.storage.clients import filesystem
from shardstream.storage.threads import threads
from shardstream.storage.urls import protocol

PLAIN_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+/-]*\Z")
KNOWN_OPTIONS = {"key", "secret", "token", "anon", "endpoint_url", "client_kwargs"}
KNOWN_CLIENT_KWARGS = {"endpoint_url", "region_name"}
# What a bucket of another region answers.
MOVED = {"PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
STATUS = re.compile(r"status code: (\d{3})|status: (\d{3})")
CODE = re.compile(r"<Code>([A-Za-z0-9]+)</Code>")
# Botocore is asked again after a minute, and renews them when due: ten minutes before they expire or earlier. obstore takes for
# expired what has less than five minutes left, and would ask ten times a second while all requests wait.
CREDENTIALS_KEPT = timedelta(minutes=5 + 1)
CONNECT_TIMEOUT_S = 5

logger = logging.getLogger("shardstream")
_has_recommended = False
_obstore_pid: int | None = None  # the process that started obstore's runtime
_obstore_clients: dict[tuple, Any] = {}
_lock = ForkSafeLock()


class HttpError(OSError):
    """An answer that is an error, in the form that botocore has it."""

    def __init__(self, message: str, status: int, code: str | None):
        super().__init__(message)
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status}, "Error": {"Code": code}}
        self.status = status


def start_get(url: str, begin: int, end: int, storage_options: dict | None, timeout_s: float) -> Future:
    """Begin one GET of bytes ``[begin, end)``; the future's result is a uint8 array, shorter where the object ends."""
    if protocol(url) in ("s3", "s3a") and (store := _obstore(url, storage_options, timeout_s)) is not None:
        key = url.partition("://")[2].partition("/")[2]
        return threads().submit(lambda: _obstore_get(store, url, key, begin, end, storage_options, timeout_s))
    return _fsspec_get(url, begin, end, storage_options, timeout_s)


def _fsspec_get(url: str, begin: int, end: int, storage_options: dict | None, timeout_s: float) -> Future:
    client = filesystem(protocol(url), storage_options)
    if not getattr(client, "async_impl", False):
        return threads().submit(lambda: np.frombuffer(client.cat_file(url, start=begin, end=end), np.uint8))

    async def get() -> np.ndarray:
        data = await asyncio.wait_for(client._cat_file(url, start=begin, end=end), timeout_s)
        return np.frombuffer(data, np.uint8)

    return asyncio.run_coroutine_threadsafe(get(), client.loop)


# -- obstore -------------------------------------------------------------------------------------


def obstore_is_installed() -> bool:
    """Return whether the extra is there."""
    return importlib.util.find_spec("obstore") is not None


def _obstore(url: str, storage_options: dict | None, timeout_s: float) -> Any | None:
    """Return obstore's client for a URL's bucket, None where s3fs must do."""
    global _obstore_pid
    options = storage_options or {}
    bucket, _, key = url.partition("://")[2].partition("/")
    if not PLAIN_KEY.match(key) or "//" in key or not set(options) <= KNOWN_OPTIONS:
        return None
    if not set(options.get("client_kwargs") or {}) <= KNOWN_CLIENT_KWARGS or _obstore_pid not in (None, os.getpid()):
        return None
    name = (bucket, repr(sorted(options.items(), key=str)), round(timeout_s))
    with _lock:
        if name not in _obstore_clients:
            _obstore_clients[name] = _new_obstore(bucket, storage_options, timeout_s) if obstore_is_installed() else _recommend()
            if _obstore_clients[name] is not None:
                _obstore_pid = os.getpid()
        return _obstore_clients[name]


def _recommend() -> None:
    """Say once, in the process that the user started, what reads S3 faster."""
    global _has_recommended
    if not _has_recommended and multiprocessing.parent_process() is None:
        _has_recommended = True
        logger.warning("S3 is read by s3fs; pip install 'shardstream[obstore]' reads it about twice as fast on long links.")


def _new_obstore(bucket: str, storage_options: dict | None, timeout_s: float) -> Any:
    from obstore.store import S3Store

    client = filesystem("s3", storage_options)
    client.connect()
    meta, options = client.s3.meta, storage_options or {}
    config = {"region": meta.region_name or "us-east-1"}
    if "amazonaws.com" not in meta.endpoint_url:
        config.update(endpoint=meta.endpoint_url, virtual_hosted_style_request="false")
    provider = None
    if options.get("anon"):
        config["skip_signature"] = "true"
    elif "key" in options:
        config.update(access_key_id=options["key"], secret_access_key=options.get("secret") or "")
        if options.get("token"):
            config["session_token"] = options["token"]
    else:
        provider = _credentials_of_botocore()
    timeouts = {"timeout": f"{max(1, round(timeout_s))}s", "connect_timeout": f"{CONNECT_TIMEOUT_S}s", "allow_http": True}
    return S3Store(bucket, config=config, client_options=timeouts, retry_config={"max_retries": 0},
                   **({"credential_provider": provider} if provider else {}))  # fmt: skip


def _credentials_of_botocore():
    """Return a function that gives the credentials which botocore finds now: environment, profile or instance role."""
    from botocore.exceptions import NoCredentialsError
    from botocore.session import Session

    credentials = Session().get_credentials()

    def current() -> dict:
        if credentials is None:
            raise NoCredentialsError
        frozen = credentials.get_frozen_credentials()
        return {"access_key_id": frozen.access_key, "secret_access_key": frozen.secret_key, "token": frozen.token,
                "expires_at": datetime.now(timezone.utc) + CREDENTIALS_KEPT}  # fmt: skip

    return current


def _obstore_get(store: Any, url: str, key: str, begin: int, end: int, storage_options: dict | None, timeout_s: float) -> np.ndarray:
    import obstore

    try:
        return np.frombuffer(obstore.get_range(store, key, start=begin, end=end), np.uint8)
    except FileNotFoundError:
        raise
    except Exception as error:
        text = str(error)
        status, code = STATUS.search(text), CODE.search(text)
        if status is None:
            raise OSError(text.partition("\n")[0]) from None  # below the first line stands the request, headers and all
        if code is None or code[1] not in MOVED:
            first_line = text.partition(": <")[0].partition("\n")[0]
            raise HttpError(first_line, int(status[1] or status[2]), code and code[1]) from None
    with _lock:
        _obstore_clients.update({name: None for name in _obstore_clients if _obstore_clients[name] is store})
    return _fsspec_get(url, begin, end, storage_options, timeout_s).result()

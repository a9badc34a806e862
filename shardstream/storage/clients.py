"""fsspec file systems, made when first used and never shared with a forked child.

A client holds sockets and belongs to an event-loop thread, which do not survive ``fork``; so
clients are kept by process id, and what a child inherits is left alone: closing it would shut
its parent's connections. Nothing here is touched by constructing or pickling a Store or Fetcher.
"""

from __future__ import annotations

import json
import os
from typing import Any

from shardstream.errors import ConfigError
from shardstream.locks import ForkSafeLock

_clients: dict[tuple, Any] = {}
_lock = ForkSafeLock()


def filesystem(protocol: str, storage_options: dict | None = None) -> Any:
    """Return this process's fsspec client for a protocol and its options. Touches no network."""
    key = (os.getpid(), protocol, json.dumps(storage_options or {}, sort_keys=True, default=id))
    with _lock:
        if key not in _clients:
            _clients[key] = _new_client(protocol, dict(storage_options or {}))
        return _clients[key]


def _new_client(protocol: str, options: dict) -> Any:
    import fsspec  # 0.1 s, of no use to who reads local files only

    try:
        fsspec.get_filesystem_class(protocol)
    except (ValueError, ImportError) as error:
        raise ConfigError(f"URLs of {protocol}:// cannot be used here: {error}.") from error
    if protocol in ("s3", "s3a"):
        # Endpoint and credentials come from the environment through botocore (AWS_ENDPOINT_URL,
        # AWS_ACCESS_KEY_ID, profiles, instance roles) unless the options name them. Retries are ours
        # alone: botocore's own would repeat a conditional PUT unseen, and multiply all waits.
        config = {"max_pool_connections": 64, **options.pop("config_kwargs", {})}
        config["retries"] = {"total_max_attempts": 1, "mode": "standard"}
        options = {"use_listings_cache": False, **options, "config_kwargs": config}
        client = fsspec.filesystem(protocol, skip_instance_cache=True, **options)
        client.retries = 1
        return client
    return fsspec.filesystem(protocol, skip_instance_cache=True, **options)


def run(client: Any, method: str, *arguments: Any, timeout_s: float, **options: Any) -> Any:
    """Return ``client.method(...)``, given up after ``timeout_s`` where the client is asynchronous."""
    if getattr(client, "async_impl", False):
        from fsspec.asyn import sync

        return sync(client.loop, getattr(client, f"_{method}"), *arguments, timeout=timeout_s, **options)
    return getattr(client, method)(*arguments, **options)

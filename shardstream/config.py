"""Small frozen settings objects and the parser of sizes such as ``"64MB"``."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from shardstream.errors import ConfigError

UNITS = {"": 1, "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
         "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}  # fmt: skip
SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*\Z")


def parse_nbytes(size: int | str, name: str = "size") -> int:
    """Return a size in bytes from ``67108864``, ``"64MB"`` (powers of 1000) or ``"64MiB"`` (powers of 1024)."""
    if isinstance(size, bool) or not isinstance(size, (int, str)):
        raise ConfigError(f"{name} must be a number of bytes or a text such as '64MB', not {size!r}.")
    match = SIZE.match(str(size))
    if match is None or match[2] not in UNITS:
        raise ConfigError(f"{name}={size!r} is not a size; write bytes or one of {', '.join(u for u in UNITS if u)}.")
    nbytes = int(float(match[1]) * UNITS[match[2]]) if "." in match[1] else int(match[1]) * UNITS[match[2]]
    if nbytes <= 0:
        raise ConfigError(f"{name}={size!r} must be more than 0 bytes.")
    return nbytes


SECONDS = {"": 1.0, "s": 1.0, "ms": 1e-3, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def parse_seconds(duration: float | int | str, name: str = "duration") -> float:
    """Return a duration in seconds from ``5``, ``0.5``, ``"200ms"``, ``"5s"``, ``"10min"``, ``"7d"``."""
    match = None if isinstance(duration, bool) else SIZE.match(str(duration))
    if match is None or match[2] not in SECONDS:
        raise ConfigError(f"{name}={duration!r} is not a duration; write seconds or '200ms', '5s', "
                          "'10min', '2h', '7d'.")  # fmt: skip
    return float(match[1]) * SECONDS[match[2]]


def checked_options(storage_options: Any) -> dict | None:
    """Return storage options for fsspec; ConfigError, which shows no value of theirs, if they are none."""
    if storage_options is None:
        return None
    if not isinstance(storage_options, dict):
        kind = type(storage_options).__name__
        raise ConfigError(f"storage_options must be a dict for fsspec, such as {{'endpoint_url': ...}}, or None, not of type {kind}.")
    for name in storage_options:
        if not isinstance(name, str):
            raise ConfigError(f"the names in storage_options must be texts, not {name!r:.100}.")
    return storage_options


def _check_integer(name: str, number: Any, least: int, rule: str) -> None:
    if isinstance(number, bool) or not hasattr(number, "__index__") or number < least:
        raise ConfigError(f"{name}={number!r} {rule}.")


@dataclass(frozen=True)
class RetryPolicy:
    """How a request to storage is repeated when it fails in a way that can pass.

    Attributes:
        max_attempts: Tries of one request in all, the first included; by default the deadline comes first. Of replies
            with wrong bytes six are enough.
        first_delay_s: Mean wait before the second try; it doubles each time, with full jitter.
        max_delay_s: Longest wait between two tries.
        deadline_s: Seconds after which a request is given up, tries and waits together; writing a file has
            besides the time that it takes at 1 MB/s.
        request_s: Longest that one try of reading a range may take.
        hedge_factor: A range that takes this many times the median of recent ones is asked for a second
            time, and the first answer is taken; 0 never does.
    """

    max_attempts: int = 50
    first_delay_s: float = 0.1
    max_delay_s: float = 5.0
    deadline_s: float = 120.0
    request_s: float = 30.0
    hedge_factor: float = 5.0

    def __post_init__(self):
        _check_integer("max_attempts", self.max_attempts, 1, "must be an integer of at least 1")
        for name in ("first_delay_s", "max_delay_s", "deadline_s", "request_s", "hedge_factor"):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, (int, float)) or not number >= 0:
                raise ConfigError(f"{name}={number!r} must be a number from 0 on.")


def check_retry(retry: Any) -> None:
    """Raise ConfigError unless this is a :class:`RetryPolicy`."""
    if not isinstance(retry, RetryPolicy):
        raise ConfigError(f"retry={retry!r} must be an ss.RetryPolicy.")


@dataclass(frozen=True)
class ReadPolicy:
    """What reading may use. None of it changes which samples come, or their order.

    Attributes:
        memory_limit: Bytes that the stream's data may take in a process, each worker being one, as ``"1GB"`` or a number.
            Counted are blocks, as buffers hold them; batches until the loop lets go of them, strings of the newest two;
            what ``ss.transforms`` make in this process; slots of a worker; free buffers of all these. Not counted are what a
            transform of your own or a ``collate`` makes, samples that the files layout decodes, an image while it is
            decoded, and indexes of shards (some kB a shard of a window): a 16th of the limit is left for such things. A
            shuffled window that can't fit is an error. Batches that are kept leave less room for reading ahead, down to one
            window. A dataset that takes at most half of the limit, decoded, stays in memory from epoch to epoch, for as
            long as its stream lives.
        threads: Threads that fetch, verify and decode; ``None`` chooses.
        max_skipped: Samples that ``on_error="skip"`` may lose before it becomes an error.
        retry: How failed requests are repeated.
    """

    memory_limit: int | str = "1GB"
    threads: int | None = None
    max_skipped: int = 0
    retry: RetryPolicy = field(default_factory=RetryPolicy)

    def __post_init__(self):
        parse_nbytes(self.memory_limit, "memory_limit")
        if self.threads is not None:
            _check_integer("threads", self.threads, 1, "must be an integer of at least 1, or None to choose")
        _check_integer("max_skipped", self.max_skipped, 0, "must be an integer from 0 on")
        check_retry(self.retry)

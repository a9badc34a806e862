"""Which version a user means: a number, a tag, or a time.

Tags begin with a letter and times with a digit, and a text of digits alone is a number; so the three
never collide.
"""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Any

from shardstream.errors import ConfigError
from shardstream.log.entries import TAG

NUMBER = re.compile(r"[0-9]{1,18}\Z")


def canonical(version: Any) -> int | str:
    """Return ``version`` as an int (a number), or as a text: a tag, or a time in ISO 8601 with its offset.

    Takes an integer, a tag, a :class:`datetime.datetime`, or an ISO 8601 text such as ``"2026-11-27"`` or
    ``"2026-11-27T14:03:00+01:00"``. A time without an offset is UTC, so that it means the same on every machine.

    Raises:
        ConfigError: it is none of these.
    """
    if isinstance(version, datetime):
        return _with_offset(version).isoformat()
    if isinstance(version, str):
        if NUMBER.match(version):
            return int(version)
        if TAG.match(version):
            return version
        try:
            return _with_offset(datetime.fromisoformat(re.sub(r"[zZ]\Z", "+00:00", version))).isoformat()
        except ValueError:
            pass
    elif hasattr(version, "__index__") and not isinstance(version, bool) and int(version) >= 0:
        return int(version)
    raise ConfigError(f"version={version!r} is not a version's number, a tag, or a time such as "
                      "'2026-11-27T14:03:00Z'.")  # fmt: skip


def moment(version: str) -> float | None:
    """Return the seconds since 1970 UTC that a :func:`canonical` text stands for; None if it is a tag."""
    return None if TAG.match(version) else datetime.fromisoformat(version).timestamp()


def iso(time_s: float) -> str:
    """Return seconds since 1970 as UTC in ISO 8601, which :func:`canonical` takes."""
    return datetime.fromtimestamp(time_s, timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")


def _with_offset(time: datetime) -> datetime:
    return time if time.tzinfo is not None else time.replace(tzinfo=timezone.utc)

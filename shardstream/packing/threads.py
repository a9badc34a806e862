"""How many threads a step may use: all cores in a job of one process, one where each core has a process."""

from __future__ import annotations

import os

_limit: int | None = None


def num_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def num_threads() -> int:
    """Return how many threads a step may use now, in this process."""
    return num_cores() if _limit is None else _limit


def limit(count: int) -> None:
    """Give this process's steps ``count`` threads from now on."""
    global _limit
    _limit = count

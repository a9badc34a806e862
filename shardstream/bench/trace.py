"""Every stage of every block and batch as a trace that Perfetto and Chrome's about:tracing open (``Trace``).

The format is Chrome's "Trace Event Format": complete events, times in microseconds.
"""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

from shardstream.stats import SECONDS, Stats

MAX_EVENTS = 1_000_000


class Trace:
    """Events of this process, while it is used as a context; worker processes have their own stages in the sums only.
    """

    def __init__(self):
        self._events: list[dict] = []
        self._names: dict[int, str] = {}
        self._begin = time.perf_counter()

    def __enter__(self) -> Trace:
        Stats.watch = self._note
        return self

    def __exit__(self, *exception) -> None:
        Stats.watch = None

    def write(self, path: str | os.PathLike) -> int:
        """Write the trace as JSON; return the number of its events."""
        names = [{"name": "thread_name", "ph": "M", "pid": os.getpid(), "tid": thread, "args": {"name": name}} for thread, name in self._names.items()]
        Path(path).write_text(json.dumps({"traceEvents": names + self._events, "displayTimeUnit": "ms"}))
        return len(self._events)

    def _note(self, amounts: dict[str, float]) -> None:
        """Take an addition, which is made when its stages end: they are laid one before the other up to now."""
        if len(self._events) >= MAX_EVENTS:
            return
        thread = threading.get_ident() & 0x7FFFFFFF
        self._names.setdefault(thread, threading.current_thread().name)
        end = time.perf_counter() - self._begin
        counts = {name: amount for name, amount in amounts.items() if name not in SECONDS}
        for name in reversed([name for name in amounts if name in SECONDS]):
            self._events.append({"name": name, "ph": "X", "pid": os.getpid(), "tid": thread, "ts": (end - amounts[name]) * 1e6,
                                 "dur": amounts[name] * 1e6, "args": counts})  # fmt: skip
            end -= amounts[name]

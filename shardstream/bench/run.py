"""A stream read for some seconds, and where the time went (``measure``)."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shardstream.errors import ConfigError
from shardstream.loader import StreamLoader
from shardstream.stream import ShardStream

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass
class Measured:
    """What reading gave.

    Attributes:
        seconds: From the first batch's arrival to the last's.
        first_batch_s: From making the stream to its first batch: opening, planning, one window.
        num_samples, num_batches: Received in ``seconds``.
        nbytes_read: Stored bytes that were fetched in ``seconds``.
        stages: Seconds by stage in ``seconds``, as :meth:`StreamLoader.stats` names them.
        cpu_s: User and system time of this process and its workers in ``seconds``.
        peak_nbytes: Peak resident bytes of this process.
    """

    seconds: float
    first_batch_s: float
    num_samples: int
    num_batches: int
    nbytes_read: int
    cpu_s: float
    peak_nbytes: int
    num_workers: int
    num_skipped: int = 0
    num_cache_hits: int = 0
    stages: dict[str, float] = field(default_factory=dict)

    @property
    def samples_per_s(self) -> float:
        return self.num_samples / self.seconds

    @property
    def nbytes_per_s(self) -> float:
        return self.nbytes_read / self.seconds


def measure(stream: ShardStream, num_workers: int = 0, seconds: float = 10.0, step_s: float = 0.0) -> Measured:
    """Read a stream for some seconds and return what was seen.

    Args:
        stream: Its ``epochs`` should be None, so that it goes on.
        step_s: Sleep that stands for a training step, after each batch.

    Raises:
        ConfigError: ``seconds`` is not positive, or the stream ends before a second batch.
    """
    if not (seconds > 0 and step_s >= 0):  # so that NaN is refused, too
        raise ConfigError(f"seconds={seconds} must be positive, and a step of {step_s} s not negative.")
    begin = time.perf_counter()
    loader = StreamLoader(stream, num_workers)
    batches = iter(loader)
    next(batches)
    first = time.perf_counter()
    before, cpu_s, num_samples, num_batches = loader.stats(), _cpu_seconds(), 0, 0
    position = stream.state
    for batch in batches:
        num_batches += 1
        num_samples += _num_rows(batch)
        now = time.perf_counter()
        if now - first >= seconds:
            break
        if step_s:
            time.sleep(step_s)
    else:
        raise ConfigError(f"the stream ended after {num_batches + 1} batches, from {position}: more data "
                          "or more epochs are needed.")  # fmt: skip
    after = loader.stats()
    stages = {name: after["seconds"][name] - before["seconds"][name] for name in after["seconds"]}
    changes = {name: after[name] - before[name] for name in after if name != "seconds"}
    cpu_s = _cpu_seconds() - cpu_s
    batches.close()
    return Measured(now - first, first - begin, num_samples, num_batches, int(changes["num_bytes_read"]), cpu_s, _peak_nbytes(),
                    num_workers, int(changes["num_skipped"]), int(changes["num_cache_hits"]), stages)  # fmt: skip


def _num_rows(batch: dict[str, Any]) -> int:
    from shardstream.collate import column_length

    return column_length(next(iter(batch.values()))) if batch else 0


def _cpu_seconds() -> float:
    """Return the user and system time of this process and of its children that live."""
    pids = [os.getpid(), *(int(pid) for task in Path("/proc/self/task").iterdir() for pid in _children(task))]
    return sum(_cpu_of(pid) for pid in pids)


def _children(task: Path) -> list[str]:
    try:
        direct = (task / "children").read_text().split()
    except OSError:  # the thread has ended, or the kernel was built without this file
        return []
    return direct + [pid for child in direct for pid in _children(Path(f"/proc/{child}/task/{child}"))]


def _cpu_of(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND


def _peak_nbytes() -> int:
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

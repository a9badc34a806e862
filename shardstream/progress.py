"""Progress of long jobs on a terminal; nothing elsewhere, so that logs and pipes stay clean."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol


@contextmanager
def byte_bar(label: str, total_nbytes: int | None, shown: bool = True) -> Iterator[Callable[[int], None]]:
    """Yield a function that adds bytes to a bar on standard error, if that is a terminal. Threads may call it."""
    if not shown or not sys.stderr.isatty():
        yield lambda nbytes: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn(label), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=total_nbytes)
        yield lambda nbytes: progress.advance(task, nbytes)


@contextmanager
def count_bar(label: str, total: int, shown: bool = True) -> Iterator[Callable[[int], None]]:
    """Yield a function that takes how many of ``total`` are done, for a bar on standard error, if that is a terminal.
    """
    if not shown or not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=total)
        yield lambda done: progress.update(task, completed=done)


class PackingBar(Protocol):
    """What a job tells: totals so far."""

    def __call__(self, *, samples: int, nbytes_in: int, nbytes_out: int, tokens: int) -> None: ...


@contextmanager
def packing_bar(total_nbytes: int | None, shown: bool) -> Iterator[PackingBar]:
    """Yield a function that shows a packing job's totals, on standard error if that is a terminal."""
    if not shown or not sys.stderr.isatty():
        yield lambda **totals: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = [
        TextColumn("packing"),
        BarColumn(),
        TextColumn("{task.fields[samples]:,} samples"),
        TextColumn("{task.fields[read]:.1f} MB in"),
        TextColumn("{task.fields[rates]}"),
        TextColumn("{task.fields[written]:.1f} MB out"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    ]
    # Transient: the report that follows says it all.
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("packing", total=total_nbytes, samples=0, read=0.0, written=0.0, rates="")
        first: list[tuple[float, int, int]] = []  # what a job that goes on had done before is not of its speed

        def show(*, samples: int, nbytes_in: int, nbytes_out: int, tokens: int) -> None:
            now = (time.monotonic(), nbytes_in, tokens)
            first[:] = first or [now]
            completed = nbytes_in if total_nbytes is not None else None
            progress.update(task, completed=completed, samples=samples, read=nbytes_in / 1e6, written=nbytes_out / 1e6,
                            rates=_rates(*(now[i] - first[0][i] for i in range(3))))  # fmt: skip

        yield show


def _rates(seconds: float, nbytes: int, tokens: int) -> str:
    """Return ``12.3 MB/s``, and ``4.5 M tokens/s`` where there are tokens; nothing before time has passed."""
    if not seconds:
        return ""
    rates = f"{nbytes / 1e6 / seconds:.1f} MB/s"
    return f"{rates} {tokens / 1e6 / seconds:.1f} M tokens/s" if tokens else rates


class FollowingBar(Protocol):
    """What a loop over a stream that follows tells after each batch: how many samples it had."""

    def __call__(self, num_samples: int) -> None: ...


@contextmanager
def following_bar(stream) -> Iterator[FollowingBar]:
    """Yield a function that shows samples, rate, freshness and lag of a stream that follows, on standard error if that
    is a terminal.
    """
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = [
        SpinnerColumn(),
        TextColumn("{task.completed:,.0f} samples"),
        TextColumn("{task.fields[rate]:,.0f}/s"),
        TextColumn("{task.fields[freshness]:.1f} s old"),
        TextColumn("{task.fields[lag]:,} behind"),
        TimeElapsedColumn(),
    ]
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("following", total=None, rate=0.0, freshness=0.0, lag=0)

        def show(num_samples: int) -> None:
            progress.advance(task, num_samples)
            if console.is_terminal:
                progress.update(task, rate=progress.tasks[0].speed or 0.0, freshness=stream.freshness or 0.0,
                                lag=stream.lag or 0)  # fmt: skip

        yield show

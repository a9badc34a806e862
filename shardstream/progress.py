"""Progress of long reads on a terminal; nothing elsewhere, so that logs and pipes stay clean."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def byte_bar(label: str, total_nbytes: int) -> Iterator[Callable[[int], None]]:
    """Yield a function that adds bytes to a bar on standard error, if that is a terminal. Threads may call it."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (TextColumn(label), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(label, total=total_nbytes)
        yield lambda nbytes: progress.advance(task, nbytes)

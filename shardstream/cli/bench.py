"""``shardstream bench``: how fast one's own shards are read here, and what bounds it."""

from __future__ import annotations

from typing import Annotated

import typer

EXAMPLES = """\
[bold]Examples[/bold]

    shardstream bench s3://bucket/reviews/train

    shardstream bench demo/stdlib/train --sparse jagged --batch-size 1024 --num-workers 2 --plot bench.png

    shardstream bench s3://bucket/images --step-ms 20 --cache-dir /data/cache --trace trace.json
"""


def command(
    url: Annotated[str, typer.Argument(metavar="URL", help="A dataset; or shards: a file, folder or pattern.")],
    batch_size: Annotated[int, typer.Option(min=1, help="Rows of a batch.")] = 256,
    num_workers: Annotated[int, typer.Option(min=0, help="Worker processes.")] = 0,
    seconds: Annotated[float, typer.Option(help="How long to read.")] = 10.0,
    step_ms: Annotated[float, typer.Option(help="A sleep after each batch that stands for training.")] = 0.0,
    in_order: Annotated[bool, typer.Option("--in-order", help="Do not shuffle.")] = False,
    field: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Read this field only; may be repeated.")] = None,
    sparse: Annotated[str, typer.Option(help="Form of sparse fields: dense, csr, jagged or indices.")] = "dense",
    memory_limit: Annotated[str, typer.Option(metavar="SIZE", help="Block data that may be held.")] = "1GB",
    threads: Annotated[int | None, typer.Option(help="Reading threads.")] = None,
    cache_dir: Annotated[str | None, typer.Option(metavar="FOLDER", help="Cache of remote blocks.")] = None,
    version: Annotated[str | None, typer.Option(help="Of the dataset: a number, a tag or a time.")] = None,
    plot: Annotated[str | None, typer.Option(metavar="FILE.png", help="Draw where the time went.")] = None,
    trace: Annotated[str | None, typer.Option(metavar="FILE.json", help="Write a trace for Perfetto or Chrome.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
) -> None:
    """Read a dataset for some seconds; print samples/s, time by stage, this machine's limits, and what would make it faster."""
    import contextlib
    import dataclasses

    from shardstream.bench import limits
    from shardstream.bench.advice import advice, settings
    from shardstream.bench.run import measure
    from shardstream.bench.trace import Trace
    from shardstream.cli import show
    from shardstream.config import ReadPolicy
    from shardstream.stream import ShardStream

    _check_place(plot, "--plot", (".png",))
    _check_place(trace, "--trace", ())
    stream = ShardStream(url, batch_size=batch_size, shuffle=not in_order, epochs=None, fields=field, sparse=sparse, version=version,
                         cache_dir=cache_dir, read=ReadPolicy(memory_limit=memory_limit, threads=threads))  # fmt: skip
    tracing = Trace() if trace is not None else contextlib.nullcontext()
    with tracing:
        measured = measure(stream, num_workers, seconds, step_ms / 1000)
    what, rate = limits.read_rate(stream.source)
    memcpy = limits.memcpy_rate()
    line = advice(measured, what, rate, settings(stream.source, field, sparse, memory_limit))
    if plot is not None:
        from shardstream.bench.plot import draw

        draw(measured, plot, url)
    if trace is not None:
        tracing.write(trace)
    if as_json:
        show.json({**dataclasses.asdict(measured), "samples_per_s": measured.samples_per_s, "nbytes_per_s": measured.nbytes_per_s,
                   "limits": {"read": what, "read_nbytes_per_s": rate, "memcpy_nbytes_per_s": memcpy}, "advice": line})  # fmt: skip
        return
    stored = f"{measured.nbytes_per_s / 1e6:,.1f} MB/s stored" if measured.nbytes_read else "nothing read: all of it stays decoded in memory"
    typer.echo(f"{measured.samples_per_s:,.0f} samples/s, {measured.num_batches / measured.seconds:,.1f} batches/s, "
               f"{stored}, over {measured.seconds:.1f} s")  # fmt: skip
    typer.echo(f"first batch after {measured.first_batch_s:.3f} s; {measured.cpu_s / measured.seconds:.2f} cores busy; "
               f"peak memory {show.nbytes(measured.peak_nbytes)}; {measured.num_skipped:,} samples skipped, {measured.num_cache_hits:,} cache hits")  # fmt: skip
    rows = [(name.replace("_", " "), f"{spent:.2f}", f"{spent / measured.seconds:.0%}") for name, spent in measured.stages.items() if spent >= 0.005]
    show.table(("stage", "seconds", "of the time"), rows, ("seconds", "of the time"))
    typer.echo(f"this machine: memcpy {memcpy / 1e9:.1f} GB/s, {what} {rate / 1e6:,.0f} MB/s")
    typer.echo(f"advice: {line}.")


def _check_place(path: str | None, option: str, suffixes: tuple[str, ...]) -> None:
    """Refuse a file that could not be written, before some seconds of measuring are spent on it."""
    from pathlib import Path

    from shardstream.errors import ConfigError

    if path is not None and suffixes and not path.endswith(suffixes):
        raise ConfigError(f"{option} {path}: its name must end with {' or '.join(suffixes)}.")
    if path is not None and not Path(path).parent.is_dir():
        raise ConfigError(f"{option} {path}: there is no folder {Path(path).parent}.")

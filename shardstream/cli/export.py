"""``shardstream export``: plain WebDataset shards for others."""

from __future__ import annotations

from typing import Annotated

import typer

EXAMPLES = """\
[bold]Examples[/bold]

    shardstream export s3://bucket/reviews/train out/reviews-%06d.tar

    shardstream export demo/stdlib/train s3://bucket/plain/train-%06d.tar --shard-nbytes 256MB --field x --field y
"""


def command(
    url: Annotated[str, typer.Argument(metavar="URL", help="A dataset; or shards: a file, folder or pattern.")],
    pattern: Annotated[str, typer.Argument(metavar="PATTERN", help="The shards to write, with one number, as out/train-%06d.tar.")],
    field: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Take this field only; may be repeated.")] = None,
    shard_nbytes: Annotated[str, typer.Option(metavar="SIZE", help="Size at which a shard is finished.")] = "1GB",
    version: Annotated[str | None, typer.Option(help="Of the dataset: a number, a tag or a time.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")] = False,
) -> None:
    """Write samples as plain WebDataset shards, one member a field, without our own members."""
    from shardstream.cli import show
    from shardstream.export import export

    done = export(url, pattern, field, shard_nbytes, version)
    if as_json:
        show.json({"shards": done.urls, "num_samples": done.num_samples, "nbytes": done.nbytes})
        return
    typer.echo(f"{done.num_samples:,} samples in {len(done.urls):,} shards, {show.nbytes(done.nbytes)}")
    if done.urls:
        typer.echo(f"{done.urls[0]}" + (f" ... {done.urls[-1]}" if len(done.urls) > 1 else ""))

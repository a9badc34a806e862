"""``shardstream verify``: is every byte what it should be?"""

from __future__ import annotations

from typing import Annotated

import typer

EXAMPLES = """\
[bold]Examples[/bold]

    shardstream verify s3://bucket/reviews/train

    shardstream verify demo/stdlib/train --version 3 --json

    shardstream verify 'archive/train-{000000..000146}.tar'
"""


def command(
    urls: Annotated[list[str], typer.Argument(metavar="URL...", help="A dataset; or shards: files, folders, patterns.")],
    version: Annotated[str | None, typer.Option(help="Of the dataset: a number, a tag or a time.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Read everything once and check it: log, indexes, checksums, counts, schema. Exit status 1 if something is bad."""
    from shardstream.cli import FAILED, show
    from shardstream.verify import verify

    done = verify(urls[0] if len(urls) == 1 else urls, version)
    if as_json:
        errors = [{"shard": error.shard, "block": error.block, "field": error.field, "offset": error.offset, "message": error.message}
                  for error in done.errors]  # fmt: skip
        show.json({"version": done.version, "num_shards": done.num_shards, "num_blocks": done.num_blocks,
                   "num_samples": done.num_samples, "nbytes": done.nbytes, "num_bad": done.num_bad, "errors": errors})  # fmt: skip
    else:
        for error in done.errors:
            typer.echo(f"bad: {error}")
        if done.num_bad > len(done.errors):
            typer.echo(f"bad: {done.num_bad - len(done.errors):,} more")
        good = f"{done.num_shards:,} shards, {done.num_blocks:,} blocks, {done.num_samples:,} samples, {show.nbytes(done.nbytes)}"
        typer.echo(f"{good}; {done.num_bad:,} bad" if done.num_bad else f"{good}: all good")
    if done.num_bad:
        raise typer.Exit(FAILED)

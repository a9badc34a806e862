"""``shardstream compact``: merge small shards, or take samples out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """\
[bold]Examples[/bold]

    shardstream compact s3://bucket/events

    shardstream compact s3://bucket/events --shard-size 256MB

    shardstream compact reviews --drop 01890a5d-ac96-774b-bcce-b302099a8057:17

    shardstream compact reviews --drop @ids.txt --json
"""


def command(
    url: Annotated[str, typer.Argument(metavar="URL", help="A dataset: a folder or a prefix of an object store.")],
    shard_size: Annotated[
        str, typer.Option(metavar="SIZE", help="Merge shards below half of this into ones of about this size.")
    ] = "64MB",
    drop: Annotated[
        list[str] | None,
        typer.Option(
            metavar="IDS",
            help="Instead take these samples out: ids as ls --ids prints them, with commas between, or @FILE with one a "
            "line (@- reads standard input). Repeatable. Older versions have them until gc gives those up.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")] = False,
) -> None:
    """Merge small shards, without disturbing whoever reads or writes; or take samples out for good."""
    from shardstream import upkeep
    from shardstream.cli import show

    done = upkeep.compact(url, shard_size) if drop is None else upkeep.drop(url, _ids(drop), shard_size)
    if as_json:
        show.json(done)
    elif done.version is None:
        typer.echo("nothing to do")
    else:
        before = f"{done.num_shards_removed:,} shards, {show.nbytes(done.nbytes_removed)}"
        after = f"{done.num_shards_added:,} shards, {show.nbytes(done.nbytes_added)}"
        dropped = f", {done.num_samples_dropped:,} samples dropped" if drop is not None else ""
        typer.echo(f"version {done.version}: {before} became {after}{dropped}; older versions keep theirs until gc")


def _ids(options: list[str]) -> list[str]:
    """Return the ids that --drop names."""
    from shardstream.errors import ConfigError

    found: list[str] = []
    for option in options:
        if option.startswith("@"):
            try:
                found += (sys.stdin.read() if option == "@-" else Path(option[1:]).read_text()).split()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"--drop {option}: the ids can't be read: {error}.") from error
        else:
            found += [id.strip() for id in option.split(",") if id.strip()]
    return found

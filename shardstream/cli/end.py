"""``shardstream end``: say that nothing more will come."""

from __future__ import annotations

from typing import Annotated

import typer

EXAMPLES = """\
[bold]Examples[/bold]

    shardstream end s3://bucket/events
"""


def command(
    url: Annotated[str, typer.Argument(metavar="URL", help="A dataset: a folder or a prefix of an object store.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the version as JSON.")] = False,
) -> None:
    """Say that nothing will be added any more: followers come to an end, writers fail. It can't be taken back."""
    from shardstream import upkeep
    from shardstream.cli import show

    version = upkeep.end(url)
    if as_json:
        show.json({"version": version})
    else:
        typer.echo(f"ended by version {version}")

"""``shardstream tag``: name a version."""

from __future__ import annotations

from typing import Annotated

import typer

EXAMPLES = """\
[bold]Examples[/bold]

    shardstream tag s3://bucket/reviews paper-2026

    shardstream tag s3://bucket/reviews before-cleanup --version 2026-11-27T14:00:00Z

    shardstream tag s3://bucket/reviews paper-2026 --delete

    shardstream tag s3://bucket/reviews
"""


def command(
    url: Annotated[str, typer.Argument(metavar="URL", help="A dataset: a folder or a prefix of an object store.")],
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="The tag; left out, the tags are listed.")] = None,
    version: Annotated[
        str | None, typer.Option(help="What to name: a number, another tag or a time; by default the newest version.")
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Take the tag away.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the tags that there are now as JSON.")] = False,
) -> None:
    """Name a version: version=NAME opens it, and gc keeps it. A tag that there is moves."""
    from shardstream import upkeep
    from shardstream.cli import show
    from shardstream.dataset import Dataset

    if name is None and (delete or version is not None):
        raise typer.BadParameter("--version and --delete need the name of a tag.")
    if delete and version is not None:
        raise typer.BadParameter("--delete takes no --version.")
    if delete:
        upkeep.untag(url, name)
    elif name is not None:
        number = upkeep.tag(url, name, version)
    if as_json or name is None:
        tags = dict(Dataset(url).snapshot.tags)
        if as_json:
            show.json({"tags": tags})
        else:
            show.table(("tag", "version"), sorted(tags.items(), key=lambda tag: (tag[1], tag[0])), ("version",))
    else:
        typer.echo(f"{name} is no tag any more" if delete else f"{name} is version {number}")

"""``shardstream gc``: delete what no version that is kept needs."""

from __future__ import annotations

from typing import Annotated

import typer

EXAMPLES = """\
[bold]Examples[/bold]

    shardstream gc s3://bucket/events

    shardstream gc s3://bucket/events --delete

    shardstream gc s3://bucket/events --keep 30d --delete --json
"""

NAMES_SHOWN = 20


def command(
    url: Annotated[str, typer.Argument(metavar="URL", help="A dataset: a folder or a prefix of an object store.")],
    keep: Annotated[
        str, typer.Option(metavar="TIME", help="Keep versions that were the newest within this time. Tagged ones always stay.")
    ] = "7d",
    orphans: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="Age of uncommitted shards and unfinished files to delete. Less than a week only if no writer is at work.",
        ),
    ] = "7d",
    delete: Annotated[bool, typer.Option("--delete", help="Do it; without, only say what would go.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
) -> None:
    """Give up old versions and delete what only they need, shards never committed, and what killed writers left."""
    from shardstream import upkeep
    from shardstream.cli import show

    found = upkeep.gc(url, keep, not delete, orphans)
    if as_json:
        show.json(found)
        return
    rows = [
        ("shards of versions given up", f"{found.num_shards:,}", show.nbytes(found.nbytes_shards)),
        ("shards never committed", f"{found.num_orphans:,}", show.nbytes(found.nbytes_orphans)),
        ("files of killed writers", f"{found.num_unfinished:,}", show.nbytes(found.nbytes_unfinished)),
        ("unfinished uploads", f"{found.num_uploads:,}", ""),
    ]
    show.table(("deleted" if delete else "would be deleted", "number", "size"), rows, ("number", "size"))
    for name in [] if delete else found.names[:NAMES_SHOWN]:
        typer.echo(f"  {name}")
    if not delete and len(found.names) > NAMES_SHOWN:
        typer.echo(f"  ... and {len(found.names) - NAMES_SHOWN:,} more (--json has all)")
    if found.below:
        kept = f", except {', '.join(map(str, found.kept))}, which have tags" if found.kept else ""
        typer.echo(f"versions below {found.below} {'have expired' if delete else 'would expire'}{kept}")
    if not delete:
        typer.echo("nothing was changed; --delete does it")

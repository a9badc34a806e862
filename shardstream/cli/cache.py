"""``shardstream cache``: look into a folder of cached blocks, and empty it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from shardstream.storage import Cache

EXAMPLES = """\
[bold]Examples[/bold]

    shardstream cache ls /local/cache

    shardstream cache clear /local/cache
"""
LS_EXAMPLES = """\
[bold]Examples[/bold]

    shardstream cache ls /local/cache

    shardstream cache ls /local/cache --json | jq .nbytes
"""
CLEAR_EXAMPLES = """\
[bold]Examples[/bold]

    shardstream cache clear /local/cache

    shardstream cache clear /local/cache --json
"""
app = typer.Typer(no_args_is_help=True, help="Look into a folder of cached blocks (cache_dir=), and empty it.",
                  epilog=EXAMPLES)  # fmt: skip

Folder = Annotated[str, typer.Argument(metavar="FOLDER", help="What was given as cache_dir=.")]


@app.command("ls", epilog=LS_EXAMPLES)
def show_shards(
    folder: Folder,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
) -> None:
    """List the shards of which blocks are kept, the one used longest ago first, and the bytes that they take on disk."""
    from datetime import datetime, timezone

    from shardstream.cli import show

    shards = _cache(folder).shards()
    total = sum(shard.nbytes for shard in shards)
    if as_json:
        found = [{"shard": shard.name, "nbytes": shard.nbytes, "used": shard.used} for shard in shards]
        show.json({"folder": folder, "nbytes": total, "shards": found})
        return
    rows = [
        (shard.name, show.nbytes(shard.nbytes), f"{datetime.fromtimestamp(shard.used, timezone.utc):%Y-%m-%d %H:%M:%S}")
        for shard in shards
    ]
    show.table(("shard", "on disk", "last used (UTC)"), rows, ("on disk",))
    typer.echo(f"{len(shards):,} shards, {show.nbytes(total)}")


@app.command(epilog=CLEAR_EXAMPLES)
def clear(
    folder: Folder,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was freed as JSON.")] = False,
) -> None:
    """Remove all cached blocks. Streams that use the folder go on, and fetch what they need again."""
    from shardstream.cli import show

    nbytes = _cache(folder).clear()
    if as_json:
        show.json({"folder": folder, "nbytes": nbytes})
    else:
        typer.echo(f"freed {show.nbytes(nbytes)}")


def _cache(folder: str) -> Cache:
    """Return the cache in a folder; ConfigError where there is none, so that a mistyped folder is told."""
    from shardstream.errors import ConfigError
    from shardstream.storage import Cache

    cache = Cache(folder, 2**62)  # the limit is the streams' business
    if not cache.exists():
        raise ConfigError(f"there is no cache of blocks in {folder!r}; name the folder that was given as cache_dir=.")
    return cache

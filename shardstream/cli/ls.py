"""``shardstream ls``: what a dataset holds."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

EXAMPLES = """\
[bold]Examples[/bold]

    shardstream ls s3://bucket/reviews/train

    shardstream ls demo/stdlib/train --shards

    shardstream ls demo/stdlib/train --json | jq .num_samples
"""

VERSIONS_SHOWN = 10


def command(
    url: Annotated[str, typer.Argument(metavar="URL", help="A dataset: a folder or a prefix of an object store.")],
    version: Annotated[
        str | None, typer.Option(help="Look at this version instead of the newest: a number, a tag or a time.")
    ] = None,
    shards: Annotated[bool, typer.Option("--shards", help="List the shards, too.")] = False,
    ids: Annotated[bool, typer.Option("--ids", help="Print the id of each sample and nothing else.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
) -> None:
    """Show a dataset's versions, fields, rows, bytes and shards."""
    from shardstream.cli import show
    from shardstream.log import Log
    from shardstream.packing import class_names
    from shardstream.storage import Store

    if ids:
        from shardstream import upkeep

        for id in upkeep.ids(url, version):
            typer.echo(id)
        return
    log = Log(Store(url))
    snapshot = log.snapshot(version)
    classes = class_names(url)
    versions = [
        _described(log.entry(n)) for n in range(max(0, snapshot.version - VERSIONS_SHOWN + 1), snapshot.version + 1)
    ]
    if as_json:
        show.json({
            "url": log.store.url, "dataset": snapshot.dataset_id, "version": snapshot.version,
            "num_samples": snapshot.num_samples, "nbytes": snapshot.nbytes, "num_shards": len(snapshot.shards),
            "fields": None if snapshot.schema is None else snapshot.schema.to_json(), "classes": classes,
            "versions": versions, "shards": _shards(snapshot) if shards else None,
        })  # fmt: skip
        return
    typer.echo(f"{log.store.url}")
    size = f"{snapshot.num_samples:,} samples, {show.nbytes(snapshot.nbytes)}, {len(snapshot.shards):,} shards"
    typer.echo(f"version {snapshot.version}: {size}")
    if snapshot.schema is None:
        typer.echo("layout: files (one member a field, as WebDataset writes them)")
    else:
        rows = [(name, _kind(kind), _classes(classes.get(name))) for name, kind in snapshot.schema.items()]
        show.table(("field", "kind", "classes"), rows)
    rows = [
        (v["version"], v["kind"], v["time"], v["shards_added"], v["shards_removed"], v["producer"] or "")
        for v in versions
    ]
    show.table(("version", "kind", "time (UTC)", "shards added", "removed", "producer"), rows,
               ("version", "shards added", "removed"))  # fmt: skip
    if shards:
        rows = [(s["url"], f"{s['num_samples']:,}", show.nbytes(s["nbytes"])) for s in _shards(snapshot)]
        show.table(("shard", "samples", "size"), rows, ("samples", "size"))


def _described(entry: Any) -> dict[str, Any]:
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(entry.time))
    return {"version": entry.version, "kind": entry.kind, "time": moment, "shards_added": len(entry.add),
            "shards_removed": len(entry.remove), "producer": entry.producer}  # fmt: skip


def _shards(snapshot: Any) -> list[dict[str, Any]]:
    table = snapshot.shards
    return [{"url": table.url(row), "num_samples": int(table.num_samples[row]), "nbytes": int(table.nbytes[row])}
            for row in range(len(table))]  # fmt: skip


def _kind(kind: Any) -> str:
    settings = {
        name: value
        for name, value in kind.to_json().items()
        if name not in ("kind", "default") and value not in (None, [])
    }
    return " ".join([type(kind).__name__, *(f"{name}={value}" for name, value in settings.items())])


def _classes(names: list[str] | None) -> str:
    if not names:
        return ""
    more = f", ... {len(names) - 4} more" if len(names) > 5 else ""
    return f"{len(names)}: {', '.join(names[: 4 if more else 5])}{more}"

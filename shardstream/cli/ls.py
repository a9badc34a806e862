"""``shardstream ls``: what a dataset holds."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

import typer

EXAMPLES = """\
[bold]Examples[/bold]

    shardstream ls s3://bucket/reviews/train

    shardstream ls demo/stdlib/train --shards

    shardstream ls demo/stdlib/train --json | jq .num_samples

    shardstream ls s3://bucket/reviews/train --version 2026-11-27T14:00:00Z

    shardstream ls s3://bucket/reviews/train --urls > urls.txt
"""

VERSIONS_SHOWN = 10
PRODUCERS_SHOWN = 20
SOURCE_SHOWN = 60  # characters


def command(
    url: Annotated[str, typer.Argument(metavar="URL", help="A dataset: a folder or a prefix of an object store.")],
    version: Annotated[
        str | None, typer.Option(help="Look at this version instead of the newest: a number, a tag or a time.")
    ] = None,
    shards: Annotated[bool, typer.Option("--shards", help="List the shards, too.")] = False,
    urls: Annotated[
        bool, typer.Option("--urls", help="Print the URL of each live shard and nothing else, for readers that take lists.")
    ] = False,
    ids: Annotated[bool, typer.Option("--ids", help="Print the id of each sample and nothing else.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
) -> None:
    """Show a dataset's versions, tags, fields, rows, bytes, shards and producers, and how fresh it is."""
    from shardstream.cli import show
    from shardstream.log import Log
    from shardstream.packing import class_names
    from shardstream.storage import Store
    from shardstream.storage.urls import redact

    if ids:
        from shardstream import upkeep

        for id in upkeep.ids(url, version):
            typer.echo(id)
        return
    log = Log(Store(url))
    snapshot = log.snapshot(version)
    if urls:
        for shard_url in snapshot.shards.urls:
            typer.echo(shard_url)
        return
    classes = class_names(url)
    shown = log.entries(range(max(0, snapshot.version - VERSIONS_SHOWN + 1), snapshot.version + 1))
    fresh_s, producers = _freshness(log, snapshot, shown), _producers(log, snapshot)
    if as_json:
        show.json({
            "url": redact(log.store.url), "dataset": snapshot.dataset_id, "version": snapshot.version,
            "num_samples": snapshot.num_samples, "nbytes": snapshot.nbytes, "num_shards": len(snapshot.shards),
            "fields": None if snapshot.schema is None else snapshot.schema.to_json(), "classes": classes,
            "tags": dict(snapshot.tags), "producers": producers, "freshness_s": fresh_s, "ended": snapshot.ended,
            "expired_below": snapshot.expired_below, "kept": snapshot.kept, "versions": [_described(entry) for entry in shown],
            "shards": _shards(snapshot) if shards else None,
        })  # fmt: skip
        return
    _print_head(log.store.url, snapshot, fresh_s, classes)
    _print_tables(snapshot, producers, shown)
    if shards:
        rows = [(s["url"], f"{s['num_samples']:,}", show.nbytes(s["nbytes"])) for s in _shards(snapshot)]
        show.table(("shard", "samples", "size"), rows, ("samples", "size"))


def _print_head(url: str, snapshot: Any, fresh_s: float | None, classes: dict[str, list[str]]) -> None:
    """Print what the version is, and its fields."""
    from shardstream.cli import show
    from shardstream.storage.urls import redact

    typer.echo(redact(url))
    size = f"{snapshot.num_samples:,} samples, {show.nbytes(snapshot.nbytes)}, {len(snapshot.shards):,} shards"
    fresh = "" if fresh_s is None else f"; newest data {_age(fresh_s)} old"
    typer.echo(f"version {snapshot.version}: {size}{fresh}")
    if snapshot.ended is not None:
        typer.echo(f"ended by version {snapshot.ended}: nothing is added any more")
    if snapshot.expired_below:
        typer.echo(f"versions below {snapshot.expired_below} have expired" + (
            f", except {', '.join(map(str, snapshot.kept))}" if snapshot.kept else ""))  # fmt: skip
    if snapshot.schema is None:
        typer.echo("layout: files (one member a field, as WebDataset writes them)")
    else:
        rows = [(name, _kind(kind), _classes(classes.get(name))) for name, kind in snapshot.schema.items()]
        show.table(("field", "kind", "classes"), rows)


def _print_tables(snapshot: Any, producers: list[dict[str, Any]], shown: list) -> None:
    """Print tags, producers and the newest versions."""
    from shardstream.cli import show

    if snapshot.tags:
        show.table(("tag", "version"), sorted(snapshot.tags.items(), key=lambda tag: (tag[1], tag[0])), ("version",))
    if producers:
        rows = [(p["producer"], p["version"], _age(time.time() - p["time"]), _cut(p["source"])) for p in producers]
        show.table(("producer", "last version", "age", "last source"), rows, ("last version", "age"))
        if len(snapshot.producers) > PRODUCERS_SHOWN:
            typer.echo(f"... and {len(snapshot.producers) - PRODUCERS_SHOWN:,} producers more")
    rows = [(v["version"], v["kind"], v["time"], v["shards_added"], v["shards_removed"], v["producer"] or "")
            for v in map(_described, shown)]  # fmt: skip
    show.table(("version", "kind", "time (UTC)", "shards added", "removed", "producer"), rows,
               ("version", "shards added", "removed"))  # fmt: skip


def _freshness(log: Any, snapshot: Any, shown: list) -> float | None:
    """Return how many seconds ago samples were last added; None for a dataset without."""
    times = [entry.time for entry in shown if entry.kind == "append" and entry.add]
    if not times and len(snapshot.shards):
        times = [log.entry(int(snapshot.shards.entry.max())).time]
    return max(0.0, time.time() - times[-1]) if times else None


def _producers(log: Any, snapshot: Any) -> list[dict[str, Any]]:
    """Return those that were heard of last, the newest first."""
    latest = sorted(snapshot.producers.items(), key=lambda item: -item[1].version)[:PRODUCERS_SHOWN]
    found = log.entries([standing.version for _, standing in latest])
    return [{"producer": name, "version": standing.version, "time": entry.time, "source": standing.source}
            for (name, standing), entry in zip(latest, found, strict=True)]  # fmt: skip


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.1f} s"


def _cut(source: Any) -> str:
    text = "" if source is None else json.dumps(source, ensure_ascii=False)
    return text if len(text) <= SOURCE_SHOWN else text[: SOURCE_SHOWN - 3] + "..."


def _described(entry: Any) -> dict[str, Any]:
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(entry.time))
    return {"version": entry.version, "kind": entry.kind, "time": moment, "shards_added": len(entry.add),
            "shards_removed": len(entry.remove), "producer": entry.producer}  # fmt: skip


def _shards(snapshot: Any) -> list[dict[str, Any]]:
    from shardstream.storage.urls import redact

    table = snapshot.shards
    return [{"url": redact(table.url(row)), "num_samples": int(table.num_samples[row]), "nbytes": int(table.nbytes[row])}
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

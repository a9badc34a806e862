"""HTML of the pages: everything from a dataset is escaped, and nothing on a page runs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from shardstream.errors import CodecError, UnsafeFieldError
from shardstream.log import Log
from shardstream.look import IndexSet, Looker, Sample, image_kind
from shardstream.view import plots
from shardstream.view.stats import Stats

SAMPLES_A_PAGE = 20
VERSIONS_SHOWN, SHARDS_SHOWN = 20, 200
TEXT_SHOWN, ELEMENTS_SHOWN = 1200, 48

STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --soft: #667085; --line: #d9dee7; --bar: #3b6fd4; --paper: #fbfcfe; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --soft: #98a2b3; --line: #333b49; --bar: #7aa5ff; --paper: #14181f; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 0 auto; max-width: 62rem; padding: 1.5rem; }
h1 { font-size: 1.15rem; word-break: break-all; } h2 { font-size: 1.05rem; margin-top: 2rem; } h3 { font-size: .95rem; margin: 1rem 0 .2rem; }
nav a { margin-right: 1rem; } a { color: var(--bar); } .soft { color: var(--soft); } code { font-size: .9em; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
.plots { display: flex; flex-wrap: wrap; gap: 1rem 2rem; } figure { margin: 0; width: 420px; } figcaption { font-size: .85rem; color: var(--soft); }
svg text { font-size: 11px; fill: var(--soft); } .bar { fill: var(--bar); } .axis { stroke: var(--line); }
article { border: 1px solid var(--line); border-radius: 6px; padding: .6rem .9rem; margin: .8rem 0; }
article td:first-child { width: 8rem; color: var(--soft); } pre { white-space: pre-wrap; word-break: break-word; margin: 0; font-size: .85rem; }
img { image-rendering: auto; max-width: 20rem; max-height: 16rem; min-width: 4rem; border: 1px solid var(--line); }
"""


@dataclass(frozen=True)
class Context:
    """What every page knows: where links begin, and what is looked at."""

    base: str  # "/<token>"
    url: str
    looker: Looker
    log: Log | None
    classes: dict[str, list[str]]


def overview(context: Context, stats: Stats) -> str:
    """Return the first page: versions, fields with plots, shards."""
    looker = context.looker
    source = looker.source
    parts = [f"<p>{len(looker):,} samples, {source.num_shards:,} shards, {_size(source.nbytes)}"
             + (f", version {source.version}" if source.version is not None else "") + "</p>"]  # fmt: skip
    parts.append(f'<h2>Fields</h2><p class="soft">from {stats.num_samples:,} samples, spread over the shards</p>')
    for field in stats.fields:
        drawn = "".join(f"<figure>{plots.bars(d.labels, d.counts, f'{field.name}: {d.title}')}<figcaption>{escape(d.title)}: {escape(d.summary)}"
                        "</figcaption></figure>" for d in field.distributions)  # fmt: skip
        parts.append(f'<h3>{escape(field.name)} <span class="soft">{escape(field.kind)}</span></h3><div '
                     f'class="plots">{drawn}</div>')  # fmt: skip
    if context.log is not None:
        parts.append("<h2>Versions</h2>" + _versions(context.log, source.version))
    parts.append("<h2>Shards</h2>" + _shards(looker))
    return _page(context, "overview", "".join(parts))


def sample_page(context: Context, page: int) -> str:
    """Return a page of samples; a page beyond the last is the last."""
    looker = context.looker
    num_pages = max(1, -(-len(looker) // SAMPLES_A_PAGE))
    page = min(max(page, 0), num_pages - 1)
    first = page * SAMPLES_A_PAGE
    rows = [_row(context, row) for row in range(first, min(first + SAMPLES_A_PAGE, len(looker)))]
    links = [(0, "first"), (page - 1, "previous"), (page + 1, "next"), (num_pages - 1, "last")]
    turns = " ".join(f'<a href="{context.base}/samples/{number}">{text}</a>' for number, text in links if 0 <= number < num_pages and number != page)
    head = f'<nav class="pages">page {page + 1:,} of {num_pages:,} {turns}</nav>'
    return _page(context, f"samples {first:,} to {first + len(rows) - 1:,}", head + "".join(rows) + head)


def error_page(context: Context, message: str) -> str:
    """Return a page that says what went wrong."""
    return _page(context, "error", f"<h2>This can't be shown</h2><pre>{escape(message)}</pre>")


def _page(context: Context, title: str, body: str) -> str:
    return (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
            f"<title>{escape(title)} - {escape(context.url)}</title><style>{STYLE}</style></head><body><h1>{escape(context.url)}</h1>"
            f'<nav><a href="{context.base}/">overview</a><a href="{context.base}/samples/0">samples</a></nav>{body}</body></html>')  # fmt: skip


def _versions(log: Log, newest: int) -> str:
    rows = []
    for number in range(newest, max(-1, newest - VERSIONS_SHOWN), -1):
        entry = log.entry(number)
        moment = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(entry.time))
        added = sum(record.num_samples for record in entry.add)
        rows.append((number, entry.kind, moment, entry.producer or "", f"{len(entry.add):,}", f"{added:,}", f"{len(entry.remove):,}"))
    return _table(("version", "kind", "time (UTC)", "producer", "shards added", "samples added", "shards removed"),
                  rows, {4, 5, 6})  # fmt: skip


def _shards(looker: Looker) -> str:
    source = looker.source
    rows = [(source.url(shard), f"{int(source.num_samples[shard]):,}") for shard in range(min(source.num_shards, SHARDS_SHOWN))]
    more = source.num_shards - len(rows)
    return _table(("shard", "samples"), rows, {1}) + (f'<p class="soft">and {more:,} more</p>' if more else "")


def _table(columns: tuple[str, ...], rows: list[tuple], numeric: set[int]) -> str:
    def cell(tag: str, place: int, value: Any) -> str:
        return f'<{tag}{" class=number" if place in numeric else ""}>{escape(str(value))}</{tag}>'

    head = "".join(cell("th", place, name) for place, name in enumerate(columns))
    body = "".join(f"<tr>{''.join(cell('td', place, value) for place, value in enumerate(row))}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _row(context: Context, row: int) -> str:
    try:
        return _sample(context, context.looker.sample(row))
    except (CodecError, UnsafeFieldError) as error:
        if error.key is None:
            raise  # the block is damaged; else one sample of somebody's shard can't be decoded, and its neighbours can
        return f'<article id="row-{row}"><div class="soft">row {row:,}</div><pre>{escape(str(error))}</pre></article>'


def _sample(context: Context, sample: Sample) -> str:
    fields = "".join(f"<tr><td>{escape(name)}</td><td>{_value(context, sample.row, place, name, value)}</td></tr>"
                     for place, (name, value) in enumerate(sample.fields.items()))  # fmt: skip
    return f'<article id="row-{sample.row}"><div class="soft">row {sample.row:,} <code>{escape(sample.id)}</code></div><table>{fields}</table></article>'


def _value(context: Context, row: int, place: int, name: str, value: Any) -> str:
    if image_kind(value) is not None:
        return f'<img src="{context.base}/image/{row}/{place}" alt="{escape(name, quote=True)} of row {row}">'
    if isinstance(value, IndexSet):
        shown = " ".join(map(str, value.indices[:ELEMENTS_SHOWN].tolist())) + (" ..." if len(value.indices) > ELEMENTS_SHOWN else "")
        return f"{plots.index_set(value.indices, value.values, value.dim)}<div>{len(value.indices):,} of {value.dim:,}: <code>{shown}</code></div>"
    if isinstance(value, bytes):
        return f"{_size(len(value))} <code>{escape(repr(value[:ELEMENTS_SHOWN]))}</code>"
    if isinstance(value, np.ndarray) and value.ndim:
        text = np.array2string(value, threshold=ELEMENTS_SHOWN, edgeitems=3)
        return f'<span class="soft">{value.dtype.name}{list(value.shape)}</span> <pre>{escape(text)}</pre>'
    text = str(value)
    names = context.classes.get(name)
    if names and isinstance(value, np.ndarray) and value.dtype.kind in "iu" and 0 <= int(value) < len(names):
        text += f" ({names[int(value)]})"
    return f"<pre>{escape(text[:TEXT_SHOWN])}{' ...' if len(text) > TEXT_SHOWN else ''}</pre>"


def _size(nbytes: int) -> str:
    size = float(nbytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.95:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"

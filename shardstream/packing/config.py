"""The shape of a packing configuration, checked key by key.

===========  =====================================================================================
key          meaning
===========  =====================================================================================
source       where records come from: ``kind`` names one of ``sources.KINDS``, the rest is its own
steps        what is done to records, in order: names of ``steps.NAMES``, or dotted paths of yours
fields       what the dataset holds: field name -> the column it comes from, its kind, its classes
splits       datasets that share the records out, by a hash of each source record's key
output       the dataset's URL (``{split}`` stands for the split's name) and how its shards are cut
on_error     ``raise`` at the first record that cannot be packed, or ``skip`` and count them
rejects      with ``on_error: skip``: a file, local or remote, that gets a line of JSON for each of them
engine       who does the work: ``local`` processes, or a ``dask`` cluster; or ``kind`` names one, and the rest is its own
===========  =====================================================================================

configs/pack_text_sparse.yaml shows every key. Sources, steps and fields are open sets: a new kind
adds a module and a name, and no configuration changes its meaning.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec

from shardstream.config import parse_nbytes
from shardstream.errors import ConfigError
from shardstream.packing.document import Document

SPLIT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of what a part of the configuration is converted to: frozen, and closed to unknown keys."""


class Output(Settings):
    """Where the rows go."""

    url: str
    shard_nbytes: int | str = "64MB"
    compression: Literal["zstd"] | None = None
    if_exists: Literal["error", "append"] = "error"
    storage_options: dict[str, Any] = {}


class Splits(Settings):
    """Named shares of the source records; each record belongs to the one its key's hash falls into."""

    parts: dict[str, float]
    by: str = "key"
    seed: int = 0


class Top(Settings):
    """The configuration's own keys; what is open is converted where it is understood."""

    source: dict[str, Any]
    fields: dict[str, Any]
    output: Output
    steps: list[Any] = []
    splits: Splits | None = None
    on_error: Literal["raise", "skip"] = "raise"
    rejects: str | None = None
    engine: str | dict[str, Any] = "local"


def convert_top(document: Document) -> Top:
    """Return the checked top level of a configuration; raises :class:`ConfigError` with the place."""
    top = document.convert((), document.data, Top)
    if not top.fields:
        raise document.error(("fields",), "a dataset needs at least one field.")
    try:
        parse_nbytes(top.output.shard_nbytes)
    except ConfigError as error:
        raise document.error(("output", "shard_nbytes"), error.message) from None
    if top.rejects is not None and top.on_error != "skip":
        raise document.error(("rejects",), "needs on_error: skip; else the first record that is rejected ends the job.")
    _check_splits(document, top)
    return top


def _check_splits(document: Document, top: Top) -> None:
    placeholder = "{split}" in top.output.url
    if top.splits is None:
        if placeholder:
            raise document.error(("output", "url"), "{split} stands here, but the configuration has no splits.")
        return
    parts = top.splits.parts
    for name, share in parts.items():
        if not SPLIT.fullmatch(name):
            message = "the name of a split stands in URLs: letters, digits, '_' and '-' only, please."
            raise document.error(("splits", "parts"), message)
        if not 0 < share <= 1:
            raise document.error(("splits", "parts", name), f"a share is more than 0 and at most 1, not {share}.")
    if abs(sum(parts.values()) - 1) > 1e-9:
        raise document.error(("splits", "parts"), f"the shares add up to {sum(parts.values()):g}, not to 1.")
    if len(parts) > 1 and not placeholder:
        raise document.error(("output", "url"), "several splits need {split} in the URL, which stands for their names.")


def section(document: Document, path: tuple, value: dict, kinds: dict[str, type], what: str) -> Any:
    """Return the settings of an open section, whose ``kind`` names one of ``kinds``."""
    if "kind" not in value:
        raise document.error(path, f"the key 'kind' is missing; known {what}s: {', '.join(kinds)}.")
    if value["kind"] not in kinds:
        raise document.unknown((*path, "kind"), str(value["kind"]), list(kinds), what)
    rest = {key: inner for key, inner in value.items() if key != "kind"}
    return document.convert(path, rest, kinds[value["kind"]])

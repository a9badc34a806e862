"""What is done to records between source and dataset, by name or by dotted path.

A step gets a batch and returns one: its rows in the same order, some perhaps left out or made
several of. What it returns is a function of what it was given, so a job can share batches out; a step
that joins rows (``sequences``) joins those of one batch and carries nothing to the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from shardstream.packing.batch import Batch
from shardstream.packing.document import Document, Path
from shardstream.schema import Field


@dataclass(frozen=True)
class Column:
    """What is known of a column before any record is read.

    Attributes:
        kind: What it holds; ``None`` if that is not known.
        is_source: Whether it is still what the source gave, record by record.
    """

    kind: Field | None
    is_source: bool = False


Columns = dict[str, Column]
ANY = "*"  # this name among columns says that there may be others


class Step(Protocol):
    """What a packing job asks of a step.

    A step whose results depend on more than its settings, such as on a file that they name, has an ``identity``:
    JSON that changes with it. A job that was killed goes on only with the same.
    """

    def columns(self, before: Columns) -> Columns:
        """Return the columns after this step; raises ConfigError if one that it needs is not among them."""

    def run(self, batch: Batch) -> Batch:
        """Return the batch after this step; rows that fail are added to its ``rejects``."""


def need(document: Document, path: Path, before: Columns, name: str, wanted: type | tuple[type, ...]) -> None:
    """Raise ConfigError if a column is known to be absent, or to be of another kind."""
    if name not in before:
        if ANY in before:
            return
        raise document.unknown(path, name, list(before), "column")
    kind = before[name].kind
    if kind is not None and not isinstance(kind, wanted):
        names = [one.__name__.lower() for one in (wanted if isinstance(wanted, tuple) else (wanted,))]
        raise document.error(path, f"the column {name!r} is {type(kind).__name__.lower()}, not {' or '.join(names)}.")


# Name -> (module, stem of its classes); only what a job names is imported: the tokenizers alone take as long as packing
# 1 MB.
NAMES = {
    "normalise": ("normalise", "Normalise"), "passages": ("passages", "Passages"), "hash": ("hashing", "Hash"),
    "tokenize": ("tokenize", "Tokenize"), "sequences": ("sequences", "Sequences"), "categories": ("categories", "Categories"),
}  # fmt: skip


def build_steps(document: Document, items: list[Any]) -> list[Step]:
    """Return the steps of a configuration's list: ``name``, ``{name: settings}``, a dotted path, or a function."""
    return [_build_step(document, ("steps", index), item) for index, item in enumerate(items)]


def _build_step(document: Document, path: Path, item: Any) -> Step:
    from shardstream.packing.dotted import load
    from shardstream.packing.steps.function import FunctionStep

    if callable(item):
        return FunctionStep(item, {})
    name, settings = (
        (item, {}) if isinstance(item, str) else next(iter(item.items())) if _is_single(item) else (None, None)
    )
    if name is None:
        raise document.error(path, "a step is a name, or one name with its settings below it.")
    settings = {} if settings is None else settings
    if not isinstance(settings, dict):
        raise document.error((*path, name), f"the settings of a step are keys and values, not {settings!r}.")
    if name in NAMES:
        module = import_module(f"{__name__}.{NAMES[name][0]}")
        kind, settings_kind = (getattr(module, NAMES[name][1] + suffix) for suffix in ("Step", "Settings"))
        here = (*path, name)
        return kind(document.convert(here, settings, settings_kind), document, here)
    if "." not in name:
        raise document.unknown(path, name, list(NAMES), "step")
    function = load(document, path, name)
    if not callable(function):
        raise document.error(path, f"{name} is not a function.")
    return FunctionStep(function, settings)


def _is_single(item: Any) -> bool:
    return isinstance(item, dict) and len(item) == 1 and isinstance(next(iter(item)), str)

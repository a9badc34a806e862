"""From columns to the dataset's fields: their kinds, their arrays, and labels as class numbers.

Each field of the configuration names the column it comes from (its own name if it names none).
Its kind is what the step or source says the column holds, unless the configuration says another.
With ``classes`` the column holds labels, and the field their numbers, int64:

===============================  ================================================================
``classes``                      numbered
===============================  ================================================================
``[neg, pos]``                   in the order given; another label rejects the record
``auto``                         all labels of the source, sorted
``{min_records: 8, other: o}``   labels of at least 8 source records, sorted, then ``other`` for the rest;
                                 without ``other`` the rest is left out
``{names: [...], other: o}``     in the order given, then ``other`` for the rest
===============================  ================================================================
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from shardstream.errors import SchemaError
from shardstream.packing.config import Settings
from shardstream.packing.document import Document, Path
from shardstream.packing.steps import ANY, Columns
from shardstream.schema import KINDS, Dense, Field, Schema


class ClassSettings(Settings):
    """The keys of a field's ``classes``."""

    names: list[str] | None = None
    min_records: int = 1
    other: str | None = None


class FieldSettings(Settings):
    """The keys of a field."""

    column: str | None = msgspec.field(default=None, name="from")
    kind: str | None = None
    dtype: str | None = None
    shape: list[int] | None = None
    dim: int | None = None
    values: str | None = None
    classes: list[str] | str | dict[str, Any] | None = None


@dataclass
class Classes:
    """A numbering of labels; ``dropped`` labels leave their record out without being a mistake."""

    names: list[str]
    other: str | None = None
    dropped: frozenset[str] = frozenset()

    def __post_init__(self):
        self.numbers = {name: number for number, name in enumerate(self.names)}

    def number(self, label: str) -> int | None:
        """Return a label's number, that of ``other`` for an unknown one, or ``None``."""
        return self.numbers.get(label, self.numbers.get(self.other))


@dataclass
class FieldMap:
    """One field of the dataset and the column it is made from."""

    name: str
    column: str
    kind: Field
    classes: Classes | None = None


Peek = Callable[[str], Iterator[Any] | None]


def build_fields(
    document: Document, specs: dict[str, Any], columns: Columns, peek: Peek, recorded: dict[str, list[str]]
) -> list[FieldMap]:
    """Return the checked fields.

    Args:
        specs: The configuration's ``fields``: name -> column, or settings.
        columns: What there is after the last step.
        peek: ``peek(column)`` gives that column of every record of the source, or ``None`` if it cannot.
        recorded: Field -> names of its classes in the dataset that is appended to: numbers keep their meaning.
    """
    fields = []
    for name, spec in specs.items():
        path = ("fields", name)
        settings = (
            FieldSettings(column=spec) if isinstance(spec, str) else document.convert(path, spec or {}, FieldSettings)
        )
        column = settings.column or name
        if column not in columns and ANY not in columns:
            raise document.unknown(path, column, list(columns), "column")
        known = columns.get(column) or columns[ANY]
        classes = None
        if settings.classes is not None:
            labels = peek(column) if known.is_source else None
            classes = _build_classes(document, (*path, "classes"), settings.classes, labels, recorded.get(name))
        kind = _kind_of(document, path, settings, known.kind, classes)
        fields.append(FieldMap(name, column, kind, classes))
    try:
        Schema(**{field.name: field.kind for field in fields})
    except SchemaError as error:
        raise document.error(("fields",), error.message) from None
    return fields


def _kind_of(
    document: Document, path: Path, settings: FieldSettings, known: Field | None, classes: Classes | None
) -> Field:
    given = {name: getattr(settings, name) for name in ("dtype", "shape", "dim", "values")}
    given = {name: value for name, value in given.items() if value is not None}
    if classes is not None:
        if settings.kind is not None or given:
            raise document.error(path, "a field with classes is int64, and nothing else can be said about its kind.")
        return Dense("int64")
    if settings.kind is None:
        if given:
            raise document.error((*path, next(iter(given))), "say the field's kind, too.")
        if known is None:
            message = f"say its kind ({', '.join(KINDS)}): what its column holds is not known before it is read."
            raise document.error(path, message)
        return known
    if settings.kind not in KINDS:
        raise document.unknown((*path, "kind"), settings.kind, list(KINDS), "kind")
    settable = {field.name: field for field in dataclasses.fields(KINDS[settings.kind])}
    for name in given:
        if name not in settable:
            raise document.error((*path, name), f"a {settings.kind} field has no {name}.")
    for name, field in settable.items():
        if field.default is dataclasses.MISSING and name not in given:
            raise document.error(path, f"a {settings.kind} field needs its {name}.")
    try:
        return KINDS[settings.kind](**{**given, **({"shape": tuple(given["shape"])} if "shape" in given else {})})
    except SchemaError as error:
        raise document.error(path, error.message) from None


def _build_classes(
    document: Document, path: Path, spec: Any, labels: Iterator[Any] | None, recorded: list[str] | None
) -> Classes:
    """Return the classes that ``spec`` asks for; ``labels``, of all records, are ``None`` where not known yet."""
    if isinstance(spec, str) and spec != "auto":
        raise document.error(path, f"write auto, a list of names, or keys with values, not {spec!r}.")
    spec = {} if spec == "auto" else {"names": spec} if isinstance(spec, list) else spec
    rules = document.convert(path, spec, ClassSettings)
    dropped: set[str] = set()
    if rules.names is not None:
        names = list(rules.names)
        if len(set(names)) < len(names) or not names:
            raise document.error(path, "the names of classes are distinct, and there is at least one.")
    elif recorded is not None:
        names = list(recorded)
    elif labels is None:
        message = "the labels are not known before the records are read and the steps done; list the classes."
        raise document.error(path, message)
    else:
        counts = Counter(str(label) for label in labels)
        names = sorted(label for label, count in counts.items() if count >= rules.min_records)
        dropped = set() if rules.other is not None else set(counts) - set(names)
        if not names:
            raise document.error(path, f"none of {len(counts)} labels has {rules.min_records} records.")
    if rules.other is not None and rules.other not in names:
        names.append(rules.other)
    if recorded is not None and names != recorded:
        raise document.error(path, f"the dataset appended to has other classes: {', '.join(recorded)}.")
    return Classes(names, rules.other, frozenset(dropped))

"""Which form each field has in a batch: ``Padded``, and ``Forms``, what a stream or dataset was asked for.

Forms are those of rows, never of a batch as a whole: a row comes out the same whatever other rows are with it, so that
batches do not depend on who made their rows. ``assemble.py`` makes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import torch

from shardstream.errors import ConfigError
from shardstream.schema import DENSE_DTYPES, NAME, Bytes, Ragged, Schema, Sparse, Text

SPARSE_FORMS = ("dense", "csr", "jagged", "indices")
MAX_PADDED_LENGTH = 2**31


@dataclass(frozen=True)
class Padded:
    """The form of a ragged field whose rows have one length: a tensor ``(B, length)``, longer rows cut and shorter ones
    filled up.

    Args:
        length: Of each row.
        value: What fills up, as a pad token's id; it must be a number of the dtype that comes out.
        keep: Which part of a longer row stays: its "start" or its "end".
        pad: Where a shorter row is filled up: to its "right" or "left".
        mask: Name of a further column, bool ``(B, length)``: True where the row's own values stand. Left out, there is
            none.
    """

    length: int
    value: float = 0
    keep: str = "start"
    pad: str = "right"
    mask: str | None = None

    def __post_init__(self):
        if not isinstance(self.length, (int, np.integer)) or isinstance(self.length, bool) or not 1 <= self.length <= MAX_PADDED_LENGTH:
            raise ConfigError(f"Padded: length={self.length!r} must be an integer from 1 to {MAX_PADDED_LENGTH}.")
        if not isinstance(self.value, (Real, np.bool_)):
            raise ConfigError(f"Padded: value={self.value!r} must be a number.")
        if self.keep not in ("start", "end"):
            raise ConfigError(f"Padded: keep={self.keep!r} must be 'start' or 'end'.")
        if self.pad not in ("right", "left"):
            raise ConfigError(f"Padded: pad={self.pad!r} must be 'right' or 'left'.")
        if self.mask is not None and (not isinstance(self.mask, str) or not NAME.match(self.mask)):
            raise ConfigError(f"Padded: mask={self.mask!r} must be a name of lower-case letters, digits "
                              "and '_', a letter first.")  # fmt: skip

    def filler(self, dtype: np.dtype, field: str | None = None) -> np.ndarray:
        """Return ``value`` as one element of ``dtype``.

        Raises:
            ConfigError: The dtype has no such number.
        """
        try:
            with np.errstate(all="ignore"):
                filler = np.array([self.value]).astype(dtype)
            fits = np.isfinite(filler[0]) == np.isfinite(self.value) if dtype.kind == "f" else filler[0].item() == self.value
        except (TypeError, ValueError, OverflowError):
            fits = False
        if not fits:
            raise ConfigError(f"Padded: value={self.value!r} is no number of {dtype}, as the rows come out.",
                              field=field)  # fmt: skip
        return filler


@dataclass(frozen=True)
class Forms:
    """The forms of a stream's fields, by the arguments of these names; see :class:`ShardStream`."""

    sparse: str | Mapping[str, str] = "dense"
    ragged: str | Padded | Mapping[str, str | Padded] = "jagged"
    keyed: Mapping[str, list[str]] | None = None
    dtypes: Mapping[str, Any] | None = None

    def of(self, schema: Schema, fields: list[str]) -> Forms:
        """Return the same with an entry for each of ``fields`` that ``sparse`` and ``ragged`` are for, and dtypes by
        their names.

        Raises:
            ConfigError: A field or form is not what it should be.
        """
        keyed = _keyed(schema, fields, self.keyed or {})
        alone = [name for name in fields if not any(name in members for members in keyed.values())]
        sparse = _by_field("sparse", self.sparse, [name for name in alone if isinstance(schema[name], Sparse)], "dense")
        ragged = _by_field("ragged", self.ragged, [name for name in alone if isinstance(schema[name], Ragged)],
                           "jagged")  # fmt: skip
        columns = [*alone, *keyed, *(form.mask for form in ragged.values() if isinstance(form, Padded) and form.mask is not None)]
        twice = [name for place, name in enumerate(columns) if name in columns[:place]]
        if twice:
            raise ConfigError(f"two columns of a batch would be named {twice[0]!r}: give keyed= or mask= another name.",
                              field=twice[0])  # fmt: skip
        return Forms(sparse, ragged, keyed, _dtype_names(schema, alone, self.dtypes or {}))


def _by_field(argument: str, asked: Any, names: list[str], default: str) -> dict[str, Any]:
    """Return the form of each field that has one, from one form for all or a dict by field."""
    if not isinstance(asked, Mapping):
        _check_form(argument, asked)  # without such a field, too: a typo is one whatever the schema
        return dict.fromkeys(names, asked)
    for name, form in asked.items():
        if name not in names:
            raise ConfigError(f"{argument}= names {name!r}, which is not a {argument} field with a column of its own; "
                              f"those are {names}.", field=name)  # fmt: skip
        _check_form(argument, form, name)
    return {**dict.fromkeys(names, default), **asked}


def _check_form(argument: str, form: Any, field: str | None = None) -> None:
    if argument == "sparse" and form not in SPARSE_FORMS:
        forms = ", ".join(SPARSE_FORMS)
        raise ConfigError(f"sparse={form!r} is {f'neither one of {forms} nor a dict of them by field' if field is None else f'not one of {forms}'}.", field=field)
    if argument == "ragged" and form != "jagged" and not isinstance(form, Padded):
        raise ConfigError(f"ragged={form!r} is neither 'jagged' nor an ss.Padded.", field=field)


def _keyed(schema: Schema, fields: list[str], asked: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Return the fields of each keyed column."""
    if not isinstance(asked, Mapping) or not all(isinstance(members, (list, tuple)) for members in asked.values()):
        # a set has another order in each process
        raise ConfigError(f"keyed={asked!r} must be a dict of a column's name to the list of its fields.")
    seen: set[str] = set()
    for column, members in asked.items():
        if not isinstance(column, str) or not NAME.match(column):
            raise ConfigError(f"keyed={column!r} must be a name of lower-case letters, digits and '_', a letter first.")
        if not members:
            raise ConfigError("keyed= names no field of this column.", field=column)
        for name in members:
            field = schema[name] if name in fields else None
            if not (isinstance(field, Sparse) or (isinstance(field, Ragged) and not field.dtype.startswith(("float", "bool")))):
                ids = [one for one in fields if isinstance(schema[one], Sparse) or (isinstance(schema[one], Ragged) and "int" in schema[one].dtype)]
                raise ConfigError(f"keyed= names {name!r} for {column!r}; fields of ids are {ids}.", field=name)
            if name in seen:
                raise ConfigError(f"keyed= names {name!r} twice.", field=name)
            seen.add(name)
    return {column: list(members) for column, members in asked.items()}


def _dtype_names(schema: Schema, fields: list[str], asked: Mapping[str, Any]) -> dict[str, str]:
    if not isinstance(asked, Mapping):
        raise ConfigError(f"dtypes={asked!r} is not a dict of field to dtype.")
    names = {}
    for field, dtype in asked.items():
        if field not in fields or isinstance(schema[field], (Text, Bytes)):
            raise ConfigError(f"dtypes= names {field!r}; fields with a dtype are "
                              f"{[f for f in fields if not isinstance(schema[f], (Text, Bytes))]}.", field=field)  # fmt: skip
        if dtype is None:
            raise ConfigError("dtypes= gives None, which numpy takes for float64: leave the field out, or name the "
                              "dtype.", field=field)  # fmt: skip
        try:
            name = str(dtype).removeprefix("torch.") if isinstance(dtype, torch.dtype) else np.dtype(dtype).name
        except TypeError as error:
            raise ConfigError(f"dtypes= gives {dtype!r}, which is not a dtype.", field=field) from error
        if name not in DENSE_DTYPES:
            raise ConfigError(f"a column can't come out as {name}; dtypes are {', '.join(DENSE_DTYPES)}.", field=field)
        names[field] = name
    return names

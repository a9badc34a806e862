"""What a sample's fields are: their kinds, dtypes and shapes, checked when stated.

A schema stands in entry 0 of a dataset's log and in each shard's ``shard.json`` as a list of
field objects (docs/FORMAT.md, "Schema"). Field kinds and what a writer takes for them:

==========  ======================================  =========================================
kind        one sample (``write``)                  many samples (``write_batch``)
==========  ======================================  =========================================
``Dense``   array or number of ``shape``            array ``(num_samples, *shape)``
``Ragged``  1-D array                               ``(values, offsets)``
``Sparse``  indices, or ``(indices, values)``       ``(indices, indptr[, values])``
``Text``    ``str``                                 list of ``str``, or UTF-8 ``(values, offsets)``
``Bytes``   bytes-like                              list of bytes-like, or ``(values, offsets)``
==========  ======================================  =========================================
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from shardstream.errors import SchemaError

NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
RESERVED = {"values", "offsets", "sparse", "npy"}
DENSE_DTYPES = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
                "float16", "float32", "float64")  # fmt: skip
SPARSE_VALUE_DTYPES = ("float32", "float16", "int32")
MAX_SPARSE_DIM = 2**32
MAX_FIELD_ELEMENTS = 2**40  # a dense row beyond this is a mistake, and its nbytes could overflow


def _dtype_name(dtype: Any, allowed: tuple[str, ...], kind: str) -> str:
    try:
        name = np.dtype(dtype).name
    except TypeError as error:
        raise SchemaError(f"{kind}: {dtype!r} is not a dtype.") from error
    if name not in allowed:
        raise SchemaError(f"{kind}: dtype {name} is not one of {', '.join(allowed)}.")
    return name


@dataclass(frozen=True)
class Dense:
    """An array of one dtype and shape in each sample; a scalar by default."""

    dtype: str
    shape: tuple[int, ...] = ()
    default: Any = None

    def __post_init__(self):
        object.__setattr__(self, "dtype", _dtype_name(self.dtype, DENSE_DTYPES, "Dense"))
        shape = (self.shape,) if isinstance(self.shape, (int, np.integer)) else tuple(self.shape)
        if not all(isinstance(size, (int, np.integer)) and 0 < size for size in shape):
            raise SchemaError(f"Dense: shape {self.shape!r} must be a tuple of positive integers.")
        object.__setattr__(self, "shape", tuple(int(size) for size in shape))
        if self.default is not None:
            object.__setattr__(self, "default", _default_array(self.default, self.dtype, self.shape, "Dense").tolist())
        if self.num_elements > MAX_FIELD_ELEMENTS:
            raise SchemaError(f"Dense: shape {self.shape} has more than {MAX_FIELD_ELEMENTS} elements a sample.")

    @property
    def num_elements(self) -> int:
        """Elements in one sample's array."""
        count = 1
        for size in self.shape:
            count *= size
        return count

    def to_json(self) -> dict:
        return {"kind": "dense", "dtype": self.dtype, "shape": list(self.shape), "default": self.default}


@dataclass(frozen=True)
class Ragged:
    """A 1-D array of its own length in each sample, such as token ids."""

    dtype: str
    default: Any = None

    def __post_init__(self):
        object.__setattr__(self, "dtype", _dtype_name(self.dtype, DENSE_DTYPES, "Ragged"))
        if self.default is not None:
            array = _default_array(self.default, self.dtype, (len(self.default),), "Ragged")
            object.__setattr__(self, "default", array.tolist())

    def to_json(self) -> dict:
        return {"kind": "ragged", "dtype": self.dtype, "default": self.default}


@dataclass(frozen=True)
class Sparse:
    """A set of distinct indices in ``[0, dim)`` in each sample, optionally with a value each."""

    dim: int
    values: str | None = None
    default: Any = None

    def __post_init__(self):
        if not isinstance(self.dim, (int, np.integer)) or isinstance(self.dim, bool) or not 1 <= self.dim <= MAX_SPARSE_DIM:
            raise SchemaError(f"Sparse: dim must be an integer from 1 to {MAX_SPARSE_DIM}, not {self.dim!r}.")
        object.__setattr__(self, "dim", int(self.dim))
        if self.values is not None:
            object.__setattr__(self, "values", _dtype_name(self.values, SPARSE_VALUE_DTYPES, "Sparse values"))
        if self.default is not None:
            object.__setattr__(self, "default", self._checked_default())

    def _checked_default(self) -> list:
        """Return the default as JSON has it: ``[indices]``, or ``[indices, values]``."""
        parts = [self.default] if self.values is None else list(self.default)
        if self.values is None and len(self.default) == 1 and np.ndim(self.default[0]) == 1:
            parts = [self.default[0]]
        if len(parts) != (1 if self.values is None else 2) or len({len(part) for part in parts}) != 1:
            raise SchemaError(f"Sparse: default {self.default!r} must be indices, or (indices, values) of one length.")
        indices = _default_array(parts[0], "int64", (len(parts[0]),), "Sparse").tolist()
        if sorted(set(indices)) != indices or (indices and not 0 <= indices[0] <= indices[-1] < self.dim):
            raise SchemaError(f"Sparse: default indices {indices} must be ascending, distinct and in [0, {self.dim}).")
        values = [_default_array(part, self.values, (len(part),), "Sparse").tolist() for part in parts[1:]]
        return [indices, *values]

    def to_json(self) -> dict:
        return {"kind": "sparse", "dim": self.dim, "values": self.values, "default": self.default}


@dataclass(frozen=True)
class Text:
    """A string in each sample, stored as UTF-8."""

    default: str | None = None

    def __post_init__(self):
        if self.default is not None and not isinstance(self.default, str):
            raise SchemaError(f"Text: default {self.default!r} must be a str.")

    def to_json(self) -> dict:
        return {"kind": "text", "default": self.default}


@dataclass(frozen=True)
class Bytes:
    """A byte string in each sample, stored as it is."""

    default: bytes | None = None

    def __post_init__(self):
        if self.default is not None and not isinstance(self.default, bytes):
            raise SchemaError(f"Bytes: default {self.default!r} must be bytes.")

    def to_json(self) -> dict:
        text = None if self.default is None else base64.b64encode(self.default).decode("ascii")
        return {"kind": "bytes", "default": text}


def _default_array(default: Any, dtype: str, shape: tuple[int, ...], kind: str) -> np.ndarray:
    """Return ``default`` as an array of exactly this dtype and shape, or raise."""
    try:
        array = np.asarray(default)
        exact = array.astype(dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise SchemaError(f"{kind}: default {default!r} is not of dtype {dtype}.") from error
    if array.shape != shape:
        raise SchemaError(f"{kind}: default has shape {array.shape}, not {shape}.")
    if array.size and exact.dtype.kind in "iub" and not np.array_equal(exact, array):
        raise SchemaError(f"{kind}: default {default!r} does not fit dtype {dtype}.")
    if not np.isfinite(exact).all():
        raise SchemaError(f"{kind}: default {default!r} must be finite in dtype {dtype}; JSON, which "
                          "keeps it, has no other numbers.")  # fmt: skip
    return exact


Field = Dense | Ragged | Sparse | Text | Bytes

KINDS: dict[str, type] = {"dense": Dense, "ragged": Ragged, "sparse": Sparse, "text": Text, "bytes": Bytes}


def _field_from_json(record: Mapping) -> Field:
    arguments = {key: value for key, value in record.items() if key not in ("name", "kind")}
    kind = KINDS.get(record.get("kind"))
    if kind is None:
        raise SchemaError(f"field kind {record.get('kind')!r} is not one of {', '.join(KINDS)}.",
                          field=record.get("name"))  # fmt: skip
    if kind is Bytes and arguments.get("default") is not None:
        arguments["default"] = base64.b64decode(arguments["default"], validate=True)
    return kind(**arguments)


class Schema(Mapping):
    """An ordered, immutable mapping of field names to field kinds.

    ``ss.Schema(x=ss.Sparse(1024), y=ss.Dense("int64"))``. Names match ``[a-z][a-z0-9_]*`` and are
    none of ``values``, ``offsets``, ``sparse``, ``npy``, which name parts of a column in a shard.
    """

    def __init__(self, /, **fields: Field):
        if not fields:
            raise SchemaError("a schema needs at least one field.")
        for name, field in fields.items():
            if not NAME.match(name) or name in RESERVED:
                raise SchemaError(f"field name {name!r} must match [a-z][a-z0-9_]* and be none of {sorted(RESERVED)}.")
            if not isinstance(field, tuple(KINDS.values())):
                raise SchemaError(f"field {name!r} must be ss.Dense, Ragged, Sparse, Text or Bytes, not {field!r}.")
        self._fields = dict(fields)

    def __getitem__(self, name: str) -> Field:
        return self._fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schema) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash(repr(self.to_json()))

    def __repr__(self) -> str:
        return f"Schema({', '.join(f'{name}={field!r}' for name, field in self.items())})"

    def to_json(self) -> list[dict]:
        """Return the list of field objects that log and shards store, in field order."""
        fields = []
        for name, field in self._fields.items():
            record = {"name": name, **field.to_json()}
            if record["default"] is None:
                del record["default"]
            fields.append(record)
        return fields

    @classmethod
    def from_json(cls, records: list[Mapping]) -> Schema:
        """Return the schema of :meth:`to_json`'s list; raises :class:`SchemaError` on anything else."""
        try:
            if len({record["name"] for record in records}) != len(records):
                raise SchemaError("a field name appears twice.")
            return cls(**{record["name"]: _field_from_json(record) for record in records})
        except (TypeError, KeyError, AttributeError, ValueError, binascii.Error) as error:
            if isinstance(error, SchemaError):
                raise
            raise SchemaError(f"not a schema: {error}") from error

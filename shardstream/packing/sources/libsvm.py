"""LIBSVM text, plain or as .gz or .zst: ``label index:value index:value ...``, a sample a line.

=======  =========================================================================================
column   meaning
=======  =========================================================================================
key      the file's name and the byte at which the line begins
label    the label as it is written, such as ``+1``: what ``classes`` numbers
target   the label as a number, float32; not there for a label that is none
x        the features: a set of indices, or with ``values: float32`` their values, too
=======  =========================================================================================

What follows ``#`` is a comment. Indices are 1-based, as LIBSVM's own are, unless ``zero_based: true``.
"""

from __future__ import annotations

from typing import Literal

from shardstream.errors import SchemaError
from shardstream.packing.document import Document
from shardstream.packing.sources.files import FilesSettings
from shardstream.packing.sources.lines import BadLine, LinesSource
from shardstream.packing.steps import Column
from shardstream.schema import Dense, Sparse, Text


class LibsvmSettings(FilesSettings, kw_only=True):
    """The keys of ``source`` with ``kind: libsvm``."""

    dim: int
    zero_based: bool = False
    values: Literal["float32", "float16"] | None = None


class LibsvmSource(LinesSource):
    """The samples of files in the order of their lines; empty lines are passed over."""

    settings: LibsvmSettings

    def __init__(self, settings: LibsvmSettings, document: Document):
        try:
            x = Sparse(settings.dim, values=settings.values)
        except SchemaError as error:
            raise document.error(("source", "dim"), error.message) from None
        kinds = {"key": Text(), "label": Text(), "target": Dense("float32"), "x": x}
        self.columns = {name: Column(kind, is_source=True) for name, kind in kinds.items()}
        self._first = 0 if settings.zero_based else 1
        super().__init__(settings, document)

    def record(self, line: bytes) -> dict | None:
        try:
            words = line.partition(b"#")[0].decode("ascii").split()
        except UnicodeDecodeError as error:
            raise BadLine("not LIBSVM: bytes that are not ASCII.") from error
        if not words:
            return None
        record = {"key": None, "label": words[0]}
        try:
            record["target"] = float(words[0])
        except ValueError:
            pass
        indices, values = [], []
        for word in words[1:]:
            name, _, text = word.partition(":")
            if name == "qid":
                continue
            try:
                index, value = int(name) - self._first, float(text)
            except ValueError:
                raise BadLine(f"{word!r} is not index:value.", field="x") from None
            if not 0 <= index < self.settings.dim:
                last = self.settings.dim - 1 + self._first
                raise BadLine(f"the index {name} is not from {self._first} to {last}.", field="x")
            if self.settings.values is None and value not in (0.0, 1.0):
                raise BadLine(f"the value {text} is neither 0 nor 1: say values: float32.", field="x")
            if value != 0.0 or self.settings.values is not None:
                indices.append(index)
                values.append(value)
        record["x"] = indices if self.settings.values is None else (indices, values)
        return record

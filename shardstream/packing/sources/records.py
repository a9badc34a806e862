"""Any Python iterable of dicts; from YAML, the dotted path of one, or of a function that returns one.

The columns are whatever the dicts hold. A dict without the key column gets its number as the key.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from shardstream.errors import SampleError
from shardstream.packing.config import Settings
from shardstream.packing.document import Document
from shardstream.packing.dotted import load
from shardstream.packing.sources import Chunk
from shardstream.packing.steps import ANY, Column
from shardstream.schema import Text

PART_RECORDS = 1024


class RecordsSettings(Settings):
    """The keys of ``source`` with ``kind: records``."""

    records: Any
    key: str = "key"
    args: dict[str, Any] = {}


class RecordsSource:
    """Records in the order in which the iterable gives them."""

    columns = {"key": Column(Text(), is_source=True), ANY: Column(None, is_source=True)}
    nbytes = None

    def __init__(self, settings: RecordsSettings, document: Document):
        self.key = settings.key
        origin = settings.records
        if isinstance(origin, str):
            origin = load(document, ("source", "records"), origin)
        if settings.args and not callable(origin):
            raise document.error(("source", "args"), "only a function takes arguments.")
        self.origin: Iterable | Callable = origin
        self.args = settings.args
        if not callable(origin) and not isinstance(origin, Iterable):
            raise document.error(("source", "records"), f"neither an iterable of dicts nor a function: {origin!r}.")

    def parts(self) -> Iterator[list[tuple[int, Any]]]:
        numbered = enumerate(self._iterate())
        while part := list(itertools.islice(numbered, PART_RECORDS)):
            yield part

    def read(self, part: list[tuple[int, Any]]) -> Chunk:
        chunk = Chunk([], 0)
        for number, record in part:
            if isinstance(record, Mapping):
                chunk.records.append({**record, "key": str(record.get(self.key, number))})
            else:
                chunk.rejects.append(SampleError(f"a record is a dict, not {type(record).__name__}.", key=str(number)))
        return chunk

    def peek(self, column: str) -> Iterator[Any] | None:
        if not callable(self.origin) and iter(self.origin) is self.origin:
            return None  # an iterator can be read only once
        return (record[column] for record in self._iterate() if isinstance(record, Mapping) and column in record)

    def _iterate(self) -> Iterator[Any]:
        return iter(self.origin(**self.args) if callable(self.origin) else self.origin)

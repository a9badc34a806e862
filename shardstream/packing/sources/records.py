"""Any Python iterable of dicts; from YAML, the dotted path of one, or of a function that returns one.

The columns are whatever the dicts hold. A dict without the key column gets its number as the key.
The job's own process iterates; what is done with the records is shared out.
"""

from __future__ import annotations

import itertools
import pickle
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from shardstream.errors import ConfigError, SampleError
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


@dataclass(frozen=True)
class PickledRecords:
    """Some records as they cross to another process; their bytes tell whether they are the same as last time."""

    first: int
    data: bytes


class RecordsSource:
    """Records in the order in which the iterable gives them."""

    columns = {"key": Column(Text(), is_source=True), ANY: Column(None, is_source=True)}
    nbytes = None
    identity = "records"  # what they hold is compared part by part, as they are iterated again

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

    def __getstate__(self) -> dict:
        return {**self.__dict__, "origin": None}  # whoever reads parts has no use for it

    def parts(self) -> Iterator[PickledRecords]:
        records = self._iterate()
        for first in itertools.count(0, PART_RECORDS):
            part = list(itertools.islice(records, PART_RECORDS))
            if not part:
                return
            try:
                yield PickledRecords(first, pickle.dumps(part, pickle.HIGHEST_PROTOCOL))
            except (pickle.PicklingError, TypeError, AttributeError) as error:
                raise ConfigError(f"records from number {first} on hold what cannot be sent "
                                  f"to workers: {error}") from error  # fmt: skip

    def read(self, part: PickledRecords) -> Iterator[Chunk]:
        records, numbers, rejects = [], [], []
        for number, record in enumerate(pickle.loads(part.data), part.first):
            if isinstance(record, Mapping):
                records.append({**record, "key": str(record.get(self.key, number))})
                numbers.append(number)
            else:
                rejects.append(SampleError(f"record {number}: a record is a dict, not {type(record).__name__}.", key=str(number)))
        yield Chunk.of_records(records, len(part.data), rejects, lambda record: f"record {numbers[record]}")

    def digest(self, part: PickledRecords, before: int) -> int:
        return zlib.crc32(part.data, before)

    def peek(self, column: str) -> Iterator[Any] | None:
        if not callable(self.origin) and iter(self.origin) is self.origin:
            return None  # an iterator can be read only once
        return (record[column] for record in self._iterate() if isinstance(record, Mapping) and column in record)

    def _iterate(self) -> Iterator[Any]:
        return iter(self.origin(**self.args) if callable(self.origin) else self.origin)

"""From one part of the source to encoded blocks: the work that a job shares out.

:func:`make` is a pure function of the job and the part, so it may run anywhere, and again anywhere
else after a worker was lost. Blocks end where a part does; what comes before and after a part has
no influence on its blocks, and neither has the number of workers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from shardstream.codecs import rows
from shardstream.codecs.shard import MAX_BLOCK_NBYTES, MAX_BLOCK_SAMPLES
from shardstream.config import parse_nbytes
from shardstream.errors import SampleError
from shardstream.packing.batch import Batch
from shardstream.packing.config import Top
from shardstream.packing.document import Document
from shardstream.packing.encode import encode
from shardstream.packing.fields import FieldMap
from shardstream.packing.refusals import without_refused
from shardstream.packing.sources import Chunk, Source
from shardstream.packing.splits import split_of
from shardstream.packing.steps import Step
from shardstream.schema import Schema
from shardstream.shardfile import EncodedBlock, block_ends, encode_block

COMMON = ""  # the scope of what is counted before a record's split is known; no split has this name
WAITING_NBYTES = 8 << 20  # of a part's rows that wait for the rest of their block: bounds memory, keeps blocks even


class Reject(msgspec.Struct, frozen=True):
    """A record, or a row made of one, that could not be packed."""

    part: int
    key: str | None
    field: str | None
    message: str


class Tally(msgspec.Struct):
    """What has been counted: in one scope of one part, or in all."""

    records: int = 0
    rejected: int = 0
    dropped: int = 0
    nbytes_in: int = 0
    tokens: int = 0
    rejects: list[Reject] = []

    def add(self, other: Tally) -> None:
        """Count what another has counted, too."""
        self.records += other.records
        self.rejected += other.rejected
        self.dropped += other.dropped
        self.nbytes_in += other.nbytes_in
        self.tokens += other.tokens
        self.rejects += other.rejects


@dataclass
class Job:
    """A checked configuration, ready to run."""

    document: Document
    top: Top
    source: Source
    steps: list[Step]
    fields: list[FieldMap]

    def __getstate__(self) -> dict:
        # What goes to other machines is what a part is made with; records given from Python stay here.
        return {**self.__dict__, "top": msgspec.structs.replace(self.top, source={}, steps=[])}

    @property
    def schema(self) -> Schema:
        return Schema(**{field.name: field.kind for field in self.fields})

    @property
    def urls(self) -> dict[str, str]:
        """Split -> URL of its dataset; the one dataset of a job without splits has the name ``all``."""
        if self.top.splits is None:
            return {"all": self.top.output.url}
        return {name: self.top.output.url.replace("{split}", name) for name in self.top.splits.parts}

    @property
    def shard_nbytes(self) -> int:
        return parse_nbytes(self.top.output.shard_nbytes)


@dataclass
class Made:
    """What a part became: blocks of each split, in order, and counts of each scope."""

    blocks: dict[str, list[EncodedBlock]]
    tallies: dict[str, Tally] = field(default_factory=dict)

    def tally(self, scope: str) -> Tally:
        return self.tallies.setdefault(scope, Tally())


def make(job: Job, number: int, part: Any, wanted: Collection[str]) -> Made:
    """Return what one part becomes; only of the ``wanted`` splits.

    Raises:
        SampleError: a record cannot be packed, and the configuration says ``on_error: raise``.
        StorageError: the part could not be read.
    """
    waiting = {split: _WaitingRows(job) for split in job.urls if split in wanted}
    made = Made({split: [] for split in waiting})
    for chunk in job.source.read(part):
        common = made.tally(COMMON)
        common.nbytes_in += chunk.nbytes
        common.records += len(chunk) + len(chunk.rejects)
        _reject(job, common, number, chunk.rejects)
        for split, batch in _dealt(job, chunk, common, number):
            if split in waiting:
                waiting[split].add(_packed(job, chunk, batch, made.tally(split), number))
                made.blocks[split] += waiting[split].blocks(last=False)
    for split, left in waiting.items():
        made.blocks[split] += left.blocks(last=True)
    return made


def _packed(job: Job, chunk: Chunk, batch: Batch, tally: Tally, number: int) -> dict:
    """Return a batch's rows as parts of the schema's columns (``codecs/rows.py``)."""
    for step in job.steps:
        batch = step.run(batch)
    tally.tokens += batch.num_tokens
    _, (parts, batch, dropped) = without_refused(batch, lambda part: _fitted(job, part))
    tally.dropped += dropped
    _reject(job, tally, number, chunk.placed(batch.rejects))
    return parts


def _fitted(job: Job, batch: Batch) -> tuple[dict, Batch, int]:
    """Return a batch's rows as parts of columns, the batch without the rows that do not fit, and how many were dropped."""
    columns, batch, dropped = encode(job.fields, batch)
    return rows.check_batch(job.schema, columns)[0], batch, dropped


def _dealt(job: Job, chunk: Chunk, common: Tally, number: int) -> Iterator[tuple[str, Batch]]:
    """Give the records of each split, in their order."""
    splits = job.top.splits
    if splits is None:
        yield "all", chunk.batch()
        return
    dealt: dict[str, list[int]] = {name: [] for name in splits.parts}
    whole, values = chunk.batch(), chunk.columns.get(splits.by, [None] * len(chunk))
    for row, value in enumerate(values):
        if value is None:
            _reject(job, common, number,
                    chunk.placed([whole.reject(row, f"the record has no {splits.by!r} to split by.")]))  # fmt: skip
        else:
            dealt[split_of(str(value), splits.parts, splits.seed)].append(row)
    for split, chosen in dealt.items():
        if chosen:
            yield split, whole.take(chosen)


def _reject(job: Job, tally: Tally, number: int, rejects: list[SampleError]) -> None:
    if rejects and job.top.on_error == "raise":
        raise rejects[0]
    tally.rejected += len(rejects)
    tally.rejects += [
        Reject(number, None if reject.key is None else str(reject.key), reject.field, str(reject)) for reject in rejects
    ]


class _WaitingRows:
    """Rows of one split that are not in a block yet."""

    def __init__(self, job: Job):
        self._schema, self._compression = job.schema, job.top.output.compression
        self._max_nbytes = min(MAX_BLOCK_NBYTES, job.shard_nbytes)  # a shard ends where a block does
        self._parts: list[Mapping] = []
        self._nbytes = 0

    def add(self, parts: dict) -> None:
        self._parts.append(parts)
        self._nbytes += sum(int(rows.row_nbytes(part).sum()) for part in parts.values())

    def blocks(self, last: bool) -> Iterator[EncodedBlock]:
        """Give blocks of what waits: of all of it if that was the last, else of the full ones when much waits.

        The last ones share their rows out evenly, so that a part does not end in a stump.
        """
        if not self._parts or not (last or self._nbytes > WAITING_NBYTES):
            return
        joined = {name: _joined([parts[name] for parts in self._parts]) for name in self._schema}
        num_rows, begin = rows.num_rows(next(iter(joined.values()))), 0
        nbytes = np.sum([rows.row_nbytes(part) for part in joined.values()], axis=0)
        count = max(-(-self._nbytes // self._max_nbytes), -(-num_rows // MAX_BLOCK_SAMPLES), 1)
        ends = block_ends(nbytes, 0, 0, -(-self._nbytes // count) if last else self._max_nbytes)
        if last and num_rows > (ends[-1] if ends else 0):
            ends.append(num_rows)
        for end in ends:
            columns = {name: rows.concatenate([rows.slice_part(part, begin, end)]) for name, part in joined.items()}
            yield encode_block(self._schema, columns, end - begin, self._compression)
            begin = end
        self._parts = [{name: rows.slice_part(part, begin, num_rows) for name, part in joined.items()}]
        self._nbytes = int(nbytes[begin:].sum())


def _joined(parts: list) -> Any:
    if len(parts) == 1 or isinstance(parts[0], np.ndarray):
        return parts[0] if len(parts) == 1 else np.concatenate(parts)
    return tuple(None if arrays[0] is None else np.concatenate(arrays) for arrays in zip(*parts, strict=True))



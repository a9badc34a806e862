"""A packing job: the configuration checked, then part after part from source to shards.

Nothing is written before the whole configuration is checked. A part goes through the steps by
itself, so what comes out of it is a function of the part; rows are written in the order of parts,
and within a part in the order of its records. The datasets of all splits are committed after the
last part, or, on any error, none.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from shardstream.errors import ConfigError, EmptyDatasetError, SampleError
from shardstream.log import Log
from shardstream.packing.batch import Batch
from shardstream.packing.classes import class_names, write_classes
from shardstream.packing.config import Top, convert_top, section
from shardstream.packing.document import Document
from shardstream.packing.encode import encode
from shardstream.packing.fields import FieldMap, build_fields
from shardstream.packing.sources import Source
from shardstream.packing.sources.records import RecordsSettings, RecordsSource
from shardstream.packing.sources.text import TextSettings, TextSource
from shardstream.packing.splits import split_of
from shardstream.packing.steps import Step, build_steps
from shardstream.progress import packing_bar
from shardstream.schema import Schema
from shardstream.storage import Store
from shardstream.writer import ShardWriter

SOURCES = {"text": (TextSource, TextSettings), "records": (RecordsSource, RecordsSettings)}
REJECTS_KEPT = 20  # messages in the report; all are counted


@dataclass(frozen=True)
class PackedDataset:
    """One dataset that a job wrote to: what the job added, and what the dataset now holds."""

    url: str
    split: str | None
    version: int
    num_samples_added: int
    num_samples: int
    num_shards: int
    nbytes: int


@dataclass(frozen=True)
class PackReport:
    """What a job did."""

    datasets: list[PackedDataset]
    num_records: int
    num_rejected: int
    num_dropped: int
    rejects: list[str]
    nbytes_in: int
    seconds: float
    classes: dict[str, list[str]]


@dataclass
class Job:
    """A checked configuration, ready to run."""

    document: Document
    top: Top
    source: Source
    steps: list[Step]
    fields: list[FieldMap]

    @property
    def schema(self) -> Schema:
        return Schema(**{field.name: field.kind for field in self.fields})


def urls_of(top: Top) -> dict[str | None, str]:
    """Return split -> URL of its dataset; the one dataset of a job without splits has the name ``None``."""
    if top.splits is None:
        return {None: top.output.url}
    return {name: top.output.url.replace("{split}", name) for name in top.splits.parts}


@dataclass
class _Totals:
    records: int = 0
    rejected: int = 0
    dropped: int = 0
    nbytes_in: int = 0
    rejects: list[str] = field(default_factory=list)


def pack(config: str | os.PathLike | Mapping, overrides: Sequence[str] = (), progress: bool = True) -> PackReport:
    """Pack a source into datasets as a configuration says, and return what was done.

    Args:
        config: A YAML file, or the same as a dict, in which ``source`` may be any iterable of dicts and
            a step any function of a row.
        overrides: ``key=value`` texts such as ``"output.url=s3://bucket/name"``, applied on top.
        progress: Show a bar on standard error if that is a terminal.

    Raises:
        ConfigError: The configuration is wrong; names file, line and key. Nothing was written.
        SampleError: A record cannot be packed (and ``on_error`` is ``raise``). Nothing was committed.
        EmptyDatasetError: A split got no rows. Nothing was committed.
        StorageError: Source or output failed.
    """
    return run(prepare(load(config, overrides)), progress)


def load(config: str | os.PathLike | Mapping, overrides: Sequence[str] = ()) -> Document:
    """Return a configuration as data, with the overrides applied and variables replaced."""
    if isinstance(config, Mapping):
        config = dict(config)
        if isinstance(config.get("source"), Iterable) and not isinstance(config["source"], (Mapping, str)):
            config["source"] = {"kind": "records", "records": config["source"]}
        document = Document(_copied(config), {})
    else:
        path = os.fspath(config)
        try:
            with open(path, encoding="utf-8") as file:
                document = Document.from_yaml(file.read(), path)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ConfigError(f"cannot read the configuration {path}: {reason}.") from error
    for assignment in overrides:
        document.set(assignment)
    document.expand()
    return document


def prepare(document: Document) -> Job:
    """Check a whole configuration and list its input; writes nothing."""
    top = convert_top(document)
    kinds = {name: settings for name, (_, settings) in SOURCES.items()}
    settings = section(document, ("source",), top.source, kinds, "source")
    steps = build_steps(document, top.steps)
    source = SOURCES[top.source["kind"]][0](settings, document)
    columns = source.columns
    for step in steps:
        columns = step.columns(columns)
    recorded = {}
    if top.output.if_exists == "append":
        for url in urls_of(top).values():
            recorded |= class_names(url, top.output.storage_options or None)
    return Job(document, top, source, steps, build_fields(document, top.fields, columns, source.peek, recorded))


def run(job: Job, progress: bool = True) -> PackReport:
    """Run a job and return what it did; see :func:`pack`."""
    start, totals = time.monotonic(), _Totals()
    output = job.top.output
    _check_absent(job)
    with ExitStack() as stack:
        show = stack.enter_context(packing_bar(job.source.nbytes, progress))
        writers = {
            split: stack.enter_context(
                ShardWriter(url, schema=job.schema, shard_nbytes=output.shard_nbytes, compression=output.compression,
                            storage_options=output.storage_options or None)
            )
            for split, url in urls_of(job.top).items()
        }  # fmt: skip
        for part in job.source.parts():
            for split, columns, batch in _packed(job, part, totals):
                _write(writers[split], columns, batch)
            show(samples=sum(writer.num_samples for writer in writers.values()), nbytes_in=totals.nbytes_in,
                 nbytes_out=sum(writer.nbytes for writer in writers.values()))  # fmt: skip
        _check_filled(job, writers, totals)
        classes = {field.name: field.classes.names for field in job.fields if field.classes is not None}
        for url in urls_of(job.top).values() if classes else ():
            write_classes(Store(url, output.storage_options or None), classes)
    datasets = [_described(job, split, url, writers[split]) for split, url in urls_of(job.top).items()]
    return PackReport(datasets, totals.records, totals.rejected, totals.dropped, totals.rejects, totals.nbytes_in,
                      time.monotonic() - start, classes)  # fmt: skip


def _packed(job: Job, part: Any, totals: _Totals) -> Iterator[tuple[str | None, dict, Batch]]:
    """Give ``(split, columns to write, the batch they are of)`` of one part of the source."""
    chunk = job.source.read(part)
    totals.nbytes_in += chunk.nbytes
    totals.records += len(chunk.records) + len(chunk.rejects)
    _reject(job, chunk.rejects, totals)
    for split, records in _dealt(job, chunk.records, totals).items():
        batch = Batch.of_records(records)
        for step in job.steps:
            batch = step.run(batch)
        columns, batch, dropped = encode(job.fields, batch)
        totals.dropped += dropped
        _reject(job, batch.rejects, totals)
        if len(batch):
            yield split, columns, batch


def _dealt(job: Job, records: list[dict], totals: _Totals) -> dict[str | None, list[dict]]:
    """Return the records of each split, in their order."""
    splits = job.top.splits
    if splits is None:
        return {None: records}
    dealt: dict[str | None, list[dict]] = {name: [] for name in splits.parts}
    for record in records:
        if record.get(splits.by) is None:
            _reject(job, [SampleError(f"the record has no {splits.by!r} to split by.", key=record["key"])], totals)
        else:
            dealt[split_of(str(record[splits.by]), splits.parts, splits.seed)].append(record)
    return dealt


def _reject(job: Job, rejects: Sequence[SampleError], totals: _Totals) -> None:
    if rejects and job.top.on_error == "raise":
        raise rejects[0]
    totals.rejected += len(rejects)
    totals.rejects += [str(reject) for reject in rejects[: REJECTS_KEPT - len(totals.rejects)]]


def _write(writer: ShardWriter, columns: dict, batch: Batch) -> None:
    try:
        writer.write_batch(columns)
    except SampleError as error:
        if isinstance(error.key, int) and 0 <= error.key < len(batch):  # the writer knows rows, the user keys
            error.key = batch.columns["key"][error.key]
        raise


def _check_absent(job: Job) -> None:
    """Raise unless the output may be written to: running a job twice must not double a dataset in silence."""
    if job.top.output.if_exists == "append":
        return
    for url in urls_of(job.top).values():
        if Log(Store(url, job.top.output.storage_options or None)).exists():
            message = f"a dataset stands at {url}; write to another URL, delete it, or set if_exists: append."
            raise job.document.error(("output", "url"), message)


def _check_filled(job: Job, writers: Mapping[str | None, ShardWriter], totals: _Totals) -> None:
    for split, writer in writers.items():
        if writer.num_samples == 0:
            name = "the dataset" if split is None else f"the split {split!r}"
            first = f" The first of {totals.rejected} rejects: {totals.rejects[0]}" if totals.rejects else ""
            raise EmptyDatasetError(
                f"{name} got none of {totals.records} records, so nothing was committed.{first}",
                shard=urls_of(job.top)[split],
            )


def _described(job: Job, split: str | None, url: str, writer: ShardWriter) -> PackedDataset:
    snapshot = Log(Store(url, job.top.output.storage_options or None)).snapshot()
    return PackedDataset(url, split, snapshot.version, writer.num_samples, snapshot.num_samples, len(snapshot.shards),
                         snapshot.nbytes)  # fmt: skip


def _copied(value: Any, key: str = "") -> Any:
    """Return the value with its mappings and lists copied, all else and records shared."""
    if isinstance(value, Mapping):
        return {str(name): _copied(inner, str(name)) for name, inner in value.items()}
    return [_copied(inner) for inner in value] if type(value) is list and key != "records" else value

"""A packing job: the configuration checked, then part after part from source to shards.

Nothing is written before the whole configuration is checked. An engine makes the parts, each by
itself (``make.py``, ``engines/``); the assembly puts what they became into shards in the order of
parts, and notes each shard that stands in the store in a journal. After the last part the datasets
of all splits are published together. On any error, Ctrl-C or kill nothing is; the same call again
goes on behind the last shard that was noted.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from shardstream.errors import ConfigError, EmptyDatasetError
from shardstream.log import Log
from shardstream.packing.assembly import Assembly
from shardstream.packing.classes import class_names
from shardstream.packing.config import convert_top, section
from shardstream.packing.document import Document
from shardstream.packing.engines import build_engine
from shardstream.packing.engines.local import clean
from shardstream.packing.fields import build_fields
from shardstream.packing.journal import Journal, read_steps
from shardstream.packing.make import Job, Tally
from shardstream.packing.publish import delete_shards, publish
from shardstream.packing.sources.kinds import SOURCES
from shardstream.packing.steps import build_steps
from shardstream.progress import packing_bar
from shardstream.storage import Store
from shardstream.storage.find import write_file

logger = logging.getLogger("shardstream")
REJECTS_KEPT = 20  # messages in the report; all are counted
# What a run may change and still go on where another stopped: where and how it runs, not what comes out.
FREE_KEYS = ("engine", "on_error", "rejects")


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
    """What a job did, all its runs together; ``seconds`` are the last one's."""

    datasets: list[PackedDataset]
    num_records: int
    num_rejected: int
    num_dropped: int
    rejects: list[str]
    nbytes_in: int
    num_tokens: int
    seconds: float
    classes: dict[str, list[str]]


def pack(config: str | os.PathLike | Mapping, overrides: Sequence[str] = (), progress: bool = True,
         restart: bool = False) -> PackReport:  # fmt: skip
    """Pack a source into datasets as a configuration says, and return what was done.

    A call that was killed, interrupted or failed is gone on with by the same call: no record is
    repeated or lost, and the shards that stood are not made again. Nothing is visible before the end.

    Args:
        config: A YAML file, or the same as a dict, in which ``source`` may be any iterable of dicts and
            a step any function of a row.
        overrides: ``key=value`` texts such as ``"output.url=s3://bucket/name"``, applied on top.
        progress: Show a bar on standard error if that is a terminal.
        restart: Begin anew, and delete what an unfinished job has left at the output.

    Raises:
        ConfigError: The configuration is wrong; names file, line and key. Nothing was written. Or an
            unfinished job of another configuration or input stands at the output.
        SampleError: A record cannot be packed (and ``on_error`` is ``raise``). Nothing was committed.
        EmptyDatasetError: A split got no rows. Nothing was committed.
        WorkerError: A worker process was killed. Nothing was committed.
        StorageError: Source or output failed.
    """
    return run(prepare(load(config, overrides)), progress, restart)


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
    job = Job(document, top, source, steps, [])
    recorded = {}
    if top.output.if_exists == "append":
        for url in job.urls.values():
            recorded |= class_names(url, top.output.storage_options or None)
    job.fields = build_fields(document, top.fields, columns, source.peek, recorded)
    return job


def run(job: Job, progress: bool = True, restart: bool = False) -> PackReport:
    """Run a job, or go on with it, and return what it did; see :func:`pack`."""
    start = time.monotonic()
    stores = [Store(url, job.top.output.storage_options or None) for url in job.urls.values()]
    if restart:
        _forget(job, stores)
    journal = Journal(stores[0], fingerprint(job), stores[1:])
    if not journal.steps:
        _check_absent(job)
    for store in stores:
        clean(store)
    assembly = _made(job, journal, progress)
    publish(job, journal, assembly.records)
    rejects = sorted(assembly.tally.rejects, key=lambda reject: reject.part)
    if job.top.rejects is not None:
        lines = b"".join(msgspec.json.encode(reject) + b"\n" for reject in rejects)
        write_file(job.top.rejects, lines, job.top.output.storage_options or None)
    journal.delete()
    for store in stores:
        clean(store)
    tally = assembly.tally
    datasets = [_described(job, name, sum(r.num_samples for r in records)) for name, records in assembly.records.items()]
    classes = {field.name: field.classes.names for field in job.fields if field.classes is not None}
    messages = [reject.message for reject in rejects[:REJECTS_KEPT]]
    return PackReport(datasets, tally.records, tally.rejected, tally.dropped, messages, tally.nbytes_in,
                      tally.tokens, time.monotonic() - start, classes)  # fmt: skip


def _made(job: Job, journal: Journal, progress: bool) -> Assembly:
    """Return the assembly of all parts, with every shard in the store and the journal ended."""
    assembly = Assembly(job, journal)
    if assembly.is_complete:
        return assembly
    tasks = assembly.tasks()
    first = list(itertools.islice(tasks, 2))
    end = first[-1][0] + 1 if first else 0
    with build_engine(job, several=len(first) > 1) as engine, _noted(job, journal, assembly):
        journal.begin()  # the engine is there: from here on shards are put
        with packing_bar(job.source.nbytes, progress) as show:
            for number, made in engine.made(itertools.chain(first, tasks)):
                assembly.take(number, made, engine)
                end = number + 1
                tally = assembly.tally
                show(samples=assembly.num_samples, nbytes_in=tally.nbytes_in, nbytes_out=assembly.nbytes,
                     tokens=tally.tokens)  # fmt: skip
            _check_filled(job, assembly)
            assembly.end(end)
    return assembly


@contextmanager
def _noted(job: Job, journal: Journal, assembly: Assembly) -> Iterator[None]:
    """Say what an error or Ctrl-C leaves behind, and that nothing was published."""
    try:
        yield
    except EmptyDatasetError:  # the same job can't do better
        assembly.abandon()
        delete_shards(job, journal.steps)
        journal.delete()
        raise
    except BaseException as error:
        assembly.abandon()
        kept = sum(len(step.shards) for step in journal.steps)
        if kept:
            logger.error("%s: packing stopped by %s: nothing is visible yet; %d shards are kept. The same job again goes "
                         "on behind them, --restart (restart=True) begins anew.", next(iter(job.urls.values())),
                         type(error).__name__, kept)  # fmt: skip
        raise


def fingerprint(job: Job) -> str:
    """Return a hash of all that decides what comes out: configuration, files that it names, input, this library's
    version.
    """
    from shardstream import __version__

    config = {key: value for key, value in job.document.data.items() if key not in FREE_KEYS}
    config["source"] = {key: value for key, value in config["source"].items() if key not in ("records", "storage_options")}
    config["output"] = {key: value for key, value in config["output"].items() if key not in ("if_exists", "storage_options")}
    identities = [getattr(step, "identity", None) for step in job.steps]
    data = [__version__, config, job.schema.to_json(), job.source.identity, identities]
    text = json.dumps(data, sort_keys=True, default=lambda value: f"{value.__module__}.{value.__qualname__}")
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _forget(job: Job, stores: Sequence[Store]) -> None:
    """Delete what an unfinished job, whichever it was, has left."""
    steps = read_steps(stores[0])
    if steps:
        delete_shards(job, steps)
        journal = Journal(stores[0], steps[0].job, stores[1:])
        journal.delete()


def _check_absent(job: Job) -> None:
    """Raise unless the output may be written to: running a job twice must not double a dataset in silence."""
    options = job.top.output.storage_options or None
    for url in job.urls.values():
        log = Log(Store(url, options))
        if not log.exists():
            continue
        if job.top.output.if_exists == "append":
            log.open_or_create(job.schema)  # compares the schema, before hours of work
            continue
        message = f"a dataset stands at {url}; write to another URL, delete it, or set if_exists: append."
        raise job.document.error(("output", "url"), message)


def _check_filled(job: Job, assembly: Assembly) -> None:
    for name in assembly.empty_splits():
        which = "the dataset" if job.top.splits is None else f"the split {name!r}"
        tally: Tally = assembly.tally
        why = ""
        if tally.rejects:
            why = f" The first of {tally.rejected} rejects: {tally.rejects[0].message}"
        elif not assembly.num_samples and job.steps:
            why = " The steps made no row of any: look for what they leave out, such as passages shorter than min_chars."
        message = f"{which} got none of {tally.records} records, so nothing was committed.{why}"
        raise EmptyDatasetError(message, shard=job.urls[name])


def _described(job: Job, split: str, num_samples_added: int) -> PackedDataset:
    url = job.urls[split]
    snapshot = Log(Store(url, job.top.output.storage_options or None)).snapshot()
    return PackedDataset(url, None if job.top.splits is None else split, snapshot.version, num_samples_added,
                         snapshot.num_samples, len(snapshot.shards), snapshot.nbytes)  # fmt: skip


def _copied(value: Any, key: str = "") -> Any:
    """Return the value with its mappings and lists copied, all else and records shared."""
    if isinstance(value, Mapping):
        return {str(name): _copied(inner, str(name)) for name, inner in value.items()}
    return [_copied(inner) for inner in value] if type(value) is list and key != "records" else value

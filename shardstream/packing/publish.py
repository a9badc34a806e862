"""All that a job has packed, made visible at once; or, of a job that is given up, deleted.

A log knows one dataset, so several splits cannot be one commit. What can be done is done: no split
is published before the last shard of all stands in the store, every log is opened and claimed before
the first is appended to, and the appends follow each other without a pause; what a kill leaves undone
between two of them, the next run of the job does. Each append is by the producer ``pack:<run>``, whose
last source says whether it stands, so no run can publish twice. Class names come after the data:
nobody finds names of a dataset that is not there.
"""

from __future__ import annotations

from collections.abc import Mapping

from shardstream.log import Log, ShardRecord
from shardstream.packing.classes import write_classes
from shardstream.packing.journal import Journal, Step
from shardstream.packing.make import Job
from shardstream.publish import check_present
from shardstream.storage import Store


def producer(run: str) -> str:
    """Return the name under which a run publishes."""
    return f"pack:{run}"


def publish(job: Job, journal: Journal, records: Mapping[str, list[ShardRecord]]) -> None:
    """Commit each split's shards, in order, once however often this is called; then the names of classes."""
    stores = {split: Store(url, job.top.output.storage_options or None) for split, url in job.urls.items()}
    logs = {split: Log(store) for split, store in stores.items()}
    for log in logs.values():
        log.open_or_create(job.schema)
    run = journal.run
    claims = {split: log.claim(producer(run)) for split, log in logs.items()}
    for split, (_, last_source) in claims.items():
        if last_source is None:  # a run that was killed days ago may have put them
            check_present(stores[split], records[split], journal.newest_s())
    for split, (incarnation, last_source) in claims.items():
        if last_source is None:
            logs[split].append(records[split], producer=producer(run), incarnation=incarnation, source={"split": split})
    classes = {field.name: field.classes.names for field in job.fields if field.classes is not None}
    for store in stores.values() if classes else ():
        write_classes(store, classes)


def delete_shards(job: Job, steps: list[Step]) -> None:
    """Delete the shards of a job that is given up, but for those of splits that it has published."""
    for split, url in job.urls.items():
        store = Store(url, job.top.output.storage_options or None)
        names = [f"{record.sid}.tar" for step in steps for name, record in step.shards if name == split]
        if names and not _is_published(store, steps[0].run):
            store.delete(names)


def _is_published(store: Store, run: str) -> bool:
    log = Log(store)
    known = log.snapshot().producers.get(producer(run)) if log.exists() else None
    return known is not None and known.source is not None

"""A dataset's log: what may be committed when, what snapshots show, what is refused."""

import json
import pickle
import time

import numpy as np
import pytest

from shardstream.errors import (
    ConfigError,
    Conflict,
    DatasetError,
    DatasetNotFoundError,
    ProducerFenced,
    SchemaError,
)
from shardstream.log import Log
from shardstream.schema import Dense, Schema, Sparse
from shardstream.storage import Store
from tests.synthetic_log import record

SCHEMA = Schema(x=Sparse(1024), y=Dense("int64"))


@pytest.fixture
def log(tmp_path):
    log = Log(Store(tmp_path / "dataset"))
    log.create(SCHEMA)
    return log


def fresh(log):
    """Return a Log of the same dataset that knows nothing yet, as another process has it."""
    return Log(log.store)


def test_create_then_snapshot(log):
    """A new dataset is version 0, with its schema and no shards."""
    snapshot = fresh(log).snapshot()
    assert (snapshot.version, snapshot.schema, len(snapshot.shards), snapshot.num_samples) == (0, SCHEMA, 0, 0)
    assert fresh(log).exists()


def test_create_twice_is_a_conflict(log):
    """create() never takes over a dataset that stands."""
    with pytest.raises(Conflict):
        fresh(log).create(SCHEMA)


def test_open_or_create_checks_the_schema(log):
    """Opening with another schema is an error; with the same, the dataset as it is."""
    assert fresh(log).open_or_create(SCHEMA).dataset_id == log.snapshot().dataset_id
    for other in (Schema(x=Sparse(1025), y=Dense("int64")), Schema(x=Sparse(1024)), None):
        with pytest.raises(SchemaError):
            fresh(log).open_or_create(other)


def test_no_dataset(tmp_path):
    """A place without entry 0 has no dataset."""
    with pytest.raises(DatasetNotFoundError):
        Log(Store(tmp_path)).snapshot()
    assert not Log(Store(tmp_path)).exists()


def test_append_shows_shards_in_log_order(log):
    """Shards appear in the order committed, with their numbers and URLs."""
    records = [record(num_samples=number) for number in (3, 1, 2)]
    assert log.append(records[:2]) == 1
    assert log.append(records[2:]) == 2
    snapshot = fresh(log).snapshot()
    assert snapshot.shards.num_samples.tolist() == [3, 1, 2]
    assert snapshot.shards.entry.tolist() == [1, 1, 2]
    assert snapshot.shards.urls == [f"{log.store.url}/{each.sid}.tar" for each in records]
    assert [snapshot.shards.record(row) for row in range(3)] == records
    assert (snapshot.num_samples, snapshot.nbytes) == (6, 3 * 64_000_000)


def test_version_pins(log):
    """Every past version can be opened, and never changes."""
    for number in range(10):
        log.append([record(num_samples=number)])
    for version in range(11):
        assert fresh(log).snapshot(version).shards.num_samples.tolist() == list(range(version))
    with pytest.raises(DatasetNotFoundError, match="no version 11"):
        fresh(log).snapshot(11)


def test_two_writers_interleave(log):
    """Writers that know nothing of each other append to one sequence without loss."""
    other = fresh(log)
    versions = [writer.append([record()]) for writer in (log, other, other, log, log, other)]
    assert versions == [1, 2, 3, 4, 5, 6]
    assert len(fresh(log).snapshot().shards) == 6


def test_claim_fences_the_older_instance(log):
    """After a second claim the first instance's commit fails, and writes nothing."""
    first, _ = log.claim("p")
    log.append([record()], producer="p", incarnation=first, source=1)
    second, source = fresh(log).claim("p")
    assert source == 1
    with pytest.raises(ProducerFenced):
        log.append([record()], producer="p", incarnation=first, source=2)
    assert len(fresh(log).snapshot().shards) == 1
    fresh(log).append([record()], producer="p", incarnation=second, source={"offset": 2})
    assert fresh(log).snapshot().producers["p"].source == {"offset": 2}


def test_claim_keeps_the_last_source(log):
    """Claims and commits without a source leave the last source as it was."""
    incarnation, _ = log.claim("p")
    log.append([record()], producer="p", incarnation=incarnation, source="here")
    log.append([record()], producer="p", incarnation=incarnation)
    assert fresh(log).claim("p")[1] == "here"
    assert fresh(log).claim("q")[1] is None


@pytest.mark.parametrize("source", ["x" * 1025, {1, 2}, float("nan"), object()])
def test_source_is_a_small_json_value(log, source):
    """A source that JSON cannot give back, or above 1 kB, is refused before anything is written."""
    incarnation, _ = log.claim("p")
    before = fresh(log).snapshot().version
    with pytest.raises(ConfigError):
        log.append([record()], producer="p", incarnation=incarnation, source=source)
    assert fresh(log).snapshot().version == before


def test_schema_may_gain_fields_with_a_default(log):
    """A commit under a schema with an added default field makes it the dataset's; without a default it is an error."""
    wider = Schema(x=Sparse(1024), y=Dense("int64"), z=Dense("float32", default=0.5))
    with pytest.raises(SchemaError):
        log.append([record()], schema=Schema(x=Sparse(1024), y=Dense("int64"), z=Dense("float32")))
    log.append([record()], schema=wider)
    assert fresh(log).snapshot().schema == wider
    with pytest.raises(Conflict):
        log.append([record()], schema=SCHEMA)
    assert fresh(log).snapshot(0).schema == SCHEMA


def test_replace_keeps_the_others_in_order(log):
    """A replace entry takes shards out and puts others at the end; older versions keep theirs."""
    old = [record(num_samples=number) for number in range(5)]
    log.append(old)
    merged = record(num_samples=13)
    version = log.replace([old[1].sid, old[3].sid], [merged])
    assert fresh(log).snapshot().shards.num_samples.tolist() == [0, 2, 4, 13]
    assert fresh(log).snapshot(version - 1).shards.num_samples.tolist() == [0, 1, 2, 3, 4]


def test_replace_of_a_shard_that_is_not_live_is_a_conflict(log):
    """Two compactions of one shard cannot both win."""
    old = record()
    log.append([old])
    other = fresh(log)
    other.snapshot()
    log.replace([old.sid], [record()])
    with pytest.raises(Conflict):
        other.replace([old.sid], [record()])


def test_tags(log):
    """Tags name versions until taken away; a version that is not there, or expired, cannot be named."""
    log.append([record()])
    log.append([record()])
    log.tag("best", 1)
    assert fresh(log).snapshot().tags == {"best": 1}
    with pytest.raises(Conflict):
        log.tag("worse", 99)
    log.expire(3)
    with pytest.raises(Conflict):
        log.tag("late", 2)
    log.tag("still", 1)  # kept by the tag it had
    log.tag("best", None)
    assert fresh(log).snapshot().tags == {"still": 1}
    for name in ("1", "", "with space"):
        with pytest.raises(ConfigError):
            log.tag(name, 1)


def test_a_precondition_is_judged_by_the_newest_state(log):
    """A Log that has not looked for a while tags, replaces and expires what others have added since."""
    log.append([record()])
    added = record()
    fresh(log).append([added])
    assert log.tag("new", 2) == 3
    fresh(log).append([record()])
    assert log.replace([added.sid], [record()]) == 5
    fresh(log).append([record()])
    assert log.expire(6) == 7


def test_nothing_is_added_after_the_end(log):
    """After an end entry appends and claims are conflicts; followers can see which entry it was."""
    version = log.end()
    assert fresh(log).snapshot().ended == version
    with pytest.raises(Conflict):
        fresh(log).append([record()])
    with pytest.raises(Conflict):
        fresh(log).claim("p")


def test_time_never_runs_backwards(log, monkeypatch):
    """A writer whose clock is behind stamps its entry with its predecessor's time."""
    log.append([record()])
    newest = fresh(log).snapshot().time
    monkeypatch.setattr(time, "time", lambda: newest - 3600)
    log.append([record()])
    assert fresh(log).snapshot().time == newest


def test_adopted_shards(log):
    """A foreign shard keeps its own URL, absolute or below the dataset, and has its index in the dataset."""
    absolute = record(url="s3://elsewhere/a-000.tar", index_offset=0)
    relative = record(url="raw/b.tar", index_offset=0)
    log.append([record(), absolute, relative])
    shards = fresh(log).snapshot().shards
    assert shards.urls[1:] == ["s3://elsewhere/a-000.tar", f"{log.store.url}/raw/b.tar"]
    assert shards.index_url(1) == f"{log.store.url}/{absolute.sid}.index.json"
    assert shards.index_url(0) == shards.url(0)
    assert shards.take(np.array([0, 2])).urls == [shards.urls[0], shards.urls[2]]


def test_a_log_pickles(log):
    """A Log goes to another process as its store."""
    log.append([record()])
    assert pickle.loads(pickle.dumps(log)).snapshot().version == 1


def test_entry_is_what_followers_poll(log):
    """entry(n) is the entry, or None while it does not stand."""
    added = record()
    log.append([added])
    assert log.entry(1).add == (added,)
    assert log.entry(2) is None


def test_entry_bytes_are_plain_json(log):
    """An entry is a JSON object that says its format, number, dataset and kind."""
    incarnation, _ = log.claim("p")
    log.append([record(num_samples=9)], producer="p", incarnation=incarnation, source=[1, "a"])
    entry = json.loads(log.store.read("_log/00000000000000000002.json"))
    assert (entry["format"], entry["version"], entry["kind"], entry["source"]) == (1, 2, "append", [1, "a"])
    assert entry["add"][0]["num_samples"] == 9
    assert "url" not in entry["add"][0]


@pytest.mark.parametrize("record_fields", [{"num_samples": -1}, {"nbytes": 2**63}, {"index_crc32c": 2**32}])
def test_a_record_that_readers_would_refuse_is_not_written(log, record_fields):
    """What the log cannot take back is checked before it is put."""
    with pytest.raises(DatasetError):
        log.append([record(**record_fields)])
    assert fresh(log).snapshot().version == 0

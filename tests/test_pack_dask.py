"""Packing on Dask: a real scheduler and worker processes, one of them killed, shards straight to a real S3 server."""

import os
import signal

import pytest

import shardstream as ss
from shardstream.errors import ConfigError, SampleError, WorkerError
from shardstream.log import Log
from shardstream.packing import pack
from shardstream.packing.journal import read_steps
from shardstream.packing.sources import records as records_source
from shardstream.storage import Store
from tests.conftest import S3_VARIABLES

distributed = pytest.importorskip("distributed", reason="Dask, of the extra 'dask', is not installed")

FIELDS = {"key": None, "x": {"kind": "ragged", "dtype": "int64"}}
SPLITS = {"parts": {"train": 0.8, "held_out": 0.2}}


@pytest.fixture(scope="module")
def cluster(_s3_environment):
    """A scheduler on loopback with two worker processes, which are started again when they die and find the S3 server.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in S3_VARIABLES:
            patch.setenv(name, _s3_environment[name])
        yield from _running_cluster()


def _running_cluster():
    with distributed.LocalCluster(2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0",
                                  silence_logs=50) as cluster:  # fmt: skip
        yield cluster


def records_of(count: int) -> list[dict]:
    return [{"key": f"r{number}", "x": list(range(number % 7))} for number in range(count)]


def config_of(url, count=600, **more) -> dict:
    output = {"url": f"{url}/{{split}}", "shard_nbytes": 4000}
    return {"source": records_of(count), "fields": FIELDS, "splits": SPLITS, "output": output, **more}


def contents(url) -> list[list[tuple]]:
    """Return the rows of each shard of a dataset, in order."""
    rows = iter(ss.ShardStream(str(url), sparse="indices"))
    counts = Log(Store(str(url))).snapshot().shards.num_samples.tolist()
    return [[(row["key"], row["x"].tolist()) for row in (next(rows) for _ in range(count))] for count in counts]


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(records_source, "PART_RECORDS", 40)


def test_killed_worker_s_work_is_done_again(cluster, s3, tmp_path, small_parts):
    """A worker is killed with SIGKILL in mid-job: the datasets on S3 are those of one process, row for row, shard for
    shard.
    """
    flag = str(tmp_path / "killed")

    def kill_once(row):
        if row["key"] == "r333" and not os.path.exists(flag):
            with open(flag, "w"):
                pass
            os.kill(os.getpid(), signal.SIGKILL)
        return row

    steps = [kill_once]
    report = pack(config_of(s3.url, steps=steps, engine={"kind": "dask", "scheduler": cluster.scheduler_address}))
    assert os.path.exists(flag) and report.num_records == 600
    pack(config_of(tmp_path, steps=[kill_once], engine={"kind": "local", "workers": 1}))
    for split in SPLITS["parts"]:
        found = contents(f"{s3.url}/{split}")
        assert found == contents(tmp_path / split) and len(found) > 1
    rows = [row for split in SPLITS["parts"] for shard in contents(f"{s3.url}/{split}") for row in shard]
    assert sorted(rows) == sorted((record["key"], record["x"]) for record in records_of(600))
    assert read_steps(Store(f"{s3.url}/train")) == []


def test_failed_job_goes_on_under_another_engine(cluster, s3, tmp_path, small_parts):
    """What workers have put stays when the job fails; another run, of processes here, goes on behind it."""
    flag = str(tmp_path / "healed")

    def broken(row):
        if row["key"] == "r450" and not os.path.exists(flag):
            raise ValueError("not yet")
        return row

    engine = {"kind": "dask", "scheduler": cluster.scheduler_address}
    with pytest.raises(SampleError, match="ValueError: not yet"):
        pack(config_of(s3.url, steps=[broken], engine=engine))
    kept = {record.sid for step in read_steps(Store(f"{s3.url}/train")) for _, record in step.shards}
    assert kept and not Log(Store(f"{s3.url}/train")).exists()
    with open(flag, "w"):
        pass
    pack(config_of(s3.url, steps=[broken], engine={"kind": "local", "workers": 2}))
    sids = {url.rpartition("/")[2][:36] for split in SPLITS["parts"] for url in ss.Dataset(f"{s3.url}/{split}").shards}
    rows = [row for split in SPLITS["parts"] for shard in contents(f"{s3.url}/{split}") for row in shard]
    assert kept <= sids and sorted(rows) == sorted((record["key"], record["x"]) for record in records_of(600))


def test_step_that_is_no_function_of_its_record_is_found_out(cluster, tmp_path, small_parts):
    """A part that comes out different the second time is an error, not a shard of other rows than the log says."""
    from shardstream.packing.engines.dask import _put, _seen
    from shardstream.packing.job import load, prepare
    from shardstream.packing.make import make

    job = prepare(load(config_of(tmp_path)))
    first, second = list(job.source.parts())[:2]
    blocks = _seen(make(job, 0, first, {"train"})).blocks["train"]
    wanted = [(0, 0, blocks[0][0], blocks[0][2])]
    assert _put(job, "train", wanted, [make(job, 0, first, {"train"}).blocks["train"]]).num_samples == blocks[0][0]
    with pytest.raises(WorkerError, match="came out different"):
        _put(job, "train", wanted, [make(job, 0, second, {"train"}).blocks["train"]])
    assert list((tmp_path / "train/_pack").iterdir()) == []


def test_local_cluster(tmp_path):
    """Without a scheduler's address the job starts a cluster of its own, and ends it."""
    pack(config_of(tmp_path, count=1100, engine={"kind": "dask", "workers": 1}))
    assert sum(len(shard) for split in SPLITS["parts"] for shard in contents(tmp_path / split)) == 1100


@pytest.mark.parametrize(
    "engine, message",
    [
        ({"kind": "dask", "scheduler": "tcp://127.0.0.1:1", "workers": 2}, "engine.workers: a scheduler has its own workers"),
        ({"kind": "dask", "workers": 0}, "engine.workers: must be at least 1"),
        ({"kind": "local", "workers": 0}, "engine.workers: must be from 1 to 4096"),
        ("dusk", "engine: unknown engine 'dusk'; did you mean 'dask'"),
        ({"workers": 2}, "engine: the key 'kind' is missing"),
    ],
)
def test_wrong_engines_are_named(tmp_path, engine, message):
    """A mistake in ``engine`` is reported before anything is written."""
    with pytest.raises(ConfigError, match=message):
        pack(config_of(tmp_path, engine=engine))
    assert list(tmp_path.iterdir()) == []


def test_scheduler_that_is_not_there(tmp_path, monkeypatch):
    """An address at which nobody listens is one error with the address."""
    import dask

    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}), pytest.raises(WorkerError, match="127.0.0.1:1 cannot be"):
        pack(config_of(tmp_path, engine={"kind": "dask", "scheduler": "tcp://127.0.0.1:1"}))

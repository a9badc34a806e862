"""Packing jobs that are killed: what the next run makes of them, and what nobody ever sees of them."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import shardstream as ss
from shardstream.errors import ConfigError, EmptyDatasetError, SampleError, WorkerError
from shardstream.log import Log
from shardstream.packing import journal, make, pack
from shardstream.packing.engines import local
from shardstream.packing.sources import records as records_source
from shardstream.storage import Store

FIELDS = {"key": None, "x": {"kind": "ragged", "dtype": "int64"}}


def records_of(count: int) -> list[dict]:
    return [{"key": f"r{number}", "x": list(range(number % 7))} for number in range(count)]


def config_of(folder, count=400, **more) -> dict:
    """Return a job of two splits of unlike size, and many small shards."""
    output = {"url": str(folder / "{split}"), "shard_nbytes": 2000}
    splits = {"parts": {"train": 0.8, "held_out": 0.2}}
    return {"source": records_of(count), "fields": FIELDS, "splits": splits, "output": output, "engine": one_worker(),
            **more}  # fmt: skip


def one_worker() -> dict:
    return {"kind": "local", "workers": 1}


def contents(url) -> list[list[tuple]]:
    """Return the rows of each shard of a dataset, in order."""
    dataset = ss.Dataset(str(url))
    rows = iter(ss.ShardStream(str(url), sparse="indices"))
    counts = Log(Store(str(url))).snapshot().shards.num_samples.tolist()
    found = [[next(rows) for _ in range(count)] for count in counts]
    assert next(rows, None) is None and dataset.num_samples == sum(counts)
    return [[(row["key"], np.asarray(row["x"]).tolist()) for row in shard] for shard in found]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Cut records into parts of 16, so that small jobs have many."""
    monkeypatch.setattr(records_source, "PART_RECORDS", 16)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What the job of ``config_of`` comes to when nobody disturbs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records_source, "PART_RECORDS", 16)
        return pack_whole(tmp_path_factory.mktemp("whole"))


def pack_whole(folder, count=400) -> dict:
    pack(config_of(folder, count))
    return {split: contents(folder / split) for split in ("train", "held_out")}


def test_every_record_is_in_one_shard(whole):
    """The undisturbed job, which the tests below compare with, is itself right."""
    rows = [row for shards in whole.values() for shard in shards for row in shard]
    assert sorted(rows) == sorted((record["key"], record["x"]) for record in records_of(400))
    assert len(whole["train"]) > 4 and len(whole["held_out"]) > 1


@pytest.mark.parametrize("workers", [2, 5])
def test_any_number_of_workers_makes_the_same_shards(tmp_path, whole, workers):
    """The same rows are in the same shards in the same order, whoever made them."""
    pack(config_of(tmp_path, engine={"kind": "local", "workers": workers}))
    assert {split: contents(tmp_path / split) for split in whole} == whole


def killed_at(operation: int, after: bool, folder, count=400) -> bool:
    """Run the job in a process that kills itself with SIGKILL at its n-th change of the store; False if it got through.
    """

    def work():
        done = 0

        def counted(method):
            def call(*arguments, **options):
                nonlocal done
                done += 1
                mine = done == operation
                if mine and not after:
                    os.kill(os.getpid(), signal.SIGKILL)
                result = method(*arguments, **options)
                if mine:
                    os.kill(os.getpid(), signal.SIGKILL)
                return result

            return call

        for name in ("put_bytes", "put_file", "put_if_absent", "delete"):
            setattr(Store, name, counted(getattr(Store, name)))
        pack(config_of(folder, count))

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(60)
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def test_killed_at_any_change_of_the_store_the_next_run_finishes_the_job(tmp_path):
    """Whichever write, publication or deletion is the last before SIGKILL: nothing is lost, doubled or visible too
    early.
    """
    operation, seen = 1, 0
    whole = pack_whole(tmp_path / "whole", count=70)
    while True:
        folder = tmp_path / str(operation)
        if not killed_at(operation, operation % 2 == 0, folder, count=70):
            break
        before = [split for split in whole if Log(Store(str(folder / split))).exists()]
        for split in before:  # if a log stands, the data is all there or none of it
            assert ss.Dataset(str(folder / split)).num_samples in (0, sum(map(len, whole[split])))
        seen += len(before) > 0
        if journal.read_steps(Store(str(folder / "train"))) or not before:
            report = pack(config_of(folder, count=70))
            assert report.num_records == 70 and report.num_rejected == 0
        assert {split: contents(folder / split) for split in whole} == whole
        assert not (folder / "train/_pack").exists() or not journal.read_steps(Store(str(folder / "train")))
        operation += 1
    assert operation > 20 and seen > 3


def test_killed_again_and_again(tmp_path, whole):
    """Runs that each die a few writes further still come to the same datasets."""
    rng = random.Random(7)
    for _ in range(40):
        if not killed_at(rng.randint(8, 30), rng.random() < 0.5, tmp_path):
            break
    else:
        pack(config_of(tmp_path))
    assert {split: contents(tmp_path / split) for split in whole} == whole


def test_failed_run_goes_on_behind_its_shards(tmp_path, whole, monkeypatch, caplog):
    """After an error in the middle, parts whose rows all stand in shards are not made again; nothing was visible."""
    made = []
    real = make.make

    def failing(job, number, part, wanted):
        made.append((number, wanted))
        if number == 20 and len(made) < 22:
            raise SampleError("no", key="r320")
        return real(job, number, part, wanted)

    monkeypatch.setattr("shardstream.packing.engines.local.make", failing)
    with pytest.raises(SampleError):
        pack(config_of(tmp_path))
    assert "nothing is visible yet" in caplog.text and not Log(Store(str(tmp_path / "train"))).exists()
    made.clear()
    made += [(0, set())] * 22
    pack(config_of(tmp_path))
    assert {split: contents(tmp_path / split) for split in whole} == whole
    again = made[22:]
    assert again[0][0] > 10 and again[-1][0] == 24 and len(again) < 14
    assert len([number for number, wanted in again if "train" in wanted]) <= len(again)


def test_rejects_are_counted_once_over_all_runs(tmp_path, monkeypatch):
    """Rejects of parts that a killed run has left behind are in the report and the rejects file, once and in order."""
    records = [{"key": f"r{n}", "x": "bad" if n % 10 == 3 else [n]} for n in range(400)]
    more = {"source": records, "on_error": "skip", "rejects": str(tmp_path / "rejects.jsonl")}
    real, calls = make.make, []

    def failing(job, number, part, wanted):
        calls.append(number)
        if len(calls) == 20:
            raise RuntimeError("lost")
        return real(job, number, part, wanted)

    monkeypatch.setattr("shardstream.packing.engines.local.make", failing)
    with pytest.raises(RuntimeError):
        pack(config_of(tmp_path, **more))
    assert calls and not (tmp_path / "rejects.jsonl").exists()
    report = pack(config_of(tmp_path, **more))
    assert report.num_records == 400 and report.num_rejected == 40 and len(report.rejects) == 20
    lines = [json.loads(line) for line in (tmp_path / "rejects.jsonl").read_text().splitlines()]
    assert sorted(line["key"] for line in lines) == sorted(f"r{n}" for n in range(3, 400, 10))
    assert [line["part"] for line in lines] == sorted(line["part"] for line in lines)
    assert all(line["field"] == "x" and "its shape is" in line["message"] for line in lines)


def interrupted(config, monkeypatch, at=20) -> None:
    """Run a job up to a part that fails."""
    real = make.make

    def failing(job, number, part, wanted):
        if number == at:
            raise RuntimeError("lost")
        return real(job, number, part, wanted)

    with monkeypatch.context() as patch:
        patch.setattr("shardstream.packing.engines.local.make", failing)
        with pytest.raises(RuntimeError):
            pack(config)


def test_another_job_is_not_mixed_into_an_unfinished_one(tmp_path, monkeypatch):
    """Another configuration, or other records, at the same output: an error says so; --restart begins anew."""
    interrupted(config_of(tmp_path), monkeypatch)
    with pytest.raises(ConfigError, match="unfinished packing job .* --restart"):
        pack({**config_of(tmp_path), "fields": {"key": None}})
    other = config_of(tmp_path)
    other["source"][5] = {"key": "r5", "x": [9, 9]}
    with pytest.raises(ConfigError, match="records are not those .* --restart"):
        pack(other)
    with pytest.raises(ConfigError, match="records are not those .* --restart"):
        pack({**config_of(tmp_path), "source": records_of(20)})
    shards = set((tmp_path / "train").glob("*.tar"))
    pack(other, restart=True)
    assert shards and not shards & set((tmp_path / "train").glob("*.tar"))
    assert ("r5", [9, 9]) in [row for split in ("train", "held_out") for shard in contents(tmp_path / split) for row in shard]


def test_two_runs_of_one_job_cannot_both_go_on(tmp_path, monkeypatch):
    """The run that is overtaken stops at its next step, and the other's work stands."""
    interrupted(config_of(tmp_path), monkeypatch)
    real, second = journal.Journal.append, []

    def overtaken(self, **fields):
        if not second:
            second.append(True)
            pack(config_of(tmp_path))
            Store(str(tmp_path / "train")).put_if_absent(journal.name_of(len(self.steps)), b"{}")  # and a third begins
        return real(self, **fields)

    monkeypatch.setattr(journal.Journal, "append", overtaken)
    with pytest.raises(ss.errors.Conflict, match="another run of this job is at work"):
        pack(config_of(tmp_path))
    assert sum(map(len, contents(tmp_path / "train"))) + sum(map(len, contents(tmp_path / "held_out"))) == 400


def test_empty_split_leaves_nothing(tmp_path):
    """A job that can't succeed deletes its shards and its journal."""
    config = {**config_of(tmp_path), "splits": {"parts": {"train": 0.9999999, "held_out": 0.0000001}}}
    with pytest.raises(EmptyDatasetError, match="the split 'held_out' got none of 400 records"):
        pack(config)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def kill_self(row):
    if row["key"] == "r100":
        os.kill(os.getpid(), signal.SIGKILL)
    return row


def test_killed_worker_is_an_error_that_says_what_to_do(tmp_path):
    """A worker that the kernel kills ends the job with one line; the processes of the others are gone."""
    config = config_of(tmp_path, steps=[kill_self], engine={"kind": "local", "workers": 2})
    with pytest.raises(WorkerError, match="run the job again"):
        pack(config)
    assert multiprocessing.active_children() == []


JOB = """
import sys, time
from shardstream.packing import pack
from shardstream.packing.sources import records

records.PART_RECORDS = 16

def rows(count):
    for number in range(count):
        yield {"key": f"r{number}", "x": list(range(number % 7))}

def slow(row):
    time.sleep(0.004)
    return row

fields = {"key": None, "x": {"kind": "ragged", "dtype": "int64"}}
pack({"source": {"kind": "records", "records": rows, "args": {"count": 400}}, "steps": [slow], "fields": fields,
      "output": {"url": sys.argv[1], "shard_nbytes": 2000}, "engine": {"kind": "local", "workers": 2}})
"""


def processes_of(folder) -> list[int]:
    """Return the processes whose command line names the folder."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline") as file:
                found += [int(pid)] if str(folder) in file.read() else []
        except OSError:
            pass
    return found


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_process_killed_at_random_times(tmp_path, how):
    """kill -9 or Ctrl-C of the whole job, workers and all: no worker stays, and the runs together pack each record
    once.
    """
    (tmp_path / "job.py").write_text(JOB)
    url = tmp_path / "out"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    rng, killed, begun = random.Random(int(how)), 0, False
    for _ in range(20):
        job = subprocess.Popen([sys.executable, str(tmp_path / "job.py"), str(url)], env=environment,
                               stderr=subprocess.PIPE)  # fmt: skip
        end = time.monotonic() + 60
        while not begun and not list(url.glob("_pack/0*.json")) and job.poll() is None and time.monotonic() < end:
            time.sleep(0.01)  # the first kill comes when there is something to go on from
        begun = True
        if killed < 3:
            time.sleep(rng.uniform(0.0, 0.4) if killed else 0.0)
            job.send_signal(how)
        _, error = job.communicate(timeout=60)
        if job.returncode == 0:
            break
        killed += 1
        assert not Log(Store(str(url))).exists()
        if how == signal.SIGINT and begun and b"Traceback" in error:
            assert b"KeyboardInterrupt" in error
    end = time.monotonic() + 10
    while processes_of(tmp_path) and time.monotonic() < end:
        time.sleep(0.05)
    assert killed >= 1 and processes_of(tmp_path) == []
    rows = [row for shard in contents(url) for row in shard]
    assert rows == [(record["key"], record["x"]) for record in records_of(400)]
    assert sorted(path.name for path in url.iterdir() if not path.name.endswith(".tar")) == ["_log"]


class _NeverDone:
    """A shard on its way that is only known to have arrived when its result is asked for: the queue stays full."""

    def __init__(self, future):
        self.result = future.result

    def done(self) -> bool:
        return False


@pytest.mark.parametrize("after", [False, True])
def test_interrupted_at_a_step_no_later_shard_is_noted(tmp_path, whole, monkeypatch, after):
    """Ctrl-C (or an error) while a step is written: shards behind it are not noted past it, so the next run loses none.
    """
    real_append, real_finish = journal.Journal.append, local.LocalShard.finish
    monkeypatch.setattr(local.LocalShard, "finish", lambda self: _NeverDone(real_finish(self)))
    for at in (1, 2, 7, 15):
        calls = []

        def interrupted_append(self, calls=calls, at=at, **fields):
            calls.append(fields)
            if len(calls) == at and not after:
                raise KeyboardInterrupt
            real_append(self, **fields)
            if len(calls) == at:
                raise KeyboardInterrupt

        folder = tmp_path / str(at)
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(journal.Journal, "append", interrupted_append)
            pack(config_of(folder))
        pack(config_of(folder))
        assert {split: contents(folder / split) for split in whole} == whole

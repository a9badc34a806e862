"""``shardstream bench``: what is measured adds up, and the advice names what bounds."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

import shardstream as ss
from shardstream.bench import limits
from shardstream.bench.advice import TEXTS, advice, bounding_stage, settings
from shardstream.bench.run import Measured, _cpu_seconds, measure
from shardstream.bench.trace import Trace
from shardstream.cli import main
from shardstream.source import open_source
from shardstream.stats import SECONDS, Stats


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> str:
    url = str(tmp_path_factory.mktemp("bench"))
    with ss.ShardWriter(url, schema=ss.Schema(x=ss.Sparse(256), y=ss.Dense("int64"))) as writer:
        writer.write_batch({"x": (np.tile(np.arange(10), 5000), np.arange(5001) * 10), "y": np.arange(5000)})
    return url


def stream(url: str, **options) -> ss.ShardStream:
    return ss.ShardStream(url, batch_size=100, shuffle=True, epochs=None, **options)


def test_what_is_measured_adds_up(dataset):
    """Rows, batches and stored bytes are those received in the time; the stages of the loop fit into it."""
    # A limit below twice the dataset, so that its blocks are not kept from epoch to epoch.
    found = measure(stream(dataset, read=ss.ReadPolicy(memory_limit="500kB")), seconds=0.3)
    assert found.num_samples == 100 * found.num_batches > 0 and found.seconds >= 0.3
    assert found.samples_per_s == found.num_samples / found.seconds
    passes = found.num_samples / 5000
    nbytes = ss.Dataset(dataset).nbytes
    assert max(0, passes - 3) * nbytes / 2 < found.nbytes_read <= (passes + 3) * nbytes
    assert sum(found.stages[name] for name in ("wait_for_blocks", "gather", "transform", "wait_for_consumer")) <= found.seconds * 1.05
    assert all(found.stages[name] > 0 for name in ("fetch", "verify", "decode", "gather"))
    assert found.peak_nbytes > 50e6 and found.first_batch_s > 0 and found.cpu_s >= 0


def test_a_step_is_the_consumers_time(dataset):
    found = measure(stream(dataset), seconds=0.3, step_s=0.02)
    assert found.stages["wait_for_consumer"] >= 0.02 * (found.num_batches - 1) * 0.9
    assert bounding_stage(found, 1e9)[0] == "consumer"


def test_what_the_first_batch_took_is_no_part_of_the_stages(dataset):
    """Opening and the first window are in ``first_batch_s``, and in nothing that was measured after."""
    calls = []

    @ss.batched
    def slow_at_first(columns):
        calls.append(None)
        if len(calls) == 1:
            time.sleep(0.5)
        return columns

    found = measure(stream(dataset, transform=slow_at_first), seconds=0.05)
    assert found.first_batch_s >= 0.5 and found.stages["transform"] <= found.seconds < 0.5


def test_the_cpu_time_is_that_of_the_reading_alone(dataset):
    """Not what the process has taken before."""
    begun = time.process_time()
    found = measure(stream(dataset), seconds=0.05)
    assert begun > 0.5 and found.cpu_s <= time.process_time() - begun + 0.02  # it comes in ticks of 10 ms


def test_the_cpu_time_of_worker_processes_counts():
    """Theirs is no part of this process's own before they have ended."""
    code = "import sys, time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\nsys.stdin.read()"
    begun, own = _cpu_seconds(), time.process_time()
    child = subprocess.Popen([sys.executable, "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdout.readline()
    assert 0.25 <= _cpu_seconds() - begun - (time.process_time() - own) < 1
    child.communicate()


def test_a_stream_that_ends_is_an_error(dataset):
    with pytest.raises(ss.ConfigError, match="ended after 50 batches"):
        measure(ss.ShardStream(dataset, batch_size=100), seconds=60)
    with pytest.raises(ss.ConfigError, match="must be positive"):
        measure(stream(dataset), seconds=0)


def made_up(num_workers: int = 0, nbytes_read: int = 0, **stages: float) -> Measured:
    return Measured(10.0, 0.1, 1000, 10, nbytes_read, 1.0, 10**8, num_workers,
                    stages={**dict.fromkeys(SECONDS, 0.0), **stages})  # fmt: skip


@pytest.mark.parametrize("stage, found", [
    ("consumer", made_up(wait_for_consumer=8)), ("gather", made_up(gather=6, wait_for_blocks=1)), ("transform", made_up(transform=6, gather=3)),
    ("fetch at the limit", made_up(wait_for_blocks=8, fetch=15, nbytes_read=900_000_000)),
    ("fetch below the limit", made_up(wait_for_blocks=8, fetch=15, nbytes_read=200_000_000)),
    ("decode", made_up(wait_for_blocks=8, fetch=3, verify=2, decode=2)), ("hand over", made_up(2, hand_over=9, gather=5)),
    ("gather", made_up(gather=6, wait_for_consumer=3)), ("gather", made_up(2, gather=15, hand_over=9)),
    ("transform", made_up(2, transform=18, hand_over=3, wait_for_workers=5)), ("rest", made_up(wait_for_blocks=1.5, gather=0.7)),
    ("rest", made_up(2, wait_for_blocks=2, gather=0.7)), ("rest", made_up(2, wait_for_workers=7, gather=1, hand_over=2)), ("rest", made_up(gather=3, wait_for_blocks=1, fetch=2, nbytes_read=900_000_000)),
])  # fmt: skip
def test_the_stage_that_bounds_is_named(stage, found):
    """Each kind of stream gets the advice that fits, with its figures."""
    assert bounding_stage(found, 1e8)[0] == stage
    line = advice(found, "16 parallel GETs", 1e8, dict.fromkeys(("less", "fewer", "more"), "some setting"))
    assert "{" not in line and "\n" not in line and line.split(" ")[0] == TEXTS[stage].split(" ")[0]


@pytest.mark.parametrize("url, schema, fields, sparse, has, has_not", [
    ("/d/a.tar", None, None, "dense", "schema 3GB threads=", "dtypes= sparse= sparse compression= cache_dir= requests"),
    ("s3://b/a.tar", None, None, "dense", "cache_dir= requests 3GB", "dtypes= sparse= sparse compression= threads="),
    ("/d/a.tar", ss.Schema(x=ss.Sparse(9), y=ss.Dense("int64")), None, "dense", 'sparse="jagged" dtypes= compression= threads=', "cache_dir= schema"),
    ("/d/a.tar", ss.Schema(x=ss.Sparse(9), y=ss.Dense("int64")), ["y"], "dense", "dtypes= compression=", "sparse="),
    ("s3://b/a.tar", ss.Schema(x=ss.Sparse(9), y=ss.Dense("int64")), None, "csr", "dtypes= cache_dir= 3GB", "sparse= threads="),
])  # fmt: skip
def test_advice_names_settings_that_the_source_has(url, schema, fields, sparse, has, has_not):
    """Not those of columns for the files layout, of sets for data without any, or of a store for a disk."""
    source = SimpleNamespace(schema=schema, is_remote="://" in url)
    lines = " ".join(settings(source, fields, sparse, "3GB").values())
    assert all(word in lines for word in has.split()) and not any(word in lines for word in has_not.split())


def test_limits_are_measured(dataset, s3):
    assert limits.memcpy_rate() > 1e7
    assert limits.read_rate(open_source(dataset))[0] == "page cache"
    with ss.ShardWriter(f"{s3.url}/d", schema=ss.Schema(y=ss.Dense("int64")),
                        storage_options=s3.storage_options) as writer:  # fmt: skip
        writer.write_batch({"y": np.arange(100_000)})
    what, rate = limits.read_rate(open_source(f"{s3.url}/d", None, s3.storage_options), s3.storage_options)
    assert "parallel GETs" in what and rate > 0


def test_a_trace_ends_at_a_limit(dataset, monkeypatch, tmp_path):
    """A reading that goes on for hours does not fill memory and disk with what it took."""
    monkeypatch.setattr("shardstream.bench.trace.MAX_EVENTS", 20)
    with Trace() as trace:
        found = measure(stream(dataset), seconds=0.1)
    assert found.num_batches > 20 <= trace.write(tmp_path / "trace.json") < 20 + len(SECONDS)


def test_no_more_is_read_for_a_limit_than_is_needed(dataset, monkeypatch):
    """Of a store whose shards are as large as they like."""
    read = []
    monkeypatch.setattr(limits, "MAX_NBYTES", 5000)
    monkeypatch.setattr(limits.Fetcher, "read", lambda _, url, begin, end, allocate: read.append((begin, end, len(allocate(None)))))
    assert limits.read_rate(open_source(dataset))[0] == "page cache" and set(read) == {(0, 5000, 5000)}
    monkeypatch.undo()
    read.clear()

    class Store:
        def __init__(self, storage_options):
            pass

        def identify(self, url):
            return 10**9, None

        def read(self, url, begin, end):
            read.append((url, begin, end))

    monkeypatch.setattr(limits, "Fetcher", Store)
    source = SimpleNamespace(num_samples=[1] * 50, num_shards=50, url=lambda number: f"s3://b/{number}.tar")
    assert limits.read_rate(source)[0] == "16 parallel GETs"
    warm_up, *measured = read
    assert warm_up[2] - warm_up[1] <= 4096 and len(set(measured)) == len(measured)
    assert limits.MAX_NBYTES / 2 <= sum(end - begin for _, begin, end in measured) <= limits.MAX_NBYTES


def test_a_trace_has_each_stage_of_each_batch(dataset, tmp_path):
    """Events are complete, inside the traced time, and those of one thread do not overlap."""
    begun = time.perf_counter()
    with Trace() as trace:
        measure(stream(dataset), seconds=0.1)
    traced_s = time.perf_counter() - begun
    assert Stats.watch is None and trace.write(tmp_path / "trace.json") > 10
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    spans = [event for event in events if event["ph"] == "X"]
    assert {"fetch", "verify", "decode", "gather"} <= {event["name"] for event in spans} <= set(SECONDS)
    assert all(event["dur"] >= 0 and -1e4 < event["ts"] <= event["ts"] + event["dur"] <= traced_s * 1e6 for event in spans)
    for thread in {event["tid"] for event in spans}:
        own = sorted((event["ts"], event["ts"] + event["dur"]) for event in spans if event["tid"] == thread)
        assert all(end <= begin + 1 for (_, end), (begin, _) in itertools.pairwise(own))
    assert {event["tid"] for event in spans} <= {event["tid"] for event in events if event["ph"] == "M"}


def test_the_command_prints_figures_and_one_line_of_advice(dataset, tmp_path, capfd):
    assert main(["bench", dataset, "--seconds", "0.2", "--plot", str(tmp_path / "b.png"), "--trace", str(tmp_path / "t.json")]) == 0
    out, err = capfd.readouterr()
    assert "samples/s" in out and out.count("advice: ") == 1 and "memcpy" in out and err == ""
    assert (tmp_path / "b.png").read_bytes().startswith(b"\x89PNG") and json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    assert main(["bench", dataset, "--seconds", "0.1", "--json", "--field", "y", "--in-order"]) == 0
    report = json.loads(capfd.readouterr().out)
    assert report["num_samples"] > 0 and report["limits"]["read"] == "page cache" and report["advice"]


def test_every_option_reaches_the_stream(monkeypatch, capfd):
    """As it was given, and by default as the help says."""
    asked = {}

    def measured(*arguments):
        asked["measured"] = arguments
        raise ss.ConfigError("this is enough.")

    monkeypatch.setattr("shardstream.stream.ShardStream", lambda url, **options: asked.update(options, url=url))
    monkeypatch.setattr("shardstream.bench.run.measure", measured)
    options = ("--batch-size 7 --num-workers 3 --seconds 5 --step-ms 20 --in-order --field x --field y --sparse csr --memory-limit 2GB --threads 4 "
               "--cache-dir cache --version 9")  # fmt: skip
    assert main(["bench", "URL", *options.split()]) == 2
    assert asked == {"url": "URL", "batch_size": 7, "shuffle": False, "epochs": None, "fields": ["x", "y"], "sparse": "csr", "version": "9",
                     "cache_dir": "cache", "read": ss.ReadPolicy(memory_limit="2GB", threads=4), "measured": (None, 3, 5.0, 0.02)}  # fmt: skip
    assert main(["bench", "URL"]) == 2
    assert asked == {"url": "URL", "batch_size": 256, "shuffle": True, "epochs": None, "fields": None, "sparse": "dense", "version": None,
                     "cache_dir": None, "read": ss.ReadPolicy(memory_limit="1GB"), "measured": (None, 0, 10.0, 0.0)}  # fmt: skip
    assert "this is enough" in capfd.readouterr().err


@pytest.mark.parametrize("arguments, status", [(["nowhere"], 1), (["DATASET", "--seconds", "-1"], 2), (["DATASET", "--seconds", "nan"], 2), (["DATASET", "--sparse", "bits"], 2), (["DATASET", "--field", "z"], 2)])
def test_mistakes_are_one_line(dataset, capfd, arguments, status):
    assert main(["bench", *(dataset if argument == "DATASET" else argument for argument in arguments)]) == status
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1


@pytest.mark.parametrize(("option", "name"), [("--plot", "p.gif"), ("--plot", "none/p.png"), ("--trace", "none/t.json")])
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_measured(dataset, tmp_path, capsys, option, name):
    """--plot takes PNG files only, and both take files in folders that there are."""
    assert main(["bench", str(dataset), "--seconds", "1000", option, str(tmp_path / name)]) == 2
    assert option in capsys.readouterr().err
